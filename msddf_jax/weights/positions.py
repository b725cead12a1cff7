"""Position embeddings of a ViT for another grid than the one they were trained on."""

import math

import numpy as np

# Sharpness of Keys' cubic in Pillow and in PyTorch's antialiased resize.
CUBIC = -0.5


def resample(pos_embed, grid, prefix=1) -> np.ndarray:
    """Position embeddings on a square grid of another side, bicubic with antialiasing.

    Equal to what open_clip and timm do when they load (`interpolate(mode="bicubic", antialias=True,
    align_corners=False)`), within float32's rounding. Hugging Face's `interpolate_pos_encoding` leaves antialiasing out
    and uses another cubic (-0.75), so it gives other values; open_clip is followed because its published weights of
    other resolutions were made so.

    Args:
      pos_embed: [prefix + N, d] floating point, N a square: rows of tokens that have no place first, then the grid row
        by row. grid: side g of the new grid. prefix: 1 for a class token, 0 where it has no position.

    Returns:
      [prefix + g * g, d] float32; the first `prefix` rows, and everything if g is the old side, unchanged.

    Raises:
      ValueError: another rank, rows that are no square after the prefix, or g < 1.
    """
    pos_embed = np.asarray(pos_embed, np.float32)
    rows = pos_embed.shape[0] - prefix
    side = math.isqrt(max(rows, 0))
    if pos_embed.ndim != 2 or rows < 1 or side * side != rows:
        raise ValueError(
            f"expected position embeddings [{prefix} + N, d] with N a square, got shape {list(pos_embed.shape)}"
        )
    if grid < 1:
        raise ValueError(f"the new grid's side must be at least 1, got {grid}")
    if grid == side:
        return pos_embed
    matrix = _cubic_matrix(side, grid)
    old = pos_embed[prefix:].reshape(side, side, -1).astype(np.float64)
    new = np.einsum("ai,bj,ijd->abd", matrix, matrix, old, optimize=True)
    return np.concatenate([pos_embed[:prefix], new.reshape(grid * grid, -1).astype(np.float32)])


def _cubic_matrix(old, new):
    """[new, old] float64, rows of sum 1: centres at halves, the kernel widened when `new` is smaller."""
    scale = old / new
    stretch = max(scale, 1.0)
    centre = (np.arange(new)[:, None] + 0.5) * scale
    x = np.abs(np.arange(old)[None] + 0.5 - centre) / stretch
    inner = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    outer = CUBIC * (((x - 5) * x + 8) * x - 4)
    weights = np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
