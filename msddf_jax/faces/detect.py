"""Face boxes with YuNet (Wu et al., Machine Intelligence Research 2023), through OpenCV."""

import dataclasses

import numpy as np

from msddf_jax.faces import fetch
from msddf_jax.faces.opencv import cv2

DETECTORS = ("yunet",)
# YuNet was trained on faces of about 10 to 300 pixels: 640 finds small faces, 320 those that fill the frame.
_LONG_SIDES = (640, 320)
_SCORE_THRESHOLD = 0.6
_NMS_THRESHOLD = 0.3


@dataclasses.dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the image.

    Attributes:
      box: float32 [4], x0 y0 x1 y1; may reach outside the image.
      score: 0 to 1.
      points: float32 [5, 2]: image-left eye, image-right eye, nose tip, image-left and -right mouth corner.
    """

    box: np.ndarray
    score: float
    points: np.ndarray


def box_area(box):
    """Area of x0 y0 x1 y1, 0 where it is empty."""
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def box_iou(a, b):
    """Intersection over union of two boxes x0 y0 x1 y1, 0 to 1."""
    inner = box_area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = box_area(a) + box_area(b) - inner
    return inner / union if union > 0 else 0.0


def make_detector(kind="yunet", model_dir=None):
    """Builds `detect(image) -> list[Face]`, largest box first, an empty list where there is no face.

    `image` is uint8 RGB [H, W, 3] of any size. It is looked at with its long side at 640 pixels, and at 320
    where that finds nothing.

    Args:
      kind: "yunet".
      model_dir: folder with the model file; None as in `fetch.model_file`.

    Raises:
      ValueError: unknown kind. fetch.ModelFileError: no model file.
    """
    if kind not in DETECTORS:
        raise ValueError(f"unknown face detector {kind!r}; there are {', '.join(DETECTORS)}")
    path = str(fetch.model_file("yunet", model_dir))
    net = cv2.FaceDetectorYN.create(path, "", (320, 320), _SCORE_THRESHOLD, _NMS_THRESHOLD)

    def detect(image):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected uint8 RGB [H, W, 3], got {image.dtype} {image.shape}")
        for long_side in _LONG_SIDES:
            faces = _detect_at(net, image, long_side)
            if faces:
                return faces
        return []

    return detect


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
    return sorted(faces, key=lambda face: -box_area(face.box))
