"""Xception (Chollet, 2017) as its PyTorch port defines it: no padding in the first two convolutions, 2048 features."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv
from msddf_jax.models.clip import Linear
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


def block_plans(variant):
    """The `BlockPlan` of every block, in order; block_1 is the first. Raises ValueError for an unknown variant."""
    _, entry, middle, (last, _, _) = conv.get_variant(VARIANTS, variant, "Xception")
    plans = [BlockPlan((width, width), 2, index > 0) for index, width in enumerate(entry)]
    plans += [BlockPlan((entry[-1],) * 3, 1, True)] * middle
    return [*plans, BlockPlan((entry[-1], last), 2, True)]


class SeparableConv(nn.Module):
    """3x3 depthwise convolution, then a linear map of the channels: [B, H, W, C] -> [B, H, W, features]."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x):
        x = conv.Depthwise(3, dtype=self.dtype, name="depthwise")(x)
        return Linear(self.features, self.dtype, conv.HE_NORMAL, use_bias=False, name="pointwise")(x)


class Block(nn.Module):
    """Separable convolutions beside a skip connection, which is a linear map where size or channels change."""

    plan: BlockPlan
    dtype: Any

    @nn.compact
    def __call__(self, x, train):
        widths, stride, first_relu = self.plan
        y = x
        for index, width in enumerate(widths):
            if index or first_relu:
                y = jax.nn.relu(y)
            y = SeparableConv(width, self.dtype, name=f"sep_{index}")(y)
            y = conv.batch_norm(train, self.dtype, f"norm_{index}")(y)
        if stride != 1:
            y = conv.max_pool(y, 3, stride, padding=1)
        if stride == 1 and x.shape[-1] == widths[-1]:
            return x + y
        skip = x[:, ::stride, ::stride]
        skip = Linear(widths[-1], self.dtype, conv.HE_NORMAL, use_bias=False, name="skip")(skip)
        return conv.batch_norm(train, self.dtype, "skip_norm")(skip) + y


class Xception(nn.Module):
    """Xception without its classifier.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, at least 32; published at 299, in DeepfakeBench at 256.
      dtype: compute dtype; parameters and BatchNorm statistics stay float32.
      pixel_mean, pixel_std: of each channel, what the weights were trained with.

    There is no dropout: neither the ImageNet port nor DeepfakeBench's configuration has one.
    """

    variant: str
    image_size: int
    dtype: Any = jnp.float32
    pixel_mean: tuple = PIXEL_MEAN
    pixel_std: tuple = PIXEL_STD

    @nn.compact
    def __call__(self, images, *, train=False):
        """Features of a batch.

        Args:
          images: [B, image_size, image_size, 3] float, RGB in [0, 1]; normalised here.
          train: BatchNorm takes the batch's statistics and updates the running ones (collection batch_stats).

        Returns:
          dict: feature [B, 2048] float32, the mean of spatial; spatial [B, h, w, 2048] in `dtype`, after the last
          ReLU, 8 x 8 at 256 and 10 x 10 at 299.

        Raises:
          ValueError: unknown variant; images of another size or rank. TypeError: images that are not floating point.
        """
        (first, second), _, _, exit_widths = conv.get_variant(VARIANTS, self.variant, "Xception")
        x = conv.normalized(images, self.image_size, self.pixel_mean, self.pixel_std, self.dtype, "Xception")
        x = conv.conv(first, 3, self.dtype, "conv_1", stride=2)(x)
        x = jax.nn.relu(conv.batch_norm(train, self.dtype, "norm_1")(x))
        x = conv.conv(second, 3, self.dtype, "conv_2")(x)
        x = jax.nn.relu(conv.batch_norm(train, self.dtype, "norm_2")(x))
        for number, plan in enumerate(block_plans(self.variant), 1):
            x = Block(plan, self.dtype, name=f"block_{number}")(x, train)
        for number, width in zip((3, 4), exit_widths[1:], strict=True):
            x = SeparableConv(width, self.dtype, name=f"sep_{number}")(x)
            x = jax.nn.relu(conv.batch_norm(train, self.dtype, f"norm_{number}")(x))
        x = Tap(name="tap")(x)
        return {"feature": conv.global_mean(x), "spatial": x}
