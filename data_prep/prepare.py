"""Prepares downloaded videos: aligned face crops, 81 landmarks and masks, in DeepfakeBench's folder layout.

    python -m data_prep.prepare --layout=faceforensics --root 'FaceForensics++' --out prepared

Under `--out` (default: the root) every `<unit>`, for example original_sequences/youtube/c23, gets

    frames/<video>/<frame>.png      uint8 RGB crop, frame number with at least three digits
    landmarks/<video>/<frame>.npy   float32 [81, 2], crop pixels, order of the 81-point dlib predictor
    masks/<video>/<frame>.png       uint8 {0, 255}, for fakes with a mask video
    meta/<video>.json               settings, boxes, matrices, dropped frames; written last: the video is done

and the whole job a report.json: counts by code and a coded reason for everything dropped. The same command
again goes on where a stopped run was. A video is redone when its file changed; settings other than before are
an error, unless `--overwrite` is given. Split lists are copied to `--out`.
Exit code 0: done; 1: the job failed (nothing prepared, too many bad videos, disk full); 2: usage.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import threading
import time

import numpy as np
import tqdm

from data_prep import downloads
from msddf_jax.faces import align, detect, extract, fetch, landmarks, video
from msddf_jax.faces.opencv import cv2

# Part of every meta file: raised when the same settings would give other files.
FORMAT_VERSION = 1
_LISTS = ("train.json", "val.json", "test.json", "conversion_dict.json")
# Codes of a whole video that gave nothing, or that should not be there; they count as bad.
BAD_CODES = (
    "unreadable_video",
    "zero_frames",
    "no_face_video",
    "landmarks_missing",
    "landmarks_invalid",
    "foreign_frames",
    "unlisted_file",
    "name_unparsed",
)
_worker = {}  # what `_start_worker` built, one set per process


class PrepareError(RuntimeError):
    """The job cannot start or go on; the message is for the user."""


def prepare_video(item, out, settings, detector=None, landmarker=None, overwrite=False):
    """Prepares one video and writes its files.

    Args:
      item: `downloads.Video`.
      out: output root.
      settings: dict with version, num_frames, size, preset, landmarks.
      detector, landmarker: models, not needed for sidecar landmarks.
      overwrite: whether frames that another tool made may be replaced.

    Returns:
      dict for the report: path, sampled, kept, items (list of dicts with code, path, detail).

    Raises:
      OSError: a file cannot be written; what this video had written is removed.
    """
    unit = pathlib.Path(out) / item.unit
    folders = {name: unit / name / item.stem for name in ("frames", "landmarks", "masks")}
    meta_path, started = _meta_path(unit, item.stem), unit / "meta" / f"{item.stem}.started"
    ours = overwrite or started.exists() or meta_path.exists()
    if not ours and any(folder.exists() for folder in folders.values()):
        detail = f"{item.unit}/frames/{item.stem} was made by another tool: use another --out, or --overwrite"
        return _failed(item, "foreign_frames", detail)
    try:
        extraction = extract.extract_faces(
            item.path,
            num_frames=settings["num_frames"],
            size=settings["size"],
            preset=settings["preset"],
            landmarks=settings["landmarks"],
            detector=detector,
            landmarker=landmarker,
            mask_path=item.mask,
        )
    except (video.VideoError, extract.LandmarkFileError) as error:
        return _failed(item, error.code, error.detail)
    meta = _meta(item, settings, extraction)
    try:
        meta_path.parent.mkdir(parents=True, exist_ok=True)
        started.touch()  # tells a later run that folders without a meta file are ours to replace
        meta_path.unlink(missing_ok=True)
        for folder in folders.values():
            if folder.exists():
                shutil.rmtree(folder)
        for face in extraction.frames:
            _write_face(face, folders)
        _write_atomic(meta_path, json.dumps(meta).encode())
        started.unlink()
    except OSError:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # the first error is the one to tell
            started.unlink(missing_ok=True)
        raise
    return _result(meta)


def _meta_path(unit, stem):
    return pathlib.Path(unit) / "meta" / f"{stem}.json"


def _failed(item, code, detail):
    return {
        "path": item.relative,
        "sampled": 0,
        "kept": 0,
        "items": [{"code": code, "path": item.relative, "detail": detail}],
    }


def _meta(item, settings, extraction):
    frames = [
        {
            "frame_index": face.frame_index,
            "bbox": [round(float(v), 2) for v in face.bbox],
            "matrix": [[float(v) for v in row] for row in face.matrix],
            "num_faces": face.num_faces,
        }
        for face in extraction.frames
    ]
    return {
        "video": item.relative,
        "source_bytes": os.path.getsize(item.path),
        "settings": settings,
        "container": dataclasses.asdict(extraction.info),
        "num_frames": extraction.num_decoded,
        "has_mask": any(face.mask is not None for face in extraction.frames),
        "frames": frames,
        "drops": [dataclasses.asdict(drop) for drop in extraction.drops],
    }


def _result(meta):
    """The report's view of a meta file."""
    path, kept = meta["video"], [frame["frame_index"] for frame in meta["frames"]]
    lost = {drop["frame_index"] for drop in meta["drops"]} - {-1} - set(kept)
    items = []
    for drop in meta["drops"]:
        frame = {} if drop["frame_index"] < 0 else {"frame_index": drop["frame_index"]}
        items.append({"code": drop["code"], "path": path, **frame, "detail": drop["detail"]})
    if not kept:
        detail = f"none of the {len(lost)} sampled frames has a face with landmarks"
        items.append({"code": "no_face_video", "path": path, "detail": detail})
    return {"path": path, "sampled": len(kept) + len(lost), "kept": len(kept), "items": items}


