"""Pixel AUC, IoU and boundary F1 by hand, by scikit-learn and by SciPy's distance transform."""

import cv2
import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as sk

from msddf_jax.evaluators import localization


def make_batch(masks, *, label=None, has_mask=None, real_rows=None):
    """A host batch around masks: bool [B, H, W]."""
    count = len(masks)
    return {
        "mask": np.asarray(masks, np.uint8)[..., None] * 255,
        "has_mask": np.ones(count, bool) if has_mask is None else np.array(has_mask),
        "label": np.ones(count, np.int32) if label is None else np.array(label, np.int32),
        "_mask": np.ones(count, bool) if real_rows is None else np.array(real_rows),
    }


def run(maps, batch, name="toy"):
    sums = localization.init_sums()
    localization.add_batch(sums, np.asarray(maps, np.float32), batch)
    return localization.localization_metrics(name, sums)


def square(size, top, left, side):
    region = np.zeros((size, size), bool)
    region[top : top + side, left : left + side] = True
    return region


def test_iou_by_hand():
    # Two 4 x 4 squares, one moved by 2: 8 pixels in common of 24.
    assert localization.iou(square(10, 1, 1, 4), square(10, 1, 3, 4)) == pytest.approx(8 / 24)
    assert localization.iou(square(10, 1, 1, 4), square(10, 6, 6, 3)) == 0.0
    assert np.isnan(localization.iou(square(4, 0, 0, 0), square(4, 0, 0, 0)))


def test_boundary_by_hand():
    ring = square(6, 1, 1, 4) & ~square(6, 2, 2, 2)
    np.testing.assert_array_equal(localization.boundary(square(6, 1, 1, 4)), np.argwhere(ring))
    # Beyond the image is outside.
    assert len(localization.boundary(np.ones((4, 4), bool))) == 12
    assert len(localization.boundary(np.zeros((4, 4), bool))) == 0


def test_boundary_f1_by_hand():
    # One pixel each, 3 and 4 apart: a distance of 5.
    a, b = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    a[2, 2] = b[5, 6] = True
    diagonal = np.hypot(20, 20)
    assert localization.boundary_f1(a, b, 5.0 / diagonal) == 1.0
    assert localization.boundary_f1(a, b, 4.99 / diagonal) == 0.0
    # Two predicted pixels, one on the true one: precision 1/2, recall 1.
    a[5, 6] = True
    assert localization.boundary_f1(a, b, 1.0 / diagonal) == pytest.approx(2 / 3)
    nothing = np.zeros((20, 20), bool)
    assert localization.boundary_f1(nothing, b) == 0.0 and np.isnan(localization.boundary_f1(nothing, nothing))


@pytest.mark.parametrize("seed", range(8))
def test_boundary_f1_against_the_distance_transform(seed):
    rng = np.random.default_rng(seed)
    a, b = (ndimage.gaussian_filter(rng.normal(size=(40, 56)), 3) > 0.03 for _ in range(2))
    edges = [region & ~ndimage.binary_erosion(region) for region in (a, b)]
    reach = localization.TOLERANCE * 2 * np.hypot(40, 56)
    near = [ndimage.distance_transform_edt(~edge) <= reach for edge in edges]
    precision, recall = near[1][edges[0]].mean(), near[0][edges[1]].mean()
    expected = 2 * precision * recall / (precision + recall)
    assert 0.1 < expected < 1.0
    assert localization.boundary_f1(a, b, 2 * localization.TOLERANCE) == pytest.approx(expected)


@pytest.mark.parametrize("sharpness", [0.5, 4.0, 30.0])
def test_pixel_auc_against_scikit_learn_within_its_stated_error(sharpness):
    """Also of maps that are almost all 0 or 1, where bins of equal width in the score would tell nothing."""
    rng = np.random.default_rng(0)
    masks = np.stack([square(32, 4, 6, 12), square(32, 10, 3, 20)])
    logits = sharpness * (rng.normal(size=(2, 32, 32)) + 1.2 * masks - 2)
    maps = (1 / (1 + np.exp(-logits))).astype(np.float32)
    result = run(maps, make_batch(masks))
    expected = sk.roc_auc_score(masks.ravel(), maps.ravel())
    assert abs(result["toy/pixel_auc"] - expected) <= result["toy/pixel_auc_error"] + 1e-12
    assert result["toy/pixel_auc_error"] < 2e-3


