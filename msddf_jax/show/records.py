"""What is said of one scored file, as plain values: what `predict` writes and the page shows."""

import collections

import numpy as np

from msddf_jax.show import words
from msddf_jax.statistics import novelty, people, verdict

# A single frame above the threshold is chance: a stretch is worth a word from so many frames on.
LEAST_FRAMES = 3
OUT_OF_RANGE = "unlike the files that this detector was measured on"
# Codes of what is odd about a whole file and takes nothing from its verdict.
ODD = ("odd_header", "animation", "more_faces", "decode_errors")


def summarize(item, outputs, calibration=None, aggregate="mean", fitted=None) -> dict:
    """What is said of one file, by `predict` and by the page alike.

    Args:
      item: `extract.Extraction`. outputs: of `inference.score_crops`, of its faces. calibration: of these weights and
        this aggregate, or None. aggregate: of the frames of a video, as `scores.group_videos`. fitted: of these weights
        (`novelty.find`), or None.

    Returns:
      dict: kind (video, image), score (of an image the highest of its faces; of a video the aggregate over the frames
      of the person whom the verdict is about, `people.judge_people`), probability (of fake; the score where calibration
      is null), label ("fake" where score > threshold, which is probability > 1/2), threshold, aggregate, calibration
      ({fitted_on, threshold} or null), lr (likelihood ratio: of `weigh`, or null), forgery (where the detector says:
      `verdict.describe_forgery`), frames_sampled, frames_used (with any face), faces_found, frame_indices and
      frame_scores of that person, faces ({frame_index, track, box in the frame, score}), drops ({frame_index, code,
      detail}), warning (what is to be known before the verdict is believed; absent without any), range (of
      `novelty.judge`; where there is `fitted`).
      Of a video also fps, track (whom the verdict is about) and people ({track, frames_used, start, end, score,
      probability, label, decides, stretch {start, end, score, frames}}; times in seconds, or frame numbers where the
      file names no rate).
      Without a single face, or with a score that is not finite: error {code, message} alone.
    """
    drops = [{"frame_index": d.frame_index, "code": d.code, "detail": d.detail} for d in item.drops]
    if not item.frames:
        return {"error": _no_frames(drops)}
    finite = np.isfinite([output["score"] for output in outputs])
    if not finite.all():
        bad = item.frames[int(np.argmin(finite))].frame_index
        return {"error": {"code": "score_not_finite", "message": f"the model's score of frame {bad} is not finite"}}
    found = collections.Counter({face.frame_index: face.num_faces for face in item.frames})
    used = sorted({face.frame_index for face in item.frames})
    sampled = sorted({d["frame_index"] for d in drops if d["frame_index"] >= 0} | set(used))
    level = "frame" if item.info is None else "video"
    if item.info is None:
        who = {}
        top = verdict.top_faces([face.frame_index for face in item.frames], outputs)
        judged = verdict.judge([output["score"] for output in top.values()], calibration, aggregate, level)
    else:
        who, top, judged = _judge_people(item, outputs, sampled, calibration, aggregate)
    forgery = verdict.describe_forgery(top.values())
    distance = None
    if fitted is not None and all("feature" in output for output in top.values()):
        features = [output["feature"] for output in top.values()]
        distance = novelty.judge(features, fitted, level)
    warning = _find_warning(drops, len(used), len(sampled), distance)
    return {
        "kind": "image" if item.info is None else "video",
        "score": judged.score,
        "probability": judged.probability,
        "label": judged.label,
        "threshold": judged.threshold,
        "aggregate": aggregate,
        "calibration": judged.calibration,
        "lr": weigh(judged.score, calibration, level, distance),
        **({"forgery": forgery} if forgery else {}),
        **who,
        "frames_sampled": len(sampled),
        "frames_used": len(used),
        # Where a face was found and gave no landmarks, at least that one.
        "faces_found": found.total()
        + sum(d["code"] == "no_landmarks" and d["frame_index"] not in found for d in drops),
        "frame_indices": list(top),
        "frame_scores": [output["score"] for output in top.values()],
        "faces": [
            {
                "frame_index": face.frame_index,
                "track": face.track,
                "box": [round(float(v), 1) for v in face.bbox],
                "score": output["score"],
            }
            for face, output in zip(item.frames, outputs, strict=True)
        ],
        "drops": drops,
        **({"range": distance} if distance else {}),
        **({"warning": warning} if warning else {}),
    }


