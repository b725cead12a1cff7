"""The scores behind the tables of the documents, in one file, and where each run comes from.

docs/results/scores/scores.csv.xz is CSV, compressed by LZMA; docs/results/scores/README.md describes its columns.
runs.json beside it has a record for each run, and the starts that benchmarks/real.py has noted. Items and videos are
named by hashes, so that no file name of a data set is in it. `benchmarks.tables` is the command.
"""

import csv
import datetime
import hashlib
import io
import json
import lzma
import pathlib
from typing import NamedTuple

import numpy as np

from msddf_jax import checkpoint
from msddf_jax.data.methods import METHODS
from msddf_jax.evaluators import detection

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "results" / "scores"
COLUMNS = ("table", "set", "eval", "item", "group", "label", "method", "row", "seed", "score")
MAX_BYTES = 5_000_000


class Run(NamedTuple):
    """What scored the items: a row of a table, and its seed."""

    table: str
    row: str
    seed: int


class Kept(NamedTuple):
    """scores: {`Run`: {eval: columns}}, as `detection.read_scores` gives them, and "item", "group" (hashes).

    records: {`Run`: dict}, where it comes from. starts: {table: [{"run", "seed", "at"}]}, runs begun, finished or not.
    """

    scores: dict
    records: dict
    starts: dict

    def of(self, table):
        """{(row, seed): {eval: columns}} of a table."""
        return {(run.row, run.seed): evals for run, evals in self.scores.items() if run.table == table}


def name_hash(*parts) -> str:
    """12 hexadecimal digits of the SHA-256 of the parts, with a line break between them.

    An item's parts are its video_key and frame_index, a group's its video_key, as `detection.write_scores` has them.
    """
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]


def hashed(scores) -> dict[str, np.ndarray]:
    """Columns of one eval with hashes in place of names, in the order of videos and, within them, of frames.

    Args:
      scores: of `detection.read_scores`.

    Returns:
      set (data set and compression), item, group, method: str [N]; label: int [N]; score: float32 [N].

    Raises:
      ValueError: an item that is there twice, or two with the same hash.
    """
    order = np.lexsort((scores["frame_index"], scores["video_key"]))
    keys, frames = scores["video_key"][order].tolist(), scores["frame_index"][order].tolist()
    items = [name_hash(*pair) for pair in zip(keys, frames, strict=True)]
    if len(set(items)) < len(items):
        raise ValueError(f"{len(items) - len(set(items))} items are there twice: a frame of a video has one score")
    return {
        "set": np.array(["/".join(key.split("/")[:2]) for key in keys]),
        "item": np.array(items),
        "group": np.array([name_hash(key) for key in keys]),
        "label": scores["label"][order],
        "method": np.array(METHODS)[scores["method"][order]],
        "score": scores["score"][order],
    }


def named(columns) -> dict[str, np.ndarray]:
    """The columns of one eval as `detection.read_scores` gives them: what the statistics of the package take.

    A video's key has its place in front of its hash: in this order a bootstrap draws the videos that it drew for the
    names. Takes what `hashed` returns, in its order.
    """
    first = np.unique(columns["group"], return_index=True)[1]
    place = {columns["group"][i]: f"{rank:06d}" for rank, i in enumerate(np.sort(first).tolist())}
    parts = zip(columns["set"], columns["method"], columns["group"], strict=True)
    frames, seen = [], {}
    for group in columns["group"].tolist():
        seen[group] = seen.get(group, -1) + 1
        frames.append(seen[group])
    return {
        "score": np.asarray(columns["score"], np.float32),
        "label": np.asarray(columns["label"], np.int32),
        "method": np.array([METHODS.index(name) for name in columns["method"].tolist()], np.int32),
        "frame_index": np.array(frames, np.int32),
        "video_key": np.array([f"{where}/{method}/{place[group]}-{group}" for where, method, group in parts]),
        "compression": np.array([where.split("/")[1] for where in columns["set"].tolist()]),
        "item": columns["item"],
        "group": columns["group"],
        "set": columns["set"],
    }


