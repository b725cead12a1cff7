"""Do probabilities mean what they say: ECE, Brier score, and a slope and an offset fitted on validation scores.

A score is P(fake) in [0, 1]; calibration is with respect to the share of fakes of the set at hand.
"""

import warnings

import numpy as np
from scipy.optimize import minimize_scalar

from msddf_jax.data import schema
from msddf_jax.statistics import weighted
from msddf_jax.statistics.scores import both_classes, check_probabilities, check_scores, group_videos
from msddf_jax.statistics.verdict import apply_calibration, logit

SLOPES = (0.05, 20.0)


def ece(scores, labels, num_bins=weighted.BINS) -> float:
    """Expected calibration error of P(fake): the gap between mean score and share of fakes, by bins.

    Bins are equal in width, [k / n, (k + 1) / n), the last with 1; a bin counts by its share of the examples.

    Args:
      scores: float [N] in [0, 1]. labels: int or bool [N], 1 = fake. num_bins: at least 1.

    Returns:
      float in [0, 1], also where one class is absent.

    Raises:
      ValueError: as `scores.check_scores`, a score outside [0, 1], or no bin.

    Source: Naeini et al., AAAI 2015, on P(fake) and not on the confidence of the predicted class.
    """
    scores, labels = check_probabilities(scores, labels, "ece")
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}, expected at least 1")
    return float(np.abs(weighted.bin_gaps(weighted.once(scores, labels), num_bins)).sum())


