"""Features of an evaluation set, batch by batch, for the range of a detector (`statistics.novelty`)."""

import hashlib

import jax
import numpy as np

from msddf_jax.evaluators import detection

# Of a larger set every second, third, ... example is kept: features are then 330 MB at most, of 2048 float32 each.
MAX_FRAMES = 40_000


def init_features(num_examples) -> dict:
    """What `add_batch` fills; num_examples: of the set."""
    return {"every": -(-num_examples // MAX_FRAMES), "seen": 0, "feature": [], "label": [], "video": [], "group": []}


def add_batch(found, features, batch) -> None:
    """Keep what is wanted of one batch. features: float32 [B, d]. batch: host batch, with group_id.

    A group is the set's own `group_id`, of videos that must share a split, else all videos of one name.
    """
    rows = np.flatnonzero(batch["_mask"])
    chosen = rows[(found["seen"] + np.arange(len(rows))) % found["every"] == 0]
    found["seen"] += len(rows)
    found["feature"].append(features[chosen])
    found["label"].append(np.asarray(batch["label"], np.int32)[chosen])
    name = lambda i, *fields: _number("/".join(str(batch[field][i]) for field in fields))
    videos = [name(i, "dataset", "compression", "method", "video_id") for i in chosen]
    groups = [name(i, "dataset", "group_id" if batch["group_id"][i] else "video_id") for i in chosen]
    found["video"].append(np.array(videos, np.int32).reshape(-1, 2))
    found["group"].append(np.array(groups, np.int32).reshape(-1, 2))


def gather_features(found) -> dict[str, np.ndarray] | None:
    """The rows of all processes, on every process; None where the detector gives no feature.

    Returns:
      {"feature" float32 [N, d], "label" int32 [N], "video" int64 [N], "group" int64 [N]}: numbers that are equal where
      video or group are.
    """
    if not found["feature"]:
        return None
    rows = {name: np.concatenate(found[name]) for name in ("feature", "label", "video", "group")}
    rows = detection.gather_rows(rows) if jax.process_count() > 1 else rows
    as_one = lambda pairs: np.ascontiguousarray(pairs).view(np.int64)[:, 0]
    return rows | {name: as_one(rows[name]) for name in ("video", "group")}


def _number(text):
    """Two int32 of a name, the same on every process: devices hold no int64."""
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=8).digest(), np.int32)
