"""Starts the trainer as several JAX processes of this machine, as a launch script would."""

import functools
import os
import pathlib
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def xla_flags(devices):
    """$XLA_FLAGS of the tests, which compile fast, for a process of so many CPU devices in place of their eight."""
    kept = [word for word in os.environ["XLA_FLAGS"].split() if "device_count" not in word]
    return " ".join([*kept, f"--xla_force_host_platform_device_count={devices}"])


def start(count, devices, workdir, data_dir, *flags, config="bare", env=None):
    """[process]: `count` processes of the trainer with `devices` CPU devices each. config: of tiny_run.

    data_dir: of all, or a list with one for each. env: further variables of each, or None.
    """
    port = free_port()
    own = env or [{}] * count
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(devices)}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-m", "msddf_jax.main", f"--config={ROOT}/tests/tiny_run.py:{config}"]
    command += [f"--workdir={workdir}", *flags]
    if count > 1:
        command += [f"--coordinator=localhost:{port}", f"--num_processes={count}"]
    begin = functools.partial(subprocess.Popen, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    folders = data_dir if isinstance(data_dir, list) else [data_dir] * count
    return [
        begin(
            [*command, f"--config.data.data_dir={folders[i]}", *([f"--process_id={i}"] if count > 1 else [])],
            env=env | own[i],
        )
        for i in range(count)
    ]


def finish(processes, timeout=400):
    """[(exit code, what it printed)], progress bars left out; none is left running."""
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    lines = ["\n".join(x for x in text.replace("\r", "\n").splitlines() if "%|" not in x) for text in outputs]
    return [(process.returncode, text) for process, text in zip(processes, lines, strict=True)]


def wait_for(path, processes, timeout=300):
    """Returns once a pattern below a folder is there: (folder, pattern); stops where a process ends before."""
    folder, pattern = path
    end = time.monotonic() + timeout
    while not list(pathlib.Path(folder).glob(pattern)):
        assert all(process.poll() is None for process in processes), finish(processes)
        assert time.monotonic() < end, f"no {pattern} in {folder} after {timeout} s"
        time.sleep(0.1)
