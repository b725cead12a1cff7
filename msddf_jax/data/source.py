"""Opens built data sets: random access to decoded records, with the index that grouping needs.

The index (`index-<split>.csv`, written by the build) says what each record is: nothing is decoded to find
out.
"""

import csv
import dataclasses
import difflib
import functools
import math
import os
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from msddf_jax import paths, remote
from msddf_jax.data import overlap, schema
from msddf_jax.data.methods import METHODS
from msddf_jax.opencv import cv2

_PNG = b"\x89PNG\r\n\x1a\n"
# Columns of the index, one row a video. The first group is text, the second numbers.
_TEXT_COLUMNS = (
    "video_id",
    "label",
    "method",
    "dataset",
    "pair_id",
    "group_id",
    "source_identity",
    "target_identity",
    "compression",
)
_NUMBER_COLUMNS = ("num_frames_video", "height", "width", "first_record", "num_records")
_INDEX_COLUMNS = (*_TEXT_COLUMNS, *_NUMBER_COLUMNS, "frame_index")
# Those that stay true when some of a video's records are left out.
_VIDEO_COLUMNS = (*_TEXT_COLUMNS, "num_frames_video", "height", "width")


# Those that a record carries as they stand.
_KEPT_COLUMNS = tuple(name for name in _TEXT_COLUMNS if name not in ("label", "method"))


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Records of one or several built splits, in order, the frames of a video one after the other.

    name: for messages, "faceforensics/toy:train"; of mixed sources all, with " + " between.
    readers: one per built split, `reader[i]` gives the bytes of record i.
    videos: {column: array [V]}, the text columns of the index, num_frames_video, height, width and the
    reader.
    video: [N] int32, row of `videos` of each record.
    record: [N] int64, number of the record in its reader.
    frame_index: [N] int32, frame number in the original video.
    first, count: [V] int64, where a video's records are in this source.
    clip_length: frames of a record that is a clip, 0 where a record is one frame.
    """

    name: str
    readers: tuple
    videos: dict
    video: np.ndarray
    record: np.ndarray
    frame_index: np.ndarray
    first: np.ndarray
    count: np.ndarray
    clip_length: int = 0

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index) -> dict:
        """Read and decode one record: dict of numpy values, the fields of a batch without the row axis.

        Of a clip of T frames, image is [T, H, W, 3], mask [T, H, W, 1], landmarks [T, 81, 2]; has_mask and
        has_landmarks are true where every frame has its own; frame_index is that of the first. Label and method are the
        record's own, not the index's; `domain` is the set's place in `sets`. `identity`, `donor` and `group` are -1
        and `_mask` true; the pipeline knows better.
        """
        index = int(index)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {self.name}, which has {len(self)}")
        video = int(self.video[index])
        # `item` gives Python's own strings and numbers, several times as fast as numpy's.
        row = {name: column.item(video) for name, column in self.videos.items()}
        number = self.record.item(index)
        where = f"{self.name} record {number}"
        example = _read_record(self.readers[row["reader"]], number, where, self.clip_length)
        example["image"], example["mask"] = _decode_pictures(example, where, row["height"], row["width"])
        if not self.clip_length:
            example |= {name: example[name][0] for name in ("image", "mask", "landmarks")}
        for name in _KEPT_COLUMNS:
            example[name] = row[name]
        example["frame_index"] = self.frame_index[index]
        example["domain"] = np.int32(row["reader"])
        example["identity"] = example["donor"] = example["group"] = np.int32(-1)
        example["_mask"] = np.bool_(True)
        return example

    def column(self, name) -> np.ndarray:
        """A column of the index for every record: [N]."""
        return self.frame_index if name == "frame_index" else self.videos[name][self.video]

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the built splits that the records are of, in the order of `readers`."""
        return tuple(self.name.split(" + "))

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) that all images share. Raises ValueError where they do not."""
        pairs = zip(self.videos["height"].tolist(), self.videos["width"].tolist(), strict=True)
        sizes = sorted(set(pairs))
        if len(sizes) > 1:
            raise ValueError(
                f"{self.name} has images of the sizes {sizes} (height, width), a batch takes one: prepare "
                "the videos again with one --size (python -m data_prep.prepare --help) and build again"
            )
        return sizes[0]


def open_source(name, split, data_dir=None, methods=None, max_frames=None) -> Source:
    """Open a split of a built data set.

    Args:
      name: "<data set>/<config>", as built: "faceforensics/toy". split: "train", "validation" or "test".
      data_dir: where built data sets are; None for $TFDS_DATA_DIR or ~/tensorflow_datasets.
      methods: manipulations to keep, names of `methods.METHODS`; None for all. Reals always stay; () keeps
      no other.
      max_frames: at most so many records (frames, or clips) of each video, evenly spaced over the stored ones; None for
      all.

    Returns:
      Source.

    Raises:
      FileNotFoundError: it is not built, or its index is missing; with the command that builds it.
      ValueError: unknown split or method, with the nearest valid names; an index that does not fit the
      records; records of an earlier form.
    """
    if not isinstance(name, str) or name.count("/") != 1:
        raise ValueError(f'name {name!r}: expected "<data set>/<config>", such as "faceforensics/toy"')
    data_dir = data_dir or tfds.core.constants.get_default_data_dir()
    folder = _built_folder(data_dir, name)
    again = f"build the set again: {_build_command(name, data_dir)} --overwrite"
    builder = tfds.builder_from_directory(folder)
    if split not in builder.info.splits:
        raise ValueError(f"{name} has no split {split!r}{_nearest(split, list(builder.info.splits))}")
    lost = [str(path) for path in builder.info.splits[split].filepaths if not path.exists()]
    if lost:
        raise FileNotFoundError(f"{name}:{split} lacks {len(lost)} of its files, first {lost[0]}; {again}")
    shapes = builder.info.features.shape
    if shapes.get("attributes") != (len(schema.ATTRIBUTES),):
        raise ValueError(
            f"{folder} holds attributes of shape {shapes.get('attributes')}, this version reads "
            f"{len(schema.ATTRIBUTES)} of them; {again}"
        )
    # Not by name: TFDS reads "all" as the union of all splits, also where one is named so.
    instruction = tfds.core.ReadInstruction(split)
    reader = builder.as_data_source(instruction, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    path = folder / f"index-{split}.csv"
    if not path.exists():
        raise FileNotFoundError(f"no index {path}; {again}")
    videos = _read_index(path)
    if videos["num_records"].sum() != len(reader):
        raise ValueError(f"{path} lists {videos['num_records'].sum()} records, the split has {len(reader)}; {again}")
    videos["reader"] = np.zeros(len(videos["video_id"]), np.int32)
    clip_length = shapes["frames"]["frame_index"][0] if "frames" in shapes else 0
    return _keep(_make_source(f"{name}:{split}", (reader,), videos, clip_length), methods, max_frames)


def split_names(name, data_dir=None) -> list[str]:
    """Names of the splits of a built data set. Args, and FileNotFoundError where it is not built: as `open_source`."""
    folder = _built_folder(data_dir or tfds.core.constants.get_default_data_dir(), name)
    return list(tfds.builder_from_directory(folder).info.splits)


def open_sources(name, split, data_dir=None, methods=None, max_frames=None) -> Source:
    """Open one or several built splits as one source.

    Args:
      name: as `open_source`, or several with commas, each with a split of its own after a colon where that is not
      `split`: "faceforensics/c23,celebdf/v2:test".
      split, data_dir, max_frames: as `open_source`.
      methods: as `open_source`; of several sets each keeps those that it has.

    Raises:
      ValueError: what `open_source` and `mix_sources` raise; a method that none of the sets has.
    """
    asked = overlap.split_names(name, split)
    if len(asked) == 1:
        return open_source(*asked[0], data_dir, methods, max_frames)
    opened = [open_source(*one, data_dir) for one in asked]
    there = [set(source.videos["method"].tolist()) for source in opened]
    if methods is not None:
        check_methods(" + ".join(source.name for source in opened), methods, set().union(*there))
    kept = [None if methods is None else [m for m in methods if m in mine] for mine in there]
    return mix_sources(_keep(source, some, max_frames) for source, some in zip(opened, kept, strict=True))


def open_configured(config, settings, data_dir=None) -> Source:
    """`open_sources` of a set that a config names.

    config: the experiment. settings: its `data.train` or one of its `evals`, whose own `data_dir`, if it has one, goes
    before all. data_dir: in place of `config.data.data_dir`.
    """
    fields = settings.to_dict()
    own = fields.pop("data_dir", None)
    return open_sources(data_dir=own or data_dir or config.data.data_dir, **fields)


def mix_sources(sources) -> Source:
    """Several sources as one, one after the other. Videos are distinguished by data set, compression and id.

    Raises:
      ValueError: none given, the same video in two of them, images of two sizes, or frames and clips.
    """
    sources = list(sources)
    if not sources:
        raise ValueError("mix_sources needs at least one source")
    forms = {source.name: f"{describe_records(source)} of {_size_text(source.image_size)}" for source in sources}
    if len(set(forms.values())) > 1:
        raise ValueError(
            "sources of two forms do not mix: " + ", ".join(f"{name} has {form}" for name, form in forms.items())
            + "; prepare them with one --size, and take frames or clips (_clip16) of all"
        )  # fmt: skip
    readers = tuple(reader for source in sources for reader in source.readers)
    offsets = np.cumsum([0] + [len(source.readers) for source in sources])  # one longer than the sources
    videos = {name: np.concatenate([s.videos[name] for s in sources]) for name in _VIDEO_COLUMNS}
    videos["reader"] = np.concatenate([s.videos["reader"] + o for s, o in zip(sources, offsets)])
    keys = list(zip(videos["dataset"], videos["compression"], videos["video_id"], strict=True))
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"video {'/'.join(twice)} stands twice in {' + '.join(s.name for s in sources)}")
    starts = np.cumsum([0] + [len(source) for source in sources])
    rows = np.cumsum([0] + [len(source.first) for source in sources])
    return Source(
        name=" + ".join(source.name for source in sources),
        readers=readers,
        videos=videos,
        video=np.concatenate([s.video + o for s, o in zip(sources, rows)]).astype(np.int32),
        record=np.concatenate([s.record for s in sources]),
        frame_index=np.concatenate([s.frame_index for s in sources]),
        first=np.concatenate([s.first + o for s, o in zip(sources, starts)]),
        count=np.concatenate([s.count for s in sources]),
        clip_length=sources[0].clip_length,
    )


def describe_records(source) -> str:
    """What the records are, for messages: "frames" or "clips of 16 frames"."""
    return f"clips of {source.clip_length} frames" if source.clip_length else "frames"


def identity_table(source) -> dict[str, int]:
    """{target identity: class index} of a training source, sorted by name; unknown ones ("") have none.

    A donor has the class that it has as a target; one who is never a target has none.
    """
    names = sorted(set(source.videos["target_identity"].tolist()) - {""})
    return {name: index for index, name in enumerate(names)}


def stranger_numbers(source) -> np.ndarray:
    """int32 [V]: -1 for a video whose target identity is known; for any other -2 - n, the same number where two of them
    may show one person (`overlap.persons`)."""
    _, number = np.unique(np.array(overlap.persons(source.videos)), return_inverse=True)
    return np.where(source.videos["target_identity"] == "", -2 - number, -1).astype(np.int32)


def _read_record(reader, number, where, clip_length):
    """The fields of a record; "image" and "mask" lists of PNGs, one a frame; None for masks empty by definition.

    Apart from decoding, so that the record's memory, twice the PNGs', is given back before that takes more.
    """
    try:
        feature = tf_example_pb2.Example.FromString(reader[number]).features.feature
    except DecodeError as error:
        raise ValueError(f"{where} is no record that data_prep.build writes, or it is damaged: {error}") from error
    of_frame = lambda name: feature[f"frames/{name}" if clip_length else name]
    has_mask = all(of_frame("has_mask").int64_list.value)
    label = feature["label"].int64_list.value[0]
    attributes = _floats(feature["attributes"], (len(schema.ATTRIBUTES),))
    known = ~np.isnan(attributes)
    return {
        "image": list(of_frame("image").bytes_list.value),
        "mask": list(of_frame("mask").bytes_list.value) if has_mask and label else None,
        "has_mask": np.bool_(has_mask),
        "landmarks": _floats(of_frame("landmarks"), (clip_length or 1, schema.NUM_LANDMARKS, 2)),
        "has_landmarks": np.bool_(all(of_frame("has_landmarks").int64_list.value)),
        "label": np.int32(label),
        "method": np.int32(feature["method"].int64_list.value[0]),
        "attributes": np.where(known, attributes, 0).astype(np.uint8),
        "has_attributes": known,
        "source_path": feature["source_path"].bytes_list.value[0].decode(),
    }


def _floats(feature, shape):
    # Packed floats stand at the end of their bytes (protobuf's wire format): a tenth of the time of a list.
    return np.frombuffer(feature.float_list.SerializeToString()[-4 * math.prod(shape) :], "<f4").reshape(shape)


def _decode_pictures(example, where, height, width):
    """(image [T, H, W, 3], mask [T, H, W, 1]) of a record's T frames, T = 1 where it is one frame."""
    images = _stack([_decode_png(data, "RGB", where, height, width) for data in example["image"]])
    if example["mask"] is None:
        return images, np.broadcast_to(_empty_mask(height, width), (len(images), height, width, 1))
    masks = _stack([_decode_png(data, "L", where, height, width) for data in example["mask"]])
    return images, masks[..., None]


