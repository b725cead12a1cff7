"""Sampled frames of a video or of images, with masks and sidecar landmarks, before faces are looked for."""

import dataclasses
import os
import pathlib
import re

import numpy as np

from msddf_jax.data.schema import NUM_LANDMARKS
from msddf_jax.faces import image_file, video
from msddf_jax.faces.landmarks import from_dlib_order
from msddf_jax.opencv import cv2

# Of a landmark, in pixels: no image is as wide, and damaged floats are often far beyond.
MAX_COORDINATE = 1e5
_NPY_HEADER = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|\x02\x00....)"
    rb"\{'descr': '([<>|][a-zA-Z][0-9]{1,4})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,9}, ?){0,4}[0-9]{0,9})\), \} *\n",
    re.DOTALL,
)


class LandmarkFileError(ValueError):
    """A sidecar landmark file is missing or malformed; `code` is landmarks_missing or landmarks_invalid."""

    def __init__(self, code, path, detail):
        super().__init__(f"{path}: {detail} [{code}]")
        self.code, self.path, self.detail = code, str(path), detail

    def __reduce__(self):
        return type(self), (self.code, self.path, self.detail)


@dataclasses.dataclass(frozen=True)
class Drop:
    """A sampled frame that gave no face, or (`frame_index` -1) something the whole video lacks."""

    frame_index: int
    code: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Scene:
    """Sampled frames of a video, or of a sequence of images, before a face is looked for.

    Attributes:
      frames: frame number -> uint8 RGB [H, W, 3], in order.
      masks: frame number -> uint8 [H, W], above 1 = manipulated; None where there are none.
      points: frame number -> float32 [81, 2], the sidecar's; None where faces are to be detected.
      drops, info, num_decoded: as in `Extraction`.
    """

    frames: dict
    masks: dict | None
    points: dict | None
    drops: list
    info: video.VideoInfo | None
    num_decoded: int


def read_video_scene(path, sample, *, mask_path=None, sidecar=False, limits=None) -> Scene:
    """The sampled frames of a video, with its mask video's.

    Args:
      path: a video file. sample: function from a number of frames to those to take, such as `video.sample_indices`
        with its k. mask_path: mask video with the same frames, or None; where it is shorter, it is sampled from.
      sidecar: whether `<stem>.landmarks.npy` beside the video is read. limits: arguments of `video.check_limits`.

    Returns:
      `Scene`. Codes of frames lost: truncated, corrupt_frame; with the sidecar also no_face and landmarks_invalid (it
      is too short). Of the whole video (frame_index -1): truncated (its header promises more frames than there are),
      odd_header (something else in it is wrong, and nothing lost), decode_errors (it or its mask is damaged somewhere:
      frames that the decoder does not call damaged are kept), mask_len_mismatch, mask_size_mismatch, mask_unreadable.

    Raises:
      video.VideoError, LandmarkFileError.
    """
    limits = limits or {}
    info = video.probe(path)
    video.check_limits(info, path, **limits)
    # Before the decode, which costs most, so that a missing file is reported at once.
    points = read_sidecar(sidecar_path(path)) if sidecar else None
    drops = [Drop(-1, "truncated", info.cut_short)] * bool(info.cut_short)
    drops += [Drop(-1, "odd_header", info.odd)] * bool(info.odd)
    usable, mask_info = _usable_frames(info, mask_path, drops, limits)
    indices = sample(usable)
    decoded = video.read_frames(path, indices, info=info)
    if decoded.ended and decoded.num_decoded < usable:
        # Two fields of a frame may be two packets: only the decoder knows how many frames there are.
        detail = f"{info.num_frames} packets hold {decoded.num_decoded} frames"
        drops.append(Drop(-1, "odd_header", detail))
        indices = sample(decoded.num_decoded)
        decoded = video.read_frames(path, indices, info=info)
    corrupt = set(decoded.corrupt)
    for i in (i for i in indices.tolist() if i not in decoded.frames):
        reason = ("corrupt_frame", "damaged, says the decoder") if i in corrupt else ("truncated", decoded.truncated)
        drops.append(Drop(i, *reason))
    _tell_damage(decoded, pathlib.Path(path).name, drops)
    masks = None if mask_info is None else _read_masks(mask_path, mask_info, decoded, drops)
    if sidecar:
        points = _points_of_frames(points, sidecar_path(path).name, decoded.frames, drops)
    return Scene(decoded.frames, masks, points, drops, info, decoded.num_decoded)


