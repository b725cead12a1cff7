"""Which of a user's files belong together, and the splits that are made of them where none are given."""

import collections
import dataclasses
import hashlib
import os

import numpy as np
import scipy.sparse.csgraph

from data_prep import contents, listing
from data_prep.catalog import DownloadError, Problem
from msddf_jax.data import schema

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
# Of train, where only validation is not given.
CUT = {"train": 0.85, "validation": 0.15}
_SALT = "folder 1"
_SHOWN = 5


def same_files(items, base):
    """Items whose files hold the same bytes; empty files are left out, which the preparation tells.

    Args:
      items: list of files.Item. base: Path that theirs are relative to.

    Returns:
      list of lists of numbers of items, each of at least two.
    """
    by_size = collections.defaultdict(list)
    for number, item in enumerate(items):
        paths = _paths(item, base)
        sizes = tuple(map(_size, paths))
        if all(sizes):
            by_size[sizes].append(number)
    by_bytes = collections.defaultdict(list)
    for numbers in by_size.values():
        for number in numbers if len(numbers) > 1 else ():
            digest = _digest(_paths(items[number], base))
            if digest is not None:
                by_bytes[digest].append(number)
    return [numbers for numbers in by_bytes.values() if len(numbers) > 1]


def join(keys):
    """What shares a key, directly or through others, is one group.

    Args:
      keys: for each item a list of texts, at least one.

    Returns:
      for each item the name of its group, the first in order of all keys in it: it does not depend on their order.
    """
    number, edges = {}, []
    for i, own in enumerate(keys):
        edges += [(i, number.setdefault(key, len(number))) for key in own]
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    size = len(keys) + len(number)
    graph = scipy.sparse.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1] + len(keys))), (size, size))
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    name = {}
    for key, c in zip(number, component[len(keys) :].tolist(), strict=True):
        name[c] = min(name.get(c, key), key)
    return [name[c] for c in component[: len(keys)].tolist()]


def deal(labels, groups, shares):
    """Splits of whole groups, near the shares in each class, every split with both classes.

    The largest group first, those of one size by hash, each goes to the split that lacks most of its classes. The same
    items give the same splits, in any order.

    Args:
      labels: "real" or "fake" of each item. groups: the name of its group. shares: {split: fraction}, which sum to 1.

    Returns:
      {group: split}.

    Raises:
      DownloadError: fewer groups with a class than splits.
    """
    counts = {}
    for label, group in zip(labels, groups, strict=True):
        counts.setdefault(group, [0, 0])[schema.LABELS.index(label)] += 1
    left = [sum(count[c] > 0 for count in counts.values()) for c in (0, 1)]
    total = [sum(count[c] for count in counts.values()) for c in (0, 1)]
    for label, number in zip(schema.LABELS, left, strict=True):
        if number < len(shares):
            _too_few(label, number, shares)
    lacks = {split: [share * n for n in total] for split, share in shares.items()}
    without, chosen = [set(shares), set(shares)], {}
    for group in sorted(counts, key=lambda g: (-sum(counts[g]), listing.hash_fraction(g, _SALT), g)):
        count = counts[group]
        mine = [c for c in (0, 1) if count[c]]
        # Where as many groups are left as splits wait for the class, each gets one.
        waiting = [without[c] for c in mine if left[c] <= len(without[c])]
        free = (set.intersection(*waiting) or set.union(*waiting)) if waiting else shares
        split = max(
            (s for s in shares if s in free), key=lambda s: sum(count[c] * lacks[s][c] / total[c] for c in mine)
        )
        chosen[group] = split
        for c in mine:
            lacks[split][c] -= count[c]
            left[c] -= 1
            without[c].discard(split)
    for label, missing in zip(schema.LABELS, without, strict=True):
        if missing:
            _too_few(label, len(shares) - len(missing), shares)
    return chosen


def _too_few(label, number, shares):
    raise DownloadError(
        f"the {label} files are {number} group{'s' * (number != 1)} that can be apart, and {', '.join(shares)} need "
        f"one each: add {label} files, put images straight into {label}/ (a folder in it is one group), or give "
        "splits, by folders train/, val/ and test/ or a column split [cannot_split]"
    )


