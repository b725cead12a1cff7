"""CORE: its losses by hand, two views of one image and of no other, what a view loses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_batch, make_context
from few_steps import STILL

from configs.detectors import core as experiment
from msddf_jax.detectors import core

SIZE = 32


def _config(erase=0.0, crop=0.0, flip=0.0):
    config = experiment.get_config("demo").unlock()
    config.model.image_size = SIZE
    config.augment = {"image_size": SIZE, **STILL}
    config.synth.flip = flip
    config.loss_args = {"views": {"erase": erase, "crop": crop}}
    return config


def _rows(config, batch, seed=0):
    return jax.jit(lambda key: core.make_rows(key, batch, make_context(config)))(jax.random.key(seed))


def test_losses_by_hand():
    # Cosines 0.6 and 1: squared distances from 1 are 0.16 and 0. Equal logits cost log 2; 1 too much, log(1 + e).
    out = {
        "feature": jnp.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 1.0]]),
        "logits": jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]),
    }
    found = core.losses(out, {"label": jnp.array([1, 1, 0, 0])}, None)
    np.testing.assert_allclose(found["consistency"][0], [0.16, 0.16, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(found["label"][0], [np.log(2), np.log1p(np.e), np.log(2), np.log1p(np.e)], rtol=1e-6)
    assert all(mask.all() for _, mask in found.values())


def test_the_gradient_is_finite_where_both_views_have_the_same_feature():
    rows = {"label": jnp.array([1, 1])}
    total = lambda x: core.losses({"feature": x, "logits": x}, rows, None)["consistency"][0].sum()
    assert (
        np.isfinite(jax.grad(total)(jnp.ones((2, 2)))).all() and np.isfinite(jax.grad(total)(jnp.zeros((2, 2)))).all()
    )


def test_two_views_are_of_one_image():
    batch = make_batch((1, 1), size=SIZE)
    rows = _rows(_config(), batch)
    twice = lambda value: np.repeat(value, 2, axis=0)
    np.testing.assert_allclose(rows["image"], twice(batch["image"]), atol=1e-6)
    for name in ("label", "method", "identity"):
        np.testing.assert_array_equal(rows[name], twice(batch[name]))
    np.testing.assert_array_equal(rows["base"], [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10])


def test_each_view_is_flipped_and_augmented_for_itself():
    batch, config = make_batch((1, 1), groups=8, size=SIZE), _config(flip=0.5)
    config.augment.tone_prob = 1.0
    image, whole = _rows(config, batch)["image"], np.repeat(batch["image"], 2, axis=0)
    apart = lambda x: np.abs(image - x).mean((1, 2, 3))
    flipped = apart(whole[:, :, ::-1]) < apart(whole)
    first, second = flipped[::2], flipped[1::2]
    assert (first != second).any() and (first == second).any()
    toned = np.where(flipped[:, None, None, None], image[:, :, ::-1], image)
    assert (np.abs(toned[::2] - toned[1::2]).max((1, 2, 3)) > 1e-3).all()


def test_a_view_loses_a_rectangle_or_becomes_a_part_of_itself():
    whole = np.clip(make_batch((1, 1), size=SIZE)["image"], 0.1, 1.0)
    mask = np.ones((*whole.shape[:3], 1), np.float32)
    cut = jax.jit(
        lambda *chances: core._cut(jax.random.key(0), {"image": whole, "mask": mask, "blend_mask": mask}, *chances)
    )
    erased = np.asarray(cut(1.0, 0.0)["image"])
    gone = (erased == 0).all(-1)
    # Edges fall on whole pixels: the shares of the area are 0.02 and 0.2 give or take a row and a column of 32.
    assert (gone.mean((1, 2)) > 0.005).all() and (gone.mean((1, 2)) < 0.25).all()
    np.testing.assert_allclose(erased[~gone], whole[~gone], atol=1e-6)
    for one in gone:
        np.testing.assert_array_equal(one, one.any(1)[:, None] & one.any(0)[None, :])
    cropped = np.asarray(cut(0.0, 1.0)["image"])
    assert (np.abs(cropped - whole).max((1, 2, 3)) > 1e-3).all() and cropped.min() >= 0.1 - 1e-6
    np.testing.assert_allclose(cut(0.0, 0.0)["image"], whole, atol=1e-6)


def test_rectangles_have_the_published_areas_and_ratios():
    left, right, top, bottom = np.asarray(core._rectangles(jax.random.key(0), 500, (0.02, 0.2), (0.5, 2.0))).T
    width, height = right - left, bottom - top
    assert min(left.min(), top.min()) >= 0 and max(right.max(), bottom.max()) <= 1 + 1e-6
    assert 0.02 <= (width * height).min() < 0.025 and 0.19 < (width * height).max() <= 0.2 + 1e-6
    assert 0.5 - 1e-5 <= (width / height).min() < 0.55 and 1.9 < (width / height).max() <= 2 + 1e-5
    expected = [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(core._inside(jnp.array([[0.25, 0.75, 0.25, 0.5]]), 4)[0], np.array(expected, bool))


def test_what_does_not_fit_is_named():
    batch, config = make_batch((1, 1), size=SIZE), _config()
    with pytest.raises(ValueError, match="expected images"):
        _rows(config, make_batch((1, 1), size=SIZE, frames=2))
    config.synth.joint = True
    with pytest.raises(ValueError, match=r"synth\.joint=False"):
        _rows(config, batch)
    with pytest.raises(ValueError, match=r"erase 0\.7 and crop 0\.6, expected chances"):
        _rows(_config(0.7, 0.6), batch)
