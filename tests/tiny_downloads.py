"""Small downloads in official layouts, made of one tiny generated video, and the way from `find` to built records."""

import functools
import pathlib
import shutil
import tempfile

import numpy as np
import tiny_ffpp
from prepared_tree import write_video

from data_prep import build, catalog
from msddf_jax.data import source

NUM_FRAMES = 3


@functools.cache
def _clip():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tiny_clip_"))
    tiny_ffpp.write_clip(folder / "clip.mp4", NUM_FRAMES, width=96, height=96)
    return folder


def write_videos(root, *names):
    """Copies the one clip to each of the names, with its sidecar landmarks. Returns root."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_clip() / "clip.mp4", path)
        shutil.copyfile(_clip() / "clip.landmarks.npy", path.with_name(f"{path.stem}.landmarks.npy"))
    return root


def write_text(root, name, text):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode())


def names(entries, split=None):
    """ "<split> <label> <video id>" of each entry, or without the split where one is given."""
    return [
        f"{'' if split else e.split + ' '}{e.fields['label']} {e.fields['video_id']}"
        for e in entries
        if split in (None, e.split)
    ]


def codes(problems, without=("count_mismatch",)):
    """(code, path) of each problem."""
    return [(problem.code, problem.path) for problem in problems if problem.code not in without]


def counts(problems):
    """{what: detail} of the numbers that are not the published ones."""
    return {problem.path: problem.detail for problem in problems if problem.code == "count_mismatch"}


def prepare(entries, out, dataset, config, frames=(0, 1)):
    """What data_prep.prepare leaves of the entries, with random crops. Returns out."""
    for number, entry in enumerate(entries):
        assert (pathlib.Path(entry.root) / entry.path).is_file()
        assert entry.mask is None or pathlib.Path(entry.mask).is_file()
        # The random crops take their seed from the first digits of a name.
        _write(out / entry.unit, entry.stem, frames, number % 256, entry.mask is not None)
    outcomes = {f"{entry.unit}/{entry.stem}": catalog.PREPARED for entry in entries}
    catalog.write_catalog(catalog.catalog_path(out, dataset, config), entries, outcomes)
    return out


def _write(unit, stem, frames, seed, mask):
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        write_video(scratch, "000", frames=frames, mask=mask, seed=seed)
        for folder in ("frames", "landmarks", *(["masks"] if mask else [])):
            shutil.copytree(scratch / folder / "000", unit / folder / stem)
        (unit / "meta").mkdir(exist_ok=True)
        shutil.copyfile(scratch / "meta/000.json", unit / "meta" / f"{stem}.json")


def build_and_open(found, tmp_path, dataset, config, catalog_config=None):
    """Prepares and builds. found: (entries, problems). Returns {split: data.source.Source}."""
    prepare(found[0], tmp_path / "prepared", dataset, catalog_config or config)
    folder = build.build(dataset, config, tmp_path / "prepared", tmp_path / "built")
    splits = sorted(path.stem.removeprefix("index-") for path in folder.glob("index-*.csv"))
    return {split: source.open_source(f"{dataset}/{config}", split, tmp_path / "built") for split in splits}


def rows(opened, *columns):
    """A tuple of the columns for each video of a source, in order."""
    return list(zip(*(np.asarray(opened.videos[name]).tolist() for name in columns), strict=True))
