"""One entry of a catalog, a video or a sequence of images, to crops, landmarks and masks on disk."""

import collections
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np
from etils import epath

from data_prep import catalog, contents
from msddf_jax.faces import detect, extract, landmarks, scene, video
from msddf_jax.opencv import cv2

# Part of every meta file: raised when the same settings would give other files.
FORMAT_VERSION = 2
LANDMARK_SOURCES = (*landmarks.LANDMARKERS, "sidecar")
SAMPLINGS = ("even", "clips")
_FOLDERS = ("frames", "landmarks", "masks")
_FACELESS = ("no_face", "no_landmarks", "other_face")


class SettingsError(RuntimeError):
    """What is there was prepared otherwise, or its meta file cannot be read; the message is for the user."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What all entries of a job share.

    Attributes:
      out: output root, local or any that `etils.epath` writes ("gs://bucket/prepared").
      settings: dict of what the files depend on, see `make_settings`; part of every meta file.
      overwrite: whether everything is redone, also frames that another tool made.
      limits: arguments of `video.check_limits`.
      detector_file, landmark_file: model files of the user, None where none is needed.
    """

    out: str
    settings: dict
    overwrite: bool = False
    limits: dict = dataclasses.field(default_factory=dict)
    detector_file: str | None = None
    landmark_file: str | None = None


def make_settings(
    *,
    sampling="even",
    num_frames=32,
    clip_length=16,
    num_clips=4,
    size=256,
    preset="dfb",
    faces="largest",
    detector="yunet",
    landmarks="mediapipe",
):
    """What the files depend on, as a dict that JSON can hold: only what is used with these choices.

    Args:
      sampling: "even", `num_frames` evenly, or "clips", `num_clips` runs of `clip_length` consecutive frames.
      size, preset: of the crop. faces: name in `extract.FACES`. detector: name in `detect.DETECTORS`.
      landmarks: name in `LANDMARK_SOURCES`.
    """
    settings = {"version": FORMAT_VERSION, "sampling": sampling}
    even = {"num_frames": num_frames}
    settings |= even if sampling == "even" else {"clip_length": clip_length, "num_clips": num_clips}
    settings |= {"size": size, "preset": preset, "faces": faces, "landmarks": landmarks}
    return settings if landmarks == "sidecar" else settings | {"detector": detector}


def load_models(job):
    """{"detector", "landmarker"} of a job, both None for sidecar landmarks; one OpenCV thread a process.

    Raises:
      fetch.ModelFileError, ImportError: as `detect.make_detector` and `landmarks.make_landmarker`.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    if job.settings["landmarks"] == "sidecar":
        return {"detector": None, "landmarker": None}
    return {
        "detector": detect.make_detector(job.settings["detector"], file=job.detector_file),
        "landmarker": landmarks.make_landmarker(job.settings["landmarks"], file=job.landmark_file),
    }


def open_out(out):
    """The output root as a path: of pathlib where it is local, else of `etils.epath`."""
    return epath.Path(out) if is_remote(out) else pathlib.Path(out)


def is_remote(out):
    """Whether a path has a scheme, as gs://bucket/prepared has."""
    return "://" in str(out)


def prepare_entry(entry, job, detector=None, landmarker=None):
    """Prepares one entry and writes its files; to a remote root from a temporary folder, when it is done.

    Args:
      entry: `catalog.Entry`. job: `Job`. detector, landmarker: models, not needed for sidecar landmarks.

    Returns:
      dict for the report: key (`<unit>/<stem>`), path, outcome (`catalog.PREPARED` or a code), sampled, kept, faces
      (None, or with faces="all" a list of {stem, boxes}), items (dicts with code, path, detail and, of a frame,
      frame_index).

    Raises:
      OSError: a file cannot be written; what this entry had written is removed.
    """
    unit = open_out(job.out) / entry.unit
    ours = job.overwrite or any(path.exists() for path in _marks(unit, entry.stem))
    if not ours and any((unit / name / entry.stem).exists() for name in _FOLDERS):
        detail = f"{entry.unit}/frames/{entry.stem} was made by another tool: use another --out, or --overwrite"
        return _failed(entry, "foreign_frames", detail)
    try:
        extractions = _extract(entry, job, detector, landmarker)
    except (video.MediaError, scene.LandmarkFileError) as error:
        return _failed(entry, error.code, error.detail)
    if not is_remote(job.out):
        return _write_entry(pathlib.Path(job.out), entry, job.settings, extractions)
    with tempfile.TemporaryDirectory() as folder:
        result = _write_entry(pathlib.Path(folder), entry, job.settings, extractions)
        _remove(unit, entry.stem)
        _upload(pathlib.Path(folder) / entry.unit, unit)
    return result


