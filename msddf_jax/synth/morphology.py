"""Smoothing, erosion, dilation and distances of mask planes, with a width per sample and static shapes.

Planes are float32 [H, W] of one sample. A filter's taps are an array of fixed length whose weights carry the
sample's own width, so one compiled program serves every width. On one plane, sums of shifted copies are three
times as fast as the products of `filters` (which are right for three channels).
"""

import jax.numpy as jnp
from jax import Array, lax

# Steps of the distance transform that an accelerator takes in one kernel: each reads two rows that are in its cache.
_STEPS_A_KERNEL = 16


def convolve(plane, row_weights, column_weights) -> Array:
    """Separable symmetric convolution with repeated borders.

    Args:
      plane: float32 [H, W].
      row_weights: float32 [R + 1], weights of the rows at distance 0..R.
      column_weights: float32 [R' + 1], the same for columns.

    Returns:
      float32 [H, W].
    """
    return _convolve_axis(_convolve_axis(plane, row_weights, 0), column_weights, 1)


def _convolve_axis(plane, weights, axis):
    reach, size = weights.shape[0] - 1, plane.shape[axis]
    pad = [(reach, reach) if i == axis else (0, 0) for i in range(2)]
    # The barriers keep XLA from folding the pad and the first pass into every tap (3x slower on CPU).
    padded = lax.optimization_barrier(jnp.pad(plane, pad, mode="edge"))
    shifted = lambda offset: lax.slice_in_dim(padded, reach + offset, reach + offset + size, axis=axis)
    out = weights[0] * shifted(0)
    for i in range(1, reach + 1):
        out += weights[i] * (shifted(-i) + shifted(i))
    return lax.optimization_barrier(out)


def gaussian_taps(sigma, radius, reach) -> Array:
    """One side of a normalised Gaussian truncated at `radius`, for `convolve`.

    Args:
      sigma: float32 [] > 0, pixels.
      radius: float32 [] >= 0; the tap beyond a whole radius enters by the fraction of it that is covered.
      reach: int, the largest radius (static).

    Returns:
      float32 [reach + 1]; equals OpenCV's kernel of size 2 radius + 1 where radius is whole.
    """
    offset = jnp.arange(reach + 1, dtype=jnp.float32)
    taps = jnp.exp(-0.5 * (offset / sigma) ** 2) * jnp.clip(radius + 1.0 - offset, 0.0, 1.0)
    return taps / (2.0 * taps.sum() - taps[0])


def box_taps(radius, reach) -> Array:
    """One side of a normalised box of half-width `radius` int32 [], for `convolve`: float32 [reach + 1]."""
    taps = (jnp.arange(reach + 1) <= radius).astype(jnp.float32)
    return taps / (2.0 * taps.sum() - taps[0])


def square_morphology(mask, radius, reach, erode) -> Array:
    """Erosion or dilation of a binary plane by a square of half-width `radius` (`cv2.erode`, `cv2.dilate`).

    Args:
      mask: float32 [H, W] of zeros and ones.
      radius: int32 []; 0 changes nothing.
      reach: int, the largest radius (static).
      erode: bool [], False dilates.

    Returns:
      float32 [H, W] of zeros and ones. Pixels outside the frame repeat the border.
    """
    taps = box_taps(radius, reach)
    share = convolve(mask, taps, taps)
    smallest = 0.5 / (2 * reach + 1) ** 2  # half a pixel of the largest square: safe against rounding
    return (share > jnp.where(erode, 1.0 - smallest, smallest)).astype(jnp.float32)


def distance_transform(mask, limit, max_limit) -> Array:
    """Euclidean distance of every mask pixel to the nearest pixel outside, exact up to `limit`.

    Rows first (doubling steps), then a lower envelope of parabolas over the columns, one step a pixel: on a CPU as
    many as `limit` asks for, elsewhere all of them, because a number of steps that only the device knows makes an
    accelerator ask the host before each. Beyond the frame counts as outside. Forward only.

    Args:
      mask: bool [H, W].
      limit: float32 [], pixels: how far the distance is wanted.
      max_limit: int, bound of `limit` (static).

    Returns:
      float32 [H, W]: min(distance, limit), 0 outside the mask.
    """
    height, width = mask.shape
    distance = jnp.where(mask, float(max_limit + 1), 0.0)
    step = 1
    while step <= max_limit:
        padded = lax.optimization_barrier(jnp.pad(distance, ((0, 0), (step, step))))
        beside = jnp.minimum(padded[:, :width], padded[:, 2 * step :])
        distance = jnp.minimum(distance, beside + step)
        step *= 2
    squared = distance**2
    padded = lax.optimization_barrier(jnp.pad(squared, ((max_limit, max_limit), (0, 0))))

    def envelope(offset, best):
        above = lax.dynamic_slice_in_dim(padded, max_limit - offset, height, 0)
        below = lax.dynamic_slice_in_dim(padded, max_limit + offset, height, 0)
        return jnp.minimum(best, jnp.minimum(above, below) + jnp.square(offset.astype(jnp.float32)))

    def as_far_as_asked(squared, limit):
        reach = jnp.clip(jnp.ceil(limit).astype(jnp.int32), 0, max_limit)
        return lax.fori_loop(1, reach + 1, envelope, squared)

    def all_the_way(squared, _):
        return lax.fori_loop(1, max_limit + 1, envelope, squared, unroll=min(_STEPS_A_KERNEL, max_limit))

    squared = lax.platform_dependent(squared, limit, cpu=as_far_as_asked, default=all_the_way)
    return jnp.minimum(jnp.sqrt(squared), limit)
