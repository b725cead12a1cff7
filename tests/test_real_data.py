"""From real clips to a verdict: prepare, build, 20 training steps, evaluate, predict."""

import json
import pathlib

import pytest
from tiny import tiny_config

from msddf_jax import train
from msddf_jax.inference import load_for_inference

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    import os

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


def test_train_evaluate_and_predict(prepared):
    import os

    from msddf_jax import predict

    config = tiny_config(prepared / "tfds", steps=20).copy_and_resolve_references().unlock()
    config.data.image_size = 128
    config.data.train = {"name": "faceforensics/c23_partial", "split": "train", "methods": None}
    config.evals = {
        "val": {"name": "faceforensics/c23_partial", "split": "validation", "methods": None},
        "faceswap": {"name": "faceforensics/c23_partial", "split": "test", "methods": ("faceswap",)},
    }
    config.checkpoint_every = 20
    results = train.train_and_evaluate(config.lock(), prepared / "run")
    assert 0.0 <= results["faceswap/frame_auc"] <= 1.0 and results["faceswap/frame_num_fake"] == 32
    clips = pathlib.Path(os.environ["MSDDF_REAL_DATA"]) / "FaceForensics++"
    files = sorted([*clips.glob("original_sequences/**/634.mp4"), *clips.glob("manipulated_sequences/**/634_660.mp4")])
    records = predict.predict_files(load_for_inference(prepared / "run"), files, prepared / "out", max_overlays=2)
    assert [pathlib.Path(r["file"]).name for r in records] == ["634_660.mp4", "634.mp4"]
    for record in records:
        assert 0.0 <= record["score"] <= 1.0 and record["frames_used"] >= 0.99 * record["frames_sampled"]
        assert record["step"] == 20 and len(record["overlays"]) == 2
        assert (prepared / "out" / record["timeline"]).exists()
