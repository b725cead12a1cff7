"""What two built splits share: videos, partners, groups, identities, and what data sets are known to share.

Reads indexes (`index-<split>.csv`) and nothing else, so it costs milliseconds. `python -m data_prep.leakage` prints
it, and compares frames besides; the trainer asks it before it starts. A name is compared within its namespace: that
of the identities ("ff", "cdf"), which data sets made from the same originals share, or the data set.
"""

import csv
import fnmatch
import re
from typing import NamedTuple

ROLES = ("train", "validation", "test")
VERDICTS = ("ok", "report", "error")
MAX_EXAMPLES = 10
# FaceForensics++ clips cut from one YouTube video that the official lists put in different splits (the owners'
# conversion_dict.json beside their train.json, val.json and test.json).
KNOWN_STRADDLERS = (
    ("605", "606"),
    ("639", "640"),
    ("755", "756"),
    ("837", "838"),
    ("875", "876"),
    ("954", "955"),
    ("982", "983"),
)
# Official splits of these sample videos, not people: Celeb-DF's list, DFDC's test set, DFDC-Preview.
_SPLIT_BY_VIDEO = ("cdf", "dfdc", "dfdcp")
# ... and of these even a fake and its real may stand on two sides.
_PARTNERS_APART = ("cdf",)
# Data sets that hold videos of others, whose clips are known by their names where they name no identity.
_OF_OTHERS = ("df40", "dfb", "sladd", "sjedd")
_FFPP_CLIP, _CELEB_CLIP = re.compile(r"(\d{3})(_\d{3}|_[MW]\d{3})?"), re.compile(r"id\d+(_id\d+)?_\d{4}")
_COLUMNS = (
    "video_id",
    "label",
    "dataset",
    "pair_id",
    "group_id",
    "source_identity",
    "target_identity",
    "compression",
)


class Overlap(NamedTuple):
    """What two data sets are known to share.

    first, second: patterns of "<data set>/<config>". shared: in words. rule: "names" (an error where names meet, and
    where there are no names to tell), "copy" (videos of other sets, prepared elsewhere: by names where they meet,
    reported otherwise), "report" (not known how far) or "ok" (apart, although it looks otherwise).
    """

    first: str
    second: str
    shared: str
    rule: str


# Sources: the data sets' own papers and pages; "reported" where they leave it open.
OVERLAPS = (
    Overlap(
        "faceforensics/*",
        "deeperforensics/*",
        "targets and reals are FaceForensics++ clips, and the lists follow other splits: test only on targets of "
        "FaceForensics++'s test split",
        "names",
    ),
    Overlap(
        "faceforensics/*",
        "df40/*_ff*",
        "made from FaceForensics++ clips: test only on ids of its test split",
        "names",
    ),
    Overlap("deeperforensics/*", "df40/*_ff*", "both are made from FaceForensics++ clips", "names"),
    Overlap("faceforensics/*", "dfd/*", "one download, other people", "ok"),
    Overlap(
        "celebdf/*", "celebdf/*", "the versions of Celeb-DF share reals and people: remove the tested ids", "names"
    ),
    Overlap("celebdf/*", "df40/*_cdf*", "made from Celeb-DF videos: remove the tested ids", "names"),
    Overlap("celebdf/*", "dfdm/*", "its reals are Celeb-DF's: remove the tested ids", "names"),
    Overlap("celebdf/*", "ffsc/*", "some of its reals are Celeb-DF's YouTube-real: remove the tested ids", "names"),
    Overlap("df40/*_cdf*", "ffsc/*", "both have reals of Celeb-DF", "names"),
    Overlap("dfdc/*", "dfdcp/*", "one collection; whether people recur is not published", "report"),
    Overlap("uadfv/*", "df40/*deepfacelab*", "its DeepFaceLab fakes are made from UADFV", "report"),
    Overlap("deepspeak/v1*", "deepspeak/v2*", "two releases; whether people recur is not published", "report"),
    Overlap("dfb/*", "*", "holds videos of other data sets, prepared by DeepfakeBench", "copy"),
    Overlap("sladd/*", "*", "holds videos of other data sets, prepared by SLADD", "copy"),
    Overlap("sjedd/*", "*", "holds videos of other data sets, prepared by SJEDD", "copy"),
    Overlap(
        "folder/*",
        "*",
        "a user's own files, whose names tell nothing: data_prep.leakage --phash compares what they look like",
        "report",
    ),
)


