"""Arrays of scores, checked, and one score a video: what every metric starts from. Host, numpy."""

import re
import warnings

import numpy as np

# How the scores of a video's frames become one: "mean", "median", "max", or "top<k>", the mean of the k highest.
AGGREGATES = ("mean", "median", "max", "top<k>")


def check_scores(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N] scores and int64 [N] labels, or a ValueError that names the first thing wrong.

    Wrong are: no scores, another shape, a score that is not finite, a label that is not 0 or 1.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"expected scores and labels [N], got {scores.shape} and {labels.shape}")
    if scores.size == 0:
        raise ValueError("no scores: a metric needs at least one example")
    scores = scores.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise ValueError(f"score {bad[0]} is {scores[bad[0]]} ({bad.size} of {scores.size} are not finite)")
    bad = np.flatnonzero((labels != 0) & (labels != 1))
    if bad.size:
        raise ValueError(f"label {bad[0]} is {labels[bad[0]]}, expected 0 (real) or 1 (fake)")
    return scores, labels.astype(np.int64)


def check_probabilities(scores, labels, what) -> tuple[np.ndarray, np.ndarray]:
    """As `check_scores`, and a ValueError for a score outside [0, 1]. what: the metric, for the message."""
    scores, labels = check_scores(scores, labels)
    outside = np.flatnonzero((scores < 0.0) | (scores > 1.0))
    if outside.size:
        raise ValueError(f"score {outside[0]} is {scores[outside[0]]}: {what} needs probabilities in [0, 1]")
    return scores, labels


def both_classes(labels, what) -> bool:
    """Whether labels [N] hold reals and fakes; if not, warns that `what` is undefined (UndefinedMetricWarning)."""
    absent = "fake" if not labels.any() else "real" if labels.all() else None
    if absent is None:
        return True
    from sklearn.exceptions import UndefinedMetricWarning  # not above: scoring one file needs none of scikit-learn

    warnings.warn(
        f"{what} is undefined, NaN: none of the {labels.size} examples is {absent}",
        UndefinedMetricWarning,
        stacklevel=3,
    )
    return False


def group_videos(scores, labels, keys, aggregate="mean") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One score a video, from its frames' scores.

    Args:
      scores: float [N], P(fake). labels: int or bool [N], 1 = fake.
      keys: [N] strings, the full path of each frame's video (data set and method included). The last folder's
        name alone would merge the four FF++ fakes of one pair into one video.
      aggregate: one of `AGGREGATES`. A video with fewer than k frames gives the mean of all of them in "top<k>".

    Returns:
      (float64 [V] scores, int64 [V] labels, [V] keys), sorted by key.

    Raises:
      ValueError: as `check_scores`; another number of keys; frames of one video with different labels; an unknown
        aggregate.

    Source: the mean, as DeepfakeBench and GenD, with the full path in place of the folder name.
    """
    scores, labels = check_scores(scores, labels)
    keys = np.asarray(keys)
    if keys.shape != scores.shape:
        raise ValueError(f"expected one video key a score, got {keys.shape} keys and {scores.shape} scores")
    names, first, which, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    mixed = np.flatnonzero(labels != labels[first][which])
    if mixed.size:
        frame = mixed[0]
        raise ValueError(
            f"video {str(keys[frame])!r} has frames of both labels: {labels[first[which[frame]]]} on row "
            f"{first[which[frame]]}, {labels[frame]} on row {frame}; a video is real or fake as a whole"
        )
    return _aggregate(scores, which, counts, aggregate), labels[first], names


def aggregate_scores(scores, aggregate="mean") -> float:
    """The score of one video from those of its frames, float [N], to the bit that of `group_videos`."""
    scores = np.asarray(scores, np.float64)
    return float(_aggregate(scores, np.zeros(scores.size, np.int64), np.array([scores.size]), aggregate)[0])


def check_aggregate(aggregate) -> int:
    """The k of "top<k>", 0 for the others. Raises ValueError listing what is allowed."""
    if aggregate in AGGREGATES[:3]:
        return 0
    match = re.fullmatch(r"top([1-9]\d*)", str(aggregate))
    if match is None:
        raise ValueError(f"aggregate is {aggregate!r}, expected one of {', '.join(AGGREGATES)} (such as top3)")
    return int(match[1])


def _aggregate(scores, which, counts, aggregate):
    k = check_aggregate(aggregate)
    if aggregate == "mean":
        return np.bincount(which, weights=scores) / counts
    # By video, within it from the highest score down.
    ordered = scores[np.lexsort((-scores, which))]
    start = np.cumsum(counts) - counts
    if aggregate == "max":
        return ordered[start]
    if aggregate == "median":
        return (ordered[start + (counts - 1) // 2] + ordered[start + counts // 2]) / 2
    rank = np.arange(scores.size) - np.repeat(start, counts)
    taken = np.where(rank < k, ordered, 0.0)
    return np.add.reduceat(taken, start) / np.minimum(counts, k)
