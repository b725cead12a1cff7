"""ResNet (He et al., 2016): ResNet-34 and ResNet-50, as torchvision and timm define them."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers
from msddf_jax.models.layers import Linear
from msddf_jax.models.tap import Tap

# Of the ImageNet weights; DeepfakeBench gives its ResNet-34 mean and deviation 0.5.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class Variant(NamedTuple):
    """Channels and number of blocks of the four stages; whether these are bottlenecks, which give four times them."""

    widths: tuple
    depths: tuple
    bottleneck: bool = False


# Mu is for tests.
VARIANTS = {
    "resnet34": Variant((64, 128, 256, 512), (3, 4, 6, 3)),
    "resnet50": Variant((64, 128, 256, 512), (3, 4, 6, 3), True),
    "Mu": Variant((8, 16, 24, 32), (1, 2, 1, 1)),
}


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output, in their order.

    "stem" after the max-pool; "stage_1" to "stage_4", torchvision's layer1 to layer4.
    """
    widths, _, bottleneck = layers.get_variant(VARIANTS, variant, "ResNet")
    times = 4 if bottleneck else 1
    return {"stem": (widths[0], 4)} | {f"stage_{n}": (times * width, 2 << n) for n, width in enumerate(widths, 1)}


class Block(nn.Module):
    """Two 3x3 convolutions beside a skip connection, which is a linear map where size or channels change."""

    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        y = conv.conv(self.width, 3, self.dtype, "conv_1", stride=self.stride, padding=1)(x)
        y = jax.nn.relu(layers.batch_norm(train, self.dtype, "norm_1")(y))
        y = conv.conv(self.width, 3, self.dtype, "conv_2", padding=1)(y)
        y = layers.batch_norm(train, self.dtype, "norm_2")(y)
        if self.stride != 1 or x.shape[-1] != self.width:
            x = x[:, :: self.stride, :: self.stride]
            x = Linear(self.width, self.dtype, conv.HE_NORMAL, use_bias=False, name="skip")(x)
            x = layers.batch_norm(train, self.dtype, "skip_norm")(x)
        return jax.nn.relu(x + y)


class Bottleneck(nn.Module):
    """Convolutions of side 1, 3 and 1 beside a skip connection as in `Block`: -> 4 * width channels.

    The stride is the middle one's, as in torchvision; the paper has it in the first.
    """

    width: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        norm = lambda name: layers.batch_norm(train, self.dtype, name)
        point = lambda features, name: Linear(features, self.dtype, conv.HE_NORMAL, use_bias=False, name=name)
        y = jax.nn.relu(norm("norm_1")(point(self.width, "conv_1")(x)))
        y = conv.conv(self.width, 3, self.dtype, "conv_2", stride=self.stride, padding=1)(y)
        y = norm("norm_3")(point(4 * self.width, "conv_3")(jax.nn.relu(norm("norm_2")(y))))
        if self.stride != 1 or x.shape[-1] != 4 * self.width:
            x = norm("skip_norm")(point(4 * self.width, "skip")(x[:, :: self.stride, :: self.stride]))
        return jax.nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet without its classifier.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, at least 32; published at 224, in DeepfakeBench at 256.
      dtype: compute dtype; parameters and BatchNorm statistics stay float32.
      pixel_mean, pixel_std: of each channel, what the weights were trained with.
      in_channels: of the input; other than 3, see `layers.normalized`.
    """

    variant: str
    image_size: int
    dtype: Any = jnp.float32
    pixel_mean: tuple = PIXEL_MEAN
    pixel_std: tuple = PIXEL_STD
    in_channels: int = 3

    @nn.compact
    def __call__(self, images, *, train=False) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Features of a batch.

        Args:
          images: [B, image_size, image_size, in_channels] float, RGB in [0, 1]; normalised here.
          train: BatchNorm takes the batch's statistics and updates the running ones (collection batch_stats).

        Returns:
          dict: feature [B, 512] float32, of ResNet-50 [B, 2048], the mean of spatial; spatial [B, h, w, 512] in
          `dtype`, 8 x 8 at 256; stages, the maps that `stages` lists, in `dtype`.

        Raises:
          ValueError: unknown variant; images of another size or rank. TypeError: images that are not floating point.
        """
        widths, depths, bottleneck = layers.get_variant(VARIANTS, self.variant, "ResNet")
        block = Bottleneck if bottleneck else Block
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        x = conv.normalized(images, self.image_size, *pixels, "ResNet", in_channels=self.in_channels)
        x = conv.conv(widths[0], 7, self.dtype, "conv_1", stride=2, padding=3)(x)
        x = jax.nn.relu(layers.batch_norm(train, self.dtype, "norm_1")(x))
        x = conv.max_pool(x, 3, 2, padding=1)
        stages = {"stem": x}
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
            for index in range(depth):
                stride = 2 if stage > 1 and index == 0 else 1
                x = block(width, stride, self.dtype, name=f"stage_{stage}_{index}")(x, train)
            stages[f"stage_{stage}"] = x
        x = Tap(name="tap")(x)
        return {"feature": conv.global_mean(x), "spatial": x, "stages": stages}
