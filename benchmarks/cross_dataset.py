"""The cross-data-set table: detectors trained on one set, tested on every other that is built.

    python -m benchmarks.cross_dataset --data_dir=data/tfds --out=runs/table [--configs=configs/msddf.py,...]
    python -m benchmarks.cross_dataset --out=runs/table --table           what is there so far

launch/reproduce.sh runs it. Resumable: a finished run is not trained again, one that was cut goes on at its checkpoint,
and where test sets were built since, the checkpoint is only scored again. Every checkpoint is the one that its config's
`select` chose on validation.
Writes table.csv (a line a figure, with seed, interval, step, SHA-256 of the config and commit), table.md and table.tex.
"""

import argparse
import csv
import hashlib
import json
import pathlib
import sys

import jax
import numpy as np

from configs import datasets
from msddf_jax import experiments, train
from msddf_jax.show import page

CONFIGS = (
    "configs/msddf.py",
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


def load_config(name, args, seed, test_sets):
    """The config of a file "path.py" or "path.py:argument", with the test sets added to its evals."""
    config = experiments.load(name).unlock()
    config.data.data_dir, config.seed = args.data_dir, seed
    if args.steps:
        config.steps = args.steps
        config.optim.warmup_steps = min(config.optim.warmup_steps, args.steps // 2)
        config.checkpoint_every = config.select.every = args.steps
    for name, settings in datasets.get_test_sets(test_sets).items():
        config.evals[name] = settings
    return config.lock()


def built_sets(names, data_dir):
    """The test sets that are built, and those that are not."""
    there = [n for n in names if any(pathlib.Path(data_dir, datasets.TEST_SETS[n][0]).glob("*/dataset_info.json"))]
    return there, [name for name in names if name not in there]


def run_name(config):
    """Folder of a config's runs: its file name and argument."""
    path, _, argument = config.partition(":")
    return pathlib.Path(path).stem + (f"-{argument}" if argument else "")


def run_all(args, test_sets):
    """Train and test what is missing. A config's own evals are kept: validation is among them."""
    for seed in range(args.seeds):
        for name in args.configs.split(","):
            workdir = pathlib.Path(args.out) / run_name(name) / str(seed)
            results = workdir / "results.json"
            done = json.loads(results.read_text()) if results.exists() else {}
            if all(f"{test}/video_auc" in done for test in test_sets):
                continue
            print(f"== {name}, seed {seed}: {workdir}", flush=True)
            train.train_and_evaluate(load_config(name, args, seed, test_sets), workdir)
            # Each run compiles its own step; kept, they would fill the memory.
            jax.clear_caches()


def figures(out):
    """Every figure of every finished run: list of dicts with the keys of `COLUMNS`."""
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
        for name in (name for name in datasets.TEST_SETS if f"{name}/video_auc" in results):
            for metric in METRICS:
                low, high = results["_intervals"].get(f"{name}/{metric}") or (None, None)
                level = metric.split("_")[0]
                counts = {key: results[f"{name}/{level}_{key}"] for key in ("num_real", "num_fake")}
                value = {"set": name, "metric": metric, "value": results[f"{name}/{metric}"], "low": low, "high": high}
                rows.append({**common, **counts, **value})
    return rows


def make_table(rows, metric="video_auc"):
    """The table as `page.Table`: a row a config, a column a test set; mean (sd) over seeds, or one seed's interval."""
    sets = [name for name in datasets.TEST_SETS if any(row["set"] == name for row in rows)]
    lines = []
    for config in dict.fromkeys(row["config"] for row in rows):
        cells = [config]
        for name in sets:
            own = [r for r in rows if (r["config"], r["set"], r["metric"]) == (config, name, metric)]
            values = [100 * row["value"] for row in own if row["value"] is not None]
            if not values:
                cells.append("-")
            elif len(values) > 1:
                cells.append(f"{np.mean(values):.1f} ({np.std(values, ddof=1):.1f})")
            elif own[0]["low"] is None:
                cells.append(f"{values[0]:.1f}")
            else:
                cells.append(f"{values[0]:.1f} [{100 * own[0]['low']:.1f}, {100 * own[0]['high']:.1f}]")
        lines.append(cells)
    commits = sorted({str(row["commit"]) for row in rows})
    note = (
        f"{metric} in percent; mean (standard deviation) over seeds, for one seed its 95 % interval over videos. "
        f"Commit {', '.join(commits)}; each figure with its config's SHA-256 in table.csv."
    )
    return page.Table("table", ["trained with", *sets], lines, note)


def write_tables(out):
    """Write table.csv, table.md and table.tex from the runs there are, and print the table."""
    out, rows = pathlib.Path(out), figures(out)
    if not rows:
        sys.exit(f"no finished run in {out}")
    table = make_table(rows)
    with open(out / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    (out / "table.tex").write_text(page.latex(table), encoding="utf-8")
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + f"\n\n{table.note}\n"
    (out / "table.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\ntable: {out / 'table.csv'}")


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/table", help="folder of the runs")
    parser.add_argument("--data_dir", default="data/tfds", help="built data sets")
    parser.add_argument("--configs", default=",".join(CONFIGS), help="comma-separated, path.py or path.py:argument")
    sets = ",".join(name for name in datasets.TEST_SETS if not name.startswith("toy"))
    parser.add_argument("--sets", default=sets, help="test sets, of configs/datasets.py")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="train for so many steps, to try the command; not for a result")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
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
    write_tables(args.out)


if __name__ == "__main__":
    main()
