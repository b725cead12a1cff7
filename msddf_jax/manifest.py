"""The manifest of a scoring run: what went in, with digests, and what came out, so that a replay can tell what changed.

A manifest is one JSON file in one form only, `canonical`, with the SHA-256 of itself in it: a changed byte is found,
be it white space. That finds accidents and wrong files; whoever writes a false manifest can write its digest too.
Digests are of the files as they are when `make` is called: nothing may change them while a run goes on.
"""

import concurrent.futures
import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform

import jax

from msddf_jax import checkpoint, inference
from msddf_jax.faces import extract, fetch
from msddf_jax.opencv import cv2
from msddf_jax.statistics import novelty, verdict
from msddf_jax.weights import hub

FORMAT, VERSION = "msddf_jax run manifest", 1
# Fields of a record that are paths of images.
PICTURES = ("timeline", "overlays")
# Beside the weights, where there: what turns scores into verdicts, and what says how unlike the training faces one is.
OPTIONAL = (verdict.FILE, novelty.FILE)
# Errors of files that nobody opened: no landmarks were read for them, and no face model.
_NOT_OPENED = ("not_found", "unknown_extension", "empty_folder")
# Variables that change how products are rounded.
_ENVIRONMENT = ("XLA_FLAGS", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_ENABLE_X64", "NVIDIA_TF32_OVERRIDE")


def make(model, workdir, files, records, settings, argv) -> dict:
    """The manifest of a run, with absolute paths and no digest of its own yet: `write` adds that.

    Args:
      model: `inference.Inference` of `workdir`. files: paths that were scored, as `find.find_files` gave them, one
        a record. records: what `predict.predict_files` returned. settings: JSON object of all that changes scores and
        is not in the config: landmarks ("mediapipe" or "sidecar"), faces, aggregate, num_frames, batch_size. argv:
        the command line's arguments.

    Returns:
      dict: format, format_version, time (UTC), argv, settings, config, step and origin of the weights, versions,
      platform, workdir, records (without `PICTURES`), files: a list of {role (input, landmarks, workdir, base weights,
      face model), path, size in bytes, sha256}; {role, path, state} of what was no readable file ("missing", "not a
      file", "unreadable"): a replay must not find one there. A face model has its name in `fetch.MODELS` too.

    Raises:
      ValueError: files and records that do not belong together, unknown landmarks. FileNotFoundError: the checkpoint is
      no longer there. fetch.ModelFileError: a face model is no longer there.
    """
    named = [record["file"] for record in records]
    if [str(file) for file in files] != named:
        raise ValueError(f"expected one file a record, in order: {len(named)} records, and files {list(files)[:3]}...")
    if settings.get("landmarks") not in extract.LANDMARK_SOURCES:
        raise ValueError(f"settings.landmarks is {settings.get('landmarks')!r}, allowed: {extract.LANDMARK_SOURCES}")
    codes = [record.get("error", {}).get("code") for record in records]
    opened = [file for file, code in zip(files, codes) if code not in _NOT_OPENED]
    sidecars = [extract.sidecar_path(file) for file in opened] if settings["landmarks"] == "sidecar" else []
    workdir = pathlib.Path(os.path.abspath(workdir))
    read = ["config.json", *checkpoint.weight_files(workdir, model.step, model.origin), *OPTIONAL]
    wanted = [
        *({"role": "input", "path": path} for path in files),
        *({"role": "landmarks", "path": path} for path in dict.fromkeys(sidecars)),
        *({"role": "workdir", "path": workdir / path} for path in read),
        *({"role": "base weights", "path": path} for path in dict.fromkeys((model.base_files or {}).values())),
    ]
    if opened and settings["landmarks"] == "mediapipe":
        wanted += [{"role": "face model", "name": name, "path": fetch.model_file(name)} for name in fetch.MODELS]
    wanted = [{**entry, "path": os.path.abspath(entry["path"])} for entry in wanted]
    return {
        "format": FORMAT,
        "format_version": VERSION,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "argv": list(argv),
        "settings": dict(settings),
        "config": json.loads(model.config.to_json_best_effort()),
        "step": model.step,
        "origin": model.origin,
        "versions": _versions(),
        "platform": _platform(),
        "workdir": str(workdir),
        "files": [entry | now for entry, now in zip(wanted, _measure_all([entry["path"] for entry in wanted]))],
        "records": [{k: v for k, v in record.items() if k not in PICTURES} for record in records],
    }


def write(path, manifest) -> None:
    """Write a manifest of `make` with its digest; paths below the folder of `path` become relative to it."""
    folder = os.path.dirname(os.path.abspath(path))
    files = [{**entry, "path": _relative(entry["path"], folder)} for entry in manifest["files"]]
    manifest = {**manifest, "files": files, "workdir": _relative(manifest["workdir"], folder)}
    checkpoint.write_bytes(path, canonical({**manifest, "digest": digest(manifest)}))


def read(path) -> dict:
    """The manifest in a file, with paths as they stand there.

    Raises ValueError where the file cannot be read, is no manifest, or differs by a byte from what `write` wrote.
    """
    help_text = "--replay takes the file that `python -m msddf_jax.predict --manifest` wrote, as it was written"
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}; {help_text}") from error
    try:
        manifest = json.loads(data)
        expected = canonical(manifest)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON, or damaged ({error}); {help_text}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError(f"{path} has no format {FORMAT!r}: it is another file, or damaged; {help_text}")
    if manifest.get("format_version") != VERSION:
        raise ValueError(
            f"{path} has format_version {manifest.get('format_version')!r}, this version reads {VERSION}; {help_text}"
        )
    if data != expected:
        pairs = zip(data.split(b"\n"), expected.split(b"\n"))
        line = next((i for i, (a, b) in enumerate(pairs, 1) if a != b), "the last")
        raise ValueError(f"{path} was changed after it was written: line {line} is not in its one form; {help_text}")
    if problem := _digest_problem(manifest):
        raise ValueError(f"{path} was changed after it was written: {problem}; {help_text}")
    return manifest


