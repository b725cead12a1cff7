import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from msddf_jax import optim, trees

PARAMS = {
    "detector": {
        "ln": {"scale": jnp.ones(4), "bias": jnp.zeros(4)},
        "dense": {"kernel": jnp.ones((4, 4))},
        "head": {"kernel": jnp.ones((4, 2))},
    },
    "policy": {"kernel": jnp.ones((4, 3))},
}
GROUPS = (
    ("detector/ln/.*", {"lr": 1e-2, "weight_decay": 0.0}),
    ("detector/head/.*", {"lr": 1e-1, "weight_decay": 0.1}),
    ("policy/.*", {"lr": 1e-3, "weight_decay": 0.0}),
    ("detector/.*", None),
)
ARGS = {"groups": GROUPS, "steps": 100, "warmup_steps": 10, "final_lr": 1e-4, "clip_norm": 1.0}


def test_schedule_warms_up_peaks_and_ends():
    schedule = optim.make_schedule(1.0, steps=100, warmup_steps=10, final=0.1)
    np.testing.assert_allclose([schedule(0), schedule(5), schedule(10), schedule(100)], [0, 0.5, 1.0, 0.1], atol=1e-6)
    # Half way down the cosine.
    np.testing.assert_allclose(schedule(55), 0.55, atol=1e-6)


@pytest.mark.parametrize("warmup", [-1, 100])
def test_schedule_refuses_a_warm_up_that_does_not_fit(warmup):
    with pytest.raises(ValueError, match="warmup_steps"):
        optim.make_schedule(1.0, steps=100, warmup_steps=warmup, final=0.1)


def test_frozen_parameters_have_no_optimiser_memory():
    trained = optim.trainable_names(PARAMS, GROUPS)
    assert not trained["detector/dense/kernel"] and trained["detector/ln/scale"] and trained["policy/kernel"]
    trainable, _ = trees.split(PARAMS, trained)
    tx, _ = optim.make_optimizer(trainable, **ARGS)
    held = sum(x.size for x in jax.tree.leaves(tx.init(trainable)) if x.ndim)
    # Two Adam moments for each trained scalar, and nothing else.
    assert held == 2 * sum(x.size for x in trainable.values())


def test_each_group_has_its_own_rate():
    trainable, _ = trees.split(PARAMS, optim.trainable_names(PARAMS, GROUPS))
    tx, schedules = optim.make_optimizer(trainable, **{**ARGS, "warmup_steps": 0, "clip_norm": 1e9})
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, trainable), tx.init(trainable), trainable)
    # Adam's first step is the sign of the gradient; weight decay adds its share of the parameter.
    np.testing.assert_allclose(updates["detector/ln/scale"], -1e-2, rtol=1e-5)
    np.testing.assert_allclose(updates["detector/head/kernel"], -1e-1 * (1 + 0.1), rtol=1e-5)
    np.testing.assert_allclose(updates["policy/kernel"], -1e-3, rtol=1e-5)
    assert set(schedules) == {GROUPS[0][0], GROUPS[1][0], GROUPS[2][0]}


def test_players_are_clipped_apart():
    updates = {"detector/a": jnp.array([3.0, 4.0]), "policy/a": jnp.array([0.3, 0.4])}
    clipped, _ = optim.clip_by_player_norm(1.0).update(updates, optax.EmptyState())
    np.testing.assert_allclose(clipped["detector/a"], [0.6, 0.8], rtol=1e-5)
    np.testing.assert_allclose(clipped["policy/a"], [0.3, 0.4], rtol=1e-5)


def test_uncovered_parameter_is_an_error():
    with pytest.raises(ValueError, match="policy/kernel"):
        optim.trainable_names(PARAMS, GROUPS[:2] + GROUPS[3:])
