"""A disk that is full while a run writes its checkpoints: one line names it, and with more room the run goes on."""

import errno
import socket
import subprocess
import sys

import pytest

from msddf_jax import command


def test_the_line_names_the_disk_and_the_machine(tmp_path):
    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError(
            "RESOURCE_EXHAUSTED: Failed to write 9 bytes to file 6: No space left on device [os_error_code='28']"
        ),
    ):
        line = command.describe(error, tmp_path / "runs" / "mine")
        assert line.startswith(f"the disk of {tmp_path}/runs/mine on {socket.gethostname()} is full (")
        assert "the same command resumes" in line and "\n" not in line
    assert command.describe(ValueError("other"), tmp_path) == "ValueError: other"
    assert command.describe(OSError(errno.ENOSPC, "No space"), None) == "OSError: [Errno 28] No space"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 300 kB; a mount wants the right to."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.long  # two starts of the trainer, about 20 s
def test_a_run_says_so_and_resumes(small_disk, toy_data):
    def run():
        arguments = [
            "--config=configs/detectors/meso4.py:demo", f"--workdir={small_disk / 'run'}", "--config.steps=4",
            f"--config.data.data_dir={toy_data[1]}", "--config.checkpoint_every=2", "--config.data.batch_size=8",
            "--config.select.every=4", "--config.log_every=1", "--config.data.image_size=64",
            "--config.optim.warmup_steps=0",
        ]  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "msddf_jax.main", *arguments], capture_output=True, text=True, check=False
        )

    full = run()
    assert full.returncode == 1
    # The last line; callbacks of the checkpoint library may print before it, from a loop that is closed already.
    assert full.stderr.splitlines()[-1].split("] ")[-1].startswith(f"the disk of {small_disk}/run on ")
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert run().returncode == 0
    assert (small_disk / "run" / "results.json").exists()
