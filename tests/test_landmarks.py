import builtins
import os
import pathlib
import sys
import types

import numpy as np
import pytest
from tiny_ffpp import face_points

from msddf_jax.data.schema import FOREHEAD_LEFT_TO_RIGHT, LANDMARK_FLIP
from msddf_jax.faces import align, detect, landmarks, video

needs_models = pytest.mark.skipif(not os.environ.get("MSDDF_MODELS"), reason="set MSDDF_MODELS to the model files")


def test_order_of_files():
    points = np.random.default_rng(0).normal(size=(3, 81, 2)).astype(np.float32)
    ours = landmarks.from_dlib_order(points)
    np.testing.assert_array_equal(ours[:, :68], points[:, :68])
    np.testing.assert_array_equal(ours[:, 68], points[:, 77])  # the leftmost, by the published order
    np.testing.assert_array_equal(ours[:, 80], points[:, 78])
    np.testing.assert_array_equal(ours[:, 68:], points[:, FOREHEAD_LEFT_TO_RIGHT])
    np.testing.assert_array_equal(landmarks.to_dlib_order(ours), points)
    assert ours.dtype == np.float32


def test_order_leaves_its_input_alone():
    points = np.arange(162.0).reshape(81, 2)
    landmarks.from_dlib_order(points)
    landmarks.to_dlib_order(points)
    np.testing.assert_array_equal(points, np.arange(162.0).reshape(81, 2))


def test_order_wants_81_points():
    with pytest.raises(ValueError, match=r"\(68, 2\)"):
        landmarks.from_dlib_order(np.zeros((68, 2)))


def test_mesh_points_lie_on_the_parts_that_mediapipe_names():
    vision = pytest.importorskip("mediapipe.tasks.python.vision")
    parts = vision.FaceLandmarksConnections
    on = lambda lines: {i for line in lines for i in (line.start, line.end)}
    mesh = landmarks.MESH_TO_81
    assert len(mesh) == 81 and len(set(mesh.tolist())) == 81 and mesh.max() < 468
    oval = on(parts.FACE_LANDMARKS_FACE_OVAL)
    assert set(mesh[:17]) | set(mesh[68:]) <= oval
    # MediaPipe names sides of the person, dlib those of the picture.
    assert set(mesh[17:22]) <= on(parts.FACE_LANDMARKS_RIGHT_EYEBROW)
    assert set(mesh[22:27]) <= on(parts.FACE_LANDMARKS_LEFT_EYEBROW)
    assert set(mesh[27:36]) <= on(parts.FACE_LANDMARKS_NOSE)
    assert set(mesh[36:42]) <= on(parts.FACE_LANDMARKS_RIGHT_EYE)
    assert set(mesh[42:48]) <= on(parts.FACE_LANDMARKS_LEFT_EYE)
    assert set(mesh[48:68]) <= on(parts.FACE_LANDMARKS_LIPS)


def test_jaw_and_forehead_follow_the_oval_in_order():
    vision = pytest.importorskip("mediapipe.tasks.python.vision")
    follows = {line.start: line.end for line in vision.FaceLandmarksConnections.FACE_LANDMARKS_FACE_OVAL}
    ring = [10]
    while follows[ring[-1]] != 10:
        ring.append(follows[ring[-1]])
    # The ring runs from the top of the forehead to the right of the picture, down and round.
    position = {vertex: i for i, vertex in enumerate(ring)}
    jaw = [position[v] for v in landmarks.MESH_TO_81[:17]]
    forehead = [(position[v] + 18) % 36 for v in landmarks.MESH_TO_81[68:]]
    assert jaw == sorted(jaw, reverse=True)
    assert forehead == sorted(forehead)


