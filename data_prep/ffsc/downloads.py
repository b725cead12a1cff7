"""Which images a download of FFSC holds; the README beside this file has the layout and what is unknown of it."""

import collections
import itertools
import pathlib
import re

from data_prep import attributes, contents, listing
from data_prep.catalog import DownloadError, Entry, Problem, make_fields, missing_files, nearest

ATTRIBUTE_OF = {
    "diffae-age": "age",
    "StyleRes-age": "age",
    "HFGI-age": "age",
    "diffae-gender": "gender",
    "StyleGAN2_dis-gender": "gender",
    "StyleCLIP-gender": "gender",
    "simswap": "identity",
    "fsgan": "identity",
    "BlendFace": "identity",
    "InfoSwap": "identity",
    "StyleRes-expr": "expression",
    "HFGI-smile": "expression",
    "fomm-expr": "expression",
    "fomm-pose": "pose",
    "TPS-pose": "pose",
    "FNeVR": "pose",
}
ATTRIBUTES = ("age", "gender", "identity", "expression", "pose")
CONFIGS = ("default", "protocol1", *(f"protocol2_{name}" for name in ATTRIBUTES))
METHODS = {folder: folder.lower().replace("-", "_") for folder in ATTRIBUTE_OF}
SPLITS = {"Train": "train", "Val": "validation", "Test": "test"}
REAL = "Real"
# fake, age, expression, gender, identity, pose, eye, eyebrow, lip, mouth, nose, skin; 2 is unknown.
CODES = {
    "real": "000000000000",
    "age": "110000100001",
    "smile": "101000001100",
    "surprise": "101000101111",
    "gender": "120110111101",
    "identity": "120010111111",
    "pose": "100001111111",
}
_EXPRESSIONS = {"StyleRes-expr": "smile", "HFGI-smile": "smile", "fomm-expr": "surprise"}
_IMAGES = (".png", ".jpg", ".jpeg")
_CLIP = r"(?:[\w-]{11}_\d+|\d{5})"
_PAIR = re.compile(rf"({_CLIP})_(\d+)_({_CLIP})")
_BY = re.compile(rf"({_CLIP})_by_({_CLIP})")
_FRAME = re.compile(rf"({_CLIP})_(\d{{1,9}})(?:_(.+))?")
_YOUTUBE = re.compile(r"([\w-]{11})_\d+")
_CDF = re.compile(r"\d{5}")
_LINE = re.compile(r"(?P<path>.+?\.(?:png|jpe?g))(?:\s+(?P<flag>\S+))?\s+(?P<label>\S+)", re.IGNORECASE)


def find(root, config, options):
    """The images of FFSC (SO-DFD, SJEDD), those of one clip and method as one sequence.

    Args:
      root: `FFSC`, or the folder that it is in. config: of `CONFIGS`. options: catalog.Options; lists: a folder with
        lists `<path> <12 digits>` (*.txt), whose codes replace those of the folders; without it, *.txt in the root.

    Returns:
      list of Entry of kind "crops". list of Problem: name_unparsed, missing_listed_file, attribute_conflict, and with
      numbers, one a folder, unlisted_file, unknown_method, identity_unknown.

    Raises:
      DownloadError: no such folder or config, a malformed line or code, a list that calls a folder of reals fake or
        the other way, a listed image that is not there, one frame twice.
    """
    listing.check_config(config, CONFIGS)
    root = listing.find_root(root, ("FFSC",), tuple(SPLITS))
    problems, notes = [], collections.Counter()
    listed = read_lists(pathlib.Path(options.lists or root))
    there = _images(root, problems)
    if listed:
        missing = sorted(set(listed) - set(there))
        missing_files([p for p in missing if _wanted_split(p, options)], options, root, problems)
    groups = {}
    for path in there:
        if listed and path not in listed:
            notes["unlisted_file", path.rsplit("/", 1)[0], "in no list; left out"] += 1
            continue
        place = locate(path)
        if not _in_config(place, config):
            continue
        code = _code(path, place, listed, notes)
        if code is not None:
            groups.setdefault((place["unit"], place["stem"]), []).append((place, path, code))
    reals = {
        (images[0][0]["split"], clip): _video_id(*key)
        for key, images in groups.items()
        if images[0][0]["folder"] == REAL
        for clip in images[0][0]["clips"]
    }
    entries = [_entry(root, *key, images, reals, notes) for key, images in sorted(groups.items())]
    _report_conflicts(groups, problems)
    problems += [Problem(code, path, f"{number}, {detail}") for (code, path, detail), number in sorted(notes.items())]
    return listing.finish(entries, options, root), problems


