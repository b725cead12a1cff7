"""ECE, Brier, slope and threshold against hand computations, scikit-learn and simulations."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from sklearn import metrics as sk

from msddf_jax.statistics import calibration, verdict

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


@pytest.mark.parametrize(
    "function", [calibration.ece, calibration.brier, calibration.nll, lambda s, y: calibration.fit_slope(s, y, 0.5)]
)
def test_logits_are_refused(function):
    with pytest.raises(ValueError, match=r"score 1 is 2\.5"):
        function([0.1, 2.5], [0, 1])


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_slope_that_made_the_scores_is_found(true):
    """Where the odds are even at 0.7: the threshold is found there, and the slope that makes the rest."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000) * 1.5
    labels = rng.random(20_000) < expit(logits)
    scores = expit(logits / true + np.log(0.7 / 0.3))
    found = calibration.fit_slope(scores, labels, 0.7)
    assert found == pytest.approx(true, rel=0.05)
    scaled = verdict.apply_calibration(scores, {"slope": found, "threshold": 0.7})
    assert calibration.ece(scaled, labels) < 0.02
    assert calibration.nll(scaled, labels) <= calibration.nll(scores, labels)


def test_slope_equals_another_optimiser():
    rng = np.random.default_rng(1)
    scores, labels = rng.random(60), rng.random(60) < 0.4
    scores = np.where(labels, np.sqrt(scores), scores**2)
    nll = lambda t: sk.log_loss(labels, expit(np.exp(t[0]) * (np.log(scores / (1 - scores)) - np.log(0.6 / 0.4))))
    other = float(np.exp(minimize(nll, [0.0], method="Nelder-Mead", options={"xatol": 1e-6}).x[0]))
    assert calibration.fit_slope(scores, labels, 0.6) == pytest.approx(other, rel=1e-3)


def test_slope_that_the_scores_cannot_tell():
    with pytest.warns(UserWarning, match="their side of 0.7: they do not tell a slope"):
        assert calibration.fit_slope([0.1, 0.6, 0.9], [0, 0, 1], 0.7) == 1.0
    with pytest.warns(UserWarning, match="do not tell a slope"):
        assert calibration.fit_slope([0.5, 0.5], [0, 1], 0.5) == 1.0
    with pytest.warns(UserWarning, match="end of the range"):
        assert calibration.fit_slope([0.1, 0.9], [1, 0], 0.5) == pytest.approx(calibration.SLOPES[0], rel=0.01)
    with pytest.raises(ValueError, match="one class only"):
        calibration.fit_slope([0.1, 0.9], [1, 1], 0.5)


def test_best_threshold_by_hand():
    # Reals .1 .2 .6, fakes .4 .7: between .2 and .4 (hits 2/2, right reals 2/3) beats between .6 and .7 (1/2, 3/3).
    assert calibration.best_threshold([0.1, 0.2, 0.6, 0.4, 0.7], [0, 0, 0, 1, 1]) == pytest.approx(0.3)
    # Any threshold in [.2, .9) is perfect: 0.5 is one of those tried.
    assert calibration.best_threshold([0.2, 0.9], [0, 1]) == 0.5
    assert calibration.best_threshold([0.7, 0.7], [0, 1]) == 0.5
    # Worse than chance: calling all of them fake or all real is the best there is; 0.55 is nearer to 0.5 than below 0.
    assert calibration.best_threshold([0.0, 0.55], [1, 0]) == 0.55
    # Neighbouring floats: strictly above the lower one.
    low = np.float64(0.7)
    assert calibration.best_threshold([low, np.nextafter(low, 1)], [0, 1]) == low
    with pytest.raises(ValueError, match="one class only"):
        calibration.best_threshold([0.2, 0.9], [1, 1])


@settings(max_examples=60, deadline=None)
@given(rows_of_both)
def test_no_threshold_is_better(rows):
    scores, labels = _arrays(rows)
    quality = lambda t: (np.mean(scores[labels == 1] > t) + np.mean(scores[labels == 0] <= t)) / 2
    found = quality(calibration.best_threshold(scores, labels))
    assert found >= max(map(quality, np.arange(-1, 42) / 40)) - 1e-12


def _fit(split="validation", labels=(0, 0, 1, 1, 1, 1)):
    scores, keys = [0.2, 0.3, 0.6, 0.4, 0.1, 0.9], ["r1", "r2", "f1", "f1", "f2", "f3"]
    return calibration.fit_calibration(scores, labels, keys, fitted_on="val", split=split)


def test_a_calibration_of_videos_and_frames():
    found = _fit()
    assert (found["num_videos"], found["frame"]["num_frames"], found["fitted_on"]) == (5, 6, "val")
    # Videos: reals .2 .3, fakes .5 .1 .9; frames: fakes .6 .4 .1 .9.
    assert found["threshold"] == pytest.approx(0.4) and found["frame"]["threshold"] == pytest.approx(0.35)
    for part in (found, found["frame"]):
        assert part["offset"] == pytest.approx(-part["slope"] * np.log(part["threshold"] / (1 - part["threshold"])))
    # No other slope through the same threshold is likelier.
    scores, labels = [0.2, 0.3, 0.5, 0.1, 0.9], [0, 0, 1, 1, 1]
    for other in (0.8, 1.25):
        part = {**found, "slope": other * found["slope"]}
        assert found["nll_after"] < calibration.nll(verdict.apply_calibration(scores, part), labels)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("split", ["test", "all", "train"])
def test_only_a_validation_split_calibrates(split):
    with pytest.raises(ValueError, match=f"'val', whose split is '{split}'"):
        _fit(split)


def test_a_validation_set_of_one_class_gives_no_calibration():
    with pytest.warns(UserWarning, match="val: calibration is undefined"):
        assert _fit(labels=(0,) * 6) is None