def check_order(points):
    """Left of right, brow above eye above nose above mouth above chin, forehead above the brows."""
    x, y = points[:, 0], points[:, 1]
    assert (np.diff(x[3:14]) > 0).all(), "the jaw runs left to right"
    assert (np.diff(y[:9]) > 0).all() and (np.diff(y[8:17]) < 0).all(), "the jaw runs down and up again"
    assert (np.diff(x[17:27]) > 0).all(), "brows run left to right"
    assert (np.diff(y[27:31]) > 0).all(), "the nose ridge runs down"
    assert (np.diff(x[31:36]) > 0).all(), "nostrils run left to right"
    for eye, brow in ((slice(36, 42), slice(17, 22)), (slice(42, 48), slice(22, 27))):
        corner_left, upper_left, upper_right, corner_right, lower_right, lower_left = points[eye]
        assert corner_left[0] < upper_left[0] < upper_right[0] < corner_right[0]
        assert corner_left[0] < lower_left[0] < lower_right[0] < corner_right[0]
        assert upper_left[1] < lower_left[1] and upper_right[1] < lower_right[1]
        assert y[brow].max() < y[eye].min() + 0.5 * (y[eye].max() - y[eye].min())
    assert x[36:42].max() < x[42:48].min()
    assert y[36:48].max() < y[33] < y[48:68].min()
    assert (np.diff(x[48:55]) > 0).all() and (np.diff(x[54:60]) < 0).all(), "the outer lip runs round"
    assert (np.diff(x[60:65]) > 0).all() and (np.diff(x[64:68]) < 0).all(), "the inner lip runs round"
    assert y[50:53].max() < y[61:64].min() + 1 and y[65:68].max() < y[56:59].min() + 1
    assert y[48:68].max() < y[8]
    assert (np.diff(x[69:80]) > 0).all(), "the forehead runs left to right"
    assert y[75] < y[17:27].min()


def test_drawn_face_has_the_order_and_the_symmetry():
    points = face_points()
    check_order(points)
    np.testing.assert_allclose(points[LANDMARK_FLIP] * [-1, 1], points, atol=1e-9)


@needs_models
def test_no_landmarks_where_there_is_no_face():
    landmark = landmarks.make_landmarker()
    image = np.full((200, 200, 3), 128, np.uint8)
    assert landmark(image, [50, 50, 150, 150]) is None
    assert landmark(image, [300, 300, 400, 400]) is None  # outside the picture


@pytest.mark.real_data
@pytest.mark.parametrize("stem", ["004", "519", "634"])
def test_order_and_flip_on_real_faces(real_data, stem):
    clips = pathlib.Path(real_data) / "FaceForensics++/original_sequences/youtube/c23/videos"
    find, landmark = detect.make_detector(), landmarks.make_landmarker()
    for image in video.read_frames(clips / f"{stem}.mp4", 4).frames.values():
        points = landmark(image, find(image)[0].box)
        assert points.shape == (81, 2) and points.dtype == np.float32
        upright = align.transform_points(points, align.align_face(points, "dfb", 256))
        check_order(upright)
        flipped = np.ascontiguousarray(image[:, ::-1])
        other = landmark(flipped, find(flipped)[0].box)[LANDMARK_FLIP]
        other[:, 0] = image.shape[1] - 1 - other[:, 0]
        eyes = np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0))
        distance = np.linalg.norm(other - points, axis=1) / eyes
        # A wrong pair of points would be off by a part of the face, a half.
        assert distance.mean() < 0.04 and distance.max() < 0.15


@pytest.mark.parametrize(
    "reason, advice",
    [
        ("libEGL.so.1: cannot open shared object file", "apt-get install libegl1 libgles2"),
        ("No module named 'mediapipe'", "pip install mediapipe"),
    ],
)
def test_missing_mediapipe_says_what_to_install(monkeypatch, tmp_path, reason, advice):
    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "mediapipe":
            raise ImportError(reason)
        return builtin(name, *args, **kwargs)

    builtin = builtins.__import__
    monkeypatch.setattr(landmarks.fetch, "model_file", lambda *args: tmp_path / "face_landmarker.task")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError) as caught:
        landmarks.make_landmarker()
    message = str(caught.value)
    assert reason in message and advice in message and "--landmarks=sidecar" in message


