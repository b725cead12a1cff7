"""Rotary position encoding on a square token grid, and the attention that uses it.

Shared by DINOv3 and the Perception Encoder: both rotate queries and keys by angles that depend on row and column, each
with its own coordinates, frequencies and pairing of channels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.models.attention import attend, split_heads
from msddf_jax.models.layers import Linear


def grid_size(name, image_size, patch) -> int:
    """Side of the token grid. Raises ValueError for a size that `patch` does not divide; `name`: of the tower."""
    if image_size < patch or image_size % patch:
        raise ValueError(f"{name} needs an image_size that is a multiple of {patch}, got {image_size}")
    return image_size // patch


def dinov3_angles(grid, head_width, theta=100.0) -> np.ndarray:
    """Angles of DINOv3: [g * g, head_width / 2] float32, the row's frequencies first, then the column's.

    Patch centres run over (-1, 1) whatever the grid, so the encoding stretches with the image.
    """
    centres = 2 * (np.arange(grid) + 0.5) / grid - 1
    bands = 2 * np.pi * theta ** -(np.arange(head_width // 4) * 4 / head_width)
    return _axial(centres, centres, bands)


def pe_angles(grid, reference, head_width, theta=10_000.0) -> np.ndarray:
    """Angles of the Perception Encoder: [g * g, head_width / 2] float32, the column's frequencies first.

    Positions count from 1 and are scaled so that any grid spans that of pretraining, `reference` tokens a side.
    """
    positions = (np.arange(grid) + 1) * reference / grid
    bands = theta ** -(np.arange(head_width // 4) * 4 / head_width)
    return _axial(positions, positions, bands, column_first=True)


def _axial(rows, columns, bands, column_first=False):
    row, column = np.meshgrid(rows, columns, indexing="ij")
    axes = (column, row) if column_first else (row, column)
    return np.concatenate([axis.reshape(-1, 1) * bands for axis in axes], axis=-1).astype(np.float32)


def rotate(x, angles, interleaved) -> jax.Array:
    """Rotate pairs of channels by their token's angles, in float32.

    Args:
      x: [..., N, D]. angles: [N, D / 2].
      interleaved: a pair is channels (2 i, 2 i + 1); otherwise (i, i + D / 2).

    Returns:
      [..., N, D] in the dtype of `x`.
    """
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    wide = x.astype(jnp.float32)
    if interleaved:
        first, second = wide[..., 0::2], wide[..., 1::2]
    else:
        first, second = jnp.split(wide, 2, axis=-1)
    parts = (first * cos - second * sin, second * cos + first * sin)
    if interleaved:
        return jnp.stack(parts, axis=-1).reshape(x.shape).astype(x.dtype)
    return jnp.concatenate(parts, axis=-1).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention [B, N, d] -> [B, N, d] whose queries and keys are rotated.

    key_bias: whether the key projection has a bias. interleaved: see `rotate`. kind: of `attend`.
    """

    heads: int
    key_bias: bool
    interleaved: bool
    dtype: Any
    kernel_init: Any
    kind: str = "auto"

    @nn.compact
    def __call__(self, x, angles) -> jax.Array:
        """angles: [N, d / heads / 2]; zero for class and register tokens, which stay as they are."""
        width = x.shape[-1]
        linear = lambda name, bias=True: Linear(width, self.dtype, self.kernel_init, bias, name=name)
        query = rotate(split_heads(linear("query")(x), self.heads), angles, self.interleaved)
        key = rotate(split_heads(linear("key", self.key_bias)(x), self.heads), angles, self.interleaved)
        value = split_heads(linear("value")(x), self.heads)
        return linear("out")(attend(self, query, key, value, kind=self.kind))
