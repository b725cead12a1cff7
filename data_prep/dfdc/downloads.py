"""Which videos a download of DFDC holds; the README beside this file has the layouts."""

import re

from data_prep import contents, listing
from data_prep.catalog import DownloadError, Problem, make_fields, missing_files

CONFIGS = ("full", "test_only")
_TRAIN = "train"
_PART = re.compile(r"dfdc_train_part_([0-9]+)")
_TRAIN_NAME = re.compile(r"[a-z]{10}")
_EXPECTED = {
    "train real": 19154,
    "train fake": 100000,
    "validation real": 2000,
    "validation fake": 2000,
    "test real": 2500,
    "test fake": 2500,
}


def find(root, config, options):
    """The videos of DFDC (Dolhansky et al. 2020).

    Layouts, the first that is there: train/dfdc_train_part_<N>, validation and test (DeepfakeBench's is that without
    validation); videos/ and labels.csv, which is the test set alone.

    Args:
      root: `DFDC`, or the folder that it is in. config: of `CONFIGS`. options: catalog.Options.

    Returns:
      list of Entry, of the splits that are there. list of Problem: layout_alias, name_unparsed, unlisted_file,
      original_missing, missing_listed_file, count_mismatch.

    Raises:
      DownloadError: no such folder, a part without metadata.json, a folder without labels.csv, a fake whose original
        is a fake, listed videos that are not there, or options that name what is not there.
    """
    listing.check_config(config, CONFIGS)
    root = listing.find_root(root, ("DFDC",), (_TRAIN, "validation", "test", "videos"))
    wanted = ("test",) if config == "test_only" else ("train", "validation", "test")
    problems, missing, entries = [], [], []
    official = [split for split in wanted if (root / split).is_dir()]
    if not official and "test" in wanted and (root / "videos").is_dir():
        problems.append(Problem("layout_alias", "videos", "videos/ with labels.csv is taken for the test set"))
        entries += _labelled(root, root, "test", "DFDC/test", problems, missing)
    elif (root / "videos").is_dir():
        problems.append(Problem("layout_alias", "videos", f"{', '.join(official)} are there; videos/ is left out"))
    for split in official:
        if split == _TRAIN:
            entries += _parts(root, problems, missing)
        else:
            entries += _labelled(root / split, root, split, f"DFDC/{split}", problems, missing)
    asked = [path for split, path in missing if options.splits is None or split in options.splits]
    missing_files(asked, options, root, problems)
    expected = {key: n for key, n in _EXPECTED.items() if key.split()[0] in wanted}
    problems += listing.count_problems(listing.count_labels(entries), expected)
    return listing.finish(entries, options, root), problems


def _parts(root, problems, missing):
    """Entries of the training parts, from the metadata.json of each."""
    parts = {}
    for path in contents.children(root / _TRAIN):
        if path.is_dir() and (match := _PART.fullmatch(path.name)):
            parts[int(match[1])] = path
    if not parts:
        raise DownloadError(f"no folder dfdc_train_part_<N> in {root / _TRAIN} [missing_root]")
    metadata = {}
    for _, part in sorted(parts.items()):
        path = part / "metadata.json"
        if not path.is_file():
            raise DownloadError(
                f"no {path}: without it the labels of {part.name} are not known; some copies lack it, take that part "
                "from the owners' archive again [missing_metadata]"
            )
        metadata[part] = listing.read_object(path)
    labels = {name: value.get("label") for listed in metadata.values() for name, value in listed.items()}
    entries = []
    for part, listed in metadata.items():
        there = {path.name: path for path in listing.videos_in(part)}
        unit = f"DFDC/{_TRAIN}/{part.name}"
        missing += [(_TRAIN, f"{_TRAIN}/{part.name}/{name}") for name in listed if name not in there]
        for name, path in there.items():
            if name not in listed:
                problems.append(_unlisted(path, root, "metadata.json"))
            elif not _TRAIN_NAME.fullmatch(path.stem):
                problems.append(listing.unparsed(path, root, "abcdefghij.mp4"))
            else:
                fields = _train_fields(name, listed[name], labels, part, problems)
                entries.append(listing.make_entry(path, root, unit, "train", fields))
    return entries


def _train_fields(name, value, labels, part, problems):
    where, label, original = f"{part / 'metadata.json'}: {name}", value.get("label"), value.get("original")
    if label not in ("REAL", "FAKE"):
        raise DownloadError(f"{where}: label {label!r}, expected REAL or FAKE [label_conflict]")
    if original is not None and not isinstance(original, str):
        raise DownloadError(f"{where}: original {original!r}, expected a file name [label_conflict]")
    if label == "REAL":
        if original:
            raise DownloadError(f"{where}: REAL, and yet made from {original} [label_conflict]")
        return make_fields("dfdc", "real", name.removesuffix(".mp4"))
    if not original:
        detail = "metadata.json names no original: it has no partner"
        problems.append(Problem("original_missing", f"{_TRAIN}/{part.name}/{name}", detail))
        return make_fields("dfdc", "dfdc", name.removesuffix(".mp4"))
    if labels.get(original, "REAL") != "REAL":  # an original of a part that is not here is not known
        raise DownloadError(f"{where}: its original {original} is no REAL [label_conflict]")
    return make_fields("dfdc", "dfdc", name.removesuffix(".mp4"), pair_id=original.removesuffix(".mp4"))


def _labelled(folder, root, split, unit, problems, missing):
    """Entries of a folder with labels.csv: filename,label with 0 real and 1 fake."""
    path = folder / "labels.csv"
    if not path.is_file():
        raise DownloadError(f"no list {path}; it is in the owners' archive of the {split} set [missing_list]")
    labels = {}
    for row in listing.read_table(path, ("filename", "label")):
        name, label = row["filename"], row["label"]
        if label not in ("0", "1") or not re.fullmatch(r"[^/\\]+\.mp4", name):
            raise DownloadError(f"{path}: {name},{label}: expected <name>.mp4 and 0 or 1 [label_conflict]")
        if labels.setdefault(name, label) != label:
            raise DownloadError(f"{path}: {name} is both 0 and 1 [label_conflict]")
    there = {video.name: video for video in listing.videos_in(folder)}
    relative = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
    missing += [(split, f"{relative}{name}") for name in labels if name not in there]
    problems += [_unlisted(video, root, "labels.csv") for name, video in there.items() if name not in labels]
    return [
        listing.make_entry(
            video, root, unit, split, make_fields("dfdc", "dfdc" if labels[name] == "1" else "real", video.stem)
        )
        for name, video in there.items()
        if name in labels
    ]


def _unlisted(path, root, where):
    return Problem("unlisted_file", path.relative_to(root).as_posix(), f"not in {where}; left out")
