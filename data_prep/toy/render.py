"""From a person and a clip to frames and landmarks: draw the face's maps, light them, turn the head, take the image.

Frames are drawn at `SUPERSAMPLE` times their size, in linear light, and averaged down.
"""

import itertools
import typing

import numpy as np

from data_prep.toy import body, features, motion
from data_prep.toy import identity as idt
from data_prep.toy.texture import X0, Y0, bake, blur, map_pixels, smoothstep
from msddf_jax.opencv import cv2

SUPERSAMPLE = 2
PIVOT = np.array([0.0, 0.55, 0.15])  # what the head turns about, head units
MARCH = np.linspace(1.55, -0.7, 15).astype(np.float32)  # depths at which a ray is tested against the head
BACK = -0.62  # z of the plane behind which there is no head


class Video(typing.NamedTuple):
    """A drawn video, before encoding."""

    frames: np.ndarray  # [T, size, size, 3] uint8 RGB
    landmarks: np.ndarray  # [T, 81, 2] float32 pixels, forehead left to right
    poses: list  # motion.Pose
    expressions: list  # identity.Expression


def rotation(pose):
    """Rotation matrix [3, 3] from the head frame to the camera's axes."""
    a, b, c = np.deg2rad([pose.yaw, pose.pitch, pose.roll])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return tilt @ turn @ nod


def placement(pose, size):
    """Scale (pixels a head unit) and image point of the head frame's origin [2], for a frame of `size` pixels."""
    scale = 0.5 * motion.FACE_SHARE * pose.scale * size
    origin = np.array([0.5 + pose.x, motion.EYE_ROW + pose.y]) * size - 0.5
    return scale, origin


def project(points, pose, size):
    """Head points [..., 3] -> pixels [..., 2] of a frame of `size` pixels (orthographic)."""
    scale, origin = placement(pose, size)
    turned = (points - PIVOT) @ rotation(pose).T + PIVOT
    return origin + scale * turned[..., :2]


def depth_at(baked, points):
    """Height of the neutral surface, lips and lids included, at map points [N, 2] of the head frame [N]."""
    at = map_pixels(points, baked.k).astype(np.float32)
    return cv2.remap(baked.height, at[None, :, 0], at[None, :, 1], cv2.INTER_LINEAR)[0].astype(np.float64)


def landmarks_of(face, neutral_depth, expression, pose, size):
    """The 81 points in frame pixels [81, 2] float32, forehead left to right.

    Args:
      neutral_depth: [81] z of the landmarks, from `landmark_depth`.
    """
    flat = idt.front_landmarks(face, expression)
    return project(np.concatenate([flat, neutral_depth[:, None]], 1), pose, size).astype(np.float32)


def landmark_depth(face, baked):
    """z of each landmark on the neutral face [81]."""
    drawn = features.draw(face, baked, idt.NEUTRAL)
    return depth_at(baked._replace(height=drawn.height), idt.front_landmarks(face))


def render_video(seed, index, num_frames, size):
    """Draw the video of person `index` of the set `seed`.

    Args:
      size: side of the frames in pixels.

    Returns:
      (identity.Identity, landmark depths [81], Video); a function of the arguments alone.
    """
    face = idt.sample_identity(seed, index)
    drawn = size * SUPERSAMPLE
    baked = bake(face, 0.30 * drawn)
    clip = motion.sample_clip(seed, index, num_frames, drawn)
    set_layers = body.bake_layers(face, clip.lights[0], drawn)
    depth = landmark_depth(face, baked)
    frames, landmarks = [], []
    for t, (pose, expression, light) in enumerate(zip(clip.poses, clip.expressions, clip.lights)):
        linear = render_linear(face, baked, set_layers, clip.backdrop, pose, expression, light)
        rng = idt.stream(seed, "sensor", int(index), t)
        frames.append(take_picture(linear, clip.camera, size, rng))
        landmarks.append(landmarks_of(face, depth, expression, pose, size))
    return face, depth, Video(np.stack(frames), np.stack(landmarks), clip.poses, clip.expressions)


