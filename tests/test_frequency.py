import itertools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt
from random_params import random_params

from msddf_jax.models.clip import VisionTransformer, grid_size, injection_blocks
from msddf_jax.models.frequency import FreqAdapter, dwt2, high_pass, phase_only, radial_profile


def _uniform(*shape):
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["periodization", "symmetric"])
@pytest.mark.parametrize(("wavelet", "size"), [("haar", (32, 48)), ("haar", (37, 30)), ("db2", (26, 37))])
def test_dwt_equals_pywavelets(wavelet, mode, size):
    x = _uniform(2, *size, 1)
    approximation, details = jax.jit(lambda x: dwt2(x, wavelet, 3, mode))(x)
    expected = x.astype(np.float64)
    for level in details:
        expected, bands = pywt.dwt2(expected, wavelet, mode, axes=(1, 2))
        for band, wanted in zip(level, bands):
            np.testing.assert_allclose(band, wanted, atol=1e-5)
    np.testing.assert_allclose(approximation, expected, atol=1e-5)


def test_one_level_of_a_long_wavelet_equals_pywavelets():
    x = _uniform(1, 9, 12, 2)
    for mode in ("periodization", "symmetric"):
        approximation, [level] = jax.jit(lambda x, mode=mode: dwt2(x, "sym4", 1, mode))(x)
        expected, bands = pywt.dwt2(x.astype(np.float64), "sym4", mode, axes=(1, 2))
        np.testing.assert_allclose([approximation, *level], [expected, *bands], atol=1e-5)


def test_haar_by_hand():
    x = jnp.array([[1.0, 2.0], [3.0, 5.0]]).reshape(1, 2, 2, 1)
    approximation, [(horizontal, vertical, diagonal)] = dwt2(x, "haar", 1)
    # Sums and differences of the four pixels, halved.
    values = [float(band.ravel()[0]) for band in (approximation, horizontal, vertical, diagonal)]
    np.testing.assert_allclose(values, [11 / 2, -5 / 2, -3 / 2, 1 / 2], rtol=1e-6)


def test_dwt_errors():
    x = jnp.zeros((1, 8, 8, 1))
    with pytest.raises(ValueError, match="'zero'"):
        dwt2(x, "haar", 1, "zero")
    with pytest.raises(ValueError, match="at least one level"):
        dwt2(x, "haar", 0)
    with pytest.raises(ValueError, match="daub"):
        dwt2(x, "daub", 1)


@pytest.fixture(scope="module")
def plane():
    y = np.random.default_rng(0).uniform(size=(20, 24)).astype(np.float32)
    y -= y.mean()
    rho = np.hypot(np.fft.fftfreq(20)[:, None], np.fft.fftfreq(24)[None, :])
    return y, np.fft.fft2(y.astype(np.float64), norm="ortho"), rho, jnp.fft.rfft2(y[None], norm="ortho")


def test_high_pass_equals_the_full_fft(plane):
    _, full, rho, half = plane
    expected = np.fft.ifft2(full / (1 + np.exp(-(rho - 0.15) / 0.02)), norm="ortho").real
    np.testing.assert_allclose(high_pass(half, 0.15, (20, 24))[0], expected, atol=1e-5)


def test_phase_only_has_unit_amplitude_and_the_phase(plane):
    _, full, _, half = plane
    out = np.asarray(phase_only(half, (20, 24)))[0]
    angle = np.angle(full)
    expected = np.exp(1j * angle)
    expected[0, 0] = 0  # the mean was taken off
    np.testing.assert_allclose(out, np.fft.ifft2(expected, norm="ortho").real, atol=2e-3)
    assert out.std() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("width", [24, 23])
def test_radial_profile_equals_the_full_spectrum(width):
    y = np.random.default_rng(1).uniform(size=(20, width))
    log_amplitude = np.log1p(np.abs(np.fft.fft2(y, norm="ortho")))
    rho = np.hypot(np.fft.fftfreq(20)[:, None], np.fft.fftfreq(width)[None, :])
    edges = np.linspace(0, np.sqrt(0.5), 9)
    expected = [log_amplitude[(rho >= a) & (rho < b)].mean() for a, b in itertools.pairwise(edges[:-1])]
    expected.append(log_amplitude[rho >= edges[-2]].mean())
    half = jnp.fft.rfft2(y[None].astype(np.float32), norm="ortho")
    np.testing.assert_allclose(radial_profile(half, (20, width), 8)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "grid"), [(224, 14), (224, 16), (224, 7), (128, 8), (64, 8), (64, 4), (100, 14), (32, 2)]
)
def test_adapter_shapes(size, grid):
    adapter = FreqAdapter(grid, 192, (3, 6, 9))
    arguments = [jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)]
    arguments.append(jax.ShapeDtypeStruct((2, grid, grid), jnp.float32))
    out, variables = jax.eval_shape(adapter.init_with_output, jax.random.key(0), *arguments)
    assert out["tokens"].shape == (2, grid * grid, 64)
    assert {block: tokens.shape for block, tokens in out["inject"].items()} == dict.fromkeys(
        (3, 6, 9), (2, grid * grid, 192)
    )
    assert out["pooled"].shape == (2, 48)
    # The same parameters at every size and grid.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 225_572


