"""What the `downloads.py` of the video data sets share: folders, videos, lists, counts, identity-disjoint splits."""

import csv
import hashlib
import json
import pathlib

import numpy as np
import scipy.sparse.csgraph

from data_prep import contents
from data_prep.catalog import DownloadError, Entry, Problem, check_unique, keep, nearest
from msddf_jax.data import methods

_SPLIT_ORDER = ("train", "validation", "test", "all")


def check_config(config, configs):
    """Raise DownloadError for a config that `find` does not have."""
    if config not in configs:
        raise DownloadError(f"no config {config!r}{nearest(config, configs)} [unknown_config]")


def find_root(root, names, inside):
    """The folder of a data set: `root` itself, or the one of `names` in it.

    Args:
      root: what the user gave. names: official names of the folder. inside: relative paths, one of which it holds.

    Returns:
      absolute Path.

    Raises:
      DownloadError: neither; the message says what was looked for.
    """
    root = pathlib.Path(root).absolute()
    if not root.is_dir():
        raise DownloadError(f"no folder {root} [missing_root]")
    for folder in (root, *(root / name for name in names)):
        if any((folder / name).exists() for name in inside):
            return folder
    looked = ", ".join(str(folder) for folder in (root, *(root / name for name in names)))
    raise DownloadError(f"found none of {', '.join(inside)} in {looked} [missing_root]")


def pick_folder(parent, names):
    """The one of the folders `names` that is in `parent`, or None. Raises DownloadError where two are."""
    there = {path.name for path in contents.children(parent) if path.is_dir()} if parent.is_dir() else set()
    found = [name for name in names if name in there]
    if len(found) > 1:
        raise DownloadError(f"{parent} has both {' and '.join(found)}, which are one folder: keep one [duplicate_key]")
    return parent / found[0] if found else None


def videos_in(folder):
    """Sorted *.mp4 of `folder`, or of `folder/videos`, where some tools put them; none where there is no folder.

    Raises DownloadError where both hold some: a video would be there twice.
    """
    if folder is None:
        return []
    flat, nested = contents.matching(folder, "*.mp4"), contents.matching(folder / "videos", "*.mp4")
    if flat and nested:
        raise DownloadError(
            f"{folder} holds {len(flat)} videos, and {len(nested)} more in videos/: keep one of the two [duplicate_key]"
        )
    return flat or nested


def videos_below(folder):
    """{stem: path} of every *.mp4 below `folder`, sorted. Raises DownloadError where a name is there twice."""
    found = {}
    for path in contents.matching(folder, "**/*.mp4"):
        if path.stem in found:
            raise DownloadError(f"{found[path.stem]} and {path} have one name: keep one of them [duplicate_key]")
        found[path.stem] = path
    return found


def find_list(root, name, options, code="missing_list"):
    """Path of a list of the data set: in `options.lists` where given, else at `root/name`.

    Raises DownloadError, with `code`, where it is not there.
    """
    path = root / name if options.lists is None else pathlib.Path(options.lists) / pathlib.PurePath(name).name
    if not path.is_file():
        raise DownloadError(f"no list {path}; it comes with the data set, or name its folder by --lists [{code}]")
    return path


def read_lines(path):
    """[(line number, text)] of a list: any line ends, outer blanks off, blank lines and dot files out.

    Raises DownloadError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DownloadError(f"{path} is not text ({error})") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in lines if line and contents.is_listed(line)]


def read_object(path):
    """{key: dict} of a JSON file, keys that are dot files out. Raises DownloadError where it is none."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DownloadError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise DownloadError(f"{path} must be an object with an object for each video")
    return {key: value for key, value in content.items() if contents.is_listed(key)}


