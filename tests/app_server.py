"""The app in a process of its own, on a tiny model and with face models that need no files, for the app's tests."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

TESTS = pathlib.Path(__file__).resolve().parent


def fake_face_models():
    """One upright face in the middle of every image that has any contrast."""
    import numpy as np
    from face_points import face_points

    from msddf_jax.faces.detect import Face

    def detect(image):
        height, width = image.shape[:2]
        if image[::8, ::8].std() < 4:
            return []
        side = 0.75 * min(height, width)
        box = np.array([width - side, height - side, width + side, height + side], np.float32) / 2
        return [Face(box, 0.9, np.zeros((5, 2), np.float32))]

    def landmark(image, box):
        return (face_points(2)[0] * (box[2] - box[0]) + box[:2]).astype(np.float32)

    return detect, landmark


def make_workdir(folder, calibration=None):
    """A workdir as training leaves it: the tiny config and random weights."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from tiny import tiny_config

    from msddf_jax import checkpoint, detector

    config, rng = tiny_config("data", bare=True), np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32)
    checkpoint.save_config(folder, config)
    checkpoint.save_best(folder, 7, jax.tree.map(draw, detector.weight_shapes(config)), {"val/frame_auc": 0.5})
    if calibration is not None:
        (folder / "calibration.json").write_text(json.dumps(calibration))
    return folder


@contextlib.contextmanager
def running_app(workdir, temporary, **limits):
    """Starts the app; gives (its address, process id, its temporary folder) and ends it."""
    temporary.mkdir()
    command = [sys.executable, str(TESTS / "app_server.py"), str(workdir), json.dumps(limits)]
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            words = process.stdout.readline().split()
            if len(words) < 2 or words[0] != "open":
                process.wait(timeout=10)
                errors.seek(0)
                raise RuntimeError(f"the app did not start: {errors.read()[-3000:]}")
            [folder] = temporary.glob("msddf_jax_app_*")
            yield words[1], process.pid, folder
        finally:
            process.terminate()
            process.wait(timeout=20)
            process.stdout.close()


def refuse_network(report):
    """Every attempt of this process to reach another machine fails, and is written to a file."""
    import socket

    def lookup(host, *args, _lookup=socket.getaddrinfo, **kwargs):
        if host not in ("127.0.0.1", "localhost", "::1", None):
            report.write_text(f"looked up {host}")
            raise OSError("no network in this test")
        return _lookup(host, *args, **kwargs)

    class Socket(socket.socket):
        def connect(self, address):
            if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
                report.write_text(f"connected to {address}")
                raise OSError("no network in this test")
            return super().connect(address)

    socket.getaddrinfo, socket.socket = lookup, Socket


if __name__ == "__main__":
    from app_server import fake_face_models as importable  # by a name that the child process knows

    from msddf_jax import app, inference
    from msddf_jax.show import uploads
    from msddf_jax.statistics import verdict

    folder = sys.argv[1]
    refuse_network(pathlib.Path(tempfile.gettempdir()) / "network.txt")
    app.serve(
        inference.load_for_inference(folder),
        verdict.load_calibration(folder),
        host="127.0.0.1",
        port=0,
        limits=uploads.Limits(**json.loads(sys.argv[2])),
        num_frames=8,
        make_models=importable,
    )
