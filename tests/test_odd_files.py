"""The odd files of benchmarks/odd_files.py through `predict` and the page, with face models that need no files."""

import numpy as np
import pytest
from app_server import fake_face_models
from ml_collections import ConfigDict

from benchmarks import odd_files
from msddf_jax import inference, predict
from msddf_jax.faces import detect, find, landmarks
from msddf_jax.show import uploads
from msddf_jax.show import verdict as shown

SIZE = 32


def _model():
    def score(params, batch):
        """Follows every pixel: the mean after a wave that differs from pixel to pixel."""
        images = batch["image"].astype(np.float64) / 255
        weights = np.sin(np.arange(images[0].size).reshape(images[0].shape))
        return {"score": 1 / (1 + np.exp(-(images * weights).mean((1, 2, 3)) * 40))}

    config = ConfigDict(
        {"detector": "msddf", "model": {"variant": "Ti/16"}, "data": {"image_size": SIZE, "preset": "dfb"}}
    )
    return inference.Inference(config, score, 1.0, 1, "best")


@pytest.fixture(scope="module")
def odds(tmp_path_factory):
    """The files of one source: noise of large cells that moves, on which a turn or a stretch is seen at once."""
    folder, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    cells = rng.integers(0, 256, (odd_files.FRAMES, 8, 12, 3)).astype(np.uint8)
    frames = np.repeat(np.repeat(cells, 16, 1), 16, 2)
    return odd_files.make_videos(frames, folder) + odd_files.make_images(frames[0], folder)


def test_no_odd_file_is_scored_silently_otherwise(odds, tmp_path, monkeypatch, capsys):
    detector, landmarker = fake_face_models()
    monkeypatch.setattr(detect, "make_detector", lambda: detector)
    monkeypatch.setattr(landmarks, "make_landmarker", lambda: landmarker)
    paths = sorted({path for odd in odds for path in (odd.path, odd.twin)})
    made = predict.predict_files(_model(), paths, tmp_path, num_frames=odd_files.FRAMES, max_overlays=0)
    records = dict(zip(paths, made, strict=True))
    verdicts = {odd.path.name: odd_files.judge(odd, records) for odd in odds}
    assert not {name: v for name, v in verdicts.items() if v[0] in ("silent", "twin not scored")}
    assert {name for name, v in verdicts.items() if v[0] == "refused"} == {
        "grey12.png", "colour12.png", "float255.tif", "int32.tif"
    }  # fmt: skip
    assert verdicts["cut_off.mp4"][0] in ("said", "refused", "same") and "warning" in next(
        record for record in made if record["file"].endswith("cut_off.mp4")
    )
    # What has a word to say has it: the score is not moved by what is lost.
    assert len(verdicts) >= 55 and sum(v[0] == "same" for v in verdicts.values()) >= 45
    # The page gives the same score, of what it takes at all.
    model, compared = _model(), 0
    for path, record in records.items():
        try:
            found = uploads.read_upload(
                path, uploads.Limits(), detector, landmarker, size=SIZE, preset="dfb", num_frames=odd_files.FRAMES
            )
        except uploads.UploadError as error:
            assert "error" in record or error.code in ("unsupported_type", "unreadable_video"), (path, error)
            continue
        assert shown.judge(model, found, None)["score"] == record["score"], path
        compared += 1
    assert compared >= 40


def test_a_score_that_differs_without_a_word_is_a_fault(tmp_path):
    odd = odd_files.Odd(tmp_path / "a", tmp_path / "b", "kind", 0.005)
    judged = lambda a, b, odd=odd: odd_files.judge(odd, {odd.path: a, odd.twin: b})[0]
    assert judged({"score": 0.5}, {"score": 0.504}) == "same"
    assert judged({"score": 0.5}, {"score": 0.51}) == "silent"
    assert judged({"score": 0.5, "warning": "cut short"}, {"score": 0.51}) == "said"
    assert judged({"error": {}}, {"score": 0.51}) == "refused"
    assert judged({"score": 0.5}, {"error": {}}) == "twin not scored"
    assert judged({"score": 0.1}, {"score": 0.9}, odd._replace(tolerance=None)) == "lossy"


def test_every_extension_is_an_image_or_a_video():
    assert not set(find.VIDEO_SUFFIXES) & set(find.IMAGE_SUFFIXES)
    assert {".3gp", ".mts", ".ts", ".mpg"} <= set(find.VIDEO_SUFFIXES)
    assert {".gif", ".avif", ".jfif", ".heic"} <= set(find.IMAGE_SUFFIXES)
