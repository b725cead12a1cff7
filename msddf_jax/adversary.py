"""The second player: chooses the forgeries so that the detector's loss rises, in the detector's own train step.

Modes, a line of `_MODES` each (MSDDF sections 3.1, 5 and 6; SLADD):

- "reinforce": region, blend and strength bin are drawn from a policy, and its gradient comes from each forgery's own
  loss, beside a moving baseline.
- "published": the same with what SLADD's public code makes of it, faults included: one reward for the batch, no
  baseline, no exploration, a strength that is not drawn (`policy.choose_published`). For comparison.
- "pathwise": region and blend are drawn as without an adversary; strength, feather and colour are numbers of a network
  that learns through the blender and a gradient reversal.

All meet the detector in one gradient call: what reaches the policy never reaches the detector, and the other way about.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import losses, steps
from msddf_jax.data import schema
from msddf_jax.models import policy
from msddf_jax.models.reverse_grad import dann_schedule
from msddf_jax.synth import blender, compose, recipes

# Strength of a forgery (MSDDF section 6, parameter table).
MAGNITUDE = (0.1, 1.0)


def check(settings, recipe) -> None:
    """Raise ValueError where `config.policy` names no mode, or the recipe leaves nothing to choose."""
    if settings.mode not in MODES:
        raise ValueError(f"config.policy.mode is {settings.mode!r}, allowed: {MODES}")
    with_choices = tuple(name for name, found in recipes.RECIPES.items() if found.chooses)
    if settings.mode != "none" and recipe.name not in with_choices:
        raise ValueError(
            f"config.policy.mode is {settings.mode!r}, but the recipe {recipe.name!r} has nothing to choose; recipes "
            f"that have: {with_choices}. Set config.policy.mode=none"
        )


def make_network(config) -> tuple[nn.Module, tuple[jax.Array, ...]]:
    """(linen module of `config.policy.mode`, arguments to initialise it with)."""
    twin = jnp.zeros((1, policy.INPUT_SIZE, policy.INPUT_SIZE, 3), jnp.float32)
    regions = len(recipes.region_names(config.synth.recipe))
    return _MODES[config.policy.mode].network(jnp.dtype(config.dtype), regions, twin)


def exploration_at(progress, *, exploration, entropy_floor, warmup) -> jax.Array:
    """Share of uniform choices: 1 during the warm-up, then the larger of what is asked for and what the floor needs.

    Args:
      progress: share of training done, scalar. exploration: in [0, 1]. warmup: share of training.
      entropy_floor: least entropy of every head, as a share of that of a uniform choice, in [0, 1].

    Returns:
      float32 scalar.
    """
    needed = max(policy.epsilon_for_floor(entropy_floor, count) for count in policy.HEADS.values())
    return jnp.where(progress < warmup, 1.0, max(exploration, needed)).astype(jnp.float32)


def make_choose(ctx) -> Callable[..., dict[str, jax.Array | dict]]:
    """choose(key, target, source, regions=, type_weights=, magnitude_on=) for `recipes.forge`, by the player "policy".

    ctx: `hooks.Context`; of `config.policy`: mode; exploration, entropy_floor, warmup, reversal ("published" has none).
    """
    settings = ctx.config.policy
    epsilon = exploration_at(
        ctx.progress,
        exploration=settings.exploration,
        entropy_floor=settings.entropy_floor,
        warmup=settings.warmup,
    )
    chooser = _MODES[settings.mode].choose

    def choose(key, target, source, **asked):
        return chooser(ctx, epsilon, key, target, source, **asked)

    return choose


def judge(terms, rows, ctx) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What the adversary adds to the objective, by the detector's loss on its forgeries.

    Args:
      terms: {name: (values [N], mask [N])} of the detector. rows: of `synth.compose`, with the record of `choose`.
      ctx: `hooks.Context`; of `config.policy`, with "reinforce": reward ({loss name: weight}), baseline_decay,
        entropy_weight, advantage_clip. The reward's moving baseline is the policy's collection "baseline". With
        "published" the reward is the detector's whole loss, by `config.loss_weights`.

    Returns:
      (loss scalar, {"policy/...": scalar}). "pathwise" adds nothing here: its gradient comes with the images.

    Raises:
      ValueError: a reward that is no term of the detector.
    """
    forgery = rows["role"] == compose.ROLES.index("forgery")
    # Not those blended in spite of the choice (`synth.self_blend_share`): what they earn is not the choice's.
    chosen = forgery & (rows["type"] != schema.FORGERY_TYPES.index("self_blend"))
    return _MODES[ctx.config.policy.mode].judge(terms, rows, ctx, chosen)


def _policy_network(dtype, regions, twin):
    return policy.Policy(dtype, regions), (twin, twin)


