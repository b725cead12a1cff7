"""Which videos of DeepFakeDetection a FaceForensics++ download holds; the README beside this file has the layout."""

import pathlib
import re

from data_prep import listing
from data_prep.catalog import DownloadError, Problem, make_fields

COMPRESSIONS = ("c23", "c40", "raw")
CONFIGS = tuple(f"{c}{rule}" for rule in ("", "_derived", "_derived_cut") for c in COMPRESSIONS)
_REALS = "original_sequences/actors"
_FAKES = "manipulated_sequences/DeepFakeDetection"
_ACTOR, _SCENE = re.compile(r"[0-9]{2}"), re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")
_EXPERIMENT = re.compile(r"[A-Za-z0-9]{8}")
_SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
_SALT = "dfd derived 1"


def find(root, config, options):
    """The videos of DeepFakeDetection (Dufour and Gully 2019).

    Args:
      root: the FaceForensics++ folder, or the one that it is in. config: of `CONFIGS`. options: catalog.Options.

    Returns:
      list of Entry: all in the split "all", or, in the `_derived` configs, in "train", "validation" and "test" that
      share no actor. list of Problem: name_unparsed, mask_missing, compression_alias, crosses_splits, count_mismatch.

    Raises:
      DownloadError: no such folder, no video, splits that cannot be had, or options that name what is not there.
    """
    listing.check_config(config, CONFIGS)
    compression, _, rule = config.partition("_")
    root = listing.find_root(root, ("FaceForensics++",), (_REALS, _FAKES))
    mask_root = root if options.mask_root is None else pathlib.Path(options.mask_root).absolute()
    problems, found = [], []
    for base, is_real, example in ((_REALS, True, "01__scene.mp4"), (_FAKES, False, "01_02__scene__A1B2C3D4.mp4")):
        for path in listing.videos_in(_compression_folder(root / base, compression, problems)):
            fields = name_fields(path.stem, compression)
            if fields is None or (fields["label"] == "real") != is_real:
                problems.append(listing.unparsed(path, root, example))
                continue
            mask = None if is_real else _mask(mask_root, path.stem, problems)
            found.append((path, f"{base}/{compression}", fields, mask))
    counts = {name: sum(unit.startswith(name) for _, unit, _, _ in found) for name in (_REALS, _FAKES)}
    problems += listing.count_problems(counts, {_REALS: 363, _FAKES: 3068})
    splits = _splits([fields for _, _, fields, _ in found], rule, config, problems)
    entries = [
        listing.make_entry(path, root, unit, split, fields, mask=mask, publishes_masks=True)
        for (path, unit, fields, mask), split in zip(found, splits, strict=True)
        if split is not None
    ]
    return listing.finish(entries, options, root), problems


def name_fields(stem, compression):
    """The fields of a video from its name: <actor>__<scene>, or <target>_<source>__<scene>__<experiment>.

    Returns:
      what `catalog.make_fields` returns, or None where the name is of another form. The real partner of a fake is the
      scene of its target.
    """
    people, *rest = stem.split("__")
    actors = people.split("_")
    if not rest or not all(map(_ACTOR.fullmatch, actors)) or not _SCENE.fullmatch(rest[0]):
        return None
    names = [f"dfd:{actor}" for actor in actors]
    if len(actors) == len(rest) == 1:
        return make_fields("dfd", "real", stem, source=names[0], target=names[0], compression=compression)
    if len(actors) != 2 or len(rest) != 2 or not _EXPERIMENT.fullmatch(rest[1]):
        return None
    pair = f"{actors[0]}__{rest[0]}"
    return make_fields(
        "dfd", "dfd", f"dfd/{stem}", pair_id=pair, source=names[1], target=names[0], compression=compression
    )


def _splits(fields, rule, config, problems):
    """The split of each video, None for a fake that is left out."""
    if not rule:
        return ["all"] * len(fields)
    pairs = [(f["target_identity"], f["source_identity"]) for f in fields]
    if rule == "derived":
        try:
            split_of = listing.identity_splits(pairs, _SHARES, _SALT)
        except DownloadError as error:
            raise DownloadError(f"{error}; --config {config}_cut leaves out the fakes that cross") from error
    else:
        split_of = listing.deal_identities({person for pair in pairs for person in pair}, _SHARES, _SALT)
    splits = [split_of[a] if split_of[a] == split_of[b] else None for a, b in pairs]
    if None in splits:
        detail = f"{splits.count(None)} of {len(splits)} videos have actors of two splits; left out"
        problems.append(Problem("crosses_splits", _FAKES, detail))
    return splits


def _compression_folder(folder, compression, problems):
    names = (compression, "c0") if compression == "raw" else (compression,)
    picked = listing.pick_folder(folder, names)
    if picked is not None and picked.name == "c0":
        problems.append(Problem("compression_alias", f"{folder.name}/c0", "c0 is taken for raw"))
    return picked


def _mask(mask_root, stem, problems):
    path = mask_root / _FAKES / "masks" / "videos" / f"{stem}.mp4"
    if path.is_file():
        return path
    problems.append(Problem("mask_missing", f"{_FAKES}/masks/videos/{stem}.mp4", "no mask video for this fake"))
    return None