def read(folder=FOLDER) -> Kept:
    """Everything that is kept; nothing where there is no file yet.

    Raises:
      ValueError: other columns than `COLUMNS`; runs without a record, or records without scores.
    """
    path = pathlib.Path(folder) / "scores.csv.xz"
    if not path.exists():
        return Kept({}, {}, {})
    found = {}
    with lzma.open(path, "rt", encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        if (header := tuple(next(lines, ()))) != COLUMNS:
            raise ValueError(f"{path} has the columns {list(header)}, expected {list(COLUMNS)}")
        for table, where, name, item, group, label, method, row, seed, score in lines:
            items, values = found.setdefault((table, name), {}).setdefault((row, seed), ([], []))
            items.append((where, item, group, label, method))
            values.append(score)
    scores = {}
    for (table, name), runs in found.items():
        shared, first = None, None
        for (row, seed), (items, values) in runs.items():
            # Rows of a table have the same items: their names are made once.
            if shared is None:
                first, columns = items, zip(("set", "item", "group", "label", "method"), zip(*items, strict=True))
                shared = {key: np.array(column) for key, column in columns} | {"score": np.zeros(len(items))}
                shared = named(shared)
            if items != first:
                raise ValueError(f"{path}: {name} of {row}, seed {seed}, has other items than the rows above it")
            columns = {**shared, "score": np.array(values, np.float32)}
            scores.setdefault(Run(table, row, int(seed)), {})[name] = columns
    kept = json.loads((path.parent / "runs.json").read_text(encoding="utf-8"))
    records = {Run(r["table"], r["row"], r["seed"]): r for r in kept["runs"]}
    if unlike := sorted(records.keys() ^ scores.keys()):
        raise ValueError(f"{path.parent}: scores.csv.xz and runs.json do not hold the same runs: {unlike[:3]}")
    return Kept(scores, records, kept["starts"])


def write(kept, folder=FOLDER) -> int:
    """Write both files; the number of bytes of the compressed one.

    Lines that differ in run alone follow one another, which is what LZMA is good at.

    Raises:
      ValueError: two runs of one table have other items, labels or videos in an eval of one name, or the file is
        larger than `MAX_BYTES`. Nothing is written then.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for table, name in sorted({(run.table, name) for run, evals in kept.scores.items() for name in evals}):
        having = [run for run in sorted(kept.scores) if run.table == table and name in kept.scores[run]]
        first = kept.scores[having[0]][name]
        for run in having[1:]:
            _check_alike(run, name, kept.scores[run][name], having[0], first)
        shared = zip(*(first[key].tolist() for key in ("set", "item", "group", "label", "method")), strict=True)
        columns = [kept.scores[run][name]["score"] for run in having]
        for i, (where, item, group, label, method) in enumerate(shared):
            front = (table, where, name, item, group, label, METHODS[method])
            writer.writerows((*front, run.row, run.seed, str(c[i])) for run, c in zip(having, columns, strict=True))
    data = lzma.compress(text.getvalue().encode(), preset=9)
    if len(data) > MAX_BYTES:
        raise ValueError(f"the scores take {len(data):,} bytes, allowed are {MAX_BYTES:,}: keep fewer runs or evals")
    runs = [kept.records[run] for run in sorted(kept.records)]
    folder = pathlib.Path(folder)
    checkpoint.write_bytes(folder / "scores.csv.xz", data)
    checkpoint.write_json(folder / "runs.json", {"runs": runs, "starts": kept.starts})
    return len(data)


def _check_alike(run, name, columns, other, first):
    if set(columns["item"].tolist()) != set(first["item"].tolist()):
        both = len(set(columns["item"].tolist()) & set(first["item"].tolist()))
        raise ValueError(
            f"{name} of {run.row}, seed {run.seed}, has {len(columns['item'])} items, that of {other.row}, seed "
            f"{other.seed}, {len(first['item'])}, and {both} are in both: rows of a table are scored on the same items"
        )
    for key in ("item", "group", "label", "method"):
        if not np.array_equal(columns[key], first[key]):
            raise ValueError(f"{name} of {run.row}, seed {run.seed}: {key} of its items is not that of {other.row}")


def read_workdir(workdir, evals=None) -> dict[str, dict[str, np.ndarray]]:
    """{eval: columns}, as `Kept` has them, of an evaluated workdir; evals: those to take, None for all.

    Raises FileNotFoundError where it was not evaluated, ValueError where it lacks one of `evals`.
    """
    files = {path.stem: path for path in sorted((pathlib.Path(workdir) / "scores").glob("*.csv"))}
    if not files:
        raise FileNotFoundError(f"no scores in {workdir}: python -m msddf_jax.evaluate --workdir {workdir}")
    if missing := sorted(set(evals or ()) - set(files)):
        raise ValueError(f"{workdir} has no scores of {', '.join(missing)}; it has {', '.join(files)}")
    return {name: named(hashed(detection.read_scores(files[name]))) for name in evals or files}


def seed_of(workdir) -> int:
    """The number that the workdir's folder is called by, or the seed of its config."""
    workdir = pathlib.Path(workdir).resolve()
    return int(workdir.name) if workdir.name.isdigit() else json.loads((workdir / "config.json").read_text())["seed"]


def record_of(run, workdir, command) -> dict:
    """Where a run comes from: what stands in runs.json."""
    workdir = pathlib.Path(workdir)
    results = workdir / "results.json"
    if not results.exists():
        raise FileNotFoundError(f"no {results}: its evaluation did not end; start it again")
    config, about = json.loads((workdir / "config.json").read_text()), json.loads(results.read_text())["_about"]
    trained = workdir / "versions.json"
    # Of what was converted there is less than of what was trained.
    versions = about["versions"] | (json.loads(trained.read_text()) if trained.exists() else {})
    return {
        **run._asdict(),
        "config_sha256": digest(config),
        "steps": config.get("steps"),
        "step": about["step"],
        "aggregate": about["aggregate"],
        "commit": versions.get("commit"),
        "scored_commit": about["versions"].get("commit"),
        "jaxlib": versions["jaxlib"],
        "device": versions["device"],
        "command": command,
        "date": datetime.datetime.fromtimestamp(results.stat().st_mtime, datetime.UTC).strftime("%Y-%m-%d"),
    }


def digest(config) -> str:
    """SHA-256 of a config (as config.json has it) without where its data and weights lie; weights keep their digest."""

    def placeless(value, key=""):
        if isinstance(value, dict):
            return {name: placeless(item, name) for name, item in value.items()}
        if key == "data_dir":
            return ""
        return "#" + value.partition("#")[2] if isinstance(value, str) and "#sha256=" in value else value

    return hashlib.sha256(json.dumps(placeless(config), sort_keys=True).encode()).hexdigest()


def read_starts(workdirs) -> list[dict]:
    """The lines of the starts.jsonl two folders above each workdir, where there is one (`benchmarks.real`)."""
    files = sorted({pathlib.Path(workdir).resolve().parents[1] / "starts.jsonl" for workdir in workdirs})
    lines = [line for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in dict.fromkeys(lines)]
