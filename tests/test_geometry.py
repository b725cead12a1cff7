"""Hulls against OpenCV, distances and warps against SciPy, flips and similarities against hand-worked cases."""

import cv2
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from face_points import face_points

from msddf_jax.data import schema
from msddf_jax.faces import align
from msddf_jax.synth import geometry

HULL = jax.jit(geometry.hull_mask, static_argnums=(1, 2))


def overlap(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def cv2_hull(points, height, width):
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.astype(np.int32)), 1)
    return mask > 0


def test_hull_mask_is_opencvs():
    rng = np.random.default_rng(0)
    points = np.concatenate(
        [
            np.round(rng.normal(128, 45, (8, 81, 2))),
            np.round(rng.normal(128, 90, (4, 81, 2))),  # some of it outside the frame
            np.round(face_points(256, 4)),
        ]
    ).astype(np.float32)
    masks = np.asarray(HULL(points, 256, 256))
    for mask, row in zip(masks, points):
        assert overlap(mask, cv2_hull(row, 256, 256)) >= 0.99


def _width(corners):
    """Least distance of two parallel lines that hold a convex polygon between them."""
    widths = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        (ex, ey), off = end - start, corners - start
        widths.append(np.abs(ex * off[:, 1] - ey * off[:, 0]).max() / max(np.hypot(ex, ey), 1e-9))
    return min(widths)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.lists(st.tuples(st.integers(0, 39), st.integers(0, 47)), min_size=3, max_size=9))
@hypothesis.example([(0, 0), (0, 1), (1, 2)])  # half a pixel of area
def test_hull_holds_its_points_and_opencvs_within_a_pixel(points):
    points = np.resize(np.array(points, np.float32), (9, 2))
    mask = np.asarray(HULL(points, 48, 40))
    reference = cv2_hull(points, 48, 40)
    outline, hull = np.zeros_like(reference, np.uint8), cv2.convexHull(points.astype(np.int32))
    cv2.polylines(outline, [hull], True, 1)
    near = cv2.dilate(outline, np.ones((3, 3), np.uint8)) > 0
    if not mask.any():  # degenerate: OpenCV draws a line, and nothing further than a pixel from it
        assert _width(hull[:, 0]) < geometry.MIN_HULL_WIDTH + 1e-4 and not (reference & ~near).any()
        return
    assert mask[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    assert (mask == reference)[~near].all()


@pytest.mark.parametrize(
    "points",
    [
        np.full((81, 2), 7.0),
        np.stack([np.arange(81.0), np.arange(81.0) * 0.5], -1),
        np.stack([np.arange(81.0), np.full(81, 3.0)], -1),
        np.where(np.arange(162).reshape(81, 2) == 40, np.nan, face_points(64)[0]),
        np.where(np.arange(162).reshape(81, 2) == 40, np.inf, face_points(64)[0]),
        face_points(64)[0] + 1000.0,
    ],
    ids=["one point", "diagonal", "row", "nan", "inf", "outside"],
)
def test_degenerate_hulls_are_empty(points):
    assert not np.asarray(HULL(points.astype(np.float32), 64, 64)).any()


def test_repeated_points_and_a_square():
    square = np.resize(np.array([[10, 12], [20, 12], [20, 30], [10, 30]], np.float32), (81, 2))
    mask = np.asarray(HULL(square, 64, 64))
    expected = np.zeros((64, 64), bool)
    expected[12:31, 10:21] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "start,end", [((20, 20), (20, 20)), ((8, 20), (30, 20)), ((20, 8), (20, 30)), ((10, 10), (25, 25))]
)
def test_segment_distance_counts_cross_dilations(start, end):
    line = np.zeros((40, 48), np.uint8)
    cv2.line(line, start, end, 1, 1)
    distance = np.asarray(geometry.segment_distance(jnp.array(start, float), jnp.array(end, float), 40, 48))
    for n in (1, 4, 9):
        grown = scipy.ndimage.binary_dilation(line, iterations=n)
        np.testing.assert_array_equal(distance <= n + 1e-4, grown)


def test_warp_is_bilinear_sampling():
    rng = np.random.default_rng(1)
    planes = rng.random((2, 20, 24)).astype(np.float32)
    x, y = rng.uniform(-3, 27, (2, 15, 17)).astype(np.float32)
    for border, mode in (("edge", "nearest"), ("zero", "grid-constant")):
        out = np.asarray(geometry.warp(jnp.asarray(planes), x, y, border))
        reference = [scipy.ndimage.map_coordinates(p, [y, x], order=1, mode=mode) for p in planes]
        np.testing.assert_allclose(out, reference, atol=1e-5)
    with pytest.raises(ValueError, match="border is 'wrap', allowed are 'edge' and 'zero'"):
        geometry.warp(jnp.asarray(planes), x, y, "wrap")