def _stack(pictures):
    """[T, ...]; of one image without a copy."""
    return pictures[0][None] if len(pictures) == 1 else np.stack(pictures)


@functools.lru_cache
def _empty_mask(height, width):
    """One for all: read-only, as the arrays of decoded images are."""
    mask = np.zeros((height, width, 1), np.uint8)
    mask.flags.writeable = False
    return mask


def _decode_png(data, mode, where, height, width):
    # 1.2 to 1.4 times as fast as Pillow, and as strict (benchmarks/input.py); outside Python's lock, as Pillow.
    flag = cv2.IMREAD_COLOR_RGB if mode == "RGB" else cv2.IMREAD_UNCHANGED
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if data.startswith(_PNG) else None
    if image is None:
        raise ValueError(f"{where}: its {mode} PNG does not decode ({len(data)} bytes); build the set again")
    expected = (height, width, 3) if mode == "RGB" else (height, width)
    if image.shape != expected or image.dtype != np.uint8:
        raise ValueError(f"{where} decodes to {image.dtype} {image.shape}, the index says uint8 {expected}")
    return image


def _make_source(name, readers, videos, clip_length):
    count = videos["num_records"].astype(np.int64)
    if not np.array_equal(videos["first_record"], np.cumsum(count) - count):
        raise ValueError(f"the index of {name} is not in the order of the records; build it again (--overwrite)")
    frames = videos["frame_index"]
    return Source(
        name=name,
        readers=readers,
        videos={column: videos[column] for column in (*_VIDEO_COLUMNS, "reader")},
        video=np.repeat(np.arange(len(count), dtype=np.int32), count),
        record=np.arange(count.sum(), dtype=np.int64),
        frame_index=np.concatenate([np.zeros(0, np.int32), *frames]),
        first=np.cumsum(count) - count,
        count=count,
        clip_length=clip_length,
    )


