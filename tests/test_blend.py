"""Feathered alpha against SciPy's distances, mixes by hand, and the rule that nothing changed means real."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from msddf_jax.data import schema
from msddf_jax.synth import blend

FEATHER = jax.jit(blend.feather_weight, static_argnames="metric")
REAL = schema.FORGERY_TYPES.index("real")


@pytest.fixture(scope="module")
def mask():
    out = np.zeros((48, 40), np.float32)
    out[8:38, 10:24] = 1
    out[20:26, 4:34] = 1  # bounding box: rows 8..37, columns 4..33, both sides 30
    return out


@pytest.mark.parametrize("feather", [0.0, 0.4, 1.0])
def test_feather_is_the_distance_over_its_width(mask, feather):
    distance = scipy.ndimage.distance_transform_edt(mask)
    width = max(0.2 * feather * 30, 1.0)
    np.testing.assert_allclose(FEATHER(mask, feather), np.clip(distance / width, 0, 1), atol=1e-5)


def test_constant_feather_is_sladds(mask):
    big = np.kron(mask, np.ones((4, 4), np.float32))[:, :]  # sides 120; lengths are those of a 256 px crop
    out = np.asarray(FEATHER(big, 0.5, metric=False))
    width = 0.2 * 0.5 * 120 / (big.shape[0] / 256)
    core = scipy.ndimage.binary_erosion(big, np.ones((3, 3)))
    np.testing.assert_allclose(out, core / width, atol=1e-5)
    assert FEATHER(big, 0.0, metric=False).max() == 1.0


def test_feather_of_nothing_is_nothing(mask):
    assert not np.asarray(FEATHER(mask * 0, 0.7)).any()


def test_feather_is_differentiable_in_its_width(mask):
    total = lambda f: blend.feather_weight(jnp.asarray(mask), f).sum()
    value, slope = jax.jit(jax.value_and_grad(total))(0.6)
    higher = jax.jit(total)(0.601)
    assert slope < 0
    np.testing.assert_allclose((higher - value) / 1e-3, slope, rtol=0.05)


def test_mix_is_linear_in_the_weight():
    target, source = jnp.zeros((2, 2, 3)), jnp.ones((2, 2, 3))
    weight = jnp.array([[0.0, 0.25], [0.5, 1.0]])
    np.testing.assert_allclose(blend.mix(target, source, weight)[..., 1], weight)


def settle(image, wanted=True, weight=0.5, forgery=0):
    target = jnp.full((4, 4, 3), 0.5)
    parts = jnp.array([1, 0, 0, 0, 0])
    weights = jnp.full((4, 4), weight)
    out = blend.settle(target, image, weights, weight, jnp.int32(forgery), parts, jnp.asarray(wanted))
    return jax.tree.map(np.asarray, out)


def test_a_change_is_fake():
    image = jnp.full((4, 4, 3), 0.5).at[1, 1].add(0.1)
    out = settle(image)
    assert out["changed"] and out["label"] == 1 and out["type"] == 0 and out["strength"] == 0.5
    assert out["has_strength"] and out["has_region"] and out["region_parts"].tolist() == [1, 0, 0, 0, 0]
    assert out["map"].shape == (4, 4, 1) and (out["map"] == 0.5).all()
    np.testing.assert_array_equal(out["image"], image)
    poisson = settle(image, forgery=schema.FORGERY_TYPES.index("poisson"))
    assert poisson["changed"] and not poisson["has_strength"]


@pytest.mark.parametrize(
    "change,wanted,weight",
    [(0.0, True, 0.5), (0.0015, True, 0.5), (0.1, False, 0.5), (np.nan, True, 0.5), (np.inf, True, 0.5)],
    ids=["same", "below half a grey level", "not wanted", "nan", "inf"],
)
def test_no_change_is_real(change, wanted, weight):
    target = jnp.full((4, 4, 3), 0.5)
    out = settle(target.at[1, 1].add(change), wanted, weight)
    assert not out["changed"] and out["label"] == 0 and out["type"] == REAL and out["strength"] == 0
    assert not out["map"].any() and not out["region_parts"].any()
    assert not out["has_strength"] and out["has_region"]  # a real touches no region, and that is known
    np.testing.assert_array_equal(out["image"], target)
