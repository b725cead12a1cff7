"""SLADD (Chen et al., CVPR 2022): a region of a reference face blended into a real one, hard to learn from.

The reference is a row of the other class, aligned to the target by its landmarks. Region, blend and magnitude
come from `blender.uniform_choices` or from the adversary, which sees the target and the aligned reference.
"""

import jax
import jax.numpy as jnp

from msddf_jax.data import schema
from msddf_jax.synth import blender, geometry, partners


def find_reference(key, reals, others=None, *, usable=None, one_by_one=None) -> dict[str, jax.Array]:
    """A reference for every real: a face of the other class or, where the batch has none, of another identity.

    Args:
      key: typed key.
      reals: dict of image float32 [R, H, W, 3] in [0, 1], landmarks float32 [R, 81, 2] (pixels), identity int32 [R]
        (-1 unknown).
      others: image [F, H, W, 3] and landmarks [F, 81, 2] of the other class, or None.
      usable: bool [R] or None: reals that may lend or take a face.
      one_by_one: see `filters.over_rows`.

    Returns:
      dict: source float32 [R, H, W, 3], the reference moved onto the target's landmarks; found bool [R]; partner
      int32 [R], index into the reals followed by the others (its own where none was found).
    """
    count = reals["image"].shape[0]
    image, landmarks = reals["image"], reals["landmarks"]
    allowed = partners.allowed_partners(landmarks, reals["identity"], usable)
    if others is not None and others["image"].shape[0]:
        image = jnp.concatenate([image, others["image"]])
        landmarks = jnp.concatenate([landmarks, others["landmarks"]])
        lends = jnp.isfinite(others["landmarks"]).all((1, 2))
        takes = jnp.isfinite(reals["landmarks"]).all((1, 2))
        opposite = (takes if usable is None else takes & usable)[:, None] & lends[None, :]
        no_real = jnp.concatenate([jnp.zeros_like(allowed), opposite], axis=1)
        same_class = jnp.concatenate([allowed, jnp.zeros_like(opposite)], axis=1)
        allowed = jnp.where(opposite.any(1, keepdims=True), no_real, same_class)
    partner_key, key = jax.random.split(key)
    partner, found = partners.random_partner(partner_key, allowed)
    align = lambda _, *row: partners.align_face(*row)
    rows = (image[partner], landmarks[partner], landmarks[:count])
    return {
        "source": geometry.map_samples(align, key, *rows, one_by_one=one_by_one),
        "found": found,
        "partner": partner,
    }


def blend_reference(key, image, landmarks, reference, *, blend_type, **cfg) -> dict[str, jax.Array]:
    """Blends a region of its reference into every real.

    Args:
      key: typed key.
      image: float32 [R, H, W, 3] in [0, 1]; landmarks: float32 [R, 81, 2], pixels.
      reference: of `find_reference`.
      blend_type: int32 [R]. **cfg: the other choices and keywords of `blender.blend_regions`. SLADD's own are the
        defaults here: the binary mask, the magnitude alone as strength, and the constant feather.

    Returns:
      dict as `blender.blend_regions`. A row without a reference stays real.
    """
    blend_type = jnp.where(reference["found"], blend_type, schema.BLENDS.index("none"))
    defaults = {"soft": False, "ratios": (1.0,), "metric": False}
    return blender.blend_regions(key, image, reference["source"], landmarks, blend_type=blend_type, **defaults | cfg)
