import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from msddf_jax import checkpoint


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
    assert [p.name for p in (tmp_path / checkpoint.BEST).iterdir()] == ["9"]


def test_another_config_is_refused_with_both_values(tmp_path):
    checkpoint.save_config(tmp_path, _config())
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