def _write_face(face, folders):
    name = f"{face.frame_index:03d}"
    _write(folders["frames"] / f"{name}.png", _png(cv2.cvtColor(face.image, cv2.COLOR_RGB2BGR)))
    folders["landmarks"].mkdir(parents=True, exist_ok=True)
    points = landmarks.to_dlib_order(face.landmarks)
    with open(folders["landmarks"] / f"{name}.npy", "wb") as file:
        np.save(file, points)
    if face.mask is not None:
        _write(folders["masks"] / f"{name}.png", _png(face.mask))


def _png(image):
    ok, data = cv2.imencode(".png", image)
    if not ok:
        raise RuntimeError(f"OpenCV cannot encode an image of {image.dtype} {image.shape} as PNG")
    return data.tobytes()


def _write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _write_atomic(path, data):
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def _start_worker(out, settings, overwrite):
    """Once per process: one OpenCV thread, since the processes are the parallelism, and the models."""
    cv2.setNumThreads(1)
    _worker.clear()
    _worker.update(out=out, settings=settings, overwrite=overwrite)
    if settings["landmarks"] == "mediapipe":
        _worker.update(detector=detect.make_detector(), landmarker=landmarks.make_landmarker())


def _start_process(*args):
    # Ctrl-C reaches the whole group: the parent decides, and this process finishes its video.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    _start_worker(*args)


def _exit_with_parent():
    # A parent that was killed cannot tell its pool, whose processes would wait for work for ever.
    multiprocessing.parent_process().join()
    os._exit(1)


def _run_one(item):
    try:
        return prepare_video(item, **_worker)
    except Exception as error:
        error.add_note(f"while preparing {item.path}")
        raise


def _split_done(items, out, settings, overwrite):
    """Results of videos already done with these settings and unchanged since, and the videos left to do."""
    done, todo = [], []
    for item in items:
        path = _meta_path(pathlib.Path(out) / item.unit, item.stem)
        meta = None if overwrite else _read_meta(path)
        if meta is None:
            todo.append(item)
            continue
        changed = sorted(k for k in settings if meta["settings"].get(k) != settings[k])
        if changed:
            was = ", ".join(f"{k}={meta['settings'].get(k)}" for k in changed)
            now = ", ".join(f"{k}={settings[k]}" for k in changed)
            raise PrepareError(
                f"{path} was prepared with {was}, now asked for {now}: use another --out, or --overwrite"
            )
        if meta["source_bytes"] != os.path.getsize(item.path):
            todo.append(item)
        else:
            done.append(_result(meta))
    return done, todo


