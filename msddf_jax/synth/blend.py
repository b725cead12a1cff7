"""How a source enters a target: feathered alpha, Poisson, dynamic weighted mix; and the labels that follow.

Functions take single samples: images [H, W, 3], weights and masks [H, W], float32. A weight map states how
much of the source each pixel received; it is the target of the map head, so `settle` makes it agree with the
pixels, whatever went wrong before.
"""

import jax.numpy as jnp
from jax import Array, lax

from msddf_jax.data import schema
from msddf_jax.synth import geometry, morphology, poisson

# Blend ratios, drawn uniformly (MSDDF section 2.4; SBI, step f).
MSDDF_RATIOS = (0.25, 0.5, 0.75, 0.75, 1.0, 1.0, 1.0)
SBI_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
# Feathers are at most this share of the mask's longer side.
FEATHER_SHARE = 0.2
# A blend below half a grey level everywhere would be gone after rounding to uint8.
MIN_CHANGE = 0.5 / 255.0


def mix(target, source, weight) -> Array:
    """target + weight (source - target): images [H, W, 3], weight [H, W]."""
    return target + weight[..., None] * (source - target)


def feather_weight(mask, feather, *, metric=True) -> Array:
    """Weight of the feathered alpha blend: 0 outside the mask, rising with the distance from its contour.

    The feather is f = 0.2 `feather` times the longer side of the mask's bounding box, and the weight
    min(distance / f, 1) (FaceSwap's blend). SLADD's code takes the sign of the distance for the distance;
    `metric=False` gives that: a constant min(1, 1 / f) inside the contour.

    Args:
      mask: float32 [H, W] binary.
      feather: float32 [] in [0, 1]; the weight is differentiable in it.

    Returns:
      float32 [H, W] in [0, 1].
    """
    height, width = mask.shape
    inside = mask > 0
    sides = [jnp.where(inside.any(axis), jnp.arange(n), -1) for axis, n in ((0, width), (1, height))]
    spans = [s.max() - jnp.where(s < 0, n, s).min() + 1 for s, n in zip(sides, (width, height))]
    longer = jnp.maximum(jnp.maximum(*spans), 0)
    length = FEATHER_SHARE * feather * longer
    if not metric:
        core = morphology.square_morphology(mask, 1, 1, True)
        return core / jnp.maximum(length / geometry.scale_of(height), 1.0)
    length = jnp.maximum(length, 1.0)  # a feather below one pixel is a hard edge
    # One pixel more than the feather, so that pixels beyond it saturate without a gradient.
    reach = int(FEATHER_SHARE * max(height, width)) + 2
    distance = morphology.distance_transform(inside, lax.stop_gradient(length) + 1.0, reach)
    return jnp.clip(distance / length, 0.0, 1.0)


def blend_poisson(target, source, mask, one_by_one=None) -> Array:
    """Poisson blend of one sample, float32 [H, W, 3]; see `poisson.blend`."""
    return poisson.blend(source[None], target[None], mask[None, ..., None], one_by_one)[0]


def settle(target, image, weight, strength, forgery_type, parts, wanted) -> dict[str, Array]:
    """The outcome of one blend, labelled by what happened to the pixels, not by what was asked for.

    A blend that was not wanted (type none, a mask below the least area, landmarks that are not finite), that
    is not finite, or that moves no pixel by half a grey level is real: the target, untouched, zero targets.

    Args:
      target, image: float32 [H, W, 3].
      weight: float32 [H, W], how much of the source each pixel received.
      strength: float32 [], its peak by construction.
      forgery_type: int32 [], index into `schema.FORGERY_TYPES`.
      parts: [5], multi-hot over `schema.FACE_PARTS`.
      wanted: bool [].

    Returns:
      dict: image [H, W, 3]; map [H, W, 1]; changed bool []; label int32 []; type int32 []; region_parts
      float32 [5]; has_region bool []; strength float32 []; has_strength bool [].
    """
    change = jnp.abs(image - target).max()  # NaN if any pixel is, and then neither comparison holds
    changed = wanted & (change >= MIN_CHANGE) & (change < jnp.inf)
    real = schema.FORGERY_TYPES.index("real")
    poisson_type = schema.FORGERY_TYPES.index("poisson")
    # A gradient-domain blend has no mixing weight; every other type (and a real: 0) has one.
    return {
        "image": jnp.clip(jnp.where(changed, image, target), 0.0, 1.0),
        "map": jnp.where(changed, weight, 0.0)[..., None],
        "changed": changed,
        "label": changed.astype(jnp.int32),
        "type": jnp.where(changed, forgery_type, real).astype(jnp.int32),
        "region_parts": jnp.where(changed, parts, 0).astype(jnp.float32),
        "has_region": jnp.ones((), bool),
        "strength": jnp.where(changed, strength, 0.0),
        "has_strength": changed & (forgery_type != poisson_type),
    }
