"""Poisson image blending (Perez et al. 2003, NORMAL_CLONE), solved directly by sine transforms.

The field to integrate is the source's gradient well inside the mask and the target's elsewhere; the solution
is fixed to the target on the border of the mask's bounding rectangle. This is the formulation of
`cv2.seamlessClone`, and one direct solve: on a rectangle the Laplacian is diagonal in the sine basis (DST-I).
Written for the correction d = f - target, which is zero on that border, the right-hand side is the divergence
of (grad source - grad target) under the mask.

The alternative, Dirichlet values on the mask's own contour, needs an iterative solver, and lies 1 to 9 grey
levels from OpenCV on the same mask (1 to 4 with the mask eroded as OpenCV erodes it).
"""

import functools

import jax
import jax.numpy as jnp

from msddf_jax.synth import filters

# OpenCV takes the source's gradient only inside the mask eroded three times by a 3 x 3 square.
_EROSIONS = 3


def _any_neighbour(flags, axis):
    """Logical or of each element of [H, W] with its two neighbours along an axis; beyond the edge is True."""
    pad = [(0, 0), (0, 0)]
    pad[axis] = (1, 1)
    padded = jnp.pad(flags, pad, constant_values=True)
    size = flags.shape[axis]
    before = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
    after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis)
    return before | flags | after


def _bounds(flags):
    """First and last index where flags [N] holds; (N, -1) where it holds nowhere."""
    size = flags.shape[0]
    index = jnp.arange(size)
    return jnp.min(jnp.where(flags, index, size)), jnp.max(jnp.where(flags, index, -1))


def _sine_basis(size, start, count):
    """DST-I over indices start .. start + count - 1 of an axis.

    Returns:
      (basis [size, size] float32, symmetric in (index - start, frequency), zero beyond; eigenvalues [size]
      float32 of the second difference with zeros beyond both ends, all < 0, -1 where there is no frequency).
    """
    # basis[index, frequency] = sin(pi * p * q / n), p = index - start + 1, q = frequency + 1, n = count + 1.
    # p * q is reduced modulo n exactly (integers below 2 ** 24) before the sine is taken.
    n = jnp.maximum(count + 1, 1).astype(jnp.float32)
    p = (jnp.arange(size) - start + 1).astype(jnp.float32)
    q = jnp.arange(1, size + 1).astype(jnp.float32)
    product = p[:, None] * q[None, :]
    turns = jnp.floor(product / n)
    sign = 1.0 - 2.0 * (turns - 2.0 * jnp.floor(turns / 2.0))
    angle = (product - turns * n) / n - 0.5
    valid = ((p >= 1.0) & (p < n))[:, None] & (q < n)[None, :]
    basis = jnp.where(valid, sign * jnp.cos(jnp.pi * angle), 0.0)
    eigenvalues = jnp.where(q < n, -4.0 * jnp.square(jnp.sin(0.5 * jnp.pi * q / n)), -1.0)
    return basis, eigenvalues


def _divergence(difference, keep):
    """Divergence (backward) of the gradient (forward) of difference [H, C, W], where keep [H, W] is 1."""
    d = jnp.pad(difference, ((1, 1), (0, 0), (1, 1)))
    keep = jnp.pad(keep, ((1, 1), (1, 1)))[:, None, :]
    here, keep_here = d[1:-1, :, 1:-1], keep[1:-1, :, 1:-1]
    ahead = keep_here * (d[2:, :, 1:-1] + d[1:-1, :, 2:] - 2.0 * here)
    above = keep[:-2, :, 1:-1] * (here - d[:-2, :, 1:-1])
    left = keep[1:-1, :, :-2] * (here - d[1:-1, :, :-2])
    return ahead - above - left


def _sine_transform(lines, basis_y, basis_x):
    """`basis_y @ plane @ basis_x` of each channel of [H, C, W]: in this layout both are one plain product."""
    height, channels, width = lines.shape
    lines = jnp.matmul(basis_y, lines.reshape(height, channels * width), precision=filters.PRECISION)
    lines = jnp.matmul(lines.reshape(height * channels, width), basis_x, precision=filters.PRECISION)
    return lines.reshape(height, channels, width)


