"""The second player: who it reaches, who reaches it, and what it is told."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_points import face_images, face_points
from ml_collections import ConfigDict

from configs import msddf
from msddf_jax import adversary
from msddf_jax.models import policy
from msddf_jax.synth import compose, recipes

SIZE, GROUPS = 48, 4
WEIGHTS = (0.25, 0.2, 0.35, 0.2)
SETTINGS = msddf.get_config("demo").policy


def make_batch():
    """Groups of one real; the last has no landmarks."""
    return {
        "image": jnp.asarray(face_images(SIZE, GROUPS)),
        "landmarks": jnp.asarray(face_points(SIZE, GROUPS)),
        "has_landmarks": jnp.arange(GROUPS) < GROUPS - 1,
        "label": jnp.zeros(GROUPS, jnp.int32),
        "identity": jnp.arange(GROUPS),
    }


def make_rows(mode, params, key, batch, progress=0.5, **blend):
    choose = adversary.make_choose(
        params,
        progress=progress,
        mode=mode,
        dtype=jnp.float32,
        magnitude_on=("alpha", "dynamic"),
        type_weights=WEIGHTS,
        settings=SETTINGS,
    )
    blend = {"magnitude_on": ("alpha", "dynamic"), "deform": 0, **blend}
    return compose.compose(
        key, batch, group=(1, 0), recipe="msddf", flip=0.0, blend=blend, choose=choose, source_twin=False
    )


def brightness_terms(rows):
    """A detector whose loss is a row's brightness: it depends on what was forged and on nothing else."""
    values = rows["image"].mean((1, 2, 3))
    every = jnp.ones(values.shape[0], bool)
    return {"label": (values, every), "map_bce": (jnp.zeros_like(values), every)}


def init(mode, seed=0):
    params, player = jax.jit(functools.partial(adversary.init, mode=mode, dtype=jnp.float32))(jax.random.key(seed))
    # Away from the uniform start, where some gradients vanish by symmetry.
    noise = jax.random.normal(jax.random.key(9), (10_000,))
    moved = [x + 0.1 * jnp.resize(noise, x.shape) for x in jax.tree.leaves(params)]
    return jax.tree.unflatten(jax.tree.structure(params), moved), player


def norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree))))


@pytest.mark.long
def test_reinforce_learns_from_its_reward_and_not_through_the_pixels():
    params, player = init("reinforce")

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, detector_weight, policy_weight):
        rows = make_rows("reinforce", params, jax.random.key(1), make_batch())
        terms = brightness_terms(rows)
        loss, following, scalars = adversary.judge(rows, terms, player, mode="reinforce", settings=SETTINGS)
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
    judge = lambda: adversary.judge(rows, terms, policy.init_baseline(), mode="reinforce", settings=SETTINGS)
    loss, _, scalars = judge()
    assert float(scalars["policy/reward"]) == pytest.approx((1.0 + 2.0) / 2)
    assert float(scalars["policy/type/alpha"]) == pytest.approx(0.5) == float(scalars["policy/type/none"])
    rows["record"]["log_prob"] = rows["record"]["log_prob"].at[2].set(-50.0)
    assert float(judge()[0]) == float(loss)


@pytest.mark.long
def test_pathwise_raises_the_loss_of_the_detector():
    params, player = init("pathwise")
    batch = make_batch()

    @jax.jit
    def objective(params, key):
        rows = make_rows("pathwise", params, key, batch)
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
    loss, same, scalars = adversary.judge(rows, brightness_terms(rows), player, mode="pathwise", settings=SETTINGS)
    assert loss == 0 and same == {} and {"policy/strength", "policy/feather", "policy/color"} == set(scalars)
    assert all(0 < float(v) < 1 for v in scalars.values())


def test_targets_are_no_way_for_the_adversary_to_raise_the_loss():
    params, _ = init("pathwise")

    def targets(params):
        rows = make_rows("pathwise", params, jax.random.key(3), make_batch())
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
        ("greedy", "msddf", r"mode is 'greedy', allowed: \('none', 'reinforce', 'pathwise'\)"),
        ("reinforce", "self_blend", "the recipe 'self_blend' has nothing to choose"),
    ],
)
def test_what_does_not_fit_is_refused(mode, recipe, message):
    with pytest.raises(ValueError, match=message):
        adversary.check(ConfigDict({"mode": mode}), ConfigDict({"recipe": recipe}))
    # Before any data is read, and not first when the step is traced.
    with pytest.raises(ValueError, match="only 'msddf' has it, not 'sladd'"):
        adversary.check(ConfigDict({"mode": "none"}), ConfigDict({"recipe": "sladd", "self_blend_share": 0.5}))
    for name in recipes.WITH_CHOICES:
        adversary.check(ConfigDict({"mode": "pathwise"}), ConfigDict({"recipe": name}))


def test_a_reward_that_is_no_term_is_refused():
    settings = SETTINGS.copy_and_resolve_references().unlock()
    settings.reward = {"labl": 1.0}
    rows = {"role": jnp.zeros(2, jnp.int32), "type": jnp.zeros(2, jnp.int32), "record": {}}
    with pytest.raises(ValueError, match="labl"):
        adversary.judge(rows, {"label": None}, {}, mode="reinforce", settings=settings)
