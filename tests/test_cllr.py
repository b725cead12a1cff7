"""Cllr and Cllr_min by hand and by scikit-learn; the fit, its bounds and the zone without an answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from msddf_jax.statistics import intervals, likelihood, metrics, tables, verdict, weighted

rows_of_both = st.lists(
    st.tuples(st.integers(0, 12).map(lambda v: v / 12), st.integers(0, 1)), min_size=2, max_size=40
).filter(lambda rows: len({label for _, label in rows}) == 2)


def _arrays(rows):
    return np.array([s for s, _ in rows]), np.array([y for _, y in rows])


def _simulate(num_real, num_fake, apart=2.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [num_real, num_fake])
    return 1 / (1 + np.exp(-rng.normal(size=labels.size) - apart * (labels - 0.5))), labels


def test_cllr_by_hand():
    # Fakes with LR 3 and 1, a real with LR 1/7: [(log2(4/3) + log2(2)) / 2 + log2(8/7)] / 2.
    expected = ((np.log2(4 / 3) + 1.0) / 2 + np.log2(8 / 7)) / 2
    assert metrics.cllr([0.75, 0.5, 0.125], [1, 1, 0]) == pytest.approx(expected)
    # What says nothing costs one bit, whatever the shares; what is sure and wrong more; what is sure and right nothing.
    assert metrics.cllr([0.5] * 5, [1, 0, 0, 0, 0]) == pytest.approx(1.0)
    assert metrics.cllr([0.01, 0.99], [1, 0]) == pytest.approx(np.log2(100))
    assert metrics.cllr([0.0, 1.0], [0, 1]) < 1e-6
    assert metrics.cllr([0.0, 1.0], [1, 0]) == pytest.approx(np.log2(1e7), abs=1e-5)


def test_cllr_min_by_hand():
    # From the top: fake | real, fake (pooled: one half each) | real. Shares of the classes 1/2: the pool costs
    # 1/2 [1/2 log2(2) + 1/2 log2(2)] = 1/2.
    assert metrics.cllr_min([0.9, 0.6, 0.4, 0.1], [1, 0, 1, 0]) == pytest.approx(0.5)
    assert metrics.cllr_min([0.1, 0.2, 0.8], [0, 0, 1]) == 0.0
    assert metrics.cllr_min([0.8, 0.2, 0.3], [0, 1, 1]) == pytest.approx(1.0)
    assert metrics.cllr_min([5.0, 5.0], [0, 1]) == pytest.approx(1.0)
    for function in (metrics.cllr, metrics.cllr_min):
        with pytest.warns(UserWarning, match="none of the 2 examples is real"):
            assert np.isnan(function([0.2, 0.3], [1, 1]))
    with pytest.raises(ValueError, match="cllr needs probabilities"):
        metrics.cllr([0.2, 3.0], [0, 1])


@settings(max_examples=30, deadline=None)
@given(rows_of_both)
def test_cllr_min_is_that_of_isotonic_regression(rows):
    scores, labels = _arrays(rows)
    mass = np.where(labels == 1, 0.5 / labels.sum(), 0.5 / (1 - labels).sum())
    p = IsotonicRegression(y_min=0, y_max=1).fit(scores, labels, sample_weight=mass).predict(scores)
    of_own = np.where(labels == 1, p, 1 - p)
    assert np.all(of_own > 0)
    found = metrics.cllr_min(scores, labels)
    assert found == pytest.approx(-np.sum(mass * np.log2(of_own)), abs=1e-9)
    # No calibration is cheaper, and any that keeps the order has the same least cost.
    assert -1e-12 <= found <= metrics.cllr(scores, labels) + 1e-12 and found <= 1 + 1e-12
    assert metrics.cllr_min(scores**3 - 7.0, labels) == pytest.approx(found, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(rows_of_both, st.integers(2, 5))
def test_neither_depends_on_the_shares_of_the_classes(rows, times):
    scores, labels = _arrays(rows)
    many = np.repeat(np.arange(labels.size), np.where(labels == 1, times, 1))
    for function in (metrics.cllr, metrics.cllr_min):
        assert function(scores[many], labels[many]) == pytest.approx(function(scores, labels), abs=1e-9)
    # Real and fake exchanged.
    assert metrics.cllr(1 - scores, 1 - labels) == pytest.approx(metrics.cllr(scores, labels), abs=1e-6)
    assert metrics.cllr_min(-scores, 1 - labels) == pytest.approx(metrics.cllr_min(scores, labels), abs=1e-9)


def test_resampled_cllr_is_that_of_videos_written_out():
    scores, labels = _simulate(20, 30)
    weights = np.random.default_rng(1).integers(0, 4, (6, 50))
    drawn = intervals.resampled_metrics(scores, labels, np.arange(50), weights)
    for number, row in enumerate(weights):
        again = np.repeat(np.arange(50), row)
        for name in ("cllr", "cllr_min"):
            assert drawn[name][number] == pytest.approx(getattr(metrics, name)(scores[again], labels[again]))


def test_intervals_and_the_loss_of_a_calibration():
    scores, labels = _simulate(60, 80)
    keys = [f"v{i:03d}" for i in range(140)]
    part = {"slope": 2.0, "threshold": 0.5, "lr": {"low": -1.0, "high": 0.5}}
    fitted = {**part, "frame": part, "aggregate": "mean"}
    found = metrics.detection_metrics(scores, labels, keys, calibration=fitted)
    ends = intervals.bootstrap_intervals(scores, labels, keys, calibration=fitted, resamples=300)
    for name in metrics.IN_BITS:
        low, high = ends[f"video_{name}"]
        assert low < found[f"video_{name}"] < high < 1.0
    # The least cost is no more than what a calibration that was fixed before may cost.
    assert ends["video_cllr_min"][1] == min(ends["video_cllr"][1], ends["video_cllr_calibrated"][1])
    assert ends["video_cllr_loss"][0] == 0.0
    apart = intervals.bootstrap_intervals(0.1 + 0.8 * labels + 0.1 * scores, labels, keys, resamples=50)
    assert apart["video_cllr_min"] == (0.0, apart["video_cllr"][1]) and apart["video_cllr"][1] > 0.1
    ratio = np.clip(2.0 * np.log(scores / (1 - scores)) / np.log(10), -1.0, 0.5)
    by_hand = np.log2(1 + 10.0 ** np.where(labels == 1, -ratio, ratio))
    by_hand = (by_hand[labels == 1].mean() + by_hand[labels == 0].mean()) / 2
    assert found["video_cllr_calibrated"] == pytest.approx(by_hand)
    assert found["video_cllr_loss"] == pytest.approx(by_hand - metrics.cllr_min(scores, labels))


def test_intervals_hold_the_truth():
    """Two normals of unit variance 2 apart, whose logit is half of the log LR: by quadrature; 25 sets of 50 + 50."""
    x = np.linspace(-8, 8, 4001)
    fake = np.exp(-((x - 1) ** 2) / 2) * (x[1] - x[0]) / np.sqrt(2 * np.pi)
    cost = lambda ratio: np.sum(fake * np.log2(1 + np.exp(-ratio)))  # of reals the same, mirrored
    part = {"slope": 1.5, "threshold": 0.5}
    true = {"cllr": cost(x), "cllr_min": cost(2 * x), "cllr_loss": cost(1.5 * x) - cost(2 * x)}
    held = dict.fromkeys(true, 0)
    for seed in range(25):
        scores, labels = _simulate(50, 50, seed=seed)
        plan = intervals._plan(labels, 150, 0.95, seed)
        ends = intervals._level_intervals(scores, labels, np.arange(100), plan, part)
        for name, value in true.items():
            held[name] += ends[name][0] <= value <= ends[name][1]
    assert held["cllr"] >= 21 and held["cllr_min"] == held["cllr_loss"] == 25


def test_the_fit_finds_the_ratio_that_made_the_scores():
    """Two normals of unit variance 2 apart, as logits / 3 + 1: log LR is 2 x there, 6 (logit - 1) here."""
    scores, labels = _simulate(4000, 2000)
    moved = 1 / (1 + np.exp(-np.log(scores / (1 - scores)) / 3 - 1))
    assert likelihood.fit_affine(moved, labels) == pytest.approx((6.0, -6.0), rel=0.05)


def test_the_fit_is_firths():
    """The penalised likelihood written out, at the fit and around it; without the penalty scikit-learn's slope."""
    scores, labels = _simulate(12, 30, seed=3)
    logits = np.log(scores / (1 - scores))

    def loss(slope, offset):
        mass = np.where(labels == 1, 42 / 2 / 30, 42 / 2 / 12)
        p = 1 / (1 + np.exp(-slope * logits - offset))
        design = np.stack([logits, np.ones(42)], axis=1)
        information = design.T @ (design * (mass * p * (1 - p))[:, None])
        return -np.sum(mass * np.log(np.where(labels == 1, p, 1 - p))) - np.linalg.slogdet(information)[1] / 2

    slope, offset = likelihood.fit_affine(scores, labels)
    for move in (-0.02, 0.02):
        assert loss(slope, offset) < min(loss(slope + move, offset), loss(slope, offset + move))
    plain = LogisticRegression(C=np.inf, class_weight="balanced").fit(logits[:, None], labels)
    assert slope < plain.coef_[0, 0] < 1.6 * slope
    many, many_labels = _simulate(3000, 2000)
    plain = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-8)
    plain.fit(np.log(many / (1 - many))[:, None], many_labels)
    expected = (plain.coef_[0, 0], plain.intercept_[0])
    assert likelihood.fit_affine(many, many_labels) == pytest.approx(expected, rel=0.01, abs=0.01)


