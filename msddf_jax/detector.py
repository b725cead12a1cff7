"""The protocol of detectors: look-up, specification, and what scores with one.

A detector is a module with

    Model(rows, *, train) -> {"logit": [N], ...}                          linen; log odds of fake
    losses(out, rows, ctx) -> {name: (values [N], mask [N])}              every term, unweighted

and, where the defaults do not serve it,

    example(config) -> {"image": (S, S, 3) or (T, S, S, 3), ...}          shapes of one row; scored by its image alone
    players(config) -> {name: hooks.Player}                                networks beside it
    make_rows(key, batch, ctx) -> rows                                    from a device batch
    scalars(out, rows) -> {name: scalar}                                  for the log
    from_backbone(flat, model) -> flat                                    published variables as its Model keeps them
    NEEDS = {field: term}                                                 of `data.needs`: what a set must have

`ctx` is `hooks.Context`. It is named in `config.detector`: a file of msddf_jax/detectors, or any module that can be
imported. This module stands below the trainer and imports neither models nor synthesis, so that what only scores
starts quickly.
"""

import difflib
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from msddf_jax import detectors
from msddf_jax.data import schema

if TYPE_CHECKING:
    from flax import linen as nn
REQUIRED = ("Model", "losses")
OPTIONAL = ("example", "players", "make_rows", "scalars", "from_backbone")
HOOKS = REQUIRED + OPTIONAL


def load(name) -> ModuleType:
    """The module of a detector, checked.

    Args:
      name: a file of msddf_jax/detectors ("msddf"), or the dotted name of another module ("my_package.my_detector").

    Raises:
      ValueError: no such detector; a hook that is required and not there; a public function that is no hook, since a
        misspelt hook would be passed over without a word.
    """
    known = sorted(m.name for m in pkgutil.iter_modules(detectors.__path__))
    path = f"{detectors.__name__}.{name}" if name in known else name
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"config.detector is {name!r}{hint} The detectors in msddf_jax/detectors are {known}; any other is the "
            "dotted name of a module that can be imported"
        ) from error
    lacking = [hook for hook in REQUIRED if not hasattr(module, hook)]
    functions = inspect.getmembers(module, inspect.isfunction)
    own = [n for n, f in functions if f.__module__ == module.__name__ and not n.startswith("_")]
    strange = [n for n in own if n not in HOOKS]
    if lacking or strange:
        what = [f"lacks {', '.join(lacking)}"] * bool(lacking)
        for found in strange:
            near = difflib.get_close_matches(found, HOOKS, n=1)
            what.append(f"defines {found}, which is no hook" + (f" (did you mean {near[0]}?)" if near else ""))
        raise ValueError(
            f"detector {name!r} ({module.__file__}) {'; '.join(what)}. Hooks: {', '.join(HOOKS)}. A function of its "
            "own starts with an underscore"
        )
    return module


def needs(name) -> dict[str, str]:
    """{field of `data.needs.FIELDS`: term of the loss that needs it, "" for all} of a detector, from its `NEEDS`."""
    return dict(getattr(load(name), "NEEDS", {}))


def sources(name) -> list[pathlib.Path]:
    """The files of a detector that is none of msddf_jax/detectors: its module, or all of the package that it is in."""
    known = {m.name for m in pkgutil.iter_modules(detectors.__path__)}
    spec = None if name in known else importlib.util.find_spec(name)
    if spec is None or not spec.origin:
        return []
    return sorted(pathlib.Path(spec.origin).parent.rglob("*.py")) if spec.parent else [pathlib.Path(spec.origin)]


def make_model(config) -> "nn.Module":
    """The linen module of a config's detector; `config.model` are its fields."""
    fields = config.model.to_dict()
    return load(config.detector).Model(**fields, dtype=jnp.dtype(config.dtype))


def example(config) -> dict[str, tuple[int, ...]]:
    """{field: shape of one row}: the detector's own, or one image, or a clip where `config.data.clip_length` is set."""
    module = load(config.detector)
    if hasattr(module, "example"):
        return {name: tuple(shape) for name, shape in module.example(config).items()}
    size, frames = config.data.image_size, config.data.get("clip_length", 0)
    return {"image": (frames, size, size, 3) if frames else (size, size, 3)}


def example_batch(config, batch_size=1) -> dict[str, jax.Array]:
    """Rows of zeros with the shapes of `example`, float32: what a model is initialised with."""
    return {name: jnp.zeros((batch_size, *shape), jnp.float32) for name, shape in example(config).items()}


def weight_shapes(config) -> dict[str, dict]:
    """{"params", "model_state"} of the detector as `jax.ShapeDtypeStruct`s."""
    model, rows = make_model(config), example_batch(config)
    variables = dict(jax.eval_shape(lambda: model.init(jax.random.key(0, impl="rbg"), rows, train=False)))
    return {"params": variables.pop("params"), "model_state": variables}


def make_apply(config) -> Callable[..., dict[str, jax.Array] | tuple[dict[str, jax.Array], dict]]:
    """apply(weights, rows, mutable=False) -> what the Model gives outside training. Pure.

    weights: {"params", "model_state"}. rows: {"image": float32 [B, (T,) H, W, 3] in [0, 1], ...}. mutable: as linen's
    `apply`, which then gives (output, changed collections).
    """
    model = make_model(config)

    def apply(weights, rows, mutable=False):
        variables = {"params": weights["params"], **weights["model_state"]}
        return model.apply(variables, rows, train=False, mutable=mutable)

    return apply


def to_device_images(batch) -> dict[str, jax.Array]:
    """uint8 images and masks of a host batch -> float32 in [0, 1]."""
    return {
        name: value.astype(jnp.float32) / 255.0 if name in ("image", "mask") else value for name, value in batch.items()
    }


def make_score(config) -> Callable[[dict, dict], dict[str, jax.Array]]:
    """score(weights, {"image": uint8 [B, (T,) H, W, 3]}) -> what `read` gives: pure, to be jitted."""
    apply = make_apply(config)
    return lambda weights, batch: read(apply(weights, to_device_images({"image": batch["image"]})))


def read(out) -> dict[str, jax.Array]:
    """What a user sees of a Model's outputs, float32.

    "score" [B], P(fake), of `logit`; and of what else a detector gives, "map" [B, g, g], P(manipulated) on the token
    grid, of `map_logits` [B, g, g] or [B, g, g, 1]; "type" [B, 6] and "regions" [B, 5], probabilities over
    `schema.FORGERY_TYPES` and `schema.FACE_PARTS`, of `type_logits` and `region_logits`; "strength" [B] in [0, 1];
    "feature" [B, d], what the score is made of (`statistics.novelty` measures distances between them).
    """
    if "feature" in out and out["feature"].ndim != 2:
        raise ValueError(f"a Model's feature is [B, d], this one is {out['feature'].shape}: name it otherwise")
    for key, names in (("type_logits", schema.FORGERY_TYPES), ("region_logits", schema.FACE_PARTS)):
        if key in out and out[key].shape[-1] != len(names):
            raise ValueError(
                f"a Model's {key} are of {names}, these have {out[key].shape[-1]} classes: name them otherwise"
            )
    made = {
        "score": ("logit", jax.nn.sigmoid),
        "map": ("map_logits", lambda x: jax.nn.sigmoid(x[..., 0] if x.ndim == 4 else x)),
        "type": ("type_logits", jax.nn.softmax),
        "regions": ("region_logits", jax.nn.sigmoid),
        "strength": ("strength", lambda x: x),
        "feature": ("feature", lambda x: x),
    }
    return {name: fn(out[key].astype(jnp.float32)) for name, (key, fn) in made.items() if key in out}
