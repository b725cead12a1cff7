"""The multi-attentional detector: its losses and their schedule by hand, the blurred look, pooling and windows."""

import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.detectors import multi_attention as config_file
from msddf_jax import detector
from msddf_jax.detectors import multi_attention
from msddf_jax.models import filters
from msddf_jax.models import multi_attention as parts

SETTINGS = {"inter_margin": 1.0, "intra_margin": (0.05, 0.1), "alpha": 0.5, "alpha_decay": 0.5, "every": 10}
REGIONS = jnp.asarray([[[1.0, 0], [0, 1]]] * 2)
LABEL, EVERY = jnp.asarray([0, 1]), jnp.asarray([True, True])
REGION_LOSS = jax.jit(lambda r, c, n: multi_attention._regions(r, c, LABEL, n, 0.5, ConfigDict(SETTINGS)))
AGDA = types.SimpleNamespace(kernel_size=5, sigma=2.0, threshold=(0.5, 0.5), zoom=(4.0, 4.0), scale=1.0, noise=0.0)


def _blur(images, attention, **changes):
    settings = types.SimpleNamespace(**{**vars(AGDA), **changes})
    return jax.jit(lambda x, a: multi_attention._blur(jax.random.key(0), x, a, settings))(images, attention)


def test_regions_keep_apart_by_hand():
    values, moved = REGION_LOSS(REGIONS, jnp.zeros((2, 2)), EVERY)
    np.testing.assert_allclose(moved, [[0.5, 0], [0, 0.5]], atol=1e-6)
    # Every region is 0.5 from its centre; the centres are sqrt(0.5) apart: over two maps and a rate of 0.5.
    inter = (1 - np.sqrt(0.5)) / 2 / 0.5
    np.testing.assert_allclose(values, [0.5 - 0.05 + inter, 0.5 - 0.1 + inter], rtol=1e-5)
    # Rows that do not count move nothing.
    other = REGIONS.at[1].multiply(-1.0)
    np.testing.assert_allclose(REGION_LOSS(other, jnp.zeros((2, 2)), jnp.asarray([True, False]))[1], moved, atol=1e-6)


def test_centres_have_a_gradient():
    near = jnp.full((2, 2, 2), np.sqrt(0.5)).at[:, 0, 0].add(0.1)
    gradient = jax.jit(jax.grad(lambda r: REGION_LOSS(r, near[0], EVERY)[0].sum()))
    found = np.asarray(gradient(near))
    # All lie in their margins, so that what is left pushes the two centres apart.
    assert np.isfinite(found).all() and (found[:, 0, 0] < 0).all() and (found[:, 1, 0] > 0).all()
    assert np.isfinite(gradient(jnp.zeros((2, 2, 2)))).all()


def _context(step, weights, again):
    config = {"loss_args": {**SETTINGS, "backbone_steps": 5, "agda": vars(AGDA)}, "loss_weights": weights}
    ctx = types.SimpleNamespace(config=ConfigDict(config), step=step, key=lambda name: jax.random.key(0))
    ctx.moved, ctx.apply = {}, lambda name, rows, train, mutable: again
    ctx.update = lambda name, **collections: ctx.moved.update(collections)
    return ctx


@pytest.mark.parametrize(
    ("step", "weights", "centre"),
    [
        (4, {"regions": 1.0}, 0.0),
        (5, {"regions": 1.0}, 0.5),
        # The rate halves after every ten steps.
        (10, {"regions": 1.0}, 0.25),
        (5, {"agda_regions": 1.0}, -0.5),
        (5, {"regions": 1.0, "agda_regions": 1.0}, 0.5 + 0.5 * (-1 - 0.5)),
        (5, {"label": 1.0}, 0.0),
    ],
)
def test_schedule_and_second_look(step, weights, centre):
    logits = jnp.asarray([[0.0, 0.0], [0.0, np.log(3.0)]])
    out = {"attention": jnp.ones((2, 2, 2, 2)), "regions": REGIONS, "centers": jnp.zeros((2, 2))}
    out |= {"logits": logits, "plain_logits": -logits}
    again = out | {"logits": -logits, "regions": -REGIONS}
    rows = {"label": LABEL, "image": jnp.zeros((2, 8, 8, 3))}

    @jax.jit
    def run(step):
        ctx = _context(step, weights, again)
        return multi_attention.losses(out, rows, ctx), ctx.moved

    terms, moved = run(step)
    np.testing.assert_allclose(terms["label"][0], [np.log(2), np.log(4 / 3)], rtol=1e-6)
    np.testing.assert_allclose(terms["plain"][0], [np.log(2), np.log(4)], rtol=1e-6)
    np.testing.assert_allclose(terms["agda_label"][0], [np.log(2), np.log(4)], rtol=1e-6)
    # The one map that was not blurred is at its opposite, 2 away; mean of two.
    np.testing.assert_allclose(terms["agda_match"][0], [1.0, 1.0], rtol=1e-6)
    for name, (_, mask) in terms.items():
        np.testing.assert_array_equal(mask, [(step < 5) == (name == "plain")] * 2)
    np.testing.assert_allclose(moved["centers"]["value"], [[centre, 0], [0, centre]], atol=1e-6)


