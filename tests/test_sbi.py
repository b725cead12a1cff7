"""SBI as published: rows, optimiser, SAM step and crops of configs/detectors/sbi.py."""

import types

import few_steps
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_batch, make_context

from configs.detectors import sbi as experiment
from msddf_jax import hooks, optim, train_step, trees
from msddf_jax.data import pipeline
from msddf_jax.synth import compose, degrade, geometry

SIZE = 48


def _small(**augment):
    config = experiment.get_config().copy_and_resolve_references().unlock()
    config.augment.update({"image_size": SIZE, **augment})
    return config.lock()


@pytest.fixture(scope="module")
def rows():
    """Four reals through the published recipe and augmentation, and the same without augmentation."""
    batch = jax.tree.map(jnp.asarray, make_batch((1, 0), groups=4, size=SIZE))

    def make(config):
        made = jax.jit(lambda key, batch: hooks.make_rows(key, batch, make_context(config)))
        return jax.tree.map(np.asarray, made(jax.random.key(0), batch))

    still = {**few_steps.STILL, "shift_prob": 0.0, "crop": 0.0}
    return make(_small()), make(_small(**still))


@pytest.mark.long
def test_the_batch_holds_reals_and_their_own_blends_alone(rows):
    seen, plain = rows
    for made in (seen, plain):
        roles = [compose.ROLES[role] for role in made["role"]]
        assert roles == ["target_twin", "forgery"] * 4
        np.testing.assert_array_equal(made["label"], [0, 1] * 4)
        np.testing.assert_array_equal(made["base"], np.repeat(np.arange(0, 8, 2), 2))
        np.testing.assert_array_equal(made["identity"], np.repeat(np.arange(4), 2))
        assert made["counted"].all() and (made["method"][made["label"] == 1] == -1).all()
    # A forgery is its real but for where the mask lies.
    real, forged, mask = plain["image"][::2], plain["image"][1::2], plain["mask"][1::2]
    outside = np.broadcast_to(mask == 0, real.shape)
    np.testing.assert_array_equal(forged[outside], real[outside])
    assert (np.abs(forged - real).max((1, 2, 3)) > 0.5 / 255).all()


def test_the_config_takes_reals_alone_sixteen_a_step():
    config = experiment.get_config()
    layout = hooks.layout_of(config)
    assert layout == compose.Layout(1, 1, 0, 0) and config.data.batch_size == 16
    assert config.data.train.methods == () and config.data.train.max_frames == 8
    assert config.steps == 100 * 720 * 8 // 16
    # What chooses the checkpoint is a validation split.
    assert config.evals[config.select.eval].split == "validation"


def test_one_window_serves_a_real_its_forgery_and_their_masks(rows):
    seen, _ = rows
    window = seen["window"]
    np.testing.assert_array_equal(window[::2], window[1::2])
    moves = window - np.array([0, 1, 0, 1])
    assert np.abs(moves).max() <= 0.06 and len(np.unique(window[::2, 0])) == 4
    # The mask moved with the pixels: what is cut by hand is what is there.
    config = _small(**few_steps.STILL, shift_prob=0.0)
    batch = {"image": jnp.asarray(make_batch((1, 0), groups=2, size=SIZE)["image"])}
    batch |= {"mask": batch["image"][..., :1], "blend_mask": batch["image"][..., 1:2]}
    out = compose.augment(jax.random.key(1), batch, bases=jnp.array([0, 0]), **config.augment)
    np.testing.assert_allclose(out["mask"], out["image"][..., :1], atol=1e-6)
    np.testing.assert_allclose(out["blend_mask"], out["image"][..., 1:2], atol=1e-6)


def test_a_window_by_hand():
    # A ramp over 8 columns: from a quarter to three quarters, column c shows the place 2 + (c + 0.5) / 2 - 0.5.
    ramp = jnp.broadcast_to(jnp.arange(8.0)[None, None, :, None], (1, 4, 8, 1))
    cut = geometry.cut_windows(ramp, jnp.array([[0.25, 0.75, 0.0, 1.0]]))
    np.testing.assert_allclose(cut[0, 2, :, 0], 1.5 + (np.arange(8) + 0.5) / 2, rtol=1e-6)
    # Outside there is the border.
    wide = geometry.cut_windows(ramp, jnp.array([[-0.5, 1.0, 0.0, 1.0]]))
    assert float(wide[0, 0, 0, 0]) == 0.0 and float(wide[0, 0, 1, 0]) == 0.0 and float(wide[0, 0, -1, 0]) > 6.5
    np.testing.assert_array_equal(geometry.cut_windows(ramp, jnp.array([[0.0, 1.0, 0.0, 1.0]])), ramp)


