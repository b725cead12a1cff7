"""Colour spaces and the four colour transfers of the blender (MSDDF section 2.3).

The transfers move the colours of a source face towards those of the target under a mask. They differ from
the public code where it is at fault: statistics are those of the pixels under the mask (the code's Reinhard
transfer counts the zeros outside it, on channels in the wrong order), values out of gamut are clipped (the
code rescales the whole channel for one pixel), and what lies outside the mask keeps its content (the code
leaves black or a constant there, which a Poisson blend then drags in over the border).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.synth import filters

MODES = ("rct_m", "rct_fs", "avg_align", "faceswap")

# ITU-R BT.709 primaries, D65 white: the constants of OpenCV's COLOR_RGB2LAB.
_XYZ_FROM_RGB = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.950456], [1.0], [1.088754]])
_RGB_FROM_XYZ = np.linalg.inv(_XYZ_FROM_RGB).astype(np.float32)
_XYZ_FROM_RGB = _XYZ_FROM_RGB.astype(np.float32)
_LAB_FROM_F = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]], np.float32)
_LAB_EPSILON = 0.008856
_LAB_KAPPA = 7.787
_LAB_OFFSET = 16.0 / 116.0
# Added to a variance, in squared LAB units: a flat face is scaled by 1, not by noise over noise.
_VARIANCE_FLOOR = 0.25
# Added to both blurred faces: one grey level, so that their ratio tends to 1 where neither has light.
_RATIO_FLOOR = 1.0 / 255.0


def _power(x, exponent):
    """x ** exponent for x >= 0. The library's pow and cbrt do not vectorise on the CPU: 10 times slower."""
    return jnp.exp(exponent * jnp.log(jnp.maximum(x, 1e-12)))


def rgb_to_lab(x) -> jax.Array:
    """sRGB to CIE L*a*b* (D65), `cv2.cvtColor(x, cv2.COLOR_RGB2LAB)` of a float32 image.

    Args:
      x: [..., 3] float32 in [0, 1].

    Returns:
      [..., 3] float32: L in [0, 100], a and b about [-127, 127]. Within 1e-3 of the CIE formula; OpenCV
      itself interpolates a table, which is 0.08 away from the formula on average and 0.6 at most.
    """
    planes = jnp.moveaxis(x, -1, 0)
    linear = jnp.where(planes <= 0.04045, planes / 12.92, _power((planes + 0.055) / 1.055, 2.4))
    # Products over planes: written out per channel, XLA's fusion computes each power up to six times.
    xyz = jnp.tensordot(_XYZ_FROM_RGB, linear, 1, precision=filters.PRECISION)
    f = jnp.where(xyz > _LAB_EPSILON, _power(xyz, 1 / 3), _LAB_KAPPA * xyz + _LAB_OFFSET)
    lab = jnp.tensordot(_LAB_FROM_F, f, 1, precision=filters.PRECISION)
    return jnp.moveaxis(lab, 0, -1) - jnp.array([16.0, 0.0, 0.0], jnp.float32)


def lab_to_rgb(x) -> jax.Array:
    """CIE L*a*b* (D65) to sRGB, `cv2.cvtColor(x, cv2.COLOR_LAB2RGB)` of a float32 image.

    Args:
      x: [..., 3] float32, L in [0, 100], a and b about [-127, 127].

    Returns:
      [..., 3] float32, clipped to [0, 1]; within 1e-3 of OpenCV.
    """
    planes = jnp.moveaxis(x, -1, 0)
    lightness, a, b = planes
    fy = (lightness + 16.0) / 116.0
    f = jnp.stack([fy + a / 500.0, fy, fy - b / 200.0])
    threshold = _LAB_KAPPA * _LAB_EPSILON + _LAB_OFFSET
    xyz = jnp.where(f <= threshold, (f - _LAB_OFFSET) / _LAB_KAPPA, f * f * f)
    linear = jnp.clip(jnp.tensordot(_RGB_FROM_XYZ, xyz, 1, precision=filters.PRECISION), 0.0, 1.0)
    rgb = jnp.where(linear <= 0.0031308, 12.92 * linear, 1.055 * _power(linear, 1 / 2.4) - 0.055)
    return jnp.moveaxis(jnp.clip(rgb, 0.0, 1.0), 0, -1)


