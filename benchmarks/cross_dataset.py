"""The cross-data-set table: detectors trained on one set, tested on every other that is built.

    python -m benchmarks.cross_dataset --data_dir=data/tfds --out=runs/table [--configs=configs/msddf.py,...]
    python -m benchmarks.cross_dataset --out=runs/table --table           what is there so far
    python -m benchmarks.cross_dataset --out=runs/table --table --against=published

launch/reproduce.sh runs it. Resumable: a finished run is not trained again, one that was cut goes on at its checkpoint,
and where test sets were built since, the checkpoint is only scored again. Every checkpoint is the one that its config's
`select` chose on validation.
Writes table.csv (a line a figure, with seed, interval, step, SHA-256 of the config and commit), table.md and table.tex.

Avg and Top3 (`statistics.tables`) stand twice, as in DeepfakeBench's tables: of the sets of `datasets.WITHIN`, and of
the others. --against=published writes table_published.md and .tex, where the figures of benchmarks/paper_figures.py
stand below ours: frame AUCs, so of ours those too. They are not ranked with ours; columns say what each row's figures
are.
"""

import argparse
import csv
import hashlib
import json
import pathlib
import sys

import jax
import numpy as np

from benchmarks import paper_figures
from configs import datasets
from msddf_jax import experiments, paths, train
from msddf_jax.show import page
from msddf_jax.statistics import tables

CONFIGS = (
    "configs/msddf.py",
    "configs/detectors/linear_probe.py",
    "configs/detectors/gend.py",
    "configs/detectors/effort.py",
    "configs/detectors/sbi.py",
    "configs/detectors/clip.py",
    "configs/detectors/efficientnetb4.py",
    "configs/detectors/xception.py",
)
METRICS = ("video_auc", "frame_auc", "video_eer", "video_ap")
_COLUMNS = ("config", "seed", "set", "metric", "value", "low", "high", "num_real", "num_fake", "step", "config_sha256")
COLUMNS = (*_COLUMNS, "commit")
# How the checkpoint of a row of ours was chosen, beside `paper_figures.PROTOCOL`.
OURS = "checkpoint chosen on validation"


def load_config(name, args, seed, test_sets):
    """The config of a file "path.py" or "path.py:argument", with the test sets added to its evals."""
    config = experiments.load(name).unlock()
    config.data.data_dir, config.seed = args.data_dir, seed
    if args.steps:
        shorten(config, args.steps)
    for name, settings in datasets.get_test_sets(test_sets).items():
        config.evals[name] = settings
    return config.lock()


