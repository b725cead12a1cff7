"""The doubt on a figure: bootstrap over videos, DeLong's variance, and paired tests of two detectors.

Frames of one video are not independent, so a video is drawn with all of its frames. Pure numpy; every draw follows
from a seed.
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import norm, rankdata

from msddf_jax.data import schema
from msddf_jax.statistics import metrics, weighted
from msddf_jax.statistics.scores import check_probabilities, check_scores, group_videos
from msddf_jax.statistics.verdict import apply_calibration, of_level

LEVEL = 0.95
RESAMPLES = 2000
METHOD = "BCa bootstrap over videos, stratified by class, with Student's t; ECE by test inversion"
# Points of a resampled ROC. A set with more distinct scores is cut at this many of their quantiles: an AUC is then
# within 1 / (2 x 4096) of its exact value, far less than any interval's width.
MAX_THRESHOLDS = 4096
# Videos of a class are left out singly by the jackknife, or, where there are more, in this many groups.
MAX_JACKKNIFE = 500
# Where fewer videos than this are expected beyond a TNR's or TPR's threshold, its lower end is 0.
MIN_BEYOND = 2.0


class PairedTest(NamedTuple):
    """Two detectors on the same examples. difference = a - b; low, high: its interval; p_value: two-sided."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_intervals(
    scores, labels, video_keys, *, aggregate="mean", calibration=None, resamples=RESAMPLES, level=LEVEL, seed=0
) -> dict[str, tuple[float, float]]:
    """Intervals of every metric of `metrics.detection_metrics`.

    Real and fake videos are drawn apart, each as many as there are, so that no resample lacks a class. A score of a
    video stays what it is; a drawn video counts once a draw, with all its frames.

    Args:
      scores, labels, video_keys, aggregate, calibration: as `metrics.detection_metrics`.
      resamples: draws, at least 1. level: in (0, 1). seed: of the draws.

    Returns:
      {"<level>_<metric>": (low, high)}. (NaN, NaN) for a metric that is undefined, for one that is the same in every
      resample (all videos right), and, with a warning, for all where a class has one video only: no width that a
      bootstrap can see is not the same as no doubt. low is 0 for a TNR or TPR beyond whose threshold fewer than
      `MIN_BEYOND` videos are expected (TPR at FPR 1 % with 100 reals): data do not tell how far up that threshold is.
      Of cllr_min, which is lower on few videos than the truth, high is that of Cllr; of cllr_loss, which is then too
      high, low is what the calibration costs more than the scores themselves, or 0.

    Raises:
      ValueError: as `metrics.detection_metrics`, or settings outside their range.

    Source: `bca_interval` with videos as units and the two classes as strata; `ece_interval` for ECE. Measured on
      simulated videos (`benchmarks/coverage.py`), 95 % intervals of the AUC held the truth in 93.5 to 96.2 % of 2,000
      sets in each of ten settings, from 20 reals and from an AUC of 0.76 to 0.98; the other metrics' figures are there.
    """
    scores, labels = check_probabilities(scores, labels, "a bootstrap")
    videos, video_labels, names = group_videos(scores, labels, video_keys, aggregate)
    plan = _plan(video_labels, resamples, level, seed)
    frame, video = (of_level(calibration, kind) for kind in ("frame", "video"))
    values = _level_intervals(scores, labels, np.searchsorted(names, np.asarray(video_keys)), plan, frame)
    result = {f"frame_{metric}": interval for metric, interval in values.items()}
    # Videos of one frame each: the same figures, but for another calibration.
    if len(videos) < len(scores) or calibration is not None:
        values = _level_intervals(videos, video_labels, np.arange(len(videos)), plan, video)
    return result | {f"video_{metric}": interval for metric, interval in values.items()}


def _level_intervals(scores, labels, videos, plan, calibration):
    """{metric: (low, high)} of the examples of one level; videos [N]: the video of each, calibration: of this level."""
    values = resampled_metrics(scores, labels, videos, plan.weights, calibration=calibration)
    result = {metric: plan.interval(drawn) for metric, drawn in values.items()}
    if plan.defined:
        result["ece"] = _ece_of_plan(scores, labels, videos, plan)
        if calibration is not None:
            scaled = apply_calibration(scores, calibration)
            result["ece_calibrated"] = _ece_of_plan(scaled, labels, videos, plan)
    fakes = len(np.unique(videos[labels == 1]))
    for name in _unknown_below(plan.weights.shape[1] - fakes, fakes):
        low, high = result[name]
        # NaN stays NaN.
        result[name] = 0.0 * low, high
    if plan.defined and np.isfinite(result["cllr"]).all():
        result |= _of_least_cllr(result, values, plan)
    return result


