import types

import jax
import numpy as np
import pytest
from few_steps import noise_batch
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec
from tiny import tiny_config

from configs import msddf
from msddf_jax import sharding, trees
from msddf_jax.train_step import init_state, make_train_step


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


def test_slices_are_blocks_of_the_first_axis():
    """Two slices of four chips, named in turn: each row of the second axis is of one slice."""
    # What JAX asks of a device to lay it out.
    chip = lambda number: types.SimpleNamespace(
        id=number, slice_index=number % 2, process_index=number % 2, platform="test", device_kind="test"
    )
    devices = [chip(number) for number in range(8)]
    mesh = sharding.arrange_slices(devices, (4, 2))
    assert mesh.shape == (4, 2) and {device.id for device in mesh.ravel()} == set(range(8))
    assert [[device.slice_index for device in row] for row in mesh] == [[0, 0], [0, 0], [1, 1], [1, 1]]
    with pytest.raises(ValueError, match=r"2 slices: the first axis of config\.mesh is 1, expected a multiple of 2"):
        sharding.arrange_slices(devices, (1, 8))


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


def _bytes_a_device(shapes, shardings):
    """(bytes that one device holds, bytes in all) of a tree."""
    pairs = list(zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True))
    own = sum(np.prod(s.shard_shape(x.shape), dtype=np.int64) * x.dtype.itemsize for x, s in pairs)
    return own, sum(x.size * x.dtype.itemsize for x, _ in pairs)


def test_an_eighth_of_parameters_averages_and_moments_lies_on_each_of_eight_devices():
    config = msddf.get_config().unlock()
    # All of it trained, where moments and averages are largest; and as it is, with a frozen backbone.
    for groups in (((".*", {"lr": 1e-3, "weight_decay": 0.0}),), config.optim.groups):
        config.optim.groups = groups
        shapes = jax.eval_shape(lambda: init_state(config))
        mesh = sharding.make_mesh({"data": 1, "fsdp": 8})
        found = sharding.shard_state(shapes, config.sharding, mesh)
        for part in ("params", "ema", "opt_state"):
            own, whole = _bytes_a_device(getattr(shapes, part), getattr(found, part))
            assert whole / 8 <= own <= 1.05 * whole / 8, (part, own, whole)
    # Without the axis, everything stands on every device.
    whole = sharding.shard_state(shapes, config.sharding, sharding.make_mesh({"data": 8, "fsdp": 1}))
    assert all(s.is_fully_replicated for s in jax.tree.leaves(whole))


@pytest.mark.long
def test_a_sharded_step_equals_the_replicated_one():
    config = tiny_config("nowhere", bare=True).copy_and_resolve_references().unlock()
    config.model.variant = "Ti/16"
    batch, ends = noise_batch(rows=8, size=64), []
    for axes in ({"data": 8, "fsdp": 1}, {"data": 1, "fsdp": 8}, {"data": 2, "fsdp": 4}):
        mesh = sharding.make_mesh(axes)
        shapes = jax.eval_shape(lambda: init_state(config))
        found = sharding.shard_state(shapes, config.sharding, mesh)
        with jax.set_mesh(mesh):
            state = jax.jit(lambda: init_state(config), out_shardings=found)()
            step = jax.jit(make_train_step(config), in_shardings=(found, None), out_shardings=(found, None))
            state, scalars = step(state, (sharding.put_batch(batch, mesh),))
        if axes["fsdp"] == 8:
            kernel = state.params["detector"]["backbone"]["block_0"]["mlp"]["fc_1"]["kernel"]
            assert len({str(s.index) for s in kernel.addressable_shards}) == 8
        ends.append((jax.device_get(trees.flatten(state.params)), float(scalars["loss"])))
    for params, loss in ends[1:]:
        np.testing.assert_allclose(loss, ends[0][1], rtol=1e-5)
        for name, value in params.items():
            np.testing.assert_allclose(value, ends[0][0][name], atol=5e-4, err_msg=name)