def reliability(scores, labels, num_bins=weighted.BINS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a reliability diagram shows: (gap, mean score, share of fakes), each float64 [num_bins].

    gap: (mean score - share of fakes) x the bin's share of the examples. NaN in a bin without examples.
    Args, Raises: as `ece`.
    """
    scores, labels = check_probabilities(scores, labels, "ece")
    which = weighted.score_bins(scores, num_bins)
    count = np.bincount(which, minlength=num_bins).astype(np.float64)
    count[count == 0] = np.nan
    mean = np.bincount(which, weights=scores, minlength=num_bins) / count
    share = np.bincount(which, weights=labels, minlength=num_bins) / count
    return (mean - share) * count / scores.size, mean, share


def brier(scores, labels) -> float:
    """Brier score: the mean of (score - label)^2; 0.25 for a score that is always 0.5.

    Args, Raises: as `ece`. Returns: float in [0, 1], also where one class is absent.
    Source: `sklearn.metrics.brier_score_loss`.
    """
    scores, labels = check_probabilities(scores, labels, "brier")
    return float(weighted.brier(weighted.once(scores, labels))[0])


def nll(scores, labels) -> float:
    """Mean negative log-likelihood in nats, scores kept 1e-7 away from 0 and 1. Args, Raises: as `ece`."""
    scores, labels = check_probabilities(scores, labels, "nll")
    return _nll(logit(scores), labels)


def fit_slope(scores, labels, threshold) -> float:
    """The slope in `SLOPES` under which scores have the smallest NLL, the threshold being probability one half.

    Args: scores, labels: as `ece`; both classes. threshold: in [0, 1].

    Returns:
      float. 1.0 with a warning where every score is on its side of the threshold: the NLL then falls without end as the
      slope grows, and such a set says nothing about it. A value at the end of the range comes with a warning too.

    Raises:
      ValueError: as `ece`, or one class only.

    Source: Platt, 1999, with the offset given by the threshold; the slope is 1 / temperature of Guo et al., ICML 2017.
    """
    scores, labels = check_probabilities(scores, labels, "a slope")
    if labels.all() or not labels.any():
        raise ValueError("a slope cannot be fitted to one class only")
    distances = logit(scores) - logit(threshold)
    if np.all(distances * (2 * labels - 1) >= 0.0):
        warnings.warn(
            f"all {labels.size} validation scores are on their side of {threshold:.3g}: they do not tell a slope, 1 is "
            "kept",
            stacklevel=2,
        )
        return 1.0
    low, high = np.log(SLOPES)
    # The NLL is convex in the slope, so it has one minimum in its logarithm too.
    found = minimize_scalar(lambda t: _nll(distances * np.exp(t), labels), bounds=(low, high), method="bounded")
    slope = float(np.exp(found.x))
    if min(found.x - low, high - found.x) < 1e-3:
        warnings.warn(f"the slope {slope:.3g} is at the end of the range {SLOPES}", stacklevel=2)
    return slope


def best_threshold(scores, labels) -> float:
    """The threshold of the highest balanced accuracy, a score strictly above it being called fake.

    Args:
      scores: float [N] in any range. labels: int or bool [N], 1 = fake; both classes.

    Returns:
      float: of the thresholds that are equally good (half-way between neighbouring scores, 0.5 itself, and those that
      call all fake or all real), the one nearest to 0.5.

    Raises:
      ValueError: as `scores.check_scores`, or one class only.

    Source: Youden's index, 1950; balanced accuracy is (index + 1) / 2.
    """
    scores, labels = check_scores(scores, labels)
    if labels.all() or not labels.any():
        raise ValueError("a threshold cannot be chosen on one class only")
    values = np.unique(scores)
    middle = (values[:-1] + values[1:]) / 2
    # Two neighbouring floats have nothing between them; "strictly above the lower one" says the same.
    middle = np.where(middle < values[1:], middle, values[:-1])
    thresholds = np.concatenate([middle, [schema.THRESHOLD, np.nextafter(values[0], -np.inf), values[-1]]])
    fakes, reals = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    hits = 1.0 - np.searchsorted(fakes, thresholds, side="right") / fakes.size
    quality = hits + np.searchsorted(reals, thresholds, side="right") / reals.size
    # 1e-12: sums of two shares that are equal on paper may differ in the last bit.
    best = thresholds[quality >= quality.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - schema.THRESHOLD))])


def fit_calibration(scores, labels, video_keys, *, fitted_on, split, aggregate="mean") -> dict | None:
    """Slope, offset and threshold of videos and of frames, from the scores of a validation set.

    The threshold maximises balanced accuracy (`best_threshold`), the slope minimises the NLL (`fit_slope`), the offset
    makes the threshold probability one half. Where the set's shares of real and fake are far apart, that may cost
    likelihood: nll_after is then above nll_before.

    Args:
      scores, labels, video_keys: one a frame, as `scores.group_videos`. fitted_on: name of the eval. split: of it.
      aggregate: as `scores.group_videos`.

    Returns:
      dict for `calibration.json`: slope, offset, threshold, num_videos, nll_before, nll_after of video scores;
      fitted_on, split, aggregate; and "frame" with the same of frame scores (num_frames). None with a warning where
      the set has one class only.

    Raises:
      ValueError: the split is no validation split; or as `group_videos`.
    """
    check_split(fitted_on, split)
    if not both_classes(np.asarray(labels), f"{fitted_on}: calibration"):
        return None
    frame = _fit_level(*check_probabilities(scores, labels, "calibration"))
    videos = group_videos(scores, labels, video_keys, aggregate)
    return {
        **_fit_level(*videos[:2]),
        "num_videos": len(videos[0]),
        "fitted_on": fitted_on,
        "split": split,
        "aggregate": aggregate,
        "frame": {**frame, "num_frames": len(scores)},
    }


def check_split(name, split) -> None:
    """Raise ValueError where a split may not choose a threshold or a slope: any but a validation split."""
    if not split.startswith("val"):
        raise ValueError(
            f"config.select names {name!r}, whose split is {split!r}: a threshold or a slope fitted there makes its "
            "figures meaningless. Name an eval of a validation split."
        )


def _fit_level(scores, labels):
    threshold = best_threshold(scores, labels)
    slope = fit_slope(scores, labels, threshold)
    part = {"slope": slope, "offset": float(-slope * logit(threshold)), "threshold": threshold}
    part["nll_before"] = nll(scores, labels)
    return part | {"nll_after": nll(apply_calibration(scores, part), labels)}


def _nll(logits, labels):
    return float(np.mean(np.logaddexp(0.0, -logits * (2 * labels - 1))))
