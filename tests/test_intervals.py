"""Intervals and tests: against direct resampling, closed forms, permutations, and their coverage on simulations."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm, t

from benchmarks import coverage
from msddf_jax.statistics import calibration, intervals, metrics, weighted

CALIBRATION = {"slope": 0.6, "threshold": 0.42, "aggregate": "mean"}

videos_of_both = st.lists(
    st.tuples(st.lists(st.integers(0, 12).map(lambda v: v / 12), min_size=1, max_size=4), st.integers(0, 1)),
    min_size=2,
    max_size=12,
).filter(lambda rows: len({label for _, label in rows}) == 2)


def _flat(rows):
    scores = np.array([s for frames, _ in rows for s in frames])
    labels = np.array([label for frames, label in rows for _ in frames])
    videos = np.array([i for i, (frames, _) in enumerate(rows) for _ in frames])
    return scores, labels, videos


def _simulate(rng, num_real, num_fake, distance, frames=1):
    """(scores, labels, keys) of videos whose frames share most of their score."""
    labels = np.repeat([0] * num_real + [1] * num_fake, frames)
    shared = np.repeat(rng.normal(size=num_real + num_fake), frames)
    logits = distance * (labels - 0.5) + shared + (0.5 * rng.normal(size=labels.size) if frames > 1 else 0.0)
    keys = np.repeat([f"v{i:05d}" for i in range(num_real + num_fake)], frames)
    return 1 / (1 + np.exp(-logits)), labels, keys


@settings(max_examples=20, deadline=None)
@given(videos_of_both, st.randoms(use_true_random=False))
def test_weights_are_repeated_videos(rows, random):
    """A resample given as weights has the metrics of the frames written out as often as drawn."""
    scores, labels, videos = _flat(rows)
    weights = np.array([[random.randint(0, 3) for _ in rows] for _ in range(4)] + [[1] * len(rows)])
    first = {label: next(i for i, row in enumerate(rows) if row[1] == label) for label in (0, 1)}
    weights[:, list(first.values())] += 1 - (weights[:, list(first.values())] > 0)
    drawn = intervals.resampled_metrics(scores, labels, videos, weights, calibration=CALIBRATION)
    for i, row in enumerate(weights):
        repeat = np.repeat(np.arange(len(scores)), row[videos])
        expected = metrics.level_metrics(scores[repeat], labels[repeat], calibration=CALIBRATION)
        assert set(drawn) == set(expected) - {"num_real", "num_fake"}
        for name, values in drawn.items():
            assert values[i] == pytest.approx(expected[name], abs=1e-9), name


def test_more_scores_than_thresholds_stay_close(monkeypatch):
    rng = np.random.default_rng(0)
    scores, labels, _ = _simulate(rng, 400, 400, 1.5)
    ones = np.ones((1, 800), np.int32)
    monkeypatch.setattr(intervals, "MAX_THRESHOLDS", 100)
    drawn = intervals.resampled_metrics(scores, labels, np.arange(800), ones)
    expected = metrics.level_metrics(scores, labels)
    assert drawn["auc"][0] != expected["auc"]
    assert drawn["auc"][0] == pytest.approx(expected["auc"], abs=1 / 200)
    assert drawn["eer"][0] == pytest.approx(expected["eer"], abs=0.01)


def test_frames_of_a_video_travel_together():
    """Twenty copies of each frame add nothing: the interval of frames is that of videos."""
    scores, labels, keys = _simulate(np.random.default_rng(1), 30, 30, 1.0)
    found = intervals.bootstrap_intervals(np.repeat(scores, 20), np.repeat(labels, 20), np.repeat(keys, 20))
    assert found["frame_auc"] == pytest.approx(found["video_auc"], abs=1e-9)
    low, high = found["video_auc"]
    assert high - low > 0.2 and low < metrics.auc(scores, labels) < high


def test_the_same_seed_gives_the_same_interval_and_rows_may_be_shuffled():
    scores, labels, keys = _simulate(np.random.default_rng(2), 20, 25, 1.0, frames=3)
    first = intervals.bootstrap_intervals(scores, labels, keys, resamples=200, calibration=_calibration())
    order = np.random.default_rng(3).permutation(len(scores))
    again = intervals.bootstrap_intervals(
        scores[order], labels[order], keys[order], resamples=200, calibration=_calibration()
    )
    assert set(first) == {
        f"{level}_{name}" for level in ("frame", "video") for name in (*metrics.NAMES, *metrics.CALIBRATED)
    }
    for name, ends in first.items():
        assert again[name] == pytest.approx(ends, abs=1e-9), name
    other = intervals.bootstrap_intervals(scores, labels, keys, resamples=200, seed=1)
    assert other["video_auc"] != first["video_auc"]


def _calibration():
    return {**CALIBRATION, "frame": CALIBRATION}


def test_bca_against_scipy():
    """A mean, for which SciPy has the same interval; its jackknife is of one sample, as ours with one stratum."""
    data = np.random.default_rng(4).gamma(1.0, size=30)
    reference = bootstrap((data,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    drawn = data[rng.integers(0, 30, (20_000, 30))].mean(1)
    jackknife = np.array([np.delete(data, i).mean() for i in range(30)])
    found = intervals.bca_interval(drawn, data.mean(), jackknife, np.zeros(30), student=False)
    assert found == pytest.approx(tuple(reference.confidence_interval), abs=0.01)
    low, high = intervals.bca_interval(drawn, data.mean(), jackknife, np.zeros(30))
    assert low < found[0] and high > found[1]


def test_reach_by_hand():
    """Degrees of freedom: 3 of four values, 6 of two such strata, 20 / (73 / 9 - 7 / 9) of one value against nine."""
    even, tail = np.array([-1.0, 1.0, -1.0, 1.0]), np.array([9.0, *[-1.0] * 9])
    assert intervals.student_reach(even, np.zeros(4)) == pytest.approx(np.sqrt(4 / 3) * t.ppf(0.975, 3))
    two = intervals.student_reach(np.tile(even, 2), np.repeat([0, 1], 4), level=0.9)
    assert two == pytest.approx(np.sqrt(4 / 3) * t.ppf(0.95, 6))
    assert intervals.student_reach(tail, np.zeros(10)) == pytest.approx(np.sqrt(10 / 9) * t.ppf(0.975, 30 / 11))
    assert intervals.student_reach(np.zeros(4), np.zeros(4)) == pytest.approx(norm.ppf(0.975))
    # One stratum without influence does not count.
    assert intervals.student_reach(np.append(even, [0.0] * 9), np.repeat([0, 1], [4, 9])) == pytest.approx(
        np.sqrt(4 / 3) * t.ppf(0.975, 3)
    )


def test_interval_of_normal_draws_reaches_that_far():
    drawn = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    jackknife = np.tile([-1.0, 1.0], 10)
    reach = np.sqrt(20 / 19) * t.ppf(0.975, 19)
    assert intervals.bca_interval(drawn, 0.0, jackknife, np.zeros(20)) == pytest.approx((-reach, reach), abs=0.01)


def test_ece_interval_by_hand():
    """One bin far from 0 has the normal interval; near 0 the interval starts there; noise that is equal has none."""
    noise = 0.1 * norm.ppf((np.arange(4000) + 0.5) / 4000)[:, None]
    for gap in (0.7, -0.7):
        low, high = intervals.ece_interval(gap + noise, np.array([gap]))
        assert (low, high) == pytest.approx((0.7 - 0.196, 0.7 + 0.196), abs=0.005)
    assert intervals.ece_interval(0.9 + noise, np.array([0.9]))[1] == 1.0
    low, high = intervals.ece_interval(0.1 + noise, np.array([0.1]))
    assert low == 0.0 and high == pytest.approx(0.1 + 0.196, abs=0.005)
    assert np.isnan(intervals.ece_interval(np.full((9, 2), 0.1), np.full(2, 0.1))).all()


def test_ece_interval_of_perfect_calibration_holds_zero():
    """Fifteen bins of noise only: their sum is far from 0, and 0 is in 95 % of intervals, +- 4 of 150."""
    rng, zeros = np.random.default_rng(12), 0
    for _ in range(150):
        gaps = 0.01 * rng.normal(size=15)
        zeros += intervals.ece_interval(gaps + 0.01 * rng.normal(size=(200, 15)), gaps)[0] == 0.0
    assert 0.91 <= zeros / 150 <= 0.99


def test_ece_interval_is_of_resampled_frames_written_out():
    scores, labels, keys = _simulate(np.random.default_rng(13), 6, 7, 2.0, frames=3)
    found = intervals.bootstrap_intervals(scores, labels, keys, resamples=50, seed=4)["frame_ece"]
    videos = np.unique(keys, return_inverse=True)[1]
    gaps = []
    for row in intervals._plan(labels[::3], 50, 0.95, 4).weights[:50]:
        repeat = np.repeat(np.arange(len(scores)), row[videos])
        gaps.append(np.nan_to_num(calibration.reliability(scores[repeat], labels[repeat])[0]))
    whole = np.nan_to_num(calibration.reliability(scores, labels)[0])
    bins = weighted.score_bins(scores, weighted.BINS)
    filled = np.array([len(set(videos[bins == k])) for k in range(15)])
    wider = np.sqrt([2.0 if n < 2 else n / (n - 1) for n in filled])
    assert found == pytest.approx(intervals.ece_interval(whole + (gaps - whole) * wider, whole), abs=1e-9)


def test_lower_end_is_zero_where_too_few_videos_lie_beyond():
    """Of 40 fakes 0.4, 2 and 4 are expected below TPR 99, 95, 90 %; of 30 reals 0.03, 0.3 and 1.5 above the FPRs."""
    scores, labels, keys = _simulate(np.random.default_rng(14), 30, 40, 3.0)
    found = intervals.bootstrap_intervals(scores, labels, keys, resamples=300)
    # Of those where more is better.
    low = {name: found[f"video_{name}"][0] for name in metrics.RANKED if name not in ("eer", *metrics.IN_BITS)}
    assert {name for name, value in low.items() if value == 0.0} == {"tnr99", "tpr_fpr0.1", "tpr_fpr1", "tpr_fpr5"}
    assert all(found[f"video_{name}"][1] > 0.5 for name in low)
    perfect = intervals.bootstrap_intervals(labels * 0.8 + 0.1, labels, keys, resamples=50)
    assert np.isnan(perfect["video_tnr99"]).all()


def test_no_interval_where_nothing_varies():
    perfect = intervals.bootstrap_intervals([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], list("abcd"), resamples=50)
    assert np.isnan(perfect["video_auc"]).all() and np.isfinite(perfect["video_brier"]).all()
    with pytest.warns(UserWarning, match="one real video tells nothing"):
        alone = intervals.bootstrap_intervals([0.5, 0.2, 0.9], [0, 1, 1], list("abc"), resamples=50)
    assert np.isnan(list(alone.values())).all()
    one_class = intervals.bootstrap_intervals([0.1, 0.2, 0.8], [1, 1, 1], list("abc"), resamples=50)
    assert np.isnan(one_class["video_auc"]).all() and np.isfinite(one_class["video_accuracy"]).all()


def test_settings_outside_their_range():
    for wrong in ({"resamples": 0}, {"level": 1.0}):
        with pytest.raises(ValueError, match="resamples at level"):
            intervals.bootstrap_intervals([0.5, 0.2], [0, 1], ["a", "b"], **wrong)


@pytest.mark.parametrize(("distance", "num_real", "num_fake"), [(1.0, 60, 60), (2.0, 50, 70)])
def test_coverage_of_the_video_auc(distance, num_real, num_fake):
    """95 % intervals of a known AUC hold it in 93 to 97 % of 600 sets; benchmarks/coverage.py tries more of them."""
    true, hits = norm.cdf(distance / np.sqrt(2)), 0
    rng = np.random.default_rng(5)
    for seed in range(600):
        scores, labels, _ = _simulate(rng, num_real, num_fake, distance)
        low, high = intervals.auc_interval(scores, labels, resamples=400, seed=seed)
        hits += low <= true <= high
    assert 0.93 <= hits / 600 <= 0.97


def test_truths_of_the_benchmark():
    """Closed forms of two normals of unit variance 2 apart, and a large sample of every setting's kind."""
    true = coverage.truths(coverage.SETTINGS[1])
    forms = {"auc": norm.cdf(2 / np.sqrt(2)), "eer": norm.cdf(-1), "accuracy": norm.cdf(1)}
    forms |= {"tnr95": norm.cdf(2 - norm.ppf(0.95)), "tpr_fpr5": norm.cdf(2 - norm.ppf(0.95))}
    assert {name: true[name] for name in forms} == pytest.approx(forms, abs=1e-5)
    for setting in coverage.SETTINGS[-3:]:
        large = setting._replace(num_real=200 * setting.num_real, num_fake=200 * setting.num_fake)
        _, scores, labels, _ = next(coverage.simulate(large, 1))
        found, true = metrics.level_metrics(scores, labels), coverage.truths(setting)
        # The highest of a thousand reals is what TPR at FPR 0.1 % depends on.
        assert {name: found[name] for name in true} == pytest.approx(true, abs=0.04)
        assert found["auc"] == pytest.approx(true["auc"], abs=0.005)