def test_a_colour_shift_moves_each_channel_by_its_own_constant():
    images = jnp.full((40, 6, 6, 3), 0.5)
    off = {**few_steps.STILL}
    out = np.asarray(degrade.augment(jax.random.key(0), images, **off, shift_prob=1.0, color_shift=20.0))
    moved = 255 * (out - 0.5)
    assert np.abs(moved - moved[:, :1, :1]).max() < 1e-4
    assert 15 < np.abs(moved).max() <= 20.0 + 1e-4
    # Channels are drawn apart.
    assert np.abs(np.diff(moved[:, 0, 0], axis=1)).min(0).max() > 0 and np.abs(moved.mean((0, 1, 2))).max() < 8
    often = np.asarray(degrade.augment(jax.random.key(0), images, **off, shift_prob=0.3))
    share = (np.abs(often - 0.5).max((1, 2, 3)) > 0).mean()
    assert 0.1 < share < 0.5


def test_the_learning_rate_is_the_published_one():
    config = experiment.get_config()
    tx = optim.make_optimizer({"detector/w": jnp.zeros(1)}, steps=config.steps, **config.optim.to_dict())
    rate = tx.rates["detector/w"]
    for epoch in (0, 40, 75, 76, 80, 99):
        expected = 1e-3 if epoch <= 75 else 1e-3 - 1e-3 / 25 * (epoch - 75)
        np.testing.assert_allclose(rate(experiment.STEPS_PER_EPOCH * epoch), expected, rtol=1e-5)
    np.testing.assert_allclose(rate(config.steps), 0.0, atol=1e-9)


@pytest.mark.long
def test_a_step_is_sgd_with_the_gradient_at_the_perturbed_point():
    """SAM by hand on a whole step of the config: p - lr g(p + rho g(p) / |g(p)|), no decay, no clipping."""
    config = experiment.get_config().copy_and_resolve_references().unlock()
    config.model.family, config.model.variant, config.model.image_size, config.model.options = "resnet", "Mu", 64, {}
    config.augment = {"image_size": 64, **few_steps.STILL}
    config.dtype, config.data.group, config.synth.flip = "float32", {"real": 1, "fake": 1}, 0.0
    config.synth.recipe = {"name": "none"}
    config = config.lock()
    batch = few_steps.noise_batch(size=64)
    state = jax.jit(lambda: train_step.init_state(config))()
    after, _ = jax.jit(train_step.make_train_step(config))(state, (batch,))
    cast = train_step.make_cast(config)
    objective = train_step.make_objective(config, cast, state, {}, {})
    gradient = jax.jit(jax.grad(lambda p: objective(p, batch, 0)[0]))
    before = trees.flatten(state.params)
    first = gradient(before)
    norm = np.sqrt(sum(float((g**2).sum()) for g in first.values()))
    second = gradient({name: p + 0.05 * first[name] / norm for name, p in before.items()})
    apart = 0.0
    for name, value in trees.flatten(after.params).items():
        np.testing.assert_allclose(value, before[name] - 1e-3 * second[name], rtol=1e-4, atol=1e-6, err_msg=name)
        apart = max(apart, float(np.abs(second[name] - first[name]).max()))
    # The two gradients are not the same, so that the first would not have passed.
    assert apart > 1e-2
    assert set(after.ema) == set(before)
    for name, value in after.ema.items():
        np.testing.assert_array_equal(value, trees.flatten(after.params)[name], err_msg=name)


@pytest.mark.parametrize("stored", [256, 317])
def test_crops_must_be_stored_at_the_published_size(stored):
    config = experiment.get_config()
    source = types.SimpleNamespace(name="faceforensics/c23:train", clip_length=0, image_size=(stored, stored))
    with pytest.raises(
        ValueError, match=rf"image_size is 380, .* are {stored}x{stored}.*data_prep\.prepare .*--size 380"
    ):
        pipeline.check_image_size(source, config.data.image_size)
    source.image_size = (380, 380)
    pipeline.check_image_size(source, config.data.image_size)
    assert config.model.image_size == config.augment.image_size == config.data.image_size


def test_settings_of_the_augmentation_are_checked():
    config = experiment.get_config().copy_and_resolve_references().unlock()
    config.augment.crop = 0.5
    with pytest.raises(ValueError, match=r"config\.augment\.crop is 0\.5, expected a share of the side"):
        hooks.check(config)
    config.augment = {"image_size": 380, "crops": 0.1}
    with pytest.raises(ValueError, match=r"config\.augment\.crops: .* did you mean 'crop'"):
        hooks.check(config)
