"""Face warping artifacts (FWA, Li and Lyu, CVPR Workshops 2019): a face made coarse and warped back into its frame.

A generator gives faces of a few pixels, which are aligned, enlarged and warped into a frame. Here the real face goes
that way itself: aligned, made small, smoothed and put back where it was, all of its aligned square or a polygon of it.

Differs from the authors' code (github.com/yuezunli/CVPRW2019_Face_Artifacts): the face is aligned at one side and made
smaller there, which is DeepfakeBench's way, where theirs is aligned at the small side at once; what little that changes
is in tests/test_fwa.py. Defects of DeepfakeBench's fwa_blend.py that are not here:

- it cuts the face out of black before it is warped back, so that every forgery has a dark seam, and pastes what is
  brighter than 0, channel by channel: dark pixels keep the frame's. Here the mask is warped as well.
- its reals are always sharpened or re-sampled, its forgeries never, and these alone are compressed: either shows
  without a look at the face. Here a real is shown in the altered frame of its forgery (`frame`).
- its last augmentation is computed and not used, and exchanges red with blue.
"""

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.data import schema
from msddf_jax.synth import blend, blender, degrade, geometry, morphology

# Mean places of points 17 to 67 in the unit square that a face is aligned to: dlib's mean face, as both codes have it.
_MEAN_X = (
    "0.000213256 0.0752622 0.18113 0.29077 0.393397 0.586856 0.689483 0.799124 0.904991 0.98004 0.490127 0.490127 "
    "0.490127 0.490127 0.36688 0.426036 0.490127 0.554217 0.613373 0.121737 0.187122 0.265825 0.334606 0.260918 "
    "0.182743 0.645647 0.714428 0.793132 0.858516 0.79751 0.719335 0.254149 0.340985 0.428858 0.490127 0.551395 "
    "0.639268 0.726104 0.642159 0.556721 0.490127 0.423532 0.338094 0.290379 0.428096 0.490127 0.552157 0.689874 "
    "0.553364 0.490127 0.42689"
)
_MEAN_Y = (
    "0.106454 0.038915 0.0187482 0.0344891 0.0773906 0.0773906 0.0344891 0.0187482 0.038915 0.106454 0.203352 0.307009 "
    "0.409805 0.515625 0.587326 0.609345 0.628106 0.609345 0.587326 0.216423 0.178758 0.179852 0.231733 0.245099 "
    "0.244077 0.231733 0.179852 0.178758 0.216423 0.244077 0.245099 0.780233 0.745405 0.727388 0.742578 0.727388 "
    "0.745405 0.780233 0.864805 0.902192 0.909281 0.902192 0.864805 0.784792 0.778746 0.785343 0.778746 0.784792 "
    "0.824182 0.831803 0.824182"
)
MEAN_FACE = np.stack([np.array(line.split(), np.float32) for line in (_MEAN_X, _MEAN_Y)], -1)
_ALIGNED = slice(17, 68)
# Side of the aligned square for a crop of 256 px.
SIDE = geometry.REFERENCE_SIZE
# Sides that the authors draw from, pixels.
SIZES = tuple(range(64, 128))
# OpenCV's fixed kernel for (5, 5) without a sigma.
_BLUR = (0.0625, 0.25, 0.375, 0.25, 0.0625)

# What is put back: the hulls of these points. "polygon", brows and lower lip, is the authors'; the others are
# DeepfakeBench's, where nothing reaches beyond "lifted", whose chin and brows are moved out.
_POINTS = {
    "polygon": (*range(17, 27), 48, *range(54, 60)),
    "whole": tuple(range(68)),
    "inner": tuple(range(17, 68)),
    "no_brows": tuple(range(27, 68)),
    "lower": (*range(2, 15), 29),
    "lifted": tuple(range(27)),
}
SHAPES = ("square", *_POINTS)
_TABLE = np.array([np.resize(points, schema.NUM_LANDMARKS) for points in _POINTS.values()], np.int32)
# "lower" is the jaw up to the nose, without an eye.
_PARTS = np.ones((len(SHAPES), len(schema.FACE_PARTS)), np.float32)
_PARTS[SHAPES.index("lower"), [schema.FACE_PARTS.index(eye) for eye in ("left_eye", "right_eye")]] = 0


