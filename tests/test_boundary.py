import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from msddf_jax.models import boundary, filters
from msddf_jax.models.boundary import BoundaryMining, boundary_pool, boundary_residuals, boundary_target


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(2, 40, 36, 3)).astype(np.float32)


def _grey(image):
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def test_luma_and_filters_equal_opencv(images):
    box = np.full(33, 1 / 33, np.float32)
    kernel = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)

    @jax.jit
    def filtered(images):
        y = filters.luma(images)
        return y, filters.correlate(y, kernel), filters.correlate_bands(y, box)

    y, correlated, blurred = (np.asarray(x) for x in filtered(images))
    np.testing.assert_allclose(y[0], _grey(images[0]), atol=1e-6)
    np.testing.assert_allclose(filters.gaussian_taps(9, 1.7), cv2.getGaussianKernel(9, 1.7)[:, 0], atol=1e-7)
    np.testing.assert_allclose(correlated[0], cv2.filter2D(y[0], -1, kernel), atol=1e-5)
    np.testing.assert_allclose(blurred[1], cv2.blur(y[1], (33, 33)), atol=1e-5)


def test_even_gaussian_is_an_error():
    with pytest.raises(ValueError, match="got 4"):
        filters.gaussian_taps(4, 1.0)


def test_residuals_equal_opencv(images):
    out = np.asarray(jax.jit(boundary_residuals)(images))
    for image, residuals in zip(images, out):
        y = _grey(image)
        r1 = y - cv2.GaussianBlur(y, (5, 5), 1)
        np.testing.assert_allclose(residuals[..., 0], np.abs(r1), atol=1e-5)
        # The published integer kernels on a 0..255 scale, truncated at 3, as SRM networks apply them.
        published = (
            (np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]), 4),
            (np.array([[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2],
                       [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]), 12),
            (np.array([[1, -2, 1]]), 2),
        )  # fmt: skip
        for channel, (kernel, divisor) in enumerate(published, start=1):
            srm = np.clip(cv2.filter2D(255 * y.astype(np.float64), -1, kernel / divisor), -3, 3) / 3
            np.testing.assert_allclose(residuals[..., channel], srm, atol=1e-3)
        gx, gy = cv2.Sobel(y, -1, 1, 0), cv2.Sobel(y, -1, 0, 1)
        np.testing.assert_allclose(residuals[..., 4], np.sqrt(gx**2 + gy**2 + 1e-6), atol=1e-5)
        near, wide = cv2.blur(r1**2, (9, 9)), cv2.blur(r1**2, (33, 33))
        np.testing.assert_allclose(residuals[..., 5], np.abs(near - wide) / (wide + 1e-4), atol=1e-4)


def test_noise_step_shows_as_inconsistency():
    # Left half smooth, right half noisy: the measure peaks at the seam's side, not inside the halves.
    noise = np.random.default_rng(0).normal(scale=0.05, size=(1, 96, 96, 1)).astype(np.float32)
    noise[:, :, :48] *= 0.02
    inconsistency = np.asarray(jax.jit(boundary_residuals)(np.repeat(0.5 + noise, 3, -1)))[0, ..., 5].mean(0)
    assert inconsistency[40:44].mean() > 3 * inconsistency[8:20].mean()
    assert inconsistency[52:56].mean() > 3 * inconsistency[76:88].mean()


def test_thin_edges_in_place_of_sobels():
    image = np.zeros((1, 16, 16, 3), np.float32)
    image[:, :, 8:] = 0.9
    sobel, thin = (np.asarray(boundary._residual_maps(image, edges)[4])[0] for edges in boundary.EDGES)
    # Two columns see the step, one of them is the edge.
    assert (sobel[:, 7:9] > 1).all() and set(np.unique(thin)) == {0.0, 1.0}
    assert (thin.sum(1) == 1).all() and thin[:, 7:9].sum() == 16


def test_total_variation_by_hand():
    weight = jnp.array([[[0.0, 1.0], [0.0, 0.5]]])
    # Down the columns 0 and 0.5, along the rows 1 and 0.5: means 0.25 and 0.75.
    np.testing.assert_allclose(boundary.total_variation(weight), [0.5], rtol=1e-6)


