"""From a video or images to aligned face crops with 81 landmarks and masks.

Landmarks of a crop are those of the full frame moved by the crop's matrix. DeepfakeBench instead detects a
second time on the crop, with another channel order, and drops the frame where that fails. Moving the points
costs half, loses no frame, and keeps landmarks, crop and mask of a frame under one and the same matrix.
"""

import dataclasses
import functools

import numpy as np

from msddf_jax.faces import align, tracks, video
from msddf_jax.faces.detect import SMALLEST_FACE, search_image
from msddf_jax.faces.scene import Drop, LandmarkFileError, Scene, read_sidecar, read_video_scene, sidecar_path
from msddf_jax.opencv import cv2

__all__ = [
    "FACES",
    "LANDMARK_SOURCES",
    "Drop",
    "Extraction",
    "FaceFrame",
    "LandmarkFileError",
    "Scene",
    "extract_crops",
    "extract_faces",
    "extract_faces_image",
    "extract_scene",
    "read_sidecar",
    "sidecar_path",
]
LANDMARK_SOURCES = ("mediapipe", "sidecar")
FACES = ("largest", "mask", "all")
# Of a video, whose faces are scored one by one; a crowd's others are too small and too many.
MAX_PEOPLE = 8
# Of one image.
MAX_IMAGE_FACES = 16
_NO_BOX = np.full(4, -1, np.float32)


@dataclasses.dataclass(frozen=True)
class FaceFrame:
    """One aligned face.

    Attributes:
      frame_index: frame number in the video, 0 for an image.
      image: uint8 RGB [size, size, 3].
      landmarks: float32 [81, 2], crop pixels, forehead left to right; None where a downloaded crop shows no face.
      bbox: float32 [4], x0 y0 x1 y1 in the original frame, -1 unknown.
      matrix: float64 [2, 3], frame pixels to crop pixels.
      mask: uint8 [size, size], 255 = manipulated, or None where the video or image has no mask.
      num_faces: faces found in the frame.
      track: number of the person in the video, 0 for the one that matters first.
    """

    frame_index: int
    image: np.ndarray
    landmarks: np.ndarray | None
    bbox: np.ndarray
    matrix: np.ndarray
    mask: np.ndarray | None
    num_faces: int
    track: int = 0


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What one file gave: `frames` in order, `drops` with reasons, `info` of a video's container or None."""

    frames: list
    drops: list
    info: video.VideoInfo | None
    num_decoded: int


def extract_scene(
    scene, *, size=256, preset="dfb", faces="largest", detector=None, landmarker=None, whole_mask=True
) -> list[Extraction]:
    """Aligned crops of the faces of a scene.

    Boxes are linked over the frames (`tracks.link_faces`), and a face is one track throughout, so that a passer-by
    does not replace the subject.

    Args:
      scene: `Scene`. size: side of the crop in pixels. preset: name in `align.NAMES`.
      faces: "largest", the track with the largest total area, or with masks the one that holds the most mask pixels;
        "mask", the same, but frames where the mask does not touch it are dropped; "all", every track on its own, or
        with masks every one that the mask touches: who else is in a fake is not known to be manipulated; "people", as
        `extract_faces` says.
      detector: from `detect.make_detector`. landmarker: from `landmarks.make_landmarker`; not needed with points.
      whole_mask: whether frames without a mask are dropped where others have one.

    Returns:
      list of `Extraction`: one, or with "all" one a track, the one that matters first; what was lost before tracks
      were distinguished is in the first. Codes of frames lost, beside the scene's: no_face, other_face (faces, but not
      the subject), no_landmarks, face_not_manipulated, mask_len_mismatch. Of frames kept: landmark_out_of_range.
      Of a whole track (frame_index -1): face_not_manipulated.
    """
    drops = list(scene.drops)
    if scene.points is not None:
        found = [{index: (points, _points_box(points), 1) for index, points in scene.points.items()}]
        lost = [[]]
    else:
        found, lost = _detected_faces(scene, detector, landmarker, faces, drops)
    out = []
    for track, own in zip(found, lost, strict=True):
        crops = _crop_track(scene, track, own, size, preset, faces == "mask", whole_mask)
        out.append(Extraction(crops, own, scene.info, scene.num_decoded))
    first = out[0] if out else Extraction([], [], scene.info, scene.num_decoded)
    first = dataclasses.replace(first, drops=sorted(drops + first.drops, key=lambda drop: drop.frame_index))
    return [first, *out[1:]]


