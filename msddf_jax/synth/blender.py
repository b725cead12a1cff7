"""Multi-Strategy Dynamic Blender (MSDDF section 2): eleven regions, four blends, a strength, four colours.

The forgery is made from two images of the same frame and the landmarks; the choice of region, blend and
strength comes from outside, from `uniform_choices` or from a policy. Targets follow from the pixels: see
`blend.settle`. Gradients reach target, source, magnitude, feather and colour (not through Poisson's mask).
"""

import jax
import jax.numpy as jnp

from msddf_jax.data import schema
from msddf_jax.synth import blend, color, geometry, masks

MIN_AREA = 0.005
# Blends that obey the magnitude, as published.
MAGNITUDE_ON = ("dynamic",)
# Odds of `schema.BLENDS` without an adversary (MSDDF 6, parameter table).
TYPE_WEIGHTS = (0.25, 0.2, 0.35, 0.2)
NONE = schema.BLENDS.index("none")


def blend_regions(
    key,
    target,
    source,
    landmarks,
    region,
    blend_type,
    magnitude,
    *,
    feather=None,
    color_strength=None,
    floor=None,
    one_by_one=None,
    **cfg,
) -> dict[str, jax.Array]:
    """Forges each target with its source.

    Args:
      key: typed key.
      target, source: float32 [B, H, W, 3] in [0, 1].
      landmarks: float32 [B, 81, 2], pixels of the target; a sample with a NaN stays real.
      region: int32 [B], index into `schema.REGIONS`.
      blend_type: int32 [B], index into `schema.BLENDS`.
      magnitude: float32 [B] in [0, 1].
      feather: float32 [B] in [0, 1] or None to draw it: width of the alpha blend's feather.
      color_strength: float32 [B] in [0, 1] or None for 1: how far the source's colours move to the target's.
      floor: float32 [B] in [0, 1] or None for 0: least strength of the dynamic mix, and of an alpha blend that obeys
        the magnitude.
      one_by_one: see `filters.over_rows`.
      **cfg: keywords of `blend_region`.

    Returns:
      dict: image float32 [B, H, W, 3]; map float32 [B, H, W, 1], the share of the source in each pixel (for
      Poisson the mask), zeros for a real; changed bool [B]; label int32 [B]; type int32 [B], index into
      `schema.FORGERY_TYPES`; region_parts float32 [B, 5] over `schema.FACE_PARTS`, has_region bool [B];
      strength float32 [B], the map's peak by construction, has_strength bool [B] (not for Poisson).
      A blend that changed nothing is labelled real, with the untouched target.

    Raises:
      ValueError: a name in cfg that is not known.
    """
    if feather is None:
        feather_key, key = jax.random.split(key)
        draw = lambda key: jax.random.uniform(key)
        feather = geometry.map_samples(draw, feather_key, batch=target.shape[0], one_by_one=False)
    if color_strength is None:
        color_strength = jnp.ones(target.shape[0])
    floor = jnp.zeros(target.shape[0]) if floor is None else floor
    one = lambda key, *row: blend_region(key, *row, one_by_one=one_by_one, **cfg)
    rows = (target, source, landmarks, region, blend_type, magnitude, feather, color_strength, floor)
    return geometry.map_samples(one, key, *rows, one_by_one=one_by_one)


