"""Entries of made-up data sets, and stand-ins for the face models, so that preparation is tested without them."""

import types

import numpy as np
from tiny_ffpp import draw, face_points, similarity

from data_prep import catalog
from msddf_jax.faces import align, detect
from msddf_jax.opencv import cv2


def face_at(x, y, scale):
    """81 points of an upright face around (x, y), about 200 x `scale` pixels wide."""
    return align.transform_points(face_points(), similarity(scale, 0, x, y))


def draw_faces(faces, width, height):
    """Filled faces; each has its own blue level between 100 and 250, by which `find_drawn` tells it."""
    image = np.full((height, width, 3), 60, np.uint8)
    for points, blue in faces:
        one = draw(points, width, height, colour=(200, 150, blue))
        inside = cv2.fillConvexPoly(
            np.zeros((height, width), np.uint8), cv2.convexHull(points.astype(np.float32)).astype(np.int32), 1
        )
        image[inside > 0] = one[inside > 0]
    return image


def find_drawn(image):
    """A detector of drawn faces: boxes of what is skin-coloured (red above 150), in any order."""
    skin = (image[..., 0] > 150).astype(np.uint8)
    skin = cv2.morphologyEx(skin, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))  # over the dots of eyes and nose
    _, _, stats, _ = cv2.connectedComponentsWithStats(skin)
    boxes = [[x, y, x + w - 1, y + h - 1] for x, y, w, h, area in stats[1:] if area > 50]
    points = np.zeros((5, 2), np.float32)
    faces = [detect.Face(np.array(box, np.float32), 0.9, points) for box in boxes]
    return sorted(faces, key=lambda face: -detect.box_area(face.box))


def landmarks_in(image, box):
    """A landmarker: the drawn face scaled to the box."""
    points = face_points()
    low, high = points.min(0), points.max(0)
    return ((points - low) / (high - low) * [box[2] - box[0], box[3] - box[1]] + box[:2]).astype(np.float32)


MODELS = {"detector": find_drawn, "landmarker": landmarks_in}


def use_models(monkeypatch):
    """Stand-ins in place of YuNet and MediaPipe, in this process."""
    from data_prep import crops

    monkeypatch.setattr(crops.detect, "make_detector", lambda kind, file=None: find_drawn)
    monkeypatch.setattr(crops.landmarks, "make_landmarker", lambda kind, file=None: landmarks_in)


def make_layout(monkeypatch, entries, problems=(), name="madeup"):
    """A data set `name` with one config "default" that holds these entries, for `prepare --layout=madeup`."""
    from data_prep import prepare

    module = types.SimpleNamespace(
        CONFIGS=("default",), find=lambda root, config, options: (catalog.keep(list(entries), options), list(problems))
    )
    monkeypatch.setattr(prepare, "layouts", lambda: [name])
    monkeypatch.setattr(prepare.importlib, "import_module", lambda path: module)


def entry(root, kind, path, *, stem=None, images=(), method="real", split="train", pair_id="", **kwargs):
    """One entry of a data set of the schema; the video_id is its stem."""
    stem = stem or path.rsplit("/", 1)[-1].split(".")[0]
    fields = catalog.make_fields("wilddeepfake", method, stem, pair_id=pair_id)
    unit = "fake" if method != "real" else "real"
    return catalog.Entry(
        kind=kind, path=path, unit=unit, stem=stem, split=split, fields=fields, images=images, root=str(root), **kwargs
    )