def extract_crops(scene, *, size=256, detector=None, landmarker=None) -> Extraction:
    """Images that are face crops already, brought to one size, with landmarks where a face is found in them.

    Args:
      scene: `Scene`. size: side of the square that an image becomes: area-averaged where it shrinks, cubic where it
        grows; one that is not square is stretched. detector, landmarker: as in `extract_scene`, or both None.

    Returns:
      `Extraction`; codes of frames kept: no_landmarks_kept.
    """
    drops = [drop for drop in scene.drops if drop.code != "no_face"]
    out = []
    for index, image in scene.frames.items():
        height, width = image.shape[:2]
        # Pixel centres at integers, as cv2.resize has them.
        sx, sy = size / width, size / height
        matrix = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2]])
        points, bbox, num_faces = None, _NO_BOX, 0
        if scene.points is not None:
            points = scene.points.get(index)
        elif detector is not None:
            faces = detector(image)
            num_faces = len(faces)
            points = landmarker(image, faces[0].box) if faces else None
            bbox = faces[0].box if points is not None else bbox
        if points is None:
            drops.append(Drop(index, "no_landmarks_kept", "no face found in this crop; kept without landmarks"))
        mask = None if scene.masks is None else scene.masks.get(index)
        out.append(
            FaceFrame(
                frame_index=index,
                image=_resize(image, size),
                landmarks=None if points is None else align.transform_points(points, matrix).astype(np.float32),
                bbox=np.asarray(bbox, np.float32),
                matrix=matrix,
                mask=None if mask is None else align.warp_mask(mask, matrix, size),
                num_faces=num_faces,
            )
        )
    drops.sort(key=lambda drop: drop.frame_index)
    return Extraction(out, drops, None, scene.num_decoded)


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
    faces="largest",
) -> Extraction:
    """Aligned crops of the one face that matters in a video, or of everybody's.

    Holds the sampled frames in memory at full size (32 frames of 1080p are 200 MB).

    Args:
      video_path: a video file.
      num_frames: frames to sample evenly, first and last included, of the shorter of the video and its mask.
      size: side of the crop in pixels.
      preset: name in `align.NAMES`.
      landmarks: "mediapipe" (needs `detector` and `landmarker`) or "sidecar" (reads `<stem>.landmarks.npy`
        beside the video and needs no model).
      detector: from `detect.make_detector`. landmarker: from `landmarks.make_landmarker`.
      mask_path: mask video with the same frames, or None.
      faces: "largest", one track; or "people": everybody's, at most `MAX_PEOPLE`, by frame and then by `track`. Where
        no frame shows two faces, all are taken for one person's, as with "largest".

    Returns:
      `Extraction`; either every frame has a mask or none has. Codes as in `read_video_scene` and `extract_scene`.

    Raises:
      video.VideoError: unreadable_video, zero_frames, video_too_long, video_too_large. LandmarkFileError: the sidecar
      is missing or malformed. ValueError: an unknown preset or landmark source, or no detector or landmarker given.
    """
    align.check_preset(preset)
    if landmarks not in LANDMARK_SOURCES:
        raise ValueError(f"unknown landmark source {landmarks!r}; there are {', '.join(LANDMARK_SOURCES)}")
    if landmarks == "mediapipe" and (detector is None or landmarker is None):
        raise ValueError("landmarks='mediapipe' needs a detector and a landmarker")
    sample = functools.partial(video.sample_indices, k=num_frames)
    scene = read_video_scene(video_path, sample, mask_path=mask_path, sidecar=landmarks == "sidecar")
    found = extract_scene(scene, size=size, preset=preset, faces=faces, detector=detector, landmarker=landmarker)
    frames = [dataclasses.replace(face, track=t) for t, one in enumerate(found) for face in one.frames]
    drops = [drop for one in found for drop in one.drops]
    return dataclasses.replace(
        found[0],
        frames=sorted(frames, key=lambda face: (face.frame_index, face.track)),
        drops=sorted(drops, key=lambda drop: drop.frame_index),
    )


