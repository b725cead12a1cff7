"""Writes a prepared data set as DeepfakeBench reads it: its data set JSON, with rgb folders or an LMDB environment.

    OUT/dataset_json/<name>.json
    OUT/rgb/<folder>/<unit>/{frames,landmarks,masks}/<video>/...      or OUT/lmdb/<folder>_lmdb/

Source of what its loader and its video scores do: reference/datasets.md 2.1-2.4 and, at commit 8a4a7bf of
SCLBD/DeepfakeBench, training/dataset/abstract_dataset.py, training/metrics/utils.py, preprocessing/rearrange.py.
"""

import collections
import concurrent.futures
import hashlib
import io
import json
import os
import pathlib
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data_prep import contents, features, layout
from data_prep.dfb import labels
from data_prep.layout import PreparedDataError
from msddf_jax.faces.landmarks import to_dlib_order

# Side of its crops, whose pixels landmarks count in.
GRID = 256
SPLITS = {"train": "train", "validation": "val", "test": "test", "all": "test"}
# Names that its loader takes with `_c40` behind, from a file named so; of the others it takes the level by its config.
_NAMED_C40 = ("FaceForensics++", "FF-DF", "FF-F2F", "FF-FS", "FF-NT")
# It joins its rgb_dir to a path with a backslash, which is a folder on Windows alone, but not to one that starts so.
_RGB = "./datasets/rgb/"
# Videos of one LMDB transaction: each is written through to the disk.
_AT_ONCE = 64
_LONGEST = 120
_THREADS = 4


class Target(NamedTuple):
    """Where a set goes. name: key of the JSON. folder: below rgb/, and of the LMDB. level: "" or of compression.

    is_known: whether it is one that DeepfakeBench has, with its names of labels, units and videos.
    """

    name: str
    folder: str
    level: str
    is_known: bool


class Placed(NamedTuple):
    """A video and its place. level: of compression or, of Celeb-DF++'s fakes, of method; "" for none.

    key: in the JSON. unit, stem: `<unit>/frames/<stem>` below rgb/.
    """

    split: str
    label: str
    level: str
    key: str
    unit: str
    stem: str
    video: layout.Video


def write(builder, manual_dir, out, *, lmdb=False, overwrite=False):
    """Write one config of a data set for DeepfakeBench, and print how to use it there.

    Args:
      builder: prepared.PreparedBuilder of the config. manual_dir: prepared data. out: folder to write to.
      lmdb: write an LMDB environment in place of rgb folders. overwrite: replace what is there and other.

    Returns:
      Path of the JSON, which is written last. Frames are hard links to the prepared ones, or copies on another disk.

    Raises:
      PreparedDataError: a config of clips; splits or names that cannot be written; what is there and other; the package
        lmdb is not installed. OSError: `out` cannot be written.
    """
    config, out = builder.builder_config, pathlib.Path(out)
    if config.clip_length:
        raise PreparedDataError(
            f"config {config.name} is of clips; DeepfakeBench makes its own of frames: take "
            f"{config.name.removesuffix(f'_clip{config.clip_length}')}"
        )
    found = builder._find_videos(pathlib.Path(manual_dir))
    odd = sorted(set(found) - set(SPLITS))
    if odd:
        raise PreparedDataError(f"split {', '.join(odd)}: DeepfakeBench has {', '.join(SPLITS.values())} alone")
    listed = [(SPLITS[split], line, video) for split, videos in found.items() for line, video in videos]
    target = find_target(builder.name, config, [line for _, line, _ in listed])
    placed = place_videos(target, listed)
    names = labels.JSON_LABELS[target.name] if target.is_known else labels.own_labels(target.name)
    spell = (lambda path: path.replace("/", "\\")) if lmdb else (lambda path: _RGB + path)
    tree = make_tree(placed, names, target.level, spell)
    stem = f"{target.name}_c40" if target.level == "c40" and target.name in _NAMED_C40 else target.name
    path = out / "dataset_json" / f"{stem}.json"
    tree = add_level(path, target, tree, overwrite=overwrite)
    if lmdb:
        _write_lmdb(placed, out / "lmdb", target, stem, overwrite)
    else:
        _write_rgb(placed, out / "rgb", overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({target.name: tree}), encoding="utf-8")
    part.replace(path)
    for text in _summary(placed, target, path, stem, lmdb):
        print(text)
    return path


