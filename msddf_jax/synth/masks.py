"""Where a forgery goes: the eleven regions, the four SBI/DFL hulls, their deformation and SBI's soft mask.

Masks are binary float32 planes [H, W] of one sample unless a docstring says batched; lengths are those of a
256 px crop and scale with the crop.
"""

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.data import schema
from msddf_jax.synth import geometry, morphology

HULLS = ("dfl_full", "extended", "components", "facehull")

# Five lines carry the ten regions: left eye, right eye, the band over both, nose ridge, mouth.
_LINES = ("left_eye", "right_eye", "both_eyes", "nose", "mouth")
_REGION_LINES = {
    "left_eye": ("left_eye",),
    "right_eye": ("right_eye",),
    "both_eyes": ("both_eyes",),
    "nose": ("nose",),
    "mouth": ("mouth",),
    "nose_left_eye": ("nose", "left_eye"),
    "nose_right_eye": ("nose", "right_eye"),
    "nose_both_eyes": ("nose", "both_eyes"),
    "nose_mouth": ("nose", "mouth"),
    "eyes_nose_mouth": ("both_eyes", "nose", "mouth"),
    "hull": (),
}
_REGION_PARTS = {
    "left_eye": ("left_eye",),
    "right_eye": ("right_eye",),
    "both_eyes": ("left_eye", "right_eye"),
    "nose": ("nose",),
    "mouth": ("mouth",),
    "nose_left_eye": ("nose", "left_eye"),
    "nose_right_eye": ("nose", "right_eye"),
    "nose_both_eyes": ("nose", "left_eye", "right_eye"),
    "nose_mouth": ("nose", "mouth"),
    "eyes_nose_mouth": ("left_eye", "right_eye", "nose", "mouth"),
    "hull": schema.FACE_PARTS,
}
_LINE_TABLE = np.array([[line in _REGION_LINES[r] for line in _LINES] for r in schema.REGIONS])
# bool [11, 5]: which of schema.FACE_PARTS each of schema.REGIONS touches; the hull touches all of them.
REGION_PARTS = np.array([[p in _REGION_PARTS[r] for p in schema.FACE_PARTS] for r in schema.REGIONS])

# Convex pieces of each hull variant as point indices (Shiohara and Yamasaki 2022, after DeepFaceLab).
_COMPONENTS = (
    (*range(0, 9), 17),
    (*range(8, 17), 26),
    (17, 18, 19, 8),
    (24, 25, 26, 8),
    (*range(19, 25), 8),
    (*range(17, 22), 27, *range(31, 36), 8),
    (*range(22, 27), 27, *range(31, 36), 8),
    tuple(range(27, 36)),
)
_PIECES = {
    "dfl_full": (
        (*range(0, 17), *range(48, 68)),
        (*range(27, 31), 33),
        (*range(17, 27), 0, 27, 16, 33),
    ),
    "extended": _COMPONENTS,
    "components": _COMPONENTS,
}


def _piece_table():
    # int32 [variants, pieces, points], filled by repetition: a repeated point or piece changes no hull.
    pieces = max(len(own) for own in _PIECES.values())
    points = max(len(piece) for own in _PIECES.values() for piece in own)
    rows = [[own[i % len(own)] for i in range(pieces)] for own in _PIECES.values()]
    return np.array([[np.resize(piece, points) for piece in row] for row in rows], np.int32)


_PIECE_TABLE = _piece_table()


def region_masks(landmarks, region, height, width) -> jax.Array:
    """The chosen one of the eleven regions (MSDDF section 2.2).

    A region is the union of lines between key points, each grown n times by a 3x3 cross, that is, all
    pixels within an L1 distance n of the line; n comes from the line's own length. Region `hull` is the
    convex hull of all 81 points.

    Args:
      landmarks: float32 [81, 2].
      region: int32 [], index into `schema.REGIONS`.
      height, width: ints.

    Returns:
      float32 [height, width]; empty where a landmark is not finite or the hull is degenerate.
    """
    lines = jnp.asarray(_LINE_TABLE)[region]
    grown = (line_masks(landmarks, height, width) & lines[:, None, None]).any(0)
    face = geometry.hull_mask(landmarks, height, width)
    usable = face.any()
    is_hull = region == schema.REGIONS.index("hull")
    return (jnp.where(is_hull, face, grown) & usable).astype(jnp.float32)


