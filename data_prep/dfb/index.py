"""Reads a DeepfakeBench data set JSON: which videos it lists, in which split, with which frames.

    {data set: {label name: {"train" | "val" | "test": {[level:] {video: {"label", "frames", ["masks"]}}}}}}

The level is a compression in FaceForensics++'s family and a method among Celeb-DF-v3's fakes.
Source: reference/datasets.md 2.2.
"""

import itertools
import json
import re
from typing import NamedTuple

from data_prep import contents
from data_prep.df40 import names as df40_names
from data_prep.dfb import labels
from data_prep.layout import PreparedDataError

SPLITS = {"test": "test", "train": "train", "val": "validation"}
LEVELS = ("raw", "c0", "c23", "c40")
_JSON_FOLDERS = ("dataset_json", "preprocessing/dataset_json", ".", "*/dataset_json", "*/preprocessing/dataset_json")
_CLUSTER = re.compile(r"deepfakes?_detection_datasets")
_DRIVE = re.compile(r"^[A-Za-z]:")
_ROOP = re.compile(r"(.+)_(ff|cdf)")


class ListedVideo(NamedTuple):
    """A video of a JSON. split: TFDS split. stem: its name. fields: what its records share.

    frames: ((frame number, path below the root), ...) by number; empty where the JSON lists none.
    """

    split: str
    stem: str
    fields: dict
    frames: tuple


def find_json(root, dataset, compression):
    """Path of the JSON of a data set: `<name>_c40.json` or, where that is not there, `<name>.json` with its c40 level.

    Raises:
      PreparedDataError: it is in none of the places, or in several.
    """
    stems = [f"{dataset}_{compression}", dataset] if compression not in ("c23", "none") else [dataset]
    for stem in stems:
        found = sorted({path for folder in _JSON_FOLDERS for path in contents.matching(root, f"{folder}/{stem}.json")})
        if len(found) > 1:
            raise PreparedDataError(f"several {stem}.json: {', '.join(map(str, found))}; keep the one of these frames")
        if found:
            return found[0]
    places = ", ".join(f"{root}/{folder}" for folder in _JSON_FOLDERS[:3])
    raise PreparedDataError(
        f"no {' and no '.join(f'{stem}.json' for stem in stems)} in {places}: manual_dir is the folder that holds "
        "dataset_json/ (DeepfakeBench's rearrange.py writes it) and rgb/ or datasets/rgb/, or the *_lmdb folders"
    )


def read_json(path, dataset, compression):
    """The videos that a JSON lists.

    Args:
      path: of the JSON. dataset: key at its top. compression: which level to take where there is one.

    Returns:
      (list of ListedVideo in the order test, train, validation, reals first, then by method and name;
      {code: list of what was left out}): malformed_entry, empty_frames, split_overlap.

    Raises:
      PreparedDataError: not such a JSON; an unknown label, split or compression; a label that an entry contradicts.
    """
    tree = _load(path)
    if dataset not in tree and len(tree) != 1:
        raise PreparedDataError(f"{path}: expected the key {dataset!r} at the top, got {', '.join(map(str, tree))}")
    by_label = _mapping(tree.get(dataset, next(iter(tree.values()))), f"{path}: {dataset}")
    videos, counts = [], {"malformed_entry": [], "empty_frames": [], "split_overlap": []}
    for label, by_split in by_label.items():
        meaning = labels.read_label(label)
        for split, listed in _mapping(by_split, f"{path}: {label}").items():
            if split not in SPLITS:
                raise PreparedDataError(f"{path}: {label} has the split {split!r}; there are {', '.join(SPLITS)}")
            where = f"{label}/{split}"
            listed = _mapping(listed, f"{path}: {where}")
            for level, name, entry in _entries(listed, where, counts, path, compression):
                _check_label(path, f"{where}/{name}", entry, label)
                stem = re.split(r"[\\/]", name)[-1]
                frames = _frames(entry["frames"], dataset, f"{path}: {where}/{name}")
                if not frames:
                    counts["empty_frames"].append(f"{where}/{name}")
                    continue
                method = meaning.method or _method(dataset, level, frames, f"{path}: {where}/{name}")
                if not stem:
                    raise PreparedDataError(f"{path}: {where} has a video without a name, {name!r}")
                fields = labels.make_fields(meaning, method, stem, frames[0][1], _compression(level))
                videos.append(ListedVideo(SPLITS[split], stem, fields, frames))
    order = list(SPLITS.values())
    videos.sort(
        key=lambda v: (order.index(v.split), v.fields["label"] == "fake", v.fields["method"], v.fields["video_id"])
    )
    return _one_split_each(videos, counts["split_overlap"], path), counts


def normalise(path, dataset):
    """A frame's path of a JSON as a path below the root, forward slashes, or None where it leads out of it.

    Takes what DeepfakeBench and DF40 publish: absolute paths of any disk, `./datasets\\...`, and relative ones, with
    either separator. What stands before the data set's folder is dropped.
    """
    parts = [part for part in _DRIVE.sub("", path.replace("\\", "/")).split("/") if part not in ("", ".")]
    cluster = [i for i, part in enumerate(parts) if _CLUSTER.fullmatch(part)]
    # FaceForensics++ has folders of methods by the names of its family. Celeb-DF-v3 has a folder FaceSwap/Celeb-DF-v2
    # for the fakes of v2.
    names = {*labels.FOLDERS} if dataset in labels.FF_FAMILY else {*labels.FOLDERS, dataset}
    folder = [i for i, part in enumerate(parts) if part in names and parts[max(i - 1, 0)] != "FaceSwap"]
    if cluster:
        parts = parts[cluster[-1] + 1 :]
    elif folder:
        parts = parts[folder[-1] :]
    elif parts[:2] == ["datasets", "rgb"]:
        parts = parts[2:]
    elif parts[:1] == ["datasets"]:
        parts = parts[1:]
    return None if ".." in parts or len(parts) < 2 else "/".join(parts)


