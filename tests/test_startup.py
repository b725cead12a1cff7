"""What a start of predict must not do: load what it does not need, or compile again what it compiled before."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from tiny import tiny_config

from msddf_jax import checkpoint, detector, inference, predict
from msddf_jax.train_step import ema_weights, init_state


def test_predict_loads_only_what_it_needs():
    absent = "{'sklearn', 'tensorflow_datasets', 'torch', 'matplotlib', 'flax'}"
    code = f"import sys, msddf_jax.predict; print(sorted({absent} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_weight_shapes_are_the_detectors():
    config = tiny_config("data", bare=True)
    state = jax.eval_shape(lambda: init_state(config))
    expected = {"params": state.params["detector"], "model_state": state.model_state["detector"]}
    assert detector.weight_shapes(config) == expected


@pytest.fixture
def no_cache(monkeypatch):
    """JAX without a compilation cache, and as it was afterwards."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_cache_folder_is_the_users_own_unless_jax_has_one(no_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert inference.use_compilation_cache("") is None
    folder = inference.use_compilation_cache(predict.COMPILATION_CACHE)
    assert os.path.dirname(folder) == str(tmp_path / ".cache" / "msddf_jax" / "xla")
    assert jax.config.jax_compilation_cache_dir == folder
    # What JAX was told before, by $JAX_COMPILATION_CACHE_DIR or otherwise, stays.
    assert inference.use_compilation_cache(str(tmp_path / "other")) == folder


@pytest.mark.parametrize("home", ["/proc/none", os.devnull])
def test_a_home_that_cannot_be_written_costs_the_cache_alone(no_cache, monkeypatch, caplog, home):
    monkeypatch.setenv("HOME", home)
    assert inference.use_compilation_cache(predict.COMPILATION_CACHE) is None
    assert jax.config.jax_compilation_cache_dir is None
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and home in told[0] and "JAX_COMPILATION_CACHE_DIR" in told[0]


def test_a_user_without_a_home_gets_no_folder_of_that_name(no_cache, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it is for a user that no list has
    assert inference.use_compilation_cache("~/cache") is None
    assert "HOME" in caplog.text and not list(tmp_path.iterdir())


@pytest.mark.long
def test_programs_that_cannot_be_kept_are_used_all_the_same(workdir, caplog):
    cache = f"{os.devnull}/cache"
    np.testing.assert_allclose(_scores(workdir, cache), _scores(workdir), rtol=0, atol=1e-6)
    told = [record for record in caplog.records if "not kept" in record.getMessage()]
    assert len(told) == 1


def test_another_instruction_set_has_a_cache_of_its_own(no_cache, tmp_path, monkeypatch):
    here = inference.use_compilation_cache(str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.setattr(inference.zlib, "crc32", lambda data: 1)
    assert inference.use_compilation_cache(str(tmp_path)) != here


SECOND_START = """
import sys, jax, jax.numpy as jnp
from msddf_jax import inference
inference.use_compilation_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
jax.jit(lambda x: jnp.sin(x) * 2)(jnp.ones(3)).block_until_ready()
print(sum("cache_hits" in e for e in events), sum("cache_misses" in e for e in events))
"""


def test_a_second_process_takes_compiled_code_from_the_folder(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    counts = []
    for _ in range(2):
        command = [sys.executable, "-c", SECOND_START, str(tmp_path / "cache")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        counts.append(tuple(map(int, done.stdout.split())))
    assert counts[0][0] == 0 and counts[0][1] > 0
    assert counts[1][0] == counts[0][1] and counts[1][1] == 0


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workdir")
    config = tiny_config("data", bare=True)
    checkpoint.save_config(folder, config)
    checkpoint.save_best(folder, 3, ema_weights(jax.jit(lambda: init_state(config))()), {"val/video_auc": 0.5})
    return folder


IMAGES = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)


def _scores(workdir, cache=None):
    model = inference.load_for_inference(workdir, cache)
    size = model.config.data.image_size
    return np.asarray(model.predict_fn(model.params, {"image": IMAGES[:, :size, :size]})["score"])


@pytest.mark.long
def test_a_second_start_does_not_trace_the_model(workdir, tmp_path, monkeypatch):
    expected = _scores(workdir)
    np.testing.assert_allclose(_scores(workdir, tmp_path), expected, rtol=0, atol=1e-6)
    names = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert names == ["predict", "weights"]

    def traced(*_):
        raise AssertionError("the model was made again")

    monkeypatch.setattr(detector, "make_model", traced)
    monkeypatch.setattr(detector, "make_score", traced)
    np.testing.assert_allclose(_scores(workdir, tmp_path), expected, rtol=0, atol=1e-6)


def test_damaged_programs_are_told_and_made_anew(workdir, tmp_path, caplog):
    expected = _scores(workdir, tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    np.testing.assert_array_equal(_scores(workdir, tmp_path), expected)
    damaged = lambda: sum("is damaged" in record.getMessage() for record in caplog.records)
    assert damaged() == 2
    np.testing.assert_array_equal(_scores(workdir, tmp_path), expected)
    assert damaged() == 2


def test_programs_are_of_one_config(workdir):
    config = checkpoint.load_config(workdir)
    other = checkpoint.load_config(workdir)
    other.data.image_size *= 2
    assert inference._program_key(config) == inference._program_key(checkpoint.load_config(workdir))
    assert inference._program_key(config) != inference._program_key(other)
