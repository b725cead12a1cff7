"""Detection metrics on the host: numpy in, floats out, one definition each.

A score is P(fake) in [0, 1], a label is 1 for fake and 0 for real. What is undefined (a set of one class
only) is NaN with a warning, never 0; what is wrong (no scores, NaN scores, other labels) is a ValueError that
names the place.
"""

import numpy as np
from sklearn import metrics as sk

from msddf_jax.data import schema
from msddf_jax.statistics.calibration import apply_temperature, brier, ece, of_level
from msddf_jax.statistics.scores import both_classes, check_probabilities, check_scores, group_videos

TNR_TARGETS = (0.90, 0.95, 0.99)
FPR_TARGETS = (0.001, 0.01, 0.05)
# Without both classes these are undefined.
RANKED = (
    "auc",
    "eer",
    "ap",
    "balanced_accuracy",
    *(f"tnr{round(100 * target)}" for target in TNR_TARGETS),
    *(f"tpr_fpr{100 * target:g}" for target in FPR_TARGETS),
)
NAMES = (*RANKED, "accuracy", "ece", "brier")
# Also there with a calibration: at the validation set's threshold, and of scores after its temperature.
CALIBRATED = ("accuracy_val", "balanced_accuracy_val", "ece_calibrated", "brier_calibrated")


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
    scores, labels = check_scores(scores, labels)
    if not both_classes(labels, "auc"):
        return np.nan
    return float(sk.roc_auc_score(labels, scores))


def eer(scores, labels):
    """Equal error rate: where the ROC, its points joined by straight lines, crosses FPR = 1 - TPR.

    DeepfakeBench instead takes the FPR of the nearest ROC point (`dfb_metrics`), which differs by up to 0.01 on
    small sets and depends on which point is taken where two are as near; the crossing is unique.

    Args, Raises: as `auc`.

    Returns:
      float in [0, 1], 0.5 for scores that are all equal; NaN with a warning where one class is absent.

    Source: the definition of GenD (the root of 1 - x - TPR(x) on the interpolated curve), solved exactly.
    """
    scores, labels = check_scores(scores, labels)
    if not both_classes(labels, "eer"):
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
    scores, labels = check_scores(scores, labels)
    if not both_classes(labels, "ap"):
        return np.nan
    return float(sk.average_precision_score(labels, scores))


def accuracy(scores, labels, threshold=schema.THRESHOLD):
    """Share of correct calls at a threshold: a score strictly above it is called fake.

    The threshold is fixed before the test set is seen: 0.5, or the validation set's
    (`calibration.best_threshold`); GenD's is fitted to the test set (its EER threshold).

    Args: as `auc`; threshold: in [0, 1]. Raises: as `auc`, and ValueError for a score outside [0, 1], where 0.5
      would mean nothing.

    Returns:
      float in [0, 1], also where one class is absent.

    Source: DeepfakeBench (`prob > 0.5`).
    """
    scores, labels = check_probabilities(scores, labels, "accuracy")
    return float(np.mean((scores > threshold) == (labels == 1)))


def balanced_accuracy(scores, labels, threshold=schema.THRESHOLD):
    """The mean of the shares of fakes and of reals that are called right; 0.5 for a detector that always says one.

    Args, Raises: as `accuracy`. Returns: float in [0, 1]; NaN with a warning where one class is absent.
    Source: `sklearn.metrics.balanced_accuracy_score`.
    """
    scores, labels = check_probabilities(scores, labels, "balanced_accuracy")
    if not both_classes(labels, "balanced_accuracy"):
        return np.nan
    called = scores > threshold
    return float((np.mean(called[labels == 1]) + np.mean(~called[labels == 0])) / 2)


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
    scores, labels = check_scores(scores, labels)
    if not both_classes(labels, f"tnr{round(100 * target)}"):
        return np.nan
    fakes = np.sort(scores[labels == 1])[::-1]
    # Share of fakes at or above each; a tie adds to it, which cannot move the first that reaches the target.
    found = np.arange(1, fakes.size + 1) / fakes.size
    threshold = fakes[np.argmax(found >= target)]
    return float(np.mean(scores[labels == 0] < threshold))


def tpr_at_fpr(scores, labels, target):
    """The largest share of fakes that a threshold finds with at most a share `target` of false alarms.

    max over t of mean(s_fake >= t) where mean(s_real >= t) <= target. With fewer than 1 / target reals this is the
    share found without any false alarm.

    Args:
      scores, labels: as `auc`. target: in [0, 1), for example 0.01.

    Returns:
      float in [0, 1], 0 where the highest scores are reals; NaN with a warning where one class is absent.

    Raises:
      ValueError: as `auc`, or a target outside [0, 1).

    Source: the ROC's steps; GenD joins its points by straight lines, which no threshold reaches.
    """
    if not 0.0 <= target < 1.0:
        raise ValueError(f"the FPR target is {target}, expected one in [0, 1)")
    scores, labels = check_scores(scores, labels)
    if not both_classes(labels, f"tpr_fpr{100 * target:g}"):
        return np.nan
    fpr, tpr, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    return float(tpr[np.flatnonzero(fpr <= target)[-1]])


