"""Scores every example of a set once, then computes the metrics on the host: pooled, by method, by compression."""

import collections
import csv
import pathlib

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from msddf_jax.data import methods, schema
from msddf_jax.statistics import intervals, metrics

# Batches dispatched ahead of the one whose scores are fetched: the device stays busy, its memory bounded.
_IN_FLIGHT = 2


def collect_scores(
    predict_fn, weights, batches, put, *, desc="evaluate", on_maps=None, on_features=None
) -> dict[str, np.ndarray]:
    """Runs the model over an evaluation set and keeps one row an example, padding left out.

    Every process must have as many batches as the others; each sees its own rows, all return the rows of all.

    Args:
      predict_fn: (weights, device batch) -> dict with `score` float [B], P(fake), rows in the batch's order.
      weights: for `predict_fn`.
      batches: iterable of host batches (`data.schema`), with the host fields dataset, compression, video_id,
        frame_index and source_path.
      put: host batch -> device batch, split over its first axis as `sharding.put_batch` does.
      desc: text of the progress bar.
      on_maps: called as (maps float32 [B, g, g], host batch) with this process's rows of `map`, batch by batch, where
        predict_fn gives one; maps are not kept.
      on_features: the same with `feature`, float32 [B, d]; the host batch then has a group_id.

    Returns:
      dict of arrays [N], in the order of batches, within them of processes: score float32, label int32, method int32
      (index into `methods.METHODS`), frame_index int32, video_key (strings, `<data
      set>/<compression>/<method>/<video>`), compression (strings), file (str objects, the record's source_path).

    Raises:
      ValueError: no example at all; a score that is not finite (naming the video and frame); predict_fn gave
        another number of scores than the batch has rows. KeyError: a batch lacks a field.
    """
    rows = {name: [] for name in ("score", "label", "method", "frame_index", "video", "folder", "file", "batch")}
    numbers, waiting = {"video": {}, "folder": {}, "file": {}}, collections.deque()

    def fetch():
        out, sharding, batch = waiting.popleft()
        score, host = _local_rows(out["score"], sharding), _host_rows(batch, numbers)
        keep = host.pop("_mask")
        if score.shape != keep.shape:
            raise ValueError(f"predict_fn gave scores {score.shape} for a batch with {keep.shape} rows")
        host["batch"] = np.full(len(keep), len(rows["batch"]), np.int32)
        for name, values in {"score": score.astype(np.float32), **host}.items():
            rows[name].append(values[keep])
        if "map" in out:
            on_maps(_local_rows(out["map"], sharding), batch)
        if "feature" in out:
            on_features(_local_rows(out["feature"], sharding), batch)

    bar = tqdm(batches, desc=desc, unit="batch", disable=jax.process_index() != 0)
    wanted = ("score", *(["map"] if on_maps else []), *(["feature"] if on_features else []))
    # Of a batch only what is read after the device: the images of those in flight would be memory for nothing.
    kept = (*_HOST_ROWS, *(["mask", "has_mask"] if on_maps else []), *(["group_id"] if on_features else []))
    for batch in bar:
        device = put(batch)
        out = predict_fn(weights, device)
        out = {name: out[name] for name in wanted if name in out}
        waiting.append((out, jax.tree.leaves(device)[0].sharding, {name: batch[name] for name in kept}))
        if len(waiting) > _IN_FLIGHT:
            fetch()
    while waiting:
        fetch()
    scores = _joined(rows, numbers)
    scores = _gather(scores) if jax.process_count() > 1 else scores
    # A process has a part of every batch: whatever their number, the rows stand in the order of the set.
    order = np.argsort(scores.pop("batch"), kind="stable")
    scores = {name: values[order] for name, values in scores.items()}
    scores["compression"] = _compressions(scores["video_key"])
    if scores["score"].size == 0:
        raise ValueError(f"{desc}: the set has no examples; check its split and methods")
    bad = np.flatnonzero(~np.isfinite(scores["score"]))
    if bad.size:
        i = bad[0]
        raise ValueError(
            f"{desc}: the score of {scores['video_key'][i]} frame {scores['frame_index'][i]} is "
            f"{scores['score'][i]} ({bad.size} of {scores['score'].size} are not finite)"
        )
    return scores


