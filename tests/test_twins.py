"""One flip for both twins, the transform on exactly one of them, its parts against OpenCV."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_points import face_images, face_points

from msddf_jax.synth import geometry, twins

SIZE, BATCH = 32, 64


@pytest.fixture(scope="module")
def made():
    # One image 64 times: what differs between rows is drawn.
    image = np.repeat(face_images(SIZE), BATCH, 0)
    points = np.repeat(face_points(SIZE), BATCH, 0)
    out = jax.jit(twins.make_twins)(jax.random.key(0), image, points)
    return image, points, jax.tree.map(np.asarray, out)


def test_one_flip_serves_both(made):
    image, points, out = made
    base = np.where(out["flipped"][:, None, None, None], image[:, :, ::-1], image)
    np.testing.assert_array_equal(out["target"][out["source_altered"]], base[out["source_altered"]])
    still = ~out["source_altered"] & ~out["moved"]
    np.testing.assert_array_equal(out["source"][still], base[still])
    expected = np.where(out["flipped"][:, None, None], geometry.flip_landmarks(points, SIZE), points)
    np.testing.assert_allclose(out["landmarks"], expected, atol=1e-5)
    for name, odds in (("flipped", 0.5), ("moved", 0.5), ("source_altered", 0.5)):
        assert abs(out[name].mean() - odds) < 0.25, name


def test_exactly_one_twin_is_altered(made):
    image, _, out = made
    base = np.where(out["flipped"][:, None, None, None], image[:, :, ::-1], image)
    target_altered = (out["target"] != base).any((1, 2, 3))
    np.testing.assert_array_equal(target_altered, ~out["source_altered"])
    still = ~out["moved"]
    np.testing.assert_array_equal((out["source"] != base).any((1, 2, 3))[still], out["source_altered"][still])
    for name in ("target", "source"):
        assert out[name].min() >= 0 and out[name].max() <= 1
        assert np.abs(out[name] - base).mean() < 0.2  # subtle


def test_landmarks_of_a_moved_source_move_along(made):
    _, _, out = made
    shift = np.abs(out["source_landmarks"] - out["landmarks"]).max((1, 2))
    assert (shift[~out["moved"]] == 0).all() and (shift[out["moved"]] > 0).all()
    assert shift.max() < SIZE * (0.03 + 0.05)


def test_same_key_same_bits_in_any_batch_and_either_way(made):
    image, points, out = made
    few = jax.jit(twins.make_twins, static_argnames="one_by_one")
    one = few(jax.random.key(0), image[:1], points[:1])
    vectorised = few(jax.random.key(0), image[:8], points[:8], one_by_one=False)
    for name in out:
        np.testing.assert_array_equal(one[name], out[name][:1], err_msg=name)
        np.testing.assert_allclose(vectorised[name], out[name][:8], atol=2e-5, err_msg=name)


@pytest.mark.long
def test_ranges_of_the_colour_change():
    # A flat grey frame is not changed by re-sampling, and sharpening multiplies it by 1 + share * (light - 1).
    flat = jnp.full((3, 8, 8), 0.5)
    keys = jax.random.split(jax.random.key(0), 400)
    plain = jax.vmap(lambda k: twins.alter(k, flat, sharpen=(0.0, 0.0)))(keys)[:, :, 4, 4]
    spread = np.asarray(plain.max(1) - plain.min(1))
    assert 0.2 < (spread > 1e-6).mean() < 0.4  # shifted channels in three of ten
    assert spread.max() <= 2 * 1.1 * 20 / 255
    tone = np.asarray(plain)[spread < 1e-6, 0]
    assert tone.min() >= 0.5 * 0.9 - 0.1 - 1e-6 and tone.max() <= 0.5 * 1.1 + 0.1 + 1e-6 and tone.std() > 0.03


def test_without_its_frequency_part_the_change_is_one_of_colour():
    # Pixels of equal colour stay equal, whatever lies beside them; re-sampling and sharpening see the neighbours.
    rng = np.random.default_rng(0)
    values = np.array([0.3, 0.7], np.float32)
    planes = jnp.asarray(values[rng.integers(0, 2, (3, 16, 16))])

    def colours(**settings):
        keys = jax.random.split(jax.random.key(0), 20)
        altered = np.asarray(jax.jit(jax.vmap(lambda k: twins.alter(k, planes, **settings)))(keys))
        return np.array([[len(np.unique(plane.round(5))) for plane in image] for image in altered])

    assert (colours(frequency_prob=0.0) == 2).all()
    assert (colours() > 2).all()
    half = (colours(frequency_prob=0.5) > 2).all(1)
    assert 4 <= half.sum() <= 16
