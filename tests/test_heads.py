import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models import heads


@pytest.fixture(scope="module")
def features():
    return jax.random.normal(jax.random.key(0), (4, 24)) * 5


def _init(model, *args):
    out, variables = model.init_with_output(jax.random.key(1), *args)
    return out, variables, sum(leaf.size for leaf in jax.tree.leaves(variables))


def test_normalize_survives_the_zero_vector():
    np.testing.assert_allclose(heads.l2_normalize(jnp.array([[3.0, 4.0]])), [[0.6, 0.8]], rtol=1e-6)
    grad = jax.grad(lambda x: heads.l2_normalize(x).sum())(jnp.zeros((1, 3)))
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
    scaled = heads.BinaryHead().apply(variables, 7 * features)
    np.testing.assert_allclose(scaled["logit"], out["logit"], atol=1e-5)


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
    with pytest.raises(ValueError, match="'linear' or 'cosine', got 'arc'"):
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
    # A feature along one identity's direction scores the full scale for it.
    params = variables["params"]
    hidden = np.asarray(features @ params["hidden"]["kernel"])
    hidden = (hidden - hidden.mean(1, keepdims=True)) / np.sqrt(hidden.var(1, keepdims=True) + 1e-5)
    params["directions"] = params["directions"].at[5].set(jax.nn.gelu(hidden)[2])
    assert float(heads.IdentityHead(720).apply(variables, features)[2, 5]) == pytest.approx(30, abs=1e-3)


def test_map_head_keeps_the_token_grid():
    mid, tokens = jax.random.normal(jax.random.key(0), (2, 2, 9, 24))
    model = heads.MapHead(hidden=16)
    out, variables, count = _init(model, mid, tokens)
    assert out.shape == (2, 3, 3, 1) and out.dtype == jnp.float32
    assert count == 2 * 24 + 48 * 16 + 16 + 9 * 16 + 16 + 16 + 1
    # Token 5 (row 1, column 2) reaches itself and its neighbours only: a 3x3 window.
    change = np.asarray(model.apply(variables, mid, tokens.at[:, 5].add(1.0)) - out)[0, ..., 0]
    assert (np.abs(change[:, 1:]) > 0).all()
    np.testing.assert_array_equal(change[:, 0], 0)
    with pytest.raises(ValueError, match="got 8 tokens"):
        model.apply(variables, mid[:, :8], tokens[:, :8])


def test_heads_compute_in_float32_on_bfloat16_features(features):
    half = features.astype(jnp.bfloat16)
    for model in (heads.TypeHead(), heads.RegionHead(), heads.StrengthHead(), heads.IdentityHead(3)):
        assert _init(model, half)[0].dtype == jnp.float32
    assert _init(heads.BinaryHead(), half)[0]["logit"].dtype == jnp.float32


def test_fusion_is_the_identity_at_step_zero_to_the_bit(features):
    boundary, frequency = features[::-1] + 1, features[:, :6]
    out, variables, count = _init(heads.FeatureFusion(), features, boundary, frequency)
    np.testing.assert_array_equal(out, features)
    assert count == 1 + 2 * 24 + (24 * 24 + 24) + (30 * 24 + 24)
    np.testing.assert_array_equal(_init(heads.FeatureFusion(), features)[0], features)

    # It is not stuck there: both paths have a gradient.
    loss = lambda v: (heads.FeatureFusion().apply(v, features, boundary, frequency) ** 2).sum()
    grads = jax.grad(loss)(variables)["params"]
    assert abs(float(grads["alpha"])) > 0
    assert np.abs(grads["join"]["kernel"][-6:]).max() > 0


def test_fusion_formula(features):
    boundary, frequency = features[::-1] + 1, features[:, :6]
    _, variables, _ = _init(heads.FeatureFusion(), features, boundary, frequency)
    params = variables["params"]
    params["alpha"] = jnp.float32(0.5)
    params["join"]["kernel"] = jax.random.normal(jax.random.key(3), (30, 24))
    normal = (boundary - boundary.mean(1, keepdims=True)) / np.sqrt(boundary.var(1, keepdims=True) + 1e-5)
    fused = features + 0.5 * (normal @ params["boundary"]["kernel"])
    expected = fused + np.concatenate([fused, frequency], 1) @ params["join"]["kernel"]
    out = heads.FeatureFusion().apply(variables, features, boundary, frequency)
    np.testing.assert_allclose(out, expected, atol=1e-3)
