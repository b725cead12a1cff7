"""Where DeepfakeBench's processed files are: folders of PNG and .npy, or LMDB environments of their bytes.

Both are read through two functions, `read(path)` -> bytes or None and `list_videos(unit)` -> {video: frame paths}, with
paths below the root, forward slashes. Source: reference/datasets.md 2.1 and 2.3.
"""

from typing import NamedTuple

import numpy as np

from data_prep import contents, features
from data_prep.layout import PreparedDataError
from msddf_jax.data import schema

_RGB_FOLDERS = ("rgb", "datasets/rgb", "datasets", ".")
_LMDB_FOLDERS = ("lmdb", "datasets/lmdb", "datasets", ".")
_PROBES = 64
_DTYPES = {648: "<i4", 1296: "<i8"}


class Store(NamedTuple):
    """read(path): bytes of a file, None where there is none. has(path): whether there is one.

    list_videos(unit): {video: list of frame paths} below `<unit>/frames`. is_lmdb: whether landmarks are bare numbers.
    """

    read: object
    has: object
    list_videos: object
    is_lmdb: bool


def open_rgb(root, folders):
    """The folders of processed files below a root.

    Args:
      root: Path, DeepfakeBench's root. folders: names of data set folders that paths start with.

    Raises:
      PreparedDataError: one of them is in none of rgb/, datasets/rgb/, datasets/ and the root.
    """
    bases = {}
    for folder in folders:
        there = [root / base for base in _RGB_FOLDERS if (root / base / folder).is_dir()]
        if not there:
            raise PreparedDataError(
                f"no folder {folder} in {', '.join(str(root / base) for base in _RGB_FOLDERS)}: the JSON's frames are "
                "there in a DeepfakeBench download; for LMDB files take the config with _lmdb"
            )
        bases[folder] = there[0]
    place = lambda path: bases[path.split("/", 1)[0]] / path

    def read(path):
        # DF40's FaceForensics++ frames are in `frames_all`.
        for name in (path, path.replace("/frames/", "/frames_all/")):
            try:
                return place(name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def has(path):
        return place(path).is_file() or place(path.replace("/frames/", "/frames_all/")).is_file()

    def list_videos(unit):
        folder = place(f"{unit}/frames")
        if not folder.is_dir():
            return {}
        return {
            video.name: [f"{unit}/frames/{video.name}/{image.name}" for image in contents.matching(video, "*.png")]
            for video in contents.children(folder)
            if video.is_dir()
        }

    return Store(read, has, list_videos, False)


def open_lmdb(root, folders, probes):
    """The LMDB environments `<folder>_lmdb` below a root, read-only.

    Args:
      root: Path, DeepfakeBench's root. folders: names of data set folders that paths start with.
      probes: paths of frames, from which the spelling of keys is found out: all backslashes (written on Windows), a
        backslash and then slashes (on Linux), or slashes.

    Raises:
      PreparedDataError: no such environment; none of the first probes is in it under any spelling; the
        package lmdb is not installed.
    """
    opened = {}
    for folder in folders:
        path = _lmdb_path(root, folder)
        env = _open_environment(path)
        mine = [probe for probe in probes if probe.split("/", 1)[0] == folder][:_PROBES]
        opened[folder] = env, _key_spelling(env, mine, path)

    def read(path):
        env, spell = opened[path.split("/", 1)[0]]
        with env.begin() as transaction:
            return transaction.get(spell(path))

    def list_videos(unit):
        env, spell = opened[unit.split("/", 1)[0]]
        prefix, videos = spell(f"{unit}/frames/"), {}
        with env.begin() as transaction, transaction.cursor() as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix):
                name = cursor.key()[len(prefix) :].decode(errors="replace").replace("\\", "/")
                if name.count("/") == 1 and name.endswith(".png") and contents.is_data(name):
                    videos.setdefault(name.split("/")[0], []).append(f"{unit}/frames/{name}")
                found = cursor.next()
        return videos

    return Store(read, lambda path: read(path) is not None, list_videos, True)


def _lmdb_path(root, folder):
    places = [root / base / f"{folder}_lmdb" for base in _LMDB_FOLDERS]
    for path in places:
        if (path / "data.mdb").is_file():
            return path
    raise PreparedDataError(f"no LMDB environment {folder}_lmdb/data.mdb in {', '.join(str(p.parent) for p in places)}")


def _open_environment(path):
    try:
        import lmdb  # only these configs need it
    except ImportError as error:
        raise PreparedDataError("LMDB files need the package lmdb: pip install lmdb") from error
    try:
        return lmdb.open(str(path), create=False, readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise PreparedDataError(f"{path}: not an LMDB environment ({error})") from error


def _key_spelling(env, probes, path):
    spellings = (
        lambda p: p.replace("/", "\\").encode(),
        lambda p: p.replace("/", "\\", 1).encode(),
        lambda p: p.encode(),
    )
    with env.begin() as transaction:
        for probe in probes:
            for spell in spellings:
                if transaction.get(spell(probe)) is not None:
                    return spell
        entries = transaction.stat()["entries"]
        first = [key.decode(errors="replace") for key, _ in zip(transaction.cursor().iternext(values=False), range(3))]
    raise PreparedDataError(
        f"{path}: key flavour unknown: none of {', '.join(probes[:3])} is a key with backslashes or slashes. It has "
        f"{entries} keys, first {first}. DeepfakeBench's LMDB writer leaves out every folder with 'video' in its path, "
        "so that DeeperForensics-1.0 and DFDCP's reals are in none; read the rgb folders"
    )


def parse_landmarks(data, where, *, bare):
    """Landmarks of a 256-pixel crop, dlib's order.

    Args:
      data: bytes of a .npy file, or with `bare` of the numbers alone, as LMDB holds them: int32 where Windows wrote
        them, int64 where Linux did, told apart by length. where: for messages.

    Returns:
      [81, 2] float32; negative coordinates, of points left of or above the crop, stay negative.

    Raises:
      PreparedDataError: neither.
    """
    shape = (schema.NUM_LANDMARKS, 2)
    if bare:
        if len(data) not in _DTYPES:
            raise PreparedDataError(f"{where}: landmarks of {len(data)} bytes, expected 648 (int32) or 1296 (int64)")
        return np.frombuffer(data, _DTYPES[len(data)]).reshape(shape).astype(np.float32)
    points = features.parse_npy(data)
    if points is None or not np.isfinite(points).all():
        raise PreparedDataError(f"{where}: not a .npy file of finite numbers {shape}; it starts {data[:60]!r}")
    return points
