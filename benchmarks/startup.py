"""Start-up: seconds from the command line to a verdict on one image, without and with compiled code at hand.

    python -m benchmarks.startup [--variant=B/16] [--runs=3] [--image=FACE.png] [--out=FILE]

Each run is a process of its own, `python -m msddf_jax.predict` on a workdir with drawn weights (MSDDF, 224 px crops,
float32). "cold": no persistent compilation cache; "warm": the cache that one call before it filled. Files are in the
system's file cache in both. `--image` goes through YuNet and MediaPipe, whose model files have to be there
($MSDDF_MODELS); without it a drawn picture with landmarks beside it is scored, which leaves those two out. CPU seconds
are those of all threads, user and system: on a busy machine they say more than wall seconds.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image

from benchmarks.timing import report
from configs import msddf as msddf_config
from msddf_jax import checkpoint, detector, paths
from msddf_jax.data import schema


def write_workdir(workdir, variant):
    """A workdir as training leaves one, with weights from NumPy."""
    config = msddf_config.get_config().unlock()
    config.model.variant, config.data.image_size, config.dtype = variant, 224, "float32"
    config.init.backbone = "random"
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(0.02 * rng.standard_normal(leaf.shape, np.float32))
    weights = jax.tree.map(draw, detector.weight_shapes(config))
    checkpoint.save_config(workdir, config.lock())
    checkpoint.save_best(workdir, 0, weights, {"val/video_auc": 0.5})


def draw_image(folder):
    """A picture of noise with plausible landmarks beside it."""
    rng = np.random.default_rng(0)
    path = folder / "face.png"
    PIL.Image.fromarray(rng.integers(0, 256, (480, 640, 3), np.uint8)).save(path)
    angle = np.linspace(0, 2 * np.pi, schema.NUM_LANDMARKS, endpoint=False)
    points = [320, 240] + 90 * np.stack([np.cos(angle), np.sin(angle)], -1) + rng.normal(size=(angle.size, 2))
    np.save(path.with_name("face.landmarks.npy"), points[None].astype(np.float32))
    return path


def run(command, environment):
    """(wall seconds, CPU seconds) of a process. Raises RuntimeError with its last lines where it fails."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError("predict failed: " + "\n".join((done.stdout + done.stderr).splitlines()[-5:]))
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(variant, image, runs, folder):
    """Rows of the table: cold and warm."""
    write_workdir(folder / "workdir", variant)
    command = [sys.executable, "-m", "msddf_jax.predict", f"--workdir={folder / 'workdir'}", f"--out={folder / 'out'}"]
    if image is None:
        image = draw_image(folder)
        command.append("--landmarks=sidecar")
    inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    cache = f"--compilation_cache={folder / 'cache'}"
    run([*command, cache, str(image)], inherited)
    rows = []
    # In turn, so that drift of the machine hits both alike.
    times = {"cold": [], "warm": []}
    for _ in range(runs):
        times["cold"].append(run([*command, "--compilation_cache=", str(image)], inherited))
        times["warm"].append(run([*command, cache, str(image)], inherited))
    for name, values in times.items():
        wall, cpu = np.median(values, axis=0)
        rows.append([name, variant, f"{wall:.2f}", f"{min(values)[0]:.2f}", f"{cpu:.2f}"])
    return rows


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="B/16")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--image", type=paths.expand, help="an image file with a face")
    parser.add_argument("--out", type=paths.expand, help="write the table as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args.variant, args.image, args.runs, pathlib.Path(folder))
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    header = ["start", "ViT", "wall s, median", "fastest", "CPU s, median"]
    report(f"start-up of predict on one image, {load}", header, rows, args.out)


if __name__ == "__main__":
    main()
