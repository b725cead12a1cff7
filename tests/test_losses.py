import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax import losses


def test_masked_mean_divides_by_the_rows_that_count():
    values = jnp.array([1.0, 3.0, jnp.nan, 100.0])
    assert losses.masked_mean(values, jnp.array([1, 1, 0, 0])) == 2.0
    assert losses.masked_mean(values, jnp.zeros(4)) == 0.0


def test_masked_mean_gradient_ignores_what_is_masked():
    grad = jax.grad(lambda v: losses.masked_mean(v, jnp.array([1, 1, 0, 1])))(jnp.array([1.0, 2.0, jnp.inf, 4.0]))
    np.testing.assert_allclose(grad, [1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-6)


def test_label_ce_by_hand():
    # softmax of (0, log 3) is (1/4, 3/4).
    logits = jnp.array([[0.0, np.log(3.0)], [0.0, np.log(3.0)]])
    np.testing.assert_allclose(losses.label_ce(logits, jnp.array([0, 1])), [np.log(4), np.log(4 / 3)], rtol=1e-6)


def test_arc_without_margin_is_scaled_ce_and_margin_raises_it():
    cosine, label = jnp.array([[0.2, 0.7], [-0.3, 0.1]]), jnp.array([1, 0])
    plain = losses.label_ce(30.0 * cosine, label)
    np.testing.assert_allclose(losses.label_arc(cosine, label, margin=0.0), plain, rtol=1e-4)
    assert (losses.label_arc(cosine, label, margin=0.3) > plain).all()


def test_arc_by_hand():
    # theta = pi/3, margin pi/6: cos(pi/2) = 0 for the class, the other stays.
    cosine = jnp.array([[0.5, 0.25]])
    want = losses.label_ce(jnp.array([[0.0, 0.25 * 8.0]]), jnp.array([0]))
    np.testing.assert_allclose(losses.label_arc(cosine, jnp.array([0]), scale=8.0, margin=np.pi / 6), want, rtol=1e-5)


@pytest.mark.parametrize("extreme", [-1.0, 1.0])
def test_arc_is_finite_at_the_ends(extreme):
    grad = jax.grad(lambda c: losses.label_arc(c, jnp.array([0])).sum())(jnp.array([[extreme, 0.0]]))
    assert jnp.isfinite(grad).all()


def test_map_losses_by_hand():
    target = jnp.array([1.0, 0.0, 0.0, 1.0]).reshape(1, 2, 2, 1)
    zero = jnp.zeros((1, 2, 2, 1))
    # Every probability is 1/2: two positives weigh 2.
    np.testing.assert_allclose(losses.map_bce(zero, target, pos_weight=2.0), [np.log(2) * (2 * 2 + 2) / 4], rtol=1e-6)
    # overlap 1, sums of squares 1 and 2: 1 - (2+1)/(3+1).
    np.testing.assert_allclose(losses.map_dice(zero, target), [0.25], rtol=1e-6)
    assert losses.map_dice(50.0 * (2 * target - 1), target)[0] < 1e-6


def test_multilabel_and_strength_by_hand():
    np.testing.assert_allclose(losses.multilabel_bce(jnp.zeros((1, 5)), jnp.ones((1, 5))), [np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(losses.strength_mse(jnp.array([0.2]), jnp.array([0.7])), [0.25], rtol=1e-5)


def test_uniformity_and_alignment_by_hand():
    # Pairs: (0,1) at distance^2 2, (0,2) at 4, (1,2) at 2; row 3 is padding.
    z = jnp.array([[1.0, 0], [0, 1], [-1, 0], [1, 0]])
    mask = jnp.array([1, 1, 1, 0])
    want = np.log((np.exp(-4) + np.exp(-8) + np.exp(-4)) / 3)
    np.testing.assert_allclose(losses.feature_uniformity(z, mask), np.full(4, want), rtol=1e-5)
    np.testing.assert_allclose(losses.feature_alignment(z, jnp.array([0, 1, 0, 0]), mask), np.full(4, 4.0), rtol=1e-5)
    assert (losses.feature_alignment(z, jnp.array([0, 1, 2, 0]), mask) == 0).all()


def test_uniformity_gradient_is_finite_for_equal_rows():
    grad = jax.grad(lambda z: losses.feature_uniformity(z, jnp.ones(3)).mean())(jnp.ones((3, 4)) / 2)
    assert jnp.isfinite(grad).all()


def test_pair_cosine_range():
    a = jnp.array([[1.0, 0], [1, 0], [1, 0]])
    b = jnp.array([[2.0, 0], [0, 3], [-1, 0]])
    np.testing.assert_allclose(losses.pair_cosine(a, b), [0, 1, 2], atol=1e-6)


def test_decorrelation_by_hand():
    every = jnp.ones(4, bool)
    up, other = jnp.array([[0.0], [1.0], [2.0], [3.0]]), jnp.array([[1.0], [-1.0], [-1.0], [1.0]])
    # Perfectly correlated, the other way about, not at all.
    for second, expected in ((5 + 2 * up, 1.0), (-up, 1.0), (other, 0.0)):
        np.testing.assert_allclose(losses.feature_decorrelation(up, second, every), [expected] * 4, atol=1e-5)
    # Summed over pairs of channels: 1 + 0 + 0 + 1; a channel that does not vary adds nothing.
    both = jnp.concatenate([up, other], axis=1)
    np.testing.assert_allclose(losses.feature_decorrelation(both, 3 * both, every)[0], 2.0, rtol=1e-5)
    np.testing.assert_allclose(losses.feature_decorrelation(up, jnp.ones((4, 2)), every)[0], 0.0, atol=1e-6)
    # Rows that do not count do not count.
    wild, mask = jnp.concatenate([up, jnp.array([[-90.0]])]), jnp.arange(5) < 4
    np.testing.assert_allclose(losses.feature_decorrelation(wild, jnp.arange(5.0)[:, None], mask)[0], 1.0, rtol=1e-5)
    gradient = jax.grad(lambda b: losses.feature_decorrelation(up, b, every).sum())(jnp.ones((4, 2)))
    assert jnp.isfinite(gradient).all()


def test_known_classes_alone_count():
    logits, index = jnp.array([[2.0, 0.0], [2.0, 0.0], [0.0, 9.0]]), jnp.array([0, 1, -1])
    values, mask = losses.known_ce(logits, index)
    np.testing.assert_allclose(values[:2], [np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))], rtol=1e-5)
    assert mask.tolist() == [True, True, False]
    assert losses.known_accuracy(logits, index) == 0.5


def test_unit_has_a_finite_gradient_at_zero():
    assert jnp.isfinite(jax.grad(lambda x: losses.unit(x).sum())(jnp.zeros(4))).all()


def test_slerp_stays_on_the_sphere_and_within_the_class():
    key = jax.random.key(1)
    z = losses.unit(jax.random.normal(jax.random.key(2), (6, 8)))
    label = jnp.array([0, 0, 0, 1, 1, 1])
    moved = losses.slerp_same_class(key, z, label, probability=1.0, t_max=0.5)
    np.testing.assert_allclose(jnp.linalg.norm(moved, axis=1), 1.0, rtol=1e-5)
    assert not np.allclose(moved, z)
    # A point of the arc between z and a partner: the angles to both add up to the angle between them.
    angle = lambda a, b: np.arccos(np.clip(a @ b, -1, 1))
    z, moved = np.asarray(z, np.float64), np.asarray(moved, np.float64)
    for i in range(6):
        same = [j for j in range(6) if j != i and label[j] == label[i]]
        gaps = [abs(angle(z[i], moved[i]) + angle(moved[i], z[j]) - angle(z[i], z[j])) for j in same]
        assert min(gaps) < 1e-3
        nearest = same[int(np.argmin(gaps))]
        assert angle(z[i], moved[i]) <= 0.5 * angle(z[i], z[nearest]) + 1e-3


def test_slerp_leaves_a_lonely_row():
    z = losses.unit(jax.random.normal(jax.random.key(2), (3, 4)))
    moved = losses.slerp_same_class(jax.random.key(0), z, jnp.array([0, 1, 1]), probability=1.0)
    np.testing.assert_array_equal(moved[0], z[0])


def test_fidelity_of_nodes_by_hand():
    p, g = np.array([[0.64, 0.36], [1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    log_p, log_rest = np.log(np.maximum(p, 1e-30)), np.log(np.maximum(1 - p, 1e-30))
    # 1 - sqrt(.64) and 1 - sqrt(1 - .36), less sqrt(1e-8) for the class that is not there; then 1 - 1 - 1e-4, and
    # 1 - 2e-4.
    expected = [0.2 - 1e-4, 0.5 - 1.5e-4]
    np.testing.assert_allclose(losses.node_fidelity(log_p, log_rest, g), expected, atol=1e-6)


def test_cross_entropy_of_nodes_counts_the_known_over_all():
    p, g = np.array([[0.5, 0.25, 0.1]]), np.array([[1.0, 0.0, 1.0]])
    known = np.array([[True, True, False]])
    loss = losses.node_ce(np.log(p), np.log(1 - p), g, known)
    np.testing.assert_allclose(loss, [(np.log(2) + np.log(4 / 3)) / 3], rtol=1e-6)