def test_affine_moves_points_and_pixels_alike():
    plane = np.zeros((1, 64, 64), np.float32)
    plane[0, 30:33, 20:23] = 1.0  # centred on (21, 31)
    for i in range(3):
        zoom, offset = geometry.draw_affine(jax.random.key(i), 64, 64, (0.1, 0.1))
        moved = np.asarray(geometry.affine_planes(jnp.asarray(plane), zoom, offset))[0]
        x, y = np.array([21.0, 31.0]) * float(zoom) + np.asarray(offset)
        rows, cols = np.indices(moved.shape)
        assert abs((moved * cols).sum() / moved.sum() - x) < 0.1
        assert abs((moved * rows).sum() / moved.sum() - y) < 0.1


def test_affine_draws_stay_in_range():
    keys = jax.random.split(jax.random.key(0), 2000)
    zoom, offset = jax.vmap(lambda k: geometry.draw_affine(k, 256, 256))(keys)
    centre = 127.5 * zoom[:, None] + offset - 127.5  # where the centre goes
    assert 0.95 <= zoom.min() < 0.96 and 1.04 < zoom.max() <= 1 / 0.95 + 1e-6
    assert 0.029 * 256 < jnp.abs(centre[:, 0]).max() <= 0.03 * 256 + 1e-3
    assert 0.0145 * 256 < jnp.abs(centre[:, 1]).max() <= 0.015 * 256 + 1e-3


def test_elastic_field_has_the_statistics_of_smoothed_noise():
    keys = jax.random.split(jax.random.key(0), 12)
    dx, dy = jax.jit(jax.vmap(lambda k: geometry.elastic_field(k, 256, 256)))(keys)
    field = np.stack([dx, dy])
    rng = np.random.default_rng(0)
    reference = np.stack([scipy.ndimage.gaussian_filter(rng.uniform(-1, 1, (256, 256)), 7) for _ in range(12)]) * 50
    assert abs(field.std() / (50 / (7 * np.sqrt(12 * np.pi))) - 1) < 0.05
    assert abs(field.std() / reference.std() - 1) < 0.08
    along = lambda a: (a[..., 10:] * a[..., :-10]).mean() / a.var()
    assert abs(along(field) - along(reference)) < 0.06
    small = np.asarray(geometry.elastic_field(keys[0], 64, 64)[0])
    np.testing.assert_allclose(small, np.asarray(dx[0])[::4, ::4] / 4, atol=1e-5)


def test_grid_field_keeps_anchors_in_the_frame():
    keys = jax.random.split(jax.random.key(0), 50)
    dx, dy = jax.vmap(lambda k: geometry.grid_field(k, 33, 49, 200.0))(keys)
    x, y = np.asarray(dx) + np.arange(49), np.asarray(dy) + np.arange(33)[:, None]
    assert x.min() >= -1e-3 and x.max() <= 48 + 1e-3 and y.min() >= -1e-3 and y.max() <= 32 + 1e-3
    gentle = np.asarray(jax.vmap(lambda k: geometry.grid_field(k, 256, 256)[0])(keys))
    assert abs(gentle[:, 64, 128].std() - 10) < 3  # at an anchor inside the frame


def test_flip_reverses_image_and_names():
    points = face_points(64)[0]
    points[40] += 5.0
    flipped = np.asarray(geometry.flip_landmarks(jnp.asarray(points), 64))
    np.testing.assert_allclose(np.asarray(geometry.flip_landmarks(flipped, 64)), points, atol=1e-5)
    # The subject's other eye takes the place; what moved with it keeps its distance from the edge.
    np.testing.assert_allclose(flipped[47], [63 - points[40, 0], points[40, 1]], atol=1e-5)
    assert flipped[36:42, 0].mean() < 32 < flipped[42:48, 0].mean()
    assert flipped.shape == (schema.NUM_LANDMARKS, 2)


def test_similarity_is_umeyamas():
    rng = np.random.default_rng(0)
    source, target = rng.normal(0, 20, (2, 9, 2)).astype(np.float32)
    matrix = np.asarray(geometry.estimate_similarity(jnp.asarray(source), jnp.asarray(target + source)))
    np.testing.assert_allclose(matrix, align.estimate_similarity(source, target + source), atol=1e-4)
    exact = np.array([[0.8, -0.6, 3.0], [0.6, 0.8, -2.0]], np.float32) * [[2, 2, 1], [2, 2, 1]]
    moved = geometry.transform_points(jnp.asarray(source), jnp.asarray(exact, jnp.float32))
    found = geometry.estimate_similarity(jnp.asarray(source), moved)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    still = geometry.estimate_similarity(jnp.ones((9, 2)), jnp.ones((9, 2)) * 4)
    np.testing.assert_allclose(still, [[1, 0, 3], [0, 1, 3]], atol=1e-6)


def test_a_rows_key_does_not_depend_on_the_batch():
    draw = lambda key, x: x + jax.random.uniform(key)
    rows = jnp.arange(8.0)
    eight = geometry.map_samples(draw, jax.random.key(3), rows, one_by_one=False)
    looped = geometry.map_samples(draw, jax.random.key(3), rows, one_by_one=True)
    one = geometry.map_samples(draw, jax.random.key(3), rows[:1], one_by_one=True)
    np.testing.assert_array_equal(eight, looped)
    np.testing.assert_array_equal(eight[:1], one)
    assert len(set(np.asarray(eight - rows).tolist())) == 8
