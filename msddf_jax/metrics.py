"""Detection metrics on the host: numpy in, floats out, one definition each.

A score is P(fake) in [0, 1], a label is 1 for fake and 0 for real. What is undefined (a set of one class
only) is NaN with a warning, never 0; what is wrong (no scores, NaN scores, other labels) is a ValueError that
names the place.
"""

import warnings

import numpy as np
from sklearn import metrics as sk
from sklearn.exceptions import UndefinedMetricWarning

from msddf_jax.data import schema

TNR_TARGETS = (0.90, 0.95, 0.99)
NAMES = ("auc", "eer", "ap", "accuracy", *(f"tnr{round(100 * target)}" for target in TNR_TARGETS))


def auc(scores, labels):
    """Area under the ROC curve: the chance that a fake scores above a real, ties counting half.

    Args:
      scores: float [N], P(fake). labels: int or bool [N], 1 = fake.

    Returns:
      float in [0, 1]; NaN with an UndefinedMetricWarning where one class is absent.

    Raises:
      ValueError: no scores, another shape, a score that is not finite, a label that is not 0 or 1.

    Source: `sklearn.metrics.roc_auc_score` over all scores pooled, as DeepfakeBench and GenD do.
    """
    scores, labels = _checked(scores, labels)
    if not _both_classes(labels, "auc"):
        return np.nan
    return float(sk.roc_auc_score(labels, scores))


def eer(scores, labels):
    """Equal error rate: where the ROC, its points joined by straight lines, crosses FPR = 1 - TPR.

    DeepfakeBench instead takes the FPR of the nearest ROC point, which differs by up to 0.01 on small sets
    and depends on which point is taken where two are as near; the crossing is unique.

    Args, Raises: as `auc`.

    Returns:
      float in [0, 1], 0.5 for scores that are all equal; NaN with a warning where one class is absent.

    Source: the definition of GenD (the root of 1 - x - TPR(x) on the interpolated curve), solved exactly.
    """
    scores, labels = _checked(scores, labels)
    if not _both_classes(labels, "eer"):
        return np.nan
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    gap = (1.0 - tpr) - fpr  # 1 at the first point, -1 at the last, falling at every step
    after = int(np.argmax(gap <= 0.0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def average_precision(scores, labels):
    """Average precision of the fakes: the sum of precision times the step in recall, not interpolated.

    Args, Raises: as `auc`.

    Returns:
      float in [0, 1]; the share of fakes for scores that are all equal. NaN with a warning where one class is
      absent: without reals it would be 1 for any detector.

    Source: `sklearn.metrics.average_precision_score`, as DeepfakeBench; GenD's "mAP" also averages over
      classes.
    """
    scores, labels = _checked(scores, labels)
    if not _both_classes(labels, "ap"):
        return np.nan
    return float(sk.average_precision_score(labels, scores))


def accuracy(scores, labels):
    """Share of correct calls at `schema.THRESHOLD`: a score strictly above 0.5 is called fake.

    The threshold is fixed before the test set is seen; GenD's is fitted to the test set (its EER threshold).

    Args: as `auc`. Raises: as `auc`, and ValueError for a score outside [0, 1], where 0.5 would mean nothing.

    Returns:
      float in [0, 1], also where one class is absent.

    Source: DeepfakeBench (`prob > 0.5`).
    """
    scores, labels = _checked(scores, labels)
    outside = np.flatnonzero((scores < 0.0) | (scores > 1.0))
    if outside.size:
        raise ValueError(f"score {outside[0]} is {scores[outside[0]]}: accuracy needs probabilities in [0, 1]")
    return float(np.mean((scores > schema.THRESHOLD) == (labels == 1)))


def tnr_at_tpr(scores, labels, target):
    """True negative rate at the highest threshold that still finds a share `target` of the fakes.

    t = max{t : mean(s_fake >= t) >= target}; TNR = mean(s_real < t). A real that ties with t counts as a
    false alarm.

    Args:
      scores, labels: as `auc`. target: in (0, 1], for example 0.95.

    Returns:
      float in [0, 1]; NaN with a warning where one class is absent.

    Raises:
      ValueError: as `auc`, or a target outside (0, 1].

    Source: the usual definition in the open-set literature (FPR at 95 % TPR = 1 - this); no threshold is
    interpolated, so that it can be set in use.
    """
    if not 0.0 < target <= 1.0:
        raise ValueError(f"the TPR target is {target}, expected one in (0, 1]")
    scores, labels = _checked(scores, labels)
    if not _both_classes(labels, f"tnr{round(100 * target)}"):
        return np.nan
    fakes = np.sort(scores[labels == 1])[::-1]
    # Share of fakes at or above each; a tie adds to it, which cannot move the first that reaches the target.
    found = np.arange(1, fakes.size + 1) / fakes.size
    threshold = fakes[np.argmax(found >= target)]
    return float(np.mean(scores[labels == 0] < threshold))


def group_videos(scores, labels, keys):
    """One score a video: the mean of its frames' scores.

    Args:
      scores, labels: as `auc`, one a frame. keys: [N] strings, the full path of each frame's video (data set
        and method included). The last folder's name alone would merge the four FF++ fakes of one pair into
        one video.

    Returns:
      (float64 [V] scores, int64 [V] labels, [V] keys), sorted by key.

    Raises:
      ValueError: as `auc`; another number of keys; frames of one video with different labels.

    Source: DeepfakeBench and GenD (mean of frame probabilities), with the full path in place of the folder
      name.
    """
    scores, labels = _checked(scores, labels)
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
    return np.bincount(which, weights=scores) / counts, labels[first], names


def detection_metrics(scores, labels, video_keys, *, name="the set"):
    """Every metric of this module over frames and over videos.

    Args:
      scores, labels: as `auc`, one a frame. video_keys: as `group_videos`.
      name: of the set, for the warning.

    Returns:
      {"<level>_<metric>": float}, level in frame, video and metric in `NAMES` ("frame_auc", "video_tnr95",
      ...), and "<level>_num_real", "<level>_num_fake", so that a figure can be judged by how many stand
      behind it. Where one class is absent all but accuracy and the numbers are NaN, with one warning.

    Raises:
      ValueError: as `auc`, `accuracy` and `group_videos`.
    """
    videos = group_videos(scores, labels, video_keys)
    scores, labels = _checked(scores, labels)
    defined = _both_classes(labels, f"{name}: every metric but accuracy")
    result = {}
    for level, (s, y) in {"frame": (scores, labels), "video": videos[:2]}.items():
        values = dict.fromkeys(NAMES, np.nan)
        values["accuracy"] = accuracy(s, y)
        if defined:
            values |= {"auc": auc(s, y), "eer": eer(s, y), "ap": average_precision(s, y)}
            values |= {f"tnr{round(100 * t)}": tnr_at_tpr(s, y, t) for t in TNR_TARGETS}
        values |= {"num_real": float(np.sum(y == 0)), "num_fake": float(np.sum(y == 1))}
        result |= {f"{level}_{name}": value for name, value in values.items()}
    return result


def _checked(scores, labels):
    """float64 [N] and int64 [N], or a ValueError that names the first thing wrong."""
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


def _both_classes(labels, what):
    absent = "fake" if not labels.any() else "real" if labels.all() else None
    if absent is None:
        return True
    warnings.warn(
        f"{what} is undefined, NaN: none of the {labels.size} examples is {absent}",
        UndefinedMetricWarning,
        stacklevel=3,
    )
    return False
