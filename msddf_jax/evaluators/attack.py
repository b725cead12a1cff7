"""Adversarial images: FGSM and PGD in the maximum norm, on a detector's own gradient or on another's (transfer).

The attacker knows the label and moves every image, real or fake, towards the other one. What it climbs is the logit
itself, signed by the label: of a loss in one logit (cross-entropy) it has the same sign of gradient in every pixel, and
it does not vanish where the detector is sure.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from msddf_jax import detector
from msddf_jax.evaluators.perturb import Perturbation

# Maximum norm, in grey levels of 255.
LEVELS = (1, 2, 4, 8)
PGD_STEPS = 10
# Size of a step, in radii of the ball: 2.5 / steps (Madry et al., ICLR 2018).
PGD_STEP = 2.5 / PGD_STEPS


def make_logit_fn(config) -> Callable[[dict, jax.Array], jax.Array]:
    """logit(weights, image float32 [B, H, W, 3] in [0, 1]) -> float32 [B], > 0 for fake; weights as for predict_fn."""
    apply = detector.make_apply(config)
    return lambda weights, image: apply(weights, {"image": image})["logit"].astype(jnp.float32)


def wrongness(logit, label) -> jax.Array:
    """How far towards the wrong label: the logit for a real, minus the logit for a fake. logit [B], label [B]."""
    return jnp.where(label == 1, -logit, logit)


@functools.partial(jax.jit, static_argnums=0)
def fgsm(logit_fn, weights, image, label, epsilon) -> jax.Array:
    """The fast gradient sign method: one step of `epsilon` in every pixel.

    Args:
      logit_fn: (weights, image) -> [B], such as from `make_logit_fn`; the same object from call to call, or it is
        compiled again.
      weights: its first argument. image: float32 [B, H, W, 3] in [0, 1]. label: int [B], 1 = fake.
      epsilon: scalar, radius in the maximum norm, unit of image; an argument, not compiled in.

    Returns:
      float32 [B, H, W, 3] in [0, 1], within epsilon of `image`.

    Source: Goodfellow et al., ICLR 2015.
    """
    return jnp.clip(image + epsilon * jnp.sign(_gradient(logit_fn, weights, image, label)), 0.0, 1.0)


@functools.partial(jax.jit, static_argnums=1, static_argnames="steps")
def pgd(key, logit_fn, weights, image, label, epsilon, *, steps=PGD_STEPS, step=PGD_STEP) -> jax.Array:
    """Projected gradient descent: signed steps from a random start, back into the ball and [0, 1] after each.

    Args:
      key: typed key, of the start, uniform in the ball. logit_fn, weights, image, label, epsilon: as `fgsm`.
      steps: how many. step: size of each, in epsilons.

    Returns:
      float32 [B, H, W, 3] in [0, 1], within epsilon of `image`: the last iterate.

    Source: Madry et al., ICLR 2018.
    """
    low, high = jnp.maximum(image - epsilon, 0.0), jnp.minimum(image + epsilon, 1.0)
    start = image + epsilon * jax.random.uniform(key, image.shape, minval=-1.0, maxval=1.0)

    def climb(_, moved):
        moved = moved + step * epsilon * jnp.sign(_gradient(logit_fn, weights, moved, label))
        return jnp.clip(moved, low, high)

    return jax.lax.fori_loop(0, steps, climb, jnp.clip(start, low, high))


def attacks(logit_fn, weights, transfer_from="") -> tuple[Perturbation, Perturbation]:
    """The rows FGSM and PGD of the table, made with the gradient of one detector.

    Args:
      logit_fn, weights: of the detector whose gradient is used.
      transfer_from: "" where that is the detector which is scored, else what the other one is, in a few words.

    Returns:
      two `perturb.Perturbation` of kind "attack": fn(key, image float32, label, level) -> image, level in 1 / 255.
    """
    one = lambda key, image, label, level: fgsm(logit_fn, weights, image, label, level / 255.0)
    many = lambda key, image, label, level: pgd(key, logit_fn, weights, image, label, level / 255.0)
    suffix, where = (" (transfer)", f" on the gradient of {transfer_from}") if transfer_from else ("", "")
    steps = f"{PGD_STEPS} steps of {PGD_STEP:g} radii from a random start"
    unit = "largest change, 1/255"
    return (
        Perturbation(f"FGSM{suffix}", LEVELS, one, f"one signed step{where}", unit, "attack"),
        Perturbation(f"PGD{suffix}", LEVELS, many, f"{steps}{where}", unit, "attack"),
    )


def _gradient(logit_fn, weights, image, label):
    # The rows of a batch do not see each other in a detector that scores: one sum gives every row its own gradient.
    return jax.grad(lambda x: jnp.sum(wrongness(logit_fn(weights, x), label)))(image)