def fwa(key, image, landmarks, *, one_by_one=None, **cfg) -> dict[str, jax.Array]:
    """A forgery of every image of a batch by its own coarse face, and the real that it is compared with.

    Args:
      key: typed key.
      image: float32 [B, H, W, 3] in [0, 1], real faces.
      landmarks: float32 [B, 81, 2], pixels; a sample with a NaN stays real.
      one_by_one: see `filters.over_rows`.
      **cfg: keywords of `warp_face`, and frame.

    Returns:
      dict as `blender.blend_regions`, with type self_blend, and target float32 [B, H, W, 3], the frame that the face
      was put into.

    Raises:
      ValueError: shapes, sizes or a range of `warp_face` that do not fit.
    """
    one = lambda key, *row: _forge(key, *row, **cfg)
    return geometry.map_samples(one, key, image, landmarks, one_by_one=one_by_one)


def _forge(key, image, landmarks, *, frame=None, **cfg):
    warp_key, frame_key = jax.random.split(key)
    planes = jnp.moveaxis(image, -1, 0)
    target = degrade.augment_planes(frame_key, planes, **frame) if frame else planes
    out = warp_face(warp_key, target, planes, landmarks, **cfg)
    return {**out, "target": jnp.moveaxis(target, 0, -1)}


def warp_face(
    key,
    target,
    source,
    landmarks,
    *,
    sizes=SIZES,
    shapes=("square", "polygon"),
    deform=0.0,
    grow=0,
    vary_prob=0.9,
    min_area=blender.MIN_AREA,
) -> dict[str, jax.Array]:
    """The face of `source`, aligned, made coarse and warped back, in `target`; for one sample.

    Args:
      key: typed key.
      target, source: float32 [3, H, W] in [0, 1], the frame and what the face is taken from. landmarks: [81, 2].
      sizes: sides that the aligned face is made as small as, one drawn; pixels for a 256 px crop, at most `SIDE`.
      shapes: of `SHAPES`, one drawn.
      deform: std of the anchors that a shape is deformed by, pixels of the aligned square; it then stays in "lifted".
      grow: a shape grows by up to so many pixels of it. vary_prob: probability of each of the two.
      min_area: a smaller share of the frame is not blended.

    Returns:
      dict of `blend.settle`.
    """
    check(sizes, shapes)
    _, height, width = target.shape
    scale = geometry.scale_of(height)
    side = round(SIDE * scale)
    size_key, shape_key, mask_key = jax.random.split(key, 3)
    usable = jnp.isfinite(landmarks).all()
    points = jnp.where(usable, landmarks, jnp.pad(MEAN_FACE * side, ((17, 13), (0, 0))))
    align = geometry.estimate_similarity(points[_ALIGNED], MEAN_FACE * side)
    head = geometry.warp(source, *geometry.matrix_grid(_invert(align), side, side))
    small = [max(round(size * scale), 1) for size in sizes]
    coarse = coarsen(head, jnp.array(small)[jax.random.randint(size_key, (), 0, len(small))], max(small))
    shape = jnp.array([SHAPES.index(s) for s in shapes])[jax.random.randint(shape_key, (), 0, len(shapes))]
    mask = draw_mask(mask_key, geometry.transform_points(points, align), shape, side, deform, grow, vary_prob)
    back = geometry.matrix_grid(align, height, width)
    weight = geometry.warp(mask[None], *back, "zero")[0]
    return blend.settle(
        jnp.moveaxis(target, 0, -1),
        jnp.moveaxis(target + weight * (geometry.warp(coarse, *back) - target), 0, -1),
        weight,
        weight.max(),
        jnp.int32(schema.FORGERY_TYPES.index("self_blend")),
        jnp.asarray(_PARTS)[shape],
        usable & (weight.mean() >= min_area),
    )


def check(sizes, shapes) -> None:
    """Raise ValueError for shapes that are not in `SHAPES`, sizes beyond the aligned square, or none of either."""
    unknown = sorted(set(shapes) - set(SHAPES))
    if unknown or not shapes:
        raise ValueError(f"config.synth.recipe.blend.shapes are {tuple(shapes)}, allowed are one or more of {SHAPES}")
    if not sizes or not all(1 <= size <= SIDE for size in sizes):
        raise ValueError(
            f"config.synth.recipe.blend.sizes are {tuple(sizes)}, expected one or more within 1 to {SIDE} pixels"
        )


