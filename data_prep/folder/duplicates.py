"""Whether a built set of a user's own files holds one image in two splits or classes, and which."""

import itertools
import json
import pathlib

from data_prep import contents, leakage, phash
from data_prep.layout import PreparedDataError
from msddf_jax.data import overlap

_SHOWN = 5


def find_duplicates(folder):
    """What of a built set stands twice.

    Args:
      folder: of the built set.

    Returns:
      dict of JSON values: duplicates, a list of {first, second ("<split>:<video_id>"), what}, where what is "the same
      frames" or "looks the same" of two splits and "real and fake" of one video's frames in both classes; leakage,
      what `overlap.compare` finds between splits by names; verdict, "ok" or "error".

    Raises:
      PreparedDataError: records that cannot be read.
    """
    folder = pathlib.Path(folder)
    built = sorted(leakage.open_splits([str(folder)]), key=lambda b: overlap.ROLES.index(b.names.role))
    frames = {b.split: phash.read_frames(folder, b.split, b.num_records) for b in built}
    labels = {b.split: overlap.read_index(folder / f"index-{b.split}.csv")["label"] for b in built}
    found = _in_both_classes(built, frames, labels)
    findings = []
    for a, b in itertools.combinations(built, 2):
        findings += [finding for finding in overlap.compare(a.names, b.names) if finding.verdict == "error"]
        _, same = phash.same_frames(frames[a.split], frames[b.split])
        alike, _ = phash.similar_videos(frames[a.split], frames[b.split])
        alike = phash.confirm(alike - same, a.num_records, b.num_records, _reader(a), _reader(b))
        for what, pairs in (("the same frames", same), ("looks the same", alike)):
            found += [_pair(f"{a.split}:{a.videos[u]}", f"{b.split}:{b.videos[v]}", what) for u, v in sorted(pairs)]
    return {
        "duplicates": found,
        "leakage": [overlap.describe(finding) for finding in findings],
        "verdict": "error" if found or findings else "ok",
    }


def check(folder, report, allow=False):
    """Print what of a built set stands twice and write all of it.

    Args:
      folder: of the built set. report: path of the JSON to write. allow: go on where there is something.

    Raises:
      PreparedDataError: there is something, and `allow` is false.
    """
    found = find_duplicates(folder)
    pathlib.Path(report).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    pairs = [f"{p['first']} and {p['second']} ({p['what']})" for p in found["duplicates"]]
    lines = [*pairs, *found["leakage"]]
    if not lines:
        print(f"nothing stands in two splits or in both classes: {report}")
        return
    shown = "; ".join(map(contents.shown, lines[:_SHOWN])) + (
        f"; and {len(lines) - _SHOWN} more" * (len(lines) > _SHOWN)
    )
    text = f"{len(lines)} times something stands in two splits or in both classes: {shown}. All are in {report}"
    if not allow:
        raise PreparedDataError(
            f"{text}. Take one of each away and prepare again, or go on with --allow_duplicates [duplicates]"
        )
    print(f"allowed: {text}")


def _in_both_classes(built, frames, labels):
    """Pairs of a real and a fake whose frames are all the same."""
    found, seen = [], {}
    for b in built:
        digests = [[] for _ in b.videos]
        for row, digest in zip(frames[b.split].video.tolist(), frames[b.split].digest.tolist(), strict=True):
            digests[row].append(digest)
        for row, own in enumerate(digests):
            first = seen.setdefault(tuple(sorted(own)), {})
            first.setdefault(labels[b.split][row], f"{b.split}:{b.videos[row]}")
    for both in seen.values():
        if len(both) == 2:
            found.append(_pair(both["real"], both["fake"], "real and fake"))
    return found


def _reader(built):
    numbers = phash.sampled_records(built.num_records)
    return lambda row: phash.read_images(built.folder, built.split, numbers[row])


def _pair(first, second, what):
    return {"first": first, "second": second, "what": what}