def _choose_reinforce(ctx, epsilon, key, target, source, *, regions, type_weights, magnitude_on):
    del type_weights
    action_key, magnitude_key = jax.random.split(key)
    logits = ctx.apply("policy", target, source)
    actions, log_probs = policy.sample(action_key, logits, epsilon)
    actions["region"] = blender.region_indices(regions)[actions["region"]]
    record = {
        "log_prob": policy.joint_log_prob(log_probs, actions["type"], magnitude_on),
        "entropy": policy.entropy(logits, epsilon),
        "action": actions,
    }
    magnitude = policy.draw_magnitude(magnitude_key, actions["magnitude"], *MAGNITUDE)
    return _choices(actions, magnitude, record)


def _judge_reinforce(terms, rows, ctx, chosen):
    record, settings = rows["record"], ctx.config.policy
    unknown = sorted(set(settings.reward) - set(terms))
    if unknown:
        raise ValueError(f"config.policy.reward names {unknown}; the detector has {sorted(terms)}")
    reward = sum(weight * jnp.where(terms[name][1], terms[name][0], 0.0) for name, weight in settings.reward.items())
    # A blend that was asked for and changed nothing says nothing about the choice; "none" is real by choice.
    meant = chosen & ((rows["label"] == 1) | (record["action"]["type"] == blender.NONE))
    loss, baseline, scalars = policy.reinforce_loss(
        record["log_prob"],
        record["entropy"],
        reward,
        meant,
        ctx.variables["policy"]["baseline"],
        decay=settings.baseline_decay,
        entropy_weight=settings.entropy_weight,
        advantage_clip=settings.advantage_clip,
    )
    ctx.update("policy", baseline=baseline)
    return loss, {"policy/loss": loss, **scalars, **policy.action_shares(record["action"], chosen)}


def _published_network(dtype, regions, twin):
    return policy.Policy(dtype, regions, strengths=1), (twin, twin)


def _choose_published(ctx, epsilon, key, target, source, *, regions, type_weights, magnitude_on):
    del epsilon, type_weights, magnitude_on
    actions, log_prob, entropies = policy.choose_published(key, ctx.apply("policy", target, source))
    actions["region"] = blender.region_indices(regions)[actions["region"]]
    record = {"log_prob": log_prob, "entropy": entropies, "action": actions}
    return _choices(actions, actions["magnitude"], record)


def _judge_published(terms, rows, ctx, chosen):
    record = rows["record"]
    reward, _ = steps.weighted_sum(terms, ctx.config.loss_weights.to_dict())
    loss, scalars = policy.published_loss(record["log_prob"], record["entropy"], reward, chosen)
    drawn = {name: record["action"][name] for name in ("region", "type")}
    scalars["policy/strength"] = losses.masked_mean(record["action"]["magnitude"], chosen)
    return loss, {"policy/loss": loss, **scalars, **policy.action_shares(drawn, chosen)}


def _choices(actions, magnitude, record):
    return {"region": actions["region"], "blend_type": actions["type"], "magnitude": magnitude, "record": record}


def _pathwise_network(dtype, regions, twin):
    del regions
    none = jnp.zeros(1, jnp.int32)
    return policy.PathwisePolicy(dtype), (twin, twin, none, none)


def _choose_pathwise(ctx, epsilon, key, target, source, *, regions, type_weights, magnitude_on):
    del magnitude_on
    choice_key, value_key = jax.random.split(key)
    odds = {"regions": regions, "type_weights": type_weights}
    region, blend_type, _ = blender.uniform_choices(choice_key, target.shape[0], **odds)
    values = ctx.apply("policy", target, source, region, blend_type)
    scale = dann_schedule(ctx.progress, ctx.config.policy.reversal)
    played = policy.adversarial_values(value_key, values, epsilon, scale)
    low, high = MAGNITUDE
    return {
        "region": region,
        "blend_type": blend_type,
        "magnitude": low + (high - low) * played["strength"],
        "feather": played["feather"],
        "color_strength": played["color"],
        "record": {"value": jax.lax.stop_gradient(values)},
    }


def _judge_pathwise(terms, rows, ctx, chosen):
    del terms, ctx
    values = rows["record"]["value"].items()
    return jnp.zeros(()), {f"policy/{name}": losses.masked_mean(value, chosen) for name, value in values}


class _Mode(NamedTuple):
    """How a mode of `config.policy` plays.

    network: (dtype, number of regions, images [1, S, S, 3]) -> what `make_network` gives. choose: (ctx, epsilon, ...)
    -> what `make_choose`'s gives. judge: (terms, rows, ctx, rows [N] bool that it chose for) -> what `judge` gives.
    """

    network: Callable
    choose: Callable
    judge: Callable


_MODES = {
    "reinforce": _Mode(_policy_network, _choose_reinforce, _judge_reinforce),
    "pathwise": _Mode(_pathwise_network, _choose_pathwise, _judge_pathwise),
    "published": _Mode(_published_network, _choose_published, _judge_published),
}
MODES = ("none", *_MODES)
