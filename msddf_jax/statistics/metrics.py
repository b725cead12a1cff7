"""Detection metrics on the host: numpy in, floats out, one definition each.

A score is P(fake) in [0, 1], a label is 1 for fake and 0 for real. What is undefined (a set of one class
only) is NaN with a warning, never 0; what is wrong (no scores, NaN scores, other labels) is a ValueError that
names the place.
"""

import functools

import numpy as np
from sklearn import metrics as sk

from msddf_jax.data import schema
from msddf_jax.statistics import weighted
from msddf_jax.statistics.scores import both_classes, check_probabilities, check_scores, group_videos
from msddf_jax.statistics.verdict import apply_calibration, check_aggregate_of, of_level

TNR_TARGETS = (0.90, 0.95, 0.99)
FPR_TARGETS = (0.001, 0.01, 0.05)
# Of the ROC curves that `weighted.curves` gives.
_OF_CURVES = {
    "auc": weighted.auc,
    "eer": weighted.eer,
    "ap": weighted.average_precision,
    **{f"tnr{round(100 * t)}": functools.partial(weighted.tnr_at_tpr, target=t) for t in TNR_TARGETS},
    **{f"tpr_fpr{100 * t:g}": functools.partial(weighted.tpr_at_fpr, target=t) for t in FPR_TARGETS},
    "cllr_min": weighted.cllr_min,
}
# Without both classes these are undefined.
RANKED = (*_OF_CURVES, "balanced_accuracy", "cllr")
NAMES = (*RANKED, "accuracy", "ece", "brier")
# Also there with a calibration: at the validation set's threshold, and of the probabilities that it gives. "cllr_loss"
# is cllr_calibrated - cllr_min: what the calibration is short of the best one, its bounds included.
CALIBRATED = (
    "accuracy_val",
    "balanced_accuracy_val",
    "ece_calibrated",
    "brier_calibrated",
    "cllr_calibrated",
    "cllr_loss",
)
# In bits, not shares: 1 is what a score costs that says nothing, and it may be more.
IN_BITS = ("cllr", "cllr_min", "cllr_calibrated", "cllr_loss")


def auc(scores, labels) -> float:
    """Area under the ROC curve: the chance that a fake scores above a real, ties counting half.

    Args:
      scores: float [N], P(fake). labels: int or bool [N], 1 = fake.

    Returns:
      float in [0, 1]; NaN with an UndefinedMetricWarning where one class is absent.

    Raises:
      ValueError: no scores, another shape, a score that is not finite, a label that is not 0 or 1.

    Source: `sklearn.metrics.roc_auc_score` over all scores pooled, as DeepfakeBench and GenD do.
    """
    return _of_curve("auc", weighted.auc, scores, labels)


def eer(scores, labels) -> float:
    """Equal error rate: where the ROC, its points joined by straight lines, crosses FPR = 1 - TPR.

    DeepfakeBench instead takes the FPR of the nearest ROC point (`dfb_metrics`), which differs by up to 0.01 on
    small sets and depends on which point is taken where two are as near; the crossing is unique.

    Args, Raises: as `auc`.

    Returns:
      float in [0, 1], 0.5 for scores that are all equal; NaN with a warning where one class is absent.

    Source: the definition of GenD (the root of 1 - x - TPR(x) on the interpolated curve), solved exactly.
    """
    return _of_curve("eer", weighted.eer, scores, labels)


def average_precision(scores, labels) -> float:
    """Average precision of the fakes: the sum of precision times the step in recall, not interpolated.

    Args, Raises: as `auc`.

    Returns:
      float in [0, 1]; the share of fakes for scores that are all equal. NaN with a warning where one class is
      absent: without reals it would be 1 for any detector.

    Source: `sklearn.metrics.average_precision_score`, as DeepfakeBench; GenD's "mAP" also averages over
      classes.
    """
    return _of_curve("ap", weighted.average_precision, scores, labels)


def accuracy(scores, labels, threshold=schema.THRESHOLD) -> float:
    """Share of correct calls at a threshold: a score strictly above it is called fake.

    The threshold is fixed before the test set is seen: 0.5, or the validation set's
    (`calibration.fit_calibration`); GenD's is fitted to the test set (its EER threshold).

    Args: as `auc`; threshold: in [0, 1]. Raises: as `auc`, and ValueError for a score outside [0, 1], where 0.5
      would mean nothing.

    Returns:
      float in [0, 1], also where one class is absent.

    Source: DeepfakeBench (`prob > 0.5`).
    """
    scores, labels = check_probabilities(scores, labels, "accuracy")
    return float(weighted.accuracies(weighted.once(scores, labels), threshold)[0][0])


def balanced_accuracy(scores, labels, threshold=schema.THRESHOLD) -> float:
    """The mean of the shares of fakes and of reals that are called right; 0.5 for a detector that always says one.

    Args, Raises: as `accuracy`. Returns: float in [0, 1]; NaN with a warning where one class is absent.
    Source: `sklearn.metrics.balanced_accuracy_score`.
    """
    scores, labels = check_probabilities(scores, labels, "balanced_accuracy")
    if not both_classes(labels, "balanced_accuracy"):
        return np.nan
    return float(weighted.accuracies(weighted.once(scores, labels), threshold)[1][0])


def tnr_at_tpr(scores, labels, target) -> float:
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
    formula = functools.partial(weighted.tnr_at_tpr, target=target)
    return _of_curve(f"tnr{round(100 * target)}", formula, scores, labels)


