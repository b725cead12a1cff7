"""Which videos a download of DeeperForensics-1.0 holds; the README beside this file has the layout."""

import pathlib
import re

from data_prep import contents, listing
from data_prep.catalog import DownloadError, Problem, make_fields, missing_files

VARIANTS = (
    "end_to_end",
    *(f"end_to_end_level_{level}" for level in range(1, 6)),
    "end_to_end_random_level",
    *(f"end_to_end_mix_{number}_distortions" for number in (2, 3, 4)),
    "reenact_postprocess",
)
CONFIGS = (*VARIANTS, *(f"{variant}_sourcereal" for variant in VARIANTS))
LISTS = {"train": "train", "validation": "val", "test": "test"}
# What the owners' page states; with 201 in test, the three would make up the 1000.
_STATED = {"train": 703, "validation": 96, "test": 21}
_FAKE = re.compile(r"(?P<target>[0-9]{3})_(?P<actor>[MW][0-9]{3})")
_ACTOR = re.compile(r"[MW][0-9]{3}")
_META = "lists/manipulated_videos_distortions_meta"
_FFPP_REALS = "original_sequences/youtube/c23"
_ROOT = "DeeperForensics-1.0"


def find(root, config, options):
    """The videos of one variant of DeeperForensics-1.0 (Jiang et al. 2020).

    Args:
      root: `DeeperForensics-1.0`, or the folder that it is in. config: of `CONFIGS`; in `<variant>_sourcereal` the
        reals are the source videos of the actors, as in DeepfakeBench, and an actor's are where its fakes are.
      options: catalog.Options; reals_root: the FaceForensics++ folder with the reals at c23, None for the folder
        `FaceForensics++` beside or in `root`.

    Returns:
      list of Entry: splits "train", "validation" and "test" of lists/splits. list of Problem: name_unparsed,
      unlisted_file, missing_listed_file, count_mismatch.

    Raises:
      DownloadError: no such folder, list or reals, a name in two lists, a real or an actor in two splits, listed videos
        that are not there, or options that name what is not there.
    """
    listing.check_config(config, CONFIGS)
    given = pathlib.Path(root).absolute()
    root = listing.find_root(root, (_ROOT,), ("manipulated_videos",))
    variant = config.removesuffix("_sourcereal")
    folder = root / "manipulated_videos" / variant
    if not folder.is_dir():
        raise DownloadError(f"no folder {folder} [missing_root]")
    problems, missing, entries = [], [], []
    split_of = read_splits(root, options, problems)
    distortions = _read_distortions(root, variant, problems)
    there = {path.stem: path for path in listing.videos_in(folder)}
    for stem, path in there.items():
        if not _FAKE.fullmatch(stem):
            problems.append(listing.unparsed(path, root, "000_M101.mp4"))
        elif stem not in split_of:
            problems.append(_unlisted(path, root))
        else:
            fields = fake_fields(stem, variant, distortions.get(stem, ""), config == variant)
            entries.append(
                listing.make_entry(path, root, f"{_ROOT}/manipulated_videos/{variant}", split_of[stem], fields)
            )
    missing += [(s, f"manipulated_videos/{variant}/{stem}.mp4") for stem, s in split_of.items() if stem not in there]
    if config == variant:
        entries += _ffpp_reals(given, root, split_of, options, missing)
    else:
        entries += _source_reals(root, split_of, problems)
    asked = [path for split, path in missing if options.splits is None or split in options.splits]
    missing_files(asked, options, root, problems)
    problems += listing.count_problems({variant: len(there)}, {variant: 1000})
    return listing.finish(entries, options, root), problems


def read_splits(root, options, problems):
    """{fake's stem: split} of lists/splits/{train,val,test}.txt, a name like 000_M101.mp4 a line.

    Adds a Problem for each list that is not as long as the owners' page says. Raises DownloadError.
    """
    split_of, side = {}, {}
    for split, name in LISTS.items():
        path = listing.find_list(root, f"lists/splits/{name}.txt", options)
        lines = listing.read_lines(path)
        for number, line in lines:
            stem = line.removesuffix(".mp4")
            match = _FAKE.fullmatch(stem)
            if match is None:
                raise DownloadError(
                    f"{path} line {number}, {line!r}: expected a name like 000_M101.mp4 [name_unparsed]"
                )
            if stem in split_of:
                raise DownloadError(f"{path} line {number}: {stem} is listed twice [duplicate_key]")
            if side.setdefault(match["target"], split) != split:
                raise DownloadError(
                    f"{path} line {number}: the real {match['target']} would be in {side[match['target']]} and in "
                    f"{split} [duplicate_key]"
                )
            split_of[stem] = split
        problems += listing.count_problems(
            {f"lists/splits/{name}.txt": len(lines)}, {f"lists/splits/{name}.txt": _STATED[split]}
        )
    return split_of


