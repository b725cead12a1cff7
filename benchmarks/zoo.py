"""A row a detector: video AUC on manipulations seen and unseen, parameters, GFLOP an image, speed, memory.

    python -m benchmarks.zoo --data_dir=demo/tfds [--out=zoo] [--rows=meso4,xception] [--seeds=3] [--full_batch=8]
    python -m benchmarks.zoo --table [--out=zoo]        what is there so far

Rows are configs/msddf.py and every experiment of configs/detectors. Each is trained as its ":demo", from random weights
on drawn faces (launch/demo.sh builds them): the AUC says that a detector trains, and nothing of how good it is on real
faces with the weights that it was published with. Columns:

- fakes: manipulations of the data set that it was trained on; "none" for those that learn from reals and forgeries.
- seen, unseen: video AUC in percent, of the reals and the fakes of the two manipulations of `SEEN`, or of `UNSEEN`, in
  one pool, where each video counts once. Mean (standard deviation) over seeds; of one seed its 95 % interval, by
  bootstrap over videos. Reals are the same for all, and so is the number of fakes: a pool's AUC is the mean of the two.
- parameters: of the detector, at full size; those of them that are trained; and of the demo. No other player's.
- GFLOP: of scoring one image at full size, and of one more in the same batch, which is less where a part is done once a
  batch (a text tower). By XLA's analysis of the program lowered for this device, before it is compiled; multiply-adds
  count two. A loop counts as one turn, and "+" marks a program that has one. Of a clip it is a frame's share.
- train, score: images a second of the whole step (rows that the detector sees, synthesis included) and of scoring, on
  noise that is there already, at the demo's size and batches; with --full_batch also at full size. Medians of --runs
  after a warm-up, each waited for. What else the machine does is in them.
- memory: MiB of arguments, results and temporaries, less what shares its place, as XLA planned the same two programs.
  That is no process's peak: neither the data pipeline nor what a library allocates for itself is in it.

Resumable: OUT/<row>/facts.json has a part for size, speed and each seed; one that is there is not made again, and a run
that was cut goes on at its checkpoint. A part of another config than today's is an error; of another commit it is kept,
and the table names every commit. Seeds are the outer loop. What fails (a vocabulary that is not there, a loss that is
not finite) does not stop the others; it is told at the end, with exit code 1.
"""

import argparse
import functools
import hashlib
import json
import pathlib
import sys
import time

import jax
import numpy as np

from benchmarks.cross_dataset import shorten
from benchmarks.timing import about, turns
from benchmarks.train_step import make_batch, make_context
from configs.common import eval_set
from msddf_jax import checkpoint, cpu, detector, experiments, inference, optim, paths, steps, train, trees
from msddf_jax.data import schema
from msddf_jax.evaluators import detection
from msddf_jax.show import page
from msddf_jax.statistics import intervals, metrics, tables
from msddf_jax.statistics.scores import group_videos
from msddf_jax.train_step import ema_weights, init_players, init_state, make_cast, make_train_step

SEEN, UNSEEN = ("toy_neural", "toy_texture"), ("toy_swap", "toy_reenact")
# Of a row, beside "seed 0", ...; the last where --full_batch asks for it.
PARTS = ("size", "demo_size", "speed", "full_speed")


def row_specs() -> dict[str, str]:
    """{row: "configs/...py"}, sorted by row."""
    specs = [name for name in experiments.names() if name.startswith("configs/detectors/")]
    return {pathlib.Path(name).stem: name for name in sorted([*specs, "configs/msddf.py"], key=_stem)}


def _stem(path):
    return pathlib.Path(path).stem


def load_demo(spec, num_steps=None):
    """The demo of an experiment, unlocked, tested on each manipulation of `SEEN` and `UNSEEN`.

    Raises ValueError for one that trains on what the table calls unseen.
    """
    config = experiments.load(f"{spec}:demo").unlock()
    methods = config.data.train.methods
    if config.data.group.fake and (methods is None or set(methods) & set(UNSEEN)):
        raise ValueError(
            f"{spec}:demo trains on {methods or 'every manipulation'}; {', '.join(UNSEEN)} are for testing"
        )
    if num_steps:
        shorten(config, num_steps)
    for name in (*SEEN, *UNSEEN):
        config.evals[name] = eval_set("faceforensics/toy", "test", (name,))
    return config


