"""The blender's targets against its pixels, its fallbacks, its independence of batch, loop and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_points import face_images, face_points
from jax.sharding import NamedSharding, PartitionSpec

from msddf_jax.data import schema
from msddf_jax.synth import blender, masks

SIZE, BATCH = 48, 8
ALPHA, POISSON, DYNAMIC, NONE = range(4)
REAL = schema.FORGERY_TYPES.index("real")
TRACES = []


def forge(key, rows, *, one_by_one=True, **cfg):
    TRACES.append(one_by_one)
    return blender.blend_regions(key, *rows, one_by_one=one_by_one, **cfg)


FORGE = jax.jit(forge, static_argnames=("one_by_one", "min_area", "magnitude_on", "soft", "metric", "ratios", "deform"))


def make_rows(region, kind, magnitude=0.8):
    target = face_images(SIZE, BATCH)
    source = np.clip(face_images(SIZE, BATCH, seed=1) * 0.5 + target * 0.5, 0, 1)
    fill = lambda value, dtype: np.broadcast_to(np.asarray(value, dtype), BATCH)
    points = face_points(SIZE, BATCH)
    return [target, source, points, fill(region, np.int32), fill(kind, np.int32), fill(magnitude, np.float32)]


def numpy(out):
    return jax.tree.map(np.asarray, out)


@pytest.fixture(scope="module")
def forged():
    """Every region, every blend: out of three batches, with the rows that made them."""
    kinds = [ALPHA, POISSON, DYNAMIC, DYNAMIC, ALPHA, POISSON, DYNAMIC, POISSON]
    batches = []
    for i, regions in enumerate((np.arange(8), np.arange(3, 11), np.full(8, 10))):
        rows = make_rows(regions, np.roll(kinds, i))
        batches.append((rows, numpy(FORGE(jax.random.key(i), rows))))
    join = lambda trees: jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees)
    return join([rows for rows, _ in batches]), join([out for _, out in batches])


def test_targets_agree_with_the_pixels(forged):
    (target, _, _, region, kind, _), out = forged
    assert out["changed"].all()
    difference = np.abs(out["image"] - target).max(-1, keepdims=True)
    assert (difference[out["map"] == 0] == 0).all()
    assert (difference[kind != POISSON] <= out["map"][kind != POISSON] + 1e-6).all()
    assert out["map"].min() >= 0 and out["map"].max() <= 1 and (out["map"].max((1, 2, 3)) > 0).all()
    assert set(np.unique(out["map"][kind == POISSON])) == {0.0, 1.0}
    np.testing.assert_array_equal(out["type"], kind)
    np.testing.assert_array_equal(out["label"], 1)
    np.testing.assert_array_equal(out["region_parts"], masks.REGION_PARTS[region])
    np.testing.assert_array_equal(out["has_strength"], kind != POISSON)
    weighted = kind != POISSON
    np.testing.assert_allclose(out["strength"][weighted], out["map"].max((1, 2, 3))[weighted], atol=1e-5)
    assert out["image"].min() >= 0 and out["image"].max() <= 1


def test_strength_is_ratio_times_magnitude(forged):
    (_, _, _, _, kind, magnitude), out = forged
    ratio = (out["strength"] / magnitude)[kind == DYNAMIC]
    assert all(np.isclose(r, (0.25, 0.5, 0.75, 1.0), atol=1e-5).any() for r in ratio)
    assert out["strength"][kind == ALPHA].max() == 1.0


def test_what_cannot_be_forged_stays_real():
    rows = make_rows(np.array([10, 0, 10, 10, 0, 10, 4, 10]), [ALPHA, DYNAMIC, POISSON, NONE] * 2)
    target, source, points, *_ = rows = [np.array(r) for r in rows]
    points[0, 70] = np.nan  # even a point that no region uses
    points[1] = points[1] * 0.1 + 20  # the face of a few pixels
    source[2] = target[2]
    points[4] = np.stack([np.linspace(5, 40, 81)] * 2, -1)
    points[5] += 10 * SIZE
    source[6] = np.nan
    # The face of a few pixels: at 48 px its deformed eye may reach the usual half percent of the frame.
    out = numpy(FORGE(jax.random.key(0), rows, min_area=0.05))
    assert not out["changed"].any() and not out["label"].any() and not out["map"].any()
    assert (out["type"] == REAL).all() and not out["region_parts"].any()
    assert not out["strength"].any() and not out["has_strength"].any() and out["has_region"].all()
    np.testing.assert_array_equal(out["image"], target)


def test_uniform_images_and_faces_over_the_edge_give_no_nan():
    rows = [np.array(r) for r in make_rows(10, np.arange(8) % 3)]
    rows[0][:4], rows[1][:4] = 0.0, 1.0
    rows[2][4:] += SIZE // 3
    out = numpy(FORGE(jax.random.key(0), rows))
    assert all(np.isfinite(value).all() for value in out.values())


@pytest.mark.long
def test_same_key_same_bits_in_any_batch(forged):
    rows = make_rows(np.arange(8), [ALPHA, POISSON, DYNAMIC, DYNAMIC, ALPHA, POISSON, DYNAMIC, POISSON])
    first, again = (numpy(FORGE(jax.random.key(0), rows)) for _ in range(2))
    one = numpy(FORGE(jax.random.key(0), [r[:1] for r in rows]))
    other = numpy(FORGE(jax.random.key(9), rows))
    for name in first:
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)
        np.testing.assert_array_equal(first[name][:1], one[name], err_msg=name)
    assert (first["map"] != other["map"]).any((1, 2, 3)).all()


@pytest.mark.long
def test_loop_vectorised_and_sharded_agree():
    rows = make_rows(np.arange(3, 11), [ALPHA, POISSON, DYNAMIC, NONE] * 2)
    looped = numpy(FORGE(jax.random.key(2), rows))
    vectorised = numpy(FORGE(jax.random.key(2), rows, one_by_one=False))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("data")))
    sharded = FORGE(jax.random.key(2), spread, one_by_one=False)
    assert len(sharded["image"].sharding.device_set) == 8
    for name in looped:
        np.testing.assert_allclose(vectorised[name], looped[name], atol=2e-4, err_msg=name)
        np.testing.assert_allclose(sharded[name], looped[name], atol=2e-4, err_msg=name)


def test_no_retrace():
    rows = make_rows(np.arange(8), np.arange(8) % 4)
    FORGE(jax.random.key(0), rows)
    traced = len(TRACES)
    for i in range(5):
        rows = make_rows((np.arange(8) + i) % 11, (np.arange(8) + i) % 4, i / 5)
        FORGE(jax.random.key(i), rows)
    assert len(TRACES) == traced


@pytest.mark.long
def test_image_and_map_are_differentiable_in_magnitude_and_feather():
    rows = [r[:3] for r in make_rows(10, np.arange(8) % 3)]
    feather = jnp.full(3, 0.6)

    def total(magnitude, feather):
        out = blender.blend_regions(
            jax.random.key(5), *rows[:5], magnitude, feather=feather, magnitude_on=("alpha", "dynamic"), deform=0
        )
        return jnp.square(out["image"]).sum() + out["map"].sum()

    value_and_grads = jax.jit(jax.value_and_grad(total, (0, 1)))
    magnitude = jnp.asarray(rows[5])
    _, (by_magnitude, by_feather) = value_and_grads(magnitude, feather)
    assert by_magnitude[1] == 0 and (by_feather[1:] == 0).all()  # Poisson has neither
    assert by_feather[0] != 0 and by_magnitude[0] != 0 and by_magnitude[2] != 0
    for i, grad in ((0, by_magnitude), (2, by_magnitude)):
        step = 1e-2
        ahead, _ = value_and_grads(magnitude.at[i].add(step), feather)
        behind, _ = value_and_grads(magnitude.at[i].add(-step), feather)
        np.testing.assert_allclose((ahead - behind) / (2 * step), grad[i], rtol=0.02)


def test_names_are_checked():
    rows = make_rows(0, 0)
    with pytest.raises(ValueError, match=r"color_modes is \('lct',\), allowed are names from \('rct_m'"):
        blender.blend_regions(jax.random.key(0), *rows, color_modes=("lct",))
    with pytest.raises(ValueError, match="magnitude_on"):
        blender.blend_regions(jax.random.key(0), *rows, magnitude_on=("poisson",))


def test_uniform_choices_follow_their_odds():
    region, kind, magnitude = numpy(blender.uniform_choices(jax.random.key(0), 4000, type_weights=(1, 0, 2, 1)))
    np.testing.assert_allclose(np.bincount(kind, minlength=4) / 4000, [0.25, 0, 0.5, 0.25], atol=0.03)
    np.testing.assert_allclose(np.bincount(region, minlength=11) / 4000, 1 / 11, atol=0.02)
    assert 0.1 <= magnitude.min() < 0.11 and 0.99 < magnitude.max() <= 1.0
    few = numpy(blender.uniform_choices(jax.random.key(0), 3, type_weights=(1, 0, 2, 1)))
    np.testing.assert_array_equal(few[0], region[:3])
    with pytest.raises(ValueError, match="expected odds >= 0 of"):
        blender.uniform_choices(jax.random.key(0), 3, type_weights=(1, 1))
