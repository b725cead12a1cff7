"""What `prepare` makes of images, of crops, and of several faces, through made-up data sets and stand-in models."""

import json
import sys
import zlib

import numpy as np
import PIL.Image
import pytest
from tiny_ffpp import write_clip
from tiny_sets import MODELS, draw_faces, entry, face_at, make_layout, use_models

from data_prep import beam, catalog, crops, layout, prepare
from msddf_jax.faces import align, image_file, video
from msddf_jax.faces.scene import sidecar_path
from msddf_jax.opencv import cv2


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image).save(path)


def run(tmp_path, *flags):
    """The command on the layout of `make_layout`; returns its exit code."""
    common = ["--layout=madeup", f"--root={tmp_path / 'in'}", f"--out={tmp_path / 'out'}", "--size=64", "--workers=1"]
    return prepare.main([*common, "--num_frames=4", *flags])


def report_of(tmp_path):
    return json.loads((tmp_path / "out/report.json").read_text())


def lines_of(tmp_path):
    return catalog.read_catalog(catalog.catalog_path(tmp_path / "out", "madeup", "default"))


def write_images(root, folder, numbers, size=(160, 128), **kwargs):
    """Images of one drawn face that moves; returns an Entry of kind "frames"."""
    for i in numbers:
        save(root / folder / f"{i:03d}.png", draw_faces([(face_at(60 + 3 * i, 64, 0.35), 120)], *size))
    images = tuple((i, f"{folder}/{i:03d}.png") for i in numbers)
    return entry(root, "frames", folder, images=images, **kwargs)


def test_images_of_scenes(tmp_path, monkeypatch):
    use_models(monkeypatch)
    root = tmp_path / "in"
    found = write_images(root, "a/seq", (3, 5, 7, 9, 11, 13, 900, 1000)[:6])
    make_layout(monkeypatch, [found])
    assert run(tmp_path) == 0
    (line,) = lines_of(tmp_path)
    assert (line["outcome"], line["path"], line["fields"]["video_id"]) == ("prepared", "a/seq", "seq")
    read = layout.read_video(tmp_path / "out/real", "seq")
    assert [files.index for files in read.frames] == [3, 5, 9, 13]  # positions 0, 1, 3, 5 of six
    assert read.num_frames == 6
    for files in read.frames:
        points = np.load(files.landmarks)
        target = align.template_points("dfb", 64)
        assert np.abs(points[[37, 44, 30, 49, 55]] - target).mean() < 3.5
        bbox, matrix = read.geometry[files.index]
        assert abs((bbox[0] + bbox[2]) / 2 - (60 + 3 * files.index)) < 2
        assert matrix.shape == (2, 3)


def test_bad_images_are_counted_and_the_rest_is_kept(tmp_path, monkeypatch):
    use_models(monkeypatch)
    root = tmp_path / "in"
    found = write_images(root, "seq", range(4))
    (root / "seq/001.png").write_bytes(b"no image")
    save(root / "seq/002.png", np.full((128, 160, 3), 60, np.uint8))
    (root / "seq/003.png").unlink()
    lost = entry(root, "frames", "lost", images=((0, "seq/001.png"),))
    make_layout(monkeypatch, [found, lost])
    assert run(tmp_path, "--max_bad_fraction=1") == 0
    report = report_of(tmp_path)
    assert report["counts"] == {"corrupt_image": 3, "no_face": 1}
    assert report["frames"]["kept"] == 1 and report["videos"] == {"found": 2, "prepared": 1, "bad": 1}
    assert [line["outcome"] for line in lines_of(tmp_path)] == ["prepared", "corrupt_image"]


