"""Which files of a user's folders are images and videos, and which were left out."""

import collections
import os
import pathlib

from msddf_jax.faces import image_file

VIDEO_SUFFIXES = (
    ".3g2", ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm",
    ".wmv",
)  # fmt: skip
IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"
)  # fmt: skip
# Of a folder's files, what stands beside media and is read with them.
_SIDECARS = (".landmarks.npy",)
# MPEG-TS packets begin with this byte, at 0 or, on Blu-ray and AVCHD, behind four bytes of time.
_TS_SYNC = 0x47


class InputError(ValueError):
    """A file or folder that cannot be scored: `code` is one word, `detail` one line."""

    def __init__(self, code, path, detail):
        super().__init__(f"{path}: {detail} [{code}]")
        self.code, self.path, self.detail = code, str(path), detail


def find_files(paths, skip=None) -> tuple[list[tuple[pathlib.Path, InputError | None]], collections.Counter]:
    """The files to score, in order, each once, and how many of the folders' were left out.

    Args:
      paths: files and folders; folders are searched through, in name order, for the extensions in
        `VIDEO_SUFFIXES` and `IMAGE_SUFFIXES`; links are followed, each folder once; hidden names are nobody's data.
      skip: a folder that is not searched.

    Returns:
      (list of (pathlib.Path, None or InputError): not_found, unknown_extension (only of files named in `paths`) or
      empty_folder (nothing in it to score); {extension: files in folders that are neither image nor video}).
    """
    known = VIDEO_SUFFIXES + IMAGE_SUFFIXES
    found, seen, left_out = [], set(), collections.Counter()
    for path in map(pathlib.Path, paths):
        if os.path.isdir(path):
            inside, others = _search(path, known, skip)
            left_out += others
            if not inside:
                detail = f"no image or video in this folder (looked for {' '.join(known)})"
                found.append((path, InputError("empty_folder", path, detail)))
        elif not os.path.isfile(path):
            found.append((path, InputError("not_found", path, "no such file or folder")))
            continue
        elif path.suffix.lower() not in known:
            detail = f"unknown extension {path.suffix!r}, expected one of {' '.join(known)}"
            found.append((path, InputError("unknown_extension", path, detail)))
            continue
        else:
            inside = [path]
        for file in inside:
            if os.path.realpath(file) not in seen:
                seen.add(os.path.realpath(file))
                found.append((file, None))
    return found, left_out


def _search(folder, suffixes, skip):
    """(files of a folder and those below it, {extension: files that are left out})."""
    inside, others = [], collections.Counter()
    # A link to a folder above would be followed for ever.
    walked = set() if skip is None else {os.path.realpath(skip)}
    for root, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(root) in walked:
            folders.clear()
            continue
        walked.add(os.path.realpath(root))
        folders[:] = sorted(name for name in folders if name[0] != ".")
        for name in sorted(name for name in files if name[0] != "."):
            path = pathlib.Path(root, name)
            if name.lower().endswith(suffixes) and _may_be_media(path):
                inside.append(path)
            elif not name.lower().endswith(_SIDECARS):
                others[path.suffix.lower() or "no extension"] += 1
    return inside, others


def _may_be_media(path):
    """False for a .ts file that is a program's source and no video."""
    if path.suffix.lower() != ".ts":
        return True
    with open(path, "rb") as file:
        head = file.read(8)
    return len(head) == 8 and _TS_SYNC in (head[0], head[4])


def describe_left_out(left_out) -> str:
    """ "6 files left out (.heic 3, .mts 2, .doc 1)", the most frequent first; "" without any."""
    if not left_out:
        return ""
    parts = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{suffix} {count}" for suffix, count in parts)
    total = sum(left_out.values())
    return f"{total} {'file' if total == 1 else 'files'} left out ({listed})"


def is_video(path) -> bool:
    """Whether a file is read as a video: by its extension, and a GIF by whether it moves.

    Raises ImageError for a GIF that is none.
    """
    suffix = pathlib.Path(path).suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix == ".gif" and image_file.count_frames(path) > 1)


def picture_names(paths) -> dict[pathlib.Path, str]:
    """{path: its path below the folder that all share}, extension kept: no two files have the same."""
    if not paths:
        return {}
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    return {path: os.path.relpath(os.path.abspath(path), shared) for path in paths}
