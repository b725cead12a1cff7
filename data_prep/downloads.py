"""Which videos a downloaded data set holds, and which its lists say it should. Nothing is decoded here."""

import dataclasses
import difflib
import json
import pathlib
import re

COMPRESSIONS = ("raw", "c23", "c40")
SPLITS = ("train", "val", "test")
# Folder under manipulated_sequences -> method in data/schema.py. The order is that of the work.
METHOD_FOLDERS = {
    "Deepfakes": "deepfakes",
    "Face2Face": "face2face",
    "FaceSwap": "faceswap",
    "NeuralTextures": "neuraltextures",
    "FaceShifter": "faceshifter",
    "ToySwap": "toy_swap",
    "ToyReenact": "toy_reenact",
    "ToyNeural": "toy_neural",
    "ToyTexture": "toy_texture",
}
# Their owners publish no masks, so that none is missing.
_WITHOUT_MASKS = ("faceshifter",)
_REAL_FOLDER = "original_sequences/youtube"
_FAKE_FOLDER = "manipulated_sequences"
_SHOWN = 5


class DownloadError(ValueError):
    """The folder cannot be worked on as it is; the message says what is missing and what to do."""


@dataclasses.dataclass(frozen=True)
class Video:
    """One video to prepare.

    Attributes:
      path: absolute path of the video file.
      relative: its path under the root, with forward slashes.
      unit: folder, relative to root and output, that gets frames/, landmarks/, masks/ and meta/.
      stem: name without suffix.
      split: "train", "val" or "test".
      method: method in data/schema.py, "real" for reals.
      mask: absolute path of the mask video, or None.
    """

    path: str
    relative: str
    unit: str
    stem: str
    split: str
    method: str
    mask: str | None


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something found wrong before decoding: a code, a path relative to the root, and a line of detail."""

    code: str
    path: str
    detail: str


def find_faceforensics(root, *, compression, methods=None, splits=SPLITS, allow_missing=False, mask_root=None):
    """The videos of FaceForensics++ (Roessler et al., ICCV 2019) in its official layout.

    A pair [a, b] of a split list puts the reals a and b and the fakes a_b and b_a of every method into that
    split.

    Args:
      root: folder with original_sequences/, manipulated_sequences/ and {train,val,test}.json.
      compression: "raw", "c23" or "c40"; a folder c0 is taken for raw.
      methods: folders under manipulated_sequences, None for all that are there and known.
      splits: which lists to work on.
      allow_missing: whether listed videos may be absent.
      mask_root: folder that holds manipulated_sequences/<method>/masks/videos, None for `root`.

    Returns:
      list of `Video`, list of `Problem` (missing_listed_file, unlisted_file, name_unparsed, mask_missing,
      unknown_method, compression_alias).

    Raises:
      DownloadError: the root, a list or a method's folder is missing or malformed, listed videos are missing,
        or there is no video.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DownloadError(f"no folder {root} [missing_root]")
    _check_names(splits, SPLITS, "split")
    if not (root / _REAL_FOLDER).is_dir() and not (root / _FAKE_FOLDER).is_dir():
        nested = root / "FaceForensics++"
        hint = f"; did you mean --root '{nested}'?" if nested.is_dir() else ""
        raise DownloadError(f"no {_REAL_FOLDER}/ and no {_FAKE_FOLDER}/ in {root} [missing_root]{hint}")
    lists = _read_split_lists(root, splits)
    problems = []
    folders = {"real": _REAL_FOLDER}
    folders |= {METHOD_FOLDERS[m]: f"{_FAKE_FOLDER}/{m}" for m in _method_folders(root, methods, problems)}
    split_of = {name: split for split, pairs in lists.items() for name in _names(pairs)}
    videos, missing = [], []
    for method, folder in folders.items():
        source = _compression_folder(root / folder, compression, problems, root)
        present = _stems(source, method, split_of, lists, root, problems)
        listed = sorted(n for n, split in split_of.items() if split in splits and ("_" in n) == (method != "real"))
        for stem in listed:
            if stem not in present:
                missing.append(f"{folder}/{compression}/videos/{stem}.mp4")
                continue
            mask = _mask(root if mask_root is None else pathlib.Path(mask_root), folder, stem, method, problems)
            relative = (source / "videos" / f"{stem}.mp4").relative_to(root).as_posix()
            path = str(present[stem].resolve())
            unit = f"{folder}/{compression}"
            videos.append(Video(path, relative, unit, stem, split_of[stem], method, mask))
    if not videos:
        raise DownloadError(f"no video of the lists in {root} at compression {compression} (of {len(missing)} listed)")
    if missing and not allow_missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise DownloadError(
            f"the split lists name {len(missing)} videos that are not in {root}: {shown}; "
            "download them, or pass --allow_missing [missing_listed_file]"
        )
    problems += [Problem("missing_listed_file", path, "listed, but not there") for path in missing]
    return videos, problems


