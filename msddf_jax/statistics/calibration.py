"""Do probabilities mean what they say: ECE, Brier score, and the calibration that is fitted on validation scores.

A score is P(fake) in [0, 1]; calibration is with respect to the share of fakes of the set at hand.
"""

import numpy as np

from msddf_jax.statistics import likelihood, weighted
from msddf_jax.statistics.scores import both_classes, check_probabilities, group_videos
from msddf_jax.statistics.verdict import apply_calibration, logit


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


def fit_calibration(
    scores, labels, video_keys, *, fitted_on, split, aggregate="mean", groups=None, share=likelihood.ABSTAIN
) -> dict | None:
    """From scores of videos and of frames to likelihood ratios: slope, offset, bounds, and where no answer is given.

    log LR = slope * logit(score) + offset (`likelihood`); the probability is LR / (1 + LR), that at even odds, and the
    threshold is the score where LR = 1. It is an estimate of where balanced accuracy is highest, and less noisy than
    the best of the thresholds that were tried.

    Args:
      scores, labels, video_keys: one a frame, as `scores.group_videos`. fitted_on: name of the eval. split: of it.
      aggregate: as `scores.group_videos`. groups: [N], videos that are held out together (one person's); None for each
        video by itself. share: of the videos that the zone without an answer is to hold.

    Returns:
      dict for `calibration.json`: slope, offset, threshold, lr (of `likelihood.fit_ratio`, or None with the reason as
      no_lr), num_videos, nll_before, nll_after of video scores; fitted_on, split, aggregate; and "frame" with the same
      of frame scores (num_frames), where all frames of a video weigh together what any other video does. None with a
      warning where the set has one class only.

    Raises:
      ValueError: as `group_videos`.
    """
    if not both_classes(np.asarray(labels), f"{fitted_on}: calibration"):
        return None
    scores, labels = check_probabilities(scores, labels, "calibration")
    keys = np.asarray(video_keys)
    groups = keys if groups is None else np.asarray(groups)
    videos = group_videos(scores, labels, keys, aggregate)
    _, first = np.unique(keys, return_index=True)
    return {
        **_fit_level(*videos, groups[first], share),
        "num_videos": len(videos[0]),
        "fitted_on": fitted_on,
        "split": split,
        "aggregate": aggregate,
        "frame": {**_fit_level(scores, labels, keys, groups, share), "num_frames": len(scores)},
    }


def check_split(name, split, who="config.select") -> None:
    """Raise ValueError where a split may not calibrate: any but a validation split. who: names the eval."""
    if not split.startswith("val"):
        raise ValueError(
            f"{who} names {name!r}, whose split is {split!r}: a threshold or a slope fitted there makes its "
            "figures meaningless. Name an eval of a validation split."
        )


def _fit_level(scores, labels, videos, groups, share):
    _, which, counts = np.unique(videos, return_inverse=True, return_counts=True)
    slope, offset = likelihood.fit_affine(scores, labels, 1.0 / counts[which])
    part = {"slope": slope, "offset": offset, "threshold": float(1.0 / (1.0 + np.exp(offset / slope)))}
    part["lr"], part["no_lr"] = likelihood.fit_ratio(scores, labels, videos, groups, share)
    part["nll_before"] = nll(scores, labels)
    return part | {"nll_after": nll(apply_calibration(scores, part), labels)}


def _nll(logits, labels):
    return float(np.mean(np.logaddexp(0.0, -logits * (2 * labels - 1))))
