"""What a folder of a user's holds. Every look into one goes through here (tests/test_dot_files.py).

macOS puts `._x.mp4` beside every `x.mp4` it copies to another disk, `.DS_Store` into folders, and `__MACOSX/` into
archives: dot files and that folder are nobody's data.
"""

import os
import pathlib

_ARCHIVED = "__MACOSX"


def is_data(path) -> bool:
    """Whether a relative path names data: no part of it starts with a dot or is macOS's folder. "." and ".." may be."""
    parts = str(path).replace("\\", "/").split("/")
    return not any((part.startswith(".") and part.strip(".")) or part == _ARCHIVED for part in parts)


def is_listed(path) -> bool:
    """`is_data` of a path in a list, of which only the file counts: what stands before it may be of another disk."""
    return is_data(str(path).replace("\\", "/").rsplit("/", 1)[-1])


def children(folder) -> list:
    """What is in a folder, sorted. Raises OSError where it is none."""
    return sorted(path for path in folder.iterdir() if is_data(path.name))


def matching(folder, pattern) -> list:
    """What a pattern of `Path.glob` finds below a folder, sorted; nothing where there is no folder."""
    return sorted(path for path in folder.glob(pattern) if is_data(path.relative_to(folder)))


def kinds(folder) -> dict:
    """{name: whether it is a folder} of what is in a folder: one look, however many; empty where there is no folder."""
    try:
        with os.scandir(folder) as inside:
            return {entry.name: entry.is_dir() for entry in inside if is_data(entry.name)}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def walk(folder, links=False):
    """Yields (Path of a folder, names of folders in it, names of files), sorted, from `folder` down.

    Folders that are taken out of the first list are not entered. links: whether links to folders are followed, each
    folder once.
    """
    walked = set()
    for where, folders, files in os.walk(folder, followlinks=links):
        # A link to a folder above would be followed for ever.
        place = os.path.realpath(where) if links else where
        if place in walked:
            folders.clear()
            continue
        walked.add(place)
        folders[:] = sorted(filter(is_data, folders))
        yield pathlib.Path(where), folders, sorted(filter(is_data, files))


def shown(text) -> str:
    """A user's path or word as one line that any output takes: what cannot be printed is written as an escape."""
    text = str(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
