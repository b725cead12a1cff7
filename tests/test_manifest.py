"""A run's manifest: every changed byte is named, and the right file; the same run again is the same to the last bit."""

import copy
import hashlib
import json
import shutil

import app_server
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from test_predict import write_clip, write_image
from test_verdict import make_calibration

from msddf_jax import checkpoint, inference, manifest, predict
from msddf_jax.faces import fetch
from msddf_jax.statistics import verdict

SETTINGS = {"landmarks": "mediapipe", "faces": "all", "aggregate": "mean", "num_frames": 32, "batch_size": 32}
SCORE = 0.12345678901234566


def make_model(origin="best", step=7):
    return inference.Inference(ConfigDict({"detector": "msddf", "data": {"image_size": 32}}), None, None, step, origin)


def make_record(file, **changes):
    scored = {
        "kind": "video",
        "score": SCORE,
        "frame_scores": [0.1, 0.0],
        "faces": [{"box": [1.0, 2.0, 3.0, 4.5], "score": 0.1}],
        "drops": [],
        "timeline": "pictures/timeline.png",
        "overlays": ["pictures/overlay_000000_0.png"],
    }
    return {"file": str(file), **scored, **changes}


def fill(path, seed, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes())
    return path


def make_run(folder, monkeypatch, landmarks="mediapipe"):
    """A finished run with files of noise below `folder`; returns (path of its manifest, {file: its role})."""
    roles = {fill(folder / "in" / name, i, 300 + i): "input" for i, name in enumerate(("a.mp4", "b.png", "c.mp4"))}
    sidecars = [fill(path.with_name(f"{path.stem}.landmarks.npy"), 9, 200) for path in roles]
    names = ("config.json", "best/weights.safetensors", "calibration.json", "novelty.npz")
    workdir = {fill(folder / "run" / name, 3 + i, 500 + i): "workdir" for i, name in enumerate(names)}
    fill(folder / "run" / "metrics.jsonl", 8, 100)  # nothing of scoring reads it
    models = {}
    for name in fetch.MODELS:
        path = fill(folder / "models" / f"{name}.bin", len(name), 400)
        models[name] = (path.name, hashlib.sha256(path.read_bytes()).hexdigest(), "https://example.org", "MIT")
        if landmarks == "mediapipe":
            workdir[path] = "face model"
    monkeypatch.setattr(fetch, "MODELS", models)
    monkeypatch.setenv("MSDDF_MODELS", str(folder / "models"))
    files = list(roles)
    chosen = {**SETTINGS, "landmarks": landmarks}
    made = manifest.make(make_model(), folder / "run", files, [make_record(file) for file in files], chosen, ["--x"])
    manifest.write(folder / "out" / "run.json", made)
    return folder / "out" / "run.json", {
        **roles,
        **workdir,
        **({path: "landmarks" for path in sidecars} if landmarks == "sidecar" else {}),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{landmarks: (path of the manifest, {file: role})}: files of noise."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield {
            landmarks: make_run(tmp_path_factory.mktemp(landmarks), monkeypatch, landmarks)
            for landmarks in ("sidecar", "mediapipe")
        }


def check(path):
    return manifest.check(manifest.read(path), path.parent)


