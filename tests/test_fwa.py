"""Face warping artifacts beside OpenCV's and NumPy's steps: alignment, coarse copy, masks, and the way back."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_points import face_images, face_points

from msddf_jax.data import schema
from msddf_jax.synth import fwa, recipes

SIDE = 256
WARP = jax.jit(fwa.warp_face, static_argnames=("sizes", "shapes", "deform", "grow", "vary_prob"))
COARSEN = jax.jit(fwa.coarsen, static_argnums=2)
MASK = jax.jit(fwa.draw_mask, static_argnums=(3, 4, 5, 6))


@pytest.fixture(scope="module")
def face():
    """An image [256, 256, 3] and landmarks, turned by ten degrees: the aligned square is not the frame's."""
    turn = np.deg2rad(10)
    points = face_points(SIDE)[0] - 127.5
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + 127.5
    return face_images(SIDE)[0], points.astype(np.float32)


def _umeyama(source, target):
    """Umeyama's least-squares similarity by singular values, [2, 3]."""
    s, t = source - source.mean(0), target - target.mean(0)
    u, values, v = np.linalg.svd(t.T @ s / len(s))
    assert np.linalg.det(u @ v) > 0
    linear = values.sum() / (s**2).sum(1).mean() * (u @ v)
    return np.hstack([linear, (target.mean(0) - linear @ source.mean(0))[:, None]])


def _planes(image):
    return jnp.asarray(np.moveaxis(image, -1, 0))


def test_the_coarse_copy_is_opencvs():
    image = np.random.default_rng(0).random((SIDE, SIDE, 3), np.float32)
    for small in (51, 127, 205):
        ours = np.moveaxis(np.asarray(COARSEN(_planes(image), jnp.int32(small), 205)), 0, -1)
        low = cv2.GaussianBlur(cv2.resize(image, (small, small)), (5, 5), 0)
        np.testing.assert_allclose(ours, cv2.resize(low, (SIDE, SIDE)), atol=2e-5, err_msg=str(small))


def test_the_whole_way_is_opencvs(face):
    image, points = face
    align = _umeyama(points[17:68].astype(np.float64), fwa.MEAN_FACE * SIDE)
    head = cv2.warpAffine(image, align, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    low = cv2.GaussianBlur(cv2.resize(head, (77, 77)), (5, 5), 0)
    back = cv2.warpAffine(
        cv2.resize(low, (SIDE, SIDE)), align, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
    ones = np.ones((SIDE, SIDE), np.float32)
    mask = cv2.warpAffine(ones, align, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    out = WARP(jax.random.key(0), _planes(image), _planes(image), points, sizes=(77,), shapes=("square",))
    assert out["changed"] and out["type"] == schema.FORGERY_TYPES.index("self_blend")
    # OpenCV's warp rounds places to 1/32 of a pixel.
    assert np.abs(np.asarray(out["map"])[..., 0] - mask).max() < 0.05 and 0.1 < mask.mean() < 0.5
    inside = mask == 1
    change = np.abs(back - image)[inside].mean()
    difference = np.abs(np.asarray(out["image"]) - back)[inside]
    assert difference.mean() < 5e-4 and difference.max() < 0.02 and change > 0.015
    outside = np.asarray(out["map"])[..., 0] == 0
    np.testing.assert_array_equal(np.asarray(out["image"])[outside], image[outside])


def test_the_authors_way_at_the_small_side_differs_little(face):
    """They align to 77 px at once. Both are far from the frame and near each other."""
    image, points = face
    align = _umeyama(points[17:68].astype(np.float64), fwa.MEAN_FACE * 77)
    low = cv2.GaussianBlur(cv2.warpAffine(image, align, (77, 77)), (5, 5), 0)
    theirs = image.copy()
    cv2.warpAffine(low, align, (SIDE, SIDE), theirs, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_TRANSPARENT)
    out = WARP(jax.random.key(0), _planes(image), _planes(image), points, sizes=(77,), shapes=("square",))
    inside = (np.asarray(out["map"])[..., 0] == 1) & (np.abs(theirs - image).max(-1) > 0)
    apart = np.abs(np.asarray(out["image"]) - theirs)[inside].mean()
    assert apart < 0.25 * np.abs(theirs - image)[inside].mean()


def _hull(points):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points).astype(np.int32)), 1)
    return mask > 0


def test_shapes_are_hulls_of_their_points():
    points = np.concatenate(
        [np.random.default_rng(1).uniform(-40, 296, (17, 2)), fwa.MEAN_FACE * SIDE, np.zeros((13, 2))]
    )
    points = points.astype(np.float32)
    points[9, 1] = 300.0
    lifted = points[:27].copy()
    lifted[5:12, 1] += 15
    # A face of 300 px less the height of point 22.
    lifted[18:, 1] -= (300.0 - points[22, 1]) / 4
    expected = {
        "square": np.ones((SIDE, SIDE), bool),
        "polygon": _hull(points[[*range(17, 27), 48, 59, 58, 57, 56, 55, 54]]),
        "whole": _hull(points[:68]),
        "inner": _hull(points[17:68]),
        "no_brows": _hull(points[27:68]),
        "lower": _hull(points[[*range(2, 15), 29]]),
        "lifted": _hull(np.maximum(lifted, [-1e9, 0])),
    }
    assert tuple(expected) == fwa.SHAPES
    for index, (name, mask) in enumerate(expected.items()):
        ours = np.asarray(MASK(jax.random.key(0), points, jnp.int32(index), SIDE, 0.0, 0, 0.9)) > 0
        assert (ours & mask).sum() / (ours | mask).sum() > 0.98, name


