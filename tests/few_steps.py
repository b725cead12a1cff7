"""A few train steps on one batch of noise, for the detectors' tests: no data set, no forgeries, no augmentation."""

import itertools

import jax
import numpy as np

from msddf_jax import optim, trees
from msddf_jax.data import schema
from msddf_jax.train_step import init_state, make_train_step

SIZE = 32
STILL = {f"{name}_prob": 0.0 for name in ("blur", "downscale", "noise", "tone", "jpeg")}


def shrink(config, variant, lr, image_size=SIZE):
    """A detector's config for `train`: the variant at 32 px, float32, every step at `lr` and on the same rows."""
    config = config.copy_and_resolve_references().unlock()
    config.model.variant, config.model.image_size = variant, image_size
    config.augment = {"image_size": image_size, **STILL}
    config.synth.flip, config.dtype = 0.0, "float32"
    config.data.image_size = SIZE
    config.optim.groups = tuple(
        (pattern, settings and {"lr": lr, "weight_decay": 0.0}) for pattern, settings in config.optim.groups
    )
    config.optim.warmup_steps, config.optim.final_lr = 0, lr
    return config


def noise_batch(rows=8, size=SIZE):
    """Host batch of alternating real and fake rows; the fakes are darker."""
    rng = np.random.default_rng(0)
    label = np.arange(rows, dtype=np.int32) % 2
    image = rng.integers(0, 256, (rows, size, size, 3)) * (1 - 0.5 * label[:, None, None, None])
    return {
        "image": image.astype(np.uint8),
        "mask": np.zeros((rows, size, size, 1), np.uint8),
        "has_mask": np.zeros(rows, bool),
        "landmarks": rng.uniform(0, size, (rows, 81, 2)).astype(np.float32),
        "has_landmarks": np.ones(rows, bool),
        "label": label,
        "method": label,
        "identity": np.arange(rows, dtype=np.int32) // 2,
        "donor": np.arange(rows, dtype=np.int32) // 2,
        "domain": np.zeros(rows, np.int32),
        "attributes": np.zeros((rows, len(schema.ATTRIBUTES)), np.uint8),
        "has_attributes": np.zeros((rows, len(schema.ATTRIBUTES)), bool),
        "group": np.arange(rows, dtype=np.int32) // 2,
        "_mask": np.ones(rows, bool),
    }


def train(config, steps=3):
    """(flat parameters as drawn, after `steps` steps, [loss of each step], {name: trained?})."""
    state = jax.jit(lambda: init_state(config))()
    before = jax.device_get(trees.flatten(state.params))
    step, losses = jax.jit(make_train_step(config)), []
    for _ in range(steps):
        state, scalars = step(state, (noise_batch(),))
        losses.append(float(scalars["loss"]))
    trained = optim.trainable_names(state.params, config.optim.groups)
    return before, jax.device_get(trees.flatten(state.params)), losses, trained


def check_training(config, steps=3):
    """Train and assert: losses finite and falling, what is frozen bit-identical, everything else changed."""
    before, after, losses, trained = train(config, steps)
    assert np.isfinite(losses).all() and all(b < a for a, b in itertools.pairwise(losses)), losses
    assert True in trained.values() and False in trained.values()
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {name for name, value in trained.items() if not value}
    return before, after, trained
