"""Boundary Mining: where a blending boundary is likely, as a weight on every token; and its target."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax import losses
from msddf_jax.models.edges import canny
from msddf_jax.models.filters import (
    SOBEL_DERIVATIVE,
    SOBEL_SMOOTH,
    area_pool,
    correlate,
    correlate_bands,
    correlate_separable,
    gaussian_taps,
    luma,
)

# Three of the SRM residual kernels (Fridrich and Kodovsky, 2012; scales as in RGB-N, Zhou et al., 2018):
# "KB" 3x3 average, "KV" 5x5, second order along a row.
SRM_KERNELS = (
    np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]], np.float32) / 4,
    np.array(
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]],
        np.float32,
    )
    / 12,
    np.array([[1, -2, 1]], np.float32) / 2,
)
SRM_LIMIT = 3.0 / 255.0
EDGES = ("sobel", "canny")
# What OpenCV takes for nine taps, 0.3 ((9 - 1) / 2 - 1) + 0.8.
TARGET_SIGMA = 1.7
# A boundary target fainter than this (of a maximum of 1) is not scaled up to 1.
MIN_TARGET_PEAK = 0.01
NUM_RESIDUALS = 6


def _residual_maps(images, edges="sobel"):
    """The six maps of `boundary_residuals`, each [B, H, W]; edges: of `BoundaryMining`."""
    if edges not in EDGES:
        raise ValueError(f"BoundaryMining edges are {edges!r}, allowed: {EDGES}")
    y = luma(images)
    residual = y - correlate_separable(y, gaussian_taps(5, 1.0), gaussian_taps(5, 1.0))
    srm = [jnp.clip(correlate(y, kernel), -SRM_LIMIT, SRM_LIMIT) / SRM_LIMIT for kernel in SRM_KERNELS]
    outline = _sobel(y) if edges == "sobel" else canny(y)
    energy = residual**2
    near, wide = (correlate_bands(energy, np.full(size, 1 / size, np.float32)) for size in (9, 33))
    return [jnp.abs(residual), *srm, outline, jnp.abs(near - wide) / (wide + 1e-4)]


def _sobel(y):
    gx = correlate_separable(y, SOBEL_SMOOTH, SOBEL_DERIVATIVE)
    gy = correlate_separable(y, SOBEL_DERIVATIVE, SOBEL_SMOOTH)
    return jnp.sqrt(gx**2 + gy**2 + 1e-6)


def boundary_residuals(images) -> jax.Array:
    """Residuals in which a blending boundary shows, of RGB images in [0, 1].

    Args:
      images: [B, H, W, 3] float, H and W at least 3.

    Returns:
      [B, H, W, 6] float32: |y - gauss5(y)|; three SRM residuals, clipped at +-3/255 and scaled to [-1, 1];
      Sobel magnitude; noise inconsistency |a9 - a33| / (a33 + 1e-4), with a9, a33 the means of the squared
      first residual over 9x9 and 33x33 pixels. Finite gradients everywhere, flat images included.
    """
    return jnp.stack(_residual_maps(images), axis=-1)


def _instance_norm(x, eps=1e-5):
    """[B, H, W] with zero mean and unit standard deviation for each image."""
    centred = x - x.mean((1, 2), keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean((1, 2), keepdims=True) + eps)


class BoundaryMining(nn.Module):
    """Residuals to a soft weight map on the token grid.

    Attributes:
      grid: side g of the token grid.
      dtype: compute dtype of the convolutions; residuals and the map are float32.
      edges: the fifth map, "sobel" (magnitude) or "canny" (`edges.canny`: thin, 0 or 1, without a gradient to the
        image, which what learns from fixed maps does not need).
    """

    grid: int
    dtype: Any = jnp.float32
    edges: str = "sobel"

    @nn.compact
    def __call__(self, images) -> dict[str, jax.Array]:
        """Weights of a batch.

        Args:
          images: [B, H, W, 3] float, RGB in [0, 1], any size.

        Returns:
          dict: logit [B, g, g] float32; weight [B, g, g] float32 in (0, 1), its sigmoid.

        Raises:
          ValueError: unknown `edges`.
        """
        # Each map for itself before they are interleaved: reductions run along contiguous pixels.
        x = jnp.stack([_instance_norm(x) for x in _residual_maps(images, self.edges)], axis=-1).astype(self.dtype)
        for index, features in enumerate((16, 32, 32)):
            x = nn.Conv(features, (3, 3), 2, dtype=self.dtype, name=f"conv_{index}")(x)
            x = jax.nn.relu(x)
        x = area_pool(x.astype(jnp.float32), self.grid)
        logit = nn.Dense(1, name="out")(x)[..., 0]
        return {"logit": logit, "weight": jax.nn.sigmoid(logit)}


def boundary_pool(weight, tokens) -> jax.Array:
    """Mean of the tokens under the weight map.

    Args:
      weight: [B, g, g] float >= 0.
      tokens: [B, g * g, d] float, row-major.

    Returns:
      [B, d] float32: sum(W P) / sum(W).

    Raises:
      ValueError: the map has not as many cells as there are tokens.
    """
    weight = weight.reshape(weight.shape[0], -1).astype(jnp.float32)
    if weight.shape != tokens.shape[:2]:
        raise ValueError(f"the weight map has shape {weight.shape}, the tokens {tokens.shape}")
    # A saturated map can sum to zero; its mean is then zero instead of not a number.
    weight = weight / jnp.maximum(weight.sum(1, keepdims=True), 1e-6)
    return jnp.einsum("bn,bnd->bd", weight, tokens.astype(jnp.float32))


def total_variation(weight) -> jax.Array:
    """Mean difference of neighbouring cells of a map: [B, g, g] float, g at least 2 -> [B] float32."""
    weight = weight.astype(jnp.float32)
    down, along = jnp.abs(jnp.diff(weight, axis=1)), jnp.abs(jnp.diff(weight, axis=2))
    return (down.mean((1, 2)) + along.mean((1, 2))) / 2.0


def boundary_target(mask, grid) -> jax.Array:
    """Face X-ray's boundary map 4 m (1 - m) of a mask, on the token grid.

    The mask is blurred (9 taps, sigma 1.7), the map averaged over each cell and divided by its maximum.
    A map fainter than 0.01 everywhere is divided by 0.01 instead, so rounding in an almost empty mask does
    not become a boundary. An all-zero or all-one mask gives zeros.

    Args:
      mask: [B, H, W, 1] float in [0, 1], 1 = manipulated: the blending mask, not multiplied by a strength
        (a constant 0.5 would read as boundary everywhere). H and W at least 5.
      grid: side g of the token grid.

    Returns:
      [B, g, g] float32 in [0, 1]. Source: Li et al., Face X-ray (2020), eq. 2.
    """
    taps = gaussian_taps(9, TARGET_SIGMA)
    soft = correlate_separable(mask[..., 0].astype(jnp.float32), taps, taps)
    pooled = area_pool((4.0 * soft * (1.0 - soft))[..., None], grid)[..., 0]
    # The taps sum to 1 only up to rounding, so an all-one mask can leave -1e-7.
    pooled = jnp.maximum(pooled, 0.0)
    return pooled / jnp.maximum(pooled.max((1, 2), keepdims=True), MIN_TARGET_PEAK)


def boundary_bce(logit, mask) -> jax.Array:
    """Cross-entropy of a weight map against `boundary_target`. logit [B, g, g], mask [B, H, W, 1] in [0, 1] -> [B]."""
    target = boundary_target(mask, logit.shape[1])
    return losses.map_bce(logit[..., None], target[..., None], pos_weight=1.0)