class Split(NamedTuple):
    """What of a built split can be compared.

    name: "celebdf/v2:test". role: of `ROLES`. num_videos: rows of the index. videos: {key: compressions}, the key
    (namespace, data set of a fake or "", name). bases: {key of the real behind a video: name of one such video}.
    groups: {(namespace, group): bases}. identities: on either side of a video.
    """

    name: str
    role: str
    num_videos: int
    videos: dict
    bases: dict
    groups: dict
    identities: frozenset


class Finding(NamedTuple):
    """Something that two splits share, or may. check: what was compared. verdict: of `VERDICTS`."""

    first: str
    second: str
    check: str
    count: int
    verdict: str
    note: str
    examples: tuple


def split_names(name, split) -> list[tuple[str, str]]:
    """[(data set, split)] of what `source.open_sources` takes: "a/b,c/d:split"."""
    parts = [part.strip().partition(":") for part in str(name).split(",")]
    return [(one, own or split) for one, _, own in parts]


def role_of(split, name="") -> str:
    """The role of a set by its split, or by the splits in its name: that of several which asks for most care.

    A set without official splits ("all") is what others test on.
    """
    splits = [own for _, own in split_names(name, split)]
    if all(one.startswith("val") for one in splits):
        return "validation"
    return "train" if all(one.startswith(("train", "val")) for one in splits) else "test"


