"""Many tokens go some heads at a time on a CPU; what comes out is the same."""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from benchmarks import compiled
from msddf_jax.models import flash_attention
from msddf_jax.models.attention import attend, split_heads


class _Attend(nn.Module):
    causal: bool = False
    kind: str = "auto"
    asking: int | None = None

    @nn.compact
    def __call__(self, x):
        query, key, value = (split_heads(x[i], 3) for i in range(3))
        return attend(self, query[:, :, : self.asking], key, value, causal=self.causal, kind=self.kind)


def _inputs(tokens, batch=2):
    return jnp.asarray(np.random.default_rng(0).normal(size=(3, batch, tokens, 12)).astype(np.float32))


def _by_hand(x, causal):
    """float64, one row and one head at a time."""
    query, key, value = np.asarray(x, np.float64)
    out = np.empty_like(query)
    for row in range(query.shape[0]):
        for head in range(3):
            at = row, slice(None), slice(4 * head, 4 * head + 4)
            scores = query[at] @ key[at].T / 2.0  # the root of 4
            if causal:
                scores[np.triu_indices(len(scores), 1)] = -np.inf
            weights = np.exp(scores - scores.max(1, keepdims=True))
            out[at] = weights / weights.sum(1, keepdims=True) @ value[at]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [5, 256, 257])
def test_values_and_sown_weights(tokens, causal):
    x = _inputs(tokens)
    model = _Attend(causal)
    expected = _by_hand(x, causal)
    np.testing.assert_allclose(model.apply({}, x), expected, atol=2e-6)
    out, sown = model.apply({}, x, mutable=["intermediates"])
    np.testing.assert_allclose(out, expected, atol=2e-6)
    (weights,) = sown["intermediates"]["attention"]
    assert weights.shape == (2, 3, tokens, tokens) and weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)


def _products(tokens, batch):
    program = jax.jit(lambda x: _Attend().apply({}, x)).lower(_inputs(tokens, batch=batch))
    return program.as_text().count("stablehlo.dot_general")


def test_only_many_tokens_go_in_groups_of_heads():
    # Two products a group; of three heads, eight over the batch at once: all, two and one, each alone.
    assert [_products(257, batch) for batch in (1, 2, 4, 8, 16)] == [2, 2, 4, 6, 6]
    assert [_products(256, batch) for batch in (1, 16)] == [2, 2]


def test_an_exported_program_of_any_batch_gives_the_same():
    (size,) = jax.export.symbolic_shape("b")
    heads = _inputs(257, batch=1).shape
    shape = jax.ShapeDtypeStruct((heads[0], size, *heads[2:]), jnp.float32)
    program = jax.export.export(jax.jit(lambda x: _Attend().apply({}, x)))(shape)
    assert program.mlir_module().count("stablehlo.dot_general") == 4
    for batch in (1, 5):
        x = _inputs(257, batch=batch)
        np.testing.assert_allclose(program.call(x), _Attend().apply({}, x), atol=2e-6)


def test_causal_attention_of_some_queries_is_refused():
    # Which of the keys come after a query would not be known.
    with pytest.raises(ValueError, match="got 1 and 5"):
        _Attend(causal=True, asking=1).apply({}, _inputs(5))


def test_a_batch_spread_over_devices_gives_the_same():
    x = _inputs(257, batch=8)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(x, jax.NamedSharding(mesh, jax.P(None, "data")))
    value = jax.jit(jax.value_and_grad(lambda x: jnp.sum(_Attend().apply({}, x) ** 2)))
    for ours, alone in zip(value(spread), value(x), strict=True):
        np.testing.assert_allclose(ours, alone, rtol=1e-5, atol=1e-5)


def test_gradients_agree():
    x = _inputs(257)
    plain = lambda x: jnp.sum(_Attend().apply({}, x, mutable=["intermediates"])[0] ** 2)
    by_head = lambda x: jnp.sum(_Attend().apply({}, x) ** 2)
    np.testing.assert_allclose(jax.grad(by_head)(x), jax.grad(plain)(x), atol=1e-5)


