"""What a train step gives a detector's hooks: players and the context; and the hooks that detectors have by default."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from msddf_jax import adversary, trees
from msddf_jax.data import schema
from msddf_jax.synth import compose, degrade, recipes, recode


class Player(NamedTuple):
    """A network beside the detector: an adversary, a teacher, an identity or quality net.

    module: linen module. example: arguments that it is initialised with, arrays or shape structs; their values do not
    count.
    frozen: loaded from the file that `config.init` names for it, never trained, saved or exported.
    objective: (terms, rows, ctx) -> (scalar to minimise, {name: scalar}), what it adds to the detector's, or None.
    optim: settings of its parameters where no group of `config.optim` names them (`optim.make_optimizer`).
    """

    module: Any
    example: tuple
    frozen: bool = False
    objective: Callable | None = None
    optim: dict | None = None


class Context:
    """What a hook may know beside its arguments; made anew in every trace of a step.

    config: the experiment. step: int32 scalar. progress: share of training done, in [0, 1].
    variables: {player: {"params": ..., collection: ...}}, the detector's under "detector".
    """

    def __init__(self, config, modules, variables, *, step, key, frozen=()):
        self.config, self.step, self.progress = config, step, step / config.steps
        self.variables, self.updates = variables, {}
        self._modules, self._key, self._frozen, self._dropouts = modules, key, frozen, 0

    def key(self, name) -> jax.Array:
        """The random key of a named stream at this step; "synth", "augment", "dropout" and "losses" are in use."""
        return trees.stream_key(self._key, name, self.step)

    def apply(self, name, *args, train=False, mutable=False, **kwargs) -> jax.Array | dict[str, jax.Array | dict]:
        """What a player's module gives: `ctx.apply("detector", rows)["logit"]`, `ctx.apply("teacher", images)`.

        Gradients reach a trained player's parameters unless the caller stops them.

        Args:
          name: of a player. *args, **kwargs: of its module. train: passed on to a module that is called with it.
          mutable: whether its moving statistics take what this call makes of them (`update`).

        Raises:
          ValueError: a player that there is not, with those that there are; `train` of a module that does not take it.
        """
        if name not in self._modules:
            raise ValueError(f"there is no player {name!r}; there are {sorted(self._modules)}")
        kwargs |= train_keyword(self._modules[name], train)
        kept = {**self.variables[name], **self.updates.get(name, {})}
        collections = [c for c in kept if c != "params"] if mutable else False
        if train:
            # Each look draws its own: the first of a step as a step with one look does.
            kwargs["rngs"] = {"dropout": self.key("dropout" if not self._dropouts else f"dropout{self._dropouts}")}
            self._dropouts += 1
        out = self._modules[name].apply(kept, *args, mutable=collections, **kwargs)
        if not mutable:
            return out
        out, changed = out
        self.update(name, **changed)
        return out

    def update(self, name, **collections) -> None:
        """Moving statistics of a player for the next step: whole collections, by name.

        Raises ValueError for a collection that its module did not declare, and for a frozen player.
        """
        if name in self._frozen:
            raise ValueError(f"player {name!r} is frozen: its statistics do not move")
        unknown = sorted(set(collections) - (set(self.variables[name]) - {"params"}))
        if unknown:
            there = sorted(set(self.variables[name]) - {"params"})
            raise ValueError(f"player {name!r} has no collections {unknown}; its module declares {there}")
        self.updates[name] = {**self.updates.get(name, {}), **collections}


def train_keyword(module, train) -> dict[str, bool]:
    """{"train": ...} for a module that is called with it, {} for others. Raises ValueError: `train` of one of those."""
    if "train" in inspect.signature(type(module).__call__).parameters:
        return {"train": train}
    if train:
        raise ValueError(f"{type(module).__name__} is not called with `train`: leave it out, or let its call take it")
    return {}


class Hooks(NamedTuple):
    """A detector's hooks for training, the defaults in place of those that it has not (`detector`)."""

    losses: Callable
    make_rows: Callable
    players: Callable
    scalars: Callable


def resolve(module) -> Hooks:
    """The hooks of a detector module (`detector.load`)."""
    defaults = {"make_rows": make_rows, "players": players, "scalars": scalars}
    return Hooks(module.losses, **{name: getattr(module, name, hook) for name, hook in defaults.items()})


def players(config) -> dict[str, Player]:
    """Default of the hook `players`: the adversary, where the config has one."""
    if config.policy.mode == "none":
        return {}
    network, example = adversary.make_network(config)
    optimiser = {"lr": config.policy.lr, "weight_decay": 0.0}
    return {"policy": Player(network, example, objective=adversary.judge, optim=optimiser)}


def check(config) -> None:
    """Raise ValueError for settings of the default rows that do not fit: recipe, augmentation, adversary, group."""
    recipes.check(config.synth.recipe)
    adversary.check(config.policy, config.synth.recipe)
    functions = (degrade.augment_planes, recode.recode_planes, compose.augment)
    recipes.check_settings("augment", set(config.augment) - {"image_size"}, *functions)
    recode.check(**recode.own_settings(config.augment))
    if not 0.0 <= config.augment.get("crop", 0.0) < 0.5:
        raise ValueError(f"config.augment.crop is {config.augment.crop}, expected a share of the side in [0, 0.5)")
    layout_of(config)
    if any(config.synth.visible) and not config.synth.joint:
        raise ValueError(
            f"config.synth.visible is {tuple(config.synth.visible)}: what a forgery changed is seen only where it is "
            "augmented as its real is; set config.synth.joint, or visible to (0.0, 0.0)"
        )


def layout_of(config) -> compose.Layout:
    """`compose.make_layout` of a config. Raises ValueError for a group, or shares of it, that do not fit."""
    synth = config.synth
    group = schema.make_group(config.data.group)
    return compose.make_layout(group, synth.recipe, forged=synth.forged, second_views=synth.second_views)


def make_rows(key, batch, ctx) -> dict[str, jax.Array | dict]:
    """Default of the hook `make_rows`: the recipe of `config.synth`, then `config.augment`.

    Args:
      key: typed key. batch: device batch, images and masks float32 in [0, 1]. ctx: Context.

    Returns:
      rows of `compose.compose`, as `see_rows` shows them.
    """
    config, synth = ctx.config, ctx.config.synth
    choose = None if config.policy.mode == "none" else adversary.make_choose(ctx)
    layout = layout_of(config)
    rows = compose.compose(
        key, batch, layout=layout, choose=choose, recipe=synth.recipe, flip=synth.flip, progress=ctx.progress
    )
    return see_rows(rows, layout, ctx)


def see_rows(rows, layout, ctx) -> dict[str, jax.Array | dict]:
    """Rows of `compose.compose` as the model sees them: augmented, at its size.

    With forgeries and `config.synth.visible` they are those of `compose.show_change`. layout: of `layout_of`.
    """
    config, synth = ctx.config, ctx.config.synth
    bases = rows["base"] if synth.joint else None
    rows = compose.augment(ctx.key("augment"), rows, bases=bases, **config.augment)
    if not layout.forged or not any(synth.visible):
        return rows
    least = synth.visible[0] + (synth.visible[1] - synth.visible[0]) * ctx.progress
    return compose.show_change(rows, layout, least)


def scalars(out, rows) -> dict[str, jax.Array]:
    """Default of the hook `scalars`: `compose.by_role`, where rows have roles."""
    return compose.by_role(out["logit"], rows) if "role" in rows else {}
