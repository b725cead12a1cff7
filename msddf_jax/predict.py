"""Score images and videos: `python -m msddf_jax.predict --workdir DIR FILE_OR_FOLDER... --out DIR`.

Prints a line a file for people to read, and writes `<out>/predictions.jsonl`, one JSON line a file (`--json` prints
these), and for each file a folder `<out>/pictures/<path of the file below the folder that all inputs share>/` with
`timeline.png` (videos) and `overlay_<frame>_<face>.png` (where the detector has a manipulation map). Of a video
everybody's face is scored, and the verdict says whom it is about. A file that cannot be scored gives a line with
`error` {code, message} and the others go on; the exit code is 1 where no file was scored.
"""

import contextlib
import errno
import functools
import importlib
import io
import json
import os
import pathlib
import sys
import threading

import PIL.Image
from absl import app, flags, logging
from tqdm import tqdm

# Not `metrics`, which loads scikit-learn, and `plots`, which loads matplotlib, only when it is needed: a quarter of the
# time that a start takes.
from msddf_jax import command, inference
from msddf_jax.faces import detect, extract, fetch, find, reading, video
from msddf_jax.faces import landmarks as face_landmarks
from msddf_jax.show import lines as shown_lines
from msddf_jax.show import records
from msddf_jax.statistics import novelty, scores, verdict

COMPILATION_CACHE = "~/.cache/msddf_jax/xla"


class OutputError(RuntimeError):
    """The results cannot be written: a full disk, a folder without permission."""


def predict_files(
    model, paths, out, *, calibration=None, fitted=None, aggregate="mean", landmarks="mediapipe", faces="all",
    num_frames=32, batch_size=32, max_overlays=8, as_json=False,
) -> list[dict]:  # fmt: skip
    """Scores every file named or found, in order; writes one JSON line each, and prints one for people.

    Args:
      model: `inference.Inference`.
      paths: files, and folders to search through (hidden names are left out).
      out: folder for the results; a `predictions.jsonl` in it is replaced.
      calibration: of these weights and this aggregate (`verdict.calibration_of`), or None.
      fitted: range of the validation set's features, of these weights (`novelty.fitted_of`), or None.
      aggregate: how the scores of a video's frames become one, as `scores.group_videos`.
      landmarks: "mediapipe", or "sidecar": `<stem>.landmarks.npy` beside each file, needs no face models.
      faces: of a video, "all" people, or the "largest" face alone.
      num_frames: frames sampled evenly from a video. batch_size: faces scored at once.
      max_overlays: overlays a file at most, evenly spread over its faces. as_json: whether the JSON lines are printed.

    Returns:
      the lines, as dicts: file; what `records.summarize` says, with timeline and overlays (paths below `out`), or error
      {code, message}; config (detector and variant), step and weights of the model.

    Raises:
      fetch.ModelFileError, ImportError: the face models cannot be had. OutputError: the results cannot be
      written; lines that are written stay whole. ValueError: an unknown aggregate, a calibration of another.
    """
    scores.check_aggregate(aggregate)
    verdict.check_aggregate_of(calibration, aggregate)
    out = pathlib.Path(out)
    found, left_out = find.find_files(paths, skip=out / "pictures")
    usable = [path for path, error in found if error is None]
    settings = {
        "size": model.config.data.image_size,
        "preset": model.config.data.preset,
        "num_frames": num_frames,
        "faces": {"all": "people", "largest": "largest"}[faces],
    }
    settings |= {"landmarks": landmarks, "detector": None, "landmarker": None}
    if landmarks == "mediapipe" and usable:
        settings |= {"detector": detect.make_detector(), "landmarker": face_landmarks.make_landmarker()}
    names, lines_made = find.picture_names(usable), []
    show = functools.partial(_show, as_json=as_json, width=shown_lines.name_width([path for path, _ in found]))
    about = {"config": _config_name(model.config), "step": model.step, "weights": model.origin}
    with contextlib.ExitStack() as stack:
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
            lines = stack.enter_context(open(out / "predictions.jsonl", "wb", buffering=0))
        bar = stack.enter_context(tqdm(total=len(found), desc="predict", unit="file"))
        for chunk in _chunks(reading.extract_all(found, settings), batch_size):
            crops = [face.image for _, item in chunk for face in item.frames]
            outputs = inference.score_crops(model, crops, batch_size)
            for path, item in chunk:
                own, outputs = outputs[: len(item.frames)], outputs[len(item.frames) :]
                record = {"file": str(path), **records.summarize(item, own, calibration, aggregate, fitted), **about}
                try:
                    if "score" in record:
                        folder = pathlib.Path("pictures") / names[path]
                        record |= _draw(record, item, own, out, folder, max_overlays)
                except OutputError:
                    show(record)  # the score is not lost with its pictures
                    raise
                _write_line(lines, record)
                show(record)
                lines_made.append(record)
                bar.update()
    if not as_json:
        print(shown_lines.summarize(lines_made, left_out, out))
    return lines_made


def _show(record, *, as_json, width):
    line = json.dumps(record, allow_nan=False) if as_json else shown_lines.describe(record, width)
    tqdm.write(line, file=sys.stdout)


def _config_name(config):
    """ "msddf Ti/16": the detector, and its variant where it has several."""
    return " ".join([config.detector, *([config.model.variant] if "variant" in config.model else [])])


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


