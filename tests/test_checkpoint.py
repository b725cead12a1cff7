import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import two_processes
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from msddf_jax import checkpoint, sharding


def _config(**changes):
    base = {"seed": 0, "data": {"data_dir": "a", "batch_size": 8}, "evals": {"x": {"split": "test"}}}
    return ConfigDict({**base, **changes})


def _state(value):
    return {"w": jnp.full((4,), value), "key": jax.random.key(int(value))}


def _abstract():
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), _state(0.0))


def test_state_key_and_iterator_round_trip(tmp_path):
    with checkpoint.make_manager(tmp_path, keep=2) as manager:
        assert checkpoint.restore_last(manager, _abstract()) is None
        for step in (1, 2, 3):
            checkpoint.save(manager, step, _state(float(step)), {"next": step})
        manager.wait_until_finished()
        assert sorted(manager.all_steps()) == [2, 3]
    with checkpoint.make_manager(tmp_path) as manager:
        step, state, iterator = checkpoint.restore_last(manager, _abstract())
    assert step == 3 and iterator == {"next": 3}
    np.testing.assert_array_equal(state["w"], np.full(4, 3.0))
    assert jax.random.uniform(state["key"]) == jax.random.uniform(jax.random.key(3))


def test_best_keeps_one_and_its_figure(tmp_path):
    weights = {"params": {"w": jnp.ones(3)}, "model_state": {}}
    assert checkpoint.best_value(tmp_path, "val/auc") is None
    checkpoint.save_best(tmp_path, 5, weights, {"val/auc": 0.7})
    checkpoint.save_best(tmp_path, 9, jax.tree.map(lambda x: 2 * x, weights), {"val/auc": 0.8})
    assert checkpoint.best_value(tmp_path, "val/auc") == pytest.approx(0.8)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), weights)
    step, restored = checkpoint.restore_best(tmp_path, shapes)
    assert step == 9
    np.testing.assert_array_equal(restored["params"]["w"], 2 * np.ones(3))
    assert [p.name for p in (tmp_path / checkpoint.BEST).iterdir()] == ["weights.safetensors"]
    assert checkpoint.read_choice(tmp_path) == {"step": 9, "val/auc": 0.8}


def test_best_of_an_earlier_version_is_refused_and_an_empty_folder_is_none(tmp_path):
    (tmp_path / checkpoint.BEST).mkdir()
    assert checkpoint.restore_best(tmp_path, {}) is None and checkpoint.read_choice(tmp_path) is None
    (tmp_path / checkpoint.BEST / "240").mkdir()
    for read in (checkpoint.read_choice, lambda workdir: checkpoint.restore_best(workdir, {})):
        with pytest.raises(ValueError, match="earlier version"):
            read(tmp_path)


def test_best_of_sharded_weights_goes_to_any_sharding(tmp_path):
    mesh = jax.make_mesh((8,), ("data",))
    split, whole = (jax.sharding.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
    values = np.arange(32, dtype=np.float32).reshape(16, 2)
    weights = {"params": {"b": {"kernel": jax.device_put(values, split)}, "a": jnp.int32(3)}, "model_state": {}}
    checkpoint.save_best(tmp_path, 1, weights, {})
    for place in (split, whole):
        places = {"params": {"b": {"kernel": place}, "a": whole}, "model_state": {}}
        shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), weights, places)
        _, restored = checkpoint.restore_best(tmp_path, shapes)
        assert jax.tree.structure(restored) == jax.tree.structure(weights)
        np.testing.assert_array_equal(restored["params"]["b"]["kernel"], values)
        assert restored["params"]["b"]["kernel"].sharding == place and restored["params"]["a"] == 3


