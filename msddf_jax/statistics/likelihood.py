"""From scores to bounded likelihood ratios, and the zone in which no answer is given: fitted on held-out videos.

The log-likelihood ratio (LR) of a score s is slope * logit(s) + offset: how many times as probable the score is of a
fake as of a real. It is a property of the score, and of no prior: whoever has odds of fake to real multiplies them by
it. P(fake) at even odds is LR / (1 + LR), which is the project's calibrated probability, and the threshold is the score
where LR = 1. So there is one fit, and label, probability and LR never disagree.

Three steps, each from the videos of a calibration set:

- `fit_affine`: logistic regression in which both classes weigh the same, with Firth's penalty.
- `bounds`: how far an LR may go (ELUB). Twelve real videos cannot show that a score is a thousand times rarer among
  reals, whatever a formula extrapolates to; without a single misleading video the limit is their number plus one.
- `fit_zone`: below which |log10 LR| no answer is given, by errors on videos that the fit had not seen.

Source: logistic regression with prior weights: Bruemmer and du Preez, Computer Speech and Language 20, 2006; the
penalty: Firth, Biometrika 80, 1993, and against separated classes Heinze and Schemper, Statistics in Medicine 21, 2002;
the bounds: Vergeer et al., Science and Justice 56, 2016.
"""

import warnings

import numpy as np
from scipy.optimize import minimize

from msddf_jax.statistics import metrics, novelty
from msddf_jax.statistics.verdict import logit

SLOPES = (0.05, 20.0)
# Videos of each class from which on a likelihood ratio is given: fewer show hardly more than nothing.
MIN_VIDEOS = 10
# Share of the calibration videos that the zone without an answer holds, the least sure ones.
ABSTAIN = 0.2
# An LR between 1/2 and 2 supports neither side: the verbal scale of ENFSI (2015) begins at 2.
LEAST_LOG10 = float(np.log10(2.0))


def fit_affine(scores, labels, weights=None) -> tuple[float, float]:
    """(slope, offset) of log LR = slope * logit(score) + offset, natural logarithm.

    The two classes weigh the same, whatever their numbers. Firth's penalty (half the logarithm of the determinant of
    the information) keeps the slope finite where the classes are told apart, and is nothing where there are many
    examples.

    Args:
      scores: float [N] in [0, 1]. labels: int [N], 1 = fake; both classes. weights: float [N] > 0, of which a video's
        add up to 1; None for 1 each.

    Returns:
      slope in `SLOPES`, with a warning at an end of it: at the low one, scores are no higher of fakes than of reals.
      The threshold, sigmoid(-offset / slope), is at least 1e-7 away from 0 and 1.

    Raises:
      ValueError: one class only.
    """
    points, labels = logit(np.asarray(scores, np.float64)), np.asarray(labels)
    if labels.all() or not labels.any():
        raise ValueError("a likelihood ratio cannot be fitted to one class only")
    fake, weights = labels == 1, np.ones(points.size) if weights is None else np.asarray(weights, np.float64)
    mass = weights / np.where(fake, weights[fake].sum(), weights[~fake].sum()) * weights.sum() / 2
    # Centred, so that slope and offset are found apart.
    middle = np.average(points, weights=mass)
    scale = max(np.sqrt(np.average((points - middle) ** 2, weights=mass)), 1e-3)
    unit = (points - middle) / scale

    def loss(at):
        logits = at[0] * unit + at[1]
        spread = mass / (2.0 + 2.0 * np.cosh(np.clip(logits, -500.0, 500.0)))
        moments = spread.sum(), (spread * unit).sum(), (spread * unit**2).sum()
        # 1e-300: an information of 0 is an infinite loss, and its logarithm is finite.
        penalty = np.log(max(moments[0] * moments[2] - moments[1] ** 2, 1e-300)) / 2
        return np.sum(mass * np.logaddexp(0.0, np.where(fake, -logits, logits))) - penalty

    low, high = (scale * end for end in SLOPES)
    start = [np.clip(1.0, low, high), 0.0]
    found = minimize(loss, start, method="L-BFGS-B", bounds=[(low, high), (None, None)], options={"ftol": 1e-14})
    slope = float(np.clip(found.x[0] / scale, *SLOPES))
    if slope < 1.001 * SLOPES[0] or slope > 0.999 * SLOPES[1]:
        warnings.warn(f"the slope {slope:.3g} is at the end of the range {SLOPES}", stacklevel=2)
    reach = slope * float(logit(1.0))
    return slope, float(np.clip(found.x[1] - slope * middle, -reach, reach))


def bounds(log10_lrs, labels, weights=None) -> tuple[float, float]:
    """(least, greatest) log10 LR that videos can bear out: empirical lower and upper bound (ELUB).

    An LR system is used as a decision at a threshold t > 1, where missing a fake costs 1 and a false alarm costs t. Its
    cost, t * (share of reals with LR >= t) + (share of fakes with LR < t), one more real at t counted among the reals,
    must be below 1, that of never giving an alarm. The greatest LR is the lowest t at which it is not; the least one
    the same with the classes exchanged. Without misleading videos that is the number of reals (of fakes) plus one, or
    the highest (lowest) LR that was seen, where that is less.

    Args:
      log10_lrs: float [N]. labels: int [N], both classes. weights: float [N], of which a video's add up to 1; None for
        1 each.

    Returns:
      (low, high), low <= 0 <= high; 0 where the scores support nothing.

    Source: Vergeer et al., Science and Justice 56, 2016. It is taken because it needs no setting: it follows from the
      LRs and the number of videos, and the one video more is what a set of that size cannot rule out.
    """
    values, labels = np.asarray(log10_lrs, np.float64), np.asarray(labels)
    weights = np.ones(values.size) if weights is None else np.asarray(weights, np.float64)
    fake = labels == 1
    high = _bound(values[fake], weights[fake], values[~fake], weights[~fake])
    low = -_bound(-values[~fake], weights[~fake], -values[fake], weights[fake])
    return low, high