def test_a_shape_deforms_within_the_face_and_grows_by_squares():
    points = np.pad(fwa.MEAN_FACE * SIDE, ((17, 13), (0, 0)))
    points[:17] = np.stack([np.linspace(20, 230, 17), 150 + 120 * np.sin(np.linspace(0, np.pi, 17))], -1)
    inner = jnp.int32(fwa.SHAPES.index("inner"))
    plain, limit = (np.asarray(MASK(jax.random.key(0), points, i, SIDE, 0.0, 0, 0.9)) for i in (inner, jnp.int32(6)))
    masks = [np.asarray(MASK(jax.random.key(seed), points, inner, SIDE, 20.0, 0, 1.0)) for seed in range(3)]
    assert all((mask <= limit).all() and (mask != plain).any() for mask in masks)
    assert all(0.5 < mask.sum() / plain.sum() < 2 for mask in masks)
    grown = [np.asarray(MASK(jax.random.key(seed), points, inner, SIDE, 0.0, 8, 1.0)) for seed in range(6)]
    of_radius = {r: cv2.dilate(plain, np.ones((2 * r + 1,) * 2)) for r in range(9)}
    radii = {r for mask in grown for r in range(9) if (mask == of_radius[r]).all()}
    assert len(radii) > 2 and all(any((mask == m).all() for m in of_radius.values()) for mask in grown)
    never = MASK(jax.random.key(0), points, inner, SIDE, 20.0, 8, 0.0)
    np.testing.assert_array_equal(np.asarray(never) > 0, (plain > 0) & (limit > 0))


def test_sizes_and_shapes_are_drawn_and_the_jaw_has_no_eyes():
    image, points = face_images(64, 8), face_points(64, 8)
    run = jax.jit(lambda key: fwa.fwa(key, image, points, sizes=(24, 100), shapes=("lower", "polygon")))
    out = jax.device_get(run(jax.random.key(0)))
    assert out["changed"].all() and (out["target"] == image).all()
    eyes = out["region_parts"][:, :2]
    assert set(eyes.ravel()) == {0.0, 1.0} and (out["region_parts"][:, 2:] == 1).all()
    # 24 px of 256 leave less of the grain than 100 do.
    change = np.abs(out["image"] - image).sum((1, 2, 3)) / out["map"].sum((1, 2, 3))
    assert change.max() > 1.3 * change.min()


def test_a_face_enters_an_altered_frame_and_its_real_is_that_frame():
    image, points = face_images(64, 4), face_points(64, 4)
    frame = {"blur_prob": 0.0, "downscale_prob": 0.0, "tone_prob": 1.0, "brightness": 0.3, "jpeg_prob": 0.0}
    rows = {"image": image, "landmarks": points, "identity": jnp.arange(4)}
    recipe = {"name": "fwa", "frame": frame, "blend": {"shapes": ("square",)}}
    run = jax.jit(lambda key: recipes.forge(recipe, key, rows, flip=0.0))
    made = jax.device_get(run(jax.random.key(1)))
    target, forged = made["target"], made["forged"]
    inside, outside = forged["map"][..., 0] == 1, forged["map"][..., 0] == 0
    for row in range(4):
        shift = np.abs((target - image)[row].mean())
        assert shift > 0.01
        np.testing.assert_array_equal(forged["image"][row][outside[row]], target[row][outside[row]])
        # The face keeps the light that it had.
        assert np.abs((forged["image"] - image)[row][inside[row]].mean()) < 0.1 * shift + 2e-3
    shown = jax.device_get(recipes.render(recipe, jax.random.key(1), rows, flip=0.0))["image"]
    assert (np.abs((shown - image).mean((1, 2, 3))) > 0.005).any()


@pytest.mark.parametrize(
    ("blend", "said"),
    [
        ({"shapes": ("hull",)}, r"blend\.shapes are \('hull',\), allowed are one or more of \('square', 'polygon'"),
        ({"shapes": ()}, r"blend\.shapes are \(\)"),
        ({"sizes": (0, 64)}, r"blend\.sizes are \(0, 64\), expected one or more within 1 to 256"),
        ({"sizes": (512,)}, r"blend\.sizes are \(512,\)"),
    ],
)
def test_wrong_settings_are_named(blend, said):
    rows = {"image": face_images(32), "landmarks": face_points(32), "identity": jnp.zeros(1, int)}
    with pytest.raises(ValueError, match=said):
        recipes.forge({"name": "fwa", "blend": blend}, jax.random.key(0), rows, flip=0.0)


@pytest.mark.long  # Compiles the recipe twice more.
def test_the_ported_recipe_is_the_same_in_any_batch_and_either_way():
    image, points = face_images(48, 4), face_points(48, 4)
    blend = dict(sizes=(51, 205), shapes=("whole", "inner", "no_brows", "lower", "lifted"), deform=20.0, grow=8)
    run = jax.jit(functools.partial(fwa.fwa, **blend), static_argnames="one_by_one")
    whole = run(jax.random.key(0), image, points)
    assert whole["changed"].all()
    one = run(jax.random.key(0), image[:1], points[:1])
    vectorised = run(jax.random.key(0), image, points, one_by_one=False)
    for name, value in whole.items():
        # Programs of two batch sizes: a last bit may differ, under the plain code generator of the tests.
        np.testing.assert_allclose(one[name], value[:1], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(vectorised[name], value, atol=1e-4, err_msg=name)
