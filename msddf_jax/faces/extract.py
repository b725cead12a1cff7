"""From a video or an image to aligned face crops with 81 landmarks and masks.

Landmarks of a crop are those of the full frame moved by the crop's matrix. DeepfakeBench instead detects a
second time on the crop, with another channel order, and drops the frame where that fails. Moving the points
costs half, loses no frame, and keeps landmarks, crop and mask of a frame under one and the same matrix.
"""

import dataclasses
import pathlib

import numpy as np

from msddf_jax.data.schema import NUM_LANDMARKS
from msddf_jax.faces import align, video
from msddf_jax.faces.detect import box_area, box_iou
from msddf_jax.faces.landmarks import from_dlib_order
from msddf_jax.faces.opencv import cv2

LANDMARK_SOURCES = ("mediapipe", "sidecar")
# Sampled frames are about ten apart, so that a face moves; below this it is another face.
_TRACK_IOU = 0.2


class LandmarkFileError(ValueError):
    """A sidecar landmark file is missing or malformed; `code` is landmarks_missing or landmarks_invalid."""

    def __init__(self, code, path, detail):
        super().__init__(f"{path}: {detail} [{code}]")
        self.code, self.path, self.detail = code, str(path), detail

    def __reduce__(self):
        return type(self), (self.code, self.path, self.detail)


@dataclasses.dataclass(frozen=True)
class FaceFrame:
    """One aligned face.

    Attributes:
      frame_index: frame number in the video, 0 for an image.
      image: uint8 RGB [size, size, 3].
      landmarks: float32 [81, 2], crop pixels, forehead left to right.
      bbox: float32 [4], x0 y0 x1 y1 in the original frame.
      matrix: float64 [2, 3], frame pixels to crop pixels.
      mask: uint8 [size, size], 255 = manipulated, or None where the video has no mask.
      num_faces: faces found in the frame.
    """

    frame_index: int
    image: np.ndarray
    landmarks: np.ndarray
    bbox: np.ndarray
    matrix: np.ndarray
    mask: np.ndarray | None
    num_faces: int


@dataclasses.dataclass(frozen=True)
class Drop:
    """A sampled frame that gave no face, or (`frame_index` -1) something the whole video lacks."""

    frame_index: int
    code: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What one file gave: `frames` in order, `drops` with reasons, `info` of a video's container or None."""

    frames: list
    drops: list
    info: video.VideoInfo | None
    num_decoded: int


def extract_faces(
    video_path,
    *,
    num_frames=32,
    size=256,
    preset="dfb",
    landmarks="mediapipe",
    detector=None,
    landmarker=None,
    mask_path=None,
):
    """Aligned crops of the one face that matters in a video.

    Where frames show several faces, boxes are linked over the sampled frames by overlap, and the track with
    the largest total area is kept throughout; with a mask, the one that holds the most mask pixels. Holds the
    sampled frames in memory at full size (32 frames of 1080p are 200 MB).

    Args:
      video_path: a video file.
      num_frames: frames to sample evenly, first and last included, of the shorter of the video and its mask.
      size: side of the crop in pixels.
      preset: name in `align.PRESETS`.
      landmarks: "mediapipe" (needs `detector` and `landmarker`) or "sidecar" (reads `<stem>.landmarks.npy`
        beside the video and needs no model).
      detector: from `detect.make_detector`. landmarker: from `landmarks.make_landmarker`.
      mask_path: mask video with the same frames, or None.

    Returns:
      `Extraction`; either every frame has a mask or none has. Codes of frames lost: no_face, no_landmarks,
      truncated, landmarks_invalid (the sidecar is too short), mask_len_mismatch (the mask breaks off). Of
      frames kept: landmark_out_of_range. Of the whole video (frame_index -1): mask_len_mismatch,
      mask_size_mismatch, mask_unreadable.

    Raises:
      video.VideoError: unreadable_video, zero_frames. LandmarkFileError: the sidecar is missing or malformed.
      ValueError: an unknown preset or landmark source, or no detector or landmarker given.
    """
    align.get_preset(preset)
    if landmarks not in LANDMARK_SOURCES:
        raise ValueError(f"unknown landmark source {landmarks!r}; there are {', '.join(LANDMARK_SOURCES)}")
    if landmarks == "mediapipe" and (detector is None or landmarker is None):
        raise ValueError("landmarks='mediapipe' needs a detector and a landmarker")
    info = video.probe(video_path)
    # Before the decode, which costs most, so that a missing file is told at once.
    tracks = read_sidecar(sidecar_path(video_path)) if landmarks == "sidecar" else None
    drops = []
    usable, mask_path = _usable_frames(info, mask_path, drops)
    decoded = video.read_frames(video_path, video.sample_indices(usable, num_frames))
    missing = [i for i in video.sample_indices(usable, num_frames).tolist() if i not in decoded.frames]
    drops += [Drop(i, "truncated", decoded.truncated) for i in missing]
    masks = _read_masks(mask_path, decoded, drops)
    if landmarks == "sidecar":
        found = _sidecar_faces(tracks, sidecar_path(video_path).name, decoded, drops)
    else:
        found = _detected_faces(decoded, masks, detector, landmarker, drops)
    frames = []
    for index, (points, bbox, num_faces) in found.items():
        if masks is not None and index not in masks:
            drops.append(Drop(index, "mask_len_mismatch", "the mask video ends before this frame"))
            continue
        mask = None if masks is None else masks[index]
        face = _crop(decoded.frames[index], index, points, bbox, num_faces, mask, size, preset, drops)
        if face is not None:
            frames.append(face)
    drops.sort(key=lambda drop: drop.frame_index)
    return Extraction(frames, drops, info, decoded.num_decoded)


