"""The pure train step and what it works on: keys, rows, forward, losses, a gradient, one update, EMA.

It knows no detector, recipe or adversary: those are the hooks of `detector` and `hooks`, and how the gradient comes
about is one of `steps.STEPS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from msddf_jax import detector as protocol
from msddf_jax import hooks, optim, steps, trees


@flax.struct.dataclass
class TrainState:
    """Everything that training carries.

    step: int32 scalar. params: {player: tree}, "detector" and the trained players; with the step "bilevel" also
    "loss_weights". model_state: {player: {collection: tree}}, moving statistics; {} for most.
    opt_state: of the trainable parameters only. ema: flat dict, averages of the detector's trainable parameters
    (what is frozen needs no average).
    key: root key; every stream is derived from it, its name and the step.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any
    key: jax.Array


class Cast(NamedTuple):
    """A config's detector with its players. hooks: `hooks.Hooks`. players: {name: hooks.Player}, frozen ones too.

    modules: {name: linen module}, "detector" among them. groups: of `config.optim`, then what players ask for.
    """

    hooks: hooks.Hooks
    players: dict
    modules: dict
    groups: tuple


def make_cast(config) -> Cast:
    """Who plays in a config. Raises ValueError for a detector that there is not, or players that do not fit."""
    found = hooks.resolve(protocol.load(config.detector))
    players = found.players(config)
    reserved = {"detector", steps.WEIGHTS} & set(players)
    if reserved or (config.policy.mode != "none" and "policy" not in players):
        raise ValueError(
            f"detector {config.detector!r} has the players {sorted(players)}: none may be called detector or "
            f"{steps.WEIGHTS}, and config.policy.mode={config.policy.mode} needs the policy of hooks.players"
        )
    groups = [(pattern, settings) for pattern, settings in config.optim.groups]
    for name, player in players.items():
        if player.optim is not None and not player.frozen:
            groups.append((f"{name}/.*", player.optim))
    if config.step.name == "bilevel":
        weights = {"lr": config.step.lr, "weight_decay": 0.0, "optimizer": "adam_l2", "schedule": "constant"}
        # First: no group that is meant for a network may take them.
        groups.insert(0, (f"{steps.WEIGHTS}/.*", {**weights, "warmup_steps": 0}))
    modules = {name: player.module for name, player in players.items()}
    return Cast(found, players, {"detector": protocol.make_model(config), **modules}, tuple(groups))


def init_players(config, *, frozen) -> dict[str, dict]:
    """{player: variables} as drawn: of the frozen players or of the others, the detector among them."""
    cast = make_cast(config)
    # Initial values come from XLA's own generator: the default one, unrolled for some 200 parameters, takes twice
    # as long to compile.
    key = jax.random.key(config.seed, impl="rbg")
    variables = {}
    if not frozen:
        rows = protocol.example_batch(config)
        variables["detector"] = cast.modules["detector"].init(trees.stream_key(key, "init", 0), rows, train=False)
    for name, player in cast.players.items():
        if player.frozen == frozen:
            example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), player.example)
            called = hooks.train_keyword(player.module, False)
            variables[name] = player.module.init(trees.stream_key(key, name, 0), *example, **called)
    return {name: dict(value) for name, value in variables.items()}


def init_state(config, *, initial=None) -> TrainState:
    """The state as it stands before the first step. Pure in the config: trace it with `eval_shape`.

    Args:
      config: the experiment. initial: {player: {"params/...": array, "batch_stats/...": array}}, loaded values that
        replace the drawn ones, by name; it may hold a part of them only.
    """
    variables = init_players(config, frozen=False)
    for player, loaded in (initial or {}).items():
        flat = trees.flatten(variables[player])
        flat.update({name: jnp.asarray(value, flat[name].dtype) for name, value in loaded.items()})
        variables[player] = trees.unflatten(flat)
    params = {name: value.pop("params") for name, value in variables.items()}
    if config.step.name == "bilevel":
        params[steps.WEIGHTS] = {name: jnp.float32(w) for name, w in config.loss_weights.items()}
    trainable, _ = trees.split(params, optim.trainable_names(params, make_cast(config).groups))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=variables,
        opt_state=make_optimizer(config, trainable).tx.init(trainable),
        ema={name: value for name, value in trainable.items() if name.startswith("detector/")},
        key=jax.random.key(config.seed),
    )


def make_optimizer(config, trainable) -> optim.Optimiser:
    """The optimiser of `config.optim` over a flat dict of trainable parameters."""
    settings = {**config.optim.to_dict(), "groups": make_cast(config).groups}
    return optim.make_optimizer(trainable, steps=config.steps, **settings)


