"""launch/slurm.sh under SLURM itself: a job that has to make room goes back into the queue, and resumes."""

import json
import os
import subprocess

import many_processes
import pytest
import slurm_on_one_machine as slurm
from launch_stand_ins import ROOT

from msddf_jax import logs


def _submit(env, tmp_path, data_dir, *flags):
    """Number of a job of two processes of the tiny trainer, one CPU device each."""
    own = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "JAX_PLATFORMS": "cpu"}
    own["XLA_FLAGS"] = many_processes.xla_flags(1)
    words = ["--parsable", "--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1", "--time=30"]
    words += [f"--output={tmp_path}/job.out", ROOT / "launch" / "slurm.sh", "tests/tiny_run.py:bare", tmp_path / "run"]
    words += [f"--config.data.data_dir={data_dir}", *flags]
    done = subprocess.run(["sbatch", *words], cwd=ROOT, env=env | own, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Starts four trainers, and SLURM lets a job wait before it starts it again: two minutes and more.
@pytest.mark.long
@pytest.mark.skipif(bool(slurm.lacking()), reason=f"SLURM is not here: {slurm.lacking()}")
def test_a_job_that_is_preempted_is_requeued_and_resumes(toy_data, tmp_path):
    folder, workdir = tmp_path / "slurm", tmp_path / "run"
    folder.mkdir()
    explain = lambda: (tmp_path / "job.out").read_text()[-3000:] + slurm.logs(folder)
    with slurm.cluster(folder) as env:
        job = _submit(env, tmp_path, toy_data[1])
        state = lambda: dict(
            word.split("=", 1) for word in slurm.say(env, "scontrol", "show", "job", job).split() if "=" in word
        )
        slurm.wait_until(lambda: list(workdir.glob("checkpoints/4")), 300, explain)
        # As before the time limit, the processes get SIGTERM, and the script nothing.
        assert slurm.say(env, "sbatch", "--parsable", "--partition=high", "--exclusive", "--output=/dev/null",
                         f"--wrap=touch {tmp_path}/urgent")  # fmt: skip
        slurm.wait_until(lambda: state().get("Restarts") == "1", 120, explain)
        slurm.wait_until((tmp_path / "urgent").exists, 120, explain)
        assert not (workdir / "results.json").exists()
        slurm.wait_until(lambda: state().get("JobState") in ("COMPLETED", "FAILED", "CANCELLED"), 400, explain)
        assert state()["JobState"] == "COMPLETED" and state()["ExitCode"] == "0:0", explain()
    said = (tmp_path / "job.out").read_text()
    assert "processes: 2;" in said and "stopped before its end" in said and "resuming" in said, said
    assert [line["step"] for line in logs.read_metrics(workdir) if "loss" in line] == list(range(1, 21))
    assert json.loads((workdir / "results.json").read_text())
