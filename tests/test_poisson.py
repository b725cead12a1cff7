"""The Poisson blend against OpenCV's seamlessClone and against an exact sparse solve."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from msddf_jax.synth import poisson

SHAPES = ("ellipse", "diamonds", "corner", "tilted")


def smooth_image(rng, height, width):
    """Low-frequency colours with some texture: what a face crop is to this solver."""
    coarse = rng.random((5, 5, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image = 0.15 + 0.7 * image + 0.05 * rng.standard_normal((height, width, 3))
    return np.clip(image, 0, 1).astype(np.float32)


def shapes(height, width):
    """Masks by name, uint8 0/1."""
    masks = {name: np.zeros((height, width), np.uint8) for name in SHAPES}
    cv2.ellipse(masks["ellipse"], (width // 2, height // 2), (width // 3, height // 3), 0, 0, 360, 1, -1)
    cv2.circle(masks["diamonds"], (width // 4, height // 3), 9, 1, -1)
    cv2.circle(masks["diamonds"], (3 * width // 4, height // 2), 12, 1, -1)
    masks["corner"][: height // 2, width // 3 :] = 1
    box = cv2.boxPoints(((width / 2, height / 2), (width / 2, height / 4), 30.0)).astype(np.int32)
    cv2.fillConvexPoly(masks["tilted"], box, 1)
    return masks


def opencv_clone(source, target, mask):
    """seamlessClone in place, in grey levels; OpenCV ignores the mask on the outermost pixels."""
    mask = mask.copy()
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    x, y, w, h = cv2.boundingRect(mask)
    centre = (x + w // 2, y + h // 2)
    source, target = (np.round(255 * v).astype(np.uint8) for v in (source, target))
    return cv2.seamlessClone(source, target, 255 * mask, centre, cv2.NORMAL_CLONE).astype(np.float64)


def sparse_clone(source, target, mask):
    """The same linear system, written out and solved by LU in float64."""
    mask = mask.copy()
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    x, y, w, h = cv2.boundingRect(mask)
    # The mask is zero on the frame, so that OpenCV's rule for the border does not matter.
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=3).astype(bool)
    index = -np.ones(mask.shape, int)
    index[y + 1 : y + h - 1, x + 1 : x + w - 1] = np.arange((h - 2) * (w - 2)).reshape(h - 2, w - 2)
    system = scipy.sparse.lil_matrix(((h - 2) * (w - 2),) * 2)
    right = np.zeros(((h - 2) * (w - 2), 3))
    source, target = source.astype(np.float64), target.astype(np.float64)
    for i in range(y + 1, y + h - 1):
        for j in range(x + 1, x + w - 1):
            here = index[i, j]
            system[here, here] = 4.0
            for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                # The gradient between two pixels belongs to the upper or left one.
                owner = (min(i, a), min(j, b))
                field = source if inner[owner] else target
                right[here] += field[i, j] - field[a, b]
                if index[a, b] >= 0:
                    system[here, index[a, b]] = -1.0
                else:
                    right[here] += target[a, b]
    solved = scipy.sparse.linalg.spsolve(system.tocsc(), right)
    out = target.copy()
    out[y + 1 : y + h - 1, x + 1 : x + w - 1] = solved.reshape(h - 2, w - 2, 3)
    return np.clip(out, 0, 1)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_clone_equals_seamless_clone(one_by_one):
    rng = np.random.default_rng(0)
    height, width = 96, 80
    masks = shapes(height, width)
    source = np.stack([smooth_image(rng, height, width) for _ in masks])
    target = np.stack([smooth_image(rng, height, width) for _ in masks])
    source, target = np.round(source * 255) / 255, np.round(target * 255) / 255
    stack = np.stack(list(masks.values()))[..., None].astype(np.float32)
    out = 255 * np.asarray(poisson.clone(source, target, stack, one_by_one), np.float64)
    blended = 255 * np.asarray(poisson.blend(source, target, stack, True), np.float64)
    for i, (name, mask) in enumerate(masks.items()):
        expected = opencv_clone(source[i], target[i], mask)
        inside = mask > 0
        # OpenCV truncates to whole levels; ours keeps the fraction: 0.5 of a level on average.
        assert np.abs(out[i] - expected)[inside].mean() < 0.6, name
        assert np.abs(np.floor(out[i] + 0.01) - expected).mean() < 0.05, name
        np.testing.assert_allclose(blended[i][inside], out[i][inside], atol=0.01)
        np.testing.assert_allclose(blended[i][~inside], 255 * target[i][~inside], atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_clone_is_the_exact_solution(name):
    rng = np.random.default_rng(1)
    height, width = 47, 62
    source, target = smooth_image(rng, height, width), smooth_image(rng, height, width)
    mask = shapes(height, width)[name]
    out = poisson.clone(source[None], target[None], mask[None, ..., None].astype(np.float32))[0]
    np.testing.assert_allclose(out, sparse_clone(source, target, mask), atol=2e-5)


def test_source_plus_a_constant_is_the_target():
    rng = np.random.default_rng(2)
    target = np.stack([smooth_image(rng, 40, 40)] * 2) * 0.8
    mask = shapes(40, 40)["ellipse"][None, ..., None].repeat(2, 0).astype(np.float32)
    source = target + np.array([0.1, -0.05, 0.15], np.float32)
    np.testing.assert_allclose(poisson.blend(source, target, mask), target, atol=1e-5)


def test_degenerate_masks():
    rng = np.random.default_rng(3)
    source, target = (np.stack([smooth_image(rng, 32, 32)] * 5) for _ in range(2))
    mask = np.zeros((5, 32, 32, 1), np.float32)
    mask[1, 10, 12] = 1  # one pixel
    mask[2, 10, 3:20] = 1  # a line
    mask[3, 0] = 1  # only on the frame
    mask[4] = 1  # everything
    out = np.asarray(poisson.blend(source, target, mask))
    for i in range(4):
        np.testing.assert_array_equal(out[i], target[i])
    assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    np.testing.assert_array_equal(out[4, 0], target[4, 0])
    assert np.abs(out[4] - target[4]).max() > 0.05


def test_batch_of_one_and_of_three_agree():
    rng = np.random.default_rng(4)
    source, target = (np.stack([smooth_image(rng, 48, 48) for _ in range(3)]) for _ in range(2))
    mask = np.stack([shapes(48, 48)[k] for k in SHAPES[:3]])[..., None].astype(np.float32)
    whole = poisson.blend(source, target, mask)
    for i in range(3):
        one = poisson.blend(source[i : i + 1], target[i : i + 1], mask[i : i + 1])
        np.testing.assert_allclose(one[0], whole[i], atol=1e-6)


def test_gradient_equals_the_linear_map():
    """Away from the clip, blend is affine in source and target, so a finite step is exact."""
    rng = np.random.default_rng(5)
    source, target, weight, step = (0.35 + 0.3 * smooth_image(rng, 24, 24)[None] for _ in range(4))
    mask = shapes(24, 24)["ellipse"][None, ..., None].astype(np.float32)
    step = 0.01 * (step - 0.5)

    def loss(source, target):
        return jnp.sum(weight * poisson.blend(source, target, mask))

    value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    base, (grad_s, grad_t) = value_and_grad(source, target)
    change_s = float(value_and_grad(source + step, target)[0] - base)
    change_t = float(value_and_grad(source, target + step)[0] - base)
    assert change_s == pytest.approx(float(jnp.sum(grad_s * step)), abs=2e-3)
    assert change_t == pytest.approx(float(jnp.sum(grad_t * step)), abs=2e-3)
    assert abs(change_t) > 0.1
    assert float(jnp.abs(grad_s).max()) > 0.01