def find_target(dataset, config, lines):
    """Which of DeepfakeBench's data sets a config is, or a name of its own: a user's, or `<dataset>-<config>`.

    Args:
      dataset: name of the builder. config: prepared.PreparedConfig. lines: of the catalog.

    Raises:
      PreparedDataError: a user's name that is one of DeepfakeBench's or DF40's.
    """
    name = labels.json_name(dataset, config)
    if name is None:
        name = config.name if dataset == "folder" else f"{dataset}-{config.name}"
        if name in (*labels.FF_FAMILY, *labels.OTHERS, *labels.DF40) or labels.own_labels(name)[0] in labels.LABELS:
            raise PreparedDataError(f"{name} is a name of DeepfakeBench or DF40: prepare it with another --name")
        return Target(name, name, "", False)
    family = name in labels.FF_FAMILY
    return Target(
        name, "FaceForensics++" if family else name, lines[0]["fields"]["compression"] if family else "", True
    )


def place_videos(target, listed):
    """The videos with label, split, key and place.

    Its loader finds masks and landmarks by putting their names for every `frames` of a path, and its video scores take
    frames for one video whose folders have one name. In sets that are its own, names are those it gives.

    Args:
      target: Target. listed: (split of its, line of the catalog, layout.Video) of each.

    Raises:
      PreparedDataError: a name with `frames` in a set of its own, or two videos in one place.
    """
    own_unit = os.path.commonpath([line["unit"] for _, line, _ in listed])
    placed, taken = [], {}
    for split, line, video in listed:
        method, parts = line["fields"]["method"], line["unit"].split("/")
        if target.is_known:
            label, stem = labels.label_of(target.name, method), line["stem"]
            unit = "/".join([target.folder, *parts[parts[0] in labels.FOLDERS :]])
        else:
            label = labels.own_labels(target.name)[method != "real"]
            unit = f"{target.folder}/{line['fields']['label']}"
            stem = _one_name([*parts[len(own_unit.split("/")) if own_unit else 0 :], line["stem"]])
        of_method = target.name == "Celeb-DF-v3" and method != "real"
        level = parts[-1] if of_method else target.level
        key = stem if (label, split, level, stem) not in taken else f"{unit}/{stem}"
        if "frames" in f"{unit}/{stem}":
            raise PreparedDataError(f"{unit}/{stem}: its loader takes every `frames` in a path for the folder's name")
        for at in ((label, split, level, key), (unit, stem)):
            if at in taken:
                raise PreparedDataError(f"{taken[at]} and {line['unit']}/{line['stem']} would both be {unit}/{stem}")
            taken[at] = f"{line['unit']}/{line['stem']}"
        placed.append(Placed(split, label, level, key, unit, stem, video))
    return placed


def make_tree(placed, names, level, spell):
    """{label: {split: {[level:] {video: {"label", "frames", ["masks"]}}}}}.

    Args:
      placed: list of Placed. names: labels, each of which is there with every split: its loader asks for all.
      level: of compression, "" for none. spell: function of a path below rgb/.
    """
    tree = {label: {split: {level: {}} if level else {} for split in ("train", "val", "test")} for label in names}
    for one in placed:
        entry = {"label": one.label, "frames": [spell(_path(one, "frames", files)) for files in one.video.frames]}
        masks = [spell(_path(one, "masks", files)) for files in one.video.frames if files.mask is not None]
        videos = tree[one.label][one.split]
        videos = videos.setdefault(one.level, {}) if one.level else videos
        videos[one.key] = entry | ({"masks": masks} if masks else {})
    return tree


