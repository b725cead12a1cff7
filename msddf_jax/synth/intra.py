"""Intra prediction of H.264 as constant matrices: a block from the decoded pixels left of it and above it.

Every mode of the standard (ITU-T H.264, 8.3.1 to 8.3.4) is linear in these pixels but for its rounding, so all modes of
all blocks are one matrix product. The pixels of a block of n x n lie on a line of 3 n + 1: the left column from below
(place 0) to the top, the corner (place n), the row above from left to right, n pixels of it above the next block.
"""

import jax
import jax.numpy as jnp
import numpy as np


def luma_matrices(n) -> np.ndarray:
    """float32 [modes, n * n, 3 n + 1]: the nine modes of 4 x 4 and 8 x 8 luma, or the four of 16 x 16 luma.

    Raises: ValueError for another n than 4, 8 or 16.
    """
    if n not in (4, 8, 16):
        raise ValueError(f"n is {n}, allowed: 4, 8, 16")
    line = np.eye(3 * n + 1)
    at = lambda k: line[n + k]
    above, left = (lambda x: at(1 + x)), (lambda y: at(-1 - y))
    mean = np.mean([above(i) for i in range(n)] + [left(i) for i in range(n)], axis=0)
    modes = [lambda x, y: above(x), lambda x, y: left(y), lambda x, y: mean]
    if n == 16:
        modes.append(_plane(n, above, left))
    else:
        modes += _directions(n, at, above, left)
    made = np.stack([[mode(x, y) for y in range(n) for x in range(n)] for mode in modes])
    return (made @ _smooth_line(n) if n == 8 else made).astype(np.float32)


def chroma_matrices() -> np.ndarray:
    """float32 [4, 64, 25]: DC, horizontal, vertical and plane prediction of 8 x 8 chroma."""
    n = 8
    line = np.eye(3 * n + 1)
    above, left = (lambda x: line[n + 1 + x]), (lambda y: line[n - 1 - y])

    def mean(x, y):
        x, y = x // 4 * 4, y // 4 * 4
        rows, cols = [left(y + i) for i in range(4)], [above(x + i) for i in range(4)]
        # Beside the diagonal one side is nearer.
        return np.mean(rows + cols if x == y else (cols if x > y else rows), axis=0)

    modes = [mean, lambda x, y: left(y), lambda x, y: above(x), _plane(n, above, left)]
    return np.stack([[mode(x, y) for y in range(n) for x in range(n)] for mode in modes]).astype(np.float32)


