"""Lines for people: what a terminal shows of scored files."""

import collections
import pathlib
import textwrap

from msddf_jax.faces import find
from msddf_jax.show import records, words

WIDTH = 80
_LONGEST_NAME = 28


def name_width(paths) -> int:
    """Columns for the names of some files: as wide as the longest, within reason."""
    return min(max([len(pathlib.Path(path).name) for path in paths] or [0]), _LONGEST_NAME)


def describe(record, width=_LONGEST_NAME) -> str:
    """One file, at most 80 columns wide: name, what to know first, verdict, faces, frames, what is odd.

    Args:
      record: of `records.summarize` with its file. width: columns of the name, cut in the middle where it is longer.
    """
    name = _cut(pathlib.Path(record["file"]).name, width).ljust(width)
    said = _describe_error(record["error"]) if "error" in record else _describe_verdict(record)
    settings = {"subsequent_indent": " " * (width + 2), "break_long_words": False, "break_on_hyphens": False}
    # Figures are kept with their words by a no-break space, which not every terminal shows.
    return textwrap.fill(f"{name}  {said}", WIDTH, **settings).replace("\u00a0", " ")


def _describe_error(error):
    return f"not scored: {error['message']} [{error['code']}]"


def _describe_verdict(record):
    figure = f"score\u00a0{record['score']:.2f}"
    if unanswered := records.why_unanswered(record):
        # No verdict and no probability: it would be read as one. What is out of range is said by the warning.
        what, _, why = unanswered.partition(": ")
        parts = [f"{what} ({figure})"] + ([] if records.is_out_of_range(record) else [why])
    else:
        if record["calibration"] is not None:
            figure = f"{100 * record['probability']:.0f}\u00a0%".rjust(5)
        label = record["label"].upper() if record["label"] == "fake" else record["label"]
        parts = [f"{label}\u00a0{figure}"]
        if record["lr"] is not None:
            parts.append(words.describe_short(record["lr"]))
    if record["kind"] == "image":
        count = len(record["faces"])
        parts.append("1 face" if count == 1 else f"{count} faces, the highest counts")
    else:
        parts += _describe_people(record)
    parts += [d["detail"] for d in record["drops"] if d["frame_index"] < 0 and d["code"] in records.ODD]
    warning = f"WARNING {record['warning']}: " if "warning" in record else ""
    return warning + "; ".join(parts)


def _describe_people(record):
    listed, used = record["people"], f"{record['frames_used']} of {record['frames_sampled']} frames"
    person = next(p for p in listed if p["track"] == record["track"])
    stretch = person["stretch"]
    fakes = sum(p["label"] == "fake" and p["decides"] for p in listed)
    where = ""
    if records.is_worth_a_word(stretch, record):
        where = f"{records.describe_stretch(stretch, record['fps'])} ({stretch['score']:.2f})"
    parts = []
    unanswered = bool(records.why_unanswered(record))
    if where and (record["label"] == "real" or unanswered):
        parts.append(f"but {where} looks fake")
    parts.append(f"1 person, {used}" if len(listed) == 1 else f"person {record['track'] + 1} of {len(listed)}, {used}")
    if fakes > 1:
        parts.append(f"{fakes} people look fake")
    if where and record["label"] == "fake" and not unanswered and stretch["frames"] < person["frames_used"]:
        parts.append(f"worst {where}")
    return parts


def _cut(name, width):
    if len(name) <= width:
        return name
    head = (width - 3) // 2
    return f"{name[:head]}...{name[len(name) - (width - 3 - head) :]}"


def summarize(made, left_out, out) -> str:
    """The last lines: how many files of each verdict, what was left out, and where everything lies.

    Args:
      made: records of all files. left_out: {extension: count} of `find.find_files`. out: folder of the results.
    """
    counts = collections.Counter(
        records.why_unanswered(record).partition(": ")[0] or record.get("label", "not scored") for record in made
    )
    kinds = ("fake", "real", "no answer", "no verdict", "not scored")
    parts = [f"{counts[name]} {name}" for name in kinds if counts[name]]
    files = "1 file" if len(made) == 1 else f"{len(made)} files"
    lines = [f"{files}: {', '.join(parts)}"]
    if left_out:
        lines.append(find.describe_left_out(left_out))
    warned = sum("warning" in record for record in made)
    if warned:
        lines.append(f"{warned} with a WARNING: read it before the verdict")
    out = pathlib.Path(out)
    lines.append(f"JSON: {out / 'predictions.jsonl'}")
    if any("score" in record for record in made):
        lines.append(f"images: {out / 'pictures'}")
    return "\n".join(lines)
