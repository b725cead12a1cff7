"""The verdict on one file: scores, calibration, and the HTML that shows them; no text of the user's is in it."""

import base64
import html
import io

import numpy as np
import PIL.Image

from msddf_jax import inference
from msddf_jax.show import plots, records, uploads
from msddf_jax.statistics import verdict as verdicts

# Faces that are shown, evenly spread.
MAX_SHOWN = 6


def judge(model, found, calibration, aggregate="mean", fitted=None) -> dict:
    """The verdict on one upload.

    Args:
      model: `inference.Inference`. found: `extract.Extraction` with frames. calibration: of these weights and this
        aggregate, or None. aggregate: of a person's frames, as `scores.group_videos`. fitted: of `records.summarize`.

    Returns:
      dict: `records.summarize`, and judged (`verdict.Verdict`); shown, list of {frame, image, score, map or None}, of
      the person whom the verdict is about; rows, of `records.timeline_rows`, [] for an image.

    Raises:
      uploads.UploadError: score_not_finite. ValueError: as `verdict.judge`.
    """
    outputs = inference.score_crops(model, [face.image for face in found.frames])
    record = records.summarize(found, outputs, calibration, aggregate, fitted)
    if "error" in record:
        raise uploads.UploadError(record["error"]["code"], "The model gave no number for this file.")
    about = record.get("track", 0)
    return record | {
        "judged": verdicts.Verdict(*(record[name] for name in verdicts.Verdict._fields)),
        "rows": [] if found.info is None else records.timeline_rows(record, found),
        "shown": [
            {"frame": face.frame_index, "image": face.image, "score": output["score"], "map": output.get("map")}
            for face, output in zip(found.frames, outputs, strict=True)
            if found.info is None or face.track == about
        ],
    }


def render_error(error) -> str:
    """HTML of an `uploads.UploadError`."""
    return (
        '<div class="msddf-card msddf-error" role="alert"><div class="msddf-big">Not checked</div>'
        f"<p>{html.escape(error.message)} <code>{html.escape(error.code)}</code></p></div>"
    )


def render_verdict(verdict) -> str:
    """HTML of what `judge` gave: verdict, scores over time, faces and maps; the pictures are inside it."""
    parts = [_render_headline(verdict)]
    if verdict["kind"] == "video":
        parts.append(_render_timeline(verdict))
    parts.append(_render_faces(verdict))
    return f'<div class="msddf-result">{"".join(parts)}</div>'


def _render_headline(verdict):
    judged = verdict["judged"]
    if judged.calibration is None:
        figure = f"score {judged.score:.2f} of 1"
        note = (
            "This model is <b>not calibrated</b>: the score orders files, but it is not a probability. "
            "0.9 does not mean nine in ten."
        )
    else:
        figure = f"probability of fake {100 * judged.probability:.0f}&thinsp;%"
        fitted_on = html.escape(str(judged.calibration["fitted_on"]))
        note = (
            f"Calibrated on {fitted_on}; the score before calibration is {judged.score:.2f}. The probability holds "
            "where fakes and reals are equally frequent."
        )
        if verdict["lr"] is not None:
            note = f"{html.escape(verdict['lr']['words'])} {note}"
    if verdict["kind"] == "video":
        looked = (
            f"{verdict['frames_used']} of {verdict['frames_sampled']} sampled frames have a face that could be scored"
        )
        if len(verdict["people"]) > 1:
            looked = f"{len(verdict['people'])} people; the verdict is about person {verdict['track'] + 1}; {looked}"
    else:
        count = len(verdict["shown"])
        looked = "1 face" if count == 1 else f"{count} faces; the highest score counts"
    warning = ""
    if "warning" in verdict:
        warning = f'<p class="msddf-warning"><b>Before you believe it:</b> {html.escape(verdict["warning"])}.</p>'
    but = ""
    if judged.label == "real":
        own = [row["stretch"] for row in verdict["rows"] if row["track"] == verdict["track"]]
        said = [records.describe_stretch(s, verdict["fps"]) for s in own if records.is_worth_a_word(s, verdict)]
        but = "".join(f", but not at {where}, which looks fake" for where in said)
    odd = [drop["detail"] for drop in verdict["drops"] if drop["frame_index"] < 0 and drop["code"] in records.ODD]
    looked += "".join(f"; {html.escape(detail)}" for detail in odd)
    if unanswered := records.why_unanswered(verdict):
        # No bar, no label and no probability: they would be read as a verdict.
        what, _, why = unanswered.partition(": ")
        figure, note = "which may mean nothing here", ""
        if not records.is_out_of_range(verdict):
            figure, note = "too near to the middle", f"<p>{html.escape(why.capitalize())}.</p>"
        return (
            f'<div class="msddf-card msddf-error" role="status">{warning}<div class="msddf-big">{what.capitalize()}'
            f'</div><div class="msddf-figure">score {judged.score:.2f} of 1, {figure}</div>{note}<p>{looked}.</p></div>'
        )
    return (
        f'<div class="msddf-card msddf-{judged.label}" role="status">{warning}'
        f'<div class="msddf-big">The detector calls this {"video" if verdict["kind"] == "video" else "image"} '
        f'<b>{judged.label}</b>{but}</div><div class="msddf-figure">{figure}</div>'
        f'<div class="msddf-bar"><div class="msddf-fill" style="width:{100 * judged.probability:.1f}%"></div>'
        # With a calibration or without one, the two verdicts meet at one half.
        '<div class="msddf-mark" style="left:50%"></div></div>'
        '<div class="msddf-scale"><span>0 real</span><span>fake above 0.50</span><span>1 fake</span></div>'
        f"<p>{note}</p>{_render_forgery(verdict.get('forgery', {}), judged.label)}<p>{looked}.</p></div>"
    )


