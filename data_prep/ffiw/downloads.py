"""Which videos a download of FFIW-10K holds; the README beside this file has the layout."""

import pathlib
import re

from data_prep import listing
from data_prep.catalog import DownloadError, Problem, make_fields

CONFIGS = ("default",)
RELEASES = ("FFIW10K-v1-release", "FFIW10K-v1-release-test")  # the test set is a second archive
SPLITS = {"train": "train", "validation": "val", "test": "test"}
_NAME = re.compile(r"(train|val|test)_([0-9]{8})")


def find(root, config, options):
    """The videos of FFIW-10K (Zhou et al. 2021).

    Args:
      root: the folder that `FFIW10K-v1-release` and `FFIW10K-v1-release-test` are in, or one of them. config: of
        `CONFIGS`. options: catalog.Options; mask_root: where target_mask/ is, if not beside target/.

    Returns:
      list of Entry: splits "train", "validation" and "test", those that are there. list of Problem: name_unparsed,
      mask_missing, pair_missing, count_mismatch.

    Raises:
      DownloadError: no such folder, no video, a video in both archives, a folder filled on two levels, or options that
        name what is not there.
    """
    listing.check_config(config, CONFIGS)
    releases = _releases(pathlib.Path(root).absolute())
    problems, entries = [], []
    for release in releases:
        mask_root = release if options.mask_root is None else pathlib.Path(options.mask_root).absolute()
        for split, folder in SPLITS.items():
            for side in ("source", "target"):
                entries += _side(release, side, folder, split, mask_root, problems)
    reals = {entry.fields["video_id"] for entry in entries if entry.fields["label"] == "real"}
    fakes = {entry.fields["pair_id"] for entry in entries if entry.fields["label"] == "fake"}
    for entry in entries:
        if entry.stem not in (fakes if entry.fields["label"] == "real" else reals):
            other = "target" if entry.fields["label"] == "real" else "source"
            problems.append(Problem("pair_missing", entry.path, f"no video of that name in {other}/"))
    expected = {"validation real": 250, "validation fake": 250}  # train and test: not published where we looked
    counts = listing.count_labels(entries)
    totals = {label: sum(n for key, n in counts.items() if key.endswith(label)) for label in ("real", "fake")}
    problems += listing.count_problems(counts | totals, {"real": 10000, "fake": 10000} | expected)
    return listing.finish(entries, options, root), problems


def name_fields(stem, side):
    """The fields of a video from its name, <split>_<8 digits>, and its side.

    Args:
      stem: file name without suffix. side: "source", which is real, or "target", which is fake and has the name of
        its real.

    Returns:
      what `catalog.make_fields` returns, or None where the name is of another form.
    """
    if not _NAME.fullmatch(stem):
        return None
    if side == "source":
        return make_fields("ffiw", "real", stem)
    return make_fields("ffiw", "ffiw", f"ffiw/{stem}", pair_id=stem)


def _releases(root):
    """The archives that are there: in `root`, or `root` and the one beside it."""
    if not root.is_dir():
        raise DownloadError(f"no folder {root} [missing_root]")
    places = [root / name for name in RELEASES]
    if (root / "source").is_dir() or (root / "target").is_dir():
        places = [root, *(root.with_name(name) for name in RELEASES if name != root.name)]
    there = [place for place in places if (place / "source").is_dir() or (place / "target").is_dir()]
    if not there:
        raise DownloadError(f"no source/ and target/ in {' or '.join(map(str, places))} [missing_root]")
    return there


def _side(release, side, folder, split, mask_root, problems):
    """Entries of one folder of videos."""
    entries = []
    # The name of a release folder is free; what is prepared keeps the official one.
    unit = f"{RELEASES[split == 'test']}/{side}/{folder}"
    for path in listing.videos_in(release / side / folder):
        fields = name_fields(path.stem, side)
        if fields is None or not path.stem.startswith(f"{folder}_"):
            problems.append(listing.unparsed(path, release, f"{folder}_00000000.mp4"))
            continue
        mask = None if side == "source" else _mask(mask_root, folder, path.stem, problems)
        entries.append(listing.make_entry(path, release, unit, split, fields, mask=mask, publishes_masks=True))
    return entries


def _mask(mask_root, folder, stem, problems):
    for parts in ((folder,), (folder, "videos")):
        path = mask_root.joinpath("target_mask", *parts, f"{stem}_mask.mp4")
        if path.is_file():
            return path
    problems.append(Problem("mask_missing", f"target_mask/{folder}/{stem}_mask.mp4", "no mask video for this fake"))
    return None