def test_images_with_sidecars_and_masks(tmp_path, monkeypatch):
    root = tmp_path / "in"
    points = face_at(80, 64, 0.35)
    mask = cv2.fillConvexPoly(np.zeros((128, 160), np.uint8), cv2.convexHull(points[:68].astype(np.int32)), 255)
    masks = []
    for i in range(4):
        path = root / "seq" / f"{i}.png"
        save(path, draw_faces([(points, 120)], 160, 128))
        np.save(sidecar_path(path), (points + 0.0)[None].astype(np.float32))
        save(root / "masks" / f"{i}.png", mask if i != 2 else mask[:64])
        masks.append((i, str(root / "masks" / f"{i}.png")))
    sidecar_path(root / "seq/1.png").unlink()
    images = tuple((i, f"seq/{i}.png") for i in range(4))
    # No mask for frame 3; that of frame 2 has another size.
    found = entry(root, "frames", "seq", images=images, mask=tuple(masks[:3]), method="unknown", publishes_masks=True)
    make_layout(monkeypatch, [found])
    assert run(tmp_path, "--landmarks=sidecar") == 0
    assert report_of(tmp_path)["counts"] == {"landmarks_missing": 1, "mask_missing": 1, "mask_size_mismatch": 1}
    read = layout.read_video(tmp_path / "out/fake", "seq")
    assert [(files.index, files.mask is not None) for files in read.frames] == [(0, True), (2, False), (3, False)]
    made = image_file.read_image(read.frames[0].mask)[..., 0]
    x, y = np.round(np.load(read.frames[0].landmarks)[30]).astype(int)
    assert set(np.unique(made)) == {0, 255} and made[y, x] == 255


@pytest.mark.parametrize("side, interpolation", [(96, cv2.INTER_AREA), (48, cv2.INTER_CUBIC), (64, None)])
def test_crops_are_resized_and_keep_what_shows_no_face(tmp_path, monkeypatch, side, interpolation):
    use_models(monkeypatch)
    root = tmp_path / "in"
    face = draw_faces([(face_at(side / 2, side / 2, side / 260), 120)], side, side)
    noise = np.random.default_rng(0).integers(0, 140, (side, side, 3), np.uint8)
    for i, image in enumerate((face, noise)):
        save(root / f"c/{i}.png", image)
    make_layout(monkeypatch, [entry(root, "crops", "c", images=((0, "c/0.png"), (1, "c/1.png")))])
    assert run(tmp_path) == 0
    assert report_of(tmp_path)["counts"] == {"no_landmarks_kept": 1}
    read = layout.read_video(tmp_path / "out/real", "c")
    assert [files.landmarks is not None for files in read.frames] == [True, False]
    for files, image in zip(read.frames, (face, noise)):
        expected = image if interpolation is None else cv2.resize(image, (64, 64), interpolation=interpolation)
        np.testing.assert_array_equal(image_file.read_image(files.image), expected)
        _, matrix = read.geometry[files.index]
        np.testing.assert_allclose(matrix @ [-0.5, side - 0.5, 1], [-0.5, 63.5], atol=1e-4)  # corner to corner
    x, y = np.round(np.load(read.frames[0].landmarks)[30]).astype(int)
    assert image_file.read_image(read.frames[0].image)[y, x].argmax() == 2  # the nose's dot
    assert read.geometry[1][0].tolist() == [-1] * 4


def test_crops_without_models(tmp_path, monkeypatch):
    root = tmp_path / "in"
    save(root / "c/0.png", np.full((64, 64, 3), 90, np.uint8))
    make_layout(monkeypatch, [entry(root, "crops", "c", images=((0, "c/0.png"),))])
    assert run(tmp_path, "--landmarks=sidecar", "--strict") == 0  # nothing is dropped
    assert report_of(tmp_path)["counts"] == {"no_landmarks_kept": 1}