def set_metrics(name, scores, *, aggregate="mean", calibration=None, dfb_compat=False) -> dict[str, float]:
    """The metrics of one set: pooled, by method, and by compression where there are several.

    Args:
      name: of the set, the first part of every key.
      scores: what `collect_scores` returns; score, label, method and video_key are used, compression where it is.
      aggregate, calibration: as `metrics.detection_metrics`.
      dfb_compat: also the figures of `metrics.dfb_metrics`, of the whole set.

    Returns:
      {"<name>/<level>_<metric>": float, "<name>/<group>/<level>_<metric>": float} with the names of
      `metrics.detection_metrics`. A group is a method (its fakes against all reals of the set) or a compression (its
      reals and fakes). Without fakes there is no method; without reals theirs are NaN, with a warning. With
      dfb_compat also "<name>/dfb_compat/<level>_<metric>".

    Raises:
      ValueError: a fake whose method is "real", a real with another, and what `detection_metrics` raises.
    """
    score, label, keys = (np.asarray(scores[k]) for k in ("score", "label", "video_key"))
    result = {}
    for where, keep in set_groups(name, scores).items():
        values = metrics.detection_metrics(
            score[keep], label[keep], keys[keep], name=where, aggregate=aggregate, calibration=calibration
        )
        result |= {f"{where}/{metric}": value for metric, value in values.items()}
    if dfb_compat:
        values = metrics.dfb_metrics(score, label, keys, name=f"{name}/dfb_compat")
        result |= {f"{name}/dfb_compat/{metric}": value for metric, value in values.items()}
    return result