def line_masks(landmarks, height, width) -> jax.Array:
    """The five grown lines that regions are made of: left eye, right eye, both eyes, nose, mouth.

    Growth: eyes 4 floor(w / 4), both eyes and nose floor(w / 4), mouth floor(w / 3), at least 1 (SciPy
    reads 0 as "until nothing changes"), with w the eye's, the inter-ocular or the mouth's width.

    Args:
      landmarks: float32 [81, 2]. height, width: ints.

    Returns:
      bool [5, height, width].
    """
    points = jnp.nan_to_num(landmarks, nan=0.0, posinf=0.0, neginf=0.0)
    left, right = (points[36] + points[39]) / 2, (points[42] + points[45]) / 2
    start = jnp.stack([points[36], points[42], left, points[33], points[48]])
    end = jnp.stack([points[39], points[45], right, (left + right) / 2, points[54]])
    length = jnp.sqrt(((end - start) ** 2).sum(-1))
    between = jnp.sqrt(((right - left) ** 2).sum())
    growth = jnp.stack(
        [
            4 * jnp.floor(length[0] / 4),
            4 * jnp.floor(length[1] / 4),
            jnp.floor(between / 4),
            jnp.floor(between / 4),
            jnp.floor(length[4] / 3),
        ]
    )
    # The line itself is 2 px wide, hence one pixel more on either side.
    distance = geometry.segment_distance(start, end, height, width)
    return distance <= jnp.maximum(growth, 1.0)[:, None, None] + 1.0


def hull_variant(landmarks, variant, without_forehead, height, width) -> jax.Array:
    """One of the four face hulls that SBI draws from (`HULLS`), as a union of convex pieces.

    Args:
      landmarks: float32 [81, 2].
      variant: int32 [], index into `HULLS`. `extended` lifts the brows by half the brow-eye distance.
      without_forehead: bool [], True drops points 68-80 (only `facehull` uses them).
      height, width: ints.

    Returns:
      float32 [height, width]; empty where a landmark is not finite or the pieces are degenerate.
    """

    def whole():
        forehead = jnp.arange(schema.NUM_LANDMARKS)[:, None] >= 68
        return geometry.hull_mask(jnp.where(forehead & without_forehead, landmarks[:1], landmarks), height, width)

    def pieces():
        # The table has the variants of HULLS but the last, `facehull`, which is whole.
        points = jnp.where(variant == HULLS.index("extended"), _lift_brows(landmarks), landmarks)
        points = points[jnp.asarray(_PIECE_TABLE)[jnp.minimum(variant, len(_PIECE_TABLE) - 1)]]
        return geometry.hull_mask(points, height, width).any(0)

    hull = jax.lax.cond(variant == HULLS.index("facehull"), whole, pieces)
    return (hull & jnp.isfinite(landmarks).all()).astype(jnp.float32)


def _lift_brows(points):
    # Five points under each brow: the eye's upper lid and a point beside the outer corner.
    outer_left = (points[36] + (points[36] + points[0]) / 2) / 2
    outer_right = (points[45] + (points[45] + points[16]) / 2) / 2
    under = jnp.concatenate([outer_left[None], points[36:40], points[42:46], outer_right[None]])
    brows = points[17:27]
    return points.at[17:27].set(brows + (brows - under) / 2)


def draw_hull(key, landmarks, height, width, *, hulls=HULLS, forehead_drop=0.25) -> jax.Array:
    """A random hull of SBI: variant uniform over `hulls`, the forehead left out with `forehead_drop`.

    Args:
      key: typed key. landmarks: float32 [81, 2]. height, width: ints.
      hulls: names from `HULLS`.
      forehead_drop: probability of using the first 68 points only.

    Returns:
      float32 [height, width].

    Raises:
      ValueError: a name that is not in `HULLS`, or none at all.
    """
    unknown = sorted(set(hulls) - set(HULLS))
    if unknown or not hulls:
        raise ValueError(f"hulls are {tuple(hulls)}, allowed are one or more of {HULLS}")
    variant_key, drop_key = jax.random.split(key)
    choices = jnp.array([HULLS.index(h) for h in hulls])
    variant = choices[jax.random.randint(variant_key, (), 0, len(hulls))]
    drop = jax.random.bernoulli(drop_key, forehead_drop)
    return hull_variant(landmarks, variant, drop, height, width)


def deform(key, mask, *, std=10.0) -> jax.Array:
    """Random deformation of a region (MSDDF section 2.2).

    A 5x5 grid of anchors moves by N(0, std); the mask read through it is kept where it meets the original,
    then grows by 2 px (as published: a small blur, binarised above zero).

    Args:
      key: typed key. mask: float32 [H, W] binary. std: pixels of a 256 px crop.

    Returns:
      float32 [H, W] binary. Not differentiable.
    """
    height, width = mask.shape
    moved = geometry.displace(mask[None], *geometry.grid_field(key, height, width, std))[0]
    both = ((moved > 0) & (mask > 0)).astype(jnp.float32)
    grow = max(round(2 * geometry.scale_of(height)), 1)
    return morphology.square_morphology(both, grow, grow, False)


