"""SJEDD's five perturbations at their two levels, against OpenCV and by hand; and how often each is drawn."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_perturb import photo

from msddf_jax.synth import perturbations

QUALITIES = (75, 80, 90)


def _distort(image, kind, draw, key=0):
    """uint8 [H, W, 3] through one perturbation, rounded."""
    out = perturbations.distort(
        jax.random.key(key),
        jnp.asarray(image, jnp.float32) / 255,
        kind=perturbations.KINDS.index(kind),
        draw=draw,
        qualities=QUALITIES,
    )
    assert out.shape == image.shape and out.dtype == jnp.float32
    return np.round(255 * np.asarray(out)).astype(int)


@pytest.mark.parametrize(("draw", "kernel"), [(0.0, 7), (0.49, 7), (0.5, 9), (0.99, 9)])
def test_blur_is_opencvs(draw, kernel):
    image = photo(1, 1, 96, 112)[0]
    expected = cv2.GaussianBlur(image, (kernel, kernel), kernel / 6)
    assert np.abs(_distort(image, "blur", draw) - expected).max() <= 1


# 101 / 3 = 33.67 pixels are 33, as whole numbers divide.
@pytest.mark.parametrize(("draw", "factor"), [(0.2, 2), (0.7, 3)])
def test_pixelation_is_opencvs(draw, factor):
    image = photo(2, 1, 96, 101)[0]
    small = cv2.resize(image, (101 // factor, 96 // factor))
    expected = cv2.resize(small, (101, 96))
    # Between the two resizes there the small image is rounded, here not.
    assert np.abs(_distort(image, "pixels", draw) - expected).max() <= 1


@pytest.mark.parametrize(("draw", "quality"), [(0.3, 75), (0.34, 80), (0.6, 80), (0.7, 90)])
def test_jpeg_is_libjpegs(draw, quality):
    image = photo(3, 1, 96, 112)[0]
    ours, errors = _distort(image, "jpeg", draw), {}
    for other in QUALITIES:
        coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, other])[1]
        errors[other] = np.abs(ours - cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]).mean()
    # libjpeg's transforms are integer (test_degrade); another quality is several times as far away.
    assert errors[quality] < 0.5 and all(error > 2 * errors[quality] for q, error in errors.items() if q != quality)


@pytest.mark.parametrize(("draw", "count"), [(0.4, 16), (0.6, 32)])
@pytest.mark.parametrize("times", [1, 2])
def test_blocks_are_of_grey_and_as_many_as_published(draw, count, times):
    image = np.zeros((256 * times, 300 * times, 3), np.uint8)
    grey = _distort(image, "blocks", draw)
    assert set(np.unique(grey)) == {0, 128}
    pixels = (grey[..., 0] == 128).sum()
    # Blocks may overlap; half of them would not reach this.
    assert 0.7 * 64 * count * times < pixels <= 64 * count * times


def test_blocks_leave_small_images_as_they_are():
    image = photo(4, 1, 96, 112)[0]
    np.testing.assert_array_equal(_distort(image, "blocks", 0.9), image)


@pytest.mark.parametrize(("draw", "variance"), [(0.1, 0.001), (0.8, 0.002)])
def test_noise_has_the_published_variance(draw, variance):
    grey = np.full((160, 160, 3), 128, np.uint8)
    noise = _distort(grey, "noise", draw) - 128.0
    # Equal deviation in Y (219 levels), Cb and Cr (224): green is Y - 0.344 Cb - 0.714 Cr.
    green = np.sqrt(variance) * 255 * np.hypot(255 / 219, 255 / 224 * np.hypot(0.344136, 0.714136))
    np.testing.assert_allclose(noise[..., 1].std(), green, rtol=0.03)


@pytest.mark.long
def test_each_is_drawn_equally_often_and_a_row_depends_on_its_number():
    x = jnp.asarray(photo(5, 1, 32, 32)[0], jnp.float32) / 255
    x = jnp.broadcast_to(x, (400, 32, 32, 3))
    key = jax.random.key(1)
    run = jax.jit(functools.partial(perturbations.perturb, prob=0.5, qualities=QUALITIES, one_by_one=True))
    out = run(key, x)
    changed = np.asarray(jnp.abs(out - x).max((1, 2, 3)) > 0)
    # Half, but for the fifth of them that are blocks, which small images have none of: 0.4, five deviations wide.
    assert abs(changed.mean() - 0.4) < 5 * np.sqrt(0.24 / 400)
    np.testing.assert_array_equal(run(key, x[:7]), out[:7])
    np.testing.assert_array_equal(perturbations.perturb(key, x[:7], prob=0.0), x[:7])
    every = functools.partial(perturbations.perturb, key, x[:7], prob=1.0, qualities=QUALITIES)
    np.testing.assert_allclose(every(one_by_one=True), every(one_by_one=False), atol=1e-5)


def test_settings_that_do_not_fit_are_refused():
    for settings in ({"prob": 1.5}, {"qualities": ()}):
        with pytest.raises(ValueError, match="expected"):
            perturbations.perturb(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), **settings)