def read_image_scene(images, sample, *, masks=None, sidecar=False, optional=False) -> Scene:
    """The sampled images of a sequence.

    Args:
      images: ((frame number, path), ...) by number. sample: as in `read_video_scene`, of their count.
      masks: ((frame number, path), ...) of mask images of the same size, or None.
      sidecar: whether `<stem>.landmarks.npy` [1, 81, 2] beside each image is read. optional: whether it may be absent.

    Returns:
      `Scene`. Codes of frames lost: corrupt_image, image_too_large, image_too_small; with sidecars also
      landmarks_missing, landmarks_invalid and no_face. Of frames kept: decode_errors (a JPEG that decodes with
      complaints); mask_missing, mask_unreadable, mask_size_mismatch, the frame then being without a mask.
    """
    frames, read_masks, points, drops = {}, {}, {}, []
    mask_of = dict(masks or ())
    for index, path in (images[i] for i in sample(len(images)).tolist()):
        try:
            frames[index] = image_file.read_image(path)
        except image_file.ImageError as error:
            drops.append(Drop(index, error.code, error.detail))
            continue
        if complaint := image_file.jpeg_complaint(path):
            drops.append(Drop(index, "decode_errors", f"{complaint}; kept"))
        if masks:
            mask = _read_mask_image(mask_of.get(index), frames[index].shape, index, drops)
            read_masks |= {} if mask is None else {index: mask}
        if sidecar and not (optional and not os.path.isfile(sidecar_path(path))):
            one = _image_points(path, index, drops)
            points |= {} if one is None else {index: one}
    return Scene(frames, read_masks or None, points if sidecar else None, drops, None, len(frames))


def sidecar_path(video_path) -> pathlib.Path:
    """`<stem>.landmarks.npy` beside a video."""
    video_path = pathlib.Path(video_path)
    return video_path.with_name(f"{video_path.stem}.landmarks.npy")


def read_sidecar(path) -> np.ndarray:
    """Landmarks that come with a video.

    Args:
      path: .npy file, [num_frames, 81, 2], full-frame pixels, dlib order, NaN where a frame has no face.

    Returns:
      float32 [num_frames, 81, 2], forehead left to right.

    Raises:
      LandmarkFileError: landmarks_missing, landmarks_invalid.
    """
    path = pathlib.Path(path)
    if not os.path.isfile(path):  # False also of a name that is too long for one
        raise LandmarkFileError("landmarks_missing", path, "no such landmark file")
    points = _load_array(path)
    if points.ndim != 3 or points.shape[1:] != (NUM_LANDMARKS, 2) or points.dtype.kind not in "fiu":
        detail = f"expected [frames, {NUM_LANDMARKS}, 2] numbers, found {points.dtype} {points.shape}"
        raise LandmarkFileError("landmarks_invalid", path, detail)
    return from_dlib_order(points.astype(np.float32))


def _load_array(path):
    """The array of an .npy file whose header is numpy's own and whose size is what it says, else LandmarkFileError.

    Not through np.load, which evaluates the header as Python: a damaged one raises what the tokenizer does.
    """
    data = path.read_bytes()
    header = _NPY_HEADER.match(data)
    try:
        dtype, shape = np.dtype(header[1].decode()), tuple(int(v) for v in header[3].split(b",") if v.strip())
        values = np.frombuffer(data, dtype, offset=header.end())
        return values.reshape(shape, order="F" if header[2] == b"True" else "C")
    except (ValueError, TypeError) as error:
        detail = "no such header" if header is None else error
        raise LandmarkFileError("landmarks_invalid", path, f"not an .npy file ({detail})") from error


def _are_points(points):
    return np.isfinite(points).all() and np.abs(points).max() <= MAX_COORDINATE