def test_what_a_manifest_holds(tmp_path, monkeypatch):
    path, roles = make_run(tmp_path, monkeypatch)
    found = json.loads(path.read_text())
    assert {file["path"] for file in found["files"]} == {str(p) for p in roles}
    for file in found["files"]:
        with open(file["path"], "rb") as opened:
            data = opened.read()
        assert (file["size"], file["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert [f["path"] for f in found["files"] if f["role"] == "input"] == [str(p) for p in roles][:3]
    assert found["settings"] == SETTINGS and found["argv"] == ["--x"] and found["config"]["data"] == {"image_size": 32}
    assert (found["step"], found["origin"], found["workdir"]) == (7, "best", str(tmp_path / "run"))
    assert found["records"][0]["score"] == SCORE and not {"timeline", "overlays"} & set(found["records"][0])
    assert {"python", "jax", "jaxlib", "numpy", "av", "opencv", "mediapipe", "commit"} <= set(found["versions"])
    assert found["platform"]["backend"] == jax.default_backend() and found["time"].endswith("+00:00")
    # Its digest is of the same bytes as a program that knows nothing of this one makes them.
    rest = {k: v for k, v in found.items() if k != "digest"}
    text = json.dumps(rest, indent=2, sort_keys=True) + "\n"
    assert found["digest"] == hashlib.sha256(text.encode()).hexdigest()
    assert manifest.read(path) == found and check(path) == []
    assert manifest.replay_inputs(found, path.parent) == (tmp_path / "run", list(roles)[:3])


@pytest.mark.parametrize("landmarks", ["sidecar", "mediapipe"])
@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data())
def test_one_changed_byte_of_any_file_is_named(runs, landmarks, data):
    path, roles = runs[landmarks]
    file = data.draw(st.sampled_from(sorted(roles)))
    whole = file.read_bytes()
    place, flip = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    try:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("MSDDF_MODELS", str(path.parents[1] / "models"))
            assert check(path) == []
            file.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            [problem] = check(path)
    finally:
        file.write_bytes(whole)
    others = [other for other in roles if other != file]
    assert str(file) in problem and roles[file] in problem and not any(str(other) in problem for other in others)
    assert hashlib.sha256(whole).hexdigest() in problem


def test_any_changed_byte_of_a_manifest_is_refused(runs, tmp_path):
    whole, rng, copied = runs["sidecar"][0].read_bytes(), np.random.default_rng(0), tmp_path / "copy.json"
    places = [0, len(whole) - 1, *rng.permutation(len(whole))[:500].tolist()]
    for place, flip in zip(places, rng.integers(1, 256, len(places)).tolist()):
        copied.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"copy\.json"):
            manifest.read(copied)
    copied.write_bytes(whole)
    assert manifest.read(copied)["digest"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('": "msddf"', '":  "msddf"'), r"line \d+ is not in its one form"),
        (lambda text: text[:-1], "line the last is not in its one form"),
        (lambda text: text + "\n", "is not in its one form"),
        (lambda text: text.replace("\n", "\r\n"), "line 1 is not in its one form"),
        (lambda text: json.dumps(json.loads(text), sort_keys=True), "is not in its one form"),
        (lambda text: text.replace("0.1,", "0.10,"), "is not in its one form"),
        (lambda text: text.replace("0.1,", "NaN,"), "no JSON, or damaged"),
        (lambda text: text.replace(repr(SCORE), "0.12345678901234568"), "its content's"),
        (lambda text: text[: len(text) // 2], "no JSON, or damaged"),
        (lambda text: "[" * 100_000, "no JSON, or damaged"),
        (lambda text: '{"format": "other"}\n', "it is another file"),
        (lambda text: "[]\n", "it is another file"),
        (
            lambda text: text.replace('format_version": 1', 'format_version": 2'),
            "format_version 2, this version reads 1",
        ),
    ],
)
def test_a_changed_manifest_is_refused(runs, tmp_path, change, message):
    text = runs["sidecar"][0].read_text()
    path = tmp_path / "changed.json"
    path.write_bytes(change(text).encode())
    assert path.read_text() != text or b"\r" in path.read_bytes()
    with pytest.raises(ValueError, match=rf"changed\.json .*{message}.*--replay takes"):
        manifest.read(path)


def test_a_manifest_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(ValueError, match=rf"cannot read {path}: .*--manifest"):
            manifest.read(path)


def test_a_manifest_changed_in_memory_is_named(runs):
    path, _ = runs["sidecar"]
    made = manifest.read(path)
    made["records"][0]["score"] = 0.5
    [problem] = manifest.check(made, path.parent)
    assert problem.startswith("the manifest was changed: its digest is ")