def set_intervals(
    name, scores, *, aggregate="mean", calibration=None, resamples=intervals.RESAMPLES, seed=0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the figures of `set_metrics`, by bootstrap over videos (`intervals.bootstrap_intervals`).

    Args: as `set_metrics`; resamples, seed: as `bootstrap_intervals`.

    Returns:
      {key: (low, high)} with the keys of `set_metrics`, but for the numbers of examples and dfb_compat's.
    """
    score, label, keys = (np.asarray(scores[k]) for k in ("score", "label", "video_key"))
    result, whole = {}, None
    for where, keep in set_groups(name, scores).items():
        # The one method of a set is the set: the same figures, drawn once.
        if whole is None or not keep.all():
            values = intervals.bootstrap_intervals(
                score[keep],
                label[keep],
                keys[keep],
                aggregate=aggregate,
                calibration=calibration,
                resamples=resamples,
                seed=seed,
            )
        else:
            values = whole
        whole = values if whole is None else whole
        result |= {f"{where}/{metric}": interval for metric, interval in values.items()}
    return result


def set_groups(name, scores) -> dict[str, np.ndarray]:
    """{"<name>": rows, "<name>/<method>": rows, "<name>/<compression>": rows}, each bool [N]; see `set_metrics`."""
    label, method, keys = (np.asarray(scores[k]) for k in ("label", "method", "video_key"))
    wrong = np.flatnonzero((label == 1) == (method == methods.METHODS.index("real")))
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"{name}: {keys[i]} has label {schema.LABELS[label[i]]} and method {methods.METHODS[method[i]]}; "
            "a real has the method real, a fake another"
        )
    groups = {name: np.ones(len(label), bool)}
    for index in np.unique(method[label == 1]):
        groups[f"{name}/{methods.METHODS[index]}"] = (method == index) | (label == 0)
    compression = np.asarray(scores.get("compression", np.full(len(label), "")))
    values = np.unique(compression)
    if values.size > 1:
        groups |= {f"{name}/{value}": compression == value for value in values}
    return groups


def write_scores(path, scores) -> None:
    """Writes one line a frame: video_key, method (index into `methods.METHODS`), frame_index, label, score, file."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        writer.writerows(zip(*(scores[name] for name in _COLUMNS), strict=True))


def read_scores(path) -> dict[str, np.ndarray]:
    """What `write_scores` wrote, as `collect_scores` returns it, the scores to the bit.

    Raises:
      FileNotFoundError: no such file, with the command that writes it. ValueError: other columns, or no row.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no scores at {path}; write them: python -m msddf_jax.evaluate --workdir DIR")
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header, rows = next(reader, []), list(reader)
    if tuple(header) != _COLUMNS or not rows:
        raise ValueError(
            f"{path} has the columns {header} and {len(rows)} rows, expected {list(_COLUMNS)} and some; "
            "evaluate the workdir again"
        )
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    scores = {name: np.array(columns[name], np.int32) for name in ("method", "frame_index", "label")}
    scores |= {"score": np.array(columns["score"], np.float32), "video_key": np.array(columns["video_key"])}
    scores["file"] = np.array(columns["file"], object)
    return scores | {"compression": _compressions(scores["video_key"])}


_COLUMNS = ("video_key", "method", "frame_index", "label", "score", "file")
# Fields of a host batch that give a row of the scores.
_HOST_ROWS = ("_mask", "label", "method", "frame_index", "dataset", "compression", "video_id", "source_path")


def _host_rows(batch, numbers):
    """What is kept of a batch on the host, one entry a row. numbers: {"video", "folder", "file": {text: number}}.

    A number a frame and a text once: texts for every frame would be most of the memory.
    """
    method = np.asarray(batch["method"], np.int32)
    videos = zip(batch["dataset"], batch["compression"], method.tolist(), batch["video_id"], strict=True)
    paths = [str(path).rpartition("/") for path in batch["source_path"]]
    texts = {"video": videos, "folder": (a + slash for a, slash, _ in paths), "file": (name for *_, name in paths)}
    counted = {
        name: np.array([numbers[name].setdefault(text, len(numbers[name])) for text in values], np.int32)
        for name, values in texts.items()
    }
    return {
        "_mask": np.asarray(batch["_mask"], bool),
        "label": np.asarray(batch["label"], np.int32),
        "method": method,
        "frame_index": np.asarray(batch["frame_index"], np.int32),
        **counted,
    }


def _joined(rows, numbers):
    """The rows of all batches of this process as arrays, with texts in place of their numbers."""
    rows = {name: np.concatenate(values) if values else np.zeros(0, np.int32) for name, values in rows.items()}
    keys = [
        f"{dataset}/{compression}/{methods.METHODS[m]}/{name}" for dataset, compression, m, name in numbers["video"]
    ]
    folder, name = (np.array(list(numbers[part]), object)[rows.pop(part)] for part in ("folder", "file"))
    video = rows.pop("video")
    return {**rows, "video_key": np.array(keys)[video] if keys else np.zeros(0, "U1"), "file": folder + name}


def _compressions(keys):
    """The compression in each key [N]."""
    names, which = np.unique(keys, return_inverse=True)
    return np.array([key.split("/")[1] for key in names.tolist()] or [""])[which]


def _local_rows(score, sharding):
    """This process's rows of a global array [B], in order. `sharding`: of the batch behind them."""
    if score.is_fully_addressable:
        return np.asarray(jax.device_get(score))
    # The compiler may have replicated the scores; split as the batch was, each process holds its own rows
    # again.
    score = jax.jit(lambda x: x, out_shardings=sharding)(score)
    shards = {shard.index[0].start or 0: shard.data for shard in score.addressable_shards}
    return np.concatenate([np.asarray(jax.device_get(shards[start])) for start in sorted(shards)])


def _gather(local):
    """The rows of all processes, on every process."""
    dtypes = {"score": np.float32, "label": np.int32, "method": np.int32, "frame_index": np.int32, "batch": np.int32}
    texts = {name: _as_bytes(local[name]) for name in ("video_key", "file")}
    rows = gather_rows(texts | {name: local[name].astype(dtype) for name, dtype in dtypes.items()})
    for name, kind in (("video_key", None), ("file", object)):
        rows[name] = np.array([row.tobytes().rstrip(b"\0").decode() for row in rows[name]], kind)
    return rows


def _as_bytes(texts):
    """uint8 [M, width], UTF-8 with zeros at the end; width: of the longest text of any process."""
    encoded = [text.encode() for text in texts]
    width = np.int32(max(map(len, encoded), default=0))
    width = int(np.max(multihost_utils.process_allgather(width)))
    out = np.zeros((len(encoded), max(width, 1)), np.uint8)
    for row, text in zip(out, encoded, strict=True):
        row[: len(text)] = np.frombuffer(text, np.uint8)
    return out


def gather_rows(local) -> dict[str, np.ndarray]:
    """The rows of all processes, on every process, in their order.

    local: {name: array [M, ...]} of this process's rows, 32 bits at most a number; M may differ between processes.
    """
    count = np.int32(len(next(iter(local.values()))))
    counts = np.asarray(multihost_utils.process_allgather(count))  # [processes]
    longest = int(counts.max())
    pad = lambda value: np.concatenate([value, np.zeros((longest - len(value), *value.shape[1:]), value.dtype)])
    gathered = multihost_utils.process_allgather({name: pad(value) for name, value in local.items()})
    valid = np.arange(longest) < counts[:, None]
    return {name: np.asarray(value)[valid] for name, value in gathered.items()}
