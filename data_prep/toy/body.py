"""What is round the face: neck, shoulders, ears and long hair, each a flat layer painted once for a video."""

import typing

import numpy as np

from data_prep.toy import identity as idt
from data_prep.toy.texture import blur, fill_polygon, fractal_noise, smoothstep, strand_noise
from msddf_jax.opencv import cv2

PLANE = (-2.6, 2.6, -1.7, 2.8)  # x from, x to, y from, y to of the flat layers, head units
EAR = (-0.12, 0.34, -0.36, 0.40)  # outward and downward extent of the ear's layer round its root
EAR_ROOT = np.array([0.955, 0.20, -0.12])  # on the image-right side
EAR_OUT = np.array([0.72, 0.0, -0.69])  # direction in which the ear stands off


class Layers(typing.NamedTuple):
    """Premultiplied linear RGB and coverage [h, w, 4] float32, with `k` pixels a head unit."""

    k: float
    body: np.ndarray
    curtain: np.ndarray | None  # long hair in front of the shoulders or behind them
    backing: np.ndarray | None  # hair behind the neck
    ear: np.ndarray | None
    curtain_front: bool


def bake_layers(face, light, drawn_size):
    """Paint the layers of a video.

    Args:
      face: identity.Identity.
      light: motion.Light of the video's first frame.
      drawn_size: side of the drawn frame in pixels; gives the resolution.

    Returns:
      Layers.
    """
    k = 0.25 * drawn_size
    rng = idt.stream(face.seed, "body")
    x, y = _plane(PLANE, k)
    curtain = backing = None
    if face.hair_style == "long":
        curtain, backing = _long_hair(face, x, y, rng, light, k)
    ear = None if face.hair_style == "long" else _ear(face, rng, light, k)
    return Layers(k, _body(face, x, y, rng, light, k), curtain, backing, ear, face.hair_length > 1.45)


def draw_behind(backdrop, layers, scale, origin, turn, pivot):
    """The frame without the head: backdrop, hair behind, body, ears [S, S, 3], a new array."""
    image = backdrop.copy()
    hair = _flat_affine(layers.k, scale, origin, turn, pivot, follow=1.0, depth=-0.5)
    if layers.backing is not None:
        _over(image, layers.backing, hair)
        if not layers.curtain_front:
            _over(image, layers.curtain, hair)
    _over(image, layers.body, _body_affine(layers.k, scale, origin, turn, pivot))
    if layers.ear is not None:
        for side in (-1.0, 1.0):
            _over(image, layers.ear, _ear_affine(layers.k, scale, origin, turn, pivot, side))
    if layers.curtain is not None and layers.curtain_front:
        _over(image, layers.curtain, hair)
    return image


def _plane(bounds, k):
    x0, x1, y0, y1 = bounds
    return np.meshgrid(np.arange(x0, x1, 1.0 / k, np.float32), np.arange(y0, y1, 1.0 / k, np.float32))


def _to_pixels(points, bounds, k):
    return (np.asarray(points) - [bounds[0], bounds[2]]) * k


def _over(image, layer, affine):
    """Lay a premultiplied layer over the image, in place, through a 2x3 map from layer to image pixels."""
    h, w = layer.shape[:2]
    corners = affine[:, :2] @ np.array([[0, w, 0, w], [0, 0, h, h]]) + affine[:, 2:]
    low = np.clip(np.floor(corners.min(axis=1)).astype(int), 0, image.shape[1::-1])
    high = np.clip(np.ceil(corners.max(axis=1)).astype(int) + 1, 0, image.shape[1::-1])
    if np.any(high <= low):
        return
    moved = affine - np.array([[0, 0, low[0]], [0, 0, low[1]]])
    warped = cv2.warpAffine(layer, moved, tuple((high - low).tolist()), flags=cv2.INTER_LINEAR)
    area = image[low[1] : high[1], low[0] : high[0]]
    area *= 1.0 - warped[..., 3:]
    area += warped[..., :3]


