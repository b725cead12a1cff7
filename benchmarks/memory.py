"""Memory of the host over a long run: steps of training, and files scored, in every process.

    python -m benchmarks.memory --data_dir=demo/tfds [--steps=2000] [--files=50000] [--processes=2] [--out=memory]

Training is configs/detectors/meso4.py:demo with a checkpoint every 500 steps, as one process or as several; scoring is
`msddf_jax.score` with its two readers, of small images with landmarks beside them. Resident memory of each process is
read once a second, of training between its first selection of weights, which compiles what it needs, and its last step:
the evaluation at the end of a run compiles and reads anew. Printed for each: MiB after a quarter of these readings, at
their end, and the growth between them by a straight line, per 1,000 steps or 10,000 files. Exit code 1 where one grows
by more than 2 % from the first quarter on.
"""

import argparse
import collections
import os
import pathlib
import socket
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import psutil

from msddf_jax import logs, paths
from msddf_jax.faces import align
from msddf_jax.faces.landmarks import to_dlib_order

# A process younger than this has only started. Seconds.
_YOUNG = 20
# Steps between two selections of weights.
SELECTED = 500


def watch(processes, counted):
    """{"<number>: <what>": [(seconds, MiB)]} of processes and their children, read while `counted()`."""
    start, seen = time.monotonic(), collections.defaultdict(list)
    while any(process.poll() is None for process in processes):
        for number, process in enumerate(processes if counted() else ()):
            try:
                own = psutil.Process(process.pid)
                for one in [own, *own.children(recursive=True)]:
                    name = "main" if one.pid == process.pid else f"reader {one.pid}"
                    seen[f"{number}: {name}"].append((time.monotonic() - start, one.memory_info().rss / 2**20))
            except psutil.Error:
                continue  # it has ended meanwhile
        time.sleep(1)
    failed = [process.returncode for process in processes if process.returncode]
    if failed:
        sys.exit(f"a process ended with {failed}")
    return {name: rows for name, rows in seen.items() if rows[-1][0] - rows[0][0] > _YOUNG}


def growth(rows):
    """(MiB after a quarter, MiB at the end by a straight line through what follows the quarter)."""
    seconds, size = np.array(rows).T
    late = seconds >= seconds[0] + (seconds[-1] - seconds[0]) / 4
    slope, level = np.polyfit(seconds[late], size[late], 1)
    return level + slope * seconds[late][0], level + slope * seconds[-1]


def train(args, out):
    """(processes of the trainer, whether it is between its first selection and its last step)."""
    command = [sys.executable, "-m", "msddf_jax.main", "--config=configs/detectors/meso4.py:demo"]
    command += [f"--workdir={out / 'run'}", f"--config.data.data_dir={args.data_dir}", f"--config.steps={args.steps}"]
    command += ["--config.checkpoint_every=500", "--config.data.batch_size=8", f"--config.select.every={SELECTED}"]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = [f"--coordinator=localhost:{free.getsockname()[1]}", f"--num_processes={args.processes}"]
    many = lambda number: [*place, f"--process_id={number}"] if args.processes > 1 else []
    started = [subprocess.Popen([*command, *many(number)], env=_environ()) for number in range(args.processes)]
    return started, lambda: SELECTED <= _step_of(out / "run") < args.steps


def _step_of(workdir):
    """The last step that a run has logged, 0 before the first."""
    return max((line["step"] for line in logs.read_metrics(workdir)[-1:]), default=0)


def score(args, out):
    """(the process that scores, always counted)."""
    rng, folder = np.random.default_rng(0), out / "files"
    folder.mkdir(parents=True, exist_ok=True)
    points = rng.uniform(16, 48, (81, 2))
    points[[37, 44, 30, 49, 55]] = align.template_points("dfb", 48) + 8
    landmarks = to_dlib_order(points.astype(np.float32))[None]
    for number in range(100):
        PIL.Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{number}.jpg")
        np.save(folder / f"{number}.landmarks.npy", landmarks)
    (out / "list.txt").write_text("".join(f"{folder / f'{i % 100}.jpg'}\n" for i in range(args.files)))
    command = [sys.executable, "-m", "msddf_jax.score", f"--workdir={out / 'run'}", f"--list={out / 'list.txt'}"]
    command += [f"--out={out / 'scores'}", "--landmarks=sidecar", "--workers=2", "--shard_size=5000"]
    return [subprocess.Popen(command, env=_environ())], lambda: True


def _environ():
    return os.environ | {"JAX_PLATFORMS": "cpu"}


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=paths.expand, required=True, help="where the embedded data set is built")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=paths.expand, default="memory", help="folder of the run; must not be there yet")
    args = parser.parse_args(argv)
    out, grown = pathlib.Path(args.out), []
    out.mkdir(parents=True)
    for what, start, units in (("training", train, args.steps / 1e3), ("scoring", score, args.files / 1e4)):
        for name, rows in watch(*start(args, out)).items():
            before, after = growth(rows)
            each = (after - before) / units / 0.75
            print(f"{what}, process {name}: {before:.0f} MiB, {after:.0f} MiB, {each:+.1f} a unit")
            grown += [name] if after > 1.02 * before else []
    print("a unit: 1,000 steps or 10,000 files")
    if grown:
        sys.exit(f"memory grows: {', '.join(grown)}")


if __name__ == "__main__":
    main()