def measure_size(config) -> dict:
    """Parameters of an experiment's detector, and FLOPs of scoring: of an image alone, and of one more in a batch."""
    weights = detector.weight_shapes(config)
    names = optim.trainable_names({"detector": weights["params"]}, make_cast(config).groups)
    trained, _ = trees.split({"detector": weights["params"]}, names)
    score = jax.jit(detector.make_score(config))
    lowered = [score.lower(weights, _shape_of_images(config, count)) for count in (1, 2)]
    alone, both = (1e-9 / _frames(config) * program.cost_analysis()["flops"] for program in lowered)
    return {
        "parameters": trees.count_parameters(weights["params"]),
        "trained": sum(int(np.prod(leaf.shape)) for leaf in trained.values()),
        "gflop": alone,
        "gflop_further": both - alone,
        "loop": "stablehlo.while" in lowered[0].as_text(),
        "image": list(detector.example(config)["image"]),
    }


def _shape_of_images(config, batch_size):
    shape = detector.example(config)["image"]
    return {"image": jax.ShapeDtypeStruct((batch_size, *shape), np.uint8)}


def _frames(config):
    """Images of a row: those of a clip, or one."""
    shape = detector.example(config)["image"]
    return shape[0] if len(shape) == 4 else 1


def measure_speed(config, runs, warmup=1) -> dict:
    """Images a second, seconds and planned memory of the train step and of scoring.

    Args:
      config: the experiment, with its batch sizes; weights are drawn. runs, warmup: of each.

    Returns:
      {"train", "score": {"images", "seconds": one a run, "images_per_second": by their median, "bytes"}}.
    """
    state = jax.jit(lambda: init_state(config))()
    fixed = jax.jit(lambda: init_players(config, frozen=True))()
    rng, score_batch = np.random.default_rng(0), config.data.eval_batch_size
    images = {"image": rng.integers(0, 256, _shape_of_images(config, score_batch)["image"].shape, np.uint8)}
    weights, images = ema_weights(state), jax.device_put(images)
    score = inference.make_score_fn(config).lower(weights, images).compile()
    made = {"score": _timed(score, lambda: score(weights, images), score_batch * _frames(config), runs, warmup)}

    batches = jax.device_put(tuple(make_batch(config) for _ in range(steps.STEPS[config.step.name].batches)))
    count = _rows_of_step(config, state, batches[0], fixed) * _frames(config)
    options = cpu.training_options(config)
    step = jax.jit(make_train_step(config), donate_argnums=0, compiler_options=options)
    step = step.lower(state, batches, fixed).compile()
    held = [state]

    def run_step():
        # The state is given away, as in training.
        held[0], scalars = step(held[0], batches, fixed)
        return held[0], scalars

    return {"train": _timed(step, run_step, count, runs, warmup), **made}


def _timed(program, run, images, runs, warmup):
    seconds = turns({"run": run}, runs=runs, warmup=warmup)["run"]
    plan = program.memory_analysis()
    size = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes - plan.alias_size_in_bytes
    rate = images / float(np.median(seconds))
    return {"images": images, "seconds": seconds.tolist(), "images_per_second": rate, "bytes": size}


def _rows_of_step(config, state, batch, fixed):
    """How many rows the detector sees of a batch."""
    cast = make_cast(config)

    def rows(state, batch, fixed):
        context = make_context(config, cast, state, fixed)
        return cast.hooks.make_rows(context.key("synth"), detector.to_device_images(batch), context)["image"]

    return jax.eval_shape(rows, state, batch, fixed).shape[0]


