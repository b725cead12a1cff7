"""The recipes of forgeries, by name: what a config's `synth.recipe` stands for.

A recipe is a mapping with its name and its own settings, {"name": "msddf", "twin": {...}, ...}. It takes the real rows
of a batch and gives, for each of them, the real that the detector sees and a forgery of it. Which region, blend and
strength a recipe with such choices takes comes from `choose`: uniform, or the adversary.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from msddf_jax.synth import blender, face_xray, geometry, self_blend, sladd, twins

# Keywords that are no settings: how a function runs, and what is chosen anew for every row.
OF_A_ROW = ("one_by_one", "feather", "color_strength", "usable", "flip")


class Recipe(NamedTuple):
    """forge: (key, reals, **settings) -> what `forge` returns; its keywords are the recipe's settings.

    inner: {setting that is a mapping: functions whose keywords it may name}. chooses: whether region, blend and
    strength are a choice.
    """

    forge: Callable
    inner: Mapping = {}
    chooses: bool = False


def forge(recipe, key, reals, *, flip, choose=None, others=None) -> dict[str, jax.Array | dict | None]:
    """Forges every real row.

    Args:
      recipe: mapping with the name of one of `RECIPES` and settings of it.
      key: typed key.
      reals: image float32 [R, H, W, 3] in [0, 1], landmarks float32 [R, 81, 2] (NaN: stays real), identity int32 [R].
      flip: chance of a horizontal flip, one for all that comes of a row.
      choose: (key, target, source, type_weights=, magnitude_on=) -> keywords of `blender.blend_regions` (region,
        blend_type, magnitude, and what else it takes), with "record" beside them: what the chooser wants to see again,
        leaves [R, ...]. None for `choose_uniformly`.
      others: rows like `reals` of the other class, which "sladd" takes its references from; None without such.

    Returns:
      dict: target float32 [R, H, W, 3]; source, a second real view, or None; forged as `blender.blend_regions`, None
      for "none"; record, {} for a recipe without choices.

    Raises:
      ValueError: as `check`.
    """
    check(recipe)
    name, settings = split_name(recipe)
    own = {"flip": flip, "choose": choose or choose_uniformly, "others": others}
    asked = inspect.signature(RECIPES[name].forge).parameters
    return RECIPES[name].forge(key, reals, **{k: v for k, v in own.items() if k in asked}, **settings)


def split_name(recipe) -> tuple[str, dict]:
    """(name, settings) of a recipe."""
    settings = {name: recipe[name] for name in recipe} if hasattr(recipe, "keys") else {}
    if "name" not in settings:
        raise ValueError(f"synth.recipe is {recipe!r}, expected a mapping with a `name`, one of {sorted(RECIPES)}")
    return settings.pop("name"), settings


def check(recipe) -> None:
    """Raise ValueError for a recipe that there is not, a setting that it has not, or a share outside [0, 1]."""
    name, settings = split_name(recipe)
    if name not in RECIPES:
        raise ValueError(f"synth.recipe.name is {name!r}{_nearest(name, sorted(RECIPES))}")
    found = RECIPES[name]
    check_settings("synth.recipe", settings, found.forge)
    for setting in set(settings) & set(found.inner):
        check_settings(f"synth.recipe.{setting}", settings[setting], *found.inner[setting])
    share = settings.get("self_blend_share", 0.0)
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"synth.recipe.self_blend_share is {share}, expected a share in [0, 1]")


def check_settings(where, given, *functions) -> None:
    """Raise ValueError, with the nearest name, for a setting that is no keyword with a default of any function.

    where: of the settings in a config, for the message. given: their names.
    """
    allowed = []
    for function in functions:
        parameters = inspect.signature(function).parameters.items()
        allowed += [k for k, p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]
    allowed = [name for name in allowed if name not in OF_A_ROW]
    for name in given:
        if name not in allowed:
            raise ValueError(f"config.{where}.{name}: there is no such setting{_nearest(name, allowed)}")


def _nearest(name, allowed):
    near = difflib.get_close_matches(name, allowed, n=1)
    return (f"; did you mean {near[0]!r}?" if near else ";") + f" allowed: {', '.join(allowed) or 'none'}"


def choose_uniformly(key, target, source, *, type_weights, magnitude_on) -> dict[str, jax.Array | dict]:
    """Region, blend and strength of each row by fixed odds (`blender.uniform_choices`)."""
    del source, magnitude_on
    region, blend_type, magnitude = blender.uniform_choices(key, target.shape[0], type_weights=type_weights)
    return {"region": region, "blend_type": blend_type, "magnitude": magnitude, "record": {}}


def flip_rows(key, rows, flip, each=1) -> dict[str, jax.Array]:
    """Rows of images, landmarks and masks, each mirrored with the probability `flip`; `each` rows of a group alike."""
    count, width = rows["image"].shape[0], rows["image"].shape[2]
    flipped = jnp.repeat(jax.random.bernoulli(key, flip, (count // each,)), each)
    mirror = lambda x: jnp.where(flipped[:, None, None, None], x[:, :, ::-1], x)
    out = dict(rows, image=mirror(rows["image"]))
    if "mask" in rows:
        out["mask"] = mirror(rows["mask"])
    for name in {"landmarks", "pose"} & set(rows):
        points = geometry.flip_landmarks(rows[name], width)
        out[name] = jnp.where(flipped[:, None, None], points, rows[name])
    return out


def _forge_none(key, reals):
    del key
    return {"target": reals["image"], "source": None, "forged": None, "record": {}}


def _forge_msddf(
    key,
    reals,
    *,
    choose,
    flip,
    twin=None,
    blend=None,
    type_weights=blender.TYPE_WEIGHTS,
    self_blend_share=0.0,
    source_twin=True,
):
    """MSDDF. self_blend_share: share of the reals, drawn row by row, whose twins are blended by SBI's hull
    (`self_blend.blend_hull`, without colour transfer) and not as `choose` says. source_twin: whether a real's other
    twin, a second real view, is a row too."""
    blend = {"magnitude_on": blender.MAGNITUDE_ON, **(blend or {})}
    twin_key, choice_key, blend_key, share_key, hull_key = jax.random.split(key, 5)
    pair = twins.make_twins(twin_key, reals["image"], reals["landmarks"], flip=flip, **(twin or {}))
    chosen = {"type_weights": type_weights, "magnitude_on": blend["magnitude_on"]}
    choices = choose(choice_key, pair["target"], pair["source"], **chosen)
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
    source = pair["source"] if source_twin else None
    return {"target": pair["target"], "source": source, "forged": forged, "record": record}


def _blend_hull_where(key, by_hull, target, source, source_landmarks, forged):
    planes = [jnp.moveaxis(image, -1, 0) for image in (target, source)]
    return jax.lax.cond(by_hull, lambda: self_blend.blend_hull(key, *planes, source_landmarks), lambda: forged)


def _forge_self_blend(key, reals, *, flip, twin=None, blend=None):
    twin = {"flip": flip, **(twin or {})}
    forged = self_blend.self_blend(key, reals["image"], reals["landmarks"], twin=twin, **(blend or {}))
    return {"target": forged["target"], "source": None, "forged": forged, "record": {}}


def _forge_face_xray(key, reals, *, flip, blend=None):
    flip_key, blend_key = jax.random.split(key)
    reals = flip_rows(flip_key, reals, flip)
    rows = (reals["image"], reals["landmarks"], reals["identity"])
    forged = face_xray.face_xray(blend_key, *rows, pose=reals.get("pose"), **(blend or {}))
    return {"target": reals["image"], "source": None, "forged": forged, "record": {}}


def _forge_sladd(key, reals, *, choose, flip, others, blend=None, type_weights=blender.TYPE_WEIGHTS):
    blend = {"magnitude_on": blender.MAGNITUDE_ON, **(blend or {})}
    flip_key, partner_key, choice_key, blend_key = jax.random.split(key, 4)
    reals = flip_rows(flip_key, reals, flip)
    reference = sladd.find_reference(partner_key, reals, others)
    chosen = {"type_weights": type_weights, "magnitude_on": blend["magnitude_on"]}
    choices = choose(choice_key, reals["image"], reference["source"], **chosen)
    record = choices.pop("record")
    forged = sladd.blend_reference(blend_key, reals["image"], reals["landmarks"], reference, **choices, **blend)
    return {"target": reals["image"], "source": None, "forged": forged, "record": record}


_TWIN = (twins.twin_planes, twins.alter)
RECIPES = {
    "msddf": Recipe(_forge_msddf, {"twin": _TWIN, "blend": (blender.blend_region,)}, chooses=True),
    "self_blend": Recipe(_forge_self_blend, {"twin": _TWIN, "blend": (self_blend.blend_hull,)}),
    "face_xray": Recipe(_forge_face_xray, {"blend": (face_xray.swap_face,)}),
    "sladd": Recipe(_forge_sladd, {"blend": (blender.blend_region,)}, chooses=True),
    "none": Recipe(_forge_none),
}
