"""H.264 of the train step against the standard's numbers, worked by hand, and x264; and what `recode` promises."""

import platform

import av
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
from test_degrade import photo, unit

from benchmarks.codec import encode, spectrum
from msddf_jax import hooks
from msddf_jax.synth import codec, compose, deblock, intra, recode


def test_steps_and_chroma_qp_are_the_standards():
    # 0.625, 0.6875, 0.8125, 0.875, 1, 1.125, doubled every six.
    qp = np.array([0, 1, 4, 6, 10, 24, 36, 51])
    np.testing.assert_allclose(codec.quantizer_step(qp), [0.625, 0.6875, 1.0, 1.25, 2.0, 10.0, 40.0, 224.0])
    # Table 8-15 at QP - 2: 28 -> 28, 30 -> 29, 34 -> 32, 40 -> 36, 49 -> 39.
    np.testing.assert_array_equal(codec.chroma_qp(np.array([0, 30, 32, 36, 42, 51])), [0, 28, 29, 32, 36, 39])


@pytest.mark.parametrize("qp", [0, 17, 28, 45])
def test_dequantisation_and_transform_equal_the_standards_integers(qp):
    levels = np.random.default_rng(qp).integers(-3, 4, (4, 4))
    # 8.5.9 and 8.5.12: flat scaling (x 16 >> 4), shifts by QP / 6, integer butterflies as matrices, (x + 32) >> 6.
    even, odd, mixed = [(10, 16, 13), (11, 18, 14), (13, 20, 16), (14, 23, 18), (16, 25, 20), (18, 29, 23)][qp % 6]
    scale = np.full((4, 4), mixed)
    scale[::2, ::2], scale[1::2, 1::2] = even, odd
    basis = np.array([[1, 1, 1, 1], [1, 0.5, -0.5, -1], [1, -1, -1, 1], [0.5, -1, 1, -0.5]])
    expected = np.floor((basis.T @ (levels * scale * 2.0 ** (qp // 6)) @ basis + 32) / 64)
    inverse = codec.transform_matrix(4).T
    ours = inverse @ (levels * float(codec.quantizer_step(qp))) @ inverse.T
    # The standard's scaling table has two digits, so up to 2 % of what is decoded, and it rounds.
    np.testing.assert_allclose(ours, expected, atol=0.55 + 0.02 * np.abs(expected).max())


def test_transforms_are_orthonormal_and_near_a_dct():
    for n in (4, 8):
        matrix = codec.transform_matrix(n)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-6)
        cosines = scipy.fft.dct(np.eye(n), norm="ortho", axis=0)
        assert (np.sum(matrix * cosines, axis=1) > 0.99).all()
    # What is joined by a Hadamard transform stays orthonormal; a flat block is its first coefficient.
    for kind in (codec._WHOLE, codec._CHROMA):
        np.testing.assert_allclose(kind.transform @ kind.transform.T, np.eye(kind.side**2), atol=1e-5)
        flat = kind.transform @ np.ones(kind.side**2)
        np.testing.assert_allclose(flat, kind.side * (np.arange(kind.side**2) == 0), atol=1e-5)


RAMPS = ((0, (1, 0)), (1, (0, 1)), (3, (1, 1)), (4, (1, -1)), (5, (2, -1)), (6, (-1, 2)), (7, (2, 1)), (8, (1, 2)))


@pytest.mark.parametrize("n", [4, 8])
@pytest.mark.parametrize("mode, ramp", RAMPS)
def test_modes_are_exact_on_the_ramp_that_runs_along_them(n, mode, ramp):
    across, down = ramp
    line = [across * -1 + down * (n - 1 - i) for i in range(n)] + [-across - down]
    line += [across * x - down for x in range(2 * n)]
    matrix = intra.luma_matrices(n)[mode]
    np.testing.assert_allclose(matrix.sum(1), 1.0, rtol=1e-6)
    y, x = np.mgrid[:n, :n]
    # Not where the line ends, which is repeated there, nor where the ramp bends around the corner.
    used = np.abs(matrix) > 0
    here = ~used[:, 0] & ~used[:, -1] & ~(used[:, :n].any(1) & used[:, n + 1 :].any(1))
    assert here.mean() >= 0.25
    np.testing.assert_allclose((matrix @ np.array(line, float))[here], (across * x + down * y).ravel()[here], atol=1e-5)


def test_plane_modes_follow_a_plane():
    for matrices, n, share in ((intra.luma_matrices(16), 16, 0.996), (intra.chroma_matrices(), 8, 0.996)):
        y, x = np.mgrid[:n, :n]
        line = [-3 + 2 * (n - 1 - i) for i in range(n)] + [-3 - 2] + [3 * k - 2 for k in range(2 * n)]
        guess = (matrices[3] @ np.array(line, float)).reshape(n, n)
        # b is 5 / 64 of 408 slopes (16 x 16) and 34 / 64 of 60 (8 x 8): 31.875 of 32 a pixel.
        middle = n / 2 - 0.5
        ideal = 3 * x + 2 * y
        np.testing.assert_allclose(guess - guess.mean(), share * (ideal - 5 * middle), atol=0.05)


def test_neighbours_are_those_that_are_decoded():
    plane = jnp.asarray(np.arange(32 * 32).reshape(32, 32) % 251, jnp.float32)
    lines = np.asarray(jax.jit(lambda p: intra.neighbour_lines(p, 8))(plane))
    values = np.asarray(plane)
    expected = [*values[15:7:-1, 7], values[7, 7], *values[7, 8:16]]
    np.testing.assert_array_equal(lines[1, 1, :17], expected)
    # The block right of and above the fourth of a macroblock comes later: the last pixel is repeated.
    np.testing.assert_array_equal(lines[1, 1, 17:], [values[7, 15]] * 8)
    np.testing.assert_array_equal(lines[1, 0, 17:], values[7, 8:16])
    # Nothing is known of the first block, and of the next ones what lies left.
    np.testing.assert_array_equal(lines[0, 0], np.full(25, 128.0))
    np.testing.assert_allclose(lines[0, 1, 8:], np.full(17, values[:8, 7].mean()), rtol=1e-6)
    # 4 x 4 (6.4.11.4): of the sixteen blocks in coding order, 3, 7, 11, 13 and 15 do not know their right.
    order = np.array([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])
    assert set(order[~intra._knows_right(4, 4, 4)]) == {3, 7, 11, 13, 15}


def test_deblocking_by_hand():
    row = np.array([100.0] * 16 + [110.0] * 8 + [120.0] * 8)
    plane = np.tile(row, (16, 1))
    large = np.zeros((1, 2), bool)
    run = jax.jit(lambda plane, qp: deblock.deblock_luma(plane, qp, large))
    out = np.asarray(run(plane, 40))
    # Between macroblocks, strength 4: p2 (200 + 300 + 310 + 4) >> 3, p1 (412) >> 2, p0 (500 + 330 + 4) >> 3, and so on.
    np.testing.assert_array_equal(out[5, 12:20], [100, 101, 103, 104, 106, 108, 109, 110])
    # Inside, strength 3: delta (40 - 10 + 4) >> 3 = 4; p1 + ((110 + 115 - 220) >> 1), q1 + ((120 + 115 - 240) >> 1).
    np.testing.assert_array_equal(out[5, 21:27], [110, 112, 114, 116, 117, 120])
    # The other way: edges of rows, of the same numbers.
    turned = np.asarray(jax.jit(lambda plane: deblock.deblock_luma(plane, 40, large.T))(plane.T))
    np.testing.assert_array_equal(turned, out.T)
    # Below QP 16 there is no filter, and an edge of 80 levels (alpha at QP 40) is one of the image.
    np.testing.assert_array_equal(run(plane, 15), plane)
    sharp = np.where(np.arange(32) < 16, 100.0, 180.0) * np.ones((16, 1))
    np.testing.assert_array_equal(run(sharp, 40), sharp)


QPS = (0, 10, 20, 28, 36, 44, 51)


@pytest.fixture(scope="module")
def coded():
    """An image of 48 x 64; {QP: coded}; the image through yuv420p alone; a flat one coded at QP 40. One compilation."""
    image = photo(3, 1)[0]
    flat = np.broadcast_to(np.array([180, 60, 90], np.uint8), image.shape)
    out = 255.0 * np.asarray(codec.h264(unit(np.stack([image] * len(QPS) + [flat])), np.array([*QPS, 40])))
    plain = jax.jit(lambda planes: codec._to_rgb(*codec._to_ycc(planes)))(np.moveaxis(unit(image), -1, 0))
    return image, dict(zip(QPS, out)), 255.0 * np.moveaxis(np.asarray(plain), 0, -1), out[-1]


def test_loss_grows_with_qp_from_almost_nothing(coded):
    _, outputs, plain, _ = coded
    np.testing.assert_allclose(outputs[36], np.round(outputs[36]), atol=1e-3)
    loss = {qp: np.abs(out - plain).mean() for qp, out in outputs.items()}
    assert loss[0] < 0.5 and loss[10] < 1.0
    assert list(loss.values()) == sorted(loss.values()) and loss[51] > 4.0 * loss[20]


@pytest.mark.parametrize("qp", [28, 36])
def test_nearer_to_x264_than_the_source_is(coded, qp):
    image, outputs, *_ = coded
    theirs = encode(image[None], qp)[0].astype(float)
    assert np.abs(outputs[qp] - theirs[0]).mean() < 0.9 * np.abs(image - theirs[0]).mean()
    off = lambda x: np.abs(spectrum(np.asarray(x, float)[None]) - spectrum(theirs)).mean()
    assert off(outputs[qp]) < 0.5 * off(image)


def test_colours_are_swscales(coded):
    image, _, plain, _ = coded
    yuv = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
    # swscale's products are these on x86; elsewhere it may round.
    allowed = 0.2 if platform.machine() == "x86_64" else 1.5
    assert np.abs(plain - yuv.to_ndarray(format="rgb24")).mean() < allowed


def test_an_even_image_stays_even(coded):
    *_, flat = coded
    # QP 40: nothing but means is coded. A mean of 16 x 16 is at most half a step of 64 / 16 off, of chroma 25 / 8.
    np.testing.assert_allclose(flat, np.broadcast_to(flat.mean((0, 1)), flat.shape), atol=2.0)
    np.testing.assert_allclose(flat, np.broadcast_to([180.0, 60.0, 90.0], flat.shape), atol=4.0)


ALL = {"resize_chain_prob": 0.7, "h264_prob": 0.7, "h264_qp": (30, 44), "double_jpeg_prob": 0.7}


# All three operations, each with a condition around it: half a minute of compiling on a busy machine.
@pytest.mark.long
def test_recode_is_of_its_key_and_row():
    images = jnp.asarray(unit(photo(5, 3)))
    run = jax.jit(lambda key, x, numbers: recode.recode(key, x, numbers=numbers, one_by_one=True, **ALL))
    numbers = jnp.arange(3)
    out = np.asarray(run(jax.random.key(0), images, numbers))
    np.testing.assert_array_equal(run(jax.random.key(0), images, numbers), out)
    assert (np.asarray(run(jax.random.key(1), images, numbers)) != out).any()
    # Other rows do not matter, and rows of one number are treated alike.
    np.testing.assert_array_equal(run(jax.random.key(0), images.at[1:].set(0.5), numbers)[0], out[0])
    alike = np.asarray(run(jax.random.key(0), jnp.stack([images[0]] * 3), jnp.array([0, 1, 0])))
    np.testing.assert_array_equal(alike[0], alike[2])
    assert (alike[0] != alike[1]).any()


def test_off_it_is_nothing_at_all():
    images = jnp.zeros((2, 16, 16, 3))
    assert recode.recode(jax.random.key(0), images) is images


def test_the_gradient_is_that_of_yuv420p_alone(monkeypatch):
    planes = jnp.moveaxis(jnp.asarray(0.2 + 0.6 * unit(photo(6, 1))[0]), -1, 0)
    weights = jax.random.normal(jax.random.key(0), planes.shape)
    # What is coded does not matter to the derivative, so that a code that does nothing gives the same.
    monkeypatch.setattr(codec, "_code_luma", lambda luma, qp: jnp.round(luma / 9.0) * 9.0)
    monkeypatch.setattr(codec, "_code_chroma", lambda chroma, qp: chroma)
    gradient = jax.grad(lambda x: (weights * codec.h264_planes(x, 36.0)).sum())(planes)
    expected = jax.grad(lambda x: (weights * codec._to_rgb(*codec._to_ycc(x))).sum())(planes)
    assert np.isfinite(gradient).all() and np.abs(expected).mean() > 0.1
    np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_a_chain_of_resizes_is_opencvs():
    image = unit(photo(7, 1, 48, 48))[0]
    small = cv2.resize(image, (31, 31), interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(small, (48, 48), interpolation=cv2.INTER_LINEAR)
    chain = lambda scales, smooth: recode.resize_chain_planes(
        np.moveaxis(image, -1, 0), jnp.array(scales), jnp.array(smooth)
    )
    np.testing.assert_allclose(np.moveaxis(np.asarray(chain([31 / 48], [False])), 0, -1), expected, atol=1e-5)
    # 1 is no resize; smoothing takes away more.
    np.testing.assert_allclose(
        np.asarray(chain([1.0, 31 / 48], [True, False])), np.moveaxis(expected, -1, 0), atol=1e-5
    )
    rough = lambda planes: np.abs(np.diff(np.asarray(planes))).mean()
    assert rough(chain([0.5, 0.5], [True, True])) < rough(chain([0.5], [True])) < rough(np.moveaxis(image, -1, 0))


def test_what_was_decoded_is_sampled_between_its_pixels():
    planes = jnp.asarray(np.arange(3 * 4 * 4, dtype=np.float32).reshape(3, 4, 4))
    # A quarter lower and a half to the left: 4 a row, 1 a column; at the end the edge repeats.
    out = np.asarray(recode._sample_between(planes, jnp.array([0.25, -0.5])))
    np.testing.assert_allclose(out[:, :3, 1:], np.asarray(planes)[:, :3, 1:] + 0.25 * 4 - 0.5)
    np.testing.assert_allclose(out[:, 3, 0], np.asarray(planes)[:, 3, 0])
    np.testing.assert_array_equal(recode._sample_between(planes, jnp.zeros(2)), planes)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"h264_prob": 1.5}, r"augment\.h264_prob is 1\.5, expected a probability in \[0, 1\]"),
        ({"h264_qp": (30, 60)}, r"augment\.h264_qp is \(30, 60\), expected two whole numbers in \[0, 51\]"),
        ({"h264_qp": (40, 30)}, r"augment\.h264_qp .* lowest first"),
        ({"h264_qp": (30.5, 40)}, "augment.h264_qp .* two whole numbers"),
        ({"h264_qp": 30}, "augment.h264_qp is 30, expected two"),
        ({"resize_chain_scale": (0.0, 1.0)}, r"augment\.resize_chain_scale .* two numbers in \[0\.05, 1\.0\]"),
        ({"resize_chain_steps": 0}, "augment.resize_chain_steps is 0, allowed: 1 to 8"),
        ({"double_jpeg_quality": (0, 90)}, r"augment\.double_jpeg_quality .* in \[1, 100\]"),
    ],
)
def test_settings_out_of_range_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        recode.check(**setting)


def test_the_config_is_checked_before_training_and_a_forgery_is_recoded_as_its_real():
    from configs import msddf

    config = msddf.get_config("demo").unlock()
    config.augment.h264_prob = 2.0
    with pytest.raises(ValueError, match=r"augment\.h264_prob is 2\.0"):
        hooks.check(config)
    config.augment.h264_prob, config.augment.h264_qps = 0.5, (20, 40)
    with pytest.raises(ValueError, match=r"config\.augment\.h264_qps: .* did you mean 'h264_qp'"):
        hooks.check(config)
    images = jnp.stack([jnp.asarray(unit(photo(8, 1, 32, 32))[0])] * 3)
    still = {name: 0.0 for name in ("blur_prob", "downscale_prob", "tone_prob", "jpeg_prob")}
    settings = {"image_size": 32, **still, "resize_chain_prob": 1.0}
    rows = compose.augment(jax.random.key(1), {"image": images}, bases=jnp.array([0, 0, 2]), **settings)["image"]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (np.asarray(rows[0]) != np.asarray(rows[2])).any()
