import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tiny_ffpp import write_clip, write_tree

from data_prep import catalog, crops, prepare
from data_prep.faceforensics import downloads
from msddf_jax.faces import align, detect, image_file, landmarks, video

ROOT = pathlib.Path(__file__).resolve().parents[1]
REAL = "original_sequences/youtube/c23"
FAKE = "manipulated_sequences/Deepfakes/c23"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """One train pair: two reals, two Deepfakes with masks, sidecar landmarks."""
    return write_tree(tmp_path_factory.mktemp("template") / "FaceForensics++")


@pytest.fixture
def tree(template, tmp_path):
    return pathlib.Path(shutil.copytree(template, tmp_path / "FaceForensics++"))


def run(root, *flags, out=None):
    """The command in this process, with sidecar landmarks; returns its exit code."""
    out = out or root.parent / "out"
    common = ["--layout=faceforensics", f"--root={root}", f"--out={out}", "--landmarks=sidecar"]
    return prepare.main([*common, "--num_frames=3", "--size=64", "--workers=1", *flags])


def report_of(root):
    return json.loads((root.parent / "out/report.json").read_text())


def stamps(out):
    return {p.relative_to(out).as_posix(): p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file()}


def last_error(capsys):
    """The error line, which is one line."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_layout_on_disk(tree, tmp_path):
    assert run(tree) == 0
    out = tmp_path / "out"
    for unit, stems in ((REAL, ("000", "001")), (FAKE, ("000_001", "001_000"))):
        for stem in stems:
            for folder, suffix in (("frames", "png"), ("landmarks", "npy"), ("masks", "png")):
                names = sorted(p.name for p in (out / unit / folder / stem).glob("*"))
                expected = [] if unit == REAL and folder == "masks" else ["000", "002", "005"]
                assert names == [f"{name}.{suffix}" for name in expected]
            assert not list((out / unit / "meta").glob("*.started"))
    image = image_file.read_image(out / FAKE / "frames/000_001/002.png")
    assert image.shape == (64, 64, 3)
    stored = np.load(out / FAKE / "landmarks/000_001/002.npy")
    assert (stored.dtype, stored.shape) == (np.float32, (81, 2))
    # The file is in the predictor's order: the leftmost forehead point is its 77.
    ours = landmarks.from_dlib_order(stored)
    assert ours[68, 0] < ours[69, 0] and (np.diff(ours[70:79, 0]) > 0).all()
    x, y = np.round(ours[30]).astype(int)
    assert image[y, x].argmax() == 2  # the blue nose tip of the drawing: RGB, aligned
    mask = image_file.read_image(out / FAKE / "masks/000_001/002.png")
    assert set(np.unique(mask)) == {0, 255} and mask[y, x, 0] == 255
    for name in ("train", "val", "test"):
        assert (out / f"{name}.json").read_bytes() == (tree / f"{name}.json").read_bytes()


def test_meta_file(tree, tmp_path):
    side = tree / REAL / "videos/000.landmarks.npy"
    points = np.load(side)
    points[2] = np.nan
    np.save(side, points)
    run(tree)
    meta = json.loads((tmp_path / "out" / REAL / "meta/000.json").read_text())
    assert meta["video"] == f"{REAL}/videos/000.mp4"
    expected = {"version": crops.FORMAT_VERSION, "sampling": "even", "num_frames": 3, "size": 64, "preset": "dfb"}
    assert meta["settings"] == {**expected, "faces": "largest", "landmarks": "sidecar"}
    assert meta["num_frames"] == 6 and meta["has_mask"] is False
    assert meta["container"] == {"num_frames": 6, "width": 160, "height": 128, "fps": 10.0}
    assert [frame["frame_index"] for frame in meta["frames"]] == [0, 5]
    assert [(drop["frame_index"], drop["code"]) for drop in meta["drops"]] == [(2, "no_face")]
    frame = meta["frames"][0]
    full = landmarks.from_dlib_order(points[0])
    crop = landmarks.from_dlib_order(np.load(tmp_path / "out" / REAL / "landmarks/000/000.npy"))
    matrix = np.array(frame["matrix"])
    np.testing.assert_allclose(full @ matrix[:, :2].T + matrix[:, 2], crop, atol=1e-3)
    np.testing.assert_allclose(frame["bbox"], [*full.min(0), *full.max(0)], atol=0.01)


def test_report(tree, capsys):
    assert run(tree) == 0
    report = report_of(tree)
    assert report["counts"] == {} and report["items"] == [] and report["bad_fraction"] == 0
    assert report["videos"] == {"found": 4, "prepared": 4, "bad": 0}
    assert report["frames"] == {"sampled": 12, "kept": 12, "kept_fraction": 1.0}
    assert report["prepared_videos"] == {"train": {"real": 2, "fake": 2}}
    assert "12 of 12 sampled frames kept (100.00%)" in capsys.readouterr().out


def test_output_beside_the_download(tree):
    assert run(tree, out=tree) == 0
    assert (tree / REAL / "frames/000/000.png").is_file() and (tree / "report.json").is_file()


def test_a_second_run_does_nothing_again(tree, tmp_path):
    run(tree)
    before = stamps(tmp_path / "out")
    first = report_of(tree)
    assert run(tree) == 0
    after = stamps(tmp_path / "out")
    changed = {name for name in before if before[name] != after[name]}
    job = {"report.json", "catalog/faceforensics-c23.jsonl", "train.json", "val.json", "test.json"}
    assert changed == job and set(before) == set(after)
    assert report_of(tree) == first


def test_only_what_was_cut_off_is_redone(tree, tmp_path):
    run(tree)
    unit = tmp_path / "out" / FAKE
    # As a kill in the middle of a video leaves it: begun, some frames, no meta file.
    (unit / "meta/000_001.json").unlink()
    (unit / "meta/000_001.started").touch()
    (unit / "frames/000_001/005.png").unlink()
    (unit / "frames/000_001/004.png").write_bytes(b"half")
    before = stamps(tmp_path / "out")
    assert run(tree) == 0
    after = stamps(tmp_path / "out")
    redone = {name for name in after if before.get(name) != after[name] and name.count("/") > 1}
    assert redone == {
        f"{FAKE}/meta/000_001.json",
        *(f"{FAKE}/frames/000_001/{index}.png" for index in ("000", "002", "005")),
        *(f"{FAKE}/masks/000_001/{index}.png" for index in ("000", "002", "005")),
        *(f"{FAKE}/landmarks/000_001/{index}.npy" for index in ("000", "002", "005")),
    }
    assert f"{FAKE}/frames/000_001/004.png" not in after and f"{FAKE}/meta/000_001.started" not in after


def test_a_changed_video_is_redone(tree, tmp_path):
    run(tree)
    write_clip(tree / REAL / "videos/001.mp4", num_frames=9)
    assert run(tree) == 0
    names = sorted(p.stem for p in (tmp_path / "out" / REAL / "frames/001").iterdir())
    assert names == ["000", "004", "008"]


@pytest.mark.parametrize("flag, was", [("--size=32", "size=64"), ("--preset=gend", "preset=dfb")])
def test_other_settings_are_refused_until_overwrite(tree, tmp_path, capsys, flag, was):
    run(tree)
    before = stamps(tmp_path / "out")
    assert run(tree, flag) == 1
    error = last_error(capsys)
    assert was in error and flag[2:] in error and "--overwrite" in error
    assert stamps(tmp_path / "out") == before
    assert run(tree, flag, "--overwrite") == 0
    name, value = flag[2:].split("=")
    assert str(json.loads((tmp_path / "out" / REAL / "meta/000.json").read_text())["settings"][name]) == value


def test_frames_of_another_tool_are_left_alone(tree, tmp_path):
    theirs = tmp_path / "out" / REAL / "frames/000/000.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    assert run(tree) == 1
    assert report_of(tree)["counts"] == {"foreign_frames": 1}
    assert theirs.read_bytes() == b"theirs"
    assert run(tree, "--overwrite") == 0
    assert theirs.read_bytes() != b"theirs"


def test_listed_video_that_is_missing_stops_before_work(tree, tmp_path, capsys):
    (tree / FAKE / "videos/001_000.mp4").unlink()
    assert run(tree) == 1
    error = last_error(capsys)
    assert "name 1 files" in error and f"{FAKE}/videos/001_000.mp4" in error and "--allow_missing" in error
    assert not (tmp_path / "out").exists()
    assert run(tree, "--allow_missing") == 0
    report = report_of(tree)
    assert report["counts"] == {"missing_listed_file": 1} and report["videos"]["prepared"] == 3
    assert report["items"][0]["path"] == f"{FAKE}/videos/001_000.mp4"


def test_strays_are_reported_and_fail_the_job(tree):
    shutil.copy(tree / REAL / "videos/000.mp4", tree / REAL / "videos/777.mp4")
    shutil.copy(tree / REAL / "videos/000.mp4", tree / FAKE / "videos/copy of 000_001.mp4")
    assert run(tree) == 1
    report = report_of(tree)
    assert report["counts"] == {"name_unparsed": 1, "unlisted_file": 1}
    assert report["videos"] == {"found": 6, "prepared": 4, "bad": 2}
    assert run(tree, "--max_bad_fraction=0.5") == 0


def _truncate(path):
    path.write_bytes(path.read_bytes()[:300])


def _no_face(path):
    side = path.with_name(f"{path.stem}.landmarks.npy")
    np.save(side, np.full((6, 81, 2), np.nan, np.float32))


@pytest.mark.parametrize(
    "break_it, code",
    [
        (_truncate, "unreadable_video"),
        (_no_face, "no_face_video"),
        (lambda path: path.with_name("001.landmarks.npy").unlink(), "landmarks_missing"),
        (lambda path: path.with_name("001.landmarks.npy").write_text("text"), "landmarks_invalid"),
    ],
)
def test_one_bad_video_is_named_and_the_rest_is_done(tree, capsys, break_it, code):
    break_it(tree / REAL / "videos/001.mp4")
    assert run(tree) == 1
    error = last_error(capsys)
    assert "1 of 4 videos are bad" in error and "report.json" in error
    report = report_of(tree)
    assert report["counts"][code] == 1 and report["videos"]["prepared"] == 3
    assert next(entry for entry in report["items"] if entry["code"] == code)["path"] == f"{REAL}/videos/001.mp4"
    assert run(tree, "--max_bad_fraction=0.3") == 0


def test_nothing_prepared_fails_the_job(tree, capsys):
    for path in tree.rglob("*.mp4"):
        path.write_text("not a video")
    assert run(tree, "--max_bad_fraction=1") == 1
    assert "not one video" in last_error(capsys)
    assert report_of(tree)["counts"] == {"unreadable_video": 4}


def test_missing_mask_is_reported_only(tree, tmp_path):
    shutil.rmtree(tree / "manipulated_sequences/Deepfakes/masks")
    assert run(tree) == 0
    assert report_of(tree)["counts"] == {"mask_missing": 2}
    assert not (tmp_path / "out" / FAKE / "masks").exists()


def test_masks_elsewhere(tree, tmp_path):
    moved = tmp_path / "masks/manipulated_sequences/Deepfakes/masks"
    moved.parent.mkdir(parents=True)
    shutil.move(tree / "manipulated_sequences/Deepfakes/masks", moved)
    assert run(tree, f"--mask_root={tmp_path / 'masks'}") == 0
    assert len(list((tmp_path / "out" / FAKE / "masks/000_001").glob("*.png"))) == 3


def test_full_disk_stops_with_one_line_and_keeps_what_is_done(tree, tmp_path, monkeypatch, capsys):
    write = crops._write

    def full(path, data):
        if path.parent.name == "000_001" and path.stem == "002":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data)

    monkeypatch.setattr(crops, "_write", full)
    assert run(tree) == 1
    error = last_error(capsys)
    assert "No space left on device" in error and "000_001/002.png" in error
    assert (tmp_path / "out" / REAL / "meta/001.json").is_file()
    assert not (tmp_path / "out" / FAKE / "frames/000_001").exists()
    done = stamps(tmp_path / "out" / REAL)
    monkeypatch.undo()
    assert run(tree) == 0
    assert stamps(tmp_path / "out" / REAL) == done
    assert report_of(tree)["videos"]["prepared"] == 4


def test_workers_and_command_line(tree, tmp_path):
    flags = ["--layout=faceforensics", f"--root={tree}", f"--out={tmp_path / 'out'}", "--landmarks=sidecar"]
    flags += ["--num_frames=3", "--size=64", "--workers=2"]
    command = [sys.executable, "-m", "data_prep.prepare", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 videos prepared" in done.stdout and "faces/s" in done.stderr
    one = tmp_path / "one"
    run(tree, out=one)
    for path in sorted(one.rglob("*.*")):
        if path.suffix in (".png", ".npy"):
            assert path.read_bytes() == (tmp_path / "out" / path.relative_to(one)).read_bytes()


def test_sidecar_needs_neither_mediapipe_nor_models(tree, tmp_path):
    code = (
        "import sys; sys.modules['mediapipe'] = None; sys.modules['pooch'] = None\n"
        "from data_prep import prepare\n"
        "sys.exit(prepare.main(sys.argv[1:]))"
    )
    flags = ["--layout=faceforensics", f"--root={tree}", f"--out={tmp_path / 'out'}", "--landmarks=sidecar"]
    command = [sys.executable, "-c", code, *flags, "--num_frames=1", "--workers=1"]
    environment = {**os.environ, "MSDDF_MODELS": str(tmp_path / "nowhere")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_missing_models_stop_before_work(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MSDDF_MODELS", str(tmp_path))
    assert run(tree, "--landmarks=mediapipe") == 1
    error = last_error(capsys)
    assert "face_detection_yunet_2023mar.onnx" in error and "MSDDF_MODELS" in error
    assert not (tmp_path / "out").exists()


def _empty(root):
    shutil.rmtree(root)
    root.mkdir()


def _no_videos(root):
    for path in root.rglob("*.mp4"):
        path.unlink()


def _list(text):
    return lambda root: (root / "val.json").write_text(text)


@pytest.mark.parametrize(
    "break_it, flags, message",
    [
        (shutil.rmtree, (), "no folder"),
        (_empty, (), "no original_sequences/youtube/"),
        (_no_videos, ("--allow_missing",), "no video of the lists"),
        (lambda root: (root / "val.json").unlink(), (), "no split list"),
        (_list("{"), (), "not JSON"),
        (_list("[[1, 2]]"), (), "three-digit strings"),
        (_list('[["000", "002"]]'), (), "id 000 stands in both train.json and val.json"),
        (lambda root: None, ("--methods=FaceSwap",), "no folder"),
        (lambda root: None, ("--methods=Deepfake",), "did you mean Deepfakes"),
        (lambda root: None, ("--splits=valid",), "did you mean val"),
        (lambda root: None, ("--compression=c40",), "no video of the lists"),
    ],
)
def test_a_job_that_cannot_start_says_why_in_one_line(tree, tmp_path, capsys, break_it, flags, message):
    break_it(tree)
    assert run(tree, *flags) == 1
    error = last_error(capsys)
    assert message in error and ("FaceForensics++" in error or "did you mean" in error)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["--siez=64", "--size=0", "--preset=dbf", "--landmarks=dlibb", "--workers=many"])
def test_flag_typos_are_usage_errors(tree, capsys, flag):
    with pytest.raises(SystemExit) as caught:
        run(tree, flag)
    assert caught.value.code == 2
    assert flag.split("=")[0] in capsys.readouterr().err


def test_the_folder_above_the_root_is_recognised(tree, capsys):
    assert run(tree.parent, out=tree.parent / "out") == 1
    assert "did you mean --root" in last_error(capsys)


def test_splits_methods_and_the_raw_alias(tmp_path):
    root = tmp_path / "FaceForensics++"
    pairs = {"train": [["000", "001"]], "val": [["002", "003"]], "test": []}
    write_tree(root, pairs, methods=("FaceSwap", "FaceShifter"), num_frames=2, masks=False)
    (root / "manipulated_sequences/DeepFakeDetection").mkdir()
    found, problems = downloads.find(root, "c23", catalog.Options(splits=("val",)))
    assert [(e.stem, e.fields["method"], e.split) for e in found] == [
        ("002", "real", "validation"), ("003", "real", "validation"),
        ("002_003", "faceswap", "validation"), ("003_002", "faceswap", "validation"),
        ("002_003", "faceshifter", "validation"), ("003_002", "faceshifter", "validation"),
    ]  # fmt: skip
    # FaceShifter has no masks to miss; train files are covered by a list, though not asked for.
    codes = [(p.code, p.path) for p in problems]
    assert ("unknown_method", "manipulated_sequences/DeepFakeDetection") in codes
    assert sorted(code for code, _ in codes) == ["mask_missing", "mask_missing", "unknown_method"]
    (root / REAL).rename(root / "original_sequences/youtube/c0")
    options = catalog.Options(methods=("faceswap",), splits=("train",), allow_missing=True)
    found, problems = downloads.find(root, "raw", options)
    assert [e.unit for e in found] == ["original_sequences/youtube/raw"] * 2
    assert all((root / e.path).is_file() and "/c0/" in e.path for e in found)
    assert [p.code for p in problems].count("compression_alias") == 1
    assert [p.code for p in problems].count("missing_listed_file") == 2


def test_order_and_fields_of_what_is_found(tmp_path):
    root = tmp_path / "FaceForensics++"
    pairs = {"train": [["000", "001"]], "val": [], "test": [["002", "003"]]}
    write_tree(root, pairs, methods=("FaceSwap", "Deepfakes"), num_frames=1)
    (root / "conversion_dict.json").write_text(json.dumps({f"00{i}": f"tube {i}" for i in range(4)}))
    found, problems = downloads.find(root, "c23", catalog.Options())
    assert problems == []
    stems = [["000", "001", *["000_001", "001_000"] * 2], ["002", "003", *["002_003", "003_002"] * 2]]
    assert [e.stem for e in found] == stems[0] + stems[1]
    assert [e.fields["method"] for e in found[2:6]] == ["deepfakes"] * 2 + ["faceswap"] * 2
    assert found[3].fields == {
        "label": "fake",
        "method": "deepfakes",
        "dataset": "faceforensics",
        "video_id": "deepfakes/001_000",
        "pair_id": "001",
        "group_id": "tube",
        "source_identity": "ff:000",
        "target_identity": "ff:001",
        "compression": "c23",
        "perturbation": "",
        "attributes": [1, None, 0, None, 1, None, 1, 1, 1, 1, 1, 1, 1],
    }
    assert found[0].fields["video_id"] == "000" and found[0].fields["pair_id"] == ""
    assert found[3].publishes_masks and found[3].mask == str(
        root / "manipulated_sequences/Deepfakes/masks/videos/001_000.mp4"
    )


def test_embedded_set_is_not_taken_for_faceforensics(tmp_path):
    root = write_tree(tmp_path / "toy", methods=("ToySwap",), num_frames=1)
    found, _ = downloads.find(root, "c23", catalog.Options())
    assert {e.fields["dataset"] for e in found} == {"toy"}
    assert found[0].fields["target_identity"] == "toy:000"
    (root / "manipulated_sequences/FaceSwap").mkdir()
    with pytest.raises(catalog.DownloadError, match="FaceSwap and ToySwap, of two data sets"):
        downloads.find(root, "c23", catalog.Options())
    found, _ = downloads.find(root, "c23", catalog.Options(methods=("ToySwap",)))
    assert {e.fields["dataset"] for e in found} == {"toy"}


def test_second_run_leaves_the_order_of_the_records(tmp_path):
    # By name, toy_neural would come before toy_swap: the builder takes videos in the catalog's order.
    pairs = {"train": [["000", "001"]], "val": [], "test": []}
    root = write_tree(tmp_path / "toy", pairs=pairs, methods=("ToySwap", "ToyNeural"), num_frames=1)
    flags = ["--methods=ToySwap,ToyNeural", "--landmarks=sidecar", "--size=32", "--workers=1"]
    texts = []
    for _ in range(2):
        assert prepare.main(["--layout=faceforensics", f"--root={root}", *flags]) == 0
        texts.append((root / "catalog/faceforensics-c23.jsonl").read_text())
    assert texts[0] == texts[1]
    methods = [json.loads(line)["fields"]["method"] for line in texts[0].splitlines()]
    assert methods == ["real"] * 2 + ["toy_swap"] * 2 + ["toy_neural"] * 2


@pytest.mark.real_data
def test_real_clips(real_data, tmp_path):
    root = pathlib.Path(real_data) / "FaceForensics++"
    flags = [
        "--layout=faceforensics",
        f"--root={root}",
        f"--out={tmp_path}",
        "--allow_missing",
        "--splits=val",
    ]
    assert prepare.main([*flags, "--workers=1", "--num_frames=8"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["videos"]["prepared"] == 2 and report["frames"]["kept_fraction"] >= 0.99
    points = np.load(tmp_path / REAL / "landmarks/004/000.npy")
    assert (points > 0).all() and (points < 256).all()
    # What is stored, taken back to the frame, is MediaPipe's own answer on the face at full resolution.
    find, landmark = detect.make_detector(), landmarks.make_landmarker()
    meta = json.loads((tmp_path / REAL / "meta/004.json").read_text())
    clip = video.read_frames(root / REAL / "videos/004.mp4", 8)
    for frame in meta["frames"]:
        index, matrix = frame["frame_index"], np.vstack([frame["matrix"], [0, 0, 1]])
        stored = landmarks.from_dlib_order(np.load(tmp_path / REAL / f"landmarks/004/{index:03d}.npy"))
        back = align.transform_points(stored, np.linalg.inv(matrix)[:2])
        own = landmark(clip.frames[index], find(clip.frames[index])[0].box)
        eyes = np.linalg.norm(own[36:42].mean(0) - own[42:48].mean(0))
        assert np.linalg.norm(back - own, axis=1).max() < 0.05 * eyes