def done_result(entry, job):
    """What `prepare_entry` returned for an entry that is done with these settings and unchanged since, else None.

    Raises:
      SettingsError: it was done with other settings, or its meta file is none.
    """
    unit = open_out(job.out) / entry.unit
    path = next((path for path in _marks(unit, entry.stem)[:2] if path.exists()), None)
    if path is None or job.overwrite:
        return None
    try:
        meta = json.loads(path.read_text())
        was, size = dict(meta["settings"]), meta["source_bytes"]
        result = meta["result"] if path.suffix == ".faces" else _result(entry, meta)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} is not a meta file of this tool ({error}): delete it, or --overwrite") from error
    changed = sorted(k for k in was.keys() | job.settings.keys() if was.get(k) != job.settings.get(k))
    if changed:
        before = ", ".join(f"{k}={was.get(k)}" for k in changed)
        now = ", ".join(f"{k}={job.settings.get(k)}" for k in changed)
        raise SettingsError(
            f"{path} was prepared with {before}, now asked for {now}: use another --out, or --overwrite"
        )
    return result if size == _source_bytes(entry) else None


def catalog_entries(entries, results):
    """The entries with what became of them; with faces="all", one a face.

    A face's stem ends in `_face<k>`, its video_id in `#<k>`, 1 the largest; its pair_id is that of the partner's face
    at the same place, "" where there is none. group_id stays that of the video.

    Args:
      entries: list of `catalog.Entry`. results: dicts of `prepare_entry`, one for each, in any order.

    Returns:
      list of Entry, {"<unit>/<stem>": outcome}.
    """
    by_key = {result["key"]: result for result in results}
    by_id = {entry.fields["video_id"]: by_key[f"{entry.unit}/{entry.stem}"] for entry in entries}
    out, outcomes = [], {}
    for entry in entries:
        result = by_key[f"{entry.unit}/{entry.stem}"]
        for number, face in enumerate(result["faces"] or (), 1):
            pair = entry.fields["pair_id"]
            partner = _same_face(face, by_id.get(pair)) if pair else 0
            fields = {
                "video_id": f"{entry.fields['video_id']}#{number}",
                "pair_id": f"{pair}#{partner}" if partner else "",
            }
            out.append(dataclasses.replace(entry, stem=face["stem"], fields=entry.fields | fields))
            outcomes[f"{entry.unit}/{face['stem']}"] = catalog.PREPARED
        if not result["faces"]:
            out.append(entry)
            outcomes[result["key"]] = result["outcome"]
    return out, outcomes


def _same_face(face, partner):
    """Number of the partner's face that overlaps this one over common frames by a half and most, 0 for none."""
    best, best_iou = 0, 0.5
    for number, other in enumerate((partner or {}).get("faces") or (), 1):
        boxes = {index: box for index, *box in other["boxes"]}
        ious = [detect.box_iou(box, boxes[index]) for index, *box in face["boxes"] if index in boxes]
        if ious and np.mean(ious) >= best_iou:
            best, best_iou = number, float(np.mean(ious))
    return best


