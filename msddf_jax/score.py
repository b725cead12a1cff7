"""Score a list of files, however long: `python -m msddf_jax.score --workdir DIR --list FILES.txt --out DIR`.

The list has a path a line, or is a CSV with a column "file" and, where it is known, "label" (real or fake, 0 or 1).
Results are lines of JSON as `predict` writes them, in `<out>/scores-00000-of-00123.jsonl`, a file for each
`--shard_size` lines of the list, in its order. Started again, it goes on where it was: no file is scored twice. With
`--num_processes 8 --process_id 0` (or a cluster's variables) a process does every eighth part; processes share nothing
but the folder, and another start does what one has left. `--workers` read videos beside the process that scores; one
that a file kills, or that takes longer than `--timeout`, costs that file alone.

Where the list has labels, the start that finds every part there writes `<out>/results.json`.
"""

import csv
import hashlib
import json
import multiprocessing.connection
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
from absl import app, flags
from tqdm import tqdm

from msddf_jax import checkpoint, command, inference, predict
from msddf_jax.data import schema
from msddf_jax.faces import detect, extract, fetch, reading
from msddf_jax.faces import landmarks as face_landmarks
from msddf_jax.show import records
from msddf_jax.statistics import metrics, novelty, scores, verdict

# A file that ends the process which reads it gets so many tries: the first may have been the system's fault.
_TRIES = 2


class Job(NamedTuple):
    """What a list is scored with.

    model: `inference.Inference`. extraction: keywords of `reading.extract_all`'s settings, without the face models.
    calibration, fitted, aggregate: as of `predict.predict_files`. batch_size: faces at once. workers: that read files.
    timeout: seconds that a file may take.
    """

    model: Any
    extraction: dict
    calibration: dict | None
    fitted: dict | None
    aggregate: str
    batch_size: int
    workers: int
    timeout: float


def read_list(path) -> tuple[list[str], np.ndarray | None]:
    """(paths, labels int32 [N] of 0 and 1 or None) of a list.

    Raises ValueError: an empty list, a CSV without the column "file", a label that is none, with the line's number.
    """
    with open(path, newline="", encoding="utf-8") as file:
        first = file.readline()
        columns = [name.strip() for name in first.strip().split(",")]
        file.seek(0)
        if "file" not in columns:
            files = [line.rstrip("\r\n") for line in file]
            files = [line for line in files if line]
            labels = None
        else:
            rows = list(csv.DictReader(file, skipinitialspace=True))
            files = [row["file"] for row in rows]
            labels = [_label(path, number, row) for number, row in enumerate(rows, 2)] if "label" in columns else None
    if not files:
        raise ValueError(f"{path} names no file")
    return files, None if labels is None else np.array(labels, np.int32)


def _label(path, number, row):
    text = (row["label"] or "").strip().lower()
    if text not in ("0", "1", *schema.LABELS):
        raise ValueError(f"{path}, line {number}: label {row['label']!r}, expected real or fake, 0 or 1")
    return int(text) if text in ("0", "1") else schema.LABELS.index(text)