def extract_faces_image(image, *, size=256, preset="dfb", detector=None, landmarker=None, points=None, max_faces=1):
    """Aligned crops of the faces in one image, largest first.

    Args:
      image: uint8 RGB [H, W, 3], as `video.read_image` gives it.
      size, preset, detector, landmarker: as in `extract_faces`.
      points: [81, 2] landmarks of the image, forehead left to right, in place of detector and landmarker.
      max_faces: how many faces at most.

    Returns:
      `Extraction` with `frame_index` 0 throughout; without a face it has no frames and a drop that says why.

    Raises:
      ValueError: the image is not uint8 [H, W, 3], or neither `points` nor the two models are given.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected uint8 RGB [H, W, 3], got {image.dtype} {image.shape}")
    drops, found = [], []
    if points is not None:
        found.append((points, _points_box(points), 1))
    elif detector is None or landmarker is None:
        raise ValueError("needs a detector and a landmarker, or points")
    else:
        faces = detector(image)
        if not faces:
            drops.append(Drop(0, "no_face", f"no face found in {image.shape[1]}x{image.shape[0]} pixels"))
        for face in faces[:max_faces]:
            marks = landmarker(image, face.box)
            if marks is None:
                drops.append(Drop(0, "no_landmarks", f"no landmarks in the box {_box_text(face.box)}"))
            else:
                found.append((marks, face.box, len(faces)))
    crops = [_crop(image, 0, *face, None, size, preset, drops) for face in found]
    return Extraction([crop for crop in crops if crop is not None], drops, None, 1)


def sidecar_path(video_path):
    """`<stem>.landmarks.npy` beside a video."""
    video_path = pathlib.Path(video_path)
    return video_path.with_name(f"{video_path.stem}.landmarks.npy")


def read_sidecar(path):
    """Landmarks that come with a video.

    Args:
      path: .npy file, [num_frames, 81, 2], full-frame pixels, dlib order, NaN where a frame has no face.

    Returns:
      float32 [num_frames, 81, 2], forehead left to right.

    Raises:
      LandmarkFileError: landmarks_missing, landmarks_invalid.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise LandmarkFileError("landmarks_missing", path, "no such landmark file")
    try:
        points = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise LandmarkFileError("landmarks_invalid", path, f"not an .npy file ({error})") from error
    if points.ndim != 3 or points.shape[1:] != (NUM_LANDMARKS, 2) or points.dtype.kind not in "fiu":
        detail = f"expected [frames, {NUM_LANDMARKS}, 2] numbers, found {points.dtype} {points.shape}"
        raise LandmarkFileError("landmarks_invalid", path, detail)
    return from_dlib_order(points.astype(np.float32))


def _usable_frames(info, mask_path, drops):
    """How many frames can be sampled, and the mask video if it can be used."""
    if mask_path is None:
        return info.num_frames, None
    try:
        mask_info = video.probe(mask_path)
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
    return min(info.num_frames, mask_info.num_frames), mask_path