def add_level(path, target, tree, *, overwrite):
    """The tree with the other levels of compression that the file has, where there is one.

    Raises:
      PreparedDataError: a file that has this level, or that is not of FaceForensics++'s family, without `overwrite`; or
        one that is no such JSON.
    """
    if not path.exists() or (overwrite and not target.level):
        return tree
    try:
        there = json.loads(path.read_bytes())[target.name]
        levels = {level for by_split in there.values() for videos in by_split.values() for level in videos}
        if not overwrite and (not target.level or target.level in levels):
            raise PreparedDataError(f"{path} is there already: --overwrite writes it again")
        for label, by_split in there.items():
            for split, videos in by_split.items():
                mine = tree.setdefault(label, {}).setdefault(split, {})
                mine |= {level: listed for level, listed in videos.items() if level != target.level}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, PreparedDataError):
            raise
        raise PreparedDataError(f"{path} is there and no JSON of {target.name} ({error!r}): move it away") from error
    return tree


def _write_rgb(placed, base, overwrite):
    put = lambda one: sum(_put(*file, base, overwrite) for file in _read_files(one, as_lmdb=False))
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        copied = sum(tqdm(pool.map(put, placed), total=len(placed), desc="write rgb", unit="video", mininterval=0.5))
    if copied:
        print(f"{copied} files are copies: hard links to the prepared ones could not be made in {base}")


def _put(path, source, data, base, overwrite):
    """Whether a file was copied; else it is a hard link, there already, or made here."""
    path = base / path
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if path.read_bytes() == data:
            return False
        if not overwrite:
            raise PreparedDataError(f"{path} is there already, and other: --overwrite replaces it")
        path.unlink()
    try:
        if source is not None:
            os.link(source, path)
            return False
    except OSError:  # another disk, or a file system without links
        path.write_bytes(data)
        return True
    path.write_bytes(data)
    return False


def _write_lmdb(placed, base, target, stem, overwrite):
    try:
        import lmdb  # nothing else here needs it
    except ImportError as error:
        raise PreparedDataError("LMDB files need the package lmdb: pip install lmdb") from error
    folder = base / f"{target.folder}_lmdb"
    folder.mkdir(parents=True, exist_ok=True)
    there, outside = folder / "data.mdb", 0
    read = lambda one: list(_read_files(one, as_lmdb=True))
    try:
        with (
            lmdb.open(str(folder), map_size=(there.stat().st_size if there.exists() else 0) + _pages(placed)) as env,
            concurrent.futures.ThreadPoolExecutor(_THREADS) as pool,
            tqdm(total=len(placed), desc="write lmdb", unit="video", mininterval=0.5) as bar,
        ):
            for start in range(0, len(placed), _AT_ONCE):
                with env.begin(write=True) as transaction:
                    for files in pool.map(read, placed[start : start + _AT_ONCE]):
                        outside += sum(
                            _put_value(transaction, path, data, folder, overwrite) for path, _, data in files
                        )
                        bar.update()
    except lmdb.Error as error:
        raise OSError(f"{folder}: {error}") from error
    if stem != target.name and not (base / f"{stem}_lmdb").exists():
        # Its loader takes the environment of the name with `_c40`.
        (base / f"{stem}_lmdb").symlink_to(folder.name, target_is_directory=True)
    if outside:
        print(
            f"{outside} frames have landmarks left of or above the crop: negative numbers, which DeepfakeBench's "
            "loader takes for huge ones where it reads LMDB, of its own files too; from rgb folders it reads them right"
        )


