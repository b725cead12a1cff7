"""Whether what trains meets what tests, over built data sets.

    python -m data_prep.leakage faceforensics/c23:train celebdf/v2:test --data_dir DIR [--phash] [--out leakage.json]

An argument is "<data set>/<config>" below --data_dir or the folder of a built set, with ":<split>" or without, for all
its splits. Splits named train* train, val* choose, and all others test; --train names other arguments that train. Each
pair of splits with two roles is compared: videos (whatever the compression or variant), a fake and its real apart,
YouTube sources and groups, identities, the table of data sets known to overlap, stored frames by their bytes, and
with --phash what four frames a video look like. Exit code: 0, 1 where something is an error, 2 for arguments.
"""

import argparse
import itertools
import json
import os
import pathlib
import sys
from typing import NamedTuple

from data_prep import contents
from msddf_jax import paths
from msddf_jax.data import overlap


class UsageError(ValueError):
    """Arguments that name nothing, or nothing to compare."""


class Built(NamedTuple):
    """One split of a built set: its folder, the name of the split, and overlap.Split."""

    folder: pathlib.Path
    split: str
    names: overlap.Split
    videos: list
    num_records: list


def open_splits(arguments, data_dir=None, train=()):
    """The splits that arguments name, read from their indexes.

    Args:
      arguments: "<data set>/<config>[:<split>]" or "<folder>[:<split>]". data_dir: where built sets are; None for
        $TFDS_DATA_DIR or ~/tensorflow_datasets. train: those of `arguments` that train, empty: splits named train*.

    Returns:
      list of Built, each split once.

    Raises:
      UsageError: a set or split that is not there, an index that is none, or `train` not among the arguments.
    """
    unknown = sorted(set(train) - set(arguments))
    if unknown:
        raise UsageError(f"--train {' '.join(unknown)}: not among the arguments {' '.join(arguments)}")
    data_dir = pathlib.Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    found = {}
    for argument in arguments:
        folder, split = _locate(argument, data_dir)
        there = sorted(path.stem.removeprefix("index-") for path in contents.matching(folder, "index-*.csv"))
        if split is not None and split not in there:
            raise UsageError(
                f"{argument}: {folder} has no index of a split {split!r}; it has {', '.join(there) or 'none'}"
            )
        if not there:
            raise UsageError(f"{argument}: no index-<split>.csv in {folder}; build the set again (--overwrite)")
        for name in [split] if split else there:
            role = ("train" if argument in train else _not_train(name)) if train else None
            built = _open(folder, name, role)
            before = found.setdefault((folder.resolve(), name), built)
            if before.names.role != built.names.role:
                raise UsageError(f"{built.names.name} stands twice, once to train and once not")
    return list(found.values())


def compare_all(built, strict=False, frames=True, perceptual=False):
    """Findings of every pair of splits with two roles.

    Args:
      built: list of Built. strict: FF++'s known straddlers are errors. frames: read the records and compare their
        bytes. perceptual: and what they look like.

    Returns:
      list of overlap.Finding; a pair that shares nothing has one of check "everything compared" and verdict "ok".

    Raises:
      UsageError: no two splits have different roles. PreparedDataError: records that cannot be read.
    """
    pairs = [(a, b) for a, b in itertools.combinations(built, 2) if a.names.role != b.names.role]
    if not pairs:
        roles = ", ".join(f"{b.names.name} ({b.names.role})" for b in built)
        raise UsageError(f"nothing to compare in {roles}: name splits that train and that test, or say --train")
    hashed = _hash(pairs, perceptual) if frames or perceptual else {}
    findings = []
    for a, b in pairs:
        of_pair = overlap.compare(a.names, b.names, strict)
        if hashed:
            of_pair += _compare_frames(a, b, hashed[_key(a)], hashed[_key(b)])
        if all(finding.verdict == "ok" for finding in of_pair):
            of_pair.append(overlap.Finding(a.names.name, b.names.name, "everything compared", 0, "ok", "", ()))
        findings += of_pair
    return findings


def make_report(built, findings):
    """The result as JSON values: sets, validation, pairs (with at most ten examples each), counts and verdict."""
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in overlap.VERDICTS}
    names = [b.names for b in built]
    validation = [n.name for n in names if n.role == "validation"]
    return {
        "sets": [{"name": n.name, "role": n.role, "videos": n.num_videos} for n in names],
        "validation": overlap.selection_lines(validation, [n.name for n in names if n.role == "test"]),
        "pairs": [finding._asdict() for finding in findings],
        "counts": counts,
        "verdict": max((f.verdict for f in findings), key=overlap.VERDICTS.index),
    }


def print_report(report):
    """Sets, validation, and a line for each finding."""
    for entry in report["sets"]:
        print(f"{entry['role']:10}  {entry['name']}: {entry['videos']} videos")
    print("\n".join(report["validation"]))
    rows = [
        (pair["verdict"], pair["first"], pair["second"], str(pair["count"]), pair["check"]) for pair in report["pairs"]
    ]
    header = ("verdict", "split", "split", "count", "check")
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row, pair in zip([header, *rows], [None, *report["pairs"]]):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
        if pair and pair["note"]:
            print(f"         {pair['note']}")
        if pair and pair["examples"]:
            print(f"         {', '.join(pair['examples'])}{' ...' * (pair['count'] > len(pair['examples']))}")
    print(f"verdict: {report['verdict']}")


