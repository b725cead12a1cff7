"""Separable linear filters as matrix products, and how the rows of a batch are run.

A blur with a support that differs by sample, a resize, a DCT: each is `rows @ image @ cols.T`, two dense
products that both Eigen and a tensor core run near their peak. XLA's depthwise convolutions do not.
"""

import jax
import jax.numpy as jnp

# TF32 keeps ten bits: about half a grey level of noise in a blur, and a useless Poisson solve.
PRECISION = jax.lax.Precision.HIGHEST


def over_rows(fn, rows, one_by_one=None) -> jax.Array | tuple | dict:
    """Applies `fn` to each row of a batch.

    Args:
      fn: takes one element of `rows` (no batch axis) and returns a pytree of arrays.
      rows: pytree of arrays with a leading axis B.
      one_by_one: True runs one row after the other, where a `lax.cond` or `lax.switch` in `fn` costs only the
        branch taken (fast on a CPU); False vectorises, where every branch is computed and selected (fast on
        an accelerator). None: True on the CPU backend. The result is the same to rounding.

    Returns:
      what `fn` returns, with a leading axis B.
    """
    if one_by_one is None:
        one_by_one = jax.default_backend() == "cpu"
    return jax.lax.map(fn, rows) if one_by_one else jax.vmap(fn)(rows)


def apply_separable(image, rows, cols) -> jax.Array:
    """`out[i, j, c] = sum_hw rows[i, h] * cols[j, w] * image[h, w, c]`.

    Args:
      image: [H, W, C] float32. rows: [I, H]. cols: [J, W].

    Returns:
      [I, J, C] float32.
    """
    height, width, channels = image.shape
    first = jnp.matmul(rows, image.reshape(height, width * channels), precision=PRECISION)
    # Channels before width, so that the second product is one plain matrix product too.
    first = first.reshape(-1, width, channels).transpose(0, 2, 1).reshape(-1, width)
    second = jnp.matmul(first, cols.T, precision=PRECISION)
    return second.reshape(rows.shape[0], channels, cols.shape[0]).transpose(0, 2, 1)


def auto_sigma(kernel_size) -> float | jax.Array:
    """Standard deviation (pixels) that OpenCV takes for a Gaussian kernel of this size when given none.

    OpenCV uses it for sizes of 11 and more; below it has fixed tables, a few per cent away.
    """
    return 0.3 * ((kernel_size - 1.0) * 0.5 - 1.0) + 0.8


def gaussian_matrix(size, kernel_size, sigma) -> jax.Array:
    """Banded matrix of a Gaussian blur with OpenCV's default border (reflected, edge pixel not repeated).

    Args:
      size: int, length of the axis. kernel_size: scalar (odd, may be traced, at most 2 * size - 1); 1 is the
        identity. sigma: scalar, standard deviation in pixels, > 0.

    Returns:
      [size, size] float32, each row sums to 1.
    """
    radius = (kernel_size - 1.0) / 2.0
    row = jnp.arange(size, dtype=jnp.float32)[:, None]
    col = jnp.arange(size, dtype=jnp.float32)[None, :]

    def weight(distance):
        inside = jnp.abs(distance) <= radius + 0.25
        return jnp.where(inside, jnp.exp(-0.5 * jnp.square(distance / sigma)), 0.0)

    last = size - 1.0
    left = jnp.where(col > 0, weight(-col - row), 0.0)
    right = jnp.where(col < last, weight(2 * last - col - row), 0.0)
    kernel = weight(col - row) + left + right
    return kernel / jnp.sum(kernel, axis=1, keepdims=True)


def gaussian_blur(image, kernel_size, sigma) -> jax.Array:
    """Gaussian blur of one image, `cv2.GaussianBlur(image, (k, k), sigma)`.

    Args:
      image: [H, W, C] float32. kernel_size: scalar, odd (may be traced). sigma: scalar > 0, pixels.

    Returns:
      [H, W, C] float32.
    """
    height, width, _ = image.shape
    rows = gaussian_matrix(height, kernel_size, sigma)
    cols = rows if height == width else gaussian_matrix(width, kernel_size, sigma)
    return apply_separable(image, rows, cols)