def test_missing_longer_and_new_files_are_named(tmp_path, monkeypatch):
    path, _ = make_run(tmp_path, monkeypatch, "sidecar")
    (tmp_path / "in" / "a.mp4").unlink()
    (tmp_path / "run" / "calibration.json").unlink()
    (tmp_path / "in" / "b.png").write_bytes(bytes(302))
    (tmp_path / "in" / "c.landmarks.npy").unlink()
    (tmp_path / "in" / "c.landmarks.npy").mkdir()
    problems = check(path)
    assert [line.split(" (")[0] for line in problems] == [
        str(tmp_path / name) for name in ("in/a.mp4", "in/b.png", "in/c.landmarks.npy", "run/calibration.json")
    ]
    assert "(input): missing, was 300 bytes with SHA-256 " in problems[0] and "put it back" in problems[0]
    assert problems[1].endswith("(input): was 301 bytes, is 302")
    assert "(landmarks): not a file, was 200 bytes" in problems[2] and "(workdir): missing" in problems[3]


def test_what_was_not_there_must_not_be_there(tmp_path):
    missing, empty = tmp_path / "in" / "missing.mp4", tmp_path / "in"
    fill(tmp_path / "run" / "config.json", 0, 10)
    fill(tmp_path / "run" / "checkpoints" / "4" / "state" / "d", 1, 10)
    records = [{"file": str(p), "error": {"code": c}} for p, c in ((missing, "not_found"), (empty, "empty_folder"))]
    empty.mkdir()
    made = manifest.make(make_model("last", 4), tmp_path / "run", [missing, empty], records, SETTINGS, [])
    manifest.write(tmp_path / "run.json", made)
    roles = [(file["role"], file.get("state")) for file in made["files"]]
    # No face model: nothing was opened. No best weights, no calibration, no range.
    assert roles == [("input", "missing"), ("input", "not a file"), *[("workdir", s) for s in (None, "missing", None)],
                     ("workdir", "missing"), ("workdir", "missing")]  # fmt: skip
    assert check(tmp_path / "run.json") == []
    for name in ("run/best/weights.safetensors", "run/calibration.json", "run/novelty.npz", "in/missing.mp4"):
        path = fill(tmp_path / name, 0, 10)
        [problem] = check(tmp_path / "run.json")
        assert problem.startswith(f"{path} (") and "was missing at the run, is a file of 10 bytes now" in problem
        path.unlink()
    empty.rmdir()
    assert check(tmp_path / "run.json") == [f"{empty} (input): was not a file, is missing"]


def test_a_folder_may_move_as_a_whole(tmp_path, monkeypatch):
    path, _ = make_run(tmp_path / "old", monkeypatch, "sidecar")
    manifest.write(tmp_path / "old" / "run.json", absolute(path))
    shutil.move(tmp_path / "old", tmp_path / "new")
    found = manifest.read(tmp_path / "new" / "run.json")
    assert [file["path"] for file in found["files"]][:2] == ["in/a.mp4", "in/b.png"] and found["workdir"] == "run"
    assert manifest.check(found, tmp_path / "new") == []
    assert manifest.replay_inputs(found, tmp_path / "new")[0] == tmp_path / "new" / "run"
    # Of the other one, what lies beside its folder is not found.
    problems = check(tmp_path / "new" / "out" / "run.json")
    assert len(problems) == len(found["files"]) and all("move that folder as a whole" in line for line in problems)


def test_paths_as_a_user_gives_them(tmp_path, monkeypatch):
    made = absolute(make_run(tmp_path, monkeypatch)[0])
    monkeypatch.chdir(tmp_path)
    files = ["in/a.mp4", "in/../in/b.png", "in/c.mp4"]
    again = manifest.make(make_model(), "run", files, [make_record(file) for file in files], SETTINGS, [])
    assert again["files"] == made["files"] and again["workdir"] == made["workdir"]
    manifest.write("run.json", again)
    assert manifest.check(manifest.read("run.json"), "") == []


def absolute(path):
    """The manifest of a file whose paths are all absolute, as `make` gives it."""
    return {k: v for k, v in manifest.read(path).items() if k != "digest"}


