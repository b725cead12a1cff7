"""ECE, Brier and what a calibration holds against hand computations and scikit-learn."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from msddf_jax.statistics import calibration, likelihood

rows_of_both = st.lists(
    st.tuples(st.integers(0, 20).map(lambda v: v / 20), st.integers(0, 1)), min_size=2, max_size=40
).filter(lambda rows: len({label for _, label in rows}) == 2)


def _arrays(rows):
    return np.array([s for s, _ in rows]), np.array([y for _, y in rows])


def test_ece_by_hand():
    # Two bins: [0, .5) holds .1 (real) and .3 (fake), [.5, 1] holds .5 (real), .9 (fake), 1.0 (fake).
    scores, labels = [0.1, 0.3, 0.5, 0.9, 1.0], [0, 1, 0, 1, 1]
    low, high = abs(0.2 - 1 / 2), abs(2.4 / 3 - 2 / 3)
    assert calibration.ece(scores, labels, 2) == pytest.approx(2 / 5 * low + 3 / 5 * high)
    gap, mean, share = calibration.reliability(scores, labels, 2)
    np.testing.assert_allclose(mean, [0.2, 0.8])
    np.testing.assert_allclose(share, [1 / 2, 2 / 3])
    np.testing.assert_allclose(gap, [2 / 5 * (0.2 - 1 / 2), 3 / 5 * (0.8 - 2 / 3)])


def test_ece_of_one_bin_is_the_difference_of_means_and_empty_bins_are_nan():
    assert calibration.ece([0.2, 0.6], [0, 1], 1) == pytest.approx(0.1)
    assert np.isnan(calibration.reliability([0.01], [0], 15)[1][1:]).all()
    assert calibration.ece([0.0, 1.0], [0, 1]) == 0.0
    with pytest.raises(ValueError, match="num_bins is 0"):
        calibration.ece([0.2], [0], 0)


@settings(max_examples=50, deadline=None)
@given(rows_of_both)
def test_ece_by_loops_and_brier_and_nll_by_scikit_learn(rows):
    scores, labels = _arrays(rows)
    total = 0.0
    for k in range(15):
        inside = (scores * 15 >= k) & ((scores * 15 < k + 1) | (k == 14))
        if inside.any():
            total += inside.mean() * abs(scores[inside].mean() - labels[inside].mean())
    assert calibration.ece(scores, labels) == pytest.approx(total)
    assert calibration.brier(scores, labels) == pytest.approx(sk.brier_score_loss(labels, scores))
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    assert calibration.nll(scores, labels) == pytest.approx(sk.log_loss(labels, clipped))


@pytest.mark.parametrize("function", [calibration.ece, calibration.brier, calibration.nll])
def test_logits_are_refused(function):
    with pytest.raises(ValueError, match=r"score 1 is 2\.5"):
        function([0.1, 2.5], [0, 1])


def _fit(labels=(0, 0, 1, 1, 1, 1)):
    scores, keys = [0.2, 0.3, 0.6, 0.4, 0.1, 0.9], ["r1", "r2", "f1", "f1", "f2", "f3"]
    return calibration.fit_calibration(scores, labels, keys, fitted_on="val", split="validation")


def test_a_calibration_of_videos_and_frames():
    found = _fit()
    assert (found["num_videos"], found["frame"]["num_frames"], found["fitted_on"]) == (5, 6, "val")
    # Videos: reals .2 .3, fakes .5 .1 .9; frames: fakes .6 .4 .1 .9, of which the first two share the weight of one.
    videos = likelihood.fit_affine([0.2, 0.3, 0.5, 0.1, 0.9], [0, 0, 1, 1, 1])
    frames = likelihood.fit_affine([0.2, 0.3, 0.6, 0.4, 0.1, 0.9], [0, 0, 1, 1, 1, 1], [1, 1, 0.5, 0.5, 1, 1])
    for part, expected in ((found, videos), (found["frame"], frames)):
        assert (part["slope"], part["offset"]) == pytest.approx(expected)
        assert part["offset"] == pytest.approx(-part["slope"] * np.log(part["threshold"] / (1 - part["threshold"])))
        assert part["lr"] is None and part["no_lr"].startswith("2 real and 3 fake videos, expected 10 of each")
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("split", ["test", "all", "train"])
def test_only_a_validation_split_calibrates(split):
    with pytest.raises(ValueError, match=f"config.select names 'val', whose split is '{split}'"):
        calibration.check_split("val", split)
    calibration.check_split("val", "validation")


def test_a_validation_set_of_one_class_gives_no_calibration():
    with pytest.warns(UserWarning, match="val: calibration is undefined"):
        assert _fit(labels=(0,) * 6) is None
