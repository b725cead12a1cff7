"""Face X-ray (Li et al., CVPR 2020): another identity's face blended in, and the boundary it leaves."""

import jax
import jax.numpy as jnp

from msddf_jax.data import schema
from msddf_jax.synth import blend, blender, color, geometry, masks, partners


def boundary(weight) -> jax.Array:
    """The face X-ray 4 w (1 - w) of a blending weight: 1 where both images meet, 0 elsewhere; same shape."""
    return 4.0 * weight * (1.0 - weight)


def face_xray(
    key, image, landmarks, identity, *, pose=None, usable=None, partner=None, one_by_one=None, **cfg
) -> dict[str, jax.Array]:
    """Blends into every image the face of its nearest neighbour of another identity in the batch, or of a given one.

    Args:
      key: typed key.
      image: float32 [B, H, W, 3] in [0, 1], real faces.
      landmarks: float32 [B, 81, 2], pixels.
      identity: int32 [B]: identity, or video, that must differ; see `partners.allowed_partners`.
      pose: float32 [B, 81, 2] that the neighbour is found by; None for the landmarks themselves.
      usable: bool [B] or None: rows that may take part (real, not padding); the others stay as they are.
      partner: int32 [B], whose face each row takes, if it may; None for the nearest.
      one_by_one: see `filters.over_rows`.
      **cfg: keywords of `swap_face`.

    Returns:
      dict as `blender.blend_regions` with type alpha and every face part, boundary float32 [B, H, W, 1],
      partner int32 [B]. A row without a partner, or with landmarks that are not finite, stays real.
    """
    allowed = partners.allowed_partners(landmarks, identity, usable)
    if partner is None:
        partner, found = partners.nearest_partner(landmarks if pose is None else pose, allowed)
    else:
        found = jnp.take_along_axis(allowed, partner[:, None], axis=1)[:, 0]
    one = lambda key, *row: swap_face(key, *row, **cfg)
    rows = (image, image[partner], landmarks, landmarks[partner], found)
    out = geometry.map_samples(one, key, *rows, one_by_one=one_by_one)
    return {**out, "boundary": boundary(out["map"]), "partner": partner}


def swap_face(
    key,
    target,
    source,
    landmarks,
    source_landmarks,
    wanted,
    *,
    hulls=("facehull",),
    deform=10.0,
    elastic=0.0,
    erode=False,
    min_area=None,
) -> dict[str, jax.Array]:
    """`face_xray` for one sample and its partner.

    The hull of the target's landmarks, deformed by a 5x5 grid and blurred, carries the aligned partner with
    its colours moved to the target's (`color.transfer_rct_m`).

    Args:
      target, source [H, W, 3]; landmarks, source_landmarks [81, 2]; wanted: bool [].
      hulls: see `masks.draw_hull`. deform: std of the anchors, pixels of a 256 px crop.
      elastic: alpha of `geometry.elastic_field`, for the mask. erode: see `masks.dynamic_mask`. Both are I2G's, which
        has no anchors (Zhao et al., ICCV 2021).
      min_area: a smaller share of the frame is not blended; None for `blender.MIN_AREA`.

    Returns:
      dict of `blend.settle`.
    """
    height, width, _ = target.shape
    hull_key, grid_key, soft_key = jax.random.split(key, 3)
    hull = masks.draw_hull(hull_key, landmarks, height, width, hulls=hulls)
    mask = geometry.displace(hull[None], *geometry.grid_field(grid_key, height, width, deform))[0]
    if elastic:
        field = geometry.elastic_field(jax.random.fold_in(grid_key, 1), height, width, elastic)
        mask = geometry.displace(mask[None], *field)[0]
    weight = masks.dynamic_mask(soft_key, mask, erode=erode)
    source = partners.align_face(source, source_landmarks, landmarks)
    source = color.transfer_rct_m(source, target, mask[..., None])
    return blend.settle(
        target,
        blend.mix(target, source, weight),
        weight,
        weight.max(),
        jnp.int32(schema.FORGERY_TYPES.index("alpha")),
        jnp.ones(len(schema.FACE_PARTS)),
        wanted & (mask.mean() >= (blender.MIN_AREA if min_area is None else min_area)),
    )
