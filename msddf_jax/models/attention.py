"""Scaled dot-product attention of split heads, the one that all towers share."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# With more tokens, one head after the other stays in a CPU's cache and all at once do not; with fewer, both are as fast
# ("gend" and "gend-heads-at-once" of benchmarks/inference.py).
_TOKENS_AT_ONCE = 256


def split_heads(x, heads):
    """[B, N, h * D] -> [B, h, N, D]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def attend(module, query, key, value, *, causal=False):
    """Attention of heads [B, h, N, D] (keys and values may be of another number of tokens); float32 scores and softmax.

    Args:
      module: flax module that calls; it sows the weights [B, h, N, N] float32 as "attention" of its intermediates.
      causal: a token sees itself and those before it.

    Returns:
      [B, N, h * D] in the dtype of `value`.
    """
    query = query * query.shape[-1] ** -0.5
    all_heads = functools.partial(_mix, causal)
    if query.shape[2] <= _TOKENS_AT_ONCE or module.is_mutable_collection("intermediates"):
        mixed, weights = all_heads(query, key, value)
        module.sow("intermediates", "attention", weights)
    else:
        by_head = functools.partial(_mix_by_head, causal)
        mixed = jax.lax.platform_dependent(query, key, value, cpu=by_head, default=lambda *heads: all_heads(*heads)[0])
    return mixed.transpose(0, 2, 1, 3).reshape(mixed.shape[0], mixed.shape[2], -1)


def _mix(causal, query, key, value):
    """(mixed values, weights) of scaled queries [..., N, D]."""
    scores = jnp.einsum("...qd,...kd->...qk", query, key, preferred_element_type=jnp.float32)
    if causal:
        scores = jnp.where(np.tri(query.shape[-2], dtype=bool), scores, -jnp.inf)
    weights = nn.softmax(scores, axis=-1)
    return jnp.einsum("...qk,...kd->...qd", weights.astype(value.dtype), value), weights


def _mix_by_head(causal, *heads):
    mixed = jax.lax.map(lambda head: _mix(causal, *head)[0], tuple(x.swapaxes(0, 1) for x in heads))
    return mixed.swapaxes(0, 1)
