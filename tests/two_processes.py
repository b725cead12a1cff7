"""Runs a function of a test module in two JAX processes of four CPU devices each."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import many_processes


def join(index, port):
    """Called first in each process."""
    jax.config.update("jax_platforms", "cpu")
    jax.distributed.initialize(f"localhost:{port}", 2, index)


def run(module, function, *arguments):
    """The lines that `module.function(index, *arguments)` printed in either process; arguments are strings."""
    port = many_processes.free_port()
    root = pathlib.Path(__file__).resolve().parents[1]
    code = (
        f"import sys, two_processes, {module} as t; index, port = map(int, sys.argv[1:3]); "
        f"two_processes.join(index, port); t.{function}(index, *sys.argv[3:])"
    )
    env = os.environ | {"XLA_FLAGS": many_processes.xla_flags(4)}
    env["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "tests")])
    start = functools.partial(
        subprocess.Popen, cwd=root, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    processes = [start([sys.executable, "-c", code, str(i), str(port), *arguments]) for i in range(2)]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-2000:]
    return [[line for line in out.splitlines() if line.isascii()] for out, _ in outputs]
