"""The ablation: every row of configs/ablations, some seeds each, one table. launch/ablate.sh runs it with its data.

    python -m benchmarks.ablation --data_dir=ablation/tfds [--out=ablation] [--seeds=3] [--rows=msddf,gend]
    python -m benchmarks.ablation --table [--out=ablation]        what is there so far

Resumable: a run that has its results.json is not run again, a run that was cut goes on at its checkpoint. Seeds are the
outer loop, so that a table cut short still has every row. The figures are video AUC in percent, mean and standard
deviation over seeds; "unseen" is the mean over the three manipulations that were not trained on.
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

from configs.ablations import base
from msddf_jax import train, trees
from msddf_jax.inference import load_for_inference

# In the order of the table.
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
}
COLUMNS = ("seen", "unseen", "seen c40", "unseen c40")


def load_config(name, args, seed):
    """The config of a row for this data, backbone and seed."""
    config = importlib.import_module(f"configs.ablations.{name}").get_config(args.method).unlock()
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


def print_table(out, method):
    """The table as Markdown, from the results there are."""
    unseen = [f"unseen {name.removeprefix('toy_')}" for name in base.METHODS if name != method]
    columns = [*COLUMNS, *unseen]
    print(f"trained on {method}; video AUC in percent, mean (standard deviation) over seeds\n")
    print(f"| | seeds | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    for name, title in ROWS.items():
        files = sorted(pathlib.Path(out).glob(f"{name}/*/results.json"))
        if not files:
            continue
        runs = [summarize(json.loads(f.read_text()), method) for f in files]
        cells = []
        for column in columns:
            values = [run[column] for run in runs]
            cells.append(
                f"{np.mean(values):.1f} ({np.std(values, ddof=1):.1f})" if len(values) > 1 else f"{values[0]:.1f}"
            )
        print(f"| {title} | {len(files)} | {' | '.join(cells)} |")


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="ablation", help="folder of the runs")
    parser.add_argument("--data_dir", default="ablation/tfds", help="built data sets")
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
                start = time.monotonic()
                train.train_and_evaluate(load_config(name, args, seed), workdir)
                print(f"{name}, seed {seed}: {time.monotonic() - start:.0f} s", flush=True)
                # Each run compiles its own step; kept, they would fill the memory.
                jax.clear_caches()
    print_table(args.out, args.method)


if __name__ == "__main__":
    main()
