"""SLADD (Chen et al., CVPR 2022): a region of a reference face blended into a real one, hard to learn from.

The reference is a row of the other class, aligned to the target by its landmarks. Region, blend and magnitude
come from `blender.uniform_choices` or from the adversary.
"""

import jax
import jax.numpy as jnp

from msddf_jax.data import schema
from msddf_jax.synth import blender, geometry, partners


def sladd(
    key,
    image,
    landmarks,
    label,
    identity,
    region,
    blend_type,
    magnitude,
    *,
    usable=None,
    one_by_one=None,
    **cfg,
):
    """SLADD's augmentation of every image of a batch.

    Args:
      key: typed key.
      image: float32 [B, H, W, 3] in [0, 1]; landmarks: float32 [B, 81, 2], pixels.
      label: int32 [B], 1 = fake. The reference has the other label; where the batch has none such, it has
        another identity.
      identity: int32 [B], -1 unknown.
      region, blend_type, magnitude: see `blender.blend_regions`.
      usable: bool [B] or None: rows that may take part.
      one_by_one: see `filters.over_rows`.
      **cfg: keywords of `blender.blend_region`. SLADD's own are the defaults here: the binary mask, the
        magnitude alone as strength, and the constant feather.

    Returns:
      dict as `blender.blend_regions`, with partner int32 [B]. A row without a reference is left as it is,
      with `changed` False and label 0: its own label stands.
    """
    different = partners.allowed_partners(landmarks, identity, usable)
    whole = partners.allowed_partners(landmarks, jnp.arange(len(label)), usable)
    opposite = whole & (label[:, None] != label[None, :])
    allowed = jnp.where(opposite.any(1, keepdims=True), opposite, different)
    partner_key, key = jax.random.split(key)
    partner, found = partners.random_partner(partner_key, allowed)
    align = lambda _, *row: partners.align_face(*row)
    rows = (image[partner], landmarks[partner], landmarks)
    source = geometry.map_samples(align, key, *rows, one_by_one=one_by_one)
    none = schema.BLENDS.index("none")
    blend_type = jnp.where(found, blend_type, none)
    defaults = {"soft": False, "ratios": (1.0,), "metric": False}
    out = blender.blend_regions(
        key, image, source, landmarks, region, blend_type, magnitude, one_by_one=one_by_one, **defaults | cfg
    )
    return {**out, "partner": partner}
