"""Which cropped frames a download of DF40 holds; the README beside this file has the layout."""

import json
import pathlib
import re

from data_prep import contents, listing
from data_prep.catalog import DownloadError, Entry, Problem, make_fields, missing_files
from data_prep.df40 import names
from data_prep.dfb import stems

CONFIGS = (
    *(f"{method}_{domain}" for method in names.KNOWN for domain in ("ff", "cdf")),
    "e4e_ff",
    *(f"{group}_{domain}" for group in names.GROUPS for domain in ("ff", "cdf")),
    *(f"unknown_{method}" for method in names.UNKNOWN),
)
FF_REALS = "FaceForensics++/original_sequences/youtube/c23"
CDF_REALS = ("Celeb-DF-v2/Celeb-real", "Celeb-DF-v2/YouTube-real")
_FRAMES = ("frames", "frames_all")
_NOT_FRAMES = ("landmarks", "masks")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_TRAIN = "/ff/train/"
_PEOPLE = {"ff": stems.ff, "cdf": stems.cdf}


def find(root, config, options):
    """The frames of one method of DF40 (Yan et al. 2024), or of all of one kind, and the reals that go with them.

    Args:
      root: folder that holds `DF40`, and `DF40_train` where there is one. config: of `CONFIGS`. options:
        catalog.Options; reals_root: folder of `FaceForensics++` and `Celeb-DF-v2` with cropped real frames, the root
        where none is given; lists: folder of train.json and test.json of FaceForensics++, or of Celeb-DF's list.

    Returns:
      list of Entry of kind "crops": `_ff` has train (`DF40_train`) and test (`DF40`), the others test. list of
      Problem: zero_frames, missing_list, missing_listed_file, split_conflict, identity_unknown.

    Raises:
      DownloadError: no such config, folder or list; the same fakes in train and test; reals that are not there.
    """
    listing.check_config(config, CONFIGS)
    root = pathlib.Path(root).absolute()
    root = root.parent if root.name == "DF40" and not (root / "DF40").is_dir() else root
    if not root.is_dir():
        raise DownloadError(f"no folder {root} [missing_root]")
    problems = []
    if config.startswith("unknown_"):
        method = config.removeprefix("unknown_")
        folder = _method_folder(root / "DF40", method)
        entries = _folder_entries(root, folder / "fake", "test", method, "", problems)
        entries += _folder_entries(root, folder / "real", "test", "real", "", problems, of=method)
        return listing.finish(entries, options, root), problems
    wanted, domain = _wanted(config, options)
    entries = _fakes(root / "DF40", wanted, domain, "test", options, problems)
    reals_root = pathlib.Path(options.reals_root or root).absolute()
    if domain == "cdf":
        return listing.finish(entries + _cdf_reals(reals_root, options, problems), options, root), problems
    if (root / "DF40_train").is_dir():
        entries += _fakes(root / "DF40_train", wanted, "ff", "train", options, problems)
    _check_apart(entries, config)
    lists = _read_lists(reals_root, options, {entry.split for entry in entries})
    _check_lists(entries, lists, problems)
    return listing.finish(entries + _ff_reals(reals_root, lists, options, problems), options, root), problems


def images_below(folder):
    """Videos and single images of a folder: (path, stem, ((number, path), ...)), paths relative, sorted.

    A folder whose images all have numbers as names is a video; images of other names, and those in `folder` itself,
    are videos of one frame. Folders named frames and frames_all count as not there; landmarks and masks are no frames.
    """
    found = []
    for where, folders, files in contents.walk(folder):
        folders[:] = [name for name in folders if name not in _NOT_FRAMES]
        images = [name for name in files if name.lower().endswith(_IMAGES)]
        relative = where.relative_to(folder)
        parts = [part for part in relative.parts if part not in _FRAMES]
        paths = [(relative / name).as_posix() for name in images]
        numbers = [pathlib.Path(name).stem for name in images]
        if parts and images and all(re.fullmatch(r"\d{1,9}", number) for number in numbers):
            frames = tuple(sorted(zip(map(int, numbers), paths)))
            if len({number for number, _ in frames}) < len(frames):
                raise DownloadError(f"{where} holds one frame twice [duplicate_key]")
            found.append((parts[:-1], parts[-1], frames))
        elif images:
            found += [(parts, name, ((0, path),)) for name, path in zip(images, paths)]
        elif not folders and parts:
            found.append((parts[:-1], parts[-1], ()))
    return found


