"""The second player: who it reaches, who reaches it, and what it is told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_batch, make_context
from ml_collections import ConfigDict

from configs import msddf
from msddf_jax import adversary
from msddf_jax.data import schema
from msddf_jax.models import policy
from msddf_jax.synth import compose

SIZE, GROUPS = 48, 4
GROUP = schema.Group(1, 0)


def get_config(mode, reward=None):
    config = msddf.get_config("demo").unlock()
    config.policy.mode, config.steps, config.dtype = mode, 100, "float32"
    if reward is not None:
        config.policy.reward = reward
    return config


def batch_of_reals():
    """Groups of one real; the last has no landmarks."""
    batch = make_batch(GROUP, GROUPS, SIZE)
    return {**batch, "has_landmarks": np.arange(GROUPS) < GROUPS - 1}


def context(mode, variables, reward=None):
    config = get_config(mode, reward)
    return make_context(config, {"policy": adversary.make_network(config)[0]}, {"policy": variables}, step=50)


def make_rows(ctx, key, batch):
    recipe = {"name": "msddf", "blend": {"magnitude_on": ("alpha", "dynamic"), "deform": 0}}
    choose = adversary.make_choose(ctx)
    layout = compose.make_layout(GROUP, recipe)
    return compose.compose(key, batch, layout=layout, recipe=recipe, flip=0.0, choose=choose)


def brightness_terms(rows):
    """A detector whose loss is a row's brightness: it depends on what was forged and on nothing else."""
    values = rows["image"].mean((1, 2, 3))
    every = jnp.ones(values.shape[0], bool)
    return {"label": (values, every), "map_bce": (jnp.zeros_like(values), every)}


def init(mode, seed=0):
    """(parameters, other collections) of the adversary, moved from where it starts."""
    network, example = adversary.make_network(get_config(mode))
    variables = dict(jax.jit(network.init)(jax.random.key(seed), *example))
    params = variables.pop("params")
    # Away from the uniform start, where some gradients vanish by symmetry.
    noise = jax.random.normal(jax.random.key(9), (10_000,))
    moved = [x + 0.1 * jnp.resize(noise, x.shape) for x in jax.tree.leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), moved), variables


def norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree))))


@pytest.mark.long
def test_reinforce_learns_from_its_reward_and_not_through_the_pixels():
    params, others = init("reinforce")

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, detector_weight, policy_weight):
        ctx = context("reinforce", {"params": params, **others})
        rows = make_rows(ctx, jax.random.key(1), batch_of_reals())
        terms = brightness_terms(rows)
        loss, scalars = adversary.judge(terms, rows, ctx)
        following = ctx.updates["policy"]["baseline"]
        return detector_weight * terms["label"][0].sum() + policy_weight * loss, (rows, following, scalars)

    pixels, _ = gradient(params, 1.0, 0.0)
    assert norm(pixels) == 0.0
    reward, (rows, following, scalars) = jax.device_get(gradient(params, 0.0, 1.0))
    assert norm(reward) > 0 and all(np.isfinite(x).all() for x in jax.tree.leaves(reward))
    forgery = rows["role"] == compose.ROLES.index("forgery")
    none = rows["record"]["action"]["type"] == 3
    # The face without landmarks cannot be forged; what was asked of it says nothing about the choice.
    meant = forgery & ((rows["label"] == 1) | none)
    assert following["count"] == 1 and (not meant[-1] or none[-1])
    np.testing.assert_allclose(scalars["policy/reward"], rows["image"].mean((1, 2, 3))[meant].mean(), rtol=1e-5)
    shares = [v for name, v in scalars.items() if name.startswith("policy/region/")]
    np.testing.assert_allclose(sum(shares), 1.0, rtol=1e-5)
    assert not rows["record"]["log_prob"][~forgery].any()


def test_what_was_blended_in_spite_of_a_choice_teaches_it_nothing():
    kinds = compose.schema.FORGERY_TYPES
    rows = {
        "role": jnp.array([0, 2, 2, 2]),
        "label": jnp.array([0, 1, 1, 0]),
        "type": jnp.array([kinds.index(name) for name in ("real", "alpha", "self_blend", "real")]),
        "record": {
            "log_prob": jnp.log(jnp.array([1.0, 0.5, 0.25, 0.125])),
            "entropy": {name: jnp.ones(4) for name in ("region", "type", "magnitude")},
            # alpha twice, the second overruled by the hull, and none.
            "action": {name: jnp.array([0, 0, 0, 3]) for name in ("region", "type", "magnitude")},
        },
    }
    every = jnp.ones(4, bool)
    terms = {"label": (jnp.array([9.0, 1.0, 100.0, 2.0]), every), "map_bce": (jnp.zeros(4), every)}
    judge = lambda: adversary.judge(
        terms, rows, context("reinforce", {"params": {}, "baseline": policy.init_baseline()})
    )
    loss, scalars = judge()
    assert float(scalars["policy/reward"]) == pytest.approx((1.0 + 2.0) / 2)
    assert float(scalars["policy/type/alpha"]) == pytest.approx(0.5) == float(scalars["policy/type/none"])
    rows["record"]["log_prob"] = rows["record"]["log_prob"].at[2].set(-50.0)
    assert float(judge()[0]) == float(loss)