def test_the_fit_at_its_ends():
    # Told apart: finite, and between the classes.
    slope, offset = likelihood.fit_affine([0.1, 0.2, 0.3, 0.6, 0.7], [0, 0, 0, 1, 1])
    assert 1.0 < slope < 10.0 and 0.3 < 1 / (1 + np.exp(offset / slope)) < 0.6
    with pytest.warns(UserWarning, match="end of the range"):
        assert likelihood.fit_affine([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1])[0] == likelihood.SLOPES[0]
    # Frames of half a video each count as half.
    frames = likelihood.fit_affine([0.2, 0.2, 0.6, 0.4, 0.7], [0, 0, 0, 1, 1], [0.5, 0.5, 1, 1, 1])
    assert frames == pytest.approx(likelihood.fit_affine([0.2, 0.6, 0.4, 0.7], [0, 0, 1, 1]), abs=1e-4)
    with pytest.raises(ValueError, match="one class only"):
        likelihood.fit_affine([0.2, 0.3], [1, 1])


def test_bounds_by_hand():
    # Nobody misleads: the number of the others plus one; or the highest LR that was seen.
    apart = np.array([-3.0] * 9 + [3.0] * 19)
    labels = np.repeat([0, 1], [9, 19])
    assert likelihood.bounds(apart, labels) == pytest.approx((-np.log10(20), np.log10(10)))
    assert likelihood.bounds(apart / 6, labels) == pytest.approx((-0.5, 0.5))
    # One of nine reals at LR 1000: t 2 / 10 = 1 at t = 5.
    apart[0] = 3.0
    assert likelihood.bounds(apart, labels)[1] == pytest.approx(np.log10(5))
    # Half of the fakes are missed too: t 2 / 10 + 1 / 2 = 1 at 2.5; of 20 fakes 10 mislead: t 11 / 21 + 1 / 9 = 1.
    values = np.array([3.0] + [-3.0] * 8 + [3.0] * 10 + [-3.0] * 10)
    labels = np.repeat([0, 1], [9, 20])
    assert likelihood.bounds(values, labels) == pytest.approx((-np.log10(8 / 9 * 21 / 11), np.log10(2.5)))
    # Scores that are upside down support nothing.
    assert likelihood.bounds(-apart, np.repeat([0, 1], [9, 19])) == (0.0, 0.0)


