"""FFD: the losses of its map and its templates by hand, and what a wrong setting says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax import trees
from msddf_jax.detectors import ffd
from msddf_jax.models import xception

SIZE = 64


def _model(**fields):
    return ffd.Model("Mu", SIZE, map_stage="block_3", **fields)


def test_losses_by_hand():
    # A real, a fake with a mask, a fake without.
    seen = np.zeros((3, 2, 2, 1), np.float32)
    seen[0, 0, 0], seen[1, :, 0], seen[1, 0, 1], seen[2, 1, 1] = 0.2, 0.5, 1.0, 0.35
    mask = np.zeros((3, 4, 4, 1), np.float32)
    # Cells of the fake are 0.125 (changed), 0.0625 (not), 1 and 0.
    mask[1, 0, 0], mask[1, 0, 2], mask[1, 2:, :2] = 0.5, 0.25, 1.0
    rows = {"label": jnp.array([0, 1, 1]), "mask": mask, "has_mask": jnp.array([True, True, False])}
    # softmax of (0, log 3) is (1/4, 3/4).
    out = {"logits": jnp.tile(jnp.array([[0.0, np.log(3.0)]]), (3, 1)), "map": seen}
    terms = ffd.losses(out, rows, None)
    assert set(terms) == {"label", "map_l1", "map_weak"}
    np.testing.assert_allclose(terms["label"][0], [np.log(4), np.log(4 / 3), np.log(4 / 3)], rtol=1e-6)
    l1, known = terms["map_l1"]
    # |0.5 - 1| + |1 - 0| + |0.5 - 1| + 0, over four cells.
    np.testing.assert_allclose(l1[:2], [0.2 / 4, 2.0 / 4], rtol=1e-6)
    assert known.tolist() == [True, True, False]
    np.testing.assert_allclose(terms["map_weak"][0], [0.2 / 4, 0.25, 0.4], rtol=1e-6)
    assert terms["map_weak"][1].all() and set(ffd.losses({"logits": out["logits"]}, rows, None)) == {"label"}


def test_templates_are_tiles_that_share_a_row_of_cells():
    made = ffd._templates(19)
    assert made.shape == (10, 19, 19) and not made[0].any()
    # Rows 0 to 6, 6 to 12, 12 to 18, as published; the last of the first row of tiles, and the middle one.
    expected = np.zeros((2, 19, 19))
    expected[0, 0:7, 12:19] = expected[1, 6:13, 6:13] = 1
    np.testing.assert_array_equal(made[[3, 5]], expected)
    for grid in (4, 8, 12, 16, 19):
        assert ffd._templates(grid).sum(0).min() >= 1, grid


@pytest.mark.parametrize("map_type", ffd.MAP_TYPES)
def test_outputs_of_every_kind_of_map(map_type):
    shape = jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), jnp.float32)
    out, _ = jax.eval_shape(
        lambda x: _model(map_type=map_type).init_with_output(jax.random.key(0), {"image": x}, train=False), shape
    )
    maps = {name: value.shape for name, value in out.items() if name.startswith("map")}
    assert maps == ({} if map_type == "none" else {"map": (2, 8, 8, 1), "map_logits": (2, 8, 8, 1)})


def test_the_templates_map_is_multiplied_and_has_finite_gradients():
    model, rng = _model(map_type="tmp"), np.random.default_rng(0)
    rows = {"image": rng.random((2, SIZE, SIZE, 3), np.float32)}
    shapes = trees.flatten(dict(jax.eval_shape(lambda: model.init(jax.random.key(0), rows, train=False))))
    values = {n: rng.uniform(0.1, 0.3, s.shape).astype(np.float32) for n, s in shapes.items()}
    values["params/map_head/out/bias"] = np.float32(np.arange(10))
    values["params/map_head/out/kernel"] = np.zeros_like(values["params/map_head/out/kernel"])

    def run(bias):
        variables = trees.unflatten(values | {"params/map_head/out/bias": bias})
        out = model.apply(variables, rows, train=False)
        return out["logit"].sum(), out["map"]

    (logit, seen), gradient = jax.jit(jax.value_and_grad(run, has_aux=True))(values["params/map_head/out/bias"])
    # Weights are the bias: a sum of tiles 1 to 9, times their numbers; the middle of a tile is in no other.
    np.testing.assert_allclose(seen[0, 0, [0, 7], 0], [1, 3])
    np.testing.assert_allclose(seen[1, 7, [0, 7], 0], [7, 9])
    assert np.isfinite(gradient).all() and gradient[0] == 0 and (gradient[1:] != 0).all() and np.isfinite(logit)


def test_the_map_starts_as_one_half():
    # With kernels as large as those of other layers it starts as 0 or 1, and learns from neither.
    head = xception.SeparableConv(1, jnp.float32, ffd._MAP_INIT)
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 728))
    logits = head.init_with_output(jax.random.key(1), x)[0]
    # Of 728 channels with deviation 0.01, each a sum of nine pixels with deviation sqrt(2 / 9): 0.01 sqrt(2 x 728).
    assert 0.2 < np.std(logits) < 0.6


def test_wrong_settings_are_named():
    init = lambda model: jax.eval_shape(
        lambda: model.init(jax.random.key(0), {"image": jnp.zeros((1, SIZE, SIZE, 3))}, train=False)
    )
    with pytest.raises(ValueError, match=r"map_type is 'pca_tmp', allowed: \('reg', 'tmp', 'none'\)"):
        init(_model(map_type="pca_tmp"))
    with pytest.raises(ValueError, match=r"after is of \['block_7'\]; Xception Mu has block_1, .*block_4 here"):
        init(ffd.Model("Mu", SIZE))
