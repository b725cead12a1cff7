import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt

from msddf_jax.models.clip import VisionTransformer, grid_size, injection_blocks
from msddf_jax.models.frequency import FreqAdapter, dwt2, high_pass, phase_only, radial_profile


@pytest.mark.parametrize("mode", ["periodization", "symmetric"])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4"])
@pytest.mark.parametrize("size", [(32, 48), (37, 30)])
def test_dwt_equals_pywavelets(wavelet, mode, size):
    x = np.random.default_rng(0).uniform(size=(2, *size, 3)).astype(np.float32)
    approximation, details = dwt2(x, wavelet, 3, mode)
    expected = x.astype(np.float64)
    for level in details:
        expected, bands = pywt.dwt2(expected, wavelet, mode, axes=(1, 2))
        for band, wanted in zip(level, bands):
            np.testing.assert_allclose(band, wanted, atol=1e-5)
    np.testing.assert_allclose(approximation, expected, atol=1e-5)


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


def test_step_zero_equals_the_plain_backbone():
    size, variant = 32, "Ti/16"
    images = jax.random.uniform(jax.random.key(0), (2, size, size, 3))
    grid = grid_size(variant, size)
    adapter = FreqAdapter(grid, 192, injection_blocks(variant))
    backbone = VisionTransformer(variant, size)
    params = backbone.init(jax.random.key(1), images)
    side, side_params = adapter.init_with_output(jax.random.key(2), images, jnp.ones((2, grid, grid)))
    forward = jax.jit(backbone.apply)
    plain, adapted = forward(params, images), forward(params, images, side["inject"])
    for name in plain:
        np.testing.assert_allclose(adapted[name], plain[name], atol=1e-6)

    # The projections do reach the class feature: at zero they have a gradient.
    def loss(side_params):
        out = adapter.apply(side_params, images)
        return backbone.apply(params, images, out["inject"])["cls"][:, 0].sum()

    grads = jax.jit(jax.grad(loss))(side_params)["params"]
    for block in injection_blocks(variant):
        assert np.abs(grads[f"project_{block}"]["kernel"]).max() > 0


def _adapter(**kwargs):
    adapter = FreqAdapter(4, 64, (1,), 16, **kwargs)
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    params = adapter.init(jax.random.key(1), images)
    # Projections away from zero, so that what they are given can be seen.
    params["params"]["project_1"]["kernel"] = jax.random.normal(jax.random.key(2), (16, 64))
    return adapter, params, images


def test_weight_scales_tokens_relative_to_its_mean():
    adapter, params, images = _adapter()
    plain = adapter.apply(params, images)
    weight = jnp.ones((2, 4, 4)).at[:, 0, 1].set(3.0) * 0.2
    weighted = adapter.apply(params, images, weight)
    ratio = np.asarray(weighted["inject"][1] / plain["inject"][1])
    mean = (15 + 3) / 16
    np.testing.assert_allclose(ratio[:, 1], 3 / mean, rtol=1e-4)
    np.testing.assert_allclose(ratio[:, 2], 1 / mean, rtol=1e-4)
    assert np.abs(weighted["pooled"] - plain["pooled"]).max() > 0
    # A constant weight, of whatever size, changes nothing.
    constant = adapter.apply(params, images, jnp.full((2, 4, 4), 0.125))
    np.testing.assert_allclose(constant["inject"][1], plain["inject"][1], atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_constant_image_has_finite_gradients(value, wavelet):
    adapter, params, _ = _adapter(wavelet=wavelet)
    images = jnp.full((2, 32, 32, 3), value)

    def loss(params, images):
        out = adapter.apply(params, images)
        return sum(leaf.astype(jnp.float32).sum() for leaf in jax.tree.leaves(out))

    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, images)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_cutoff_is_learnable():
    adapter, params, images = _adapter()
    grads = jax.grad(lambda p: adapter.apply(p, images)["pooled"].sum())(params)
    assert float(grads["params"]["fft"]["cutoff"]) != 0
    assert float(params["params"]["fft"]["cutoff"]) == pytest.approx(0.15)
