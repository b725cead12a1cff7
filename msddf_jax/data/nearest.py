"""Nearest faces of a whole set, as `data_prep.nearest` finds them: for each real record others' with landmarks near."""

import hashlib
import pathlib
import zipfile

import numpy as np
from absl import logging

from msddf_jax import paths

# What a record is known by, whatever else a source keeps.
KEY = ("dataset", "compression", "video_id", "frame_index")


def load(path, source) -> dict[int, np.ndarray]:
    """The file of a source.

    Args:
      path: of an .npz with, for R real records, dataset, compression and video_id [R] str, frame_index [R] int32, and
        nearest [R, K] int32, rows of the file, -1 where there are fewer.
      source: data.source.Source.

    Returns:
      {real record of the source: [k] int64 records of it that are near, k >= 1}.

    Raises:
      FileNotFoundError: no such file. ValueError: a file of another kind, or of which nothing is in the source.
    """
    again = "make it with: python -m data_prep.nearest SET:train --data_dir DIR --out FILE"
    path = pathlib.Path(paths.expand(path))
    if not path.is_file():
        raise FileNotFoundError(f"config.data.group.nearest: there is no file {path}; {again}")
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = {name: file[name] for name in (*KEY, "nearest")}
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"config.data.group.nearest: {path} is no file of data_prep.nearest ({error}); {again}"
        ) from error
    real = np.flatnonzero(source.column("label") == "real")
    own = {key: int(record) for key, record in zip(_keys(source.column, real), real, strict=True)}
    place = np.array([own.get(key, -1) for key in _keys(columns.__getitem__, slice(None))], np.int64)
    # The last row stands for -1, no neighbour.
    near = np.append(place, -1)[columns["nearest"]]
    found = {int(record): row[row >= 0] for record, row in zip(place, near, strict=True) if record >= 0}
    found = {record: row for record, row in found.items() if len(row)}
    if not found:
        raise ValueError(
            f"config.data.group.nearest: {path} names {len(place)} records, of which {source.name} has "
            f"{(place >= 0).sum()}, none with a neighbour that it has too; {again}"
        )
    return found


def keep(anchors, found, name, path) -> np.ndarray:
    """The anchors [G] that have a neighbour; the log says how many have none. name: of the source.

    Raises ValueError where none has.
    """
    kept = np.array([anchor for anchor in anchors.tolist() if anchor in found], np.int64)
    if not len(kept):
        raise ValueError(
            f"config.data.group.nearest: {path} has a neighbour for none of {name}'s {len(anchors)} groups"
        )
    if len(kept) < len(anchors):
        logging.warning("%s: %d of %d reals have no neighbour in %s and are left out of training",
                        name, len(anchors) - len(kept), len(anchors), path)  # fmt: skip
    return kept


def fingerprint(found) -> str:
    """Short hash of what `load` gives; "" of None."""
    if found is None:
        return ""
    digest = hashlib.sha256()
    for record, row in sorted(found.items()):
        digest.update(np.array([record, *row], np.int64).tobytes())
    return digest.hexdigest()[:16]


def _keys(column, rows):
    return zip(*(column(name)[rows].tolist() for name in KEY), strict=True)