def full_size(spec, batch_size):
    """The experiment at full size with drawn weights and about so many host rows: whole groups, at least one."""
    config = experiments.load(spec).unlock()
    rows = schema.make_group(config.data.group).rows
    config.data.batch_size, config.data.eval_batch_size = max(batch_size // rows, 1) * rows, batch_size
    return config


def pool(scores, aggregate="mean") -> tuple[np.ndarray, np.ndarray]:
    """(scores, labels) [V] of the videos of several sets that share their reals, each once.

    Args:
      scores: of `detection.read_scores`, of each set. aggregate: of the frames of a video.
    """
    found = {}
    for columns in scores:
        videos = group_videos(columns["score"], columns["label"], columns["video_key"], aggregate)
        found |= {key: (score, label) for score, label, key in zip(*videos, strict=True)}
    values, labels = zip(*found.values(), strict=True)
    return np.array(values), np.array(labels)


def read_run(workdir) -> dict:
    """What a finished run shows: {"seen", "unseen": {"auc", "low", "high", "num_real", "num_fake"}, ...}."""
    workdir = pathlib.Path(workdir)
    results = json.loads((workdir / "results.json").read_text())
    made = {}
    for part, names in {"seen": SEEN, "unseen": UNSEEN}.items():
        columns = [detection.read_scores(workdir / "scores" / f"{name}.csv") for name in names]
        scores, labels = pool(columns, results["_about"]["aggregate"])
        # JSON has no NaN, which stands where all draws agree.
        low, high = (None if np.isnan(end) else end for end in intervals.auc_interval(scores, labels))
        counts = {"num_real": int(np.sum(labels == 0)), "num_fake": int(np.sum(labels == 1))}
        made[part] = {"auc": metrics.auc(scores, labels), "low": low, "high": high, **counts}
    each = {name: results[f"{name}/video_auc"] for name in (*SEEN, *UNSEEN)}
    told = results["_about"]
    return {**made, "video_auc": each, "step": told["step"], "about": told["versions"]}


def digest(config) -> str:
    """SHA-256 of a config, without where its data lie."""
    config = config.copy_and_resolve_references().unlock()
    config.data.data_dir = ""
    return hashlib.sha256(config.to_json_best_effort(sort_keys=True).encode()).hexdigest()


def fill(path, part, config, make) -> None:
    """Write a part of a row's facts, where it is not there.

    Args:
      path: of facts.json. part: its key. config: of which it is. make: () -> dict; device, versions and commit,
        "about", are of this process where it says no others.

    Raises:
      ValueError: the part is there, of another config. What `make` raises.
    """
    facts = json.loads(path.read_text()) if path.exists() else {}
    own = digest(config)
    if part in facts:
        if facts[part]["config_sha256"] != own:
            raise ValueError(
                f"{path} has {part!r} of another config (or other --steps, --full_batch): give another --out, or take "
                f"{path.parent} away"
            )
        return
    start = time.monotonic()
    facts[part] = {"about": {**about(), **checkpoint.versions()}, **make(), "config_sha256": own}
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(path, facts)
    print(f"{path.parent.name}, {part}: {time.monotonic() - start:.0f} s", flush=True)
    # Each part compiles its own programs; kept, they would fill the memory.
    jax.clear_caches()


def measure(name, spec, args, part) -> None:
    """One of `PARTS` of a row."""
    if part == "size":
        config = experiments.load(spec)
    elif part == "full_speed":
        config = full_size(spec, args.full_batch)
    else:
        config = load_demo(spec, args.steps)
    make = (lambda: measure_size(config)) if part.endswith("size") else lambda: measure_speed(config, args.runs)
    fill(pathlib.Path(args.out) / name / "facts.json", part, config, make)


def run(name, spec, args, seed) -> None:
    """Train and test the demo of a row with a seed."""
    config = load_demo(spec, args.steps)
    config.data.data_dir, config.seed = args.data_dir, seed
    workdir = pathlib.Path(args.out) / name / str(seed)
    fakes = list(config.data.train.methods) if config.data.group.fake else []

    def make():
        if not (workdir / "results.json").exists():
            train.train_and_evaluate(config.lock(), workdir)
        elif digest(checkpoint.load_config(workdir)) != digest(config):
            raise ValueError(f"{workdir} was trained with another config: give another --out, or take it away")
        return {**read_run(workdir), "steps": config.steps, "fakes": fakes}

    fill(pathlib.Path(args.out) / name / "facts.json", f"seed {seed}", config, make)


def make_table(out) -> page.Table:
    """The table from the facts that are there. Raises FileNotFoundError where there are none."""
    files = sorted(pathlib.Path(out).glob("*/facts.json"))
    if not files:
        raise FileNotFoundError(f"no facts in {out}: run python -m benchmarks.zoo --out={out} first")
    rows = {file.parent.name: json.loads(file.read_text()) for file in files}
    header = ["detector", "fakes", "steps", "seeds", "seen", "unseen"]
    header += ["parameters, M", "trained, M", "demo, M", "GFLOP", "GFLOP, one more"]
    kinds = ["speed"] + ["full_speed"] * any("full_speed" in facts for facts in rows.values())
    for kind in kinds:
        size = {"speed": "", "full_speed": "full: "}[kind]
        header += [f"{size}train img/s", f"{size}score img/s", f"{size}train MiB", f"{size}score MiB"]
    lines = [
        [name, *_results_cells(facts), *_size_cells(facts), *_speed_cells(facts, kinds)] for name, facts in rows.items()
    ]
    parts = [part for facts in rows.values() for part in facts.values()]
    keys = ("device", "devices", "processor", "python", "jax", "jaxlib", "commit")
    told = {key: sorted({str(part["about"][key]) for part in parts if key in part["about"]}) for key in keys}
    said = "; ".join(f"{key} {', '.join(values)}" for key, values in told.items())
    note = (
        f"Demos on drawn faces. Seen: {' and '.join(SEEN)}, unseen: {' and '.join(UNSEEN)}; video AUC in percent, mean "
        "(standard deviation) over seeds, for one seed its 95 % interval over videos. Columns as in benchmarks/zoo.py. "
        f"{said[0].upper()}{said[1:]}."
    )
    return page.Table("zoo", header, lines, note)


def _results_cells(facts):
    """fakes, steps, seeds, seen, unseen."""
    runs = [part for name, part in facts.items() if name.startswith("seed ")]
    if not runs:
        return ["-"] * 5
    cells = []
    for part in ("seen", "unseen"):
        values = [100 * one[part]["auc"] for one in runs]
        if len(values) > 1:
            cells.append(f"{np.mean(values):.1f} ({np.std(values, ddof=1):.1f})")
        else:
            cells.append(tables.percent(runs[0][part]["auc"], (runs[0][part]["low"], runs[0][part]["high"])))
    fakes = [name.removeprefix("toy_") for name in runs[0]["fakes"]]
    return [", ".join(fakes) or "none", str(runs[0]["steps"]), str(len(runs)), *cells]


def _size_cells(facts):
    """Parameters at full size, those trained, those of the demo; GFLOP of an image, of one more."""
    full, demo = facts.get("size", {}), facts.get("demo_size", {})
    counts = [full.get("parameters"), full.get("trained"), demo.get("parameters")]
    cells = ["-" if count is None else f"{count / 1e6:.3f}" for count in counts]
    if not full:
        return [*cells, "-", "-"]
    return [*cells, *(f"{full[name]:.2f}{'+' * full['loop']}" for name in ("gflop", "gflop_further"))]


def _speed_cells(facts, kinds):
    """Of each kind images a second and MiB, of training and of scoring."""
    cells = []
    for kind in kinds:
        found = facts.get(kind)
        if found is None:
            cells += ["-"] * 4
            continue
        cells += [f"{found[what]['images_per_second']:.1f}" for what in ("train", "score")]
        cells += [f"{found[what]['bytes'] / 2**20:.0f}" for what in ("train", "score")]
    return cells


def fill_all(names, specs, args) -> list[str]:
    """Make what is missing of all rows. Returns a line for each part that could not be made."""
    parts = PARTS if args.full_batch else PARTS[:-1]
    work = [(name, part, functools.partial(measure, part=part)) for name in names for part in parts]
    work += [(n, f"seed {seed}", functools.partial(run, seed=seed)) for seed in range(args.seeds) for n in names]
    failed = []
    for name, part, make in work:
        try:
            make(name, specs[name], args)
        except (FileNotFoundError, ValueError, FloatingPointError) as error:
            failed.append(f"{name}, {part}: {type(error).__name__}: {error}")
            print(failed[-1], flush=True)
    return failed


def main():
    """Make what is missing and print the table."""
    specs = row_specs()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=paths.expand, default="zoo", help="folder of the facts and runs")
    parser.add_argument(
        "--data_dir", type=paths.expand, default="demo/tfds", help="where the embedded data set is built"
    )
    parser.add_argument("--rows", default=",".join(specs), help="comma-separated")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, help="train for so many steps, to try the command; not for a result")
    parser.add_argument("--runs", type=int, default=5, help="of which a speed is the median")
    parser.add_argument("--full_batch", type=int, default=0, help="also time full size, so many rows (0: not)")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    names = args.rows.split(",")
    if unknown := sorted(set(names) - set(specs)):
        sys.exit(f"--rows names {unknown}, allowed: {', '.join(specs)}")
    failed = [] if args.table else fill_all(names, specs, args)
    try:
        text = page.markdown(make_table(args.out))
    except FileNotFoundError as error:
        sys.exit("\n".join([str(error), *failed]))
    (pathlib.Path(args.out) / "table.md").write_text(text, encoding="utf-8")
    print(f"\n{text}\ntable: {pathlib.Path(args.out) / 'table.md'}")
    if failed:
        sys.exit("\n".join(["not made:", *failed]))


if __name__ == "__main__":
    main()
