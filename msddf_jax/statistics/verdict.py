"""The one verdict: from the scores of frames to a score, a probability and a label that never contradict each other.

A calibration is a slope and an offset on the logit of a score: log LR = slope * logit(score) + offset, the logarithm of
the likelihood ratio of fake and real, kept between bounds that follow from the number of videos behind it. The
probability is LR / (1 + LR), that of a fake where fakes and reals are equally frequent; the threshold is the score
where LR = 1. It is fitted by `calibration`; this module reads and applies it, and loads little: every command that
scores starts with it.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from absl import logging

from msddf_jax.data import schema
from msddf_jax.statistics.scores import aggregate_scores

FILE = "calibration.json"
# Scores are float32 sigmoids: nearer to 0 or 1 than this they are rounding.
SMALLEST = 1e-7


class Verdict(NamedTuple):
    """score: of the file, in [0, 1]. probability: of fake; the score itself without a calibration. label: "fake" where
    probability > 1/2, which is score > threshold, else "real". calibration: {"fitted_on", "threshold"}, or None."""

    score: float
    probability: float
    label: str
    threshold: float
    calibration: dict | None


def judge(frame_scores, calibration=None, aggregate="mean", level="video") -> Verdict:
    """The verdict on one file (or, at level "frame", on one image or face).

    Args:
      frame_scores: float [N] in [0, 1], one a frame, N >= 1. calibration: as `load_calibration`, or None.
      aggregate: of the frames, as `scores.group_videos`. level: "video" or "frame", whose calibration holds.

    Raises:
      ValueError: no score, one outside [0, 1], an unknown aggregate or level, a calibration of videos by another
        aggregate.
    """
    if level not in ("video", "frame"):
        raise ValueError(f"level is {level!r}, allowed: 'video', 'frame'")
    scores = np.asarray(frame_scores, np.float64)
    if scores.ndim != 1 or not scores.size or not np.all((scores >= 0.0) & (scores <= 1.0)):
        raise ValueError(f"expected scores [N] in [0, 1] of at least one frame, got {frame_scores}")
    if level == "video":
        check_aggregate_of(calibration, aggregate)
    part = of_level(calibration, level)
    threshold = schema.THRESHOLD if part is None else float(part["threshold"])
    score = aggregate_scores(scores, aggregate)
    return Verdict(
        score=score,
        probability=float(apply_calibration(score, part)),
        label=schema.LABELS[int(score > threshold)],
        threshold=threshold,
        calibration=None if part is None else {"fitted_on": calibration["fitted_on"], "threshold": threshold},
    )


def weigh(score, calibration, level="video") -> dict | None:
    """The likelihood ratio of one file's score, as JSON takes it, or None where the calibration gives none.

    Args:
      score: of `judge`. calibration: as `load_calibration`, or None. level: as `judge`.

    Returns:
      {"log10_lr": above 0 where the score supports fake, within "bounds": [least, greatest] of it; "num_real",
      "num_fake": videos that the bounds follow from; "abstained": whether no answer is given; "reason": why, ""
      without}.
    """
    part = of_level(calibration, level)
    if part is None or part.get("lr") is None:
        return None
    fitted = part["lr"]
    value = float(part["slope"] * (logit(score) - logit(part["threshold"])) / np.log(10.0))
    reason = ""
    if abs(value) < fitted["abstain_below"]:
        reason = _describe_zone(fitted)
    elif not (fitted["low"] if value < 0.0 else fitted["high"]):
        reason = "the calibration videos do not bear out any support"
    return {
        "log10_lr": float(np.clip(value, fitted["low"], fitted["high"])),
        "bounds": [fitted["low"], fitted["high"]],
        "num_real": fitted["num_real"],
        "num_fake": fitted["num_fake"],
        "abstained": bool(reason),
        "reason": reason,
    }


def _describe_zone(fitted):
    return (
        f"neither side is supported {10.0 ** fitted['abstain_below']:.2g} times more than the other; so unsure were "
        f"{fitted['abstained']:.0%} of the calibration videos"
    )


def apply_calibration(scores, part) -> np.ndarray:
    """float64, the shape of scores: probabilities of fake, above 1/2 exactly where the score is above the threshold.

    Args:
      scores: float in [0, 1]. part: {"slope", "threshold"} of one level, and "lr" {"low", "high"} where there are
        bounds, or None, which leaves scores as they are.

    Raises:
      ValueError: a score outside [0, 1]; a slope that is not above 0.
    """
    scores = np.asarray(scores, np.float64)
    if not np.all((scores >= 0.0) & (scores <= 1.0)):
        raise ValueError("a calibration is of probabilities in [0, 1]")
    if part is None:
        return scores
    slope, threshold = float(part["slope"]), float(part["threshold"])
    if not (np.isfinite(slope) and slope > 0.0):
        raise ValueError(f"the slope is {slope}, expected one above 0")
    # Without bounds kept where exp is finite: 0 and 1 are reached before.
    fitted = part.get("lr")
    low, high = (-700.0, 700.0) if fitted is None else np.log(10.0) * np.array([fitted["low"], fitted["high"]])
    distance = np.clip(slope * (logit(scores) - logit(threshold)), low, high)
    values = 1.0 / (1.0 + np.exp(-distance))
    # Scores that rounding puts on the threshold stay on their side of it.
    return np.where(scores > threshold, np.maximum(values, np.nextafter(0.5, 1.0)), np.minimum(values, 0.5))


def logit(scores) -> np.ndarray:
    """log(s / (1 - s)), with s kept `SMALLEST` away from 0 and 1."""
    scores = np.clip(scores, SMALLEST, 1.0 - SMALLEST)
    return np.log(scores) - np.log1p(-scores)


def of_level(calibration, level) -> dict | None:
    """The part of a calibration for level "video" or "frame", or None without one."""
    if calibration is None:
        return None
    return calibration["frame"] if level == "frame" else calibration


def check_aggregate_of(calibration, aggregate) -> None:
    """Raise ValueError where a calibration is of video scores made another way."""
    if calibration is not None and calibration["aggregate"] != aggregate:
        raise ValueError(
            f"the calibration is of video scores by {calibration['aggregate']!r}, these are by {aggregate!r}; "
            "evaluate the validation set again"
        )


def load_calibration(workdir) -> dict | None:
    """The calibration of a workdir as `calibration.fit_calibration` gives it, with step and weights, or None.

    Raises: ValueError where the file is no calibration, or one of an earlier form.
    """
    path = pathlib.Path(workdir) / FILE
    if not path.exists():
        return None
    value = json.loads(path.read_text())
    again = f"write it anew: python -m msddf_jax.evaluate --workdir {workdir}"
    lacking = {"fitted_on", "aggregate", "step", "weights", "frame", "slope", "offset", "threshold"} - set(value)
    lacking |= {"slope", "offset", "threshold"} - set(value.get("frame", {}))
    if lacking:
        old = "has a temperature, of an earlier version, and " if "temperature" in value else ""
        raise ValueError(f"{path} {old}lacks {', '.join(sorted(lacking))}; {again}")
    for part in (value, value["frame"]):
        slope, offset, threshold = (float(part[name]) for name in ("slope", "offset", "threshold"))
        # The threshold that calls all fake is a hair below the lowest score, which may be 0.
        if not (0.0 < slope < np.inf and -SMALLEST < threshold <= 1.0):
            raise ValueError(f"{path}: slope {slope} or threshold {threshold} is out of range; {again}")
        if not abs(offset + slope * float(logit(threshold))) < 1e-6:
            raise ValueError(f"{path}: the offset {offset} does not make the threshold {threshold} one half; {again}")
        # A calibration of few videos, or of an earlier version, has no likelihood ratio.
        if part.get("lr") is not None and not (part["lr"]["low"] <= 0.0 <= part["lr"]["high"] < np.inf):
            raise ValueError(f"{path}: the bounds of the likelihood ratio {part['lr']} are out of range; {again}")
    return value


def calibration_of(workdir, *, step, weights, aggregate) -> tuple[dict | None, str]:
    """(calibration, "") where a workdir's is of these weights and this aggregate, else (None, why not, in one line).

    Args: workdir: a folder. step, weights: step and origin of `inference.Inference`. aggregate: of video scores.
    Raises: as `load_calibration`.
    """
    found = load_calibration(workdir)
    if found is None:
        return None, f"there is no {FILE} in {workdir}; python -m msddf_jax.evaluate writes it"
    for name, wanted in (("step", step), ("weights", weights), ("aggregate", aggregate)):
        if found[name] != wanted:
            return None, f"{FILE} is of {name} {found[name]!r}, and these scores are of {name} {wanted!r}"
    return found, ""


def chosen_calibration(workdir, *, step, weights, aggregate) -> dict | None:
    """A workdir's calibration that `msddf_jax.calibrate` fitted, where it is of these weights and this aggregate."""
    path = pathlib.Path(workdir) / FILE
    # That of `evaluate` is fitted anew, of whatever form it is.
    if not path.exists() or "set" not in json.loads(path.read_text()):
        return None
    return calibration_of(workdir, step=step, weights=weights, aggregate=aggregate)[0]