def _extract(entry, job, detector, landmarker):
    """Extractions of one entry: one, or with faces="all" one a face."""
    settings, sidecar = job.settings, job.settings["landmarks"] == "sidecar"
    length = settings.get("clip_length")
    sample = (
        functools.partial(video.sample_clips, clip_length=length, num_clips=settings["num_clips"])
        if length
        else functools.partial(video.sample_indices, k=settings["num_frames"])
    )
    root = pathlib.Path(entry.root)
    if entry.kind == "video":
        found = scene.read_video_scene(
            root / entry.path, sample, mask_path=entry.mask, sidecar=sidecar, limits=job.limits
        )
    else:
        images = [(index, root / path) for index, path in entry.images]
        found = scene.read_image_scene(
            images, sample, masks=entry.mask, sidecar=sidecar, optional=entry.kind == "crops"
        )
    if length and 0 < len(found.frames) < length:
        detail = f"{len(found.frames)} frames, fewer than a clip of {length}; kept"
        found.drops.append(scene.Drop(-1, "too_short", detail))
    models = {"detector": detector, "landmarker": landmarker}
    if entry.kind == "crops":
        return [extract.extract_crops(found, size=settings["size"], **models)]
    options = {"preset": settings["preset"], "faces": settings["faces"], "whole_mask": entry.kind == "video"}
    return extract.extract_scene(found, size=settings["size"], **options, **models)


def _write_entry(out, entry, settings, extractions):
    """Writes the files of an entry, meta files last; returns the result."""
    unit = out / entry.unit
    separate = settings["faces"] == "all" and entry.kind != "crops"
    metas = [_meta(entry, settings, extraction) for extraction in extractions]
    started = _marks(unit, entry.stem)[2]
    try:
        started.parent.mkdir(parents=True, exist_ok=True)
        started.touch()  # tells a later run that folders without a meta file are ours to replace
        _remove(unit, entry.stem)
        if separate:
            result = _write_faces(unit, entry, metas, extractions)
        else:
            for face in extractions[0].frames:
                _write_face(face, unit, entry.stem)
            result = _result(entry, metas[0])
            _write_atomic(unit / "meta" / f"{entry.stem}.json", json.dumps(metas[0]).encode())
        started.unlink()
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            _remove(unit, entry.stem)
            started.unlink(missing_ok=True)
        raise
    return result


def _write_faces(unit, entry, metas, extractions):
    """Every track under a stem of its own; `meta/<stem>.faces`, written last, holds the result of all."""
    faces, results = [], []
    for meta, extraction in zip(metas, extractions, strict=True):
        results.append(_result(entry, meta))
        if not extraction.frames:
            continue
        stem = f"{entry.stem}_face{len(faces) + 1}"
        for face in extraction.frames:
            _write_face(face, unit, stem)
        _write_atomic(unit / "meta" / f"{stem}.json", json.dumps(meta).encode())
        faces.append({"stem": stem, "boxes": [[f["frame_index"], *f["bbox"]] for f in meta["frames"]]})
    result = results[0] | {
        "sampled": sum(result["sampled"] for result in results),
        "kept": sum(result["kept"] for result in results),
        "faces": faces,
        "items": [item for result in results for item in result["items"]],
    }
    if faces:  # a track without crops is not a video without a face
        result["outcome"] = catalog.PREPARED
        result["items"] = [item for item in result["items"] if item["code"] != "no_face_video"]
    marker = {k: metas[0][k] for k in ("video", "source_bytes", "settings")} | {"result": result}
    _write_atomic(unit / "meta" / f"{entry.stem}.faces", json.dumps(marker).encode())
    return result


def _marks(unit, stem):
    """Files that say that an entry is done (one face; all faces), or was begun."""
    return [unit / "meta" / f"{stem}.{suffix}" for suffix in ("json", "faces", "started")]


def _remove(unit, stem):
    """Delete what was written of an entry, meta files first; not the mark that it was begun."""
    for path in _marks(unit, stem)[:2]:
        path.unlink(missing_ok=True)
    count = 0
    while any(path.exists() for path in _files_of(unit, f"{stem}_face{count + 1}")):
        count += 1
    # From the last on, so that a kill in between leaves no gap in the numbers.
    for name in [*(f"{stem}_face{number}" for number in range(count, 0, -1)), stem]:
        for path in _files_of(unit, name):
            if path.is_dir():
                path.rmtree() if hasattr(path, "rmtree") else shutil.rmtree(path)
            elif name != stem:
                path.unlink(missing_ok=True)