def _read_masks(mask_path, decoded, drops):
    """Frame number -> uint8 [H, W] of the frame's size, or None without a usable mask video."""
    if mask_path is None or not decoded.frames:
        return None
    try:
        read = video.read_frames(mask_path, list(decoded.frames))
    except video.VideoError as error:
        drops.append(Drop(-1, "mask_unreadable", f"{pathlib.Path(mask_path).name}: {error.detail}"))
        return None
    masks = {}
    for index, image in read.frames.items():
        mask = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        height, width = decoded.frames[index].shape[:2]
        if mask.shape != (height, width):
            mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
        masks[index] = mask
    return masks


def _sidecar_faces(points, name, decoded, drops):
    """Frame number -> (points, bbox, 1)."""
    found = {}
    for index in decoded.frames:
        if index >= len(points):
            drops.append(Drop(index, "landmarks_invalid", f"{name} has only {len(points)} frames"))
        elif np.isfinite(points[index]).all():
            found[index] = (points[index], _points_box(points[index]), 1)
        else:
            drops.append(Drop(index, "no_face", f"{name} has no face in this frame"))
    return found


def _detected_faces(decoded, masks, detector, landmarker, drops):
    """Frame number -> (points, bbox, number of faces)."""
    faces = {index: detector(image) for index, image in decoded.frames.items()}
    chosen = choose_faces({index: [face.box for face in found] for index, found in faces.items()}, masks)
    found = {}
    for index, image in decoded.frames.items():
        if index not in chosen:
            drops.append(Drop(index, "no_face", "the detector found no face"))
            continue
        box = faces[index][chosen[index]].box
        points = landmarker(image, box)
        if points is None:
            drops.append(Drop(index, "no_landmarks", f"no landmarks in the box {_box_text(box)}"))
        else:
            found[index] = (points, box, len(faces[index]))
    return found


def choose_faces(boxes, masks=None):
    """Which face to take in each frame, the same person throughout where boxes can tell.

    Args:
      boxes: frame number -> list of boxes x0 y0 x1 y1, frames in order.
      masks: frame number -> uint8 [H, W], or None. Where some box holds mask pixels, tracks are ranked by how
        many they hold over the video, otherwise by their total area.

    Returns:
      frame number -> index into its list; frames without boxes are left out. A frame that the best track
      misses takes the next best that it has.
    """
    last, totals, track_of = (
        [],
        [],
        {},
    )  # per track: latest box, (mask pixels, area); per frame: tracks of its boxes
    for index, frame_boxes in boxes.items():
        pairs = sorted(
            ((box_iou(box, last[t]), b, t) for b, box in enumerate(frame_boxes) for t in range(len(last))),
            key=lambda pair: -pair[0],
        )
        of_box, taken = {}, set()
        for iou, b, t in pairs:
            if iou >= _TRACK_IOU and b not in of_box and t not in taken:
                of_box[b] = t
                taken.add(t)
        for b, box in enumerate(frame_boxes):
            if b not in of_box:
                of_box[b] = len(last)
                last.append(box)
                totals.append((0, 0.0))
            t = of_box[b]
            last[t] = box
            held = _mask_pixels(masks[index], box) if masks is not None and index in masks else 0
            totals[t] = (totals[t][0] + held, totals[t][1] + box_area(box))
        track_of[index] = of_box
    return {index: max(of_box, key=lambda b: totals[of_box[b]]) for index, of_box in track_of.items() if of_box}


def _mask_pixels(mask, box):
    x0, y0, x1, y1 = (max(round(float(v)), 0) for v in box)
    return int(np.count_nonzero(mask[y0:y1, x0:x1] > 1))


def _crop(image, index, points, bbox, num_faces, mask, size, preset, drops):
    """The `FaceFrame`, or None with a drop where the five points do not fix a similarity."""
    try:
        matrix = align.align_face(points, preset, size)
    except ValueError as error:
        drops.append(Drop(index, "no_landmarks", str(error)))
        return None
    landmarks = align.transform_points(points, matrix).astype(np.float32)
    if landmarks.min() < -size or landmarks.max() > 2 * size:
        drops.append(Drop(index, "landmark_out_of_range", "a landmark lies more than a crop outside it; kept"))
    return FaceFrame(
        frame_index=index,
        image=align.warp_image(image, matrix, size),
        landmarks=landmarks,
        bbox=np.asarray(bbox, np.float32),
        matrix=matrix,
        mask=None if mask is None else align.warp_mask(mask, matrix, size),
        num_faces=num_faces,
    )


def _points_box(points):
    points = np.asarray(points)
    return np.concatenate([points.min(0), points.max(0)])


def _box_text(box):
    return " ".join(f"{float(v):.0f}" for v in box)
