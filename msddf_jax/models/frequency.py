"""Freq-Adapter: FFT and wavelet branches fused to side tokens that enter the transformer at three depths."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pywt

from msddf_jax.models.filters import DepthwiseConv, area_pool, luma
from msddf_jax.models.layers import Linear, layer_norm

HIGH_PASS_CUTOFF = 0.15  # cycles/pixel, initial value
HIGH_PASS_WIDTH = 0.02  # cycles/pixel
PROFILE_BINS = 32
# Amplitudes below this are rounding of 8-bit pixels (1/255/sqrt(12), orthonormal FFT): they carry no phase.
PHASE_FLOOR = 1e-3
# Brings high-pass residuals and wavelet details of images in [0, 1] (about 0.03) to the order of 1, by one
# constant for all images, so that how much high frequency an image holds stays visible.
DETAIL_GAIN = 32.0
DWT_LEVELS = 3


def radial_frequency(height, width) -> np.ndarray:
    """Distance from zero frequency of each `rfft2` coefficient: [H, W // 2 + 1] float32, cycles/pixel."""
    vertical = np.fft.fftfreq(height)[:, None]
    horizontal = np.fft.rfftfreq(width)[None, :]
    return np.sqrt(vertical**2 + horizontal**2).astype(np.float32)


def high_pass(spectrum, cutoff, shape) -> jax.Array:
    """Radial high-pass of a spectrum, back in the image domain.

    Args:
      spectrum: [B, H, W // 2 + 1] complex64 from `rfft2(..., norm="ortho")`.
      cutoff: scalar, cycles/pixel; the mask is sigmoid((rho - cutoff) / 0.02).
      shape: (H, W) of the image.

    Returns:
      [B, H, W] float32.
    """
    mask = jax.nn.sigmoid((radial_frequency(*shape) - cutoff) / HIGH_PASS_WIDTH)
    return jnp.fft.irfft2(spectrum * mask, s=shape, norm="ortho")


def phase_only(spectrum, shape) -> jax.Array:
    """The image with every amplitude set to 1 (SPSL, Liu et al., 2021), about unit standard deviation.

    Amplitudes near or below 8-bit rounding stay proportionally small: F / sqrt(|F|^2 + 1e-6), whose gradient
    is finite at zero, unlike the angle's.

    Args:
      spectrum: [B, H, W // 2 + 1] complex64 from `rfft2(..., norm="ortho")` of an image less its mean.
      shape: (H, W) of the image.

    Returns:
      [B, H, W] float32.
    """
    power = jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2
    return jnp.fft.irfft2(spectrum * jax.lax.rsqrt(power + PHASE_FLOOR**2), s=shape, norm="ortho")


def radial_profile(spectrum, shape, bins=PROFILE_BINS) -> jax.Array:
    """Mean log-amplitude log(1 + |F|) in `bins` rings of equal width, from 0 to sqrt(1/2) cycles/pixel.

    Args:
      spectrum: [B, H, W // 2 + 1] complex64 from `rfft2(..., norm="ortho")`.
      shape: (H, W) of the image.
      bins: number of rings; a ring without a coefficient (small images) is 0.

    Returns:
      [B, bins] float32, each ring the mean over the full spectrum, not the stored half.
    """
    height, width = shape
    power = jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2
    # The offset keeps the root's gradient finite at zero; it moves log(1 + |F|) by less than 1e-4.
    amplitude = jnp.log1p(jnp.sqrt(power + 1e-10))
    ring = np.minimum(radial_frequency(height, width) / math.sqrt(0.5) * bins, bins - 1).astype(np.int32)
    # Each stored column stands for itself and its mirror image, but for zero and Nyquist frequency.
    columns = np.arange(width // 2 + 1)
    twice = np.where((columns > 0) & (2 * columns != width), 2.0, 1.0)
    weight = np.broadcast_to(twice, ring.shape).astype(np.float32)
    count = np.bincount(ring.ravel(), weight.ravel(), minlength=bins)
    weight = weight / np.maximum(count, 1)[ring]
    # A product with one-hot rings: the same bits on every run, which a scatter on a GPU does not promise.
    onehot = jax.nn.one_hot(ring.ravel(), bins, dtype=jnp.float32)
    weighted = (amplitude * weight.astype(np.float32)).reshape(amplitude.shape[0], -1)
    return jnp.matmul(weighted, onehot, precision=jax.lax.Precision.HIGHEST)


def _dwt1(x, low, high, axis, mode):
    """One level along `axis` of [B, H, W, C]: (approximation, detail)."""
    length, size = len(low), x.shape[axis]
    if mode == "periodization":
        if size % 2:
            last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
            x, size = jnp.concatenate([x, last], axis=axis), size + 1
        # Output k of PyWavelets is sum_t taps[t] x[2 k + length / 2 - t].
        count, before, after, pad_mode = size // 2, length // 2 - 1, length // 2, "wrap"
    else:
        # Output k is sum_t taps[t] x[2 k + 1 - t].
        count, before, after, pad_mode = (size + length - 1) // 2, length - 2, length - 1, "symmetric"
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, after)
    x = jnp.pad(x, padding, mode=pad_mode) if before or after else x
    outputs = []
    for taps in (low, high):
        total = 0.0
        for offset in range(length):
            part = jax.lax.slice_in_dim(x, offset, offset + 2 * count - 1, stride=2, axis=axis)
            total = total + float(taps[length - 1 - offset]) * part
        outputs.append(total)
    return outputs


def dwt2(x, wavelet="haar", levels=DWT_LEVELS, mode="periodization") -> tuple[jax.Array, list[tuple[jax.Array, ...]]]:
    """Multi-level 2-D discrete wavelet transform, as PyWavelets computes it.

    Args:
      x: [B, H, W, C] float.
      wavelet: a discrete wavelet of PyWavelets, for example "haar" or "db2".
      levels: number of levels, at least 1.
      mode: border, "periodization" (sizes halve, rounded up) or "symmetric".

    Returns:
      (approximation [B, h, w, C], details): details[l], finest level first, is the tuple (horizontal,
      vertical, diagonal) of [B, h_l, w_l, C], PyWavelets' (cH, cV, cD). float32.

    Raises:
      ValueError: unknown wavelet, mode, or fewer than one level.
    """
    if mode not in ("periodization", "symmetric"):
        raise ValueError(f"dwt2 mode must be 'periodization' or 'symmetric', got {mode!r}")
    if levels < 1:
        raise ValueError(f"dwt2 needs at least one level, got {levels}")
    bank = pywt.Wavelet(wavelet)
    approximation, details = x.astype(jnp.float32), []
    for _ in range(levels):
        low, high = _dwt1(approximation, bank.dec_lo, bank.dec_hi, 1, mode)
        approximation, vertical = _dwt1(low, bank.dec_lo, bank.dec_hi, 2, mode)
        horizontal, diagonal = _dwt1(high, bank.dec_lo, bank.dec_hi, 2, mode)
        details.append((horizontal, vertical, diagonal))
    return approximation, details


def _conv(x, features, stride, dtype, name):
    return jax.nn.relu(nn.Conv(features, (3, 3), stride, dtype=dtype, name=name)(x))


class FftBranch(nn.Module):
    """High-pass and phase-only images to [B, g, g, 96], and the radial profile to [B, 32]."""

    grid: int
    dtype: Any

    @nn.compact
    def __call__(self, images) -> tuple[jax.Array, jax.Array]:
        y = luma(images)
        shape = y.shape[1:]
        spectrum = jnp.fft.rfft2(y - y.mean((1, 2), keepdims=True), norm="ortho")
        cutoff = self.param("cutoff", nn.initializers.constant(HIGH_PASS_CUTOFF), (), jnp.float32)
        maps = [DETAIL_GAIN * high_pass(spectrum, cutoff, shape), phase_only(spectrum, shape)]
        x = jnp.stack(maps, axis=-1).astype(self.dtype)
        for index, features in enumerate((16, 32, 64, 96)):
            # Halve while the grid is not undershot, so that only pooling follows, never enlargement.
            stride = 2 if min(x.shape[1:3]) >= 2 * self.grid else 1
            x = _conv(x, features, stride, self.dtype, f"conv_{index}")
        profile = Linear(32, name="profile_1")(radial_profile(spectrum, shape))
        profile = Linear(32, name="profile_2")(jax.nn.gelu(profile))
        return area_pool(x, self.grid), profile


class DwtBranch(nn.Module):
    """Three levels of wavelet details of RGB to [B, g, g, 96], each level joining at its own size."""

    grid: int
    wavelet: str
    dtype: Any

    @nn.compact
    def __call__(self, images) -> jax.Array:
        _, details = dwt2(images, self.wavelet, DWT_LEVELS)
        x = None
        for index, (level, features) in enumerate(zip(details, (32, 64, 96), strict=True)):
            joined = DETAIL_GAIN * 0.5**index * jnp.concatenate(level, axis=-1)
            joined = joined.astype(self.dtype)
            x = joined if x is None else jnp.concatenate([x, joined], axis=-1)
            # The first two strides bring a level to the size of the next one.
            last = index == len(details) - 1
            stride = 1 if last and min(x.shape[1:3]) < 2 * self.grid else 2
            x = _conv(x, features, stride, self.dtype, f"conv_{index}")
        return area_pool(x, self.grid)


class FreqAdapter(nn.Module):
    """Side tokens from frequency, one projection to the transformer for each injection depth.

    Attributes:
      grid: side g of the token grid.
      width: d of the transformer.
      blocks: indices of the blocks before which tokens enter, see `clip.injection_blocks`.
      rank: channels r of the side tokens; 64 for B, 96 for L.
      wavelet: a discrete wavelet of PyWavelets.
      dtype: compute dtype of convolutions; FFT, wavelets, LayerNorm and pooling are float32.
    """

    grid: int
    width: int
    blocks: tuple[int, ...]
    rank: int = 64
    wavelet: str = "haar"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images, weight=None) -> dict[str, jax.Array | dict[int, jax.Array]]:
        """Tokens of a batch.

        Args:
          images: [B, H, W, 3] float, RGB in [0, 1], any size.
          weight: None, or [B, g, g] float >= 0 from `BoundaryMining`; enters divided by its mean.

        Returns:
          dict: tokens [B, g * g, r] float32, before weighting; inject {block: [B, g * g, d]} for
          `VisionTransformer`, zero at initialisation; pooled [B, d // 4] float32, the global vector q.
        """
        batch = images.shape[0]
        spatial, profile = FftBranch(self.grid, self.dtype, name="fft")(images)
        pyramid = DwtBranch(self.grid, self.wavelet, self.dtype, name="dwt")(images)
        profile = jnp.broadcast_to(profile[:, None, None].astype(self.dtype), (*spatial.shape[:3], profile.shape[-1]))
        x = jnp.concatenate([spatial, pyramid, profile], axis=-1)
        x = jax.nn.gelu(Linear(self.rank, self.dtype, name="fuse")(x))
        x = jax.nn.gelu(DepthwiseConv(name="mix")(x))
        tokens = x.reshape(batch, self.grid * self.grid, self.rank).astype(jnp.float32)

        normalised = layer_norm(jnp.float32, "ln")(tokens)
        pooled = tokens
        if weight is not None:
            relative = weight / jnp.maximum(weight.mean((1, 2), keepdims=True), 1e-6)
            relative = relative.reshape(batch, -1, 1).astype(jnp.float32)
            # After the LayerNorm, which would divide a factor common to all channels of a token out again.
            normalised, pooled = normalised * relative, tokens * relative
        inject = {}
        for block in self.blocks:
            project = Linear(self.width, self.dtype, nn.initializers.zeros, use_bias=False, name=f"project_{block}")
            gain = self.param(f"gain_{block}", nn.initializers.ones, (), jnp.float32)
            # The gain before the projection, which is linear: r channels to scale rather than d.
            inject[block] = project(gain * normalised)
        pooled = Linear(self.width // 4, name="pool")(pooled.mean(1))
        return {"tokens": tokens, "inject": inject, "pooled": pooled}
