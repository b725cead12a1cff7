"""Score images and videos: `python -m msddf_jax.predict --workdir DIR FILE_OR_FOLDER... --out DIR`.

Writes `<out>/predictions.jsonl`, one line a file, which is printed too, and for each file a folder
`<out>/pictures/<path of the file below the folder that all inputs share>/` with `timeline.png` (videos) and
`overlay_<frame>_<face>.png` (where the detector has a manipulation map). A file that cannot be scored gives a
line with `error` {code, message} and the others go on; the exit code is 1 where no file was scored.
"""

import collections.abc
import contextlib
import errno
import importlib
import io
import json
import os
import pathlib
import sys
import threading

import numpy as np
import PIL.Image
from absl import app, flags, logging
from tqdm import tqdm

# Not `metrics`, which loads scikit-learn, and `plots`, which loads matplotlib, only when it is needed: a quarter of the
# time that a start takes.
from msddf_jax import inference
from msddf_jax.faces import detect, extract, fetch, image_file, video
from msddf_jax.faces import landmarks as face_landmarks
from msddf_jax.statistics import scores, verdict

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
COMPILATION_CACHE = "~/.cache/msddf_jax/xla"
# Faces of one image that are scored, largest first; a video is one tracked face.
MAX_IMAGE_FACES = 16


class InputError(ValueError):
    """A file or folder that cannot be scored: `code` is one word, `detail` one line."""

    def __init__(self, code, path, detail):
        super().__init__(f"{path}: {detail} [{code}]")
        self.code, self.path, self.detail = code, str(path), detail


class OutputError(RuntimeError):
    """The results cannot be written: a full disk, a folder without permission."""


def predict_files(
    model, paths, out, *, calibration=None, aggregate="mean", landmarks="mediapipe", num_frames=32, batch_size=32,
    max_overlays=8,
) -> list[dict]:  # fmt: skip
    """Scores every file named or found, in order; prints and writes one JSON line each.

    Args:
      model: `inference.Inference`.
      paths: files, and folders to search through (hidden names are left out).
      out: folder for the results; a `predictions.jsonl` in it is replaced.
      calibration: of these weights and this aggregate (`verdict.calibration_of`), or None.
      aggregate: how the scores of a video's frames become one, as `scores.group_videos`.
      landmarks: "mediapipe", or "sidecar": `<stem>.landmarks.npy` beside each file, needs no face models.
      num_frames: frames sampled evenly from a video. batch_size: faces scored at once.
      max_overlays: overlays a file at most, evenly spread over its faces.

    Returns:
      the lines, as dicts. Scored: file, kind (video, image), score (the aggregate over frames of the largest
      face score of each), probability (of fake; the score where calibration is null), label ("fake" where
      score > threshold, which is probability > 1/2), threshold, aggregate, calibration ({fitted_on, threshold}
      or null), forgery (where the detector tells: `verdict.describe_forgery`), frames_sampled, frames_used,
      faces_found, frame_indices, frame_scores, faces ({frame_index, box in the frame, score}), drops
      ({frame_index, code, detail}), warning (only where the file is cut short), timeline, overlays (paths
      below `out`).
      Not scored: file, error {code, message}. Both: config (detector and variant), step and weights of the
        model.

    Raises:
      fetch.ModelFileError, ImportError: the face models cannot be had. OutputError: the results cannot be
      written; lines that are written stay whole. ValueError: an unknown aggregate, a calibration of another.
    """
    scores.check_aggregate(aggregate)
    verdict.check_aggregate_of(calibration, aggregate)
    out = pathlib.Path(out)
    found = find_files(paths, skip=out / "pictures")
    usable = [path for path, error in found if error is None]
    settings = {
        "size": model.config.data.image_size,
        "preset": model.config.data.preset,
        "num_frames": num_frames,
    }
    settings |= {"landmarks": landmarks, "detector": None, "landmarker": None}
    if landmarks == "mediapipe" and usable:
        settings |= {"detector": detect.make_detector(), "landmarker": face_landmarks.make_landmarker()}
    names, records = picture_names(usable), []
    about = {"config": _config_name(model.config), "step": model.step, "weights": model.origin}
    with contextlib.ExitStack() as stack:
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
            lines = stack.enter_context(open(out / "predictions.jsonl", "wb", buffering=0))
        bar = stack.enter_context(tqdm(total=len(found), desc="predict", unit="file"))
        for chunk in _chunks(extract_all(found, settings), batch_size):
            crops = [face.image for _, item in chunk for face in item.frames]
            outputs = inference.score_crops(model, crops, batch_size)
            for path, item in chunk:
                own, outputs = outputs[: len(item.frames)], outputs[len(item.frames) :]
                record = {"file": str(path), **_summarize(item, own, calibration, aggregate), **about}
                try:
                    if "score" in record:
                        folder = pathlib.Path("pictures") / names[path]
                        record |= _draw(record, item, own, out, folder, max_overlays)
                except OutputError:
                    tqdm.write(json.dumps(record), file=sys.stdout)  # the score is not lost with its pictures
                    raise
                _write_line(lines, record)
                records.append(record)
                bar.update()
    return records


