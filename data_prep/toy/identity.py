"""Who a person is: shape, colour, texture and hair parameters, and the landmarks that follow from them.

Head frame: x to image right, y down, z towards the camera; the eyes lie on y = 0 and half the width of the
face between jaw points 0 and 16 is 1. All shapes are left-right symmetric; colour, texture and hair are not.
"""

import dataclasses

import numpy as np

NUM_LANDMARKS = 81
HEAD_CENTER_Y = 0.12  # origin of the polar description of the head's outline


@dataclasses.dataclass(frozen=True)
class Identity:
    """Parameters of one person, in head units (half face widths), linear RGB in [0, 1] or [0, 1] amounts."""

    seed: int  # of everything random that is baked into this person's texture
    jaw_width: float  # |x| of the jaw angle
    jaw_y: float
    chin_width: float
    chin_y: float
    forehead: float  # height of the hairline's arc above the brows' level
    crown: float  # height of the skull above the eyes
    eye_x: float
    eye_width: float  # half width of the opening
    eye_height: float
    eye_slant: float
    lid_crease: float  # distance of the fold above the upper lid
    brow_y: float
    brow_arch: float
    brow_thickness: float
    brow_density: float
    nose_length: float
    nose_width: float
    nose_height: float
    mouth_y: float
    mouth_width: float
    lip_upper: float
    lip_lower: float
    cheek: float  # height of the cheek bones
    age: float
    beard: float
    freckles: float
    oil: float
    skin: tuple  # linear RGB
    lip: tuple
    iris: tuple
    hair: tuple
    brow: tuple
    hair_style: str  # one of HAIR_STYLES
    hair_thickness: float
    hair_line: float  # y of the hairline in the middle
    hair_power: float  # how squarely the hairline turns down to the temples
    hair_part: float  # x of the parting
    hair_length: float  # y where long hair ends
    cloth: tuple
    cloth_collar: str  # "round" or "v"


@dataclasses.dataclass(frozen=True)
class Expression:
    """State of the face in one frame; all zero but `eye_open` = 1 is neutral."""

    jaw: float = 0.0  # [0, 1] mouth opening
    smile: float = 0.0  # [-1, 1] corners up and out, or down and in
    brow: float = 0.0  # [-1, 1] up, or down
    eye_open: float = 1.0  # [0, 1.15] upper lid
    gaze_x: float = 0.0  # [-1, 1]
    gaze_y: float = 0.0


NEUTRAL = Expression()
HAIR_STYLES = ("short", "fringe", "swept", "long", "bald")

_SKIN_SRGB = np.array(
    [[240, 208, 188], [228, 186, 160], [208, 160, 128], [172, 120, 90], [126, 84, 62], [88, 58, 46]], np.float32
)
_HAIR_SRGB = {
    "black": (26, 22, 22),
    "dark": (52, 36, 26),
    "brown": (92, 62, 40),
    "auburn": (110, 56, 34),
    "blond": (184, 148, 96),
    "grey": (150, 146, 142),
}
_IRIS_SRGB = {"brown": (78, 48, 28), "hazel": (112, 86, 46), "green": (92, 116, 78), "blue": (88, 124, 158)}


def to_linear(srgb):
    """sRGB values in [0, 255] -> linear RGB in [0, 1], by the 2.2 power law used throughout the toy set."""
    return (np.asarray(srgb, np.float32) / 255.0) ** 2.2