def locate(path):
    """What a path of FFSC tells.

    Args:
      path: relative to the root, forward slashes: "Train/fsgan/<clip>/0012.png".

    Returns:
      dict. split: "Train", "Val" or "Test". protocol: "", or "Protocol-1". folder: "Real" or of a method. unit, stem:
      where its sequence is prepared. frame: int. clips: of the people in it, first the one on screen; empty where the
      name is of no known form. nested: folders between the method and the image.
    """
    split, *inner = path.split("/")
    protocol = inner.pop(0) if split == "Test" and inner[0].lower().startswith("protocol") else ""
    folder, *nested, file = inner
    name = file.rsplit(".", 1)[0]
    above = "/".join(["FFSC", split, *([protocol] if protocol else []), folder])
    place = {"split": split, "protocol": protocol, "folder": folder, "nested": nested, "frame": 0}
    if re.fullmatch(r"\d{1,9}", name) and nested:
        unit, stem, place["frame"] = "/".join([above, *nested[:-1]]), nested[-1], int(name)
        place["clips"] = _clips(stem)
    else:
        unit, stem, place["clips"] = "/".join([above, *nested]), name, _clips(name)
        frame = _FRAME.fullmatch(name)
        if frame and not _PAIR.fullmatch(name) and not _BY.fullmatch(name):
            clip, number, tag = frame.groups()
            stem, place["frame"], place["clips"] = f"{clip}_{tag}" if tag else clip, int(number), (clip,)
    return place | {"unit": unit, "stem": stem}


def clip_group(clip):
    """Whose clip it is: "cdf:yt:00012" of Celeb-DF's YouTube-real, "av:<YouTube id>" of AVSpeech, "" neither.

    A YouTube id may hold underscores and start with one: the clip number is what follows the last.
    """
    if _CDF.fullmatch(clip):
        return f"cdf:yt:{clip}"
    match = _YOUTUBE.fullmatch(clip)
    return f"av:{match[1]}" if match else ""


def read_lists(folder):
    """Codes of all images that the lists (*.txt) of a folder name: {path relative to the root: 12 digits}.

    Raises:
      DownloadError: a line without an image or a code of 12 digits 0, 1, 2; an image with two codes.
    """
    codes = {}
    for path in contents.matching(folder, "*.txt"):
        for number, line in listing.read_lines(path):
            name, code = parse_line(line, f"{path} line {number}")
            if codes.setdefault(name, code) != code:
                raise DownloadError(f"{path} line {number}: {name} is {code} and {codes[name]} [label_conflict]")
    return codes


def parse_line(line, where):
    """(path relative to the root, 12 digits) of `<path> <12 digits>` or `<path> <flag> <12 digits>`.

    The path may hold blanks, and may start with folders of another disk. Raises DownloadError.
    """
    match = _LINE.fullmatch(line.strip())
    if match is None or not re.fullmatch(r"[01][012]{11}", match["label"]):
        raise DownloadError(f"{where}, {line!r}: expected <path of an image> <12 digits 0, 1, 2> [name_unparsed]")
    parts = [part for part in match["path"].replace("\\", "/").split("/") if part not in ("", ".")]
    at = [i for i, part in enumerate(parts) if part in SPLITS]
    if not at or ".." in parts or len(parts) < at[0] + 3:
        raise DownloadError(f"{where}, {match['path']!r}: expected .../Train|Val|Test/<folder>/... [name_unparsed]")
    return "/".join(parts[at[0] :]), match["label"]


def folder_code(folder):
    """The code of a folder, "Real" or a method's, or None where it is neither."""
    return CODES["real"] if folder == REAL else CODES.get(_EXPRESSIONS.get(folder) or ATTRIBUTE_OF.get(folder))