def main(argv=None):
    """Command line. Returns 0, 1 where a finding is an error or records cannot be read, or 2."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.leakage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sets", type=paths.expand, nargs="+", help="<data set>/<config>[:<split>] or a folder[:<split>]"
    )
    parser.add_argument(
        "--data_dir", type=paths.expand, help="where built sets are; $TFDS_DATA_DIR or ~/tensorflow_datasets by default"
    )
    parser.add_argument("--out", type=paths.expand, help="write the result as JSON")
    parser.add_argument("--train", nargs="+", default=(), help="which of the arguments train (default: splits train*)")
    parser.add_argument("--phash", action="store_true", help="compare what four frames a video look like")
    parser.add_argument("--names_only", action="store_true", help="read indexes alone, no frames")
    parser.add_argument("--strict", action="store_true", help="FaceForensics++'s seven known straddlers are errors")
    args = parser.parse_args(argv)
    if args.names_only and args.phash:
        parser.error("--names_only reads no frames, --phash does: choose one")
    # Reading records needs TFDS, which takes seconds to import.
    from data_prep.layout import PreparedDataError

    try:
        built = open_splits(args.sets, args.data_dir, args.train)
        findings = compare_all(built, args.strict, frames=not args.names_only, perceptual=args.phash)
    except (UsageError, PreparedDataError) as error:
        print(f"data_prep.leakage: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    report = make_report(built, findings)
    print_report(report)
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(report["verdict"] == "error")


def _locate(argument, data_dir):
    """(folder with the newest version, split or None)."""
    name, colon, split = argument.rpartition(":")
    # A colon before a slash belongs to a path.
    if not colon or "/" in split:
        name, split = argument, None
    for folder in (data_dir / name, pathlib.Path(name).expanduser()):
        if (folder / "dataset_info.json").exists() or contents.matching(folder, "index-*.csv"):
            return folder, split
        versions = [path.parent for path in contents.matching(folder, "*/dataset_info.json")]
        numbers = {tuple(int(n) for n in p.name.split(".")): p for p in versions if p.name.replace(".", "").isdigit()}
        if numbers:
            return numbers[max(numbers)], split
    built = contents.matching(data_dir, "*/*/*/dataset_info.json")
    there = sorted(path.parent.parent.relative_to(data_dir).as_posix() for path in built)
    raise UsageError(
        f"{argument}: no built data set, neither {data_dir / name} nor the folder {name}. Below {data_dir} there are: "
        f"{', '.join(dict.fromkeys(there)) or 'none'}; build one with python -m data_prep.build"
    )


def _open(folder, split, role):
    path = folder / f"index-{split}.csv"
    try:
        columns = overlap.read_index(path)
        num_records = [int(n) for n in columns["num_records"]]
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no index that data_prep.build writes: {error}") from error
    names = overlap.make_split(f"{_set_name(folder)}:{split}", columns, role)
    return Built(folder, split, names, columns["video_id"], num_records)


def _set_name(folder):
    """ "<data set>/<config>", which a built set knows even in a folder of another name."""
    path = folder / "dataset_info.json"
    if path.exists():
        try:
            info = json.loads(path.read_bytes())
            return f"{info['name']}/{info['configName']}"
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} is no description of a built data set: {error}") from error
    parts = folder.resolve().parts
    return f"{parts[-3]}/{parts[-2]}" if len(parts) > 3 else folder.name


def _not_train(split):
    role = overlap.role_of(split)
    return "test" if role == "train" else role


def _key(built):
    return built.folder.resolve(), built.split


def _hash(pairs, perceptual):
    from data_prep import phash

    return {
        _key(built): phash.read_frames(built.folder, built.split, built.num_records, perceptual)
        for built in {_key(b): b for pair in pairs for b in pair}.values()
    }


def _compare_frames(a, b, first, second):
    """Findings of stored and of similar frames."""
    from data_prep import phash

    def finding(check, verdict, note, pairs, count=None):
        examples = sorted(f"{a.videos[u]} ({b.videos[v]})" for u, v in pairs)
        count = len(pairs) if count is None else count
        return overlap.Finding(
            a.names.name, b.names.name, check, count, verdict, note, tuple(examples[: overlap.MAX_EXAMPLES])
        )

    number, pairs = phash.same_frames(first, second)
    findings = [finding("stored frames in both, byte for byte", "error", "", pairs, number)]
    if len(first.hash) and len(second.hash):
        sure, doubtful = phash.similar_videos(first, second)
        findings += [
            finding(
                "pairs of videos that look the same", "error", "by perceptual hash, at least two of four frames", sure
            ),
            finding(
                "pairs of videos with a frame that looks the same",
                "report",
                "by perceptual hash, one frame: two people can come this near by chance",
                doubtful,
            ),
        ]
    return [f for f in findings if f.count]


if __name__ == "__main__":
    sys.exit(main())
