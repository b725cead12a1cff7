"""From real clips to a verdict: prepare, build, 20 training steps, evaluate, predict."""

import json
import os
import pathlib
import subprocess
import sys

import many_processes
import pytest

from msddf_jax import predict
from msddf_jax.inference import load_for_inference

ROOT = pathlib.Path(__file__).resolve().parents[1]
# The command line and one device, as a user has it: eight virtual ones would each make every forgery.
CONFIG = """
import sys
sys.path[:0] = {paths!r}
from tiny import tiny_config


def get_config(arg=None):
    config = tiny_config({data!r}, steps=20).unlock()
    config.data.image_size = 128
    one = dict(name="faceforensics/c23_partial", methods=None)
    config.data.train = dict(one, split="train")
    config.evals = dict(
        val=dict(one, split="validation"), faceswap=dict(one, split="test", methods=("faceswap",))
    )
    config.checkpoint_every = 20
    return config.lock()
"""

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    from data_prep import build, prepare

    if not (os.environ.get("MSDDF_REAL_DATA") and os.environ.get("MSDDF_MODELS")):
        pytest.skip("set MSDDF_REAL_DATA (a folder holding FaceForensics++/) and MSDDF_MODELS to run on real clips")
    root = tmp_path_factory.mktemp("real")
    clips = pathlib.Path(os.environ["MSDDF_REAL_DATA"]) / "FaceForensics++"
    code = prepare.main(
        [
            "--layout=faceforensics",
            f"--root={clips}",
            f"--out={root / 'prepared'}",
            "--allow_missing",
            "--size=128",
            "--workers=2",
        ]
    )
    assert code == 0
    build.build("faceforensics", "c23_partial", root / "prepared", root / "tfds")
    return root


def test_99_percent_of_the_sampled_frames_have_a_face(prepared):
    report = json.loads((prepared / "prepared" / "report.json").read_text())
    assert report["videos"]["prepared"] == 6
    assert report["frames"]["kept"] >= 0.99 * report["frames"]["sampled"]
    assert report["frames"]["sampled"] == 6 * 32


@pytest.mark.long
def test_train_evaluate_and_predict(prepared):
    path = prepared / "tiny_run.py"
    path.write_text(CONFIG.format(paths=[str(ROOT), str(ROOT / "tests")], data=str(prepared / "tfds")))
    command = [sys.executable, "-m", "msddf_jax.main", f"--config={path}", f"--workdir={prepared / 'run'}"]
    env = {**os.environ, "XLA_FLAGS": many_processes.xla_flags(1)}
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr[-2000:]
    results = json.loads((prepared / "run" / "results.json").read_text())
    assert 0.0 <= results["faceswap/frame_auc"] <= 1.0 and results["faceswap/frame_num_fake"] == 32
    clips = pathlib.Path(os.environ["MSDDF_REAL_DATA"]) / "FaceForensics++"
    files = sorted([*clips.glob("original_sequences/**/634.mp4"), *clips.glob("manipulated_sequences/**/634_660.mp4")])
    records = predict.predict_files(load_for_inference(prepared / "run"), files, prepared / "out", max_overlays=2)
    assert [pathlib.Path(r["file"]).name for r in records] == ["634_660.mp4", "634.mp4"]
    for record in records:
        assert 0.0 <= record["score"] <= 1.0 and record["frames_used"] >= 0.99 * record["frames_sampled"]
        assert record["step"] == 20 and len(record["overlays"]) == 2
        assert (prepared / "out" / record["timeline"]).exists()