def read_index(path) -> dict[str, list[str]]:
    """{column: list of str} of an `index-<split>.csv`. Raises ValueError where it is no such file."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if not set(_COLUMNS) <= set(header):
            raise ValueError(
                f"{path} has the columns {header}, expected at least {list(_COLUMNS)}; build the set again"
            )
        rows = list(reader)
    short = [i for i, row in enumerate(rows, 2) if len(row) != len(header)]
    if short:
        raise ValueError(f"{path} line {short[0]}: expected {len(header)} columns; build the set again (--overwrite)")
    return {name: [row[i] for row in rows] for i, name in enumerate(header)}


def persons(columns) -> list[str]:
    """For each video a text that is the same where two may show one person.

    Its target identity; where none is known, the group of videos that must share a split, or the video that it is of.
    columns: {column: sequence of str} of an index.
    """
    names = ("target_identity", "dataset", "group_id", "pair_id", "video_id")
    rows = zip(*(columns[name] for name in names), strict=True)
    return [f"identity {row[0]}" if row[0] else f"{row[1]} {row[2] or row[3] or row[4]}" for row in rows]


def make_split(name, columns, role=None) -> Split:
    """A Split from the columns of an index.

    Args:
      name: "<data set>/<config>:<split>". columns: {column: sequence of str}. role: None takes it from the name.
    """
    role = role or role_of(name.rpartition(":")[2])
    videos, bases, groups, identities = {}, {}, {}, set()
    for row in zip(*(columns[column] for column in _COLUMNS), strict=True):
        video_id, label, dataset, pair_id, group_id, source, target, compression = map(str, row)
        space = _namespace(dataset, video_id, target)
        key = (space, "" if label == "real" else dataset, _clip_name(space, dataset, video_id, label))
        videos.setdefault(key, set()).add(compression)
        base = (space, "", _clip_name(space, dataset, pair_id, "real")) if pair_id else key
        bases.setdefault(base, video_id)
        if group_id:
            groups.setdefault((space, group_id.removeprefix(f"{space}:")), set()).add(base)
        identities.update(identity for identity in (source, target) if identity)
    return Split(name, role, len(columns["video_id"]), videos, bases, groups, frozenset(identities))


def from_sources(sources, role=None) -> list[Split]:
    """The built splits that `data.source.Source`s are of, mixed ones apart: the videos that they have records of."""
    found = {}
    for source in sources:
        for reader, name in enumerate(source.sets):
            mine = (source.count > 0) & (source.videos["reader"] == reader)
            columns = found.setdefault(name, {c: [] for c in _COLUMNS})
            for c in _COLUMNS:
                columns[c] += source.videos[c][mine].tolist()
    return [make_split(name, columns, role) for name, columns in found.items()]


def compare(first, second, strict=False) -> list[Finding]:
    """What two splits share.

    Args:
      first, second: Split. strict: the known straddlers of FaceForensics++ are an error too.

    Returns:
      list of Finding, worst first; empty where the two have one role (two training sets may share what they like).
    """
    if first.role == second.role:
        return []
    by_name = [
        _shared_videos(first, second),
        _partners_apart(first, second),
        *_shared_groups(first, second, strict),
        _shared_identities(first, second),
    ]
    by_name = [finding for finding in by_name if finding.count]
    known = [_known_overlap(first, second, entry, by_name) for entry in OVERLAPS if _applies(entry, first, second)]
    return sorted(by_name + known, key=lambda finding: -VERDICTS.index(finding.verdict))


def check_experiment(train, select, tests) -> tuple[list[Finding], list[Finding]]:
    """What of an experiment's data leaks.

    Args:
      train, select, tests: lists of Split: that it trains on, chooses checkpoints on (may be none), and tests on.

    Returns:
      (errors, reports): errors where `train` or `select` meets a test split.
    """
    findings = [finding for test in tests for mine in (*train, *select) for finding in compare(mine, test)]
    # A validation set that training has seen flatters the choice; the tests stay clean.
    seen = [finding for mine in train for chosen in select for finding in compare(mine, chosen)]
    findings += [f._replace(verdict=min(f.verdict, "report", key=VERDICTS.index)) for f in seen]
    errors = [finding for finding in findings if finding.verdict == "error"]
    return errors, [finding for finding in findings if finding.verdict == "report"]


def describe(finding) -> str:
    """A finding in a line."""
    examples = f", such as {', '.join(finding.examples[:3])}" if finding.examples else ""
    note = f" ({finding.note})" if finding.note else ""
    return f"{finding.first} and {finding.second}: {finding.count} {finding.check}{examples}{note}"


def selection_lines(validation, tests) -> list[str]:
    """Lines that say which sets checkpoints are chosen on, and which of those data sets are tested on too.

    Args:
      validation, tests: names "<data set>/<config>:<split>".
    """
    tested = {name.split("/")[0] for name in tests}
    lines = []
    for name in sorted(set(validation)):
        same = " (also tested on: not a cross-data-set figure)" if name.split("/")[0] in tested else ""
        lines.append(f"validation comes from {name}{same}")
    return lines or ["validation comes from no set"]


def _namespace(dataset, video_id, target):
    stem = video_id.rsplit("/", 1)[-1]
    if dataset == "deeperforensics" and _FFPP_CLIP.fullmatch(stem):
        return "ff"
    if ":" in target:
        return target.split(":", 1)[0]
    if "CDF-youtube/" in video_id:  # FFSC's folder of Celeb-DF's YouTube-real
        return "cdf"
    if dataset in _OF_OTHERS and _FFPP_CLIP.fullmatch(stem):
        return "ff"
    if dataset in _OF_OTHERS and _CELEB_CLIP.fullmatch(stem):
        return "cdf"
    return dataset


def _clip_name(space, dataset, video_id, label):
    """The name without what does not tell originals apart: compression, variant, and a real's folder."""
    if dataset == "deeperforensics" or (label == "real" and space in ("ff", "cdf")):
        return video_id.rsplit("/", 1)[-1]
    return "/".join(part for part in video_id.split("/") if part not in ("raw", "c0", "c23", "c40"))


def _make_finding(first, second, check, verdict, examples, note=""):
    examples = sorted(examples)
    return Finding(first.name, second.name, check, len(examples), verdict, note, tuple(examples[:MAX_EXAMPLES]))


def _shared_videos(first, second):
    examples = []
    for key in first.videos.keys() & second.videos.keys():
        a, b = ("+".join(sorted(split.videos[key])) for split in (first, second))
        examples.append(key[2] if a == b else f"{key[2]} ({a}, {b})")
    return _make_finding(first, second, "videos in both", "error", examples)


