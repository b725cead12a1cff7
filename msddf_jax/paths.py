"""Paths as a user writes them, and whether a folder of the program's own can be written."""

import os
import tempfile


def expand(path) -> str:
    """A path with the home folder in place of a "~" or "~name" at its start.

    A shell does that for a word, not behind the = of `--out=~/x` or in a file. Where a user has no home (as in some
    containers) the path stays as it is.
    """
    return os.path.expanduser(path)


def make_writable(folder) -> None:
    """Makes a folder, with its parents, and tries that files can be made in it. Raises OSError where they cannot."""
    if str(folder).startswith("~"):
        raise FileNotFoundError(f"no home folder for {folder}: HOME is not set")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
