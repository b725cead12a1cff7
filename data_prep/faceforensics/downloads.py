"""Which videos a FaceForensics++ download holds, and which its split lists say it should. Nothing is decoded here."""

import json
import pathlib
import re

from data_prep import attributes, catalog, contents
from data_prep.catalog import DownloadError, Entry, Problem

CONFIGS = ("c23", "c40", "raw")
DEFAULT_CONFIG = "c23"
# Files of the root, or of --lists, that go with the crops: the builder asks them whether all is there.
LISTS = ("train.json", "val.json", "test.json")
# Split list -> TFDS split.
SPLITS = {"train": "train", "val": "validation", "test": "test"}
# Folder under manipulated_sequences -> method in data/schema.py. The order is that of the work.
METHOD_FOLDERS = {
    "Deepfakes": "deepfakes",
    "Face2Face": "face2face",
    "FaceSwap": "faceswap",
    "NeuralTextures": "neuraltextures",
    "FaceShifter": "faceshifter",
}
TOY_FOLDERS = {
    "ToySwap": "toy_swap",
    "ToyReenact": "toy_reenact",
    "ToyNeural": "toy_neural",
    "ToyTexture": "toy_texture",
}
# Their owners publish no masks, so that none is missing.
_WITHOUT_MASKS = ("faceshifter",)
_REAL_FOLDER = "original_sequences/youtube"
_FAKE_FOLDER = "manipulated_sequences"


