"""RECCE: its losses by hand, the cells inside a cell, corners on corners, the noise of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.detectors import recce as config_file
from msddf_jax import detector, steps
from msddf_jax.detectors import recce
from msddf_jax.models import filters, reconstruction


def test_losses_by_hand():
    reals = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
    z = jnp.concatenate([reals, jnp.asarray([[-1.0, 0.0], [1.0, 0.0]])])
    target = jnp.zeros((4, 1, 2, 3)).at[0, 0, 0].set(0.6).at[1].set(-0.5)
    made = jnp.zeros((4, 1, 2, 3)).at[2].set(1.0)
    out = {"logits": jnp.asarray([[0.0, 0.0]] * 4), "target": target, "reconstruction": made, "embeddings": (z, z)}
    counted = jnp.asarray([True, True, True, False])
    rows = {"label": jnp.asarray([0, 0, 1, 1]), "counted": counted}
    terms = jax.jit(lambda out, rows: recce.losses(out, rows, None))(out, rows)
    np.testing.assert_allclose(terms["label"][0], np.log(2), rtol=1e-6)
    values, mask = terms["reconstruction"]
    # Of reals: half of the pixels are 0.6 off, and all 0.5; a fake's is not asked for.
    np.testing.assert_allclose(values[:2], [0.3, 0.5], rtol=1e-6)
    np.testing.assert_array_equal(mask, [True, True, False, False])
    # The reals' cosine is 0, likeness 0.5; to the fake that counts -1 and 0, likenesses 0 and 0.5; of two maps.
    np.testing.assert_allclose(terms["contrast"][0], [2 * (1 - 0.5 + 0.25)] * 4, rtol=1e-6)
    total, _ = steps.weighted_sum(terms, {"label": 1.0, "reconstruction": 0.1, "contrast": 0.1})
    np.testing.assert_allclose(total, np.log(2) + 0.1 * 0.4 + 0.1 * 1.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("z", "label", "expected"),
    [
        # Two equal reals and a fake opposite: nothing is left to lower.
        ([[1.0, 0], [1, 0], [-1, 0]], [0, 0, 1], 0.0),
        # One real has no fellow.
        ([[1.0, 0], [1, 0]], [0, 1], 2.0),
        ([[1.0, 0], [1, 0]], [1, 1], 1.0),
    ],
)
def test_contrast_at_its_ends(z, label, expected):
    value = jax.jit(recce._contrast)(jnp.asarray(z), jnp.asarray(label), jnp.ones(len(z), bool))
    np.testing.assert_allclose(value, [expected] * len(z), atol=1e-6)


def test_cells_that_lie_in_a_cell():
    fine = jnp.arange(32).reshape(1, 4, 4, 2)
    cut = np.asarray(reconstruction._inside(fine, (2, 2)))
    assert cut.shape == (1, 2, 2, 4, 2)
    np.testing.assert_array_equal(cut[0, 0, 1, :, 0], [4, 6, 12, 14])


def test_corners_stay_corners():
    x = jnp.asarray([[0.0, 3], [6, 9]]).reshape(1, 2, 2, 1)
    expected = [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    np.testing.assert_allclose(filters.resize_corners(x, (3, 4))[0, :, :, 0], expected, rtol=1e-6)
    # Smaller, without smoothing: every other one of five.
    line = jnp.asarray([5.0, 1, 4, 1, 3]).reshape(1, 1, 5, 1)
    np.testing.assert_allclose(filters.resize_corners(line, (1, 3)).ravel(), [5, 4, 3], rtol=1e-6)


def test_noise_on_half_of_the_images():
    model = recce.Model("Mu", 32, noise=0.5)
    target = jnp.full((64, 8, 8, 3), 0.9)
    look = jax.jit(lambda x: model.apply({}, x, method=recce.Model._noisy, rngs={"dropout": jax.random.key(0)}))
    noisy = look(target)
    changed = np.abs(np.asarray(noisy - target)).max((1, 2, 3)) > 0
    assert 16 < changed.sum() < 48 and noisy.max() <= 1.0 and noisy.min() >= -1.0
    # Below the image nothing is cut off.
    below = np.asarray(target - noisy)[changed]
    np.testing.assert_allclose(np.mean(below > 0), 0.5, atol=0.03)
    np.testing.assert_allclose(np.median(below[below > 0]), 0.5 * 0.6745, rtol=0.05)


@pytest.mark.parametrize(
    ("places", "said"), [((7, 4, 8), "three blocks"), ((4, 7), "three blocks"), ((3, 4, 77), "after is of")]
)
def test_wrong_places_are_named(places, said):
    config = config_file.get_config("demo").unlock()
    config.model.places = places
    with pytest.raises(ValueError, match=said):
        detector.weight_shapes(config)