def test_auc_interval_is_that_of_the_whole_table():
    scores, labels, keys = _simulate(np.random.default_rng(6), 40, 30, 1.0)
    found = intervals.bootstrap_intervals(scores, labels, keys, resamples=300)
    assert intervals.auc_interval(scores, labels, resamples=300) == pytest.approx(found["video_auc"])


def test_delong_by_hand():
    # Fakes .8 .6 .3, reals .2 .5: shares of reals below each fake 1, 1, 1/2; of fakes above each real 1, 2/3.
    auc, cov = intervals.delong_covariance([[0.2, 0.5, 0.8, 0.6, 0.3]], [0, 0, 1, 1, 1])
    assert auc[0] == pytest.approx(5 / 6)
    assert cov[0, 0] == pytest.approx(np.var([1, 1, 0.5], ddof=1) / 3 + np.var([1, 2 / 3], ddof=1) / 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=20), st.integers(2, 10))
def test_delong_covariance_by_pairs(rows, num_fake):
    num_fake = min(num_fake, len(rows) - 2)
    scores, labels = np.array(rows, float).T, np.arange(len(rows)) < num_fake
    auc, cov = intervals.delong_covariance(scores, labels)
    kernel = [[[(f > r) + 0.5 * (f == r) for r in s[~labels]] for f in s[labels]] for s in scores]
    kernel = np.array(kernel)  # [detector, fake, real]
    expected = np.cov(kernel.mean(2)) / num_fake + np.cov(kernel.mean(1)) / (len(rows) - num_fake)
    np.testing.assert_allclose(cov, expected, atol=1e-12)
    np.testing.assert_allclose(auc, [metrics.auc(s, labels) for s in scores])


