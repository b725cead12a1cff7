"""Where do likelihood ratios hold: fitted on some people and manipulations, tested on other people and another one.

    python -m benchmarks.calibration --workdir demo/workdir --data_dir demo/tfds --out calibration [--people=60]

The detector is the demo's, trained on two of the four manipulations. It is calibrated with `msddf_jax.calibrate` on
people whom training has not, on these two manipulations and a third, and tested on other people: on the manipulations
of training, on the third, which the calibration has seen, and on the fourth, which nothing has. That is done with the
12 validation people of the embedded set, and with `--people` more, whom this command draws as the set's were
(`<out>/people`), as many for calibration as for the test. Beside them stand the calibration that `evaluate` fits by
itself, on the validation people and the manipulations of training alone, and one on the third manipulation alone.

"trained on" tests on the two manipulations of training, "known" on these and the third, "unseen" on the fourth. Prints
Cllr, Cllr_min and Cllr - Cllr_min of videos in bits with 95 % intervals; then percent: wrong labels among all videos
and among the surer 80 %; videos that get no answer by the calibration's own zone, and wrong labels among the others.
Reals and fakes weigh the same in shares of wrong labels. Writes `<out>/table.md`. The workdir is not changed: its
calibrations lie in copies below `<out>`.
"""

import argparse
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np

from benchmarks.timing import report
from data_prep.toy import generate
from data_prep.toy import identity as idt
from msddf_jax import calibrate, checkpoint, evaluate, inference, paths, sharding
from msddf_jax.data import methods, source
from msddf_jax.evaluators import detection
from msddf_jax.statistics import intervals, metrics, scores, verdict

SEEN, CALIBRATED, UNSEEN = ("toy_neural", "toy_texture"), "toy_reenact", "toy_swap"
TESTS = {
    "trained on": SEEN,
    "known": (*SEEN, CALIBRATED),
    "unseen": (UNSEEN,),
    "all four": (*SEEN, CALIBRATED, UNSEEN),
}
# The embedded set's people are 0 to 119 of seed 0; these are others, drawn the same way.
FIRST, SEED, FRAMES, SIZE = 120, 0, 8, 128
HEADER = ("calibration", "test", "real + fake", "Cllr", "Cllr_min", "Cllr - Cllr_min", "wrong", "of the surer 80 %",
          "no answer", "wrong outside")  # fmt: skip


def draw_people(root, count):
    """Draws the videos of `count` people for calibration, and of as many for the test, in the embedded set's layout."""
    lists = {"train": [], "val": _pairs(FIRST, count), "test": _pairs(FIRST + count, count)}
    for pair in (*lists["val"], *lists["test"]):
        for files in generate.pair_files(root, *pair).values():
            for path in files:
                path.parent.mkdir(parents=True, exist_ok=True)
        generate.write_pair(root, SEED, *pair, FRAMES, SIZE)
    for name, pairs in lists.items():
        (root / f"{name}.json").write_text(json.dumps(pairs))


def _pairs(first, count):
    """People of like skin together, as `generate.split_pairs` does it."""
    members = sorted(range(first, first + count), key=lambda i: sum(idt.sample_identity(SEED, i).skin))
    return [(f"{a:03d}", f"{b:03d}") for a, b in zip(members[::2], members[1::2], strict=True)]


def build_people(root, data_dir):
    """Prepares and builds what `draw_people` drew, with the commands of launch/demo.sh."""
    names = "ToySwap,ToyReenact,ToyNeural,ToyTexture"
    prepare = ["data_prep.prepare", "--layout=faceforensics", f"--root={root}", f"--methods={names}"]
    prepare += ["--landmarks=sidecar", f"--num_frames={FRAMES}", "--size=96"]
    build = ["data_prep.build", "faceforensics", "--config=toy", f"--manual_dir={root}", f"--data_dir={data_dir}"]
    for words in (prepare, build):
        subprocess.run([sys.executable, "-m", *words], check=True)


def score_tests(model, folders, out):
    """{name of the test people: scores as `detection.collect_scores` gives them}, kept in `<out>/scores`."""
    found = {}
    for name, (split, data_dir) in folders.items():
        path = out / "scores" / f"{name}.csv"
        if not path.exists():
            opened = source.open_source("faceforensics/toy", split, data_dir)
            mesh = sharding.make_mesh(model.config.mesh.to_dict())
            with jax.set_mesh(mesh):
                weights = sharding.put_whole(model.params, mesh)
                made = evaluate.score_set(model.config, model.predict_fn, weights, name, opened, mesh)
            detection.write_scores(path, made)
        found[name] = detection.read_scores(path)
    return found


