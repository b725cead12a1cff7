"""Several processes of one run: who they are, that a whole run works, and what is said when one is gone."""

import json
import pathlib
import signal
import time
import types

import many_processes
import numpy as np
import pytest
from toy_set import write_toy

from msddf_jax import cluster, logs

SLURM = {
    "SLURM_JOB_ID": "1",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_NODEID": "1",
}


def test_flags_come_before_the_environment():
    environ = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert cluster.find(environ=environ) == ("a:1", 4, 3, None)
    assert cluster.find("b:2", process_id=0, environ=environ) == ("b:2", 4, 0, None)
    assert cluster.find(environ={}) == (None, None, None, None)  # left to JAX


def test_what_lacks_is_named():
    with pytest.raises(ValueError, match=r"--num_processes \(or JAX_NUM_PROCESSES\) and --process_id"):
        cluster.find(environ={"JAX_COORDINATOR_ADDRESS": "a:1"})
    with pytest.raises(ValueError, match=r"JAX_PROCESS_ID is 'x', expected an integer"):
        cluster.find("a:1", 2, environ={"JAX_PROCESS_ID": "x"})


def test_a_slurm_task_gets_its_share_of_the_nodes_gpus():
    assert cluster.find(environ=SLURM, gpus=8).local_device_ids == list(range(8))
    assert cluster.find(environ=SLURM, gpus=0).local_device_ids is None
    # Two tasks on the first node, four on the second, where this one is the third.
    four = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "2,4", "SLURM_LOCALID": "2"}
    assert cluster.find(environ=four, gpus=8).local_device_ids == [4, 5]
    with pytest.raises(ValueError, match=r"4 tasks on this node share 6 GPUs.*--ntasks-per-node"):
        cluster.find(environ=four, gpus=6)
    assert cluster.find(environ=SLURM | {"JAX_LOCAL_DEVICE_IDS": "3"}, gpus=8).local_device_ids is None
    # Bound by SLURM, a task sees its own alone.
    assert cluster.find(environ=four | {"SLURM_GPUS_PER_TASK": "1"}, gpus=1).local_device_ids == [0]
    mpi = {"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    assert cluster.find(environ=mpi, gpus=4).local_device_ids == [2, 3]


def test_gpus_are_counted_by_files_and_by_what_is_hidden(tmp_path):
    assert cluster.visible_gpus({}, tmp_path) == 0
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    count = lambda text: cluster.visible_gpus({"CUDA_VISIBLE_DEVICES": text}, tmp_path)
    assert cluster.visible_gpus({}, tmp_path) == 3
    assert [count(text) for text in ("", "0", "1,0", "0,-1,1", "GPU-a,GPU-b")] == [0, 1, 2, 1, 2]


def _jax(platform, used, asked=None):
    """As much of JAX as `check_gpus` asks: one process with `used` devices."""
    device = types.SimpleNamespace(platform=platform)
    return types.SimpleNamespace(
        devices=lambda: [device] * used,
        local_device_count=lambda: used,
        process_count=lambda: 1,
        config=types.SimpleNamespace(jax_platforms=asked),
    )


def test_gpus_that_nobody_uses_are_an_error_or_a_warning(monkeypatch):
    told = []
    monkeypatch.setattr(cluster.logging, "warning", lambda text, *values: told.append(text % values))
    monkeypatch.setattr(cluster, "jax", _jax("gpu", 1))
    with pytest.raises(ValueError, match=r"has 8 GPUs that this run sees and uses 1 of them"):
        cluster.check_gpus(8)
    cluster.check_gpus(1)
    monkeypatch.setattr(cluster, "jax", _jax("cpu", 1, "cpu"))  # asked for by name
    cluster.check_gpus(8)
    assert not told
    monkeypatch.setattr(cluster, "jax", _jax("cpu", 1))
    cluster.check_gpus(8)
    assert len(told) == 1 and "8 GPUs are there and unused" in told[0]


@pytest.mark.parametrize("address", ["nowhere", "host:port"])
def test_an_address_that_is_none(address):
    with pytest.raises(ValueError, match="expected host:port"):
        cluster.start(cluster.Place(address, 2, 1))


def test_a_coordinator_that_is_not_there():
    with pytest.raises(ValueError, match=r"no coordinator at localhost:\d+ within 1 s .*process 0 listens there"):
        cluster.start(cluster.Place(f"localhost:{many_processes.free_port()}", 2, 1), timeout=1)


def _losses(workdir):
    return [line["loss"] for line in logs.read_metrics(workdir) if "loss" in line]


def _figures(workdir):
    results = json.loads((pathlib.Path(workdir) / "results.json").read_text())
    return {name: value for name, value in results.items() if not name.startswith("_")}


# Starts five runs: minutes.
@pytest.mark.long
def test_two_processes_train_stop_resume_and_evaluate_as_one_does(toy_data, tmp_path):
    ((code, said),) = many_processes.finish(many_processes.start(1, 2, tmp_path / "one", toy_data[1]))
    assert code == 0, said
    both = many_processes.start(2, 1, tmp_path / "two", toy_data[1])
    many_processes.wait_for((tmp_path / "two", "checkpoints/4"), both)
    both[1].send_signal(signal.SIGTERM)
    for code, said in many_processes.finish(both):
        assert code == 0 and "Run the same command to resume" in said, said
    step = max(int(path.name) for path in (tmp_path / "two" / "checkpoints").iterdir())
    assert step < 20
    for code, said in many_processes.finish(many_processes.start(2, 1, tmp_path / "two", toy_data[1])):
        assert code == 0 and f"at step {step} of 20" in said, said
    np.testing.assert_allclose(_losses(tmp_path / "two"), _losses(tmp_path / "one"), rtol=2e-4)
    assert len(_losses(tmp_path / "two")) == 20
    one, two = _figures(tmp_path / "one"), _figures(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        assert one[name] == pytest.approx(two[name], abs=0.02, nan_ok=True), name
    rows = [(tmp_path / name / "scores" / "val.csv").read_text().splitlines() for name in ("one", "two")]
    # The same frames in the same order, whoever scored them.
    assert [line.rsplit(",", 2)[0] for line in rows[0]] == [line.rsplit(",", 2)[0] for line in rows[1]]


# Waits for the silence of the dead.
@pytest.mark.long
def test_a_killed_process_ends_the_other_with_its_name_and_the_run_resumes(toy_data, tmp_path):
    both = many_processes.start(2, 1, tmp_path, toy_data[1])
    many_processes.wait_for((tmp_path, "checkpoints/2"), both)
    both[1].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    (code, said), _ = many_processes.finish(both, timeout=120)
    assert code == 1 and "process 1 on " in said and "was killed, or its machine is gone" in said, said
    assert time.monotonic() - begun < 120
    for code, said in many_processes.finish(many_processes.start(2, 1, tmp_path, toy_data[1])):
        assert code == 0 and "resuming" in said, said


@pytest.mark.long
def test_an_error_of_one_process_is_a_line_of_both(toy_data, tmp_path):
    folders = [toy_data[1], tmp_path / "nothing"]
    (first, said), (second, own) = many_processes.finish(many_processes.start(2, 1, tmp_path / "run", folders))
    assert first == second == 1
    assert "process 1 on " in said and "FileNotFoundError: this experiment cannot start" in said, said
    assert "Traceback" not in said + own


# Seven processes compile the step in each: five minutes.
@pytest.mark.parity
@pytest.mark.parametrize("config", ["bare", "bare-fsdp", "whole", "whole-fsdp"])
def test_eight_devices_give_the_same_however_many_processes_hold_them(config, toy_data, tmp_path):
    found = {}
    for count in (1, 2, 4):
        folder = tmp_path / str(count)
        for code, said in many_processes.finish(
            many_processes.start(count, 8 // count, folder, toy_data[1], config=config), timeout=1500
        ):
            assert code == 0, said
        found[count] = _losses(folder), _figures(folder)
    assert len(found[1][0]) == 20
    for count in (2, 4):
        np.testing.assert_allclose(found[count][0], found[1][0], rtol=5e-4)
        assert found[count][1].keys() == found[1][1].keys()
        for name, value in found[1][1].items():
            assert found[count][1][name] == pytest.approx(value, abs=0.02, nan_ok=True), name


@pytest.mark.long
def test_a_data_set_that_differs_between_hosts_is_named(toy_data, tmp_path):
    # Two people more.
    _, other = write_toy(tmp_path, identities=16, frames=3, video_size=64, size=64)
    for code, said in many_processes.finish(many_processes.start(2, 1, tmp_path / "run", [toy_data[1], other])):
        assert code == 1, said
        assert "config.data.train, faceforensics/toy:train, is not the same everywhere: process 1 on " in said, said
