import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax import trees
from msddf_jax.models import clip, layers, low_rank


def _kernel(rows=12, columns=9):
    return np.random.default_rng(0).normal(size=(rows, columns))


@pytest.mark.parametrize(("rank", "xp", "eps"), [(1, np, 1e-12), (3, np, 1e-12), (1, jnp, 1e-5)])
def test_parts_add_up_and_stand_at_right_angles(rank, xp, eps):
    kernel = _kernel()
    main, u, s, v = low_rank.split_svd(xp.asarray(kernel), rank, xp)
    np.testing.assert_allclose(main + (u * s) @ v, kernel, atol=eps)
    values = np.linalg.svd(kernel, compute_uv=False)
    np.testing.assert_allclose(s, values[-rank:], atol=eps)
    np.testing.assert_allclose(np.linalg.svd(main, compute_uv=False)[:-rank], values[:-rank], atol=10 * eps)
    assert np.linalg.matrix_rank(np.asarray(main), tol=10 * eps) == 9 - rank
    np.testing.assert_allclose(u.T @ u, np.eye(rank), atol=eps)
    np.testing.assert_allclose(v @ v.T, np.eye(rank), atol=eps)
    np.testing.assert_allclose(main.T @ u, 0, atol=10 * eps)
    np.testing.assert_allclose(main @ v.T, 0, atol=10 * eps)


def test_split_of_a_diagonal_by_hand():
    main, u, s, v = low_rank.split_svd(np.diag([3.0, 1.0, 2.0]), 1, np)
    np.testing.assert_allclose(main, np.diag([3.0, 0.0, 2.0]), atol=1e-12)
    np.testing.assert_allclose(np.abs(u[:, 0]), [0, 1, 0])
    np.testing.assert_allclose(np.abs(v[0]), [0, 1, 0])
    np.testing.assert_allclose(s, [1])


@pytest.mark.parametrize("rank", [0, 9])
def test_rank_that_leaves_nothing(rank):
    with pytest.raises(ValueError, match=rf"\(12, 9\) can leave out ranks 1 to 8, got {rank}"):
        low_rank.split_svd(_kernel(), rank)


@pytest.fixture(scope="module")
def layer():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 12)), jnp.float32)
    model = low_rank.LowRankLinear(9, rank=2)
    return model, model.init(jax.random.key(0), x), x


def test_layer_starts_as_the_dense_one(layer):
    model, params, x = layer
    p = params["params"]
    shapes = {name: value.shape for name, value in p.items()}
    assert shapes == {"kernel": (12, 9), "bias": (9,), "u": (12, 2), "s": (2,), "v": (2, 9)}
    dense = {"params": {"kernel": p["kernel"] + (p["u"] * p["s"]) @ p["v"], "bias": p["bias"] + 1}}
    split = {"params": {**p, "bias": p["bias"] + 1}}
    np.testing.assert_allclose(model.apply(split, x), layers.Linear(9).apply(dense, x), atol=1e-5)
    # Together they are what `layers.Linear` draws: variance 1 / in.
    assert 0.5 < float(np.var(dense["params"]["kernel"]) * 12) < 2.0


def test_gradients_equal_those_of_the_dense_kernel(layer):
    model, params, x = layer
    p = params["params"]
    weight = jnp.arange(9.0)
    grads = jax.grad(lambda q: jnp.sum(model.apply({"params": q}, x) * weight))(p)
    dense = jax.grad(lambda k: jnp.sum(x @ k * weight))(p["kernel"])
    np.testing.assert_allclose(grads["u"], (dense @ p["v"].T) * p["s"], atol=1e-4)
    np.testing.assert_allclose(grads["s"], jnp.sum((p["u"].T @ dense) * p["v"], axis=1), atol=1e-4)
    np.testing.assert_allclose(grads["v"], (p["u"] * p["s"]).T @ dense, atol=1e-4)


def test_a_small_rest_survives_bfloat16():
    # Summed into the kernel it would be lost: 1 + 2^-10 is 1 in bfloat16.
    model = low_rank.LowRankLinear(1, dtype=jnp.bfloat16)
    params = {"kernel": [[1.0], [-1.0]], "u": [[1.0], [0.0]], "s": [2.0**-10], "v": [[1.0]], "bias": [0.0]}
    out = model.apply(
        {"params": jax.tree.map(jnp.float32, params, is_leaf=lambda x: isinstance(x, list))}, jnp.ones((1, 2))
    )
    np.testing.assert_array_equal(np.asarray(out, np.float32), [[2.0**-10]])


def test_loaded_parameters_of_another_rank_are_refused(layer):
    model, params, x = layer
    with pytest.raises(Exception, match="shape"):
        model.clone(rank=1).apply(params, x)


def test_the_vit_takes_it_in_every_attention_also_with_remat():
    import functools

    linear = functools.partial(low_rank.LowRankLinear, rank=1)
    images = jnp.zeros((1, 16, 16, 3))
    shapes = {}
    for remat in (False, True):
        model = clip.VisionTransformer("Mu/8", 16, remat=remat, attn_linear=linear)
        shapes[remat] = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    assert jax.tree.map(lambda x: x.shape, shapes[False]) == jax.tree.map(lambda x: x.shape, shapes[True])
    assert len(low_rank.layers(shapes[False])) == 4 * 4
    names = set(trees.flatten(shapes[False]["block_0"]))
    assert {n for n in names if n.endswith("/u")} == {f"attn/{p}/u" for p in ("query", "key", "value", "out")}


def _layer(main, u, s, v):
    return {"kernel": jnp.asarray(main, jnp.float32), "u": jnp.asarray(u), "s": jnp.asarray(s), "v": jnp.asarray(v)}


def test_constraints_by_hand():
    main = np.diag([2.0, 0.0])
    at_start = _layer(main, [[0.0], [1.0]], [0.5], [[0.0, 1.0]])
    assert low_rank.orthogonality(at_start) == 0
    # |diag(2, 1/2)|^2 - |diag(2, 0)|^2
    np.testing.assert_allclose(low_rank.norm_change(at_start), 0.25)
    # u = (1, 1): (2 - 1)^2 / 2, and main' u = (2, 0) of |main|^2 = 4.
    np.testing.assert_allclose(low_rank.orthogonality(_layer(main, [[1.0], [1.0]], [0.5], [[0.0, 1.0]])), 0.5 + 1)
    # Along main's own direction with s = -1: |diag(1, 0)|^2 - |diag(2, 0)|^2.
    np.testing.assert_allclose(low_rank.norm_change(_layer(main, [[1.0], [0.0]], [-1.0], [[1.0, 0.0]])), 3)


def test_norm_change_equals_that_of_the_summed_kernel(layer):
    _, params, _ = layer
    p = dict(params["params"])
    p["u"] = p["u"] + 0.3
    whole = np.asarray(p["kernel"] + (p["u"] * p["s"]) @ p["v"], np.float64)
    expected = abs((whole**2).sum() - (np.asarray(p["kernel"], np.float64) ** 2).sum())
    np.testing.assert_allclose(low_rank.norm_change(p), expected, rtol=1e-4)