def find(root, config, options):
    """The videos of FaceForensics++ (Roessler et al., ICCV 2019) in its official layout.

    A pair [a, b] of a split list puts the reals a and b and the fakes a_b and b_a of every method into that split. The
    embedded set has the same layout and other methods, by which it is told.

    Args:
      root: folder with original_sequences/, manipulated_sequences/ and {train,val,test}.json.
      config: the compression, "c23", "c40" or "raw" (a folder c0 is taken for it).
      options: `catalog.Options`; methods are folders under manipulated_sequences or names of the schema, splits those
        of TFDS or of the lists.

    Returns:
      list of `Entry`, list of `Problem` (missing_listed_file, unlisted_file, name_unparsed, mask_missing,
      unknown_method, compression_alias).

    Raises:
      DownloadError: the root, a list or a method's folder is missing or malformed, listed videos are missing, there is
        no video, or the embedded set's methods are beside those of FaceForensics++.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise DownloadError(f"no folder {root} [missing_root]")
    splits = _asked_splits(options.splits)
    if not (root / _REAL_FOLDER).is_dir() and not (root / _FAKE_FOLDER).is_dir():
        nested = root / "FaceForensics++"
        hint = f"; did you mean --root '{nested}'?" if nested.is_dir() else ""
        raise DownloadError(f"no {_REAL_FOLDER}/ and no {_FAKE_FOLDER}/ in {root} [missing_root]{hint}")
    problems = []
    known = METHOD_FOLDERS | TOY_FOLDERS
    folders = _method_folders(root, known, options.methods, problems)
    # The embedded set's people are not those of FaceForensics++.
    is_toy = bool(folders) and folders[-1] in TOY_FOLDERS
    if is_toy and folders[0] in METHOD_FOLDERS:
        raise DownloadError(f"{root / _FAKE_FOLDER} holds {folders[0]} and {folders[-1]}, of two data sets: keep one")
    lists_root = root if options.lists is None else pathlib.Path(options.lists)
    lists = read_split_lists(lists_root, splits)
    youtube = _read_youtube_ids(lists_root / "conversion_dict.json", lists)
    split_of = {name: split for split, pairs in lists.items() for name in _names(pairs)}
    mask_root = root if options.mask_root is None else pathlib.Path(options.mask_root)
    entries, missing = [], []
    for folder in (_REAL_FOLDER, *(f"{_FAKE_FOLDER}/{name}" for name in folders)):
        method = "real" if folder == _REAL_FOLDER else known[pathlib.PurePosixPath(folder).name]
        source = _compression_folder(root, folder, config, problems)
        present = _stems(source, method, split_of, lists, root, problems)
        for stem in sorted(n for n, s in split_of.items() if s in splits and ("_" in n) == (method != "real")):
            if stem not in present:
                missing.append(f"{folder}/{config}/videos/{stem}.mp4")
                continue
            entries.append(
                Entry(
                    kind="video",
                    path=present[stem].relative_to(root).as_posix(),
                    unit=f"{folder}/{config}",
                    stem=stem,
                    split=SPLITS[split_of[stem]],
                    fields=_fields(stem, method, config, is_toy, youtube),
                    mask=_mask(mask_root, folder, stem, method, problems),
                    publishes_masks=True,
                    root=str(root.resolve()),
                )
            )
    if not entries:
        raise DownloadError(f"no video of the lists in {root} at compression {config} (of {len(missing)} listed)")
    catalog.missing_files(missing, options, root, problems)
    order = list(SPLITS.values())
    entries.sort(key=lambda entry: order.index(entry.split))  # stable: reals first, then by method and name
    return entries, problems


def _fields(stem, method, compression, is_toy, youtube):
    target, _, source = stem.partition("_")
    space = "toy" if is_toy else "ff"
    return catalog.make_fields(
        "toy" if is_toy else "faceforensics",
        method,
        stem if method == "real" else f"{method}/{stem}",
        pair_id="" if method == "real" else target,
        group_id=youtube.get(target, target),
        source=f"{space}:{source or target}",
        target=f"{space}:{target}",
        compression=compression,
        attributes=attributes.of_method(method),
    )


def _asked_splits(asked):
    """Names of split lists, from names of either kind."""
    if asked is None:
        return tuple(SPLITS)
    lists = {split: name for name, split in SPLITS.items()} | {name: name for name in SPLITS}
    for name in asked:
        if name not in lists:
            raise DownloadError(f"unknown split {name!r}{catalog.nearest(name, lists)} [unknown_split]")
    return tuple(lists[name] for name in asked)


def read_split_lists(root, splits=tuple(SPLITS)):
    """The official split lists.

    Args:
      root: Path with train.json, val.json and test.json, each a list of [id, id] strings. splits: lists that must be
        there; others are read where they are.

    Returns:
      {"train" | "val" | "test": list of (id, id)}.

    Raises:
      DownloadError: a list is missing or malformed, or an id stands in two lists.
    """
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
            pairs = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DownloadError(f"{path} is not JSON ({error}) [missing_list]") from error
        if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
            raise DownloadError(
                f'{path} must be a list of pairs of three-digit strings such as ["071", "054"] [missing_list]'
            )
        lists[split] = [tuple(pair) for pair in pairs]
        for name in {name for pair in lists[split] for name in pair}:
            if owner.setdefault(name, split) != split:
                raise DownloadError(f"id {name} stands in both {owner[name]}.json and {split}.json of {root}")
    return lists


def _is_pair(pair):
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(name, str) and re.fullmatch(r"[0-9]{3}", name) for name in pair)
    )


def _read_youtube_ids(path, lists):
    """{id: YouTube id} of conversion_dict.json ("071": "<YouTube id> <clip>"), empty without the file."""
    if not path.is_file():
        return {}
    try:
        youtube = {clip: str(value).rsplit(" ", 1)[0] for clip, value in json.loads(path.read_bytes()).items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DownloadError(f"{path} is not a JSON object of ids ({error}) [missing_metadata]") from error
    lacking = sorted({name for pairs in lists.values() for pair in pairs for name in pair} - set(youtube))
    if lacking:
        raise DownloadError(f"{path} lacks {len(lacking)} ids of the split lists, first {lacking[0]}")
    return youtube


def _names(pairs):
    """Stems of reals and fakes that the pairs of one list stand for."""
    for a, b in pairs:
        yield from (a, b, f"{a}_{b}", f"{b}_{a}")


def _method_folders(root, known, methods, problems):
    base = root / _FAKE_FOLDER
    there = [p.name for p in contents.children(base) if p.is_dir()] if base.is_dir() else []
    if methods is not None:
        folder_of = {method: folder for folder, method in known.items()} | {folder: folder for folder in known}
        for name in methods:
            if name not in folder_of:
                raise DownloadError(f"unknown method {name!r}{catalog.nearest(name, known)}")
            if folder_of[name] not in there:
                raise DownloadError(f"no folder {base / folder_of[name]}; there are {', '.join(there) or 'none'}")
        wanted = {folder_of[name] for name in methods}
        return [name for name in known if name in wanted]
    for name in there:
        if name not in known:
            hint = "; it is prepared with --layout=dfd" if name == "DeepFakeDetection" else ""
            detail = f"not a method of this layout and config; left out{hint}"
            problems.append(Problem("unknown_method", f"{_FAKE_FOLDER}/{name}", detail))
    return [name for name in known if name in there]


def _compression_folder(root, folder, compression, problems):
    if compression == "raw" and not (root / folder / "raw").is_dir() and (root / folder / "c0").is_dir():
        problems.append(Problem("compression_alias", f"{folder}/c0", "c0 is taken for raw"))
        return root / folder / "c0"
    return root / folder / compression


def _stems(source, method, split_of, lists, root, problems):
    """Stem -> path of the videos there; names that no list covers are problems."""
    pattern = r"[0-9]{3}" if method == "real" else r"[0-9]{3}_[0-9]{3}"
    present = {}
    for path in contents.matching(source / "videos", "*.mp4"):
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
