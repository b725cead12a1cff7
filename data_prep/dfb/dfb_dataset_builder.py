"""TFDS builder of what DeepfakeBench has processed: a data set JSON, with rgb folders or LMDB.

Built by `python -m data_prep.build dfb --config Celeb-DF-v2 --manual_dir DFB_ROOT --data_dir DIR`.
"""

import collections
import concurrent.futures
import dataclasses
import io
import itertools
import pathlib
import zlib
from typing import ClassVar

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from tqdm import tqdm

from data_prep import features, records
from data_prep.dfb import index, labels, stores
from data_prep.layout import PreparedDataError
from msddf_jax.faces.landmarks import from_dlib_order
from msddf_jax.opencv import cv2

# Side of the crops that DeepfakeBench makes, whose pixels landmark files count in.
GRID = 256
_CELEB_REALS = ("Celeb-real", "YouTube-real")
_THREADS = 4
_SHOWN = 20
# Above it a file is not a face crop; PIL's own limit only warns.
_MAX_PIXELS = 100_000_000


@dataclasses.dataclass
class DfbConfig(tfds.core.BuilderConfig):
    """dataset: key and file name of the JSON. compression: level to take in FaceForensics++'s family. lmdb: read LMDB
    environments in place of rgb folders. resolution: side of the records' images. partial: leave out listed frames
    that are not there."""

    dataset: str = ""
    compression: str = "none"
    lmdb: bool = False
    resolution: int = GRID
    partial: bool = False


def make_configs():
    """Every data set that DeepfakeBench or DF40 has a JSON of: `<name>[_c40][_lmdb][_224][_partial]`."""
    names = [(name, name, level) for name in labels.FF_FAMILY for level in ("c23",)]
    names += [(f"{name}_c40", name, "c40") for name in labels.FF_FAMILY]
    names += [(name, name, "none") for name in (*labels.OTHERS, *labels.DF40)]
    return [
        DfbConfig(
            name=name + "_lmdb" * lmdb + f"_{side}" * (side != GRID) + "_partial" * partial,
            description=f"{dataset} as DeepfakeBench processed it, {side} pixels, {'LMDB' if lmdb else 'rgb folders'}"
            f"{', the listed frames there are' * partial}. Its splits are DeepfakeBench's, not the owners'.",
            dataset=dataset,
            compression=level,
            lmdb=lmdb,
            resolution=side,
            partial=partial or dataset in labels.DF40,
        )
        for name, dataset, level in names
        for lmdb in (False, True)
        for side in (GRID, 224)
        for partial in (False, True)
        if not (partial and dataset in labels.DF40)  # DF40's lists name frames that were never published
    ]


