"""The train step of this tree beside that of another commit, turn by turn in one run.

    git worktree add ../before 55656c7
    python -m benchmarks.against --tree ../before [--variants=Ti/16,B/16] [--batch_size=4] [--turns=9]

Each tree runs configs/msddf.py on the same batch in a process of its own, compiled and warm; a turn is one step of
each, in changing order. Printed: the medians, the median and quartiles of the turns' ratios (above 1 this tree is
faster), and the other's compiled FLOPs and bytes over this one's.
"""

import argparse
import pathlib
import subprocess
import sys

import jax
import numpy as np

from benchmarks.timing import report
from msddf_jax import paths

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Runs in either tree with what that tree has: before the protocol, a step took one batch, now a tuple of them.
WORKER = """
import inspect, sys, time
import jax
from benchmarks import train_step as bench
from msddf_jax.train_step import init_state, make_train_step
config = bench.make_config(sys.argv[1], int(sys.argv[2]), sys.argv[3])
batch, step = jax.device_put(bench.make_batch(config)), make_train_step(config)
given = (batch,) if "batches" in inspect.signature(step).parameters else batch
state = jax.jit(lambda: init_state(config))()
step = jax.jit(step, donate_argnums=0).lower(state, given).compile()
print(step.cost_analysis()["flops"], step.cost_analysis()["bytes accessed"], flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    state, scalars = step(state, given)
    jax.block_until_ready((state, scalars))
    print(time.perf_counter() - start, float(scalars["loss"]), flush=True)
"""


def start(tree, *arguments) -> subprocess.Popen:
    """A worker of a tree, which comes first on its path of modules."""
    command = [sys.executable, "-c", WORKER, *map(str, arguments)]
    return subprocess.Popen(command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read(worker) -> tuple[float, float]:
    """The two numbers of its next line."""
    line = worker.stdout.readline()
    if not line:
        sys.exit(f"the worker ended with {worker.wait()}: its message stands above")
    first, second = line.split()
    return float(first), float(second)


def run_once(worker) -> tuple[float, float]:
    """(seconds, loss) of one step."""
    print("step", file=worker.stdin, flush=True)
    return read(worker)


def measure(variant, trees, batch_size, dtype, turns, warmup=2) -> list:
    """One row of the table."""
    workers = [start(tree, variant, batch_size, dtype) for tree in trees]
    try:
        costs, losses = [], []
        for worker in workers:
            costs.append(read(worker))
            losses.append([run_once(worker)[1] for _ in range(warmup)])
        times = np.empty((turns, 2))
        for turn in range(turns):
            for which in (0, 1) if turn % 2 else (1, 0):
                times[turn, which] = run_once(workers[which])[0]
    finally:
        for worker in workers:
            worker.kill()
    ratios = times[:, 1] / times[:, 0]
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    ours, theirs = np.median(times, axis=0)
    same = "yes" if losses[0] == losses[1] else f"{losses[0][-1]:.6g} / {losses[1][-1]:.6g}"
    flops, moved = (costs[1][i] / costs[0][i] for i in (0, 1))
    times = [f"{ours:.3f}", f"{theirs:.3f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}"]
    return [variant, *times, same, f"{flops:.4f}", f"{moved:.4f}"]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=paths.expand, required=True, help="a worktree of the other commit")
    parser.add_argument("--variants", default="Ti/16")
    parser.add_argument("--batch_size", type=int, default=4, help="host rows; the detector sees twice as many")
    parser.add_argument("--dtype", default="float32" if jax.default_backend() == "cpu" else "bfloat16")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--out", type=paths.expand, help="write the table as JSON")
    args = parser.parse_args()
    trees = (ROOT, pathlib.Path(args.tree))
    rows = [measure(v, trees, args.batch_size, args.dtype, args.turns) for v in args.variants.split(",")]
    header = ["ViT", "this tree s", "the other s", "other / this", "quartiles", "same losses", "FLOPs", "bytes"]
    report(f"train step, {args.dtype}, {args.turns} turns", header, rows, args.out)


if __name__ == "__main__":
    main()