def _config_name(config):
    """ "msddf Ti/16": the detector, and its variant where it has several."""
    return " ".join([config.detector, *([config.model.variant] if "variant" in config.model else [])])


def find_files(paths, skip=None) -> list[tuple[pathlib.Path, InputError | None]]:
    """The files to score, in order, each once.

    Args:
      paths: files and folders; folders are searched through, in name order, for the extensions in
        `VIDEO_SUFFIXES` and `IMAGE_SUFFIXES`; hidden names are left out. skip: a folder that is not searched.

    Returns:
      list of (pathlib.Path, None or InputError): not_found, unknown_extension (only of files named in
      `paths`) or empty_folder (nothing in it to score).
    """
    known = VIDEO_SUFFIXES + IMAGE_SUFFIXES
    found, seen = [], set()
    for path in map(pathlib.Path, paths):
        if os.path.isdir(path):
            inside = _search(path, known, skip)
            if not inside:
                detail = f"no image or video in this folder (looked for {' '.join(known)})"
                found.append((path, InputError("empty_folder", path, detail)))
        elif not os.path.isfile(path):
            found.append((path, InputError("not_found", path, "no such file or folder")))
            continue
        elif path.suffix.lower() not in known:
            detail = f"unknown extension {path.suffix!r}, expected one of {' '.join(known)}"
            found.append((path, InputError("unknown_extension", path, detail)))
            continue
        else:
            inside = [path]
        for file in inside:
            if os.path.realpath(file) not in seen:
                seen.add(os.path.realpath(file))
                found.append((file, None))
    return found


def _search(folder, suffixes, skip):
    skip = None if skip is None else os.path.realpath(skip)
    inside = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if name[0] != "." and os.path.realpath(os.path.join(root, name)) != skip
        )
        names = sorted(name for name in files if name[0] != "." and name.lower().endswith(suffixes))
        inside += [pathlib.Path(root, name) for name in names]
    return inside


def picture_names(paths) -> dict[pathlib.Path, str]:
    """{path: its path below the folder that all share}, extension kept: no two files have the same."""
    if not paths:
        return {}
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return {path: os.path.relpath(os.path.abspath(path), shared) for path in paths}


def extract_all(found, settings) -> collections.abc.Iterator[tuple[pathlib.Path, extract.Extraction]]:
    """Yields (path, Extraction); of a file that cannot be used, one without frames and with the reason."""
    for path, error in found:
        try:
            if error is not None:
                raise error
            yield path, _extract(path, **settings)
        except (InputError, video.MediaError, extract.LandmarkFileError) as problem:
            yield path, extract.Extraction([], [extract.Drop(-1, problem.code, problem.detail)], None, 0)


def _extract(path, *, num_frames, landmarks, **settings):
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return extract.extract_faces(path, num_frames=num_frames, landmarks=landmarks, **settings)
    image, points = image_file.read_image(path), None
    if landmarks == "sidecar":
        sidecar = extract.sidecar_path(path)
        points = extract.read_sidecar(sidecar)
        if len(points) != 1:
            detail = f"{sidecar.name} has {len(points)} frames, an image has one"
            raise extract.LandmarkFileError("landmarks_invalid", sidecar, detail)
        points = points[0]
        if not np.isfinite(points).all():
            raise InputError("no_face", path, f"{sidecar.name} has no face")
    return extract.extract_faces_image(image, points=points, max_faces=MAX_IMAGE_FACES, **settings)


