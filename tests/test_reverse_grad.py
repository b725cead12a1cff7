import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models.reverse_grad import dann_schedule, reverse_grad


def test_backward_is_minus_scale_times_the_finite_difference():
    weights = np.array([0.5, -2.0, 3.0], np.float32)
    loss = lambda x: jnp.sum(weights * jnp.sin(x))
    x = np.array([0.1, 0.7, -1.2], np.float32)
    step = 1e-3
    numeric = np.array([(loss(x + step * e) - loss(x - step * e)) / (2 * step) for e in np.eye(3, dtype="f")])

    value, grad = jax.value_and_grad(lambda x: loss(reverse_grad(x, 0.3)))(x)
    assert value == loss(x)
    np.testing.assert_allclose(grad, -0.3 * numeric, rtol=2e-3)


def test_traced_scale_under_jit_has_zero_gradient():
    loss = lambda x, scale: jnp.sum(reverse_grad(x, scale) ** 2)
    x = jnp.array([1.0, -2.0])
    dx, dscale = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, jnp.float32(0.25))
    np.testing.assert_allclose(dx, -0.25 * 2 * x)
    assert dscale == 0.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_keeps_dtype_and_only_reverses_its_own_branch(dtype):
    x = jnp.array([2.0], dtype)
    grad = jax.grad(lambda x: jnp.sum(3 * x + 5 * reverse_grad(x, 1.0)).astype(jnp.float32))(x)
    assert grad.dtype == dtype
    assert float(grad[0]) == 3 - 5


def test_schedule_is_the_formula_of_the_paper():
    progress = np.array([0.0, 0.1, 0.5, 1.0])
    expected = 0.1 * (2 / (1 + np.exp(-10 * progress)) - 1)
    np.testing.assert_allclose(dann_schedule(progress, 0.1), expected, rtol=1e-6)
    assert dann_schedule(0.0, 0.1) == 0.0
    assert dann_schedule(2.0, 0.1) == dann_schedule(1.0, 0.1)
