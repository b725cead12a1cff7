"""Contact sheet of an embedded data set: a row for each person, real and forged, each forgery's mask beside it.

python -m data_prep.toy.sheet DIR --out sheet.png [--rows=8] [--frame=0] [--scale=1] [--landmarks]
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import PIL.Image

from data_prep.toy import generate, manipulate
from msddf_jax import paths
from msddf_jax.faces.extract import read_sidecar, sidecar_path
from msddf_jax.faces.video import MediaError, read_frames
from msddf_jax.opencv import cv2


def contact_sheet(root, rows=8, frame=0, scale=1, landmarks=False):
    """Frames of the set as they decode.

    Args:
      root: folder that `generate` wrote.
      rows: people shown, from the test split on.
      frame: frame number.
      scale: how many times the frames' size.
      landmarks: draw the 81 points.

    Returns:
      uint8 RGB [rows * side, columns * side, 3]: real, then each method and its mask.

    Raises:
      FileNotFoundError: no split lists. MediaError: a video that does not decode.
    """
    root = pathlib.Path(root)
    pairs = []
    for split in ("test", "val", "train"):
        path = root / f"{split}.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; python -m data_prep.toy --out {root} writes the set")
        pairs += json.loads(path.read_text())
    people = [pair for a, b in pairs for pair in ((a, b), (b, a))][:rows]
    lines = []
    for target, source in people:
        line = [_cell(generate.video_path(root, "youtube", target), frame, scale, landmarks)]
        for method in manipulate.METHODS:
            stem = f"{target}_{source}"
            line.append(_cell(generate.video_path(root, method, stem), frame, scale, landmarks))
            line.append(_cell(generate.mask_path(root, method, stem), frame, scale, False))
        lines.append(np.hstack(line))
    return np.vstack(lines)


def _cell(path, frame, scale, landmarks):
    frames = read_frames(path, [frame]).frames
    if frame not in frames:
        raise MediaError("frame_missing", path, f"no frame {frame}")
    image = frames[frame]
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    if landmarks:
        for point in (read_sidecar(sidecar_path(path))[frame] + 0.5) * scale - 0.5:
            center = tuple(np.round(point * 16).astype(int).tolist())
            cv2.circle(image, center, 6 * scale, (0, 255, 0), -1, cv2.LINE_AA, 4)
    return image


def main():
    parser = argparse.ArgumentParser(prog="python -m data_prep.toy.sheet", description=__doc__)
    parser.add_argument("root", type=paths.expand, help="folder of the set")
    parser.add_argument("--out", type=paths.expand, required=True, help="PNG to write")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--frame", type=int, default=0)
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--landmarks", action="store_true", help="draw the 81 points")
    args = parser.parse_args()
    try:
        sheet = contact_sheet(args.root, args.rows, args.frame, args.scale, args.landmarks)
        PIL.Image.fromarray(sheet).save(args.out)
    except (ValueError, OSError) as error:
        sys.exit(f"data_prep.toy.sheet: {error}")
    print(f"{args.out}: {sheet.shape[1]}x{sheet.shape[0]}")


if __name__ == "__main__":
    main()
