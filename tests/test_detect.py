import os
import pathlib
import sys
import types

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from msddf_jax.faces import detect, fetch, scrfd, video
from msddf_jax.opencv import cv2

boxes = st.tuples(*[st.floats(-100, 100)] * 2, *[st.floats(0.1, 100)] * 2).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)
needs_models = pytest.mark.skipif(not os.environ.get("MSDDF_MODELS"), reason="set MSDDF_MODELS to the model files")


def test_box_iou_by_hand():
    assert detect.box_iou([0, 0, 10, 10], [5, 0, 15, 10]) == pytest.approx(1 / 3)
    assert detect.box_iou([0, 0, 10, 10], [10, 0, 20, 10]) == 0
    assert detect.box_iou([0, 0, 0, 0], [0, 0, 0, 0]) == 0


@hypothesis.given(boxes, boxes)
def test_box_iou_properties(a, b):
    assert detect.box_iou(a, a) == pytest.approx(1)
    assert 0 <= detect.box_iou(a, b) <= 1 + 1e-9
    assert detect.box_iou(a, b) == pytest.approx(detect.box_iou(b, a))


class FakeNet:
    """Stands in for cv2.FaceDetectorYN: gives fixed rows, and notes what it was shown."""

    def __init__(self, rows):
        self.rows, self.sizes, self.images = rows, [], []

    def setInputSize(self, size):
        self.sizes.append(size)

    def detect(self, image):
        self.images.append(image)
        return 1, self.rows


def test_boxes_and_points_come_back_in_pixels_of_the_image():
    # At half size, the pixel edges -0.5 and 19.5 are -0.5 and 39.5 of the image.
    row = [-0.5, 9.5, 20, 30] + [4.5, 14.5] * 5 + [0.9]
    small = [99.5, 99.5, 10, 10] + [0] * 10 + [0.99]
    net = FakeNet(np.array([small, row], np.float32))
    image = np.zeros((720, 1280, 3), np.uint8)
    image[..., 0] = 255
    second, largest = detect._detect_at(net, image, 640)
    assert net.sizes == [(640, 360)]
    assert net.images[0].shape == (360, 640, 3)
    assert net.images[0][0, 0].tolist() == [0, 0, 255]  # OpenCV's nets want blue first
    np.testing.assert_allclose(largest.box, [-0.5, 19.5, 39.5, 79.5], atol=1e-4)
    np.testing.assert_allclose(largest.points, [[9.5, 29.5]] * 5, atol=1e-4)
    assert largest.score == pytest.approx(0.9) and second.score == pytest.approx(0.99)


def test_no_rows_is_no_faces():
    assert detect._detect_at(FakeNet(None), np.zeros((10, 1000, 3), np.uint8), 640) == []


def test_largest_first(monkeypatch):
    row = lambda side: [0, 0, side, side] + [0] * 10 + [0.9]
    net = FakeNet(np.array([row(10), row(30), row(20)], np.float32))
    monkeypatch.setattr(detect.fetch, "model_file", lambda *args: "yunet.onnx")
    monkeypatch.setattr(detect.cv2.FaceDetectorYN, "create", lambda *args: net)
    faces = detect.make_detector()(np.zeros((640, 640, 3), np.uint8))
    assert [round(float(face.box[2] - face.box[0])) for face in faces] == [30, 20, 10]
    assert net.sizes == [(640, 640)]  # 320 only where 640 finds nothing


def test_unknown_detector():
    with pytest.raises(ValueError, match=r"'retina'.*yunet, scrfd, dlib"):
        detect.make_detector("retina")


