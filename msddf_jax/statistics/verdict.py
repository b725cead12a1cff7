"""The one verdict: from the scores of frames to a score, a probability and a label that never contradict each other.

A calibration is a slope and an offset on the logit of a score, probability = sigmoid(slope * logit(score) + offset),
whose offset makes the threshold probability one half. It is fitted by `calibration`; this module reads and applies it,
and loads little: every command that scores starts with it.
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


def apply_calibration(scores, part) -> np.ndarray:
    """float64, the shape of scores: probabilities of fake, above 1/2 exactly where the score is above the threshold.

    Args:
      scores: float in [0, 1]. part: {"slope", "threshold"} of one level, or None, which leaves scores as they are.

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
    # Kept where exp is finite: 0 and 1 are reached before.
    distance = np.clip(slope * (logit(scores) - logit(threshold)), -700.0, 700.0)
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
