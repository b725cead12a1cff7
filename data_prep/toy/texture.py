"""What is painted once for a person: skin, brows, beard and hair as maps over the unrotated head.

A map is a raster over the head frame of `identity`: column = (x - X0) * k, row = (y - Y0) * k, with k pixels a
head unit and samples at pixel centres.
"""

import typing

import numpy as np

from data_prep.toy import identity as idt
from msddf_jax.opencv import cv2

X0, X1 = -1.5, 1.5
Y0, Y1 = -1.75, 2.05
DOME_DEPTH = 1.0
DOME_POWER = 2.5


class Baked(typing.NamedTuple):
    """Maps of one person, float32."""

    k: float  # pixels a head unit
    x: np.ndarray  # [h, w] head coordinates of the samples
    y: np.ndarray
    albedo: np.ndarray  # [h, w, 3] linear RGB
    height: np.ndarray  # [h, w] z of the surface; falls off a cliff outside the head
    gloss: np.ndarray  # [h, w] amount of specular reflection


def map_pixels(points, k):
    """Head coordinates [..., 2] -> map pixels (column, row) [..., 2]."""
    return (np.asarray(points) - [X0, Y0]) * k


def smoothstep(value, low, high):
    """Cubic step from 0 below `low` to 1 above `high`."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def fractal_noise(rng, shape, coarsest, octaves, gain=0.6):
    """Sum of `octaves` of value noise, the first with cells of `coarsest` pixels; unit variance [h, w] float32."""
    out = np.zeros(shape, np.float32)
    amplitude, cell = 1.0, float(coarsest)
    for _ in range(octaves):
        grid = (max(2, round(shape[0] / cell) + 2), max(2, round(shape[1] / cell) + 2))
        noise = rng.standard_normal(grid, dtype=np.float32)
        out += amplitude * cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)
        amplitude *= gain
        cell = max(1.0, cell / 2.0)
    return (out - out.mean()) / (out.std() + 1e-6)


def fill_polygon(shape, pixels):
    """Antialiased coverage in [0, 1] of a polygon given in pixels [N, 2] -> [h, w] float32."""
    canvas = np.zeros(shape, np.uint8)
    cv2.fillPoly(canvas, [np.round(np.asarray(pixels) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return canvas.astype(np.float32) / 255.0


def draw_line(shape, pixels, width):
    """Antialiased coverage of an open line of `width` pixels, soft at the edge -> [h, w] float32."""
    canvas = np.zeros(shape, np.uint8)
    points = [np.round(np.asarray(pixels) * 16).astype(np.int32)]
    whole = max(1, int(width))
    cv2.polylines(canvas, points, False, int(255 * min(1.0, width)), whole, cv2.LINE_AA, 4)
    return blur(canvas.astype(np.float32) / 255.0, 0.35 * max(width, 1.0))


def blur(image, sigma):
    """Gaussian blur by `sigma` pixels."""
    return cv2.GaussianBlur(image, (0, 0), max(float(sigma), 0.2), borderType=cv2.BORDER_REPLICATE)


def bump(x, y, cx, cy, sx, sy):
    """Gaussian of peak 1 at (|x| = cx, y = cy): the same on both sides of the face."""
    return np.exp(-(((np.abs(x) - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def bake(face, k):
    """Paint the maps of a person.

    Args:
      face: identity.Identity.
      k: pixels a head unit.

    Returns:
      Baked.
    """
    width, rows = int(np.ceil((X1 - X0) * k)), int(np.ceil((Y1 - Y0) * k))
    x, y = np.meshgrid(X0 + np.arange(width, dtype=np.float32) / k, Y0 + np.arange(rows, dtype=np.float32) / k)
    rng = idt.stream(face.seed, "texture")
    hair, strands = _hair_cover(face, x, y, rng, k)
    height = _dome(face, x, y) + _relief(face, x, y)
    wrinkles = _wrinkles(face, x.shape, k)
    pores = fractal_noise(rng, x.shape, 0.05 * k, 3, 0.8)
    height += (1.0 - hair) * (0.0011 * (1.0 + face.age) * pores - wrinkles)
    height += hair * (face.hair_thickness * 0.55 + 0.010 * strands)
    albedo = _skin(face, x, y, rng, k) * (1.0 - 2.0 * wrinkles[..., None])
    albedo = _nostrils(face, x, y, albedo)
    albedo = _brows(face, albedo, rng, k)
    shade = np.clip(0.95 + 0.42 * strands, 0.25, 2.0)[..., None]
    albedo += hair[..., None] * (np.float32(face.hair) * shade - albedo)
    gloss = face.oil * (0.35 + 0.5 * bump(x, y, 0.0, 0.25, 0.16, 0.35) + 0.3 * bump(x, y, 0.0, -0.6, 0.5, 0.25)
                        + 0.3 * bump(x, y, 0.5, 0.35, 0.2, 0.2)) * (1.0 + 0.25 * pores)  # fmt: skip
    gloss = gloss * (1.0 - hair) + hair * np.clip(0.24 + 0.16 * strands, 0.0, 0.8)
    return Baked(k, x, y, *(np.ascontiguousarray(m, np.float32) for m in (albedo, height, gloss)))


def _dome(face, x, y):
    """The head without features: a dome over the outline, with the hair's thickness above the temples."""
    outline = idt.head_outline(face) - [0.0, idt.HEAD_CENTER_Y]
    angle = np.arctan2(outline[:, 1], outline[:, 0])
    radius = np.linalg.norm(outline, axis=1)
    if face.hair_style != "bald":
        radius = radius * (1.0 + face.hair_thickness * smoothstep(-np.sin(angle), -0.05, 0.55))
    order = np.argsort(angle)
    table = np.arctan2(y - idt.HEAD_CENTER_Y, x)
    limit = np.interp(table, angle[order], radius[order], period=2.0 * np.pi)
    rho = np.hypot(x, y - idt.HEAD_CENTER_Y) / limit
    inside = DOME_DEPTH * np.sqrt(np.maximum(1.0 - np.minimum(rho, 1.0) ** DOME_POWER, 0.0))
    return inside - 12.0 * np.maximum(rho - 1.0, 0.0)


