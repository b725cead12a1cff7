"""The table on real faces: rows of configs/real.py, seeds, and each manipulation left out once; launch/real.sh runs it.

    python -m benchmarks.real --data_dir=real/ffpp_crops/tfds --dfdc_dir=real/dfdc_faces/tfds [--out=real/runs] \\
        [--weights=real] [--rows=ln_tuning,msddf] [--seeds=3] [--leave_out] [--steps=150 [--tested]]
    python -m benchmarks.real --table [--out=real/runs]        what is there so far

Resumable: a run that has its results.json is not run again, a run that was cut goes on at its checkpoint. Seeds are the
outer loop. Every start is a line of OUT/starts.jsonl, so that what was begun and not finished is seen too; the table
counts them. --steps makes short runs, which are validated, and tested on nothing but what --leave_out leaves out;
--tested scores their test sets too, once the settings are chosen. Rows of PUBLISHED are scored as they are.

Figures are AUC of images in percent, mean over seeds: on the validation and the test split of FF++, each manipulation,
DFDC, and the mean over manipulations of those runs that did not train on it. Intervals, 95 %, are of the difference to
the first row from the seeds that both have: 2,000 times the same images drawn for both, reals among reals, fakes of a
manipulation among themselves. They say what other images would do, and not what other seeds would.
"""

import argparse
import functools
import json
import pathlib
import sys
import time

import jax
import numpy as np

from configs import real
from msddf_jax import evaluate, paths, train
from msddf_jax.data import source
from msddf_jax.data.methods import METHODS
from msddf_jax.evaluators.detection import read_scores
from msddf_jax.show import page
from msddf_jax.statistics import metrics
from msddf_jax.weights import __main__ as weights

RESAMPLES = 2000
COLUMNS = ("FF++ test", *real.METHODS, "left out", "DFDC")
# {row: (title, weights that are scored as they are)}.
PUBLISHED = {"mesonet": ("MesoInception-4 as published (Deepfakes of 2018)", "mesonet/mesoinception_df")}
TITLES = {row: title for row, (title, _) in (*real.ROWS.items(), *PUBLISHED.items())}


def load_config(row, args, seed, left_out=None):
    """The config of a run."""
    words = [row] + [str(args.steps)] * bool(args.steps) + ["tested"] * args.tested
    words += [f"without={left_out}"] * bool(left_out)
    config = real.get_config(",".join(words)).unlock()
    config.data.data_dir, config.seed = args.data_dir, seed
    config.init.backbone = f"{args.weights}/{config.init.backbone.removeprefix('real/')}"
    if "dfdc" in config.evals:
        config.evals.dfdc.data_dir = args.dfdc_dir
    return config.lock()


def folder_of(args, row, seed, left_out=None):
    """Where a run is: OUT/<`run_name`>/<seed>."""
    return pathlib.Path(args.out) / run_name(row, args.steps, left_out) / str(seed)


def run_name(row, steps=0, left_out=None):
    """<row>[-<steps>][-without-<manipulation>]; published rows have neither."""
    if row in PUBLISHED:
        return row
    return row + f"-{steps}" * bool(steps) + f"-without-{left_out}" * bool(left_out)


def run(args, row, seed, left_out=None):
    """One run, where it is not done; its start is noted first."""
    workdir = folder_of(args, row, seed, left_out)
    if (workdir / "results.json").exists():
        return
    workdir.parent.mkdir(parents=True, exist_ok=True)
    with (pathlib.Path(args.out) / "starts.jsonl").open("a", encoding="utf-8") as file:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        file.write(json.dumps({"run": workdir.parent.name, "seed": seed, "at": at}) + "\n")
    start = time.monotonic()
    if row in PUBLISHED:
        _score_published(row, args, workdir)
    else:
        train.train_and_evaluate(load_config(row, args, seed, left_out), workdir)
    print(f"{workdir}: {time.monotonic() - start:.0f} s", flush=True)
    # Each run compiles its own step; kept, they would fill the memory.
    jax.clear_caches()


def _score_published(row, args, workdir):
    """A published detector's scores on the sets that the first row is tested on."""
    if not (workdir / "config.json").exists():
        weights.convert(PUBLISHED[row][1], workdir)
    config = real.get_config("ln_tuning").unlock()
    config.data.data_dir, config.evals.dfdc.data_dir = args.data_dir, args.dfdc_dir
    sets = {name: source.open_configured(config, asked) for name, asked in config.evals.items()}
    evaluate.evaluate_workdir(workdir, sets)


def beats(scores, labels) -> np.ndarray:
    """float32 [fakes, reals]: 1 where the fake's score is the higher, 1/2 where they are equal. Its mean is the AUC."""
    fake, real_scores = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return ((fake > real_scores) + 0.5 * (fake == real_scores)).astype(np.float32)


def read_columns(runs, row, seed, steps=0):
    """{column: [tables of `beats`]} of what a row and seed have; a column's figure is the mean of its tables' means.

    runs: as `make_table`.
    """
    found, sets = {}, runs.get((run_name(row, steps), seed), {})
    if "dfdc" in sets:
        scores = sets["test"]
        found["FF++ test"] = [beats(scores["score"], scores["label"])]
        for method in real.METHODS:
            found[method] = [_beats_method(scores, method)]
        found["DFDC"] = [beats(sets["dfdc"]["score"], sets["dfdc"]["label"])]
    apart = [runs.get((run_name(row, steps, method), seed), {}).get("test") for method in real.METHODS]
    if all(apart):
        found["left out"] = [_beats_method(scores, method) for scores, method in zip(apart, real.METHODS, strict=True)]
    return found


