"""Tiny image data sets, written by the tests: PNG files in official layouts, prepared trees, DeepfakeBench folders."""

import json
import pathlib

import numpy as np
import PIL.Image

from data_prep import crops, prepare

SIZE = 16


def write_png(path, value=0, size=SIZE, mode="RGB"):
    """A PNG (or what the suffix says) whose first pixel's red, or grey, is `value`."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    image = np.full(shape, 100, np.uint8)
    image[0, 0] = value
    PIL.Image.fromarray(image).save(path)
    return path


def write_pngs(root, paths):
    """One PNG each, numbered in the order of `paths`."""
    for i, path in enumerate(paths):
        write_png(pathlib.Path(root) / path, i % 256)
    return root


def prepare_crops(root, out, layout, config):
    """`data_prep.prepare` of a download of crops, without landmarks, which need models. Returns its report."""
    settings = crops.make_settings(landmarks="sidecar", size=SIZE)
    return prepare.run(root, layout=layout, config=config, out=out, settings=settings)


def split_counts(entries):
    """{(split, label): number of entries}."""
    counts = {}
    for entry in entries:
        key = entry.split, entry.fields["label"]
        counts[key] = counts.get(key, 0) + 1
    return counts


def landmarks(index=0):
    """[81, 2] int64 as in a DeepfakeBench file: point k is (k + index - 3, 2 k): the first are left of the crop."""
    k = np.arange(81)
    return np.stack([k + index - 3, 2 * k], axis=-1)


def write_dfb_video(base, unit, name, frames=(0, 1), *, size=256, masks=False, points=True):
    """One video that DeepfakeBench processed. Returns the paths of its frames below `base`."""
    paths = []
    for i in frames:
        paths.append(f"{unit}/frames/{name}/{i:03d}.png")
        write_png(base / paths[-1], i % 256, size)
        if masks:
            write_png(base / unit / "masks" / name / f"{i:03d}.png", 255, size)
        if points:
            folder = base / unit / "landmarks" / name
            folder.mkdir(parents=True, exist_ok=True)
            np.save(folder / f"{i:03d}.npy", landmarks(i))
    return paths


def write_dfb_json(root, dataset, tree, *, stem=None, folder="preprocessing/dataset_json"):
    """`tree`: {label: {split: videos}}."""
    path = pathlib.Path(root) / folder / f"{stem or dataset}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({dataset: tree}))
    return path


def entry(label, paths, **more):
    return {"label": label, "frames": list(paths), **more}


def write_lmdb(path, base, folder, key=lambda path: path.replace("/", "\\"), dtype=np.int32):
    """An environment of all files below `base/folder`, landmarks as bare numbers.

    Args:
      path: of the environment. key: spelling of a key from the path below `base`.
    """
    import lmdb

    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=1 << 24) as env, env.begin(write=True) as transaction:
        for file in sorted((base / folder).rglob("*.*")):
            value = np.load(file).astype(dtype).tobytes() if file.suffix == ".npy" else file.read_bytes()
            transaction.put(key(file.relative_to(base).as_posix()).encode(), value)
    return path