def _bound(right, right_weights, wrong, wrong_weights):
    """log10 of the lowest t >= 1 that costs at least 1; right: log10 LRs where t is in favour, wrong: of the others."""
    # Shares change at the LRs alone: between two of them, in (start, end], the cost rises with t in a straight line.
    start = np.unique(np.concatenate([[0.0], right[right > 0.0], wrong[wrong > 0.0]]))
    end = np.append(start[1:], np.inf)
    found = _weight_above(right, right_weights, start) / right_weights.sum()
    alarms = (_weight_above(wrong, wrong_weights, start) + 1.0) / (wrong_weights.sum() + 1.0)
    # The cost reaches 1 there; beyond the highest LR of `right`, where nothing is found, at once.
    reaches = np.log10(np.maximum(found / alarms, 1e-300))
    return float(np.min(np.where(reaches <= start, start, np.where(reaches <= end, reaches, np.inf))))


def _weight_above(values, weights, at):
    """[T]: sum of the weights of what is above each of `at` [T]; 0 to the bit where nothing is."""
    order = np.argsort(values, kind="stable")
    above = np.append(np.cumsum(weights[order][::-1])[::-1], 0.0)
    return above[np.searchsorted(values[order], at, side="right")]


def fit_zone(log10_lrs, labels, weights, limits, share=ABSTAIN) -> dict[str, float]:
    """Below which |log10 LR| no answer is given.

    The zone holds the least sure `share` of the videos. It is kept where the error rate in it is higher than in the
    rest, so that leaving it out makes the rest better; else it is the LRs between 1/2 and 2, which support neither
    side. It never reaches beyond a bound: the LR of a sure file is not told from its bound.

    Args:
      log10_lrs: float [N], unbounded, of videos that the fit had not seen. labels: int [N], both classes. weights:
        float [N], of which a video's add up to 1. limits: of `bounds`. share: in [0, 1); 0 leaves the zone from 1/2 to
        2.

    Returns:
      {"abstain_below": log10; "abstained": share of these videos in the zone; "error": error rate of all; "error_rest":
      of those outside, NaN where there are none}; both classes weigh the same in each.
    """
    fake, sure = labels == 1, np.abs(log10_lrs)
    wrong = (log10_lrs > 0.0) != fake
    mass = weights / np.where(fake, weights[fake].sum(), weights[~fake].sum()) / 2
    order = np.argsort(sure, kind="stable")
    # The lowest LR that leaves at least the share below it.
    passed = np.searchsorted(np.cumsum(mass[order]), share - 1e-9) + 1 if share > 0.0 else 0
    below = min(sure[order[passed]] if passed < sure.size else np.inf, limits[1], -limits[0])
    rate = lambda keep: float(mass[keep & wrong].sum() / mass[keep].sum()) if keep.any() else np.nan
    inside = sure < below
    if not (inside.any() and rate(inside) > rate(~inside)):
        below = 0.0
    below = max(float(below), LEAST_LOG10)
    inside = sure < below
    return {
        "abstain_below": below,
        "abstained": float(mass[inside].sum()),
        "error": rate(np.ones(sure.size, bool)),
        "error_rest": rate(~inside),
    }


def fit_ratio(scores, labels, videos, groups, share=ABSTAIN) -> tuple[dict | None, str]:
    """Bounds of the LR and the zone without an answer, by cross-fitting over groups of videos.

    In each turn (`novelty.deal_folds`) a part of the groups is held out and gets the LRs that were fitted without it.

    Args:
      scores: float [N] in [0, 1]. labels: int [N], both classes. videos: [N], whose score it is: all frames of a video
        weigh together what any other video does. groups: [N], what is held out together, for example the videos of one
        person. share: as `fit_zone`.

    Returns:
      ({"low", "high": bounds, log10; "num_real", "num_fake" videos; "cllr", "cllr_min": of the held-out bounded LRs and
      of the scores, in bits; and what `fit_zone` gives}, ""), or (None, why there is none): fewer than `MIN_VIDEOS` of
      a class, or a class of one group alone.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
    _, first, which, counts = np.unique(videos, return_index=True, return_inverse=True, return_counts=True)
    num_real, num_fake = (int(np.sum(labels[first] == value)) for value in (0, 1))
    if min(num_real, num_fake) < MIN_VIDEOS:
        return None, f"{num_real} real and {num_fake} fake videos, expected {MIN_VIDEOS} of each at least"
    weights, fold = 1.0 / counts[which], novelty.deal_folds(labels, groups)
    for number in np.unique(fold):
        if len(set(labels[fold != number].tolist())) < 2:
            return None, "one of the classes is of one person or group alone: nothing can be held out"
    values = np.empty(scores.size)
    for number in np.unique(fold):
        out = fold == number
        slope, offset = fit_affine(scores[~out], labels[~out], weights[~out])
        values[out] = (slope * logit(scores[out]) + offset) / np.log(10.0)
    low, high = bounds(values, labels, weights)
    found = {"low": low, "high": high, "num_real": num_real, "num_fake": num_fake}
    held_out = 1.0 / (1.0 + 10.0 ** -np.clip(values, low, high))
    return found | {
        "cllr": metrics.cllr(held_out, labels),
        "cllr_min": metrics.cllr_min(scores, labels),
        **fit_zone(values, labels, weights, (low, high), share),
    }, ""
