"""The ablation: every row of configs/ablations, some seeds each, one table. launch/ablate.sh runs it with its data.

    python -m benchmarks.ablation --data_dir=ablation/tfds [--out=ablation] [--seeds=3] [--rows=msddf,gend]
    python -m benchmarks.ablation --table [--out=ablation]        what is there so far

Resumable: a run that has its results.json is not run again, a run that was cut goes on at its checkpoint. Seeds are the
outer loop, so that a table cut short still has every row. The figures are video AUC in percent, mean and standard
deviation over seeds; "unseen" is the mean over the three manipulations that were not trained on. Beside them stand the
parameters, in thousands, how many of them are trained, and images a second in training (median of the log, first lines
left out) and scoring, as measured right after the row's last run on this machine (speed.json).
"""

import argparse
import importlib
import json
import pathlib
import sys
import time

import jax
import numpy as np
from safetensors.numpy import save_file

from benchmarks.timing import medians
from configs.ablations import base
from msddf_jax import logs, optim, paths, train, trees
from msddf_jax.inference import load_for_inference
from msddf_jax.show import page
from msddf_jax.train_step import init_state

# In the order of the table; "<file>/<row>" is a row of a file that has several.
ROWS = {
    "linear_probe": "linear probe",
    "ln_tuning": "LN-tuning",
    "gend": "LN + L2 + uniformity, alignment (GenD)",
    "fine_tuning": "everything trained, no forgeries",
    "self_blend": "self-blended images (SBI), reals only",
    "sladd": "SLADD",
    "msddf_uniform": "MSDDF, no adversary",
    "msddf": "MSDDF, REINFORCE",
    "msddf_pathwise": "MSDDF, pathwise",
    "msddf_reals": "MSDDF, reals only",
    "msddf_reals_uniform": "MSDDF, reals only, no adversary",
    "msddf_reals_hull": "MSDDF, reals only, half by SBI's hull",
    "no_frequency": "MSDDF - Freq-Adapter",
    "no_boundary": "MSDDF - Boundary Mining",
    "no_identity": "MSDDF - identity reversal",
    "no_structure": "MSDDF - region, type, strength",
    "recolored_twins": "MSDDF, twins recoloured and moved alone",
    "no_twins": "MSDDF - twins",
    "codec": "MSDDF, H.264 in the step",
    "clip_cross_domain/l2": "cross-domain: LN + L2",
    "clip_cross_domain/frequency": "+ Freq-Adapter",
    "clip_cross_domain/boundary": "+ Boundary Mining",
    "clip_cross_domain/identity": "+ identity reversal",
    "clip_cross_domain/alignment": "+ uniformity, alignment",
    "clip_cross_domain/slerp": "+ slerp",
    "clip_cross_domain/consistency": "+ frequency consistency (the whole)",
    "clip_cross_domain/without_frequency": "the whole - Freq-Adapter",
    "clip_cross_domain/without_boundary": "the whole - Boundary Mining",
    "clip_cross_domain/without_identity": "the whole - identity reversal",
    "clip_cross_domain/without_alignment": "the whole - uniformity, alignment",
    "clip_cross_domain/without_slerp": "the whole - slerp",
    "clip_cross_domain/arc": "the whole, ArcMargin",
    "clip_cross_domain/adapters": "everything trained, adapters, no forgeries",
    "clip_cross_domain/xception": "Xception",
}
COLUMNS = ("seen", "unseen", "seen c40", "unseen c40")
SPEED = {
    "parameters": "parameters (k)",
    "trained": "trained (k)",
    "training": "images/s, training",
    "scoring": "images/s, scoring",
}


def load_config(name, args, seed):
    """The config of a row for this data, backbone and seed."""
    file, _, row = name.partition("/")
    argument = f"{row},{args.method}" if row else args.method
    config = importlib.import_module(f"configs.ablations.{file}").get_config(argument).unlock()
    config.data.data_dir = args.data_dir
    config.seed = seed
    if config.init.backbone != "random":
        config.init.backbone = str(pathlib.Path(args.out) / "backbone.safetensors")
    return config.lock()


def pretrain(args):
    """Train the common backbone and write it under CLIP's names, once."""
    path = pathlib.Path(args.out) / "backbone.safetensors"
    if path.exists():
        return
    workdir = pathlib.Path(args.out) / "pretrain"
    train.train_and_evaluate(load_config("pretrain", args, 0), workdir)
    backbone = {"params": {"backbone": load_for_inference(workdir).params["params"]["backbone"]}}
    save_file({name: np.asarray(value) for name, value in trees.flatten(backbone).items()}, path)


