"""Which videos a download of Celeb-DF v1, v2 or Celeb-DF++ holds; the README beside this file has the layout."""

import re

from data_prep import contents, listing
from data_prep.catalog import DownloadError, Problem, make_fields, missing_files

CONFIGS = ("v1", "v2", "pp", "v1_derivedval", "v2_derivedval", "pp_derivedval")
ROOTS = {"v1": ("Celeb-DF-v1",), "v2": ("Celeb-DF-v2",), "pp": ("Celeb-DF++", "Celeb-DF-v3")}
TEST_LIST = "List_of_testing_videos.txt"
# Celeb-DF++: family folder -> method folder -> method in data/methods.py.
METHODS = {
    "FaceSwap": {
        "Celeb-DF": "celebdf",
        "BlendFace": "blendface",
        "GHOST": "ghost",
        "HifiFace": "hififace",
        "InSwapper": "inswapper",
        "MobileFaceSwap": "mobilefaceswap",
        "SimSwap": "simswap",
        "UniFace": "uniface",
    },
    "FaceReenact": {
        "DaGAN": "dagan",
        "FSRT": "fsrt",
        "HyperReenact": "hyperreenact",
        "LIA": "lia",
        "LivePortrait": "liveportrait",
        "MCNET": "mcnet",
        "TPSMM": "tpsmm",
    },
    "TalkingFace": {
        "AniTalker": "anitalker",
        "EchoMimic": "echomimic",
        "EDTalk": "edtalk",
        "FLOAT": "float",
        "IP_LAP": "ip_lap",
        "Real3DPortrait": "real3dportrait",
        "SadTalker": "sadtalker",
    },
}
_ALIASES = {"YouTube-real": ("Youtube-real",), "Celeb-DF": ("Celeb-DF-v2",)}
_REAL_FOLDERS = ("Celeb-real", "YouTube-real")
_FAKES = "Celeb-synthesis"
_EXPECTED = {
    "v1": {"Celeb-real": 158, "YouTube-real": 250, _FAKES: 795},
    "v2": {"Celeb-real": 590, "YouTube-real": 300, _FAKES: 5639, "test real": 178, "test fake": 340},
    "pp": {"Celeb-real": 590, "YouTube-real": 300, "test real": 178, "test fake": 5100},
}
_PATTERNS = {
    "Celeb-real": (re.compile(r"id(?P<target>[0-9]+)_[0-9]{4}"), "id0_0000"),
    "YouTube-real": (re.compile(r"[0-9]{5}"), "00000"),
    "swap": (re.compile(r"id(?P<target>[0-9]+)_id(?P<source>[0-9]+)_(?P<clip>[0-9]{4})"), "id0_id1_0000"),
    "TalkingFace": (re.compile(r"id(?P<target>[0-9]+)_(?P<clip>[0-9]{4})_test_[A-Za-z0-9_.-]+"), "id0_0000_test_0"),
}
_DERIVED = {"train": 0.8, "validation": 0.2}
_SALT = "celebdf derivedval 1"


def find(root, config, options):
    """The videos of Celeb-DF (Li et al. 2020) or Celeb-DF++ (Li et al. 2025).

    Args:
      root: `Celeb-DF-v1`, `Celeb-DF-v2` or `Celeb-DF++`, or the folder that it is in. config: of `CONFIGS`.
      options: catalog.Options.

    Returns:
      list of Entry: split "test" as listed, "train" all else, "validation" in the `_derivedval` configs. list of
      Problem: name_unparsed, unknown_method, folder_alias, missing_listed_file, count_mismatch.

    Raises:
      DownloadError: no such folder or list, a folder filled on two levels, a list whose label is not its folder's, a
        listed video that is not there, or options that name what is not.
    """
    listing.check_config(config, CONFIGS)
    version = config.removesuffix("_derivedval")
    root = listing.find_root(root, ROOTS[version], (_FAKES, "Celeb-real", "YouTube-real", "Youtube-real"))
    for other, names in ROOTS.items():
        if other != version and root.name in names:
            raise DownloadError(f"{root} is Celeb-DF {other} by its name: pass --config {other}, or rename it")
    test = read_test_list(listing.find_list(root, TEST_LIST, options), version)
    problems, videos = [], {}
    for folder, unit, kind, method in _folders(root, version, problems):
        for path in listing.videos_in(folder):
            fields = name_fields(path.stem, kind, method)
            if fields is None:
                problems.append(listing.unparsed(path, root, f"{_PATTERNS[kind][1]}.mp4"))
            else:
                videos[_key(kind, method), path.stem] = path, f"{ROOTS[version][0]}/{unit}", fields
    kept = (*_REAL_FOLDERS, *(options.methods or ()))
    asked = {key: name for key, name in test.items() if options.methods is None or key[0] in kept}
    missing = [name for key, name in asked.items() if key not in videos]
    missing_files(missing if options.splits is None or "test" in options.splits else [], options, root, problems)
    split_of = dict.fromkeys(videos, "train") | dict.fromkeys((key for key in test if key in videos), "test")
    if config != version:
        split_of |= _derived({key: videos[key][2] for key, split in split_of.items() if split == "train"})
    entries = [
        listing.make_entry(path, root, unit, split_of[key], fields) for key, (path, unit, fields) in videos.items()
    ]
    counts = {name: sum(e.unit.split("/")[1] == name for e in entries) for name in _EXPECTED["v2"]}
    problems += listing.count_problems(counts | _count_test(entries), _EXPECTED[version])
    return listing.finish(entries, options, root), problems


