"""Leave one generator out: every detector trained on all manipulations of a set but one, tested on that one.

    python -m benchmarks.leave_one_out --data_dir=data/tfds --out=runs/logo [--set=faceforensics/c23] [--seeds=3]
    python -m benchmarks.leave_one_out --out=runs/logo --table            what is there so far

`launch/reproduce.sh DATA_DIR OUT --protocol=logo` runs it. A row a detector, a column for each manipulation left
out, their mean and the worst: video AUC in percent, of its fakes and the test reals; then TPR at 1 % FPR of the worst.
The checkpoint is chosen on validation without what is left out. A frozen linear probe is one of the rows. Resumable.
"""

import argparse
import json
import pathlib
import sys

import jax
import numpy as np

from benchmarks.cross_dataset import run_name, shorten
from configs.common import eval_set
from msddf_jax import config_sets, experiments, paths, train
from msddf_jax.data import source
from msddf_jax.show import page
from msddf_jax.statistics import tables

CONFIGS = (
    "configs/msddf.py",
    "configs/detectors/linear_probe.py",
    "configs/detectors/gend.py",
    "configs/detectors/clip.py",
    "configs/detectors/efficientnetb4.py",
    "configs/detectors/xception.py",
)
SET = "faceforensics/c23"
# The eval of what was left out, in a run's results.
LEFT = "left_out"


def load_config(spec, args, left, methods, seed):
    """The config of one run: trained and chosen on `methods` but `left`, tested on `left`.

    Raises ValueError for a config that trains on reals alone: nothing can be left out of it.
    """
    config = experiments.load(spec).unlock()
    config.data.data_dir, config.seed = args.data_dir, seed
    config = config_sets.fill_own(config.lock(), args.set).unlock()
    if not config.data.group.fake:
        raise ValueError(f"{spec} trains on reals alone, from which no manipulation can be left out")
    others = tuple(name for name in methods if name != left)
    config.data.train.methods = others
    chosen = config.select.eval
    config.evals = {
        chosen: eval_set(args.set, "validation", others),
        "seen": eval_set(args.set, "test", others),
        LEFT: eval_set(args.set, "test", (left,)),
    }
    if args.steps:
        shorten(config, args.steps)
    return config.lock()


def run_all(args):
    """Train and test what is missing, seeds outermost."""
    opened = source.open_source(args.set, "train", args.data_dir)
    methods = sorted(set(opened.videos["method"].tolist()) - {"real"})
    if len(methods) < 2:
        raise ValueError(f"{args.set} has the manipulations {methods}: with one left out, none is left to train on")
    for seed in range(args.seeds):
        for spec in args.configs.split(","):
            for left in methods:
                workdir = pathlib.Path(args.out) / run_name(spec) / left / str(seed)
                results = workdir / "results.json"
                if results.exists() and f"{LEFT}/video_auc" in json.loads(results.read_text()):
                    continue
                print(f"== {spec} without {left}, seed {seed}: {workdir}", flush=True)
                train.train_and_evaluate(load_config(spec, args, left, methods, seed), workdir)
                # Each run compiles its own step; kept, they would fill the memory.
                jax.clear_caches()


def read_runs(out):
    """{(config, left out): {seed: results}} of the finished runs."""
    found = {}
    for path in sorted(pathlib.Path(out).glob("*/*/*/results.json")):
        results = json.loads(path.read_text())
        if f"{LEFT}/video_auc" in results:
            found.setdefault((path.parts[-4], path.parts[-3]), {})[path.parts[-2]] = results
    return found


def make_table(runs):
    """The table as `page.Table`. runs: of `read_runs`. Mean (sd) over seeds; of one seed its 95 % interval."""
    lefts = sorted({left for _, left in runs})
    lines = []
    for config in dict.fromkeys(config for config, _ in runs):
        means = [_mean(runs.get((config, left), {}), "video_auc") for left in lefts]
        there = [(value, left) for value, left in zip(means, lefts, strict=True) if value is not None]
        worst = min(there)[1] if there else None
        cells = [_cell(runs.get((config, left), {}), "video_auc") for left in lefts]
        last = _cell(runs.get((config, worst), {}), "video_tpr_fpr1")
        lines.append([config, *cells, tables.percent(tables.average(means)), f"{worst}", last])
    commits = sorted({str(r["_about"]["versions"].get("commit")) for by in runs.values() for r in by.values()})
    note = (
        "Video AUC in percent of a manipulation that training and validation had not; mean (standard deviation) over "
        f"seeds, for one seed its 95 % interval over videos. {tables.AVERAGE_NOTE} Last: the worst of them, and there "
        f"TPR at 1 % FPR. Commit {', '.join(commits)}."
    )
    header = ["trained with", *(f"without {left}" for left in lefts), "Avg", "worst", "its TPR at 1 % FPR"]
    return page.Table("leave one out", header, lines, note)


def _mean(by_seed, metric):
    values = [r[f"{LEFT}/{metric}"] for r in by_seed.values() if r.get(f"{LEFT}/{metric}") is not None]
    return float(np.mean(values)) if values else None


def _cell(by_seed, metric):
    key = f"{LEFT}/{metric}"
    there = [results for results in by_seed.values() if results.get(key) is not None]
    if len(there) > 1:
        values = [100 * results[key] for results in there]
        return f"{np.mean(values):.1f} ({np.std(values, ddof=1):.1f})"
    return tables.percent(there[0][key], there[0]["_intervals"].get(key)) if there else "-"


def main(argv=None):
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=paths.expand, default="runs/logo", help="folder of the runs")
    parser.add_argument("--data_dir", type=paths.expand, default="data/tfds", help="built data sets")
    parser.add_argument("--set", default=SET, help="the built set whose manipulations are left out in turn")
    parser.add_argument("--configs", default=",".join(CONFIGS), help="comma-separated, path.py or path.py:argument")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="train for so many steps, to try the command; not for a result")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args(argv)
    try:
        if not args.table:
            run_all(args)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    runs = read_runs(args.out)
    if not runs:
        sys.exit(f"no finished run in {args.out}")
    table = make_table(runs)
    text = page.markdown(table)
    (pathlib.Path(args.out) / "table.md").write_text(text, encoding="utf-8")
    (pathlib.Path(args.out) / "table.tex").write_text(page.latex(table), encoding="utf-8")
    print(f"\n{text}\ntable: {pathlib.Path(args.out) / 'table'}.md, .tex")


if __name__ == "__main__":
    main()