def test_area_pool_is_the_exact_mean_of_each_cell():
    x = np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1) * np.ones((1, 6, 6, 1), np.float32)
    # 6 pixels onto 4 cells of 1.5: (0 + .5*1)/1.5, (.5*1 + 2)/1.5, ...
    expected = np.array([0.5, 2.5, 3 + 0.5 * 4, 0.5 * 4 + 5]) / 1.5
    four, three, same, twelve = jax.jit(lambda x: [filters.area_pool(x, grid) for grid in (4, 3, 6, 12)])(x)
    np.testing.assert_allclose(four[0, :, 0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(three[0, :, 0, 0], [0.5, 2.5, 4.5])
    np.testing.assert_allclose(same, x)
    np.testing.assert_allclose(twelve[0, :, 0, 0], np.repeat(np.arange(6), 2))


def test_depthwise_conv_equals_opencv():
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    params = random_params(filters.DepthwiseConv(), x)["params"]
    out = jax.jit(filters.DepthwiseConv().apply)({"params": params}, x)
    for channel in range(3):
        kernel = np.asarray(params["kernel"])[:, :, 0, channel]
        for i in range(2):
            expected = cv2.filter2D(x[i, ..., channel], -1, kernel, borderType=cv2.BORDER_CONSTANT)
            np.testing.assert_allclose(out[i, ..., channel], expected + params["bias"][channel], atol=1e-5)


@pytest.mark.parametrize(("size", "grid"), [(64, 8), (32, 2), (100, 7), (224, 16)])
def test_weight_map_shapes(size, grid):
    model = BoundaryMining(grid)
    images = jax.ShapeDtypeStruct((3, size, size, 3), jnp.float32)
    out, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert out["weight"].shape == out["logit"].shape == (3, grid, grid)
    assert out["weight"].dtype == jnp.float32
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 14_801


def test_constant_image_has_finite_weights_and_gradients():
    model = BoundaryMining(4)
    images = jnp.stack([jnp.zeros((32, 32, 3)), jnp.full((32, 32, 3), 0.5)])
    params = random_params(model, images)
    loss = lambda params, images: model.apply(params, images)["weight"].sum()
    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, images)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_pool_is_the_weighted_mean():
    tokens = jnp.arange(8, dtype=jnp.float32).reshape(1, 4, 2)
    weight = jnp.array([[[1.0, 0.0], [0.0, 3.0]]])
    np.testing.assert_allclose(boundary_pool(weight, tokens)[0], [(0 + 3 * 6) / 4, (1 + 3 * 7) / 4])
    with pytest.raises(ValueError, match=r"\(1, 4\).*\(1, 9, 2\)"):
        boundary_pool(weight, jnp.zeros((1, 9, 2)))


def test_target_of_a_half_plane_lies_on_its_edge():
    # Mask 1 for columns 16.. of 32, on 4 columns of cells: the edge is the border of cells 1 and 2.
    mask = np.zeros((1, 32, 32, 1), np.float32)
    mask[:, :, 16:] = 1
    taps = cv2.getGaussianKernel(9, 1.7)[:, 0]
    m = np.array([taps[: max(0, min(9, column - 16 + 5))].sum() for column in range(32)])
    cells = (4 * m * (1 - m)).reshape(4, 8).mean(1)
    expected = np.tile(cells / cells.max(), (4, 1))
    out = jax.jit(boundary_target, static_argnums=1)(mask, 4)[0]
    np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_allclose(out[0], [0, 1, 1, 0], atol=1e-6)


def test_target_equals_opencv_and_is_zero_without_a_boundary():
    mask = np.zeros((3, 48, 48, 1), np.float32)
    cv2.circle(mask[0, ..., 0], (20, 25), 11, 1.0, -1)
    mask[2] = 1
    soft = cv2.GaussianBlur(mask[0, ..., 0], (9, 9), 1.7)
    expected = cv2.resize(4 * soft * (1 - soft), (6, 6), interpolation=cv2.INTER_AREA)
    out = np.asarray(jax.jit(boundary_target, static_argnums=1)(mask, 6))
    np.testing.assert_allclose(out[0], expected / expected.max(), atol=1e-5)
    assert out[0].max() == 1
    np.testing.assert_array_equal(out[1], 0)
    np.testing.assert_allclose(out[2], 0, atol=1e-4)


def test_residual_count_is_stated():
    shape = jax.eval_shape(boundary_residuals, jnp.zeros((1, 8, 8, 3))).shape
    assert shape == (1, 8, 8, boundary.NUM_RESIDUALS)
