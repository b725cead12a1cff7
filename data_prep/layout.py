"""The prepared layout, DeepfakeBench's own: `<unit>/{frames,landmarks,masks}/<video>/<frame>.{png,npy}`.

A unit is the folder that was scanned, for FF++ `manipulated_sequences/Deepfakes/c23`. `data_prep.prepare`
adds `<unit>/meta/<video>.json`, written last, so that a video that was cut off is told from a finished one.
"""

import json
import pathlib
from typing import NamedTuple

import numpy as np

from data_prep import contents


class PreparedDataError(ValueError):
    """A prepared data set is not as it should be; the message names the file and what to do."""


class FrameFiles(NamedTuple):
    """The files of one prepared frame; landmarks and mask are None where there is none.

    index: number of the frame in the original video.
    """

    index: int
    image: pathlib.Path
    landmarks: pathlib.Path | None
    mask: pathlib.Path | None


class Video(NamedTuple):
    """A prepared video.

    frames: list of FrameFiles by index; empty where no frame had a usable face.
    num_frames: frames of the original that decode.
    geometry: {frame index: (bbox [4] float32, matrix [2, 3] float32)}.
    """

    frames: list
    num_frames: int
    geometry: dict


def read_video(unit, name):
    """The files of one prepared video.

    Args:
      unit: Path of the unit. name: of the video.

    Returns:
      Video, or None where it is not prepared, or not to the end.

    Raises:
      PreparedDataError: files that contradict each other, a frame without landmarks beside others that have
        them (where the meta file does not call them optional), or a file name that is not a frame number.
    """
    meta_path = unit / "meta" / f"{name}.json"
    if not meta_path.exists():
        return None
    num_frames, geometry, optional = read_meta(meta_path)
    images = _numbered(unit / "frames" / name, ".png")
    if set(images) != set(geometry):
        raise PreparedDataError(
            f"{meta_path} lists the frames {_some(geometry)}, {unit / 'frames' / name} holds "
            f"{_some(images)}; delete both and prepare {name} again"
        )
    landmarks = _numbered(unit / "landmarks" / name, ".npy")
    masks = _numbered(unit / "masks" / name, ".png")
    if not optional and (unit / "landmarks").is_dir() and set(images) - set(landmarks):
        index = min(set(images) - set(landmarks))
        raise PreparedDataError(
            f"{unit / 'landmarks' / name}: no landmarks of frame {images[index].name}; prepare {name} again"
        )
    frames = [FrameFiles(i, images[i], landmarks.get(i), masks.get(i)) for i in sorted(images)]
    return Video(frames, num_frames, geometry)


def read_meta(path):
    """What `data_prep.prepare` noted about a video.

    Returns:
      decoded frames; {frame index: (bbox [4], matrix [2, 3])}; whether a frame may lack landmarks, as downloaded crops
      may in which no face was found.

    Raises:
      PreparedDataError: not such a file.
    """
    try:
        meta = json.loads(path.read_bytes())
        geometry = {
            int(frame["frame_index"]): (
                np.asarray(frame["bbox"], np.float32).reshape(4),
                np.asarray(frame["matrix"], np.float32).reshape(2, 3),
            )
            for frame in meta["frames"]
        }
        optional = {"required": False, "optional": True}[meta.get("landmarks", "required")]
        return int(meta["num_frames"]), geometry, optional
    except (ValueError, TypeError, KeyError) as error:
        raise PreparedDataError(
            f"{path}: not a meta file of data_prep.prepare ({type(error).__name__}: {error}); "
            "delete it and prepare the video again"
        ) from error


def _numbered(folder, suffix):
    """{number: path} of a video's files, by number: by name, 1000 would come before 999."""
    if not folder.is_dir():
        return {}
    files = {}
    for path in contents.children(folder):
        if path.suffix != suffix:
            continue
        if not path.stem.isdecimal():
            raise PreparedDataError(f"{path}: expected a frame number as name, like 012{suffix}")
        if int(path.stem) in files:
            raise PreparedDataError(f"{path} and {files[int(path.stem)].name} are the same frame; delete one")
        files[int(path.stem)] = path
    return dict(sorted(files.items()))


def _some(numbers):
    numbers = sorted(numbers)
    return f"{numbers[:8]}{'...' if len(numbers) > 8 else ''} ({len(numbers)})"
