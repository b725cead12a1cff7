"""From a face to its crop: published templates of five points, and the similarity that reaches them; or its box.

Pixel centres are at integers, x to the right, y down; a matrix maps frame pixels to crop pixels.
"""

import dataclasses

import numpy as np

from msddf_jax.opencv import cv2

# The five points that ArcFace aligns to in a 112 x 112 image, x shifted by 8 as InsightFace does for it.
_ARCFACE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
_EYE_CENTRES = (tuple(range(36, 42)), tuple(range(42, 48)))


@dataclasses.dataclass(frozen=True)
class Preset:
    """Which five points are aligned, and where they go.

    Attributes:
      points: five tuples of indices into the 81 landmarks; the mean of each tuple is one of the five points
        (image-left eye, image-right eye, nose tip, image-left and image-right corner of the mouth).
      template: five (x, y), as fractions of the side of a crop without margin.
      scale: side of the crop over the side of the template's square; 1.3 leaves 0.15 on each side.
    """

    points: tuple
    template: tuple
    scale: float


PRESETS = {
    # DeepfakeBench preprocessing/preprocess.py: eyelid points and the neighbours of the mouth corners, not
    # eye centres and corners; kept exactly, so that crops are those of its published data.
    "dfb": Preset(((37,), (44,), (30,), (49,), (55,)), tuple((x / 112, y / 112) for x, y in _ARCFACE), 1.3),
    # SJEDD: the same template, reached with eye centres and mouth corners.
    "sjedd": Preset((*_EYE_CENTRES, (30,), (48,), (54,)), tuple((x / 112, y / 112) for x, y in _ARCFACE), 1.3),
    # GenD: its own template, eye centres and mouth corners.
    "gend": Preset(
        (*_EYE_CENTRES, (30,), (48,), (54,)),
        ((0.34, 0.46), (0.66, 0.46), (0.5, 0.64), (0.37, 0.82), (0.63, 0.82)),
        1.3,
    ),
}


# SBI (Shiohara and Yamasaki, CVPR 2022) does not align: its test crops are the detector's box with this share of its
# sides added on each, cut at the image's edge and stretched to a square.
BOX_MARGINS = {"sbi": 0.125}
NAMES = (*PRESETS, *BOX_MARGINS)


def check_preset(name) -> None:
    """Raise ValueError that lists the names there are, unless `name` is one."""
    if name not in NAMES:
        raise ValueError(f"unknown alignment preset {name!r}; there are {', '.join(NAMES)}")


def get_preset(name) -> Preset:
    """The `Preset` of that name. Raises ValueError for other names, and for one that crops by the box."""
    check_preset(name)
    if name in BOX_MARGINS:
        raise ValueError(f"preset {name!r} crops by the box and has no template; these have: {', '.join(PRESETS)}")
    return PRESETS[name]


def template_points(preset, size) -> np.ndarray:
    """Where the five points land in the crop.

    Args:
      preset: name in `PRESETS`.
      size: side of the crop in pixels.

    Returns:
      float64 [5, 2], crop pixels.
    """
    spec = get_preset(preset)
    margin = (spec.scale - 1) / 2
    return (np.array(spec.template, np.float64) + margin) / spec.scale * size


def alignment_points(landmarks, preset) -> np.ndarray:
    """The five points of `preset`, float64 [5, 2], from 81 landmarks [81, 2]."""
    landmarks = np.asarray(landmarks, np.float64)
    return np.stack([landmarks[list(indices)].mean(0) for indices in get_preset(preset).points])


