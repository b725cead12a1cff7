"""The discrete cosine transform and the learned bands of F3-Net (Qian et al., ECCV 2020), in float32.

Frequencies are counted along both axes: band [low, high) holds the coefficients (i, j) with low <= i + j < high.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.models.filters import luma

_HIGH = jax.lax.Precision.HIGHEST
# Grey levels; what float32 leaves of the coefficients of a flat window, summed over a band, is below.
_FLOOR = 0.1


def matrix(size) -> np.ndarray:
    """[size, size] float32: the orthonormal DCT-II, a row for each frequency; its transpose is the inverse."""
    frequency, place = np.arange(size)[:, None], np.arange(size)[None, :]
    scale = np.where(frequency == 0, np.sqrt(1 / size), np.sqrt(2 / size))
    return (scale * np.cos(np.pi * (place + 0.5) * frequency / size)).astype(np.float32)


def band(size, low, high, closed=False) -> np.ndarray:
    """[size, size] float32: 1 in the band [low, high), 0 elsewhere. closed: i + j = high is inside too."""
    total = np.arange(size)[:, None] + np.arange(size)[None, :]
    return ((total >= low) & ((total <= high) if closed else (total < high))).astype(np.float32)


def _learned(module, size, edges, closed=False):
    """[bands, size, size]: of each band (low, high) its mask and a learned number in (-1, 1) at every coefficient."""
    filters = []
    for number, (low, high) in enumerate(edges):
        moved = module.param(f"band_{number}", nn.initializers.normal(0.1), (size, size), jnp.float32)
        filters.append(band(size, low, high, closed) + 2.0 * jax.nn.sigmoid(moved) - 1.0)
    return jnp.stack(filters)


class Decomposition(nn.Module):
    """Images as what each band of their spectrum alone gives (FAD).

    Attributes:
      edges: ((low, high), ...) of the bands. closed: see `band`.
    """

    edges: tuple
    closed: bool = False

    @nn.compact
    def __call__(self, images) -> jax.Array:
        """[B, S, S, C] float32 -> [B, S, S, bands * C], the channels of the first band first."""
        size = images.shape[1]
        transform, filters = matrix(size), _learned(self, size, self.edges, self.closed)
        spectrum = jnp.einsum("ih,bhwc,jw->bijc", transform, images, transform, precision=_HIGH)
        passed = spectrum[:, None] * filters[None, ..., None]
        bands = jnp.einsum("ih,bnijc,jw->bhwnc", transform, passed, transform, precision=_HIGH)
        return bands.reshape(*images.shape[:3], -1)


class LocalStatistics(nn.Module):
    """How much of each band there is around a place (LFS): log10 of the sum of amplitudes in a sliding window.

    Attributes:
      cells: windows a side, around the middle; what reaches outside the image is black there.
      window: its side in pixels. stride: from one to the next. bands: equal parts of the frequencies.
    """

    cells: int
    window: int = 10
    stride: int = 2
    bands: int = 6

    @nn.compact
    def __call__(self, images) -> jax.Array:
        """RGB images [B, S, S, 3] float in [0, 1] -> [B, cells, cells, bands] float32.

        Raises ValueError where the windows do not cover the image.
        """
        missing = self.window + self.stride * (self.cells - 1) - images.shape[1]
        if missing < 0:
            raise ValueError(f"{self.cells} windows of {self.window} pixels leave {-missing} of {images.shape[1]} out")
        width = 2.0 * self.window / self.bands
        edges = [(width * number, width * (number + 1)) for number in range(self.bands)]
        filters = _learned(self, self.window, edges)
        grey = 255.0 * luma(images)[..., None]
        # Every coefficient of the window's transform is a correlation with its basis image.
        basis = np.einsum("ih,jw->hwij", matrix(self.window), matrix(self.window))
        basis = basis.reshape(self.window, self.window, 1, -1)
        settings = {"window_strides": (self.stride,) * 2, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        settings["padding"] = ((missing // 2, missing - missing // 2),) * 2
        spectrum = jax.lax.conv_general_dilated(grey, basis, precision=_HIGH, **settings)
        weights = jnp.abs(filters).reshape(self.bands, -1)
        return jnp.log10(jnp.einsum("bhwk,nk->bhwn", jnp.abs(spectrum), weights, precision=_HIGH) + _FLOOR)
