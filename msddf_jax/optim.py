"""The optimiser from a config: groups by regex, first match wins; a group without settings is frozen."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from msddf_jax import trees

OPTIMISERS = ("adamw", "adam_l2", "sgd")
SCHEDULES = ("cosine", "restarts", "oscillate", "step", "constant", "linear")
# Fields of a group's settings; those that it lacks are `config.optim`'s.
SCHEDULE = ("schedule", "warmup_steps", "final_lr", "period", "factor", "start")
FIELDS = ("lr", "weight_decay", "optimizer", "phase", *SCHEDULE)


class Optimiser(NamedTuple):
    """tx: optax transformation of a flat dict of parameters. rates: {parameter name: schedule of its learning rate}."""

    tx: optax.GradientTransformation
    rates: dict


def make_schedule(
    peak, *, steps, schedule="cosine", warmup_steps=0, final_lr=0.0, period=0, factor=0.5, start=0.0
) -> optax.Schedule:
    """The learning rate by step: a linear warm-up to `peak`, then what `schedule` names.

    Args:
      peak, final_lr: learning rates; the last is at most the peak. steps: length of training. warmup_steps: from 0.
      schedule: "cosine", down to final_lr at the end; "restarts", cosines of `period` steps each, from the peak down to
        final_lr (SGDR); "oscillate", down to final_lr in `period` steps and up again in the next (PyTorch's
        CosineAnnealingLR stepped on beyond its T_max = period); "step", times `factor` after every `period`
        steps; "constant"; "linear", constant and from the share `start` of training on down in a straight line to
        final_lr at the end (SBI).

    Raises:
      ValueError: a schedule that there is not; warm-up, period, factor or start that do not fit.
    """
    if not 0 <= warmup_steps < steps:
        raise ValueError(f"optim.warmup_steps must lie in [0, steps={steps}), got {warmup_steps}")
    if schedule not in SCHEDULES:
        raise ValueError(f"optim.schedule is {schedule!r}, allowed: {SCHEDULES}")
    if schedule in ("restarts", "oscillate", "step") and not period >= 1:
        raise ValueError(f"optim.schedule {schedule!r} needs a period of at least 1 step, got {period}")
    if not (0.0 <= start < 1.0 and 0.0 < factor <= 1.0):
        raise ValueError(f"optim.start is {start}, expected a share in [0, 1); factor is {factor}, expected (0, 1]")
    final, rest = min(final_lr, peak), steps - warmup_steps
    if schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, steps, end_value=final)
    if schedule == "restarts":
        one = optax.cosine_decay_schedule(peak, period, alpha=final / peak if peak else 0.0)
        after = lambda count: one(jnp.asarray(count) % period)
    elif schedule == "oscillate":
        after = lambda count: final + (peak - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.asarray(count) / period))
    elif schedule == "step":
        after = optax.exponential_decay(peak, period, factor, staircase=True)
    elif schedule == "linear":
        begin = round(start * rest)
        after = optax.linear_schedule(peak, final, rest - begin, begin)
    else:
        after = optax.constant_schedule(peak)
    if not warmup_steps:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), after], [warmup_steps])


def trainable_names(params, groups) -> dict[str, bool]:
    """{parameter name: trained?} from the groups of `config.optim`; `None` settings mean frozen.

    params: nested dict whose first level are the players ("detector", "policy").
    Raises ValueError for a parameter that no group covers.
    """
    settings = trees.match(trees.flatten(params), [(pattern, value) for pattern, value in groups])
    return {name: value is not None for name, value in settings.items()}


def unmatched(params, groups) -> list[str]:
    """Patterns of groups that no parameter goes by, though their player is there: misspelt, most likely."""
    used = set(trees.match(trees.flatten(params), [(pattern, pattern) for pattern, _ in groups]).values())
    absent = lambda pattern: re.fullmatch(r"\w+", pattern.split("/")[0]) and pattern.split("/")[0] not in params
    return [pattern for pattern, _ in groups if pattern not in used and not absent(pattern)]


def clip_by_player_norm(max_norm) -> optax.GradientTransformation:
    """Clip the gradient's global norm for each player ("detector", "policy") on its own.

    One norm over both would let a large gradient of the policy shrink the detector's step.
    Updates are a flat dict of "<player>/..." names.
    """

    def update(updates, _):
        out = {}
        for player in {name.split("/")[0] for name in updates}:
            own = {name: u for name, u in updates.items() if name.split("/")[0] == player}
            scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(own) + 1e-12))
            out.update(jax.tree.map(lambda u, s=scale: u * s, own))
        return {name: out[name] for name in updates}

    return optax.stateless(update)


def in_phase(inner, every, steps) -> optax.GradientTransformation:
    """`inner` in the steps k, k mod `every` in `steps`; in the others its parameters and moments stay (AltFreezing)."""

    def init(params):
        return {"count": jnp.zeros((), jnp.int32), "inner": inner.init(params)}

    def update(updates, state, params=None):
        on = jnp.isin(state["count"] % every, jnp.asarray(steps))
        made, following = inner.update(updates, state["inner"], params)
        made = jax.tree.map(lambda u: jnp.where(on, u, jnp.zeros_like(u)), made)
        kept = jax.tree.map(lambda new, old: jnp.where(on, new, old), following, state["inner"])
        return made, {"count": state["count"] + 1, "inner": kept}

    return optax.GradientTransformation(init, update)


def make_group(schedule, *, optimizer, weight_decay, phase, b1, b2, momentum) -> optax.GradientTransformation:
    """The transformation of one group.

    Args:
      schedule: of the learning rate. weight_decay: decoupled for "adamw", a term of the gradient (L2) for the others.
      optimizer: "adamw", "adam_l2" (PyTorch's Adam) or "sgd", with `momentum`. phase: None, or {"every": n, "steps":
        (k, ...)} as `in_phase`. b1, b2: of Adam.

    Raises:
      ValueError: an optimiser that there is not, or a phase without a step.
    """
    decay = optax.add_decayed_weights(weight_decay)
    if optimizer == "adamw":
        core = [optax.scale_by_adam(b1, b2), decay]
    elif optimizer == "adam_l2":
        core = [decay, optax.scale_by_adam(b1, b2)]
    elif optimizer == "sgd":
        core = [decay, optax.trace(momentum)]
    else:
        raise ValueError(f"optim.optimizer is {optimizer!r}, allowed: {OPTIMISERS}")
    core = optax.chain(*core)
    if phase:
        every, steps = phase["every"], tuple(phase["steps"])
        if not steps or not all(0 <= step < every for step in steps):
            raise ValueError(f"optim phase is {dict(phase)}: expected steps in [0, every)")
        core = in_phase(core, every, steps)
    # The rate counts every step, also those out of phase.
    return optax.chain(core, optax.scale_by_learning_rate(schedule))


def make_optimizer(
    trainable, *, groups, steps, clip_norm, optimizer="adamw", b1=0.9, b2=0.999, momentum=0.9, **schedule
) -> Optimiser:
    """An optimiser with settings for each group, on the trainable parameters only.

    Args:
      trainable: flat dict name -> array or shape; frozen parameters never reach the optimiser, so they
        hold no optimiser memory and cannot drift.
      groups: ((regex, None | {"lr": float, "weight_decay": float, ...}), ...): `FIELDS`; what a group does not say is
        as below.
      optimizer, b1, b2, momentum: see `make_group`. steps, **schedule: see `make_schedule`. clip_norm: see
        `clip_by_player_norm`.

    Raises:
      ValueError: a field that no group has, with those that there are; and as `make_group` and `make_schedule`.
    """
    labels = trees.match(trainable, [(pattern, pattern) for pattern, _ in groups])
    transforms, schedules = {}, {}
    for pattern, given in groups:
        if given is None:
            continue
        unknown = sorted(set(given) - set(FIELDS))
        if unknown or not {"lr", "weight_decay"} <= set(given):
            raise ValueError(
                f"the optim group {pattern!r} has {sorted(given)}; lr, weight_decay and of {FIELDS} allowed"
            )
        if pattern not in set(labels.values()) or pattern in transforms:
            continue
        own = schedule | {name: value for name, value in given.items() if name in SCHEDULE}
        schedules[pattern] = make_schedule(given["lr"], steps=steps, **own)
        transforms[pattern] = make_group(
            schedules[pattern],
            optimizer=given.get("optimizer", optimizer),
            weight_decay=given["weight_decay"],
            phase=given.get("phase"),
            b1=b1,
            b2=b2,
            momentum=momentum,
        )
    rates = {name: schedules[pattern] for name, pattern in labels.items()}
    return Optimiser(optax.chain(clip_by_player_norm(clip_norm), optax.multi_transform(transforms, labels)), rates)