def test_bounds_are_where_the_cost_is_that_of_no_alarm():
    """By trying thresholds: below the bound the cost is less than 1, just above it no longer."""
    for seed in range(5):
        scores, labels = _simulate(15, 25, seed=seed)
        values = np.log(scores / (1 - scores))
        low, high = likelihood.bounds(values, labels)
        for sign, bound in ((1, high), (-1, -low)):
            right, wrong = (sign * values[labels == (value if sign > 0 else 1 - value)] for value in (1, 0))
            cost = lambda t, right=right, wrong=wrong: (
                10**t * (np.sum(wrong >= t) + 1) / (wrong.size + 1) + np.mean(right < t)
            )
            assert all(cost(t) < 1 for t in np.linspace(1e-6, bound - 1e-6, 50)) and cost(bound + 1e-6) >= 1 - 1e-5


def test_frames_of_a_video_bound_as_one():
    scores, labels = _simulate(15, 25)
    values = np.log(scores / (1 - scores))
    repeated = likelihood.bounds(np.repeat(values, 8), np.repeat(labels, 8), np.full(320, 1 / 8))
    assert repeated == pytest.approx(likelihood.bounds(values, labels))


def test_the_zone_by_hand():
    """Ten reals and ten fakes at 0.1, 0.2, ... 1.0 on their side; the two least sure of each are wrong."""
    values = np.concatenate([-np.arange(1, 11), np.arange(1, 11)]) / 10
    values[[0, 1, 10, 11]] *= -1
    labels, ones = np.repeat([0, 1], 10), np.ones(20)
    found = likelihood.fit_zone(values, labels, ones, (-1.0, 1.0), share=0.4)
    assert found == pytest.approx({"abstain_below": 0.5, "abstained": 0.4, "error": 0.2, "error_rest": 0.0})
    # Not below an LR of 2, and not beyond a bound.
    found = likelihood.fit_zone(values, labels, ones, (-1.0, 1.0), share=0.0)
    assert (found["abstain_below"], found["abstained"]) == pytest.approx((np.log10(2), 0.3))
    assert likelihood.fit_zone(values, labels, ones, (-1.0, 0.35), share=0.4)["abstain_below"] == 0.35
    # Where the least sure are no more often wrong, leaving them out helps nobody.
    right = np.where(labels == 1, 1, -1) * np.abs(values)
    assert likelihood.fit_zone(right, labels, ones, (-1.0, 1.0), share=0.4)["abstain_below"] == np.log10(2)
    # A share is of classes that weigh the same: one real of two is a quarter.
    few = likelihood.fit_zone(np.array([0.4, -0.9, 0.5, 0.6, 0.7, 0.8]), np.array([0, 0, 1, 1, 1, 1]), np.ones(6),
                              (-1.0, 1.0), share=0.25)  # fmt: skip
    assert few == pytest.approx({"abstain_below": 0.5, "abstained": 0.25, "error": 0.25, "error_rest": 0.0})


