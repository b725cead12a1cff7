"""What happens in a video: smooth paths of head, face and light, and the set the person sits in."""

import typing

import numpy as np

from data_prep.toy import identity as idt
from data_prep.toy.texture import blur, fractal_noise, smoothstep
from msddf_jax.opencv import cv2

FACE_SHARE = 0.47  # width of the face over the width of the frame
EYE_ROW = 0.47  # where the eyes' line lies, as a share of the frame: centres the aligned crop


class Pose(typing.NamedTuple):
    """Where the head is in one frame."""

    yaw: float  # degrees, positive turns the face to the image right
    pitch: float  # degrees, positive looks down
    roll: float  # degrees, positive turns clockwise as seen
    x: float  # of the point between the eyes, as a share of the frame from its centre
    y: float
    scale: float  # relative to FACE_SHARE


class Light(typing.NamedTuple):
    """Illumination of one frame, linear RGB."""

    direction: np.ndarray  # [3] unit, head-on frame: x right, y down, z to the camera
    key: np.ndarray  # [3]
    fill: np.ndarray  # [3] from above; half of it from below


class Camera(typing.NamedTuple):
    """What the camera does to a frame; constant over a video."""

    blur: float  # sigma of the optics, frame pixels
    noise: float  # sigma of the read noise, 8-bit steps
    shot: float  # of the shot noise at full brightness, 8-bit steps
    grain: float  # sigma of the noise's spatial correlation, frame pixels
    sharpen: float
    contrast: float


class Clip(typing.NamedTuple):
    """Everything about a video but the person's own looks."""

    poses: list
    expressions: list
    lights: list
    camera: Camera
    backdrop: np.ndarray  # [size, size, 3] linear RGB at the drawn size


def _path(rng, times, mean, spread, period):
    """Smooth path: two sinusoids of about `period` frames round a random mean [T]."""
    offset = rng.normal(0.0, 1.0)
    phase = rng.uniform(0, 2 * np.pi, 2)
    rate = 2 * np.pi / (period * rng.uniform(0.8, 1.4, 2))
    wave = np.sin(times * rate[0] + phase[0]) + 0.45 * np.sin(times * 2.3 * rate[1] + phase[1])
    return mean + spread * (0.55 * np.clip(offset, -1.6, 1.6) + 0.75 * wave)


def sample_clip(seed, index, num_frames, drawn_size):
    """Draw the video of person `index`: a function of the arguments alone, each frame of (seed, index, frame).

    Args:
      drawn_size: side of the backdrop in pixels.

    Returns:
      Clip with lists of length `num_frames`.
    """
    rng = idt.stream(seed, "motion", int(index))
    times = np.arange(num_frames)
    yaw, pitch, roll = (_path(rng, times, 0.0, s, p) for s, p in ((8.0, 16), (4.5, 14), (3.0, 18)))
    x, y = _path(rng, times, 0.0, 0.010, 20), _path(rng, times, 0.0, 0.008, 18)
    scale = 1.0 + _path(rng, times, 0.0, 0.02, 30)
    poses = [Pose(*(float(v) for v in row)) for row in zip(yaw, pitch, roll, x, y, scale)]
    lights = _lights(rng, times)
    camera = Camera(
        blur=float(rng.uniform(0.35, 0.6)),
        noise=float(rng.uniform(0.8, 2.0)),
        shot=float(rng.uniform(1.5, 3.5)),
        grain=float(rng.uniform(0.3, 0.55)),
        sharpen=float(rng.uniform(0.2, 0.7)),
        contrast=float(rng.uniform(0.95, 1.1)),
    )
    backdrop = _backdrop(idt.stream(seed, "backdrop", int(index)), drawn_size)
    return Clip(poses, _expressions(rng, times), lights, camera, backdrop)


def _expressions(rng, times):
    talk = rng.uniform(0.0, 1.0)
    jaw = np.clip(_path(rng, times, 0.05 + 0.22 * talk, 0.10 + 0.28 * talk, 7), 0.0, 1.0)
    smile = np.clip(_path(rng, times, 0.15, 0.45, 16), -0.6, 1.0)
    brow = np.clip(_path(rng, times, 0.05, 0.35, 14), -0.9, 1.0)
    gaze_x, gaze_y = np.clip(_path(rng, times, 0.0, 0.32, 12), -1, 1), np.clip(_path(rng, times, 0, 0.2, 15), -1, 1)
    blink_at, blink_every = rng.uniform(0, 20), rng.uniform(16, 34)
    since = np.abs((times - blink_at + blink_every / 2) % blink_every - blink_every / 2)
    lids = np.clip(_path(rng, times, 0.98, 0.06, 20), 0.8, 1.1) * smoothstep(since, 0.2, 2.2)
    rows = np.stack([jaw, smile, brow, np.clip(lids - 0.12 * np.maximum(smile, 0), 0, 1.15), gaze_x, gaze_y], 1)
    return [idt.Expression(*(float(v) for v in row)) for row in rows]


def _lights(rng, times):
    warm = np.array([1.0, 0.0, -1.0]) * rng.normal(0.0, 0.08)
    strength = rng.uniform(0.85, 1.2) * (1.0 + _path(rng, times, 0.0, 0.02, 20))
    side = np.deg2rad(_path(rng, times, 0.0, 28.0, 40))
    up = np.deg2rad(rng.uniform(18, 50))
    share = rng.uniform(0.50, 0.72)
    fill = (1.0 - share) * np.exp(-0.7 * warm + rng.normal(0, 0.02, 3))
    lights = []
    for a, s in zip(side, strength):
        direction = np.array([np.sin(a) * np.cos(up), -np.sin(up), np.cos(a) * np.cos(up)])
        levels = (1.25 * s * share * np.exp(warm), 1.05 * s * fill)
        lights.append(Light(direction, *(level.astype(np.float32) for level in levels)))
    return lights


def _backdrop(rng, size):
    """A room or a street out of focus [size, size, 3]."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    wall = idt.to_linear(np.clip(rng.uniform(55, 205) + rng.normal(0, 10, 3), 20, 235))
    slope = 1.0 + rng.uniform(-0.4, 0.4) * (x - 0.5) + rng.uniform(-0.4, 0.4) * (y - 0.5)
    image = (wall * slope[..., None]).astype(np.float32)
    kind = rng.choice(["wall", "shelf", "lights"], p=[0.35, 0.4, 0.25])
    if kind != "wall":
        for _ in range(int(rng.integers(5, 16))):
            color = tuple(float(c) for c in idt.to_linear(np.clip(rng.normal(110, 50) + rng.normal(0, 22, 3), 8, 245)))
            a = rng.uniform(-0.1, 1.0, 2) * size
            b = a + rng.uniform(0.05, 0.45, 2) * size * ([1.0, 0.6] if kind == "shelf" else [0.3, 0.3])
            if kind == "shelf":
                cv2.rectangle(image, tuple(a.astype(int).tolist()), tuple(b.astype(int).tolist()), color, -1)
            else:
                cv2.circle(image, tuple(a.astype(int).tolist()), int(abs(b[0] - a[0]) / 2) + 2, color, -1)
    image = blur(image, size * (rng.uniform(0.006, 0.03) if kind != "wall" else 0.01))
    grain = fractal_noise(rng, (size, size), size / 6, 6, 0.55)
    return np.clip(image * (1.0 + np.float32(rng.uniform(0.01, 0.045)) * grain[..., None]), 0.004, 1.0)
