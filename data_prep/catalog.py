"""What a downloaded data set holds, video by video: the one list that `prepare` works through and builders read.

Each `data_prep/<dataset>/downloads.py` has `CONFIGS`, the names that `prepare --config` takes, and

    find(root, config, options) -> (list of Entry, list of Problem)

which reads names, lists and metadata and decodes nothing. `data_prep.prepare` writes what became of every entry to
`<out>/catalog/<dataset>-<config>.jsonl`, from which the data set's TFDS builder takes splits, labels and identities,
so that they are worked out in one place.
"""

import dataclasses
import difflib
import json
import pathlib

from data_prep import contents
from msddf_jax.data import methods, schema

KINDS = ("video", "frames", "crops")
PREPARED = "prepared"
_SHOWN = 5
_TEXT_FIELDS = ("video_id", "pair_id", "group_id", "source_identity", "target_identity", "perturbation")


class DownloadError(ValueError):
    """The folder cannot be worked on as it is; the message says what is missing and what to do."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user may ask of `find`.

    splits: names of splits to keep, None for all. methods: names of `methods.METHODS` to keep beside the reals, None
    for all. allow_missing: whether listed files may be absent. mask_root: where mask videos are, if not below the
    root. reals_root: the FaceForensics++ folder, for data sets whose reals are its videos. lists: folder with lists
    that do not come with the download, None where they are in the root. name: of the set that a user's own files make,
    None elsewhere. allow_duplicates: whether a user's own files may contradict each other.
    """

    splits: tuple | None = None
    methods: tuple | None = None
    allow_missing: bool = False
    mask_root: str | None = None
    reals_root: str | None = None
    lists: str | None = None
    name: str | None = None
    allow_duplicates: bool = False


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something found wrong before decoding: a code, a path relative to the root, and a line of detail."""

    code: str
    path: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One video, or sequence of images, to prepare.

    Attributes:
      kind: "video", a video file; "frames", images of whole scenes, in which faces are looked for; "crops", images
        that are face crops already, which are only resized.
      path: of the video, or of the folder that holds the images, relative to `root`, forward slashes.
      images: ((frame number, path relative to `root`), ...) by number; empty for a video.
      unit: folder, relative, that gets frames/, landmarks/, masks/ and meta/. stem: name within it.
      split: TFDS split.
      fields: what `make_fields` returns.
      mask: absolute path of a mask video, or ((frame number, absolute path), ...) of mask images, or None.
      publishes_masks: whether the owners publish masks, so that a real's mask is known to be empty.
      root: absolute folder that `path` is below; not written to the catalog.
      dealt: splits among which it was dealt here, and may be again until the catalog is written; () where its split is
        given. Not written either.
    """

    kind: str
    path: str
    unit: str
    stem: str
    split: str
    fields: dict
    images: tuple = ()
    mask: str | tuple | None = None
    publishes_masks: bool = False
    root: str = ""
    dealt: tuple = ()


def make_fields(
    dataset,
    method,
    video_id,
    *,
    pair_id="",
    group_id="",
    source="",
    target="",
    compression="none",
    perturbation="",
    attributes=None,
):
    """What the records of one video share, checked.

    Args:
      dataset: of `schema.DATASETS`. method: of `methods.METHODS`; "real" makes the label real, any other fake.
      video_id: unique within data set and compression. pair_id: video_id of the real partner, "" on reals or unknown.
      group_id: videos that must share a split; `video_id` of the real, or its own, where nothing better is known.
      source, target: identities with namespace ("cdf:id0"), "" unknown. perturbation: "" for none.
      attributes: [13] of 0, 1 or None (unknown), `schema.ATTRIBUTES`, or None for nothing known.

    Returns:
      dict of JSON values with the names of `features.record_features`.

    Raises:
      ValueError: a name that the schema does not know, an empty video_id, a real with a partner.
    """
    for what, value, valid in (
        ("data set", dataset, schema.DATASETS),
        ("method", method, methods.METHODS),
        ("compression", compression, schema.COMPRESSIONS),
    ):
        if value not in valid:
            raise ValueError(f"{what} {value!r} of {video_id!r} is not a name of msddf_jax/data{nearest(value, valid)}")
    if not video_id or (method == "real" and pair_id):
        raise ValueError(f"video_id {video_id!r}, pair_id {pair_id!r}: a video has an id, and a real no partner")
    fields = {
        "label": "real" if method == "real" else "fake",
        "method": method,
        "dataset": dataset,
        "video_id": video_id,
        "pair_id": pair_id,
        "group_id": group_id or pair_id or video_id,
        "source_identity": source,
        "target_identity": target,
        "compression": compression,
        "perturbation": perturbation,
    }
    if attributes is not None:
        if len(attributes) != len(schema.ATTRIBUTES) or not set(attributes) <= {0, 1, None}:
            raise ValueError(
                f"attributes of {video_id!r}: expected {len(schema.ATTRIBUTES)} of 0, 1, None: {attributes}"
            )
        fields["attributes"] = list(attributes)
    return fields


