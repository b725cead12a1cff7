"""Finds the same images in two built splits: by the bytes of a stored frame, and by perceptual hash.

A perceptual hash is OpenCV's `img_hash.PHash`: 64 bits, the signs of the low frequencies of the 32x32 image. Crops
of one video at another compression, size or file format stay within a few bits.
"""

import concurrent.futures
import functools
import hashlib
import os
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2
from tqdm import tqdm

from data_prep.layout import PreparedDataError
from msddf_jax.opencv import cv2

SAMPLED = 4
DISTANCE = 4
# One frame of two people can come near by chance; a copy with another number of frames shares its first and last.
MIN_FRAMES = 2
# Of the finer halves of two images. Drawn faces of different people reach 0.83, copies at a quarter of the size and
# JPEG quality 40 keep 0.98, moved by 2 pixels of 256 and 1.5 % larger 0.97.
CORRELATION = 0.95
# Bits of a hash that are looked up at once: with at most five bits differing, one band differs in at most one.
_BANDS = ((0, 22), (22, 21), (43, 21))
_MAX_DISTANCE = 5
_MAX_CANDIDATES = 1 << 22


class Frames(NamedTuple):
    """The frames of a split.

    video: [N] int64, row of the index of each record's frame. digest: [N] uint64 of the stored image bytes.
    sampled_video: [M] int64. hash: [M] uint64, perceptual, of `SAMPLED` frames a video (empty where not asked for).
    """

    video: np.ndarray
    digest: np.ndarray
    sampled_video: np.ndarray
    hash: np.ndarray


def read_frames(folder, split, num_records, perceptual=True):
    """Hash the frames of a built split; every record is read, `SAMPLED` frames a video are decoded.

    Args:
      folder: of the built set. split: name. num_records: int for each video, from the index.
      perceptual: whether to decode.

    Returns:
      Frames.

    Raises:
      PreparedDataError: records that are missing, damaged, or not those of the index.
    """
    builder = tfds.builder_from_directory(folder)
    reader = builder.as_data_source(
        tfds.core.ReadInstruction(split), deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    if len(reader) != sum(num_records):
        raise PreparedDataError(
            f"{folder}: index-{split}.csv lists {sum(num_records)} records, the split has {len(reader)}; "
            "build the set again (python -m data_prep.build ... --overwrite)"
        )
    video = np.repeat(np.arange(len(num_records)), num_records)
    sampled = np.zeros(len(video), bool)
    sampled[[number for numbers in sampled_records(num_records) for number in numbers]] = perceptual

    def hash_record(number):
        images = _images(reader[number], f"{folder} {split} record {number}")
        digests = [int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "little") for image in images]
        # Of a clip its first frame.
        return digests, _perceptual(images[0], f"{folder} {split} record {number}") if sampled[number] else None

    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        # In pieces: `map` would hold every record's future at once.
        done = []
        with tqdm(total=len(video), desc=f"hash {split}", unit="record", mininterval=0.5) as bar:
            for piece in _pieces(len(video), 256 * workers):
                done += pool.map(hash_record, piece)
                bar.update(len(piece))
    return Frames(
        video=np.repeat(video, [len(digests) for digests, _ in done]),
        digest=np.array([d for digests, _ in done for d in digests], np.uint64),
        sampled_video=video[sampled],
        hash=np.array([value for _, value in done if value is not None], np.uint64),
    )


def hash_files(videos):
    """Hash prepared crops.

    Args:
      videos: for each video a list of paths of its images, which `open` or `etils.epath` reads, in order.

    Returns:
      Frames, those that are sampled alone.

    Raises:
      PreparedDataError: an image that does not decode.
    """
    paths = [[images[i] for i in _sampled(len(images))] for images in videos]
    video = np.repeat(np.arange(len(videos)), [len(images) for images in paths])

    def hash_file(path):
        data = path.read_bytes()
        return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"), _perceptual(data, path)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        flat = [path for images in paths for path in images]
        done = []
        with tqdm(total=len(flat), desc="look alike", unit="image", mininterval=0.5, disable=not flat) as bar:
            for piece in _pieces(len(flat), 1024):
                done += pool.map(hash_file, [flat[i] for i in piece])
                bar.update(len(piece))
    digest, value = (np.array([one[i] for one in done], np.uint64) for i in (0, 1))
    return Frames(video, digest, video, value)


def look_alikes(videos):
    """Pairs of videos that look the same, of one set. videos: as `hash_files` takes them.

    Returns:
      set of (u, v), u < v, of `similar_videos`, where one has a single image after `confirm`.
    """
    frames = hash_files(videos)
    sure, _ = similar_videos(frames, frames)
    read = lambda number: [
        _decode(path.read_bytes(), path) for path in (videos[number][i] for i in _sampled(len(videos[number])))
    ]
    counts = [len(images) for images in videos]
    return confirm({(u, v) for u, v in sure if u < v}, counts, counts, read, read)


def confirm(pairs, first_counts, second_counts, read_first, read_second):
    """The pairs of `similar_videos` that rest on more than one hash.

    Where a video has a single frame, two people can come near by chance: there the finer half of the two images, at
    32 x 32, must correlate by `CORRELATION`. Copies do at any common size and quality.

    Args:
      pairs: set of (row, row). first_counts, second_counts: frames of each row. read_first, read_second: functions of
        a row -> list of uint8 BGR images, its sampled frames.

    Returns:
      set of (row, row).
    """
    detail = functools.lru_cache(4096)(lambda read, row: np.stack([_detail(image) for image in read(row)]))
    return {
        (u, v)
        for u, v in pairs
        if min(first_counts[u], second_counts[v]) >= MIN_FRAMES
        or (detail(read_first, u) @ detail(read_second, v).T).max() >= CORRELATION
    }


