"""Which images and videos of their own a user has; the README beside this file has the layouts."""

import difflib
import hashlib
import pathlib
import re

from data_prep import catalog, contents, listing, phash
from data_prep.catalog import DownloadError, Entry, Problem, make_fields
from data_prep.crops import open_out
from data_prep.folder import files, splits
from data_prep.layout import PreparedDataError
from msddf_jax.data import methods

CONFIGS = ("scenes", "crops")
DEFAULT_CONFIG = "scenes"
# Sets of this layout have names of the user's; the one where none is given.
DEFAULT_NAME = "mine"
# Of people's own images many show no face; what is left out is told.
MAX_BAD_FRACTION = 0.2
# Crops of one config are not taken for those of the other.
_UNITS = {"scenes": "folder", "crops": "folder_crops"}
_NAME = re.compile(r"[a-z0-9_-]{1,40}")
_CLIPS = re.compile(r".*_clip\d+")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9_]")
# Folders of the prepared layout, which a user's must not be taken for; and what a second face of a video is named.
_TAKEN = re.compile(r"frames|landmarks|masks|meta|.*_face\d+", re.IGNORECASE)


def check_name(name):
    """A set's name, as it is. Raises DownloadError where it cannot be one."""
    if not _NAME.fullmatch(name) or _CLIPS.fullmatch(name):
        raise DownloadError(
            f"--name {contents.shown(name)!r}: expected 1 to 40 of a-z, 0-9, _ and -, not ending as the names of clips "
            "do, _clip16 [bad_name]"
        )
    return name


def find(root, config, options):
    """A user's own images and videos.

    Args:
      root: folder with {real,fake[/method]}, with {train,val,test} of such, with one table, or the table itself.
      config: "scenes", whole images in which faces are looked for; "crops", images that are face crops already.
      options: catalog.Options; lists: a table. name: of the set. allow_duplicates: go on where files contradict.

    Returns:
      list of Entry. list of Problem: splits_made, no_test, not_read, not_media, columns_not_read, listed_twice,
      missing_listed_file, method_unnamed, numbered_images, pairs_by_name, same_name_apart, same_bytes, two_classes,
      two_splits, videos_are_scenes.

    Raises:
      DownloadError: no such folder or table, a table that is none, a name that is none, files that contradict each
        other, one class only, or too few groups for splits.
    """
    listing.check_config(config, CONFIGS)
    name = check_name(options.name or DEFAULT_NAME)
    if options.splits or options.methods:
        raise DownloadError("--splits and --methods are for published data sets: of your own, all is prepared")
    root, problems = pathlib.Path(root).absolute(), []
    table = files.find_table(root, options.lists)
    if table is None:
        items, base = files.from_folders(root, problems), root
    else:
        items, base = files.from_table(table, root, options, problems)
    if not items:
        raise DownloadError(f"found no image or video in {table or root} [missing_root]")
    same = splits.same_files(items, base)
    splits.check(items, same, options.allow_duplicates, problems)
    groups = splits.join(_keys(items, same))
    chosen = splits.assign(items, groups, problems)
    _tell_methods(items, problems)
    _tell_kinds(items, config, problems)
    ids = [_video_id(item, name) for item in items]
    pairs = _pairs(items, ids, problems)
    entries = [
        _entry(item, video_id, pairs.get(number, ""), f"{name}/{group}", split, name, config, base)
        for number, (item, video_id, group, split) in enumerate(zip(items, ids, groups, chosen, strict=True))
    ]
    return listing.finish(entries, options, root), problems


def settle(entries, results, out, options):
    """The entries with their final splits: dealt again where they were dealt, what looks alike in one of them.

    Images are known to look alike only when their crops are there (`phash.look_alikes`). What gave no crop is not
    counted.

    Args:
      entries: of `find`. results: of `crops.prepare_entry`. out: where the crops are. options: catalog.Options.

    Returns:
      list of Entry, list of Problem: look_alike.

    Raises:
      DownloadError: too few groups are left for splits, or a crop does not decode.
    """
    stems = {result["key"]: result for result in results if result["outcome"] == catalog.PREPARED}
    key = lambda entry: f"{entry.unit}/{entry.stem}"
    again = [entry for entry in entries if entry.dealt and key(entry) in stems]
    if not again:
        return entries, []
    of_faces = lambda entry: [face["stem"] for face in stems[key(entry)]["faces"] or ()] or [entry.stem]
    owner, videos = [], []
    for number, entry in enumerate(again if not options.allow_duplicates else ()):
        for stem in of_faces(entry):
            owner.append(number)
            videos.append(contents.matching(open_out(out) / entry.unit / "frames" / stem, "*.png"))
    try:
        alike = phash.look_alikes(videos)
    except PreparedDataError as error:  # a crop that was damaged since
        raise DownloadError(str(error)) from error
    pairs = {tuple(sorted((owner[a], owner[b]))) for a, b in alike}
    problems = []
    settled = {key(e): e for e in splits.deal_again(again, {(a, b) for a, b in pairs if a != b}, problems)}
    return listing.order([settled.get(key(entry), entry) for entry in entries]), problems


