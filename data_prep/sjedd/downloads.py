"""Which crops SJEDD's own folders and lists hold; the README beside this file has the layout."""

import collections
import json
import pathlib
import re

from data_prep import contents, listing
from data_prep.catalog import DownloadError, Entry, Problem, make_fields, missing_files
from data_prep.dfb import stems
from data_prep.sjedd import labels

CONFIGS = ("list", "cdf", "fsh", "df1", "dfdc")
_FF_REALS = "FF++/original_sequences/youtube/c23/faces"
_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_IMAGE = re.compile(r"(\d{1,9})\.(?:png|jpe?g)", re.IGNORECASE)
_LINE = re.compile(r"(?P<path>.+?\.(?:png|jpe?g|bmp|webp))(?:\s+(?P<flag>\S+))?\s+(?P<label>\d+)", re.IGNORECASE)


def find(root, config, options):
    """The crops that SJEDD (Zou et al. 2024) trains and tests on.

    Args:
      root: folder of `CDF`, `FSh`, `DF-1.0`, `DFDC`, `FF++`, or what the lists' paths are below. config: "list" for
        label lists (*.txt), else the test folders of one data set. options: catalog.Options; lists: folder of the
        label lists, or of FaceForensics++'s test.json (`fsh`, `df1`) and labels.csv (`dfdc`).

    Returns:
      list of Entry of kind "crops". list of Problem: missing_listed_file, missing_list, name_unparsed, unlisted_file,
      other_split, zero_frames.

    Raises:
      DownloadError: no such folder or list, a label that is none, a label that a path contradicts, or a listed file
        that is not there.
    """
    listing.check_config(config, CONFIGS)
    root = pathlib.Path(root).absolute()
    if not root.is_dir():
        raise DownloadError(f"no folder {root} [missing_root]")
    problems = []
    found = {"list": _listed, "cdf": _cdf, "fsh": _fsh, "df1": _df1, "dfdc": _dfdc}[config](root, options, problems)
    return listing.finish(found, options, root), problems