def test_histogram_auc_by_hand():
    # Bins hold (negatives, positives) (2, 1), (1, 0), (0, 2): pairs won 2 x 3 of 9, tied 2 of 9.
    auc, error = localization.histogram_auc([[2, 1, 0], [1, 0, 2]])
    assert (auc, error) == (pytest.approx((6 + 1) / 9), pytest.approx(1 / 9))


def test_figures_of_a_set_by_hand():
    masks = [square(16, 4, 4, 8), square(16, 2, 2, 4)]
    maps = [np.where(masks[0], 0.9, 0.1), np.where(square(16, 2, 2, 8), 0.8, 0.2)]
    result = run(maps, make_batch(masks))
    assert result["toy/pixel_iou"] == pytest.approx((1 + 16 / 64) / 2)
    expected = (1 + localization.boundary_f1(square(16, 2, 2, 8), masks[1])) / 2
    assert result["toy/pixel_boundary_f1"] == pytest.approx(expected)
    assert result["toy/pixel_num_frames"] == 2
    scores, labels = np.ravel(maps), np.ravel(masks)
    assert result["toy/pixel_auc"] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-9)


def test_batches_add_up():
    rng = np.random.default_rng(1)
    masks = np.stack([square(16, i, 2, 6) for i in range(6)])
    maps = rng.random((6, 4, 4)).astype(np.float32)
    sums = localization.init_sums()
    for rows in (slice(0, 4), slice(4, 6)):
        localization.add_batch(sums, maps[rows], make_batch(masks[rows]))
    apart, together = localization.localization_metrics("toy", sums), run(maps, make_batch(masks))
    assert apart == pytest.approx(together, abs=1e-12)
    assert localization.gather_sums(sums) is sums


def test_only_fakes_with_masks_that_are_no_padding_count():
    masks = np.stack([square(8, 2, 2, 4)] * 4)
    wrong = np.zeros((8, 8))
    batch = make_batch(masks, label=[1, 0, 1, 1], has_mask=[True, True, False, True], real_rows=[1, 1, 1, 0])
    result = run([masks[0] * 0.8 + 0.1, wrong, wrong, wrong], batch)
    assert result["toy/pixel_num_frames"] == 1 and result["toy/pixel_iou"] == 1.0
    assert run([wrong] * 4, make_batch(masks, label=[0] * 4)) == {}


def test_empty_and_full_masks():
    half = np.full((2, 8, 8), 0.7)
    with pytest.warns(UserWarning, match="1 fake frames have an empty mask"):
        result = run(half, make_batch([square(8, 0, 0, 0), square(8, 2, 2, 4)]))
    assert result["toy/pixel_num_frames"] == 1 and result["toy/pixel_iou"] == pytest.approx(16 / 64)
    with pytest.warns(UserWarning, match="cover every pixel"):
        full = run(half[:1], make_batch([np.ones((8, 8), bool)]))
    assert np.isnan(full["toy/pixel_auc"]) and full["toy/pixel_iou"] == 1.0


def test_a_small_map_is_enlarged_as_opencv_does():
    values = np.random.default_rng(2).random((6, 6)).astype(np.float32)
    ours = localization.resize_map(values, (24, 30))
    np.testing.assert_allclose(ours, cv2.resize(values, (30, 24), interpolation=cv2.INTER_LINEAR), atol=1e-5)


def test_what_is_no_map_is_refused():
    batch = make_batch([square(8, 2, 2, 4)])
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        run(np.full((1, 4, 4), np.nan), batch)
    with pytest.raises(ValueError, match="a batch with 1 rows"):
        run(np.zeros((2, 4, 4)), batch)
