"""Tables of scores, rebuilt from the scores that are kept: python -m benchmarks.tables

    python -m benchmarks.tables [--write] [--table=demo]    hold README.md and docs/ against docs/results/scores
    python -m benchmarks.tables --collect demo demo/workdir [--row=msddf] [--command=...]    keep a workdir's scores
    python -m benchmarks.tables --drop real msddf-150                                        and leave a row's out again
    python -m benchmarks.tables --against mine.csv --table demo [--row=msddf]    your scores beside them, paired

Needs no data and no accelerator. In Markdown a table stands between two comments, and so may a single cell:

    <!-- table: demo; rows: toy_swap | toy_reenact; columns: test set | video AUC, mean (sd) --> ... <!-- end -->
    <!-- cell: demo; toy_swap; video AUC, mean (sd) -->85.6 (3.2)<!-- end -->

rows and columns may be left out. What stands between them is made by the code that makes the table after a run, from
the same statistics; a bootstrap's seed is fixed. The first cell that differs is named, with exit code 1.
docs/results/scores/README.md describes the files, docs/results/README.md which tables are kept.
"""

import argparse
import collections
import functools
import pathlib
import re
import sys
from typing import NamedTuple

import numpy as np

from benchmarks import ablation, kept_scores, paired, real
from configs import msddf
from configs import real as real_rows
from configs.ablations import base
from msddf_jax import paths
from msddf_jax.show import page
from msddf_jax.statistics import intervals, metrics, tables
from msddf_jax.statistics.scores import group_videos

ROOT = pathlib.Path(__file__).parents[1]
_MARKER = re.compile(r"(?<!`)<!-- (table|cell): ([^>]+?) -->(.*?)<!-- end -->", re.DOTALL)
_OPENING = re.compile(r"(?<!`)<!-- (?:table|cell): ")


class Spec(NamedTuple):
    """A table whose scores are kept.

    make: (its runs {(row, seed): {eval: columns}}, its starts) -> `page.Table`. rows: pattern of its rows' names.
    evals: (row) -> {eval in the workdir: its name here}; evals of one name have the same items in every row.
    command: (row, seed) -> what makes the run.
    """

    make: collections.abc.Callable
    rows: str
    evals: collections.abc.Callable
    command: collections.abc.Callable


def _same(*names):
    return lambda row: {name: name for name in names}


def make_demo(runs, starts) -> page.Table:
    """The demo: a row a test set; AUC of videos with its interval for each seed, then means over the seeds."""
    config, seeds = msddf.get_config("demo"), sorted({seed for _, seed in runs})
    lines, seen = [], config.data.train.methods
    tested = [name for name in config.evals if name != config.select.eval]
    for name in sorted(tested, key=lambda name: name not in seen):
        sets = [runs["msddf", seed][name] for seed in seeds]
        found = [metrics.detection_metrics(s["score"], s["label"], s["video_key"], name=name) for s in sets]
        cells = []
        for scores in sets:
            videos, labels, _ = group_videos(scores["score"], scores["label"], scores["video_key"])
            ends = intervals.auc_interval(videos, labels)
            cells.append(tables.percent(metrics.auc(videos, labels), ends))
        for metric in ("video_auc", "video_eer", "frame_auc"):
            values = [100 * values[metric] for values in found]
            spread = f" ({np.std(values, ddof=1):.1f})" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
        counts = " + ".join(f"{found[0][f'video_num_{kind}']:.0f}" for kind in ("real", "fake"))
        lines.append([f"`{name}`", "yes" if name in seen else "no", counts, *cells])
    header = ["test set", "in training", "videos (real + fake)", *(f"video AUC, seed {seed}" for seed in seeds)]
    header += ["video AUC, mean (sd)", "video EER, mean (sd)", "frame AUC, mean (sd)"]
    return page.Table(
        "demo", header, lines, "In percent; [95 % interval over videos], (standard deviation over seeds)."
    )


def make_ablation(runs, starts) -> page.Table:
    """`benchmarks.ablation`'s table, without the speeds, which no scores give."""
    found = collections.defaultdict(list)
    for (row, _), sets in sorted(runs.items()):
        results = {}
        for name, s in sets.items():
            videos, labels, _ = group_videos(s["score"], s["label"], s["video_key"])
            results[f"{name}/video_auc"] = metrics.auc(videos, labels)
        found[row].append(results)
    return ablation.make_table(found, base.TRAINED_ON, {})