def _masked_mean(x, mask):
    """Mean of x [H, W, C] over mask [H, W, 1]; zero where the mask is empty."""
    # A product, not a sum over two axes: four times as fast on a CPU.
    total = jnp.einsum("hwc,hw->c", x, mask[..., 0], precision=filters.PRECISION)
    return total / jnp.maximum(jnp.sum(mask), 1e-6)


def transfer_rct_m(source, target, mask) -> jax.Array:
    """Reinhard transfer in LAB: mean and standard deviation of the target under the mask, per channel.

    Args:
      source, target: [H, W, 3] float32 in [0, 1]. mask: [H, W, 1] float32 in [0, 1].

    Returns:
      [H, W, 3] float32 in [0, 1], transferred everywhere; with an empty mask the source.
    """
    lab_s, lab_t = rgb_to_lab(source), rgb_to_lab(target)
    mean_s, mean_t = _masked_mean(lab_s, mask), _masked_mean(lab_t, mask)
    var_s = _masked_mean(jnp.square(lab_s - mean_s), mask)
    var_t = _masked_mean(jnp.square(lab_t - mean_t), mask)
    scale = jnp.sqrt((var_t + _VARIANCE_FLOOR) / (var_s + _VARIANCE_FLOOR))
    moved = (lab_s - mean_s) * scale + mean_t
    limit = jnp.array([[0.0, -127.0, -127.0], [100.0, 127.0, 127.0]], jnp.float32)
    return lab_to_rgb(jnp.clip(moved, limit[0], limit[1]))


def transfer_rct_fs(source, target, mask) -> jax.Array:
    """Shift of the RGB mean under the mask: `clip(S - mean_M(S) + mean_M(T))`.

    Args and returns as `transfer_rct_m`.
    """
    return jnp.clip(source + _masked_mean(target - source, mask), 0.0, 1.0)


def transfer_avg_align(source, target, mask) -> jax.Array:
    """Shift by the mean over the whole image of the masked difference: `rct_fs` scaled by the mask's area.

    The gentlest of the four (a 5 % region takes 5 % of the colour gap). Args and returns as `transfer_rct_m`.
    """
    return jnp.clip(source + _masked_mean(target - source, mask) * jnp.mean(mask), 0.0, 1.0)


def transfer_faceswap(source, target, mask, eye_distance) -> jax.Array:
    """Colour correction of the classic face swap: times the ratio of the blurred faces.

    Args:
      source, target: [H, W, 3] float32 in [0, 1]. mask: [H, W, 1] float32 in [0, 1].
      eye_distance: scalar, distance of the eye centres in pixels; the blur kernel is int(0.75 * distance)
        made odd, within [1, 2 * min(H, W) - 1].

    Returns:
      [H, W, 3] float32 in [0, 1]; far from the mask, where both blurs are dark, the source.
    """
    size = min(source.shape[:2])
    kernel = jnp.floor(0.75 * jnp.nan_to_num(jnp.clip(eye_distance, 0.0, 4.0 * size)))
    kernel = jnp.clip(2.0 * jnp.floor(kernel / 2.0) + 1.0, 1.0, 2.0 * size - 1.0)
    sigma = filters.auto_sigma(kernel)
    blurred_s = filters.gaussian_blur(source * mask, kernel, sigma) + _RATIO_FLOOR
    blurred_t = filters.gaussian_blur(target * mask, kernel, sigma) + _RATIO_FLOOR
    return jnp.clip(source * blurred_t / blurred_s, 0.0, 1.0)


@functools.partial(jax.jit, static_argnames="one_by_one")
def transfer(mode, source, target, mask, eye_distance, one_by_one=None) -> jax.Array:
    """Colour transfer of each sample by its own mode.

    Args:
      mode: [B] int32, index into `MODES`. source, target: [B, H, W, 3] float32 in [0, 1].
      mask: [B, H, W, 1] float32 in [0, 1]. eye_distance: [B] float32, pixels.
      one_by_one: see `filters.over_rows`.

    Returns:
      [B, H, W, 3] float32 in [0, 1]: the source with the target's colours.
    """
    branches = (
        lambda s, t, m, _: transfer_rct_m(s, t, m),
        lambda s, t, m, _: transfer_rct_fs(s, t, m),
        lambda s, t, m, _: transfer_avg_align(s, t, m),
        transfer_faceswap,
    )
    rows = (mode, source, target, mask, eye_distance)
    return filters.over_rows(lambda row: jax.lax.switch(row[0], branches, *row[1:]), rows, one_by_one)
