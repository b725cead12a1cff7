"""How well a detector tells of held-out forgeries what it is asked: how they were made, where, and how strongly."""

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from msddf_jax import detector
from msddf_jax.data import sample, schema
from msddf_jax.synth import compose, recipes

# Reals that are forged, evenly spread over the set; each a forgery of its own.
MAX_IMAGES = 256
_BATCH = 32


def can_forge(config) -> bool:
    """Whether a config's recipe makes forgeries that it can be asked about: of images, by a recipe."""
    try:
        recipes.check(config.synth.recipe)
    except ValueError as error:
        logging.warning("forgeries are not made: the workdir is of another version (%s)", error)
        return False
    return config.synth.recipe["name"] != "none" and not config.data.get("clip_length", 0)


def forgery_metrics(config, weights, name, eval_set, *, max_images=MAX_IMAGES, seed=0) -> dict[str, float]:
    """How well type, regions and strength of forgeries of a set's reals are recognised; fixed odds, unaugmented.

    Args:
      config, weights: a model. name: of the eval. eval_set: opened source. max_images: reals that are forged at most.
      seed: of the draws.

    Returns:
      {} for a detector that says none of it or a set without reals, else of these those that it says:
      "<name>/forgery_type_accuracy", share of forgeries whose most likely type is theirs;
      "<name>/forgery_region_f1", over all pairs of forgery and face part, called where P > 0.5;
      "<name>/forgery_strength_mae", mean absolute error; "<name>/forgery_num", forgeries that changed something.
    """
    apply, layout = detector.make_apply(config), compose.Layout(real=1, forged=1, second_views=0, fake=0)

    @jax.jit
    def forge_and_read(weights, key, batch):
        batch = detector.to_device_images(batch)
        rows = compose.compose(key, batch, layout=layout, recipe=config.synth.recipe, flip=config.synth.flip)
        return detector.read(apply(weights, {"image": rows["image"]})), rows

    shapes = jax.eval_shape(lambda w: apply(w, detector.example_batch(config)), weights)
    said = {"type", "regions", "strength"} & set(jax.eval_shape(detector.read, shapes))
    reals = sample.spread(np.flatnonzero(eval_set.column("label") == "real"), max_images)
    if not said or not len(reals):
        return {}
    found = {"type": [], "regions": [], "strength": []}
    batches = sample.batches(eval_set, reals, _BATCH)
    for number, (batch, count) in enumerate(tqdm(batches, total=-(-len(reals) // _BATCH), desc=f"forge {name}")):
        key = jax.random.fold_in(jax.random.key(seed), number)
        out, rows = jax.device_get(forge_and_read(weights, key, schema.device_batch(batch)))
        forged = rows["role"] == compose.ROLES.index("forgery")
        # The last batch is filled up with copies: their groups do not count.
        counted = forged & (rows["label"] == 1) & (np.cumsum(forged) <= count)
        _add(found, out, rows, counted)
    return _summary(name, found)


def _add(found, out, rows, counted):
    """Appends what one batch says of the rows that count."""
    if "type" in out:
        found["type"] += (out["type"].argmax(-1) == rows["type"])[counted].tolist()
    if "regions" in out:
        own = counted & rows["has_regions"]
        found["regions"] += list(zip(out["regions"][own] > 0.5, rows["regions"][own] > 0.5, strict=True))
    if "strength" in out:
        own = counted & rows["has_strength"]
        found["strength"] += np.abs(out["strength"] - rows["strength"])[own].tolist()


def _summary(name, found):
    result = {}
    if found["type"]:
        result[f"{name}/forgery_type_accuracy"] = float(np.mean(found["type"]))
    if found["regions"]:
        called, there = (np.stack(part) for part in zip(*found["regions"], strict=True))
        result[f"{name}/forgery_region_f1"] = float(2 * np.sum(called & there) / max(np.sum(called) + np.sum(there), 1))
    if found["strength"]:
        result[f"{name}/forgery_strength_mae"] = float(np.mean(found["strength"]))
    if result:
        result[f"{name}/forgery_num"] = float(max(map(len, found.values())))
    return result
