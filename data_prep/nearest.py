"""For every real face of built sets the real faces of other people whose landmarks lie nearest, for Face X-ray.

    python -m data_prep.nearest faceforensics/c23:train --data_dir DIR --out nearest.npz

An argument is "<data set>/<config>" below --data_dir or the folder of a built set, with ":<split>"; without, its split
"train". The file is read with --config.data.group.nearest=nearest.npz (configs/detectors/face_xray.py). Two records of
one identity, of one group of videos or of one video are never near; the public code, whose list is a pickle, leaves
only the frame itself out. Every distance is computed: half a minute for 23,000 records. Exit code: 0, 1 for records
that cannot be read, 2 for arguments.
"""

import argparse
import pathlib
import sys

import numpy as np

from data_prep import leakage
from msddf_jax import paths
from msddf_jax.data import overlap, schema

# Neighbours of a face (Li et al., CVPR 2020, section 3.2).
NUMBER = 100
# Distances that are held at once.
_AT_ONCE = 1 << 24


def find_nearest(points, person, number=NUMBER):
    """Rows of others that lie nearest to each row, the nearest first.

    Args:
      points: float [R, D]. person: int [R]; rows of one number are never near. number: of neighbours.

    Returns:
      int32 [R, number], -1 where there are fewer.
    """
    points = np.asarray(points, np.float64)
    points = points - points.mean(0)
    power, count = (points**2).sum(1), len(points)
    out = np.full((count, number), -1, np.int32)
    kept, block = min(number, count), max(1, _AT_ONCE // max(count, 1))
    for start in range(0, count, block):
        rows = slice(start, start + block)
        distance = power[rows, None] + power[None, :] - 2 * points[rows] @ points.T
        distance[person[rows, None] == person[None, :]] = np.inf
        near = np.argpartition(distance, kept - 1, axis=1)[:, :kept]
        near = np.take_along_axis(near, np.argsort(np.take_along_axis(distance, near, 1), 1, "stable"), 1)
        found = np.isfinite(np.take_along_axis(distance, near, 1))
        out[rows, :kept] = np.where(found, near, -1)
    return out


def read_reals(built):
    """The real records of built splits that have landmarks.

    Args:
      built: list of leakage.Built.

    Returns:
      dict of, for R records: dataset, compression, video_id [R] str, frame_index [R] int32, landmarks [R, 162] float32
      (of a clip the mean of its frames'), person [R] str (`overlap.persons`).

    Raises:
      PreparedDataError: records that cannot be read. UsageError: none with landmarks.
    """
    rows = [row for split in built for row in _read_split(split)]
    if not rows:
        names = ", ".join(split.names.name for split in built)
        raise leakage.UsageError(f"no real record of {names} has landmarks: prepare a set from videos or whole images")
    names = ("dataset", "compression", "video_id", "frame_index", "person", "landmarks")
    columns = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
    return columns | {"frame_index": columns["frame_index"].astype(np.int32)}


def _read_split(split):
    """Yields what `read_reals` keeps of each record."""
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    from data_prep.layout import PreparedDataError

    columns = overlap.read_index(split.folder / f"index-{split.split}.csv")
    reader = tfds.builder_from_directory(split.folder).as_data_source(
        tfds.core.ReadInstruction(split.split), deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    if len(reader) != sum(split.num_records):
        raise PreparedDataError(
            f"{split.folder}: index-{split.split}.csv lists {sum(split.num_records)} records, the split has "
            f"{len(reader)}; build the set again (python -m data_prep.build ... --overwrite)"
        )
    persons = overlap.persons(columns)
    first = np.cumsum(split.num_records) - split.num_records
    reals = [video for video, label in enumerate(columns["label"]) if label == schema.LABELS[0]]
    for video in tqdm(reals, desc=f"landmarks {split.names.name}", unit="video", mininterval=0.5):
        about = [columns[name][video] for name in ("dataset", "compression", "video_id")]
        for number, frame in enumerate(columns["frame_index"][video].split()):
            record = int(first[video]) + number
            landmarks = _landmarks(reader[record], f"{split.folder} {split.split} record {record}")
            if landmarks is not None:
                yield (*about, int(frame), persons[video], landmarks)


def _landmarks(raw, where):
    """float32 [162] of a record's bytes, None where a frame of it has none."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    from data_prep.layout import PreparedDataError

    try:
        feature = tf_example_pb2.Example.FromString(raw).features.feature
    except DecodeError as error:
        raise PreparedDataError(f"{where} is no record that data_prep.build writes, or it is damaged") from error
    start = "" if "landmarks" in feature else "frames/"
    there = feature[f"{start}has_landmarks"].int64_list.value
    points = np.array(feature[f"{start}landmarks"].float_list.value, np.float32)
    if not there or len(points) != len(there) * 2 * schema.NUM_LANDMARKS:
        raise PreparedDataError(f"{where} has no landmarks of {schema.NUM_LANDMARKS} points; it has {sorted(feature)}")
    return points.reshape(len(there), -1).mean(0) if all(there) else None


def main(argv=None):
    """Command line. Returns 0, 1 where records cannot be read, or 2."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.nearest", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sets", type=paths.expand, nargs="+", help="<data set>/<config>[:<split>] or a folder[:<split>]"
    )
    parser.add_argument(
        "--data_dir", type=paths.expand, help="where built sets are; $TFDS_DATA_DIR or ~/tensorflow_datasets by default"
    )
    parser.add_argument("--out", type=paths.expand, required=True, help="the file to write, .npz")
    parser.add_argument("--number", type=int, default=NUMBER, help=f"neighbours of each face, {NUMBER} by default")
    args = parser.parse_args(argv)
    if args.number < 1 or not args.out.endswith(".npz"):
        parser.error(f"--number {args.number}, --out {args.out}: at least one neighbour, and a file that ends in .npz")
    named = [name if ":" in name.rsplit("/", 1)[-1] else f"{name}:train" for name in args.sets]
    # Reading records needs TFDS, which takes seconds to import.
    from data_prep.layout import PreparedDataError

    try:
        columns = read_reals(leakage.open_splits(named, args.data_dir))
    except (leakage.UsageError, PreparedDataError) as error:
        print(f"data_prep.nearest: {error}", file=sys.stderr)
        return 2 if isinstance(error, leakage.UsageError) else 1
    _, person = np.unique(columns.pop("person"), return_inverse=True)
    near = find_nearest(columns.pop("landmarks"), person, args.number)
    pathlib.Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out, nearest=near, **columns)
    alone = int((near < 0).all(1).sum())
    print(f"{args.out}: {len(near)} real records of {len(set(person.tolist()))} people, {alone} without a neighbour")
    return 0


if __name__ == "__main__":
    sys.exit(main())