def stream(seed, *names):
    """Random generator of its own for each (seed, names): draws do not depend on the order of work."""
    words = [int(seed)] + [n if isinstance(n, int) else int.from_bytes(n.encode(), "little") for n in names]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def sample_identity(seed, index):
    """Draw person `index` of the set `seed`.

    Returns:
      Identity; a function of the two arguments alone.
    """
    rng = stream(seed, "identity", int(index))
    normal = lambda mean, std: float(mean + std * np.clip(rng.standard_normal(), -2.0, 2.0))
    shape = _sample_shape(normal)
    melanin = float(rng.beta(1.0, 1.25))
    skin = _skin_color(melanin, rng)
    age = float(rng.beta(1.4, 2.2))
    hair = _sample_hair(rng, melanin, age)
    hair_color = hair.pop("hair")
    iris = "brown" if melanin > 0.45 else rng.choice(sorted(_IRIS_SRGB))
    lip_tint = np.array([0.80, 0.43, 0.43]) * rng.uniform(0.9, 1.1, 3)
    cloth = to_linear(np.clip(rng.uniform(30, 200) + rng.normal(0, 28, 3), 12, 225))
    bearded = hair["hair_style"] != "long" and rng.random() < 0.5
    return Identity(
        seed=int(rng.integers(2**31)),
        age=age,
        beard=float(rng.uniform(0.25, 1.0)) if bearded else 0.0,
        freckles=float(max(0.0, rng.normal(0.25, 0.35)) * (1.0 - melanin)),
        oil=float(rng.uniform(0.3, 1.0)),
        skin=tuple(skin.tolist()),
        lip=tuple((skin * lip_tint).tolist()),
        iris=tuple((to_linear(_IRIS_SRGB[iris]) * rng.uniform(0.8, 1.25)).tolist()),
        hair=tuple(hair_color.tolist()),
        brow=tuple((hair_color * 0.55 + 0.10 * skin).tolist()),
        cloth=tuple(cloth.tolist()),
        cloth_collar=str(rng.choice(["round", "v"])),
        **shape,
        **hair,
    )


def _sample_shape(normal):
    chin_y = normal(1.50, 0.055)
    mouth_y = normal(0.915, 0.03) + 0.35 * (chin_y - 1.50)
    return dict(
        jaw_width=normal(0.80, 0.04),
        jaw_y=normal(0.98, 0.05),
        chin_width=normal(0.30, 0.04),
        chin_y=chin_y,
        forehead=normal(0.70, 0.04),
        crown=normal(1.34, 0.05),
        eye_x=normal(0.415, 0.018),
        eye_width=normal(0.172, 0.011),
        eye_height=normal(0.088, 0.010),
        eye_slant=normal(0.012, 0.012),
        lid_crease=normal(0.052, 0.015),
        brow_y=normal(-0.265, 0.022),
        brow_arch=normal(0.062, 0.020),
        brow_thickness=normal(0.052, 0.013),
        brow_density=float(np.clip(normal(0.75, 0.2), 0.3, 1.0)),
        nose_length=normal(0.60, 0.035),
        nose_width=normal(0.185, 0.022),
        nose_height=normal(0.36, 0.04),
        mouth_y=mouth_y,
        mouth_width=normal(0.355, 0.03),
        lip_upper=normal(0.072, 0.016),
        lip_lower=normal(0.098, 0.018),
        cheek=normal(0.07, 0.03),
    )


def _skin_color(melanin, rng):
    steps = np.linspace(0.0, 1.0, len(_SKIN_SRGB))
    srgb = np.array([np.interp(melanin, steps, _SKIN_SRGB[:, c]) for c in range(3)])
    return to_linear(np.clip(srgb * (1.0 + rng.normal(0.0, [0.02, 0.02, 0.03])), 10, 250))


def _sample_hair(rng, melanin, age):
    if age > 0.62 and rng.random() < 0.6:
        name = "grey"
    else:
        name = rng.choice(["black", "dark"] if melanin > 0.5 else ["black", "dark", "brown", "auburn", "blond"])
    style = str(rng.choice(HAIR_STYLES, p=[0.32, 0.16, 0.2, 0.26, 0.06]))
    line = {"short": -0.86, "fringe": -0.63, "swept": -0.80, "long": -0.82, "bald": -1.12}[style]
    return dict(
        hair=to_linear(_HAIR_SRGB[name]) * rng.uniform(0.8, 1.2),
        hair_style=style,
        hair_thickness=float(rng.uniform(0.03, 0.07) if style in ("short", "bald") else rng.uniform(0.07, 0.14)),
        hair_line=float(line + np.clip(rng.normal(0.0, 0.04), -0.08, 0.06)),
        hair_power=float(rng.uniform(4.5, 7.5)),
        hair_part=float(rng.uniform(-0.45, 0.45)),
        hair_length=float(rng.uniform(0.9, 2.0)),
    )


