"""Files a second of `msddf_jax.score` against the number of processes that read, on drawn clips.

    python -m benchmarks.score [--files=200] [--workers=1,2,4]

Clips of 64 frames at 720p with landmarks beside them, of which 8 are read; MesoNet with random weights scores. Workers
take turns, the ratio is to one worker in the same turn.
"""

import argparse
import pathlib
import tempfile

import jax
import numpy as np

from benchmarks import timing
from msddf_jax import detector, experiments, inference, score
from msddf_jax.faces import align, video
from msddf_jax.faces.landmarks import to_dlib_order


def write_clips(folder, count):
    """Paths of `count` clips of moving noise, each with the landmarks of one face in its middle."""
    rng = np.random.default_rng(0)
    noise = np.repeat(np.repeat(rng.integers(0, 256, (180, 320, 3), np.uint8), 4, 0), 4, 1)
    points = rng.uniform(260, 460, (81, 2)) + np.array([280, 0])
    points[[37, 44, 30, 49, 55]] = align.template_points("dfb", 200) + np.array([540, 260])
    landmarks = np.repeat(to_dlib_order(points.astype(np.float32))[None], 64, 0)
    paths = []
    for number in range(count):
        path = folder / f"{number:05d}.mp4"
        if number == 0:
            video.write_video(path, [np.roll(noise, 8 * i, 1) for i in range(64)], fps=25, crf=23)
        else:
            path.write_bytes(paths[0].read_bytes())
        np.save(path.with_name(f"{path.stem}.landmarks.npy"), landmarks)
        paths.append(path)
    return [str(path) for path in paths]


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--workers", default="1,2,4")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args(argv)
    config = experiments.load("configs/detectors/meso4.py")
    shapes = detector.weight_shapes(config)
    weights = jax.tree.map(lambda s: np.random.default_rng(0).normal(0, 0.1, s.shape).astype(s.dtype), shapes)
    model = inference.Inference(config, inference.make_score_fn(config), weights, 0, "best")
    extraction = {"size": config.data.image_size, "preset": config.data.preset, "num_frames": 8}
    extraction |= {"landmarks": "sidecar", "faces": "people"}
    counts = [int(text) for text in args.workers.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        files, done = write_clips(root, args.files), iter(range(1000))

        def run(workers):
            job = score.Job(model, extraction, None, None, "mean", 32, workers, 600.0)
            assert score.score_list(job, files, root / f"out{next(done)}") == len(files)

        times = timing.turns({n: lambda n=n: run(n) for n in counts}, runs=args.runs)
    rows = []
    for workers in counts:
        ratios = times[counts[0]] / times[workers]
        rows.append((workers, f"{len(files) / np.median(times[workers]):.1f}", f"{np.median(ratios):.2f}"))
    timing.report("score: files a second", ("workers", "files/s", f"to {counts[0]}"), rows)


if __name__ == "__main__":
    main()
