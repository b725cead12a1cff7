"""The pure train step and what it works on: keys, synthesis, forward, losses, one gradient, one update, EMA."""

import importlib
import pkgutil
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from msddf_jax import adversary, cpu, detectors, losses, optim, trees
from msddf_jax.synth import blender


@flax.struct.dataclass
class TrainState:
    """Everything that training carries.

    step: int32 scalar. params: {"detector": ..., "policy": ...}; the first level names the player, the second is
    there where the config has an adversary.
    model_state: mutable collections of the detector (batch statistics), {} for most.
    player: what the adversary carries from step to step (`adversary.init`), {} without one.
    opt_state: of the trainable parameters only. ema: flat dict, averages of the detector's trainable parameters
    (what is frozen needs no average).
    key: root key; every stream is derived from it, its name and the step.
    """

    step: jax.Array
    params: Any
    model_state: Any
    player: Any
    opt_state: Any
    ema: Any
    key: jax.Array


def load_detector(name):
    """The module `msddf_jax.detectors.<name>`. Raises ValueError listing the detectors there are."""
    known = sorted(m.name for m in pkgutil.iter_modules(detectors.__path__))
    if name not in known:
        raise ValueError(f"config.detector is {name!r}; the detectors in msddf_jax/detectors are {known}")
    return importlib.import_module(f"msddf_jax.detectors.{name}")


def make_model(config):
    """(detector module, its linen model) for a config; `config.model` are the model's fields."""
    detector = load_detector(config.detector)
    return detector, detector.Model(**config.model.to_dict(), dtype=jnp.dtype(config.dtype))


def dummy_batch(config, batch_size=1):
    """A device batch of zeros with the shapes of training, to initialise a model with."""
    size = config.data.image_size
    return {"image": jnp.zeros((batch_size, size, size, 3), jnp.float32)}


def init_state(config, *, initial=None):
    """(state, optimiser): the state as it stands before the first step. Pure in the config: trace it with `eval_shape`.

    Args:
      config: the experiment. initial: {"params/...": array, "batch_stats/...": array} of the detector, loaded values
        that replace the drawn ones, by name; it may hold a part of them only.
    """
    _, model = make_model(config)
    key = jax.random.key(config.seed)
    # Initial values come from XLA's own generator: the default one, unrolled for some 200 parameters, takes twice
    # as long to compile.
    init_key = jax.random.key(config.seed, impl="rbg")
    variables = model.init(trees.stream_key(init_key, "init", 0), dummy_batch(config), train=False)
    if initial is not None:
        flat = trees.flatten(dict(variables))
        flat.update({name: jnp.asarray(value, flat[name].dtype) for name, value in initial.items()})
        variables = trees.unflatten(flat)
    model_state, params = dict(variables), {"detector": dict(variables)["params"]}
    del model_state["params"]
    player = {}
    if config.policy.mode != "none":
        policy_key = trees.stream_key(init_key, "policy", 0)
        params["policy"], player = adversary.init(policy_key, mode=config.policy.mode, dtype=jnp.dtype(config.dtype))
    trained = optim.trainable_names(params, config.optim.groups)
    trainable, _ = trees.split(params, trained)
    tx = make_optimizer(config, trainable)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        player=player,
        opt_state=tx.init(trainable),
        ema={name: value for name, value in trainable.items() if name.startswith("detector/")},
        key=key,
    )


def make_optimizer(config, trainable):
    """The optimiser of `config.optim` over a flat dict of trainable parameters."""
    settings = config.optim.to_dict()
    return optim.make_optimizer(trainable, steps=config.steps, **settings)[0]


def to_device_images(batch):
    """uint8 images and masks of a host batch -> float32 in [0, 1]."""
    out = dict(batch, image=batch["image"].astype(jnp.float32) / 255.0)
    if "mask" in batch:
        out["mask"] = batch["mask"].astype(jnp.float32) / 255.0
    return out


