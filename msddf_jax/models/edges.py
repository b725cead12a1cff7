"""Canny's edge map on the device: static shapes, a fixed number of steps, pixel for pixel as OpenCV where they suffice.

No gradient passes: an edge map is of 0 and 1. It is an input, as the other residual maps are.
"""

import jax
import jax.numpy as jnp

from msddf_jax.models.filters import SOBEL_DERIVATIVE, SOBEL_SMOOTH, correlate_separable

# tan 22.5 degrees with 15 binary places, as OpenCV rounds it.
_TAN_22 = 13573


def canny(grey, *, low=50.0, high=150.0, steps=16) -> jax.Array:
    """Edges one pixel wide: Sobel, non-maximum suppression, double threshold, hysteresis.

    Args:
      grey: [B, H, W] float in [0, 1], H and W at least 2; rounded to 8 bits, as OpenCV sees it.
      low, high: thresholds of |gx| + |gy|, the Sobel derivatives of grey levels 0 to 255. A pixel above `low` is an
        edge where a chain of such pixels leads to one above `high`.
      steps: longest such chain, in pixels (OpenCV: any).

    Returns:
      [B, H, W] float32 of 0 and 1, as `cv2.Canny(levels, low, high)`. Source: Canny, PAMI 1986.

    Raises:
      ValueError: low above high, or fewer than no steps.
    """
    if low > high or steps < 0:
        raise ValueError(f"canny needs low <= high and steps >= 0, got low {low}, high {high}, steps {steps}")
    levels = jnp.round(255.0 * jax.lax.stop_gradient(grey).astype(jnp.float32))
    # Borders repeat the edge pixel here, and not, as in `correlate`, the one beside it.
    padded = jnp.pad(levels, ((0, 0), (1, 1), (1, 1)), mode="edge")
    inner = lambda x: x[:, 1:-1, 1:-1].astype(jnp.int32)
    gx = inner(correlate_separable(padded, SOBEL_SMOOTH, SOBEL_DERIVATIVE))
    gy = inner(correlate_separable(padded, SOBEL_DERIVATIVE, SOBEL_SMOOTH))
    strength = jnp.abs(gx) + jnp.abs(gy)
    candidate = _is_ridge(gx, gy, strength) & (strength > low)
    edge = candidate & (strength > high)
    grow = lambda _, edge: _dilate(edge) & candidate
    return jax.lax.fori_loop(0, steps, grow, edge).astype(jnp.float32)


def _is_ridge(gx, gy, strength):
    """Whether no neighbour along the gradient, in one of four directions, is stronger. Ties go as in OpenCV."""
    around = _neighbours(strength)
    across, down = jnp.abs(gx), jnp.abs(gy) << 15
    flat = across * _TAN_22
    steep = flat + (across << 16)
    horizontal = (strength > around[0, -1]) & (strength >= around[0, 1])
    vertical = (strength > around[-1, 0]) & (strength >= around[1, 0])
    falling = (strength > around[-1, -1]) & (strength > around[1, 1])
    rising = (strength > around[-1, 1]) & (strength > around[1, -1])
    diagonal = jnp.where((gx ^ gy) < 0, rising, falling)
    return jnp.where(down < flat, horizontal, jnp.where(down > steep, vertical, diagonal))


def _neighbours(x):
    """{(row, column) offset: [B, H, W], the neighbour there}; 0 outside."""
    _, height, width = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))
    offsets = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return {(i, j): padded[:, 1 + i : 1 + i + height, 1 + j : 1 + j + width] for i, j in offsets}


def _dilate(x):
    """bool [B, H, W]: true where a pixel or one of its eight neighbours is."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
    return rows[:, :, :-2] | rows[:, :, 1:-1] | rows[:, :, 2:]