def keep(entries, options):
    """The entries of the splits and methods asked for; reals always stay. Raises DownloadError for unknown names."""
    splits = list(dict.fromkeys(entry.split for entry in entries))
    methods = list(dict.fromkeys(entry.fields["method"] for entry in entries if entry.fields["label"] == "fake"))
    for what, asked, there in (("split", options.splits, splits), ("method", options.methods, methods)):
        for name in asked or ():
            if name not in there:
                raise DownloadError(f"no {what} {name!r} here{nearest(name, there)}")
    return [
        entry
        for entry in entries
        if (options.splits is None or entry.split in options.splits)
        and (options.methods is None or entry.fields["label"] == "real" or entry.fields["method"] in options.methods)
    ]


def check_unique(entries):
    """Raise DownloadError where two entries would be prepared to the same place, or have one id."""
    for what, key in (
        ("prepared to the same folder", lambda e: f"{e.unit}/{e.stem}"),
        ("given the same id", lambda e: f"{e.fields['compression']}/{e.fields['video_id']}"),
    ):
        seen = {}
        for entry in entries:
            first = seen.setdefault(key(entry), entry)
            if first is not entry:
                raise DownloadError(f"{first.path} and {entry.path} would be {what}, {key(entry)} [duplicate_key]")


def missing_files(missing, options, root, problems):
    """Report files that a list names and that are absent. Raises DownloadError unless `options.allow_missing`."""
    if missing and not options.allow_missing:
        shown = ", ".join(missing[:_SHOWN]) + (f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else "")
        raise DownloadError(
            f"the lists name {len(missing)} files that are not in {root}: {shown}; download them, or pass "
            "--allow_missing [missing_listed_file]"
        )
    problems += [Problem("missing_listed_file", path, "listed, but not there") for path in missing]


def nearest(name, valid):
    """The end of a message about an unknown name: a guess, and what there is."""
    close = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=0.4)
    hint = f"; did you mean {close[0]}?" if close else ";"
    return f"{hint} there are {', '.join(valid) or 'none'}"


def catalog_path(out, dataset, config):
    """`<out>/catalog/<dataset>-<config>.jsonl`."""
    return pathlib.Path(out) / "catalog" / f"{dataset}-{config}.jsonl"


def write_catalog(path, entries, outcomes):
    """Write one line an entry: unit, stem, split, path, fields, publishes_masks, outcome.

    Args:
      path: from `catalog_path`. entries: list of Entry. outcomes: {"<unit>/<stem>": PREPARED, or the code that says why
        it is not}.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as file:
        for entry in entries:
            line = {
                name: getattr(entry, name) for name in ("unit", "stem", "split", "path", "fields", "publishes_masks")
            }
            file.write(json.dumps(line | {"outcome": outcomes[f"{entry.unit}/{entry.stem}"]}) + "\n")
    part.replace(path)


def read_catalog(path):
    """The lines of a catalog, checked.

    Returns:
      list of dicts, as `write_catalog` wrote them.

    Raises:
      DownloadError: no such file, or not one that `data_prep.prepare` wrote.
    """
    if not path.is_file():
        there = [found.stem for found in contents.matching(path.parent, "*.jsonl")]
        raise DownloadError(
            f"no catalog {path}: manual_dir is the --out of data_prep.prepare, which writes it when it is done. Run "
            f"prepare again, which leaves finished videos as they are; there are {', '.join(there) or 'none'}"
        )
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            fields = line["fields"]
            names = {name: fields[name] for name in ("dataset", "method", "video_id", "compression")}
            make_fields(**names, attributes=fields.get("attributes"))
            bad = [name for name in _TEXT_FIELDS if not isinstance(fields[name], str)]
            bad += [name for name in ("unit", "stem", "split", "outcome") if not isinstance(line[name], str)]
            outside = pathlib.PurePosixPath(line["unit"], line["stem"])
            if bad or outside.is_absolute() or ".." in outside.parts:
                raise ValueError(f"bad {bad or outside}")
        except (ValueError, TypeError, KeyError) as error:
            raise DownloadError(
                f"{path} line {number} is none that data_prep.prepare writes ({type(error).__name__}: {error}); "
                "run prepare again, which leaves finished videos as they are"
            ) from error
        lines.append(line)
    return lines
