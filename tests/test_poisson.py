"""The Poisson blend against OpenCV's seamlessClone and against an exact sparse solve."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from msddf_jax.synth import poisson

HEIGHT, WIDTH = 64, 56
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


def pairs(seed):
    """Source and target [4, H, W, 3] in whole grey levels, and the four masks [4, H, W, 1]."""
    rng = np.random.default_rng(seed)
    images = np.stack([[smooth_image(rng, HEIGHT, WIDTH) for _ in SHAPES] for _ in range(2)])
    source, target = np.round(images * 255).astype(np.float32) / np.float32(255)
    masks = shapes(HEIGHT, WIDTH)
    return source, target, np.stack([masks[name] for name in SHAPES])[..., None].astype(np.float32)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_clone_equals_seamless_clone(one_by_one):
    source, target, masks = pairs(0)
    out = 255 * np.asarray(poisson.clone(source, target, masks, one_by_one), np.float64)
    for i, name in enumerate(SHAPES):
        mask = masks[i, ..., 0].astype(np.uint8)
        expected = opencv_clone(source[i], target[i], mask)
        # OpenCV truncates to whole levels; ours keeps the fraction: 0.5 of a level on average.
        assert np.abs(out[i] - expected)[mask > 0].mean() < 0.6, name
        assert np.abs(np.floor(out[i] + 0.01) - expected).mean() < 0.05, name


def test_clone_is_the_exact_solution():
    source, target, masks = pairs(1)
    out = np.asarray(poisson.clone(source, target, masks, True))
    for i, name in enumerate(SHAPES):
        expected = sparse_clone(source[i], target[i], masks[i, ..., 0].astype(np.uint8))
        np.testing.assert_allclose(out[i], expected, atol=2e-5, err_msg=name)


def test_blend_is_the_clone_inside_and_the_target_outside():
    source, target, masks = pairs(2)
    clone = np.asarray(poisson.clone(source, target, masks, True))
    blended = np.asarray(poisson.blend(source, target, masks, True))
    np.testing.assert_allclose(blended, np.where(masks > 0, clone, target), atol=1e-6)
    assert np.abs(clone - target)[masks[..., 0] == 0].max() > 0.01


def test_source_plus_a_constant_is_the_target():
    _, target, masks = pairs(3)
    target = 0.8 * target
    source = target + np.array([0.1, -0.05, 0.15], np.float32)
    np.testing.assert_allclose(poisson.blend(source, target, masks, True), target, atol=1e-5)


@pytest.mark.parametrize(
    "rows, cols, changes",
    [
        (slice(0, 0), slice(0, 0), False),  # empty
        (slice(10, 11), slice(12, 13), False),  # one pixel
        (slice(10, 11), slice(3, 20), False),  # a line
        (slice(0, 1), slice(None), False),  # on the image's own edge
        (slice(None), slice(None), True),  # everything
    ],
)
def test_degenerate_masks(rows, cols, changes):
    source, target, masks = pairs(4)
    masks = np.zeros_like(masks)
    masks[:, rows, cols] = 1
    out = np.asarray(poisson.blend(source, target, masks, True))
    assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    np.testing.assert_array_equal(out[:, 0], target[:, 0])
    assert (np.abs(out - target).max() > 0.05) == changes
    if not changes:
        np.testing.assert_array_equal(out, target)


def test_batch_of_one_and_of_four_agree():
    source, target, masks = pairs(5)
    whole = poisson.blend(source, target, masks, True)
    for i in range(4):
        one = poisson.blend(source[i : i + 1], target[i : i + 1], masks[i : i + 1], True)
        np.testing.assert_allclose(one[0], whole[i], atol=1e-6)


def test_gradient_equals_the_linear_map():
    """Away from the clip, blend is affine in source and target, so a finite step is exact."""
    rng = np.random.default_rng(5)
    source, target, weight, step = (0.35 + 0.3 * smooth_image(rng, 24, 24)[None] for _ in range(4))
    mask = shapes(24, 24)["ellipse"][None, ..., None].astype(np.float32)
    step = 0.01 * (step - 0.5)

    def loss(source, target):
        return jnp.sum(weight * poisson.blend(source, target, mask, False))

    value_and_grad = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    base, (grad_s, grad_t) = value_and_grad(source, target)
    change_s = float(value_and_grad(source + step, target)[0] - base)
    change_t = float(value_and_grad(source, target + step)[0] - base)
    assert change_s == pytest.approx(float(jnp.sum(grad_s * step)), abs=2e-3)
    assert change_t == pytest.approx(float(jnp.sum(grad_t * step)), abs=2e-3)
    assert abs(change_t) > 0.1
