"""The embedded data set: layout, splits, exact pixels, landmarks and masks."""

import json
import pathlib
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest

from data_prep.toy import body, generate, manipulate, motion, render, sheet, texture
from data_prep.toy import identity as idt
from msddf_jax.data.schema import LANDMARK_FLIP
from msddf_jax.faces.extract import read_sidecar, sidecar_path
from msddf_jax.faces.video import read_frames

SIZE, FRAMES, SEED = 64, 2, 3
FRONTAL = motion.Pose(0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("toy") / "set"
    assert generate.generate(out, 6, FRAMES, SIZE, SEED, workers=2) == 6 * (2 + 4 * 3)
    return out


@pytest.fixture(scope="module")
def pair(folder):
    first, second = json.loads((folder / "train.json").read_text())[0]
    return first, second, generate.draw_pair(SEED, first, second, FRAMES, SIZE)


def test_layout_is_that_of_ff(folder, pair):
    first, second, _ = pair
    for name in ("original_sequences/youtube/c23/videos/" + first,
                 f"manipulated_sequences/ToySwap/c23/videos/{first}_{second}",
                 f"manipulated_sequences/ToyTexture/c23/videos/{second}_{first}"):  # fmt: skip
        assert (folder / f"{name}.mp4").is_file()
        assert (folder / f"{name}.landmarks.npy").is_file()
    assert (folder / f"manipulated_sequences/ToyReenact/masks/videos/{first}_{second}.mp4").is_file()
    assert len(list(folder.rglob("*.mp4"))) == 6 + 2 * 4 * 6
    assert not [p for p in folder.rglob("*") if p.name.endswith(".part")]


def test_splits_hold_each_identity_once(folder):
    ids = [i for name in ("train", "val", "test") for p in json.loads((folder / f"{name}.json").read_text()) for i in p]
    assert sorted(ids) == [f"{i:03d}" for i in range(6)]
    splits = generate.split_pairs(120, 0)
    assert {name: 2 * len(pairs) for name, pairs in splits.items()} == {"train": 84, "val": 12, "test": 24}
    assert sorted(i for pairs in splits.values() for p in pairs for i in p) == [f"{i:03d}" for i in range(120)]
    assert generate.split_pairs(120, 1) != splits


def test_same_seed_same_bytes_in_another_process(pair):
    """The digest does not depend on the process, on what it drew before, or on its number of threads."""
    first, second, drawn = pair
    code = (
        "import cv2; cv2.setNumThreads(1)\n"
        "from data_prep.toy import generate as g\n"
        f"print(g.digest(g.draw_pair({SEED}, {first!r}, {second!r}, {FRAMES}, {SIZE})))"
    )
    root = pathlib.Path(generate.__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    other = run.stdout.strip()
    assert other == generate.digest(drawn)
    assert other != generate.digest(generate.draw_pair(SEED + 1, first, second, FRAMES, SIZE))


def test_files_hold_what_was_drawn(folder, pair):
    """Videos decode to the drawn frames up to the codec's loss, masks exactly, landmarks exactly."""
    _, _, drawn = pair
    for (kind, stem), forged in drawn.items():
        path = generate.video_path(folder, kind, stem)
        decoded = read_frames(path, list(range(FRAMES + 1)))
        assert decoded.num_decoded == FRAMES
        frames = np.stack([decoded.frames[t] for t in range(FRAMES)])
        assert frames.shape == (FRAMES, SIZE, SIZE, 3)
        assert np.abs(frames.astype(int) - forged.frames).mean() < 8
        np.testing.assert_array_equal(read_sidecar(sidecar_path(path)), forged.landmarks)
        if kind != "youtube":
            read = read_frames(generate.mask_path(folder, kind, stem), list(range(FRAMES))).frames
            masks = np.stack([read[t] for t in range(FRAMES)])
            np.testing.assert_array_equal(masks, np.repeat(forged.masks[..., None], 3, axis=-1))


@pytest.mark.parametrize("method", manipulate.METHODS)
def test_only_the_mask_changes(pair, method):
    first, second, drawn = pair
    real = drawn["youtube", first]
    forged = drawn[method, f"{first}_{second}"]
    changed = np.any(forged.frames != real.frames, axis=-1)
    inside = forged.masks > 0
    assert set(np.unique(forged.masks)) == {0, 255}
    assert not np.any(changed & ~inside)
    assert np.mean(changed[inside]) > 0.8
    assert 0.01 < inside.mean() < 0.4
    for mask, points in zip(forged.masks, forged.landmarks):  # where it should be: all round the lips
        columns, rows = np.round(points[48:60].mean(axis=0)).astype(int)
        assert mask[rows, columns] == 255


def test_each_method_leaves_its_own_trace():
    """At the size of the real set: neural loses fine detail, texture gains period 2, reenact moves the lips."""
    first, second = (manipulate.Actor(*render.render_video(0, i, 2, 128)) for i in (0, 1))
    forge = lambda m: manipulate.forge(m, first, second, np.random.default_rng(0))
    real = first.video

    def detail(frames, area):
        sharp = [cv2.Laplacian(f.astype(np.float32).mean(axis=-1), cv2.CV_32F) for f in frames]
        return np.abs(np.stack(sharp))[area > 0].mean()

    fake = forge("ToyNeural")
    assert detail(fake.frames, fake.masks) < 0.75 * detail(real.frames, fake.masks)
    fake = forge("ToyTexture")
    step = lambda frames: frames[..., 1].astype(float) * np.cos(np.pi * np.arange(128))
    inside = fake.masks > 0
    phase = lambda frames: abs(step(frames)[inside].sum()) / inside.sum()
    assert phase(fake.frames) > 4 * phase(real.frames)
    fake = forge("ToyReenact")
    driver = [render.landmarks_of(first.face, first.depth, e, p, 128)
              for e, p in zip(second.video.expressions, real.poses)]  # fmt: skip
    np.testing.assert_allclose(fake.landmarks[:, 48:68], np.stack(driver)[:, 48:68], atol=1e-4)
    assert np.abs(fake.landmarks - real.landmarks).max() > 1.0
    fake = forge("ToySwap")
    assert np.abs(fake.landmarks - real.landmarks)[:, :17].max() == 0
    assert np.abs(fake.landmarks - real.landmarks)[:, 17:68].max() > 0.5
    with pytest.raises(ValueError, match="ToySwap"):
        forge("toyswap")


def _landmarks(expression=idt.NEUTRAL, pose=FRONTAL, index=0):
    face = idt.sample_identity(0, index)
    depth = render.landmark_depth(face, texture.bake(face, 40.0))
    return render.landmarks_of(face, depth, expression, pose, 128)


@pytest.mark.parametrize("index", range(4))
def test_landmark_order(index):
    points = _landmarks(index=index)
    assert points.shape == (81, 2) and points.dtype == np.float32
    assert np.all(np.diff(points[:17, 0]) > 0)  # jaw, image left to right
    assert points[8, 1] == points[:, 1].max()
    for brow, eye in ((slice(17, 22), slice(36, 42)), (slice(22, 27), slice(42, 48))):
        assert points[brow, 1].max() < points[eye, 1].min()
    assert np.all(np.diff(points[[36, 39, 42, 45], 0]) > 0)
    assert points[37, 1] < points[41, 1] and points[44, 1] < points[46, 1]  # upper lid over lower
    assert np.all(np.diff(points[27:31, 1]) > 0) and np.all(np.diff(points[31:36, 0]) > 0)
    assert np.all(np.diff(points[[62, 66, 57], 1]) >= -1e-4) and points[51, 1] < points[62, 1]
    assert np.all(np.diff(points[48:55, 0]) > 0) and np.all(np.diff(points[54:60, 0]) < 0)
    assert np.all(np.diff(points[68:, 0]) > 0)  # forehead, image left to right
    assert points[68:, 1].max() < points[36:48, 1].max() and points[74, 1] < points[17:27, 1].min()
    flipped = points[LANDMARK_FLIP] * [-1, 1] + [127, 0]
    np.testing.assert_allclose(flipped, points, atol=0.05)


def test_landmarks_follow_pose_and_expression():
    neutral = _landmarks()
    turned = _landmarks(pose=FRONTAL._replace(yaw=15.0))
    # towards the image right: the nose moves right of the middle of the eyes
    assert turned[30, 0] - turned[[36, 45], 0].mean() > neutral[30, 0] - neutral[[36, 45], 0].mean() + 2
    nod = _landmarks(pose=FRONTAL._replace(pitch=10.0))
    assert nod[30, 1] - nod[36:48, 1].mean() > neutral[30, 1] - neutral[36:48, 1].mean() + 1
    open_mouth = _landmarks(idt.Expression(jaw=1.0))
    assert open_mouth[66, 1] - open_mouth[62, 1] > 5 and open_mouth[8, 1] > neutral[8, 1] + 3
    shut = _landmarks(idt.Expression(eye_open=0.0))
    assert abs(shut[37, 1] - shut[41, 1]) < 0.5 < neutral[41, 1] - neutral[37, 1]
    raised = _landmarks(idt.Expression(brow=1.0))
    assert np.all(raised[17:27, 1] < neutral[17:27, 1])


def test_landmarks_lie_on_what_is_drawn():
    """The pupils are the darkest spots between the lid points, the open mouth is dark between the inner lips."""
    face = idt.sample_identity(0, 1)
    baked = texture.bake(face, 77.0)
    pose = motion.Pose(10.0, -4.0, 5.0, 0.01, 0.0, 1.0)
    expression = idt.Expression(jaw=0.9)
    clip = motion.sample_clip(0, 1, 1, 256)
    layers = body.bake_layers(face, clip.lights[0], 256)
    image = render.render_linear(face, baked, layers, clip.backdrop, pose, expression, clip.lights[0]).mean(axis=-1)
    depth = render.landmark_depth(face, baked)
    points = render.landmarks_of(face, depth, expression, pose, 256)
    value = lambda p: image[tuple(np.round(p[::-1]).astype(int))]
    for lids in (slice(36, 42), slice(42, 48)):
        x, y = points[lids].mean(axis=0)
        window = image[int(y) - 9 : int(y) + 10, int(x) - 9 : int(x) + 10]
        row, column = np.unravel_index(np.argmin(cv2.GaussianBlur(window, (0, 0), 1.2)), window.shape)
        assert np.hypot(column - 9, row - 9) < 4.5
    cheek = value(0.5 * (points[3] + points[48]))
    mouth = points[[62, 66]]
    assert value(mouth[0] + 0.75 * (mouth[1] - mouth[0])) < 0.4 * cheek
    assert value(points[30]) > value(points[33] + [0, 1])  # nose tip over its underside


def _shown(path):
    with av.open(str(path)) as container:
        return np.array([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], float)


def test_resume_writes_only_what_is_missing(folder, pair):
    first, second, _ = pair
    gone = generate.video_path(folder, "ToySwap", f"{first}_{second}")
    kept = generate.video_path(folder, "ToyNeural", f"{first}_{second}")
    before, stamp = _shown(gone), kept.stat().st_mtime_ns
    gone.unlink()
    assert generate.generate(folder, 6, FRAMES, SIZE, SEED, workers=1) == 1
    # The pixels that are encoded are the same; libx264's bytes are so in nearly every run.
    assert np.abs(_shown(gone) - before).mean() < 1.0 and kept.stat().st_mtime_ns == stamp
    assert generate.generate(folder, 6, FRAMES, SIZE, SEED, workers=1) == 0


def test_failed_write_leaves_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    first, second = "000", "001"
    for paths in generate.pair_files(tmp_path, first, second).values():
        for path in paths:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
    real, calls = generate.write_video, []

    def full_disk(path, *args, **kwargs):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half a video")
            raise OSError(28, "No space left on device", str(path))
        real(path, *args, **kwargs)

    monkeypatch.setattr(generate, "write_video", full_disk)
    with pytest.raises(OSError, match="No space left"):
        generate.write_pair(tmp_path, SEED, first, second, 1, SIZE)
    assert len(list(tmp_path.rglob("*.mp4"))) == 2
    assert not [p for p in tmp_path.rglob("*") if p.name.endswith(".part")]
    assert (
        generate.write_pair(tmp_path, SEED, first, second, 1, SIZE) == 28 - 4
    )  # two videos and their landmarks were there
    assert generate.write_pair(tmp_path, SEED, first, second, 1, SIZE) == 0


def test_refuses_another_set_and_bad_arguments(folder, tmp_path):
    with pytest.raises(ValueError, match=r"toy\.json.*choose another --out"):
        generate.generate(folder, 6, FRAMES, SIZE, SEED + 1)
    for change in (dict(num_identities=7), dict(num_identities=4), dict(size=65), dict(size=32), dict(num_frames=0)):
        with pytest.raises(ValueError, match=str(next(iter(change.values())))):
            generate.generate(tmp_path / "new", **{"num_identities": 6, **change})
    assert not (tmp_path / "new").exists()


def test_contact_sheet(folder):
    image = sheet.contact_sheet(folder, rows=2, scale=1, landmarks=True)
    assert image.shape == (2 * SIZE, 9 * SIZE, 3)
    with pytest.raises(FileNotFoundError, match=r"test\.json"):
        sheet.contact_sheet(folder / "original_sequences")