def _partners_apart(first, second):
    shared = {
        base
        for base in first.bases.keys() & second.bases.keys()
        # A shared real has been reported already.
        if not (base in first.videos and base in second.videos)
    }
    apart = {base for base in shared if base[0] in _PARTNERS_APART}
    by_design = _dataset(first) == _dataset(second) and shared == apart and not _is_derived(first, second)
    return _make_finding(
        first,
        second,
        "real videos whose partners or fakes stand on both sides",
        "report" if by_design else "error",
        [f"{base[2]} ({first.bases[base]}, {second.bases[base]})" for base in shared],
        "the official list splits videos, not pairs" if shared and by_design else "",
    )


def _shared_groups(first, second, strict):
    known, others = set(), {}
    for group in first.groups.keys() & second.groups.keys():
        a, b = first.groups[group], second.groups[group]
        if a & b:
            continue  # a shared video or partner, reported already
        clips = {(x[2], y[2]) for x in a for y in b} if group[0] == "ff" else set()
        pairs = {tuple(sorted(pair)) for pair in clips}
        if pairs and pairs <= set(KNOWN_STRADDLERS):
            known |= pairs
        else:
            others[f"{group[1]} ({min(a)[2]}, {min(b)[2]})"] = group[0]
    note = "known: the official lists put clips of one YouTube video in two splits"
    if _no_youtube_ids(first) or _no_youtube_ids(second):
        clips = [{base[2] for base in split.bases if base[0] == "ff"} for split in (first, second)]
        known |= {(a, b) for a, b in KNOWN_STRADDLERS if (a in clips[0] and b in clips[1])}
        known |= {(a, b) for a, b in KNOWN_STRADDLERS if (b in clips[0] and a in clips[1])}
        note += "; built without conversion_dict.json, so that others would not be seen"
    by_design = not _is_derived(first, second) and set(others.values()) <= set(_SPLIT_BY_VIDEO)
    return [
        _make_finding(
            first,
            second,
            "YouTube sources in both, known straddlers",
            "error" if strict else "report",
            {f"{a}/{b}" for a, b in known},
            note,
        ),
        _make_finding(first, second, "groups or sources in both", "report" if by_design else "error", others),
    ]


def _no_youtube_ids(split):
    """Whether the groups of FaceForensics++ clips are the clips themselves."""
    ours = [(group, bases) for (space, group), bases in split.groups.items() if space == "ff"]
    return bool(ours) and all({base[2] for base in bases} == {group} for group, bases in ours)


def _shared_identities(first, second):
    shared = first.identities & second.identities
    spaces = {identity.split(":", 1)[0] for identity in shared}
    by_design = spaces <= set(_SPLIT_BY_VIDEO) and not _is_derived(first, second)
    note = "the official split samples videos, not people" if shared and by_design else ""
    return _make_finding(first, second, "identities in both", "report" if by_design else "error", shared, note)


def _is_derived(first, second):
    """Whether the two were made to share nobody: only a validation split is derived where there is a test list."""
    return _dataset(first) == _dataset(second) and (
        fnmatch.fnmatch(first.name, "*_derivedval*") and "test" not in (first.role, second.role)
    )


def _dataset(split):
    return split.name.rpartition(":")[0]


def _applies(entry, first, second):
    a, b = _dataset(first), _dataset(second)
    if a == b:
        return False
    forth = fnmatch.fnmatch(a, entry.first) and fnmatch.fnmatch(b, entry.second)
    return forth or (fnmatch.fnmatch(b, entry.first) and fnmatch.fnmatch(a, entry.second))


def _known_overlap(first, second, entry, by_name):
    check = "names of data sets that are known to overlap"
    count = max((finding.count for finding in by_name), default=0)
    verdict, note = entry.rule, entry.shared
    if entry.rule in ("names", "copy"):
        comparable = {key[0] for key in first.bases} & {key[0] for key in second.bases}
        if comparable:
            verdict = max((finding.verdict for finding in by_name), default="ok", key=VERDICTS.index)
        else:
            verdict = "error" if entry.rule == "names" else "report"
            note += "; no name of theirs can be compared, so that it is not known which"
    return Finding(first.name, second.name, check, count, verdict, note, ())
