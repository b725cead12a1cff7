"""Self-blended images (SBI, Shiohara and Yamasaki, CVPR 2022): a face pasted onto its own altered copy.

One of the two copies of a real frame is altered in colour and sharpness, one is moved a little, and the moved
one enters the other through the softened, elastically deformed hull of its own landmarks.
"""

import jax
import jax.numpy as jnp

from msddf_jax.data import schema
from msddf_jax.synth import blend, blender, geometry, masks, twins


def self_blend(key, image, landmarks, *, one_by_one=None, **cfg) -> dict[str, jax.Array]:
    """A self-blended forgery of every image of a batch, and the real that it is compared with.

    Args:
      key: typed key.
      image: float32 [B, H, W, 3] in [0, 1], real faces.
      landmarks: float32 [B, 81, 2], pixels; a sample with a NaN stays real.
      one_by_one: see `filters.over_rows`.
      **cfg: keywords of `self_blend_image`.

    Returns:
      dict as `blender.blend_regions`, with type self_blend and every face part, and target float32
      [B, H, W, 3], the real twin (altered where the alteration fell on it), landmarks float32 [B, 81, 2] of
      both after the joint flip.
    """
    one = lambda key, *row: self_blend_image(key, *row, **cfg)
    return geometry.map_samples(one, key, image, landmarks, one_by_one=one_by_one)


def self_blend_image(key, image, landmarks, *, twin=None, **hull_cfg) -> dict[str, jax.Array]:
    """`self_blend` for one sample.

    Args:
      image [H, W, 3]; landmarks [81, 2].
      twin: keywords of `twins.twin_planes`; here the source always moves unless `move` says otherwise.
      **hull_cfg: keywords of `blend_hull`.

    Returns:
      dict of `blend.settle`, and target, landmarks.
    """
    twin_key, blend_key = jax.random.split(key)
    pair = twins.twin_planes(twin_key, image, landmarks, **{"move": 1.0, **(twin or {})})
    out = blend_hull(blend_key, pair["target"], pair["source"], pair["source_landmarks"], **hull_cfg)
    return {**out, "target": jnp.moveaxis(pair["target"], 0, -1), "landmarks": pair["landmarks"]}


def blend_hull(
    key,
    target,
    source,
    source_landmarks,
    *,
    hulls=masks.HULLS,
    forehead_drop=0.25,
    alpha=50.0,
    sigma=7.0,
    ratios=blend.SBI_RATIOS,
    erode=True,
    min_area=blender.MIN_AREA,
) -> dict[str, jax.Array]:
    """One twin of a frame enters the other through the softened, deformed hull of its own landmarks.

    Args:
      key: typed key.
      target, source: float32 [3, H, W] in [0, 1]; source_landmarks: float32 [81, 2], pixels.
      hulls, forehead_drop: see `masks.draw_hull`.
      alpha, sigma: see `geometry.elastic_field`; applied to the mask only.
      ratios: the blend ratio is drawn from these.
      erode: see `masks.dynamic_mask`.
      min_area: a smaller share of the frame is not blended.

    Returns:
      dict of `blend.settle`, image [H, W, 3].
    """
    _, height, width = target.shape
    hull_key, elastic_key, soft_key, ratio_key = jax.random.split(key, 4)
    hull = masks.draw_hull(hull_key, source_landmarks, height, width, hulls=hulls, forehead_drop=forehead_drop)
    field = geometry.elastic_field(elastic_key, height, width, alpha, sigma)
    mask = geometry.displace(hull[None], *field)[0]
    ratio = jnp.array(ratios)[jax.random.randint(ratio_key, (), 0, len(ratios))]
    weight = ratio * masks.dynamic_mask(soft_key, mask, erode=erode)
    return blend.settle(
        jnp.moveaxis(target, 0, -1),
        jnp.moveaxis(target + weight * (source - target), 0, -1),
        weight,
        ratio,
        jnp.int32(schema.FORGERY_TYPES.index("self_blend")),
        jnp.ones(len(schema.FACE_PARTS)),
        mask.mean() >= min_area,
    )
