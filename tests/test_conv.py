"""Depthwise convolution by hand and against XLA's own, BatchNorm and pooling by hand, and the input's errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from msddf_jax.models import conv, layers


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_depthwise_by_hand():
    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    # Above, left of and at the pixel, weighted 1, 10 and 100; zeros outside.
    kernel = np.array([[0, 1, 0], [10, 100, 0], [0, 0, 0]], np.float32).reshape(3, 3, 1, 1)
    out = conv.Depthwise(3).apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_array_equal(out[0, :, :, 0], [[0, 100, 210], [300, 431, 542], [603, 764, 875]])
    out = conv.Depthwise(3, stride=2).apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_array_equal(out[0, :, :, 0], [[0, 210], [603, 875]])


@pytest.mark.long
@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(3, 1, ((1, 1), (1, 1))), (5, 2, ((1, 2), (2, 2))), (3, 2, ((0, 1), (0, 1)))]
)
def test_depthwise_and_its_gradients_equal_a_grouped_convolution(size, stride, padding):
    x, kernel = _random(2, 9, 8, 3), _random(size, size, 1, 3, seed=1)
    module = conv.Depthwise(size, stride, padding)
    ours = lambda x, kernel: module.apply({"params": {"kernel": kernel}}, x)
    theirs = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(stride, stride),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=3,
    )
    value = ours(x, kernel)
    np.testing.assert_allclose(value, theirs(x, kernel), rtol=1e-5, atol=1e-5)
    weights = _random(*value.shape, seed=2)
    gradients = [jax.grad(lambda *a, f=f: (f(*a) * weights).sum(), (0, 1))(x, kernel) for f in (ours, theirs)]
    for mine, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_depthwise_sums_in_float32():
    # 256 + 0.5, eight times, in bfloat16's steps of 2 would stay 256.
    x = np.full((1, 3, 3, 1), 1, np.float32)
    kernel = np.full((3, 3, 1, 1), 0.5, np.float32)
    kernel[0, 0] = 256
    out = conv.Depthwise(3, padding=((0, 0), (0, 0)), dtype=jnp.bfloat16).apply(
        {"params": {"kernel": kernel}}, x.astype(jnp.bfloat16)
    )
    assert out.dtype == jnp.bfloat16 and out.item() == 260


def test_batch_norm_by_hand():
    x = np.array([1, 3], np.float32).reshape(2, 1, 1, 1)
    variables = {
        "params": {"scale": np.full(1, 2, np.float32), "bias": np.full(1, 5, np.float32)},
        "batch_stats": {"mean": np.zeros(1, np.float32), "var": np.ones(1, np.float32)},
    }
    norm = layers.batch_norm(True, jnp.float32, None, epsilon=0.0)
    out, state = norm.apply(variables, x, mutable=["batch_stats"])
    # Mean 2, variance 1: -1 and 1, times 2, plus 5.
    np.testing.assert_allclose(np.ravel(out), [3, 7], rtol=1e-6)
    np.testing.assert_allclose(state["batch_stats"]["mean"], [0.2], rtol=1e-6)
    # The batch's own variance 1; PyTorch would take 2 / (2 - 1) of it and arrive at 1.1.
    np.testing.assert_allclose(state["batch_stats"]["var"], [1.0], rtol=1e-6)
    out = layers.batch_norm(False, jnp.float32, None, epsilon=3.0).apply(variables, x)
    np.testing.assert_allclose(np.ravel(out), [6, 8], rtol=1e-6)


def test_max_pool_by_hand():
    x = -np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1) - 1
    # What pads counts as minus infinity; the fifth row and column are dropped without it.
    np.testing.assert_array_equal(conv.max_pool(x, 2, 2)[0, :, :, 0], [[-1, -3], [-11, -13]])
    padded = conv.max_pool(x, 3, 2, padding=1)[0, :, :, 0]
    np.testing.assert_array_equal(padded, [[-1, -2, -4], [-6, -7, -9], [-16, -17, -19]])


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (4, 4, 0), (3, 1, 1)])
def test_max_pool_is_xlas_and_so_is_its_gradient(size, stride, padding):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 3)).astype(np.float32)  # no two numbers are equal
    weight = np.random.default_rng(1).normal(size=conv.max_pool(x, size, stride, padding).shape)
    windows = lambda x: nn.max_pool(x, (size, size), (stride, stride), conv.symmetric(padding))
    ours = lambda x: conv.max_pool(x, size, stride, padding)
    np.testing.assert_array_equal(ours(x), windows(x))
    slopes = [jax.grad(lambda x, pool=pool: jnp.sum(weight * pool(x)))(x) for pool in (ours, windows)]
    np.testing.assert_allclose(*slopes, atol=1e-6)


def test_normalized_by_hand_and_its_errors():
    images = np.full((1, 32, 32, 3), 0.75, np.float32)
    out = conv.normalized(images, 32, (0.5, 0.25, 0.75), (0.5, 0.25, 1.0), jnp.bfloat16, "Net")
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out[0, 5, 7].astype(np.float32), [0.5, 2.0, 0.0])
    check = lambda images, size: conv.normalized(images, size, (0, 0, 0), (1, 1, 1), jnp.float32, "Net")
    with pytest.raises(ValueError, match=r"Net was built for images \[B, 48, 48, 3\], got \[1, 32, 32, 3\]"):
        check(images, 48)
    with pytest.raises(ValueError, match="Net needs an image_size of at least 32, got 31"):
        check(images, 31)
    with pytest.raises(TypeError, match=r"float in .*, got uint8"):
        check(images.astype(np.uint8), 32)