def fit_all(workdir, data_dir, people, out):
    """{name: calibration}: each by `msddf_jax.calibrate` in a copy of the workdir."""
    third = {"set_text": "faceforensics/toy:validation", "methods": [*SEEN, CALIBRATED]}
    drawn = str(out / "tfds")
    kinds = {
        "12 people, as trained": {"eval_name": "val", "data_dir": data_dir},
        "12 people, with a third": {**third, "data_dir": data_dir},
        f"{people} people, with a third": {**third, "data_dir": drawn},
        f"{people} people, the third alone": {**third, "methods": [CALIBRATED], "data_dir": drawn},
    }
    fitted = {}
    for name, settings in kinds.items():
        copy = out / "workdirs" / name.replace(",", "").replace(" ", "_")
        if not (copy / verdict.FILE).exists():
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir(parents=True)
            shutil.copytree(workdir / checkpoint.BEST, copy / checkpoint.BEST)
            shutil.copy(workdir / "config.json", copy)
            print(f"== {name}")
            calibrate.calibrate_workdir(copy, **settings)
        fitted[name] = verdict.load_calibration(copy)
    return fitted


def row(rows, names, fitted):
    """Cells of one test set: the reals, and the fakes of some methods."""
    wanted = [methods.METHODS.index(name) for name in ("real", *names)]
    keep = np.isin(rows["method"], wanted)
    score, label, keys = (rows[name][keep] for name in ("score", "label", "video_key"))
    found = metrics.detection_metrics(score, label, keys, calibration=fitted)
    ends = intervals.bootstrap_intervals(score, label, keys, calibration=fitted)
    bits = []
    for name in ("cllr_calibrated", "cllr_min", "cllr_loss"):
        low, high = ends[f"video_{name}"]
        around = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        bits.append(f"{found[f'video_{name}']:.2f}{around}")
    values, labels, _ = scores.group_videos(score, label, keys)
    log10 = (fitted["slope"] * verdict.logit(values) + fitted["offset"]) / np.log(10.0)
    order = np.argsort(np.abs(log10), kind="stable")
    surer = np.isin(np.arange(len(order)), order[len(order) // 5 :])
    outside = np.abs(log10) >= fitted["lr"]["abstain_below"]
    every = np.ones(len(order), bool)
    shares = [f"{100 * _balanced_error(log10, labels, part):.1f}" for part in (every, surer, outside)]
    counts = f"{int(np.sum(labels == 0))} + {int(np.sum(labels == 1))}"
    return [counts, *bits, *shares[:2], f"{100 * np.mean(~outside):.0f}", shares[2]]


def _balanced_error(log10, labels, keep):
    """Share of wrong labels among some videos, reals and fakes weighing the same; NaN where a class is absent."""
    wrong = (log10 > 0.0) != (labels == 1)
    rates = [wrong[keep & (labels == value)] for value in (0, 1)]
    return float(np.mean([rate.mean() for rate in rates])) if all(rate.size for rate in rates) else np.nan


def main():
    """Draw, calibrate, test and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=paths.expand, required=True, help="of the demo's training")
    parser.add_argument("--data_dir", type=paths.expand, required=True, help="where the embedded set is built")
    parser.add_argument("--out", type=paths.expand, default="calibration", help="folder for what is made")
    parser.add_argument("--people", type=int, default=60, help="drawn for calibration, and as many for the test; even")
    args = parser.parse_args()
    out, people = pathlib.Path(args.out), pathlib.Path(args.out) / "people"
    if not (out / "tfds" / "faceforensics").exists():
        draw_people(people, args.people)
        build_people(people, out / "tfds")
    model = inference.load_for_inference(args.workdir)
    places = {"24 of the set": ("test", args.data_dir), f"{args.people} drawn": ("test", str(out / "tfds"))}
    tested = score_tests(model, places, out)
    table = [
        [calibrated, f"{kind}, {whose}", *row(rows, names, fitted)]
        for calibrated, fitted in fit_all(pathlib.Path(args.workdir), args.data_dir, args.people, out).items()
        for kind, names in TESTS.items()
        for whose, rows in tested.items()
    ]
    report("likelihood ratios of videos, bits", HEADER, table)
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEADER, ["---"] * len(HEADER), *table)]
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