def _of_least_cllr(result, values, plan):
    """The intervals of Cllr_min and of what a calibration is short of it, for those in `result`.

    Cllr_min is fitted to the set's own labels and lower than the truth: with 100 reals and 100 fakes 0.44 for 0.51, so
    that its bootstrap, which lowers it once more, held the truth in 70 % of simulated sets only. What is certain: a
    calibration that was fixed before, as that of the scores themselves, costs no less than the least one, and so the
    calibration's loss is at least what it costs more than the scores themselves, and no less than 0.
    """
    low, high = result["cllr_min"]
    above = [result[name][1] for name in ("cllr", "cllr_calibrated") if name in result]
    # All told apart: no resample differs.
    low, high = (float(values["cllr_min"][-1]),) * 2 if np.isnan(low) else (low, high)
    least = {"cllr_min": (low, max(high, min(above)))}
    if "cllr_loss" in result:
        more, _ = plan.interval(values["cllr_calibrated"] - values["cllr"])
        least["cllr_loss"] = (max(more, 0.0) if np.isfinite(more) else 0.0, result["cllr_loss"][1])
    return least


def _unknown_below(num_real, num_fake):
    """Names of the metrics at a TPR or FPR beyond which fewer than `MIN_BEYOND` of so many videos are expected."""
    beyond = {f"tnr{round(100 * target)}": (1.0 - target) * num_fake for target in metrics.TNR_TARGETS}
    beyond |= {f"tpr_fpr{100 * target:g}": target * num_real for target in metrics.FPR_TARGETS}
    return {name for name, count in beyond.items() if count < MIN_BEYOND - 1e-9}


def auc_interval(scores, labels, *, resamples=RESAMPLES, level=LEVEL, seed=0) -> tuple[float, float]:
    """(low, high) of the AUC of independent examples (videos), by the bootstrap of `bootstrap_intervals`.

    Args: scores, labels: as `metrics.auc`, scores in any range. Returns, Raises: as `bootstrap_intervals`.
    """
    scores, labels = check_scores(scores, labels)
    plan = _plan(labels, resamples, level, seed)
    if labels.all() or not labels.any():
        return np.nan, np.nan
    examples = weighted.Examples(scores, labels, np.arange(labels.size), plan.weights)
    return plan.interval(np.concatenate([weighted.auc(*curve) for curve in weighted.curves(examples)]))


def bca_interval(drawn, estimate, jackknife, strata, level=LEVEL, *, student=True) -> tuple[float, float]:
    """Bias-corrected and accelerated interval from bootstrap draws.

    Args:
      drawn: float [R], the statistic on each resample. estimate: on the data. jackknife: float [J], on the data less
        one group. strata: int [J], the class of the group left out. level: in (0, 1).
      student: reach as far as Student's t (`student_reach`), not as the normal, which a bootstrap of few videos falls
        short of.

    Returns:
      (low, high); (NaN, NaN) where the draws are all equal, or one is not finite.

    Source: Efron and Tibshirani, 1993, 14.3; the acceleration of several samples: Davison and Hinkley, 1997, 5.3.2;
      the longer reach, there of percentile intervals: Hesterberg, The American Statistician 2015.
    """
    if not (np.all(np.isfinite(drawn)) and np.isfinite(estimate)) or np.ptp(drawn) < 1e-12:
        return np.nan, np.nan
    # Ties with the estimate count half; kept off 0 and 1, where the normal quantile is infinite.
    tied = np.abs(drawn - estimate) < 1e-12
    below = (np.sum((drawn < estimate) & ~tied) + 0.5 * np.sum(tied)) / drawn.size
    bias = ndtri(np.clip(below, 1.0 / (drawn.size + 1), drawn.size / (drawn.size + 1)))
    influence = np.zeros(len(jackknife))
    for value in np.unique(strata):
        keep = strata == value
        influence[keep] = (1.0 - 1.0 / keep.sum()) * (jackknife[keep].mean() - jackknife[keep])
    square = np.sum(influence**2)
    acceleration = np.sum(influence**3) / (6.0 * square**1.5) if square > 0.0 else 0.0
    reach = student_reach(influence, strata, level) if student else ndtri((1.0 + level) / 2)
    ends = bias + np.array([-reach, reach])
    ends = bias + ends / np.maximum(1.0 - acceleration * ends, 0.05)
    low, high = np.quantile(drawn, ndtr(ends))
    return float(low), float(high)