def _flat_affine(k, scale, origin, turn, pivot, follow, depth):
    """Map of a plane at z = `depth` that turns with the head by the share `follow`."""
    part = follow * turn[:2, :2] + (1.0 - follow) * np.eye(2)
    start = np.array([PLANE[0], PLANE[2]]) - pivot[:2]
    shift = origin + scale * (pivot[:2] + part @ start + follow * turn[:2, 2] * (depth - pivot[2]))
    return np.concatenate([part * scale / k, shift[:, None]], 1)


def _body_affine(k, scale, origin, turn, pivot):
    return _flat_affine(k, scale, origin, turn, pivot, follow=0.25, depth=-0.35)


def _ear_affine(k, scale, origin, turn, pivot, side):
    mirror = np.array([side, 1.0, 1.0])
    across = scale * turn[:2] @ (EAR_OUT * mirror)
    down = scale * turn[:2] @ np.array([0.0, 1.0, -0.1])
    root = origin + scale * (pivot[:2] + turn[:2] @ (EAR_ROOT * mirror - pivot))
    start = root + across * EAR[0] + down * EAR[2]
    return np.stack([across / k, down / k, start], 1)


def _lambert(normal, light):
    """Level [..., 3] of light on normals [..., 3]."""
    facing = np.maximum(normal @ light.direction.astype(np.float32) + 0.2, 0.0)[..., None] / 1.2
    sky = (0.72 - 0.28 * normal[..., 1:2]) * light.fill
    return (facing * light.key + 0.8 * sky).astype(np.float32)


def _round_normal(across, tilt):
    """Normals of an upright cylinder at `across` in [-1, 1], tilted up by `tilt`."""
    side = np.clip(across, -0.97, 0.97)
    normal = np.stack([side, np.full_like(side, -tilt), np.sqrt(1.0 - side**2)], -1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def _body(face, x, y, rng, light, k):
    shape = x.shape
    neck_half = 0.56 + 0.10 * (face.jaw_width - 0.80) / 0.04 * 0.5
    base = face.chin_y + 0.42
    spread = smoothstep(y, base - 0.42, base + 0.25)
    half = neck_half * (1.0 + 0.05 * (base - y)) + 0.22 * spread**2
    neck = _lambert(_round_normal(x / half, -0.1), light) * np.float32(face.skin)
    neck *= (1.0 + 0.04 * fractal_noise(rng, shape, 0.2 * k, 4, 0.7))[..., None]
    cord = np.exp(-(((np.abs(x) - 0.30 + 0.35 * (y - base)) / 0.07) ** 2)) * smoothstep(base - y, -0.3, 0.2)
    neck *= (1.0 - 0.12 * cord)[..., None]
    chin = face.chin_y + 0.04 - 0.55 * x**2
    neck *= (0.34 + 0.66 * smoothstep(y - chin, 0.02, 0.40))[..., None]
    cover = smoothstep(half - np.abs(x), -0.5 / k, 0.5 / k) * smoothstep(y, 0.4, 0.5)
    dip = 0.26 * (1.0 - np.abs(x) / 0.5) if face.cloth_collar == "v" else 0.13 * (1.0 - (x / 0.62) ** 2)
    collar = base + 0.10 + np.maximum(dip, -0.05) * (1.8 if face.cloth_collar == "v" else 1.0)
    slope = base - 0.02 + 0.34 * np.maximum(np.abs(x) - 0.55, 0.0) ** 0.9 + 0.10 * np.maximum(np.abs(x) - 1.5, 0) ** 2
    cloth_cover = smoothstep(y - np.maximum(slope, np.where(np.abs(x) < 0.62, collar, -9.0)), -0.5 / k, 0.5 / k)
    folds = fractal_noise(rng, shape, 0.6 * k, 4, 0.5)
    weave = fractal_noise(rng, shape, 0.04 * k, 2, 0.9)
    cloth = _lambert(_round_normal(x / 2.4, 0.45), light) * np.float32(face.cloth)
    cloth *= (1.0 + 0.10 * folds + 0.06 * weave)[..., None]
    edge = np.exp(-(((y - collar) / 0.05) ** 2)) * (np.abs(x) < 0.75)
    cloth *= (1.0 - 0.35 * edge)[..., None]
    color = neck + cloth_cover[..., None] * (cloth - neck)
    cover = np.maximum(cover, cloth_cover)
    return np.dstack([color * cover[..., None], cover]).astype(np.float32)


def _ear(face, rng, light, k):
    """One ear seen along its own normal, root at the left edge; mirrored for the other side."""
    shape = _plane(EAR, k)[0].shape
    rim = [(-0.10, -0.24), (0.02, -0.32), (0.17, -0.30), (0.25, -0.17), (0.24, 0.0), (0.17, 0.15), (0.11, 0.29),
           (0.02, 0.35), (-0.06, 0.27), (-0.11, 0.0)]  # fmt: skip
    bowl = [(-0.02, -0.10), (0.07, -0.20), (0.15, -0.16), (0.15, -0.02), (0.08, 0.10), (0.0, 0.12)]
    cover = fill_polygon(shape, _to_pixels(idt.smooth_curve(rim, 96, closed=True), EAR, k))
    hollow = blur(fill_polygon(shape, _to_pixels(idt.smooth_curve(bowl, 64, closed=True), EAR, k)), 0.03 * k)
    height = 0.5 * blur(cover, 0.035 * k) - 0.30 * hollow
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=k / 8.0) * 0.35
    tint = np.float32(face.skin) * np.float32([0.98, 0.80, 0.78])
    level = float(light.key.mean()) * 0.62 * (1.0 - 0.5 * slope_y) + float(light.fill.mean()) * 0.8
    color = tint * np.clip(level * (1.0 - 0.62 * hollow), 0.02, None)[..., None]
    color *= (1.0 + 0.04 * fractal_noise(rng, shape, 0.1 * k, 3, 0.8))[..., None]
    return np.dstack([color * cover[..., None], cover]).astype(np.float32)