def find_calibration(workdir, model, aggregate) -> dict | None:
    """As `calibration_of`, of an `inference.Inference`; None with one line in the log that says why."""
    found, why = calibration_of(workdir, step=model.step, weights=model.origin, aggregate=aggregate)
    if found is None:
        logging.warning("not calibrated: %s. A probability is the score itself, fake above %g", why, schema.THRESHOLD)
    return found


def top_faces(frames, outputs) -> dict[int, dict]:
    """{frame number: the output of its highest score}, in order; frames: [N], of each output of `score_crops`."""
    found = {}
    for frame, output in zip(frames, outputs, strict=True):
        if frame not in found or output["score"] > found[frame]["score"]:
            found[frame] = output
    return found


def describe_forgery(outputs) -> dict[str, str | float | dict[str, float]]:
    """What a detector says of the forgery, over the frames of one file; {} where it has no such heads.

    Args:
      outputs: dicts of `inference.score_crops`, one a frame: "type" [6], "regions" [5], "strength", where there.

    Returns:
      {"type": name of `schema.FORGERY_TYPES`, "type_probability": float, "regions": {name of `schema.FACE_PARTS`:
      probability}, "strength": float}: of the means over the frames; each where there.
    """
    outputs, result = list(outputs), {}
    mean = lambda name: np.mean([output[name] for output in outputs], axis=0, dtype=np.float64)
    if "type" in outputs[0]:
        values = mean("type")
        result["type"] = schema.FORGERY_TYPES[int(values.argmax())]
        result["type_probability"] = float(values.max())
    if "regions" in outputs[0]:
        result["regions"] = dict(zip(schema.FACE_PARTS, mean("regions").tolist(), strict=True))
    if "strength" in outputs[0]:
        result["strength"] = float(mean("strength"))
    return result