def extract_faces_image(
    image, *, size=256, preset="dfb", detector=None, landmarker=None, points=None, max_faces=MAX_IMAGE_FACES
) -> Extraction:
    """Aligned crops of the faces in one image, largest first; of a large image small ones too (`search_image`).

    Args:
      image: uint8 RGB [H, W, 3], as `video.read_image` gives it.
      size, preset, detector, landmarker: as in `extract_faces`.
      points: [81, 2] landmarks of the image, forehead left to right, in place of detector and landmarker.
      max_faces: how many faces at most; the drop more_faces says how many are not among them.

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
        faces = search_image(detector, image)
        if not faces:
            detail = (
                f"no upright face of about {SMALLEST_FACE} pixels or more found in {image.shape[1]}x{image.shape[0]}"
            )
            drops.append(Drop(0, "no_face", detail))
        if len(faces) > max_faces:
            drops.append(Drop(-1, "more_faces", f"{len(faces)} faces, of which the {max_faces} largest are scored"))
        for face in faces[:max_faces]:
            marks = landmarker(image, face.box)
            if marks is None:
                drops.append(Drop(0, "no_landmarks", f"no landmarks in the box {_box_text(face.box)}"))
            else:
                found.append((marks, face.box, len(faces)))
    crops = [_crop(image, 0, *face, None, size, preset, drops) for face in found]
    return Extraction([crop for crop in crops if crop is not None], drops, None, 1)


def _detected_faces(scene, detector, landmarker, which, drops):
    """Per track: {frame number: (points, bbox, number of faces)}, and its drops."""
    faces = {index: detector(image) for index, image in scene.frames.items()}
    boxes, masks = _in_one_size(scene, {index: [face.box for face in found] for index, found in faces.items()})
    drops += [Drop(index, "no_face", "the detector found no face") for index, found in faces.items() if not found]
    ranked = tracks.rank_tracks(tracks.link_faces(boxes), boxes, masks)
    masked = bool(ranked) and ranked[0][1] > 0
    if which == "all":
        chosen = [track for track, held in ranked if scene.masks is None or held]
        idle = [track for track, held in ranked if scene.masks is not None and not held]
        drops += [Drop(-1, "face_not_manipulated", _track_text(track, boxes)) for track in idle]
    elif which == "people" and any(len(found) > 1 for found in faces.values()):
        chosen = [track for track, _ in ranked[:MAX_PEOPLE]]
        if more := len(ranked) - len(chosen):
            detail = f"{more} smaller faces are not scored, only the {MAX_PEOPLE} largest"
            drops.append(Drop(-1, "more_faces", detail))
    else:
        chosen = [tracks.main_track(ranked, boxes, masked)] if ranked else []
        lost = [index for index, found in faces.items() if found and index not in chosen[0]]
        drops += [Drop(index, "other_face", "the faces in this frame are not the subject's") for index in lost]
    found, lost = [], []
    for track in chosen:
        with_points, own = {}, []
        for index, position in track.items():
            box = faces[index][position].box
            points = landmarker(scene.frames[index], box)
            if points is None:
                own.append(Drop(index, "no_landmarks", f"no landmarks in the box {_box_text(box)}"))
            else:
                with_points[index] = (points, box, len(faces[index]))
        found.append(with_points)
        lost.append(own)
    return found, lost


def _in_one_size(scene, boxes):
    """Boxes and masks as in frames of the first one's size: a stream may change its own on the way."""
    first = next(iter(scene.frames.values()), None)
    odd = {index: image.shape[:2] for index, image in scene.frames.items() if image.shape != first.shape}
    if not odd:
        return boxes, scene.masks
    height, width = first.shape[:2]
    scaled, masks = dict(boxes), None if scene.masks is None else dict(scene.masks)
    for index, (own_height, own_width) in odd.items():
        scale = np.array([width / own_width, height / own_height] * 2)
        scaled[index] = [np.asarray(box) * scale for box in boxes[index]]
        if masks is not None and index in masks:
            masks[index] = cv2.resize(masks[index], (width, height), interpolation=cv2.INTER_NEAREST)
    return scaled, masks


def _track_text(track, boxes):
    first = min(track)
    where = _box_text(boxes[first][track[first]])
    return f"the mask touches none of the {len(track)} boxes of the face first seen in frame {first} at {where}"


def _crop_track(scene, track, drops, size, preset, only_masked, whole_mask):
    """The `FaceFrame`s of one track."""
    crops = []
    for index, (points, bbox, num_faces) in track.items():
        mask = None if scene.masks is None else scene.masks.get(index)
        if scene.masks is not None and mask is None and whole_mask:
            drops.append(Drop(index, "mask_len_mismatch", "the mask video ends before this frame"))
            continue
        if only_masked and mask is not None and not tracks.mask_pixels(scene.masks, index, bbox):
            drops.append(Drop(index, "face_not_manipulated", "the mask does not touch the face in this frame"))
            continue
        face = _crop(scene.frames[index], index, points, bbox, num_faces, mask, size, preset, drops)
        if face is not None:
            crops.append(face)
    return crops


def _resize(image, size):
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    shrinks = height * width > size * size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _crop(image, index, points, bbox, num_faces, mask, size, preset, drops):
    """The `FaceFrame`, or None with a drop where the points fix no similarity."""
    try:
        matrix = align.crop_matrix(points, bbox, image.shape, preset, size)
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
