"""The parts of a face that move and are drawn anew in each frame: eyes and mouth, on skin warped by the expression."""

import typing

import numpy as np

from data_prep.toy import identity as idt
from data_prep.toy.texture import X0, Y0, blur, draw_line, fill_polygon, map_pixels, smoothstep
from msddf_jax.opencv import cv2

IRIS_RADIUS = 0.086
TEETH = np.float32([0.66, 0.60, 0.50])


class Drawn(typing.NamedTuple):
    """Maps of one frame, float32, on the raster of `texture`."""

    albedo: np.ndarray  # [h, w, 3]
    height: np.ndarray  # [h, w]
    gloss: np.ndarray  # [h, w]
    glint: np.ndarray  # [h, w] light added as it is: reflections on eyes and lips


def draw(face, baked, expression):
    """Maps of `face` with `expression`.

    Args:
      baked: texture.Baked of the same person.

    Returns:
      Drawn.
    """
    shape = baked.height.shape
    coarse = max(1, round(0.05 * baked.k))
    grid = np.stack([baked.x[::coarse, ::coarse], baked.y[::coarse, ::coarse]], -1).astype(np.float64)
    shift = (idt.skin_shift(face, expression, grid) * baked.k).astype(np.float32)
    columns, rows = (baked.x - X0) * np.float32(baked.k), (baked.y - Y0) * np.float32(baked.k)
    # the coarse samples lie at multiples of `coarse`: interpolate at those places, not at cv2.resize's
    move = cv2.remap(shift, columns / coarse, rows / coarse, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    columns, rows = columns + move[..., 0], rows + move[..., 1]
    albedo = cv2.remap(baked.albedo, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    rest = cv2.remap(np.dstack([baked.height, baked.gloss]), columns, rows, cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    drawn = Drawn(albedo, rest[..., 0].copy(), rest[..., 1].copy(), np.zeros(shape, np.float32))
    _draw_mouth(face, baked, expression, drawn)
    for side in (-1, 1):
        _draw_eye(face, baked, expression, drawn, side)
    return drawn


def _window(maps, k, low, high):
    """The maps' part between two head points, as views, with its head coordinates of sample [0, 0]."""
    shape = maps[0].shape
    c0, r0 = np.maximum(np.floor(map_pixels(low, k)).astype(int), 0)
    c1, r1 = np.minimum(np.ceil(map_pixels(high, k)).astype(int) + 1, [shape[1], shape[0]])
    return [m[r0:r1, c0:c1] for m in maps], np.array([X0 + c0 / k, Y0 + r0 / k])


def _mix(albedo, cover, color):
    albedo += cover[..., None] * (np.asarray(color, np.float32) - albedo)


def _draw_mouth(face, baked, expression, drawn):
    k = baked.k
    lips = idt.mouth_curves(face, expression)
    wide = face.mouth_width * 1.45
    low, high = (-wide, face.mouth_y - 0.32), (wide, face.mouth_y + 0.62)
    (albedo, height, gloss, _), corner = _window(drawn, k, low, high)
    at = {name: (curve - corner) * k for name, curve in lips.items()}
    shape = height.shape
    ring = lambda a, b: np.concatenate([at[a], at[b][::-1]])
    upper = fill_polygon(shape, ring("outer_upper", "inner_upper"))
    lower = fill_polygon(shape, ring("inner_lower", "outer_lower"))
    inner = fill_polygon(shape, ring("inner_upper", "inner_lower"))
    lip = np.minimum(upper + lower, 1.0)
    x = corner[0] + np.arange(shape[1], dtype=np.float32) / k
    lines = 1.0 + 0.05 * np.sin(150.0 * x + 9.0 * np.sin(13.0 * x + face.seed % 7))
    color = np.float32(face.lip) * lines[None, :, None]
    soft = blur(lip, 0.014 * k)
    albedo += (soft * (1.0 - 0.16 * upper))[..., None] * (color * (1.0 - 0.14 * upper[..., None]) - albedo)
    height += 0.060 * blur(upper, 0.030 * k) + 0.090 * blur(lower, 0.036 * k)
    gloss += 0.9 * blur(lower, 0.03 * k) + 0.2 * upper
    # the line between the lips, deepest at the corners
    line = blur(draw_line(shape, at["inner_upper"], 0.018 * k), 0.006 * k)
    ends = np.zeros(shape, np.float32)
    for end in (at["inner_upper"][0], at["inner_upper"][-1]):
        cv2.circle(ends, tuple(np.round(end * 16).astype(int).tolist()), int(0.016 * k * 16), 1.0, -1, cv2.LINE_8, 4)
    dark = np.minimum(0.72 * line + 0.5 * blur(ends, 0.02 * k), 0.85)
    _mix(albedo, dark, np.float32(face.lip) * 0.16)
    height -= 0.03 * dark
    if expression.jaw > 0.02:
        _draw_mouth_inside(face, albedo, height, gloss, at, inner, k, x)


def _draw_mouth_inside(face, albedo, height, gloss, at, inner, k, x):
    shape = inner.shape
    cavity = np.empty((*shape, 3), np.float32)
    cavity[:] = np.float32([0.045, 0.014, 0.014])
    depth = np.arange(shape[0], dtype=np.float32)[:, None]
    curve = lambda name: np.interp(np.arange(shape[1]), at[name][:, 0], at[name][:, 1])[None, :]
    below = (depth - curve("inner_upper")) / k
    above = (curve("inner_lower") - depth) / k
    tongue = smoothstep(above + 0.02, 0.16, 0.0) * smoothstep(below, 0.08, 0.16) * np.exp(-((x / 0.22) ** 4))
    _mix(cavity, 0.8 * tongue, (0.30, 0.09, 0.085))
    gaps = 1.0 - 0.30 * np.exp(-((((np.abs(x) + 0.036) % 0.072 - 0.036) / 0.006) ** 2))
    arch = np.exp(-((x / (0.78 * face.mouth_width)) ** 6))
    shadow = (0.45 + 0.55 * smoothstep(below, 0.0, 0.035)) * smoothstep(below + above, 0.01, 0.10)
    teeth = smoothstep(below, 0.100 - 0.02 * (x / 0.2) ** 2, 0.078 - 0.02 * (x / 0.2) ** 2) * arch
    _mix(cavity, teeth, TEETH)
    cavity *= (1.0 + teeth * (gaps * shadow - 1.0))[..., None]
    albedo += inner[..., None] * (cavity - albedo)
    height -= 0.05 * inner
    gloss *= 1.0 - 0.9 * inner


def _draw_eye(face, baked, expression, drawn, side):
    k = baked.k
    upper, lower = idt.eye_curves(face, expression, side)
    center = np.array([side * face.eye_x, 0.0])
    (albedo, height, gloss, glint), corner = _window(
        drawn, k, center - np.array([0.30, 0.24]), center + np.array([0.30, 0.22])
    )
    shape = height.shape
    top, bottom = (upper - corner) * k, (lower - corner) * k
    opening = fill_polygon(shape, np.concatenate([top, bottom[::-1]]))
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32) / k
    x, y = x + np.float32(corner[0] - center[0]), y + np.float32(corner[1] - center[1])
    _draw_lids(face, expression, albedo, height, upper, lower, corner, k)
    eye = _eyeball(face, expression, x, y, side)
    lid = np.interp(np.arange(shape[1]), *(top[::-1] if top[0, 0] > top[-1, 0] else top).T)[None, :]
    under = (np.arange(shape[0], dtype=np.float32)[:, None] - lid) / k
    eye *= (0.42 + 0.58 * smoothstep(under, -0.005, 0.055))[..., None]
    albedo += opening[..., None] * (eye - albedo)
    # a ball in the opening, lit from in front more than the socket round it
    height += opening * (-0.02 - 0.25 * (x**2 + y**2))
    gloss *= 1.0 - opening
    spot_x, spot_y = 0.045 * expression.gaze_x + 0.028, 0.03 * expression.gaze_y - 0.034
    spot = np.exp(-(((x - spot_x) / 0.017) ** 2) - ((y - spot_y) / 0.017) ** 2)
    faint = np.exp(-(((x - spot_x + 0.075) / 0.02) ** 2) - ((y - spot_y - 0.06) / 0.014) ** 2)
    glint += opening * (0.75 * spot + 0.07 * faint)
    lash = draw_line(shape, top, 0.026 * k)
    _mix(albedo, np.minimum(0.85 * lash, 0.9), np.float32(face.brow) * 0.25)
    _mix(albedo, 0.30 * draw_line(shape, bottom, 0.012 * k), np.float32(face.brow) * 0.5)


def _draw_lids(face, expression, albedo, height, upper, lower, corner, k):
    """Fold above the eye, rim below it, and the lids' thickness."""
    shape = height.shape
    lift = np.sin(np.pi * np.linspace(0.06, 1.0, len(upper))) ** 0.7
    fold = upper - np.stack([0.0 * lift, face.lid_crease * lift * min(1.0, expression.eye_open) + 0.012], 1)
    crease = blur(draw_line(shape, (fold - corner) * k, 0.018 * k), 0.008 * k)
    _mix(albedo, 0.42 * crease, np.float32(face.skin) * 0.30)
    height -= 0.018 * crease
    rim = draw_line(shape, (lower - (corner - np.array([0.0, 0.014]))) * k, 0.018 * k)
    _mix(albedo, 0.35 * rim, np.float32(face.skin) * [1.0, 0.75, 0.72])
    height += 0.012 * rim
    height += 0.014 * blur(draw_line(shape, (upper - [0.0, 0.022] - corner) * k, 0.03 * k), 0.01 * k)


def _eyeball(face, expression, x, y, side):
    """White, iris and pupil round the eye's centre, linear RGB [h, w, 3]."""
    white = np.float32([0.66, 0.61, 0.58])
    eye = np.empty((*x.shape, 3), np.float32)
    eye[:] = white
    edge = smoothstep(np.abs(x), 0.06, face.eye_width)
    eye *= 1.0 - edge[..., None] * np.float32([0.32, 0.46, 0.48])
    corner = np.exp(-(((x + side * 0.94 * face.eye_width) / 0.030) ** 2) - (y / 0.03) ** 2)
    _mix(eye, 0.8 * corner, np.float32(face.lip) * 0.9)
    gaze_x, gaze_y = 0.055 * expression.gaze_x, 0.028 * expression.gaze_y - 0.014
    radius = np.hypot(x - gaze_x, y - gaze_y)
    angle = np.arctan2(y - gaze_y, x - gaze_x)
    rays = 1.0 + 0.16 * np.sin(23 * angle + face.seed % 11) + 0.12 * np.sin(41 * angle)
    iris = np.float32(face.iris) * rays[..., None] * (1.25 - 0.35 * smoothstep(y - gaze_y, 0.05, -0.06))[..., None]
    iris *= (1.0 - 0.75 * smoothstep(radius, 0.062, IRIS_RADIUS))[..., None]
    soft = 0.010
    eye += smoothstep(radius, IRIS_RADIUS + soft, IRIS_RADIUS - soft)[..., None] * (iris - eye)
    _mix(eye, smoothstep(radius, 0.040, 0.028), (0.006, 0.006, 0.006))
    return eye