def scrfd_heads(faces):
    """The nine outputs with only these faces: (stride, row, column, anchor, score, four distances, ten offsets)."""
    heads = {}
    for stride in (8, 16, 32):
        rows = 2 * (640 // stride) ** 2
        heads[stride] = [np.zeros((rows, width), np.float32) for width in (1, 4, 10)]
    for stride, row, column, anchor, score, distances, points in faces:
        at = (row * (640 // stride) + column) * 2 + anchor
        for head, value in zip(heads[stride], (score, distances, points)):
            head[at] = value
    return heads


# Cell (row 10, column 20) of stride 8 is at pixel (160, 80): 2, 3, 4, 5 strides left, up, right, down.
ONE = (8, 10, 20, 1, 0.9, [2, 3, 4, 5], [0, 0, 1, 0, 0.5, 1, 0, 2, 1, 2])


def test_scrfd_heads_by_hand():
    heads = scrfd_heads([ONE, (32, 2, 3, 0, 0.39, [1] * 4, [0] * 10), (16, 0, 1, 0, 0.5, [0, 0, 2, 2], [1] * 10)])
    outputs = [head for stride in (8, 16, 32) for head in heads[stride]]
    for order in (outputs, outputs[::-1], [head[None] for head in outputs]):
        scores, boxes, points = scrfd.decode_heads(order)
        np.testing.assert_allclose(scores, [0.9, 0.5])  # 0.39 is below the threshold
        np.testing.assert_allclose(boxes, [[144, 56, 192, 120], [16, 0, 48, 32]])
        np.testing.assert_allclose(points[0], [[160, 80], [168, 80], [164, 88], [160, 96], [168, 96]])
        np.testing.assert_allclose(points[1], [[32, 16]] * 5)


def test_scrfd_suppression_by_hand():
    boxes = np.array([[0, 0, 100, 100], [0, 0, 100, 60], [0, 0, 100, 39], [200, 200, 300, 300]], np.float32)
    # Overlaps with the first: 0.6 goes, 0.39 stays.
    assert scrfd.suppress(np.array([0.9, 0.8, 0.7, 0.95], np.float32), boxes).tolist() == [3, 0, 2]
    assert scrfd.suppress(np.zeros(0, np.float32), np.zeros((0, 4), np.float32)).tolist() == []


def test_scrfd_letterbox_by_hand():
    image = np.full((360, 1280, 3), (255, 0, 127), np.uint8)
    blob, small = scrfd.letterbox(image)
    assert (blob.shape, blob.dtype, small) == ((1, 3, 640, 640), np.float32, (640, 180))
    np.testing.assert_allclose(blob[0, :, 100, 600], np.array([127.5, -127.5, -0.5]) / 128)  # red first
    np.testing.assert_allclose(blob[0, :, 181, 0], -127.5 / 128)


class FakeScrfd:
    """Stands in for cv2.dnn.Net."""

    def __init__(self, outputs):
        self.outputs = outputs

    def setInput(self, blob):
        assert blob.shape == (1, 3, 640, 640)

    def getUnconnectedOutLayersNames(self):
        return ("a", "b")

    def forward(self, names):
        return self.outputs


def test_scrfd_as_a_detector(monkeypatch, tmp_path):
    heads = scrfd_heads([ONE, (8, 10, 21, 0, 0.8, [2, 3, 4, 5], [0] * 10), (16, 20, 30, 0, 0.5, [2] * 4, [0] * 10)])
    net = FakeScrfd([head for stride in (8, 16, 32) for head in heads[stride]])
    monkeypatch.setattr(detect.cv2.dnn, "readNetFromONNX", lambda path: net)
    (tmp_path / "det_10g.onnx").touch()
    find = detect.make_detector("scrfd", file=tmp_path / "det_10g.onnx")
    large, small = find(np.zeros((320, 320, 3), np.uint8))  # half the input's size; the neighbour is suppressed
    assert (large.score, small.score) == (0.5, pytest.approx(0.9))
    # Centre (480, 320), 32 pixels each way at 640; pixel edges halve.
    np.testing.assert_allclose((large.box + 0.5) * 2 - 0.5, [448, 288, 512, 352])
    np.testing.assert_allclose((small.box + 0.5) * 2 - 0.5, [144, 56, 192, 120])
    np.testing.assert_allclose((small.points[2] + 0.5) * 2 - 0.5, [164, 88])


def test_scrfd_wants_the_users_file(tmp_path):
    with pytest.raises(fetch.ModelFileError, match=r"--detector_file is not given.*det_10g\.onnx"):
        detect.make_detector("scrfd")
    with pytest.raises(fetch.ModelFileError, match=r"nowhere\.onnx is not there"):
        detect.make_detector("scrfd", file=tmp_path / "nowhere.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(fetch.ModelFileError, match=r"text\.onnx is not SCRFD"):
        detect.make_detector("scrfd", file=tmp_path / "text.onnx")
    with pytest.raises(ValueError, match=r"\[12800, 1\].*stride 8"):
        scrfd.decode_heads([np.zeros((12800, 1)), np.zeros((12800, 4))])


def test_dlib_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(ImportError, match=r"pip install dlib-bin.*--detector=yunet"):
        detect.make_detector("dlib")


def test_dlib_boxes(monkeypatch):
    """A stand-in with dlib's interface: rectangles with inclusive corners, scores beside them."""
    sides = {"left": 3, "top": 4, "right": 10, "bottom": 20}
    rectangle = types.SimpleNamespace(**{name: lambda v=v: v for name, v in sides.items()})
    seen = []
    run = lambda image, upsample: (seen.append((image.shape, upsample)), ([rectangle], [1.5], [0]))[1]
    fake = types.SimpleNamespace(get_frontal_face_detector=lambda: types.SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "dlib", fake)
    (face,) = detect.make_detector("dlib")(np.zeros((30, 40, 3), np.uint8))
    assert (face.box.tolist(), face.score, seen) == ([3, 4, 10, 20], 1.5, [((30, 40, 3), 1)])
    assert np.isnan(face.points).all()


def test_dlib_itself():
    pytest.importorskip("dlib", reason="dlib is optional: pip install dlib-bin")
    find = detect.make_detector("dlib")
    assert find(np.zeros((90, 120, 3), np.uint8)) == []


@needs_models
def test_no_face_in_noise_and_blank():
    find = detect.make_detector()
    assert find(np.zeros((90, 120, 3), np.uint8)) == []
    assert find(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)) == []
    assert find(np.zeros((1, 1, 3), np.uint8)) == []
    with pytest.raises(ValueError, match="float32"):
        find(np.zeros((90, 120, 3), np.float32))


@pytest.mark.real_data
def test_box_follows_the_image(real_data):
    clips = pathlib.Path(real_data) / "FaceForensics++/original_sequences/youtube/c23/videos"
    image = video.read_frames(clips / "634.mp4", [100]).frames[100]
    find = detect.make_detector()
    face = find(image)[0]
    left, right, nose, mouth_left, mouth_right = face.points
    assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0]
    assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    side = face.box[2] - face.box[0]
    half = find(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))[0]
    np.testing.assert_allclose((half.box + 0.5) * 2 - 0.5, face.box, atol=0.05 * side)
    flipped = find(np.ascontiguousarray(image[:, ::-1]))[0]
    width = image.shape[1]
    mirrored = np.stack([width - 1 - flipped.points[[1, 0, 2, 4, 3], 0], flipped.points[[1, 0, 2, 4, 3], 1]], 1)
    np.testing.assert_allclose(mirrored, face.points, atol=0.1 * side)  # a wrong pair is off by 0.4
