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

from msddf_jax.data import schema
from msddf_jax.synth import blender, degrade, face_xray, fwa, geometry, self_blend, sladd, twins

PARTNERS = ("batch", "group")
# Keywords that are no settings: how a function runs, and what is chosen anew for every row.
OF_A_ROW = ("one_by_one", "feather", "color_strength", "floor", "usable", "flip", "bases")


class Recipe(NamedTuple):
    """forge: (key, reals, **settings) -> what `forge` returns; its keywords are the recipe's settings.

    inner: {setting that is a mapping: functions whose keywords it may name}. chooses: whether region, blend and
    strength are a choice. twins: whether a real is shown as one of its twins is, which `render` does to every row.
    second_view: whether it makes a second real view.
    """

    forge: Callable
    inner: Mapping = {}
    chooses: bool = False
    twins: bool = False
    second_view: bool = False


def forge(recipe, key, reals, *, flip, choose=None, others=None, progress=1.0) -> dict[str, jax.Array | dict | None]:
    """Forges every real row.

    Args:
      recipe: mapping with the name of one of `RECIPES` and settings of it.
      key: typed key.
      reals: image float32 [R, H, W, 3] in [0, 1], landmarks float32 [R, 81, 2] (NaN: stays real), identity int32 [R].
      flip: chance of a horizontal flip, one for all that comes of a row.
      choose: (key, target, source, regions=, type_weights=, magnitude_on=) -> keywords of `blender.blend_regions`
        (region, blend_type, magnitude, and what else it takes), with "record" beside them: what the chooser wants to
        see again, leaves [R, ...]. None for `choose_uniformly`.
      others: rows like `reals` of the other class, which "sladd" takes its references from; None without such.
      progress: share of training done, in [0, 1], which floors of strength fall with.

    Returns:
      dict: target float32 [R, H, W, 3]; source, a second real view, or None; forged as `blender.blend_regions`, None
      for "none"; record, {} for a recipe without choices.

    Raises:
      ValueError: as `check`.
    """
    check(recipe)
    name, settings = split_name(recipe)
    own = {"flip": flip, "choose": choose or choose_uniformly, "others": others, "progress": progress}
    asked = inspect.signature(RECIPES[name].forge).parameters
    return RECIPES[name].forge(key, reals, **{k: v for k, v in own.items() if k in asked}, **settings)


def render(recipe, key, rows, *, flip) -> dict[str, jax.Array]:
    """Rows that are not forged as the recipe shows the reals that are: flipped and, of twins, altered as often.

    So are those of "fwa", whose frames are altered (`frame`).

    Args:
      recipe, key, flip: of `forge`. rows: image [B, H, W, 3], and what else there is of landmarks and masks, which
        follow the flip. Twins that leave the data set's fakes alone (`alter_fakes` False, as published) leave all
        these alone.

    Returns:
      rows.
    """
    rows = flip_rows(key, rows, flip)
    name, settings = split_name(recipe)
    if settings.get("frame"):
        return dict(rows, image=degrade.augment(jax.random.fold_in(key, 1), rows["image"], **settings["frame"]))
    known = {"alter_target", *inspect.signature(twins.alter).parameters}
    twin = {k: v for k, v in dict(settings.get("twin") or {}).items() if k in known}
    if not RECIPES[name].twins or not settings.get("alter_fakes", True) or twin.get("alter_target") == 0.0:
        return rows
    planes = lambda key, image: jnp.moveaxis(twins.render_planes(key, jnp.moveaxis(image, -1, 0), **twin), 0, -1)
    return dict(rows, image=geometry.map_samples(planes, jax.random.fold_in(key, 1), rows["image"]))


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
    for setting in {"self_blend_share", "strength_floor", "transfer"} & set(settings):
        ends = tuple(settings[setting]) if hasattr(settings[setting], "__len__") else (settings[setting],)
        if len(ends) != 2 or not all(0.0 <= end <= 1.0 for end in ends):
            raise ValueError(f"synth.recipe.{setting} is {ends}, expected two numbers in [0, 1]")
    if settings.get("partner", PARTNERS[0]) not in PARTNERS:
        raise ValueError(f"synth.recipe.partner is {settings['partner']!r}, allowed: {PARTNERS}")
    blender.check_names("config.synth.recipe.regions", region_names(recipe), schema.REGIONS)


def region_names(recipe) -> tuple[str, ...]:
    """Names of the regions that a recipe chooses from: its setting `regions`, without it all of `schema.REGIONS`."""
    return tuple(split_name(recipe)[1].get("regions", schema.REGIONS))


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