def _detail(image):
    """float32 [1024] of length 1, the finer half of an image; zeros where it has none."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    fine = grey.astype(np.float32) - cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 4)
    fine = (fine - fine.mean()).ravel()
    return fine / max(float(np.linalg.norm(fine)), 1e-6)


def _sampled(count):
    return sorted(set(np.linspace(0, count - 1, SAMPLED if count else 0).astype(int).tolist()))


def read_images(folder, split, numbers):
    """uint8 BGR images of records of a built split, of a clip its first frame. folder, split: as `read_frames`."""
    builder = tfds.builder_from_directory(folder)
    reader = builder.as_data_source(
        tfds.core.ReadInstruction(split), deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    where = [f"{folder} {split} record {number}" for number in numbers]
    return [_decode(_images(reader[n], at)[0], at) for n, at in zip(numbers, where, strict=True)]


def sampled_records(num_records):
    """For each video the numbers of its sampled records. num_records: as `read_frames`."""
    starts = np.cumsum(num_records) - num_records
    return [[int(start) + i for i in _sampled(count)] for start, count in zip(starts, num_records, strict=True)]


def same_frames(first, second):
    """Frames stored with the same bytes in both.

    Args:
      first, second: Frames.

    Returns:
      (number of distinct images, set of (video of the first, video of the second)).
    """
    common, a, b = np.intersect1d(first.digest, second.digest, return_indices=True)
    return len(common), {(int(first.video[i]), int(second.video[j])) for i, j in zip(a, b, strict=True)}


def similar_videos(first, second, distance=DISTANCE):
    """Videos whose sampled frames look the same.

    Returns:
      (pairs of which at least `MIN_FRAMES` sampled frames, or all where there are fewer, have a neighbour within
      `distance` bits in the other video; pairs of which fewer have), sets of (row of the first, row of the second).
    """
    a, b = near_pairs(first.hash, second.hash, distance)
    seen = {}
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        frames = seen.setdefault((int(first.sampled_video[i]), int(second.sampled_video[j])), (set(), set()))
        frames[0].add(i)
        frames[1].add(j)
    counts = [np.bincount(frames.sampled_video) for frames in (first, second)]
    sure = {
        (u, v)
        for (u, v), (left, right) in seen.items()
        if len(left) >= min(MIN_FRAMES, counts[0][u]) and len(right) >= min(MIN_FRAMES, counts[1][v])
    }
    return sure, set(seen) - sure


def near_pairs(first, second, distance=DISTANCE):
    """All pairs of hashes that differ in at most `distance` bits.

    A pair differs in at most one bit in one of three bands, so each hash of the second looks up 67 values among the
    sorted bands of the first: O((N + 67 M) log N) and the candidates that agree in such a band, for random hashes
    67 N M / 2^21.

    Args:
      first: [N] uint64. second: [M] uint64. distance: 0 to 5.

    Returns:
      (i [P] int64, j [P] int64), sorted by i, then j; each pair once.

    Raises:
      ValueError: another distance.
    """
    if not 0 <= distance <= _MAX_DISTANCE:
        raise ValueError(f"distance {distance}: the lookup finds pairs of at most {_MAX_DISTANCE} differing bits")
    found = [np.zeros((0, 2), np.int64)]
    for shift, width in _BANDS:
        mask = np.uint64((1 << width) - 1)
        band = (first >> np.uint64(shift)) & mask
        order = np.argsort(band, kind="stable")
        band = band[order]
        wanted = (second >> np.uint64(shift)) & mask
        for flip in (0, *(1 << k for k in range(width))):
            low = np.searchsorted(band, wanted ^ np.uint64(flip), "left")
            high = np.searchsorted(band, wanted ^ np.uint64(flip), "right")
            found += [_close(first, second, order, *piece, distance) for piece in _limited(low, high - low)]
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _limited(low, count):
    """(rows, low, count) of the second's hashes that have candidates, at most some millions of candidates a piece."""
    rows = np.flatnonzero(count)
    pieces = np.cumsum(count[rows]) // _MAX_CANDIDATES
    for piece in np.unique(pieces):
        part = rows[pieces == piece]
        yield part, low[part], count[part]


def _close(first, second, order, rows, low, count, distance):
    j = np.repeat(rows, count)
    offset = np.arange(len(j)) - np.repeat(np.cumsum(count) - count, count)
    i = order[np.repeat(low, count) + offset]
    near = np.bitwise_count(first[i] ^ second[j]) <= distance
    return np.stack([i[near], j[near]], -1)


def _pieces(total, size):
    for start in range(0, total, size):
        yield range(start, min(start + size, total))


def _images(raw, where):
    """Encoded images of a record: one, or those of a clip."""
    try:
        feature = tf_example_pb2.Example.FromString(raw).features.feature
    except DecodeError as error:
        raise PreparedDataError(f"{where} is no record that data_prep.build writes, or it is damaged") from error
    for name in ("image", "frames/image"):
        if name in feature and feature[name].bytes_list.value:
            return list(feature[name].bytes_list.value)
    raise PreparedDataError(f"{where} has no image; it has {sorted(feature)}")


def _perceptual(data, where):
    return int.from_bytes(cv2.img_hash.pHash(_decode(data, where)).tobytes(), "little")


def _decode(data, where):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise PreparedDataError(f"{where}: its image does not decode; prepare and build the set again")
    return image