def make_train_step(config):
    """step(state, batch) -> (state, scalars): pure, to be jitted with the state donated.

    batch: `schema.DEVICE_FIELDS` arrays. scalars: {"loss": ..., "loss/<name>": ..., ...} float32.
    """
    detector, model = make_model(config)
    weights = config.loss_weights.to_dict()
    mode = config.policy.mode

    def loss_fn(trainable, frozen, state, batch):
        params = trees.merge(trainable, jax.lax.stop_gradient(frozen))
        progress = state.step / config.steps
        keys = {n: trees.stream_key(state.key, n, state.step) for n in ("synth", "augment", "dropout", "losses")}
        batch = to_device_images(batch)
        if hasattr(detector, "synthesize"):
            choose = None if mode == "none" else make_choose(config, params["policy"], progress)
            batch = detector.synthesize(keys["synth"], batch, progress=progress, choose=choose, **config.synth)
        if hasattr(detector, "augment"):
            batch = detector.augment(keys["augment"], batch, **config.augment)
        variables = {"params": params["detector"], **state.model_state}
        out, model_state = model.apply(
            variables, batch, train=True, mutable=list(state.model_state), rngs={"dropout": keys["dropout"]}
        )
        terms = detector.losses(out, batch, key=keys["losses"], progress=progress, **config.loss_args)
        unknown = sorted(set(weights) - set(terms))
        if unknown:
            raise ValueError(f"config.loss_weights names {unknown}; detector {config.detector!r} has {sorted(terms)}")
        means = {name: losses.masked_mean(*terms[name]) for name in terms}
        total = sum(weights.get(name, 0.0) * value for name, value in means.items())
        scalars = {f"loss/{name}": value for name, value in means.items()}
        if hasattr(detector, "scalars"):
            scalars.update(detector.scalars(out, batch))
        scalars["loss"], player = total, state.player
        if mode != "none":
            loss, player, more = adversary.judge(batch, terms, player, mode=mode, settings=config.policy)
            total, scalars = total + loss, {**scalars, **more}
        return total, (scalars, model_state, player)

    def train_step(state, batch):
        trained = optim.trainable_names(state.params, config.optim.groups)
        trainable, frozen = trees.split(state.params, trained)
        tx = make_optimizer(config, trainable)
        grads, (scalars, model_state, player) = jax.grad(loss_fn, has_aux=True)(trainable, frozen, state, batch)
        updates, opt_state = tx.update(grads, state.opt_state, trainable)
        trainable = {name: value + updates[name] for name, value in trainable.items()}
        params = trees.merge(trainable, frozen)
        # A bias-corrected start: with a constant decay the first steps would average in the initial weights.
        decay = jnp.minimum(config.ema, (1.0 + state.step) / (10.0 + state.step))
        ema = {name: value + (1.0 - decay) * (trainable[name] - value) for name, value in state.ema.items()}
        scalars["gradient_norm"] = jnp.sqrt(sum(jnp.sum(g.astype(jnp.float32) ** 2) for g in grads.values()))
        state = state.replace(
            step=state.step + 1,
            params=params,
            model_state=dict(model_state),
            player=player,
            opt_state=opt_state,
            ema=ema,
        )
        return state, {name: value.astype(jnp.float32) for name, value in scalars.items()}

    return train_step


def make_choose(config, params, progress):
    """How the config's adversary chooses forgeries, for `synth.compose`."""
    return adversary.make_choose(
        params,
        progress=progress,
        mode=config.policy.mode,
        dtype=jnp.dtype(config.dtype),
        magnitude_on=tuple(config.synth.blend.get("magnitude_on", blender.MAGNITUDE_ON)),
        type_weights=config.synth.type_weights,
        settings=config.policy,
    )


def ema_weights(state):
    """{"params", "model_state"} of the detector with the averaged parameters in place of the trained ones."""
    flat = {**trees.flatten({"detector": state.params["detector"]}), **state.ema}
    return {"params": trees.unflatten(flat)["detector"], "model_state": state.model_state}


def make_predict(config):
    """predict(weights, batch) -> {"score": [B], "map": [B, g, g] where the detector has one}: pure, to be jitted.

    weights: {"params": detector parameters, "model_state": ...}. batch: {"image": uint8 [B, H, W, 3]}.
    score is P(fake), map P(manipulated) on the token grid; both float32.
    """
    _, model = make_model(config)

    def predict(weights, batch):
        variables = {"params": weights["params"], **weights["model_state"]}
        out = model.apply(variables, to_device_images({"image": batch["image"]}), train=False)
        result = {"score": jax.nn.sigmoid(out["logit"].astype(jnp.float32))}
        if "map_logits" in out:
            result["map"] = jax.nn.sigmoid(out["map_logits"].astype(jnp.float32))[..., 0]
        return result

    return predict


def make_predict_fn(config):
    """`make_predict`, jitted."""
    return jax.jit(make_predict(config), compiler_options=cpu.scoring_options())
