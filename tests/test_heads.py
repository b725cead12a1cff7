import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from msddf_jax.models import heads


@pytest.fixture(scope="module")
def features():
    return jnp.asarray(5 * np.random.default_rng(0).normal(size=(4, 24)), jnp.float32)


def _init(model, *args):
    """(output, random variables, number of parameters)"""
    variables = random_params(model, *args)
    return jax.jit(model.apply)(variables, *args), variables, sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_normalize_survives_the_zero_vector():
    np.testing.assert_allclose(heads.l2_normalize(jnp.array([[3.0, 4.0]])), [[0.6, 0.8]], rtol=1e-6)
    grad = jax.jit(jax.grad(lambda x: heads.l2_normalize(x).sum()))(jnp.zeros((1, 3)))
    assert np.isfinite(grad).all()


def test_linear_binary_head(features):
    out, variables, count = _init(heads.BinaryHead(), features)
    params = variables["params"]["out"]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(out["embedding"], unit, rtol=1e-5)
    np.testing.assert_allclose(out["logits"], unit @ params["kernel"] + params["bias"], atol=1e-5)
    # The logit is that of P(fake) under the softmax over (real, fake).
    np.testing.assert_allclose(jax.nn.sigmoid(out["logit"]), jax.nn.softmax(out["logits"])[:, 1], rtol=1e-5)
    assert count == 24 * 2 + 2
    scaled = jax.jit(heads.BinaryHead().apply)(variables, 7 * features)
    np.testing.assert_allclose(scaled["logit"], out["logit"], atol=1e-5)


def test_raw_binary_head_sees_the_length_of_the_feature(features):
    out, variables, _ = _init(heads.BinaryHead("raw"), features)
    params = variables["params"]["out"]
    np.testing.assert_allclose(out["logits"], features @ params["kernel"] + params["bias"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(out["embedding"], axis=1), 1.0, rtol=1e-5)


def test_cosine_binary_head(features):
    out, variables, count = _init(heads.BinaryHead("cosine", scale=16.0), features)
    directions = variables["params"]["directions"]
    for i in range(4):
        for j in range(2):
            cosine = features[i] @ directions[j]
            cosine /= np.linalg.norm(features[i]) * np.linalg.norm(directions[j])
            assert float(out["cosine"][i, j]) == pytest.approx(float(cosine), abs=1e-5)
    np.testing.assert_allclose(out["logits"], 16 * out["cosine"], rtol=1e-6)
    assert count == 48


def test_unknown_binary_head_is_an_error(features):
    with pytest.raises(ValueError, match="'linear', 'raw' or 'cosine', got 'arc'"):
        _init(heads.BinaryHead("arc"), features)


def test_attribute_heads(features):
    out, _, count = _init(heads.TypeHead(), features)
    assert out.shape == (4, 6) and count == 24 * 256 + 256 + 256 * 6 + 6
    out, _, count = _init(heads.RegionHead(), features)
    assert out.shape == (4, 5) and count == 24 * 256 + 256 + 256 * 5 + 5
    out, _, count = _init(heads.StrengthHead(), features)
    assert out.shape == (4,) and count == 24 * 64 + 64 + 64 + 1
    assert out.min() > 0 and out.max() < 1


def test_identity_head(features):
    out, variables, count = _init(heads.IdentityHead(720), features)
    assert out.shape == (4, 720)
    assert np.abs(out).max() <= 30
    assert count == 24 * 256 + 256 + 2 * 256 + 720 * 256
    # The scores are scaled cosines of the hidden activation with each identity's direction.
    params = jax.tree.map(np.asarray, variables["params"])
    hidden = np.asarray(features) @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    hidden = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + 1e-5)
    hidden = np.asarray(jax.nn.gelu(hidden * params["ln"]["scale"] + params["ln"]["bias"]))
    norms = np.linalg.norm(hidden, axis=1)[:, None] * np.linalg.norm(params["directions"], axis=1)
    np.testing.assert_allclose(out, 30 * hidden @ params["directions"].T / norms, atol=1e-3)


def test_map_head_keeps_the_token_grid():
    mid, tokens = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 9, 24)), jnp.float32)
    model = heads.MapHead(hidden=16)
    out, variables, count = _init(model, mid, tokens)
    assert out.shape == (2, 3, 3, 1) and out.dtype == jnp.float32
    assert count == 2 * 24 + 48 * 16 + 16 + 9 * 16 + 16 + 16 + 1
    # Token 5 (row 1, column 2) reaches itself and its neighbours only: a 3x3 window.
    moved = jax.jit(model.apply)(variables, mid, tokens.at[:, 5].add(1.0))
    change = np.abs(np.asarray(moved - out))[0, ..., 0]
    assert (change[:, 1:] > 1e-4).all()
    assert (change[:, 0] < 1e-6).all()
    with pytest.raises(ValueError, match="got 8 tokens"):
        jax.eval_shape(model.apply, variables, mid[:, :8], tokens[:, :8])


def test_heads_compute_in_float32_on_bfloat16_features(features):
    half = features.astype(jnp.bfloat16)
    shape = lambda model: jax.eval_shape(model.init_with_output, jax.random.key(1), half)[0]
    for model in (heads.TypeHead(), heads.RegionHead(), heads.StrengthHead(), heads.IdentityHead(3)):
        assert shape(model).dtype == jnp.float32
    assert shape(heads.BinaryHead())["logit"].dtype == jnp.float32


def test_fusion_is_the_identity_at_step_zero_to_the_bit(features):
    boundary, frequency = features[::-1] + 1, features[:, :6]
    model = heads.FeatureFusion()
    variables = jax.jit(model.init)(jax.random.key(1), features, boundary, frequency)
    fused = jax.jit(model.apply)(variables, features, boundary, frequency)
    np.testing.assert_array_equal(fused, features)
    np.testing.assert_array_equal(model.apply({}, features), features)
    assert sum(x.size for x in jax.tree.leaves(variables)) == 1 + 2 * 24 + (24 * 24 + 24) + (30 * 24 + 24)

    # It is not stuck there: both paths have a gradient.
    loss = lambda v: (model.apply(v, features, boundary, frequency) ** 2).sum()
    grads = jax.jit(jax.grad(loss))(variables)["params"]
    assert abs(float(grads["alpha"])) > 0
    assert np.abs(grads["join"]["kernel"][-6:]).max() > 0


def test_fusion_formula(features):
    boundary, frequency = features[::-1] + 1, features[:, :6]
    out, variables, _ = _init(heads.FeatureFusion(), features, boundary, frequency)
    params = variables["params"]
    normal = (boundary - boundary.mean(1, keepdims=True)) / np.sqrt(boundary.var(1, keepdims=True) + 1e-5)
    normal = normal * params["ln_boundary"]["scale"] + params["ln_boundary"]["bias"]
    affine = lambda x, name: x @ params[name]["kernel"] + params[name]["bias"]
    fused = features + params["alpha"] * affine(normal, "boundary")
    expected = fused + affine(np.concatenate([fused, frequency], 1), "join")
    np.testing.assert_allclose(out, expected, atol=1e-4)