def smooth_curve(points, count, closed=False):
    """Catmull-Rom spline through `points` [N, 2], resampled to `count` points of equal arc length [count, 2]."""
    points = np.asarray(points, np.float64)
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None, :] for i in range(4))
    t = np.linspace(0.0, 1.0, 24, endpoint=False)[None, :, None]
    dense = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                   + (3 * p1 - p0 - 3 * p2 + p3) * t**3)  # fmt: skip
    dense = np.concatenate([dense.reshape(-1, 2), (points[:1] if closed else points[-1:])])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(dense, axis=0), axis=1))])
    at = np.linspace(0.0, length[-1], count, endpoint=not closed)
    return np.stack([np.interp(at, length, dense[:, c]) for c in range(2)], axis=1)


def _jaw_half(face):
    """Control points of the image-left half of the jaw, from beside the eye down to the chin."""
    return [
        (-1.0, 0.0),
        (-0.975, 0.42),
        (-0.5 * (face.jaw_width + 0.96), 0.5 * (face.jaw_y + 0.42)),
        (-face.jaw_width, face.jaw_y),
        (-0.5 * (face.jaw_width + face.chin_width), 0.42 * face.jaw_y + 0.58 * face.chin_y),
        (-face.chin_width, face.chin_y - 0.065),
        (0.0, face.chin_y),
    ]


def head_outline(face):
    """Closed outline of the skull without hair, seen from the front [256, 2]; the jaw points lie on it."""
    left = _jaw_half(face)
    top = face.crown
    skull = [(0.0, -top), (-0.42, -0.955 * top), (-0.78, -0.72 * top), (-0.965, -0.34 * top)]
    mirror = [(-x, y) for x, y in left[-2::-1]] + [(-x, y) for x, y in skull[:0:-1]]
    return smooth_curve(skull + left + mirror, 256, closed=True)


def eye_curves(face, expression, side):
    """Lid curves of one eye.

    Args:
      side: -1 image-left, +1 image-right.

    Returns:
      (upper [33, 2], lower [33, 2]), both from the outer corner to the inner one.
    """
    s = np.linspace(0.0, 1.0, 33)
    x = side * (face.eye_x + face.eye_width * (1.0 - 2.0 * s))
    base = -face.eye_slant + 2.0 * face.eye_slant * s + 0.010 * s
    lower = base + 0.60 * face.eye_height * np.sin(np.pi * s**0.92) ** 0.85
    opened = base - face.eye_height * np.sin(np.pi * s**1.08) ** 0.72
    closed = lower - 0.006 * np.sin(np.pi * s)
    upper = closed + (opened - closed) * expression.eye_open
    return np.stack([x, upper], 1), np.stack([x, lower], 1)


def mouth_curves(face, expression):
    """Lip contours from the image-left corner to the right one, [65, 2] each.

    Returns:
      dict with outer_upper, inner_upper, inner_lower, outer_lower.
    """
    s = np.linspace(-1.0, 1.0, 65)
    bulge = np.maximum(1.0 - s**2, 0.0)
    gap = 0.30 * expression.jaw
    width = face.mouth_width * (1.0 + 0.16 * expression.smile - 0.12 * expression.jaw)
    thin = 1.0 - 0.18 * expression.smile - 0.12 * expression.jaw
    line = face.mouth_y - 0.075 * expression.smile * s**2 + 0.012 * np.exp(-((s / 0.18) ** 2)) * (1 - expression.jaw)
    bow = 1.0 - 0.26 * np.exp(-((s / 0.17) ** 2))
    inner_upper = line - 0.14 * gap * bulge**0.6
    inner_lower = line + 0.86 * gap * bulge**0.6
    outer_upper = inner_upper - thin * face.lip_upper * bulge**0.85 * bow
    outer_lower = inner_lower + thin * face.lip_lower * bulge**0.75
    names = ("outer_upper", "inner_upper", "inner_lower", "outer_lower")
    return {n: np.stack([width * s, y], 1) for n, y in zip(names, (outer_upper, inner_upper, inner_lower, outer_lower))}


