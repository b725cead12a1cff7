"""SCRFD (Guo et al., ICLR 2022) through cv2.dnn: the heads of InsightFace's det_10g.onnx, as GenD detects with it.

The file is the user's: its licence does not allow passing it on.
"""

import numpy as np

from msddf_jax.opencv import cv2

INPUT_SIZE = 640
STRIDES = (8, 16, 32)
ANCHORS = 2
SCORE_THRESHOLD = 0.4
NMS_THRESHOLD = 0.4
_MEAN, _STD = 127.5, 128.0


def letterbox(image) -> tuple[np.ndarray, tuple[int, int]]:
    """The network's input.

    Args:
      image: uint8 RGB [H, W, 3].

    Returns:
      float32 [1, 3, 640, 640], the image with its long side at 640 in the upper left corner, zero pixels beside it, all
      of it (value - 127.5) / 128; and its (width, height) there.
    """
    height, width = image.shape[:2]
    scale = INPUT_SIZE / max(height, width)
    small = (max(round(width * scale), 1), max(round(height * scale), 1))
    canvas = np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[: small[1], : small[0]] = cv2.resize(image, small, interpolation=interpolation)
    return ((canvas.astype(np.float32) - _MEAN) / _STD).transpose(2, 0, 1)[None], small


def decode_heads(outputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes from the nine outputs, before non-maximum suppression.

    Args:
      outputs: per stride 8, 16 and 32, with n = 2 (640 / stride)^2 rows, the two anchors of a cell next to each other,
        cells by row: scores [n, 1]; left, top, right, bottom distances [n, 4] and five points [n, 10] (x0 y0 x1 ...)
        from the cell's corner, in strides. In any order, with or without a leading 1: shapes distinguish them.

    Returns:
      scores float32 [N] of at least 0.4, boxes [N, 4] x0 y0 x1 y1 and points [N, 5, 2], pixels of the input.

    Raises:
      ValueError: other shapes.
    """
    by_shape = {output.shape[-2:]: output.reshape(output.shape[-2:]) for output in outputs if output.ndim >= 2}
    scores, boxes, points = [], [], []
    for stride in STRIDES:
        side = INPUT_SIZE // stride
        rows = ANCHORS * side * side
        if any((rows, width) not in by_shape for width in (1, 4, 10)):
            found = sorted(tuple(output.shape) for output in outputs)
            raise ValueError(f"expected outputs [{rows}, 1], [{rows}, 4] and [{rows}, 10] at stride {stride}: {found}")
        score = by_shape[rows, 1][:, 0]
        sure = np.flatnonzero(score >= SCORE_THRESHOLD)
        cell = sure // ANCHORS
        corner = np.stack([cell % side, cell // side], axis=1) * stride
        distance = by_shape[rows, 4][sure] * stride
        scores.append(score[sure])
        boxes.append(np.concatenate([corner - distance[:, :2], corner + distance[:, 2:]], axis=1))
        points.append(corner[:, None] + by_shape[rows, 10][sure].reshape(-1, 5, 2) * stride)
    return tuple(np.concatenate(parts).astype(np.float32) for parts in (scores, boxes, points))


def suppress(scores, boxes) -> np.ndarray:
    """Indices of the boxes to keep, best first: none overlaps a better one by more than 0.4."""
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(sizes.tolist(), scores.tolist(), SCORE_THRESHOLD, NMS_THRESHOLD)
    return np.asarray(kept, np.int64).ravel()


def find_faces(net, image) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """(box [4], score, points [5, 2]) of every face, in pixels of the image, best first.

    Args:
      net: cv2.dnn.Net. image: uint8 RGB [H, W, 3].

    Raises:
      ValueError: the network's outputs are not SCRFD's.
    """
    blob, small = letterbox(image)
    net.setInput(blob)
    scores, boxes, points = decode_heads(net.forward(net.getUnconnectedOutLayersNames()))
    # Pixel centres at integers: a coordinate scales about -0.5.
    scale = np.array([image.shape[1] / small[0], image.shape[0] / small[1]], np.float32)
    to_image = lambda v: (v + 0.5) * scale - 0.5
    return [
        (to_image(boxes[i].reshape(2, 2)).ravel(), float(scores[i]), to_image(points[i]))
        for i in suppress(scores, boxes)
    ]
