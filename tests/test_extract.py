import pathlib
import pickle

import numpy as np
import pytest
from tiny_ffpp import draw, face_points, similarity, write_clip, write_mask

from msddf_jax.faces import align, detect, extract, landmarks, video


def _face(box):
    return detect.Face(np.asarray(box, np.float32), 0.9, np.zeros((5, 2), np.float32))


def test_sidecar_end_to_end(tmp_path):
    path = tmp_path / "000.mp4"
    tracks = write_clip(path, num_frames=6)
    out = extract.extract_faces(path, num_frames=4, size=256, landmarks="sidecar")
    assert [face.frame_index for face in out.frames] == [0, 1, 3, 5]
    assert (out.drops, out.num_decoded, out.info.num_frames) == ([], 6, 6)
    for face in out.frames:
        points = tracks[face.frame_index]
        assert (face.image.shape, face.image.dtype) == ((256, 256, 3), np.uint8)
        assert (face.landmarks.shape, face.landmarks.dtype) == ((81, 2), np.float32)
        expected = align.transform_points(points, face.matrix)
        np.testing.assert_allclose(face.landmarks, expected, atol=1e-3)
        np.testing.assert_allclose(face.bbox, [*points.min(0), *points.max(0)], atol=1e-3)
        assert face.mask is None and face.num_faces == 1
        # The drawn dots are where the landmarks say, and those near the template.
        for index, channel in ((30, 2), (37, 1), (44, 1)):
            x, y = np.round(face.landmarks[index]).astype(int)
            assert face.image[y, x].argmax() == channel and face.image[y, x, channel] > 180
        five = align.alignment_points(face.landmarks, "dfb")
        assert np.abs(five - align.template_points("dfb", 256)).mean() < 12
    # One face under five poses: crops agree.
    first = out.frames[0].landmarks
    for face in out.frames[1:]:
        np.testing.assert_allclose(face.landmarks, first, atol=1e-2)


def test_frames_without_a_face_are_dropped_with_a_reason(tmp_path):
    path = tmp_path / "000.mp4"
    write_clip(path, num_frames=6, missing=[2, 5])
    out = extract.extract_faces(path, num_frames=6, size=64, landmarks="sidecar")
    assert [face.frame_index for face in out.frames] == [0, 1, 3, 4]
    assert [(drop.frame_index, drop.code) for drop in out.drops] == [(2, "no_face"), (5, "no_face")]


def test_mask_follows_the_crop(tmp_path):
    path = tmp_path / "000_001.mp4"
    tracks = write_clip(path)
    write_mask(tmp_path / "mask.mp4", tracks)
    out = extract.extract_faces(path, num_frames=3, size=128, landmarks="sidecar", mask_path=tmp_path / "mask.mp4")
    assert len(out.frames) == 3 and not out.drops
    for face in out.frames:
        assert (face.mask.shape, face.mask.dtype) == ((128, 128), np.uint8)
        assert set(np.unique(face.mask)) == {0, 255}
        x, y = np.round(face.landmarks[30]).astype(int)
        assert face.mask[y, x] == 255  # the nose is in the hull
        assert face.mask[4, 64] == 0  # above the forehead is not


@pytest.mark.parametrize("mask_frames, sampled", [(3, [0, 1, 2]), (1, [0])])
def test_shorter_mask_shortens_the_sampling(tmp_path, mask_frames, sampled):
    path = tmp_path / "000_001.mp4"
    tracks = write_clip(path)
    write_mask(tmp_path / "mask.mp4", tracks, num_frames=mask_frames)
    out = extract.extract_faces(path, num_frames=8, size=64, landmarks="sidecar", mask_path=tmp_path / "mask.mp4")
    assert [face.frame_index for face in out.frames] == sampled
    assert all(face.mask is not None for face in out.frames)
    assert [(drop.frame_index, drop.code) for drop in out.drops] == [(-1, "mask_len_mismatch")]


def test_mask_of_half_the_size_is_scaled(tmp_path):
    path = tmp_path / "000_001.mp4"
    tracks = write_clip(path)
    write_mask(tmp_path / "small.mp4", tracks / 2, width=80, height=64)
    write_mask(tmp_path / "whole.mp4", tracks)
    small, whole = (
        extract.extract_faces(path, num_frames=2, size=64, landmarks="sidecar", mask_path=tmp_path / name)
        for name in ("small.mp4", "whole.mp4")
    )
    a, b = small.frames[0].mask > 0, whole.frames[0].mask > 0
    assert (a & b).sum() / (a | b).sum() > 0.85