def estimate_similarity(src, dst) -> np.ndarray:
    """The similarity (scale, rotation, shift; no reflection) closest to `src -> dst` in least squares.

    The planar case of Umeyama (PAMI 1991, eq. 40-42): as complex numbers, scale and rotation are one factor.

    Args:
      src: [N, 2] points, N >= 2, not all equal.
      dst: [N, 2] points.

    Returns:
      float64 [2, 3]; `transform_points(src, matrix)` is as close to `dst` as it gets.

    Raises:
      ValueError: shapes differ, a value is not finite, or all points of `src` coincide.
    """
    src, dst = np.asarray(src, np.float64), np.asarray(dst, np.float64)
    if src.shape != dst.shape or src.ndim != 2 or src.shape[1] != 2 or len(src) < 2:
        raise ValueError(f"expected two [N, 2] arrays with N >= 2, got {src.shape} and {dst.shape}")
    if not (np.isfinite(src).all() and np.isfinite(dst).all()):
        raise ValueError("points to align must be finite")
    src_mean, dst_mean = src.mean(0), dst.mean(0)
    s = (src - src_mean) @ [1, 1j]
    d = (dst - dst_mean) @ [1, 1j]
    power = np.vdot(s, s).real
    if power <= 1e-12 * max(1.0, np.abs(src).max() ** 2):
        raise ValueError("points to align coincide: no scale or rotation fits them")
    factor = np.vdot(s, d) / power
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, dst_mean - linear @ src_mean])


def transform_points(points, matrix) -> np.ndarray:
    """Points [..., 2] moved by an affine matrix [2, 3]; float64 of the same shape."""
    points, matrix = np.asarray(points, np.float64), np.asarray(matrix, np.float64)
    return points @ matrix[:, :2].T + matrix[:, 2]


def align_face(landmarks, preset, size) -> np.ndarray:
    """The matrix, float64 [2, 3], that brings 81 landmarks [81, 2] of a frame to the crop of `preset`."""
    return estimate_similarity(alignment_points(landmarks, preset), template_points(preset, size))


def crop_matrix(landmarks, box, shape, preset, size) -> np.ndarray:
    """The matrix, float64 [2, 3], from a frame to the crop of `preset`.

    Args:
      landmarks: [81, 2], frame pixels. box: x0 y0 x1 y1 of the face. shape: of the frame, height first.
      preset: name in `NAMES`. size: side of the crop in pixels.

    Raises:
      ValueError: an unknown preset; points that fix no similarity, or a box outside the frame.
    """
    check_preset(preset)
    if preset not in BOX_MARGINS:
        return align_face(landmarks, preset, size)
    x0, y0, x1, y1 = (float(v) for v in box)
    across, down = (x1 - x0) * BOX_MARGINS[preset], (y1 - y0) * BOX_MARGINS[preset]
    left, top = max(int(x0 - across), 0), max(int(y0 - down), 0)
    right, bottom = min(int(x1 + across) + 1, shape[1]), min(int(y1 + down) + 1, shape[0])
    if right <= left or bottom <= top:
        raise ValueError(f"the box {x0:.0f} {y0:.0f} {x1:.0f} {y1:.0f} lies outside the frame")
    sx, sy = size / (right - left), size / (bottom - top)
    # As cv2.resize of the cut: pixel edges onto pixel edges.
    return np.array([[sx, 0, (0.5 - left) * sx - 0.5], [0, sy, (0.5 - top) * sy - 0.5]])


def warp_image(image, matrix, size) -> np.ndarray:
    """The square crop of `image` under `matrix`: bilinear, black outside, as DeepfakeBench does.

    Args:
      image: uint8 [H, W] or [H, W, C].
      matrix: [2, 3], frame pixels to crop pixels.
      size: side of the crop in pixels.

    Returns:
      uint8 [size, size] or [size, size, C].
    """
    return cv2.warpAffine(image, np.asarray(matrix, np.float64), (size, size), flags=cv2.INTER_LINEAR, borderValue=0)


def warp_mask(mask, matrix, size) -> np.ndarray:
    """The crop of a mask, uint8 [size, size] in {0, 255}: bilinear, then above 1 is 255 (DeepfakeBench).

    The threshold is low because masks come as lossy video and hold every grey level.
    """
    return np.where(warp_image(mask, matrix, size) > 1, 255, 0).astype(np.uint8)
