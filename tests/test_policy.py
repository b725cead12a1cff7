"""The adversary: distributions, floors and gradients against enumeration; learning on a bandit."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.data import schema
from msddf_jax.models import policy

ENTROPY, SAMPLE = jax.jit(policy.entropy), jax.jit(policy.sample)
NONE, DYNAMIC = schema.BLENDS.index("none"), schema.BLENDS.index("dynamic")


def random_logits(seed=0, batch=3, scale=2.0):
    rng = np.random.default_rng(seed)
    return {name: jnp.array(scale * rng.standard_normal((batch, n)), jnp.float32) for name, n in policy.HEADS.items()}


def test_networks_have_the_stated_outputs_and_start_uniform():
    key = jax.random.key(0)
    images, network = jnp.zeros((2, 64, 48, 3)), policy.Policy()
    logits, variables = jax.eval_shape(network.init_with_output, key, images, images)
    assert {name: value.shape for name, value in logits.items()} == {
        "region": (2, 11),
        "type": (2, 4),
        "magnitude": (2, 8),
    }
    # Heads of zeros give uniform choices; jit leaves out the rest of the initialisation.
    heads = jax.jit(lambda key: {n: network.init(key, images, images)["params"][n] for n in policy.HEADS})(key)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(heads))
    # 3x3 convolutions 6-32-64-128-256, two vectors a GroupNorm, and the heads.
    convolutions = 9 * (6 * 32 + 32 * 64 + 64 * 128 + 128 * 256)
    count = sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert count == convolutions + 2 * (32 + 64 + 128 + 256) + 257 * (11 + 4 + 8)


def test_pathwise_network_depends_on_the_choice_and_stays_inside():
    network, key = policy.PathwisePolicy(), jax.random.key(0)
    images, choice = jnp.zeros((2, 32, 32, 3)), jnp.array([0, 3])
    shapes = jax.eval_shape(network.init_with_output, key, images, images, choice, choice)
    assert {name: value.shape for name, value in shapes[0].items()} == {name: (2,) for name in policy.PATHWISE}
    params = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[1])["params"]
    run = jax.jit(lambda params: network.apply({"params": params}, images, images, choice, choice))
    for value in run(params).values():
        np.testing.assert_allclose(value, [0.5, 0.5], atol=1e-6)
    # Extreme weights on the choice of blend "none" (the last input) reach neither end.
    params["hidden"]["kernel"] = params["hidden"]["kernel"].at[-1].set(1.0)
    params["values"]["kernel"] = params["values"]["kernel"].at[:, 0].set(-1e3).at[:, 1].set(1e3)
    values = run(params)
    np.testing.assert_allclose(values["strength"], [0.5, 1e-4], atol=1e-5)
    np.testing.assert_allclose(values["feather"], [0.5, 1 - 1e-4], atol=1e-5)
    assert float(values["strength"][1]) > 0 and float(values["feather"][1]) < 1


def test_executed_distribution_is_the_mixture():
    logits = np.asarray(random_logits()["region"])
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    @jax.jit
    def run(logits, epsilon):
        log_probs, pullback = jax.vjp(lambda x: policy.executed_log_probs(x, epsilon), logits)
        return log_probs, pullback(jnp.ones_like(log_probs))[0]

    for epsilon in (0.0, 0.2, 1.0):
        log_probs, gradient = run(logits, epsilon)
        np.testing.assert_allclose(np.exp(log_probs), (1 - epsilon) * softmax + epsilon / 11, atol=1e-6)
        assert np.isfinite(np.asarray(gradient)).all()
    np.testing.assert_allclose(np.exp(run(1e4 * logits, 1.0)[0]), 1 / 11, atol=1e-6)


def test_sample_follows_the_distribution_and_ignores_the_batch_size():
    logits = {name: np.repeat(value[:1], 4000, axis=0) for name, value in random_logits().items()}
    actions, log_probs = SAMPLE(jax.random.key(1), logits, 0.2)
    for name, value in logits.items():
        expected = 0.8 * np.exp(value[0]) / np.exp(value[0]).sum() + 0.2 / value.shape[1]
        counts = np.bincount(actions[name], minlength=len(expected)) / 4000
        np.testing.assert_allclose(counts, expected, atol=0.03)
        np.testing.assert_allclose(np.exp(log_probs[name]), expected[np.asarray(actions[name])], rtol=1e-4)
    few = {name: value[:5] for name, value in logits.items()}
    again, _ = SAMPLE(jax.random.key(1), few, 0.2)
    for name in logits:
        np.testing.assert_array_equal(again[name], actions[name][:5])


def test_magnitudes_fill_their_bins():
    bins = jnp.arange(8).repeat(500)
    values = np.asarray(policy.draw_magnitude(jax.random.key(2), bins))
    edges = np.linspace(0.1, 1.0, 9)
    assert (values >= edges[np.asarray(bins)] - 1e-6).all() and (values <= edges[np.asarray(bins) + 1] + 1e-6).all()
    assert values.mean() == pytest.approx(0.55, abs=0.01)


def test_masked_log_prob_by_hand():
    log_probs = {"region": jnp.array([-1.0] * 4), "type": jnp.array([-0.5] * 4), "magnitude": jnp.array([-2.0] * 4)}
    kind = jnp.array([schema.BLENDS.index(n) for n in ("alpha", "poisson", "dynamic", "none")])
    np.testing.assert_allclose(policy.joint_log_prob(log_probs, kind), [-1.5, -1.5, -3.5, -0.5])
    both = policy.joint_log_prob(log_probs, kind, magnitude_on=("alpha", "dynamic"))
    np.testing.assert_allclose(both, [-3.5, -1.5, -3.5, -0.5])
    with pytest.raises(ValueError, match="magnitude_on names"):
        policy.joint_log_prob(log_probs, kind, magnitude_on=("mixup",))


def test_masking_keeps_the_gradient_exact():
    """Over all 352 actions, E[R grad log pi] of the masked log pi is the gradient of E[R]."""
    rng = np.random.default_rng(3)
    table = rng.random((11, 4, 8)).astype(np.float32)
    # The reward sees only what had an effect.
    table[:, :, :] = np.where(np.arange(4)[None, :, None] == DYNAMIC, table, table[:, :, :1])
    table[:, NONE] = 0.3
    logits = {name: value[0] for name, value in random_logits(4, 1).items()}
    grid = np.array(list(itertools.product(range(11), range(4), range(8))))
    region, kind, magnitude = (jnp.array(grid[:, i]) for i in range(3))

    def chosen(logits):
        executed = {name: policy.executed_log_probs(value, 0.2) for name, value in logits.items()}
        return {
            "region": executed["region"][region],
            "type": executed["type"][kind],
            "magnitude": executed["magnitude"][magnitude],
        }

    def expected_reward(logits):
        return jnp.sum(jnp.exp(sum(chosen(logits).values())) * table[region, kind, magnitude])

    def surrogate(logits):
        weight = jax.lax.stop_gradient(jnp.exp(sum(chosen(logits).values()))) * table[region, kind, magnitude]
        return jnp.sum(weight * policy.joint_log_prob(chosen(logits), kind))

    exact, estimated = jax.jit(jax.grad(expected_reward))(logits), jax.jit(jax.grad(surrogate))(logits)
    for name in logits:
        np.testing.assert_allclose(estimated[name], exact[name], atol=1e-6)
        assert np.abs(exact[name]).max() > 1e-4


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.2, 1.0])
def test_entropy_never_falls_below_its_floor(epsilon):
    rng = np.random.default_rng(5)
    logits = {}
    for name, n in policy.HEADS.items():
        random = rng.standard_normal((50, n)) * rng.choice([0.1, 10, 1e3], (50, 1))
        logits[name] = np.concatenate([1e4 * np.eye(n), random]).astype(np.float32)
    for name, values in ENTROPY(logits, epsilon).items():
        n = policy.HEADS[name]
        floor = policy.entropy_floor(epsilon, n)
        assert float(values.min()) >= floor - 1e-4
        np.testing.assert_allclose(values[:n], floor, atol=1e-4)  # and the corners attain it
        assert float(values.max()) <= np.log(n) + 1e-4


@pytest.mark.parametrize("actions", [4, 8, 11])
def test_epsilon_for_a_wanted_floor(actions):
    for floor in (0.1, 0.5, 0.9):
        epsilon = policy.epsilon_for_floor(floor, actions)
        assert policy.entropy_floor(epsilon, actions) == pytest.approx(floor * np.log(actions), rel=1e-6)
    assert policy.epsilon_for_floor(0.0, actions) == 0.0
    assert policy.epsilon_for_floor(1.0, actions) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ValueError, match="entropy floor"):
        policy.epsilon_for_floor(1.2, actions)


def test_reinforce_by_hand():
    log_prob = jnp.array([-1.0, -2.0, jnp.nan, -4.0])
    head_entropy = {"region": jnp.array([1.0, 2.0, jnp.nan, 3.0])}
    reward = jnp.array([1.0, 2.0, jnp.nan, 6.0])
    mask = jnp.array([True, True, False, True])

    def loss_of(log_prob, baseline):
        loss, *rest = policy.reinforce_loss(
            log_prob, head_entropy, reward, mask, baseline, decay=0.9, entropy_weight=0.5
        )
        return loss, rest

    run = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    (loss, (first, scalars)), grad = run(log_prob, policy.init_baseline())
    # First batch: mean 3, variance (4 + 1 + 9) / 3, advantages (-2, -1, 3) / std.
    std = np.sqrt(14 / 3)
    assert float(loss) == pytest.approx(-((-2 * -1) + (-1 * -2) + (3 * -4)) / std / 3 - 0.5 * 2.0, rel=1e-5)
    np.testing.assert_allclose(grad, np.array([2, 1, 0, -3]) / std / 3, rtol=1e-5)
    assert [float(first[k]) for k in ("mean", "variance", "count")] == pytest.approx([3, 14 / 3, 1], rel=1e-5)
    assert float(scalars["policy/entropy_region"]) == pytest.approx(2.0)
    # Then the moving figures of before: mean 0, variance 4.
    before = {"mean": jnp.zeros(()), "variance": jnp.full((), 4.0), "count": jnp.ones(())}
    (_, (second, _)), grad = run(log_prob, before)
    np.testing.assert_allclose(grad, -np.array([1, 2, 0, 6]) / 2 / 3, rtol=1e-5)
    assert float(second["mean"]) == pytest.approx(0.9 * 0 + 0.1 * 3, rel=1e-5)
    assert float(second["variance"]) == pytest.approx(0.9 * 4 + 0.1 * (1 + 4 + 36) / 3, rel=1e-5)


def test_reinforce_without_a_row_changes_nothing():
    zero, nobody = jnp.zeros(3), jnp.zeros(3, bool)
    before = {"mean": jnp.ones(()), "variance": jnp.full((), 2.0), "count": jnp.full((), 5.0)}
    loss, after, _ = policy.reinforce_loss(zero, {"type": zero}, zero, nobody, before)
    assert float(loss) == 0.0
    assert jax.tree.map(float, after) == jax.tree.map(float, before)


def test_policy_learns_a_bandit_and_keeps_its_floor():
    """Reward 1 for a mouth blended dynamically at the strongest bins: the executed share rises far above chance."""
    mouth = schema.REGIONS.index("mouth")
    logits = {name: jnp.zeros(n) for name, n in policy.HEADS.items()}

    @jax.jit
    def step(logits, baseline, key):
        def loss_fn(logits):
            rows = {name: jnp.broadcast_to(value, (256, value.shape[0])) for name, value in logits.items()}
            actions, log_probs = policy.sample(key, rows, 0.2)
            hit = (actions["type"] == DYNAMIC) * (1.0 + (actions["region"] == mouth) + (actions["magnitude"] >= 6))
            loss, following, _ = policy.reinforce_loss(
                policy.joint_log_prob(log_probs, actions["type"]),
                policy.entropy(rows, 0.2),
                hit.astype(jnp.float32),
                jnp.ones(256, bool),
                baseline,
            )
            return loss, following

        grads, following = jax.grad(loss_fn, has_aux=True)(logits)
        return jax.tree.map(lambda x, g: x - 1.0 * g, logits, grads), following

    baseline, key = policy.init_baseline(), jax.random.key(6)
    for i in range(150):
        logits, baseline = step(logits, baseline, jax.random.fold_in(key, i))
    share = {name: np.exp(policy.executed_log_probs(value, 0.2)) for name, value in logits.items()}
    assert share["type"][DYNAMIC] > 0.7 and share["region"][mouth] > 0.6 and share["magnitude"][6:].sum() > 0.7
    for name, n in policy.HEADS.items():
        assert share[name].min() >= 0.2 / n - 1e-6
        entropies = policy.entropy({name: logits[name][None]}, 0.2)
        assert float(entropies[name][0]) >= policy.entropy_floor(0.2, n)


def test_action_shares_count_by_name():
    actions = {
        "region": jnp.array([0, 0, 10, 4]),
        "type": jnp.array([0, 3, 3, 1]),
        "magnitude": jnp.array([7, 7, 1, 0]),
    }
    shares = policy.action_shares(actions, jnp.array([True, True, True, False]))
    assert len(shares) == 11 + 4 + 8
    assert float(shares["policy/region/left_eye"]) == pytest.approx(2 / 3)
    assert float(shares["policy/type/poisson"]) == 0.0
    assert float(shares["policy/magnitude/7"]) == pytest.approx(2 / 3)
    for head in policy.HEADS:
        total = sum(float(v) for k, v in shares.items() if k.startswith(f"policy/{head}/"))
        assert total == pytest.approx(1.0)


def test_pathwise_values_ascend_and_explore():
    values = {name: jnp.full((1000,), 0.5 + 0.1 * i) for i, name in enumerate(policy.PATHWISE)}

    def loss(values, epsilon):
        executed = policy.adversarial_values(jax.random.key(7), values, epsilon, 0.3)
        return sum(jnp.sum(v) for v in executed.values()), executed

    grads, executed = jax.grad(loss, has_aux=True)(values, 0.2)
    explores = np.asarray(executed["strength"] != values["strength"])
    assert explores.mean() == pytest.approx(0.2, abs=0.04)
    for name in values:
        assert float(executed[name].min()) > 0 and float(executed[name].max()) < 1
        np.testing.assert_allclose(grads[name], np.where(explores, 0.0, -0.3), atol=1e-6)
        assert np.asarray(executed[name])[explores].std() == pytest.approx(np.sqrt(1 / 12), abs=0.04)
    _, executed = loss(values, 0.0)
    np.testing.assert_array_equal(executed["color"], values["color"])
