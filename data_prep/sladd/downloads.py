"""Which crops and masks SLADD's own folders hold; the README beside this file has the layout."""

import json
import re

from data_prep import contents, listing
from data_prep.catalog import DownloadError, Entry, Problem, make_fields, missing_files
from data_prep.dfb import stems

CONFIGS = ("ff",)
METHODS = {
    "real": "real",
    "FF-DF": "deepfakes",
    "FF-F2F": "face2face",
    "FF-FS": "faceswap",
    "FF-NT": "neuraltextures",
}
SPLITS = {"train": "train", "eval": "validation", "test": "test"}


def find(root, config, options):
    """The FaceForensics++ crops and masks that SLADD (Chen et al. 2022) trains on, both directions of each pair.

    Args:
      root: SLADD's `data`, its `data/FF`, or the folder that `data` is in. config: "ff". options: catalog.Options;
        lists: folder of train.json, eval.json and test.json.

    Returns:
      list of Entry of kind "crops", frame numbers from 0 in folders that count from 1 too. list of Problem:
      missing_listed_file, mask_missing, unlisted_file, one_based, name_unparsed.

    Raises:
      DownloadError: no such folder or list, an id in two pairs, or a listed video that is not there.
    """
    listing.check_config(config, CONFIGS)
    root = listing.find_root(root, ("FF", "data/FF"), ("image",))
    splits = [name for name, split in SPLITS.items() if options.splits is None or split in options.splits]
    pairs = read_pairs({name: listing.find_list(root, f"config/{name}.json", options) for name in splits})
    problems, missing, entries = [], [], []
    folders = [name for name in METHODS if (root / "image" / name).is_dir()]
    frames = {name: _videos(root, f"image/{name}", r"(\d{1,9})\.(?:png|jpe?g)", problems) for name in folders}
    masks = {name: _videos(root, f"mask/{name}", r"(\d{1,9})_mask\.(?:png|jpe?g)", problems) for name in folders}
    first = _first_number(frames, problems)
    for split, split_pairs in pairs.items():
        for target, source in sorted(split_pairs + [(b, a) for a, b in split_pairs]):
            for folder in folders:
                stem = target if folder == "real" else f"{target}_{source}"
                if not frames[folder].get(stem):
                    missing.append(f"image/{folder}/{stem}")
                    continue
                own = masks[folder].get(stem, {})
                lost = sorted(set(frames[folder][stem]) - set(own)) if folder != "real" else []
                if lost:
                    detail = f"{len(lost)} frames without a mask, first {lost[0]:04d}"
                    problems.append(Problem("mask_missing", f"mask/{folder}/{stem}", detail))
                entries.append(_entry(root, folder, stem, SPLITS[split], frames[folder][stem], own, first))
    listed = {f"image/{e.unit.split('/')[-1]}/{e.stem}" for e in entries}
    there = [f"image/{folder}/{stem}" for folder in folders for stem in frames[folder]]
    if options.splits is None:
        problems += [Problem("unlisted_file", path, "in no list; left out") for path in there if path not in listed]
    missing_files(missing, options, root, problems)
    return listing.finish(entries, options, root), problems


def read_pairs(paths):
    """Pairs of ids: {list: [(id, id)]} from {list: Path of [["071", "054"], ...]}.

    Raises:
      DownloadError: not such a list, or an id in two pairs.
    """
    pairs, seen = {}, {}
    for name, path in paths.items():
        try:
            content = json.loads(path.read_bytes())
        except ValueError as error:
            raise DownloadError(f"{path} is not JSON ({error})") from error
        if not isinstance(content, list) or not all(_is_pair(pair) for pair in content):
            raise DownloadError(f'{path} must be a list of pairs of three-digit strings such as ["071", "054"]')
        pairs[name] = [tuple(pair) for pair in content]
        for i in (i for pair in pairs[name] for i in pair):
            if i in seen:
                raise DownloadError(f"id {i} stands twice: in {seen[i]} and in {path} [duplicate_key]")
            seen[i] = path
    return pairs


def _is_pair(pair):
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(i, str) and re.fullmatch(r"\d{3}", i) for i in pair)
    )


def _videos(root, folder, pattern, problems):
    """{video: {number in the name: path relative to the root}}."""
    videos = {}
    for video in contents.children(root / folder) if (root / folder).is_dir() else []:
        if not video.is_dir():
            continue
        numbered = {}
        for path in contents.children(video):
            match, relative = re.fullmatch(pattern, path.name), path.relative_to(root).as_posix()
            if match is None:
                problems.append(Problem("name_unparsed", relative, "expected a frame number as name; left out"))
            elif int(match[1]) in numbered:
                raise DownloadError(f"{numbered[int(match[1])]} and {relative} are one frame [duplicate_key]")
            else:
                numbered[int(match[1])] = relative
        videos[video.name] = numbered
    return videos


def _first_number(frames, problems):
    """0 or 1, what names count from: SLADD's text says 1 and its code 0. No video has a 0 where they count from 1."""
    numbers = [number for videos in frames.values() for video in videos.values() for number in video]
    if not numbers or min(numbers) != 1:
        return 0
    problems.append(Problem("one_based", "image", "names count from 1; frame numbers here from 0"))
    return 1


def _entry(root, folder, stem, split, frames, masks, first):
    method, person = METHODS[folder], stems.ff(stem)
    fields = make_fields(
        "sladd",
        method,
        stem if method == "real" else f"{method}/{stem}",
        pair_id=person.real,
        group_id=person.group,
        target=person.target,
        source=person.source,
    )
    return Entry(
        "crops",
        f"image/{folder}/{stem}",
        f"SLADD/{folder}",
        stem,
        split,
        fields,
        images=tuple((n - first, path) for n, path in sorted(frames.items())),
        mask=tuple((n - first, str(root / path)) for n, path in sorted(masks.items()) if n in frames) or None,
        publishes_masks=True,
        root=str(root),
    )
