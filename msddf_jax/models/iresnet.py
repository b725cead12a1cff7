"""iResNet, insightface's network of ArcFace (Deng et al., 2019): whose face it is, as a vector of 512 numbers.

Blocks are those of `ir_net` with a norm more (Duta et al., "Improved Residual Networks", 2020); their name counts three
layers a block where there are two. Source: recognition/arcface_torch of github.com/deepinsight/insightface, whose
published files hold a backbone.pth each (ms1mv3_arcface_r50_fp16, glint360k_cosface_r100_fp16_0.1 and so on).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, ir_net, layers
from msddf_jax.models.layers import Linear
from msddf_jax.models.tap import Tap

# Of its inputs: 2 x - 1.
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.5, 0.5, 0.5)
# Numbers of an embedding; side of the image that a published file is for.
WIDTH, IMAGE_SIZE = 512, 112
# Pixels of the image to one of the last map, a side.
STRIDE = 16

# Mu is for tests.
VARIANTS = {
    "iresnet50": ir_net.Variant((64, 128, 256, 512), (3, 4, 14, 3)),
    "iresnet100": ir_net.Variant((64, 128, 256, 512), (3, 13, 30, 3)),
    "Mu": ir_net.Variant((8, 16, 16, 24), (1, 2, 1, 1)),
}


def block_plans(variant) -> list[tuple[int, int, int]]:
    """(channels before, channels after, stride) of every block. Raises ValueError for an unknown variant."""
    return ir_net.block_plans(variant, VARIANTS)


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output: stem, blocks, last norm."""
    plans, stride = block_plans(variant), 1
    out = {"stem": (plans[0][0], 1)}
    for index, (_, width, step) in enumerate(plans):
        stride *= step
        out[f"block_{index}"] = (width, stride)
    return out | {"norm": (plans[-1][1], stride)}


class IResNet(nn.Module):
    """iResNet with its embedding.

    Attributes:
      variant: a name in `VARIANTS`. image_size: side of the square input in pixels, at least 32; published at 112.
      dtype: compute dtype; parameters and BatchNorm statistics stay float32.
      pixel_mean, pixel_std: of each channel, what the weights were trained with.
      in_channels: of the input; other than 3, see `layers.normalized`.
      embed: whether it ends with the embedding, which fits images of one size alone.
      tapped: whether explanations read its map: of one network in a model (`tap.Tap`).

    There is no dropout: the published rates are 0.
    """

    variant: str
    image_size: int = IMAGE_SIZE
    dtype: Any = jnp.float32
    pixel_mean: tuple = PIXEL_MEAN
    pixel_std: tuple = PIXEL_STD
    in_channels: int = 3
    embed: bool = True
    tapped: bool = True

    @nn.compact
    def __call__(self, images, *, train=False) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Embeddings of a batch.

        Args:
          images: [B, image_size, image_size, in_channels] float, RGB in [0, 1]; normalised here. Published ones were
            trained on faces aligned by ArcFace's template, without a margin.
          train: BatchNorm takes the batch's statistics and updates the running ones (collection batch_stats).

        Returns:
          dict: feature [B, 512] float32, the embedding, of any length; without `embed` the mean of spatial; spatial
          [B, h, w, 512] in `dtype`, after the last norm, 7 x 7 at 112; stages, the maps that `stages` lists, in
          `dtype`.

        Raises:
          ValueError: unknown variant; images of another size or rank. TypeError: images that are not floating point.
        """
        plans = block_plans(self.variant)
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        x = conv.normalized(images, self.image_size, *pixels, "iResNet", in_channels=self.in_channels)
        x = ir_net.stem(x, plans[0][0], self.dtype, train)
        maps = {"stem": x}
        for index, (_, width, stride) in enumerate(plans):
            name = f"block_{index}"
            x = maps[name] = ir_net.Block(width, stride, self.dtype, inner=True, name=name)(x, train)
        x = layers.batch_norm(train, self.dtype, "norm")(x)
        x = maps["norm"] = Tap(name="tap")(x) if self.tapped else x
        feature = conv.global_mean(x)
        if self.embed:
            feature = Linear(WIDTH, name="embedding")(ir_net.flatten(x))
            feature = layers.batch_norm(train, jnp.float32, "embedding_norm")(feature)
        return {"feature": feature, "spatial": x, "stages": maps}
