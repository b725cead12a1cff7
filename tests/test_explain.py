"""From files to maps: one line and its pictures a file, peaks where the maps are hot, errors as lines."""

import json

import jax
import numpy as np
import PIL.Image
import pytest
import test_predict
import tiny
from test_verdict import make_calibration

from msddf_jax import explain, inference, saliency
from msddf_jax.train_step import ema_weights, init_state


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny MSDDF without adapters, as it was drawn."""
    config = tiny.tiny_config(tmp_path_factory.mktemp("none"), bare=True)
    weights = ema_weights(jax.jit(lambda: init_state(config))())
    return inference.Inference(config, inference.make_score_fn(config), weights, 1, "best")


@pytest.mark.long
def test_a_video_an_image_and_what_cannot_be_read(model, tmp_path, capsys):
    clip = test_predict.write_clip(tmp_path / "in" / "clip", [60, 120, 180], missing=[1])
    image = test_predict.write_image(tmp_path / "in" / "face.png", 200)
    paths, out = [clip, image, tmp_path / "nothing.png"], tmp_path / "out"
    records = explain.explain_files(
        model, paths, out, landmarks="sidecar", num_frames=3, batch_size=2, calibration=make_calibration(3.0, 0.99)
    )
    lines = (out / "explanations.jsonl").read_text().splitlines()
    assert (
        [json.loads(line) for line in lines]
        == records
        == [json.loads(s) for s in capsys.readouterr().out.split("\n")[:-1]]
    )
    video, still, missing = records
    assert missing["error"]["code"] == "not_found" and "faces" not in missing
    assert [face["frame_index"] for face in video["faces"]] == [0, 2] and video["drops"][0]["frame_index"] == 1
    assert [face["picture"] for face in video["faces"]] == [f"pictures/clip.mp4/maps_{i:06d}_0.png" for i in (0, 2)]
    assert video["calibration"] == {"fitted_on": "val", "threshold": 0.99}
    for face in video["faces"] + still["faces"]:
        assert face["label"] == "real" and face["probability"] < 0.5
        assert set(face["peak"]) == {"gradcam", "rollout", "map"} and 0 < face["score"] < 1
        with PIL.Image.open(out / face["picture"]) as picture:
            assert picture.size[0] == 810


def test_crops_get_their_own_maps_in_batches(model):
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    maps = explain.explain_crops(saliency.make_explain_fn(model.config), model.params, crops, batch_size=2)
    assert list(maps) == ["score", "gradcam", "rollout", "map"]
    scored = model.predict_fn(model.params, {"image": crops})
    np.testing.assert_allclose(maps["score"], scored["score"], rtol=1e-5)
    np.testing.assert_allclose(maps["map"], scored["map"], atol=1e-5)
    assert all(maps[name].min() >= 0 and maps[name].max() <= 1 for name in maps)


def test_the_peak_is_the_middle_of_the_largest_cell():
    heat = np.zeros((4, 5))
    heat[0, 3] = 0.5
    assert explain.peak_of(heat) == [0.7, 0.125]
    assert explain.peak_of(np.full((2, 2), 0.3)) is None


def test_a_method_that_the_detector_has_not(model, tmp_path):
    with pytest.raises(ValueError, match="allowed: gradcam, rollout, map"):
        explain.explain_files(model, [tmp_path], tmp_path / "out", methods=["boundary"])
    assert not (tmp_path / "out").exists()