LAYOUTS = {"faceforensics": find_faceforensics}


def _check_names(given, allowed, what):
    for name in given:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.4)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise DownloadError(f"unknown {what} {name!r}; there are {', '.join(allowed)}{hint}")


def _read_split_lists(root, splits):
    """Split -> list of (id, id), for every list that is there; those asked for must be."""
    lists, owner = {}, {}
    for split in SPLITS:
        path = root / f"{split}.json"
        if not path.is_file():
            if split in splits:
                raise DownloadError(
                    f"no split list {path}: it comes from dataset/splits/ of the FaceForensics repository, "
                    "not with the videos [missing_list]"
                )
            continue
        try:
            pairs = json.loads(path.read_text())
        except ValueError as error:
            raise DownloadError(f"{path} is not JSON ({error})") from error
        if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
            raise DownloadError(f'{path} must be a list of pairs of three-digit strings such as ["071", "054"]')
        lists[split] = [tuple(pair) for pair in pairs]
        for name in {name for pair in lists[split] for name in pair}:
            if owner.setdefault(name, split) != split:
                raise DownloadError(f"id {name} stands in both {owner[name]}.json and {split}.json of {root}")
    return lists


def _is_pair(pair):
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(name, str) and re.fullmatch(r"\d{3}", name) for name in pair)
    )


def _names(pairs):
    """Stems of reals and fakes that the pairs of one list stand for."""
    for a, b in pairs:
        yield from (a, b, f"{a}_{b}", f"{b}_{a}")


def _method_folders(root, methods, problems):
    base = root / _FAKE_FOLDER
    there = sorted(p.name for p in base.iterdir() if p.is_dir()) if base.is_dir() else []
    if methods is not None:
        _check_names(methods, tuple(METHOD_FOLDERS), "method")
        for name in methods:
            if name not in there:
                raise DownloadError(f"no folder {base / name}; there are {', '.join(there) or 'none'}")
        return [name for name in METHOD_FOLDERS if name in methods]
    for name in there:
        if name not in METHOD_FOLDERS:
            problems.append(
                Problem("unknown_method", f"{_FAKE_FOLDER}/{name}", "not a method of this layout; left out")
            )
    return [name for name in METHOD_FOLDERS if name in there]


def _compression_folder(folder, compression, problems, root):
    if compression == "raw" and not (folder / "raw").is_dir() and (folder / "c0").is_dir():
        relative = (folder / "c0").relative_to(root).as_posix()
        problems.append(Problem("compression_alias", relative, "c0 is taken for raw"))
        return folder / "c0"
    return folder / compression


def _stems(source, method, split_of, lists, root, problems):
    """Stem -> path of the videos there; names that no list covers are problems."""
    pattern = r"\d{3}" if method == "real" else r"\d{3}_\d{3}"
    present = {}
    for path in sorted((source / "videos").glob("*.mp4")):
        relative = path.relative_to(root).as_posix()
        if not re.fullmatch(pattern, path.stem):
            expected = "NNN.mp4" if method == "real" else "NNN_NNN.mp4"
            problems.append(Problem("name_unparsed", relative, f"expected a name like {expected}"))
        elif path.stem in split_of:
            present[path.stem] = path
        elif len(lists) == len(SPLITS):  # where a list is absent, its videos cannot be told from strays
            problems.append(Problem("unlisted_file", relative, "in none of train.json, val.json and test.json"))
    return present


def _mask(mask_root, folder, stem, method, problems):
    if method == "real" or method in _WITHOUT_MASKS:
        return None
    path = mask_root / folder / "masks" / "videos" / f"{stem}.mp4"
    if path.is_file():
        return str(path.resolve())
    problems.append(Problem("mask_missing", f"{folder}/masks/videos/{stem}.mp4", "no mask video for this fake"))
    return None