def _correct(difference, inside, top, left, bottom, right):
    """Correction d of a clone, from difference = source - target: Laplace(d) = divergence, zero around.

    Args:
      difference: [N, M, 3] float32. inside: [N, M] bool, the mask. top, left, bottom, right: int32
        scalars, the bounding rectangle of the mask, bounds included.

    Returns:
      [N, M, 3] float32, zero on and beyond the rectangle's border.
    """
    outside = ~inside
    for _ in range(_EROSIONS):
        outside = _any_neighbour(_any_neighbour(outside, 0), 1)
    divergence = _divergence(jnp.swapaxes(difference, 1, 2), 1.0 - outside.astype(difference.dtype))
    # The basis is zero on and beyond the border, so that what the divergence holds there does not count.
    rows, cols = jnp.maximum(bottom - top - 1, 0), jnp.maximum(right - left - 1, 0)
    basis_y, eigen_y = _sine_basis(inside.shape[0], top + 1, rows)
    basis_x, eigen_x = _sine_basis(inside.shape[1], left + 1, cols)
    scale = 4.0 / ((rows + 1.0) * (cols + 1.0))
    spectrum = _sine_transform(divergence, basis_y.T, basis_x)
    spectrum = spectrum * (scale / (eigen_y[:, None] + eigen_x[None, :]))[:, None, :]
    return jnp.swapaxes(_sine_transform(spectrum, basis_y, basis_x.T), 1, 2)


def _clone_one(source, target, mask, buckets, keep_outside):
    height, width, _ = target.shape
    index_y, index_x = jnp.arange(height), jnp.arange(width)
    # As OpenCV: the outermost pixels of the image never belong to the mask.
    frame = ((index_y > 0) & (index_y < height - 1))[:, None] & ((index_x > 0) & (index_x < width - 1))[None]
    inside = (mask[..., 0] > 0.5) & frame
    top, bottom = _bounds(jnp.any(inside, axis=1))
    left, right = _bounds(jnp.any(inside, axis=0))

    def clone_part(part_t, part_s, part_in, y, x):
        change = _correct(part_s - part_t, part_in, top - y, left - x, bottom - y, right - x)
        if keep_outside:
            change = change * part_in[..., None]
        return jnp.clip(part_t + change, 0.0, 1.0)

    def clone_within(size):
        shape = (min(size, height), min(size, width))
        if shape == (height, width):
            # Not a slice: vectorised, it would be a gather and a scatter, one sample after the other on a TPU.
            return clone_part(target, source, inside, 0, 0)
        y = jnp.clip(top, 0, height - shape[0])
        x = jnp.clip(left, 0, width - shape[1])
        part_t = jax.lax.dynamic_slice(target, (y, x, 0), (*shape, 3))
        part_s = jax.lax.dynamic_slice(source, (y, x, 0), (*shape, 3))
        part_in = jax.lax.dynamic_slice(inside, (y, x), shape)
        return jax.lax.dynamic_update_slice(target, clone_part(part_t, part_s, part_in, y, x), (y, x, 0))

    needed = jnp.maximum(bottom - top, right - left) + 1
    choice = sum((needed > size).astype(jnp.int32) for size in buckets[:-1])
    return jax.lax.switch(choice, [lambda size=size: clone_within(size) for size in buckets])


def _clone(source, target, mask, one_by_one, keep_outside):
    if one_by_one is None:
        one_by_one = jax.default_backend() == "cpu"
    size = max(target.shape[1:3])
    buckets = tuple(sorted({-(-size * k // 4) for k in (2, 3, 4)})) if one_by_one else (size,)
    solve = functools.partial(_clone_one, buckets=buckets, keep_outside=keep_outside)
    return filters.over_rows(lambda row: solve(*row), (source, target, mask), one_by_one)


@functools.partial(jax.jit, static_argnames="one_by_one")
def clone(source, target, mask, one_by_one=None) -> jax.Array:
    """`cv2.seamlessClone(source, target, mask, centre of the mask, NORMAL_CLONE)`.

    Args:
      source, target: [B, H, W, 3] float32 in [0, 1]. mask: [B, H, W, 1] float32, taken as inside where > 0.5.
      one_by_one: see `filters.over_rows`; on a CPU a small mask is then solved on a small rectangle.

    Returns:
      [B, H, W, 3] float32 in [0, 1]. Outside the mask, but within its bounding rectangle, it departs a
      little from the target (as OpenCV does; 1 grey level on average along the contour of a self-blend); see
      `blend`. With an empty mask the target. Differentiable with respect to source and target.
    """
    return _clone(source, target, mask, one_by_one, keep_outside=False)


@functools.partial(jax.jit, static_argnames="one_by_one")
def blend(source, target, mask_binary, one_by_one=None) -> jax.Array:
    """Poisson blend of the source into the target: `clone` inside the mask, exactly the target outside.

    Args:
      source, target: [B, H, W, 3] float32 in [0, 1]. Use a source that keeps its content outside the mask.
      mask_binary: [B, H, W, 1] float32, inside where > 0.5. one_by_one: see `clone`.

    Returns:
      [B, H, W, 3] float32 in [0, 1]; with an empty mask the target.
    """
    return _clone(source, target, mask_binary, one_by_one, keep_outside=True)