def make_objective(config, cast, state, held, fixed) -> Callable[[dict, dict, int], tuple[jax.Array, steps.Aux]]:
    """objective(trainable, batch, number) -> (scalar, steps.Aux), as `steps` wants it.

    held: flat dict of what this step does not train. fixed: {frozen player: variables}. number: of the batch, 0 for the
    step's own; another draws other forgeries.
    """

    def objective(trainable, batch, number):
        params = trees.merge(trainable, jax.lax.stop_gradient(held))
        learned = params.pop(steps.WEIGHTS, None)
        weights = config.loss_weights.to_dict() if learned is None else learned
        variables = {name: {"params": tree, **state.model_state[name]} for name, tree in params.items()}
        key = state.key if number == 0 else jax.random.fold_in(state.key, number)
        frozen = jax.lax.stop_gradient(fixed)
        ctx = hooks.Context(
            config, cast.modules, {**variables, **frozen}, step=state.step, key=key, frozen=tuple(frozen)
        )
        rows = cast.hooks.make_rows(ctx.key("synth"), protocol.to_device_images(batch), ctx)
        out = ctx.apply("detector", rows, train=True, mutable=True)
        terms = cast.hooks.losses(out, rows, ctx)
        if "counted" in rows:
            # Here and not in each detector: what cannot be seen is asked of no term of any.
            terms = {name: (values, mask & rows["counted"]) for name, (values, mask) in terms.items()}
        unknown = sorted(set(weights) - set(terms))
        if unknown:
            raise ValueError(f"config.loss_weights names {unknown}; detector {config.detector!r} has {sorted(terms)}")
        total, means = steps.weighted_sum(terms, weights)
        scalars = {f"loss/{name}": value for name, value in means.items()}
        scalars.update(cast.hooks.scalars(out, rows))
        scalars["loss"] = total
        for player in cast.players.values():
            if player.objective is not None:
                added, more = player.objective(terms, rows, ctx)
                total, scalars = total + added, {**scalars, **more}
        model_state = {name: {**value, **ctx.updates.get(name, {})} for name, value in state.model_state.items()}
        return total, steps.Aux(means, scalars, jax.lax.stop_gradient(model_state))

    return objective


def make_train_step(config) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """step(state, batches, fixed={}) -> (state, scalars): pure, to be jitted with the state donated.

    batches: tuple of `steps.STEPS[config.step.name].batches` dicts of `schema.DEVICE_FIELDS` arrays. fixed: {frozen
    player: variables}. scalars: {"loss": ..., "loss/<name>": ..., ...} float32.
    """
    cast = make_cast(config)
    run, settings = steps.STEPS[config.step.name].run, {}
    if config.step.name == "sam":
        settings["rho"] = config.step.rho
    if config.step.name == "bilevel":
        settings["upper"] = config.step.upper.to_dict()

    def train_step(state, batches, fixed=None):
        trainable, held = trees.split(state.params, optim.trainable_names(state.params, cast.groups))
        tx, rates = make_optimizer(config, trainable)
        own = dict(settings)
        if config.step.name == "bilevel":
            own["rates"] = {name: rate(state.step) for name, rate in rates.items()}
        objective = make_objective(config, cast, state, held, fixed or {})
        grads, aux = run(objective, trainable, batches, **own)
        updates, opt_state = tx.update(grads, state.opt_state, trainable)
        trainable = steps.project({name: value + updates[name] for name, value in trainable.items()})
        # A bias-corrected start: with a constant decay the first steps would average in the initial weights.
        decay = jnp.minimum(config.ema, (1.0 + state.step) / (10.0 + state.step))
        ema = {name: value + (1.0 - decay) * (trainable[name] - value) for name, value in state.ema.items()}
        scalars = dict(aux.scalars)
        scalars["gradient_norm"] = jnp.sqrt(sum(jnp.sum(g.astype(jnp.float32) ** 2) for g in grads.values()))
        state = state.replace(
            step=state.step + 1,
            params=trees.merge(trainable, held),
            model_state=aux.model_state,
            opt_state=opt_state,
            ema=ema,
        )
        return state, {name: value.astype(jnp.float32) for name, value in scalars.items()}

    return train_step


def ema_weights(state) -> dict[str, dict]:
    """{"params", "model_state"} of the detector with the averaged parameters in place of the trained ones."""
    flat = {**trees.flatten({"detector": state.params["detector"]}), **state.ema}
    return {"params": trees.unflatten(flat)["detector"], "model_state": state.model_state["detector"]}
