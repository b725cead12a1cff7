"""Each degradation against OpenCV, Pillow or NumPy; the augmentation against what it promises."""

import io

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from msddf_jax.synth import degrade


def photo(seed=0, batch=2, height=48, width=64):
    """Smooth colours, edges and a little grain, uint8 [B, H, W, 3]."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(batch):
        image = cv2.resize(rng.random((4, 5, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.circle(image, (width // 2, height // 2), height // 4, rng.random(3).tolist(), -1)
        image += 0.02 * rng.standard_normal(image.shape)
        out.append(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8))
    return np.stack(out)


def unit(images):
    return images.astype(np.float32) / 255


def pillow_jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).astype(np.float64)


@pytest.mark.parametrize("size", [(48, 64), (37, 51), (9, 3)])
def test_jpeg_equals_pillow(size):
    qualities = np.array([10, 40, 50, 75, 95, 100])
    images = photo(1, len(qualities), *size)
    ours = 255 * np.asarray(degrade.jpeg(unit(images), qualities), np.float64)
    np.testing.assert_allclose(ours, np.round(ours), atol=1e-3)
    for image, quality, out in zip(images, qualities, ours):
        # libjpeg's transforms are integer: a coefficient near a rounding border falls to either side, which in
        # the one or two blocks of a tiny image does not average out.
        error = np.abs(out - pillow_jpeg(image, int(quality))).mean()
        assert error < (0.5 if min(size) >= 16 else 1.0), quality


def test_jpeg_of_noise_and_of_flat_colours():
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    ours = 255 * np.asarray(degrade.jpeg(unit(noise), 60))
    expected = np.stack([pillow_jpeg(image, 60) for image in noise])
    assert np.abs(ours - expected).mean() < 1.0
    flat = np.broadcast_to(rng.integers(0, 256, (2, 1, 1, 3), dtype=np.uint8), (2, 32, 32, 3))
    ours = 255 * np.asarray(degrade.jpeg(unit(flat), 90))
    np.testing.assert_allclose(ours, np.stack([pillow_jpeg(image, 90) for image in flat]), atol=1.01)


def test_jpeg_gradient_is_straight_through_or_none():
    image = 0.2 + 0.6 * jnp.array(unit(photo(3, 1, 32, 32)))

    def run(straight_through):
        out, pullback = jax.vjp(lambda x: degrade.jpeg(x, 80, straight_through=straight_through), image)
        return np.asarray(out), np.asarray(pullback(jnp.ones_like(out))[0])

    through, gradient = run(True)
    hard, nothing = run(False)
    np.testing.assert_array_equal(through, hard)
    assert not nothing.any()
    # Grey stays grey and the chain is linear: the sum of the output follows the sum of the input.
    assert gradient.mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_blur_equals_opencv(one_by_one):
    images = unit(photo(4, 3))
    kernel, sigma = np.array([1, 7, 15]), np.array([1.0, 0.4, 3.0])
    ours = degrade.gaussian_blur(images, kernel, sigma, one_by_one=one_by_one)
    for i in range(3):
        expected = cv2.GaussianBlur(images[i], (int(kernel[i]),) * 2, sigma[i])
        np.testing.assert_allclose(ours[i], expected, atol=2e-6)
    ours = degrade.gaussian_blur(images, 13)  # OpenCV's own sigma
    np.testing.assert_allclose(ours[0], cv2.GaussianBlur(images[0], (13, 13), 0), atol=2e-6)


@pytest.mark.parametrize("size", [(48, 64), (37, 51)])
@pytest.mark.parametrize("down, flag", [("nearest", cv2.INTER_NEAREST), ("bilinear", cv2.INTER_LINEAR)])
def test_down_up_equals_opencv(size, down, flag):
    image = unit(photo(5, 1, *size))[0]
    for factor in (2, 4):
        ours = np.moveaxis(np.asarray(degrade.down_up_planes(np.moveaxis(image, -1, 0), factor, down)), 0, -1)
        height, width = size
        if down == "nearest":
            # albumentations gives OpenCV the scale and not the size: pixel i comes from i * factor.
            small = cv2.resize(image, None, fx=1 / factor, fy=1 / factor, interpolation=flag)
        else:
            small = cv2.resize(image, (round(width / factor), round(height / factor)), interpolation=flag)
        expected = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_a_factor_is_chosen_by_its_place():
    planes = np.moveaxis(unit(photo(5))[0], -1, 0)
    for index, factor in enumerate((None, 2, 4)):
        expected = planes if factor is None else degrade.down_up_planes(planes, factor)
        ours = degrade.choose_factor(planes, index, (2, 4), "nearest")
        np.testing.assert_array_equal(ours, expected)


def test_down_up_names_what_is_allowed():
    with pytest.raises(ValueError, match="'nearest', 'bilinear'"):
        degrade.down_up_planes(unit(photo())[0], 2, down="cubic")


def test_sharpen_equals_a_filter():
    images = unit(photo(6))
    share, lightness = np.array([0.2, 0.5]), np.array([0.5, 1.0])
    ours = degrade.sharpen(images, share, lightness)
    for i in range(2):
        kernel = -np.ones((3, 3))
        kernel[1, 1] = 8 + lightness[i]
        kernel = share[i] * kernel
        kernel[1, 1] += 1 - share[i]
        expected = np.clip(cv2.filter2D(images[i], -1, kernel), 0, 1)
        np.testing.assert_allclose(ours[i], expected, atol=2e-5)


def test_colour_operations_equal_numpy_and_opencv():
    images = unit(photo(7))
    brightness, contrast = np.array([0.1, -0.2]), np.array([-0.1, 0.3])
    expected = np.clip(images * (1 + contrast)[:, None, None, None] + brightness[:, None, None, None], 0, 1)
    np.testing.assert_allclose(degrade.adjust_tone(images, brightness, contrast), expected, atol=1e-6)

    ycc = cv2.cvtColor(images[0], cv2.COLOR_RGB2YCrCb)
    ycc[..., 1:] = 0.5 + 0.4 * (ycc[..., 1:] - 0.5)
    expected = np.clip(cv2.cvtColor(ycc, cv2.COLOR_YCrCb2RGB), 0, 1)
    np.testing.assert_allclose(degrade.scale_saturation(images, 0.4)[0], expected, atol=2e-3)
    grey = np.asarray(degrade.scale_saturation(images, 0.0))
    np.testing.assert_allclose(grey, np.repeat(grey[..., :1], 3, axis=-1), atol=1e-6)


def test_noise_has_the_stated_deviation():
    key = jax.random.key(0)
    grey = np.full((3, 64, 64, 3), 0.5, np.float32)
    noise = np.asarray(degrade.gaussian_noise(key, grey, np.array([0.0, 0.01, 0.05]))) - 0.5
    np.testing.assert_allclose(noise.std((1, 2, 3)), [0.0, 0.01, 0.05], rtol=0.03)
    assert abs(np.corrcoef(noise[1, ..., 0].ravel(), noise[2, ..., 0].ravel())[0, 1]) < 0.1
    # DeeperForensics level 1 on mid-grey, measured on its own code: (19, 12, 16) grey levels in B, G, R.
    noise = 255 * (np.asarray(degrade.color_noise(key, grey, 0.001)) - 0.5)
    np.testing.assert_allclose(noise.std((0, 1, 2)), [16, 12, 19], atol=1.0)


def test_blocks_are_grey_squares():
    images = np.zeros((3, 64, 48, 3), np.float32)
    out = np.asarray(degrade.block_out(jax.random.key(1), images, np.array([0, 1, 30])))
    area = (out[..., 0] > 0).sum((1, 2))
    assert area[0] == 0 and area[1] == 64 and 64 < area[2] <= 30 * 64
    assert set(np.unique(out[2])) == {np.float32(0), np.float32(128 / 255)}


AUGMENT = jax.jit(
    lambda key, x, one_by_one: degrade.augment(key, x, noise_prob=0.5, one_by_one=one_by_one), static_argnums=2
)


def test_augment_rows_do_not_depend_on_the_batch():
    images, key = unit(photo(8, 5)), jax.random.key(2)
    whole = np.asarray(AUGMENT(key, images, True))
    vectorised = np.asarray(AUGMENT(key, images, False))
    part = np.asarray(AUGMENT(key, images[:2], True))
    np.testing.assert_array_equal(part, whole[:2])
    # One level: where JPEG rounds, the last bit of a product may decide.
    assert np.abs(vectorised - whole).mean() < 1e-4 and np.abs(vectorised - whole).max() < 0.05
    assert whole.min() >= 0 and whole.max() <= 1
    assert all(np.abs(whole[i] - images[i]).max() > 0.01 for i in range(5))
    assert np.abs(np.asarray(AUGMENT(jax.random.key(3), images, True)) - whole).max() > 0.05
    np.testing.assert_array_equal(AUGMENT(key, images, True), whole)


def test_augment_is_nothing_with_no_probability_and_itself_with_one():
    images, key = unit(photo(9, 4)), jax.random.key(4)
    off = {f"{name}_prob": 0.0 for name in ("blur", "downscale", "noise", "tone", "jpeg")}
    np.testing.assert_array_equal(degrade.augment(key, images, **off), images)
    jpeg = {**off, "jpeg_prob": 1.0, "jpeg_quality": (70, 70)}
    certain = jax.jit(lambda key, x: degrade.augment(key, x, **jpeg))(key, images)
    np.testing.assert_array_equal(certain, degrade.jpeg(images, 70))
    many, tone = np.repeat(images, 50, axis=0), {**off, "tone_prob": 0.3}
    often = jax.jit(lambda key, x: degrade.augment(key, x, **tone))(key, many)
    share = (np.abs(np.asarray(often) - many).max((1, 2, 3)) > 0).mean()
    assert 0.2 < share < 0.4


@pytest.mark.parametrize(
    "cfg, message",
    [
        ({"jpeg_prob": 1.5}, r"jpeg_prob is 1\.5"),
        ({"jpeg_quality": (90, 40)}, r"jpeg_quality is \(90, 40\)"),
        ({"blur_kernel": 4}, "blur_kernel is 4"),
        ({"downscale_factors": ()}, "downscale_factors is empty"),
    ],
)
def test_augment_refuses_what_makes_no_sense(cfg, message):
    with pytest.raises(ValueError, match=message):
        degrade.augment(jax.random.key(0), unit(photo()), **cfg)
