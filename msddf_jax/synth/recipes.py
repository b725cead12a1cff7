"""The recipes of forgeries, by name: what a config's `synth.recipe` stands for.

Every recipe takes the real rows of a batch and gives, for each of them, the real that the detector sees and a
forgery of it. Which region, blend and strength a recipe with such choices takes comes from `choose`: uniform, or the
adversary.
"""

import jax
import jax.numpy as jnp

from msddf_jax.synth import blender, face_xray, geometry, self_blend, sladd, twins


def forge(recipe, key, reals, *, choose, flip, twin=None, blend=None, others=None, self_blend_share=0.0):
    """Forges every real row.

    Args:
      recipe: one of `RECIPES`.
      key: typed key.
      reals: image float32 [R, H, W, 3] in [0, 1], landmarks float32 [R, 81, 2] (NaN: stays real), identity int32 [R].
      choose: (key, target, source) -> keywords of `blender.blend_regions` (region, blend_type, magnitude, and what
        else it takes), with "record" beside them: what the chooser wants to see again, leaves [R, ...].
      flip: chance of a horizontal flip, one for all that comes of a row.
      twin: keywords of `twins.twin_planes`, for the recipes that alter an image.
      blend: keywords of the recipe's own blend.
      others: rows like `reals` of the other class, which "sladd" takes its references from; None without such.
      self_blend_share: of "msddf": share of the reals, drawn row by row, whose twins are blended by SBI's hull
        (`self_blend.blend_hull`, without colour transfer) and not as `choose` says.

    Returns:
      dict: target float32 [R, H, W, 3]; source, or None for a recipe whose source is no second real view; forged as
      `blender.blend_regions`; record, {} for a recipe without choices.

    Raises:
      ValueError: an unknown recipe; a share outside [0, 1], or of a recipe other than "msddf".
    """
    if recipe not in RECIPES:
        raise ValueError(f"synth.recipe is {recipe!r}, allowed: {sorted(RECIPES)}")
    check_share(recipe, self_blend_share)
    blend = dict(blend or {})
    if recipe == "msddf":
        blend["self_blend_share"] = self_blend_share
    return RECIPES[recipe](key, reals, choose, flip, dict(twin or {}), blend, others)


def check_share(recipe, self_blend_share):
    """Raises ValueError for a share outside [0, 1], or of a recipe other than "msddf"."""
    if not 0.0 <= self_blend_share <= 1.0:
        raise ValueError(f"synth.self_blend_share is {self_blend_share}, expected a share in [0, 1]")
    if self_blend_share and recipe != "msddf":
        raise ValueError(f"synth.self_blend_share is {self_blend_share}: only 'msddf' has it, not {recipe!r}; set 0")


def flip_rows(key, rows, flip):
    """Rows of images, landmarks and masks, each mirrored with the probability `flip`."""
    count, width = rows["image"].shape[0], rows["image"].shape[2]
    flipped = jax.random.bernoulli(key, flip, (count,))
    mirror = lambda x: jnp.where(flipped[:, None, None, None], x[:, :, ::-1], x)
    out = dict(rows, image=mirror(rows["image"]))
    if "mask" in rows:
        out["mask"] = mirror(rows["mask"])
    points = geometry.flip_landmarks(rows["landmarks"], width)
    return dict(out, landmarks=jnp.where(flipped[:, None, None], points, rows["landmarks"]))


def _forge_msddf(key, reals, choose, flip, twin, blend, others):
    del others
    self_blend_share = blend.pop("self_blend_share")
    twin_key, choice_key, blend_key, share_key, hull_key = jax.random.split(key, 5)
    pair = twins.make_twins(twin_key, reals["image"], reals["landmarks"], flip=flip, **twin)
    choices = choose(choice_key, pair["target"], pair["source"])
    record = choices.pop("record")
    if self_blend_share:
        draw = lambda key: jax.random.bernoulli(key, self_blend_share)
        by_hull = geometry.map_samples(draw, share_key, batch=reals["image"].shape[0], one_by_one=False)
        # Where rows run one by one, a row then pays for its own blend only.
        choices["blend_type"] = jnp.where(by_hull, blender.NONE, choices["blend_type"])
    forged = blender.blend_regions(blend_key, pair["target"], pair["source"], pair["landmarks"], **choices, **blend)
    if self_blend_share:
        rows = (by_hull, pair["target"], pair["source"], pair["source_landmarks"], forged)
        forged = geometry.map_samples(_blend_hull_where, hull_key, *rows)
    return {"target": pair["target"], "source": pair["source"], "forged": forged, "record": record}


def _blend_hull_where(key, by_hull, target, source, source_landmarks, forged):
    planes = [jnp.moveaxis(image, -1, 0) for image in (target, source)]
    return jax.lax.cond(by_hull, lambda: self_blend.blend_hull(key, *planes, source_landmarks), lambda: forged)


def _forge_self_blend(key, reals, choose, flip, twin, blend, others):
    del choose, others
    forged = self_blend.self_blend(key, reals["image"], reals["landmarks"], twin={"flip": flip, **twin}, **blend)
    return {"target": forged["target"], "source": None, "forged": forged, "record": {}}


def _forge_face_xray(key, reals, choose, flip, twin, blend, others):
    del choose, others
    _no_twin("face_xray", twin)
    flip_key, blend_key = jax.random.split(key)
    reals = flip_rows(flip_key, reals, flip)
    forged = face_xray.face_xray(blend_key, reals["image"], reals["landmarks"], reals["identity"], **blend)
    return {"target": reals["image"], "source": None, "forged": forged, "record": {}}


def _forge_sladd(key, reals, choose, flip, twin, blend, others):
    _no_twin("sladd", twin)
    flip_key, partner_key, choice_key, blend_key = jax.random.split(key, 4)
    reals = flip_rows(flip_key, reals, flip)
    reference = sladd.find_reference(partner_key, reals, others)
    choices = choose(choice_key, reals["image"], reference["source"])
    record = choices.pop("record")
    forged = sladd.blend_reference(blend_key, reals["image"], reals["landmarks"], reference, **choices, **blend)
    return {"target": reals["image"], "source": None, "forged": forged, "record": record}


def _no_twin(recipe, twin):
    if twin:
        raise ValueError(f"synth.twin is {dict(twin)}: the recipe {recipe!r} alters no image, leave it empty")


RECIPES = {
    "msddf": _forge_msddf,
    "self_blend": _forge_self_blend,
    "face_xray": _forge_face_xray,
    "sladd": _forge_sladd,
}
# Recipes whose region, blend and strength are a choice.
WITH_CHOICES = ("msddf", "sladd")
