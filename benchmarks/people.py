"""A fake on the smaller of two faces, and one that lasts 2 of 10 seconds: is the right person named, and where?

    python -m benchmarks.people --workdir demo/workdir --videos demo/toy --out people [--pairs=4]

Made from the embedded data set's test videos, scored by `predict`; needs the face models. Prints a line a clip: whom
the verdict is about (1 is the larger face, which is real), and the worst stretch beside the true one, 4 to 6 s. Exit
code 1 where a person is wrong or an end of the stretch is off by more than half a second.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

from msddf_jax import inference, paths, predict
from msddf_jax.faces import video
from msddf_jax.opencv import cv2

RATE, SECONDS, FAKE_SECONDS, SLACK = 25, 10, (4, 6), 0.5


def read(path) -> np.ndarray:
    """Every frame of a video, uint8 [T, H, W, 3]."""
    return np.stack(list(video.read_frames(path, video.probe(path).num_frames).frames.values()))


def put_beside(real, fake) -> np.ndarray:
    """A real, half as large again, on the left, and a fake on the right of a grey frame, uint8 [T, H, W, 3]."""
    count, side = min(len(real), len(fake)), real.shape[1]
    large = side * 3 // 2
    canvas = np.full((count, large, 3 * side, 3), 90, np.uint8)
    for i in range(count):
        canvas[i, :, :large] = cv2.resize(real[i], (large, large), interpolation=cv2.INTER_CUBIC)
    top, left = (large - side) // 2, large + side // 4
    canvas[:, top : top + side, left : left + side] = fake[:count]
    return canvas


def put_inside(real, fake) -> np.ndarray:
    """A real that runs to and fro for `SECONDS`, in which the fake of it stands for `FAKE_SECONDS`."""
    count = min(len(real), len(fake))
    # 0 1 2 3 2 1 0 1 ...: nothing jumps.
    there_and_back = np.concatenate([np.arange(count), np.arange(count - 2, 0, -1)])
    order = np.resize(there_and_back, RATE * SECONDS)
    frames, (start, end) = real[order], (RATE * second for second in FAKE_SECONDS)
    frames[start:end] = fake[order[start:end]]
    return frames


def main():
    """Make the clips, score them and print what is said of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=paths.expand, required=True, help="folder of a trained detector")
    parser.add_argument("--videos", type=paths.expand, required=True, help="folder of the generated data set")
    parser.add_argument("--out", type=paths.expand, default="people", help="folder for clips and predictions")
    parser.add_argument("--pairs", type=int, default=4, help="clips of each kind")
    args = parser.parse_args()
    root, out = pathlib.Path(args.videos), pathlib.Path(args.out)
    (out / "clips").mkdir(parents=True, exist_ok=True)
    pairs = json.loads((root / "test.json").read_text())[: args.pairs]
    own = lambda name: read(root / f"original_sequences/youtube/c23/videos/{name}.mp4")
    files = []
    for number, (target, source) in enumerate(pairs):
        fake = read(root / f"manipulated_sequences/ToyNeural/c23/videos/{target}_{source}.mp4")
        other = own(pairs[(number + 1) % len(pairs)][0])
        for kind, frames in (("two", put_beside(other, fake)), ("part", put_inside(own(target), fake))):
            files.append(out / "clips" / f"{kind}{number}.mp4")
            video.write_video(files[-1], frames, fps=RATE, crf=8)
    model = inference.load_for_inference(args.workdir)
    wrong = 0
    for record in predict.predict_files(model, files, out / "predictions", max_overlays=0):
        name = pathlib.Path(record["file"]).name
        if "error" in record:
            print(f"{name}: {record['error']['message']}")
            wrong += 1
            continue
        stretch = next(p for p in record["people"] if p["track"] == record["track"])["stretch"]
        good = record["track"] == 1 and len(record["people"]) == 2
        if name.startswith("part"):
            ends = zip((stretch["start"], stretch["end"]), FAKE_SECONDS, strict=True)
            good = all(abs(found - true) <= SLACK for found, true in ends)
        wrong += not good
        where = f"worst {stretch['start']:.2f} to {stretch['end']:.2f} s ({stretch['score']:.2f})"
        print(
            f"{name}: person {record['track'] + 1} of {len(record['people'])}, {where}: {'right' if good else 'WRONG'}"
        )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
