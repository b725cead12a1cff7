"""Plain, sharpness-aware and bilevel steps against what is worked by hand, or by differences in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax import steps
from msddf_jax.models.reverse_grad import reverse_grad


def quadratic(trainable, batch, number):
    """(0.5 (a x^2 + b y^2), Aux) with x, y of the detector and a, b of the batch; the policy's z is beside it."""
    del number
    x, y = trainable["detector/x"], trainable["detector/y"]
    total = 0.5 * (batch["a"] * x**2 + batch["b"] * y**2) + trainable["policy/z"] * x
    return total, steps.Aux({"label": total}, {"loss": total}, {"detector": {"statistic": x}})


PLACE = {"detector/x": jnp.float32(3.0), "detector/y": jnp.float32(4.0), "policy/z": jnp.float32(0.0)}
BATCH = ({"a": 1.0, "b": 1.0},)


def test_the_gradient_of_a_quadratic():
    grads, aux = steps.gradient(quadratic, PLACE, BATCH)
    assert {k: float(v) for k, v in grads.items()} == {"detector/x": 3.0, "detector/y": 4.0, "policy/z": 3.0}
    assert float(aux.scalars["loss"]) == 12.5


def test_sam_of_a_quadratic_by_hand():
    # |g| = 5, so the detector moves by rho (3, 4) / 5; the policy stays. The gradient there is (3.6, 4.8) for rho = 1.
    grads, aux = steps.sam(quadratic, PLACE, BATCH, rho=1.0)
    np.testing.assert_allclose([grads["detector/x"], grads["detector/y"]], [3.6, 4.8], rtol=1e-6)
    # The policy's gradient is taken where the detector was moved to.
    np.testing.assert_allclose(grads["policy/z"], 3.6, rtol=1e-6)
    # Log and moving statistics are those of the first look.
    assert float(aux.scalars["loss"]) == 12.5 and float(aux.model_state["detector"]["statistic"]) == 3.0


def test_sam_without_a_radius_is_the_gradient_bit_for_bit():
    plain, _ = jax.jit(lambda p: steps.gradient(quadratic, p, BATCH))(PLACE)
    sam, _ = jax.jit(lambda p: steps.sam(quadratic, p, BATCH, rho=0.0))(PLACE)
    for name in PLACE:
        np.testing.assert_array_equal(plain[name], sam[name])


def test_sam_at_a_minimum_stays_finite():
    still = {**PLACE, "detector/x": jnp.float32(0.0), "detector/y": jnp.float32(0.0)}
    grads, _ = steps.sam(quadratic, still, BATCH, rho=1.0)
    assert all(np.isfinite(g) and g == 0.0 for g in grads.values())


def _network(reverse=None):
    """Terms of a two-layer network, and its parameters and batches, all float64."""
    rng = np.random.default_rng(0)
    array = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float64)
    parameters = {"detector/w": array(5, 4), "detector/b": array(4), "detector/v": array(4)}
    batches = [{"x": array(8, 5), "y": array(8)} for _ in range(2)]

    def terms(p, batch):
        hidden = jnp.tanh(batch["x"] @ p["detector/w"] + p["detector/b"])
        out = hidden @ p["detector/v"]
        # A second term behind a reversal, as an identity adversary has it.
        seen = hidden if reverse is None else reverse_grad(hidden, reverse)
        return {"label": jnp.mean((out - batch["y"]) ** 2), "size": jnp.mean(seen**2), "edge": jnp.mean(jnp.abs(out))}

    return terms, parameters, batches


WEIGHTS = {"label": 0.7, "size": 0.3, "edge": 0.2}