def _long_hair(face, x, y, rng, light, k):
    """Curtains beside the face, and the hair behind the neck."""
    strands = strand_noise(rng, x * 0.75, y + 1.7)
    curl = 0.05 * np.sin(3.2 * y + 5.0 * face.hair_part) + 0.014 * strands
    outer = 1.03 + face.hair_thickness + 0.16 * smoothstep(y, -0.4, 0.9) + curl
    crown = np.sqrt(np.clip(1.0 - ((y + 0.15) / (face.crown + 0.04)) ** 2, 0.0, 1.0))
    outer = np.where(y < -0.15, np.minimum(outer, (1.03 + face.hair_thickness) * crown), outer)
    inner = 0.80 - 0.10 * smoothstep(y, 0.5, 1.3) + 0.02 * strands
    end = face.hair_length + 0.06 * strands
    length = smoothstep(end - y, -0.10, 0.10)
    sheet = smoothstep(outer - np.abs(x), 0.0, 0.06) * length
    curtain = sheet * smoothstep(np.abs(x) - inner, -0.03, 0.03)
    tone = np.clip(0.90 + 0.40 * strands, 0.2, 2.0)[..., None]
    round_level = _lambert(_round_normal(np.clip((np.abs(x) - 0.9) / 0.3, -1, 1) * np.sign(x), 0.0), light)
    color = np.float32(face.hair) * tone * round_level * (1.0 - 0.25 * smoothstep(y, 0.2, 1.4))[..., None]
    dark = color * 0.30
    pack = lambda c, a: np.dstack([c * a[..., None], a]).astype(np.float32)
    return pack(color, curtain), pack(dark, sheet)
