"""Xception (Chollet, 2017) as its PyTorch port defines it: no padding in the first two convolutions, 2048 features."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers
from msddf_jax.models.layers import Linear
from msddf_jax.models.tap import Tap

# Of the ImageNet weights, and of DeepfakeBench.
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.5, 0.5, 0.5)


class Variant(NamedTuple):
    """Channels of the stem's two convolutions, the three entry blocks, the last block and the last two convolutions;
    number of middle blocks, which keep the last entry block's channels."""

    stem: tuple
    entry: tuple
    middle: int
    exit: tuple


# Mu is for tests.
VARIANTS = {
    "xception": Variant((32, 64), (128, 256, 728), 8, (1024, 1536, 2048)),
    "Mu": Variant((8, 16), (16, 24), 1, (32, 40, 48)),
}


class BlockPlan(NamedTuple):
    """One block: channels after each of its separable convolutions, stride, whether a ReLU comes first."""

    widths: tuple
    stride: int
    first_relu: bool


def block_plans(variant) -> list[BlockPlan]:
    """The `BlockPlan` of every block, in order; block_1 is the first. Raises ValueError for an unknown variant."""
    _, entry, middle, (last, _, _) = layers.get_variant(VARIANTS, variant, "Xception")
    plans = [BlockPlan((width, width), 2, index > 0) for index, width in enumerate(entry)]
    plans += [BlockPlan((entry[-1],) * 3, 1, True)] * middle
    return [*plans, BlockPlan((entry[-1], last), 2, True)]


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output, in their order.

    "stem" after both convolutions, "block_1" to "block_12", "sep_3" and "sep_4" after the last two convolutions; all
    but the blocks' after a ReLU. The stem has no padding, so maps may be smaller than the image over the stride.
    """
    (_, second), _, _, exit_widths = layers.get_variant(VARIANTS, variant, "Xception")
    out, stride = {"stem": (second, 2)}, 2
    for number, plan in enumerate(block_plans(variant), 1):
        stride *= plan.stride
        out[f"block_{number}"] = (plan.widths[-1], stride)
    return out | {f"sep_{n}": (width, stride) for n, width in zip((3, 4), exit_widths[1:], strict=True)}


class SeparableConv(nn.Module):
    """3x3 depthwise convolution, then a linear map of the channels: [B, H, W, C] -> [B, H, W, features]."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x) -> jax.Array:
        x = conv.Depthwise(3, dtype=self.dtype, name="depthwise")(x)
        return Linear(self.features, self.dtype, conv.HE_NORMAL, use_bias=False, name="pointwise")(x)


class Block(nn.Module):
    """Separable convolutions beside a skip connection, which is a linear map where size or channels change."""

    plan: BlockPlan
    dtype: Any

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        widths, stride, first_relu = self.plan
        y = x
        for index, width in enumerate(widths):
            if index or first_relu:
                y = jax.nn.relu(y)
            y = SeparableConv(width, self.dtype, name=f"sep_{index}")(y)
            y = layers.batch_norm(train, self.dtype, f"norm_{index}")(y)
        if stride != 1:
            y = conv.max_pool(y, 3, stride, padding=1)
        if stride == 1 and x.shape[-1] == widths[-1]:
            return x + y
        skip = x[:, ::stride, ::stride]
        skip = Linear(widths[-1], self.dtype, conv.HE_NORMAL, use_bias=False, name="skip")(skip)
        return layers.batch_norm(train, self.dtype, "skip_norm")(skip) + y


class Xception(nn.Module):
    """Xception without its classifier.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, at least 32; published at 299, in DeepfakeBench at 256.
      dtype: compute dtype; parameters and BatchNorm statistics stay float32.
      pixel_mean, pixel_std: of each channel, what the weights were trained with.
      in_channels: of the input; other than 3, see `layers.normalized`.

    There is no dropout: neither the ImageNet port nor DeepfakeBench's configuration has one.
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
          dict: feature [B, 2048] float32, the mean of spatial; spatial [B, h, w, 2048] in `dtype`, after the last
          ReLU, 8 x 8 at 256 and 10 x 10 at 299; stages, the maps that `stages` lists, in `dtype`.

        Raises:
          ValueError: unknown variant; images of another size or rank. TypeError: images that are not floating point.
        """
        (first, second), _, _, exit_widths = layers.get_variant(VARIANTS, self.variant, "Xception")
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        x = conv.normalized(images, self.image_size, *pixels, "Xception", in_channels=self.in_channels)
        x = conv.conv(first, 3, self.dtype, "conv_1", stride=2)(x)
        x = jax.nn.relu(layers.batch_norm(train, self.dtype, "norm_1")(x))
        x = conv.conv(second, 3, self.dtype, "conv_2")(x)
        x = jax.nn.relu(layers.batch_norm(train, self.dtype, "norm_2")(x))
        stages = {"stem": x}
        for number, plan in enumerate(block_plans(self.variant), 1):
            x = stages[f"block_{number}"] = Block(plan, self.dtype, name=f"block_{number}")(x, train)
        for number, width in zip((3, 4), exit_widths[1:], strict=True):
            x = SeparableConv(width, self.dtype, name=f"sep_{number}")(x)
            x = stages[f"sep_{number}"] = jax.nn.relu(layers.batch_norm(train, self.dtype, f"norm_{number}")(x))
        x = Tap(name="tap")(x)
        return {"feature": conv.global_mean(x), "spatial": x, "stages": stages}