def _read_meta(path):
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise PrepareError(f"{path} is not a meta file of this tool ({error}): delete it, or --overwrite") from error


def _run_all(todo, workers, out, settings, overwrite):
    """Yields a result per video, as they finish; in this process, `_start_worker` has been called."""
    workers = min(workers, len(todo))
    if workers <= 1:
        yield from map(_run_one, todo)
        return
    # Spawned, not forked: the models' threads do not survive a fork.
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_process, (out, settings, overwrite)
    )
    try:
        for future in concurrent.futures.as_completed([pool.submit(_run_one, item) for item in todo]):
            yield future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise PrepareError(
            "a worker process died, perhaps for lack of memory: finished videos stay; "
            "run the same command again, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run(
    root,
    *,
    layout="faceforensics",
    out=None,
    compression="c23",
    methods=None,
    splits=downloads.SPLITS,
    num_frames=32,
    size=256,
    preset="dfb",
    landmark_source="mediapipe",
    workers=1,
    allow_missing=False,
    overwrite=False,
    mask_root=None,
):
    """Prepares a data set; the arguments are the flags of the command.

    Returns:
      the report of `make_report`, also written to `<out>/report.json`.

    Raises:
      downloads.DownloadError, PrepareError, fetch.ModelFileError, ImportError: the job cannot start, or a
        worker died.
      OSError: a file cannot be written (disk full); finished videos stay.
    """
    out = pathlib.Path(root if out is None else out)
    settings = {
        "version": FORMAT_VERSION,
        "num_frames": num_frames,
        "size": size,
        "preset": preset,
        "landmarks": landmark_source,
    }
    items, problems = downloads.LAYOUTS[layout](
        root,
        compression=compression,
        methods=methods,
        splits=splits,
        allow_missing=allow_missing,
        mask_root=mask_root,
    )
    results, todo = _split_done(items, out, settings, overwrite)
    if todo:  # also where other processes do the work: a missing model stops here, before anything is written
        _start_worker(out, settings, overwrite)
    out.mkdir(parents=True, exist_ok=True)
    _copy_lists(root, out)
    if results:
        print(f"{len(results)} of {len(items)} videos were done before")
    begun, frames = time.monotonic(), 0
    with tqdm.tqdm(total=len(todo), unit="video", disable=not todo) as bar:
        for result in _run_all(todo, workers, out, settings, overwrite) if todo else ():
            results.append(result)
            frames += result["kept"]
            bar.update()
            bar.set_postfix_str(f"{frames / (time.monotonic() - begun):.1f} faces/s")
    report = make_report(items, results, problems, {"layout": layout, "compression": compression, **settings})
    _write_atomic(out / "report.json", json.dumps(report, indent=1).encode())
    return report


def _copy_lists(root, out):
    """The lists go with the crops, so that the output can be built without the download."""
    if pathlib.Path(root).resolve() != out.resolve():
        for name in _LISTS:
            if (pathlib.Path(root) / name).is_file():
                _write_atomic(out / name, (pathlib.Path(root) / name).read_bytes())


def make_report(items, results, problems, settings):
    """The report of a job.

    Args:
      items: all `downloads.Video` of the job.
      results: one dict of `prepare_video` for each.
      problems: list of `downloads.Problem`.
      settings: dict, copied in.

    Returns:
      dict that JSON can hold: settings; counts by code; videos found, prepared, bad; frames sampled, kept;
      `bad_fraction`, videos with a code of `BAD_CODES` over all found; prepared videos by split and class;
      `items`, one dict with code, path, detail (and frame_index) for everything dropped or odd.
    """
    entries = [dataclasses.asdict(problem) for problem in problems]
    entries += [entry for result in sorted(results, key=lambda r: r["path"]) for entry in result["items"]]
    counts = dict(sorted(collections.Counter(entry["code"] for entry in entries).items()))
    bad = {entry["path"] for entry in entries if entry["code"] in BAD_CODES}
    found = {item.relative for item in items} | bad
    kept = {result["path"]: result["kept"] for result in results}
    by_split = {}
    for item in items:
        if kept.get(item.relative):
            split = by_split.setdefault(item.split, {"real": 0, "fake": 0})
            split["real" if item.method == "real" else "fake"] += 1
    sampled, total = sum(r["sampled"] for r in results), sum(kept.values())
    return {
        "settings": settings,
        "counts": counts,
        "videos": {"found": len(found), "prepared": sum(k > 0 for k in kept.values()), "bad": len(bad)},
        "frames": {"sampled": sampled, "kept": total, "kept_fraction": total / sampled if sampled else 0.0},
        "bad_fraction": len(bad) / len(found) if found else 0.0,
        "prepared_videos": by_split,
        "items": entries,
    }


