"""Face boxes: YuNet (Wu et al., Machine Intelligence Research 2023), SCRFD from a user's file, dlib's HOG."""

import dataclasses
import pathlib
from collections.abc import Callable
from types import ModuleType

import numpy as np

from msddf_jax.faces import fetch, scrfd
from msddf_jax.opencv import cv2

DETECTORS = ("yunet", "scrfd", "dlib")
# Of a face of 80 pixels or less, dlib sees nothing without it (DeepfakeBench doubles once too).
_DLIB_UPSAMPLE = 1
# YuNet was trained on faces of about 10 to 300 pixels: 640 finds small faces, 320 those that fill the frame.
_LONG_SIDES = (640, 320)
# A still image that is larger is searched in tiles too, which share so much of their side: a face that a tile's edge
# cuts is whole in the next one, or large enough to be found without tiles.
_TILE, _TILE_SHARED = 960, 240
# YuNet's smallest face of a tile that is searched at 640 pixels.
SMALLEST_FACE = 15
# Two boxes of one face share so much of the smaller one.
_SAME_FACE = 0.5
_SCORE_THRESHOLD = 0.6
_NMS_THRESHOLD = 0.3


@dataclasses.dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the image.

    Attributes:
      box: float32 [4], x0 y0 x1 y1; may reach outside the image.
      score: 0 to 1.
      points: float32 [5, 2]: image-left eye, image-right eye, nose tip, image-left and -right mouth corner; NaN from
        dlib, which has none.
    """

    box: np.ndarray
    score: float
    points: np.ndarray


def box_area(box) -> float:
    """Area of x0 y0 x1 y1, 0 where it is empty."""
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def box_iou(a, b) -> float:
    """Intersection over union of two boxes x0 y0 x1 y1, 0 to 1."""
    inner = box_area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = box_area(a) + box_area(b) - inner
    return inner / union if union > 0 else 0.0


def make_detector(kind="yunet", model_dir=None, *, file=None) -> Callable[[np.ndarray], list[Face]]:
    """Builds `detect(image) -> list[Face]`, largest box first, an empty list where there is no face.

    `image` is uint8 RGB [H, W, 3] of any size. YuNet looks at it with its long side at 640 pixels, and at 320 where
    that finds nothing; SCRFD at 640; dlib's HOG at twice its size, as DeepfakeBench does.

    Args:
      kind: name in `DETECTORS`.
      model_dir: folder with YuNet's file; None as in `fetch.model_file`.
      file: InsightFace's det_10g.onnx, for "scrfd".

    Raises:
      ValueError: unknown kind. fetch.ModelFileError: no model file, or not such a one. ImportError: no dlib.
    """
    if kind not in DETECTORS:
        raise ValueError(f"unknown face detector {kind!r}; there are {', '.join(DETECTORS)}")
    find = {"yunet": _make_yunet, "scrfd": _make_scrfd, "dlib": _make_dlib}[kind](model_dir, file)

    def detect(image):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected uint8 RGB [H, W, 3], got {image.dtype} {image.shape}")
        return sorted(find(image), key=lambda face: -box_area(face.box))

    return detect


def search_image(detector, image) -> list[Face]:
    """Faces of a still image at its own resolution: of the whole, and of a large one those of its tiles.

    Args:
      detector: of `make_detector`. image: uint8 RGB [H, W, 3].

    Returns:
      list of `Face`, largest first.
    """
    faces, (height, width) = list(detector(image)), image.shape[:2]
    if max(height, width) <= _TILE:
        return faces
    for y in _tile_starts(height):
        for x in _tile_starts(width):
            tile = np.ascontiguousarray(image[y : y + _TILE, x : x + _TILE])
            size = np.array([tile.shape[1], tile.shape[0]], np.float32)
            for face in detector(tile):
                box = face.box + np.array([x, y, x, y], np.float32)
                # Cut by an edge that is not the image's own: the next tile holds all of it.
                low, high = face.box[:2] <= 1, face.box[2:] >= size - 2
                cut = (low & (np.array([x, y]) > 0)) | (high & (np.array([x, y]) + size < [width, height]))
                if not cut.any() and not any(_overlap(box, other.box) > _SAME_FACE for other in faces):
                    points = face.points + np.array([x, y], np.float32)
                    faces.append(Face(box.astype(np.float32), face.score, points.astype(np.float32)))
    return sorted(faces, key=lambda face: -box_area(face.box))


def _tile_starts(length):
    step = _TILE - _TILE_SHARED
    count = max(1, -(-(length - _TILE_SHARED) // step))
    return np.unique(np.linspace(0, max(length - _TILE, 0), count).round().astype(int)).tolist()


def _overlap(a, b):
    """Share of the smaller box that lies in the other."""
    inner = box_area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    return inner / max(min(box_area(a), box_area(b)), 1e-6)


def import_dlib() -> ModuleType:
    """The module, or ImportError that says how to get it."""
    try:
        import dlib
    except ImportError as error:
        raise ImportError(
            f"dlib cannot load ({error}): run `pip install dlib-bin` (built) or `pip install dlib` (needs CMake and a "
            "compiler), or use --detector=yunet --landmarks=mediapipe"
        ) from error
    return dlib


def _make_yunet(model_dir, file):
    path = str(fetch.model_file("yunet", model_dir))
    net = cv2.FaceDetectorYN.create(path, "", (320, 320), _SCORE_THRESHOLD, _NMS_THRESHOLD)
    return lambda image: next(filter(None, (_detect_at(net, image, side) for side in _LONG_SIDES)), [])


def _make_scrfd(model_dir, file):
    path = user_file(file, "--detector_file", "SCRFD's det_10g.onnx of InsightFace's buffalo_l")
    try:
        net = cv2.dnn.readNetFromONNX(str(path))
        scrfd.find_faces(net, np.zeros((scrfd.INPUT_SIZE, scrfd.INPUT_SIZE, 3), np.uint8))
    except (cv2.error, ValueError) as error:
        raise fetch.ModelFileError(
            f"{path} is not SCRFD's ONNX file with five points, det_10g.onnx: {error}"
        ) from error
    return lambda image: [Face(*face) for face in scrfd.find_faces(net, image)]


def _make_dlib(model_dir, file):
    find = import_dlib().get_frontal_face_detector()
    points = np.full((5, 2), np.nan, np.float32)

    def detect(image):
        rectangles, scores, _ = find.run(image, _DLIB_UPSAMPLE)
        boxes = ([r.left(), r.top(), r.right(), r.bottom()] for r in rectangles)
        return [Face(np.array(box, np.float32), float(s), points) for box, s in zip(boxes, scores, strict=True)]

    return detect


def user_file(file, flag, what) -> pathlib.Path:
    """Path of a model file that the user has. Raises fetch.ModelFileError where there is none."""
    if not file or not pathlib.Path(file).is_file():
        found = f"{file} is not there" if file else f"{flag} is not given"
        raise fetch.ModelFileError(f"{found}: it names {what}, which you have to get from its owners")
    return pathlib.Path(file)


def _detect_at(net, image, long_side):
    height, width = image.shape[:2]
    scale = long_side / max(height, width)
    small = (max(round(width * scale), 1), max(round(height * scale), 1))
    resized = cv2.resize(image, small, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    net.setInputSize(small)
    _, rows = net.detect(cv2.cvtColor(resized, cv2.COLOR_RGB2BGR))
    faces = []
    for row in [] if rows is None else rows:
        # Pixel centres at integers: a coordinate scales about -0.5.
        to_image = lambda v, axis: (v + 0.5) * (width, height)[axis] / small[axis] - 0.5
        x0, y0 = to_image(row[0], 0), to_image(row[1], 1)
        x1, y1 = to_image(row[0] + row[2], 0), to_image(row[1] + row[3], 1)
        points = np.stack([to_image(row[4:14:2], 0), to_image(row[5:14:2], 1)], axis=1)
        faces.append(Face(np.array([x0, y0, x1, y1], np.float32), float(row[14]), points.astype(np.float32)))
    return faces
