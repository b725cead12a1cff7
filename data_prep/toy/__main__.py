"""python -m data_prep.toy --out DIR: write the embedded data set (see `data_prep/toy/__init__.py`)."""

import argparse
import sys

from data_prep.toy import generate
from msddf_jax import paths


def main():
    parser = argparse.ArgumentParser(prog="python -m data_prep.toy", description=__doc__)
    parser.add_argument(
        "--out", type=paths.expand, required=True, help="folder for the set, in the official FF++ layout"
    )
    parser.add_argument("--identities", type=int, default=120, help="people, even, at least 6 (default 120)")
    parser.add_argument("--frames", type=int, default=8, help="frames of each video (default 8)")
    parser.add_argument("--size", type=int, default=128, help="side of a frame in pixels, even (default 128)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pixels before encoding (default 0)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--compressions", default="c23", help="comma-separated, of c23 and c40 (default c23)")
    args = parser.parse_args()
    try:
        compressions = tuple(args.compressions.split(","))
        written = generate.generate(
            args.out, args.identities, args.frames, args.size, args.seed, args.workers, compressions
        )
    except (ValueError, OSError) as error:
        sys.exit(f"data_prep.toy: {error}")
    print(f"{args.out}: {written} files written" if written else f"{args.out}: complete, nothing to write")


if __name__ == "__main__":
    main()