def two_faces(root, name, *, num_frames=8, passer_by=(), masked=None, fill=None, **kwargs):
    """A video of a subject at the left, and of another, larger face at the right in the frames `passer_by`.

    In frames of `passer_by` named negative, -i, the subject is not there. masked: which face the mask covers.
    """
    frames, masks = [], []
    alone = {-i for i in passer_by if i < 0}
    for i in range(num_frames):
        subject, other = face_at(70 + i, 100, 0.4), face_at(230, 100, 0.5)
        faces = [] if i in alone else [(subject, 110)]
        faces += [(other, 240)] if i in passer_by or i in alone else []
        frames.append(draw_faces(faces, 320, 200))
        mask = np.zeros((200, 320, 3), np.uint8)
        if masked:
            hull = cv2.convexHull((subject if masked == "subject" else other)[:68].astype(np.int32))
            cv2.fillConvexPoly(mask, hull, (255, 255, 255))
        masks.append(mask)
    (root / "v").mkdir(parents=True, exist_ok=True)
    video.write_video(root / f"v/{name}.mp4", frames, fps=10, crf=5)
    if masked:
        video.write_video(root / f"v/{name}_mask.mp4", masks, fps=10, crf=5)
    mask = str(root / f"v/{name}_mask.mp4") if masked else None
    return entry(root, "video", f"v/{name}.mp4", mask=mask, **kwargs)


def bluish(unit, name):
    """Blue level of the cheek per frame number: 110 is the subject, 240 the other one."""
    read = layout.read_video(unit, name)
    out = {}
    for files in read.frames:
        points = np.load(files.landmarks)
        x, y = np.round((points[2] + points[33]) / 2).astype(int)
        out[files.index] = int(image_file.read_image(files.image)[y, x, 2])
    return out


def is_subject(blues):
    return {index: blue < 175 for index, blue in blues.items()}


def test_a_passer_by_does_not_replace_the_subject(tmp_path, monkeypatch):
    """Larger, in front of the camera in three of eight frames, in one of which the subject is hidden."""
    use_models(monkeypatch)
    make_layout(monkeypatch, [two_faces(tmp_path / "in", "a", passer_by=(3, 4, -5))])
    assert run(tmp_path, "--num_frames=8") == 0
    assert is_subject(bluish(tmp_path / "out/real", "a")) == {i: True for i in (0, 1, 2, 3, 4, 6, 7)}
    (item,) = report_of(tmp_path)["items"]
    assert (item["code"], item["frame_index"]) == ("other_face", 5)


def test_the_mask_names_the_face(tmp_path, monkeypatch):
    use_models(monkeypatch)
    kwargs = {"passer_by": range(2, 8), "method": "unknown"}
    entries = [two_faces(tmp_path / "in", name, masked=name, **kwargs) for name in ("subject", "other")]
    make_layout(monkeypatch, entries)
    assert run(tmp_path, "--num_frames=8") == 0
    assert is_subject(bluish(tmp_path / "out/fake", "subject")) == {i: True for i in range(8)}
    assert is_subject(bluish(tmp_path / "out/fake", "other")) == {i: False for i in range(2, 8)}


def test_frames_that_the_mask_does_not_touch(tmp_path, monkeypatch):
    use_models(monkeypatch)
    found = two_faces(tmp_path / "in", "a", masked="subject", method="unknown")
    frames = [np.zeros((200, 320, 3), np.uint8)] * 8
    for i, image in video.read_frames(found.mask, range(8)).frames.items():
        frames[i] = image if i < 5 else frames[i]
    video.write_video(found.mask, frames, fps=10, crf=5)
    make_layout(monkeypatch, [found])
    assert run(tmp_path, "--num_frames=8", "--faces=mask") == 0
    assert list(bluish(tmp_path / "out/fake", "a")) == [0, 1, 2, 3, 4]
    assert report_of(tmp_path)["counts"] == {"face_not_manipulated": 3}


