"""Writes built data sets: ordered array_record shards and an index beside them, without TensorFlow.

TFDS's own writer keeps a split in memory up to 1 GB and then needs TensorFlow for its temporary files.
Records here come in their final order, so they are written as they come, whatever the size of the split.
"""

import csv
import itertools
import pathlib
import struct

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from data_prep.features import record_features
from data_prep.layout import PreparedDataError

# One row a video in the index; the frames of a video are contiguous records.
INDEX_COLUMNS = (
    "video_id",
    "label",
    "method",
    "dataset",
    "pair_id",
    "group_id",
    "source_identity",
    "target_identity",
    "compression",
    "num_frames_video",
    "height",
    "width",
    "first_record",
    "num_records",
    "frame_index",
)
_OF_RECORD = INDEX_COLUMNS[:10]


class FrameBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder of frames: array_record, records in the order in which `_generate_examples` gives them.

    `_generate_examples` yields (key, record of `features.record_features`), the frames of a video one after
    the other, image and mask as PNG bytes. Beside each split `index-<split>.csv` is written: one row a
    video, `frame_index` its frame numbers separated by spaces.
    """

    # Nothing is downloaded. TFDS would look for checksums, through a package it does not depend on (4.9.10).
    url_infos = None

    def __init__(self, *, file_format=None, **kwargs):
        if file_format not in (None, "array_record"):
            raise ValueError(f"file_format {file_format!r}: only array_record is written, which needs no TensorFlow")
        super().__init__(file_format="array_record", **kwargs)

    # What TFDS would print is about downloads.
    def _log_download_bytes(self):
        pass

    def _log_download_done(self):
        pass

    def _info(self):
        return self.dataset_info_from_configs(features=record_features(), disable_shuffling=True)

    def as_data_source(self, split=None, **kwargs):
        # TFDS reads "all" as the union of all splits, and recurses without end where one split is named so (4.9.10).
        if split is None:
            split = {name: tfds.core.ReadInstruction(name) for name in self.info.splits}
        elif isinstance(split, str) and split == "all" and "all" in self.info.splits:
            split = tfds.core.ReadInstruction("all")
        return super().as_data_source(split, **kwargs)

    def _generate_splits(self, dl_manager, download_config):
        shards = download_config.get_shard_config()
        if shards.num_shards is not None:
            raise ValueError("num_shards is not supported: shards are closed at max_shard_size, as records come")
        return [
            self._write_split(split, examples, shards.max_shard_size, download_config.max_examples_per_split)
            for split, examples in self._split_generators(dl_manager).items()
        ]

    def _write_split(self, split, examples, max_shard_bytes, limit):
        return self.join_parts(split, [self.write_part(examples, self.data_path, "shard", max_shard_bytes, limit)])

    def write_part(self, examples, folder, prefix, max_shard_bytes, limit=None):
        """Write the records of some videos of a split.

        Args:
          examples: as `_generate_examples` yields them. folder: Path. prefix: of file names. limit: records at most.

        Returns:
          dict of JSON values for `join_parts`: paths, lengths, num_bytes, videos (rows of the index, records counted
          from 0), first (path and size of the first frame), None without a record.
        """
        serializer = tfds.core.example_serializer.ExampleSerializer(self.info.features.get_serialized_info())
        shards, videos, first = ShardWriter(folder, max_shard_bytes, prefix), [], None
        with shards:
            for number, (_, example) in enumerate(examples):
                if limit is not None and number >= limit:
                    break
                first = first or {"path": example["source_path"], "size": list(_image_size(example))}
                _add_to_index(videos, example, number, first)
                encoded = serializer.get_tf_example(self.info.features.encode_example(example))
                # Features in the order of their names: by default each process has its own, and no two builds are one.
                shards.write(encoded.SerializeToString(deterministic=True))
        paths = [str(path) for path in shards.paths]
        return {
            "paths": paths,
            "lengths": shards.lengths,
            "num_bytes": shards.num_bytes,
            "videos": videos,
            "first": first,
        }

    def join_parts(self, split, parts):
        """The parts of a split, in order, under their final names, and its index. Returns tfds.core.SplitInfo."""
        parts = [part for part in parts if part["lengths"]]
        if not parts:
            raise PreparedDataError(f"split {split!r} of {self.info.full_name} has no usable frame")
        for part in parts:
            _check_size(part["first"], parts[0]["first"])
        template = self._get_filename_template(split_name=split)
        paths = [pathlib.Path(path) for part in parts for path in part["paths"]]
        for i, path in enumerate(paths):
            path.rename(template.sharded_filepath(shard_index=i, num_shards=len(paths)))
        starts = itertools.accumulate((sum(part["lengths"]) for part in parts), initial=0)
        rows = [
            {**row, "first_record": row["first_record"] + start}
            for part, start in zip(parts, starts, strict=False)
            for row in part["videos"]
        ]
        write_index(self.data_path / f"index-{split}.csv", rows)
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[length for part in parts for length in part["lengths"]],
            num_bytes=sum(part["num_bytes"] for part in parts),
            filename_template=template,
        )


class ShardWriter:
    """Writes records to files of at most `max_bytes` each (a file holds at least one record).

    paths, lengths: the files and their numbers of records. num_bytes: of all records.
    """

    def __init__(self, folder, max_bytes, prefix="shard"):
        self._folder, self._max_bytes, self._prefix = folder, max_bytes, prefix
        self._file, self._file_bytes = None, 0
        self.paths, self.lengths, self.num_bytes = [], [], 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self._file is not None and kind is None:
            self._close()

    def write(self, record):
        """Append one record. Raises OSError where the disk does not take it."""
        if self._file is not None and self._file_bytes + len(record) > self._max_bytes:
            self._close()
        if self._file is None:
            path = self._folder / f"{self._prefix}-{len(self.paths):05d}.partial"
            # A group of one is what random access wants; PNG does not compress further.
            self._file = self._checked(array_record_module.ArrayRecordWriter, str(path), "group_size:1,uncompressed")
            self._file_bytes = 0
            self.paths.append(path)
            self.lengths.append(0)
        self._checked(self._file.write, record)
        self._file_bytes += len(record)
        self.num_bytes += len(record)
        self.lengths[-1] += 1

    def _close(self):
        self._checked(self._file.close)
        self._file = None

    def _checked(self, function, *args):
        # The writer reports a full disk as RuntimeError or IndexError, by the step at which it notices.
        try:
            return function(*args)
        except (RuntimeError, IndexError) as error:
            raise OSError(f"writing to {self._folder} failed, is the disk full? {error}") from error


def first_frame(example):
    """Frame number of a record; of a clip, that of its first frame."""
    return example["frames"][0]["frame_index"] if "frames" in example else example["frame_index"]


def _image_size(example):
    return png_size(example["frames"][0]["image"] if "frames" in example else example["image"])


def png_size(data):
    """(height, width) from a PNG's header."""
    width, height = struct.unpack(">II", data[16:24])
    return height, width


def write_index(path, videos):
    """Write `index-<split>.csv`. videos: list of dicts with the keys of `INDEX_COLUMNS`."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, INDEX_COLUMNS)
        writer.writeheader()
        writer.writerows({**v, "frame_index": " ".join(map(str, v["frame_index"]))} for v in videos)


def _check_size(here, first):
    if here["size"] != first["size"]:
        text = [f"{frame['path']} is {frame['size'][1]}x{frame['size'][0]}" for frame in (first, here)]
        raise PreparedDataError(f"frames of two sizes: {text[0]}, {text[1]}; prepare both with the same --size")


def _add_to_index(videos, example, number, first):
    size = _image_size(example)
    _check_size({"path": example["source_path"], "size": list(size)}, first)
    row = {name: example[name] for name in _OF_RECORD}
    if not videos or videos[-1]["video_id"] != row["video_id"]:
        videos.append(
            {
                **row,
                "height": size[0],
                "width": size[1],
                "first_record": number,
                "num_records": 0,
                "frame_index": [],
            }
        )
    videos[-1]["num_records"] += 1
    videos[-1]["frame_index"].append(first_frame(example))