def train_predictor(path, parts):
    """A predictor of dlib's own making, of one stage and a few trees, that has seen two squares."""
    dlib = pytest.importorskip("dlib", reason="dlib is optional: pip install dlib-bin")
    images, objects = [], []
    rng = np.random.default_rng(0)
    for shift in (0, 10):
        images.append(rng.integers(0, 256, (80, 80, 3), np.uint8))
        box = dlib.rectangle(10 + shift, 10, 50 + shift, 50)
        spots = [dlib.point(10 + shift + i % 9 * 5, 10 + i // 9 * 5) for i in range(parts)]
        objects.append([dlib.full_object_detection(box, spots)])
    options = dlib.shape_predictor_training_options()
    options.cascade_depth, options.num_trees_per_cascade_level, options.tree_depth = 1, 2, 2
    options.oversampling_amount, options.feature_pool_size, options.num_test_splits = 2, 20, 2
    options.num_threads = 1
    dlib.train_shape_predictor(images, objects, options).save(str(path))
    return path


def test_dlib_predictor_of_the_user(tmp_path):
    landmark = landmarks.make_landmarker("dlib", file=train_predictor(tmp_path / "81.dat", 81))
    points = landmark(np.zeros((80, 80, 3), np.uint8), [10.2, 9.6, 50, 50])
    assert (points.dtype, points.shape) == (np.float32, (81, 2))
    # What it learnt is the grid of its boxes, in dlib's order: point i at column i % 9, row i // 9.
    stored = landmarks.to_dlib_order(points)
    grid = np.stack([10 + np.arange(81) % 9 * 5, 10 + np.arange(81) // 9 * 5], 1)
    np.testing.assert_allclose(stored, grid, atol=2)


def test_dlib_file_that_is_none(tmp_path):
    with pytest.raises(landmarks.fetch.ModelFileError, match=r"--landmark_file is not given.*81_face_landmarks"):
        landmarks.make_landmarker("dlib")
    with pytest.raises(landmarks.fetch.ModelFileError, match="predicts 68 points, not 81"):
        landmarks.make_landmarker("dlib", file=train_predictor(tmp_path / "68.dat", 68))
    (tmp_path / "text.dat").write_text("no predictor")
    with pytest.raises(landmarks.fetch.ModelFileError, match=r"text\.dat is not a shape predictor"):
        landmarks.make_landmarker("dlib", file=tmp_path / "text.dat")


def test_dlib_through_its_interface(monkeypatch, tmp_path):
    """A stand-in for dlib: the order of files becomes that of memory, the box is rounded."""
    stored = np.random.default_rng(0).integers(0, 50, (81, 2))
    parts = [types.SimpleNamespace(x=int(x), y=int(y)) for x, y in stored]
    seen = []
    shape = types.SimpleNamespace(num_parts=81, parts=lambda: parts)
    fake = types.SimpleNamespace(
        shape_predictor=lambda path: lambda image, box: (seen.append(box), shape)[1], rectangle=lambda *box: box
    )
    monkeypatch.setitem(sys.modules, "dlib", fake)
    (tmp_path / "81.dat").touch()
    landmark = landmarks.make_landmarker("dlib", file=tmp_path / "81.dat")
    points = landmark(np.zeros((80, 80, 3), np.uint8), [1.4, 2.6, 30, 40])
    np.testing.assert_array_equal(points, landmarks.from_dlib_order(stored.astype(np.float32)))
    assert seen[-1] == (1, 3, 30, 40)


def test_unknown_landmarker():
    with pytest.raises(ValueError, match=r"'dlibb'.*mediapipe, dlib"):
        landmarks.make_landmarker("dlibb")