def _wanted(config, options):
    """(methods, domain) of a config: one, or of a kind those that `options` keep."""
    name, domain = config.rsplit("_", 1)
    if name not in names.GROUPS:
        return (name,), domain
    return tuple(m for m in names.GROUPS[name] if options.methods is None or m in options.methods), domain


def _fakes(parent, wanted, domain, split, options, problems):
    """Entries of the methods below `parent`; of several, with `allow_missing`, of those that are there."""
    if len(wanted) > 1 and options.allow_missing:
        folders = contents.children(parent) if parent.is_dir() else []
        there = {names.method_of(path.name) for path in folders if path.is_dir()}
        missing_files([f"{parent.name}/{m}" for m in wanted if m not in there], options, parent.parent, problems)
        wanted = [method for method in wanted if method in there]
    found = []
    for method in wanted:
        folder = _method_folder(parent, method) / domain
        found += _folder_entries(parent.parent, folder, split, method, domain, problems)
    return found


def _method_folder(parent, method):
    """The folder of a method under whatever of its names it has."""
    there = [path.name for path in contents.children(parent) if path.is_dir()] if parent.is_dir() else []
    found = [name for name in there if names.method_of(name) == method]
    if len(found) > 1:
        raise DownloadError(f"{parent} has {' and '.join(found)}, which are one method: keep one [duplicate_key]")
    if not found:
        raise DownloadError(f"no folder of {method} in {parent}; there are {', '.join(there) or 'none'} [missing_root]")
    return parent / found[0]


def _folder_entries(root, folder, split, method, domain, problems, of=""):
    """Entries of one folder. domain: "ff", "cdf" or "" where names say nothing. of: the method whose reals they are."""
    if not folder.is_dir():
        there = [path.name for path in contents.children(folder.parent)]
        raise DownloadError(f"no folder {folder}; there are {', '.join(there) or 'none'} [missing_root]")
    unit = folder.relative_to(root).as_posix()
    entries, nobody = [], []
    for above, stem, frames in images_below(folder):
        if not frames:
            problems.append(Problem("zero_frames", "/".join([unit, *above, stem]), "an empty folder"))
            continue
        name = "/".join([*above, stem])
        fields = _fields(name, stem, method, domain, of)
        if split == "train" and not fields["target_identity"]:
            fields = _fields(f"train/{name}", stem, method, domain, of)  # counters start anew in each folder
        if domain and not fields["target_identity"]:
            nobody.append(name)
        entries.append(_entry(folder, root, "/".join([unit, *above]), stem, frames, split, fields))
    if nobody:
        detail = f"{len(nobody)} names that are none of the reals' data set, first {nobody[0]}: kept, without identity"
        problems.append(Problem("identity_unknown", unit, detail))
    return entries


def _fields(name, stem, method, domain, of=""):
    person = _PEOPLE[domain](pathlib.PurePath(stem).stem if "." in stem else stem) if domain else None
    place = f"{domain}/{name}" if domain else name
    return make_fields(
        "df40",
        method,
        f"{method}/{place}" if method != "real" else f"{of}/real/{name}" if of else place,
        pair_id=f"{domain}/{person.real}" if person and person.real and method != "real" else "",
        group_id=person.group if person else "",
        target=person.target if person else "",
        source=person.source if person else "",
    )


def _entry(folder, root, unit, stem, frames, split, fields):
    below = folder.relative_to(root)
    images = tuple((number, (below / path).as_posix()) for number, path in frames)
    return Entry("crops", images[0][1].rsplit("/", 1)[0], unit, stem, split, fields, images=images, root=str(root))