def _draw(record, item, outputs, out, folder, max_overlays):
    """Draws the pictures of one file into `out / folder`; returns their paths below `out` for its line."""
    from msddf_jax.show import plots  # not above: see the imports

    with _writing(out / folder):
        (out / folder).mkdir(parents=True, exist_ok=True)
        for old in [*(out / folder).glob("overlay_*.png"), out / folder / "timeline.png"]:
            old.unlink(missing_ok=True)  # of an earlier run, perhaps of another model
    title, pictures = pathlib.Path(record["file"]).name, {}
    if item.info is not None:
        judged = verdict.Verdict(*(record[name] for name in verdict.Verdict._fields))
        named = [person["track"] for person in record["people"]].index(record["track"])
        rows = records.timeline_rows(record, item)
        for row in rows:
            whole = row["stretch"]["frames"] == row["frames_used"]
            if whole or not records.is_worth_a_word(row["stretch"], record):
                del row["stretch"]
        unanswered = records.why_unanswered(record)
        image = plots.draw_timeline(title, rows, judged, named=named, fps=item.info.fps, unanswered=unanswered)
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
    """Appends the line to the open file, whole or not at all."""
    data, start = json.dumps(record, allow_nan=False).encode() + b"\n", lines.tell()
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
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, **keys)
    command.define_path("out", None, "Folder for predictions.jsonl and the pictures.", required=True, **keys)
    flags.DEFINE_enum(
        "landmarks",
        "mediapipe",
        extract.LANDMARK_SOURCES,
        "Find faces with YuNet and MediaPipe, or read <stem>.landmarks.npy beside each file.",
        **keys,
    )
    flags.DEFINE_enum("faces", "all", ("all", "largest"), "Of a video: everybody's, or the largest alone.", **keys)
    command.define_path("manifest", None, "File for digests of all inputs, weights and results.", **keys)
    command.define_path("replay", None, "Manifest whose files are scored again and compared.", **keys)
    flags.DEFINE_boolean("json", False, "Print the JSON lines that are written, in place of lines for people.", **keys)
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
    """Score files. Returns the exit code: 0, or 1 where no file was scored, with one line that says why.

    With --replay 0 where every digest and every digit is that of the manifest, else 1, a line for each that is not.
    """
    values = flags.FLAGS
    if (len(argv) < 2) != bool(values.replay):
        logging.error(
            "give files and folders, or --replay alone: python -m msddf_jax.predict --workdir DIR --out DIR FILE..."
        )
        return 1
    # The checkpoint library reports every step of a restore; --verbosity=0 shows them.
    if "verbosity" in values and not values["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        return _replay(values) if values.replay else _score(values, argv[1:])
    except OutputError as error:
        logging.error("%s; finished files stand in %s", error, pathlib.Path(values.out) / "predictions.jsonl")
    except (FileNotFoundError, ValueError, fetch.ModelFileError, ImportError) as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s: %s", type(error).__name__, error)
    return 1


def _score(values, paths):
    if not values.workdir:
        raise ValueError("--workdir is not given: the folder of a training run, or of converted weights")
    settings = {name: getattr(values, name) for name in ("landmarks", "faces", "num_frames", "batch_size")}
    model, aggregate, made = _run_model(values, values.workdir, paths, values.aggregate, settings)
    if values.manifest:
        from msddf_jax import manifest  # a quarter of a second, for those who want one

        files = [record["file"] for record in made]
        kept = manifest.make(
            model, values.workdir, files, made, {**settings, "aggregate": aggregate}, sys.argv[1:]
        )  # fmt: skip
        with _writing(values.manifest):
            manifest.write(values.manifest, kept)
    return 0 if any("score" in record for record in made) else 1


def _replay(values):
    from msddf_jax import manifest

    kept, folder = manifest.read(values.replay), pathlib.Path(values.replay).parent
    problems = manifest.check(kept, folder)
    for line in problems:
        print(f"differs: {line}")
    for line in manifest.notes(kept):
        print(f"note: {line}")
    workdir, files = manifest.replay_inputs(kept, folder)
    settings = dict(kept["settings"])
    _, _, made = _run_model(values, workdir, files, settings.pop("aggregate"), settings)
    different = manifest.compare(kept["records"], made)
    for line in different:
        print(f"differs: {line}")
    if problems or different:
        print(f"NOT THE SAME: {len(problems)} files or settings and {len(different)} figures differ")
        return 1
    print(f"the same: {len(made)} files, every digest and every digit")
    return 0


def _run_model(values, workdir, paths, aggregate, settings):
    """(model, aggregate, records) of some files; settings: keywords of `predict_files`."""
    _import_ahead(settings["landmarks"])
    program_cache = inference.use_compilation_cache(values.compilation_cache) or None
    model = inference.load_for_inference(workdir, program_cache)
    aggregate = aggregate or model.config.get("aggregate", "mean")
    made = predict_files(
        model,
        paths,
        values.out,
        calibration=verdict.find_calibration(workdir, model, aggregate),
        fitted=novelty.find(workdir, model),
        aggregate=aggregate,
        max_overlays=values.max_overlays,
        as_json=values.json,
        **settings,
    )
    return model, aggregate, made


def _run(argv):
    code = main(argv)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)  # everything is written; taking the libraries apart would cost most of a second


if __name__ == "__main__":
    define_flags()
    app.run(_run)
