"""The second player: chooses the forgeries so that the detector's loss rises, in the detector's own train step.

Two modes (MSDDF sections 3.1, 5 and 6). "reinforce": region, blend and strength bin are drawn from a policy, and its
gradient comes from each forgery's own loss. "pathwise": region and blend are drawn as without an adversary; strength,
feather and colour are numbers of a network that learns through the blender and a gradient reversal. Both meet the
detector in one gradient call: what reaches the policy never reaches the detector, and the other way about.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import losses
from msddf_jax.data import schema
from msddf_jax.models import policy
from msddf_jax.models.reverse_grad import dann_schedule
from msddf_jax.synth import blender, compose, recipes

MODES = ("none", "reinforce", "pathwise")
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
    dtype = jnp.dtype(config.dtype)
    if config.policy.mode == "reinforce":
        return policy.Policy(dtype), (twin, twin)
    return policy.PathwisePolicy(dtype), (twin, twin, jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32))


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
    """choose(key, target, source, type_weights=, magnitude_on=) for `recipes.forge`, by the player "policy".

    ctx: `hooks.Context`; of `config.policy`: mode, exploration, entropy_floor, warmup, reversal.
    """
    settings = ctx.config.policy
    epsilon = exploration_at(
        ctx.progress,
        exploration=settings.exploration,
        entropy_floor=settings.entropy_floor,
        warmup=settings.warmup,
    )

    def choose_reinforce(key, target, source, *, type_weights, magnitude_on):
        del type_weights
        action_key, magnitude_key = jax.random.split(key)
        logits = ctx.apply("policy", target, source)
        actions, log_probs = policy.sample(action_key, logits, epsilon)
        record = {
            "log_prob": policy.joint_log_prob(log_probs, actions["type"], magnitude_on),
            "entropy": policy.entropy(logits, epsilon),
            "action": actions,
        }
        magnitude = policy.draw_magnitude(magnitude_key, actions["magnitude"], *MAGNITUDE)
        return {
            "region": actions["region"],
            "blend_type": actions["type"],
            "magnitude": magnitude,
            "record": record,
        }

    def choose_pathwise(key, target, source, *, type_weights, magnitude_on):
        del magnitude_on
        choice_key, value_key = jax.random.split(key)
        region, blend_type, _ = blender.uniform_choices(choice_key, target.shape[0], type_weights=type_weights)
        values = ctx.apply("policy", target, source, region, blend_type)
        scale = dann_schedule(ctx.progress, settings.reversal)
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

    return {"reinforce": choose_reinforce, "pathwise": choose_pathwise}[settings.mode]


def judge(terms, rows, ctx) -> tuple[jax.Array, dict[str, jax.Array]]:
    """What the adversary adds to the objective, by the detector's loss on each of its forgeries.

    Args:
      terms: {name: (values [N], mask [N])} of the detector. rows: of `synth.compose`, with the record of `choose`.
      ctx: `hooks.Context`; of `config.policy`: reward ({loss name: weight}), baseline_decay, entropy_weight,
        advantage_clip. The reward's moving baseline is the policy's collection "baseline".

    Returns:
      (loss scalar, {"policy/...": scalar}). "pathwise" adds nothing here: its gradient comes with the images.

    Raises:
      ValueError: a reward that is no term of the detector.
    """
    forgery = rows["role"] == compose.ROLES.index("forgery")
    # Not those blended in spite of the choice (`synth.self_blend_share`): what they earn is not the choice's.
    chosen = forgery & (rows["type"] != schema.FORGERY_TYPES.index("self_blend"))
    record, settings = rows["record"], ctx.config.policy
    if settings.mode == "pathwise":
        means = {f"policy/{name}": losses.masked_mean(value, chosen) for name, value in record["value"].items()}
        return jnp.zeros(()), means
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
