"""The command line as a process: killed, asked to stop, and given what it cannot work with."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import many_processes
import numpy as np
import pytest

from msddf_jax import checkpoint, logs, trees
from msddf_jax.inference import load_for_inference

ROOT = pathlib.Path(__file__).resolve().parents[1]


def _main(config_dir, workdir, *flags):
    command = [sys.executable, "-m", "msddf_jax.main", f"--config={config_dir}", f"--workdir={workdir}", *flags]
    env = {**os.environ, "XLA_FLAGS": many_processes.xla_flags(1), "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def tiny_config_file(toy_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    path = folder / "tiny_run.py"
    path.write_text(
        f"import sys\nsys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\nfrom tiny import tiny_config\n\n\n"
        f"def get_config(arg=None):\n    config = tiny_config({str(toy_data[1])!r}, steps=12, bare=True).unlock()\n"
        "    config.select = None\n    config.evals = {'toy_swap': config.evals.toy_swap}\n    return config.lock()\n"
    )
    return path


def _final_params(workdir):
    return jax.device_get(trees.flatten(load_for_inference(workdir).params["params"]))


@pytest.mark.long
def test_killed_and_started_again_gives_the_same_bits(tiny_config_file, tmp_path):
    alone = _main(tiny_config_file, tmp_path / "alone", f"--profile={tmp_path / 'profile'}")
    _, err = alone.communicate(timeout=400)
    assert alone.returncode == 0, err[-2000:]
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
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


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.data.data_dir=nowhere"], "python -m data_prep.build faceforensics --config toy"),
        (
            ["--config.init.backbone=weights/a/b/model.safetensors"],
            "no weights at weights/a/b/model.safetensors",
        ),
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
