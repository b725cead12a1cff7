"""PCL + I2G: targets and losses of pairs of cells by hand, the map against the ring, and the masks of its generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_points import face_images, face_points

from configs.detectors import pcl_i2g as config_file
from msddf_jax import detector, steps
from msddf_jax.detectors import pcl_i2g
from msddf_jax.synth import face_xray


def _log_odds(share):
    return np.log(share) - np.log1p(-share)


def test_losses_by_hand():
    # Masks of 4 x 4 pixels on 2 x 2 cells: of the fake they are 1, 0.5, 0 and 0. Real, fake, fake without a mask.
    mask = np.zeros((3, 4, 4, 1), np.float32)
    mask[1, :2, :2], mask[1, 0, 2:] = 1.0, 1.0
    target = 1 - np.abs(np.subtract.outer([1, 0.5, 0, 0], [1, 0.5, 0, 0]))
    np.testing.assert_array_equal(target, [[1, 0.5, 0, 0], [0.5, 1, 0.5, 0.5], [0, 0.5, 1, 1], [0, 0.5, 1, 1]])
    # Every pair is said to be of one source with 3/4, but the first cell's with the third: 1/4.
    seen = np.full((3, 4, 4), _log_odds(0.75), np.float32)
    seen[:, 0, 2] = _log_odds(0.25)
    out = {
        "logits": jnp.tile(jnp.array([[0.0, np.log(3.0)]]), (3, 1)),
        "consistency": jnp.asarray(seen),
        "map_logits": jnp.zeros((3, 2, 2, 1)),
    }
    rows = {"label": jnp.array([0, 1, 1]), "mask": mask, "has_mask": jnp.array([True, True, False])}
    terms = pcl_i2g.losses(out, rows, None)
    np.testing.assert_allclose(terms["label"][0], [np.log(4), np.log(4 / 3), np.log(4 / 3)], rtol=1e-6)
    values, known = terms["consistency"]
    assert known.tolist() == [True, True, False]
    yes, no = -np.log(0.75), -np.log(0.25)
    # Of the real 15 pairs of 16 are answered with 3/4 and one with 1/4, and all are of one source.
    np.testing.assert_allclose(values[0], (15 * yes + no) / 16, rtol=1e-6)
    # Of the fake six pairs are alike, six half, and four not, of which one is answered as it is.
    np.testing.assert_allclose(values[1], (6 * yes + 6 * (yes + no) / 2 + 3 * no + yes) / 16, rtol=1e-6)
    total, _ = steps.weighted_sum(terms, {"label": 1.0, "consistency": 10.0})
    label = (np.log(4) + 2 * np.log(4 / 3)) / 3
    np.testing.assert_allclose(total, label + 10 * float(values[:2].mean()), rtol=1e-6)


def test_the_loss_is_least_at_its_target_and_finite_at_the_ends():
    mask = np.zeros((1, 4, 4, 1), np.float32)
    mask[0, 1:3, 1:3] = 0.7
    rows = {"label": jnp.array([1]), "mask": mask, "has_mask": jnp.array([True])}
    flat = mask.reshape(-1)
    target = 1 - np.abs(flat[:, None] - flat[None])

    def loss(consistency):
        out = {"logits": jnp.zeros((1, 2)), "consistency": consistency[None], "map_logits": jnp.zeros((1, 4, 4, 1))}
        return pcl_i2g.losses(out, rows, None)["consistency"][0][0]

    best = jnp.asarray(_log_odds(np.clip(target, 1e-6, 1 - 1e-6)), jnp.float32)
    np.testing.assert_allclose(jax.grad(loss)(best), 0, atol=1e-6)
    extreme = jax.value_and_grad(loss)(jnp.full((16, 16), -200.0))
    assert all(np.isfinite(value).all() for value in extreme)


def test_the_map_is_the_mask_where_consistency_is_right():
    # 25 cells, of which more than half are forged: the ring is not.
    mask = np.zeros((5, 5), np.float32)
    mask[1:4, 1:4] = [[0.2, 0.9, 0.5], [0.6, 0.8, 0.8], [0.3, 0.7, 0.4]]
    flat = mask.ravel()
    consistency = _log_odds(np.clip(1 - np.abs(flat[:, None] - flat[None]), 1e-6, 1 - 1e-6))
    made = jax.nn.sigmoid(pcl_i2g._map_logits(jnp.asarray(consistency[None], jnp.float32), 5))
    np.testing.assert_allclose(made[0, :, :, 0], np.clip(mask, 1e-4, 1 - 1e-4), atol=1e-5)
    # Both directions count: each cell of a 2 x 2 map is in the ring.
    one_way = jnp.full((1, 4, 4), 40.0).at[0, 0].set(-40.0)
    made = jax.nn.sigmoid(pcl_i2g._map_logits(one_way, 2))
    # The first cell is unlike itself, and the others by half; of these each is unlike the first by half.
    np.testing.assert_allclose(made.ravel(), [(1 + 3 / 2) / 4, *[0.5 / 4] * 3], atol=1e-5)


@pytest.mark.long  # Five seconds to compile; one embedding for both is in test_golden.
@pytest.mark.parametrize("shared", [False, True])
def test_embeddings_are_compared_by_their_products(shared):
    model = pcl_i2g.Model("Mu", 32, stage="stage_2", shared=shared)
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    run = lambda: model.init_with_output(jax.random.key(1), {"image": images}, train=False)
    out, variables = jax.jit(run)()
    assert ("phi" in variables["params"]) != shared
    kept = model.apply(
        variables, {"image": images}, train=False, capture_intermediates=lambda m, _: m.name == "backbone"
    )[1]
    cells = np.asarray(kept["intermediates"]["backbone"]["__call__"][0]["stages"]["stage_2"]).reshape(2, 16, 16)
    embed = lambda name: cells @ variables["params"][name]["kernel"] + variables["params"][name]["bias"]
    one, other = embed("theta"), embed("theta" if shared else "phi")
    np.testing.assert_allclose(out["consistency"], one @ other.transpose(0, 2, 1) / 4, atol=1e-5)
    assert out["map_logits"].shape == (2, 4, 4, 1)
    # Undecided to begin with.
    assert np.abs(out["consistency"]).max() < 1


def test_the_generator_deforms_and_erodes_its_hulls():
    image, points, identity = jnp.asarray(face_images(64, 6)), jnp.asarray(face_points(64, 6)), jnp.arange(6)
    still = {"hulls": ("facehull",), "deform": 0.0}
    run = lambda **cfg: np.asarray(
        jax.jit(lambda: face_xray.face_xray(jax.random.key(0), image, points, identity, **cfg))()["map"]
    )[..., 0]
    plain, eroded = run(**still), run(**still, erode=True)
    # Erosion takes a share of the mask away and never adds.
    assert (eroded.mean((1, 2)) < 0.95 * plain.mean((1, 2))).all() and (eroded.max((1, 2)) > 0.99).all()
    elastic = run(**still, elastic=50.0)
    moved = np.abs(elastic - plain).mean((1, 2))
    assert (moved > 1e-3).all() and (moved < 0.3 * plain.mean((1, 2))).all()


def test_a_stage_that_is_not_there_is_named():
    config = config_file.get_config("demo").unlock()
    config.model.stage = "block_7"
    with pytest.raises(ValueError, match=r"model\.stage is 'block_7'; resnet Mu has stem, stage_1"):
        detector.weight_shapes(config)