def parse_line(line, where):
    """(path parts, method hint, attributes) of `<path> <label>` or `<path> <flag> <label>`.

    The path may hold blanks. The label has 1 digit (1 is fake), 10 (`attributes.KINDS`) or 12 (of FFSC, 2 is unknown).

    Returns:
      (list of folders and file, whether it is fake, [13] of 0, 1, None, or None for a label of 1 digit).

    Raises:
      DownloadError: another form or label.
    """
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise DownloadError(f"{where}, {line!r}: expected '<path of an image> <label>' [name_unparsed]")
    parts = [part for part in match["path"].replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        raise DownloadError(f"{where}: {match['path']!r} leads out of the folder [name_unparsed]")
    try:
        fake, attributes = labels.read_label(match["label"])
    except ValueError as error:
        raise DownloadError(f"{where}: {error} [label_conflict]") from error
    return parts, fake, attributes


def _listed(root, options, problems):
    """Entries of the label lists: images with numbers as names are frames of their folder."""
    lists = contents.matching(pathlib.Path(options.lists or root), "*.txt")
    if not lists:
        raise DownloadError(
            f"no label list *.txt in {options.lists or root}; name its folder by --lists [missing_list]"
        )
    videos, missing, seen = {}, [], set()
    for path in lists:
        split = next((split for name, split in _SPLITS.items() if name in path.stem.lower()), None)
        if split is None:
            raise DownloadError(f"{path}: its name must hold train, val or test: it says which split it is of")
        for number, line in listing.read_lines(path):
            where = f"{path} line {number}"
            parts, fake, attributes = parse_line(line, where)
            relative = _below(root, parts)
            if relative is None:
                missing.append("/".join(parts))
                continue
            if relative in seen:
                raise DownloadError(f"{where}: {relative} is listed twice [duplicate_key]")
            seen.add(relative)
            image = _IMAGE.fullmatch(parts[-1])
            key = relative.rsplit("/", 1)[0] if image and "/" in relative else relative
            own = videos.setdefault((split, key), (fake, attributes, {}, where))
            if own[:2] != (fake, attributes):
                raise DownloadError(f"{where}: other frames of {key} have another label [label_conflict]")
            own[2][int(image[1]) if key != relative else 0] = relative
    missing_files(missing, options, root, problems)
    return [_listed_entry(root, split, key, *found) for (split, key), found in videos.items()]


def _listed_entry(root, split, key, fake, attributes, frames, where):
    parts = key.split("/")
    method = labels.method_of(parts)
    if method is not None and (method != "real") != fake:
        raise DownloadError(f"{where}: {key} is labelled {'fake' if fake else 'real'} and is {method} [label_conflict]")
    method = (method or "unknown") if fake else "real"
    person = stems.ff(parts[-1])
    fields = _fields(method, key, person, attributes=attributes)
    fields["pair_id"] = ""  # lists may hold reals under any folder
    return _entry(root, "/".join(["SJEDD/list", *parts[:-1]]), parts[-1], split, fields, frames)


def _cdf(root, options, problems):
    entries = []
    for folder, method in (("RealCDF", "real"), ("FakeCDF", "celebdf")):
        for stem, frames in _videos(root, f"CDF/faces/{folder}", problems).items():
            person = stems.cdf(stem)
            if person is None or (person.real == "") != (method == "real"):
                problems.append(Problem("name_unparsed", f"CDF/faces/{folder}/{stem}", "no such name of Celeb-DF"))
                continue
            fields = _fields(method, stem if method == "real" else f"celebdf/{stem}", person)
            entries.append(_entry(root, f"SJEDD/CDF/{folder}", stem, "test", fields, frames))
    return entries


def _fsh(root, options, problems):
    return _on_ff_reals(root, "FSh/c23/faces", "faceshifter", stems.ff, options, problems)


def _df1(root, options, problems):
    return _on_ff_reals(root, "DF-1.0/faces/end_to_end", "deeperforensics", stems.df1, options, problems)


def _on_ff_reals(root, folder, method, parse, options, problems):
    """Fakes of FaceForensics++'s clips, with its test reals."""
    ids = _test_ids(root, options, problems)
    entries, others = [], collections.Counter()
    for place, of in ((_FF_REALS, "real"), (folder, method)):
        for stem, frames in _videos(root, place, problems).items():
            person = stems.ff(stem) if of == "real" else parse(stem)
            if person is None or (person.real == "") != (of == "real"):
                problems.append(Problem("name_unparsed", f"{place}/{stem}", "no name of this data set; left out"))
            elif ids is not None and person.target.removeprefix("ff:") not in ids:
                others[place] += 1
            else:
                fields = _fields(of, stem if of == "real" else f"{of}/{stem}", person, compression="c23")
                entries.append(_entry(root, f"SJEDD/{place}", stem, "test", fields, frames))
    detail = "of clips that are not in FaceForensics++'s test.json; left out"
    problems += [Problem("other_split", place, f"{number} videos {detail}") for place, number in others.items()]
    return entries


def _test_ids(root, options, problems):
    """Ids of FaceForensics++'s test.json, or None where it is not there."""
    try:
        path = listing.find_list(root, "FF++/test.json", options)
    except DownloadError as error:
        problems.append(Problem("missing_list", "FF++/test.json", f"all that is there is test: {error}"))
        return None
    try:
        return {i for pair in json.loads(path.read_bytes()) for i in pair}
    except (ValueError, TypeError) as error:
        raise DownloadError(f'{path} must be a list of pairs of strings such as ["071", "054"] ({error})') from error


def _dfdc(root, options, problems):
    path = listing.find_list(root, "DFDC/labels.csv", options)
    there = _videos(root, "DFDC/faces", problems)
    entries, missing = [], []
    for row in listing.read_table(path, ("filename", "label")):
        stem = row["filename"].removesuffix(".mp4")
        if row["label"] not in ("0", "1"):
            raise DownloadError(f"{path}: {row['filename']},{row['label']}: expected 0 or 1 [label_conflict]")
        if stem not in there:
            missing.append(f"DFDC/faces/{stem}")
            continue
        fake = row["label"] == "1"
        fields = _fields("dfdc" if fake else "real", f"dfdc/{stem}", None)
        entries.append(_entry(root, "SJEDD/DFDC", stem, "test", fields, there.pop(stem)))
    missing_files(missing, options, root, problems)
    problems += [Problem("unlisted_file", f"DFDC/faces/{stem}", "not in labels.csv; left out") for stem in there]
    return entries


def _fields(method, name, person, *, compression="none", attributes=None):
    return make_fields(
        "sjedd",
        method,
        name,
        pair_id=person.real if person and method != "real" else "",
        group_id=person.group if person else "",
        target=person.target if person else "",
        source=person.source if person else "",
        compression=compression,
        attributes=attributes,
    )


def _videos(root, folder, problems):
    """{video: {frame number: path relative to the root}} of `<folder>/<video>/<number>.png`."""
    if not (root / folder).is_dir():
        raise DownloadError(f"no folder {root / folder}; SJEDD's crops are there [missing_root]")
    videos = {}
    for video in (path for path in contents.children(root / folder) if path.is_dir()):
        frames = {}
        for path in contents.children(video):
            match, relative = _IMAGE.fullmatch(path.name), path.relative_to(root).as_posix()
            if match is None:
                problems.append(Problem("name_unparsed", relative, "expected a frame number as name; left out"))
            elif int(match[1]) in frames:
                raise DownloadError(f"{frames[int(match[1])]} and {relative} are one frame [duplicate_key]")
            else:
                frames[int(match[1])] = relative
        if frames:
            videos[video.name] = frames
        else:
            problems.append(Problem("zero_frames", video.relative_to(root).as_posix(), "no image"))
    return videos


def _below(root, parts):
    """The longest end of a listed path that is a file below the root, or None: lists start with any disk."""
    ends = ("/".join(parts[i:]) for i in range(len(parts)))
    return next((end for end in ends if (root / end).is_file()), None)


def _entry(root, unit, stem, split, fields, frames):
    images = tuple(sorted(frames.items()))
    folder = images[0][1].rsplit("/", 1)[0]
    return Entry("crops", folder, unit, stem, split, fields, images=images, root=str(root))