def canonical(manifest) -> bytes:
    """The one form of a manifest: JSON in ASCII, sorted keys, two spaces a level, the shortest digits that give a
    float64 back bit for bit, a line feed at the end. Raises ValueError for NaN and infinity."""
    return (json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n").encode("ascii")


def digest(manifest) -> str:
    """SHA-256 of the canonical form without the field "digest"."""
    return hashlib.sha256(canonical({k: v for k, v in manifest.items() if k != "digest"})).hexdigest()


def replay_inputs(manifest, folder) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """(workdir, files to score in order) of a manifest that lies in `folder`: what a replay takes."""
    inputs = [entry["path"] for entry in manifest["files"] if entry["role"] == "input"]
    return pathlib.Path(folder, manifest["workdir"]), [pathlib.Path(folder, path) for path in inputs]


def check(manifest, folder) -> list[str]:
    """One line for each file that is not what the run read, and for a changed manifest; [] where all is the same.

    manifest: of `read`. folder: where it lies. Face models are checked where a replay would take them from.
    """
    problem = _digest_problem(manifest)
    problems = [f"the manifest was changed: {problem}"] if problem else []
    entries, places = [], []
    for entry in manifest["files"]:
        try:
            place = fetch.model_file(entry["name"]) if "name" in entry else os.path.join(folder, entry["path"])
        except (fetch.ModelFileError, ValueError) as error:
            problems.append(f"face model {entry['name']}: {error}")
        else:
            entries.append(entry)
            places.append(place)
    lines = map(_file_problem, entries, places, _measure_all(places))
    return problems + [line for line in lines if line]


def notes(manifest) -> list[str]:
    """One line for each version, device or setting of the platform that is another: no fault, but a reason for other
    digits, as is a source tree that the commit does not tell."""
    lines = []
    for then, now in ((manifest["versions"], _versions()), (manifest["platform"], _platform())):
        for name in sorted({*then, *now}):
            if then.get(name) != now.get(name):
                lines.append(f"{name} was {then.get(name)}, is {now.get(name)}: digits may differ by it")
    commits = {"at the run": manifest["versions"].get("commit"), "now": checkpoint.source_commit()}
    for when, commit in commits.items():
        if commit is None or commit.endswith("-dirty"):
            lines.append(f"the commit {when} is {commit}: it does not tell the source files, digits may differ by them")
    return lines


def compare(old_records, new_records) -> list[str]:
    """One line for each field that is not the same, numbers bit for bit: the file, the field, the old and new value.

    old_records: of a manifest. new_records: what `predict.predict_files` gave for its `replay_inputs`, in order: the
    folder of a file may be another, its name may not. Images are left out.
    """
    lines = []
    if len(old_records) != len(new_records):
        lines.append(f"{len(old_records)} files in the manifest, {len(new_records)} now")
    for old, new in zip(old_records, new_records):
        name = old["file"]
        if os.path.basename(name) != os.path.basename(new["file"]):
            lines.append(f"{name}: in its place is {new['file']} now")
            continue
        before, after = _leaves(old), _leaves(new)
        for field in dict.fromkeys([*before, *after]):
            was, now = before.get(field, "absent"), after.get(field, "absent")
            if was != now:
                lines.append(f"{name}: {field} was {was}, is {now}")
    return lines


def _leaves(record):
    """{"faces[0].score": JSON text}, without the file and its images; the text of two numbers is the same only where
    all bits are."""
    flat = {}

    def walk(name, value):
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(f"{name}.{key}" if name else key, item)
        elif isinstance(value, list | tuple) and value:
            for i, item in enumerate(value):
                walk(f"{name}[{i}]", item)
        else:
            flat[name] = json.dumps(value)

    walk("", {k: v for k, v in record.items() if k not in ("file", *PICTURES)})
    return flat


def _digest_problem(manifest):
    found = digest(manifest)
    return "" if manifest.get("digest") == found else f"its digest is {manifest.get('digest')}, its content's {found}"


def _measure_all(places):
    """What `_measure` says of each; hashing leaves Python's lock, so threads do it."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(_measure, places))


def _measure(path):
    """{"size", "sha256"}, or {"state"} of what is no file that can be read."""
    if not os.path.isfile(path):
        return {"state": "not a file" if os.path.exists(path) else "missing"}
    try:
        return {"size": os.path.getsize(path), "sha256": hub.sha256(path)}
    except OSError:
        return {"state": "unreadable"}


def _file_problem(entry, place, now):
    """What is not the same of one file, or ""."""
    what = f"{place} ({entry['role']})"
    if "state" in entry and "state" in now:
        return "" if entry["state"] == now["state"] else f"{what}: was {entry['state']}, is {now['state']}"
    if "state" in entry:
        return f"{what}: was {entry['state']} at the run, is a file of {now['size']} bytes now; take it away"
    if "state" in now:
        was = f"{entry['size']} bytes with SHA-256 {entry['sha256']}"
        return (
            f"{what}: {now['state']}, was {was}; put it back. Paths below the manifest's folder are relative to it: to "
            "replay elsewhere, move that folder as a whole"
        )
    if entry["size"] != now["size"]:
        return f"{what}: was {entry['size']} bytes, is {now['size']}"
    return "" if entry["sha256"] == now["sha256"] else f"{what}: SHA-256 was {entry['sha256']}, is {now['sha256']}"


def _relative(path, folder):
    return os.path.relpath(path, folder) if os.path.commonpath([path, folder]) == folder else path


def _versions():
    names = ("av", "mediapipe", "pillow", "simplejpeg")
    own = {name: importlib.metadata.version(name) for name in names}
    return {**checkpoint.versions(), "python": platform.python_version(), "opencv": cv2.__version__, **own}


def _platform():
    """What `checkpoint.versions` leaves out: it has the kind of device."""
    return {
        "backend": jax.default_backend(),
        "system": platform.system(),
        "cpu": inference.instruction_set(),
        **{name: os.environ.get(name) for name in _ENVIRONMENT},
    }
