"""Regions and hulls against OpenCV and SciPy drawings, the soft mask against SBI's steps in OpenCV."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from face_points import face_points

from msddf_jax.data import schema
from msddf_jax.synth import masks

SIZE = 256
POINTS = np.round(face_points(SIZE)[0])
NO_FACE = np.where(np.arange(162).reshape(81, 2) == 3, np.nan, POINTS)
ON_A_LINE = np.stack([np.linspace(10, 100, 81)] * 2, -1)

REGIONS = jax.jit(lambda p: jax.vmap(lambda r: masks.region_masks(p, r, SIZE, SIZE))(jnp.arange(11)))
HULLS = jax.jit(
    lambda p: jax.vmap(lambda v, f: masks.hull_variant(p, v, f, SIZE, SIZE))(
        jnp.array([0, 1, 2, 3, 3]), jnp.array([0, 0, 0, 0, 1], bool)
    )
)
SOFTEN = jax.jit(masks.soften, static_argnames="erode")
DEFORM = jax.jit(lambda key, mask: jax.vmap(lambda k: masks.deform(k, mask))(jax.random.split(key, 40)))
VARY = jax.jit(lambda key, mask: jax.vmap(lambda k: masks.vary_contour(k, mask))(jax.random.split(key, 40)))


def overlap(a, b):
    a, b = np.asarray(a) > 0, np.asarray(b) > 0
    return (a & b).sum() / (a | b).sum()


def grown_line(start, end, n):
    line = np.zeros((SIZE, SIZE), np.uint8)
    cv2.line(line, [int(v) for v in start], [int(v) for v in end], 1, 2)
    return scipy.ndimage.binary_dilation(line, iterations=int(n))


def reference_regions(p):
    length = lambda a, b: np.hypot(*(a - b))
    left, right = (p[36] + p[39]) / 2, (p[42] + p[45]) / 2
    between = length(left, right)
    left_eye = grown_line(p[36], p[39], 4 * (length(p[36], p[39]) // 4))
    right_eye = grown_line(p[42], p[45], 4 * (length(p[42], p[45]) // 4))
    both = grown_line(left, right, between // 4)
    nose = grown_line(p[33], (left + right) / 2, between // 4)
    mouth = grown_line(p[48], p[54], length(p[48], p[54]) // 3)
    face = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(p.astype(np.int32)), 1)
    nose_eyes = [nose | left_eye, nose | right_eye, nose | both]
    return [left_eye, right_eye, both, nose, mouth, *nose_eyes, nose | mouth, both | nose | mouth, face]


def test_regions_are_the_drawn_ones():
    # Half a pixel around the thinnest region is 2.5 % of it.
    for name, mask, reference in zip(schema.REGIONS, REGIONS(POINTS), reference_regions(POINTS)):
        assert overlap(mask, reference) >= (0.99 if name == "hull" else 0.97), name


@pytest.mark.parametrize("points", [NO_FACE, ON_A_LINE, POINTS + 500], ids=["nan", "line", "outside"])
def test_no_face_no_mask(points):
    assert not np.asarray(REGIONS(points.astype(np.float32))).any()
    assert not np.asarray(HULLS(points.astype(np.float32))).any()


def reference_hulls(p):
    """Union of convex pieces, transcribed from the published description."""

    def union(pieces, p):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        for piece in pieces:
            cv2.fillConvexPoly(mask, cv2.convexHull(np.round(p[np.r_[piece]]).astype(np.int32)), 1)
        return mask

    components = [
        (slice(0, 9), 17),
        (slice(8, 17), 26),
        (slice(17, 20), 8),
        (slice(24, 27), 8),
        (slice(19, 25), 8),
        (slice(17, 22), 27, slice(31, 36), 8),
        (slice(22, 27), 27, slice(31, 36), 8),
        (slice(27, 31), slice(31, 36)),
    ]
    lifted = p.copy()
    beside = [(p[36] + (p[36] + p[0]) / 2) / 2, (p[45] + (p[45] + p[16]) / 2) / 2]
    lifted[17:22] += (p[17:22] - np.stack([beside[0], *p[36:40]])) / 2
    lifted[22:27] += (p[22:27] - np.stack([*p[42:46], beside[1]])) / 2
    full = [(slice(0, 17), slice(48, 68)), (slice(27, 31), 33), (slice(17, 27), 0, 27, 16, 33)]
    hulls = [union(full, p), union(components, lifted), union(components, p)]
    return [*hulls, union([(slice(0, 81),)], p), union([(slice(0, 68),)], p)]


def test_hull_variants_are_the_drawn_ones():
    found = HULLS(POINTS)
    for mask, reference in zip(found, reference_hulls(POINTS)):
        assert overlap(mask, reference) >= 0.985
    assert found[3].sum() > found[4].sum()  # the forehead counts


def test_draw_hull_draws_what_is_allowed():
    draw = jax.jit(
        lambda key, hulls, drop: masks.draw_hull(key, jnp.asarray(POINTS), SIZE, SIZE, hulls=hulls, forehead_drop=drop),
        static_argnums=1,
    )
    found = HULLS(POINTS)
    for i in range(3):
        only = draw(jax.random.key(i), ("facehull",), 1.0)
        np.testing.assert_array_equal(only, found[4])
    with pytest.raises(ValueError, match=r"hulls are \('face',\), allowed are"):
        masks.draw_hull(jax.random.key(0), POINTS, SIZE, SIZE, hulls=("face",))


def sbi_soft_mask(mask, shape, k1, k2, sigma):
    out = cv2.resize(mask, shape[::-1])
    out = cv2.GaussianBlur(out, (k1, k1), 0)
    out = out / out.max()
    out[out < 1 - 1e-4] = 0
    out = cv2.GaussianBlur(out, (k2, k2), sigma)
    out = out / out.max()
    return cv2.resize(out, mask.shape[::-1])


def test_soft_mask_is_sbis():
    disc = np.zeros((256, 256), np.float32)
    cv2.ellipse(disc, (130, 120), (60, 75), 0, 0, 360, 1.0, -1)
    for r1, r2, sigma in ((2, 2, 5), (7, 12, 9), (12, 12, 45)):
        out = np.asarray(SOFTEN(disc, jnp.ones(2), r1, r2, sigma))
        reference = sbi_soft_mask(disc, (256, 256), 2 * r1 + 1, 2 * r2 + 1, sigma)
        np.testing.assert_allclose(out, reference, atol=2e-5)
        resized = sbi_soft_mask(disc, (200, 230), 2 * r1 + 1, 2 * r2 + 1, sigma)
        out = np.asarray(SOFTEN(disc, jnp.array([256 / 200, 256 / 230]), r1, r2, sigma))
        assert np.abs(out - resized).mean() < 0.01 and np.abs(out - resized).max() < 0.35
        kept = np.asarray(SOFTEN(disc, jnp.ones(2), r1, r2, sigma, erode=False))
        assert kept.sum() > out.sum() and abs(kept.sum() / disc.sum() - 1) < 0.03


def test_soft_mask_of_next_to_nothing():
    # One draw for the empty mask, one for a mask that the erosion cannot keep whole.
    soft = jax.jit(lambda key, mask: masks.dynamic_mask(key, mask))
    assert not np.asarray(soft(jax.random.key(0), np.zeros((SIZE, SIZE), np.float32))).any()
    dot = np.zeros((SIZE, SIZE), np.float32)
    dot[60:62, 60:62] = 1
    out = np.asarray(soft(jax.random.key(0), dot))
    assert np.isfinite(out).all() and out.max() == pytest.approx(1.0) and out[0, 0] == 0
    np.testing.assert_array_equal(out, soft(jax.random.key(0), dot))


@pytest.fixture(scope="module")
def region():
    return np.asarray(REGIONS(POINTS))[schema.REGIONS.index("eyes_nose_mouth")]


def test_deformation_keeps_the_published_area(region):
    # Published code, 60 draws a mask at 256 px: mean ratio 0.94 to 0.99, range 0.54 to 1.20.
    out = np.asarray(DEFORM(jax.random.key(0), region))
    assert set(np.unique(out)) == {0.0, 1.0}
    ratio = out.sum((1, 2)) / region.sum()
    assert 0.92 < ratio.mean() < 1.03 and 0.5 < ratio.min() < 0.95 and ratio.max() < 1.25
    grown = cv2.dilate(region, np.ones((5, 5), np.uint8))
    assert (out <= grown).all()
    assert not np.asarray(DEFORM(jax.random.key(0), np.zeros_like(region))).any()


def test_contours_grow_and_shrink_in_their_shares(region):
    out = np.asarray(VARY(jax.random.key(0), region))
    assert set(np.unique(out)) == {0.0, 1.0}
    most = cv2.dilate(region, np.ones((19, 19), np.uint8))
    least = cv2.erode(region, np.ones((19, 19), np.uint8))
    # The smoothing moves a corner of the contour by a pixel or two, no more.
    assert (out <= cv2.dilate(most, np.ones((5, 5), np.uint8))).all()
    assert (out >= cv2.erode(least, np.ones((5, 5), np.uint8))).all()
    ratio = out.sum((1, 2)) / region.sum()
    assert 0.1 < (ratio > 1.05).mean() < 0.5 and 0.1 < (ratio < 0.95).mean() < 0.5
    assert not np.asarray(VARY(jax.random.key(0), np.zeros_like(region))).any()