def read_test_list(path, version):
    """The videos that the official list puts in the test split.

    Args:
      path: of List_of_testing_videos.txt: lines "1 Celeb-real/id0_0000.mp4", in which 1 is real and 0 is fake.
      version: "v1", "v2" or "pp".

    Returns:
      {(folder of a real or method of a fake, stem): path in the list}.

    Raises:
      DownloadError: a line of another form, of a folder that is none, with the label of the other class, or twice.
    """
    listed = {}
    for number, line in listing.read_lines(path):
        where = f"{path} line {number}, {line!r}"
        match = re.fullmatch(r"([01])\s+(\S+)\.mp4", line.replace("\\", "/"))
        if match is None:
            raise DownloadError(f"{where}: expected '1 Celeb-real/id0_0000.mp4', 1 real or 0 fake [name_unparsed]")
        digit, (*folders, stem) = match[1], match[2].split("/")
        key = _listed_key(folders, stem, version)
        if key is None:
            raise DownloadError(f"{where}: no folder of Celeb-DF {version} [name_unparsed]")
        if (digit == "1") != (key[0] in _REAL_FOLDERS):
            raise DownloadError(f"{where}: 1 is real in this list and 0 fake, its folder says other [label_conflict]")
        if key in listed:
            raise DownloadError(f"{where}: listed twice [duplicate_key]")
        listed[key] = f"{match[2]}.mp4"
    return listed


def name_fields(stem, kind, method):
    """The fields of a video from its name.

    Args:
      stem: file name without suffix. kind: "Celeb-real", "YouTube-real", "TalkingFace" or "swap", which is any other
        fake: id<a>_id<b>_<k> is the video id<a>_<k> with the face, or after the motion, of id<b>. method: of
        data/methods.py.

    Returns:
      what `catalog.make_fields` returns, or None where the name is of another form.
    """
    match = _PATTERNS[kind][0].fullmatch(stem)
    if match is None:
        return None
    if method == "real":
        # Nobody says who the people of YouTube-real are: each video its own.
        person = f"cdf:yt:{stem}" if kind == "YouTube-real" else f"cdf:id{match['target']}"
        return make_fields("celebdf", "real", stem, source=person, target=person)
    target = f"cdf:id{match['target']}"
    source = f"cdf:id{match['source']}" if kind == "swap" else ""  # a talking face has a voice for a source
    pair = f"id{match['target']}_{match['clip']}"
    return make_fields("celebdf", method, f"{method}/{stem}", pair_id=pair, source=source, target=target)


def _folders(root, version, problems):
    """(Path, its unit, kind of names, method) of each folder of videos that is there."""
    for name in _REAL_FOLDERS:
        yield _pick(root, name, problems), name, name, "real"
    if version != "pp":
        yield root / _FAKES, _FAKES, "swap", "celebdf"
        return
    for path in listing.videos_in(root / _FAKES):
        problems.append(listing.unparsed(path, root, "<family>/<method>/id0_id1_0000.mp4"))
    for name in sorted(_subfolders(root / _FAKES) - set(METHODS) - {"videos"}):
        problems.append(Problem("unknown_method", f"{_FAKES}/{name}", "no family of Celeb-DF++; left out"))
    for family, methods in METHODS.items():
        for name in sorted(_subfolders(root / _FAKES / family) - set(methods) - set(_ALIASES["Celeb-DF"])):
            problems.append(Problem("unknown_method", f"{_FAKES}/{family}/{name}", "no method of Celeb-DF++; left out"))
        for name, method in methods.items():
            kind = "TalkingFace" if family == "TalkingFace" else "swap"
            yield _pick(root / _FAKES / family, name, problems), f"{_FAKES}/{family}/{name}", kind, method


def _subfolders(folder):
    return {path.name for path in contents.matching(folder, "*") if path.is_dir()}


def _pick(parent, name, problems):
    folder = listing.pick_folder(parent, (name, *_ALIASES.get(name, ())))
    if folder is not None and folder.name != name:
        problems.append(Problem("folder_alias", folder.name, f"taken for {name}"))
    return folder


def _key(kind, method):
    return kind if method == "real" else method


def _listed_key(folders, stem, version):
    names = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}
    folders = [names.get(folder, folder) for folder in folders]
    if len(folders) == 1 and folders[0] in _REAL_FOLDERS:
        return folders[0], stem
    if version != "pp":
        return ("celebdf", stem) if folders == [_FAKES] else None
    if len(folders) == 3 and folders[0] == _FAKES and folders[2] in METHODS.get(folders[1], {}):
        return METHODS[folders[1]][folders[2]], stem
    return None


def _derived(fields):
    """{key: "train" or "validation"} of the videos outside the test list, no person on both sides."""
    # A talking face is driven by a voice: one person only.
    people = {key: (f["target_identity"], f["source_identity"] or f["target_identity"]) for key, f in fields.items()}
    splits = listing.identity_splits(people.values(), _DERIVED, _SALT)
    return {key: splits[target] for key, (target, _) in people.items()}


def _count_test(entries):
    return {key: n for key, n in listing.count_labels(entries).items() if key.startswith("test")}