def test_every_face_on_its_own(tmp_path, monkeypatch):
    use_models(monkeypatch)
    root = tmp_path / "in"
    real = two_faces(root, "a", passer_by=range(2, 8))
    fake = two_faces(root, "b", passer_by=range(8), masked="subject", method="unknown", pair_id="a")
    bare = two_faces(root, "c", passer_by=(4,), method="unknown", pair_id="a")
    make_layout(monkeypatch, [real, fake, bare])
    assert run(tmp_path, "--num_frames=8", "--faces=all") == 0
    lines = {line["stem"]: line for line in lines_of(tmp_path)}
    # The larger face comes first in a, the subject in c, where the other shows in one frame.
    assert list(lines) == ["a_face1", "a_face2", "b_face1", "c_face1", "c_face2"]
    ids = {stem: (line["fields"]["video_id"], line["fields"]["pair_id"]) for stem, line in lines.items()}
    assert ids["a_face1"] == ("a#1", "") and ids["a_face2"] == ("a#2", "")
    # b and c are of the same scene: the partner is the face at the same place.
    assert ids["b_face1"] == ("b#1", "a#2")
    assert ids["c_face1"] == ("c#1", "a#2") and ids["c_face2"] == ("c#2", "a#1")
    assert {line["fields"]["group_id"] for line in lines.values()} == {"a"}
    assert is_subject(bluish(tmp_path / "out/real", "a_face1")) == {i: False for i in range(2, 8)}
    assert is_subject(bluish(tmp_path / "out/real", "a_face2")) == {i: True for i in range(8)}
    # Who else is in a masked fake is not known to be manipulated, and is not called fake.
    assert is_subject(bluish(tmp_path / "out/fake", "b_face1")) == {i: True for i in range(8)}
    report = report_of(tmp_path)
    assert report["counts"] == {"face_not_manipulated": 1} and report["videos"]["prepared"] == 3
    # A second run does nothing again; --overwrite with one face each leaves nothing of the tracks.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*/frames/*/*.png")}
    assert run(tmp_path, "--num_frames=8", "--faces=all") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*/frames/*/*.png")} == before
    assert list(lines) == [line["stem"] for line in lines_of(tmp_path)] and report_of(tmp_path) == report
    assert run(tmp_path, "--num_frames=8") == 1  # other settings
    assert run(tmp_path, "--num_frames=8", "--overwrite") == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("*/meta/*")) == ["a.json", "b.json", "c.json"]
    assert sorted(p.name for p in (tmp_path / "out").glob("*/frames/*")) == ["a", "b", "c"]


def test_all_faces_of_a_video_without_any(tmp_path, monkeypatch):
    use_models(monkeypatch)
    make_layout(monkeypatch, [two_faces(tmp_path / "in", "a", passer_by=[-i for i in range(8)], num_frames=1)])
    video.write_video(tmp_path / "in/v/a.mp4", [np.zeros((64, 64, 3), np.uint8)] * 3)
    assert run(tmp_path, "--faces=all", "--max_bad_fraction=1") == 1
    (line,) = lines_of(tmp_path)
    assert (line["stem"], line["outcome"], line["fields"]["video_id"]) == ("a", "no_face_video", "a")


def test_runs_of_consecutive_frames(tmp_path, monkeypatch):
    root = tmp_path / "in"
    entries = []
    for name, count in (("long", 23), ("short", 4), ("single", 6)):
        write_clip(root / f"v/{name}.mp4", count)
        entries.append(entry(root, "video", f"v/{name}.mp4"))
    make_layout(monkeypatch, entries)
    flags = ("--sampling=clips", "--clip_length=5", "--num_clips=3", "--landmarks=sidecar")
    assert run(tmp_path, *flags) == 0
    numbers = {
        n: [f.index for f in layout.read_video(tmp_path / "out/real", n).frames] for n in ("long", "short", "single")
    }
    # Starts 0, 9, 18 of 23; one run of 5 fits in 6; 4 frames are no run, and are kept and counted.
    assert numbers["long"] == [0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 18, 19, 20, 21, 22]
    assert (numbers["single"], numbers["short"]) == ([0, 1, 2, 3, 4], [0, 1, 2, 3])
    assert report_of(tmp_path)["counts"] == {"too_short": 1}
    assert run(tmp_path, "--landmarks=sidecar") == 1  # another sampling is another setting


@pytest.mark.parametrize(
    "flag, code", [("--max_video_seconds=0.5", "video_too_long"), ("--max_video_pixels=20479", "video_too_large")]
)
def test_videos_over_a_limit_are_not_decoded(tmp_path, monkeypatch, flag, code):
    root = tmp_path / "in"
    write_clip(root / "v/a.mp4", 6)  # 0.6 seconds at 10 a second, 160 x 128 = 20480 pixels
    make_layout(monkeypatch, [entry(root, "video", "v/a.mp4")])
    assert run(tmp_path, "--landmarks=sidecar") == 0
    monkeypatch.setattr(video, "read_frames", None)
    assert run(tmp_path, "--landmarks=sidecar", "--overwrite", flag, "--max_bad_fraction=1") == 1
    assert report_of(tmp_path)["counts"] == {code: 1}


def test_images_over_100_megapixels_are_refused(tmp_path, monkeypatch):
    use_models(monkeypatch)
    root = tmp_path / "in"
    found = write_images(root, "seq", range(2))
    data = bytearray((root / "seq/001.png").read_bytes())
    data[16:24] = (20_000).to_bytes(4, "big") + (20_000).to_bytes(4, "big")  # the header of a bomb
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (root / "seq/001.png").write_bytes(data)
    make_layout(monkeypatch, [found])
    assert run(tmp_path) == 0
    assert report_of(tmp_path)["counts"] == {"image_too_large": 1}


def test_strict_stops_at_the_first_drop(tmp_path, monkeypatch, capsys):
    root = tmp_path / "in"
    for name in "abc":
        write_clip(root / f"v/{name}.mp4", 4, missing=[2] if name == "b" else ())
    entries = [entry(root, "video", f"v/{name}.mp4") for name in "abc"]
    make_layout(monkeypatch, entries)
    assert run(tmp_path, "--landmarks=sidecar", "--strict") == 1
    assert "v/b.mp4" in (error := capsys.readouterr().err) and "[no_face]" in error
    assert sorted(p.stem for p in (tmp_path / "out/real/meta").iterdir()) == ["a", "b"]
    assert run(tmp_path, "--landmarks=sidecar", "--strict") == 1  # also when it was done before
    assert run(tmp_path, "--landmarks=sidecar") == 0
    make_layout(monkeypatch, entries[:1], [catalog.Problem("name_unparsed", "v/x y.mp4", "odd")])
    assert run(tmp_path, "--landmarks=sidecar", "--strict") == 1
    assert "v/x y.mp4" in capsys.readouterr().err


def test_catalog_of_part_of_a_set_keeps_the_rest(tmp_path, monkeypatch):
    root = tmp_path / "in"
    for name in "abcd":
        write_clip(root / f"v/{name}.mp4", 2)
    splits = {"a": "train", "b": "train", "c": "test", "d": "test"}
    methods = {"a": "real", "b": "unknown", "c": "real", "d": "unknown"}
    entries = [entry(root, "video", f"v/{n}.mp4", split=splits[n], method=methods[n]) for n in "abcd"]
    make_layout(monkeypatch, entries)
    assert run(tmp_path, "--landmarks=sidecar", "--splits=test") == 0
    assert [line["stem"] for line in lines_of(tmp_path)] == ["c", "d"]
    assert run(tmp_path, "--landmarks=sidecar", "--splits=train") == 0
    assert [line["stem"] for line in lines_of(tmp_path)] == ["a", "b", "c", "d"]
    assert {line["outcome"] for line in lines_of(tmp_path)} == {"prepared"}
    make_layout(monkeypatch, entries[:2])
    assert run(tmp_path, "--landmarks=sidecar") == 0  # the whole set, which now is smaller
    assert [line["stem"] for line in lines_of(tmp_path)] == ["a", "b"]


def test_output_on_another_file_system(tmp_path, monkeypatch):
    """Through etils' paths and a temporary folder, as gs:// goes; the files are the same."""
    root = tmp_path / "in"
    for name in "ab":
        write_clip(root / f"v/{name}.mp4", 5)
    make_layout(monkeypatch, [entry(root, "video", f"v/{name}.mp4") for name in "ab"])
    assert run(tmp_path, "--landmarks=sidecar") == 0
    far = tmp_path / "far"
    monkeypatch.setattr(crops, "is_remote", lambda out: True)
    assert run(tmp_path, "--landmarks=sidecar", f"--out={far}") == 0
    files = lambda top: {p.relative_to(top).as_posix(): p.read_bytes() for p in top.rglob("*") if p.is_file()}
    assert files(far) == files(tmp_path / "out")
    stamps = {p: p.stat().st_mtime_ns for p in far.rglob("*.png")}
    write_clip(root / "v/b.mp4", 3)
    assert run(tmp_path, "--landmarks=sidecar", f"--out={far}") == 0
    changed = {p.parent.name for p in far.rglob("*.png") if stamps.get(p) != p.stat().st_mtime_ns}
    assert changed == {"b"} and len(list((far / "real/frames/b").iterdir())) == 3


def test_sbi_crops_are_boxes(tmp_path):
    root = tmp_path / "in"
    write_clip(root / "v/a.mp4", 3)
    job = crops.Job(
        str(tmp_path / "out"), crops.make_settings(num_frames=1, size=64, preset="sbi", landmarks="sidecar")
    )
    assert crops.prepare_entry(entry(root, "video", "v/a.mp4"), job)["kept"] == 1
    bbox, matrix = layout.read_video(tmp_path / "out/real", "a").geometry[0]
    corners = align.transform_points(bbox.reshape(2, 2), matrix)
    np.testing.assert_allclose(corners, [[64 * 0.1] * 2, [64 * 0.9] * 2], atol=1)  # 1/8 of 4/5


def test_layouts_and_configs(tmp_path, capsys):
    module, config = prepare.find_layout("faceforensics")
    assert (module.__name__, config) == ("data_prep.faceforensics.downloads", "c23")
    assert "faceforensics" in prepare.layouts()
    common = [f"--root={tmp_path}", "--landmarks=sidecar"]
    assert prepare.main(["--layout=faceforensic", *common]) == 1
    assert "did you mean faceforensics?" in capsys.readouterr().err
    assert prepare.main(["--layout=faceforensics", "--config=c32", *common]) == 1
    assert "did you mean c23?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prepare.main(["--layout=faceforensics", *common, "--", "--direct_num_workers=2"])
    assert "--runner" in capsys.readouterr().err


@pytest.mark.parametrize("name", prepare.layouts())
def test_every_layout_keeps_the_contract(name):
    module = prepare.importlib.import_module(f"data_prep.{name}.downloads")
    assert module.CONFIGS and all(isinstance(config, str) for config in module.CONFIGS)
    assert callable(module.find)


def test_user_files_are_part_of_the_settings(tmp_path, monkeypatch):
    use_models(monkeypatch)
    root = tmp_path / "in"
    make_layout(monkeypatch, [write_images(root, "seq", range(2))])
    predictor = tmp_path / "81.dat"
    predictor.write_bytes(b"one")
    flags = ["--landmarks=dlib", f"--landmark_file={predictor}"]
    assert run(tmp_path, *flags) == 0
    settings = json.loads((tmp_path / "out/real/meta/seq.json").read_text())["settings"]
    assert settings["detector"] == "dlib" and len(settings["landmark_sha256"]) == 16
    predictor.write_bytes(b"another")
    assert run(tmp_path, *flags) == 1


def test_beam_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"pip install apache-beam.*--runner"):
        beam.import_beam()


def test_models_stand_in(tmp_path):
    """The stand-ins find what is drawn: else the tests above would show nothing."""
    image = draw_faces([(face_at(70, 100, 0.4), 110), (face_at(230, 100, 0.5), 240)], 320, 200)
    faces = MODELS["detector"](image)
    assert [round(float(face.box[0] + face.box[2]) / 2) for face in faces] == [230, 70]
    assert np.abs(MODELS["landmarker"](image, faces[1].box) - face_at(70, 100, 0.4)).max() < 2