def _check_apart(entries, config):
    """Raise DownloadError for fakes that are in train and test, as those of e4e_ff were published."""
    by_name = {split: {_name(e): e for e in entries if e.split == split} for split in ("train", "test")}
    both = [
        name
        for name, train in sorted(by_name["train"].items())
        if name in by_name["test"] and (train.fields["target_identity"] or _same(train, by_name["test"][name]))
    ]
    if both:
        raise DownloadError(
            f"{config}: {len(both)} fakes are in DF40_train and in DF40, first {both[0]}: a detector would be tested "
            "on what it was trained on. Take the folder out of DF40_train, then all are test [split_conflict]"
        )


def _name(entry):
    return entry.fields["video_id"].replace(_TRAIN, "/ff/", 1)


def _same(a, b):
    """Whether two sequences start with one image: names that are counters say nothing."""
    first, second = (pathlib.Path(e.root, e.images[0][1]) for e in (a, b))
    return first.stat().st_size == second.stat().st_size and first.read_bytes() == second.read_bytes()


def _read_lists(reals_root, options, splits):
    """{split: ids} of FaceForensics++'s lists."""
    lists = {}
    for split in sorted(splits):
        path = listing.find_list(reals_root, f"FaceForensics++/{split}.json", options)
        try:
            pairs = json.loads(path.read_bytes())
        except ValueError as error:
            raise DownloadError(f"{path} is not JSON ({error})") from error
        ids = [i for pair in pairs for i in pair] if isinstance(pairs, list) else []
        if not ids or not all(isinstance(i, str) and re.fullmatch(r"\d{3}", i) for i in ids):
            raise DownloadError(f'{path} must be a list of pairs of three-digit strings such as ["071", "054"]')
        lists[split] = sorted(ids)
    return lists


def _check_lists(entries, lists, problems):
    """Report fakes whose target another split's list has."""
    split_of = {f"ff:{i}": split for split, ids in lists.items() for i in ids}
    for entry in entries:
        listed = split_of.get(entry.fields["target_identity"], entry.split)
        if listed != entry.split:
            detail = f"in {entry.split} by its folder, its target is in {listed}.json of FaceForensics++; kept"
            problems.append(Problem("split_conflict", entry.path, detail))


def _ff_reals(reals_root, lists, options, problems):
    base = reals_root / FF_REALS
    there = {stem: frames for _, stem, frames in _real_frames(base) if frames}
    missing = [f"{FF_REALS}/frames/{i}" for ids in lists.values() for i in ids if i not in there]
    missing_files(missing, options, reals_root, problems)
    return [
        _entry(base, reals_root, FF_REALS, i, there[i], split, _fields(i, i, "real", "ff"))
        for split, ids in lists.items()
        for i in ids
        if i in there
    ]


def _cdf_reals(reals_root, options, problems):
    """Celeb-DF's reals: those of its test list, or all that are there where the list is not."""
    try:
        path = listing.find_list(reals_root, "Celeb-DF-v2/List_of_testing_videos.txt", options)
        listed = {line.split("/")[-1].removesuffix(".mp4") for _, line in listing.read_lines(path) if line[0] == "1"}
    except DownloadError as error:
        problems.append(Problem("missing_list", "Celeb-DF-v2", f"all reals that are there are test: {error}"))
        listed = None
    there = {
        stem: (unit, frames)
        for unit in CDF_REALS
        for _, stem, frames in _real_frames(reals_root / unit)
        if frames and (listed is None or stem in listed)
    }
    missing_files(sorted((listed or set()) - set(there)), options, reals_root, problems)
    return [
        _entry(reals_root / unit, reals_root, unit, stem, frames, "test", _fields(stem, stem, "real", "cdf"))
        for stem, (unit, frames) in there.items()
    ]


def _real_frames(base):
    """Videos of `frames`, or of `frames_all`, where DF40's archive of FaceForensics++ has them."""
    folders = [base / name for name in _FRAMES if (base / name).is_dir()]
    return [
        (above, stem, tuple((n, f"{folder.name}/{path}") for n, path in frames))
        for folder in folders[:1]
        for above, stem, frames in images_below(folder)
    ]