def check_methods(name, methods, there) -> None:
    """Raise ValueError for a manipulation that is not among those `there`; name: of the source, for the message."""
    if isinstance(methods, str):
        raise ValueError(f"methods {methods!r}: expected a list of names, ({methods!r},)")
    there = sorted(set(map(str, there)) - {"real"})
    for method in methods:
        if method not in there:
            raise ValueError(f"{name} has no manipulation {method!r}{_nearest(method, there)} (reals always stay)")


def _keep(source, methods, max_frames):
    """The source with only some methods and at most `max_frames` of each video."""
    keep = np.ones(len(source), bool)
    if methods is not None:
        check_methods(source.name, methods, source.videos["method"])
        keep &= np.isin(source.column("method"), ["real", *methods])
    if max_frames is not None:
        if max_frames < 1:
            raise ValueError(f"max_frames {max_frames}: expected at least 1, or None for all")
        some = np.zeros(len(source), bool)
        for start, count in zip(source.first, source.count, strict=True):
            # As the preparation picks frames of a video: integer-truncated linspace.
            some[start + np.linspace(0, count - 1, max_frames if count else 0).astype(int)] = True
        keep &= some
    if not keep.any():
        raise ValueError(f"{source.name} has no record left with methods={methods}, max_frames={max_frames}")
    return keep_records(source, keep)


