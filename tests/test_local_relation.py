"""Local relation learning: losses and likeness by hand, the high-pass beside OpenCV, wrong settings."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.detectors import local_relation as config_file
from msddf_jax import detector, steps
from msddf_jax.detectors import local_relation as detector_file
from msddf_jax.models import local_relation


def test_losses_by_hand():
    # A real, a fake of which the left half is changed, a fake whose mask is not known.
    mask = np.zeros((3, 4, 4, 1), np.float32)
    mask[1, :, :2] = 1
    # Patches of the fake are changed, not, changed, not: 1 - |r_i - r_j| is 1 for those alike and 0 for the others.
    alike = np.ones((3, 4, 4), np.float32)
    alike[0, 0, 1] = 0.5
    alike[1, 0, 1] = alike[1, 1, 0] = 0.2
    logits = np.full((3, 2, 2, 1), -np.log(3), np.float32)
    logits[1, :, 0] = 0
    out = {"logits": jnp.tile(jnp.asarray([[0.0, np.log(3.0)]]), (3, 1)), "map_logits": logits, "likeness": alike}
    rows = {"label": jnp.asarray([0, 1, 1]), "mask": mask, "has_mask": jnp.asarray([True, True, False])}
    terms = jax.jit(lambda out, rows: detector_file.losses(out, rows, None))(out, rows)
    np.testing.assert_allclose(terms["label"][0], np.log([4, 4 / 3, 4 / 3]), rtol=1e-6)
    values, known = terms["mask"]
    # sigmoid(-log 3) is 1/4: log 4/3 where nothing is to be, log 2 at one half.
    np.testing.assert_allclose(values[:2], [np.log(4 / 3), (np.log(4 / 3) + np.log(2)) / 2], rtol=1e-6)
    assert known.tolist() == terms["similarity"][1].tolist() == [True, True, False]
    # One of sixteen is 0.5 off; of eight that are to be 0, two are 0.2 and six are 1.
    np.testing.assert_allclose(terms["similarity"][0][:2], [0.25 / 16, (2 * 0.04 + 6) / 16], rtol=1e-6)
    total, _ = steps.weighted_sum(terms, config_file.get_config().loss_weights.to_dict())
    expected = np.log([4, 4 / 3, 4 / 3]).mean() + np.mean(values[:2]) + (0.25 + 6.08) / 32
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_shares_of_patches_need_not_be_whole():
    # A quarter of the first patch is changed: 1 - 1/4 beside the others.
    mask = np.zeros((1, 4, 4, 1), np.float32)
    mask[0, 0, 0] = 1
    wanted = np.ones((1, 4, 4), np.float32)
    wanted[0, 0, 1:] = wanted[0, 1:, 0] = 0.75
    out = {"logits": jnp.zeros((1, 2)), "map_logits": jnp.zeros((1, 4, 4, 1)), "likeness": wanted}
    rows = {"label": jnp.ones(1, int), "mask": mask, "has_mask": jnp.ones(1, bool)}
    np.testing.assert_allclose(detector_file.losses(out, rows, None)["similarity"][0], 0, atol=1e-12)


@pytest.mark.parametrize("size", [32, 48])
def test_the_high_pass_is_opencvs(size):
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    kept = np.add.outer(np.arange(size), np.arange(size)) >= 0.33 * size
    expected = []
    for image in images:
        spectrum = cv2.dct(np.float32(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)))
        expected.append(cv2.idct(spectrum * np.float32(kept)))
    seen = jax.jit(lambda x: local_relation.high_pass(x, 0.33, rounded=True))(np.float32(images) / 255)
    np.testing.assert_allclose(255 * seen[..., 0], expected, atol=1e-3)
    # Not rounded, grey levels are up to one half off.
    exact = local_relation.high_pass(np.float32(images) / 255, 0.33)
    off = np.abs(255 * np.asarray(exact)[..., 0] - expected)
    assert 0.1 < off.max() < 2


def test_the_gradient_of_rounded_grey_levels_is_that_of_others():
    image = np.float32(np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3)) / 255)
    weigh = np.random.default_rng(2).normal(size=(1, 16, 16, 1))
    slope = lambda rounded: jax.grad(lambda x: (weigh * local_relation.high_pass(x, 0.33, rounded)).sum())(image)
    assert np.abs(slope(True)).max() > 0.1
    np.testing.assert_allclose(slope(True), slope(False), atol=1e-6)


def test_likeness_is_of_patches_in_numpys_way():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 6, 5)).astype(np.float32)
    patches = np.stack([x[:, i : i + 2, j : j + 2].reshape(2, -1) for i in (0, 2, 4) for j in (0, 2, 4)], axis=1)
    patches /= np.linalg.norm(patches, axis=-1, keepdims=True)
    expected = (1 + patches @ patches.transpose(0, 2, 1)) / 2
    alike = jax.jit(local_relation.likeness)(x)
    np.testing.assert_allclose(alike, expected, atol=1e-6)
    others = local_relation.of_others(alike)
    assert others.shape == (2, 72)
    # Row by row without the diagonal: what the first has with the second to the ninth, the second with the first.
    np.testing.assert_array_equal(others[:, :9], np.concatenate([alike[:, 0, 1:], alike[:, 1, :1]], axis=1))


def test_a_patch_of_zeros_is_unlike_all_and_has_a_finite_gradient():
    x = jnp.zeros((1, 4, 4, 2)).at[0, 2:].set(1.0)
    value, slope = jax.value_and_grad(lambda x: local_relation.likeness(x)[0, 0].sum())(x)
    np.testing.assert_allclose(value, 4 * 0.5, rtol=1e-6)
    assert np.isfinite(slope).all()


def test_maps_are_brought_to_the_grid_by_nearest_cells():
    x = jnp.arange(144).reshape(1, 12, 12, 1)
    np.testing.assert_array_equal(local_relation.to_grid(x, 6)[0, :, :, 0], np.arange(144).reshape(12, 12)[::2, ::2])
    small = jnp.asarray([[1, 2], [3, 4]]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(
        local_relation.to_grid(small, 4)[0, :, :, 0], np.kron([[1, 2], [3, 4]], np.ones((2, 2)))
    )


def test_an_instance_norm_is_each_images_own():
    x = np.random.default_rng(0).normal(3, 2, (2, 4, 4, 3)).astype(np.float32)
    expected = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(local_relation._instance_norm(jnp.asarray(x)), expected, atol=1e-5)


def test_published_weights_start_both_networks():
    stem = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    flat = {"params/backbone/stem/kernel": stem, "batch_stats/backbone/stem_norm/mean": np.ones(8, np.float32)}
    spread = detector_file.from_backbone(flat, None)
    assert {name.split("/")[2] for name in spread} == {"rgb", "frequency"} and len(spread) == 4
    np.testing.assert_array_equal(spread["params/backbone/rgb/stem/kernel"], stem)
    # On grey levels it gives what three equal colours gave.
    grey = spread["params/backbone/frequency/stem/kernel"]
    np.testing.assert_allclose(grey, stem.sum(2, keepdims=True), rtol=1e-6)


def test_sizes_of_the_demo():
    config = config_file.get_config("demo")
    model, rows = detector.make_model(config), detector.example_batch(config, 2)
    out = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), rows, train=False)[0])
    assert out["likeness"].shape == (2, 9, 9) and out["feature"].shape == (2, 72)
    assert out["map_logits"].shape == (2, 96, 96, 1)
    assert [out[f"attention_{d}"].shape[1:] for d in detector_file.DEPTHS] == [(12, 12, 2), (6, 6, 2), (3, 3, 2)]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("places", ("block_4", "block_2", "head"), "places is .*, expected two of stem, .* and head"),
        ("places", ("block_2", "block_77", "head"), "block_77"),
        ("places", ("block_2", "block_4", "block_5"), "and head"),
        ("places", ("block_2", "head"), "expected two of"),
        ("grid", 7, "grid is 7, expected an even number"),
    ],
)
def test_wrong_settings_are_named(field, value, said):
    config = config_file.get_config("demo").unlock()
    config.model[field] = value
    with pytest.raises(ValueError, match=said):
        detector.weight_shapes(config)
