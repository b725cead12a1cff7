"""F3-Net: transform, bands, windows and attention against NumPy and SciPy, and its start from a plain Xception."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from configs.detectors import f3net as experiment
from msddf_jax import trees
from msddf_jax.detectors import f3net
from msddf_jax.models import dct, xception

SIZE = 32


def _images(size=SIZE, number=2):
    return np.random.default_rng(0).uniform(size=(number, size, size, 3)).astype(np.float32)


def _model(port=False):
    config = experiment.get_config("demo").unlock()
    config.model.image_size, config.model.port = SIZE, port
    return config, f3net.Model(**config.model.to_dict())


def test_the_transform_is_scipys():
    rows = np.random.default_rng(0).normal(size=(5, 12))
    expected = scipy.fft.dct(rows, norm="ortho")
    np.testing.assert_allclose(rows @ dct.matrix(12).T, expected, atol=1e-5)


def test_bands_meet_and_do_not_overlap():
    np.testing.assert_array_equal(dct.band(3, 1, 2), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(dct.band(3, 1, 2, closed=True), [[0, 1, 1], [1, 1, 0], [1, 0, 0]])
    edges = f3net._edges(256, port=False)
    assert edges == ((0, 90), (90, 128), (128, 512))
    parts = [dct.band(256, low, high) for low, high in edges]
    np.testing.assert_array_equal(sum(parts), np.ones((256, 256)))
    # A sixteenth and an eighth of the coefficients, as far as whole numbers go.
    np.testing.assert_allclose([parts[0].mean(), (parts[0] + parts[1]).mean()], [1 / 16, 1 / 8], rtol=0.02)
    assert f3net._edges(256, port=True) == (*edges, (0, 512))


@pytest.mark.parametrize("closed", [False, True])
def test_decomposition_is_what_scipy_gives(closed):
    images, edges = _images(12), ((0, 4), (4, 24))
    module = dct.Decomposition(edges, closed)
    found, variables = jax.jit(module.init_with_output)(jax.random.key(0), images)
    for number, (low, high) in enumerate(edges):
        weight = dct.band(12, low, high, closed) + np.tanh(np.asarray(variables["params"][f"band_{number}"]) / 2)
        spectrum = scipy.fft.dctn(images, axes=(1, 2), norm="ortho") * weight[None, :, :, None]
        expected = scipy.fft.idctn(spectrum, axes=(1, 2), norm="ortho")
        np.testing.assert_allclose(found[..., 3 * number : 3 * number + 3], expected, atol=2e-5)


def test_local_statistics_are_those_of_each_window():
    images = _images(14)
    module = dct.LocalStatistics(6)
    found, variables = jax.jit(module.init_with_output)(jax.random.key(1), images)
    assert found.shape == (2, 6, 6, 6)
    grey = 255 * images @ np.array([0.299, 0.587, 0.114], np.float32)
    # Six windows of 10 that start 2 apart cover 20 pixels: 3 of black on each side of 14.
    padded = np.pad(grey, ((0, 0), (3, 3), (3, 3)))
    for row, column in ((0, 0), (2, 5), (5, 1)):
        window = padded[:, 2 * row : 2 * row + 10, 2 * column : 2 * column + 10]
        amplitude = np.abs(scipy.fft.dctn(window, axes=(1, 2), norm="ortho"))
        for band in range(6):
            weight = dct.band(10, band * 20 / 6, (band + 1) * 20 / 6)
            weight = weight + np.tanh(np.asarray(variables["params"][f"band_{band}"]) / 2)
            expected = np.log10((amplitude * np.abs(weight)).sum((1, 2)) + 0.1)
            np.testing.assert_allclose(found[:, row, column, band], expected, atol=1e-4)
    with pytest.raises(ValueError, match="2 windows of 10 pixels leave 2 of 14 out"):
        dct.LocalStatistics(2).init(jax.random.key(0), images)


def test_cross_attention_by_numpy():
    rng = np.random.default_rng(0)
    maps = {name: rng.normal(size=(1, 4, 4, 3)).astype(np.float32) for name in ("fad", "lfs")}
    module = f3net.MixBlock(jnp.float32)
    found, variables = jax.jit(module.init_with_output, static_argnums=2)(jax.random.key(0), maps, False)
    for name, value in found.items():
        np.testing.assert_allclose(value, maps[name], atol=1e-6)
    params = trees.unflatten(
        trees.flatten(variables["params"]) | {"fad_gain": np.float32(1), "lfs_gain": np.float32(-2)}
    )
    out = jax.jit(module.apply, static_argnums=2)({**variables, "params": params}, maps, False)
    linear = lambda name, x: x @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"])
    energy = np.zeros((4, 4, 3))
    for i, j, c in np.ndindex(4, 4, 3):
        for name, x in maps.items():
            energy[i, j, c] += linear(f"{name}_query", x)[0, i, :, c] @ linear(f"{name}_key", x)[0, j, :, c]
    weight = np.exp(energy) / np.exp(energy).sum(1, keepdims=True)
    # Running mean 0 and variance 1: the norm divides by sqrt(1 + 1e-5).
    expected = maps["fad"] + maps["lfs"] * weight * np.tanh(-1.0) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(out["fad"], expected, atol=1e-5)
    expected = maps["lfs"] + maps["fad"] * weight * np.tanh(0.5) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(out["lfs"], expected, atol=1e-5)


@pytest.mark.parametrize("port", [False, True])
def test_it_starts_from_a_plain_xception(port):
    config, model = _model(port)
    plain = xception.Xception("Mu", SIZE)
    shapes = jax.eval_shape(lambda: plain.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))
    rng = np.random.default_rng(0)
    flat = {
        f"{collection}/backbone/{name}": rng.normal(size=leaf.shape).astype(np.float32)
        for collection, tree in shapes.items()
        for name, leaf in trees.flatten(tree).items()
    }
    found = f3net.from_backbone(flat, config.model)
    own = jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": jnp.zeros((1, SIZE, SIZE, 3))}, train=False))
    own = {name: leaf.shape for name, leaf in trees.flatten(own).items() if name.split("/")[1] == "backbone"}
    assert own == {name: value.shape for name, value in found.items()}
    first = flat["params/backbone/conv_1/kernel"]
    for name, value in found.items():
        if name.endswith("conv_1/kernel"):
            # Where every band is the image itself, the layer gives what it gave.
            np.testing.assert_allclose(value.reshape(3, 3, -1, 3, 8).sum(2), first, atol=1e-5)


def test_bands_windows_and_attention_have_a_finite_gradient():
    # A flat image: of its windows, bands but the first hold nothing.
    images = jnp.concatenate([jnp.asarray(_images(14, 1)), jnp.full((1, 14, 14, 3), 0.5)])
    modules = {"bands": dct.Decomposition(((0, 4), (4, 28))), "local": dct.LocalStatistics(6)}
    modules["mix"] = f3net.MixBlock(jnp.float32)
    maps = lambda variables: {
        "fad": modules["bands"].apply(variables["bands"], images)[:, ::3, ::3],
        "lfs": modules["local"].apply(variables["local"], images)[:, :5, :5],
    }
    started = lambda: {name: modules[name].init(jax.random.key(0), images) for name in ("bands", "local")}
    mix = lambda found: {"mix": modules["mix"].init(jax.random.key(0), maps(found), False)}
    variables = jax.jit(lambda: (found := started()) | mix(found))()

    def loss(params):
        out, _ = modules["mix"].apply({"params": params["mix"]["params"]}, maps(params), True, mutable=["batch_stats"])
        return sum((value**2).sum() for value in out.values())

    gradient = trees.flatten(jax.jit(jax.grad(loss))(variables))
    assert [name for name, value in gradient.items() if not np.isfinite(value).all()] == []
    for name in ("bands/params/band_0", "local/params/band_5", "mix/params/fad_gain"):
        assert np.abs(gradient[name]).max() > 0, name


def test_a_block_that_there_is_not_is_named():
    model = f3net.Model("Mu", SIZE, mix=("block_7", "block_12"))
    with pytest.raises(
        ValueError, match="Xception Mu is not run from 'conv_1' to 'block_7'; it has conv_1, stem, block_1"
    ):
        jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": jnp.zeros((1, SIZE, SIZE, 3))}, train=False))
