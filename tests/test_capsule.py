"""Capsule-Forensics: squash, statistics, both routings and both losses by hand, noise in training alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax import trees
from msddf_jax.detectors import capsule

SIZE = 32


def test_squash_by_hand():
    # Length 5 becomes 25 / 26; a vector of zeros stays one, with a gradient of 0 and not of NaN.
    vectors = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(capsule._squash(vectors, 1), [[0.6 * 25 / 26, 0.8 * 25 / 26], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(capsule._squash(vectors, 0)[0], [3 * 3 / 10, 4 * 4 / 17], rtol=1e-6)
    gradient = jax.grad(lambda x: capsule._squash(x, 1).sum())(vectors)
    assert np.isfinite(gradient).all() and not gradient[1].any()


def test_statistics_are_torchs():
    x = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    x[0, ..., 2] = 0
    flat = x.reshape(2, 12, 5)
    expected = np.stack([flat.mean(1), flat.std(1, ddof=1)], axis=-1)
    np.testing.assert_allclose(capsule._statistics(jnp.asarray(x)), expected, atol=1e-6)
    # A map of zeros, as a ReLU leaves one, has deviation 0.
    assert np.isfinite(jax.grad(lambda y: capsule._statistics(y).sum())(jnp.asarray(x))).all()


def _length(x):
    return x * x / (1 + x * x)


def test_routing_of_the_paper_by_hand():
    # Two capsules, one number each: both vote 1 for real, and 1 and -1 for fake.
    votes = jnp.array([[[[1.0], [1.0]], [[1.0], [-1.0]]]])
    # At first every capsule gives half to either: real 0.5 + 0.5 = 1 -> 1/2; fake 0. A capsule then agrees with real by
    # 1/2 and with fake by 0, so that real gets sigmoid(1/2) of both.
    real = 2 / (1 + np.exp(-0.5))
    np.testing.assert_allclose(capsule._route(votes, "paper"), [[[_length(real)], [0.0]]], atol=1e-6)


def test_routing_of_public_code_by_hand():
    # One class has votes (1, 0) and (1, 2), the other (0, 0) twice.
    votes = jnp.array([[[[1.0, 0.0], [1.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    # Of each number half of either capsule: (1, 1), length sqrt 2, squashed to (1, 1) x sqrt 2 / 3. They agree, number
    # by number: in the first alike; in the second by 0 and 2 sqrt 2 / 3, so that the second capsule has its sigmoid.
    second = 2 / (1 + np.exp(-2 * np.sqrt(2) / 3))
    length = np.hypot(1, second)
    expected = np.array([1, second]) * length / (1 + length**2)
    np.testing.assert_allclose(capsule._route(votes, "code"), [[expected, [0, 0]]], rtol=1e-6)


def test_losses_by_hand():
    # P(fake) of the four numbers; mean 0.5 and 0.65.
    fake = np.array([[0.2, 0.4, 0.6, 0.8], [0.5, 0.6, 0.7, 0.8]])
    parts = jnp.asarray(np.stack([1 - fake, fake], axis=-1))
    mean = parts.mean(1)
    terms = capsule.losses({"logits": jnp.log(mean), "parts": parts}, {"label": jnp.array([0, 1])}, None)
    np.testing.assert_allclose(terms["label"][0], [np.log(2), -np.log(0.65)], rtol=1e-5)
    # Softmax once more: log(1 + exp(wrong - right)), wrong - right = 2 fake - 1 of the real, 1 - 2 fake of the fake.
    by_hand = [np.log1p(np.exp(2 * fake[0] - 1)).sum(), np.log1p(np.exp(1 - 2 * fake[1])).sum()]
    np.testing.assert_allclose(terms["label_parts"][0], by_hand, rtol=1e-5)
    assert all(mask.all() for _, mask in terms.values())


@pytest.fixture(scope="module")
def small():
    model = capsule.Model("Mu", SIZE, capsules=2)
    rows = {"image": np.random.default_rng(0).random((3, SIZE, SIZE, 3), np.float32)}
    shapes = trees.flatten(dict(jax.eval_shape(lambda: model.init(jax.random.key(0), rows, train=False))))
    rng = np.random.default_rng(1)
    # Drawn here: initialising in XLA takes seconds to compile.
    flat = {
        name: rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape).astype(np.float32)
        if name.endswith("kernel")
        else np.full(leaf.shape, name.endswith(("scale", "var", "route")), np.float32)
        for name, leaf in shapes.items()
    }
    return model, rows, trees.unflatten(flat)


def test_score_is_the_mean_of_the_parts(small):
    model, rows, variables = small
    out = jax.jit(lambda v: model.apply(v, rows, train=False))(variables)
    np.testing.assert_allclose(jax.nn.sigmoid(out["logit"]), out["parts"].mean(1)[:, 1], rtol=1e-5)
    np.testing.assert_allclose(np.exp(out["logits"]).sum(1), 1.0, rtol=1e-6)
    assert out["capsules"].shape == (3, 8, 2) and out["feature"].shape == (3, 16)
    assert (np.linalg.norm(out["capsules"], axis=1) < 1).all()


def test_training_has_noise_and_finite_gradients(small):
    model, rows, variables = small
    label = {"label": jnp.array([0, 1, 1])}

    def run(params, key, model):
        weights = {**variables, "params": params}
        out, _ = model.apply(weights, rows, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        return capsule.losses(out, label, None)["label"][0].mean(), out["logit"]

    step = jax.jit(jax.value_and_grad(run, has_aux=True), static_argnums=2)
    keys = jax.random.split(jax.random.key(1))
    noise = model.clone(dropout=0.0, noise=0.01)
    ((_, first), gradient), ((_, other), _) = (step(variables["params"], key, noise) for key in keys)
    assert not np.array_equal(first, other) and np.abs(first - other).max() < 0.5
    for name, value in trees.flatten(gradient).items():
        assert np.isfinite(value).all(), name
    assert np.abs(gradient["route"]).max() > 0 and np.abs(gradient["backbone"]["conv_1_0"]["kernel"]).max() > 0


def test_another_routing_is_named():
    model = capsule.Model("Mu", SIZE, routing="port")
    with pytest.raises(ValueError, match=r"routing is 'port', allowed: \('paper', 'code'\)"):
        jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": jnp.zeros((1, SIZE, SIZE, 3))}, train=False))