def make_real(runs, starts, steps=0) -> page.Table:
    """`benchmarks.real`'s table; an eval of a run that left a manipulation out is kept under a name of its own."""
    found = {key: {name.partition("-")[0]: s for name, s in sets.items()} for key, sets in runs.items()}
    return real.make_table(found, starts, steps)._replace(
        note="AUC of images in percent, mean over seeds; in brackets the difference to the first row on the same "
        "images, with its 95 % interval over images."
    )


def _real_evals(row):
    _, _, left_out = row.partition("-without-")
    return {"test": f"test-without-{left_out}"} if left_out else {name: name for name in ("val", "test", "dfdc")}


def _demo_command(row, seed):
    command = "python -m msddf_jax.main --config configs/msddf.py:demo --config.data.data_dir=demo/tfds"
    return f"{command} --config.seed={seed} --workdir demo/seed{seed}"


def _real_command(row, seed):
    name, _, left_out = row.partition("-without-")
    name, _, steps = name.partition("-")
    flags = f" --steps={steps} --tested" * bool(steps) + " --leave_out" * bool(left_out)
    return f"bash launch/real.sh MATERIAL real --rows={name} --seeds={seed + 1}{flags}"


_REAL = "|".join(map(re.escape, real.TITLES))
_LEFT_OUT = f"(-without-({'|'.join(real_rows.METHODS)}))?"
SPECS = {
    "demo": Spec(make_demo, "msddf", _same(*msddf.get_config("demo").evals), _demo_command),
    "ablation": Spec(
        make_ablation,
        "|".join(map(re.escape, ablation.ROWS)),
        _same(*(f"{name}{suffix}" for name in base.METHODS for suffix in ("", "_c40"))),
        lambda row, seed: f"bash launch/ablate.sh ablation --rows={row} --seeds={seed + 1}",
    ),
    "real": Spec(make_real, f"({_REAL}){_LEFT_OUT}", _real_evals, _real_command),
    "real_150": Spec(
        functools.partial(make_real, steps=150),
        f"({_REAL})-150{_LEFT_OUT}|{'|'.join(real.PUBLISHED)}",
        _real_evals,
        _real_command,
    ),
}


def make(kept, name) -> page.Table:
    """A table of `SPECS` from what is kept, its note with where the runs come from.

    Raises ValueError for another name, or where nothing of it is kept.
    """
    if name not in SPECS:
        raise ValueError(f"there is no table {name!r} of kept scores, there are {', '.join(SPECS)}")
    runs = kept.of(name)
    if not runs:
        raise ValueError(f"no scores of the table {name!r} are kept: python -m benchmarks.tables --collect {name} ...")
    table = SPECS[name].make(runs, kept.starts.get(name, []))
    records = [record for run, record in kept.records.items() if run.table == name]
    commits = collections.Counter((record["commit"] or "unknown")[:7] for record in records)
    told = f"Runs: {len(records)}; code of {', '.join(f'{c} ({n})' for c, n in sorted(commits.items()))}"
    for key in ("jaxlib", "device"):
        told += f"; {key} {', '.join(sorted({record[key] for record in records}))}"
    return table._replace(note=f"{table.note} {told}. Rebuilt from docs/results/scores.".strip())


def render(kind, asked, get) -> str:
    """What stands behind a marker.

    Args:
      kind: "table" or "cell". asked: the text of the marker. get: (name) -> `page.Table`.

    Raises:
      ValueError: no such table, row or column, with those that there are.
    """
    name, *parts = (part.strip() for part in asked.split(";"))
    table = get(name)
    titles = [row[0].strip("` ") for row in table.rows]
    if kind == "cell":
        if len(parts) != 2:
            raise ValueError(f"a cell is <!-- cell: TABLE; ROW; COLUMN -->, got {asked!r}")
        return table.rows[_place(parts[0], titles, name)][_place(parts[1], table.header, name)]
    chosen = {"rows": titles, "columns": table.header}
    for part in parts:
        key, _, names = part.partition(":")
        if key not in chosen:
            raise ValueError(f"the marker {asked!r} has {key!r}, allowed: rows, columns")
        chosen[key] = [value.strip() for value in names.split("|")]
    columns = [_place(value, table.header, name) for value in chosen["columns"]]
    rows = [table.rows[_place(value, titles, name)] for value in chosen["rows"]]
    # The note speaks of the whole table.
    note = table.note if not parts else ""
    picked = table._replace(header=[table.header[i] for i in columns], note=note)
    return f"\n\n{page.markdown(picked._replace(rows=[[row[i] for i in columns] for row in rows]))}\n"


