"""A small prepared data set, written by the tests: random crops in the layout of data_prep.layout."""

import json

import numpy as np
import PIL.Image

from data_prep import catalog, layout
from data_prep.faceforensics import downloads

TOY = ("ToySwap", "ToyReenact", "ToyNeural", "ToyTexture")
FFPP = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")
PAIRS = {"train": [("000", "001"), ("002", "003")], "val": [("004", "005")], "test": [("006", "007")]}
FRAMES = (0, 9, 10)


def write_lists(root, pairs=PAIRS):
    root.mkdir(parents=True, exist_ok=True)
    for split, split_pairs in pairs.items():
        (root / f"{split}.json").write_text(json.dumps([list(pair) for pair in split_pairs]))


def real_unit(root, compression="c23"):
    return root / "original_sequences" / "youtube" / compression


def fake_unit(root, method, compression="c23"):
    return root / "manipulated_sequences" / method / compression


def write_video(unit, name, *, frames=FRAMES, size=16, mask=False, meta=True, seed=0):
    """Writes one prepared video; the first pixel of a frame holds (frame number, seed, 0)."""
    rng = np.random.default_rng([seed, int(name[:3])])
    for folder in ("frames", "landmarks", *(["masks"] if mask else [])):
        (unit / folder / name).mkdir(parents=True, exist_ok=True)
    for i in frames:
        image = rng.integers(0, 256, (size, size, 3), np.uint8)
        image[0, 0] = (i % 256, seed, 0)
        PIL.Image.fromarray(image).save(unit / "frames" / name / f"{i:03d}.png")
        np.save(unit / "landmarks" / name / f"{i:03d}.npy", landmarks(i))
        if mask:
            PIL.Image.fromarray(mask_of(i, size)).save(unit / "masks" / name / f"{i:03d}.png")
    if meta:
        write_meta(unit, name, frames)


def write_meta(unit, name, frames, num_frames=11):
    (unit / "meta").mkdir(parents=True, exist_ok=True)
    geometry = [{"frame_index": i, "bbox": [1, 2, 3, 4 + i], "matrix": [[1, 0, i], [0, 1, 5]]} for i in frames]
    (unit / "meta" / f"{name}.json").write_text(json.dumps({"num_frames": num_frames, "frames": geometry}))


def landmarks(index):
    """As in a file: dlib order; point k is (k + index / 16, 2 k)."""
    k = np.arange(81, dtype=np.float32)
    return np.stack([k + index / 16, 2 * k], axis=-1)


def mask_of(index, size):
    mask = np.zeros((size, size), np.uint8)
    mask[: 1 + index % size] = 255
    return mask


def write_catalog(root, compression="c23"):
    """The catalog of the videos that are there, of `find` on empty files in place of the download's. Returns root."""
    units = [real_unit(root, compression), *sorted((root / "manipulated_sequences").glob(f"*/{compression}"))]
    for unit in units:
        (unit / "videos").mkdir(parents=True, exist_ok=True)
        for path in (unit / "meta").glob("*.json"):
            (unit / "videos" / f"{path.stem}.mp4").touch()
    entries, _ = downloads.find(root, compression, catalog.Options(allow_missing=True))
    outcomes = {}
    for entry in entries:
        video = layout.read_video(root / entry.unit, entry.stem)
        outcomes[f"{entry.unit}/{entry.stem}"] = catalog.PREPARED if video and video.frames else "no_face_video"
    catalog.write_catalog(catalog.catalog_path(root, "faceforensics", compression), entries, outcomes)
    return root


def write_tree(root, *, methods=TOY, pairs=PAIRS, compression="c23", **kwargs):
    """All listed videos, real and fake, with their catalog. Returns root."""
    write_lists(root, pairs)
    seeds = {method: 1 + i for i, method in enumerate(methods)}
    for a, b in (pair for split_pairs in pairs.values() for pair in split_pairs):
        for target, source in ((a, b), (b, a)):
            write_video(real_unit(root, compression), target, **kwargs)
            for method in methods:
                unit = fake_unit(root, method, compression)
                write_video(unit, f"{target}_{source}", mask=True, seed=seeds[method], **kwargs)
    return write_catalog(root, compression)


def write_partial(root):
    """FF++ as far as it is there: reals 000 to 002 and 006, fakes of 000 and 003, with their catalog. Returns root."""
    write_lists(root)
    for name in ("000", "001", "002", "006"):
        write_video(real_unit(root), name)
    write_video(fake_unit(root, "Deepfakes"), "000_001", mask=True)
    write_video(fake_unit(root, "FaceSwap"), "000_001", frames=(1, 8), seed=1)
    write_video(fake_unit(root, "FaceSwap"), "003_002")
    return write_catalog(root)