def blend_region(
    key,
    target,
    source,
    landmarks,
    region,
    blend_type,
    magnitude,
    feather,
    color_strength,
    floor,
    *,
    ratios=blend.MSDDF_RATIOS,
    color_modes=color.MODES,
    magnitude_on=MAGNITUDE_ON,
    deform=10.0,
    soft=True,
    erode=True,
    metric=True,
    min_area=MIN_AREA,
    one_by_one=None,
) -> dict[str, jax.Array]:
    """`blend_regions` for one sample.

    Args:
      target, source [H, W, 3]; landmarks [81, 2]; region, blend_type, magnitude, feather,
        color_strength, floor: [].
      ratios: r is drawn from these; the mix's strength is r * magnitude.
      color_modes: names from `color.MODES`, one of which is drawn to bring the source to the target.
      magnitude_on: blends that obey the magnitude, of "alpha" and "dynamic". As published, alpha is not.
      deform: standard deviation of the region's deformation, pixels of a 256 px crop; 0 keeps the region
        as it is, its contour too.
      soft: the dynamic mix follows SBI's soft mask; False takes the binary mask (SLADD).
      erode: see `masks.dynamic_mask`. metric: see `blend.feather_weight`.
      min_area: a smaller share of the frame is not blended.
      one_by_one: see `filters.over_rows`; here it says how colour transfer and Poisson are to run.

    Returns:
      dict of `blend.settle`.

    Raises:
      ValueError: an unknown colour mode, or a blend without a magnitude in `magnitude_on`.
    """
    check_names("color_modes", color_modes, color.MODES)
    check_names("magnitude_on", magnitude_on, ("alpha", "dynamic"), may_be_empty=True)
    deform_key, contour_key, color_key, ratio_key, mix_key = jax.random.split(key, 5)
    mask = masks.region_masks(landmarks, region, *target.shape[:2])
    if deform:
        mask = masks.vary_contour(contour_key, masks.deform(deform_key, mask, std=deform))
    wanted = (blend_type != NONE) & (mask.mean() >= min_area)
    ratio = jnp.array(ratios)[jax.random.randint(ratio_key, (), 0, len(ratios))]
    mode = jnp.array([color.MODES.index(m) for m in color_modes])
    mode = mode[jax.random.randint(color_key, (), 0, len(color_modes))]
    eyes = landmarks[jnp.array([36, 39, 42, 45])]
    eye_distance = jnp.sqrt(((eyes[:2].mean(0) - eyes[2:].mean(0)) ** 2).sum())

    row = (mode, source, target, mask[..., None], eye_distance)
    recolor = lambda: source + color_strength * (color.transfer(*(x[None] for x in row), one_by_one)[0] - source)
    source = jax.lax.cond(wanted, recolor, lambda: source)

    def alpha():
        weight = blend.feather_weight(mask, feather, metric=metric)
        if "alpha" in magnitude_on:
            weight = jnp.maximum(magnitude, floor) * weight
        return blend.mix(target, source, weight), weight, weight.max()

    def clone():
        return blend.blend_poisson(target, source, mask, one_by_one), mask, jnp.ones(())

    def dynamic():
        strength = jnp.maximum(ratio * (magnitude if "dynamic" in magnitude_on else 1.0), floor)
        weight = strength * (masks.dynamic_mask(mix_key, mask, erode=erode) if soft else mask)
        return blend.mix(target, source, weight), weight, strength

    nothing = lambda: (target, jnp.zeros(mask.shape), jnp.zeros(()))
    chosen = jnp.where(wanted, blend_type, NONE)
    image, weight, strength = jax.lax.switch(chosen, (alpha, clone, dynamic, nothing))
    # schema.FORGERY_TYPES starts with the blends in the order of schema.BLENDS.
    parts = jnp.asarray(masks.REGION_PARTS)[region]
    return blend.settle(target, image, weight, strength, blend_type, parts, wanted)


def check_names(name, given, allowed, may_be_empty=False) -> None:
    """Raises ValueError unless all names in `given` are `allowed` (and there is one)."""
    unknown = sorted(set(given) - set(allowed))
    if unknown or not (given or may_be_empty):
        raise ValueError(f"{name} is {tuple(given)}, allowed are names from {tuple(allowed)}")


def region_indices(names) -> jax.Array:
    """int32 [n]: where names of regions stand in `schema.REGIONS`. Raises ValueError for one that there is not."""
    check_names("regions", names, schema.REGIONS)
    return jnp.asarray([schema.REGIONS.index(name) for name in names], jnp.int32)


def uniform_choices(
    key, batch_size, *, regions=schema.REGIONS, type_weights=TYPE_WEIGHTS, magnitude=(0.1, 1.0)
) -> tuple[jax.Array, ...]:
    """Choices without a policy: every region alike, blends by weight (MSDDF design, section 6).

    Args:
      key: typed key. batch_size: int. regions: names that are drawn from.
      type_weights: odds of `schema.BLENDS`, need not sum to 1.
      magnitude: range of the uniform magnitude.

    Returns:
      region int32 [B], blend_type int32 [B], magnitude float32 [B]. Sample i does not depend on B.

    Raises:
      ValueError: weights of another length, negative or all zero; a region that there is not.
    """
    if len(type_weights) != len(schema.BLENDS) or min(type_weights) < 0 or sum(type_weights) <= 0:
        raise ValueError(f"type_weights are {tuple(type_weights)}, expected odds >= 0 of {schema.BLENDS}")
    logits = jnp.log(jnp.maximum(jnp.array(type_weights, jnp.float32), 1e-30))
    allowed = region_indices(regions)

    def one(key):
        region_key, type_key, magnitude_key = jax.random.split(key, 3)
        region = allowed[jax.random.randint(region_key, (), 0, len(regions))]
        kind = jax.random.categorical(type_key, logits)
        return (
            region,
            kind.astype(jnp.int32),
            jax.random.uniform(magnitude_key, minval=magnitude[0], maxval=magnitude[1]),
        )

    return geometry.map_samples(one, key, batch=batch_size, one_by_one=False)