def _keys(items, same):
    """For each item what others must share to be in one split with it."""
    keys = []
    for item in items:
        own = [f"{what}:{word}" for what in ("group", "identity") if (word := getattr(item, what))]
        own = own or [files.readable(f"folder:{item.folder}" if item.folder else f"file:{item.path}")]
        # Behind every name: a group has the name of one of the others.
        keys.append([*own, f"\U0010ffffpair:{item.split}:{item.pair}"] if item.pair else own)
    for numbers in same:
        first = min(files.readable(items[number].path) for number in numbers)
        for number in numbers:
            keys[number].append(f"\U0010ffffbytes:{items[number].split}:{first}")
    return keys


def _tell_methods(items, problems):
    unnamed = {}
    for item in items:
        if item.method and files.known_method(item.method) is None:
            unnamed[item.method] = unnamed.get(item.method, 0) + 1
    for word, number in sorted(unnamed.items()):
        near = difflib.get_close_matches(word.lower(), methods.METHODS, n=1, cutoff=0.8)
        hint = f" (did you mean {near[0]}?)" if near else ""
        detail = f"{number} fakes; no method that is known by name{hint}: 'unknown', the word stays in their video_id"
        problems.append(Problem("method_unnamed", contents.shown(word), detail))


def _tell_kinds(items, config, problems):
    numbered = [item for item in items if item.kind == "numbered"]
    if numbered:
        number = sum(len(item.images) for item in numbered)
        detail = f"{len(numbered)} folders of numbered images are a video each, {number} images in all"
        problems.append(Problem("numbered_images", contents.shown(numbered[0].path), detail))
    videos = [item for item in items if item.kind == "video"]
    if videos and config == "crops":
        detail = f"{len(videos)} videos: faces are looked for in them as ever, only images are taken as crops"
        problems.append(Problem("videos_are_scenes", contents.shown(videos[0].path), detail))


def _pairs(items, ids, problems):
    """{number of a fake: video_id of its real}: the file of the same name in the same split's `real`."""
    reals, fakes = {}, [number for number, item in enumerate(items) if item.label == "fake"]
    for number, item in enumerate(items):
        if item.label == "real" and item.pair:
            reals.setdefault((item.split, item.pair), number)
    pairs = {n: ids[reals[key]] for n in fakes if (key := (items[n].split, items[n].pair)) in reals}
    others = {}
    for (split, pair), number in reals.items():
        others.setdefault(pair, (split, number))
    apart = [n for n in fakes if n not in pairs and items[n].pair in others]
    if apart:
        real = contents.shown(items[others[items[apart[0]].pair][1]].path)
        detail = f"has the name of {real} in another split, and so have {len(apart)} fakes in all: are they made of it?"
        problems.append(Problem("same_name_apart", contents.shown(items[apart[0]].path), detail))
    if not pairs:
        return {}
    path, text = contents.shown(items[min(pairs)].path), f"{len(pairs)} of {len(fakes)} fakes have the name of a real"
    if 2 * len(pairs) < len(fakes):
        # Training takes pairs where there are some, and would leave most of the files out.
        problems.append(Problem("pairs_by_name", path, f"{text}: with it in one split, but no pairs to train on"))
        return {}
    problems.append(Problem("pairs_by_name", path, f"{text}, and are taken as made from it"))
    return pairs


def _video_id(item, name):
    """The name of the set and the path; ahead of a listed one the method, where no record could tell it otherwise."""
    path = files.readable(item.path.lstrip("/"))
    word = contents.shown(item.method) if item.method and files.known_method(item.method) is None else ""
    return f"{name}/{path}" if not word or item.pair else f"{name}/{word}/{path}"


def _entry(item, video_id, pair_id, group, split, name, config, base):
    method = "real" if item.label == "real" else files.known_method(item.method) or "unknown"
    person = f"folder:{name}:{item.identity}" if item.identity else ""
    fields = make_fields(
        "folder",
        method,
        video_id,
        pair_id=pair_id,
        group_id=group,
        target=person,
        source=person if method == "real" else "",
    )
    *above, last = (safe_name(part) for part in item.path.split("/") if part)
    images = item.images or (((0, item.path),) if item.kind == "image" else ())
    kind = "video" if item.kind == "video" else "crops" if config == "crops" else "frames"
    return Entry(
        kind,
        item.path,
        "/".join([_UNITS[config], name, *above]),
        last,
        split[0],
        fields,
        images=images,
        root=str(base),
        dealt=split[1],
    )


def safe_name(name):
    """A file's or folder's name as one of the prepared layout: as it is where it is plain, else its beginning and a
    hash of it. Any file system takes it with a suffix behind."""
    if _PLAIN.fullmatch(name) and not _TAKEN.fullmatch(name):
        return name
    short = re.sub(r"[^A-Za-z0-9]+", "-", name[:60]).strip("-")
    return f"{short or 'file'}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