def _relief(face, x, y):
    """Sockets, nose, cheeks, mouth and chin, added to the dome."""
    tip = face.nose_length - 0.11
    out = -0.16 * bump(x, y, face.eye_x - 0.03, -0.03, 0.22, 0.13)
    out += 0.085 * bump(x, y, face.eye_x + 0.01, 0.005, 0.17, 0.095)  # the eyeball under the lids
    out += 0.05 * bump(x, y, 0.40, face.brow_y - 0.01, 0.34, 0.085)
    out += face.cheek * bump(x, y, 0.60, 0.40, 0.22, 0.22)
    out += 0.10 * bump(x, y, 0.0, face.mouth_y, 0.40, 0.26)
    out += 0.11 * bump(x, y, 0.0, face.chin_y - 0.17, 0.24, 0.13)
    out -= 0.05 * bump(x, y, 0.0, face.mouth_y + 0.24, 0.22, 0.055)
    out -= 0.018 * bump(x, y, 0.0, 0.5 * (tip + 0.14 + face.mouth_y - face.lip_upper), 0.035, 0.07)
    ramp = np.clip((y + 0.26) / (tip + 0.26), 0.0, 1.0)
    profile = face.nose_height * (0.16 * smoothstep(y, -0.34, -0.04) + 0.60 * ramp**1.4)
    base = tip + 0.15 - 0.9 * x**2  # the underside reaches lowest in the middle
    profile *= 1.0 - smoothstep(y, base - 0.15, base + 0.02)
    half = 0.115 + 0.42 * face.nose_width * smoothstep(y, 0.0, tip + 0.05)
    out += profile * np.exp(-((x / half) ** 2))
    out += 0.26 * face.nose_height * bump(x, y, 0.0, tip + 0.005, 0.115, 0.12)  # the ball of the tip
    out += 0.14 * bump(x, y, 0.74 * face.nose_width, tip + 0.045, 0.070, 0.072)
    out -= 0.04 * bump(x, y, 0.50 * face.nose_width, tip + 0.115, 0.04, 0.025)
    return out