@pytest.mark.parametrize("kind, code", [("text", "mask_unreadable"), ("wide", "mask_size_mismatch")])
def test_unusable_mask_is_no_mask(tmp_path, kind, code):
    path, mask = tmp_path / "000_001.mp4", tmp_path / "mask.mp4"
    tracks = write_clip(path)
    if kind == "text":
        mask.write_text("no video")
    else:
        write_mask(mask, tracks, width=160, height=64)
    out = extract.extract_faces(path, num_frames=2, size=64, landmarks="sidecar", mask_path=mask)
    assert len(out.frames) == 2 and all(face.mask is None for face in out.frames)
    assert [drop.code for drop in out.drops] == [code]


def test_mask_that_breaks_off_loses_its_frames(tmp_path, monkeypatch):
    path, mask = tmp_path / "000_001.mp4", tmp_path / "mask.mp4"
    write_mask(mask, write_clip(path))
    read = video.read_frames

    def break_off(file, indices, **settings):
        decoded = read(file, indices, **settings)
        if pathlib.Path(file) == mask:
            del decoded.frames[5]
        return decoded

    monkeypatch.setattr(video, "read_frames", break_off)
    out = extract.extract_faces(path, num_frames=3, size=64, landmarks="sidecar", mask_path=mask)
    assert [face.frame_index for face in out.frames] == [0, 2]
    assert [(drop.frame_index, drop.code) for drop in out.drops] == [(5, "mask_len_mismatch")]


@pytest.mark.parametrize(
    "array, code, message",
    [
        (None, "landmarks_missing", "no such landmark file"),
        (b"text", "landmarks_invalid", "not an .npy file"),
        (np.zeros((6, 68, 2), np.float32), "landmarks_invalid", r"\(6, 68, 2\)"),
        (np.zeros((6, 81, 2), np.complex64), "landmarks_invalid", "complex64"),
    ],
)
def test_unusable_sidecar(tmp_path, array, code, message):
    path = tmp_path / "000.mp4"
    write_clip(path, sidecar=False)
    side = extract.sidecar_path(path)
    if isinstance(array, bytes):
        side.write_bytes(array)
    elif array is not None:
        np.save(side, array)
    with pytest.raises(extract.LandmarkFileError, match=message) as caught:
        extract.extract_faces(path, landmarks="sidecar")
    assert caught.value.code == code and str(side) in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).code == code


def test_short_sidecar_loses_its_frames(tmp_path):
    path = tmp_path / "000.mp4"
    tracks = write_clip(path)
    np.save(extract.sidecar_path(path), landmarks.to_dlib_order(tracks)[:4].astype(np.float32))
    out = extract.extract_faces(path, num_frames=6, size=64, landmarks="sidecar")
    assert [face.frame_index for face in out.frames] == [0, 1, 2, 3]
    assert [(drop.frame_index, drop.code) for drop in out.drops] == [
        (4, "landmarks_invalid"),
        (5, "landmarks_invalid"),
    ]


def test_points_that_fix_no_similarity_are_dropped(tmp_path):
    path = tmp_path / "000.mp4"
    write_clip(path)
    np.save(extract.sidecar_path(path), np.full((6, 81, 2), 7, np.float32))
    out = extract.extract_faces(path, num_frames=2, size=64, landmarks="sidecar")
    assert not out.frames
    assert {drop.code for drop in out.drops} == {"no_landmarks"}


def test_far_landmark_is_flagged_and_kept(tmp_path):
    path = tmp_path / "000.mp4"
    tracks = write_clip(path)
    tracks[:, 0] = 5000
    np.save(extract.sidecar_path(path), landmarks.to_dlib_order(tracks).astype(np.float32))
    out = extract.extract_faces(path, num_frames=2, size=64, landmarks="sidecar")
    assert len(out.frames) == 2
    assert [drop.code for drop in out.drops] == ["landmark_out_of_range"] * 2


