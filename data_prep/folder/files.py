"""A user's own files as a list: from folders real/ and fake/, or from a table."""

import collections
import os
import pathlib
import re
from typing import NamedTuple

from data_prep import contents
from data_prep.catalog import DownloadError, Problem
from data_prep.folder import table
from msddf_jax.data import methods, schema
from msddf_jax.faces import find, image_file

_SUFFIXES = find.VIDEO_SUFFIXES + find.IMAGE_SUFFIXES
_TABLES = (".csv", ".tsv")
_SIDECARS = (".landmarks.npy",)
_REAL = ("real", "original")
_NO_METHOD = ("", "-", "none", *_REAL)
_SHOWN = 5


class Item(NamedTuple):
    """An image, a video, or a folder of numbered images, which is one video.

    path: relative to the root, forward slashes; of a table it may be absolute. kind: "image", "video" or "numbered".
    label: "real" or "fake". split: "" where none is given. method: the user's word, "" where none. group, identity: the
    user's words, "" where none. folder: the sub-folder that it shares with others, "" where it stands alone. pair: what
    a fake has in common with its real, "" where nothing. images: ((number, path), ...) of a "numbered".
    """

    path: str
    kind: str
    label: str
    split: str
    method: str = ""
    group: str = ""
    identity: str = ""
    folder: str = ""
    pair: str = ""
    images: tuple = ()


def find_table(root, lists):
    """The table that is to be read, or None where there are folders real/ and fake/, or train/, val/ and test/.

    Args:
      root: Path, a folder or a table. lists: the user's --lists, a table or a folder with one, or None.

    Raises:
      DownloadError: neither folders nor exactly one table.
    """
    place = pathlib.Path(lists).absolute() if lists else root
    if place.is_file():
        return place
    if not place.is_dir():
        raise DownloadError(f"no file or folder {place} [missing_root]")
    if not lists and _folders_of(root, {**table.SPLITS, **dict.fromkeys(schema.LABELS)}):
        return None
    tables = [path for path in contents.children(place) if path.suffix.lower() in _TABLES]
    if len(tables) == 1:
        return tables[0]
    there = f"{len(tables)} tables, {', '.join(contents.shown(path.name) for path in tables[:_SHOWN])}"
    raise DownloadError(
        f"{place} holds no folders real/ and fake/, no train/, val/ and test/ with such folders in them, and "
        f"{there if tables else 'no table *.csv'}: lay the files out so, or name one table with the columns path and "
        "label by --lists [missing_root]"
    )


def from_folders(root, problems):
    """The items of ROOT[/{train,val,test}]/{real,fake[/method]}/...; what is not read is told.

    Args:
      root: Path. problems: list to which what is found odd is added.

    Raises:
      DownloadError: folders on two levels, or one twice.
    """
    splits = _folders_of(root, table.SPLITS)
    classes = _folders_of(root, dict.fromkeys(schema.LABELS))
    if splits and classes:
        raise DownloadError(
            f"{root} holds both {classes[0].name}/ and {splits[0].name}/: put real/ and fake/ into train/, val/ and "
            "test/, or take those away [two_layouts]"
        )
    items, left_out = [], collections.Counter()
    for split, base in [(table.SPLITS[path.name.lower()], path) for path in splits] or [("", root)]:
        there = {path.name.lower(): path for path in _folders_of(base, dict.fromkeys(schema.LABELS))}
        numbered = set()
        for label in [label for label in schema.LABELS if label in there]:
            items += _of_class(root, there[label], label, split, numbered, left_out)
        for path in contents.children(base):
            _tell_unread(path, root, there, problems)
    for path in contents.children(root) if splits else ():
        _tell_unread(path, root, {path.name.lower(): path for path in splits}, problems)
    if left_out:
        detail = f"{find.describe_left_out(left_out)}: neither image nor video"
        problems.append(Problem("not_media", ".", detail))
    return items


def _folders_of(parent, names):
    """Sorted folders in `parent` with one of the names, in any case. Raises DownloadError where two mean one."""
    found = [path for path in contents.children(parent) if path.name.lower() in names and path.is_dir()]
    meant = {}
    for path in found:
        first = meant.setdefault(names[path.name.lower()] or path.name.lower(), path)
        if first is not path:
            raise DownloadError(
                f"{parent} has both {first.name} and {path.name}, which are one: keep one [duplicate_key]"
            )
    return found