def _wrinkles(face, shape, k):
    """Depth of the folds in head units: beside nose and mouth, under the eyes, on the forehead [h, w]."""
    out = np.zeros(shape, np.float32)
    tip = face.nose_length - 0.11
    for side in (-1, 1):
        fold = [(side * (face.nose_width + 0.03), tip + 0.02), (side * (face.mouth_width + 0.02), tip + 0.20),
                (side * (face.mouth_width + 0.10), face.mouth_y)]  # fmt: skip
        line = map_pixels(idt.smooth_curve(fold, 24), k)
        out += (0.006 + 0.030 * face.age) * blur(draw_line(shape, line, 0.03 * k), 0.025 * k)
        bag = [(side * (face.eye_x + u), 0.15 - 1.2 * u * u) for u in (-0.16, -0.06, 0.05, 0.14)]
        line = map_pixels(idt.smooth_curve(bag, 24), k)
        out += (0.003 + 0.016 * face.age) * blur(draw_line(shape, line, 0.02 * k), 0.012 * k)
        for turn in (-0.10, 0.0, 0.09) if face.age > 0.45 else ():
            foot = [(side * (face.eye_x + face.eye_width + a), b * turn) for a, b in ((0.04, 0.3), (0.19, 1.4))]
            out += 0.010 * face.age * draw_line(shape, map_pixels(foot, k), 0.014 * k)
    for y in np.linspace(-0.44, -0.66, 3) if face.age > 0.4 else ():
        line = [(u, y + 0.03 * u * u + 0.01 * np.sin(9 * u + 40 * y)) for u in np.linspace(-0.5, 0.5, 17)]
        out += 0.008 * face.age * blur(draw_line(shape, map_pixels(line, k), 0.016 * k), 0.008 * k)
    return out


def _skin(face, x, y, rng, k):
    """Linear RGB of bare skin, with blood, patches, freckles, moles and beard [h, w, 3]."""
    shape = x.shape
    patches = fractal_noise(rng, shape, 0.45 * k, 5, 0.62)
    fine = fractal_noise(rng, shape, 0.06 * k, 3, 0.9)
    blood = 0.5 * bump(x, y, 0.55, 0.45, 0.3, 0.26) + 0.5 * bump(x, y, 0.0, face.nose_length - 0.1, 0.2, 0.12)
    blood += 0.2 * bump(x, y, 0.0, face.chin_y - 0.15, 0.25, 0.12) + 0.10 * fractal_noise(rng, shape, 0.2 * k, 3)
    dark = (0.18 + 0.14 * face.age) * bump(x, y, face.eye_x - 0.03, 0.07, 0.20, 0.085)
    dark += 0.10 * bump(x, y, face.eye_x, -0.09, 0.2, 0.06)
    skin = np.float32(face.skin) * (1.0 + 0.045 * patches + 0.045 * fine)[..., None]
    skin *= np.exp(blood[..., None] * np.float32([0.05, -0.22, -0.20]))
    skin *= np.exp(-dark[..., None] * np.float32([0.75, 1.0, 0.85]))
    spots = _spots(face, shape, rng, k)
    skin *= np.exp(-spots[..., None] * np.float32([0.5, 0.9, 1.1]))
    if face.beard:
        skin += _beard(face, x, y, rng, k)[..., None] * (np.float32(face.hair) * 0.8 + 0.01 - skin)
    return skin.astype(np.float32)


def _spots(face, shape, rng, k):
    """Optical depth of freckles and moles [h, w]."""
    out = np.zeros(shape, np.float32)
    freckles = int(260 * face.freckles)
    at = np.stack([rng.normal(0.0, 0.42, freckles), rng.normal(0.30, 0.26, freckles)], 1)
    kinds = [(p, 0.011, rng.uniform(0.2, 0.9)) for p in at]
    moles = rng.poisson(2.5)
    at = np.stack([rng.uniform(-0.8, 0.8, moles), rng.uniform(-0.6, 1.3, moles)], 1)
    kinds += [(p, rng.uniform(0.012, 0.024), 1.3) for p in at]
    for point, radius, depth in kinds:
        center = tuple(int(v) for v in np.round(map_pixels(point, k) * 16))
        layer_value = float(depth)
        cv2.circle(out, center, max(int(radius * k * 16), 6), layer_value, -1, cv2.LINE_8, 4)
    return blur(out, 0.009 * k)


def _beard(face, x, y, rng, k):
    """Share of beard in the colour of each point, stubble or full [h, w]."""
    # from the sideburns round below the mouth, and the moustache
    edge = 0.42 + 0.60 * (1.0 - np.clip(np.abs(x) / 0.95, 0.0, 1.0) ** 2.0)
    area = smoothstep(y - edge, -0.08, 0.12)
    upper = face.mouth_y - face.lip_upper - 0.05
    area = np.maximum(area, 0.9 * np.exp(-((x / (0.85 * face.mouth_width)) ** 2) - ((y - upper) / 0.06) ** 2))
    area *= 1.0 - np.exp(-((x / (0.62 * face.mouth_width)) ** 4) - ((y - face.mouth_y - 0.16) / 0.05) ** 2)
    grain = 0.75 + 0.25 * fractal_noise(rng, x.shape, 0.03 * k, 2, 1.0)
    return np.clip(area * grain * (0.12 + 0.55 * face.beard**2), 0.0, 0.9)