def _chunks(items, batch_size):
    """Lists of consecutive items whose faces fill a batch; the last may hold fewer."""
    chunk, faces = [], 0
    for path, item in items:
        chunk.append((path, item))
        faces += len(item.frames)
        if faces == 0 or faces >= batch_size:
            yield chunk
            chunk, faces = [], 0
    if chunk:
        yield chunk


def _summarize(item, outputs, calibration, aggregate):
    """What one line says of one file, but for the pictures and the model."""
    drops = [{"frame_index": d.frame_index, "code": d.code, "detail": d.detail} for d in item.drops]
    if not item.frames:
        return {"error": _no_frames(drops)}
    finite = np.isfinite([output["score"] for output in outputs])
    if not finite.all():
        bad = item.frames[int(np.argmin(finite))].frame_index
        return {
            "error": {
                "code": "score_not_finite",
                "message": f"the model's score of frame {bad} is not finite",
            }
        }
    found = collections.Counter({face.frame_index: face.num_faces for face in item.frames})
    top = verdict.top_faces([face.frame_index for face in item.frames], outputs)
    sampled = {d["frame_index"] for d in drops if d["frame_index"] >= 0} | set(top)
    frame_scores = [output["score"] for output in top.values()]
    kind = "image" if item.info is None else "video"
    judged = verdict.judge(frame_scores, calibration, aggregate, "frame" if kind == "image" else "video")
    forgery = verdict.describe_forgery(top.values())
    cut_short = next((d["detail"] for d in drops if d["code"] == "truncated"), None)
    return {
        "kind": kind,
        "score": judged.score,
        "probability": judged.probability,
        "label": judged.label,
        "threshold": judged.threshold,
        "aggregate": aggregate,
        "calibration": judged.calibration,
        **({"forgery": forgery} if forgery else {}),
        "frames_sampled": len(sampled),
        "frames_used": len(top),
        # Where a face was found and gave no landmarks, at least that one.
        "faces_found": found.total()
        + sum(d["code"] == "no_landmarks" and d["frame_index"] not in found for d in drops),
        "frame_indices": list(top),
        "frame_scores": frame_scores,
        "faces": [
            {
                "frame_index": face.frame_index,
                "box": [round(float(v), 1) for v in face.bbox],
                "score": output["score"],
            }
            for face, output in zip(item.frames, outputs, strict=True)
        ],
        "drops": drops,
        **({} if cut_short is None else {"warning": f"cut short: {cut_short}"}),
    }


def _no_frames(drops):
    """Code and message for a file without a single face to score."""
    code, count = collections.Counter(d["code"] for d in drops).most_common(1)[0]
    detail = next(d["detail"] for d in drops if d["code"] == code)
    return {
        "code": code,
        "message": detail if len(drops) == 1 else f"{detail} ({count} of {len(drops)} frames)",
    }


def _draw(record, item, outputs, out, folder, max_overlays):
    """Draws the pictures of one file into `out / folder`; returns their paths below `out` for its line."""
    from msddf_jax.show import plots  # not above: see the imports

    with _writing(out / folder):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for old in [*(out / folder).glob("overlay_*.png"), out / folder / "timeline.png"]:
            old.unlink(missing_ok=True)  # of an earlier run, perhaps of another model
    title, pictures = pathlib.Path(record["file"]).name, {}
    if item.info is not None:
        missing = {d["frame_index"] for d in record["drops"]} - set(record["frame_indices"])
        image = plots.draw_timeline(
            title,
            record["frame_indices"],
            record["frame_scores"],
            verdict.Verdict(*(record[name] for name in verdict.Verdict._fields)),
            missing=missing,
            fps=item.info.fps,
        )
        pictures["timeline"] = _write_png(out, folder / "timeline.png", image)
    pictures["overlays"] = []
    with_map = [i for i, output in enumerate(outputs) if "map" in output]
    chosen = video.sample_indices(len(with_map), max_overlays) if max_overlays else []
    for i in (with_map[j] for j in chosen):
        face, score = item.frames[i], record["faces"][i]["score"]
        same_frame = [k for k in range(len(item.frames)) if item.frames[k].frame_index == face.frame_index]
        number = same_frame.index(i)
        text = title if item.info is None else f"{title}, frame {face.frame_index}"
        image = plots.draw_overlay(face.image, outputs[i]["map"], text, score=score)
        name = folder / f"overlay_{face.frame_index:06d}_{number}.png"
        pictures["overlays"].append(_write_png(out, name, image))
    return pictures


