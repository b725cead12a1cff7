"""cuDNN's fused attention on NVIDIA GPUs: the scores [B, h, N, N] are never written to memory, forward or backward.

Why this kernel: JAX splits it over devices along the batch by itself, and its backward is one kernel. The other one
that JAX has, `jax.experimental.pallas.ops.gpu.attention.mha`, is not split over devices, and versions of JAX's own
tests skip its backward on GPUs from compute capability 8.0 on, for its precision (tests/pallas/gpu_ops_test.py).
Neither has run on a GPU here: `benchmarks/train_step.py --attention=flash` times it there and compares the losses.
"""

import jax
import jax.numpy as jnp

DTYPES = (jnp.bfloat16, jnp.float16)


def mix(query, key, value, *, causal, implementation="cudnn") -> jax.Array:
    """Values mixed by attention, one fused kernel; softmax in float32.

    Args:
      query: [B, h, N, D], scaled. key, value: [B, h, M, D]. All of one dtype of `DTYPES`; D a multiple of 8, up to 128.
      causal: a token sees itself and those before it.
      implementation: of `jax.nn.dot_product_attention`; "xla" runs anywhere and in any dtype, for tests.

    Returns:
      [B, N, h * D] in the dtype of `value`.
    """
    batch, count, asking = query.shape[:3]
    seen = key.shape[2]
    lengths = {}
    if asking % 2 or seen % 2:
        # cuDNN's backward, as JAX calls it, takes even numbers of tokens: one more, which is masked.
        full = lambda tokens: jnp.full(batch, tokens, jnp.int32)
        lengths = {"query_seq_lengths": full(asking), "key_value_seq_lengths": full(seen)}
    mixed = jax.nn.dot_product_attention(
        *(_even_rows(x) for x in (query, key, value)),
        scale=1.0,
        is_causal=causal,
        implementation=implementation,
        **lengths,
    )
    return mixed[:, :asking].reshape(batch, asking, count * value.shape[-1])


def _even_rows(x):
    """[B, h, N, D] to [B, N, h, D], with a token of zeros after them where N is odd."""
    x = x.transpose(0, 2, 1, 3)
    return jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, 0), (0, 0)))
