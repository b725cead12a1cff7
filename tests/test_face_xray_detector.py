"""Face X-ray: its targets are of the mask that blended, its losses by hand, and both heads against NumPy."""

import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_batch

from configs.detectors import face_xray as config_file
from msddf_jax import hooks, train, trees
from msddf_jax.data import schema
from msddf_jax.detectors import face_xray as detector
from msddf_jax.synth import color, compose, recipes

SIZE = 48


def _context(soften=0.0):
    return types.SimpleNamespace(config=types.SimpleNamespace(loss_args=types.SimpleNamespace(soften=soften)))


def _forge(batch, monkeypatch, **recipe):
    """Rows of compose with black targets and white faces: a forgery's pixels are the weights that blended it."""
    monkeypatch.setattr(color, "transfer_rct_m", lambda source, target, mask: jnp.ones_like(source))
    recipe, group = {"name": "face_xray", **recipe}, schema.Group(2, 0, nearest="x" if recipe else "")
    layout = compose.make_layout(group, recipe)
    run = lambda b: compose.compose(jax.random.key(1), b, layout=layout, recipe=recipe)
    return jax.device_get(jax.jit(run)(dict(batch, image=np.zeros_like(batch["image"]))))


def test_targets_are_the_xray_of_the_mask_that_blended(monkeypatch):
    rows = _forge(make_batch((2, 0), groups=2, size=SIZE), monkeypatch)
    weight = rows["image"].mean(-1, keepdims=True)
    forged = rows["role"] == compose.ROLES.index("forgery")
    assert rows["label"].tolist() == forged.astype(int).tolist() and forged.sum() == 4
    target = np.asarray(detector._target(rows, SIZE, 4.0))
    np.testing.assert_allclose(target[forged], 4 * weight[forged] * (1 - weight[forged]), atol=1e-5)
    assert (target[forged].max((1, 2, 3)) > 0.9).all() and not target[~forged].any()
    # At half the side, of the X-ray and not of the mask.
    halves = target.reshape(-1, SIZE // 2, 2, SIZE // 2, 2).mean((2, 4))
    np.testing.assert_allclose(detector._target(rows, SIZE // 2, 4.0)[..., 0], halves, atol=1e-6)


@pytest.mark.long  # compiles the recipe once more
def test_the_other_real_of_a_group_lends_its_face_where_it_is_another_persons(monkeypatch):
    batch = make_batch((2, 0), groups=3, size=SIZE)
    # The first group is two people, the second one, the third unknown ones of two videos.
    batch["identity"] = np.array([0, 1, 2, 2, -5, -6], np.int32)
    rows = _forge(batch, monkeypatch, partner="group")
    forged = rows["role"] == compose.ROLES.index("forgery")
    assert rows["label"][forged].tolist() == [1, 1, 0, 0, 1, 1]


def test_losses_by_hand():
    # A real; a forgery of weight 1/4 and 1/2; a fake without a mask.
    mask = np.zeros((3, 1, 2, 1), np.float32)
    mask[1, 0, :, 0] = 0.25, 0.5
    rows = {"label": jnp.array([0, 1, 1]), "mask": mask, "has_mask": jnp.array([True, True, False])}
    rows["role"] = jnp.array([0, 2, 3])
    logits = np.zeros((3, 2, 2, 1), np.float32)
    logits[0] = np.log(1 / 3)
    out = {"logits": jnp.tile(jnp.array([[0.0, np.log(3.0)]]), (3, 1)), "xray": 1 / (1 + np.exp(-logits))}
    terms = detector.losses(out | {"xray_logits": logits}, rows, _context())
    # softmax of (0, log 3) is (1/4, 3/4).
    np.testing.assert_allclose(terms["label"][0], [np.log(4), np.log(4 / 3), np.log(4 / 3)], rtol=1e-6)
    assert terms["label"][1].all() and terms["xray"][1].tolist() == [True, True, False]
    # A real's X-ray is 0 where 1/4 was said: -log 3/4. At one half every target costs log 2.
    np.testing.assert_allclose(terms["xray"][0][:2], [np.log(4 / 3), np.log(2)], rtol=1e-6)
    squares = detector.losses(out, rows, _context())["xray"][0]
    # Targets are 3/4 and 1: (1/4^2 + 1/2^2) / 2.
    np.testing.assert_allclose(squares[:2], [1 / 16, (1 / 16 + 1 / 4) / 2], rtol=1e-6)


def test_masks_of_a_data_set_are_softened_and_no_others():
    mask = np.zeros((2, 64, 64, 1), np.float32)
    mask[:, 16:40, 20:50] = 1.0
    rows = {"mask": mask, "role": np.array([compose.ROLES.index(r) for r in ("dataset_fake", "forgery")])}
    target = np.asarray(detector._target(rows, 64, 8.0))[..., 0]
    # A standard deviation of 8 pixels of 256 is 2 of 64.
    soft = cv2.GaussianBlur(mask[0, ..., 0], (13, 13), 2.0, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(target[0], 4 * soft * (1 - soft), atol=1e-5)
    assert target[0].max() > 0.9 and not target[1].any()
    assert not np.asarray(detector._target(rows, 64, 0.0)).any()


def _run(port, seed=0):
    """(variables, output) of a model on a small backbone, of which only the head is looked at."""
    model = detector.Model("Mu", 32, family="vgg", port=port, map_size=16)
    rng = np.random.default_rng(seed)
    rows = {"image": rng.random((3, 32, 32, 3), np.float32)}
    shapes = trees.flatten(dict(jax.eval_shape(lambda: model.init(jax.random.key(0), rows, train=False))))
    draw = lambda name, s: rng.uniform(0.5, 1.5, s) if name.endswith(("scale", "var")) else rng.normal(0, 0.1, s)
    flat = {name: draw(name, s.shape).astype(np.float32) for name, s in shapes.items()}
    out = jax.jit(lambda v: model.apply(v, rows, train=False))(trees.unflatten(flat))
    return flat, jax.device_get(out)


def test_the_papers_head_decides_by_the_mean_of_the_xray():
    flat, out = _run(False)
    cells = out["spatial"] @ flat["params/xray_head/kernel"] + flat["params/xray_head/bias"]
    np.testing.assert_allclose(out["map_logits"], cells, atol=1e-4)
    large = np.stack([cv2.resize(c, (16, 16), interpolation=cv2.INTER_LINEAR) for c in np.asarray(cells)])
    xray = 1 / (1 + np.exp(-large))
    np.testing.assert_allclose(out["xray"][..., 0], xray, atol=1e-4)
    head = {k: flat[f"params/binary_head/out/{k}"] for k in ("kernel", "bias")}
    np.testing.assert_allclose(out["logits"], xray.mean((1, 2))[:, None] @ head["kernel"] + head["bias"], atol=1e-4)
    assert "pooled" not in out and out["feature"].shape == (3, out["spatial"].shape[-1])


def test_the_ports_head_reads_the_xray_in_three_layers():
    flat, out = _run(True)
    assert "xray_logits" not in out and out["xray"].shape == (3, 16, 16, 1)
    pooled = out["xray"].reshape(3, 8, 2, 8, 2).mean((2, 4))
    np.testing.assert_allclose(out["pooled"][..., 0], pooled, rtol=1e-4)
    y = pooled.reshape(3, -1)
    for number in (0, 1):
        get = lambda part, name, n=number: flat[f"{part}_{n}/{name}"]
        y = y @ get("params/hidden", "kernel") + get("params/hidden", "bias")
        y = (y - get("batch_stats/hidden_norm", "mean")) / np.sqrt(get("batch_stats/hidden_norm", "var") + 1e-5)
        y = np.maximum(y * get("params/hidden_norm", "scale") + get("params/hidden_norm", "bias"), 0)
    np.testing.assert_allclose(out["feature"], y / np.linalg.norm(y, axis=1, keepdims=True), atol=1e-5)
    head = {k: flat[f"params/binary_head/out/{k}"] for k in ("kernel", "bias")}
    np.testing.assert_allclose(out["logits"], y @ head["kernel"] + head["bias"], atol=1e-4)
    # What users see are log odds of a share, whatever the X-ray says: corners of both grids are the same.
    shares = 1 / (1 + np.exp(-out["map_logits"]))
    corner = np.clip(out["xray"][:, [0, 0, -1, -1], [0, -1, 0, -1]], 0.01, 0.99)
    np.testing.assert_allclose(shares[:, [0, 0, -1, -1], [0, -1, 0, -1]], corner, atol=1e-5)


def test_the_settings_for_neighbours_of_a_file_fit_each_other():
    config = config_file.get_config()
    with config.unlocked():
        config.data.group.nearest, config.data.group.real, config.synth.recipe.partner = "near.npz", 2, "group"
    train.check_config(config)
    # 16 reals and their 16 forgeries, as without.
    assert hooks.layout_of(config) == (2, 2, 0, 0) and config.data.batch_size == 16


def test_a_partner_that_there_is_not_is_named():
    with pytest.raises(ValueError, match=r"synth.recipe.partner is 'set', allowed: \('batch', 'group'\)"):
        recipes.check({"name": "face_xray", "partner": "set"})