def test_a_ratio_is_held_out_and_bounded():
    scores, labels = _simulate(60, 90)
    people = np.concatenate([np.arange(60), np.arange(90) % 60])
    found, why = likelihood.fit_ratio(scores, labels, np.arange(150), people)
    assert why == "" and (found["num_real"], found["num_fake"]) == (60, 90)
    assert 0.0 < found["high"] <= np.log10(61) and 0.0 < -found["low"] <= np.log10(91)
    assert 0.1 < found["abstained"] < 0.3 and found["error_rest"] < found["error"]
    assert found["cllr_min"] < found["cllr"] < found["cllr_min"] + 0.15
    # Copies of frames say nothing more.
    again, _ = likelihood.fit_ratio(*(np.repeat(v, 3) for v in (scores, labels, np.arange(150), people)))
    for name in ("low", "high", "num_real", "num_fake", "cllr", "cllr_min", "error"):
        assert again[name] == pytest.approx(found[name], rel=1e-3)
    few, why = likelihood.fit_ratio(scores[51:], labels[51:], np.arange(99), people[51:])
    assert few is None and why == "9 real and 90 fake videos, expected 10 of each at least"
    alone = np.where(labels == 0, 0, people + 1)
    assert likelihood.fit_ratio(scores, labels, np.arange(150), alone)[1].startswith("one of the classes is of one")


def test_probability_and_ratio_are_one():
    lr = {"low": -1.0, "high": 0.5, "num_real": 12, "num_fake": 30, "abstain_below": 0.35, "abstained": 0.2}
    part = {"slope": 2.0, "threshold": 0.4, "lr": lr}
    fitted = {**part, "aggregate": "mean", "fitted_on": "val", "frame": {**part, "lr": None}}
    for score in (0.0, 0.1, 0.4, 0.45, 0.6, 0.99):
        judged, found = verdict.judge([score], fitted), verdict.weigh(score, fitted)
        odds = judged.probability / (1 - judged.probability)
        assert found["log10_lr"] == pytest.approx(np.log10(odds), abs=1e-9)
        assert (found["log10_lr"] > 0) == (judged.label == "fake") and found["bounds"] == [-1.0, 0.5]
        unbounded = 2 * (np.log(max(score, 1e-7) / (1 - score)) - np.log(2 / 3)) / np.log(10)
        assert found["abstained"] == (abs(unbounded) < 0.35) == bool(found["reason"])
    assert verdict.weigh(0.9, fitted, "frame") is None and verdict.weigh(0.9, None) is None
    nothing = {**fitted, "lr": {**lr, "high": 0.0}}
    assert "do not bear out" in verdict.weigh(0.9, nothing)["reason"] and verdict.judge([0.9], nothing).label == "fake"


def test_curves_of_many_scores_are_cut():
    scores, labels = _simulate(3000, 3000)
    [curve] = weighted.curves(weighted.once(scores, labels), max_thresholds=500)
    assert weighted.cllr_min(*curve)[0] == pytest.approx(metrics.cllr_min(scores, labels), abs=0.01)


def test_tables_have_it_in_bits():
    results = {"a/video_auc": 0.9, "a/video_cllr_calibrated": 0.354, "_intervals": {}}
    results["_intervals"]["a/video_cllr_calibrated"] = [0.251, 1.2]
    lines = tables.to_latex(results).splitlines()
    assert lines[4].endswith("$C_\\mathrm{llr}$, bits \\\\") and lines[4].count("&") == lines[6].count("&")
    assert lines[6].endswith("& 0.35 {\\scriptsize [0.25, 1.20]} \\\\")
    assert tables.bits(None) == "-" and tables.bits(0.5, (None, None)) == "0.50 [-]"
    assert "a,,video,cllr_calibrated,0.354,0.251,1.2" in tables.to_csv(results)