def _tell_unread(path, root, taken, problems):
    if path in taken.values() or (path.is_file() and path.suffix.lower() not in _SUFFIXES + _TABLES):
        return
    here = contents.shown(path.relative_to(root).as_posix())
    problems.append(Problem("not_read", here, f"beside {', '.join(sorted(taken))}, and none of these; not read"))


def _of_class(root, top, label, split, numbered, left_out):
    """Items below `real` or `fake`. numbered: folders of numbered images below `real`, which is read first."""
    items = []
    for where, _, names in contents.walk(top, links=True):
        inner = where.relative_to(top).parts
        names, others = _media(names)
        left_out.update(others)
        images = _numbers(names) if inner else None
        if label == "fake":
            known = inner and known_method(inner[0]) is not None
            # fake/x/000.png may be a frame of the video x, or an image by the method x: the reals tell how it is here.
            images = images if len(inner) > 1 or (inner and numbered and not known) else None
            method, inner = ("", inner) if images and len(inner) == 1 else (inner[0] if inner else "", inner[1:])
        else:
            method = ""
        relative, below = where.relative_to(root).as_posix(), "/".join(inner)
        if images:
            numbered.add(below)
            paths = tuple((number, f"{relative}/{name}") for number, name in sorted(images.items()))
            items.append(Item(relative, "numbered", label, split, method, pair=below, images=paths))
            continue
        for name in names:
            path = f"{relative}/{name}"
            pair = "/".join([*inner, name.rsplit(".", 1)[0]])
            kind = kind_of(f"{where}/{name}")
            folder = relative if inner and kind == "image" else ""
            items.append(Item(path, kind, label, split, method, folder=folder, pair=pair))
    return items


def _media(names):
    """(names of images and videos, {suffix: number of other files})."""
    media = [name for name in names if name.lower().endswith(_SUFFIXES)]
    others = [name for name in names if not name.lower().endswith((*_SUFFIXES, *_SIDECARS))]
    return media, collections.Counter(pathlib.PurePath(name).suffix.lower() or "no extension" for name in others)


def _numbers(names):
    """{number: name} of images whose names are plain numbers, each another, or None where that is not so of all."""
    stems = [name.rsplit(".", 1)[0] for name in names]
    if not names or not all(s.isascii() and s.isdecimal() and len(s) < 10 for s in stems):
        return None
    numbers = {int(stem): name for stem, name in zip(stems, names, strict=True)}
    images = all(name.lower().endswith(find.IMAGE_SUFFIXES) for name in names)
    return numbers if images and len(numbers) == len(names) else None


def kind_of(path):
    """ "image" or "video", by the suffix, and of a GIF by whether it moves. path: of a file, text or Path."""
    lower = str(path).lower()
    if not lower.endswith(".gif"):
        return "video" if lower.endswith(find.VIDEO_SUFFIXES) else "image"
    try:
        return "video" if find.is_video(path) else "image"
    except image_file.ImageError:  # no GIF: the preparation says so
        return "image"


def known_method(word):
    """The name in `methods.METHODS` of a fake's method as a user may write it ("Deepfakes", "HeyGen"), or None."""
    name = word.strip().lower().replace("-", "_").replace(" ", "_")
    return name if name in methods.METHODS and name not in ("real", "unknown") else None