def test_the_region_of_a_map_is_blurred():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(2, 16, 16, 3)).astype(np.float32)
    attention = np.zeros((2, 16, 16, 1), np.float32)
    attention[:, :, :8] = 3.0
    seen, chosen = _blur(images, attention)
    # Over its largest value a map is 1 or 0; the sigmoid around 0.5, steepness 4, less its value at 0.
    bottom, top = 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))
    weight = (top - bottom) / (1 - bottom) * (attention > 0)
    blurred = np.stack([cv2.GaussianBlur(image, (5, 5), 2.0, borderType=cv2.BORDER_REFLECT_101) for image in images])
    np.testing.assert_allclose(seen, images + weight * (blurred - images), atol=1e-5)
    np.testing.assert_array_equal(chosen, [0, 0])


def test_maps_are_drawn_by_the_root_of_their_sum():
    attention = np.zeros((3000, 2, 2, 2), np.float32)
    attention[..., 1] = 0.75
    images = np.zeros((3000, 4, 4, 3), np.float32)
    seen, chosen = _blur(images + 0.5, attention, noise=0.2)
    # Sums of 0 and 3: one to two. Where the empty map was drawn the image is as it was.
    np.testing.assert_allclose(np.mean(chosen), 2 / 3, atol=0.03)
    changed = np.abs(np.asarray(seen) - 0.5).max((1, 2, 3)) > 0
    np.testing.assert_array_equal(changed, np.asarray(chosen) == 1)
    # Noise of 0.2 in [-1, 1] is of 0.1 in [0, 1].
    np.testing.assert_allclose(np.std(np.asarray(seen)[changed]), 0.1 * 0.86466, rtol=0.03)


def test_pooling_by_hand():
    features = jnp.asarray([[3.0, 0], [0, 4]]).reshape(1, 1, 2, 2)
    attention = jnp.asarray([[1.0, 0], [1, 2]]).reshape(1, 1, 2, 2)
    # The first map sees both places alike, the second the right one alone.
    np.testing.assert_allclose(parts.pool(features, attention)[0], [[0.6, 0.8], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(parts.mean_under(features, attention[..., :1])[0], [1.5, 2], rtol=1e-6)
    both = attention.sum(-1, keepdims=True)
    np.testing.assert_allclose(parts.mean_under(features, both)[0], [3 / 4, 12 / 4], rtol=1e-6)


def test_windows_and_border():
    x = jnp.arange(5.0).reshape(1, 1, 5, 1)
    np.testing.assert_allclose(filters.window_mean(x, (1, 2)).ravel(), [1, 3])
    np.testing.assert_array_equal(parts._nearest(x[:, :, :2], (1, 5)).ravel(), [0, 0, 0, 1, 1])
    # Of 24 cells 2 on each side; of 6 each is the nearest of 0, 4, 8, 12, 16 and 20.
    assert parts._inside((24, 24)).sum() == 400 and parts._inside((24, 24))[2:22, 2:22].all()
    np.testing.assert_array_equal(parts._inside((6, 1)), np.zeros((6, 1)))
    np.testing.assert_array_equal(parts._inside((6, 6))[3], [0, 1, 1, 1, 1, 1])


@pytest.mark.parametrize(
    ("field", "value", "said"), [("form", "own", "form is 'own'"), ("texture", "block_99", "name .'block_99'.")]
)
def test_wrong_settings_are_named(field, value, said):
    config = config_file.get_config("demo").unlock()
    config.model[field] = value
    with pytest.raises(ValueError, match=said):
        detector.weight_shapes(config)
