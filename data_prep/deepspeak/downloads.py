"""Which videos a download of DeepSpeak v1 or v1.1 holds; the README beside this file has the layout."""

import re

from data_prep import contents, listing
from data_prep.catalog import DownloadError, Problem, make_fields

CONFIGS = ("v1", "v1_1")
ROOTS = {"v1": ("DeepSpeak-v1", "deepspeak_v1"), "v1_1": ("DeepSpeak-v1_1", "DeepSpeak-v1.1", "deepspeak_v1_1")}
ENGINES = ("facefusion", "facefusion_gan", "facefusion_live", "retalking", "wav2lip")
SPLIT_LIST = "annotations-split-def.csv"
_REAL = re.compile(r"(?P<actor>[0-9]+)-[0-9]+")
_FAKE = re.compile(
    r"(?P<engine>[a-z0-9_]+)--(?P<source>[0-9]+)-(?P<target>[0-9]+)--[0-9]+-(?P<recording>[0-9]+)--[0-9]+"
)


def find(root, config, options):
    """The videos of DeepSpeak v1 (Barrington et al. 2024), wherever they lie below the root.

    Args:
      root: the data set's folder, or the one that it is in. config: of `CONFIGS`. options: catalog.Options.

    Returns:
      list of Entry: splits "train" and "test" by the actor on screen. list of Problem: name_unparsed, unknown_method,
      unlisted_file, crosses_splits, count_mismatch.

    Raises:
      DownloadError: no folder or list, a name that is there twice, an actor in two splits, no video, or options that
        name what is not there.
    """
    listing.check_config(config, CONFIGS)
    root = _root(root, config)
    split_of = read_splits(_split_list(root, options))
    problems, entries = [], []
    for path in listing.videos_below(root).values():
        relative = path.relative_to(root).as_posix()
        fields = name_fields(path.stem)
        if fields is None:
            match = _FAKE.fullmatch(path.stem)
            if match:
                detail = f"engine {match['engine']!r} is none of {', '.join(ENGINES)}; left out"
                problems.append(Problem("unknown_method", relative, detail))
            else:
                problems.append(listing.unparsed(path, root, "87-0.mp4 or facefusion--10-11--4100-4897--0.mp4"))
            continue
        split, other = (split_of.get(fields[f"{who}_identity"].removeprefix("dsv1:")) for who in ("target", "source"))
        if split is None:
            problems.append(Problem("unlisted_file", relative, f"its actor is not in {SPLIT_LIST}; left out"))
            continue
        if other != split:
            problems.append(Problem("crosses_splits", relative, f"on screen: {split}; donor: {other or 'not listed'}"))
        unit = f"DeepSpeak-{config}/{'reals' if fields['label'] == 'real' else fields['method']}"
        entries.append(listing.make_entry(path, root, unit, split, fields))
    counts = {label: sum(e.fields["label"] == label for e in entries) for label in ("real", "fake")}
    problems += listing.count_problems(counts, {"real": 6667, "fake": 6796})
    return listing.finish(entries, options, root), problems


def name_fields(stem):
    """The fields of a video from its name.

    Args:
      stem: <actor>-<recording> of a real; <engine>--<source>-<target>--<source recording>-<target recording>--<n> of a
        fake, in which the target is on screen and the source gives face or voice.

    Returns:
      what `catalog.make_fields` returns, or None where the name is of another form or the engine unknown.
    """
    if match := _REAL.fullmatch(stem):
        person = f"dsv1:{match['actor']}"
        return make_fields("deepspeak", "real", stem, source=person, target=person)
    match = _FAKE.fullmatch(stem)
    if match is None or match["engine"] not in ENGINES:
        return None
    return make_fields(
        "deepspeak",
        match["engine"],
        f"{match['engine']}/{stem}",
        pair_id=f"{match['target']}-{match['recording']}",
        source=f"dsv1:{match['source']}",
        target=f"dsv1:{match['target']}",
    )


def read_splits(path):
    """{actor: "train" or "test"} of annotations-split-def.csv, columns identity,split. Raises DownloadError."""
    split_of = {}
    for row in listing.read_table(path, ("identity", "split")):
        if row["split"] not in ("train", "test"):
            raise DownloadError(f"{path}: split {row['split']!r}, expected train or test [unknown_split]")
        if split_of.setdefault(row["identity"], row["split"]) != row["split"]:
            raise DownloadError(f"{path}: actor {row['identity']} is in both train and test [label_conflict]")
    return split_of


def _root(root, config):
    """The folder of the release: what is in it is not published, so that only its name tells them apart."""
    root = listing.find_root(root, (), (".",))
    own = listing.pick_folder(root, ROOTS[config])
    others = [name for other, names in ROOTS.items() if other != config for name in names]
    if own is None and (root.name in others or listing.pick_folder(root, others)):
        raise DownloadError(f"{root} is, or holds, {' or '.join(others)}, another release than {config} [missing_root]")
    return own or root


def _split_list(root, options):
    if options.lists is not None:
        return listing.find_list(root, SPLIT_LIST, options)
    found = contents.matching(root, f"**/{SPLIT_LIST}")
    if len(found) != 1:
        shown = f"{len(found)} files {', '.join(map(str, found[:5]))}" if found else "none"
        raise DownloadError(f"expected one {SPLIT_LIST} below {root}, found {shown} [missing_list]")
    return found[0]
