"""Colour spaces against OpenCV, transfers against NumPy and against what they promise."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.synth import color, filters

transfer_rct_m, transfer_rct_fs, transfer_avg_align, transfer_faceswap = (
    jax.jit(getattr(color, f"transfer_{name}")) for name in color.MODES
)


def images(seed=0, batch=2, size=(24, 32)):
    return np.random.default_rng(seed).random((batch, *size, 3)).astype(np.float32)


def half_mask(batch=2, size=(24, 32)):
    mask = np.zeros((batch, *size, 1), np.float32)
    mask[:, 4:18, 6:25] = 1
    return mask


def lab_formula(rgb):
    """CIE definition in float64."""
    rgb = rgb.astype(np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    xyz = linear @ np.array(matrix).T / [0.950456, 1.0, 1.088754]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def test_lab_equals_the_formula_and_opencv():
    rgb = np.concatenate([images(size=(64, 64))[0], np.zeros((1, 64, 3), np.float32)])
    ours = np.asarray(jax.jit(color.rgb_to_lab)(rgb))
    np.testing.assert_allclose(ours, lab_formula(rgb), atol=2e-3)
    # OpenCV interpolates a 33^3 table of 14-bit values: the tolerance is its own error.
    difference = np.abs(ours - cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB))
    assert difference.mean() < 0.1 and difference.max() < 0.7  # of ranges of 100 and 254


def test_lab_inverse_equals_opencv_and_round_trips():
    rgb = images(size=(64, 64))[0]
    lab = lab_formula(rgb).astype(np.float32)
    to_rgb = jax.jit(color.lab_to_rgb)
    ours = np.asarray(to_rgb(lab))
    np.testing.assert_allclose(ours, cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), atol=1e-3)
    np.testing.assert_allclose(ours, rgb, atol=1e-4)
    outside = np.asarray(to_rgb(3 * lab - 100))
    assert outside.min() >= 0 and outside.max() <= 1


def test_rct_m_gives_the_target_mean_and_deviation_under_the_mask():
    source, target = 0.3 + 0.2 * images(1), 0.4 + 0.3 * images(2)
    mask = half_mask()
    out = transfer_rct_m(source[0], target[0], mask[0])
    inside = mask[0, ..., 0] > 0
    moved, wanted = lab_formula(np.asarray(out))[inside], lab_formula(target[0])[inside]
    np.testing.assert_allclose(moved.mean(0), wanted.mean(0), atol=0.3)
    np.testing.assert_allclose(moved.std(0), wanted.std(0), rtol=0.02)


def test_shifts_equal_numpy():
    source, target, mask = images(1)[0], images(2)[0], half_mask()[0]
    inside = mask[..., 0] > 0
    gap = target[inside].mean(0) - source[inside].mean(0)
    out = transfer_rct_fs(source, target, mask)
    np.testing.assert_allclose(out, np.clip(source + gap, 0, 1), atol=1e-5)
    out = transfer_avg_align(source, target, mask)
    np.testing.assert_allclose(out, np.clip(source + gap * inside.mean(), 0, 1), atol=1e-5)


@pytest.mark.parametrize("eye_distance, kernel", [(0.5, 1), (9.0, 7), (12.0, 9), (70.0, 47)])
def test_faceswap_equals_opencv(eye_distance, kernel):
    source, target, mask = images(1)[0], images(2)[0], half_mask()[0]

    def blur(x):
        return cv2.GaussianBlur(x * mask, (kernel, kernel), 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8) + 1 / 255

    out = transfer_faceswap(source, target, mask, eye_distance)
    np.testing.assert_allclose(out, np.clip(source * blur(target) / blur(source), 0, 1), atol=2e-5)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_transfer_takes_each_sample_by_its_own_mode(one_by_one):
    source, target, mask = images(1, batch=4), images(2, batch=4), half_mask(4)
    mode, distance = jnp.array([3, 1, 0, 2]), jnp.full((4,), 9.0)
    out = color.transfer(mode, source, target, mask, distance, one_by_one)
    single = {
        "rct_m": transfer_rct_m,
        "rct_fs": transfer_rct_fs,
        "avg_align": transfer_avg_align,
        "faceswap": lambda *a: transfer_faceswap(*a, 9.0),
    }
    for i, index in enumerate(np.asarray(mode)):
        expected = single[color.MODES[index]](source[i], target[i], mask[i])
        np.testing.assert_allclose(out[i], expected, atol=1e-5)


def test_degenerate_input_gives_finite_output_and_gradient():
    source = np.stack([np.zeros((24, 32, 3)), np.full((24, 32, 3), 0.5)] * 4).astype(np.float32)
    target = images(3, batch=8)
    mask = np.concatenate([half_mask(4), np.zeros((4, 24, 32, 1), np.float32)])
    mode = jnp.array([0, 1, 2, 3, 0, 1, 2, 3])
    distance = jnp.array([0.0, np.nan, np.inf, -3.0, 9.0, 1e9, 9.0, 9.0])

    @jax.jit
    def run(source):
        out, pullback = jax.vjp(lambda s: color.transfer(mode, s, target, mask, distance), source)
        return out, pullback(jnp.ones_like(out))[0]

    out, gradient = (np.asarray(v) for v in run(source))
    assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    assert np.isfinite(gradient).all()
    # Nothing under the mask: nothing to transfer.
    np.testing.assert_allclose(out[4:], source[4:], atol=1e-4)


def test_blur_matrices_equal_opencv():
    image = images(5)[0]
    blur = jax.jit(filters.gaussian_blur)
    for kernel, sigma in [(1, 1.0), (5, 0.8), (15, 3.0), (25, 40.0)]:
        expected = cv2.GaussianBlur(image, (kernel, kernel), sigma)
        np.testing.assert_allclose(blur(image, kernel, sigma), expected, atol=2e-6)