def _judge_people(item, outputs, sampled, calibration, aggregate):
    """({"track", "people"} of the record; {frame: output} and verdict of the person whom the verdict is about)."""
    frames, tracks = ([getattr(face, name) for face in item.frames] for name in ("frame_index", "track"))
    values = [output["score"] for output in outputs]
    found, best = people.judge_people(frames, tracks, values, sampled, calibration, aggregate)
    unit = item.info.fps if item.info.fps > 0 else 1.0
    listed = [
        {
            "track": person.track,
            "frames_used": len(person.frames),
            "start": float(person.frames[0]) / unit,
            "end": float(person.frames[-1]) / unit,
            "score": person.judged.score,
            "probability": person.judged.probability,
            "label": person.judged.label,
            "decides": bool(person.decides),
            "stretch": {
                "start": person.stretch.start / unit,
                "end": person.stretch.end / unit,
                "score": person.stretch.score,
                "frames": person.stretch.frames,
            },
        }
        for person in found
    ]
    top = {frames[row]: outputs[row] for row in found[best].rows}
    return {"fps": item.info.fps, "track": found[best].track, "people": listed}, top, found[best].judged


def _no_frames(drops):
    """Code and message for a file without a single face to score."""
    code, count = collections.Counter(d["code"] for d in drops).most_common(1)[0]
    detail = next(d["detail"] for d in drops if d["code"] == code)
    return {
        "code": code,
        "message": detail if len(drops) == 1 else f"{detail} ({count} of {len(drops)} frames)",
    }


def weigh(score, calibration, level, distance=None) -> dict | None:
    """What `verdict.weigh` says of a score, with "words", or None.

    distance: of `novelty.judge`; there is no answer to a file that is out of range.
    """
    lr = verdict.weigh(score, calibration, level)
    if lr is None:
        return None
    if distance is not None and distance["out_of_range"]:
        lr |= {"abstained": True, "reason": OUT_OF_RANGE}
    return lr | {"words": words.describe(lr)}


def why_unanswered(record) -> str:
    """Why a record gives no label, in words: it is out of range, or its likelihood ratio supports too little; or ""."""
    if is_out_of_range(record):
        return f"no verdict: {OUT_OF_RANGE}"
    lr = record.get("lr")
    return f"no answer: {lr['reason']}" if lr is not None and lr["abstained"] else ""


def is_out_of_range(record) -> bool:
    """Whether a record's score may mean nothing, so that no verdict is given (`novelty.judge`)."""
    return bool(record.get("range", {}).get("out_of_range"))


def is_worth_a_word(stretch, record) -> bool:
    """Whether a person's worst stretch is pointed out: above the threshold, not of a moment, of a score that counts."""
    above = stretch["score"] > record["threshold"] and stretch["frames"] >= LEAST_FRAMES
    return above and not is_out_of_range(record)


def describe_stretch(stretch, fps) -> str:
    """When a stretch is: "4.0-5.9 s", or "frames 4-6" where the file names no rate."""
    start, end = stretch["start"], stretch["end"]
    return f"{start:.1f}-{end:.1f}\u00a0s" if fps > 0 else f"frames {start:.0f}-{end:.0f}"


def _find_warning(drops, used, sampled, distance):
    """What is to be known before the verdict is believed, "" without anything."""
    parts = []
    if distance is not None and distance["out_of_range"]:
        parts.append(OUT_OF_RANGE)
    parts += [f"cut short: {d['detail']}" for d in drops if d["code"] == "truncated"][:1]
    if 2 * used <= sampled and sampled > 1:
        parts.append(f"only {used} of {sampled} frames scored")
    return "; ".join(parts)


def timeline_rows(record, item) -> list[dict]:
    """What a timeline shows of each person: the fields of `record["people"]`, and scores, frames and a face.

    Args: record: of `summarize`, of a video. item: its `extract.Extraction`.

    Returns:
      list of dicts: frames, scores of each; missing, frames without this face; thumbnail, uint8 RGB, the face where its
      score is highest.
    """
    rows = []
    for person in record["people"]:
        own = [(face, said["score"]) for face, said in zip(item.frames, record["faces"], strict=True)
               if said["track"] == person["track"]]  # fmt: skip
        frames = [face.frame_index for face, _ in own]
        thumbnail = max(own, key=lambda pair: pair[1])[0].image
        missing = {d["frame_index"] for d in record["drops"] if d["frame_index"] >= 0} - set(frames)
        rows.append({"frames": frames, "scores": [score for _, score in own], "missing": missing,
                     "thumbnail": thumbnail, **person})  # fmt: skip
    return rows