def companion(path, kind):
    """Path of a frame's mask or landmarks: the last folder named `frames` (or `frames_all`) becomes `kind`.

    Args:
      path: of the frame. kind: "masks" or "landmarks".

    Returns:
      path, or None where no folder is named so.
    """
    parts = path.split("/")
    at = [i for i, part in enumerate(parts[:-1]) if part in ("frames", "frames_all")]
    if not at:
        return None
    parts[at[-1]] = kind
    if kind == "landmarks":
        parts[-1] = parts[-1].rsplit(".", 1)[0] + ".npy"
    return "/".join(parts)


def number_frames(paths, where):
    """((frame number, path), ...) by number: by name, 1000 would come before 999.

    Names that are no numbers are counted off in their order. Raises PreparedDataError where two have one number.
    """
    paths = sorted(set(paths))
    stems = [path.rsplit("/", 1)[-1].rsplit(".", 1)[0] for path in paths]
    numbers = (
        [int(stem) for stem in stems] if all(re.fullmatch(r"\d{1,9}", stem) for stem in stems) else range(len(paths))
    )
    frames = sorted(zip(numbers, paths))
    for (a, first), (b, second) in itertools.pairwise(frames):
        if a == b:
            raise PreparedDataError(f"{where}: {first} and {second} are the same frame")
    return tuple(frames)


def _load(path):
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PreparedDataError(f"{path}: not JSON ({error})") from error
    if not isinstance(tree, dict) or not tree:
        raise PreparedDataError(f"{path}: expected {{data set: {{label: {{split: videos}}}}}}, got {str(tree)[:80]}")
    return tree


def _mapping(value, where):
    if not isinstance(value, dict):
        raise PreparedDataError(f"{where}: expected an object, got {str(value)[:80]}")
    return value


def _entries(listed, where, counts, path, compression):
    """Yields (level, video name, entry); counts what is neither an entry nor a level of entries."""
    levels = [key for key in listed if key in LEVELS]
    if levels:
        wanted = ("raw", "c0") if compression == "raw" else (compression,)
        taken = [level for level in levels if level in wanted]
        if not taken:
            raise PreparedDataError(f"{path}: {where} has no {compression}; it has {', '.join(levels)}")
        listed = {taken[0]: listed[taken[0]]}
    for key, value in listed.items():
        if not contents.is_listed(key):
            continue
        if _is_entry(value):
            yield "", key, value
        elif isinstance(value, dict) and "frames" not in value and (value or key in LEVELS):
            for name, entry in value.items():
                if not contents.is_listed(name):
                    continue
                if _is_entry(entry):
                    yield key, name, entry
                else:
                    counts["malformed_entry"].append(f"{where}/{key}/{name}")
        else:
            # DeepfakeBench writes DFDC's `val` as {"label": ..., "frames": ...} of one video.
            counts["malformed_entry"].append(f"{where}/{key}")


def _is_entry(value):
    return (
        isinstance(value, dict)
        and isinstance(value.get("frames"), list)
        and all(isinstance(frame, str) for frame in value["frames"])
    )


def _check_label(path, where, entry, label):
    own = entry.get("label", label)
    if not isinstance(own, str) or (labels.read_label(own).method == "real") != (
        labels.read_label(label).method == "real"
    ):
        raise PreparedDataError(f"{path}: {where} stands under {label} and says {own!r} [label_conflict]")


def _frames(paths, dataset, where):
    paths = [path for path in paths if contents.is_listed(path)]
    found = [normalise(path, dataset) for path in paths]
    if None in found:
        raise PreparedDataError(f"{where}: {paths[found.index(None)]!r} is no path below the data set's folder")
    return number_frames(found, where)


def _method(dataset, level, frames, where):
    """The method that a label does not tell: of the level, of the file's name, or of the folder."""
    file = _ROOP.fullmatch(dataset)
    method = labels.celeb_method(level) if level and level not in LEVELS else None
    method = method or (df40_names.method_of(file[1]) if file else None)
    method = method or labels.method_of_path(frames[0][1].split("/"))
    if method is None:
        raise PreparedDataError(f"{where}: no method known by {level or frames[0][1]!r}{df40_names.nearest(level)}")
    return method


def _compression(level):
    return {"c0": "raw", "raw": "raw", "c23": "c23", "c40": "c40"}.get(level, "none")


def _one_split_each(videos, overlap, path):
    """Each video in one split, test before train before validation: DeepfakeBench leaves test videos in the others."""
    seen = {}
    for video in videos:
        key = video.fields["video_id"]
        if key not in seen:
            seen[key] = video
        elif seen[key].split == video.split:
            raise PreparedDataError(f"{path}: {key} stands twice in {video.split} [duplicate_key]")
        else:
            overlap.append(f"{video.split}/{key}")
    return list(seen.values())