def vary_contour(key, mask) -> jax.Array:
    """Random growth and smoothness of a region's contour (MSDDF section 2.2, post-processing).

    A square of 3..19 px erodes (p 0.3) or dilates (p 0.3) the mask, and a Gaussian of 1..17 px, re-binarised
    at one half, smooths its contour (p 0.9).

    Args:
      key: typed key. mask: float32 [H, W] binary.

    Returns:
      float32 [H, W] binary. Not differentiable.
    """
    scale = geometry.scale_of(mask.shape[0])
    kind_key, square_key, smooth_key, size_key = jax.random.split(key, 4)
    kind = jax.random.uniform(kind_key)
    square = jnp.round(jax.random.randint(square_key, (), 1, 10) * scale).astype(jnp.int32)
    square = jnp.where(kind < 0.6, square, 0)
    shaped = morphology.square_morphology(mask, square, max(round(9 * scale), 1), kind < 0.3)

    radius = jax.random.randint(size_key, (), 0, 9)
    radius = jnp.where(jax.random.bernoulli(smooth_key, 0.9), radius, 0) * scale
    sigma = jnp.maximum(0.3 * (radius - scale) + 0.8 * scale, 0.1)
    taps = morphology.gaussian_taps(sigma, radius, max(int(np.ceil(8 * scale)), 1))
    return (morphology.convolve(shaped, taps, taps) >= 0.5).astype(jnp.float32)


def dynamic_mask(key, mask, *, erode=True) -> jax.Array:
    """SBI's soft mask (Shiohara and Yamasaki 2022): erosion by a blur, then a wide blur; maximum 1.

    The paper resizes the mask to a random 192..256 px on each axis, filters and resizes back. The same
    comes, without the two resamplings, from filters whose widths carry the factor 256 / size per axis
    (mean difference below 0.01 from OpenCV's result; equal to 1e-5 where the drawn size is 256).

    Args:
      key: typed key. mask: float32 [H, W] in [0, 1].
      erode: True keeps what the first blur leaves at its maximum (float masks in SBI); False keeps every
        pixel of the mask (SBI's uint8 masks).

    Returns:
      float32 [H, W] in [0, 1]; zeros for an empty mask, never NaN.
    """
    axes_key, first_key, second_key, sigma_key = jax.random.split(key, 4)
    stretch = geometry.REFERENCE_SIZE / jax.random.randint(axes_key, (2,), 192, 257)
    first = jax.random.randint(first_key, (), 2, 13)
    second = jax.random.randint(second_key, (), 2, 13)
    sigma = jax.random.randint(sigma_key, (), 5, 46)
    return soften(mask, stretch, first, second, sigma, erode=erode)


def soften(mask, stretch, first_radius, second_radius, second_sigma, *, erode=True) -> jax.Array:
    """`dynamic_mask` for given widths.

    Args:
      mask: float32 [H, W] in [0, 1].
      stretch: float32 [2], factor >= 1 on the widths along rows and columns, at most 4 / 3.
      first_radius, second_radius: [] in 2..12, pixels of a 256 px crop; kernels are 2 radius + 1 wide.
      second_sigma: [], pixels of a 256 px crop.
      erode: see `dynamic_mask`.

    Returns:
      float32 [H, W] in [0, 1].
    """
    scale = geometry.scale_of(mask.shape[0])
    reach = max(int(np.ceil(12 * scale * 4 / 3)), 1)
    first_sigma = 0.3 * (first_radius - 1.0) + 0.8

    def blur(plane, sigma, radius):
        weights = [morphology.gaussian_taps(sigma * f * scale, radius * f * scale, reach) for f in stretch]
        return morphology.convolve(plane, *weights)

    core = _to_unit_maximum(blur(mask, first_sigma, first_radius))
    # At most 1 - 1e-4: a float32 blur of ones is one only to rounding.
    core = (core >= 1.0 - 1e-4 if erode else mask > 0).astype(jnp.float32)
    return _to_unit_maximum(blur(core, second_sigma, second_radius))


def _to_unit_maximum(plane):
    highest = plane.max()
    return jnp.clip(jnp.where(highest > 1e-6, plane / jnp.maximum(highest, 1e-6), 0.0), 0.0, 1.0)
