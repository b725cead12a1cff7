"""Attention maps of a middle stage, the texture of a shallow one, and bilinear pooling (Zhao et al., CVPR 2021)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.models import conv, heads, layers
from msddf_jax.models.filters import resize_corners, window_mean

# Cells of a grid on which the border of the maps is left out, and how many.
GRID, BORDER = 24, 2


class AttentionMaps(nn.Module):
    """[B, h, w, C] -> [B, h, w, maps] float32, at least 0, with 0 along the border."""

    maps: int
    dtype: Any

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        norm = lambda dtype, name: layers.batch_norm(train, dtype, name)
        x = conv.conv(x.shape[-1], 3, self.dtype, "conv", padding=1, use_bias=True)(x)
        x = jax.nn.relu(norm(self.dtype, "norm_0")(x))
        x = layers.Linear(self.maps, jnp.float32, conv.HE_NORMAL, use_bias=False, name="maps")(x)
        return (jax.nn.elu(norm(jnp.float32, "norm_1")(x)) + 1) * _inside(x.shape[1:3])[..., None]


def _inside(size):
    """float32 (rows, columns): 0 where a cell's nearest of the grid is of its border."""
    kept = [(cells >= BORDER) & (cells < GRID - BORDER) for cells in (np.arange(side) * GRID // side for side in size)]
    return np.float32(kept[0][:, None] & kept[1][None, :])


class Texture(nn.Module):
    """What a map has beside its local means, through a dense network: [B, H, W, C] -> ([B, H, W, 4 C], the means).

    The means [B, h, w, C] are over windows of a grid, whose size (rows, columns) the call is given.
    """

    dtype: Any

    @nn.compact
    def __call__(self, x, size, train) -> tuple[jax.Array, jax.Array]:
        width, norm = x.shape[-1], lambda name: layers.batch_norm(train, self.dtype, name)
        linear = lambda features, name: layers.Linear(features, self.dtype, conv.HE_NORMAL, name=name)
        local = window_mean(x, size)
        x = linear(width, "conv_0")(x - _nearest(local, x.shape[1:3]))
        for number in (1, 2, 3):
            y = jax.nn.relu(norm(f"norm_{number}")(x))
            y = conv.conv(width, 3, self.dtype, f"conv_{number}", padding=1, use_bias=True)(y)
            x = jnp.concatenate([x, y], axis=-1)
        x = linear(4 * width, "conv_4")(jax.nn.relu(norm("norm_4")(x)))
        return norm("norm_5")(x), local


def _nearest(x, size):
    """[B, h, w, C] on a finer grid of (rows, columns), each cell repeated."""
    rows, columns = (np.arange(cells) * side // cells for cells, side in zip(size, x.shape[1:3], strict=True))
    return x[:, rows][:, :, columns]


def pool(features, attention) -> jax.Array:
    """Features [B, H, W, C] under each map [B, h, w, M], at unit length: [B, M, C] float32."""
    attention = resize_corners(attention, features.shape[1:3])
    high = jax.lax.Precision.HIGHEST
    pooled = jnp.einsum("bhwm,bhwc->bmc", attention, features.astype(jnp.float32), precision=high)
    return heads.l2_normalize(pooled)


def mean_under(features, attention) -> jax.Array:
    """Mean of features [B, H, W, C] weighed by one map [B, h, w, 1]: [B, C] float32."""
    attention = resize_corners(attention, features.shape[1:3])
    total = (attention + 1e-8).sum((1, 2))
    return (attention * features.astype(jnp.float32)).sum((1, 2)) / total
