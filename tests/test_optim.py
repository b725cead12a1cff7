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
    schedule = optim.make_schedule(1.0, steps=100, warmup_steps=10, final_lr=0.1)
    np.testing.assert_allclose([schedule(0), schedule(5), schedule(10), schedule(100)], [0, 0.5, 1.0, 0.1], atol=1e-6)
    # Half way down the cosine.
    np.testing.assert_allclose(schedule(55), 0.55, atol=1e-6)


@pytest.mark.parametrize("warmup", [-1, 100])
def test_schedule_refuses_a_warm_up_that_does_not_fit(warmup):
    with pytest.raises(ValueError, match="warmup_steps"):
        optim.make_schedule(1.0, steps=100, warmup_steps=warmup, final_lr=0.1)


def test_frozen_parameters_have_no_optimiser_memory():
    trained = optim.trainable_names(PARAMS, GROUPS)
    assert not trained["detector/dense/kernel"] and trained["detector/ln/scale"] and trained["policy/kernel"]
    trainable, _ = trees.split(PARAMS, trained)
    tx = optim.make_optimizer(trainable, **ARGS).tx
    held = sum(x.size for x in jax.tree.leaves(tx.init(trainable)) if x.ndim)
    # Two Adam moments for each trained scalar, and nothing else.
    assert held == 2 * sum(x.size for x in trainable.values())


def test_each_group_has_its_own_rate():
    trainable, _ = trees.split(PARAMS, optim.trainable_names(PARAMS, GROUPS))
    tx, rates = optim.make_optimizer(trainable, **{**ARGS, "warmup_steps": 0, "clip_norm": 1e9})
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, trainable), tx.init(trainable), trainable)
    # Adam's first step is the sign of the gradient; weight decay adds its share of the parameter.
    np.testing.assert_allclose(updates["detector/ln/scale"], -1e-2, rtol=1e-5)
    np.testing.assert_allclose(updates["detector/head/kernel"], -1e-1 * (1 + 0.1), rtol=1e-5)
    np.testing.assert_allclose(updates["policy/kernel"], -1e-3, rtol=1e-5)
    now = {name: float(rate(0)) for name, rate in rates.items()}
    expected = {
        "detector/ln/scale": 1e-2,
        "detector/ln/bias": 1e-2,
        "detector/head/kernel": 1e-1,
        "policy/kernel": 1e-3,
    }
    assert now == pytest.approx(expected)


def test_a_group_that_matches_nothing_is_told():
    groups = (("detector/lnn/.*", None), ("detector/(head|tail)/.*", None), ("poli.*", None), ("teacher/.*", None))
    # The misspelt one; not that of a player who is not there, nor those that are used.
    assert optim.unmatched(PARAMS, (*groups, (".*", None))) == ["detector/lnn/.*"]
    # One that an earlier group leaves nothing to is told as well.
    assert optim.unmatched(PARAMS, ((".*", None), ("detector/.*", None))) == ["detector/.*"]


def test_players_are_clipped_apart():
    updates = {"detector/a": jnp.array([3.0, 4.0]), "policy/a": jnp.array([0.3, 0.4])}
    clipped, _ = optim.clip_by_player_norm(1.0).update(updates, optax.EmptyState())
    np.testing.assert_allclose(clipped["detector/a"], [0.6, 0.8], rtol=1e-5)
    np.testing.assert_allclose(clipped["policy/a"], [0.3, 0.4], rtol=1e-5)


def test_uncovered_parameter_is_an_error():
    with pytest.raises(ValueError, match="policy/kernel"):
        optim.trainable_names(PARAMS, GROUPS[:2] + GROUPS[3:])


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        # Two cosines of 40 steps from 1 to 0.2, half-way 0.6.
        ({"schedule": "restarts", "period": 40, "final_lr": 0.2}, (0, 20, 40, 60), (1.0, 0.6, 1.0, 0.6)),
        # Down in 40 steps and up again in 40.
        (
            {"schedule": "oscillate", "period": 40, "final_lr": 0.2, "warmup_steps": 10},
            (5, 10, 30, 50, 70, 90),
            (0.5, 1.0, 0.6, 0.2, 0.6, 1.0),
        ),
        ({"schedule": "step", "period": 30, "factor": 0.5}, (0, 29, 30, 60), (1.0, 1.0, 0.5, 0.25)),
        ({"schedule": "constant"}, (0, 99), (1.0, 1.0)),
        # Constant to half of 100 steps, then a line to 0.
        ({"schedule": "linear", "start": 0.5}, (0, 50, 75, 100), (1.0, 1.0, 0.5, 0.0)),
        ({"schedule": "linear", "warmup_steps": 20}, (0, 10, 20, 60, 100), (0.0, 0.5, 1.0, 0.5, 0.0)),
    ],
)
def test_schedules_by_hand(settings, steps, expected):
    schedule = optim.make_schedule(1.0, steps=100, **settings)
    np.testing.assert_allclose([schedule(step) for step in steps], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "allowed"),
        ({"schedule": "step"}, "needs a period"),
        ({"schedule": "oscillate"}, "needs a period"),
        ({"schedule": "linear", "start": 1.0}, "share in"),
        ({"schedule": "step", "period": 5, "factor": 0.0}, "factor is 0"),
    ],
)
def test_schedules_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        optim.make_schedule(1.0, steps=100, **settings)


