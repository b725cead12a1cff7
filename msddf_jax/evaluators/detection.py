"""Scores every example of a set once, then computes the metrics on the host, whole and by method."""

import collections

import jax
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from msddf_jax import metrics
from msddf_jax.data import schema

# Batches dispatched ahead of the one whose scores are fetched: the device stays busy, its memory bounded.
_IN_FLIGHT = 2


def collect_scores(predict_fn, weights, batches, put, *, desc="evaluate"):
    """Runs the model over an evaluation set and keeps one row an example, padding left out.

    Every process must have as many batches as the others; each sees its own rows, all return the rows of all.

    Args:
      predict_fn: (weights, device batch) -> dict with `score` float [B], P(fake), rows in the batch's order.
      weights: for `predict_fn`.
      batches: iterable of host batches (`data.schema`), with the host fields dataset, compression, video_id
        and frame_index.
      put: host batch -> device batch, split over its first axis as `sharding.put_batch` does.
      desc: text of the progress bar.

    Returns:
      dict of arrays [N], in the order of processes, then batches: score float32, label int32, method int32
      (index into `schema.METHODS`), frame_index int32, video_key (strings, `<data
      set>/<compression>/<method>/<video>`).

    Raises:
      ValueError: no example at all; a score that is not finite (naming the video and frame); predict_fn gave
        another number of scores than the batch has rows. KeyError: a batch lacks a field.
    """
    rows = {name: [] for name in ("score", "label", "method", "frame_index", "video_key")}
    waiting = collections.deque()

    def fetch():
        score, sharding, host = waiting.popleft()
        score, keep = _local_rows(score, sharding), host.pop("_mask")
        if score.shape != keep.shape:
            raise ValueError(f"predict_fn gave scores {score.shape} for a batch with {keep.shape} rows")
        for name, values in {"score": score.astype(np.float32), **host}.items():
            rows[name].append(values[keep])

    bar = tqdm(batches, desc=desc, unit="batch", disable=jax.process_index() != 0)
    for batch in bar:
        device = put(batch)
        score = predict_fn(weights, device)["score"]
        waiting.append((score, jax.tree.leaves(device)[0].sharding, _host_rows(batch)))
        if len(waiting) > _IN_FLIGHT:
            fetch()
    while waiting:
        fetch()
    local = {name: np.concatenate(values) if values else np.zeros(0) for name, values in rows.items()}
    scores = _gather(local) if jax.process_count() > 1 else local
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


def set_metrics(name, scores):
    """The metrics of one set, whole and by method: each method's fakes against all reals of the set.

    Args:
      name: of the set, the first part of every key.
      scores: what `collect_scores` returns; score, label, method and video_key are used.

    Returns:
      {"<name>/<level>_<metric>": float, "<name>/<method>/<level>_<metric>": float} with the names of
      `metrics.detection_metrics`. Without fakes there is no method; without reals theirs are NaN, with a
      warning.

    Raises:
      ValueError: a fake whose method is "real", a real with another, and what `detection_metrics` raises.
    """
    score, label, method, keys = (np.asarray(scores[k]) for k in ("score", "label", "method", "video_key"))
    wrong = np.flatnonzero((label == 1) == (method == schema.METHODS.index("real")))
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"{name}: {keys[i]} has label {schema.LABELS[label[i]]} and method {schema.METHODS[method[i]]}; "
            "a real has the method real, a fake another"
        )
    groups = {"": np.ones(len(score), bool)}
    for index in np.unique(method[label == 1]):
        groups[f"{schema.METHODS[index]}/"] = (method == index) | (label == 0)
    result = {}
    for prefix, keep in groups.items():
        where = f"{name}/{prefix}".rstrip("/")
        values = metrics.detection_metrics(score[keep], label[keep], keys[keep], name=where)
        result |= {f"{where}/{metric}": value for metric, value in values.items()}
    return result


def _host_rows(batch):
    """What is kept of a batch on the host, one entry a row."""
    method = np.asarray(batch["method"], np.int32)
    names = zip(
        batch["dataset"],
        batch["compression"],
        [schema.METHODS[index] for index in method],
        batch["video_id"],
        strict=True,
    )
    return {
        "_mask": np.asarray(batch["_mask"], bool),
        "label": np.asarray(batch["label"], np.int32),
        "method": method,
        "frame_index": np.asarray(batch["frame_index"], np.int32),
        "video_key": np.array(["/".join(name) for name in names]),
    }


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
    """The rows of all processes, on every process. Strings travel as bytes, ragged ends as padding."""
    encoded = [key.encode() for key in local["video_key"]]
    sizes = np.array([len(encoded), max(map(len, encoded), default=0)], np.int32)
    sizes = np.asarray(multihost_utils.process_allgather(sizes))  # [processes, 2]
    longest, width = int(sizes[:, 0].max()), int(sizes[:, 1].max())
    text = np.zeros((longest, max(width, 1)), np.uint8)
    for row, key in zip(text, encoded, strict=False):
        row[: len(key)] = np.frombuffer(key, np.uint8)
    padded = {"video_key": text}
    for name in ("score", "label", "method", "frame_index"):
        dtype = np.float32 if name == "score" else np.int32
        padded[name] = np.zeros(longest, dtype)
        padded[name][: len(encoded)] = local[name]
    gathered = multihost_utils.process_allgather(padded)  # [processes, longest, ...]
    valid = np.arange(longest) < sizes[:, :1]
    rows = {name: np.asarray(value)[valid] for name, value in gathered.items()}
    rows["video_key"] = np.array([row.tobytes().rstrip(b"\0").decode() for row in rows["video_key"]])
    return rows