def tpr_at_fpr(scores, labels, target) -> float:
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
    formula = functools.partial(weighted.tpr_at_fpr, target=target)
    return _of_curve(f"tpr_fpr{100 * target:g}", formula, scores, labels)


def cllr(scores, labels) -> float:
    """Cost of log-likelihood ratios: how far they are from telling reals and fakes apart, and from being true to it.

    Cllr = 1/2 [mean over fakes of log2(1 + 1 / LR) + mean over reals of log2(1 + LR)], with LR = s / (1 - s): a score
    is read as P(fake) at even odds, whatever the set's shares. 0 is perfect; 1 is what LR = 1 for all costs, and a
    detector above it does worse than saying nothing. A score counts as at least 1e-7 away from 0 and 1.

    Args:
      scores, labels: as `accuracy`.

    Returns:
      float >= 0, in bits; NaN with a warning where one class is absent.

    Raises:
      ValueError: as `accuracy`.

    Source: Bruemmer and du Preez, Computer Speech and Language 20, 2006.
    """
    scores, labels = check_probabilities(scores, labels, "cllr")
    return float(weighted.cllr(weighted.once(scores, labels))[0]) if both_classes(labels, "cllr") else np.nan


def cllr_min(scores, labels) -> float:
    """The least Cllr that any calibration of these scores could have which keeps their order: what ranking alone costs.

    Fitted to the labels of the set itself (pool adjacent violators, both classes weighing the same), so on few examples
    it is lower than the truth. Cllr - Cllr_min is what the calibration costs.

    Args: as `auc`, scores in any range.

    Returns:
      float in [0, 1], in bits: 0 where the classes are told apart, 1 where all scores are equal or the order is upside
      down. NaN with a warning where one class is absent.

    Raises: as `auc`.

    Source: Bruemmer and du Preez, Computer Speech and Language 20, 2006; pool adjacent violators:
      `scipy.optimize.isotonic_regression`.
    """
    return _of_curve("cllr_min", weighted.cllr_min, scores, labels)


def _of_curve(name, formula, scores, labels):
    scores, labels = check_scores(scores, labels)
    if not both_classes(labels, name):
        return np.nan
    [curve] = weighted.curves(weighted.once(scores, labels))
    return float(formula(*curve)[0])


def level_metrics(scores, labels, *, name="the set", calibration=None) -> dict[str, float]:
    """Every metric of this module over one list of scores.

    Args:
      scores, labels: as `auc`. name: of the set, for the warning.
      calibration: {"slope", "threshold", ...} of this level, fitted on validation scores, or None.

    Returns:
      {metric: float}, metric in `NAMES`, with a calibration in `CALIBRATED` too, and "num_real", "num_fake", so that
      a figure can be judged by how many stand behind it. Where one class is absent those in `RANKED` are NaN, with
      one warning.

    Raises:
      ValueError: as `accuracy`.
    """
    scores, labels = check_probabilities(scores, labels, "accuracy")
    _warn_undefined(labels, name)
    return _level_metrics(scores, labels, calibration)


def weighted_metrics(examples, *, calibration=None, max_thresholds=None) -> dict[str, np.ndarray]:
    """Every metric of this module on every draw of `weighted.Examples`: {metric: float64 [R]}, unchecked.

    Args: calibration: as `level_metrics`. max_thresholds: as `weighted.curves`.
    """
    values = {name: np.full(len(examples.weights), np.nan) for name in RANKED}
    if examples.labels.any() and not examples.labels.all():
        curves = weighted.curves(examples, max_thresholds)
        parts = [[formula(*curve) for formula in _OF_CURVES.values()] for curve in curves]
        values |= {name: np.concatenate(part) for name, *part in zip(_OF_CURVES, *parts, strict=True)}
    spread = lambda e: (np.abs(weighted.bin_gaps(e, weighted.BINS)).sum(1), weighted.brier(e))
    values["accuracy"], values["balanced_accuracy"] = weighted.accuracies(examples, schema.THRESHOLD)
    values["ece"], values["brier"] = spread(examples)
    values["cllr"] = weighted.cllr(examples)
    if calibration is not None:
        calls = weighted.accuracies(examples, calibration["threshold"])
        scaled = examples._replace(scores=apply_calibration(examples.scores, calibration))
        bits = weighted.cllr(scaled)
        values |= dict(zip(CALIBRATED, (*calls, *spread(scaled), bits, bits - values["cllr_min"]), strict=True))
    return values


def _warn_undefined(labels, name):
    both_classes(labels, f"{name}: every metric but accuracy, ECE and Brier score")


def _level_metrics(scores, labels, calibration):
    values = weighted_metrics(weighted.once(scores, labels), calibration=calibration)
    counts = {"num_real": float(np.sum(labels == 0)), "num_fake": float(np.sum(labels == 1))}
    return {name: float(value[0]) for name, value in values.items()} | counts


def detection_metrics(
    scores, labels, video_keys, *, name="the set", aggregate="mean", calibration=None
) -> dict[str, float]:
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
    check_aggregate_of(calibration, aggregate)
    videos = group_videos(scores, labels, video_keys, aggregate)
    result = {}
    levels = {"frame": check_probabilities(scores, labels, "accuracy"), "video": videos[:2]}
    _warn_undefined(levels["frame"][1], name)
    for level, (s, y) in levels.items():
        values = _level_metrics(s, y, of_level(calibration, level))
        result |= {f"{level}_{metric}": value for metric, value in values.items()}
    return result


def dfb_metrics(scores, labels, video_keys, *, name="the set") -> dict[str, float]:
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