def assign(items, groups, problems):
    """A split for each item: the given one, or one dealt here.

    Args:
      items: list of files.Item. groups: the name of each one's group. problems: list to which is added what was done.

    Returns:
      for each item (split, the splits among which it was dealt, () where its split is given).

    Raises:
      DownloadError: as `deal`; a given split with one class only.
    """
    given = {item.split for item in items}
    shares = SHARES if "" in given else CUT if "train" in given and "validation" not in given else {}
    mine = [i for i, item in enumerate(items) if shares and item.split in ("", "train")]
    dealt = deal([items[i].label for i in mine], [groups[i] for i in mine], shares) if mine else {}
    chosen = [(item.split, ()) for item in items]
    for i in mine:
        chosen[i] = dealt[groups[i]], tuple(shares)
    counts = collections.Counter((split, item.label) for (split, _), item in zip(chosen, items, strict=True))
    splits = [split for split in SHARES if any(counts[split, label] for label in schema.LABELS)]
    for split in splits:
        for label in schema.LABELS:
            if not counts[split, label]:
                raise DownloadError(
                    f"{split} has no {label} file, and neither training nor AUC knows what to do with one class: add "
                    f"{label} files to it [one_class]"
                )
    if mine:
        what = "no splits are given" if shares is SHARES else "no validation split is given, and train is cut"
        text = ", ".join(f"{share:.0%} {split}" for split, share in shares.items())
        detail = f"{what}: {len(dealt)} groups are dealt by their hashes, {text}"
        problems.append(Problem("splits_made", ".", detail))
    if "test" not in splits:
        problems.append(Problem("no_test", ".", "no test split is given, so that there is nothing to test on"))
    return chosen


def check(items, same, allow, problems):
    """Tell files that contradict each other: one image in both classes or in two splits, a group in two splits.

    Args:
      items: list of files.Item. same: from `same_files`. allow: go on all the same. problems: list to add to.

    Raises:
      DownloadError: there are some, and `allow` is false.
    """
    found = []
    for numbers in same:
        for what, code in (("label", "two_classes"), ("split", "two_splits")):
            first = {}
            for number in numbers:
                first.setdefault(getattr(items[number], what), contents.shown(items[number].path))
            if len(first) > 1:
                (a, path), (b, other) = sorted(first.items())[:2]
                found.append(Problem(code, path, f"in {a}, holds the same bytes as {other} in {b}"))
    for what in ("group", "identity"):
        places = {}
        for item in items:
            if getattr(item, what):
                places.setdefault(getattr(item, what), {}).setdefault(item.split, contents.shown(item.path))
        for word, paths in places.items():
            if len(paths) > 1:
                (a, path), (b, other) = sorted(paths.items())[:2]
                detail = f"in {a}, is of the same {what} as {other} in {b}: {contents.shown(word)}"
                found.append(Problem("two_splits", path, detail))
    if found and not allow:
        shown = "; ".join(f"{problem.path} {problem.detail}" for problem in found[:_SHOWN])
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise DownloadError(
            f"{len(found)} files contradict others: {shown}{more}. Take one of each away, or go on with "
            f"--allow_duplicates, which lists them all in the report [{found[0].code}]"
        )
    problems += found
    for numbers in same:
        paths = [contents.shown(items[number].path) for number in numbers]
        problems.append(
            Problem("same_bytes", paths[0], f"the same bytes as {', '.join(paths[1:_SHOWN])}; kept, one group")
        )


def deal_again(entries, pairs, problems):
    """The entries whose splits were dealt, dealt again with those that look alike in one group.

    Args:
      entries: list of catalog.Entry, all with `dealt`. pairs: (number, number) of those that look alike. problems: list
        to add to.

    Returns:
      list of Entry.

    Raises:
      DownloadError: as `deal`.
    """
    # Without the name of the set: the same files under another name get the same splits.
    names, own = zip(*(entry.fields["group_id"].split("/", 1) for entry in entries), strict=True)
    keys = [[group] for group in own]
    apart = [(a, b) for a, b in sorted(pairs) if keys[a][0] != keys[b][0]]
    for a, b in apart:
        # Behind every name: a group keeps one of its own.
        keys[b].append(f"\U0010ffff{a}")
        keys[a].append(f"\U0010ffff{a}")
        path, other = (contents.shown(entries[i].path) for i in (a, b))
        problems.append(Problem("look_alike", path, f"looks like {other}; kept, in one split with it"))
    groups = join(keys)
    shares = next(shares for shares in (SHARES, CUT) if tuple(shares) == entries[0].dealt)
    split = deal([entry.fields["label"] for entry in entries], groups, shares)
    return [
        dataclasses.replace(entry, split=split[group], fields=entry.fields | {"group_id": f"{name}/{group}"})
        for entry, name, group in zip(entries, names, groups, strict=True)
    ]


def _paths(item, base):
    return [os.path.join(base, path) for path in ([path for _, path in item.images] or [item.path])]


def _size(path):
    try:
        return os.path.getsize(path)
    except OSError:  # the preparation says what is wrong with it
        return 0


def _digest(paths):
    digest = hashlib.sha256()
    try:
        for path in paths:
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError:
        return None
    return digest.digest()
