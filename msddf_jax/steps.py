"""How one train step comes to its gradient: plain, SAM, or with loss weights that are learned. Values, not branches.

`config.step.name` names one of `STEPS`. Each is a function of the objective and knows nothing of detectors:

    step(objective, trainable, batches, **settings) -> (gradients, Aux of the first look)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from msddf_jax import losses

WEIGHTS = "loss_weights"
_PREFIX = f"{WEIGHTS}/"


class Aux(NamedTuple):
    """What a look at the model gives beside its objective.

    terms: {name: mean}, the losses unweighted. scalars: for the log. model_state: collections of every player.
    """

    terms: dict
    scalars: dict
    model_state: dict


class Step(NamedTuple):
    """run: as in the module's docstring. batches: independently drawn batches that it needs."""

    run: Callable
    batches: int = 1


def gradient(objective, trainable, batches) -> tuple[dict[str, jax.Array], Aux]:
    """The gradient of the objective.

    Args:
      objective: (trainable, batch, number of the batch) -> (scalar, Aux). trainable: flat dict. batches: of one.
    """
    return jax.grad(objective, has_aux=True)(trainable, batches[0], 0)


def sam(objective, trainable, batches, *, rho) -> tuple[dict[str, jax.Array], Aux]:
    """Sharpness-aware minimisation: the gradient at the worst point nearby, to first order.

    The detector's parameters move by rho g / |g|; the gradient there is applied at the old place. Log, moving
    statistics (batch norm) and players' statistics are those of the first look.

    Args: as `gradient`; rho: radius, >= 0. Source: Foret et al., ICLR 2021, eq. 2 and 3.
    """
    grads, aux = gradient(objective, trainable, batches)
    moved = {name: g for name, g in grads.items() if name.startswith("detector/")}
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g.astype(jnp.float32))) for g in moved.values()))
    scale = rho / (norm + 1e-12)
    worst = {name: p + (scale * moved[name]).astype(p.dtype) if name in moved else p for name, p in trainable.items()}
    grads, _ = gradient(objective, worst, batches)
    return grads, aux


def bilevel(objective, trainable, batches, *, upper, rates) -> tuple[dict[str, jax.Array], Aux]:
    """The gradient for parameters and loss weights: the weights lower `upper` on another batch after this step.

    That step is a plain one at the groups' rates: without moments, decay, clipping or phase.

    Args:
      objective: as `gradient`; reads its loss weights from trainable["loss_weights/<term>"]. trainable: flat dict.
      batches: (that of the step, an independent one). upper: {term: weight}, the loss on the second batch.
      rates: {name: learning rate now}.

    Returns:
      (gradients: of the weights by `hypergradient`, of all others as `gradient`; Aux of the first batch).

    Source: SJEDD, "bi-level auto-lambda" (reference: section 4), with the exact product in place of a difference.
    """
    parameters = {name: p for name, p in trainable.items() if not name.startswith(_PREFIX)}
    weights = {name: p for name, p in trainable.items() if name.startswith(_PREFIX)}
    grads, aux = gradient(objective, trainable, batches)
    terms = lambda p: objective({**p, **weights}, batches[0], 0)[1].terms

    def above(p):
        found = objective({**p, **weights}, batches[1], 1)[1].terms
        if set(upper) - set(found):
            raise ValueError(f"config.step.upper names {sorted(set(upper) - set(found))}; there are {sorted(found)}")
        return sum(weight * found[name] for name, weight in upper.items())

    own = {name: grads[name] for name in parameters}
    learned = hypergradient(terms, above, parameters, own, rates)
    grads = {**grads, **{name: learned[name.removeprefix(_PREFIX)] for name in weights}}
    return grads, aux._replace(scalars={**aux.scalars, **weights})


def hypergradient(terms, upper, parameters, grads, rates) -> dict[str, jax.Array]:
    """d upper(p - rate * sum_i w_i grad terms_i(p)) / d w_i, for every term, exactly.

    It is -<rate * d, grad terms_i(p)> with d the gradient of `upper` after the step. The product comes from the
    derivative of the pulled-back cotangents, and not from jax.jvp: gradient reversals have no forward derivative, and
    the step that is taken is the one with their reversed gradient.

    Args:
      terms: parameters -> {name: scalar}. upper: parameters -> scalar. parameters: flat dict.
      grads: {name: gradient of the weighted sum}. rates: {name: learning rate}.

    Returns:
      {name of a term: scalar}.
    """
    step = {name: rates[name] * grads[name] for name in parameters}
    after = jax.tree.map(lambda p, s: jax.lax.stop_gradient(p - s.astype(p.dtype)), parameters, step)
    d = jax.grad(upper)(after)
    direction = {name: rates[name] * d[name] for name in parameters}
    values, pull = jax.vjp(terms, parameters)

    def along(cotangents):
        (pulled,) = pull(cotangents)
        return sum(jnp.vdot(pulled[name], direction[name]) for name in parameters)

    product = jax.grad(along)(jax.tree.map(jnp.zeros_like, values))
    return {name: -value for name, value in product.items()}


def project(trainable) -> dict[str, jax.Array]:
    """The parameters with loss weights kept >= 0."""
    return {name: jnp.maximum(p, 0.0) if name.startswith(_PREFIX) else p for name, p in trainable.items()}


def weighted_sum(terms: Mapping[str, tuple], weights: Mapping[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(sum of weight x masked mean, {name: masked mean}) of a detector's terms; a term without a weight counts 0."""
    means = {name: losses.masked_mean(*term) for name, term in terms.items()}
    return sum(weights.get(name, 0.0) * value for name, value in means.items()), means


STEPS = {"gradient": Step(gradient), "sam": Step(sam), "bilevel": Step(bilevel, batches=2)}
