"""81 landmarks: from MediaPipe's 478-point face mesh or dlib's predictor, and the order in which files hold them."""

import atexit
import contextlib
import os
import sys
from collections.abc import Callable

import numpy as np

from msddf_jax.data.schema import FOREHEAD_LEFT_TO_RIGHT, NUM_LANDMARKS
from msddf_jax.faces import fetch
from msddf_jax.faces.detect import box_iou, import_dlib, user_file

LANDMARKERS = ("mediapipe", "dlib")

# Vertices of the mesh for the 81 points, chosen by eye on real faces and by distance to the mean shape of the
# 68 iBUG points. The forehead is the upper half of the mesh's own face oval, temple to temple.
MESH_TO_81 = np.concatenate(
    [
        [127, 234, 93, 132, 58, 136, 149, 148, 152, 377, 378, 365, 288, 361, 323, 454, 356],  # jaw
        [70, 63, 105, 66, 107, 336, 296, 334, 293, 300],  # brows
        [168, 197, 5, 4, 98, 97, 2, 326, 327],  # nose
        [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380],  # eyes
        [61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91],  # outer lip
        [78, 82, 13, 312, 308, 317, 14, 87],  # inner lip
        [162, 21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251, 389],  # forehead, left to right
    ]
)
# Half the side of the square that the mesh model sees, in units of the box's long side; the first that works.
_ENLARGE = (1.0, 0.75, 1.5)
_MIN_IOU = 0.1


def from_dlib_order(points) -> np.ndarray:
    """Files to memory: the 13 forehead points from the predictor's order to left to right.

    Args:
      points: [..., 81, 2] in the order of the 81-point dlib predictor.

    Returns:
      a new array, same shape and dtype, points 68-80 left to right.
    """
    points = _checked(points)
    out = points.copy()
    out[..., 68:, :] = points[..., FOREHEAD_LEFT_TO_RIGHT, :]
    return out


def to_dlib_order(points) -> np.ndarray:
    """Memory to files: the inverse of `from_dlib_order`."""
    points = _checked(points)
    out = points.copy()
    out[..., FOREHEAD_LEFT_TO_RIGHT, :] = points[..., 68:, :]
    return out


def _checked(points):
    points = np.asarray(points)
    if points.shape[-2:] != (NUM_LANDMARKS, 2):
        raise ValueError(f"expected landmarks [..., {NUM_LANDMARKS}, 2], got {points.shape}")
    return points


def _load_mediapipe():
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision
    except (ImportError, OSError) as error:
        hint = "pip install mediapipe"
        if "cannot open shared object file" in str(error):
            hint = "apt-get install libegl1 libgles2 libgl1 libglib2.0-0"
        raise ImportError(f"mediapipe cannot load ({error}): run `{hint}`, or use --landmarks=sidecar") from error
    return mediapipe, BaseOptions, vision


def make_landmarker(kind="mediapipe", model_dir=None, *, file=None) -> Callable[..., np.ndarray | None]:
    """Builds `landmark(image, box)`: 81 points of the face in a box, or None where there is none.

    `image` is uint8 RGB [H, W, 3]; `box` is x0 y0 x1 y1 in its pixels. Returns float32 [81, 2], pixels of the
    image, forehead left to right; points can lie outside the image. MediaPipe's follow the mesh on the far side of a
    turned head, not the outline. dlib's predictor answers for every box, face or not, and was trained on its own
    detector's boxes.

    Args:
      kind: name in `LANDMARKERS`.
      model_dir: folder with MediaPipe's file; None as in `fetch.model_file`.
      file: shape_predictor_81_face_landmarks.dat, for "dlib".

    Raises:
      ValueError: unknown kind. ImportError: mediapipe, its system libraries, or dlib are missing.
      fetch.ModelFileError: no model file, or not such a one.
    """
    if kind not in LANDMARKERS:
        raise ValueError(f"unknown landmarker {kind!r}; there are {', '.join(LANDMARKERS)}")
    return _make_dlib(file) if kind == "dlib" else _make_mediapipe(model_dir)


def _make_dlib(file):
    path = user_file(file, "--landmark_file", "shape_predictor_81_face_landmarks.dat")
    dlib = import_dlib()
    try:
        model = dlib.shape_predictor(str(path))
    except RuntimeError as error:
        raise fetch.ModelFileError(f"{path} is not a shape predictor of dlib ({error})") from error

    def landmark(image, box):
        shape = model(image, dlib.rectangle(*(round(float(v)) for v in box)))
        if shape.num_parts != NUM_LANDMARKS:
            raise fetch.ModelFileError(f"{path} predicts {shape.num_parts} points, not {NUM_LANDMARKS}")
        points = np.array([[part.x, part.y] for part in shape.parts()], np.float32)
        return from_dlib_order(points)

    landmark(np.zeros((32, 32, 3), np.uint8), [4, 4, 28, 28])  # a predictor of another number of points stops here
    return landmark


def _make_mediapipe(model_dir):
    path = str(fetch.model_file("face_landmarker", model_dir))
    mediapipe, base_options, vision = _load_mediapipe()
    options = vision.FaceLandmarkerOptions(
        base_options=base_options(model_asset_path=path), running_mode=vision.RunningMode.IMAGE, num_faces=4
    )
    with _quiet():
        model = vision.FaceLandmarker.create_from_options(options)
        # Its networks start with the first image, and say so once more.
        model.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.zeros((32, 32, 3), np.uint8)))

    def landmark(image, box):
        for enlarge in _ENLARGE:
            points = _mesh_points(mediapipe, model, image, box, enlarge)
            if points is not None:
                return points[MESH_TO_81].astype(np.float32)
        return None

    # mediapipe's __del__ runs at interpreter exit after its executor is gone, and prints a traceback: with no
    # handle it does nothing, and the system frees the model.
    atexit.register(setattr, model, "_handle", None)
    return landmark


@contextlib.contextmanager
def _quiet():
    """Lets go of what is written to stderr past Python: MediaPipe's reports of its start, which nobody can act on."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _mesh_points(mediapipe, model, image, box, enlarge):
    """The 478 points [478, 2] of the face that overlaps `box` most, None where none overlaps it enough."""
    height, width = image.shape[:2]
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = max(box[2] - box[0], box[3] - box[1]) * enlarge
    x0, y0 = max(int(centre_x - half), 0), max(int(centre_y - half), 0)
    x1, y1 = min(int(centre_x + half) + 1, width), min(int(centre_y + half) + 1, height)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return None
    crop = np.ascontiguousarray(image[y0:y1, x0:x1])
    result = model.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=crop))
    best, best_iou = None, _MIN_IOU
    for mesh in result.face_landmarks:
        points = np.array([[point.x, point.y] for point in mesh]) * [x1 - x0, y1 - y0] + [x0 - 0.5, y0 - 0.5]
        iou = box_iou([*points.min(0), *points.max(0)], box)
        if iou > best_iou:
            best, best_iou = points, iou
    return best