def test_truncated_video_keeps_its_frames(tmp_path):
    path = tmp_path / "000.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8)
    video.write_video(path, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    track = align.transform_points(face_points(), similarity(0.15, 0, 32, 24))
    np.save(extract.sidecar_path(path), np.repeat(track[None].astype(np.float32), 20, 0))
    out = extract.extract_faces(path, num_frames=5, size=64, landmarks="sidecar")
    there = video.probe(path).num_frames
    assert 0 < there < 20
    # Sampled from what is there, and the last packets, too, may be damaged.
    assert set(face.frame_index for face in out.frames) < set(video.sample_indices(there, 5).tolist())
    first, *lost = [drop for drop in out.drops if drop.code == "truncated"]
    assert first == extract.Drop(-1, "truncated", f"the header promises 20 frames, {there} are there")
    assert len(lost) == 5 - len(out.frames) > 0
    assert lost[0].detail.startswith(f"{out.num_decoded} of {there} frames decode")


def test_models_are_used_frame_by_frame(tmp_path):
    path = tmp_path / "000.mp4"
    tracks = write_clip(path)
    calls = []

    def detector(image):
        index = len(calls)
        calls.append(image)
        return [] if index == 1 else [_face([*tracks[index].min(0), *tracks[index].max(0)]), _face([0, 0, 9, 9])]

    def landmarker(image, box):
        index = next(i for i, seen in enumerate(calls) if seen is image)
        np.testing.assert_allclose(box[:2], tracks[index].min(0), atol=1e-3)
        return None if index == 4 else tracks[index].astype(np.float32)

    out = extract.extract_faces(path, num_frames=6, size=64, detector=detector, landmarker=landmarker)
    assert [face.frame_index for face in out.frames] == [0, 2, 3, 5]
    assert [(drop.frame_index, drop.code) for drop in out.drops] == [(1, "no_face"), (4, "no_landmarks")]
    assert {face.num_faces for face in out.frames} == {2}


def test_wrong_arguments(tmp_path):
    path = tmp_path / "000.mp4"
    with pytest.raises(ValueError, match=r"'dlib'.*mediapipe, sidecar"):
        extract.extract_faces(path, landmarks="dlib")
    with pytest.raises(ValueError, match="needs a detector"):
        extract.extract_faces(path)
    with pytest.raises(ValueError, match="'arcface'"):
        extract.extract_faces(path, preset="arcface", landmarks="sidecar")


def test_image_with_points():
    points = align.transform_points(face_points(), similarity(0.4, 10, 80, 64))
    image = draw(points, 160, 128)
    out = extract.extract_faces_image(image, size=64, points=points)
    assert out.info is None and not out.drops
    np.testing.assert_allclose(out.frames[0].landmarks, align.transform_points(points, out.frames[0].matrix), atol=1e-3)


def test_image_with_models():
    points = align.transform_points(face_points(), similarity(0.4, 10, 80, 64)).astype(np.float32)
    image = draw(points, 160, 128)
    boxes = [[0, 0, 80, 80], [90, 0, 120, 30], [0, 90, 20, 110]]
    detector = lambda image: [_face(box) for box in boxes]
    landmarker = lambda image, box: None if box[0] == 90 else points + box[:2]
    out = extract.extract_faces_image(image, detector=detector, landmarker=landmarker, max_faces=3, size=64)
    assert [face.bbox.tolist() for face in out.frames] == [boxes[0], boxes[2]]
    assert [drop.code for drop in out.drops] == ["no_landmarks"]
    assert [face.num_faces for face in out.frames] == [3, 3]
    one = extract.extract_faces_image(image, detector=detector, landmarker=landmarker, size=64, max_faces=1)
    assert len(one.frames) == 1
    assert one.drops == [extract.Drop(-1, "more_faces", "3 faces, of which the 1 largest are scored")]
    none = extract.extract_faces_image(image, detector=lambda image: [], landmarker=landmarker)
    assert not none.frames and [drop.code for drop in none.drops] == ["no_face"]


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32)])
def test_image_of_another_kind(image):
    with pytest.raises(ValueError, match="expected uint8 RGB"):
        extract.extract_faces_image(image, points=np.zeros((81, 2)))


@pytest.mark.real_data
def test_real_clips_give_99_percent(real_data):
    root = pathlib.Path(real_data) / "FaceForensics++"
    detector, landmarker = detect.make_detector(), landmarks.make_landmarker()
    kept = sampled = 0
    for stem in ("634", "634_660"):
        (path,) = root.rglob(f"{stem}.mp4")
        out = extract.extract_faces(path, num_frames=32, detector=detector, landmarker=landmarker)
        kept, sampled = kept + len(out.frames), sampled + 32
        for face in out.frames:
            # A similarity cannot fit five points exactly, but a face it fits well.
            five = align.alignment_points(face.landmarks, "dfb")
            assert np.abs(five - align.template_points("dfb", 256)).mean() < 20
    assert kept / sampled >= 0.99


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "|u1"])
def test_sidecars_are_read_as_numpy_reads_them(tmp_path, order, dtype):
    points = np.random.default_rng(0).integers(0, 200, (3, 81, 2)).astype(dtype)
    np.save(tmp_path / "a.npy", np.asarray(points, order=order))
    expected = landmarks.from_dlib_order(np.load(tmp_path / "a.npy").astype(np.float32))
    np.testing.assert_array_equal(extract.read_sidecar(tmp_path / "a.npy"), expected)


def test_sidecar_with_a_pickle_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(extract.LandmarkFileError, match="landmarks_invalid"):
        extract.read_sidecar(tmp_path / "a.npy")


def test_a_point_beyond_any_image_is_damage(tmp_path):
    path = tmp_path / "000.mp4"
    tracks = write_clip(path)
    tracks[2, 5] = 3e8
    np.save(extract.sidecar_path(path), landmarks.to_dlib_order(tracks).astype(np.float32))
    out = extract.extract_faces(path, num_frames=6, size=64, landmarks="sidecar")
    assert [(drop.frame_index, drop.code) for drop in out.drops] == [(2, "landmarks_invalid")]
