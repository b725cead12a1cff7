import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec

from msddf_jax import sharding


def test_mesh_takes_all_devices_with_auto_axes():
    mesh = sharding.make_mesh({"data": -1})
    assert mesh.size == jax.device_count() == 8
    assert all(kind == AxisType.Auto for kind in mesh.axis_types)


def test_mesh_of_two_axes_and_its_errors():
    mesh = sharding.make_mesh({"data": -1, "model": 2})
    assert dict(mesh.shape) == {"data": 4, "model": 2}
    with pytest.raises(ValueError, match="only one axis"):
        sharding.make_mesh({"data": -1, "model": -1})
    with pytest.raises(ValueError, match="does not divide"):
        sharding.make_mesh({"data": -1, "model": 3})
    with pytest.raises(ValueError, match="needs 4 devices, there are 8"):
        sharding.make_mesh({"data": 4})


def test_rules_pick_the_largest_dimension_that_divides():
    mesh = sharding.make_mesh({"data": -1})
    shapes = {"a": {"kernel": np.zeros((24, 64)), "bias": np.zeros(12)}, "b": {"kernel": np.zeros((16, 16))}}
    got = sharding.infer_sharding(shapes, [("a/.*", "fsdp(data)"), (".*", "replicate")], mesh)
    assert got["a"]["kernel"].spec == PartitionSpec(None, "data")
    assert got["a"]["bias"].spec == PartitionSpec()  # 8 does not divide 12
    assert got["b"]["kernel"].spec == PartitionSpec()


def test_unknown_tactic_lists_what_is_allowed():
    mesh = sharding.make_mesh({"data": -1})
    with pytest.raises(ValueError, match=r"fsdp\(data\)"):
        sharding.infer_sharding({"a": np.zeros(8)}, [(".*", "fsdp(model)")], mesh)


def test_put_batch_splits_rows_and_refuses_what_does_not_divide():
    mesh = sharding.make_mesh({"data": -1})
    batch = sharding.put_batch({"x": np.arange(16).reshape(16, 1)}, mesh)
    assert [s.data.shape for s in batch["x"].addressable_shards] == [(2, 1)] * 8
    np.testing.assert_array_equal(batch["x"], np.arange(16).reshape(16, 1))
    with pytest.raises(ValueError, match="12 rows"):
        sharding.put_batch({"x": np.zeros((12, 1))}, mesh)


def test_linen_dropout_runs_under_the_mesh():
    # With jax.make_mesh's default (Explicit) axes this raises ShardingTypeError.
    mesh = sharding.make_mesh({"data": -1})
    module = nn.Sequential([nn.Dense(4), nn.Dropout(0.5, deterministic=False)])
    batch = sharding.put_batch({"x": np.ones((8, 4), np.float32)}, mesh)
    with jax.set_mesh(mesh):
        variables = module.init({"params": jax.random.key(0), "dropout": jax.random.key(1)}, batch["x"])
        out = jax.jit(lambda v, x: module.apply(v, x, rngs={"dropout": jax.random.key(2)}))(variables, batch["x"])
    assert out.shape == (8, 4)
