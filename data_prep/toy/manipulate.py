"""Four forgeries that differ in kind, made from frames and landmarks as public face manipulation tools do.

Every forged frame equals the target's frame exactly outside its mask.
"""

import typing

import numpy as np

from data_prep.toy import identity as idt
from data_prep.toy import render
from data_prep.toy.texture import blur
from msddf_jax.opencv import cv2

METHODS = ("ToySwap", "ToyReenact", "ToyNeural", "ToyTexture")
INNER = slice(17, 68)  # brows, nose, eyes, mouth
MEMBRANE = 18.0  # the most that Poisson blending may shift a colour, 8-bit steps


class Actor(typing.NamedTuple):
    """A person with the video drawn of them."""

    face: idt.Identity
    depth: np.ndarray  # [81] z of the landmarks
    video: render.Video


class Forged(typing.NamedTuple):
    """A forged video, before encoding."""

    frames: np.ndarray  # [T, H, W, 3] uint8 RGB
    masks: np.ndarray  # [T, H, W] uint8, 255 = manipulated
    landmarks: np.ndarray  # [T, 81, 2] float32, forehead left to right, of the forged face


def forge(method, target, source, rng):
    """Forge the target's video.

    Args:
      method: one of METHODS.
      target, source: Actor, videos of equal length and size; ToyNeural and ToyTexture do not look at the source.
      rng: numpy Generator; what a method draws is constant over the video.

    Returns:
      Forged.

    Raises:
      ValueError: an unknown method.
    """
    makers = {"ToySwap": swap, "ToyReenact": reenact, "ToyNeural": neural, "ToyTexture": texture}
    if method not in makers:
        raise ValueError(f"unknown method {method!r}; allowed: {', '.join(METHODS)}")
    return makers[method](target, source, rng)


