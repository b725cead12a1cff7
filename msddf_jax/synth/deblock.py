"""H.264's deblocking filter (ITU-T H.264, 8.7) of an intra frame whose blocks all have one QP.

The standard goes from macroblock to macroblock. Here all edges that lie eight pixels apart are filtered at once, first
upright, then level ones: they touch at most three pixels of a side, so that only the order at the crossings differs.
"""

import jax
import jax.numpy as jnp
import numpy as np

# Tables 8-16 and 8-17, from QP 16 on (0 before): alpha, beta, and tc0 of boundary strength 3.
_ALPHA = [4, 4, 5, 6, 7, 8, 9, 10, 12, 13, 15, 17, 20, 22, 25, 28, 32, 36, 40, 45, 50, 56, 63, 71, 80, 90, 101, 113]
_ALPHA += [127, 144, 162, 182, 203, 226, 255, 255]
_BETA = [2, 2, 2, 3, 3, 3, 3, 4, 4, 4, *(k // 2 for k in range(12, 38))]
_TC0 = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 6, 6, 7, 8, 9, 10, 11, 13, 14, 16, 18, 20]
_TC0 += [23, 25]
STRENGTHS = np.array([[0] * 16 + column for column in (_ALPHA, _BETA, _TC0)], np.float32)


def deblock_luma(plane, qp, small) -> jax.Array:
    """Luma samples after the filter.

    Args:
      plane: [H, W] float32 whole numbers 0 to 255, H and W multiples of 16. qp: scalar, 0 to 51, whole.
      small: bool [H / 16, W / 16], macroblocks with transforms of 4 x 4; the others have edges at multiples of 8 alone.

    Returns:
      [H, W] float32 whole numbers.
    """
    small = jnp.repeat(small, 16, axis=0)
    for turned in (False, True):
        if turned:
            plane, small = plane.T, jnp.repeat(small[::16].T, 16, axis=0)
        plane = _filter_luma(plane, qp, small, 0)
        plane = _filter_luma(plane, qp, small, 4)
    return plane.T


def deblock_chroma(planes, qp) -> jax.Array:
    """Chroma samples [2, H, W] after the filter, H and W multiples of 8; qp: chroma's own, a scalar."""
    for _ in range(2):
        planes = _filter_chroma(planes, qp).transpose(0, 2, 1)
    return planes


def _strengths(qp):
    return tuple(jnp.take(jnp.asarray(row), jnp.clip(qp, 0, 51).astype(jnp.int32)) for row in STRENGTHS)


def _filter_luma(plane, qp, small, offset):
    """Upright edges at offset, offset + 8, ...; small: bool [H, W / 16]."""
    rows, width = plane.shape
    grown = jnp.pad(plane, ((0, 0), (4, 4)), mode="edge") if offset == 0 else plane
    windows = grown.reshape(rows, -1, 8)
    p3, p2, p1, p0, q0, q1, q2, q3 = (windows[..., i] for i in range(8))
    alpha, beta, tc0 = _strengths(qp)
    far_p, far_q = jnp.abs(p2 - p0) < beta, jnp.abs(q2 - q0) < beta
    here = (jnp.abs(p0 - q0) < alpha) & (jnp.abs(p1 - p0) < beta) & (jnp.abs(q1 - q0) < beta)
    if offset == 0:
        inside = np.arange(width // 8 + 1)
        here &= (inside > 0) & (inside < width // 8)
    else:
        here &= jnp.repeat(small, 2, axis=1)

    # Boundary strength 3, inside a macroblock.
    limit = tc0 + far_p + far_q
    delta = jnp.clip(jnp.floor((4.0 * (q0 - p0) + p1 - q1 + 4.0) / 8.0), -limit, limit)
    middle = jnp.floor((p0 + q0 + 1.0) / 2.0)
    move = lambda far, x1, x2: x1 + far * jnp.clip(jnp.floor((x2 + middle - 2.0 * x1) / 2.0), -tc0, tc0)
    near = (jnp.clip(p0 + delta, 0.0, 255.0), jnp.clip(q0 - delta, 0.0, 255.0))
    inner = (p2, move(far_p, p1, p2), *near, move(far_q, q1, q2), q2)
    if offset == 0:
        strong = jnp.abs(p0 - q0) < jnp.floor(alpha / 4.0) + 2.0
        of_q = _strong(q3, q2, q1, q0, p0, p1, strong & far_q)
        outer = (*_strong(p3, p2, p1, p0, q0, q1, strong & far_p), *of_q[::-1])
        between = np.arange(width // 8 + 1) % 2 == 0
        inner = tuple(jnp.where(between, a, b) for a, b in zip(outer, inner, strict=True))
    changed = [jnp.where(here, new, old) for new, old in zip(inner, (p2, p1, p0, q0, q1, q2), strict=True)]
    out = jnp.stack([p3, *changed, q3], axis=-1).reshape(rows, -1)
    return out[:, 4:-4] if offset == 0 else out


def _strong(p3, p2, p1, p0, q0, q1, smooth):
    """Boundary strength 4: the new (p2, p1, p0) of one side."""
    near = jnp.floor((2.0 * p1 + p0 + q1 + 2.0) / 4.0)
    return (
        jnp.where(smooth, jnp.floor((2.0 * p3 + 3.0 * p2 + p1 + p0 + q0 + 4.0) / 8.0), p2),
        jnp.where(smooth, jnp.floor((p2 + p1 + p0 + q0 + 2.0) / 4.0), p1),
        jnp.where(smooth, jnp.floor((p2 + 2.0 * p1 + 2.0 * p0 + 2.0 * q0 + q1 + 4.0) / 8.0), near),
    )


def _filter_chroma(planes, qp):
    """Upright edges four samples apart of [2, H, W]: one sample a side changes."""
    channels, rows, width = planes.shape
    windows = jnp.pad(planes, ((0, 0), (0, 0), (2, 2)), mode="edge").reshape(channels, rows, -1, 4)
    p1, p0, q0, q1 = (windows[..., i] for i in range(4))
    alpha, beta, tc0 = _strengths(qp)
    edge = np.arange(width // 4 + 1)
    here = (jnp.abs(p0 - q0) < alpha) & (jnp.abs(p1 - p0) < beta) & (jnp.abs(q1 - q0) < beta)
    here &= (edge > 0) & (edge < width // 4)
    delta = jnp.clip(jnp.floor((4.0 * (q0 - p0) + p1 - q1 + 4.0) / 8.0), -tc0 - 1.0, tc0 + 1.0)
    # Every second edge lies between macroblocks.
    outer = edge % 2 == 0
    new_p = jnp.where(outer, jnp.floor((2.0 * p1 + p0 + q1 + 2.0) / 4.0), jnp.clip(p0 + delta, 0.0, 255.0))
    new_q = jnp.where(outer, jnp.floor((2.0 * q1 + q0 + p1 + 2.0) / 4.0), jnp.clip(q0 - delta, 0.0, 255.0))
    out = jnp.stack([p1, jnp.where(here, new_p, p0), jnp.where(here, new_q, q0), q1], axis=-1)
    return out.reshape(channels, rows, -1)[..., 2:-2]