def test_a_program_for_any_batch_and_several_platforms():
    batch = jax.ShapeDtypeStruct(jax.export.symbolic_shape("3, b, 257, 12"), jnp.float32)
    made = jax.export.export(jax.jit(lambda x: _Attend().apply({}, x)), platforms=("cpu", "cuda", "tpu"))(batch)
    read = jax.export.deserialize(bytearray(made.serialize()))
    for size in (1, 3):
        x = _inputs(257, size)
        np.testing.assert_allclose(read.call(x), _by_hand(x, False), atol=2e-6)


def _padded(x, causal=False, asking=None):
    """What is handed to the fused kernel, by JAX's plain form of the same call, which runs here too."""
    query, key, value = (split_heads(y, 3) for y in x)
    settings = {"causal": causal, "implementation": "xla"}
    return flash_attention.mix(query[:, :, :asking] * 0.5, key, value, **settings)  # the root of 4


@pytest.mark.parametrize("tokens, causal", [(6, True), (257, False), (257, True)])
def test_the_token_that_makes_the_number_even_for_the_fused_kernel_is_not_seen(tokens, causal):
    x = _inputs(tokens)
    np.testing.assert_allclose(_padded(x, causal), _by_hand(x, causal), atol=2e-6)
    np.testing.assert_allclose(
        _padded(x.astype(jnp.bfloat16), causal).astype(np.float32), _by_hand(x, causal), atol=0.03
    )


@pytest.mark.parametrize("tokens, asking", [(5, 4), (6, 5)])
def test_some_queries_of_the_fused_kernel(tokens, asking):
    x = _inputs(tokens)
    np.testing.assert_allclose(_padded(x, asking=asking), _by_hand(x, False)[:, :asking], atol=2e-6)


def test_gradients_around_the_fused_kernel():
    x = _inputs(7)
    ours = jax.jit(jax.grad(lambda x: jnp.sum(_padded(x, True) ** 2)))(x)
    plain = jax.jit(jax.grad(lambda x: jnp.sum(_Attend(True).apply({}, x) ** 2)))(x)
    np.testing.assert_allclose(ours, plain, atol=1e-5)


def _lowered_for_a_gpu(x, **fields):
    square = lambda x: jnp.sum(_Attend(**fields).apply({}, x).astype(jnp.float32) ** 2)
    with compiled.tracing_for("cuda"):
        return jax.jit(jax.grad(square)).trace(x).lower(lowering_platforms=("cuda",)).as_text()


def test_the_fused_kernel_is_in_a_gpus_program_and_no_scores_are():
    # Three heads of 8: cuDNN takes multiples of 8.
    x = jnp.zeros((3, 2, 257, 24), jnp.bfloat16)
    fused, plain = (_lowered_for_a_gpu(x, kind=kind) for kind in ("flash", "auto"))
    assert "__cudnn$fmhaSoftmax(" in fused and "__cudnn$fmhaSoftmaxBackward(" in fused
    assert "x257x257x" not in fused and "x258x258x" not in fused
    assert "__cudnn" not in plain and "x257x257x" in plain
    # One query has a row of scores and no matrix of them.
    assert "__cudnn" not in _lowered_for_a_gpu(x, kind="flash", asking=1)


def test_elsewhere_the_fused_kernel_is_the_plain_form():
    x = _inputs(257).astype(jnp.bfloat16)
    np.testing.assert_array_equal(_Attend(kind="flash").apply({}, x), _Attend().apply({}, x))


def test_kinds_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="'fast', allowed: auto, flash"):
        _Attend(kind="fast").apply({}, _inputs(5))
    with pytest.raises(ValueError, match=r"config\.dtype.*float32"):
        _Attend(kind="flash").apply({}, _inputs(5))


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="the fused kernel is cuDNN's and runs on an NVIDIA GPU")
@pytest.mark.parametrize("causal", [False, True])
def test_the_fused_kernel_on_a_gpu(causal):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 257, 192)), jnp.bfloat16)
    both = lambda kind: jax.jit(
        jax.value_and_grad(lambda x: jnp.sum(_Attend(causal, kind).apply({}, x).astype(jnp.float32) ** 2))
    )
    (fused, fused_gradient), (plain, plain_gradient) = both("flash")(x), both("auto")(x)
    np.testing.assert_allclose(fused, plain, rtol=5e-3)
    wide = lambda array: np.asarray(array, np.float32)
    assert np.abs(wide(fused_gradient) - wide(plain_gradient)).max() < 0.02 * np.abs(wide(plain_gradient)).max()