def readable(path):
    """A path as text that any file can hold: bytes of a name that are no UTF-8 are written as an escape."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def from_table(path, root, options, problems):
    """The items of a table, whose paths are relative to its folder, or, where none of them is there, to the root.

    Args:
      path: of the table. root: Path. options: catalog.Options. problems: as in `from_folders`.

    Returns:
      (items, the folder that paths are relative to).

    Raises:
      DownloadError: as `table.read_table`; a file that is not there, listed twice otherwise, or a method that
      contradicts the label.
    """
    rows, others = table.read_table(path)
    if others:
        names = ", ".join(map(contents.shown, others))
        problems.append(
            Problem("columns_not_read", contents.shown(path.name), f"columns that mean nothing here: {names}")
        )
    rows = _each_once(path, [row for row in rows if contents.is_listed(row.path)], problems)
    look = _Look()
    bases = [base for base in dict.fromkeys((path.parent, root)) if base.is_dir()]
    base = next((b for b in bases if any(look.find(b, row.path) for row in rows)), path.parent)
    items, missing = [], []
    for row in rows:
        found = look.find(base, row.path)
        if found is None:
            missing.append(contents.shown(row.path))
        else:
            items.append(_item_of(row, *found, base, problems))
    if missing and not options.allow_missing:
        windows = any(re.match(r"[A-Za-z]:[\\/]", name) for name in missing)
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" * (len(missing) > _SHOWN))
        raise DownloadError(
            f"{path} lists {len(missing)} files that are not there: {shown}; "
            f"{'paths of a Windows drive are none here, ' * windows}write paths relative to {base}, or pass "
            "--allow_missing [missing_listed_file]"
        )
    problems += [Problem("missing_listed_file", name, "listed, but not there") for name in missing]
    return [item for item in items if item is not None], base


def _each_once(path, rows, problems):
    """The rows without those that repeat another. Raises DownloadError where they contradict each other."""
    first, again = {}, 0
    for row in rows:
        key = os.path.normpath(row.path)
        other = first.setdefault(key, row)
        if other is row:
            continue
        for what, code in (("label", "label_conflict"), ("split", "split_conflict")):
            if getattr(other, what) != getattr(row, what):
                raise DownloadError(
                    f"{path} lists {contents.shown(row.path)} twice, as {getattr(other, what)} and as "
                    f"{getattr(row, what)}: leave one out [{code}]"
                )
        if other._replace(path="") != row._replace(path=""):
            raise DownloadError(
                f"{path} lists {contents.shown(row.path)} twice with other words: leave one out [duplicate_key]"
            )
        again += 1
    if again:
        problems.append(Problem("listed_twice", contents.shown(path.name), f"{again} rows repeat another; read once"))
    return list(first.values())


class _Look:
    """Which listed files are there, by one look into each folder: a million files are not asked for one by one."""

    def __init__(self):
        self._folders = {}

    def find(self, base, name):
        """(normalised path, whether it is a folder) of a listed path, or None where it is not there."""
        for text in dict.fromkeys((name, name.replace("\\", "/"))):
            normal = os.path.normpath(text)
            folder, _, file = normal.rpartition("/")
            folder = os.path.join(base, folder or ("/" if normal.startswith("/") else ""))
            if folder not in self._folders:
                self._folders[folder] = contents.kinds(folder)
            kind = self._folders[folder].get(file)
            if kind is not None:
                return normal, kind
        return None


def _item_of(row, normal, is_folder, base, problems):
    method, word = row.method, row.method.lower()
    if word not in _NO_METHOD if row.label == "real" else word in _REAL:
        raise DownloadError(
            f"{contents.shown(row.path)} is labelled {row.label} and its method is {contents.shown(method)!r}: a real "
            "has none, and a fake has another [label_conflict]"
        )
    method = "" if word in _NO_METHOD else method
    relative = os.path.relpath(normal, base) if os.path.isabs(normal) and _is_below(normal, base) else normal
    make = lambda kind, images=(): Item(
        relative, kind, row.label, row.split, method, row.group, row.identity, images=images
    )
    if is_folder:
        names, _ = _media([name for name, folder in sorted(contents.kinds(base / normal).items()) if not folder])
        numbers = _numbers(names)
        if numbers is None:
            raise DownloadError(
                f"{contents.shown(row.path)} is listed, and is a folder: only one with numbered images and no other "
                "images or videos can be, which is one video; list its files [not_media]"
            )
        return make("numbered", tuple((number, f"{relative}/{name}") for number, name in sorted(numbers.items())))
    if not relative.lower().endswith(_SUFFIXES):
        detail = f"listed, and neither image nor video by its name; expected one of {' '.join(_SUFFIXES)}"
        problems.append(Problem("not_media", contents.shown(relative), detail))
        return None
    return make(kind_of(os.path.join(base, normal)))


def _is_below(path, base):
    return os.path.normpath(path).startswith(f"{os.path.normpath(base)}/")