def render_linear(face, baked, layers, backdrop, pose, expression, light):
    """One frame at the drawn size, linear RGB [S, S, 3] float32."""
    size = backdrop.shape[0]
    scale, origin = placement(pose, size)
    turn = rotation(pose)
    image = body.draw_behind(backdrop, layers, scale, origin, turn, PIVOT)
    drawn = features.draw(face, baked, expression)
    color = shade(drawn, baked.k, turn, light)
    top, left, columns, rows, cover = march(drawn.height, baked.k, scale, origin, turn, size)
    seen = cv2.remap(color, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    area = image[top : top + cover.shape[0], left : left + cover.shape[1]]
    area += cover[..., None] * (seen - area)
    return image


def shade(drawn, k, turn, light):
    """Light the maps.

    Args:
      drawn: features.Drawn.
      turn: [3, 3] head to camera.
      light: motion.Light.

    Returns:
      [h, w, 3] linear RGB float32.
    """
    height = drawn.height
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=k / 8.0)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=k / 8.0)
    norm = 1.0 / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    toward, up, view = (turn.T @ v for v in (light.direction, np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0])))
    dot = lambda v: (np.float32(v[2]) - np.float32(v[0]) * slope_x - np.float32(v[1]) * slope_y) * norm
    facing = dot(toward)
    lit = _unshadowed(height, k, toward)
    hollow = np.clip(1.0 - 2.2 * np.maximum(_wide_blur(height, 0.16 * k) - height, 0.0)
                     - 1.6 * np.maximum(blur(height, 0.05 * k) - height, 0.0), 0.25, 1.0)  # fmt: skip
    sky = hollow * (0.72 + 0.28 * dot(up))
    half = toward + view
    gloss = np.maximum(dot(half / np.linalg.norm(half)), 0.0)
    wide = gloss * gloss
    for _ in range(3):
        wide *= wide  # gloss^16; numpy's power is slow
    gloss = drawn.gloss * lit * (0.10 * wide + 0.12 * wide * wide * wide)
    out = np.empty((*height.shape, 3), np.float32)
    # light that enters skin comes out redder past the terminator
    for c, wrap in enumerate((0.34, 0.20, 0.15)):
        diffuse = np.clip((facing + wrap) / (1.0 + wrap), 0.0, None) * (lit + (1.0 - lit) * 0.35 * wrap)
        level = light.key[c] * diffuse + light.fill[c] * sky
        out[..., c] = drawn.albedo[..., c] * level + light.key[c] * gloss
    return out + (drawn.glint * float(light.key.mean()))[..., None]