def level_metrics(scores, labels, *, name="the set", calibration=None):
    """Every metric of this module over one list of scores.

    Args:
      scores, labels: as `auc`. name: of the set, for the warning.
      calibration: {"temperature", "threshold", ...} of this level, fitted on validation scores, or None.

    Returns:
      {metric: float}, metric in `NAMES`, with a calibration in `CALIBRATED` too, and "num_real", "num_fake", so that
      a figure can be judged by how many stand behind it. Where one class is absent those in `RANKED` are NaN, with
      one warning.

    Raises:
      ValueError: as `accuracy`.
    """
    scores, labels = check_probabilities(scores, labels, "accuracy")
    return _level_metrics(scores, labels, _defined(labels, name), calibration)


def _defined(labels, name):
    return both_classes(labels, f"{name}: every metric but accuracy, ECE and Brier score")


def _level_metrics(scores, labels, defined, calibration):
    values = dict.fromkeys(RANKED, np.nan)
    if defined:
        values |= {"auc": auc(scores, labels), "eer": eer(scores, labels), "ap": average_precision(scores, labels)}
        values["balanced_accuracy"] = balanced_accuracy(scores, labels)
        values |= {f"tnr{round(100 * t)}": tnr_at_tpr(scores, labels, t) for t in TNR_TARGETS}
        values |= {f"tpr_fpr{100 * t:g}": tpr_at_fpr(scores, labels, t) for t in FPR_TARGETS}
    values |= {"accuracy": accuracy(scores, labels), "ece": ece(scores, labels), "brier": brier(scores, labels)}
    if calibration is not None:
        threshold, scaled = calibration["threshold"], apply_temperature(scores, calibration["temperature"])
        values["accuracy_val"] = accuracy(scores, labels, threshold)
        values["balanced_accuracy_val"] = balanced_accuracy(scores, labels, threshold) if defined else np.nan
        values |= {"ece_calibrated": ece(scaled, labels), "brier_calibrated": brier(scaled, labels)}
    return values | {"num_real": float(np.sum(labels == 0)), "num_fake": float(np.sum(labels == 1))}


def detection_metrics(scores, labels, video_keys, *, name="the set", aggregate="mean", calibration=None):
    """Every metric of this module over frames and over videos.

    Args:
      scores, labels: as `auc`, one a frame. video_keys, aggregate: as `scores.group_videos`.
      name: of the set, for the warning. calibration: as `calibration.fit_calibration` gives it, or None.

    Returns:
      {"<level>_<metric>": float}, level in frame, video and metric as `level_metrics` ("frame_auc",
      "video_tnr95", ...).

    Raises:
      ValueError: as `auc`, `accuracy` and `group_videos`; a calibration of another aggregate.
    """
    if calibration is not None and calibration["aggregate"] != aggregate:
        raise ValueError(
            f"the calibration is of video scores by {calibration['aggregate']!r}, these are by {aggregate!r}; "
            "evaluate the validation set again"
        )
    videos = group_videos(scores, labels, video_keys, aggregate)
    result = {}
    levels = {"frame": check_probabilities(scores, labels, "accuracy"), "video": videos[:2]}
    defined = _defined(levels["frame"][1], name)
    for level, (s, y) in levels.items():
        values = _level_metrics(s, y, defined, of_level(calibration, level))
        result |= {f"{level}_{metric}": value for metric, value in values.items()}
    return result


def dfb_metrics(scores, labels, video_keys, *, name="the set"):
    """DeepfakeBench's figures, defects included, for comparison with its tables; not for new ones.

    Videos are told apart by the last folder's name alone, so that the four FF++ fakes of a pair become one, and a real
    and a fake of the same name too; such a video's label is int(mean label), real unless all its frames are fake. The
    EER is the FPR of the ROC point nearest to FPR = 1 - TPR, the first of several, with collinear points left out.

    Args: as `detection_metrics`.

    Returns:
      {"frame_auc", "frame_eer", "frame_ap", "frame_accuracy", "video_auc", "video_eer"}: floats; all but accuracy NaN
      with a warning where a level has one class only.

    Raises:
      ValueError: as `accuracy`; another number of keys.

    Source: DeepfakeBench, `get_test_metrics`.
    """
    scores, labels = check_probabilities(scores, labels, "accuracy")
    folders = np.array([str(key).rsplit("/", 1)[-1] for key in video_keys])
    if folders.shape != scores.shape:
        raise ValueError(f"expected one video key a score, got {folders.shape} keys and {scores.shape} scores")
    _, which, counts = np.unique(folders, return_inverse=True, return_counts=True)
    videos = np.bincount(which, weights=scores) / counts
    video_labels = (np.bincount(which, weights=labels) / counts).astype(np.int64)
    result = {"frame_accuracy": accuracy(scores, labels)}
    for level, (s, y) in {"frame": (scores, labels), "video": (videos, video_labels)}.items():
        result |= {f"{level}_auc": np.nan, f"{level}_eer": np.nan}
        if both_classes(y, f"{name} ({level}s): DeepfakeBench's AUC and EER"):
            fpr, tpr, _ = sk.roc_curve(y, s)
            nearest = np.argmin(np.abs((1.0 - tpr) - fpr))
            result |= {f"{level}_auc": float(sk.auc(fpr, tpr)), f"{level}_eer": float(fpr[nearest])}
    result["frame_ap"] = float(sk.average_precision_score(labels, scores)) if 0 < labels.sum() < labels.size else np.nan
    return result
