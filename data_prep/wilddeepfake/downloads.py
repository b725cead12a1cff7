"""Which face sequences a download of WildDeepfake holds; the README beside this file has the layout."""

import pathlib
import re

from data_prep import archives, contents, listing
from data_prep.catalog import DownloadError, Entry, Problem, make_fields

CONFIGS = ("default",)
SPLITS = ("train", "test")
LABELS = ("real", "fake")
_IMAGES = (".png", ".jpg", ".jpeg")
_SUFFIXES = (".tar.gz", ".tgz", ".tar")
_UNPACKED = "-unpacked"


def find(root, config, options):
    """The face sequences of WildDeepfake (Zi et al. 2020), crops already.

    Archives are unpacked beside the download, into `<root>-unpacked/<folder>/<archive>`, once; where `<archive>/`
    stands beside or in place of `<archive>.tar.gz`, it is read as it is.

    Args:
      root: `deepfake_in_the_wild`, or the folder that it is in. config: "default". options: catalog.Options.

    Returns:
      list of Entry of kind "crops", splits train and test. list of Problem: name_unparsed, zero_frames, missing_root
      (of one of the four folders), bad_archive.

    Raises:
      DownloadError: no such folder; both spellings of one; a damaged archive, unless `options.allow_missing`.
    """
    listing.check_config(config, CONFIGS)
    spellings = {(label, split): (f"{label}_{split}", f"{label} {split}") for split in SPLITS for label in LABELS}
    root = listing.find_root(root, ("deepfake_in_the_wild",), [name for names in spellings.values() for name in names])
    entries, problems = [], []
    for (label, split), names in spellings.items():
        folder = listing.pick_folder(root, names)
        if folder is None:
            problems.append(Problem("missing_root", names[0], f"no folder {names[0]} or '{names[1]}'"))
            continue
        for name, base, place in _archives(root, folder, names[0], options, problems):
            entries += _sequences(base, place, names[0], name, label, split, problems)
    return listing.finish(entries, options, root), problems


def frame_number(name):
    """Number of a frame in the original video from an image's name, `12.png` or `frame_0012.png`, None without one."""
    match = re.fullmatch(r"(?:\D*[_-])?(\d{1,9})\.\w+", name)
    return int(match[1]) if match else None


def _archives(root, folder, plain, options, problems):
    """(name, root that it is below, folder with its sequences) of every archive, by number."""
    there = {}
    for path in contents.children(folder):
        suffix = next((s for s in _SUFFIXES if path.name.endswith(s)), None)
        if path.is_dir():
            there[path.name] = path
        elif suffix is None:
            problems.append(Problem("name_unparsed", path.relative_to(root).as_posix(), "expected <n>.tar.gz"))
        else:
            there.setdefault(path.name.removesuffix(suffix), path)
    for name, path in sorted(there.items(), key=lambda item: (len(item[0]), item[0])):
        if path.is_dir():
            yield name, root, path
            continue
        base = root.with_name(root.name + _UNPACKED)
        try:
            yield name, base, archives.unpack(path, base / plain / name)
        except archives.ArchiveError as error:
            if not options.allow_missing:
                raise
            problems.append(Problem("bad_archive", path.relative_to(root).as_posix(), error.detail))


def _sequences(root, place, plain, archive, label, split, problems):
    """Entries of one archive: every folder in it that holds images is a sequence."""
    entries, top = [], _without_wrappers(place)
    for folder in [top, *(path for path in contents.matching(top, "**/*") if path.is_dir())]:
        inner = folder.relative_to(top).parts
        frames = {}
        for path in contents.children(folder):
            if not path.is_file() or path.suffix.lower() not in _IMAGES:
                continue
            number, relative = frame_number(path.name), path.relative_to(root).as_posix()
            if number is None:
                problems.append(Problem("name_unparsed", relative, "expected a frame number as name; left out"))
            elif number in frames:
                raise DownloadError(f"{frames[number]} and {relative} are one frame [duplicate_key]")
            else:
                frames[number] = relative
        if frames:
            entries.append(_entry(root, plain, archive, inner, label, split, frames))
        elif not contents.children(folder):
            problems.append(Problem("zero_frames", folder.relative_to(root).as_posix(), "an empty folder"))
    return entries


def _without_wrappers(folder):
    """The folder below which sequences differ: an archive may hold one folder that holds them all."""
    while True:
        inside = contents.children(folder)
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        if not all(path.is_dir() for path in contents.children(inside[0])):
            return folder
        folder = inside[0]


def _entry(root, plain, archive, inner, label, split, frames):
    unit = pathlib.PurePosixPath("deepfake_in_the_wild", plain, archive, *inner[:-1]).as_posix()
    stem = inner[-1] if inner else archive
    name = "/".join([plain, archive, *inner])
    fields = make_fields("wilddeepfake", "real" if label == "real" else "unknown", name, group_id=f"{plain}/{archive}")
    images = tuple(sorted(frames.items()))
    return Entry("crops", images[0][1].rsplit("/", 1)[0], unit, stem, split, fields, images=images, root=str(root))