class Builder(records.FrameBuilder):
    """Frames of a DeepfakeBench download; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "First release.",
        "1.1.0": "Attributes are 13, and written for FaceForensics++.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "manual_dir is DeepfakeBench's folder: dataset_json/ or preprocessing/dataset_json/ in it, and rgb/, "
        "datasets/rgb/ or *_lmdb/."
    )
    BUILDER_CONFIGS: ClassVar = make_configs()

    def _split_generators(self, dl_manager):
        root, config = pathlib.Path(dl_manager.manual_dir), self.builder_config
        videos, store, counts = open_videos(root, config)
        for line in summary(videos, counts):
            tqdm.write(line)
        return {
            split: self._generate_examples([v for v in videos if v.split == split], store, split)
            for split in ("train", "validation", "test")
            if any(v.split == split for v in videos)
        }

    def _generate_examples(self, videos, store, split):
        absent = collections.Counter()
        with (
            tqdm(total=sum(len(v.frames) for v in videos), desc=f"build {split}", unit="frame", mininterval=0.5) as bar,
            concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
        ):
            for video in videos:
                encode = lambda frame, v=video: encode_frame(store, v, *frame, self.builder_config.resolution)
                for example in pool.map(encode, video.frames):
                    absent["landmarks"] += not example["has_landmarks"]
                    absent["mask"] += not example["has_mask"] and example["label"] == "fake"
                    yield f"{video.fields['video_id']}/{example['frame_index']}", example
                    bar.update()
        if absent.total():
            tqdm.write(
                f"{split}: {absent['landmarks']} frames without landmarks, {absent['mask']} fakes without a mask"
            )


def open_videos(root, config):
    """The listed videos whose frames are there, and where to read them.

    Args:
      root: Path, DeepfakeBench's folder. config: DfbConfig.

    Returns:
      (list of index.ListedVideo, stores.Store, {code: list of what was left out}).

    Raises:
      PreparedDataError: no JSON, no frames, or listed frames that are not there and the config is not partial.
    """
    path = index.find_json(root, config.dataset, config.compression)
    videos, counts = index.read_json(path, config.dataset, config.compression)
    tqdm.write(f"reading {path}; splits are DeepfakeBench's, each video kept in one: test before train before val")
    if not videos:
        raise PreparedDataError(f"{path} lists no frame; left out: { {code: len(c) for code, c in counts.items()} }")
    probes = [video.frames[0][1] for video in videos]
    folders = sorted({probe.split("/", 1)[0] for probe in probes})
    store = stores.open_lmdb(root, folders, probes) if config.lmdb else stores.open_rgb(root, folders)
    videos += _left_out_reals(videos, counts, store, config)
    there, missing = [], counts.setdefault("missing_listed_file", [])
    for video in tqdm(videos, desc="look for frames", unit="video", mininterval=0.5):
        is_there = [store.has(path) for _, path in video.frames]
        missing += [path for (_, path), here in zip(video.frames, is_there) if not here]
        if any(is_there):
            there.append(video._replace(frames=tuple(itertools.compress(video.frames, is_there))))
    if missing and not config.partial:
        raise PreparedDataError(
            f"{path} lists {len(missing)} frames that are not in {root}: {_first(missing)}. Complete the download, or "
            f"build --config {config.name}_partial without them [missing_listed_file]"
        )
    if not there:
        raise PreparedDataError(f"none of the {len(missing)} frames that {path} lists is in {root}: {_first(missing)}")
    return there, store, counts


def summary(videos, counts):
    """Lines that show what each split holds, and all that was left out."""
    for split in ("train", "validation", "test"):
        mine = [v for v in videos if v.split == split]
        frames = collections.Counter()
        for video in mine:
            frames[video.fields["label"]] += len(video.frames)
        number = collections.Counter(v.fields["label"] for v in mine)
        text = ", ".join(f"{label} {number[label]} videos {frames[label]} frames" for label in sorted(number))
        one = " (one class only: AUC is undefined on it)" if len(number) == 1 else ""
        yield f"{split}: {text or 'no video, the split is left out'}{one}"
    for code, items in counts.items():
        if items:
            yield f"{code}: {len(items)} left out: {_first(items)}"


def encode_frame(store, video, number, path, side):
    """One record, as `features.record_features` encodes it.

    Args:
      store: stores.Store. video: index.ListedVideo. number: of the frame. path: below the root. side: of the image.

    Raises:
      PreparedDataError: the frame, its landmarks or its mask is there and does not decode.
    """
    data = store.read(path)
    if data is None:
        raise PreparedDataError(f"{path}: listed, and not there")
    image = resized_png(data, "RGB", side, path)
    points, mask, has_mask = None, features.empty_mask((side, side)), False
    landmarks_path, mask_path = index.companion(path, "landmarks"), index.companion(path, "masks")
    if landmarks_path and (numbers := store.read(landmarks_path)) is not None:
        points = stores.parse_landmarks(numbers, landmarks_path, bare=store.is_lmdb) * np.float32(side / GRID)
    is_fake = video.fields["label"] == "fake"
    if is_fake and mask_path and (data := store.read(mask_path)) is not None:
        mask, has_mask = resized_png(data, "L", side, mask_path), True
    publishes = video.fields["dataset"] in ("faceforensics", "dfd")
    return {
        "image": image,
        "mask": mask,
        "has_mask": has_mask or (not is_fake and publishes),
        "landmarks": features.NO_LANDMARKS if points is None else from_dlib_order(points),
        "has_landmarks": points is not None,
        "bbox": features.NO_BBOX,
        "align_matrix": features.NO_MATRIX,
        "frame_index": number,
        "num_frames_video": -1,
        "source_path": path,
        **video.fields,
        "attributes": features.attribute_values(video.fields.get("attributes")),
    }


def resized_png(data, mode, side, path):
    """PNG bytes [side, side] of an image file's bytes, kept as they are where they are that already.

    Args:
      data: of a PNG, JPEG, BMP or WebP. mode: "RGB", resized with cubic as DeepfakeBench's loader does; "L", a mask,
        which is 255 wherever any channel of the file is above 1. side: in pixels. path: for messages.

    Raises:
      PreparedDataError: it does not decode, or is over 100 megapixels.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "BMP", "WEBP"]) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise PreparedDataError(f"{path}: {image.width}x{image.height} pixels are no face crop")
            image.load()
            as_it_is = image.format == "PNG" and image.mode == "RGB" and image.size == (side, side)
            array = np.asarray(image if mode == "L" and image.mode == "L" else image.convert("RGB"))
    except PreparedDataError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, PIL.Image.DecompressionBombError) as error:
        raise PreparedDataError(
            f"{path}: not a readable image ({error}; {len(data)} bytes, starting {data[:8]!r}) [corrupt_image]"
        ) from error
    if mode == "RGB" and as_it_is:
        return data
    if mode == "L":
        array = ((array if array.ndim == 2 else array.max(axis=-1)) > 1).astype(np.uint8) * 255
    if array.shape[:2] != (side, side):
        how = cv2.INTER_CUBIC if mode == "RGB" else cv2.INTER_NEAREST
        array = cv2.resize(array, (side, side), interpolation=how)
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _left_out_reals(videos, counts, store, config):
    """Reals of Celeb-DF that the JSON lacks: DeepfakeBench loses one of the two folders from its train split.

    They are prepared and in no list, and the owners' rule is that train is what the test list leaves.
    """
    if not config.dataset.startswith("Celeb-DF-v"):
        return []
    listed, found = {video.stem for video in videos if video.fields["label"] == "real"}, []
    listed |= {name.rsplit("/", 1)[-1] for name in counts["empty_frames"]}
    folder = videos[0].frames[0][1].split("/", 1)[0]
    label = f"CelebDFv{config.dataset[-1]}_real"
    for unit in (f"{folder}/{name}" for name in _CELEB_REALS):
        for stem, paths in sorted(store.list_videos(unit).items()):
            if stem not in listed and paths:
                frames = index.number_frames(paths, f"{unit}/frames/{stem}")
                fields = labels.make_fields(labels.read_label(label), "real", stem, frames[0][1], "none")
                found.append(index.ListedVideo("train", stem, fields, frames))
    if found:
        tqdm.write(f"train: {len(found)} reals that no split lists are added: {_first([v.stem for v in found])}")
    return found


def _first(items):
    return ", ".join(map(str, items[:_SHOWN])) + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")