def test_a_face_model_of_another_version_is_named(tmp_path, monkeypatch):
    path, _ = make_run(tmp_path, monkeypatch)
    other = fill(tmp_path / "models" / "yunet.bin", 77, 400)
    [problem] = check(path)
    assert str(other) in problem and "is not the expected file" in problem  # of the same version: a damaged file
    new = hashlib.sha256(other.read_bytes()).hexdigest()
    monkeypatch.setattr(fetch, "MODELS", {**fetch.MODELS, "yunet": (other.name, new, "https://example.org", "MIT")})
    [problem] = check(path)
    assert problem.startswith(f"{other} (face model): SHA-256 was ") and problem.endswith(new)


def test_other_versions_are_notes(runs, monkeypatch):
    path, _ = runs["sidecar"]
    made = copy.deepcopy(manifest.read(path))
    made["versions"]["commit"] = "0" * 40
    monkeypatch.setattr(checkpoint, "source_commit", lambda: "0" * 40)
    assert manifest.notes(made) == []
    made["versions"]["av"], made["platform"]["XLA_FLAGS"] = "0.1", "--xla_x"
    made["digest"] = manifest.digest(made)
    assert manifest.check(made, path.parent) == []
    notes = manifest.notes(made)
    assert [note.split(",")[0] for note in notes] == ["av was 0.1", "XLA_FLAGS was --xla_x"]
    assert all("digits may differ" in note for note in notes)
    monkeypatch.setattr(checkpoint, "source_commit", lambda: None)
    assert any("the commit now is None" in note for note in manifest.notes(made))


def test_records_compare_bit_for_bit():
    old = [make_record("in/a.mp4"), make_record("in/b.mp4")]
    moved = [make_record("/other/a.mp4", timeline="x.png"), make_record("/other/b.mp4", overlays=[])]
    assert manifest.compare(old, moved) == []
    assert manifest.compare(json.loads(json.dumps(old)), old) == []
    last = float(np.nextafter(SCORE, 1))
    for changes, lines in (
        ({"score": last}, [f"score was {SCORE!r}, is {last!r}"]),
        ({"frame_scores": [0.1, -0.0]}, ["frame_scores[1] was 0.0, is -0.0"]),
        ({"frame_scores": [0.1]}, ["frame_scores[1] was 0.0, is absent"]),
        ({"faces": [{"box": [1, 2.0, 3.0, 4.5], "score": 0.1}]}, ["faces[0].box[0] was 1.0, is 1"]),
        ({"drops": [{"code": "no_face"}]}, ["drops was [], is absent", 'drops[0].code was absent, is "no_face"']),
        ({"warning": "cut"}, ['warning was absent, is "cut"']),
        ({"kind": "image", "score": 0.5}, ['kind was "video", is "image"', f"score was {SCORE!r}, is 0.5"]),
    ):
        new = [old[0], make_record("in/b.mp4", **changes)]
        assert manifest.compare(old, new) == [f"in/b.mp4: {line}" for line in lines]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=5), data=st.data())
def test_the_last_bit_of_any_score_is_seen(values, data):
    place = data.draw(st.integers(0, len(values) - 1))
    old = [make_record("a.mp4", frame_scores=values)]
    through_file = json.loads(manifest.canonical(old))
    assert manifest.compare(through_file, old) == []
    changed = [*values]
    changed[place] = float(np.nextafter(values[place], 2))
    new = [make_record("a.mp4", frame_scores=changed)]
    line = f"a.mp4: frame_scores[{place}] was {values[place]!r}, is {changed[place]!r}"
    assert manifest.compare(through_file, new) == [line]


def test_another_number_or_order_of_files_is_named():
    old = [make_record("in/a.mp4"), make_record("in/b.mp4")]
    assert manifest.compare(old, old[:1]) == ["2 files in the manifest, 1 now"]
    problems = manifest.compare(old, old[::-1])
    assert problems == ["in/a.mp4: in its place is in/b.mp4 now", "in/b.mp4: in its place is in/a.mp4 now"]


