"""Attacks on a linear model, whose answers are known, and on a small network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from msddf_jax.evaluators import attack
from msddf_jax.train_step import init_state

LABELS = np.array([0, 1, 1], np.int32)
traces = []


def linear(weights, image):
    traces.append(image.shape)
    return jnp.einsum("hwc,bhwc->b", weights, image) - 0.1


def curved(weights, image):
    hidden = jnp.tanh(jnp.einsum("hwck,bhwc->bk", weights, image - 0.5))
    return jnp.sum(jnp.sin(3.0 * hidden), axis=-1)


@pytest.fixture(scope="module")
def images():
    # Away from 0 and 1 but for one pixel at each border.
    x = np.random.default_rng(0).uniform(0.1, 0.9, (3, 8, 8, 3)).astype(np.float32)
    x[:, 0, 0], x[:, 0, 1] = 0.0, 1.0
    return x


@pytest.fixture(scope="module")
def weights():
    return np.random.default_rng(1).standard_normal((8, 8, 3)).astype(np.float32)


def test_fgsm_on_a_linear_model_in_closed_form(images, weights):
    epsilon = 4 / 255
    ours = attack.fgsm(linear, weights, images, LABELS, epsilon)
    # A real is moved up the weights, a fake down.
    direction = np.where(LABELS == 1, -1.0, 1.0)[:, None, None, None] * np.sign(weights)
    np.testing.assert_allclose(ours, np.clip(images + epsilon * direction, 0, 1), atol=1e-6)
    inner = np.s_[:, 1:]
    moved = np.einsum("bhwc,hwc->b", np.asarray(ours)[inner] - images[inner], weights[1:])
    np.testing.assert_allclose(moved, [s * epsilon * np.abs(weights[1:]).sum() for s in (1, -1, -1)], rtol=1e-3)


def test_pgd_reaches_the_same_corner_on_a_linear_model(images, weights):
    ours = attack.pgd(jax.random.key(0), linear, weights, images, LABELS, 4 / 255)
    # 10 steps of a quarter: 2.5 radii, enough from any start in the ball.
    np.testing.assert_allclose(ours, attack.fgsm(linear, weights, images, LABELS, 4 / 255), atol=1e-6)


@pytest.mark.parametrize("level", attack.LEVELS)
def test_pgd_stays_in_the_ball_and_in_the_image_and_does_harm(images, level):
    weights = np.random.default_rng(2).standard_normal((8, 8, 3, 4)).astype(np.float32)
    epsilon = level / 255
    before = attack.wrongness(curved(weights, images), LABELS)
    for steps in (1, 3, attack.PGD_STEPS):
        moved = np.asarray(attack.pgd(jax.random.key(1), curved, weights, images, LABELS, epsilon, steps=steps))
        assert np.abs(moved - images).max() <= epsilon + 1e-6
        assert moved.min() >= 0 and moved.max() <= 1
    after = attack.wrongness(curved(weights, moved), LABELS)
    assert (after > before).all()


def test_the_start_is_random_and_inside(images, weights):
    start = np.asarray(attack.pgd(jax.random.key(3), linear, weights, images, LABELS, 8 / 255, steps=0))
    offset = (start - images)[:, 1:]
    assert np.abs(offset).max() <= 8 / 255 + 1e-6 and offset.std() == pytest.approx(8 / 255 / np.sqrt(3), rel=0.05)
    again = attack.pgd(jax.random.key(3), linear, weights, images, LABELS, 8 / 255, steps=0)
    np.testing.assert_array_equal(start, again)
    other = attack.pgd(jax.random.key(4), linear, weights, images, LABELS, 8 / 255, steps=0)
    assert (np.asarray(other) != start).any()


def test_a_radius_is_an_argument_and_not_compiled_in(images, weights):
    rows = attack.attacks(linear, weights)
    for row in rows:
        row.fn(jax.random.key(0), images, LABELS, 1.0)
    traces.clear()
    for row in rows:
        assert row.levels == (1, 2, 4, 8)
        for level in (2.0, 4.0, 8.0):
            moved = row.fn(jax.random.key(0), images, LABELS, level)
            assert np.abs(np.asarray(moved) - images).max() == pytest.approx(level / 255, rel=1e-4)
    assert not traces


def test_a_transfer_attack_goes_by_the_other_gradient(images, weights):
    other = np.random.default_rng(5).standard_normal(weights.shape).astype(np.float32)
    fgsm, pgd = attack.attacks(linear, other, "another run")
    assert (fgsm.name, pgd.name) == ("FGSM (transfer)", "PGD (transfer)")
    assert "another run" in fgsm.about and "10 steps of 0.25" in pgd.about
    moved = np.asarray(fgsm.fn(jax.random.key(0), images, LABELS, 4.0))
    np.testing.assert_array_equal(moved, attack.fgsm(linear, other, images, LABELS, np.float32(4) / 255))
    gain = lambda w: np.asarray(attack.wrongness(linear(w, moved) - linear(w, images), LABELS))
    assert (gain(other) > 4 * np.abs(gain(weights))).all()


def test_a_sure_detector_is_attacked_all_the_same(images, weights):
    """Cross-entropy of a logit of 200 has no gradient left in float32; its sign is that of the logit."""
    sure = lambda w, x: 200.0 + linear(w, x)
    ours = attack.fgsm(sure, weights, images, np.ones(3, np.int32), 1 / 255)
    assert (np.asarray(ours) != images)[:, 1:].all()


@pytest.mark.long
def test_a_detector_is_moved_the_wrong_way():
    config = tiny_config("nowhere", bare=True)
    state = jax.jit(lambda: init_state(config))()
    model = {"params": state.params["detector"], "model_state": state.model_state["detector"]}
    logit_fn = jax.jit(attack.make_logit_fn(config))
    image = np.random.default_rng(6).uniform(0.2, 0.8, (2, 64, 64, 3)).astype(np.float32)
    label = np.array([0, 1], np.int32)
    before = attack.wrongness(logit_fn(model, image), label)
    moved = attack.fgsm(logit_fn, model, image, label, 4 / 255)
    assert (attack.wrongness(logit_fn(model, moved), label) > before).all()
