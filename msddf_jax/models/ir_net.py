"""IR-50, the "improved residual" network of face recognition, with the head of SDD-FIQA: how good a face image is.

SDD-FIQA (Ou et al., CVPR 2021) regresses a quality that it found from a recogniser's similarities; its ResNet-50-style
network is the "IR" one of ArcFace's PyTorch ports: 24 blocks of two convolutions (the name counts 50 layers).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers
from msddf_jax.models.layers import Linear

# Of its inputs: 2 x - 1.
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.5, 0.5, 0.5)
# Targets were the similarity distances of its training set, moved to the range from 0 to this.
SCORE_RANGE = 100.0


class Variant(NamedTuple):
    """Channels and number of blocks of the four stages, each of which halves the side in its first block."""

    widths: tuple
    depths: tuple


# Mu is for tests.
VARIANTS = {
    "IR-50": Variant((64, 128, 256, 512), (3, 4, 14, 3)),
    "Mu": Variant((8, 16, 16, 24), (1, 2, 1, 1)),
}


def block_plans(variant, variants=None) -> list[tuple[int, int, int]]:
    """(channels before, channels after, stride) of every block. Raises ValueError for an unknown variant.

    variants: {name: Variant}, None for `VARIANTS`.
    """
    widths, depths = layers.get_variant(variants or VARIANTS, variant, "IR network")
    before, plans = widths[0], []
    for width, depth in zip(widths, depths, strict=True):
        plans += [(before, width, 2)] + [(width, width, 1)] * (depth - 1)
        before = width
    return plans


class PRelu(nn.Module):
    """max(x, 0) + slope * min(x, 0), a slope for each entry of the last axis."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],), jnp.float32).astype(self.dtype)
        return jnp.where(x >= 0, x, slope * x)


class Block(nn.Module):
    """Norm, 3x3 convolution, PReLU, 3x3 convolution with the stride, norm; beside it a skip connection.

    The skip connection picks every stride-th pixel, and is a linear map and a norm where the channels change.
    inner: insightface's form (iResNet), with one more norm before the PReLU, and that map wherever the side changes.
    """

    width: int
    stride: int
    dtype: Any
    inner: bool = False

    @nn.compact
    def __call__(self, x, train=False) -> jax.Array:
        norm = lambda name: layers.batch_norm(train, self.dtype, name)
        y = norm("norm_1")(x)
        y = conv.conv(self.width, 3, self.dtype, "conv_1", padding=1)(y)
        y = PRelu(self.dtype, name="prelu")(norm("norm_inner")(y) if self.inner else y)
        y = conv.conv(self.width, 3, self.dtype, "conv_2", stride=self.stride, padding=1)(y)
        y = norm("norm_2")(y)
        skip = x[:, :: self.stride, :: self.stride]
        if x.shape[-1] != self.width or (self.inner and self.stride != 1):
            skip = Linear(self.width, self.dtype, conv.HE_NORMAL, use_bias=False, name="skip")(skip)
            skip = norm("skip_norm")(skip)
        return y + skip


def stem(x, width, dtype, train=False) -> jax.Array:
    """First layers of the network that calls it: 3x3 convolution, norm, PReLU; [B, H, W, C] -> [B, H, W, width]."""
    x = conv.conv(width, 3, dtype, "stem", padding=1)(x)
    return PRelu(dtype, name="stem_prelu")(layers.batch_norm(train, dtype, "stem_norm")(x))


def flatten(x) -> jax.Array:
    """[B, H, W, C] -> [B, C H W] float32, channels first, as published weights and slopes are laid."""
    return x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1).astype(jnp.float32)


class QualityNet(nn.Module):
    """IR network + SDD-FIQA's head, for scoring: norms take their running statistics, dropout does nothing.

    Attributes:
      variant: a name in `VARIANTS`. image_size: side of the square input in pixels; published at 112.
      dtype: compute dtype; parameters and statistics stay float32.
    """

    variant: str = "IR-50"
    image_size: int = 112
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images) -> jax.Array:
        """Scores of a batch.

        Args:
          images: [B, image_size, image_size, 3] float, RGB in [0, 1]; normalised here. Trained on faces aligned by
            ArcFace's template, without a margin.

        Returns:
          [B] float32, higher is better, about 0 to `SCORE_RANGE`.

        Raises:
          ValueError: unknown variant; images of another size or rank. TypeError: images that are not floating point.
        """
        plans = block_plans(self.variant)
        x = conv.normalized(images, self.image_size, PIXEL_MEAN, PIXEL_STD, self.dtype, "the IR network")
        x = stem(x, plans[0][0], self.dtype)
        for index, (_, width, stride) in enumerate(plans):
            x = Block(width, stride, self.dtype, name=f"block_{index}")(x)
        return Linear(1, name="out")(PRelu(name="head_prelu")(flatten(x)))[:, 0]
