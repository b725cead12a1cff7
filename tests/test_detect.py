import os
import pathlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from msddf_jax.faces import detect, video
from msddf_jax.faces.opencv import cv2

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
    largest, second = detect._detect_at(net, image, 640)
    assert net.sizes == [(640, 360)]
    assert net.images[0].shape == (360, 640, 3)
    assert net.images[0][0, 0].tolist() == [0, 0, 255]  # OpenCV's nets want blue first
    np.testing.assert_allclose(largest.box, [-0.5, 19.5, 39.5, 79.5], atol=1e-4)
    np.testing.assert_allclose(largest.points, [[9.5, 29.5]] * 5, atol=1e-4)
    assert largest.score == pytest.approx(0.9) and second.score == pytest.approx(0.99)


def test_no_rows_is_no_faces():
    assert detect._detect_at(FakeNet(None), np.zeros((10, 1000, 3), np.uint8), 640) == []


def test_unknown_detector():
    with pytest.raises(ValueError, match=r"'retina'.*yunet"):
        detect.make_detector("retina")


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