def _images(root, problems):
    """Paths of all images, relative, sorted."""
    found = []
    for split in SPLITS:
        for folder, _, files in contents.walk(root / split):
            relative = folder.relative_to(root).as_posix()
            for file in files:
                if file.lower().endswith(_IMAGES):
                    if relative.count("/") == 0:
                        problems.append(
                            Problem("name_unparsed", f"{relative}/{file}", "in no method's folder; left out")
                        )
                    else:
                        found.append(f"{relative}/{file}")
    return found


def _in_config(place, config):
    """Whether a protocol takes an image; it takes all reals."""
    if config == "default" or place["folder"] == REAL:
        return True
    if config == "protocol1":
        return place["split"] != "Test" or not place["protocol"] or place["protocol"].endswith("1")
    held_out = ATTRIBUTE_OF.get(place["folder"]) == config.removeprefix("protocol2_")
    return held_out if place["split"] == "Test" else not held_out


def _code(path, place, listed, notes):
    """The code of an image: of the list, else of its folder; None where neither tells."""
    folder = place["folder"]
    code = listed.get(path, folder_code(folder))
    if code is None:
        detail = f"left out: unknown folder {folder}, and no list has its codes{nearest(folder, (REAL, *ATTRIBUTE_OF))}"
        notes["unknown_method", path.rsplit("/", 1)[0], detail] += 1
    elif (code[0] == "0") != (folder == REAL):
        raise DownloadError(f"{path}: its list says {code}, its folder {folder} [label_conflict]")
    return code


def _entry(root, unit, stem, images, reals, notes):
    """One sequence. reals: {(split, clip): video_id}."""
    images = sorted(images, key=lambda image: image[0]["frame"])
    place, first, code = images[0]
    for a, b in itertools.pairwise(images):
        if a[0]["frame"] == b[0]["frame"]:
            raise DownloadError(f"{a[1]} and {b[1]} are one frame [duplicate_key]")
        if a[2] != b[2]:
            raise DownloadError(f"{a[1]} is {a[2]}, {b[1]} of the same clip {b[2]} [label_conflict]")
    clips = [clip_group(clip) for clip in place["clips"]]
    if not clips or not all(clips):
        notes["identity_unknown", unit.removeprefix("FFSC/"), "names of no known form: kept, without identity"] += 1
    real = place["folder"] == REAL
    fields = make_fields(
        "ffsc",
        "real" if real else METHODS.get(place["folder"], "unknown"),
        _video_id(unit, stem),
        pair_id="" if real or not clips else reals.get((place["split"], place["clips"][0]), ""),
        group_id=clips[0] if clips else "",
        target=clips[0] if clips else "",
        source=clips[-1] if clips else "",
        attributes=attributes.of_code(code),
    )
    folder = first.rsplit("/", 1)[0]
    frames = tuple((image["frame"], path) for image, path, _ in images)
    return Entry("crops", folder, unit, stem, SPLITS[place["split"]], fields, images=frames, root=str(root))


def _video_id(unit, stem):
    return f"{unit.removeprefix('FFSC/')}/{stem}"


def _clips(name):
    """Clips that a folder's or a file's name is made of, first the one on screen; () for another form."""
    if match := _PAIR.fullmatch(name):
        return match[1], match[3]
    if match := _BY.fullmatch(name):
        return match[1], match[2]
    return (name,) if re.fullmatch(_CLIP, name) else ()


def _report_conflicts(groups, problems):
    """One Problem a folder whose listed codes are not those of its attribute: the table is not the owners'."""
    seen = set()
    for place, path, code in (images[0] for _, images in sorted(groups.items())):
        own, key = folder_code(place["folder"]), (place["split"], place["folder"])
        if own not in (None, code) and key not in seen:
            seen.add(key)
            problems.append(
                Problem("attribute_conflict", path, f"its list says {code}, its folder {own}; listed taken")
            )


def _wanted_split(path, options):
    return options.splits is None or SPLITS[path.split("/", 1)[0]] in options.splits
