"""Self-blended images: the forgery is the real twin but for its map, and nothing of it hangs on the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_points import face_images, face_points

from msddf_jax.data import schema
from msddf_jax.synth import self_blend

SIZE, BATCH = 64, 8
SELF_BLEND = schema.FORGERY_TYPES.index("self_blend")
BLEND = jax.jit(self_blend.self_blend, static_argnames=("one_by_one", "hulls", "ratios"))


@pytest.fixture(scope="module")
def batch():
    return face_images(SIZE, BATCH), face_points(SIZE, BATCH)


@pytest.fixture(scope="module")
def blended(batch):
    return jax.tree.map(np.asarray, BLEND(jax.random.key(0), *batch))


def test_targets_agree_with_the_pixels(blended):
    out = blended
    assert out["changed"].all() and (out["label"] == 1).all() and (out["type"] == SELF_BLEND).all()
    assert (out["region_parts"] == 1).all() and out["has_region"].all() and out["has_strength"].all()
    difference = np.abs(out["image"] - out["target"]).max(-1, keepdims=True)
    assert (difference[out["map"] == 0] == 0).all() and (difference <= out["map"] + 1e-6).all()
    np.testing.assert_allclose(out["map"].max((1, 2, 3)), out["strength"], atol=1e-5)
    assert set(np.round(out["strength"], 5)) <= {0.25, 0.5, 0.75, 1.0}


def test_the_map_lies_on_the_face(blended):
    # Inside the box of the landmarks, grown by the shift and the blur, and around their middle.
    rows, cols = np.indices((SIZE, SIZE))
    for soft, points in zip(blended["map"][..., 0], blended["landmarks"]):
        low, high = points.min(0) - 6, points.max(0) + 6
        outside = (cols < low[0]) | (cols > high[0]) | (rows < low[1]) | (rows > high[1])
        assert soft[outside].max(initial=0) < 0.05 * soft.max()
        centre = np.array([(soft * cols).sum(), (soft * rows).sum()]) / soft.sum()
        assert np.abs(centre - (low + high) / 2).max() < SIZE / 6


@pytest.mark.long
def test_same_key_same_bits_in_any_batch_and_either_way(batch, blended):
    one = BLEND(jax.random.key(0), batch[0][:1], batch[1][:1])
    vectorised = BLEND(jax.random.key(0), *batch, one_by_one=False)
    for name, value in BLEND(jax.random.key(0), *batch).items():
        np.testing.assert_array_equal(value, blended[name], err_msg=name)
        np.testing.assert_array_equal(one[name], blended[name][:1], err_msg=name)
        np.testing.assert_allclose(vectorised[name], blended[name], atol=1e-4, err_msg=name)
    other = BLEND(jax.random.key(1), *batch)
    assert (np.asarray(other["map"]) != blended["map"]).any((1, 2, 3)).all()


def test_what_cannot_be_blended_stays_real(batch):
    image, points = (np.array(x) for x in batch)
    points[0, 80] = np.nan
    points[1] = np.stack([np.linspace(5, 60, 81)] * 2, -1)
    points[2] += 5 * SIZE
    image[3:] = 0.0  # nothing to see in black: contrast and sharpening leave it, a shift may not
    out = jax.tree.map(np.asarray, BLEND(jax.random.key(0), image, points))
    assert not out["changed"][:3].any() and (out["type"][:3] == schema.FORGERY_TYPES.index("real")).all()
    same = (out["image"] == out["target"]).all((1, 2, 3))
    np.testing.assert_array_equal(same, ~out["changed"])
    for name in ("image", "map", "target", "strength"):
        assert np.isfinite(out[name]).all()
    assert not out["map"][~out["changed"]].any() and not out["strength"][~out["changed"]].any()


def test_hull_names_are_checked(batch):
    with pytest.raises(ValueError, match="hulls are"):
        self_blend.self_blend(jax.random.key(0), *map(jnp.asarray, batch), hulls=())
