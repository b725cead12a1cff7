"""What the model families share: look-up of sizes, input, linear maps, normalisation, the transformer's MLP."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# CLIP's, and PyTorch's default.
LAYER_NORM_EPS = 1e-5
MLP_RATIO = 4


def get_variant(variants: Mapping[str, Any], name: str, family: str) -> tuple:
    """The sizes called `name` of a family's table.

    Raises:
      ValueError: there are none of that name; the message lists the known ones.
    """
    if name not in variants:
        raise ValueError(f"unknown {family} variant {name!r}; known: {', '.join(variants)}")
    return variants[name]


def normalized(images, image_size, mean, std, dtype, name, *, in_channels=3) -> jax.Array:
    """Images as a backbone's first layer sees them.

    Three channels are RGB in [0, 1] and are normalised. Any other number is the detector's own input: it is taken as it
    is, unless `mean` and `std` have that many entries.

    Args:
      images: [B, image_size, image_size, in_channels] float. image_size: of the backbone.
      mean, std: of each channel. dtype: of the result. name: of the backbone, for messages.

    Returns:
      [B, image_size, image_size, in_channels] in `dtype`.

    Raises:
      ValueError: images of another size or rank; `mean` and `std` that fit neither 3 nor `in_channels` channels.
      TypeError: images that are not floating point.
    """
    if images.ndim != 4 or images.shape[1:] != (image_size, image_size, in_channels):
        raise ValueError(
            f"{name} was built for images [B, {image_size}, {image_size}, {in_channels}], got {list(images.shape)}"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"images must be float in [0, 1], got {images.dtype}")
    given = (len(mean), len(std))
    if given == (in_channels, in_channels):
        return ((images.astype(jnp.float32) - np.float32(mean)) / np.float32(std)).astype(dtype)
    if given != (3, 3) or in_channels == 3:
        raise ValueError(
            f"{name} has {in_channels} input channels; pixel_mean and pixel_std have {given[0]} and {given[1]} entries"
        )
    return images.astype(dtype)


def embed_patches(images, kernel, dtype) -> jax.Array:
    """Images [B, H, W, C] cut into patches and projected by a kernel [patch, patch, C, d]: [B, N, d], row-major."""
    patch, _, channels, width = kernel.shape
    batch, grid = images.shape[0], images.shape[1] // patch
    # A convolution whose stride is its size is a matrix product of cut-out patches.
    patches = images.reshape(batch, grid, patch, grid, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    tokens = patches.reshape(batch * grid * grid, -1) @ kernel.reshape(-1, width).astype(dtype)
    return tokens.reshape(batch, grid * grid, width)


def as_grid(tokens, prefix=0) -> jax.Array:
    """Tokens [B, prefix + g * g, d] to a map [B, g, g, d], without the first `prefix`."""
    batch, count, width = tokens.shape
    side = round((count - prefix) ** 0.5)
    return tokens[:, prefix:].reshape(batch, side, side, width)


def remat_block(block, remat, remat_mlp, static_argnums=()) -> Callable[..., nn.Module]:
    """A tower's block class that keeps its activations for the backward pass, or computes them again in it.

    Args:
      block: class with the field `remat_mlp`, whose feed-forward half is called by `feed_forward`.
      remat: keeps each block's input alone: a forward pass more.
      remat_mlp: keeps what attention needs, and computes the LayerNorm, the first product and the activation of the
        MLP again: of what a block keeps beside attention's scores four tenths less, for a third of a forward pass more.
      static_argnums: of `nn.remat`, for `remat`.

    Raises:
      ValueError: both.
    """
    if remat and remat_mlp:
        raise ValueError("remat computes whole blocks again, remat_mlp their MLPs alone: set one of the two")
    if remat:
        return nn.remat(block, static_argnums=static_argnums)
    return functools.partial(block, remat_mlp=remat_mlp)


def feed_forward(block, x, half, again) -> jax.Array:
    """`half(block, x)`, the feed-forward half of a transformer block; `again`: computed again in the backward pass."""
    return (nn.remat(half) if again else half)(block, x)


class Linear(nn.Module):
    """Affine map of the last axis; parameters `kernel` [in, out] and `bias` [out] float32.

    Leading axes are merged first: CPUs run one 2-D product, and its weight gradient, faster than a batched
    one.
    """

    features: int
    dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x) -> jax.Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        y = x.reshape(-1, x.shape[-1]).astype(self.dtype) @ kernel.astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


def layer_norm(dtype, name=None, epsilon=LAYER_NORM_EPS) -> nn.LayerNorm:
    """LayerNorm over the last axis, by default with CLIP's epsilon: statistics in float32, output in `dtype`."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


def batch_norm(train, dtype, name, *, epsilon=1e-5, momentum=0.9) -> nn.BatchNorm:
    """BatchNorm over all axes but the last, with PyTorch's defaults: statistics in float32, output in `dtype`.

    `momentum` is the share of the old statistics that stays (PyTorch's is the share of the new ones, 0.1).
    The running variance collects the batch's own variance; PyTorch's collects n / (n - 1) of it, n = B * H * W. On the
    smallest maps (8 x 8) that is a thousandth from 16 images on.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        epsilon=epsilon,
        dtype=dtype,
        use_fast_variance=False,
        name=name,
    )


class Mlp(nn.Module):
    """Two linear maps around QuickGELU (x * sigmoid(1.702 x)), exact GELU or its tanh form: [B, N, d] -> [B, N, d].

    depth: blocks of the tower, which CLIP's initial values depend on.
    """

    depth: int
    quick_gelu: bool
    dtype: Any
    tanh_gelu: bool = False

    @nn.compact
    def __call__(self, x) -> jax.Array:
        width = x.shape[-1]
        x = Linear(MLP_RATIO * width, self.dtype, nn.initializers.normal((2 * width) ** -0.5), name="fc_1")(x)
        x = x * jax.nn.sigmoid(1.702 * x) if self.quick_gelu else jax.nn.gelu(x, approximate=self.tanh_gelu)
        out_init = nn.initializers.normal(width**-0.5 * (2 * self.depth) ** -0.5)
        return Linear(width, self.dtype, out_init, name="fc_2")(x)