def _print_summary(report, path):
    videos, frames = report["videos"], report["frames"]
    print(
        f"{videos['prepared']} of {videos['found']} videos prepared, "
        f"{frames['kept']} of {frames['sampled']} sampled frames kept ({frames['kept_fraction']:.2%})"
    )
    for split, classes in report["prepared_videos"].items():
        print(f"  {split}: {classes['real']} real, {classes['fake']} fake")
    for code, count in report["counts"].items():
        example = next(entry for entry in report["items"] if entry["code"] == code)
        print(f"  {code}: {count}, first {example['path']}: {example['detail']}")
    print(f"report: {path}")


def _parse(argv):
    names = lambda text: tuple(name for name in text.split(",") if name)
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.prepare", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    parser.add_argument("--layout", required=True, choices=tuple(downloads.LAYOUTS), help="how the folder is laid out")
    parser.add_argument("--root", required=True, help="folder of the download")
    parser.add_argument("--out", help="where crops go (default: the root)")
    parser.add_argument("--compression", default="c23", choices=downloads.COMPRESSIONS)
    parser.add_argument("--methods", type=names, help="comma-separated method folders (default: all there are)")
    parser.add_argument("--splits", type=names, default=downloads.SPLITS, help="comma-separated (default: all three)")
    parser.add_argument("--num_frames", type=_positive, default=32, help="frames sampled evenly from a video")
    parser.add_argument("--size", type=_positive, default=256, help="side of the crop in pixels")
    parser.add_argument("--preset", default="dfb", choices=tuple(align.PRESETS), help="alignment")
    parser.add_argument(
        "--landmarks",
        default="mediapipe",
        choices=extract.LANDMARK_SOURCES,
        help="mediapipe: detect; sidecar: <video>.landmarks.npy beside each video, no model files needed",
    )
    parser.add_argument("--mask_root", help="where manipulated_sequences/*/masks/videos are (default: the root)")
    parser.add_argument("--workers", type=_positive, default=os.cpu_count(), help="processes")
    parser.add_argument("--allow_missing", action="store_true", help="go on where listed videos are absent")
    parser.add_argument("--overwrite", action="store_true", help="redo everything, also what other tools made")
    parser.add_argument("--max_bad_fraction", type=float, default=0.01, help="share of videos that may give nothing")
    return parser.parse_args(argv)


def _positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def main(argv=None):
    """The command; returns its exit code."""
    flags = vars(_parse(argv))
    limit, flags["landmark_source"] = flags.pop("max_bad_fraction"), flags.pop("landmarks")
    out = pathlib.Path(flags["out"] or flags["root"])
    try:
        report = run(**flags)
    except (downloads.DownloadError, PrepareError, fetch.ModelFileError, ImportError) as error:
        return _fail(error)
    except OSError as error:
        reason = f"{error.strerror or error} ({error.filename or out})"
        return _fail(f"cannot write: {reason}; finished videos stay, run the same command to go on")
    except KeyboardInterrupt:
        return _fail("stopped; finished videos stay, run the same command to go on", 130)
    _print_summary(report, out / "report.json")
    if report["videos"]["prepared"] == 0:
        return _fail(f"not one video could be prepared; {out / 'report.json'} says why")
    if report["bad_fraction"] > limit:
        bad, found = report["videos"]["bad"], report["videos"]["found"]
        return _fail(
            f"{bad} of {found} videos are bad, more than --max_bad_fraction={limit:g} allows; "
            f"{out / 'report.json'} says why"
        )
    return 0


def _fail(message, code=1):
    print(f"error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