def student_reach(influence, strata, level=LEVEL) -> float:
    """Bootstrap standard errors from the estimate to an end of its interval: above the normal's 1.96, and nearing it.

    A bootstrap's variance of n examples is (n - 1) / n of the unbiased one, and itself uncertain, the more so the
    heavier the tails of the influence values.

    Args:
      influence: float [J], of each group, mean 0 in each stratum. strata: int [J]. level: in (0, 1).

    Returns:
      float: sqrt of unbiased over bootstrap variance, times Student's t; the normal's where no value has influence.

    Source: degrees of freedom, and those of a sum, by matching moments: Satterthwaite, Biometrics Bulletin 1946; the
      variance of a variance at any kurtosis: Kenney and Keeping, 1951, p. 164; at most n - 1, as of normal values.
    """
    plain = unbiased = doubt = 0.0
    for value in np.unique(strata):
        own = influence[strata == value]
        n, square = own.size, np.sum(own**2)
        if n < 2 or square == 0.0:
            continue
        kurtosis = n * np.sum(own**4) / square**2
        plain, unbiased = plain + square, unbiased + square * n / (n - 1)
        doubt += square**2 / min(2 * n / (kurtosis - (n - 3) / (n - 1)), n - 1)
    if plain == 0.0:
        return float(ndtri((1.0 + level) / 2))
    return float(np.sqrt(unbiased / plain) * stdtrit(plain**2 / doubt, (1.0 + level) / 2))


def ece_interval(drawn, gaps, level=LEVEL) -> tuple[float, float]:
    """Interval of the ECE, a sum of absolute values, which noise lifts: a perfect one is never measured as 0.

    A bootstrap lifts it once more, so its percentiles, BCa or not, miss the truth. Instead, bins are moved by multiples
    of their standard error, towards 0 (staying there) or away, and the ECEs kept from which draws like the measured
    one are not rare.

    Args:
      drawn: float [R, bins], each bin's mean of score - label times its share of the examples, on each resample.
      gaps: float [bins], on the data. level: in (0, 1).

    Returns:
      (low, high), low 0 where a perfect calibration is among them; (NaN, NaN) where the draws are all equal.

    Source: test inversion along a least favourable family, DiCiccio and Romano, International Statistical Review 1990;
      Carpenter, JRSS B 1999.
    """
    estimate, noise = np.abs(gaps).sum(), drawn - gaps
    error = noise.std(axis=0)
    if np.ptp(np.abs(drawn).sum(1)) < 1e-12:
        return np.nan, np.nan
    moves = error > 1e-12
    # A hair further, so that rounding leaves no bin beside 0.
    nearest = 1.000001 * np.max(np.abs(gaps[moves]) / error[moves])
    steps = np.concatenate([np.linspace(nearest, 0.0, 64), np.linspace(-0.1, -3.0, 30)])[:, None]
    family = np.sign(gaps) * np.maximum(np.abs(gaps) - steps * error, 0.0)
    truths = np.abs(family).sum(1)
    measured = np.stack([np.abs(member + noise).sum(1) for member in family])
    ends = np.quantile(measured, [(1.0 - level) / 2, (1.0 + level) / 2], axis=1)
    high, low = (np.interp(estimate, np.maximum.accumulate(end), truths) for end in ends)
    return float(low), float(min(high, 1.0))


def _ece_of_plan(scores, labels, videos, plan):
    """`ece_interval` of the examples of one level under the plan's resamples."""
    shares = weighted.bin_gaps(weighted.Examples(scores, labels, videos, plan.weights), weighted.BINS)
    drawn, found = shares[: -len(plan.strata) - 1], shares[-1]
    # A bin with few videos varies less among resamples than among samples, as a variance of n does without n - 1.
    bins = weighted.BINS
    filled = np.bincount(np.unique(videos * bins + weighted.score_bins(scores, bins)) % bins, minlength=bins)
    wider = np.sqrt(np.maximum(filled, 2) / np.maximum(filled - 1, 1))
    return ece_interval(found + (drawn - found) * wider, found, plan.level)