def choose_uniformly(key, target, source, *, regions, type_weights, magnitude_on) -> dict[str, jax.Array | dict]:
    """Region, blend and strength of each row by fixed odds (`blender.uniform_choices`)."""
    del source, magnitude_on
    odds = {"regions": regions, "type_weights": type_weights}
    region, blend_type, magnitude = blender.uniform_choices(key, target.shape[0], **odds)
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
    progress,
    twin=None,
    blend=None,
    type_weights=blender.TYPE_WEIGHTS,
    self_blend_share=(0.0, 0.0),
    strength_floor=(0.0, 0.0),
    transfer=(1.0, 1.0),
    alter_fakes=True,
):
    """MSDDF.

    self_blend_share: share of the reals, drawn row by row, whose twins are blended by SBI's hull
      (`self_blend.blend_hull`, without colour transfer) and not as `choose` says. strength_floor: least strength of a
      blend that has one. Both are given at the start of training and at its end, and go evenly in between.
    transfer: range of how far the source's colours move to the target's, where `choose` does not say. The twins of one
      frame differ in colour first of all: 1 undoes that.
    alter_fakes: see `render`.
    """
    del alter_fakes
    blend = {"magnitude_on": blender.MAGNITUDE_ON, **(blend or {})}
    twin_key, choice_key, blend_key, share_key, hull_key = jax.random.split(key, 5)
    transfer_key = jax.random.fold_in(key, 5)
    pair = twins.make_twins(twin_key, reals["image"], reals["landmarks"], flip=flip, **(twin or {}))
    chosen = {"regions": schema.REGIONS, "type_weights": type_weights, "magnitude_on": blend["magnitude_on"]}
    choices = choose(choice_key, pair["target"], pair["source"], **chosen)
    record = choices.pop("record")
    at = lambda ends: ends[0] + (ends[1] - ends[0]) * progress
    if any(self_blend_share):
        draw = lambda key: jax.random.bernoulli(key, at(self_blend_share))
        by_hull = geometry.map_samples(draw, share_key, batch=reals["image"].shape[0], one_by_one=False)
        # Where rows run one by one, a row then pays for its own blend only.
        choices["blend_type"] = jnp.where(by_hull, blender.NONE, choices["blend_type"])
    draw = lambda key: jax.random.uniform(key, minval=transfer[0], maxval=transfer[1])
    strengths = geometry.map_samples(draw, transfer_key, batch=reals["image"].shape[0], one_by_one=False)
    choices.setdefault("color_strength", strengths)
    blend["floor"] = jnp.broadcast_to(jnp.asarray(at(strength_floor), jnp.float32), reals["image"].shape[:1])
    forged = blender.blend_regions(blend_key, pair["target"], pair["source"], pair["landmarks"], **choices, **blend)
    if any(self_blend_share):
        rows = (by_hull, pair["target"], pair["source"], pair["source_landmarks"], forged)
        forged = geometry.map_samples(_blend_hull_where, hull_key, *rows)
    return {"target": pair["target"], "source": pair["source"], "forged": forged, "record": record}


def _blend_hull_where(key, by_hull, target, source, source_landmarks, forged):
    planes = [jnp.moveaxis(image, -1, 0) for image in (target, source)]
    return jax.lax.cond(by_hull, lambda: self_blend.blend_hull(key, *planes, source_landmarks), lambda: forged)


def _forge_self_blend(key, reals, *, flip, twin=None, blend=None, alter_fakes=True):
    del alter_fakes  # of `render`
    twin = {"flip": flip, **(twin or {})}
    forged = self_blend.self_blend(key, reals["image"], reals["landmarks"], twin=twin, **(blend or {}))
    return {"target": forged["target"], "source": None, "forged": forged, "record": {}}


def _forge_face_xray(key, reals, *, flip, blend=None, partner="batch"):
    """Face X-ray. partner: who lends a real its face: of `PARTNERS`, the nearest of the batch, or its group's other."""
    flip_key, blend_key = jax.random.split(key)
    paired = partner == "group"
    # What was near unflipped is near where both are flipped.
    reals = flip_rows(flip_key, reals, flip, each=2 if paired else 1)
    rows = (reals["image"], reals["landmarks"], reals["identity"])
    other = jnp.arange(rows[0].shape[0]) ^ 1 if paired else None
    forged = face_xray.face_xray(blend_key, *rows, pose=reals.get("pose"), partner=other, **(blend or {}))
    return {"target": reals["image"], "source": None, "forged": forged, "record": {}}


def _forge_fwa(key, reals, *, flip, blend=None, frame=None):
    """frame: how the frame is altered that a face is put into, and the real is shown in (`degrade.augment_planes`)."""
    flip_key, warp_key = jax.random.split(key)
    reals = flip_rows(flip_key, reals, flip)
    forged = fwa.fwa(warp_key, reals["image"], reals["landmarks"], frame=frame, **(blend or {}))
    return {"target": forged["target"], "source": None, "forged": forged, "record": {}}


def _forge_sladd(
    key, reals, *, choose, flip, others, blend=None, regions=schema.REGIONS, type_weights=blender.TYPE_WEIGHTS
):
    blend = {"magnitude_on": blender.MAGNITUDE_ON, **(blend or {})}
    flip_key, partner_key, choice_key, blend_key = jax.random.split(key, 4)
    reals = flip_rows(flip_key, reals, flip)
    reference = sladd.find_reference(partner_key, reals, others)
    chosen = {"regions": regions, "type_weights": type_weights, "magnitude_on": blend["magnitude_on"]}
    choices = choose(choice_key, reals["image"], reference["source"], **chosen)
    record = choices.pop("record")
    forged = sladd.blend_reference(blend_key, reals["image"], reals["landmarks"], reference, **choices, **blend)
    return {"target": reals["image"], "source": None, "forged": forged, "record": record}


_TWIN = (twins.twin_planes, twins.alter)
RECIPES = {
    "msddf": Recipe(
        _forge_msddf,
        {"twin": _TWIN, "blend": (blender.blend_region,)},
        chooses=True,
        twins=True,
        second_view=True,
    ),
    "self_blend": Recipe(_forge_self_blend, {"twin": _TWIN, "blend": (self_blend.blend_hull,)}, twins=True),
    "face_xray": Recipe(_forge_face_xray, {"blend": (face_xray.swap_face,)}),
    "fwa": Recipe(_forge_fwa, {"blend": (fwa.warp_face,), "frame": (degrade.augment_planes,)}),
    "sladd": Recipe(_forge_sladd, {"blend": (blender.blend_region,)}, chooses=True),
    "none": Recipe(_forge_none),
}