def region(points, shape, grow=1.0):
    """Filled convex hull of points [N, 2], scaled by `grow` about their mean -> [H, W] float32 in [0, 1]."""
    center = points.mean(axis=0)
    hull = cv2.convexHull((center + grow * (points - center)).astype(np.float32))[:, 0]
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(hull * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255.0


def feather(cover, width):
    """Weight that rises from 0 at the region's edge to 1 at `width` pixels inside it."""
    inside = cv2.distanceTransform((cover > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    return blur(np.clip(inside / max(width, 1.0), 0.0, 1.0), 0.3 * width) * (inside > 0)


def paste(frame, forged, weight):
    """Blend `forged` over `frame` (both [H, W, 3]) by `weight` [H, W]; returns (uint8 frame, uint8 mask)."""
    frame = frame.astype(np.float32)
    blended = np.round(frame + weight[..., None] * (forged - frame))
    inside = weight > 0.02
    out = np.where(inside[..., None], np.clip(blended, 0, 255), frame)
    return out.astype(np.uint8), inside.astype(np.uint8) * 255


def head_unit(landmarks):
    """Half the width of the face in pixels, from one frame's landmarks."""
    return 0.5 * float(np.linalg.norm(landmarks[16] - landmarks[0]))


def _affine(source, target):
    """Least-squares affine map [2, 3] between point sets [N, 2]."""
    design = np.concatenate([source, np.ones((len(source), 1))], 1)
    return np.linalg.lstsq(design, target, rcond=None)[0].T


def swap(target, source, rng):
    """Another person's inner face: best matching source frame, affine warp, colour transfer, Poisson blend."""
    strength = rng.uniform(0.65, 1.0)  # of the colour transfer: what is left shows as a tint
    grow = rng.uniform(1.06, 1.16)
    out = []
    for frame, points in zip(target.video.frames, target.video.landmarks):
        maps = [_affine(p[INNER], points[INNER]) for p in source.video.landmarks]
        moved = [p @ m[:, :2].T + m[:, 2] for p, m in zip(source.video.landmarks, maps)]
        best = int(np.argmin([np.abs(p[INNER] - points[INNER]).mean() for p in moved]))
        size = frame.shape[1::-1]
        other = cv2.warpAffine(source.video.frames[best], maps[best], size, borderMode=cv2.BORDER_REFLECT_101)
        shape = frame.shape[:2]
        face = region(points, shape, 0.96) * region(moved[best], shape, 0.96)
        brows = points[17:27] + 0.06 * (points[27] - points[8])
        core = region(np.concatenate([points[INNER], brows]), shape, grow) * face
        bare = region(points[27:68], shape) * face > 0.5  # no brows, no fringe
        other = blur(_match_color(other, frame, bare, strength), 0.012 * head_unit(points))
        blended = _poisson(other, frame, core > 0.02)
        forged, mask = paste(frame, blended, feather(core, 0.06 * head_unit(points)))
        marks = points.copy()
        marks[INNER] = moved[best][INNER]
        out.append((forged, mask, marks))
    return Forged(*(np.stack(part) for part in zip(*out)))


def _match_color(image, reference, area, strength):
    """Move mean and deviation of each channel inside `area` towards the reference's by `strength`."""
    a, b = image[area].astype(np.float32), reference[area].astype(np.float32)
    gain = b.std(axis=0) / (a.std(axis=0) + 1e-3)
    moved = (image.astype(np.float32) - a.mean(axis=0)) * np.clip(gain, 0.8, 1.25) + b.mean(axis=0)
    return np.clip(image + strength * (moved - image), 0, 255).astype(np.uint8)


def _poisson(image, frame, inside):
    """Seamless clone of `image` into `frame` [H, W, 3] float32; right where `inside` [H, W], to be pasted there."""
    # seamlessClone erodes its mask by three pixels and centres the mask's bounding box on the given point
    wide = cv2.dilate(inside.astype(np.uint8) * 255, np.ones((7, 7), np.uint8))
    wide[[0, -1]], wide[:, [0, -1]] = 0, 0
    x, y, w, h = cv2.boundingRect(wide)
    cloned = cv2.seamlessClone(image, frame, wide, (x + w // 2, y + h // 2), cv2.NORMAL_CLONE)
    # where hair crosses the edge the membrane would carry its darkness or light across the whole face
    image = image.astype(np.float32)
    return image + np.clip(cloned - image, -MEMBRANE, MEMBRANE)


def reenact(target, source, rng):
    """The source's expression on the target: frames warped to the landmarks the target would then have."""
    size = target.video.frames.shape[1]
    gain = 1.0 + rng.uniform(-0.03, 0.03, 3)  # the re-rendered face is lit a little differently
    out = []
    for t, (frame, points) in enumerate(zip(target.video.frames, target.video.landmarks)):
        own, driver = target.video.expressions[t], source.video.expressions[t]
        lids = float(np.clip(driver.eye_open, 0.55 * own.eye_open, 1.3 * own.eye_open))
        wanted = idt.Expression(driver.jaw, driver.smile, driver.brow, lids, own.gaze_x, own.gaze_y)
        moved = render.landmarks_of(target.face, target.depth, wanted, target.video.poses[t], size)
        shift = _warp_field(points, moved, frame.shape[:2])
        rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
        warped = cv2.remap(frame, columns - shift[..., 0], rows - shift[..., 1], cv2.INTER_LINEAR,
                           borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)  # fmt: skip
        warped = _open_mouth(warped, points, moved, source.video, t)
        unit = head_unit(points)
        inner = feather(region(np.concatenate([moved[INNER], moved[5:12]]), frame.shape[:2], 1.06), 0.20 * unit)
        rendered = blur(warped, 0.016 * unit) * gain.astype(np.float32)  # a model's texture is coarser than skin
        lit = warped + inner[..., None] * (rendered - warped)
        moving = np.hypot(shift[..., 0], shift[..., 1]) > 0.05
        forged, mask = paste(frame, lit, (moving | (inner > 0.02)).astype(np.float32))
        out.append((forged, mask, moved))
    return Forged(*(np.stack(part) for part in zip(*out)))


def _warp_field(before, after, shape):
    """Backward displacement [H, W, 2]: thin-plate spline through the landmarks' motion, still round the face."""
    center = after.mean(axis=0)
    up = after[27] - after[8]
    edge = np.concatenate([center + 1.22 * (after[:17:2] - center), after[17:27:3] + 0.25 * up])
    ring = np.concatenate([center + 1.5 * (after[:17:2] - center), after[68::2]])
    knots = np.concatenate([after, ring]).astype(np.float64)
    motion = np.concatenate([after - before, np.zeros_like(ring)]).astype(np.float64)
    kernel = lambda d2: 0.5 * d2 * np.log(d2 + 1e-9)
    n = len(knots)
    unit = head_unit(after)
    system = np.zeros((n + 3, n + 3))
    scaled = (knots - center) / unit
    system[:n, :n] = kernel(((scaled[:, None] - scaled[None]) ** 2).sum(-1)) + 1e-4 * np.eye(n)
    system[:n, n:] = np.concatenate([np.ones((n, 1)), scaled], 1)
    system[n:, :n] = system[:n, n:].T
    weights = np.linalg.solve(system, np.concatenate([motion, np.zeros((3, 2))]))
    cover = region(edge, shape)
    x, y, w, h = cv2.boundingRect((cover > 0).astype(np.uint8))
    step = 4  # the field is smooth: solve every fourth pixel of the box and interpolate
    ys, xs = np.arange(y, y + h + step, step), np.arange(x, x + w + step, step)
    grid = (np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2) - center) / unit
    basis = kernel(((grid[:, None] - scaled[None]) ** 2).sum(-1))
    field = basis @ weights[:n] + np.concatenate([np.ones((len(grid), 1)), grid], 1) @ weights[n:]
    field = field.reshape(len(ys), len(xs), 2).astype(np.float32)
    rows, columns = np.mgrid[0:h, 0:w].astype(np.float32) / step
    dense = np.zeros((*shape, 2), np.float32)
    dense[y : y + h, x : x + w] = cv2.remap(field, columns, rows, cv2.INTER_LINEAR)
    return dense * feather(cover, 0.22 * unit)[..., None]


def _open_mouth(warped, before, after, source, t):
    """Fill a mouth that opens wider than the target's with the source's mouth of the same frame."""
    opening = lambda p: float(np.linalg.norm(p[66] - p[62]))
    if opening(after) < 1.0 or opening(after) < 1.25 * opening(before):
        return warped
    lips, other = slice(60, 68), source.landmarks[t]
    if opening(other) < 0.7:
        return warped
    warp = _affine(other[lips], after[lips])
    size = warped.shape[1::-1]
    mouth = cv2.warpAffine(source.frames[t], warp, size, borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    cover = blur(region(after[lips], warped.shape[:2]), 0.6)
    return warped + cover[..., None] * (mouth - warped)


def neural(target, source, rng):
    """Inner face through an autoencoder's bottleneck: fewer pixels, other tint, pasted back with a soft edge."""
    factor = rng.uniform(1.6, 2.3)
    rise = rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
    tint = 1.0 + rng.uniform(-0.035, 0.035, 3).astype(np.float32)
    grow = rng.uniform(1.12, 1.25)
    out = []
    for frame, points in zip(target.video.frames, target.video.landmarks):
        cover = region(points[INNER], frame.shape[:2], grow) * region(points, frame.shape[:2], 0.98)
        x, y, w, h = cv2.boundingRect((cover > 0.02).astype(np.uint8))
        part = frame[y : y + h, x : x + w]
        small = cv2.resize(part, (round(w / factor), round(h / factor)), interpolation=cv2.INTER_AREA)
        small = small.astype(np.float32)
        coded = frame.astype(np.float32)
        coded[y : y + h, x : x + w] = cv2.resize(small, (w, h), interpolation=int(rise)) * tint
        forged, mask = paste(frame, coded, feather(cover, 0.16 * head_unit(points)))
        out.append((forged, mask, points))
    return Forged(*(np.stack(part) for part in zip(*out)))


def texture(target, source, rng):
    """Mouth region as a generator's transposed convolutions leave it: half the detail, a grid of periods 2 and 4."""
    gains = [1.0 + rng.uniform(-s, s, (2, 2, 3)) for s in (0.045, 0.065)]
    tint = 1.0 + rng.uniform(-0.03, 0.03, 3).astype(np.float32)
    out = []
    for frame, points in zip(target.video.frames, target.video.landmarks):
        shape = frame.shape[:2]
        center = points[48:60].mean(axis=0)
        jaw = center + 0.88 * (points[3:14] - center)
        cover = region(np.concatenate([points[48:60], points[29:36], jaw]), shape)
        coded = _upsample(frame.astype(np.float32), gains) * tint
        forged, mask = paste(frame, coded, feather(cover, 0.14 * head_unit(points)))
        out.append((forged, mask, points))
    return Forged(*(np.stack(part) for part in zip(*out)))


def _upsample(frame, gains):
    """Halve, and come back as through two stride-2 transposed convolutions.

    Where a kernel's width is not a multiple of its stride, its overlaps add up to another gain at each phase of the
    grid: here `gains` [2, 2, 3] of the stage before the last, seen at period 4, and of the last, at period 2.
    """
    size = frame.shape[1::-1]
    half = cv2.resize(frame, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA)
    tile = lambda g, s: np.tile(g, (s[1] // 2 + 1, s[0] // 2 + 1, 1))[: s[1], : s[0]].astype(np.float32)
    half = half * tile(gains[0], half.shape[1::-1])
    full = cv2.resize(half, size, interpolation=cv2.INTER_NEAREST)
    full = 0.2 * full + 0.8 * cv2.resize(half, size, interpolation=cv2.INTER_LINEAR)
    return full * tile(gains[1], size)