def score_list(job, files, out, *, shard_size=1000, process_index=0, process_count=1) -> int:
    """Scores this process's parts of a list, those that are not there yet.

    Args:
      job: Job. files: paths. out: folder. shard_size: files a part. process_index, process_count: of this process.

    Returns:
      number of files that this call has scored, or found an error in.

    Raises:
      ValueError: the folder is of another list, model or settings. OSError: it cannot be written.
    """
    out = pathlib.Path(out)
    _check_same(job, files, out, shard_size)
    count, done = -(-len(files) // shard_size), 0
    mine = [s for s in range(process_index, count, process_count) if not _part(out, s, count).exists()]
    total = sum(min(shard_size, len(files) - s * shard_size) for s in mine)
    readers = []
    if mine and job.extraction["landmarks"] == "mediapipe":
        # Fetched, or found wanting, once and here: not by every process that reads.
        detect.make_detector()
        face_landmarks.make_landmarker()
    try:
        with tqdm(total=total, desc="score", unit="file") as bar:
            for shard in mine:
                readers = readers or [reading.Reader(job.extraction) for _ in range(job.workers)]
                start = shard * shard_size
                done += _score_part(
                    job, files[start : start + shard_size], start, _part(out, shard, count), readers, bar
                )
    finally:
        for reader in readers:
            reader.close()
    return done


def _part(out, shard, count):
    return out / f"scores-{shard:05d}-of-{count:05d}.jsonl"


def _check_same(job, files, out, shard_size):
    """Parts of two lists or models in one folder would be one wrong result."""
    digest = hashlib.sha256("\n".join(files).encode()).hexdigest()
    about = {"files": len(files), "list_sha256": digest, "shard_size": shard_size, "aggregate": job.aggregate}
    about |= {"step": job.model.step, "weights": job.model.origin, "extraction": job.extraction}
    about |= {"config_sha256": hashlib.sha256(job.model.config.to_json_best_effort().encode()).hexdigest()}
    path = out / "about.json"
    if not path.exists():
        checkpoint.write_json(path, about)
        return
    before = json.loads(path.read_text())
    differ = [
        f"{name}: {before.get(name)!r} then, {value!r} now"
        for name, value in about.items()
        if before.get(name) != value
    ]
    if differ:
        raise ValueError(f"{out} holds scores of something else ({'; '.join(differ)}): give another --out")


def _score_part(job, files, first, path, readers, bar):
    """Scores the files of one part that its half-written file has not yet; then puts them in order."""
    partial = path.with_name(f".{path.name}.partial")
    lines = _whole_lines(partial)
    bar.update(len(lines))
    waiting, faces = [], 0
    with open(partial, "ab") as file:

        def write(number, record):
            line = {"number": first + number, "file": files[number], **record}
            file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            file.flush()
            lines[first + number] = line
            bar.update()

        def score():
            crops = [face.image for _, item in waiting for face in item.frames]
            # Whole batches: a program of another size gives other last digits, and where a part was cut decides it.
            crops += [np.zeros_like(crops[0])] * (-len(crops) % job.batch_size) if crops else []
            outputs = inference.score_crops(job.model, crops, job.batch_size)
            for number, item in waiting:
                own, outputs = outputs[: len(item.frames)], outputs[len(item.frames) :]
                write(number, records.summarize(item, own, job.calibration, job.aggregate, job.fitted))
            waiting.clear()

        todo = [number for number in range(len(files)) if first + number not in lines]
        begun = len(todo)
        for number, item, error in _extractions(files, todo, readers, job.timeout):
            if error is not None:
                write(number, {"error": error})
                continue
            waiting.append((number, item))
            faces += len(item.frames)
            if faces >= job.batch_size:
                score()
                faces = 0
        score()
    text = "".join(json.dumps(lines[number], allow_nan=False) + "\n" for number in sorted(lines))
    checkpoint.write_bytes(path, text.encode())
    partial.unlink()
    return begun


def _extractions(files, todo, readers, timeout):
    """Yields (number, Extraction, None) or (number, None, error) for each, as they are ready."""
    todo, tries = list(reversed(todo)), {}
    while todo or any(reader.task is not None for reader in readers):
        for reader in readers:
            if reader.task is None and todo:
                number = todo.pop()
                tries[number] = tries.get(number, 0) + 1
                reader.send(number, files[number], timeout)
        busy = {reader.pipe: reader for reader in readers if reader.task is not None}
        for pipe in multiprocessing.connection.wait(list(busy), timeout=min(1.0, timeout)):
            reader = busy[pipe]
            answer = reader.receive()
            if answer is None:
                continue
            number, reader.task = reader.task, None
            item, error = answer
            if error is not None and tries[number] < _TRIES:
                todo.append(number)
            else:
                yield number, item, error
        for reader in readers:
            if reader.is_late():
                number, reader.task = reader.task, None
                yield number, None, {"code": "timeout", "message": f"not read within {timeout:g} s"}


def _whole_lines(path):
    """{number: line} of a half-written part, which is cut behind its last whole line."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return {}
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    found = (json.loads(line) for line in data[:end].splitlines())
    return {line["number"]: line for line in found}


def summarise(files, labels, out, shard_size, aggregate, calibration) -> dict | None:
    """Figures of a list with labels, also in `<out>/results.json`; None where parts are missing.

    A file is a video, or an image, with one score. What could not be scored is counted and in no figure; what got no
    answer (`records.why_unanswered`) is counted, and its score is in all of them.
    """
    out, count = pathlib.Path(out), -(-len(files) // shard_size)
    parts = [_part(out, shard, count) for shard in range(count)]
    if not all(part.exists() for part in parts):
        return None
    score, errors, unanswered = np.full(len(files), np.nan, np.float64), {}, 0
    for part in parts:
        with open(part, encoding="utf-8") as lines:
            for line in map(json.loads, lines):
                if "score" in line:
                    score[line["number"]] = line["score"]
                    unanswered += bool(records.why_unanswered(line))
                else:
                    errors[line["error"]["code"]] = errors.get(line["error"]["code"], 0) + 1
    keep = np.isfinite(score)
    keys = np.array(files, object)[keep].astype(str)
    figures = metrics.detection_metrics(
        score[keep], labels[keep], keys, name=str(out), aggregate=aggregate, calibration=calibration
    )
    results = {name.removeprefix("video_"): value for name, value in figures.items() if name.startswith("video_")}
    results |= {"files": len(files), "not_scored": int((~keep).sum()), "no_answer": unanswered, "errors": errors}
    results = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in results.items()}
    checkpoint.write_json(out / "results.json", results)
    return results


def main(argv) -> None:
    """Score a list. Exit code 1 with one line where it cannot start or go on."""
    values = flags.FLAGS
    with command.errors_in_one_line(argv, (*command.ERRORS, fetch.ModelFileError, ImportError)):
        index, count = _place(values.process_id, values.num_processes, os.environ)
        files, labels = read_list(values.list)
        cache = inference.use_compilation_cache(values.compilation_cache) or None
        model = inference.load_for_inference(values.workdir, cache)
        aggregate = values.aggregate or model.config.get("aggregate", "mean")
        scores.check_aggregate(aggregate)
        calibration = verdict.find_calibration(values.workdir, model, aggregate)
        extraction = {"size": model.config.data.image_size, "preset": model.config.data.preset}
        extraction |= {"num_frames": values.num_frames, "landmarks": values.landmarks}
        extraction["faces"] = {"all": "people", "largest": "largest"}[values.faces]
        fitted = novelty.find(values.workdir, model)
        job = Job(model, extraction, calibration, fitted, aggregate, values.batch_size, values.workers, values.timeout)
        parts = {"shard_size": values.shard_size, "process_index": index, "process_count": count}
        done = score_list(job, files, values.out, **parts)
        print(f"{done} files scored by this process; {values.out}/scores-*.jsonl")
        if labels is not None:
            results = summarise(files, labels, values.out, values.shard_size, aggregate, calibration)
            print("other parts are not there yet" if results is None else json.dumps(results, indent=1))


def _place(index, count, environ):
    """(number of this process, processes): flags, else a cluster's variables, else the only one."""
    known = lambda names: next((int(environ[name]) for name in names if name in environ), None)
    index = known(("JAX_PROCESS_ID", "SLURM_PROCID")) if index is None else index
    count = known(("JAX_NUM_PROCESSES", "SLURM_NTASKS")) if count is None else count
    if (index is None) != (count is None):
        raise ValueError(f"process_id {index} and num_processes {count}: give both or none")
    index, count = (0, 1) if index is None else (index, count)
    if not 0 <= index < count:
        raise ValueError(f"process_id is {index}, expected a number below num_processes, {count}")
    return index, count


def define_flags() -> None:
    """Defines the flags of the command; not at import, where they clash with those of other commands."""
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, required=True)
    command.define_path("list", None, "Paths, one a line, or a CSV with the column file.", required=True)
    command.define_path("out", None, "Folder for the results.", required=True)
    flags.DEFINE_integer("workers", max((os.cpu_count() or 2) - 1, 1), "Processes that read files.", lower_bound=1)
    flags.DEFINE_integer("shard_size", 1000, "Files a part.", lower_bound=1)
    flags.DEFINE_integer("num_processes", None, "Starts of this command that share the list.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Number of this one, from 0.", lower_bound=0)
    flags.DEFINE_float("timeout", 600.0, "Seconds that one file may take.", lower_bound=0.1)
    flags.DEFINE_enum("landmarks", "mediapipe", extract.LANDMARK_SOURCES, "As of predict.")
    flags.DEFINE_enum("faces", "all", ("all", "largest"), "As of predict.")
    flags.DEFINE_string("aggregate", None, "Score of a video from its frames'; the config's by default.")
    flags.DEFINE_integer("num_frames", 32, "Frames sampled evenly from a video.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 32, "Faces scored at once.", lower_bound=1)
    flags.DEFINE_string("compilation_cache", predict.COMPILATION_CACHE, "As of predict.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
