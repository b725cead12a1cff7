"""Batches: shard by process, shuffle by epoch, draw groups, decode in threads, batch, pad. On grain."""

import hashlib
import json
import math

import grain
import jax
import numpy as np

from msddf_jax.data import schema
from msddf_jax.data.source import pair

# Rows that a thread reads before it hands them on: handing over costs 0.1 ms, a twentieth of what decoding a row does.
_ROWS_AT_ONCE = 8
_TEXT_FIELDS = tuple(name for name in schema.HOST_FIELDS if name != "frame_index")


def train_batches(
    source,
    *,
    batch_size,
    group=(1, 1),
    seed=0,
    image_size=None,
    num_threads=4,
    identities=None,
    process_index=None,
    process_count=None,
):
    """An endless iterator of training batches.

    Rows are groups, group-major: `group` = (r, f) gives r real rows, then f fake rows, all from one source
    video; which fakes is drawn anew each epoch. An epoch is one pass over the real frames that have a
    partner. The order is a function of source, seed and group alone, never of `num_threads`.

    Args:
      source: data.source.Source. batch_size: rows of the global batch, over all processes.
      group: (reals, fakes) of a group. seed: of order and draws, any integer >= 0.
      image_size: side that the stored images must have; None for any.
      num_threads: that read and decode; 0 reads in the calling thread.
      identities: {target identity: class}, as `source.identity_table` gives; None: `identity` is -1
      everywhere.
      process_index, process_count: of this process; None asks JAX.

    Returns:
      BatchIterator of dicts: every field of `schema.DEVICE_FIELDS` and `schema.HOST_FIELDS`, each with
      batch_size / process_count rows; text fields are object arrays of str.

    Raises:
      ValueError: no real has a partner; sizes or counts that do not divide; images of another size.
    """
    process_index, process_count = _process(process_index, process_count)
    check_image_size(source, image_size)
    groups = pair(source, group)
    rows = sum(groups.group)
    if batch_size < 1 or batch_size % (rows * process_count):
        raise ValueError(
            f"batch_size {batch_size} is not a multiple of {rows * process_count}: "
            f"{rows} rows a group {groups.group} x {process_count} processes"
        )
    if len(groups) < process_count:
        raise ValueError(f"{source.name} has {len(groups)} groups, fewer than the {process_count} processes")
    # Neighbouring seeds must not share shuffles, nor processes their draws; both come from one hash.
    order_seed, draw_seed = np.random.SeedSequence(seed).generate_state(2)
    draw_seed = np.random.SeedSequence((int(draw_seed), process_index)).generate_state(1)[0]
    whole = len(groups) - len(groups) % process_count

    def load(index, rng):
        return [_with_identity(source[i], identities) for i in groups.draw(index, rng)]

    groups_per_batch = batch_size // (rows * process_count)
    at_once = math.gcd(groups_per_batch, max(_ROWS_AT_ONCE // rows, 1))
    dataset = (
        grain.MapDataset.range(len(groups))
        .shuffle(seed=int(order_seed))
        # Equal shares, so that epochs end together; what is over differs from epoch to epoch.
        .slice(slice(process_index, whole, process_count))
        .repeat()
        .random_map(load, seed=int(draw_seed))
        .batch(at_once, drop_remainder=True, batch_fn=_concatenate)
    )
    parts_per_batch = groups_per_batch // at_once
    batches = dataset.to_iter_dataset(_read_options(num_threads, parts_per_batch)).batch(
        parts_per_batch, drop_remainder=True, batch_fn=lambda parts: stack(_concatenate(parts))
    )
    # The same for every process, so that the one state in a checkpoint serves them all.
    about = {"group": list(groups.group), "seed": int(seed), "processes": process_count, "groups_at_once": at_once}
    return BatchIterator(iter(batches), about | {"source": source.name, "records": fingerprint(source)})


def eval_batches(
    source,
    *,
    batch_size,
    image_size=None,
    num_threads=4,
    identities=None,
    process_index=None,
    process_count=None,
):
    """Batches in which every record of the source stands exactly once, over all processes.

    Every process gets the same number of batches and every batch has the same shape: rows that are left
    over are padding, with `_mask` false, zeros, and "" or -1 in the host fields.

    Args and raises: as `train_batches`.

    Returns:
      EvalBatches: iterable as often as wanted, with a length. Rows in the order of the source.
    """
    process_index, process_count = _process(process_index, process_count)
    check_image_size(source, image_size)
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f"batch_size {batch_size} is not a multiple of the {process_count} processes")
    if len(source) == 0:
        raise ValueError(f"{source.name} has no record to evaluate")
    rows = batch_size // process_count
    num_batches = -(-len(source) // batch_size)
    height, width = source.image_size
    padding = _padding(height, width)

    # Of each element that grain hands on, it asks 0.1 ms: a part of a batch is one, not a row.
    at_once = math.gcd(rows, _ROWS_AT_ONCE)
    parts_per_batch = rows // at_once

    def load(part):
        batch, part = divmod(part, parts_per_batch)
        start = batch * batch_size + process_index * rows + part * at_once
        return [
            _with_identity(source[i], identities) if i < len(source) else padding for i in range(start, start + at_once)
        ]

    dataset = grain.MapDataset.range(num_batches * parts_per_batch).map(load)
    batches = dataset.to_iter_dataset(_read_options(num_threads, parts_per_batch)).batch(
        parts_per_batch, batch_fn=lambda parts: stack(_concatenate(parts))
    )
    return EvalBatches(batches, num_batches)


class EvalBatches:
    """Evaluation batches with a length, for progress bars."""

    def __init__(self, dataset, num_batches):
        self._dataset, self._num_batches = dataset, num_batches

    def __len__(self):
        return self._num_batches

    def __iter__(self):
        return iter(self._dataset)


class BatchIterator:
    """An iterator of batches whose position can be saved and restored.

    The state is a JSON-able dict; it holds what the position depends on, so that it is not restored over
    other data.
    """

    def __init__(self, iterator, about):
        self._iterator, self._about = iterator, about

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._iterator)

    def get_state(self):
        """Position after the batches that `next` has returned."""
        return {**self._about, "iterator": self._iterator.get_state()}

    def set_state(self, state):
        """Go to where `get_state` was called. Raises ValueError where data, seed or processes were others."""
        theirs = {name: state.get(name) for name in self._about}
        if theirs != self._about:
            differ = ", ".join(
                f"{name}: {theirs[name]!r} then, {value!r} now"
                for name, value in self._about.items()
                if theirs[name] != value
            )
            raise ValueError(
                f"the checkpoint's place in the data is of another order ({differ}); "
                "resume with the same data, seed, group and number of processes, or start in a new workdir"
            )
        self._iterator.set_state(state["iterator"])

    def close(self):
        """Stop the reading threads."""
        self._iterator.close()


def encode_state(state):
    """An iterator state as text, for a checkpoint."""
    return json.dumps(state)


def decode_state(text):
    """The inverse of `encode_state`."""
    return json.loads(text)


def check_image_size(source, image_size):
    """Raise ValueError where images are of several sizes, or not squares of `image_size` (None: any)."""
    height, width = source.image_size
    if image_size is not None and (height, width) != (image_size, image_size):
        raise ValueError(
            f"the config's image_size is {image_size}, the images of {source.name} are {width}x{height}: set "
            "image_size to the stored size, or prepare the videos again "
            f"(python -m data_prep.prepare ... --size {image_size}) and build again"
        )


def fingerprint(source):
    """Short hash of which records a source has, in order."""
    digest = hashlib.sha256()
    for name in ("dataset", "compression", "video_id"):
        digest.update("\n".join(source.videos[name].tolist()).encode())
    digest.update(np.ascontiguousarray(source.video, np.int64).tobytes())
    digest.update(np.ascontiguousarray(source.frame_index, np.int64).tobytes())
    return digest.hexdigest()[:16]


def stack(rows):
    """A batch from a list of records: device fields stacked, text fields as object arrays [B]."""
    batch = {}
    for name, dtype in schema.DEVICE_FIELDS.items():
        values = [row[name] for row in rows]
        # The same array, but for scalars np.stack takes fifteen times as long.
        batch[name] = np.stack(values) if np.ndim(values[0]) else np.array(values, dtype)
    for name in _TEXT_FIELDS:
        batch[name] = np.array([row[name] for row in rows], object)
    batch["frame_index"] = np.array([row["frame_index"] for row in rows], np.int32)
    return batch


def _concatenate(parts):
    return [row for part in parts for row in part]


def _with_identity(example, identities):
    if identities is not None:
        example["identity"] = np.int32(identities.get(example["target_identity"], -1))
    return example


def _padding(height, width):
    row = {
        "image": np.zeros((height, width, 3), np.uint8),
        "mask": np.zeros((height, width, 1), np.uint8),
        "landmarks": np.full((schema.NUM_LANDMARKS, 2), -1, np.float32),
        "identity": np.int32(-1),
        "frame_index": np.int32(-1),
        **{name: "" for name in _TEXT_FIELDS},
    }
    return row | {name: d(0) for name, d in schema.DEVICE_FIELDS.items() if name not in row}


def _process(index, count):
    if (index is None) != (count is None):
        raise ValueError(f"process_index {index} and process_count {count}: give both or none")
    index, count = (jax.process_index(), jax.process_count()) if index is None else (index, count)
    if not 0 <= index < count:
        raise ValueError(f"process_index {index} is not below process_count {count}")
    return index, count


def _read_options(num_threads, parts_per_batch):
    """Two batches ahead: enough to hide the decoding, and no more memory than that."""
    if num_threads == 0:
        return grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=max(2 * parts_per_batch, num_threads))
