"""Results as tables: text for a terminal, CSV with every figure, LaTeX for a paper. Takes what `results.json` holds."""

import csv
import io
import math

# (metric, heading, with interval in the text table): the figures of a set that the main table shows.
_TEXT = (
    ("video_auc", True),
    ("video_eer", False),
    ("video_ap", False),
    ("video_accuracy", False),
    ("frame_auc", True),
    ("frame_eer", False),
)
_LATEX = (
    ("video_auc", "AUC"),
    ("video_eer", "EER"),
    ("video_ap", "AP"),
    ("video_balanced_accuracy", "bal.\\ acc."),
    ("frame_auc", "frame AUC"),
)
# Behind them, where a set has it: in bits.
_LATEX_BITS = ("video_cllr_calibrated", "$C_\\mathrm{llr}$, bits")


def eval_names(results) -> list[str]:
    """The evals in `results`, in order; keys that start with "_" are about the results."""
    return list(dict.fromkeys(key.split("/")[0] for key in results if not key.startswith("_")))


def percent(value, interval=None) -> str:
    """ "91.2" or "91.2 [88.0, 94.1]" from shares; "-" where the value is None or NaN, "[-]" where its interval is."""
    return _text(value, interval, lambda share: f"{100 * share:.1f}")


def bits(value, interval=None) -> str:
    """ "0.35" or "0.35 [0.25, 0.53]" from a Cllr; "-" and "[-]" as `percent`."""
    return _text(value, interval, lambda number: f"{number:.2f}")


def _text(value, interval, written):
    if _missing(value):
        return "-"
    if interval is None:
        return written(value)
    return f"{written(value)} [{'-' if _missing(interval[0]) else ', '.join(map(written, interval))}]"


# Said below a table that has `average` or `count_top`.
AVERAGE_NOTE = "Avg: mean over the test sets, where none is missing."
TOP_NOTE = (
    "Top3: on how many test sets fewer than three others are better, by figures that are not rounded; equals count "
    "alike, and a missing figure neither counts nor ranks."
)


def average(values) -> float | None:
    """Mean over test sets; None where there is none, or one lacks (None, NaN): means of other sets do not compare."""
    values = list(values)
    return None if not values or any(map(_missing, values)) else sum(values) / len(values)


def count_top(rows, *, best=3, lower=False) -> list[int]:
    """On how many test sets each detector is among the best.

    On a set it is where fewer than `best` others have a strictly better figure. So equals are in or out together, and
    more than `best` may be in; a figure that is None or NaN is never in and bettered by none.

    Args:
      rows: a list a detector, its figures in the order of the sets. best: how many. lower: whether less is better.

    Returns:
      list of int, one a row, each from 0 to the number of sets.

    Raises:
      ValueError: rows of different lengths.

    Source: the column Top3 of DeepfakeBench's tables, which does not say what is done with equals.
    """
    counts = [0] * len(rows)
    for column in zip(*rows, strict=True):
        values = [None if _missing(value) else -value if lower else value for value in column]
        for i, value in enumerate(values):
            better = sum(other is not None and value is not None and other > value for other in values)
            counts[i] += value is not None and better < best
    return counts


def format_table(results) -> str:
    """The results as a text table, one row an eval, percent, AUC with its interval; "-" where undefined."""
    intervals = results.get("_intervals", {})
    names = eval_names(results)
    rows = [["eval", *(metric for metric, _ in _TEXT)]]
    for name in names:
        row = [name]
        for metric, with_interval in _TEXT:
            key = f"{name}/{metric}"
            row.append(percent(results.get(key), intervals.get(key) if with_interval else None))
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [[row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))] for row in rows]
    return "\n".join("  ".join(line) for line in lines)


def to_csv(results) -> str:
    """Every figure as CSV text: eval, group (method, compression or "dfb_compat"; "" is the whole set), level, metric,
    value, low, high; an empty field where undefined."""
    intervals = results.get("_intervals", {})
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("eval", "group", "level", "metric", "value", "low", "high"))
    for key in results:
        if key.startswith("_"):
            continue
        name, *group, figure = key.split("/")
        level, metric = figure.split("_", 1)
        values = (results[key], *intervals.get(key, (None, None)))
        writer.writerow(
            (name, "/".join(group), level, metric, *("" if _missing(v) else repr(float(v)) for v in values))
        )
    return file.getvalue()


def to_latex(results) -> str:
    """The main table as a LaTeX tabular (booktabs), percent, intervals in brackets; its conditions as comments."""
    intervals, about = results.get("_intervals", {}), results.get("_about", {})
    settings = about.get("intervals") or {}
    columns = [(metric, heading, percent) for metric, heading in _LATEX]
    if any(f"{name}/{_LATEX_BITS[0]}" in results for name in eval_names(results)):
        columns.append((*_LATEX_BITS, bits))
    lines = [
        f"% weights: {about.get('weights')}, step {about.get('step')}; video score: {about.get('aggregate')} of frames",
        f"% brackets: {100 * settings.get('level', 0.95):g} % intervals, {settings.get('method')}",
        "\\begin{tabular}{l" + "r" * (1 + len(columns)) + "}",
        "\\toprule",
        "set & videos (real + fake) & " + " & ".join(heading for _, heading, _ in columns) + " \\\\",
        "\\midrule",
    ]
    for name in eval_names(results):
        numbers = [results.get(f"{name}/video_num_{kind}") for kind in ("real", "fake")]
        cells = [_escape(name), "-" if None in numbers else " + ".join(f"{n:.0f}" for n in numbers)]
        for metric, _, written in columns:
            value, *interval = written(results.get(f"{name}/{metric}"), intervals.get(f"{name}/{metric}")).split(" ", 1)
            cells.append(value + "".join(f" {{\\scriptsize {text}}}" for text in interval))
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _escape(text):
    return "".join("\\" + c if c in "_%&#$" else c for c in text)


def _missing(value):
    return value is None or math.isnan(value)
