"""A folder of drawn images, real ones and fakes, as people's own lie: `python -m data_prep.toy.pictures --out DIR`.

    DIR/real/person_000.png    a drawn face, and person_000.landmarks.npy beside it, for --landmarks=sidecar
    DIR/fake/person_000.png    the same person, forged by `METHOD`, with the grid that an up-sampling network leaves

The grid is planted: a hundred images are enough to learn it.
"""

import argparse
import concurrent.futures
import multiprocessing
import pathlib
import sys

import numpy as np

from data_prep import contents
from data_prep.toy import generate
from msddf_jax import paths
from msddf_jax.faces.extract import sidecar_path
from msddf_jax.faces.landmarks import to_dlib_order
from msddf_jax.opencv import cv2

METHOD = "ToyNeural"
# Of the planted grid: pixels, and grey levels.
PERIOD, HEIGHT = 8, 14.0


def write_pictures(out, people=60, size=128, seed=0, workers=2, split=""):
    """Write so many real images, and as many fakes.

    Args:
      out: folder that is not there, or empty. people: even, at least 2. size: side in pixels, even. seed: other seeds
        draw other people. split: folder above real and fake, such as "test"; "" for none.

    Returns:
      number of images.

    Raises:
      ValueError: an argument out of range, or a folder that holds something.
    """
    root = pathlib.Path(out)
    if people % 2 or people < 2 or size % 2 or size < generate.MIN_SIZE:
        raise ValueError(f"expected even people >= 2 and an even size >= {generate.MIN_SIZE}, got {people} and {size}")
    if root.exists() and contents.children(root):
        raise ValueError(f"{root} holds something: name another --out")
    for label in ("real", "fake"):
        (root / split / label).mkdir(parents=True)
    pairs = [(f"{i:03d}", f"{i + 1:03d}") for i in range(0, people, 2)]
    arguments = ([root / split] * len(pairs), [seed] * len(pairs), pairs, [size] * len(pairs))
    if workers == 1:
        list(map(_write_pair, *arguments))
    else:
        with concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_write_pair, *arguments))
    return 2 * people


def _write_pair(root, seed, pair, size):
    cv2.setNumThreads(1)  # the processes are the parallelism
    drawn = generate.draw_pair(seed, *pair, 1, size)
    for person, other in (pair, pair[::-1]):
        for label, key in (("real", ("youtube", person)), ("fake", (METHOD, f"{person}_{other}"))):
            path = root / label / f"person_{person}.png"
            picture = _plant_grid(drawn[key].frames[0], drawn[key].masks[0])
            if not cv2.imwrite(str(path), picture[..., ::-1]):
                raise OSError(f"cannot write {path}")
            np.save(sidecar_path(path), to_dlib_order(drawn[key].landmarks.astype(np.float32)))


def _plant_grid(frame, mask):
    """The frame with a grid where the mask is not 0; uint8 [H, W, 3]."""
    wave = np.cos(2 * np.pi * np.arange(len(frame)) / PERIOD)
    grid = HEIGHT * (wave[:, None] + wave[None]) / 2
    planted = np.clip(np.round(frame + grid[..., None]), 0, 255).astype(np.uint8)
    return np.where(mask[..., None] > 0, planted, frame)


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.toy.pictures", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=paths.expand, required=True, help="folder for the pictures")
    parser.add_argument("--people", type=int, default=60, help="even; a real picture and a fake of each (default 60)")
    parser.add_argument("--size", type=int, default=128, help="side in pixels, even (default 128)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds draw other people (default 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--split", choices=("train", "val", "test"), default="", help="write into DIR/<split>")
    args = parser.parse_args(argv)
    try:
        number = write_pictures(args.out, args.people, args.size, args.seed, args.workers, args.split)
    except (ValueError, OSError) as error:
        sys.exit(f"data_prep.toy.pictures: {error}")
    print(f"{args.out}: {number} pictures, half of them real")


if __name__ == "__main__":
    main()
