"""The optimiser from a config: groups by regex, first match wins; a group without settings is frozen."""

import jax
import jax.numpy as jnp
import optax

from msddf_jax import trees


def make_schedule(peak, *, steps, warmup_steps, final):
    """Cosine from `peak` to `final` after a linear warm-up, per step.

    Args:
      peak, final: learning rates. steps: length of training. warmup_steps: from 0 to `peak`.

    Raises:
      ValueError: warm-up that does not fit into the training.
    """
    if not 0 <= warmup_steps < steps:
        raise ValueError(f"optim.warmup_steps must lie in [0, steps={steps}), got {warmup_steps}")
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, steps, end_value=final)


def trainable_names(params, groups):
    """{parameter name: trained?} from the groups of `config.optim`; `None` settings mean frozen.

    params: nested dict whose first level are the players ("detector", "policy").
    Raises ValueError for a parameter that no group covers.
    """
    settings = trees.match(trees.flatten(params), [(pattern, value) for pattern, value in groups])
    return {name: value is not None for name, value in settings.items()}


def clip_by_player_norm(max_norm):
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


def make_optimizer(trainable, *, groups, steps, warmup_steps, final_lr, clip_norm, b1=0.9, b2=0.999):
    """AdamW with a learning rate and weight decay for each group, on the trainable parameters only.

    Args:
      trainable: flat dict name -> array or shape; frozen parameters never reach the optimiser, so they
        hold no optimiser memory and cannot drift.
      groups: ((regex, None | {"lr": float, "weight_decay": float}), ...).
      steps, warmup_steps, final_lr: see `make_schedule`; clip_norm: see `clip_by_player_norm`.

    Returns:
      (optax transformation, {group pattern: schedule}) for the groups that have a parameter.
    """
    groups = [(pattern, value) for pattern, value in groups]
    labels = trees.match(trainable, [(pattern, pattern) for pattern, _ in groups])
    settings = {pattern: value for pattern, value in groups if pattern in set(labels.values())}
    transforms, schedules = {}, {}
    for pattern, value in settings.items():
        schedules[pattern] = make_schedule(
            value["lr"], steps=steps, warmup_steps=warmup_steps, final=min(final_lr, value["lr"])
        )
        transforms[pattern] = optax.adamw(schedules[pattern], b1=b1, b2=b2, weight_decay=value["weight_decay"])
    return optax.chain(clip_by_player_norm(clip_norm), optax.multi_transform(transforms, labels)), schedules
