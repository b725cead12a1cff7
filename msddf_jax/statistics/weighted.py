"""Each metric as one formula of weighted examples: weights of 1 give the metric itself, drawn weights its resamples.

What these formulas say about sets of one class, and which inputs are wrong, is decided by `metrics` and `calibration`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import isotonic_regression

from msddf_jax.statistics.verdict import logit

# Of the ECE.
BINS = 15
# Elements of one temporary array [draws, thresholds], float64.
CHUNK = 1 << 20


class Examples(NamedTuple):
    """Scored examples that are drawn by video, some draws of them.

    scores: float [N]. labels: int [N]. videos: int [N], the video of each, in [0, V). weights: [R, V], how often each
    video counts in each draw.
    """

    scores: np.ndarray
    labels: np.ndarray
    videos: np.ndarray
    weights: np.ndarray


def once(scores, labels) -> Examples:
    """Checked examples [N], each counted once."""
    return Examples(scores, labels, np.zeros(scores.size, np.int64), np.ones((1, 1)))


def sums(examples, *columns) -> np.ndarray:
    """float64 [columns, R]: the weighted sum over the examples of each column [N]."""
    count = examples.weights.shape[1]
    by_video = [np.bincount(examples.videos, weights=column, minlength=count) for column in columns]
    return (examples.weights @ np.stack(by_video, axis=1)).T


def accuracies(examples, threshold) -> tuple[np.ndarray, np.ndarray]:
    """([R] accuracy, [R] balanced accuracy, NaN without one of the classes); above the threshold is called fake."""
    fake = examples.labels == 1
    right = (examples.scores > threshold) == fake
    hits, passes, fakes, reals = sums(examples, right & fake, right & ~fake, fake, ~fake)
    with np.errstate(invalid="ignore"):
        return (hits + passes) / (fakes + reals), (hits / fakes + passes / reals) / 2


def brier(examples) -> np.ndarray:
    """[R] mean of (score - label)^2."""
    square, total = sums(examples, (examples.scores - examples.labels) ** 2, np.ones(examples.scores.size))
    return square / total


def cllr(examples) -> np.ndarray:
    """[R] Cllr in bits, the logit of a score being its log-likelihood ratio; NaN without one of the classes."""
    fake = examples.labels == 1
    # log2(1 + 1 / LR) of a fake, log2(1 + LR) of a real.
    costs = np.logaddexp(0.0, np.where(fake, -1.0, 1.0) * logit(examples.scores)) / np.log(2.0)
    missed, alarmed, fakes, reals = sums(examples, costs * fake, costs * ~fake, fake, ~fake)
    with np.errstate(invalid="ignore"):
        return (missed / fakes + alarmed / reals) / 2


def score_bins(scores, num_bins) -> np.ndarray:
    """int64 [N]: the bin of each score, equal in width over [0, 1]."""
    return np.minimum((scores * num_bins).astype(np.int64), num_bins - 1)


def bin_gaps(examples, num_bins) -> np.ndarray:
    """[R, bins]: mean score less share of fakes of each bin, times the bin's share of examples; 0 in an empty one."""
    inside = score_bins(examples.scores, num_bins) == np.arange(num_bins)[:, None]
    *gaps, total = sums(examples, *(inside * (examples.scores - examples.labels)), np.ones(examples.scores.size))
    return np.stack(gaps, axis=1) / total[:, None]


def curves(examples, max_thresholds=None) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """ROC curves of the draws, a part of them at a time: (fakes, reals), float64 [r, D + 1] each.

    They are the weights at or above falling thresholds, the first above all scores. There are D distinct scores, or
    max_thresholds of their quantiles where they are more.
    """
    thresholds = np.unique(examples.scores)
    if max_thresholds is not None and thresholds.size > max_thresholds:
        thresholds = thresholds[np.linspace(0, thresholds.size - 1, max_thresholds).astype(np.int64)]
    # A score counts from the highest threshold that it reaches.
    column = thresholds.size + 1 - np.searchsorted(thresholds, examples.scores, side="right")
    shape, tables = (examples.weights.shape[1], thresholds.size + 1), []
    for label in (1, 0):
        keep = examples.labels == label
        place = (examples.videos[keep], column[keep])
        tables.append(sparse.coo_array((np.ones(keep.sum()), place), shape=shape).tocsr())
    size = max(1, CHUNK // shape[1])
    for start in range(0, len(examples.weights), size):
        part = examples.weights[start : start + size]
        yield tuple(np.cumsum(part @ table, axis=1) for table in tables)


def auc(fakes, reals) -> np.ndarray:
    """[r] area under curves of `curves`."""
    height = reals[:, -1:] - (reals[:, 1:] + reals[:, :-1]) / 2
    return np.einsum("rd,rd->r", np.diff(fakes, axis=1), height) / (fakes[:, -1] * reals[:, -1])


def eer(fakes, reals) -> np.ndarray:
    """[r] where curves of `curves`, their points joined by straight lines, cross FPR = 1 - TPR."""
    fpr, rows = reals / reals[:, -1:], np.arange(len(reals))
    # 1 at the first point, -1 at the last, falling at every step.
    gap = (1.0 - fakes / fakes[:, -1:]) - fpr
    after = np.argmax(gap <= 0.0, axis=1)
    share = gap[rows, after - 1] / (gap[rows, after - 1] - gap[rows, after])
    return fpr[rows, after - 1] + share * (fpr[rows, after] - fpr[rows, after - 1])


def average_precision(fakes, reals) -> np.ndarray:
    """[r] sum of precision times the step in recall, of curves of `curves`."""
    called = np.maximum(fakes[:, 1:] + reals[:, 1:], 1e-300)
    return np.einsum("rd,rd->r", np.diff(fakes, axis=1), fakes[:, 1:] / called) / fakes[:, -1]


def tnr_at_tpr(fakes, reals, target) -> np.ndarray:
    """[r] share of reals below the highest threshold that a share `target` of the fakes reaches."""
    first = np.argmax(fakes / fakes[:, -1:] >= target, axis=1)
    return (reals[:, -1] - reals[np.arange(len(reals)), first]) / reals[:, -1]


def tpr_at_fpr(fakes, reals, target) -> np.ndarray:
    """[r] largest share of fakes at a threshold that at most a share `target` of the reals reaches."""
    last = (reals / reals[:, -1:] <= target).sum(1) - 1
    return fakes[np.arange(len(fakes)), last] / fakes[:, -1]


def cllr_min(fakes, reals) -> np.ndarray:
    """[r] least Cllr, in bits, of any likelihood ratio that never falls as the score rises, of curves of `curves`."""
    return np.array([_least_cllr(*pair) for pair in zip(np.diff(fakes), np.diff(reals), strict=True)])


def _least_cllr(fakes, reals):
    """Of weights [D] at falling thresholds. Isotonic regression at even odds; what it calls certain costs nothing."""
    there = fakes + reals > 0.0
    fakes, reals = fakes[there] / fakes.sum(), reals[there] / reals.sum()
    mass = fakes + reals
    found = isotonic_regression(fakes / mass, weights=mass, increasing=False)
    # In blocks of equal probability: sums of 0 and 1 alone are 0 and 1 to the bit.
    starts = found.blocks[:-1]
    fakes, reals = np.add.reduceat(fakes, starts), np.add.reduceat(reals, starts)
    bits = lambda part: -part * np.log2(np.where(part > 0.0, part / (fakes + reals), 1.0))
    return float(np.sum(bits(fakes) + bits(reals)) / 2)
