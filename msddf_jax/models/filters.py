"""Fixed image filters and grid pooling that the frequency and boundary branches share; all in float32.

Short filters are sums of shifted images, long ones banded matrix products: both are exact in float32 on
every device (a convolution would round to TF32 or bfloat16 by default, which is larger than the residuals
looked for) and avoid the slow grouped convolution of CPUs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Rec. 601 luma, the weights of OpenCV's RGB to grey conversion.
LUMA_WEIGHTS = (0.299, 0.587, 0.114)
SOBEL_DERIVATIVE = (-1.0, 0.0, 1.0)
SOBEL_SMOOTH = (1.0, 2.0, 1.0)


def luma(images) -> jax.Array:
    """Rec. 601 luma of RGB images: [..., 3] float -> [...] float32, same range."""
    red, green, blue = (images[..., i].astype(jnp.float32) for i in range(3))
    return LUMA_WEIGHTS[0] * red + LUMA_WEIGHTS[1] * green + LUMA_WEIGHTS[2] * blue


def gaussian_taps(size, sigma) -> np.ndarray:
    """Normalised Gaussian taps [size], `sigma` in pixels, as `cv2.getGaussianKernel(size, sigma)`.

    Raises:
      ValueError: `size` is even or not positive.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a Gaussian kernel needs an odd, positive size, got {size}")
    offsets = np.arange(size) - (size - 1) / 2
    taps = np.exp(-(offsets**2) / (2 * sigma**2))
    return (taps / taps.sum()).astype(np.float32)


def correlate(x, kernel) -> jax.Array:
    """Correlation of [B, H, W] with a small 2-D kernel, border reflected without its edge pixel (101).

    Args:
      x: [B, H, W] float32, each side longer than half the kernel's.
      kernel: [kh, kw] numpy array, odd sides; the zero taps cost nothing.

    Returns:
      [B, H, W] float32, as `cv2.filter2D` with its default border.
    """
    kernel = np.asarray(kernel, np.float32)
    half_h, half_w = kernel.shape[0] // 2, kernel.shape[1] // 2
    _, height, width = x.shape
    padded = jnp.pad(x, ((0, 0), (half_h, half_h), (half_w, half_w)), mode="reflect")
    total = jnp.zeros_like(x)
    for i, j in np.argwhere(kernel):
        total = total + kernel[i, j] * padded[:, i : i + height, j : j + width]
    return total


def correlate_separable(x, taps_h, taps_w) -> jax.Array:
    """Correlation of [B, H, W] with the outer product of two 1-D kernels, same border as `correlate`."""
    return correlate(correlate(x, np.asarray(taps_h)[:, None]), np.asarray(taps_w)[None, :])


def _band_matrix(size, taps):
    """[size, size] matrix whose product with a column correlates it with `taps`, border reflected (101)."""
    taps = np.asarray(taps, np.float32)
    half = len(taps) // 2
    source = np.pad(np.arange(size), half, mode="reflect") if size > 1 else np.zeros(size + 2 * half, int)
    matrix = np.zeros((size, size), np.float32)
    for row in range(size):
        np.add.at(matrix[row], source[row : row + len(taps)], taps)
    return matrix


def correlate_bands(x, taps) -> jax.Array:
    """As `correlate_separable(x, taps, taps)`, for long kernels: two matrix products; any image size."""
    rows, columns = _band_matrix(x.shape[1], taps), _band_matrix(x.shape[2], taps)
    high = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ph,bhw->bpw", rows, x, precision=high)
    return jnp.einsum("bpw,qw->bpq", x, columns, precision=high)


def _overlap_matrix(size, cells):
    """[cells, size]: the share of each of `cells` equal intervals that each of `size` pixels covers."""
    edges = np.arange(cells + 1) * (size / cells)
    low, high = edges[:-1, None], edges[1:, None]
    pixel = np.arange(size)[None, :]
    overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return (overlap * (cells / size)).astype(np.float32)