def _usable_frames(info, mask_path, drops, limits):
    """How many frames can be sampled, and what is known of the mask video if it can be used, else None."""
    if mask_path is None:
        return info.num_frames, None
    try:
        mask_info = video.probe(mask_path)
        video.check_limits(mask_info, mask_path, **limits)
    except video.VideoError as error:
        drops.append(Drop(-1, "mask_unreadable", f"{pathlib.Path(mask_path).name}: {error.detail}"))
        return info.num_frames, None
    if mask_info.num_frames == 0 or mask_info.width * info.height != mask_info.height * info.width:
        detail = (
            f"mask {mask_info.width}x{mask_info.height}, {mask_info.num_frames} frames; "
            f"video {info.width}x{info.height}"
        )
        drops.append(Drop(-1, "mask_size_mismatch", detail))
        return info.num_frames, None
    if mask_info.num_frames != info.num_frames:
        detail = f"mask has {mask_info.num_frames} frames, the video {info.num_frames}; the shorter is used"
        drops.append(Drop(-1, "mask_len_mismatch", detail))
    return min(info.num_frames, mask_info.num_frames), mask_info


def _tell_damage(decoded, name, drops):
    if decoded.corrupt:
        detail = (
            f"{name}: {len(decoded.corrupt)} of {decoded.num_decoded} frames are damaged, first {decoded.corrupt[0]}"
        )
        drops.append(Drop(-1, "decode_errors", detail))


def _read_masks(mask_path, mask_info, decoded, drops):
    """Frame number -> uint8 [H, W] of the frame's size, or None where the mask video cannot be read."""
    if not decoded.frames:
        return None
    try:
        read = video.read_frames(mask_path, list(decoded.frames), info=mask_info)
    except video.VideoError as error:
        drops.append(Drop(-1, "mask_unreadable", f"{pathlib.Path(mask_path).name}: {error.detail}"))
        return None
    _tell_damage(read, pathlib.Path(mask_path).name, drops)
    masks = {}
    for index, image in read.frames.items():
        mask = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        height, width = decoded.frames[index].shape[:2]
        if mask.shape != (height, width):
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        masks[index] = mask
    return masks


def _read_mask_image(path, shape, index, drops):
    """uint8 [H, W], or None with a drop."""
    if path is None:
        drops.append(Drop(index, "mask_missing", "this frame has no mask; kept without"))
        return None
    try:
        mask = cv2.cvtColor(image_file.read_image(path), cv2.COLOR_RGB2GRAY)
    except image_file.ImageError as error:
        drops.append(Drop(index, "mask_unreadable", f"{pathlib.Path(path).name}: {error.detail}; kept without"))
        return None
    if mask.shape != shape[:2]:
        detail = f"mask {mask.shape[1]}x{mask.shape[0]}, image {shape[1]}x{shape[0]}; kept without"
        drops.append(Drop(index, "mask_size_mismatch", detail))
        return None
    return mask


def _points_of_frames(points, name, frames, drops):
    """Frame number -> [81, 2], of a sidecar's [num_frames, 81, 2]."""
    found = {}
    for index in frames:
        if index >= len(points):
            drops.append(Drop(index, "landmarks_invalid", f"{name} has only {len(points)} frames"))
        elif _are_points(points[index]):
            found[index] = points[index]
        elif np.isfinite(points[index]).all():
            drops.append(Drop(index, "landmarks_invalid", f"{name} has a point further out than any image is wide"))
        else:
            drops.append(Drop(index, "no_face", f"{name} has no face in this frame"))
    return found


def _image_points(path, index, drops):
    """[81, 2] of an image's sidecar, or None with a drop."""
    name = sidecar_path(path).name
    try:
        points = read_sidecar(sidecar_path(path))
    except LandmarkFileError as error:
        drops.append(Drop(index, error.code, f"{name}: {error.detail}"))
        return None
    if len(points) != 1:
        drops.append(Drop(index, "landmarks_invalid", f"{name} has {len(points)} frames, an image has one"))
    elif not np.isfinite(points).all():
        drops.append(Drop(index, "no_face", f"{name} has no face"))
    elif not _are_points(points):
        drops.append(Drop(index, "landmarks_invalid", f"{name} has a point further out than any image is wide"))
    else:
        return points[0]
    return None