def test_delong_where_there_is_no_variance():
    labels = [0, 0, 1, 1]
    same = intervals.delong_test([0.1, 0.5, 0.3, 0.9], [0.1, 0.5, 0.3, 0.9], labels)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)
    with pytest.warns(UserWarning, match="undefined, NaN"):
        other = intervals.delong_test([0.1, 0.2, 0.8, 0.9], [0.5] * 4, labels)
    assert other.difference == 0.5 and np.isnan(other.p_value)
    with pytest.warns(UserWarning, match="undefined, NaN"):
        assert np.isnan(intervals.delong_test([0.1, 0.8, 0.9], [0.2, 0.1, 0.3], [0, 1, 1]).p_value)
    with pytest.raises(ValueError, match="needs reals and fakes"):
        intervals.delong_test([0.1, 0.2], [0.1, 0.2], [1, 1])


def test_permutation_test_against_all_swaps():
    rng = np.random.default_rng(7)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    a, b = rng.permutation(8) + 1.0, rng.permutation(8) + 1.0
    observed = abs(metrics.auc(a, labels) - metrics.auc(b, labels))
    extreme = 0
    for swap in itertools.product([False, True], repeat=8):
        one, two = np.where(swap, b, a), np.where(swap, a, b)
        extreme += abs(metrics.auc(one, labels) - metrics.auc(two, labels)) >= observed - 1e-12
    exact = extreme / 2**8
    assert 0.05 < exact < 0.95
    assert intervals.permutation_test(a, b, labels, resamples=4000) == pytest.approx(exact, abs=0.03)