def area_pool(x, grid) -> jax.Array:
    """Area average of [B, H, W, C] onto a square grid of any size, in float32.

    Each output cell is the exact mean over its share of the image, so sizes need not divide; a finer grid
    than the image repeats pixels. A no-op where the image has the grid's size.

    Args:
      x: [B, H, W, C] float.
      grid: output side g.

    Returns:
      [B, g, g, C], the dtype of `x`.
    """
    _, height, width, _ = x.shape
    if height % grid == 0 and width % grid == 0:
        blocks = x.reshape(x.shape[0], grid, height // grid, grid, width // grid, x.shape[3])
        return blocks.mean((2, 4), dtype=jnp.float32).astype(x.dtype)
    rows, columns = _overlap_matrix(height, grid), _overlap_matrix(width, grid)
    high = jax.lax.Precision.HIGHEST
    pooled = jnp.einsum("ph,bhwc->bpwc", rows, x.astype(jnp.float32), precision=high)
    return jnp.einsum("qw,bpwc->bpqc", columns, pooled, precision=high).astype(x.dtype)


def windows(size, cells) -> tuple[np.ndarray, np.ndarray]:
    """(first pixel, pixel after the last) of each of `cells` windows on `size`, as PyTorch's adaptive pooling has them.

    Where they do not divide the side they overlap. Both int [cells].
    """
    number = np.arange(cells)
    return number * size // cells, -(-(number + 1) * size // cells)


def window_mean(x, size) -> jax.Array:
    """Means of [B, H, W, C] over `windows`: [B, rows, columns, C] for size (rows, columns), the dtype of `x`."""
    for axis, cells in zip("hw", size, strict=True):
        side = x.shape[1 if axis == "h" else 2]
        first, end = (edge[:, None] for edge in windows(side, cells))
        share = ((np.arange(side) >= first) & (np.arange(side) < end)) / (end - first)
        product = {"h": "ph,bhwc->bpwc", "w": "pw,bhwc->bhpc"}[axis]
        high = jax.lax.Precision.HIGHEST
        x = jnp.einsum(product, np.float32(share), x.astype(jnp.float32), precision=high).astype(x.dtype)
    return x


def _corner_matrix(size, cells):
    """[cells, size]: linear interpolation at `cells` places from the first of `size` pixels to the last."""
    places = np.linspace(0, size - 1, cells)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(size)), 0).astype(np.float32)


def resize_corners(x, size) -> jax.Array:
    """Linear resizing that puts corner pixels on corner pixels (PyTorch's align_corners=True), without smoothing.

    Args:
      x: [B, H, W, C] float. size: (rows, columns) of the result.

    Returns:
      [B, rows, columns, C], the dtype of `x`; `x` itself where it has that size.
    """
    if x.shape[1:3] == tuple(size):
        return x
    rows, columns = (_corner_matrix(side, cells) for side, cells in zip(x.shape[1:3], size, strict=True))
    high = jax.lax.Precision.HIGHEST
    out = jnp.einsum("ph,bhwc->bpwc", rows, x.astype(jnp.float32), precision=high)
    return jnp.einsum("qw,bpwc->bpqc", columns, out, precision=high).astype(x.dtype)


class DepthwiseConv(nn.Module):
    """3x3 depthwise convolution [B, H, W, C] -> [B, H, W, C] with bias, zero padding, in float32.

    A sum of nine shifted images: at a token grid's size it costs less than a grouped convolution.
    """

    @nn.compact
    def __call__(self, x) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal"),
                            (3, 3, 1, channels))  # fmt: skip
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        _, height, width, _ = x.shape
        padded = jnp.pad(x.astype(jnp.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
        total = bias
        for i in range(3):
            for j in range(3):
                total = total + kernel[i, j, 0] * padded[:, i : i + height, j : j + width]
        return total.astype(x.dtype)
