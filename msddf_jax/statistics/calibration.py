"""Do probabilities mean what they say: ECE, Brier score, and a temperature fitted on validation scores.

A score is P(fake) in [0, 1]; calibration is with respect to the share of fakes of the set at hand.
"""

import json
import pathlib
import warnings

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

from msddf_jax.data import schema
from msddf_jax.statistics.scores import both_classes, check_probabilities, check_scores, group_videos

FILE = "calibration.json"
TEMPERATURES = (0.05, 20.0)
# Scores are float32 sigmoids: nearer to 0 or 1 than this they are rounding.
_SMALLEST = 1e-7


def ece(scores, labels, num_bins=15):
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
    gap, _, _ = reliability(scores, labels, num_bins)
    return float(np.nansum(np.abs(gap)))


def reliability(scores, labels, num_bins=15):
    """What a reliability diagram shows: (gap, mean score, share of fakes), each float64 [num_bins].

    gap: (mean score - share of fakes) x the bin's share of the examples. NaN in a bin without examples.
    Args, Raises: as `ece`.
    """
    scores, labels = check_probabilities(scores, labels, "ece")
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}, expected at least 1")
    which = score_bins(scores, num_bins)
    count = np.bincount(which, minlength=num_bins).astype(np.float64)
    count[count == 0] = np.nan
    mean = np.bincount(which, weights=scores, minlength=num_bins) / count
    share = np.bincount(which, weights=labels, minlength=num_bins) / count
    return (mean - share) * count / scores.size, mean, share


def score_bins(scores, num_bins=15):
    """int64 [N]: the bin of each score, equal in width over [0, 1]."""
    return np.minimum((scores * num_bins).astype(np.int64), num_bins - 1)


def brier(scores, labels):
    """Brier score: the mean of (score - label)^2; 0.25 for a score that is always 0.5.

    Args, Raises: as `ece`. Returns: float in [0, 1], also where one class is absent.
    Source: `sklearn.metrics.brier_score_loss`.
    """
    scores, labels = check_probabilities(scores, labels, "brier")
    return float(np.mean((scores - labels) ** 2))


def nll(scores, labels):
    """Mean negative log-likelihood in nats, scores kept 1e-7 away from 0 and 1. Args, Raises: as `ece`."""
    scores, labels = check_probabilities(scores, labels, "nll")
    return _nll(_logit(scores), labels)


def apply_temperature(scores, temperature):
    """sigmoid(logit(score) / temperature): float64, the shape of scores (float in [0, 1]); 0.5 stays 0.5.

    Raises: ValueError for a temperature that is not above 0, or a score outside [0, 1].
    """
    scores = np.asarray(scores, np.float64)
    if not (np.isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"the temperature is {temperature}, expected one above 0")
    if not np.all((scores >= 0.0) & (scores <= 1.0)):
        raise ValueError("a temperature is applied to probabilities in [0, 1]")
    return expit(_logit(scores) / temperature)


def fit_temperature(scores, labels):
    """The temperature in `TEMPERATURES` under which the scores have the smallest NLL.

    Args: scores, labels: as `ece`; both classes.

    Returns:
      float. 1.0 with a warning where every score is on its side of 0.5: the NLL then falls without end as T goes to 0,
      and such a set says nothing about T. A value at the end of the range comes with a warning too.

    Raises:
      ValueError: as `ece`, or one class only.

    Source: Guo et al., ICML 2017, for two classes.
    """
    scores, labels = check_probabilities(scores, labels, "a temperature")
    if labels.all() or not labels.any():
        raise ValueError("a temperature cannot be fitted to one class only")
    logits = _logit(scores)
    if np.all(logits * (2 * labels - 1) >= 0.0):
        warnings.warn(
            f"all {labels.size} validation scores are on their side of 0.5: they do not tell a temperature, 1 is kept",
            stacklevel=2,
        )
        return 1.0
    low, high = np.log(TEMPERATURES)
    # The NLL is convex in 1 / T, so it has one minimum in log T too.
    found = minimize_scalar(lambda t: _nll(logits / np.exp(t), labels), bounds=(low, high), method="bounded")
    temperature = float(np.exp(found.x))
    if min(found.x - low, high - found.x) < 1e-3:
        warnings.warn(f"the temperature {temperature:.3g} is at the end of the range {TEMPERATURES}", stacklevel=2)
    return temperature


def best_threshold(scores, labels):
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


def fit_calibration(scores, labels, video_keys, *, fitted_on, split, aggregate="mean"):
    """Temperature and threshold of videos and of frames, from the scores of a validation set.

    The threshold maximises balanced accuracy (`best_threshold`) and is of scores before the temperature.

    Args:
      scores, labels, video_keys: one a frame, as `scores.group_videos`. fitted_on: name of the eval. split: of it.
      aggregate: as `scores.group_videos`.

    Returns:
      dict for `calibration.json`: temperature, threshold, num_videos, nll_before, nll_after of video scores;
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


def check_split(name, split):
    """Raise ValueError where a split may not choose a threshold or a temperature: any but a validation split."""
    if not split.startswith("val"):
        raise ValueError(
            f"config.select names {name!r}, whose split is {split!r}: a threshold or a temperature fitted there makes "
            "its figures meaningless. Name an eval of a validation split."
        )


def of_level(calibration, level):
    """The part of a calibration for level "video" or "frame": a dict with temperature and threshold, or None."""
    if calibration is None:
        return None
    return calibration["frame"] if level == "frame" else calibration


def load_calibration(workdir):
    """The calibration of a workdir as `fit_calibration` gives it, or None where it has none.

    Raises: ValueError where the file is not a calibration.
    """
    path = pathlib.Path(workdir) / FILE
    if not path.exists():
        return None
    value = json.loads(path.read_text())
    for part in (value, value.get("frame", {})):
        if not {"temperature", "threshold"} <= set(part):
            raise ValueError(f"{path} lacks temperature or threshold; write it again: python -m msddf_jax.evaluate")
        temperature, threshold = float(part["temperature"]), float(part["threshold"])
        if not (0.0 < temperature < np.inf and 0.0 <= threshold <= 1.0):
            raise ValueError(f"{path}: temperature {temperature} or threshold {threshold} is out of range")
    return value


def _fit_level(scores, labels):
    temperature = fit_temperature(scores, labels)
    return {
        "temperature": temperature,
        "threshold": best_threshold(scores, labels),
        "nll_before": nll(scores, labels),
        "nll_after": nll(apply_temperature(scores, temperature), labels),
    }


def _logit(scores):
    scores = np.clip(scores, _SMALLEST, 1.0 - _SMALLEST)
    return np.log(scores) - np.log1p(-scores)


def _nll(logits, labels):
    return float(np.mean(np.logaddexp(0.0, -logits * (2 * labels - 1))))