def read_table(path, columns):
    """[{column: text}] of a CSV file that has at least `columns`, rows out whose first of these is a dot file.

    Raises DownloadError where it is none.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DownloadError(f"{path} is not a CSV file ({error})") from error
    short = [i for i, row in enumerate(rows, 1) if not all(row.get(name) for name in columns)]
    if not rows or short:
        where = f"row {short[0]} lacks one" if short else "it has no row"
        raise DownloadError(f"{path} must be a CSV file with the columns {','.join(columns)}; {where}")
    table = [{name: row[name].strip() for name in columns} for row in rows]
    return [row for row in table if contents.is_listed(row[columns[0]])]


def make_entry(path, root, unit, split, fields, *, stem=None, mask=None, publishes_masks=False):
    """The Entry of a video file. path, root: absolute Paths, one below the other."""
    relative = path.relative_to(root).as_posix()
    return Entry(
        "video",
        relative,
        unit,
        stem or path.stem,
        split,
        fields,
        mask=None if mask is None else str(mask),
        publishes_masks=publishes_masks,
        root=str(root),
    )


def unparsed(path, root, expected):
    """The Problem of a file whose name says nothing."""
    return Problem("name_unparsed", path.relative_to(root).as_posix(), f"expected a name like {expected}; left out")


def count_problems(found, expected):
    """A Problem for each number that is not the published one, always: what is partial should be seen to be.

    Args:
      found, expected: {what is counted, a path or a name: number}.
    """
    return [
        Problem("count_mismatch", what, f"{found.get(what, 0)} found, {number} published")
        for what, number in expected.items()
        if found.get(what, 0) != number
    ]


def count_labels(entries):
    """{"<split> real" or "<split> fake": number of entries}."""
    counts = {}
    for entry in entries:
        key = f"{entry.split} {entry.fields['label']}"
        counts[key] = counts.get(key, 0) + 1
    return counts


def finish(entries, options, root):
    """The entries in order (split, reals first, method, name), those that `options` keep.

    Raises:
      DownloadError: there is none, one would overwrite another, or the options name what is not there.
    """
    if not entries:
        raise DownloadError(f"found no video of this data set in {root} [missing_root]")
    check_unique(entries)
    return keep(order(entries), options)


def order(entries):
    """The entries by split, reals first, method and name."""
    rank = {method: number for number, method in enumerate(methods.METHODS)}
    key = lambda e: (
        _SPLIT_ORDER.index(e.split),
        rank[e.fields["method"]],
        e.fields["perturbation"],
        e.fields["video_id"],
    )
    return sorted(entries, key=key)


def identity_splits(pairs, shares, salt):
    """Splits that share no person: people whom a fake links stay together.

    The components of the graph whose edges are fakes go, largest first, each to the split that lacks most of its
    share of videos; people in no fake go by hash. Equal input gives equal splits, in any order.

    Args:
      pairs: (identity, identity) of every video, equal where only one person is in it. shares: {split: fraction},
        which sum to 1. salt: text that the hash starts with.

    Returns:
      {identity: split}.

    Raises:
      DownloadError: fewer components than splits.
    """
    people = sorted({person for pair in pairs for person in pair})
    index = {person: i for i, person in enumerate(people)}
    edges = np.array([(index[a], index[b]) for a, b in pairs], np.int64).reshape(-1, 2)
    graph = scipy.sparse.coo_array((np.ones(len(edges)), edges.T), shape=(len(people),) * 2)
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    linked = set(component[edges[edges[:, 0] != edges[:, 1], 0]].tolist())
    sizes = np.bincount(component[edges[:, 0]]) if len(edges) else np.zeros(0, int)
    name = {c: people[int(np.flatnonzero(component == c)[0])] for c in linked}
    if len(linked) < len(shares):
        raise DownloadError(
            f"fakes link the people here to {len(linked)} groups, and {', '.join(shares)} need one each: splits that "
            "share no person cannot be had without leaving fakes out [cannot_split]"
        )
    lacks = {split: share * sum(int(sizes[c]) for c in linked) for split, share in shares.items()}
    empty, chosen = set(shares), {}
    order = sorted(linked, key=lambda c: (-sizes[c], hash_fraction(name[c], salt)))
    for rank, c in enumerate(order):
        open_splits = [s for s in shares if s in empty or len(order) - rank > len(empty)]
        chosen[c] = max(open_splits, key=lacks.get)
        lacks[chosen[c]] -= int(sizes[c])
        empty.discard(chosen[c])
    return {
        person: chosen[c] if (c := int(component[index[person]])) in chosen else _by_hash(person, shares, salt)
        for person in people
    }


def deal_identities(people, shares, salt):
    """{person: split}: people in the order of their hashes, dealt out by `shares`, as `identity_splits` takes them."""
    order = sorted(set(people), key=lambda person: hash_fraction(person, salt))
    ends = np.round(np.cumsum(list(shares.values())) * len(order)).astype(int)
    return {person: list(shares)[int(np.searchsorted(ends, i, side="right"))] for i, person in enumerate(order)}


def hash_fraction(text, salt):
    """A number in [0, 1) that depends on nothing but the texts."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{text}".encode()).digest()[:6], "big") / 2**48


def _by_hash(text, shares, salt):
    ends = np.cumsum(list(shares.values()))
    return list(shares)[min(int(np.searchsorted(ends, hash_fraction(text, salt), side="right")), len(shares) - 1)]
