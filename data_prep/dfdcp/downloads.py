"""Which videos a download of the DFDC Preview set holds; the README beside this file has the layout."""

import pathlib
import re

from data_prep import listing
from data_prep.catalog import DownloadError, Problem, make_fields, missing_files

CONFIGS = ("default",)
METHODS = {"original_videos": "real", "method_A": "dfdcp_a", "method_B": "dfdcp_b"}
_REAL = re.compile(r"(?P<target>[0-9]+)_(?P<clip>[A-Za-z0-9]+_[0-9]+)")
_FAKE = re.compile(r"(?P<source>[0-9]+)_(?P<target>[0-9]+)_(?P<clip>[A-Za-z0-9]+_[0-9]+)")
_EXPECTED = {"train real": 855, "train fake": 3618, "test real": 276, "test fake": 501}


def find(root, config, options):
    """The videos of the DFDC Preview set (Dolhansky et al. 2019).

    Args:
      root: `dfdc_preview_set` or `DFDCP`, or the folder that it is in. config: of `CONFIGS`. options: catalog.Options.

    Returns:
      list of Entry: splits "train" and "test" of dataset.json. list of Problem: name_unparsed, unlisted_file,
      missing_listed_file, count_mismatch.

    Raises:
      DownloadError: no such folder or dataset.json, a file name that is there twice, an entry of dataset.json that its
        name contradicts, listed videos that are not there, or options that name what is not there.
    """
    listing.check_config(config, CONFIGS)
    root = listing.find_root(root, ("dfdc_preview_set", "DFDCP"), tuple(METHODS))
    path = listing.find_list(root, "dataset.json", options, "missing_metadata")
    there, problems, missing, entries = _index(root), [], [], []
    for key, value in listing.read_object(path).items():
        method = METHODS.get(key.split("/")[0])
        if method is None or not key.endswith(".mp4") or ".." in key.split("/"):
            expected = ", ".join(METHODS)
            raise DownloadError(f"{path}: {key!r}: expected the path of an .mp4 in {expected} [name_unparsed]")
        split, stem = value.get("set"), pathlib.PurePosixPath(key).stem
        if split not in ("train", "test"):
            raise DownloadError(f"{path}: {key}: set {split!r}, expected train or test [unknown_split]")
        video = there.pop(stem, None)
        if video is None:
            is_kept = options.methods is None or method in ("real", *options.methods)
            if is_kept and (options.splits is None or split in options.splits):
                missing.append(key)
            continue
        folder = video.relative_to(root).parts[0]
        if METHODS[folder] != method:
            raise DownloadError(f"{path}: {key} lies in {folder} [label_conflict]")
        fields = video_fields(stem, method, value, f"{path}: {key}")
        if fields is None:
            problems.append(listing.unparsed(video, root, "<target>_A_001.mp4 or <swapped>_<target>_A_001.mp4"))
        else:
            entries.append(listing.make_entry(video, root, f"DFDCP/{folder}", split, fields))
    problems += [
        Problem("unlisted_file", video.relative_to(root).as_posix(), "not in dataset.json; left out")
        for video in there.values()
    ]
    missing_files(missing, options, root, problems)
    problems += listing.count_problems(listing.count_labels(entries), _EXPECTED)
    return listing.finish(entries, options, root), problems


def video_fields(stem, method, value, where):
    """The fields of a video from dataset.json and its name.

    Args:
      stem: file name without suffix, <target>_<clip> of a real, <swapped>_<target>_<clip> of a fake. method: of
        data/methods.py. value: its entry of dataset.json: label, target_id, swapped_id, augmentations; what is absent
        is taken from the name. where: for messages.

    Returns:
      what `catalog.make_fields` returns, or None where neither says who is in it.

    Raises:
      DownloadError: the two disagree.
    """
    is_real = method == "real"
    if value.get("label") not in (None, "real" if is_real else "fake"):
        raise DownloadError(f"{where}: label {value['label']!r} in the folder of {method} [label_conflict]")
    match = (_REAL if is_real else _FAKE).fullmatch(stem)
    named = {} if match is None else match.groupdict()
    target = _agree(value.get("target_id"), named.get("target"), "target_id", where)
    source = target if is_real else _agree(value.get("swapped_id"), named.get("source"), "swapped_id", where)
    if is_real and value.get("swapped_id") is not None:
        raise DownloadError(f"{where}: a real with swapped_id {value['swapped_id']!r} [label_conflict]")
    if target is None or source is None:
        return None
    return make_fields(
        "dfdcp",
        method,
        stem if is_real else f"{method}/{stem}",
        pair_id="" if is_real or match is None else f"{target}_{match['clip']}",
        source=f"dfdcp:{source}",
        target=f"dfdcp:{target}",
        perturbation=_perturbation(value.get("augmentations")),
    )


def _perturbation(augmentations):
    """One text of the augmentations, which are a list of none or one in most entries."""
    return "+".join(map(str, augmentations)) if isinstance(augmentations, list) else str(augmentations or "")


def _agree(listed, named, what, where):
    listed = None if listed is None else str(listed)
    if None not in (listed, named) and listed != named:
        raise DownloadError(f"{where}: {what} {listed}, its name says {named} [label_conflict]")
    return named if listed is None else listed


def _index(root):
    """{stem: path} over the three folders, whatever lies between."""
    found = {}
    for folder in METHODS:
        for stem, path in listing.videos_below(root / folder).items():
            if stem in found:
                raise DownloadError(f"{found[stem]} and {path} have one name: keep one of them [duplicate_key]")
            found[stem] = path
    return found
