import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from msddf_jax.faces import align
from msddf_jax.opencv import cv2

finite = st.floats(-1000, 1000, allow_nan=False, width=32)
similarities = st.tuples(st.floats(0.05, 20), st.floats(-np.pi, np.pi), finite, finite)


def _matrix(scale, angle, x, y):
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[a, -b, x], [b, a, y]])


def _points(seed, n=5):
    return np.random.default_rng(seed).uniform(0, 300, (n, 2))


def test_dfb_template_is_the_published_one():
    published = [(96.8696, 120.4331), (158.8251, 120.0904), (128.0443, 155.6687), (102.5922, 191.9393)]
    published.append((153.8987, 191.6556))
    np.testing.assert_allclose(align.template_points("dfb", 256), published, atol=0.01)
    np.testing.assert_allclose(align.template_points("sjedd", 256), published, atol=0.01)


def test_gend_template_is_the_published_one():
    published = [(96.49, 120.12), (159.51, 120.12), (128.0, 155.57), (102.4, 191.02), (153.6, 191.02)]
    np.testing.assert_allclose(align.template_points("gend", 256), published, atol=0.01)


def test_template_scales_with_the_crop():
    np.testing.assert_allclose(align.template_points("dfb", 512), 2 * align.template_points("dfb", 256))


def test_alignment_points_by_preset():
    landmarks = np.stack([np.arange(81), 100 + np.arange(81)], 1)
    assert align.alignment_points(landmarks, "dfb")[:, 0].tolist() == [37, 44, 30, 49, 55]
    # Means of 36-41 and 42-47.
    assert align.alignment_points(landmarks, "gend")[:, 0].tolist() == [38.5, 44.5, 30, 48, 54]


def test_unknown_preset_lists_the_names():
    with pytest.raises(ValueError, match=r"'dbf'.*dfb, sjedd, gend, sbi"):
        align.get_preset("dbf")


@hypothesis.given(similarities, st.integers(0, 1000))
def test_estimate_similarity_recovers_the_truth(parameters, seed):
    truth, src = _matrix(*parameters), _points(seed)
    matrix = align.estimate_similarity(src, align.transform_points(src, truth))
    np.testing.assert_allclose(matrix, truth, atol=1e-6)


@hypothesis.given(st.integers(0, 10_000), st.integers(2, 12))
def test_estimate_similarity_is_the_least_squares_solution(seed, n):
    src, dst = _points(seed, n), _points(seed + 1, n)
    # The four unknowns a, b, x, y of x' = a x - b y + tx, y' = b x + a y + ty, solved as a linear system.
    rows = np.zeros((2 * n, 4))
    rows[0::2] = np.stack([src[:, 0], -src[:, 1], np.ones(n), np.zeros(n)], 1)
    rows[1::2] = np.stack([src[:, 1], src[:, 0], np.zeros(n), np.ones(n)], 1)
    a, b, x, y = np.linalg.lstsq(rows, dst.ravel(), rcond=None)[0]
    np.testing.assert_allclose(align.estimate_similarity(src, dst), [[a, -b, x], [b, a, y]], atol=1e-6)


def test_estimate_similarity_never_mirrors():
    src = _points(3)
    matrix = align.estimate_similarity(src, src * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) >= 0


@pytest.mark.parametrize(
    "src, dst, message",
    [
        (np.ones((5, 2)), np.zeros((5, 2)), "coincide"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "finite"),
        (np.zeros((5, 2)), np.zeros((4, 2)), "expected two"),
        (np.zeros((1, 2)), np.zeros((1, 2)), "N >= 2"),
    ],
)
def test_estimate_similarity_refuses(src, dst, message):
    with pytest.raises(ValueError, match=message):
        align.estimate_similarity(src, dst)


def test_transform_points_by_hand():
    quarter_turn = np.array([[0, -2, 10], [2, 0, 20]])
    assert align.transform_points([[[3, 4]]], quarter_turn).tolist() == [[[2, 26]]]