def _nostrils(face, x, y, albedo):
    tip = face.nose_length - 0.11
    hole = bump(x, y, 0.50 * face.nose_width, tip + 0.112, 0.046, 0.024)
    wing = bump(x, y, 1.02 * face.nose_width, tip + 0.06, 0.02, 0.06)
    under = np.exp(-((x / (0.75 * face.nose_width)) ** 2) - ((y - tip - 0.14) / 0.022) ** 2)
    return albedo * np.exp(-np.minimum(1.5 * hole + 0.22 * wing + 0.18 * under, 1.8))[..., None]


def _brows(face, albedo, rng, k):
    """Brow hairs one by one, short strokes along the brow that lean upward inside and outward outside."""
    shape = albedo.shape[:2]
    strokes = np.zeros(shape, np.uint8)
    for side in (-1, 1):
        line = idt.brow_curve(face, side)
        tangent = np.gradient(line, axis=0)
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        for _ in range(int(190 * face.brow_density)):
            s = rng.uniform(0.0, 1.0)
            i = min(int(s * 32), 31)
            body = face.brow_thickness * (0.35 + 0.65 * np.sin(np.pi * min(0.5, 0.75 * s + 0.04)))
            body *= 1.0 - 0.4 * max(0.0, s - 0.85) / 0.15
            root = line[i] + (s * 32 - i) * (line[i + 1] - line[i]) + [0.0, body * rng.uniform(-0.7, 0.9)]
            lean = -tangent[i] * 0.055 + np.array([0.0, -0.050 * s**1.5])
            ends = np.round(map_pixels([root, root + lean * rng.uniform(0.6, 1.2)], k) * 16).astype(int)
            cv2.line(strokes, tuple(ends[0].tolist()), tuple(ends[1].tolist()), 255, 1, cv2.LINE_AA, 4)
    soft = 0.65 * strokes.astype(np.float32) / 255.0 + 0.5 * blur(strokes.astype(np.float32) / 255.0, 0.016 * k)
    cover = np.clip(soft * (0.55 + 0.4 * face.brow_density), 0.0, 0.92)[..., None]
    return albedo + cover * (np.float32(face.brow) - albedo)


def _hair_cover(face, x, y, rng, k):
    """Where hair grows, in [0, 1], and the height of its strands, about unit variance; both [h, w]."""
    angle = np.arctan2(x - face.hair_part, 0.55 + np.maximum(y + 1.45, 0.0))
    radius = np.hypot(x - face.hair_part, y + 1.45)
    strands = strand_noise(rng, angle, radius)
    line = face.hair_line
    if face.hair_style == "swept":
        line = line + 0.22 * np.clip(np.abs(x - face.hair_part), 0.0, 0.9) ** 1.3 - 0.04
    elif face.hair_style == "fringe":
        line = line + 0.05 * np.sin(5.0 * x + 7.0 * face.hair_part)
    elif face.hair_style == "long":
        line = line + 0.42 * np.clip(np.abs(x - 0.6 * face.hair_part), 0.0, 0.9) ** 1.1 - 0.10
    side = 0.45 if face.hair_style == "long" else 0.16
    edge = line + (side - line) * np.clip(np.abs(x), 0.0, 1.1) ** face.hair_power
    jagged = (0.05 if face.hair_style == "fringe" else 0.025) * strands
    cover = smoothstep(edge + jagged - y, -0.035, 0.045)
    if face.hair_style in ("short", "bald"):
        cover = cover * (0.86 + 0.1 * np.tanh(strands))
    return cover.astype(np.float32), strands.astype(np.float32)


def strand_noise(rng, across, along):
    """Noise stretched along hair: fine in `across` (radians or units), slow in `along`; unit variance."""
    table = np.zeros((24, 512), np.float32)
    for cells, gain in ((40, 0.9), (110, 1.0), (256, 0.8)):
        table += gain * cv2.resize(rng.standard_normal((5, cells), dtype=np.float32), (512, 24))
    u = ((across / 3.6 + 0.5) * 511).astype(np.float32)
    v = np.clip(along / 3.5 * 23, 0, 23).astype(np.float32)
    noise = cv2.remap(table, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return (noise - noise.mean()) / (noise.std() + 1e-6)