def keep_records(source, keep) -> Source:
    """The source with the records of keep, bool [N], alone; its videos stay, those without a record count 0."""
    count = np.bincount(source.video[keep], minlength=len(source.count)).astype(np.int64)
    return dataclasses.replace(
        source,
        video=source.video[keep],
        record=source.record[keep],
        frame_index=source.frame_index[keep],
        first=np.cumsum(count) - count,
        count=count,
    )


def _read_index(path):
    """{column: array [V]}; "frame_index" holds one array a video."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != _INDEX_COLUMNS:
            raise ValueError(f"{path} has the columns {reader.fieldnames}, expected {list(_INDEX_COLUMNS)}")
        rows = list(reader)
    videos = {name: np.array([row[name] for row in rows], dtype=np.str_) for name in _TEXT_COLUMNS}
    videos |= {name: np.array([int(row[name]) for row in rows], np.int64) for name in _NUMBER_COLUMNS}
    frames = np.empty(len(rows), object)
    frames[:] = [np.array(row["frame_index"].split(), np.int32) for row in rows]
    videos["frame_index"] = frames
    for name, valid in (("label", schema.LABELS), ("method", METHODS), ("dataset", schema.DATASETS)):
        unknown = sorted(set(videos[name].tolist()) - set(valid))
        if unknown:
            raise ValueError(f"{path}: unknown {name} {unknown}; this version knows {list(valid)}")
    if any(len(f) != n for f, n in zip(frames, videos["num_records"], strict=True)):
        raise ValueError(f"{path}: frame_index and num_records disagree; build the set again (--overwrite)")
    return videos


def _built_folder(data_dir, name):
    """The newest built version of a data set; of an object store the local copy (`remote.stage`)."""
    newest = lambda versions: max(versions, key=lambda version: [int(n) for n in version.split(".")])
    if remote.is_url(data_dir):
        place = f"{str(data_dir).rstrip('/')}/{name}"
        if versions := remote.list_with(place, "dataset_info.json"):
            return remote.stage(f"{place}/{newest(versions)}")
        raise FileNotFoundError(f"data set {name} is not built: looked in {place}. {_build_command(name, 'DIR')}")
    data_dir = pathlib.Path(paths.expand(data_dir))
    if versions := [path.parent.name for path in (data_dir / name).glob("*/dataset_info.json")]:
        return data_dir / name / newest(versions)
    built = {p.parent.parent.relative_to(data_dir).as_posix() for p in data_dir.glob("*/*/*/dataset_info.json")}
    raise FileNotFoundError(
        f"data set {name} is not built: looked in {data_dir / name}{_nearest(name, sorted(built), 0.9)}. "
        f"Build it: {_build_command(name, data_dir)}"
    )


def _build_command(name, data_dir):
    dataset, config = name.split("/")
    # Sets of people's own files have names, and no configs to choose from.
    flag = "--name" if dataset == "folder" else "--config"
    return (
        f"python -m data_prep.build {dataset} {flag} {config} --manual_dir PREPARED_FOLDER "
        f"--data_dir {os.fspath(data_dir)}"
    )


def _size_text(size):
    return f"{size[1]}x{size[0]}"


def _nearest(name, valid, cutoff=0.6):
    near = difflib.get_close_matches(str(name), valid, n=1, cutoff=cutoff)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"{hint} There are: {', '.join(valid) or 'none'}"