def brow_curve(face, side):
    """Middle line of one neutral brow from the outer end to the inner one [33, 2]."""
    s = np.linspace(0.0, 1.0, 33)
    x = side * (0.775 - 0.62 * s)
    y = face.brow_y + 0.085 * (1.0 - s) ** 3 - face.brow_arch * np.sin(np.pi * (s * 0.86 + 0.07)) + 0.02
    return np.stack([x, y], 1)


def nose_points(face):
    """The nine nose points 27-35 of the neutral face [9, 2]."""
    tip, half = face.nose_length - 0.11, face.nose_width
    ridge = [(0.0, y) for y in np.linspace(-0.02, tip, 4)]
    base = [(-half * 0.92, tip + 0.075), (-0.52 * half, tip + 0.115), (0.0, tip + 0.14)]
    return np.array(ridge + base + [(-base[1][0], base[1][1]), (-base[0][0], base[0][1])])


def skin_shift(face, expression, points):
    """Where the skin seen at `points` [..., 2] came from in the neutral face, minus the point itself [..., 2].

    A backward field: the texture is looked up at points + shift. Lips and eyes are drawn anew and not moved by it.
    """
    x, y = points[..., 0], points[..., 1]
    side = np.tanh(x / 0.08)
    below = np.clip((y - face.mouth_y + 0.02) / 0.42, 0.0, 1.0)
    drop = 0.20 * expression.jaw * below**2 * (3.0 - 2.0 * below) * np.exp(-((x / 0.95) ** 4))
    cheek = np.exp(-(((np.abs(x) - 0.52) / 0.26) ** 2) - ((y - 0.74) / 0.28) ** 2)
    brow = np.exp(-(((np.abs(x) - 0.42) / 0.42) ** 4) - ((y - face.brow_y) / 0.17) ** 2)
    frown = max(0.0, -expression.brow) * 0.03
    dx = 0.050 * expression.smile * side * cheek - frown * side * brow
    dy = drop - 0.055 * expression.smile * cheek - 0.085 * expression.brow * brow
    return -np.stack([dx, dy], axis=-1)


def move_points(face, expression, points):
    """Forward form of `skin_shift`: where neutral skin `points` [N, 2] are seen, by fixed-point iteration."""
    seen = np.array(points, np.float64)
    for _ in range(16):  # contracts by a half or better each time
        seen = points - skin_shift(face, expression, seen)
    return seen


def front_landmarks(face, expression=NEUTRAL):
    """The 81 points of the unrotated face, head units, forehead left to right [81, 2] float64."""
    half = smooth_curve(_jaw_half(face), 9)
    center = np.array([0.0, HEAD_CENTER_Y])
    jaw = np.concatenate([half, half[-2::-1] * [-1, 1]])
    jaw = center + 0.985 * (jaw - center)  # just inside the silhouette, where the surface is defined
    pick = np.array([0, 8, 16, 24, 32])
    brows = np.concatenate([brow_curve(face, -1)[pick], brow_curve(face, 1)[pick[::-1]]])
    phi = np.deg2rad(np.linspace(12.0, 168.0, 13))
    arc = np.stack([-0.93 * np.cos(phi), -0.14 - face.forehead * np.sin(phi)], 1)
    moved = move_points(face, expression, np.concatenate([jaw, brows, nose_points(face), arc]))
    eyes = []
    for side in (-1, 1):
        upper, lower = eye_curves(face, expression, side)
        if side < 0:
            eyes += [upper[0], upper[11], upper[21], upper[32], lower[21], lower[11]]
        else:
            eyes += [upper[32], upper[21], upper[11], upper[0], lower[11], lower[21]]
    lips = mouth_curves(face, expression)
    outer = [lips["outer_upper"][i] for i in (0, 12, 24, 32, 40, 52, 64)]
    outer += [lips["outer_lower"][i] for i in (52, 40, 32, 24, 12)]
    inner = [lips["inner_upper"][i] for i in (5, 22, 32, 42, 59)] + [lips["inner_lower"][i] for i in (42, 32, 22)]
    return np.concatenate([moved[:36], eyes, outer, inner, moved[36:]])
