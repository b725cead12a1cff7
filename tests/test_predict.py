"""From files to lines and pictures, with a model that scores brightness and landmarks from sidecar files."""

import errno
import json
import os

import numpy as np
import PIL.Image
import pytest
from absl import flags
from app_server import make_workdir
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from test_verdict import make_calibration

from msddf_jax import inference, predict
from msddf_jax.data import schema
from msddf_jax.faces import align, extract, fetch, video
from msddf_jax.faces.landmarks import to_dlib_order
from msddf_jax.show import records
from msddf_jax.show import verdict as shown
from msddf_jax.statistics import metrics, novelty, verdict

SIZE = 32
batches = []


def brightness(params, batch):
    """score = mean brightness; map = brightness of the four quarters."""
    image = batch["image"]
    assert image.dtype == np.uint8 and image.shape[1:] == (SIZE, SIZE, 3)
    batches.append(len(image))
    grey = image.astype(np.float32).mean(-1) / 255
    quarters = grey.reshape(len(image), 2, SIZE // 2, 2, SIZE // 2).mean((2, 4))
    return {"score": grey.mean((1, 2)) * params, "map": quarters}


def make_model(predict_fn=brightness, params=1.0):
    config = ConfigDict(
        {"detector": "msddf", "model": {"variant": "Ti/16"}, "data": {"image_size": SIZE, "preset": "dfb"}}
    )
    return inference.Inference(config, predict_fn, params, 400, "best")


def landmarks(shift=0.0):
    """81 points of a face in the middle of a 64 px frame, in the order of files."""
    points = np.random.default_rng(0).uniform(16, 48, (81, 2))
    five = [37, 44, 30, 49, 55]
    points[five] = align.template_points("dfb", 48) + 8
    return to_dlib_order(points.astype(np.float32) + np.float32(shift))


def write_clip(path, levels, missing=(), suffix=".mp4"):
    """A video of grey frames of the given brightness; a sidecar with a face but in the `missing` frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.with_suffix(suffix)
    video.write_video(path, [np.full((64, 64, 3), level, np.uint8) for level in levels], fps=10, crf=10)
    points = np.stack([landmarks(0.1 * i) for i in range(len(levels))])
    points[list(missing)] = np.nan
    np.save(path.with_name(f"{path.stem}.landmarks.npy"), points)
    return path


def write_image(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(path)
    np.save(path.with_name(f"{path.stem}.landmarks.npy"), landmarks()[None])
    return path


def run(paths, out, **kwargs):
    return predict.predict_files(make_model(), paths, out, landmarks="sidecar", **kwargs)


def read_lines(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_a_video_gives_one_line_and_its_pictures(tmp_path, capsys):
    clip = write_clip(tmp_path / "in" / "clip", [40] * 3 + [230] * 6, missing=[8])
    [record] = run([clip], tmp_path / "out", num_frames=5, max_overlays=3, as_json=True)
    assert read_lines(tmp_path / "out") == [record]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [record]
    assert record["file"] == str(clip) and record["kind"] == "video"
    assert record["frame_indices"] == [0, 2, 4, 6]
    # The crop reaches outside the frame: black corners lower brightness by the same share in every frame.
    dark, bright = record["frame_scores"][0], record["frame_scores"][2]
    assert bright / dark == pytest.approx(230 / 40, rel=0.05)
    assert record["score"] == pytest.approx(np.mean(record["frame_scores"]), abs=1e-6)
    assert record["label"] == ("fake" if record["score"] > 0.5 else "real") and record["threshold"] == 0.5
    assert record["probability"] == record["score"] and record["calibration"] is None
    assert "forgery" not in record
    assert (record["frames_sampled"], record["frames_used"], record["faces_found"]) == (5, 4, 4)
    assert [(d["frame_index"], d["code"]) for d in record["drops"]] == [(8, "no_face")]
    assert (record["config"], record["step"], record["weights"]) == ("msddf Ti/16", 400, "best")
    assert record["timeline"] == "pictures/clip.mp4/timeline.png"
    assert record["overlays"] == [f"pictures/clip.mp4/overlay_{i:06d}_0.png" for i in (0, 2, 6)]
    pictures = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    assert pictures == sorted([record["timeline"], *record["overlays"]])
    for name in pictures:
        with PIL.Image.open(tmp_path / "out" / name) as image:
            image.load()
            assert image.size == ((900, 400) if "timeline" in name else (740, 390))


def test_an_image_and_a_map_less_model(tmp_path):
    image = write_image(tmp_path / "face.png", 250)
    scores_only = make_model(lambda params, batch: {"score": brightness(params, batch)["score"]})
    [record] = predict.predict_files(scores_only, [image], tmp_path / "out", landmarks="sidecar")
    assert record["kind"] == "image" and record["frame_indices"] == [0]
    assert record["score"] == record["frame_scores"][0] == record["faces"][0]["score"]
    assert "timeline" not in record and record["overlays"] == []
    assert len(record["faces"][0]["box"]) == 4


def test_a_calibrated_verdict_by_another_aggregate(tmp_path):
    clip = write_clip(tmp_path / "clip", [40] * 3 + [230] * 3)
    fitted = make_calibration(2.0, 0.95, aggregate="max")
    [record] = run([clip], tmp_path / "out", num_frames=6, calibration=fitted, aggregate="max")
    assert record["score"] == max(record["frame_scores"]) > 0.5 and record["aggregate"] == "max"
    assert record["label"] == "real" and record["probability"] < 0.5
    assert record["calibration"] == {"fitted_on": "val", "threshold": 0.95}
    with pytest.raises(ValueError, match="by 'max', these are by 'mean'"):
        run([clip], tmp_path / "out", calibration=fitted)
    with pytest.raises(ValueError, match="aggregate is 'min'"):
        run([clip], tmp_path / "out", aggregate="min")


def told(params, batch):
    """`brightness`, with a type, regions and a strength."""
    score = brightness(params, batch)["score"]
    kind = np.full((len(score), 6), 0.1)
    kind[:, schema.FORGERY_TYPES.index("self_blend")] = 0.5
    return {"score": score, "type": kind, "regions": np.outer(score, np.linspace(0.2, 1, 5)), "strength": score / 2}


def test_type_regions_and_strength_are_told(tmp_path):
    clip = write_clip(tmp_path / "clip", [40] * 3 + [230] * 3)
    [record] = predict.predict_files(make_model(told), [clip], tmp_path / "out", landmarks="sidecar", num_frames=6)
    found = record["forgery"]
    assert found["type"] == "self_blend" and found["type_probability"] == pytest.approx(0.5)
    assert list(found["regions"]) == list(schema.FACE_PARTS)
    assert found["regions"]["whole_face"] == pytest.approx(record["score"], rel=1e-5)
    assert found["strength"] == pytest.approx(record["score"] / 2, rel=1e-5)


def as_extraction(scores):
    """A video of one face a frame, whose brightness is the score."""
    crops = [np.full((4, 4, 3), round(255 * score), np.uint8) for score in scores]
    info = video.VideoInfo(len(crops), 4, 4, 25.0)
    faces = [extract.FaceFrame(i, crop, None, np.zeros(4), np.eye(3), None, 1) for i, crop in enumerate(crops)]
    return extract.Extraction(faces, [], info, len(crops))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=6),
    st.one_of(st.none(), st.tuples(st.floats(0.05, 20), st.floats(0, 1))),
    st.sampled_from(["mean", "median", "max", "top2"]),
)
def test_every_command_gives_the_same_verdict(scores, fitted, aggregate):
    found = as_extraction(scores)
    score = lambda params, batch: {"score": batch["image"].mean((1, 2, 3)) / 255}
    model = inference.Inference(ConfigDict({"data": {}}), score, None, 1, "best")
    calibration = None if fitted is None else make_calibration(*fitted, aggregate=aggregate)
    outputs = inference.score_crops(model, [face.image for face in found.frames])
    line = records.summarize(found, outputs, calibration, aggregate)
    page = shown.judge(model, found, calibration, aggregate)["judged"]
    assert (line["score"], line["probability"], line["label"]) == page[:3]
    assert (line["label"] == "fake") == (line["probability"] > 0.5)
    frames = np.float32([output["score"] for output in outputs])
    keys, labels = ["fake"] * len(frames) + ["real"], [1] * len(frames) + [0]
    values = metrics.detection_metrics([*frames, 0.0], labels, keys, aggregate=aggregate, calibration=calibration)
    # The one real, of score 0, is above no threshold: all depends on the fake.
    right = values["video_accuracy" if calibration is None else "video_accuracy_val"]
    assert (line["label"] == "fake") == (right == 1.0)


def test_same_names_do_not_collide(tmp_path):
    clips = [write_clip(tmp_path / folder / "000", [level] * 4) for folder, level in (("a", 50), ("b", 200))]
    clips.append(write_clip(tmp_path / "a" / "000", [120] * 4, suffix=".mkv"))
    records = run([tmp_path / "a", tmp_path / "b"], tmp_path / "out", num_frames=2)
    assert [r["file"] for r in records] == [str(clips[2]), str(clips[0]), str(clips[1])]
    shown = [path for r in records for path in (r["timeline"], *r["overlays"])]
    assert len(set(shown)) == len(shown) == len(list((tmp_path / "out").rglob("*.png"))) == 9
    assert records[0]["timeline"] == "pictures/a/000.mkv/timeline.png"
    assert records[0]["score"] != records[1]["score"] != records[2]["score"]


def test_scores_go_to_their_files_across_batches(tmp_path):
    levels = [30, 60, 90, 120, 150, 180, 210]
    images = [write_image(tmp_path / f"{i}.png", level) for i, level in enumerate(levels)]
    clip = write_clip(tmp_path / "z", [240] * 5)
    batches.clear()
    paths = [*images[:4], tmp_path / "nothing.png", *images[4:], clip]
    records = run(paths, tmp_path / "out", batch_size=4, max_overlays=0)
    assert [r.get("error", {}).get("code") for r in records] == [None] * 4 + ["not_found"] + [None] * 4
    scores = [r["score"] for r in records if "score" in r]
    np.testing.assert_allclose(np.array(scores) / scores[0], np.array([*levels, 240]) / 30, rtol=0.03)
    assert set(batches) == {4}  # one shape, so one compilation
    batches.clear()
    run(images[:3], tmp_path / "out2", batch_size=32, max_overlays=0)
    assert batches == [4]  # three faces do not pay for thirty-two


def bad_inputs(folder):
    """{what: (path, code)} of inputs that cannot be scored."""
    folder.mkdir()
    whole = write_clip(folder / "whole", [100] * 30).read_bytes()
    paths = {
        "text.png": (b"this is no picture", "corrupt_image"),
        "text.mp4": (b"this is no video", "unreadable_video"),
        "empty.mp4": (b"", "unreadable_video"),
        "header.mp4": (whole[:200], "unreadable_video"),
        "notes.txt": (b"hello", "unknown_extension"),
    }
    for name, (data, _) in paths.items():
        (folder / name).write_bytes(data)
    (folder / "whole.mp4").unlink()
    PIL.Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "dot.png")
    (folder / "nothing").mkdir()
    bare = write_clip(folder / "bare", [100] * 4)
    (folder / "bare.landmarks.npy").unlink()
    faceless = write_clip(folder / "faceless", [100] * 4, missing=range(4))
    result = {name: (folder / name, code) for name, (_, code) in paths.items()}
    result |= {
        "dot": (folder / "dot.png", "image_too_small"),
        "folder": (folder / "nothing", "empty_folder"),
        "missing": (folder / "missing.mp4", "not_found"),
        "bare": (bare, "landmarks_missing"),
        "faceless": (faceless, "no_face"),
    }
    return result


def test_bad_inputs_give_a_line_each_and_do_not_stop_the_rest(tmp_path):
    bad = bad_inputs(tmp_path / "bad")
    good = write_clip(tmp_path / "good", [200] * 4)
    paths = [path for path, _ in bad.values()]
    records = run([*paths[:3], good, *paths[3:]], tmp_path / "out", num_frames=2)
    by_file = {record["file"]: record for record in records}
    assert "score" in by_file[str(good)]
    for path, code in bad.values():
        record = by_file[str(path)]
        assert record["error"]["code"] == code, record
        message = record["error"]["message"]
        assert message and "\n" not in message and "score" not in record
        assert record["step"] == 400
    assert by_file[str(bad["faceless"][0])]["error"]["message"].endswith("(2 of 2 frames)")
    assert len(read_lines(tmp_path / "out")) == len(bad) + 1


def test_a_video_cut_short_is_scored_on_what_decodes_and_says_so(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)
    clip = tmp_path / "cut.mp4"
    video.write_video(clip, noise, fps=10, crf=18)
    np.save(tmp_path / "cut.landmarks.npy", np.stack([landmarks()] * 40))
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    [record] = run([clip], tmp_path / "out", num_frames=8)
    assert 0 < record["frames_used"] <= record["frames_sampled"] == 8
    assert "truncated" in {d["code"] for d in record["drops"]}
    assert record["warning"].startswith("cut short: the header promises 40 frames, ")


def test_a_score_that_is_not_finite_is_that_files_error(tmp_path):
    images = [write_image(tmp_path / f"{level}.png", level) for level in (10, 250)]

    def broken(params, batch):
        out = brightness(params, batch)
        return {"score": np.where(out["score"] > 0.3, np.nan, out["score"]), "map": out["map"]}

    records = predict.predict_files(make_model(broken), images, tmp_path / "out", landmarks="sidecar")
    assert "score" in records[0]
    assert records[1]["error"]["code"] == "score_not_finite"


def test_folders_are_searched_but_not_the_results(tmp_path):
    clip = write_clip(tmp_path / "in" / "deep" / "clip", [100] * 3)
    write_clip(tmp_path / "in" / ".hidden" / "clip", [100] * 3)
    for _ in range(2):  # the second time the first one's pictures are there
        records = run([tmp_path / "in", clip], tmp_path / "in", num_frames=2, max_overlays=1)
        assert [r["file"] for r in records] == [str(clip)]


def test_old_pictures_of_a_file_go_with_its_old_line(tmp_path):
    clip = write_clip(tmp_path / "clip", [100] * 9)
    run([clip], tmp_path / "out", num_frames=4)
    [record] = run([clip], tmp_path / "out", num_frames=2, max_overlays=1)
    kept = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")}
    assert kept == {record["timeline"], *record["overlays"]} and len(kept) == 2


def test_a_full_disk_is_one_error_and_keeps_whole_lines(tmp_path, monkeypatch, capsys):
    images = [write_image(tmp_path / f"{i}.png", 100) for i in range(3)]
    written = []

    def replace(source, target):
        written.append(target)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.rename(source, target)

    monkeypatch.setattr(predict.os, "replace", replace)
    with pytest.raises(predict.OutputError, match=r"cannot write .*overlay_000000_0\.png: No space left"):
        run(images, tmp_path / "out", as_json=True)
    assert [r["file"] for r in read_lines(tmp_path / "out")] == [str(images[0])]
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["file"] for r in printed] == [str(path) for path in images[:2]]  # the second score is not lost
    assert not list((tmp_path / "out").rglob("*.tmp"))


class FullFile:
    """A raw file that takes only a part of the second line, as one on a full disk does."""

    def __init__(self, file):
        self.file, self.name, self.calls = file, file.name, 0

    def write(self, data):
        self.calls += 1
        return self.file.write(data if self.calls == 1 else data[:5])

    def __getattr__(self, name):
        return getattr(self.file, name)


def test_a_line_that_does_not_fit_is_taken_back(tmp_path):
    path = tmp_path / "predictions.jsonl"
    with open(path, "wb", buffering=0) as file:
        lines = FullFile(file)
        predict._write_line(lines, {"file": "a"})
        with pytest.raises(predict.OutputError, match="No space left"):
            predict._write_line(lines, {"file": "b"})
    assert path.read_text() == '{"file": "a"}\n'


def call_main(monkeypatch, paths, workdir, out, *arguments):
    values = flags.FlagValues()
    predict.define_flags(values)
    rest = values(["predict", f"--workdir={workdir}", f"--out={out}", *arguments, *map(str, paths)])
    monkeypatch.setattr(predict.flags, "FLAGS", values)
    return predict.main(rest)


def test_exit_codes_and_messages(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inference, "load_for_inference", lambda workdir, cache: make_model())
    good, bad = write_image(tmp_path / "good.png", 200), tmp_path / "missing.png"
    sidecar = "--landmarks=sidecar"
    assert call_main(monkeypatch, [bad, good], "w", tmp_path / "out", sidecar) == 0
    out = tmp_path / "out"
    assert capsys.readouterr().out.splitlines() == [
        "missing.png  not scored: no such file or folder [not_found]",
        "good.png     FAKE score 0.78; 1 face",
        "2 files: 1 fake, 1 not scored",
        f"JSON: {out / 'predictions.jsonl'}",
        f"images: {out / 'pictures'}",
    ]
    assert read_lines(tmp_path / "out")[1]["calibration"] is None
    assert call_main(monkeypatch, [bad], "w", tmp_path / "out", sidecar) == 1
    assert read_lines(tmp_path / "out")[0]["error"]["code"] == "not_found"
    assert call_main(monkeypatch, [], "w", tmp_path / "out", sidecar) == 1
    (tmp_path / "file").write_text("")
    assert call_main(monkeypatch, [good], "w", tmp_path / "file" / "out", sidecar) == 1


def test_the_command_reads_the_calibration_of_the_workdir(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(verdict.logging, "warning", lambda text, *args: lines.append(text % args))
    monkeypatch.setattr(inference, "load_for_inference", lambda workdir, cache: make_model())
    good, path = write_image(tmp_path / "good.png", 200), tmp_path / "calibration.json"
    settings = (monkeypatch, [good], tmp_path, tmp_path / "out", "--landmarks=sidecar")
    for step, aggregate, why in ((400, "mean", None), (5, "mean", "of step 5"), (400, "max", "of aggregate 'max'")):
        lines.clear()
        path.write_text(json.dumps(make_calibration(2.0, 0.9, step=step, aggregate=aggregate)))
        assert call_main(*settings) == 0
        [record] = read_lines(tmp_path / "out")
        assert record["calibration"] == ({"fitted_on": "val", "threshold": 0.9} if why is None else None)
        assert record["label"] == ("real" if record["score"] <= record["threshold"] else "fake")
        said = [line for line in lines if "out of range" not in line]
        assert (not said) if why is None else (len(said) == 1 and why in said[0] and "\n" not in said[0])
    assert call_main(*settings, "--aggregate=max") == 0 and read_lines(tmp_path / "out")[0]["calibration"] is not None
    assert call_main(*settings, "--aggregate=min") == 1
    path.write_text(json.dumps({"temperature": 2.0, "threshold": 0.9}))
    assert call_main(*settings) == 1


def test_a_manifest_is_replayed_and_one_changed_byte_is_named(tmp_path, monkeypatch, capsys):
    workdir = make_workdir(tmp_path / "run")
    clip = write_clip(tmp_path / "in" / "clip", [40, 200] * 4)
    image, kept = write_image(tmp_path / "in" / "face.png", 120), tmp_path / "kept.json"
    settings = ("--landmarks=sidecar", "--compilation_cache=", "--num_frames=4")
    assert call_main(monkeypatch, [tmp_path / "in"], workdir, tmp_path / "a", *settings, f"--manifest={kept}") == 0
    replay = lambda: call_main(monkeypatch, [], workdir, tmp_path / "b", f"--replay={kept}", "--compilation_cache=")
    assert replay() == 0
    assert "the same: 2 files, every digest and every digit" in capsys.readouterr().out
    points = image.with_name("face.landmarks.npy")
    data = points.read_bytes()
    points.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
    assert replay() == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("differs: ")]
    assert any("face.landmarks.npy" in line for line in said) and not any("clip" in line for line in said), said
    # Files beside a replay, or neither, are no command.
    assert call_main(monkeypatch, [clip], workdir, tmp_path / "b", f"--replay={kept}") == 1
    assert call_main(monkeypatch, [], workdir, tmp_path / "b") == 1


def with_features(params, batch):
    """`brightness`, and as feature the brightness twice over, with a little that differs."""
    out, grey = brightness(params, batch), batch["image"].astype(np.float32).mean((1, 2, 3))
    return out | {"feature": np.stack([grey, grey**2 / 255 + batch["image"][:, 16, 16, 0] % 7], 1)}


def test_a_file_out_of_range_gets_no_verdict(tmp_path, capsys):
    """Fitted on dark faces; a bright one is unlike them, however sure the score is."""
    rng = np.random.default_rng(0)
    dark = rng.normal(60, 4, 120)
    features = np.stack([dark, dark**2 / 255 + rng.integers(0, 7, 120)], 1)
    fitted = novelty.fit(features, np.arange(120), np.arange(120) % 2)
    files = [write_image(tmp_path / f"{level}.png", level) for level in (72, 250)]
    usual, strange = predict.predict_files(
        make_model(with_features), files, tmp_path / "out", landmarks="sidecar", fitted=fitted
    )
    assert not usual["range"]["out_of_range"] and "warning" not in usual
    assert strange["range"]["out_of_range"] and strange["range"]["distance"] > strange["range"]["threshold"]
    assert strange["warning"] == "unlike the files that this detector was measured on"
    said = " ".join(capsys.readouterr().out.split())
    assert "250.png WARNING unlike the files" in said and "no verdict (score 0." in said and "FAKE" not in said
    assert "2 files: 1 real, 1 no verdict" in said
    model = inference.Inference(ConfigDict({"data": {}}), with_features, 1.0, 400, "best")
    crop = np.full((SIZE, SIZE, 3), 250, np.uint8)
    faces = [extract.FaceFrame(0, crop, None, np.zeros(4), np.eye(3), None, 1)]
    page = shown.render_verdict(shown.judge(model, extract.Extraction(faces, [], None, 1), None, "mean", fitted))
    assert "No verdict" in page and "<b>fake</b>" not in page and "unlike the files" in page


def test_no_model_is_one_line_and_exit_code_1(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(predict.logging, "error", lambda text, *args: lines.append(text % args))
    good = write_image(tmp_path / "good.png", 200)
    # A folder that is no workdir.
    assert call_main(monkeypatch, [good], tmp_path, tmp_path / "out") == 1
    assert "no config.json" in lines[-1] and str(tmp_path) in lines[-1]
    # A model, but not the face models.
    monkeypatch.setattr(inference, "load_for_inference", lambda workdir, cache: make_model())
    monkeypatch.setenv("MSDDF_MODELS", str(tmp_path))
    assert call_main(monkeypatch, [good], tmp_path, tmp_path / "out") == 1
    assert lines[-1].startswith(fetch.ModelFileError.__name__)
    assert len(lines) == 2 and not any("\n" in line for line in lines)


@pytest.mark.parametrize("argument", ["--landmarks=dlib", "--num_frames=0", "--max_overlays=-1"])
def test_flags_are_checked(argument):
    values = flags.FlagValues()
    predict.define_flags(values)
    with pytest.raises(flags.IllegalFlagValueError):
        values(["predict", "--workdir=w", "--out=o", argument])
