"""Gradient reversal: identity forward, scaled and negated gradient backward (DANN, Ganin et al., 2016)."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def reverse_grad(x, scale) -> jax.Array:
    """The input, unchanged; its gradient comes back multiplied by `-scale`.

    Args:
      x: float array of any shape.
      scale: scalar, a Python number or a traced float; below 0 nothing is reversed; its own gradient is zero.

    Returns:
      `x`, same shape and dtype.
    """
    del scale
    return x


def _forward(x, scale):
    return x, scale


def _backward(scale, grad):
    return (-jnp.asarray(scale, jnp.float32) * grad).astype(grad.dtype), jnp.zeros_like(scale)


reverse_grad.defvjp(_forward, _backward)


def dann_schedule(progress, maximum) -> jax.Array:
    """The reversal scale over training: `maximum * (2 / (1 + exp(-10 p)) - 1)`, from 0 towards `maximum`.

    Args:
      progress: p, share of training done, in [0, 1]; a number or an array. Values outside are clipped.
      maximum: the scale approached at the end of training.

    Returns:
      float32 array shaped like `progress`. Source: DANN (Ganin et al., 2016), section 5.2.2.
    """
    progress = jnp.clip(jnp.asarray(progress, jnp.float32), 0.0, 1.0)
    # 2 / (1 + exp(-10 p)) - 1 = tanh(5 p): the same value without cancellation near p = 0.
    return maximum * jnp.tanh(5.0 * progress)