@pytest.mark.parametrize(("width", "rank", "count"), [(768, 64, 345_524), (1024, 96, 512_916)])
def test_adapter_parameter_count(width, rank, count):
    adapter = FreqAdapter(14, width, (3, 6, 9), rank)
    shapes = jax.eval_shape(adapter.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def _initial_values(adapter, images):
    """What `adapter.init` gives for the cutoff, gains and projections; the rest, unused, is never drawn."""

    def pick(key):
        params = adapter.init(key, images)["params"]
        chosen = {name: leaf for name, leaf in params.items() if name.startswith(("gain_", "project_"))}
        return chosen, params["fft"]["cutoff"]

    return jax.jit(pick)(jax.random.key(0))


def test_projections_and_cutoff_start_as_stated():
    chosen, cutoff = _initial_values(FreqAdapter(2, 64, (1, 2), 8), jnp.zeros((1, 16, 16, 3)))
    assert float(cutoff) == pytest.approx(0.15)
    assert set(chosen) == {"gain_1", "gain_2", "project_1", "project_2"}
    for block in (1, 2):
        assert float(chosen[f"gain_{block}"]) == 1
        np.testing.assert_array_equal(chosen[f"project_{block}"]["kernel"], np.zeros((8, 64)))


def test_step_zero_equals_the_plain_backbone():
    size, variant = 32, "Ti/16"
    grid = grid_size(variant, size)
    images = _uniform(2, size, size, 3)
    adapter = FreqAdapter(grid, 192, injection_blocks(variant), 8)
    side_params = random_params(adapter, images)
    side_params["params"].update(_initial_values(adapter, images)[0])
    inject = jax.jit(adapter.apply)(side_params, images, jnp.full((2, grid, grid), 0.5))["inject"]
    backbone = VisionTransformer(variant, size)
    params = random_params(backbone, images)
    forward = jax.jit(backbone.apply)
    plain, adapted = forward(params, images), forward(params, images, inject)
    for ours, theirs in zip(jax.tree.leaves(adapted), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    # The comparison can fail: tokens that are not zero do arrive.
    other = {block: jnp.asarray(_uniform(*tokens.shape)) for block, tokens in inject.items()}
    assert np.abs(forward(params, images, other)["cls"] - plain["cls"]).max() > 1e-2


@pytest.fixture(scope="module")
def small():
    """An adapter for 4x4 tokens on 32 px with projections away from zero, its parameters, images, and forward."""
    adapter = FreqAdapter(4, 64, (1,), 16, "db2")
    images = _uniform(2, 32, 32, 3)
    params = random_params(adapter, images)
    params["params"]["fft"]["cutoff"] = jnp.float32(0.15)
    return adapter, params, images, jax.jit(adapter.apply)


def test_weight_scales_tokens_relative_to_its_mean(small):
    _, params, images, forward = small
    plain = forward(params, images, jnp.ones((2, 4, 4)))
    weight = jnp.ones((2, 4, 4)).at[:, 0, 1].set(3.0) * 0.2
    weighted = forward(params, images, weight)
    mean = (15 + 3) / 16
    before, after = np.asarray(plain["inject"][1]), np.asarray(weighted["inject"][1])
    np.testing.assert_allclose(after[:, 1], 3 / mean * before[:, 1], atol=1e-5)
    np.testing.assert_allclose(after[:, 2], 1 / mean * before[:, 2], atol=1e-5)
    assert np.abs(weighted["pooled"] - plain["pooled"]).max() > 1e-4
    # A constant weight, of whatever size, changes nothing.
    constant = forward(params, images, jnp.full((2, 4, 4), 0.125))
    np.testing.assert_allclose(constant["inject"][1], plain["inject"][1], atol=1e-6)


def test_gradients_reach_every_parameter_and_are_finite_on_constant_images(small):
    adapter, params, images, _ = small

    @jax.jit
    def grads(params, images):
        def loss(params, images):
            out = adapter.apply(params, images)
            return out["inject"][1].sum() + (out["pooled"] ** 2).sum()

        return jax.grad(loss, argnums=(0, 1))(params, images)

    # The sum over LayerNorm's channels is constant but for the projection, which weights them.
    for name, leaf in flax.traverse_util.flatten_dict(grads(params, images)[0]["params"], sep="/").items():
        assert np.abs(leaf).max() > 0, name
    black_and_grey = jnp.stack([jnp.zeros((32, 32, 3)), jnp.full((32, 32, 3), 0.5)])
    for leaf in jax.tree.leaves(grads(params, black_and_grey)):
        assert np.isfinite(leaf).all()