def test_permutation_test_does_not_depend_on_scales():
    rng = np.random.default_rng(8)
    a, b, labels = rng.random(40), rng.random(40), rng.random(40) < 0.5
    kwargs = {"resamples": 500, "seed": 3}
    assert intervals.permutation_test(a, b, labels, **kwargs) == intervals.permutation_test(
        a, 1000 * b, labels, **kwargs
    )
    assert intervals.permutation_test(a, a, labels, **kwargs) == 1.0


@pytest.mark.parametrize("gap", [0.0, 0.25, 0.6])
def test_delong_equals_the_permutation_test_within_noise(gap):
    rng = np.random.default_rng(9)
    labels = np.arange(300) % 2
    shared = rng.normal(size=300)
    a, b = (shared + 0.7 * rng.normal(size=300) + distance * labels for distance in (1.0 + gap, 1.0))
    delong, permutation = intervals.delong_test(a, b, labels), intervals.permutation_test(a, b, labels)
    noise = 4 * np.sqrt(max(delong.p_value * (1 - delong.p_value), 1e-4) / 10_000)
    assert permutation == pytest.approx(delong.p_value, abs=0.015 + noise)


def test_delong_keeps_its_level_without_a_difference():
    """p-values of equal detectors: 5 % fall below 0.05."""
    rng = np.random.default_rng(10)
    labels, rejected = np.arange(160) % 2, 0
    for _ in range(600):
        shared = rng.normal(size=160) + labels
        a, b = (shared + rng.normal(size=160) for _ in range(2))
        rejected += intervals.delong_test(a, b, labels).p_value < 0.05
    assert 0.03 <= rejected / 600 <= 0.07


def test_paired_bootstrap_agrees_with_delong_and_is_narrower_than_apart():
    rng = np.random.default_rng(11)
    labels = np.arange(200) % 2
    shared = rng.normal(size=200) + labels
    a, b = (1 / (1 + np.exp(-(shared + 0.3 * rng.normal(size=200)))) for _ in range(2))
    keys = [f"v{i:03d}" for i in range(200)]
    low, high = intervals.paired_bootstrap(a, b, labels, keys)["video_auc"]
    test = intervals.delong_test(a, b, labels)
    assert (low, high) == pytest.approx((test.low, test.high), abs=0.01)
    alone = intervals.bootstrap_intervals(a, labels, keys)["video_auc"]
    assert high - low < 0.6 * (alone[1] - alone[0])
    assert np.isnan(intervals.paired_bootstrap(a, a, labels, keys, resamples=20)["video_auc"]).all()
