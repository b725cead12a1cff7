"""Mask filters against OpenCV and SciPy."""

import cv2
import jax
import numpy as np
import pytest
import scipy.ndimage

from msddf_jax.synth import morphology

REACH = 5
MORPH = jax.jit(lambda mask, radius, erode: morphology.square_morphology(mask, radius, REACH, erode))
BLUR = jax.jit(lambda plane, a, b: morphology.convolve(plane, a, b))
DISTANCE = jax.jit(lambda mask, limit: morphology.distance_transform(mask, limit, 12))


@pytest.fixture(scope="module")
def blobs():
    noise = scipy.ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(40, 48)), 3)
    return (noise > 0).astype(np.float32)


def test_convolution_is_opencvs(blobs):
    plane = np.random.default_rng(1).random((40, 48)).astype(np.float32)
    for radius, sigma in ((1, 0.8), (4, 1.7)):
        taps = morphology.gaussian_taps(sigma, radius, REACH)
        reference = cv2.GaussianBlur(plane, (2 * radius + 1,) * 2, sigma, borderType=cv2.BORDER_REPLICATE)
        np.testing.assert_allclose(BLUR(plane, taps, taps), reference, atol=1e-6)
    row, column = morphology.gaussian_taps(2.0, 3, REACH), morphology.box_taps(2, REACH)
    reference = cv2.GaussianBlur(plane, (1, 7), sigmaX=1, sigmaY=2.0, borderType=cv2.BORDER_REPLICATE)
    reference = cv2.blur(reference, (5, 1), borderType=cv2.BORDER_REPLICATE)
    np.testing.assert_allclose(BLUR(plane, row, column), reference, atol=1e-6)


def test_a_fractional_radius_lies_between_its_neighbours():
    wide = [np.asarray(morphology.gaussian_taps(3.0, r, REACH)) for r in (2.0, 2.5, 3.0)]
    assert wide[0][3] == 0 < wide[1][3] < wide[2][3]
    for taps in wide:
        assert abs(2 * taps.sum() - taps[0] - 1) < 1e-6


@pytest.mark.parametrize("radius", [0, 1, 3, 5])
def test_square_morphology_is_opencvs(blobs, radius):
    kernel = np.ones((2 * radius + 1,) * 2, np.uint8)
    np.testing.assert_array_equal(MORPH(blobs, radius, True), cv2.erode(blobs, kernel))
    np.testing.assert_array_equal(MORPH(blobs, radius, False), cv2.dilate(blobs, kernel))


def test_distance_is_scipys(blobs):
    reference = scipy.ndimage.distance_transform_edt(np.pad(blobs, 1))[1:-1, 1:-1]
    for limit in (1.0, 4.3, 12.0):
        out = np.asarray(DISTANCE(blobs > 0, limit))
        np.testing.assert_allclose(out, np.minimum(reference, limit), atol=1e-5)
    assert not np.asarray(DISTANCE(np.zeros((40, 48), bool), 5.0)).any()
    whole = np.asarray(DISTANCE(np.ones((40, 48), bool), 12.0))
    assert whole[20, 24] == 12 and whole[0, 0] == 1 and whole[3, 20] == 4


@pytest.mark.parametrize("limit", [1.0, 4.3, 12.0])
def test_distance_is_the_same_where_every_step_is_taken(blobs, limit, monkeypatch):
    # What other devices than a CPU run.
    monkeypatch.setattr(morphology.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    elsewhere = jax.jit(lambda mask, limit: morphology.distance_transform(mask, limit, 12))
    np.testing.assert_array_equal(elsewhere(blobs > 0, limit), DISTANCE(blobs > 0, limit))