def _pages(placed):
    """Bytes that the videos may take in an environment, each value whole pages of 4096; the file grows as it fills."""
    sources = (source for one in placed for files in one.video.frames for source in files[1:] if source is not None)
    return sum(source.stat().st_size // 4096 + 2 for source in sources) * 4096 + (1 << 24)


def _put_value(transaction, path, data, folder, overwrite):
    """Whether it is landmarks with a negative number."""
    key = path.replace("/", "\\").encode()
    if not transaction.put(key, data, overwrite=overwrite) and transaction.get(key) != data:
        raise PreparedDataError(f"{folder} has another {path}: --overwrite replaces it")
    return path.endswith(".npy") and np.frombuffer(data, "<i4").min() < 0


def _read_files(one, *, as_lmdb):
    """Yields (path below rgb/, prepared file, bytes) of a video, checked: its loader takes another for a damaged frame.

    The file is None where the bytes are not the file's: landmarks count in crops of `GRID` pixels there, and are int32
    in LMDB, which its loader expects.

    Raises:
      PreparedDataError: a file is missing, corrupt, or of another size or shape.
    """
    for files in one.video.frames:
        data, size = features.read_png(files.image, "RGB")
        yield _path(one, "frames", files), files.image, data
        if files.mask is not None:
            if features.read_png(files.mask, "L")[1] != size:
                raise PreparedDataError(f"{files.mask}: the mask is of another size than {files.image}")
            yield _path(one, "masks", files), files.mask, files.mask.read_bytes()
        if files.landmarks is not None:
            points = to_dlib_order(features.read_landmarks(files.landmarks)) * np.float32(
                [GRID / size[1], GRID / size[0]]
            )
            if as_lmdb:
                source, data = None, np.rint(points).astype("<i4").tobytes()
            elif size == (GRID, GRID):
                source, data = files.landmarks, files.landmarks.read_bytes()
            else:
                source, data = None, _npy(points)
            yield _path(one, "landmarks", files), source, data


def _npy(points):
    buffer = io.BytesIO()
    np.save(buffer, points)
    return buffer.getvalue()


def _path(one, kind, files):
    return f"{one.unit}/{kind}/{one.stem}/{files.image.stem}{'.npy' if kind == 'landmarks' else '.png'}"


def _one_name(parts):
    """One folder's name of a path: of its parts, cut with a hash where it is long, without "frames" and backslashes."""
    name = "__".join(parts)
    if len(name) > _LONGEST or "\\" in name:
        name = f"{name[: _LONGEST - 16]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}".replace("\\", "_")
    return name.replace("frames", "Frames")


def _summary(placed, target, path, stem, lmdb):
    """Lines that show what was written, and what there is to do in DeepfakeBench."""
    for split in ("train", "val", "test"):
        counts = collections.Counter(one.label for one in placed if one.split == split)
        frames = collections.Counter()
        for one in placed:
            frames[one.label] += len(one.video.frames) * (one.split == split)
        text = ", ".join(f"{label} {n} videos {frames[label]} frames" for label, n in sorted(counts.items()))
        yield f"{stem} {split}: {text or 'no video'}"
    bare = sum(files.landmarks is None for one in placed for files in one.video.frames)
    if bare:
        yield f"{bare} frames have no landmarks: its loader takes zeros for them, and from LMDB it fails"
    out = contents.shown(path.parents[1].absolute())
    yield f"wrote {path}; in DeepfakeBench's config: dataset_json_folder: '{out}/dataset_json'"
    if lmdb:
        yield f"  lmdb: True, lmdb_dir: '{out}/lmdb'"
    else:
        yield f"  lmdb: False, and in its folder: mkdir -p datasets && ln -s '{out}/rgb' datasets/rgb"
    if target.level:
        yield f"  compression: {target.level}" if stem == target.name else f"  the data set's name there is {stem}"
    if target.name == "Celeb-DF-v3":
        yield "  its own loader knows no level of methods: that of Celeb-DF++ does, or write one pp_<family>_<method>"
    if not all(name in labels.LABELS for name in {one.label for one in placed}) or target.name == "Celeb-DF-v3":
        yield "  label_dict in training/config/{train,test}_config.yaml, and in the detector's if it has one, gets:"
        for name in labels.JSON_LABELS[target.name] if target.is_known else labels.own_labels(target.name):
            yield f"    {name}: {int(not name.lower().endswith('_real'))}"