def _files_of(unit, stem):
    return [unit / "meta" / f"{stem}.json", *(unit / name / stem for name in _FOLDERS)]


def _upload(source, target):
    """Copy a unit's files to a remote root, meta files last."""
    files = [path for path in contents.matching(source, "**/*") if path.is_file()]
    for path in sorted(files, key=lambda path: path.relative_to(source).parts[0] == "meta"):
        copy = target / path.relative_to(source).as_posix()
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())


def _failed(entry, code, detail):
    return {
        "key": f"{entry.unit}/{entry.stem}",
        "path": entry.path,
        "outcome": code,
        "sampled": 0,
        "kept": 0,
        "faces": None,
        "items": [{"code": code, "path": entry.path, "detail": detail}],
    }


def _source_bytes(entry):
    """Size of the entry's files, by which a changed one is noticed."""
    root = pathlib.Path(entry.root)
    paths = [entry.path] if entry.kind == "video" else [path for _, path in entry.images]
    return sum(os.path.getsize(root / path) for path in paths if (root / path).is_file())


def _container(info):
    """What the file says of itself; what is wrong with it is among the drops."""
    return {name: getattr(info, name) for name in ("num_frames", "width", "height", "fps")}


def _meta(entry, settings, extraction):
    frames = [
        {
            "frame_index": face.frame_index,
            "bbox": [round(float(v), 2) for v in face.bbox],
            "matrix": [[float(v) for v in row] for row in face.matrix],
            "num_faces": face.num_faces,
        }
        for face in extraction.frames
    ]
    is_video = entry.kind == "video"
    return {
        "video": entry.path,
        "source_bytes": _source_bytes(entry),
        "settings": settings,
        "container": _container(extraction.info) if is_video else None,
        "num_frames": extraction.num_decoded if is_video else len(entry.images),
        "has_mask": any(face.mask is not None for face in extraction.frames),
        "landmarks": "optional" if entry.kind == "crops" else "required",
        "frames": frames,
        "drops": [dataclasses.asdict(drop) for drop in extraction.drops],
    }


def _result(entry, meta):
    """The report's view of a meta file."""
    path, kept = entry.path, [frame["frame_index"] for frame in meta["frames"]]
    lost = {drop["frame_index"] for drop in meta["drops"]} - {-1} - set(kept)
    items = []
    for drop in meta["drops"]:
        frame = {} if drop["frame_index"] < 0 else {"frame_index": drop["frame_index"]}
        items.append({"code": drop["code"], "path": path, **frame, "detail": drop["detail"]})
    outcome = catalog.PREPARED
    if not kept:
        codes = collections.Counter(drop["code"] for drop in meta["drops"])
        faceless = not codes or any(code in codes for code in _FACELESS)
        outcome = "no_face_video" if faceless else codes.most_common(1)[0][0]
        if faceless:
            detail = f"none of the {len(lost)} sampled frames has a face with landmarks"
            items.append({"code": outcome, "path": path, "detail": detail})
    sampled = len(kept) + len(lost)
    key = f"{entry.unit}/{entry.stem}"
    head = {"key": key, "path": path, "outcome": outcome, "sampled": sampled, "kept": len(kept)}
    return head | {"faces": None, "items": items}


def _write_face(face, unit, stem):
    name = f"{face.frame_index:03d}"
    _write(unit / "frames" / stem / f"{name}.png", _png(cv2.cvtColor(face.image, cv2.COLOR_RGB2BGR)))
    if face.landmarks is not None:
        path = unit / "landmarks" / stem / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            np.save(file, landmarks.to_dlib_order(face.landmarks))
    if face.mask is not None:
        _write(unit / "masks" / stem / f"{name}.png", _png(face.mask))


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