def _wide_blur(image, sigma):
    """Gaussian blur by many pixels, at a quarter of the size."""
    small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return cv2.resize(blur(small, sigma / 4), image.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _unshadowed(height, k, toward):
    """Share of the key light that reaches each point past nose and brow [h, w]."""
    block = np.full(height.shape, -1.0, np.float32)
    for reach in (0.05, 0.10, 0.17, 0.26, 0.36):
        step = toward * reach / max(float(np.hypot(toward[0], toward[1])), 0.05)
        if abs(step[2]) > 2.5:
            continue
        shift = np.float32([[1, 0, -step[0] * k], [0, 1, -step[1] * k]])
        ahead = cv2.warpAffine(height, shift, height.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        np.maximum(block, ahead - np.float32(step[2]) - height, out=block)
    return 1.0 - 0.85 * smoothstep(blur(block, 0.02 * k), 0.0, 0.10)


def march(height, k, scale, origin, turn, size):
    """Where the ray of each pixel meets the head.

    Returns:
      (top, left, columns [h, w], rows [h, w], cover [h, w]): the part of the frame that can see the head, the map
      pixels that its pixels see (float32), and the antialiased coverage in [0, 1].
    """
    reach = 1.5 * scale
    left, right = (int(np.clip(origin[0] + d, 0, size)) for d in (-reach, reach))
    top, bottom = (int(np.clip(origin[1] + d, 0, size)) for d in (-1.75 * scale, 2.0 * scale))
    u = (np.arange(left, right) - origin[0]) / scale - PIVOT[0]
    v = (np.arange(top, bottom) - origin[1]) / scale - PIVOT[1]
    base = turn.T[:, 0, None, None] * u[None, None, :] + turn.T[:, 1, None, None] * v[None, :, None]
    base = (base + PIVOT[:, None, None]).astype(np.float32)
    columns, rows = (base[0] - X0) * np.float32(k), (base[1] - Y0) * np.float32(k)
    ray = turn.T[:, 2].astype(np.float32)

    def gap(t):
        """How far the point at ray parameter t lies in front of the surface."""
        at_x, at_y = columns + ray[0] * np.float32(k) * t, rows + ray[1] * np.float32(k) * t
        seen = cv2.remap(height, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return base[2] + ray[2] * t - seen

    shape = columns.shape
    hit = np.zeros(shape, bool)
    near, far = np.full(shape, MARCH[0], np.float32), np.full(shape, MARCH[-1], np.float32)
    gap_near, gap_far = np.ones(shape, np.float32), -np.ones(shape, np.float32)
    last = gap(MARCH[0])
    for before, t in itertools.pairwise(MARCH):
        here = gap(t)
        fresh = (here < 0.0) & ~hit
        near[fresh], far[fresh] = before, t
        gap_near[fresh], gap_far[fresh] = last[fresh], here[fresh]
        hit |= fresh
        last = here
    for _ in range(3):
        middle = near + (far - near) * np.clip(gap_near / (gap_near - gap_far + 1e-9), 0.05, 0.95)
        here = gap(middle)
        behind = here < 0.0
        far, gap_far = np.where(behind, middle, far), np.where(behind, here, gap_far)
        near, gap_near = np.where(behind, near, middle), np.where(behind, gap_near, here)
    t = near + (far - near) * np.clip(gap_near / (gap_near - gap_far + 1e-9), 0.0, 1.0)
    t = np.where(hit, t, np.float32(0.0))
    hit &= base[2] + ray[2] * t > BACK
    cover = smoothstep(blur(hit.astype(np.float32), 1.0), 0.15, 0.85)
    return top, left, columns + ray[0] * np.float32(k) * t, rows + ray[1] * np.float32(k) * t, cover


def take_picture(linear, camera, size, rng):
    """Average down, blur by the lens, add sensor noise, sharpen, encode as sRGB-like 8 bit.

    Args:
      linear: [S, S, 3] linear RGB.
      rng: generator of this frame's noise.

    Returns:
      [size, size, 3] uint8.
    """
    image = cv2.resize(linear, (size, size), interpolation=cv2.INTER_AREA)
    image = blur(np.maximum(image, 0.0), camera.blur)
    image = image / (1.0 + 0.12 * image) * 1.10  # soft shoulder
    coded = 255.0 * np.clip(image, 0.0, 1.4) ** np.float32(1.0 / 2.2)
    coded = 118.0 + camera.contrast * (coded - 118.0)
    # in coded values shot noise is almost level: the gamma curve undoes the growth with brightness
    level = np.sqrt(camera.noise**2 + camera.shot**2 * np.clip(coded, 8.0, 255.0) / 255.0).astype(np.float32)
    white = rng.standard_normal((size, size, 3), dtype=np.float32)
    noise = blur(white, camera.grain) + 0.35 * white
    coded = coded + level * (0.75 * noise[..., :1] + 0.55 * noise)
    coded = coded + camera.sharpen * (coded - blur(coded, 0.9))
    return np.clip(np.round(coded), 0, 255).astype(np.uint8)