@pytest.mark.long
def test_pathwise_raises_the_loss_of_the_detector():
    params, others = init("pathwise")
    batch = batch_of_reals()
    assert others == {}

    @jax.jit
    def objective(params, key):
        rows = make_rows(context("pathwise", {"params": params}), key, batch)
        return brightness_terms(rows)["label"][0].sum(), rows

    gradient = jax.jit(jax.grad(objective, has_aux=True))
    keys = jax.random.split(jax.random.key(2), 6)
    total = jax.tree.map(lambda *g: sum(g), *(gradient(params, key)[0] for key in keys))
    assert norm(total) > 0 and all(np.isfinite(x).all() for x in jax.tree.leaves(total))
    # A step down the reversed gradient is a step up the loss.
    step = jax.tree.map(lambda p, g: p - 0.02 / norm(total) * g, params, total)
    before, after = (sum(float(objective(p, key)[0]) for key in keys) for p in (params, step))
    assert after > before
    rows = objective(params, keys[0])[1]
    ctx = context("pathwise", {"params": params})
    loss, scalars = adversary.judge(brightness_terms(rows), rows, ctx)
    assert loss == 0 and ctx.updates == {} and {"policy/strength", "policy/feather", "policy/color"} == set(scalars)
    assert all(0 < float(v) < 1 for v in scalars.values())


def test_targets_are_no_way_for_the_adversary_to_raise_the_loss():
    params, _ = init("pathwise")

    def targets(params):
        rows = make_rows(context("pathwise", {"params": params}), jax.random.key(3), batch_of_reals())
        return rows["mask"].sum() + rows["strength"].sum() + rows["blend_mask"].sum()

    assert norm(jax.jit(jax.grad(targets))(params)) == 0.0


def test_exploration_is_all_at_first_and_then_what_the_floor_needs():
    at = functools.partial(adversary.exploration_at, warmup=0.1)
    assert at(0.05, exploration=0.2, entropy_floor=0.3) == 1.0
    np.testing.assert_allclose(at(0.1, exploration=0.2, entropy_floor=0.3), 0.2, rtol=1e-6)
    high = float(at(0.5, exploration=0.2, entropy_floor=0.9))
    assert high > 0.2
    for actions in policy.HEADS.values():
        assert policy.entropy_floor(high, actions) >= 0.9 * np.log(actions) - 1e-6


@pytest.mark.parametrize(
    ("mode", "recipe", "message"),
    [
        ("greedy", "msddf", r"mode is 'greedy', allowed: \('none', 'reinforce', 'pathwise', 'published'\)"),
        ("reinforce", "self_blend", "the recipe 'self_blend' has nothing to choose"),
    ],
)
def test_what_does_not_fit_is_refused(mode, recipe, message):
    with pytest.raises(ValueError, match=message):
        adversary.check(ConfigDict({"mode": mode}), ConfigDict({"name": recipe}))
    for name in ("msddf", "sladd"):
        adversary.check(ConfigDict({"mode": "pathwise"}), ConfigDict({"name": name}))


def test_a_reward_that_is_no_term_is_refused():
    rows = {"role": jnp.zeros(2, jnp.int32), "type": jnp.zeros(2, jnp.int32), "record": {}}
    with pytest.raises(ValueError, match="labl"):
        adversary.judge({"label": None}, rows, context("reinforce", {"params": {}}, reward={"labl": 1.0}))


@pytest.mark.long
def test_a_clip_has_one_choice():
    params, others = init("reinforce")
    batch = make_batch(GROUP, GROUPS, SIZE, frames=2)
    # Frames that differ: a choice by frame would differ too.
    batch["image"][:, 1] = 1.0 - batch["image"][:, 1]
    ctx = context("reinforce", {"params": params, **others})
    rows = jax.jit(lambda b: make_rows(ctx, jax.random.key(1), b))(batch)
    assert rows["image"].shape[1] == 2
    assert rows["record"]["action"]["region"].shape == rows["label"].shape
    mean = {
        **batch,
        "image": batch["image"].mean(1),
        "mask": batch["mask"][:, 0],
        "landmarks": batch["landmarks"][:, 0],
    }
    twins = jax.jit(lambda b: make_rows(ctx, jax.random.key(1), b))(mean)
    forged = rows["role"] == compose.ROLES.index("forgery")
    assert forged.sum() == GROUPS and np.isfinite(rows["record"]["log_prob"]).all()
    assert twins["record"]["action"]["region"].shape == rows["record"]["action"]["region"].shape
