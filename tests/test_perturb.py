"""Each perturbation against its published definition, written with OpenCV and NumPy on uint8 images."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.evaluators import perturb
from msddf_jax.synth import degrade

TABLES = {
    row.name: row
    for row in (*perturb.DEEPERFORENSICS, perturb.VC_FRAMES, *perturb.GEND, *perturb.RESIZE, *perturb.SCREENSHOT)
}


def photo(seed=0, batch=2, height=256, width=288):
    """Smooth colours, an edge and grain, uint8 RGB [B, H, W, 3]."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(batch):
        image = cv2.resize(rng.random((6, 7, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
        cv2.circle(image, (width // 2, height // 2), height // 4, rng.random(3).tolist(), -1)
        image += 0.05 * rng.standard_normal(image.shape)
        out.append(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8))
    return np.stack(out)


def run(name, images, level, key=None):
    """A row of the tables on uint8 images, rounded as the evaluator does."""
    row, x = TABLES[name], images.astype(np.float32) / 255
    out = row.fn(x, level) if row.kind == "device" else row.fn(jax.random.key(3) if key is None else key, x, level)
    assert out.shape == x.shape and out.dtype == jnp.float32
    return np.asarray(perturb.to_uint8(out))


def assert_levels(ours, expected):
    """Equal to one grey level everywhere, and not just off by one everywhere."""
    difference = np.abs(ours.astype(int) - expected.astype(int))
    assert difference.max() <= 1, difference.max()
    assert ours.shape == expected.shape


def to_studio(bgr):
    """OpenCV's float BGR -> YCrCb on 0..255, then to the studio range, as the original code; channels Y, Cr, Cb."""
    ycc = cv2.cvtColor(bgr.astype(np.float32), cv2.COLOR_BGR2YCrCb)
    return (ycc * np.array([219, 224, 224], np.float32) + 16) / 255


def from_studio(ycc):
    full = (ycc * 255 - 16) / np.array([219, 224, 224], np.float32)
    return cv2.cvtColor(full.astype(np.float32), cv2.COLOR_YCrCb2BGR)


def assert_two_steps(ours, expected):
    """After two resizes: where both were off by one, in one pixel of a thousand at most, it is two."""
    difference = np.abs(ours.astype(int) - expected.astype(int))
    assert difference.max() <= 2 and (difference > 1).mean() < 1e-3


def bgr(images):
    return images[..., ::-1]


def test_published_levels():
    levels = {row.name: row.levels for row in perturb.DEEPERFORENSICS}
    assert levels == {
        "CS": (0.4, 0.3, 0.2, 0.1, 0.0),
        "CC": (0.85, 0.725, 0.6, 0.475, 0.35),
        "BW": (16, 32, 48, 64, 80),
        "GNC": (0.001, 0.002, 0.005, 0.01, 0.05),
        "GB": (7, 9, 13, 17, 21),
        "JPEG": (2, 3, 4, 5, 6),
    }
    assert perturb.VC_FRAMES.levels == (70, 60, 50, 40, 30)
    gend = {row.name: row.levels for row in perturb.GEND}
    assert gend["blur"] == ((0, 0), (5, 0.5), (7, 1), (11, 1.5), (13, 2), (19, 3))
    assert gend["noise"] == (0, 0.01, 0.03, 0.05, 0.1, 0.2)
    assert gend["resize linear"] == (224, 112, 64)


@pytest.mark.parametrize("level", TABLES["CS"].levels)
def test_saturation(level):
    images = photo(1)
    expected = []
    for image in bgr(images):
        ycc = to_studio(image)
        ycc[..., 1:] = 0.5 + (ycc[..., 1:] - 0.5) * level
        # The original cuts to uint8 without clipping; saturation only moves inwards.
        expected.append(from_studio(ycc).clip(0, 255).astype(np.uint8))
    ours = run("CS", images, level)
    assert_levels(ours, bgr(np.stack(expected)))
    if level == 0.0:
        assert np.ptp(ours.astype(int), axis=-1).max() == 0


@pytest.mark.parametrize("level", TABLES["CC"].levels)
def test_contrast(level):
    images = photo(2)
    assert_levels(run("CC", images, level), (images.astype(np.float32) * level).astype(np.uint8))


@pytest.mark.parametrize("level", TABLES["GB"].levels)
def test_deeperforensics_blur(level):
    images = photo(3)
    expected = np.stack([cv2.GaussianBlur(image, (level, level), level / 6) for image in images])
    assert_levels(run("GB", images, level), expected)


@pytest.mark.long
@pytest.mark.parametrize(("level", "size"), [*((f, (256, 256)) for f in TABLES["JPEG"].levels), (3, (100, 131))])
def test_pixelation_with_sides_cut_down(level, size):
    # 256 / 6 = 42.67 is 42 in the original, not 43.
    images = photo(4, 2, *size)
    small = [cv2.resize(image, (size[1] // level, size[0] // level)) for image in images]
    expected = np.stack([cv2.resize(image, (size[1], size[0])) for image in small])
    assert_levels(run("JPEG", images, level), expected)


@pytest.mark.parametrize(("level", "std"), list(zip(TABLES["GNC"].levels, [
    (16, 12, 19), (23, 17, 27), (36, 27, 42), (50, 37, 59), (113, 84, 133)], strict=True)))  # fmt: skip
def test_colour_noise_has_the_deviation_of_the_reference(level, std):
    grey = np.full((1, 256, 256, 3), 0.5, np.float32)
    # A wide range, so that nothing is clipped: the noise is the same whatever it is added to.
    wide = np.asarray(degrade.color_noise(jax.random.key(0), grey, level * 1e-4)) - 0.5
    np.testing.assert_allclose(255 * 100 * wide.std(axis=(0, 1, 2)), std, atol=1.0)
    ours = np.asarray(perturb.noise_color(jax.random.key(0), grey, level))
    rng = np.random.default_rng(0)
    ycc = to_studio(np.full((256, 256, 3), 127.5)) / 255
    theirs = from_studio((ycc + np.sqrt(level) * rng.standard_normal(ycc.shape)) * 255).clip(0, 255)
    np.testing.assert_allclose(255 * ours.std(axis=(0, 1, 2)), theirs[..., ::-1].std(axis=(0, 1)), rtol=0.02)
    assert abs(255 * ours.mean() - theirs.mean()) < 0.5


def test_noise_is_zero_in_the_mean_and_correlates_as_ycbcr_does():
    grey = np.full((1, 256, 256, 3), 0.5, np.float32)
    noise = np.asarray(perturb.noise_color(jax.random.key(1), grey, 0.001)).reshape(-1, 3) - 0.5
    # Y = (219 / 255) studio luma: 255^2 sqrt(p) / 219 grey levels.
    luma = 255 * noise @ [0.299, 0.587, 0.114]
    assert luma.std() == pytest.approx(255 * 255 / 219 * np.sqrt(0.001), rel=0.02)


@pytest.mark.parametrize("level", TABLES["BW"].levels)
def test_blocks_are_grey_128_and_as_many_as_published(level):
    image = np.zeros((1, 256, 256, 3), np.uint8)
    out = run("BW", image, level)
    assert set(np.unique(out)) == {0, 128}
    hit = out[0, ..., 0] == 128
    # Blocks may overlap: at most 64 pixels each, nearly all of them on a wide image.
    assert 0.8 * 64 * level <= hit.sum() <= 64 * level
    once = run("BW", np.zeros((1, 8, 256, 3), np.uint8), level)
    assert not once.any()


def test_one_block_is_eight_by_eight_and_larger_images_get_more():
    image = np.zeros((1, 256, 256, 3), np.float32)
    one = np.asarray(perturb.block_wise(jax.random.key(5), image, 1))[0, ..., 0]
    rows, cols = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
    assert (one > 0).sum() == 64 and np.ptp(rows) == np.ptp(cols) == 7
    large = np.asarray(perturb.block_wise(jax.random.key(5), np.zeros((1, 512, 640, 3), np.float32), 4))
    assert 6 * 64 <= (large[0, ..., 0] > 0).sum() <= 8 * 64


def test_blocks_are_a_no_op_below_256_pixels_and_the_table_knows():
    image = photo(6, 1, 224, 224)
    np.testing.assert_array_equal(run("BW", image, 80), image)
    assert not TABLES["BW"].changes(80, (224, 224)) and TABLES["BW"].changes(16, (256, 300))


@pytest.mark.parametrize("level", TABLES["blur"].levels)
def test_gend_blur(level):
    images = photo(7)
    kernel, sigma = level
    expected = images if kernel == 0 else np.stack([cv2.GaussianBlur(i, (kernel, kernel), sigma) for i in images])
    assert_levels(run("blur", images, level), expected)
    assert TABLES["blur"].changes(level, (256, 256)) == (kernel > 0)


def test_gend_noise():
    grey = np.full((1, 256, 256, 3), 0.5, np.float32)
    out = np.asarray(perturb.noise(jax.random.key(2), grey, 0.03)) - 0.5
    assert out.std() == pytest.approx(0.03, rel=0.02) and abs(out.mean()) < 5e-4
    assert np.abs(np.corrcoef(out.reshape(-1, 3).T) - np.eye(3)).max() < 0.02
    image = photo(8)
    np.testing.assert_array_equal(run("noise", image, 0.0), image)


OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos4": cv2.INTER_LANCZOS4,
}


@pytest.mark.parametrize("kernel", perturb.KERNELS)
@pytest.mark.parametrize("size", [(224, 224), (112, 112), (64, 64), (85, 97), (128, 144)])
def test_reduced_as_opencv_does(kernel, size):
    images = photo(9)
    expected = np.stack([cv2.resize(i, size[::-1], interpolation=OPENCV[kernel]) for i in images])
    ours = np.asarray(perturb.to_uint8(perturb.resize(images.astype(np.float32) / 255, *size, kernel)))
    assert_levels(ours, expected)


@pytest.mark.parametrize("kernel", sorted(set(perturb.KERNELS) - {"area"}))
def test_enlarged_as_opencv_does(kernel):
    images = photo(10, 2, 40, 50)
    expected = np.stack([cv2.resize(i, (131, 64), interpolation=OPENCV[kernel]) for i in images])
    ours = np.asarray(perturb.to_uint8(perturb.resize(images.astype(np.float32) / 255, 64, 131, kernel)))
    assert_levels(ours, expected)


def test_resize_refuses_what_it_does_not_do():
    with pytest.raises(ValueError, match=r"allowed: .*'nearest', 'linear'"):
        perturb.resize_matrix(8, 4, "bilinear")
    with pytest.raises(ValueError, match="'area' only reduces, asked for 8 -> 16"):
        perturb.resize_matrix(8, 16, "area")


def test_resize_rows_by_opencv_and_where_they_change_nothing():
    images = photo(11, 1, 256, 256)
    for kernel in perturb.KERNELS:
        small = cv2.resize(images[0], (112, 112), interpolation=OPENCV[kernel])
        expected = cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)
        assert_two_steps(run(f"resize {kernel}", images, 112)[0], expected)
    np.testing.assert_array_equal(run("resize cubic", images[:, :64, :64], 64), images[:, :64, :64])
    assert not perturb.shrinks(64, (64, 64)) and perturb.shrinks(64, (65, 80))


def test_chains_by_opencv():
    images = photo(12, 1, 200, 240)
    expected = images[0]
    for passes in (1, 2):
        small = cv2.resize(expected, (120, 100), interpolation=cv2.INTER_AREA)
        expected = cv2.resize(small, (240, 200), interpolation=cv2.INTER_LINEAR)
        assert_two_steps(run("chain", images, passes)[0], expected)
    small = cv2.resize(images[0], (84, 70), interpolation=cv2.INTER_CUBIC)
    expected = cv2.resize(small, (240, 200), interpolation=cv2.INTER_LANCZOS4)
    assert_two_steps(run("cubic-lanczos4", images, 0.35)[0], expected)


def test_screenshot_by_its_definition_with_opencv():
    images = photo(13, 1, 96, 112)
    for level in TABLES["screenshot"].levels[::3]:
        scale, gamma, bits, quality = level
        expected, steps = images[0], 2**bits - 1
        for _ in range(2):
            screen = cv2.resize(expected, (round(112 * scale), round(96 * scale))) / 255.0
            stored = np.round(255 * np.round(screen**gamma * steps) / steps).astype(np.uint8)
            _, data = cv2.imencode(".jpg", stored[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
            saved = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
            expected = cv2.resize(saved, (112, 96), interpolation=cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR)
        ours = run("screenshot", images, level)[0].astype(int)
        # libjpeg's integer transforms fall to the other side now and then.
        assert np.abs(ours - expected).mean() < 1.0, level


def test_the_same_key_gives_the_same_numbers_and_another_others():
    images = photo(14, 2)
    for name in ("GNC", "BW", "noise"):
        level = TABLES[name].levels[2]
        once, again = (run(name, images, level, jax.random.key(7)) for _ in range(2))
        np.testing.assert_array_equal(once, again)
        assert (run(name, images, level, jax.random.key(8)) != once).any()
        assert (once[0] != once[1]).any()


def test_the_last_level_changes_more_than_the_first():
    images = photo(15, 1, 96, 96)
    for name in ("CS", "CC", "GNC", "GB", "VC~", "blur", "noise"):
        first, last = (run(name, images, TABLES[name].levels[i]).astype(int) for i in (0, -1))
        assert np.abs(last - images).mean() > np.abs(first - images).mean(), name