def shorten(config, steps):
    """Train for so many steps alone, to try a command; the config is unlocked."""
    config.steps = steps
    config.optim.warmup_steps = min(config.optim.warmup_steps, steps // 2)
    config.checkpoint_every = steps
    if config.select is not None:
        config.select.every = steps


def built_sets(names, data_dir):
    """The test sets that are built, and those that are not."""
    there = [n for n in names if any(pathlib.Path(data_dir, datasets.TEST_SETS[n][0]).glob("*/dataset_info.json"))]
    return there, [name for name in names if name not in there]


def run_name(config):
    """Folder of a config's runs: its file name and argument."""
    path, _, argument = config.partition(":")
    return pathlib.Path(path).stem + (f"-{argument}" if argument else "")


def run_all(args, test_sets, load=load_config):
    """Train and test what is missing. A config's own evals are kept: validation is among them.

    load: (config's name, args, seed, test_sets) -> config.
    """
    for seed in range(args.seeds):
        for name in args.configs.split(","):
            workdir = pathlib.Path(args.out) / run_name(name) / str(seed)
            results = workdir / "results.json"
            done = json.loads(results.read_text()) if results.exists() else {}
            if all(f"{test}/video_auc" in done for test in test_sets):
                continue
            print(f"== {name}, seed {seed}: {workdir}", flush=True)
            train.train_and_evaluate(load(name, args, seed, test_sets), workdir)
            # Each run compiles its own step; kept, they would fill the memory.
            jax.clear_caches()


def figures(out, sets=tuple(datasets.TEST_SETS)):
    """Every figure on `sets` of every finished run: list of dicts with the keys of `COLUMNS`."""
    rows = []
    for path in sorted(pathlib.Path(out).glob("*/*/results.json")):
        results = json.loads(path.read_text())
        about = results["_about"]
        common = {
            "config": path.parts[-3],
            "seed": path.parts[-2],
            "step": about["step"],
            "config_sha256": hashlib.sha256((path.parent / "config.json").read_bytes()).hexdigest(),
            "commit": about["versions"].get("commit"),
        }
        for name in (name for name in sets if f"{name}/video_auc" in results):
            for metric in METRICS:
                low, high = results["_intervals"].get(f"{name}/{metric}") or (None, None)
                level = metric.split("_")[0]
                counts = {key: results[f"{name}/{level}_{key}"] for key in ("num_real", "num_fake")}
                value = {"set": name, "metric": metric, "value": results[f"{name}/{metric}"], "low": low, "high": high}
                rows.append({**common, **counts, **value})
    return rows


def make_table(rows, metric="video_auc", against=(), sets=tuple(datasets.TEST_SETS), within=datasets.WITHIN):
    """The table as `page.Table`: a row a config, a column a test set; mean (sd) over seeds, or one seed's interval.

    Args:
      rows: of `figures`. metric: of `METRICS`. against: `paper_figures.Figure`s, rows below the others.
      sets: the columns, in their order. within: those of them that are of what was trained on.

    Raises:
      ValueError: published figures beside another metric, or none of a set that is in the table.
    """
    there = [name for name in sets if any(row["set"] == name for row in rows)]
    parts = {"within": [name for name in there if name in within]}
    parts["cross"] = [name for name in there if name not in within]
    parts = {part: names for part, names in parts.items() if names}
    configs = list(dict.fromkeys(row["config"] for row in rows))
    own = {(config, name): [] for config in configs for name in there}
    for row in rows:
        if row["metric"] == metric:
            own[row["config"], row["set"]].append(row)
    means = {place: _mean([row["value"] for row in found]) for place, found in own.items()}
    header, columns = ["trained with"], [configs]
    if against:
        header = [*header, "level", "protocol"]
        columns += [[metric.split("_")[0]] * len(configs), [OURS] * len(configs)]
    for part, names in parts.items():
        figures_of = [[means[config, name] for name in names] for config in configs]
        header += [*names, f"Avg {part}", f"Top3 {part}"]
        columns += [[_cell(own[config, name]) for config in configs] for name in names]
        columns.append([tables.percent(tables.average(values)) for values in figures_of])
        columns.append(list(map(str, tables.count_top(figures_of, lower=metric.endswith("eer")))))
    lines = [list(cells) for cells in zip(*columns, strict=True)]
    commits = sorted({str(row["commit"]) for row in rows})
    note = (
        f"{metric} in percent; mean (standard deviation) over seeds, for one seed its 95 % interval over videos. "
        f"{tables.AVERAGE_NOTE} {tables.TOP_NOTE} Within: {', '.join(within) or 'none'}; cross: all others. "
        f"Commit {', '.join(commits)}; each figure with its config's SHA-256 in the .csv beside this."
    )
    if against:
        lines += _published_lines(against, metric, parts)
        note += f" {paper_figures.NOTE}"
    return page.Table("table", header, lines, note)


def _mean(values):
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None


def _cell(own):
    """A cell from the figures of a config and set, a dict a seed."""
    there = [row for row in own if row["value"] is not None]
    if len(there) > 1:
        values = [100 * row["value"] for row in there]
        return f"{np.mean(values):.1f} ({np.std(values, ddof=1):.1f})"
    for row in there:
        return tables.percent(row["value"], None if row["low"] is None else (row["low"], row["high"]))
    return "-"


def _published_lines(against, metric, parts):
    """Rows of published figures: two decimals, as they were published, and in no ranking."""
    if metric != paper_figures.METRIC:
        raise ValueError(
            f"the published figures are {paper_figures.METRIC}, the table is of {metric}: levels do not compare. Leave "
            f"--metric out, or give --metric={paper_figures.METRIC}"
        )
    there = {name for names in parts.values() for name in names}
    if not there & {figure.ours for figure in against}:
        known = sorted({figure.ours for figure in against if figure.ours})
        raise ValueError(f"none of {sorted(there)} has published figures; there are some of {known}")
    lines = []
    for detector, level, protocol in dict.fromkeys((f.detector, f.level, f.protocol) for f in against):
        values = {figure.ours: figure.value for figure in against if figure.detector == detector}
        cells = [f"{detector} (published)", level, protocol]
        for names in parts.values():
            found = [values.get(name) for name in names]
            cells += ["-" if value is None else f"{100 * value:.2f}" for value in (*found, tables.average(found))]
            cells.append("-")
        lines.append(cells)
    return lines


def write_tables(
    out, metric="video_auc", against=(), *, name="table", sets=tuple(datasets.TEST_SETS), within=datasets.WITHIN
):
    """Write table.csv, and table.md and table.tex of the metric, from the runs there are, and print the table.

    Tables of another metric than video_auc, and those with published figures, have names of their own. name: of the
    files, in place of table. sets, within: of `make_table`.
    """
    out, rows = pathlib.Path(out), figures(out, sets)
    if not rows:
        sys.exit(f"no finished run in {out}")
    table = make_table(rows, metric, against, sets, within)
    with open(out / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    stem = f"{name}_published" if against else name if metric == "video_auc" else f"{name}_{metric}"
    (out / f"{stem}.tex").write_text(page.latex(table), encoding="utf-8")
    text = page.markdown(table)
    (out / f"{stem}.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\ntable: {out / stem}.md, .tex; every figure: {out / name}.csv")


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=paths.expand, default="runs/table", help="folder of the runs")
    parser.add_argument("--data_dir", type=paths.expand, default="data/tfds", help="built data sets")
    parser.add_argument("--configs", default=",".join(CONFIGS), help="comma-separated, path.py or path.py:argument")
    sets = ",".join(name for name in datasets.TEST_SETS if not name.startswith("toy"))
    parser.add_argument("--sets", default=sets, help="test sets, of configs/datasets.py")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="train for so many steps, to try the command; not for a result")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    parser.add_argument("--metric", choices=METRICS, help="of table.md (default: video_auc; against others theirs)")
    parser.add_argument("--against", choices=("published",), help="add the published figures of other detectors")
    args = parser.parse_args()
    against = paper_figures.figures() if args.against else ()
    metric = args.metric or (paper_figures.METRIC if against else METRICS[0])
    if against and metric != paper_figures.METRIC:
        parser.error(
            f"--against=published: those figures are {paper_figures.METRIC}, --metric={metric} is of another level; "
            f"leave --metric out or give --metric={paper_figures.METRIC}"
        )
    try:
        datasets.get_test_sets(args.sets.split(","))
        if not args.table:
            there, absent = built_sets(args.sets.split(","), args.data_dir)
            print(
                f"test sets: {', '.join(there) or 'none'}; not built in {args.data_dir}: {', '.join(absent) or 'none'}"
            )
            if not there:
                sys.exit(f"no test set is built in {args.data_dir}: python -m data_prep.build --help")
            run_all(args, there)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    try:
        write_tables(args.out, metric, against)
    except ValueError as error:
        sys.exit(f"ValueError: {error}")


if __name__ == "__main__":
    main()