@pytest.mark.parametrize("reverse", [None, 0.5])
def test_the_hypergradient_equals_central_differences(reverse):
    with jax.enable_x64(True):
        terms, parameters, (train, held) = _network(reverse)
        rates = {"detector/w": 0.1, "detector/b": 0.05, "detector/v": 0.2}
        weights = {name: jnp.float64(value) for name, value in WEIGHTS.items()}
        upper = lambda p: terms(p, held)["label"] + 0.5 * terms(p, held)["edge"]

        def gradient(weights):
            # What a train step computes, the reversed gradient included.
            return jax.grad(lambda p: sum(weights[n] * v for n, v in terms(p, train).items()))(parameters)

        def after(weights):
            grads = gradient(weights)
            return upper({name: p - rates[name] * grads[name] for name, p in parameters.items()})

        found = steps.hypergradient(lambda p: terms(p, train), upper, parameters, gradient(weights), rates)
        for name in WEIGHTS:
            moved = lambda h, name=name: after({**weights, name: weights[name] + h})
            difference = (moved(1e-5) - moved(-1e-5)) / 2e-5
            np.testing.assert_allclose(found[name], difference, rtol=1e-3, err_msg=name)
            np.testing.assert_allclose(found[name], difference, rtol=1e-6, err_msg=name)


def test_the_hypergradient_is_the_forward_product_where_there_is_one():
    with jax.enable_x64(True):
        terms, parameters, (train, held) = _network()
        rates = dict.fromkeys(parameters, 0.1)
        grads = jax.grad(lambda p: sum(WEIGHTS[n] * v for n, v in terms(p, train).items()))(parameters)
        upper = lambda p: terms(p, held)["label"]
        found = steps.hypergradient(lambda p: terms(p, train), upper, parameters, grads, rates)
        d = jax.grad(upper)({n: p - 0.1 * grads[n] for n, p in parameters.items()})
        _, forward = jax.jvp(lambda p: terms(p, train), (parameters,), ({n: 0.1 * g for n, g in d.items()},))
        for name in WEIGHTS:
            np.testing.assert_allclose(found[name], -forward[name], rtol=1e-10)


def test_bilevel_replaces_the_weights_gradients_alone():
    with jax.enable_x64(True):
        terms, parameters, batches = _network()
        weights = {f"loss_weights/{name}": jnp.float64(value) for name, value in WEIGHTS.items()}

        def objective(trainable, batch, number):
            found = terms(trainable, batch)
            total = sum(trainable[f"loss_weights/{name}"] * value for name, value in found.items())
            return total, steps.Aux(found, {"loss": total, "number": number}, {})

        rates = dict.fromkeys({**parameters, **weights}, 0.1)
        settings = {"upper": {"label": 1.0}, "rates": rates}
        grads, aux = steps.bilevel(objective, {**parameters, **weights}, batches, **settings)
        plain, _ = steps.gradient(objective, {**parameters, **weights}, batches)
        for name in parameters:
            np.testing.assert_array_equal(grads[name], plain[name])
        own = {name: plain[name] for name in parameters}
        upper = lambda p: terms(p, batches[1])["label"]
        expected = steps.hypergradient(lambda p: terms(p, batches[0]), upper, parameters, own, rates)
        for name in WEIGHTS:
            np.testing.assert_allclose(grads[f"loss_weights/{name}"], expected[name], rtol=1e-12)
        # The log has the weights, and the first batch's loss.
        assert aux.scalars["number"] == 0 and float(aux.scalars["loss_weights/size"]) == WEIGHTS["size"]


def test_loss_weights_stay_at_least_zero():
    kept = steps.project({"loss_weights/label": jnp.array(-0.1), "detector/x": jnp.array(-0.1)})
    assert float(kept["loss_weights/label"]) == 0.0 and float(kept["detector/x"]) == pytest.approx(-0.1)


def test_a_weighted_sum_counts_what_its_mask_lets_through():
    terms = {
        "a": (jnp.array([1.0, 3.0, np.nan]), jnp.array([True, True, False])),
        "b": (jnp.ones(3), jnp.ones(3, bool)),
    }
    total, means = steps.weighted_sum(terms, {"a": 0.5})
    assert float(total) == 1.0 and {n: float(v) for n, v in means.items()} == {"a": 2.0, "b": 1.0}