def _render_forgery(forgery, label):
    """A line of what is said of type, regions and strength of a fake; "" for a real, or without such heads."""
    forgery = forgery if label == "fake" else {}
    parts, words = [], lambda name: name.replace("_", " ")
    if "type" in forgery:
        parts.append(f"type {words(forgery['type'])} ({100 * forgery['type_probability']:.0f}&thinsp;%)")
    if "regions" in forgery:
        parts.append(", ".join(f"{words(name)} {100 * p:.0f}&thinsp;%" for name, p in forgery["regions"].items()))
    if "strength" in forgery:
        parts.append(f"strength {forgery['strength']:.2f}")
    return f"<p>What the detector says of the forgery: {'; '.join(parts)}.</p>" if parts else ""


def _render_timeline(verdict):
    """Not a picture, as `plots.draw_timeline`, whose text nobody can read at the width of a phone."""
    threshold, fps, rows = verdict["judged"].threshold, verdict["fps"], verdict["rows"]
    last = max(max([*row["frames"], *row["missing"], 1]) for row in rows)
    what = "Score of each frame" + ("" if verdict["judged"].calibration is None else ", before calibration")
    charts = "".join(_render_person(row, len(rows), verdict, last, what) for row in rows)
    keys = [("#d62728", "called fake"), ("#1f77b4", "called real")]
    keys += [("#888", "no face")] if any(row["missing"] for row in rows) else []
    key = "".join(f'<span><i style="background:{color}"></i>{text}</span>' for color, text in keys)
    end = f"{last / fps:.1f} s" if fps > 0 else f"frame {last}"
    return (
        f'<h3>Over time</h3><div class="msddf-scale"><span>1 fake</span><span>{what}</span></div>{charts}'
        f'<div class="msddf-scale"><span>0 real, at 0 s</span><span>{end}</span></div>'
        f'<div class="msddf-key">{key}<span>dashed: threshold {threshold:.2f}</span></div>'
    )


def _render_person(row, count, verdict, last, what):
    """One person's scores, with a face and the worst stretch where several are shown."""
    threshold, fps = verdict["judged"].threshold, verdict["fps"]
    place = lambda frame: f"left:{100 * frame / last:.2f}%"
    stretch, dots = row["stretch"], []
    pointed_out = records.is_worth_a_word(stretch, verdict) and stretch["frames"] < row["frames_used"]
    if pointed_out:
        unit = fps if fps > 0 else 1.0
        start, end = (100 * stretch[side] * unit / last for side in ("start", "end"))
        dots.append(f'<b style="left:{start:.2f}%;width:{max(end - start, 0.5):.2f}%"></b>')
    dots += [
        f'<i class="{"above" if score > threshold else "below"}" title="frame {frame}: {score:.2f}" '
        f'style="{place(frame)};bottom:{100 * score:.2f}%"></i>'
        for frame, score in zip(row["frames"], row["scores"], strict=True)
    ]
    dots += [f'<i class="none" title="frame {frame}: no face" style="{place(frame)};bottom:0"></i>'
             for frame in sorted(row["missing"])]  # fmt: skip
    scores = row["scores"]
    label = f"{what}: {len(scores)} frames from {min(scores):.2f} to {max(scores):.2f}"
    chart = (
        f'<div class="msddf-chart" role="img" aria-label="{label}">'
        f'<hr style="bottom:{100 * threshold:.2f}%">{"".join(dots)}</div>'
    )
    said = []
    if count > 1:
        about = ", whom the verdict is about" if row["track"] == verdict["track"] else ""
        said.append(f"<b>Person {row['track'] + 1}</b>{about}: {row['label']}, score {row['score']:.2f}")
    if pointed_out:
        said.append(f"most like a fake at {records.describe_stretch(stretch, fps)} (score {stretch['score']:.2f})")
    face = f'<img src="{_data_uri(row["thumbnail"])}" alt="The face of person {row["track"] + 1}">' if count > 1 else ""
    head = f'<div class="msddf-person">{face}<span>{"; ".join(said)}</span></div>' if said else ""
    return head + chart


def _render_faces(verdict):
    faces = verdict["shown"]
    chosen = [faces[i] for i in np.unique(np.linspace(0, len(faces) - 1, MAX_SHOWN).astype(int))]
    figures = []
    for number, face in enumerate(chosen, 1):
        where = f"face {number}" if verdict["kind"] == "image" else f"frame {face['frame']}"
        if verdict["kind"] == "video" and verdict["fps"] > 0:
            where += f", {face['frame'] / verdict['fps']:.2f} s"
        pictures = f'<img src="{_data_uri(face["image"])}" alt="The face as the detector sees it, {where}">'
        if face["map"] is not None:
            heat = plots.blend_heat(face["image"], np.clip(face["map"], 0.0, 1.0))
            pictures += f'<img src="{_data_uri(heat)}" alt="Map of what looks manipulated, {where}">'
        caption = f"{where}: score {face['score']:.2f}"
        figures.append(f'<figure><div class="msddf-pair">{pictures}</div><figcaption>{caption}</figcaption></figure>')
    with_maps = any(face["map"] is not None for face in chosen)
    title = "Faces and maps" if with_maps else "Faces"
    legend = (
        '<div class="msddf-legend"><span>untouched</span><i></i><span>manipulated</span></div>'
        if with_maps
        else "<p>This detector makes no maps.</p>"
    )
    left_out = f" ({len(chosen)} of {len(faces)})" if len(chosen) < len(faces) else ""
    return f'<h3>{title}{left_out}</h3>{legend}<div class="msddf-faces">{"".join(figures)}</div>'


def _data_uri(image):
    data = io.BytesIO()
    PIL.Image.fromarray(image).save(data, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
