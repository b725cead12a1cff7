"""Self-blended images in OpenCV and NumPy, one at a time: the straightforward program that ours is timed beside.

The same steps with the same ranges as `msddf_jax.synth.self_blend`, each done with the OpenCV call that one would
reach for. Not used by the project itself.
"""

import cv2
import numpy as np

from msddf_jax.synth.blend import SBI_RATIOS


def self_blend(rng, image, landmarks):
    """(real twin, forgery, soft mask): uint8 [H, W, 3] twice and float32 [H, W].

    rng: numpy Generator. image: uint8 [H, W, 3]. landmarks: float [81, 2].
    """
    size = image.shape[0]
    if rng.random() < 0.5:
        # The landmarks' permutation does not change their hull.
        image = image[:, ::-1]
        landmarks = np.stack([size - 1 - landmarks[:, 0], landmarks[:, 1]], -1)
    altered = _alter(rng, image)
    target, source = (image, altered) if rng.random() < 0.5 else (altered, image)
    zoom = np.exp(rng.uniform(np.log(0.95), -np.log(0.95)))
    shift = rng.uniform(-1, 1, 2) * (0.03 * size, 0.015 * size)
    matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]], np.float32)
    source = cv2.warpAffine(source, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    points = landmarks * zoom + shift
    mask = np.zeros((size, size), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points).astype(np.int32)), 1.0)
    mask = _dynamic(rng, _elastic(rng, mask))
    weight = rng.choice(SBI_RATIOS) * mask
    mixed = target + weight[..., None] * (source.astype(np.float32) - target)
    return target, np.round(mixed).astype(np.uint8), weight


def _alter(rng, image):
    out = image.astype(np.float32)
    if rng.random() < 0.3:
        out += rng.uniform(-20, 20, 3).astype(np.float32)
    out = np.clip(out * (1 + rng.uniform(-0.1, 0.1)) + 255 * rng.uniform(-0.1, 0.1), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        size = image.shape[0]
        factor = int(rng.choice((2, 4)))
        small = cv2.resize(out, (size // factor, size // factor), interpolation=cv2.INTER_NEAREST)
        return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
    share = rng.uniform(0.2, 0.5)
    kernel = np.full((3, 3), -share, np.float32)
    kernel[1, 1] = 1 - share + share * (8 + rng.uniform(0.5, 1.0))
    return cv2.filter2D(out, -1, kernel)


def _elastic(rng, mask, alpha=50.0, sigma=7.0):
    size = mask.shape[0]
    noise = [rng.uniform(-1, 1, mask.shape).astype(np.float32) for _ in range(2)]
    dx, dy = (cv2.GaussianBlur(n, (0, 0), sigma) * alpha for n in noise)
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    return cv2.remap(mask, x + dx, y + dy, cv2.INTER_LINEAR)


def _dynamic(rng, mask):
    size = mask.shape[0]
    soft = cv2.resize(mask, tuple(int(n) for n in rng.integers(192, 257, 2)))
    first, second = (2 * int(n) + 1 for n in rng.integers(2, 13, 2))
    soft = cv2.GaussianBlur(soft, (first, first), 0)
    soft = np.where(soft >= soft.max() - 1e-3, soft, 0.0).astype(np.float32)
    soft = cv2.GaussianBlur(soft, (second, second), float(rng.integers(5, 46)))
    return cv2.resize(soft / max(soft.max(), 1e-6), (size, size))