def test_best_of_another_model_or_damaged_is_refused(tmp_path):
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = lambda *size, dtype=jnp.float32: jax.ShapeDtypeStruct(size, dtype, sharding=device)
    checkpoint.save_best(tmp_path, 5, {"params": {"w": jnp.ones(3), "v": jnp.ones(1)}}, {})
    with pytest.raises(ValueError, match=r"lacks \['params/u'\], and has \['params/v'\]"):
        checkpoint.restore_best(tmp_path, {"params": {"w": shape(3), "u": shape(1)}})
    with pytest.raises(ValueError, match=r"params/w is float32 \(3,\) there, float32 \(4,\) in the model"):
        checkpoint.restore_best(tmp_path, {"params": {"w": shape(4), "v": shape(1)}})
    with pytest.raises(ValueError, match=r"params/w is float32 .* there, int32"):
        checkpoint.restore_best(tmp_path, {"params": {"w": shape(3, dtype=jnp.int32), "v": shape(1)}})
    path = tmp_path / checkpoint.BEST / "weights.safetensors"
    whole = path.read_bytes()
    safetensors.numpy.save_file({"params/w": np.ones(3, np.float32)}, path)
    with pytest.raises(ValueError, match="does not say which step"):
        checkpoint.best_value(tmp_path, "val/auc")
    path.write_bytes(whole[:-2])
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.restore_best(tmp_path, {"params": {"w": shape(3), "v": shape(1)}})
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.best_value(tmp_path, "val/auc")


def test_another_config_is_refused_with_both_values(tmp_path):
    # Before its first checkpoint a workdir binds nobody: a run that failed may be started corrected.
    checkpoint.save_config(tmp_path, _config(data={"data_dir": "a", "batch_size": 32}))
    checkpoint.save_config(tmp_path, _config())
    checkpoint.save_best(tmp_path, 1, {"params": {"w": jnp.ones(1)}, "model_state": {}}, {"val/auc": 0.5})
    checkpoint.save_config(tmp_path, _config())
    # Where the data lies and what is evaluated may change between runs.
    checkpoint.save_config(tmp_path, _config(data={"data_dir": "b", "batch_size": 8}, evals={}))
    with pytest.raises(ValueError, match=r"data\.batch_size is 8 there, 16 now"):
        checkpoint.save_config(tmp_path, _config(data={"data_dir": "a", "batch_size": 16}))
    assert json.loads((tmp_path / "versions.json").read_text())["device_count"] == jax.device_count()


def test_config_comes_back(tmp_path):
    checkpoint.save_config(tmp_path, _config(select=None))
    config = checkpoint.load_config(tmp_path)
    assert config.data.batch_size == 8 and config.select is None
    with pytest.raises(FileNotFoundError, match=r"python -m msddf_jax\.main"):
        checkpoint.load_config(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    checkpoint.write_json(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def _save_and_read_best(index, workdir):
    """In each of two processes: one weight lies over all eight devices, one on each."""
    mesh = sharding.make_mesh({"data": -1})
    values = {"split": np.arange(16.0, dtype=np.float32), "whole": np.float32([1, 2])}
    places = {"split": sharding.batch_sharding(mesh), "whole": sharding.replicated(mesh)}
    make = lambda factor: {
        name: jax.make_array_from_callback(value.shape, places[name], lambda i, v=value: factor * v[i])
        for name, value in values.items()
    }
    for step, factor in ((1, 1.0), (2, 3.0)):
        checkpoint.save_best(workdir, step, make(factor), {"val/auc": 0.5})
    multihost_utils.sync_global_devices("written")
    shapes = {n: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=places[n]) for n, v in values.items()}
    step, weights = checkpoint.restore_best(workdir, shapes)
    same = jax.jit(lambda a, b: (a["split"] == b["split"]).all() & (a["whole"] == b["whole"]).all())
    print("STEP", step, bool(same(weights, make(3.0))), bool(same(weights, make(1.0))), flush=True)


@pytest.mark.long
def test_two_processes_save_and_read_the_best(tmp_path):
    for lines in two_processes.run("test_checkpoint", "_save_and_read_best", str(tmp_path)):
        assert "STEP 2 True False" in lines
