"""Scaled dot-product attention of split heads, the one that all towers share."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.models import flash_attention

# How attention is computed: "auto", by the plain form; "flash", on NVIDIA GPUs by `flash_attention`.
KINDS = ("auto", "flash")
# With more tokens, the scores of so many heads, counted over the batch, stay in a CPU's cache and those of all do not
# ("gend" and "gend, all heads at once" of benchmarks/inference.py).
_TOKENS_AT_ONCE = 256
_HEADS_AT_ONCE = 8


def split_heads(x, heads) -> jax.Array:
    """[B, N, h * D] -> [B, h, N, D]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def attend(module, query, key, value, *, causal=False, kind="auto") -> jax.Array:
    """Attention of heads [B, h, N, D] (keys and values may be of another number of tokens); float32 scores and softmax.

    Args:
      module: flax module that calls; it sows the weights [B, h, N, N] float32 as "attention" of its intermediates.
      causal: a token sees itself and those before it.
      kind: of `KINDS`. "flash" is the fused kernel of a program traced where an NVIDIA GPU is, for more than one
        query; on other devices, in an exported program of any batch, and where weights are sown, it is "auto".

    Returns:
      [B, N, h * D] in the dtype of `value`.

    Raises:
      ValueError: causal with another number of keys than of queries; an unknown kind; "flash" in float32.
    """
    if kind not in KINDS:
        raise ValueError(f"attention is {kind!r}, allowed: {', '.join(KINDS)}")
    if kind == "flash" and value.dtype not in flash_attention.DTYPES:
        raise ValueError(f'attention "flash" computes in bfloat16 or float16 (config.dtype), got {value.dtype}')
    if causal and query.shape[2] != key.shape[2]:
        raise ValueError(f"causal attention wants as many queries as keys, got {query.shape[2]} and {key.shape[2]}")
    query = query * query.shape[-1] ** -0.5
    if module.is_mutable_collection("intermediates"):
        mixed, weights = _mix(causal, query, key, value)
        module.sow("intermediates", "attention", weights)
        return _merge_heads(mixed)
    on_cpu, elsewhere = (functools.partial(mix, causal) for mix in (_mix_in_groups, _mix_at_once))
    batch, _, asking, _ = query.shape
    # JAX asks the GPU itself whether cuDNN can, so nothing can be traced for it where there is none. One query's scores
    # are no matrix.
    if kind == "flash" and jax.default_backend() == "gpu" and isinstance(batch, int) and asking > 1:
        fused = functools.partial(flash_attention.mix, causal=causal)
        # All branches hand on what any of them keeps for the backward pass: of this one, no scores.
        return jax.lax.platform_dependent(query, key, value, cuda=fused, default=jax.checkpoint(elsewhere))
    return jax.lax.platform_dependent(query, key, value, cpu=on_cpu, default=elsewhere)


def _merge_heads(x):
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def _scores(causal, query, key):
    scores = jnp.einsum("...qd,...kd->...qk", query, key, preferred_element_type=jnp.float32)
    if causal:
        scores = jnp.where(np.tri(query.shape[-2], dtype=bool), scores, -jnp.inf)
    return scores


def _mix(causal, query, key, value):
    """(mixed values, weights) of scaled queries [..., N, D]."""
    weights = nn.softmax(_scores(causal, query, key), axis=-1)
    return jnp.einsum("...qk,...kd->...qd", weights.astype(value.dtype), value), weights


def _mix_at_once(causal, *heads):
    return _merge_heads(_mix(causal, *heads)[0])


def _mix_in_groups(causal, *heads):
    """The same by groups of heads; the sums of softmax divide what was mixed, which has fewer numbers than weights."""
    batch, count = heads[0].shape[:2]
    if heads[1].shape[2] <= _TOKENS_AT_ONCE:
        step = count
    else:
        # An exported program does not know its batch; four is a guess.
        step = max(1, _HEADS_AT_ONCE // (batch if isinstance(batch, int) else 4))
    groups = []
    for start in range(0, count, step):
        query, key, value = (x[:, start : start + step] for x in heads)
        scores = _scores(causal, query, key)
        weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
        mixed = jnp.einsum("...qk,...kd->...qd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
        groups.append(_merge_heads((mixed / weights.sum(-1, keepdims=True)).astype(value.dtype)))
    return jnp.concatenate(groups, axis=-1)