def _place(value, names, table):
    if value not in names:
        raise ValueError(f"the table {table!r} has no {value!r}; it has {', '.join(map(repr, names))}")
    return names.index(value)


def documents(root=ROOT) -> list[pathlib.Path]:
    """README.md and every page of docs/."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def check(kept, root=ROOT, *, write=False, only=None) -> tuple[int, list[str]]:
    """Hold the documents against what is kept.

    Args:
      kept: `kept_scores.Kept`. root: of the documents. write: rewrite what differs. only: this table alone.

    Returns:
      (number of markers, a line for each marker whose text differs, with the first cell that does).

    Raises:
      ValueError: a marker without an end, or that asks for what is not there; a table that is kept and that no
        document shows.
    """
    get, shown, count, unlike = functools.cache(functools.partial(make, kept)), set(), 0, []
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        found = list(_MARKER.finditer(text))
        if len(found) != len(_OPENING.findall(text)):
            raise ValueError(f"{path.relative_to(root)}: a marker of a table or cell has no <!-- end --> behind it")
        differing = []
        # From the last on: what is written moves nothing that is still to come.
        for match in reversed(found):
            kind, asked, there = match.groups()
            if only not in (None, name := asked.split(";")[0].strip()):
                continue
            try:
                wanted = render(kind, asked, get)
            except ValueError as error:
                line = text[: match.start()].count("\n") + 1
                raise ValueError(f"{path.relative_to(root)}:{line}: {error}") from error
            count += 1
            shown |= {name} if kind == "table" else set()
            if there != wanted:
                line = text[: match.start(3)].count("\n") + 1
                differing.append(f"{path.relative_to(root)}:{_difference(there, wanted, line, asked)}")
                text = text[: match.start(3)] + wanted + text[match.end(3) :]
        unlike += reversed(differing)
        if write and differing:
            path.write_text(text, encoding="utf-8")
    if hidden := sorted({run.table for run in kept.scores if only in (None, run.table)} - shown):
        raise ValueError(f"no document shows the table {hidden[0]!r}: put <!-- table: {hidden[0]} --> where it belongs")
    return count, unlike


def _difference(there, wanted, line, asked):
    """ "<line>: ..." of the first cell that differs; line: where `there` starts."""
    cells = lambda text: [[c.strip() for c in row.strip().strip("|").split(" | ")] for row in text.split("\n")]
    ours, theirs = cells(wanted), cells(there)
    header = next((row for row in ours if len(row) > 1), [""])
    for number, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            if x != y:
                where = f", row {a[0]!r}, column {header[i]!r}" if len(a) == len(header) > 1 else ""
                return f"{line + number}: {asked}{where}: the document has {y!r}, the scores give {x!r}"
        if len(a) != len(b):
            return f"{line + number}: {asked}: the document has {len(b)} cells in a line, the scores give {len(a)}"
    return f"{line}: {asked}: the document has {len(theirs)} lines, the scores give {len(ours)} (or spaces differ)"


def collect(kept, table, workdirs, *, row=None, command=None) -> kept_scores.Kept:
    """What is kept, and the scores of evaluated workdirs; a run that is there is replaced.

    Args:
      kept: `kept_scores.Kept`. table: of `SPECS`. workdirs: <row>/<seed>, or any with `row`. command: that made the
        runs, where it is not the table's.

    Raises:
      ValueError: no such table or row, video scores that are not the mean over frames.
      FileNotFoundError: a workdir that was not evaluated.
    """
    if table not in SPECS:
        raise ValueError(f"there is no table {table!r} of kept scores, there are {', '.join(SPECS)}")
    spec, scores, records = SPECS[table], dict(kept.scores), dict(kept.records)
    for workdir in map(pathlib.Path, workdirs):
        name = row or _row_of(workdir.resolve(), spec.rows, table)
        if not re.fullmatch(spec.rows, name):
            raise ValueError(f"the table {table!r} has no row {name!r}; rows are {spec.rows}")
        run = kept_scores.Run(table, name, kept_scores.seed_of(workdir))
        record = kept_scores.record_of(run, workdir, command or spec.command(name, run.seed))
        if record["aggregate"] != "mean":
            raise ValueError(f"{workdir}: video scores by {record['aggregate']}; the tables take the mean over frames")
        names = spec.evals(name)
        found = kept_scores.read_workdir(workdir, list(names))
        scores[run] = {names[there]: columns for there, columns in found.items()}
        records[run] = record
    # A folder may be collected again as its runs end: a start counts once.
    found = [*kept.starts.get(table, []), *kept_scores.read_starts(workdirs)]
    lines = [line for number, line in enumerate(found) if line not in found[:number]]
    lines = [dict(line) for line in dict.fromkeys(tuple(line.items()) for line in lines)]
    return kept_scores.Kept(scores, records, kept.starts | ({table: lines} if lines else {}))


def _row_of(workdir, rows, table):
    for count in (1, 2):
        name = "/".join(workdir.parent.parts[-count:])
        if re.fullmatch(rows, name):
            return name
    raise ValueError(f"{workdir} lies in no folder named as a row of {table!r} ({rows}): name it with --row")


def drop(kept, table, rows) -> kept_scores.Kept:
    """What is kept without some rows of a table, all seeds. Raises ValueError where one is not there."""
    there = {run.row for run in kept.scores if run.table == table}
    if unknown := sorted(set(rows) - there):
        raise ValueError(f"of the table {table!r} the rows {sorted(there)} are kept, not {unknown}")
    gone = lambda run: run.table == table and run.row in rows
    scores, records = ({r: v for r, v in part.items() if not gone(r)} for part in (kept.scores, kept.records))
    return kept_scores.Kept(scores, records, kept.starts)


def main(argv=None):
    """One of the four commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="rewrite the tables that differ")
    parser.add_argument(
        "--collect", nargs="+", metavar="TABLE WORKDIR", help=f"a table of {', '.join(SPECS)}; workdirs"
    )
    parser.add_argument("--drop", nargs="+", metavar="TABLE ROW", help="a table, and rows that are not to be kept")
    parser.add_argument(
        "--against", nargs="+", type=paths.expand, metavar="CSV", help="your scores, of --table's items"
    )
    parser.add_argument("--table", choices=SPECS, help="of --against; else the one to check, all where not given")
    parser.add_argument("--row", help="of --collect, where no folder says it; of --against, all rows where not given")
    parser.add_argument("--command", help="of --collect: what made the runs, where it is not the table's command")
    parser.add_argument("--folder", type=paths.expand, default=kept_scores.FOLDER, help="of the kept scores")
    args = parser.parse_args(argv)
    try:
        kept = kept_scores.read(args.folder)
        if args.against:
            if not args.table:
                raise ValueError(f"--against needs --table, one of {', '.join(SPECS)}")
            print(page.markdown(paired.compare_csv(kept, args.table, args.against, args.row)), end="")
        elif args.collect or args.drop:
            name, *rest = args.collect or args.drop
            if not rest:
                raise ValueError(f"{name}: name at least one {'workdir' if args.collect else 'row'} behind the table")
            kept = (
                collect(kept, name, rest, row=args.row, command=args.command)
                if args.collect
                else drop(kept, name, rest)
            )
            size = kept_scores.write(kept, args.folder)
            runs = [f"{run.row} ({run.seed})" for run in sorted(kept.records) if run.table == name]
            print(f"{name}: {', '.join(runs)}; all scores take {size:,} bytes")
        else:
            count, unlike = check(kept, write=args.write, only=args.table)
            print(
                "\n".join([*unlike, f"{count} tables and cells, {len(unlike)} {'written' if args.write else 'differ'}"])
            )
            if unlike and not args.write:
                sys.exit(1)
    except (FileNotFoundError, ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
