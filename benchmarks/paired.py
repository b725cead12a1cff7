"""Anybody's scores beside those that are kept, on the same items: python -m benchmarks.tables --against mine.csv."""

import collections
import csv
import pathlib

import numpy as np

from benchmarks import kept_scores
from msddf_jax import compare
from msddf_jax.evaluators import detection
from msddf_jax.show import page
from msddf_jax.statistics import intervals, tables
from msddf_jax.statistics.scores import group_videos


def read_csv(paths_of, evals) -> dict[str | None, dict[str, tuple[float, int | None]]]:
    """{eval: {item's hash: (score, label or None)}} of CSV files; None stands for every eval.

    Columns: score, and item (a hash) or video_key and frame_index; label and eval where there are. A file without a
    column eval that is called <eval>.csv is of that eval.

    Raises:
      ValueError: other columns, a score that is no finite number, an item twice in one eval.
    """
    found = collections.defaultdict(dict)
    for path in map(pathlib.Path, paths_of):
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            names = set(lines.fieldnames or ())
            if "score" not in names or not ("item" in names or {"video_key", "frame_index"} <= names):
                raise ValueError(
                    f"{path} has the columns {sorted(names)}, expected score, and item or video_key and frame_index"
                )
            for line in lines:
                where = f"{path}, line {lines.line_num}"
                item = line["item"] if "item" in names else None
                item = item or kept_scores.name_hash(line["video_key"], int(line["frame_index"]))
                name = line["eval"] if "eval" in names else path.stem if path.stem in evals else None
                try:
                    score = float(line["score"])
                except (TypeError, ValueError):
                    score = np.nan
                if not np.isfinite(score):
                    raise ValueError(f"{where}: the score is {line['score']!r}, expected a finite number")
                if item in found[name]:
                    raise ValueError(f"{where}: item {item} is there twice{f' in {name}' if name else ''}")
                found[name][item] = (score, int(line["label"]) if line.get("label") else None)
    return dict(found)


def match(columns, mine, name, *, partly) -> np.ndarray | None:
    """Scores of `mine`, float64 [N], in the order of the items of an eval.

    Args:
      columns: of the eval. mine: {item: (score, label or None)}. name: of the eval. partly: whether `mine` may have
        items of other evals too; then None where it has none of this one.

    Raises:
      ValueError: items that are missing or too many, with their numbers, or another label.
    """
    items = columns["item"].tolist()
    missing = [item for item in items if item not in mine]
    unknown = [item for item in mine if item not in set(items)] if not partly else []
    if partly and len(missing) == len(items):
        return None
    if missing or unknown:
        parts = [f"{len(missing)} of its {len(items)} items are missing (first: {missing[0]})"] if missing else []
        parts += [f"{len(unknown)} of yours are not in it (first: {unknown[0]})"] if unknown else []
        raise ValueError(
            f"{name}: {'; '.join(parts)}. A paired comparison needs the same items; of which eval a score is says a "
            "column eval, or a file named <eval>.csv"
        )
    for item, label in zip(items, columns["label"].tolist(), strict=True):
        if mine[item][1] not in (None, label):
            raise ValueError(f"{name}: item {item} has label {mine[item][1]} in your file, here {label}")
    return np.array([mine[item][0] for item in items])


def compare_csv(kept, table, files, row=None) -> page.Table:
    """Anybody's scores beside those of each kept run of a table, on the same videos (an image is a video of one).

    Args: files: as `read_csv`. row: only this row.

    Returns:
      a line an eval (and method, where it has several), row and seed: AUC of both, difference with its interval and
      p-value by DeLong (`intervals.delong_test`).

    Raises:
      ValueError: nothing is kept of the table or row; what `read_csv` and `match` raise; no eval has a score.
    """
    runs = {key: sets for key, sets in sorted(kept.of(table).items()) if row in (None, key[0])}
    evals = {name: columns for sets in runs.values() for name, columns in sets.items()}
    if not runs:
        raise ValueError(
            f"of the table {table!r} the rows {sorted({r for r, _ in kept.of(table)})} are kept, not {row!r}"
        )
    mine = read_csv(files, evals)
    if unknown := sorted(set(filter(None, mine)) - set(evals)):
        raise ValueError(f"{', '.join(unknown)}: no eval of {table!r}, which has {', '.join(sorted(evals))}")
    _refuse_unknown(mine.get(None, {}), evals, table)
    scores = {name: match(evals[name], mine[name], name, partly=False) for name in evals if name in mine}
    if None in mine:
        rest = {name: match(evals[name], mine[None], name, partly=True) for name in evals if name not in mine}
        scores |= {name: values for name, values in rest.items() if values is not None}
    if not scores:
        raise ValueError(f"{', '.join(map(str, files))}: no score of an eval of {table!r}")
    lines = []
    for (name, seed), sets in runs.items():
        for place, columns in sets.items():
            if place in scores:
                lines += _compare_eval(place, columns, scores[place], name, seed)
    left = sorted(set(evals) - set(scores))
    note = "AUC of videos in percent; difference: yours less the row's, with its 95 % interval, by DeLong."
    note += f" Not scored by you: {', '.join(left)}." if left else ""
    header = ["eval", "row", "seed", "yours", "the row's", "difference", "p (DeLong)", "videos (real + fake)"]
    return page.Table(f"against {table}", header, lines, note)


def _refuse_unknown(mine, evals, table):
    there = {item for columns in evals.values() for item in columns["item"].tolist()}
    if unknown := [item for item in mine if item not in there]:
        raise ValueError(
            f"{len(unknown)} of your {len(mine)} items are in no eval of {table!r} (first: {unknown[0]}); how an item "
            "is named: docs/results/scores/README.md"
        )


def _compare_eval(name, columns, mine, row, seed):
    lines = []
    for where, keep in detection.set_groups(name, columns).items():
        # The one method of a set is the set.
        if where != name and keep.all():
            continue
        labels, keys = columns["label"][keep], columns["video_key"][keep]
        a, y, _ = group_videos(mine[keep], labels, keys)
        b, _, _ = group_videos(columns["score"][keep], labels, keys)
        test = intervals.delong_test(a, b, y)
        ends = tables.percent(test.difference, (test.low, test.high))
        counts = f"{int(np.sum(y == 0))} + {int(np.sum(y == 1))}"
        auc = (tables.percent(test.a), tables.percent(test.b))
        lines.append([where, row, str(seed), *auc, ends, compare.format_p(test.p_value), counts])
    return lines