def measure(config, workdir):
    """{key of `SPEED`: number} of a run that has ended: parameters in thousands, images a second."""
    params = jax.eval_shape(lambda: init_state(config)).params
    sizes = {name: value.size for name, value in trees.flatten(params).items() if name.startswith("detector/")}
    trained = optim.trainable_names(params, config.optim.groups)
    lines = [line["images_per_second"] for line in logs.read_metrics(workdir) if "images_per_second" in line]
    model, size = load_for_inference(workdir), config.data.image_size
    images = np.random.default_rng(0).integers(0, 256, (config.data.eval_batch_size, size, size, 3), np.uint8)
    seconds = medians({"scoring": lambda: model.predict_fn(model.params, {"image": images})})["scoring"]
    return {
        "parameters": sum(sizes.values()) / 1000,
        "trained": sum(count for name, count in sizes.items() if trained[name]) / 1000,
        # The first lines have the compilation in them.
        "training": float(np.median(lines[2:] or lines)),
        "scoring": len(images) / seconds,
    }


def summarize(results, method):
    """{column: percent} of one run's results.json."""
    auc = lambda name: 100 * results[f"{name}/video_auc"]
    unseen = [name for name in base.METHODS if name != method]
    return {
        "seen": auc(method),
        "unseen": np.mean([auc(name) for name in unseen]),
        "seen c40": auc(f"{method}_c40"),
        "unseen c40": np.mean([auc(f"{name}_c40") for name in unseen]),
        **{f"unseen {name.removeprefix('toy_')}": auc(name) for name in unseen},
    }


def make_table(runs, method, speeds) -> page.Table:
    """The table: mean (standard deviation) over the seeds of each row.

    Args:
      runs: {row: [results, one a seed]}, "<eval>/video_auc" of every eval. method: that was trained on.
      speeds: {row: what speed.json holds}; {} leaves these columns out.
    """
    unseen = [f"unseen {name.removeprefix('toy_')}" for name in base.METHODS if name != method]
    columns, lines = [*COLUMNS, *unseen], []
    for name in (name for name in ROWS if name in runs):
        found = [summarize(results, method) for results in runs[name]]
        cells = []
        for column in columns:
            values = [run[column] for run in found]
            cells.append(
                f"{np.mean(values):.1f} ({np.std(values, ddof=1):.1f})" if len(values) > 1 else f"{values[0]:.1f}"
            )
        if speeds:
            cells += [f"{speeds[name][key]:.0f}" if key in speeds.get(name, {}) else "-" for key in SPEED]
        lines.append([ROWS[name], str(len(found)), *cells])
    header = ["", "seeds", *columns, *(SPEED.values() if speeds else ())]
    note = f"Trained on `{method}`; video AUC in percent, mean (standard deviation) over seeds."
    return page.Table("ablation", header, lines, note)


def print_table(out, method):
    """The table as Markdown, from the results there are."""
    files = {name: sorted(pathlib.Path(out).glob(f"{name}/*/results.json")) for name in ROWS}
    runs = {name: [json.loads(file.read_text()) for file in found] for name, found in files.items() if found}
    speeds = {}
    for name in runs:
        measured = sorted(pathlib.Path(out).glob(f"{name}/*/speed.json"), key=lambda path: path.stat().st_mtime)
        speeds[name] = json.loads(measured[-1].read_text()) if measured else {}
    print(page.markdown(make_table(runs, method, speeds)))


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=paths.expand, default="ablation", help="folder of the runs")
    parser.add_argument("--data_dir", type=paths.expand, default="ablation/tfds", help="built data sets")
    parser.add_argument("--method", default=base.TRAINED_ON, choices=base.METHODS, help="manipulation to train on")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    args = parser.parse_args()
    names = args.rows.split(",")
    unknown = sorted(set(names) - set(ROWS))
    if unknown:
        sys.exit(f"--rows names {unknown}, allowed: {', '.join(ROWS)}")
    if not args.table:
        pretrain(args)
        for seed in range(args.seeds):
            for name in names:
                workdir = pathlib.Path(args.out) / name / str(seed)
                if (workdir / "results.json").exists():
                    continue
                start, config = time.monotonic(), load_config(name, args, seed)
                train.train_and_evaluate(config, workdir)
                (workdir / "speed.json").write_text(json.dumps(measure(config, workdir), indent=2) + "\n")
                print(f"{name}, seed {seed}: {time.monotonic() - start:.0f} s", flush=True)
                # Each run compiles its own step; kept, they would fill the memory.
                jax.clear_caches()
    print_table(args.out, args.method)


if __name__ == "__main__":
    main()