def test_warp_image_moves_pixels_as_transform_points_moves_points():
    image = np.zeros((50, 60, 3), np.uint8)
    image[20, 30] = (10, 200, 90)
    shifted = align.warp_image(image, [[1, 0, -5], [0, 1, 4]], 64)
    assert shifted.shape == (64, 64, 3)
    assert shifted[24, 25].tolist() == [10, 200, 90]
    assert np.count_nonzero(shifted.any(-1)) == 1
    # A blurred dot under rotation and scale: its centre of mass is where the point goes.
    y, x = np.mgrid[:128, :128]
    dot = (255 * np.exp(-((x - 40) ** 2 + (y - 70) ** 2) / 50)).astype(np.uint8)
    matrix = _matrix(0.8, 0.5, 30, -10)
    warped = align.warp_image(dot, matrix, 128).astype(float)
    centre = [(warped * x).sum() / warped.sum(), (warped * y).sum() / warped.sum()]
    np.testing.assert_allclose(centre, align.transform_points([40, 70], matrix), atol=0.05)


def test_warp_mask_takes_everything_above_one():
    mask = np.zeros((8, 8), np.uint8)
    mask[2], mask[3], mask[4] = 1, 2, 255
    out = align.warp_mask(mask, [[1, 0, 0], [0, 1, 0]], 8)
    assert out[:, 0].tolist() == [0, 0, 0, 255, 255, 0, 0, 0]
    assert out.dtype == np.uint8


@pytest.mark.parametrize("preset", list(align.PRESETS))
def test_align_face_reaches_the_template_where_it_can(preset):
    landmarks = np.random.default_rng(0).uniform(0, 99, (81, 2))
    pose = _matrix(2.5, -0.4, 300, 120)
    target = align.template_points(preset, 256)
    for indices, point in zip(align.get_preset(preset).points, target):
        landmarks[list(indices)] = point
    frame = align.transform_points(landmarks, pose)
    matrix = align.align_face(frame, preset, 256)
    np.testing.assert_allclose(align.transform_points(frame, matrix), landmarks, atol=1e-6)


@pytest.mark.parametrize("preset", list(align.PRESETS))
@hypothesis.given(similarities.filter(lambda s: 0.2 < s[0] < 5), st.integers(0, 100))
def test_crop_agrees_with_the_published_template_to_half_a_pixel(preset, parameters, seed):
    """Five points that are a moved template, with landmarks rounded to whole pixels as dlib gives them."""
    target = align.template_points(preset, 256)
    landmarks = np.random.default_rng(seed).uniform(0, 256, (81, 2))
    for indices, point in zip(align.get_preset(preset).points, target):
        landmarks[list(indices)] = point
    pose = _matrix(max(parameters[0], 2.5), *parameters[1:])  # the face is not smaller in the frame than in the crop
    frame = np.round(align.transform_points(landmarks, pose))
    matrix = align.align_face(frame, preset, 256)
    exact = align.transform_points(align.transform_points(landmarks, pose), matrix)
    assert np.abs(align.alignment_points(exact, preset) - target).max() < 0.5


def test_sbi_crop_is_the_box_with_an_eighth_on_each_side():
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    # 40 x 48 pixels: 5 and 6 more on each side, ends as SBI cuts them (int, and int + 1).
    matrix = align.crop_matrix(None, [50, 30, 90, 78], image.shape, "sbi", 64)
    expected = cv2.resize(image[24:85, 45:96], (64, 64), interpolation=cv2.INTER_LINEAR)
    assert (
        np.abs(align.warp_image(image, matrix, 64).astype(int) - expected)[1:-1, 1:-1].max() <= 8
    )  # of noise at 1/32 pixel
    np.testing.assert_allclose(align.transform_points([44.5, 84.5], matrix), [-0.5, 63.5])
    # Cut at the edge of the picture.
    matrix = align.crop_matrix(None, [-10, 100, 30, 140], image.shape, "sbi", 64)
    np.testing.assert_allclose(align.transform_points([[-0.5, 94.5], [35.5, 119.5]], matrix), [[-0.5] * 2, [63.5] * 2])
    with pytest.raises(ValueError, match="outside the frame"):
        align.crop_matrix(None, [200, 10, 240, 50], image.shape, "sbi", 64)
    with pytest.raises(ValueError, match="no template; these have: dfb, sjedd, gend"):
        align.template_points("sbi", 64)
