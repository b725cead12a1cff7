"""What the convolutional backbones share: input, convolutions padded as PyTorch pads, pooling. NHWC.

Padding is always given in pixels: "SAME" with a stride pads the other way round than PyTorch does.
"""

import functools
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import layers

SMALLEST_IMAGE = 32
# He et al. (2015). A depthwise kernel [k, k, 1, C] has k * k inputs for each output, hence "fan_in" there.
HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
HE_NORMAL_DEPTHWISE = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def normalized(images, image_size, mean, std, dtype, name, *, in_channels=3) -> jax.Array:
    """`layers.normalized`, for an `image_size` that the strides do not use up: at least 32, else ValueError."""
    if image_size < SMALLEST_IMAGE:
        raise ValueError(f"{name} needs an image_size of at least {SMALLEST_IMAGE}, got {image_size}")
    return layers.normalized(images, image_size, mean, std, dtype, name, in_channels=in_channels)


def symmetric(pad) -> tuple[tuple[int, int], tuple[int, int]]:
    """The same number of pixels on all four sides, as `lax` takes it."""
    return ((pad, pad), (pad, pad))


def conv(
    features, size, dtype, name, *, stride=1, padding=0, dilation=1, kernel_init=HE_NORMAL, use_bias=False
) -> nn.Conv:
    """Convolution of side `size`; `padding`: pixels on each side, or ((top, bottom), (left, right))."""
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=symmetric(padding) if isinstance(padding, int) else padding,
        kernel_dilation=dilation,
        use_bias=use_bias,
        dtype=dtype,
        kernel_init=kernel_init,
        name=name,
    )


def max_pool(x, size, stride, padding=0) -> jax.Array:
    """Largest value in windows of side `size`; [B, H, W, C], incomplete windows dropped as PyTorch drops them.

    On a CPU the largest of shifted images, one loop to XLA; equal values in a window share the gradient there.
    """
    windows = functools.partial(
        nn.max_pool, window_shape=(size, size), strides=(stride, stride), padding=symmetric(padding)
    )
    shifted = functools.partial(_max_of_shifted, size=size, stride=stride, padding=padding)
    return jax.lax.platform_dependent(x, cpu=shifted, default=windows)


def _max_of_shifted(x, size, stride, padding):
    padded = jnp.pad(x, ((0, 0), *symmetric(padding), (0, 0)), constant_values=-jnp.inf)
    return functools.reduce(jnp.maximum, shifted_images(padded, size, stride))


def shifted_images(x, size, stride) -> Iterator[jax.Array]:
    """What each place of a window of side `size` sees of [B, H, W, C], row by row: size * size of [B, H', W', C]."""
    batch, rows, columns, channels = x.shape
    for i in range(size):
        for j in range(size):
            end = (batch, rows - size + i + 1, columns - size + j + 1, channels)
            yield jax.lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1))


def global_mean(x) -> jax.Array:
    """[B, H, W, C] -> [B, C] float32."""
    return x.astype(jnp.float32).mean((1, 2))


class Depthwise(nn.Module):
    """Depthwise convolution without bias, [B, H, W, C] -> [B, H', W', C]; parameter `kernel` [size, size, 1, C].

    A sum of shifted images, each times its weight, in float32: XLA makes one loop of it, and a grouped convolution
    of XLA's on a CPU takes between five and sixty times as long.

    Attributes:
      size: side of the kernel. stride: of the output. padding: ((top, bottom), (left, right)) pixels of zeros.
      dtype: of the result.
    """

    size: int
    stride: int = 1
    padding: tuple = ((1, 1), (1, 1))
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x) -> jax.Array:
        kernel = self.param("kernel", HE_NORMAL_DEPTHWISE, (self.size, self.size, 1, x.shape[-1]), jnp.float32)
        padded = jnp.pad(x, ((0, 0), *self.padding, (0, 0))).astype(jnp.float32)
        total, weights = 0.0, kernel.reshape(self.size**2, -1)
        for weight, image in zip(weights, shifted_images(padded, self.size, self.stride), strict=True):
            total = total + weight * image
        return total.astype(self.dtype)