def _directions(n, at, above, left):
    """The six slanted modes of a block of n x n, in the standard's order."""
    two = lambda k: (at(k) + at(k + 1)) / 2.0
    three = lambda k: (at(k - 1) + 2.0 * at(k) + at(k + 1)) / 4.0

    def down_left(x, y):
        return (above(2 * n - 2) + 3.0 * above(2 * n - 1)) / 4.0 if x + y == 2 * n - 2 else three(x + y + 2)

    def vertical_right(x, y, two=two, three=three):
        slope = 2 * x - y
        if slope >= 0:
            return (three if slope % 2 else two)(x - y // 2)
        return three(slope + 1)

    def horizontal_down(x, y):
        # The mirror image of the one before; two(k) looks one place on, its mirror image one back.
        return vertical_right(y, x, two=lambda k: two(-k - 1), three=lambda k: three(-k))

    def vertical_left(x, y):
        return three(x + y // 2 + 2) if y % 2 else two(x + y // 2 + 1)

    def horizontal_up(x, y):
        slope, row = x + 2 * y, y + x // 2
        if slope > 2 * n - 3:
            return left(n - 1)
        if slope == 2 * n - 3:
            return (left(n - 2) + 3.0 * left(n - 1)) / 4.0
        return three(-2 - row) if slope % 2 else two(-2 - row)

    return [down_left, lambda x, y: three(x - y), vertical_right, horizontal_down, vertical_left, horizontal_up]


def _plane(n, above, left):
    """Plane prediction of 16 x 16 luma or 8 x 8 chroma."""
    half, weight = n // 2, {16: 5.0 / 64.0, 8: 34.0 / 64.0}[n]
    # above(-1) is the corner, and so is left(-1).
    across = sum((i + 1) * (above(half + i) - above(half - 2 - i)) for i in range(half))
    down = sum((i + 1) * (left(half + i) - left(half - 2 - i)) for i in range(half))
    middle = 16.0 * (left(n - 1) + above(n - 1))
    return lambda x, y: (middle + weight * ((x - half + 1) * across + (y - half + 1) * down)) / 32.0


def _smooth_line(n):
    """8 x 8 blocks predict from neighbours that were smoothed along the line (8.3.2.2.1)."""
    size = 3 * n + 1
    smooth = np.zeros((size, size))
    for i in range(size):
        for j, weight in ((i - 1, 0.25), (i, 0.5), (i + 1, 0.25)):
            smooth[i, np.clip(j, 0, size - 1)] += weight
    return smooth


def neighbour_lines(plane, n) -> jax.Array:
    """The line of each block.

    Where an image ends, the pixels that are missing are the mean of those that are there, and 128 for the first block:
    what the standard's DC mode takes then.

    Args:
      plane: decoded samples [H, W], H and W multiples of n. n: side of a block; of 4 and 8, those pixels above and to
        the right that are coded later in a macroblock repeat the last one before them, as in the standard.

    Returns:
      [H / n, W / n, 3 n + 1].
    """
    rows, cols = plane.shape[0] // n, plane.shape[1] // n
    bottom, right = plane[n - 1 :: n], plane[:, n - 1 :: n]
    above = jnp.pad(bottom[:-1], ((1, 0), (0, 0))).reshape(rows, cols, n)
    left = jnp.pad(right[:, :-1], ((0, 0), (1, 0))).reshape(rows, n, cols).transpose(0, 2, 1)
    corner = jnp.pad(bottom[:-1, n - 1 :: n][:, :-1], ((1, 0), (1, 0)))[..., None]
    first_row, first_col = (np.arange(rows) == 0)[:, None, None], (np.arange(cols) == 0)[None, :, None]
    from_left = jnp.where(first_col, 128.0, left.mean(-1, keepdims=True))
    from_above = jnp.where(first_row, 128.0, above.mean(-1, keepdims=True))
    corner = jnp.where(first_row, from_left, jnp.where(first_col, from_above, corner))
    above, left = jnp.where(first_row, from_left, above), jnp.where(first_col, from_above, left)
    beyond = jnp.concatenate([above[:, 1:], jnp.broadcast_to(above[:, -1:, -1:], (rows, 1, n))], axis=1)
    known = _knows_right(n, rows, cols)[..., None] & ~first_row
    beyond = jnp.where(known, beyond, above[..., -1:])
    return jnp.concatenate([left[..., ::-1], corner, above, beyond], axis=-1)


def _knows_right(n, rows, cols):
    """bool [rows, cols]: blocks of a macroblock of 16 x 16 whose upper right neighbour is decoded before them."""
    if n == 16:
        return np.ones((rows, cols), bool)
    # Coding order is a Z of four quarters, each again a Z: a block knows the right where the one there is earlier.
    side = 16 // n
    order = np.zeros((side, side + 1), int)
    for y in range(side):
        for x in range(side):
            order[y, x] = sum(((y >> bit & 1) * 2 + (x >> bit & 1)) << 2 * bit for bit in range(side.bit_length() - 1))
    # Right of the macroblock only what lies above it is there.
    order[:, side] = side * side
    known = np.ones((side, side), bool)
    known[1:] = order[:-1, 1:] < order[1:, :side]
    return np.tile(known, (rows // side + 1, cols // side + 1))[:rows, :cols]
