import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from msddf_jax import checkpoint, evaluate, logs, optim, sharding, train, trees
from msddf_jax.data import pipeline, schema, source
from msddf_jax.inference import load_for_inference
from msddf_jax.train_step import init_state, load_detector, make_train_step

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def workdir(toy_data, tmp_path_factory):
    """A finished run of four steps."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(toy_data[1])
    train.train_and_evaluate(config, folder)
    return folder


@pytest.fixture(scope="module")
def one_batch(toy_data):
    config = tiny_config(toy_data[1])
    opened = source.open_source("faceforensics/toy", "train", config.data.data_dir, ("toy_swap", "toy_texture"))
    batches = pipeline.train_batches(opened, batch_size=8, identities=source.identity_table(opened))
    return schema.device_batch(next(batches))


def test_a_run_writes_all_it_promises(workdir):
    results = json.loads((workdir / "results.json").read_text())
    for name in ("val", "toy_swap", "toy_texture", "toy_reenact", "toy_neural"):
        for metric in ("video_auc", "frame_auc", "video_eer", "frame_accuracy"):
            assert 0.0 <= results[f"{name}/{metric}"] <= 1.0
    assert results["_about"]["step"] == 4 and results["_about"]["weights"] == "best"
    lines = logs.read_metrics(workdir)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert lines[0]["loss"] > 0 and "loss/type_ce" in lines[0] and "images_per_second" in lines[0]
    assert list((workdir / "tensorboard").iterdir()) and (workdir / "config.json").exists()
    scores = (workdir / "scores" / "toy_swap.csv").read_text().splitlines()
    # Two test identities: 2 real and 2 fake videos of 3 frames.
    assert len(scores) == 1 + 12


def test_evaluating_again_gives_the_same_figures(workdir):
    before = json.loads((workdir / "results.json").read_text())
    after = evaluate.evaluate_workdir(workdir)
    assert {k: v for k, v in after.items() if k != "_about"} == {k: v for k, v in before.items() if k != "_about"}


def test_no_retrace_over_steps_and_padded_tails(toy_data, one_batch):
    config = tiny_config(toy_data[1])
    step = jax.jit(make_train_step(config))
    state = jax.jit(lambda: init_state(config))()
    for _ in range(3):
        state, _ = step(state, one_batch)
    assert step._cache_size() == 1


def test_frozen_parameters_stay_bit_identical_without_optimiser_memory(toy_data, one_batch):
    groups = ((r"detector/backbone/(.*/)?ln_[^/]+/.*", {"lr": 1e-3, "weight_decay": 0.0}),
              (r"detector/backbone/.*", None), (r"detector/.*", {"lr": 1e-3, "weight_decay": 0.0}))  # fmt: skip
    config = tiny_config(toy_data[1]).copy_and_resolve_references().unlock()
    config.optim.groups = groups
    config.optim.warmup_steps = 0
    state = jax.jit(lambda: init_state(config))()
    before = jax.device_get(trees.flatten(state.params))
    step = jax.jit(make_train_step(config))
    for _ in range(2):
        state, _ = step(state, one_batch)
    after = jax.device_get(trees.flatten(state.params))
    trained = optim.trainable_names(state.params, groups)
    frozen = [name for name, value in trained.items() if not value]
    assert any("attn/query/kernel" in name for name in frozen)
    for name in frozen:
        np.testing.assert_array_equal(before[name], after[name])
    assert all(not np.array_equal(before[n], after[n]) for n in trained if trained[n] and "/ln_1/" in n)
    # Two Adam moments for each trained scalar; what is left over are the integer step counts.
    held = sum(x.size for x in jax.tree.leaves(state.opt_state) if jnp.issubdtype(x.dtype, jnp.floating))
    assert held == 2 * sum(before[name].size for name, value in trained.items() if value)


def test_one_device_and_eight_agree(toy_data, one_batch):
    config = tiny_config(toy_data[1])
    ends = []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
        with jax.set_mesh(mesh):
            state, shardings = train.make_state(config, mesh)
            step = jax.jit(make_train_step(config), in_shardings=(shardings, None), out_shardings=(shardings, None))
            for _ in range(2):
                state, scalars = step(state, sharding.put_batch(one_batch, mesh))
        ends.append(jax.device_get((trees.flatten(state.params), scalars)))
    (one, one_scalars), (eight, eight_scalars) = ends
    np.testing.assert_allclose(one_scalars["loss"], eight_scalars["loss"], rtol=1e-4)
    for name in one:
        # Adam divides by the gradient's own size, so a last-bit difference of a tiny gradient may show as a step.
        np.testing.assert_allclose(one[name], eight[name], atol=5e-4, err_msg=name)


def test_training_brings_the_loss_down(toy_data, one_batch):
    config = tiny_config(toy_data[1], steps=40)
    step = jax.jit(make_train_step(config))
    state = jax.jit(lambda: init_state(config))()
    losses = []
    for _ in range(40):
        state, scalars = step(state, one_batch)
        losses.append(float(scalars["loss"]))
    # The forgeries differ from step to step, so the whole objective is watched, over several steps.
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5]), losses


def _main(config_dir, workdir, *flags):
    command = [sys.executable, "-m", "msddf_jax.main", f"--config={config_dir}", f"--workdir={workdir}", *flags]
    env = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def tiny_config_file(toy_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    path = folder / "tiny_run.py"
    path.write_text(
        f"import sys\nsys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\nfrom tiny import tiny_config\n\n\n"
        f"def get_config(arg=None):\n    config = tiny_config({str(toy_data[1])!r}, steps=12).unlock()\n"
        "    config.select = None\n    config.evals = {'toy_swap': config.evals.toy_swap}\n    return config.lock()\n"
    )
    return path


def _final_params(workdir):
    return jax.device_get(trees.flatten(load_for_inference(workdir).params["params"]))


def test_killed_and_started_again_gives_the_same_bits(tiny_config_file, tmp_path):
    alone = _main(tiny_config_file, tmp_path / "alone")
    _, err = alone.communicate(timeout=400)
    assert alone.returncode == 0, err[-2000:]
    kill_at = random.SystemRandom().randint(3, 11)
    killed = _main(tiny_config_file, tmp_path / "killed")
    metrics = tmp_path / "killed" / "metrics.jsonl"
    while killed.poll() is None and (not metrics.exists() or metrics.read_text().count('"loss"') < kill_at):
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = _main(tiny_config_file, tmp_path / "killed")
    _, err = again.communicate(timeout=400)
    assert again.returncode == 0, err[-2000:]
    one, other = (_final_params(tmp_path / name) for name in ("alone", "killed"))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=f"{name}, killed at {kill_at}")
    assert [m["step"] for m in logs.read_metrics(tmp_path / "killed") if "loss" in m] == list(range(1, 13))


def test_sigterm_saves_says_so_and_exits_0(tiny_config_file, tmp_path):
    run = _main(tiny_config_file, tmp_path / "run", "--config.steps=100000", "--config.checkpoint_every=100000")
    metrics = tmp_path / "run" / "metrics.jsonl"
    while run.poll() is None and (not metrics.exists() or metrics.read_text().count('"loss"') < 2):
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err[-2000:]
    assert "Run the same command to resume" in out + err
    with checkpoint.make_manager(tmp_path / "run") as manager:
        assert manager.latest_step() >= 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.data_dir=nowhere"], "python -m data_prep.build faceforensics --config toy"),
        (["--config.init.path=weights/a/b/model.safetensors"], "hf download a/b model.safetensors"),
        (["--config.detector=mssdf"], "detectors in msddf_jax/detectors are"),
        (["--config.data.batch_size=7"], "not a multiple of the 2 rows"),
    ],
)
def test_what_is_missing_or_wrong_is_one_clear_message(toy_data, tmp_path, flags, message):
    config_path = ROOT / "configs" / "msddf.py"
    run = _main(f"{config_path}:demo", tmp_path / "run", f"--config.data.data_dir={toy_data[1]}", *flags)
    _, err = run.communicate(timeout=120)
    assert run.returncode == 1
    assert message in err and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_config_typo_is_refused_with_a_suggestion(tmp_path):
    run = _main(f"{ROOT / 'configs' / 'msddf.py'}:demo", tmp_path / "run", "--config.stepz=3")
    _, err = run.communicate(timeout=60)
    assert run.returncode != 0 and "stepz" in err


def test_select_may_not_name_a_test_split(toy_data):
    config = tiny_config(toy_data[1]).copy_and_resolve_references().unlock()
    config.select.eval = "toy_swap"
    with pytest.raises(ValueError, match="test split"):
        train.check_config(config)


def test_another_config_in_the_workdir_is_refused(workdir, toy_data):
    config = tiny_config(toy_data[1]).copy_and_resolve_references().unlock()
    config.model.rank = 16
    with pytest.raises(ValueError, match=r"model\.rank is 8 there, 16 now"):
        train.train_and_evaluate(config, workdir)


def test_a_checkpoint_of_another_config_is_one_message(workdir, tmp_path):
    import shutil

    shutil.copytree(workdir, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    config["model"]["rank"] = 16
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit"):
        load_for_inference(tmp_path / "copy")


def test_more_identities_than_classes_is_an_error(toy_data):
    config = tiny_config(toy_data[1]).copy_and_resolve_references().unlock()
    config.model.num_identities = 2
    with pytest.raises(ValueError, match="num_identities is 2"):
        train.check_identities(config, {f"toy:{i}": i for i in range(5)})


def test_a_value_that_is_not_finite_stops_the_run_and_names_itself():
    with pytest.raises(FloatingPointError, match="loss/map_bce"):
        train.check_finite(7, {"loss": jnp.float32(1.0), "loss/map_bce": jnp.float32(jnp.nan)})


def test_unknown_loss_weight_is_an_error(toy_data, one_batch):
    config = tiny_config(toy_data[1]).copy_and_resolve_references().unlock()
    config.loss_weights.map_bse = 1.0
    with pytest.raises(ValueError, match="map_bse"):
        jax.eval_shape(make_train_step(config), jax.eval_shape(lambda: init_state(config)), one_batch)


def test_a_full_disk_keeps_the_last_checkpoint(toy_data, tmp_path, monkeypatch):
    config = tiny_config(toy_data[1], steps=4).copy_and_resolve_references().unlock()
    config.select = None
    real_save, calls = checkpoint.save, []

    def full_at_the_second(manager, step, *rest):
        calls.append(step)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real_save(manager, step, *rest)

    monkeypatch.setattr(checkpoint, "save", full_at_the_second)
    with pytest.raises(OSError, match="No space left"):
        train.train_and_evaluate(config, tmp_path / "run")
    monkeypatch.undo()
    with checkpoint.make_manager(tmp_path / "run") as manager:
        assert manager.latest_step() == 2
    train.train_and_evaluate(config, tmp_path / "run")
    assert logs.read_metrics(tmp_path / "run")[-1]["step"] == 4


def test_every_detector_is_found():
    assert load_detector("msddf").Model is not None
    with pytest.raises(ValueError, match="msddf"):
        load_detector("nothing")
