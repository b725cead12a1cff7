"""The second player: chooses the forgeries so that the detector's loss rises, in the detector's own train step.

Two modes (MSDDF sections 3.1, 5 and 6). "reinforce": region, blend and strength bin are drawn from a policy, and its
gradient comes from each forgery's own loss. "pathwise": region and blend are drawn as without an adversary; strength,
feather and colour are numbers of a network that learns through the blender and a gradient reversal. Both meet the
detector in one gradient call: what reaches the policy never reaches the detector, and the other way about.
"""

import jax
import jax.numpy as jnp

from msddf_jax import losses
from msddf_jax.data import schema
from msddf_jax.models import policy
from msddf_jax.models.reverse_grad import dann_schedule
from msddf_jax.synth import blender, compose, recipes

MODES = ("none", "reinforce", "pathwise")
# Strength of a forgery (MSDDF section 6, parameter table).
MAGNITUDE = (0.1, 1.0)


def check(settings, synth):
    """Raise ValueError where `config.policy` names no mode or has nothing to choose, or `config.synth` a bad share."""
    if "self_blend_share" in synth:
        recipes.check_share(synth.recipe, synth.self_blend_share)
    if settings.mode not in MODES:
        raise ValueError(f"config.policy.mode is {settings.mode!r}, allowed: {MODES}")
    if settings.mode != "none" and synth.recipe not in recipes.WITH_CHOICES:
        raise ValueError(
            f"config.policy.mode is {settings.mode!r}, but the recipe {synth.recipe!r} has nothing to choose; recipes "
            f"that have: {recipes.WITH_CHOICES}. Set config.policy.mode=none"
        )


def make_network(mode, dtype):
    """The linen module of a mode: `policy.Policy` or `policy.PathwisePolicy`."""
    return {"reinforce": policy.Policy, "pathwise": policy.PathwisePolicy}[mode](dtype=dtype)


def init(key, *, mode, dtype):
    """(parameters, state carried from step to step) of the second player.

    key: typed key. mode: "reinforce" or "pathwise". The state is the reward's moving baseline, {} for "pathwise".
    """
    twin = jnp.zeros((1, policy.INPUT_SIZE, policy.INPUT_SIZE, 3), jnp.float32)
    given = (twin, twin) if mode == "reinforce" else (twin, twin, jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32))
    params = make_network(mode, dtype).init(key, *given)["params"]
    return params, policy.init_baseline() if mode == "reinforce" else {}


def exploration_at(progress, *, exploration, entropy_floor, warmup):
    """Share of uniform choices: 1 during the warm-up, then the larger of what is asked for and what the floor needs.

    Args:
      progress: share of training done, scalar. exploration: in [0, 1]. warmup: share of training.
      entropy_floor: least entropy of every head, as a share of that of a uniform choice, in [0, 1].

    Returns:
      float32 scalar.
    """
    needed = max(policy.epsilon_for_floor(entropy_floor, count) for count in policy.HEADS.values())
    return jnp.where(progress < warmup, 1.0, max(exploration, needed)).astype(jnp.float32)


def make_choose(params, *, progress, mode, dtype, magnitude_on, type_weights, settings):
    """choose(key, target, source) for `synth.compose`.

    Args:
      params: of the network. progress: share of training done. magnitude_on: see `blender.blend_region`.
      type_weights: odds of the blends where the adversary does not choose them ("pathwise").
      settings: `config.policy`: exploration, entropy_floor, warmup, reversal.
    """
    network = make_network(mode, dtype)
    epsilon = exploration_at(
        progress,
        exploration=settings.exploration,
        entropy_floor=settings.entropy_floor,
        warmup=settings.warmup,
    )

    def choose_reinforce(key, target, source):
        action_key, magnitude_key = jax.random.split(key)
        logits = network.apply({"params": params}, target, source)
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

    def choose_pathwise(key, target, source):
        choice_key, value_key = jax.random.split(key)
        region, blend_type, _ = blender.uniform_choices(choice_key, target.shape[0], type_weights=type_weights)
        values = network.apply({"params": params}, target, source, region, blend_type)
        scale = dann_schedule(progress, settings.reversal)
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

    return {"reinforce": choose_reinforce, "pathwise": choose_pathwise}[mode]


def judge(rows, terms, player, *, mode, settings):
    """What the adversary adds to the objective, by the detector's loss on each of its forgeries.

    Args:
      rows: of `synth.compose`, with the record of `choose`. terms: {name: (values [N], mask [N])} of the detector.
      player: state of `init` or of the step before.
      settings: `config.policy`: reward ({loss name: weight}), baseline_decay, entropy_weight, advantage_clip.

    Returns:
      (loss scalar, next state, {"policy/...": scalar}). "pathwise" adds nothing here: its gradient comes with the
      images.

    Raises:
      ValueError: a reward that is no term of the detector.
    """
    forgery = rows["role"] == compose.ROLES.index("forgery")
    # Not those blended in spite of the choice (`synth.self_blend_share`): what they earn is not the choice's.
    chosen = forgery & (rows["type"] != schema.FORGERY_TYPES.index("self_blend"))
    record = rows["record"]
    if mode == "pathwise":
        means = {f"policy/{name}": losses.masked_mean(value, chosen) for name, value in record["value"].items()}
        return jnp.zeros(()), player, means
    unknown = sorted(set(settings.reward) - set(terms))
    if unknown:
        raise ValueError(f"config.policy.reward names {unknown}; the detector has {sorted(terms)}")
    reward = sum(weight * jnp.where(terms[name][1], terms[name][0], 0.0) for name, weight in settings.reward.items())
    # A blend that was asked for and changed nothing says nothing about the choice; "none" is real by choice.
    meant = chosen & ((rows["label"] == 1) | (record["action"]["type"] == blender.NONE))
    loss, player, scalars = policy.reinforce_loss(
        record["log_prob"],
        record["entropy"],
        reward,
        meant,
        player,
        decay=settings.baseline_decay,
        entropy_weight=settings.entropy_weight,
        advantage_clip=settings.advantage_clip,
    )
    return loss, player, {"policy/loss": loss, **scalars, **policy.action_shares(record["action"], chosen)}