def _one(settings, gradients, value=1.0, **common):
    """The values of one parameter after each gradient, under a group's settings."""
    params = {"detector/a": jnp.float32(value)}
    groups = ((".*", {"lr": 0.1, "weight_decay": 0.0, "schedule": "constant", **settings}),)
    tx = optim.make_optimizer(params, groups=groups, steps=100, clip_norm=1e9, **common).tx
    state, seen = tx.init(params), []
    for gradient in gradients:
        updates, state = tx.update({"detector/a": jnp.float32(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(float(params["detector/a"]))
    return seen


def test_optimisers_by_hand():
    # SGD with momentum 0.9: velocities 1, 1.9; L2 adds 0.5 of the parameter to the gradient.
    np.testing.assert_allclose(_one({"optimizer": "sgd"}, [1.0, 1.0]), [0.9, 0.9 - 0.19], rtol=1e-6)
    np.testing.assert_allclose(_one({"optimizer": "sgd", "weight_decay": 0.5}, [1.0]), [1 - 0.1 * 1.5], rtol=1e-6)
    # Adam's first step is the sign, so L2 cannot be seen in it and decoupled decay can.
    np.testing.assert_allclose(_one({"optimizer": "adam_l2", "weight_decay": 0.5}, [1.0]), [0.9], rtol=1e-5)
    np.testing.assert_allclose(_one({"optimizer": "adamw", "weight_decay": 0.5}, [1.0]), [0.9 - 0.05], rtol=1e-5)
    with pytest.raises(ValueError, match="allowed"):
        _one({"optimizer": "adam"}, [1.0])


def test_adam_with_l2_is_pytorchs():
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.tensor(1.0))
    theirs = torch.optim.Adam([parameter], lr=0.1, weight_decay=0.3)
    expected = []
    for gradient in (1.0, -0.5, 2.0, 0.1):
        parameter.grad = torch.tensor(gradient)
        theirs.step()
        expected.append(float(parameter))
    ours = _one({"optimizer": "adam_l2", "weight_decay": 0.3}, (1.0, -0.5, 2.0, 0.1))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_a_cosine_that_oscillates_is_pytorchs_stepped_on():
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.tensor(1.0))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, T_max=5, eta_min=0.01)
    schedule = optim.make_schedule(0.1, steps=100, schedule="oscillate", period=5, final_lr=0.01)
    for step in range(23):
        np.testing.assert_allclose(schedule(step), scheduler.get_last_lr()[0], rtol=1e-4, err_msg=str(step))
        theirs.step()
        scheduler.step()


def test_a_group_is_trained_in_its_phase_alone():
    phase = {"every": 3, "steps": (0, 2)}
    plain = _one({"optimizer": "sgd"}, [1.0, 1.0, 1.0])
    phased = _one({"optimizer": "sgd", "phase": phase}, [1.0, 7.0, 1.0, 1.0])
    # Step 1 is out of phase: the parameter and its momentum stay, whatever the gradient.
    np.testing.assert_allclose(phased, [plain[0], plain[0], plain[1], plain[2]], rtol=1e-6)
    # The rate goes on counting: step 2 has the third rate, not the second.
    falling = {"optimizer": "sgd", "schedule": "step", "period": 1, "factor": 0.5, "phase": phase}
    np.testing.assert_allclose(_one(falling, [1.0, 1.0, 1.0], momentum=0.0), [0.9, 0.9, 0.9 - 0.025], rtol=1e-6)
    for wrong in ({"every": 3, "steps": ()}, {"every": 3, "steps": (3,)}):
        with pytest.raises(ValueError, match="expected steps in"):
            _one({"phase": wrong}, [1.0])


def test_a_field_that_no_group_has_is_refused():
    with pytest.raises(ValueError, match="weight_decay"):
        _one({"wd": 0.1}, [1.0])