def _write_png(out, name, image):
    data = io.BytesIO()
    PIL.Image.fromarray(image).save(data, "PNG")
    path = out / name
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path):
        try:
            temporary.write_bytes(data.getvalue())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return name.as_posix()


def _write_line(lines, record):
    """Prints the line and appends it to the open file, whole or not at all."""
    text = json.dumps(record, allow_nan=False)
    tqdm.write(text, file=sys.stdout)
    data, start = text.encode() + b"\n", lines.tell()
    with _writing(lines.name):
        try:
            if lines.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            lines.truncate(start)
            raise


@contextlib.contextmanager
def _writing(path):
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def define_flags(values=flags.FLAGS) -> None:
    """Defines the flags of the command; not at import, where they clash with those of other commands."""
    keys = {"flag_values": values}
    flags.DEFINE_string("workdir", None, "Folder of a training run.", required=True, **keys)
    flags.DEFINE_string("out", None, "Folder for predictions.jsonl and the pictures.", required=True, **keys)
    flags.DEFINE_enum(
        "landmarks",
        "mediapipe",
        extract.LANDMARK_SOURCES,
        "Find faces with YuNet and MediaPipe, or read <stem>.landmarks.npy beside each file.",
        **keys,
    )
    ways = f"{', '.join(scores.AGGREGATES)} (top3); the config's by default."
    flags.DEFINE_string("aggregate", None, f"Score of a video from its frames': {ways}", **keys)
    flags.DEFINE_integer("num_frames", 32, "Frames sampled evenly from a video.", lower_bound=1, **keys)
    flags.DEFINE_integer("batch_size", 32, "Faces scored at once.", lower_bound=1, **keys)
    flags.DEFINE_string(
        "compilation_cache",
        COMPILATION_CACHE,
        "Folder that keeps compiled code for the next call; '' for none. $JAX_COMPILATION_CACHE_DIR comes first.",
        **keys,
    )
    flags.DEFINE_integer("max_overlays", 8, "Heat-map overlays a file, at most.", lower_bound=0, **keys)


def _import_ahead(landmarks):
    """Import what is needed last, in a thread, while the weights are read from the disk."""
    names = ["msddf_jax.show.plots", *(["mediapipe.tasks.python"] if landmarks == "mediapipe" else [])]

    def run():
        with contextlib.suppress(ImportError):  # it comes again, and is told, where the module is needed
            for name in names:
                importlib.import_module(name)

    threading.Thread(target=run).start()


def main(argv) -> int:
    """Score files. Returns the exit code: 0, or 1 where no file was scored, with one line that says why."""
    values = flags.FLAGS
    if len(argv) < 2:
        logging.error("no file or folder given: python -m msddf_jax.predict --workdir DIR --out DIR FILE_OR_FOLDER...")
        return 1
    # The checkpoint library reports every step of a restore; --verbosity=0 shows them.
    if "verbosity" in values and not values["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    _import_ahead(values.landmarks)
    program_cache = inference.use_compilation_cache(values.compilation_cache) or None
    try:
        model = inference.load_for_inference(values.workdir, program_cache)
        aggregate = values.aggregate or model.config.get("aggregate", "mean")
        records = predict_files(
            model,
            argv[1:],
            values.out,
            calibration=verdict.find_calibration(values.workdir, model, aggregate),
            aggregate=aggregate,
            landmarks=values.landmarks,
            num_frames=values.num_frames,
            batch_size=values.batch_size,
            max_overlays=values.max_overlays,
        )
    except OutputError as error:
        logging.error("%s; finished files stand in %s", error, pathlib.Path(values.out) / "predictions.jsonl")
        return 1
    except (FileNotFoundError, ValueError, fetch.ModelFileError, ImportError) as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s: %s", type(error).__name__, error)
        return 1
    scored = sum("score" in record for record in records)
    results = pathlib.Path(values.out) / "predictions.jsonl"
    print(f"{scored} of {len(records)} files scored: {results}", file=sys.stderr)
    return 0 if scored else 1


def _run(argv):
    code = main(argv)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # everything is written; taking the libraries apart would cost most of a second


if __name__ == "__main__":
    define_flags()
    app.run(_run)
