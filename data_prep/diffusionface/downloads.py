"""Which images lists of DiffusionFace name; `find_listed` reads those of DiFF too."""

import pathlib
import re

from data_prep import contents, listing
from data_prep.catalog import DownloadError, Entry, Problem, make_fields, missing_files, nearest
from msddf_jax.data import methods

CONFIGS = ("list",)
# Folders of the copies that SJEDD arranged: what makes an image real, or tells its method where a list does not.
FOLDERS = {
    "Real": "real",
    "DiFF_real": "real",
    "DiffSwap": "diffswap",
    "DCFace": "dcface",
    "DiffFace": "diffface",
}
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def find(root, config, options):
    """The images that lists of DiffusionFace (Chen et al. 2024) name; see `find_listed`."""
    listing.check_config(config, CONFIGS)
    return find_listed(root, "diffusionface", "DiffusionFace", options)


def find_listed(root, dataset, folder, options):
    """The images that lists `<path> <0 or 1>[ <method>]` name, each a video of one frame.

    Args:
      root: folder that the lists' paths are relative to, or the one that it is in. dataset: of `schema.DATASETS`.
      folder: official name of the root. options: catalog.Options; lists: folder of the lists (*.txt), the root where
        none is given. A list whose name holds `train` or `val` is of that split, any other of test.

    Returns:
      list of Entry of kind "crops". list of Problem: missing_listed_file, unknown_method.

    Raises:
      DownloadError: no list, a malformed line, an image twice, a label that the folder's name contradicts, or a
        listed image that is not there.
    """
    root = pathlib.Path(root).absolute()
    root = root / folder if (root / folder).is_dir() else root
    if not root.is_dir():
        raise DownloadError(f"no folder {root} [missing_root]")
    lists = pathlib.Path(options.lists or root)
    paths = contents.matching(lists, "*.txt")
    if not paths:
        raise DownloadError(
            f"no list *.txt in {lists}: its lines are '<path of an image> <0 real or 1 fake>[ <method>]', paths below "
            f"{root}; the archives' folders are not known here, so that any arrangement can be listed [missing_list]"
        )
    listed, problems, missing = {}, [], []
    for path in paths:
        for number, line in listing.read_lines(path):
            where = f"{path} line {number}"
            name, label, method = parse_line(line, where, folder)
            if name in listed:
                raise DownloadError(f"{where}: {name} is listed twice [duplicate_key]")
            listed[name] = _split(path.stem), method_of(name, label, method, where, problems)
    entries = []
    for name, (split, method) in listed.items():
        if not (root / name).is_file():
            missing.append(name)
            continue
        entries.append(_entry(root, dataset, folder, name, split, method))
    missing_files(missing, options, root, problems)
    return listing.finish(entries, options, root), problems


def parse_line(line, where, folder):
    """(path below the root, label, method or "") of `<path> <0|1>[ <method>]`; the path may hold blanks.

    Raises:
      DownloadError: another form, or a path that leads out of the root.
    """
    match = re.fullmatch(r"(?P<path>.+?)\s+(?P<label>[01])(?:\s+(?P<method>\S*[A-Za-z]\S*))?", line.strip())
    if match is None or not match["path"].lower().endswith(_IMAGES):
        raise DownloadError(f"{where}, {line!r}: expected '<path of an image> <0 or 1>[ <method>]' [name_unparsed]")
    parts = [part for part in match["path"].replace("\\", "/").split("/") if part not in ("", ".")]
    if folder in parts[:-1]:
        # What stands before the root is of another disk.
        parts = parts[len(parts) - parts[::-1].index(folder) :]
    if ".." in parts:
        raise DownloadError(f"{where}: {match['path']!r} leads out of {folder} [name_unparsed]")
    return "/".join(parts), int(match["label"]), match["method"] or ""


def method_of(path, label, method, where, problems):
    """The method of a listed image, of `methods.METHODS`: the list's, or that of a folder in its path, else "unknown".

    Raises DownloadError where a folder of reals is called fake, or a method's real.
    """
    folder = next((FOLDERS[part] for part in path.split("/")[:-1] if part in FOLDERS), None)
    plain = re.sub(r"[^a-z0-9]", "", method.lower())
    known = {re.sub(r"[^a-z0-9]", "", name): name for name in methods.METHODS}
    named = known.get(plain, "unknown") if method else folder
    for told in {named, folder} - {None, "unknown"}:
        if (told == "real") != (label == 0):
            raise DownloadError(f"{where}: {path} is labelled {label} (1 is fake) and is {told} [label_conflict]")
    if method and named == "unknown" and label == 1:
        problems.append(Problem("unknown_method", path, f"{method!r}{nearest(method, methods.METHODS)}"))
    return "real" if label == 0 else named or "unknown"


def _split(stem):
    return next((split for name, split in _SPLITS.items() if name in stem.lower()), "test")


def _entry(root, dataset, folder, name, split, method):
    place = pathlib.PurePosixPath(folder, name)
    # The suffix stays: a.png and a.jpg are two images.
    return Entry(
        "crops",
        pathlib.PurePosixPath(name).parent.as_posix(),
        place.parent.as_posix(),
        place.name,
        split,
        make_fields(dataset, method, name),
        images=((0, name),),
        root=str(root),
    )
