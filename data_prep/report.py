"""The report of a preparation job: what was dropped, by code, and what is there."""

import collections
import dataclasses

from data_prep import catalog, contents

# Codes of files that should not be there, found before decoding; they count as bad.
BAD_CODES = ("foreign_frames", "unlisted_file", "name_unparsed")
# Codes that tell something and drop nothing: --strict goes on.
NOTE_CODES = (
    "compression_alias",
    "folder_alias",
    "identity_unknown",
    "landmark_out_of_range",
    "layout_alias",
    "listed_twice",
    "look_alike",
    "method_unnamed",
    "no_landmarks_kept",
    "no_test",
    "numbered_images",
    "one_based",
    "original_missing",
    "pair_missing",
    "pairs_by_name",
    "same_bytes",
    "same_name_apart",
    "splits_made",
    "too_short",
    "two_classes",
    "two_splits",
    "videos_are_scenes",
)


def make_report(entries, results, problems, settings):
    """The report of a job.

    Args:
      entries: all `catalog.Entry` of the job.
      results: one dict of `crops.prepare_entry` for each.
      problems: list of `catalog.Problem`.
      settings: dict, copied in.

    Returns:
      dict that JSON can hold: settings; counts by code; videos found, prepared, bad; frames sampled, kept;
      `bad_fraction`, entries that gave nothing and files with a code of `BAD_CODES`, over all found; prepared videos
      by split and class; `items`, one dict with code, path, detail (and frame_index) for everything dropped or odd.
    """
    items = [dataclasses.asdict(problem) for problem in problems]
    items += [item for result in sorted(results, key=lambda r: (r["path"], r["key"])) for item in result["items"]]
    strays = {problem.path for problem in problems if problem.code in BAD_CODES}
    bad = len(strays) + sum(result["outcome"] != catalog.PREPARED for result in results)
    found = len(strays) + len(entries)
    kept = {result["key"]: result["kept"] for result in results}
    by_split = {}
    for entry in entries:
        if kept.get(f"{entry.unit}/{entry.stem}"):
            by_split.setdefault(entry.split, {"real": 0, "fake": 0})[entry.fields["label"]] += 1
    sampled, total = sum(result["sampled"] for result in results), sum(kept.values())
    return {
        "settings": settings,
        "counts": dict(sorted(collections.Counter(item["code"] for item in items).items())),
        "videos": {"found": found, "prepared": sum(count > 0 for count in kept.values()), "bad": bad},
        "frames": {"sampled": sampled, "kept": total, "kept_fraction": total / sampled if sampled else 0.0},
        "bad_fraction": bad / found if found else 0.0,
        "prepared_videos": by_split,
        "items": items,
    }


def first_drop(items):
    """The first item that says that something was dropped, or None. items: dicts of a report."""
    return next((item for item in items if item["code"] not in NOTE_CODES), None)


def print_summary(report, path):
    """Print a report's figures and one example of each code."""
    videos, frames = report["videos"], report["frames"]
    print(
        f"{videos['prepared']} of {videos['found']} videos prepared, "
        f"{frames['kept']} of {frames['sampled']} sampled frames kept ({frames['kept_fraction']:.2%})"
    )
    for split, classes in report["prepared_videos"].items():
        print(f"  {split}: {classes['real']} real, {classes['fake']} fake")
    for code, count in report["counts"].items():
        example = next(item for item in report["items"] if item["code"] == code)
        print(f"  {code}: {count}, first {contents.shown(example['path'])}: {example['detail']}")
    print(f"report: {path}")