def fake_fields(stem, variant, distortions, with_partner):
    """The fields of a fake, from its name: <FaceForensics++ id of the target>_<actor whose face was put in>.

    Args:
      stem: file name without suffix. variant: of `VARIANTS`. distortions: "<type>:<level> ..." of the meta list, "" for
        none. with_partner: whether the FaceForensics++ real is in the set.
    """
    match = _FAKE.fullmatch(stem)
    is_plain = variant in ("end_to_end", "reenact_postprocess")
    return make_fields(
        "deeperforensics",
        "reenact_postprocess" if variant == "reenact_postprocess" else "deeperforensics",
        f"{variant}/{stem}",
        pair_id=match["target"] if with_partner else "",
        group_id=match["target"] if with_partner else match["actor"],
        source=f"df1:{match['actor']}",
        target=f"ff:{match['target']}",
        compression="c23",
        perturbation="" if is_plain else f"{variant} {distortions}".strip(),
    )


def _ffpp_reals(given, root, split_of, options, missing):
    """Entries of the FaceForensics++ videos that the fakes were made from, each in the split of its fakes."""
    places = [given / "FaceForensics++", root.parent / "FaceForensics++"]
    if options.reals_root is not None:
        places = [pathlib.Path(options.reals_root).absolute()]
    base = next((place for place in places if (place / _FFPP_REALS).is_dir()), None)
    if base is None:
        raise DownloadError(
            f"no {_FFPP_REALS} in {' or '.join(map(str, dict.fromkeys(places)))}: the reals are FaceForensics++'s at "
            "c23, not source_videos; name that folder by --reals_root [missing_root]"
        )
    there = {path.stem: path for path in listing.videos_in(base / _FFPP_REALS)}
    entries = []
    for name, split in {stem[:3]: split for stem, split in split_of.items()}.items():
        if name not in there:
            missing.append((split, f"{_FFPP_REALS}/videos/{name}.mp4"))
            continue
        person = f"ff:{name}"
        fields = make_fields("deeperforensics", "real", name, source=person, target=person, compression="c23")
        entries.append(listing.make_entry(there[name], base, _FFPP_REALS, split, fields))
    return entries


def _source_reals(root, split_of, problems):
    """Entries of the actors' own videos, source_videos/<actor>/.../<stem>.mp4, in the split of the actor's fakes."""
    side = {}
    for stem, split in split_of.items():
        if side.setdefault(stem[4:], split) != split:
            raise DownloadError(
                f"actor {stem[4:]} is in {side[stem[4:]]} and in {split} of lists/splits [duplicate_key]"
            )
    base, entries = root / "source_videos", []
    for path in contents.matching(base, "**/*.mp4"):
        relative = path.relative_to(base)
        actor = relative.parts[0]
        if len(relative.parts) < 2 or not _ACTOR.fullmatch(actor):
            problems.append(listing.unparsed(path, root, "source_videos/M004/.../<name>.mp4"))
        elif actor not in side:
            problems.append(_unlisted(path, root))
        else:
            # Joined, not a path: the last part alone need not be the only one of its name.
            video_id = "__".join(("source", *relative.with_suffix("").parts))
            person = f"df1:{actor}"
            fields = make_fields("deeperforensics", "real", video_id, group_id=actor, source=person, target=person)
            unit = f"{_ROOT}/source_videos/{relative.parent.as_posix()}"
            entries.append(listing.make_entry(path, root, unit, side[actor], fields))
    if not entries:
        raise DownloadError(f"no video of a listed actor in {base}, which the reals of a _sourcereal config are")
    return entries


def _read_distortions(root, variant, problems):
    """{fake's stem: "<type>:<level> ..."} of a variant, from the meta lists: lines of <path> <type>:<level> ..."""
    found = {}
    for path in contents.matching(root / _META, "*.txt"):
        for number, line in listing.read_lines(path):
            name, *levels = line.replace("\\", "/").split()
            if not levels or not all(re.fullmatch(r"[^\s:]+:[^\s:]+", level) for level in levels):
                where = f"{path.relative_to(root).as_posix()} line {number}"
                problems.append(Problem("name_unparsed", where, f"{line!r}: expected <path> <type>:<level> ..."))
            elif variant in (pathlib.PurePosixPath(name).parent.name, path.stem):
                found[pathlib.PurePosixPath(name).stem] = " ".join(levels)
    return found


def _unlisted(path, root):
    return Problem("unlisted_file", path.relative_to(root).as_posix(), "in none of lists/splits; left out")