def test_files_and_records_must_belong_together(tmp_path):
    records = [make_record("a.mp4"), make_record("b.mp4")]
    with pytest.raises(ValueError, match="2 records, and files"):
        manifest.make(make_model(), tmp_path, ["a.mp4"], records, SETTINGS, [])
    with pytest.raises(ValueError, match=r"settings\.landmarks is 'dlib', allowed: "):
        manifest.make(make_model(), tmp_path, ["a.mp4"], records[:1], {"landmarks": "dlib"}, [])
    with pytest.raises(FileNotFoundError, match=r"weights of step 7 \(best\) are no longer in"):
        manifest.make(make_model(), tmp_path, [], [], SETTINGS, [])


def test_the_files_of_a_whole_checkpoint_are_all_that_scoring_reads(tmp_path):
    weights = {"params": {"a": jnp.arange(4.0), "b": jnp.ones(3)}, "model_state": {"s": jnp.zeros(2)}}
    state = {
        "params": {"detector": weights["params"]},
        "ema": {"detector/a": 2 * weights["params"]["a"]},
        "model_state": {"detector": weights["model_state"]},
    }
    with checkpoint.make_manager(tmp_path / "run") as manager:
        for step in (4, 8):
            checkpoint.save(manager, step, state, {"next": step})
        manager.wait_until_finished()
    files = checkpoint.weight_files(tmp_path / "run", 8, "last")
    assert files[0] == tmp_path / "run" / "best" / "weights.safetensors" and not files[0].exists()
    assert all((tmp_path / "run" / "checkpoints" / "8") in file.parents for file in files[1:])
    for file in files[1:]:
        copied = tmp_path / "copy" / file.relative_to(tmp_path / "run")
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copied)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), weights)
    with checkpoint.make_manager(tmp_path / "copy") as manager:
        step, restored = checkpoint.restore_averages(manager, shapes, ["detector/a"])
    assert step == 8 and restored["params"]["a"].tolist() == [0.0, 2.0, 4.0, 6.0]
    with pytest.raises(FileNotFoundError, match=r"step 2 \(last\)"):
        checkpoint.weight_files(tmp_path / "run", 2, "last")


def test_two_runs_of_a_real_model_are_the_same(tmp_path):
    workdir = app_server.make_workdir(tmp_path / "run", make_calibration(2.0, 0.6, step=7, weights="best"))
    files = [write_clip(tmp_path / "in" / "clip", [40, 120, 200, 230]), write_image(tmp_path / "in" / "face.png", 250)]
    chosen = {"landmarks": "sidecar", "faces": "largest", "aggregate": "mean", "num_frames": 3, "batch_size": 4}

    def score(folder, files, out):
        model = inference.load_for_inference(folder)
        calibration = verdict.find_calibration(folder, model, chosen["aggregate"])
        return model, predict.predict_files(model, files, out, calibration=calibration, **chosen, max_overlays=0)

    model, records = score(workdir, files, tmp_path / "out")
    assert ["score" in record for record in records] == [True, True] and records[0]["calibration"] is not None
    path = tmp_path / "run.json"
    manifest.write(path, manifest.make(model, workdir, files, records, chosen, []))
    made = manifest.read(path)
    assert check(path) == [] and [f["role"] for f in made["files"] if "size" in f] == [
        "input", "input", "landmarks", "landmarks", "workdir", "workdir", "workdir"
    ]  # fmt: skip
    folder, inputs = manifest.replay_inputs(made, tmp_path)
    _, again = score(folder, inputs, tmp_path / "out2")
    assert manifest.compare(made["records"], again) == []
    # One bit of one weight, in the exponent: the file is named, and so are the scores.
    weights = workdir / "best" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    length = int.from_bytes(data[:8], "little")
    start, _ = json.loads(data[8 : 8 + length])["params/binary_head/out/bias"]["data_offsets"]
    data[8 + length + start + 3] ^= 1
    weights.write_bytes(data)
    [problem] = check(path)
    assert problem.startswith(f"{weights} (workdir): SHA-256 was ")
    _, other = score(folder, inputs, tmp_path / "out3")
    problems = manifest.compare(made["records"], other)
    assert all(any(line.startswith(f"{file}: score was ") for line in problems) for file in files)