def _beats_method(scores, method):
    kept = (scores["label"] == 0) | (scores["method"] == METHODS.index(method))
    return beats(scores["score"][kept], scores["label"][kept])


def paired_interval(ours, theirs, seed=0) -> tuple[float, float, float]:
    """(mean, low, high) of the difference of AUC: lists of tables alike, [seeds x tables] of [fakes, reals]."""
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    # Tables share their reals; fakes of one manipulation are drawn alike in every seed. Of tables alike the mean is
    # drawn from: drawing is linear.
    sizes = [d.shape[0] for d in differences]
    summed = {size: sum(d for d in differences if d.shape[0] == size) / len(sizes) for size in sorted(set(sizes))}
    reals, fakes = _draws(differences[0].shape[1], tuple(summed), seed)
    drawn = sum(((fakes[size] @ d) * reals).sum(1) for size, d in summed.items())
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(np.mean([d.mean() for d in differences])), float(low), float(high)


@functools.lru_cache(maxsize=2 * len(COLUMNS))
def _draws(num_real, sizes, seed):
    """Shares float32 [RESAMPLES, count] of the reals, and {size: shares} of the fakes: the same ones for every row."""
    rng = np.random.default_rng(seed)
    draw = lambda count: rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float32) / count
    return draw(num_real), {size: draw(size) for size in sizes}


def read_runs(args):
    """{(folder, seed): {eval: scores}} of the runs that have ended, as `make_table` takes them."""
    found = {}
    for results in pathlib.Path(args.out).glob("*/*/results.json"):
        if (seed := int(results.parts[-2])) < args.seeds:
            files = sorted((results.parent / "scores").glob("*.csv"))
            found[results.parts[-3], seed] = {file.stem: _in_order(read_scores(file)) for file in files}
    return found


def _in_order(scores):
    """By name: which images are drawn follows from the order, and a table of kept scores has this one."""
    order = np.lexsort((scores["frame_index"], scores["video_key"]))
    return {name: values[order] for name, values in scores.items()}


def make_table(runs, starts, steps=0) -> page.Table:
    """The table.

    Args:
      runs: {(`run_name`, seed): {eval: scores as `read_scores` gives them}}, evals val, test and dfdc.
      starts: the lines of starts.jsonl. steps: of the rows.
    """
    lines, first = [], {}
    for row, title in TITLES.items():
        name = run_name(row, steps)
        seeds = sorted(seed for folder, seed in runs if folder == name)
        if not seeds:
            continue
        sets = [runs[name, seed]["val"] for seed in seeds]
        cells = [f"{100 * np.mean([metrics.auc(val['score'], val['label']) for val in sets]):.1f}"]
        found = {seed: read_columns(runs, row, seed, steps) for seed in seeds}
        first = first or found
        for column in COLUMNS:
            have = [seed for seed in seeds if column in found[seed]]
            cells.append(_cell(found, first, column, have) if have else "")
        lines.append([title, str(sum(start["run"] == name for start in starts)), str(len(seeds)), *cells])
    return page.Table("real faces", ["", "starts", "seeds", "val", *COLUMNS], lines, "")


def print_table(args):
    """The table as Markdown, from the results there are."""
    starts = [json.loads(line) for line in _lines(pathlib.Path(args.out) / "starts.jsonl")]
    print(page.markdown(make_table(read_runs(args), starts, args.steps)), end="")


def _cell(found, first, column, seeds):
    """A figure and, where it is not the first row's own, its difference from that row."""
    text = f"{100 * np.mean([np.mean([t.mean() for t in found[s][column]]) for s in seeds]):.1f}"
    both = [seed for seed in seeds if column in first.get(seed, {})]
    if found is first or not both:
        return text
    ours, theirs = ([table for seed in both for table in side[seed][column]] for side in (found, first))
    mean, low, high = (100 * value for value in paired_interval(ours, theirs))
    return f"{text} ({mean:+.1f} [{low:+.1f}, {high:+.1f}])"


def _lines(path):
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=paths.expand, default="real/runs", help="folder of the runs")
    parser.add_argument(
        "--data_dir", type=paths.expand, default="real/ffpp_crops/tfds", help="where FF++'s crops are built"
    )
    parser.add_argument(
        "--dfdc_dir", type=paths.expand, default="real/dfdc_faces/tfds", help="where DFDC's faces are built"
    )
    parser.add_argument("--weights", type=paths.expand, default="real", help="folder of the weight files")
    parser.add_argument("--rows", default="ln_tuning,msddf", help=f"of {', '.join(TITLES)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="short runs, which are validated (0: all, and tested)")
    parser.add_argument("--tested", action="store_true", help="short runs are tested too")
    parser.add_argument("--leave_out", action="store_true", help="and each manipulation left out of training once")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    rows = args.rows.split(",")
    if unknown := sorted(set(rows) - set(TITLES)):
        sys.exit(f"--rows names {unknown}, allowed: {', '.join(TITLES)}")
    if not args.table:
        for seed in range(args.seeds):
            for left_out in (None, *(real.METHODS if args.leave_out else ())):
                for row in rows:
                    # Nothing of a published detector is trained: no seed and nothing left out changes it.
                    if row not in PUBLISHED or (seed, left_out) == (0, None):
                        run(args, row, seed, left_out)
    print_table(args)


if __name__ == "__main__":
    main()
