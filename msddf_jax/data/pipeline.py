"""Batches: shard by process, shuffle by epoch, draw groups, decode in threads, batch, pad. On grain."""

import functools
import hashlib
import json

import grain
import jax
import numpy as np

from msddf_jax.data import nearest, schema
from msddf_jax.data.groups import check_places, make_groups
from msddf_jax.data.source import describe_records, stranger_numbers

# The most images that a thread decodes into one piece of memory before it hands them on. A batch of so many is never
# copied again; larger ones are put together of equal parts, so that threads share the work and memory stays in bounds.
_IMAGES_AT_ONCE = 64
# Batches of a run: more than any has.
_ENDLESS = 1 << 32
_ARRAY_FIELDS = ("image", "mask", "landmarks")
_TEXT_FIELDS = tuple(name for name in schema.HOST_FIELDS if name != "frame_index")


def train_batches(
    source,
    *,
    batch_size,
    group=None,
    seed=0,
    image_size=None,
    clip_length=0,
    num_threads=4,
    identities=None,
    process_index=None,
    process_count=None,
) -> "BatchIterator":
    """An endless iterator of training batches.

    Rows are groups, group-major: first the reals of a group, then its fakes, as `groups.make_groups` says; which fakes
    is drawn anew each epoch. An epoch is one pass over the real frames that have fakes. Every row keeps its record's
    label and method. The order is a function of source, seed, group and batch size alone, never of `num_threads` or of
    the number of processes: each has a part of every batch, in the order of processes.

    Args:
      source: data.source.Source. batch_size: rows of the global batch, over all processes.
      group: what `schema.make_group` takes; None for one real and one fake of its video.
      seed: of order and draws, any integer >= 0.
      image_size: side that the stored images must have; None for any.
      clip_length: frames of the clips that the records must be, 0 for frames.
      num_threads: that read and decode; 0 reads in the calling thread.
      identities: {target identity: class}, as `source.identity_table` gives; None: `identity` and `donor` are -1
      everywhere. The `identity` of an unknown one is negative and that of its video (`source.stranger_numbers`).
      process_index, process_count: of this process; None asks JAX.

    Returns:
      BatchIterator of dicts: every field of `schema.DEVICE_FIELDS` and `schema.HOST_FIELDS`, each with
      batch_size / process_count rows; text fields are object arrays of str. Of clips, image is [B, T, H, W, 3], mask
      [B, T, H, W, 1], landmarks [B, T, 81, 2].

    Raises:
      ValueError: no real has a fake; sizes or counts that do not divide; images of another size, clips for frames or
      the other way about. From the iterator: a record whose label or method its place in the group contradicts.
    """
    process_index, process_count = _process(process_index, process_count)
    check_image_size(source, image_size, clip_length)
    groups = make_groups(source, group)
    group, rows = groups.group, groups.group.rows
    if batch_size < 1 or batch_size % (rows * process_count):
        raise ValueError(
            f"batch_size {batch_size} is not a multiple of {rows * process_count}: "
            f"{rows} rows a group ({group.real} real, {group.fakes} fake) x {process_count} processes"
        )
    # Neighbouring seeds must not share shuffles, nor these what is drawn within a group; both come from one hash.
    order_seed, draw_seed = np.random.SeedSequence(seed).generate_state(2)
    draw_seed = np.random.SeedSequence((int(draw_seed), 0)).generate_state(1)[0]

    groups_per_batch, own = batch_size // rows, batch_size // (rows * process_count)
    at_once = _largest_share(own, max(_records_at_once(source) // rows, 1))
    parts = own // at_once
    numbers = np.repeat(process_index * own + np.arange(own, dtype=np.int32), rows)
    load = functools.partial(collect, source, image_size=source.image_size, **_who(source, identities))
    drawn = (
        grain.MapDataset.range(len(groups))
        .shuffle(seed=int(order_seed))
        .repeat()
        .random_map(groups.draw, seed=int(draw_seed))
        .batch(at_once, drop_remainder=True, batch_fn=list)
    )

    def read(part):
        # Part by part of the global batches, of which each process has its own: what a batch holds, and what a row is,
        # is the same for any number of them.
        batch, part = divmod(part, parts)
        place = (batch * groups_per_batch + process_index * own) // at_once + part
        return _collect_groups(groups, drawn[place], load)

    def start(batch):
        dataset = grain.MapDataset.range(batch * parts, _ENDLESS * parts).map(read)
        return iter(_in_threads(dataset, parts, num_threads).map(lambda batch: {**batch, "group": numbers.copy()}))

    about = {"group": _describe_group(groups), "seed": int(seed), "batch_size": batch_size}
    return BatchIterator(start, about | {"source": source.name, "records": fingerprint(source)})


def eval_batches(
    source,
    *,
    batch_size,
    image_size=None,
    clip_length=0,
    num_threads=4,
    identities=None,
    process_index=None,
    process_count=None,
) -> "EvalBatches":
    """Batches in which every record of the source stands exactly once, over all processes.

    Every process gets the same number of batches and every batch has the same shape: rows that are left
    over are padding, with `_mask` false, zeros, and "" or -1 in the host fields. `group` is -1 everywhere.

    Args and raises: as `train_batches`.

    Returns:
      EvalBatches: iterable as often as wanted, with a length. Rows in the order of the source.
    """
    process_index, process_count = _process(process_index, process_count)
    check_image_size(source, image_size, clip_length)
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f"batch_size {batch_size} is not a multiple of the {process_count} processes")
    if len(source) == 0:
        raise ValueError(f"{source.name} has no record to evaluate")
    rows = batch_size // process_count
    num_batches = -(-len(source) // batch_size)
    at_once = _largest_share(rows, _records_at_once(source))
    parts_per_batch = rows // at_once
    image_size = source.image_size

    def load(part):
        batch, part = divmod(part, parts_per_batch)
        start = batch * batch_size + process_index * rows + part * at_once
        indices = [i if i < len(source) else None for i in range(start, start + at_once)]
        return collect(source, indices, identities=identities, image_size=image_size)

    dataset = grain.MapDataset.range(num_batches * parts_per_batch).map(load)
    batches = _in_threads(dataset, parts_per_batch, num_threads)
    return EvalBatches(batches, num_batches)


class EvalBatches:
    """Evaluation batches with a length, for progress bars."""

    def __init__(self, dataset, num_batches):
        self._dataset, self._num_batches = dataset, num_batches

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self):
        return iter(self._dataset)


class BatchIterator:
    """An iterator of batches whose position can be saved and restored, by any number of processes.

    The state is a JSON-able dict: how many batches came, and what the position depends on, so that it is not restored
    over other data.

    Args:
      start: number of a batch -> iterator of the batches from there on. about: JSON-able dict.
    """

    def __init__(self, start, about):
        self._start, self._about, self._done = start, about, 0
        self._iterator = start(0)

    def __iter__(self):
        return self

    def __next__(self):
        batch = next(self._iterator)
        self._done += 1
        return batch

    def get_state(self) -> dict:
        """Position after the batches that `next` has returned."""
        return {**self._about, "batches": self._done}

    def set_state(self, state) -> None:
        """Go to where `get_state` was called. Raises ValueError where data, seed or batch size were others."""
        theirs = {name: state.get(name) for name in self._about}
        if theirs != self._about or "batches" not in state:
            differ = ", ".join(
                f"{name}: {theirs[name]!r} then, {value!r} now"
                for name, value in self._about.items()
                if theirs[name] != value
            )
            raise ValueError(
                f"the checkpoint's place in the data is of another order ({differ or 'of an earlier version'}); "
                "resume with the same data, seed, group and batch size, or start in a new workdir"
            )
        self.close()
        self._done = state["batches"]
        self._iterator = self._start(self._done)

    def close(self) -> None:
        """Stop the reading threads."""
        self._iterator.close()


class JoinedBatches:
    """Several `BatchIterator`s as one, of tuples with a batch from each; its state is the list of theirs."""

    def __init__(self, iterators):
        self._iterators = list(iterators)

    def __iter__(self):
        return self

    def __next__(self):
        return tuple(next(iterator) for iterator in self._iterators)

    def get_state(self) -> list[dict]:
        """Position after the tuples that `next` has returned."""
        return [iterator.get_state() for iterator in self._iterators]

    def set_state(self, state) -> None:
        """Go to where `get_state` was called. Raises ValueError for another number of iterators, and as theirs."""
        if not isinstance(state, list) or len(state) != len(self._iterators):
            raise ValueError(
                f"the checkpoint's place in the data is not of {len(self._iterators)} independent batches a step: "
                "resume with the config.step it was saved with, or start in a new workdir"
            )
        for iterator, own in zip(self._iterators, state, strict=True):
            iterator.set_state(own)

    def close(self) -> None:
        """Stop the reading threads."""
        for iterator in self._iterators:
            iterator.close()


def encode_state(state) -> str:
    """An iterator state as text, for a checkpoint."""
    return json.dumps(state)


def decode_state(text) -> dict | list[dict]:
    """The inverse of `encode_state`."""
    return json.loads(text)


def check_image_size(source, image_size, clip_length=0) -> None:
    """Raise ValueError where records are not what the config asks for.

    image_size: side of the square images, None for any one size. clip_length: frames of a record, 0 for one frame.
    """
    if source.clip_length != clip_length:
        raise ValueError(
            f"the config asks for {f'clips of {clip_length} frames' if clip_length else 'frames'}, {source.name} holds "
            f"{describe_records(source)}: name a set of that kind (a set's clips are <config>_clip16), or change the "
            "config's clip_length"
        )
    height, width = source.image_size
    if image_size is not None and (height, width) != (image_size, image_size):
        # A model with a size of its own takes any, without a word.
        enlarged = " (a larger model then sees them enlarged)" if max(height, width) < image_size else ""
        raise ValueError(
            f"the config's image_size is {image_size}, the images of {source.name} are {width}x{height}: set "
            f"image_size to the stored size{enlarged}, or prepare the videos again "
            f"(python -m data_prep.prepare ... --size {image_size}) and build again"
        )


def fingerprint(source) -> str:
    """Short hash of which records a source has, in order."""
    digest = hashlib.sha256()
    for name in ("dataset", "compression", "video_id"):
        digest.update("\n".join(source.videos[name].tolist()).encode())
    digest.update(np.ascontiguousarray(source.video, np.int64).tobytes())
    digest.update(np.ascontiguousarray(source.frame_index, np.int64).tobytes())
    return digest.hexdigest()[:16]


def collect(source, indices, *, image_size, identities=None, strangers=None) -> dict[str, np.ndarray]:
    """A batch of records: device fields as arrays, text fields as object arrays [B].

    An image is copied to its place as soon as it is decoded, so that the next one is decoded into the same memory,
    where rows that are kept until all are there would take new memory each.

    Args:
      source: data.source.Source, or what has its `[index]` and `clip_length`.
      indices: of the rows, in order; None is a row of padding.
      image_size: (height, width) that the source's images share. identities: as in `train_batches`.
      strangers: of `source.stranger_numbers`, None for -1 wherever the identity is unknown.

    Returns:
      dict of every field of `schema.DEVICE_FIELDS` and `schema.HOST_FIELDS`, with len(indices) rows.

    Raises:
      ValueError: an image, mask or landmarks of another shape than the batch's. TypeError: of another dtype.
    """
    batch = _padding(len(indices), *image_size, source.clip_length)

    def put(row, index):
        # A function, so that the image is let go before the next one is decoded, into memory that is in the cache.
        example = source[index]
        if identities is not None:
            unknown = -1 if strangers is None else strangers[source.video[index]]
            example["identity"] = identities.get(example["target_identity"], unknown)
            example["donor"] = identities.get(example["source_identity"], -1)
        for name, place in batch.items():
            value = example[name]
            if name not in _ARRAY_FIELDS:
                place[row] = value
                continue
            if value.shape != place.shape[1:]:
                raise ValueError(f"{source.name} record {index}: {name} is {value.shape}, expected {place.shape[1:]}")
            np.copyto(place[row], value, casting="no")

    for row, index in enumerate(indices):
        if index is not None:
            put(row, index)
        else:
            batch["image"][row] = batch["mask"][row] = 0
    return batch


def _describe_group(groups):
    """Of a file of neighbours what is in it, wherever it lies."""
    given = groups.group._asdict()
    return given | {"methods": list(given["methods"]), "nearest": nearest.fingerprint(groups.nearest)}


def _who(source, identities):
    """What `collect` knows about persons."""
    return {} if identities is None else {"identities": identities, "strangers": stranger_numbers(source)}


def _collect_groups(groups, drawn, load):
    indices = [i for group in drawn for i in group]
    batch = load(indices)
    check_places(groups, indices, batch)
    return batch


def _padding(rows, height, width, clip_length):
    """A batch of padding, but for images and masks: memory that nothing has been written to."""
    lead = (rows, clip_length) if clip_length else (rows,)
    batch = {
        "image": np.empty((*lead, height, width, 3), np.uint8),
        "mask": np.empty((*lead, height, width, 1), np.uint8),
        "landmarks": np.full((*lead, schema.NUM_LANDMARKS, 2), -1, np.float32),
        "attributes": np.zeros((rows, len(schema.ATTRIBUTES)), np.uint8),
        "has_attributes": np.zeros((rows, len(schema.ATTRIBUTES)), np.bool_),
        "identity": np.full(rows, -1, np.int32),
        "donor": np.full(rows, -1, np.int32),
        "domain": np.full(rows, -1, np.int32),
        "group": np.full(rows, -1, np.int32),
        "frame_index": np.full(rows, -1, np.int32),
        **{name: np.full(rows, "", object) for name in _TEXT_FIELDS},
    }
    return batch | {name: np.zeros(rows, d) for name, d in schema.DEVICE_FIELDS.items() if name not in batch}


def _records_at_once(source):
    return max(_IMAGES_AT_ONCE // max(source.clip_length, 1), 1)


def _largest_share(number, limit):
    """The largest divisor of a number that is no more than the limit."""
    return next(share for share in range(min(number, limit), 0, -1) if number % share == 0)


def _in_threads(dataset, parts_per_batch, num_threads):
    """Batches of parts that threads read ahead, two batches or a part for each thread: enough to hide the decoding."""
    ahead = max(2 * parts_per_batch, num_threads) if num_threads else 0
    parts = dataset.to_iter_dataset(grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=ahead))
    return parts if parts_per_batch == 1 else parts.batch(parts_per_batch, drop_remainder=True, batch_fn=_concatenate)


def _concatenate(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _process(index, count):
    if (index is None) != (count is None):
        raise ValueError(f"process_index {index} and process_count {count}: give both or none")
    index, count = (jax.process_index(), jax.process_count()) if index is None else (index, count)
    if not 0 <= index < count:
        raise ValueError(f"process_index {index} is not below process_count {count}")
    return index, count