def resampled_metrics(scores, labels, videos, weights, *, calibration=None) -> dict[str, np.ndarray]:
    """Every metric of `metrics.level_metrics` on every resample.

    Args:
      scores: float [N] in [0, 1]. labels: int [N]. videos: int [N], the video of each, in [0, V).
      weights: int [R, V]: how often each video was drawn. calibration: of this level, or None.

    Returns:
      {metric: float64 [R]}; weights of 1 give the metrics themselves; NaN where one class is absent.
    """
    scores, labels = check_probabilities(scores, labels, "a bootstrap")
    examples = weighted.Examples(scores, labels, videos, weights)
    return metrics.weighted_metrics(examples, calibration=calibration, max_thresholds=MAX_THRESHOLDS)


def delong_covariance(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    """AUCs of several detectors on the same examples, and their covariance.

    Args:
      scores: float [K, N], one row a detector. labels: int or bool [N], 1 = fake; both classes.

    Returns:
      (float64 [K] AUCs, float64 [K, K] covariance); the covariance is NaN with fewer than two examples of a class.

    Raises:
      ValueError: as `scores.check_scores`, or one class only.

    Source: DeLong et al., Biometrics 1988, through mid-ranks (Sun and Xu, 2014).
    """
    rows = [check_scores(row, labels) for row in np.atleast_2d(scores)]
    labels = rows[0][1]
    fakes, reals = (np.stack([s[labels == value] for s, _ in rows]) for value in (1, 0))
    m, n = fakes.shape[1], reals.shape[1]
    if m == 0 or n == 0:
        raise ValueError("DeLong's covariance needs reals and fakes")
    ranks = rankdata(np.concatenate([fakes, reals], axis=1), axis=1)
    # Share of reals below each fake, and of fakes above each real.
    above = (ranks[:, :m] - rankdata(fakes, axis=1)) / n
    below = 1.0 - (ranks[:, m:] - rankdata(reals, axis=1)) / m
    if min(m, n) < 2:
        return above.mean(1), np.full((len(rows), len(rows)), np.nan)
    return above.mean(1), np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n


def delong_test(scores_a, scores_b, labels, level=LEVEL) -> PairedTest:
    """DeLong's test that two detectors have the same AUC on the same independent examples (videos).

    Args:
      scores_a, scores_b: float [N], in any range. labels: int or bool [N], both classes. level: of the interval.

    Returns:
      PairedTest. Where the variance of the difference is 0: p = 1 and an interval of [0, 0] if the detectors rank
      alike, else NaN with a warning (both perfect, or one constant: `permutation_test` still answers). NaN too with
      fewer than two examples of a class.

    Raises:
      ValueError: as `delong_covariance`.
    """
    (a, b), cov = delong_covariance(np.stack([scores_a, scores_b]), labels)
    difference, variance = a - b, cov[0, 0] + cov[1, 1] - 2.0 * cov[0, 1]
    # Rounding of the three terms: below it there is no variance.
    if np.isnan(variance) or variance <= 1e-15:
        if variance <= 1e-15 and abs(difference) < 1e-12:
            return PairedTest(float(a), float(b), 0.0, 0.0, 0.0, 1.0)
        warnings.warn("DeLong's test is undefined, NaN: the difference has no variance to be told", stacklevel=2)
        return PairedTest(float(a), float(b), float(difference), np.nan, np.nan, np.nan)
    error = np.sqrt(variance)
    half = norm.ppf((1.0 + level) / 2) * error
    p_value = 2.0 * norm.sf(abs(difference) / error)
    # A difference of AUCs is in [-1, 1]; with few examples the normal interval is not.
    low, high = max(difference - half, -1.0), min(difference + half, 1.0)
    return PairedTest(*(float(v) for v in (a, b, difference, low, high, p_value)))


def permutation_test(scores_a, scores_b, labels, *, resamples=10_000, seed=0) -> float:
    """Two-sided p-value of equal AUCs: the two ranks of an example are swapped at random, each with chance 1/2.

    Scores become ranks first, so that detectors on different scales can be swapped.

    Args:
      scores_a, scores_b, labels: as `delong_test`. resamples: permutations. seed: of them.

    Returns:
      float in [1 / (resamples + 1), 1].

    Raises:
      ValueError: as `delong_covariance`.

    Source: Venkatraman and Begg, Biometrika 1996, with the difference of areas as the statistic; the observed order
      counts as one of the permutations (Phipson and Smyth, 2010).
    """
    (a, b), _ = delong_covariance(np.stack([scores_a, scores_b]), labels)
    fake = np.asarray(labels).astype(bool)
    first, second = rankdata(scores_a), rankdata(scores_b)
    rng = np.random.default_rng(seed)
    size = max(1, weighted.CHUNK // fake.size)
    extreme = 0
    for start in range(0, resamples, size):
        swap = rng.random((min(size, resamples - start), fake.size)) < 0.5
        gap = _auc_rows(np.where(swap, second, first), fake) - _auc_rows(np.where(swap, first, second), fake)
        extreme += int(np.sum(np.abs(gap) >= abs(a - b) - 1e-12))
    return (extreme + 1) / (resamples + 1)


def _auc_rows(scores, fake):
    """AUC of each row of scores [R, N]."""
    m, n = fake.sum(), (~fake).sum()
    return (rankdata(scores, axis=1)[:, fake].sum(1) - m * (m + 1) / 2) / (m * n)


def paired_bootstrap(scores_a, scores_b, labels, video_keys, *, aggregate="mean", resamples=RESAMPLES, level=LEVEL,
                     seed=0) -> dict[str, tuple[float, float]]:  # fmt: skip
    """Intervals of a - b for every metric, both detectors on the same drawn videos.

    Args:
      scores_a, scores_b: float [N] in [0, 1], one a frame, rows alike. The rest as `bootstrap_intervals`.

    Returns:
      {"<level>_<metric>": (low, high)}, all by `bca_interval`; (NaN, NaN) as in `bootstrap_intervals`.
    """
    videos_a, video_labels, names = group_videos(scores_a, labels, video_keys, aggregate)
    videos_b, _, _ = group_videos(scores_b, labels, video_keys, aggregate)
    plan = _plan(video_labels, resamples, level, seed)
    result = {}
    for kind, (a, b, y, which) in {
        "frame": (scores_a, scores_b, labels, np.searchsorted(names, np.asarray(video_keys))),
        "video": (videos_a, videos_b, video_labels, np.arange(len(names))),
    }.items():
        ours, theirs = (resampled_metrics(s, y, which, plan.weights) for s in (a, b))
        result |= {f"{kind}_{metric}": plan.interval(ours[metric] - theirs[metric]) for metric in ours}
    return result


class _Plan(NamedTuple):
    """weights: int32 [R + J + 1, V], resamples, jackknife and the data themselves. strata: [J]. defined: of all."""

    weights: np.ndarray
    strata: np.ndarray
    level: float
    defined: bool

    def interval(self, values):
        """The interval from a statistic [R + J + 1] on every row of weights."""
        if not self.defined:
            return np.nan, np.nan
        num_jackknife = len(self.strata)
        drawn, jackknife = values[: -num_jackknife - 1], values[-num_jackknife - 1 : -1]
        return bca_interval(drawn, values[-1], jackknife, self.strata, self.level)


def _plan(labels, resamples, level, seed):
    """How often each video of labels [V] counts in each resample; reals are drawn among reals, fakes among fakes."""
    if resamples < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"{resamples} resamples at level {level}: expected at least 1, and a level in (0, 1)")
    rng = np.random.default_rng(seed)
    drawn = np.zeros((resamples, len(labels)), np.int32)
    without, strata, defined = [], [], True
    for value in (0, 1):
        videos = np.flatnonzero(labels == value)
        if videos.size == 0:
            continue
        choice = rng.integers(0, videos.size, (resamples, videos.size)) + np.arange(resamples)[:, None] * videos.size
        counts = np.bincount(choice.ravel(), minlength=resamples * videos.size)
        drawn[:, videos] = counts.reshape(resamples, videos.size)
        groups = min(videos.size, MAX_JACKKNIFE)
        left = np.ones((groups, len(labels)), np.int32)
        left[np.arange(videos.size) % groups, videos] = 0
        if videos.size == 1:
            warnings.warn(f"no interval: one {schema.LABELS[value]} video tells nothing of the next", stacklevel=3)
            defined, left[:] = False, 1
        without.append(left)
        strata.append(np.full(groups, value))
    whole = np.ones((1, len(labels)), np.int32)
    return _Plan(np.concatenate([drawn, *without, whole]), np.concatenate(strata), level, defined)