def coarsen(head, small, largest) -> jax.Array:
    """An image made smaller, blurred there and made large again: `cv2.resize`, `GaussianBlur` 5 x 5, `cv2.resize`.

    Bilinear both ways, without antialiasing.

    Args:
      head: float32 [C, S, S]. small: int32 [], side in between. largest: int, its bound.

    Returns:
      float32 [C, S, S].
    """
    side, small = head.shape[-1], small.astype(jnp.float32)
    place = jnp.abs(jnp.arange(-2, largest + 2, dtype=jnp.float32))
    # Two pixels more on each side, mirrored in the small image's own border as OpenCV's blur has them.
    place = small - 1 - jnp.abs(small - 1 - place)
    down = geometry.lerp_taps((place + 0.5) * (side / small) - 0.5, side)
    low = jax.lax.optimization_barrier(geometry.resample_axes(head, down, down))
    rows = sum(tap * low[:, i : i + largest] for i, tap in enumerate(_BLUR))
    low = jax.lax.optimization_barrier(sum(tap * rows[:, :, i : i + largest] for i, tap in enumerate(_BLUR)))
    place = (jnp.arange(side, dtype=jnp.float32) + 0.5) * (small / side) - 0.5
    up = geometry.lerp_taps(jnp.clip(place, 0.0, small - 1), largest)
    return geometry.resample_axes(low, up, up)


def draw_mask(key, points, shape, side, deform=0.0, grow=0, vary_prob=0.9) -> jax.Array:
    """What of the aligned square is put back.

    Args:
      key: typed key. points: float32 [81, 2] in the square's pixels. shape: int32 [], index into `SHAPES`. side: int.
      deform, grow, vary_prob: see `warp_face`.

    Returns:
      float32 [side, side] of zeros and ones.
    """
    lifted = _lift(points, side)
    own = jnp.where(shape == SHAPES.index("lifted"), lifted, points)
    # The square has no points.
    hull = geometry.hull_mask(own[jnp.asarray(_TABLE)[jnp.maximum(shape - 1, 0)]], side, side)
    mask = ((shape == SHAPES.index("square")) | hull).astype(jnp.float32)
    grid_key, radius_key, vary_key = jax.random.split(key, 3)
    vary = jax.random.uniform(vary_key, (2,)) < vary_prob
    if deform:
        moved = geometry.displace(mask[None], *geometry.grid_field(grid_key, side, side, deform))[0] > 0
        limit = geometry.hull_mask(lifted[jnp.asarray(_POINTS["lifted"])], side, side)
        mask = (jnp.where(vary[0], moved, mask > 0) & limit).astype(jnp.float32)
    if grow:
        scale = side / SIDE
        radius = jnp.round(jax.random.randint(radius_key, (), 0, grow + 1) * scale).astype(jnp.int32)
        radius = jnp.where(vary[1], radius, 0)
        mask = morphology.square_morphology(mask, radius, max(round(grow * scale), 1), False)
    return mask


def _lift(points, side):
    """The chin 15 px of a 256 px square lower, the brows but their first point higher by a quarter of the face."""
    down = jnp.where((jnp.arange(len(points)) >= 5) & (jnp.arange(len(points)) <= 11), 15.0 * side / SIDE, 0.0)
    brows = (jnp.arange(len(points)) >= 18) & (jnp.arange(len(points)) <= 26)
    up = jnp.where(brows, (points[9, 1] - points[22, 1]) / 4, 0.0)
    return jnp.stack([points[:, 0], jnp.maximum(points[:, 1] + down - up, 0.0)], -1)


def _invert(matrix):
    """The inverse of a similarity, float32 [2, 3]."""
    a, b = matrix[0, 0], matrix[1, 0]
    linear = jnp.array([[a, b], [-b, a]]) / jnp.maximum(a**2 + b**2, 1e-12)
    return jnp.concatenate([linear, -(linear @ matrix[:, 2])[:, None]], 1)
