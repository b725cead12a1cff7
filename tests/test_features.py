import io
import pathlib
import tempfile

import hypothesis
import numpy as np
import PIL.Image
import prepared_tree
import pytest
from hypothesis import strategies as st

from data_prep import features, layout
from data_prep.layout import PreparedDataError
from msddf_jax.data import schema

SETTINGS = hypothesis.settings(deadline=None, max_examples=150)


def _png(array):
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


IMAGE = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
GOOD_PNG = _png(IMAGE)
GOOD_NPY = _npy(prepared_tree.landmarks(0))


def test_label_orders_are_the_stored_contract():
    feature = features.record_features()
    assert feature["label"].names == ["real", "fake"]
    assert feature["method"].names[:5] == ["real", "deepfakes", "face2face", "faceswap", "neuraltextures"]
    assert feature["dataset"].names[:2] == ["faceforensics", "toy"]
    assert feature["compression"].names == ["raw", "c23", "c40", "none"]


def test_landmarks_become_left_to_right(tmp_path):
    np.save(tmp_path / "000.npy", prepared_tree.landmarks(0))
    points = features.read_landmarks(tmp_path / "000.npy")
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points[:68, 0], np.arange(68))
    # Point k of the file has x = k, so the x of the forehead are the file's numbers (SBI's order).
    np.testing.assert_array_equal(points[68:, 0], [77, 75, 76, 68, 69, 70, 71, 80, 72, 73, 79, 74, 78])


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "|i1", "<u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_landmark_files_are_read_as_numpy_reads_them(tmp_path, dtype, order):
    array = np.asarray(np.arange(162).reshape(81, 2) % 100, dtype, order=order)
    np.save(tmp_path / "000.npy", array)
    points = features.read_landmarks(tmp_path / "000.npy")
    np.testing.assert_array_equal(points[:68], np.load(tmp_path / "000.npy")[:68])


def test_integer_landmarks_of_deepfakebench_are_read(tmp_path):
    np.save(tmp_path / "000.npy", np.full((81, 2), -3, np.int64))
    np.testing.assert_array_equal(features.read_landmarks(tmp_path / "000.npy"), np.full((81, 2), -3.0))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"these are no landmarks",
        GOOD_NPY[:-1],
        GOOD_NPY + b"0" * 20000,
        _npy(np.zeros((68, 2), np.float32)),
        _npy(np.full((81, 2), np.nan, np.float32)),
        _npy(np.array([["a", "b"]] * 81)),
        GOOD_NPY.replace(b"(81, 2)", b"(9**9,)"),
    ],
    ids=["empty", "text", "short", "long", "68", "nan", "strings", "header"],
)
def test_bad_landmarks_are_named(tmp_path, data):
    (tmp_path / "007.npy").write_bytes(data)
    with pytest.raises(PreparedDataError, match=r"007\.npy: not a landmarks file"):
        features.read_landmarks(tmp_path / "007.npy")


def test_pickled_landmarks_are_refused(tmp_path):
    np.save(tmp_path / "000.npy", np.array([[1, 2]] * 81, object), allow_pickle=True)
    with pytest.raises(PreparedDataError, match="not an npy file of numbers"):
        features.read_landmarks(tmp_path / "000.npy")


def _corrupt(data, cut, position, value):
    data = bytearray(data[: len(data) - cut])
    if data:
        data[position % len(data)] = value
    return bytes(data)


@SETTINGS
@hypothesis.given(cut=st.integers(0, 200), position=st.integers(0, 1000), value=st.integers(0, 255))
def test_corrupt_files_give_one_kind_of_error(cut, position, value):
    with tempfile.TemporaryDirectory() as folder:
        image, points = pathlib.Path(folder) / "0.png", pathlib.Path(folder) / "0.npy"
        image.write_bytes(_corrupt(GOOD_PNG, cut, position, value))
        points.write_bytes(_corrupt(GOOD_NPY, cut, position, value))
        try:
            data, size = features.read_png(image, "RGB")
            assert np.asarray(PIL.Image.open(io.BytesIO(data))).shape == (*size, 3)
        except PreparedDataError as error:
            assert "0.png" in str(error)
        try:
            assert features.read_landmarks(points).shape == (81, 2)
        except PreparedDataError as error:
            assert "0.npy" in str(error)


def test_png_is_kept_byte_for_byte(tmp_path):
    (tmp_path / "000.png").write_bytes(GOOD_PNG)
    assert features.read_png(tmp_path / "000.png", "RGB") == (GOOD_PNG, (5, 4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PNG that is text\n", "not a readable PNG"),
        (GOOD_PNG[:-30], "not a readable PNG"),
        (_png(IMAGE[..., 0]), "8-bit RGB PNG, got mode L"),
        (_png(np.zeros((3, 3), np.uint16)), "8-bit RGB PNG, got mode I;16"),
    ],
    ids=["text", "truncated", "grey", "16-bit"],
)
def test_bad_png_is_named(tmp_path, data, message):
    (tmp_path / "012.png").write_bytes(data)
    with pytest.raises(PreparedDataError, match=f"012.png: .*{message}"):
        features.read_png(tmp_path / "012.png", "RGB")


def test_jpeg_named_png_is_refused(tmp_path):
    PIL.Image.fromarray(IMAGE).save(tmp_path / "000.png", "JPEG")
    with pytest.raises(PreparedDataError, match="not a readable PNG"):
        features.read_png(tmp_path / "000.png", "RGB")


def test_missing_png_is_named(tmp_path):
    with pytest.raises(PreparedDataError, match=r"000\.png: no such file"):
        features.read_png(tmp_path / "000.png", "RGB")


def test_three_channel_mask_is_converted_with_threshold_one(tmp_path):
    mask = np.zeros((1, 4, 3), np.uint8)
    mask[0, :, 2] = [0, 1, 2, 255]
    PIL.Image.fromarray(mask).save(tmp_path / "000.png")
    data, size = features.read_png(tmp_path / "000.png", "L")
    assert size == (1, 4)
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(data))), [[0, 0, 255, 255]])


FIELDS = {"label": "real", "method": "real", "video_id": "000", "compression": "c23"}


def _encode(root, *, mask=False, label="real", publishes_masks=True, **kwargs):
    unit = prepared_tree.real_unit(root)
    prepared_tree.write_video(unit, "000", mask=mask, **kwargs)
    video = layout.read_video(unit, "000")
    fields = FIELDS | {"label": label}
    return features.encode_frame(video.frames[2], video, root=root, publishes_masks=publishes_masks, fields=fields)


def test_record_holds_the_files_and_the_geometry(tmp_path):
    record = _encode(tmp_path, mask=True, label="fake")
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(record["mask"]))), prepared_tree.mask_of(10, 16))
    assert PIL.Image.open(io.BytesIO(record["image"])).getpixel((0, 0)) == (10, 0, 0)
    np.testing.assert_array_equal(record["bbox"], [1, 2, 3, 14])
    np.testing.assert_array_equal(record["align_matrix"], [[1, 0, 10], [0, 1, 5]])
    assert record["frame_index"] == 10
    assert record["num_frames_video"] == 11
    assert record["source_path"] == "original_sequences/youtube/c23/frames/000/010.png"
    assert record["has_mask"]
    assert record["has_landmarks"]
    assert record["landmarks"][0, 0] == np.float32(10 / 16)
    missing = set(features.record_features()) - set(record)
    assert missing == {"dataset", "pair_id", "group_id", "source_identity", "target_identity"}


@pytest.mark.parametrize(
    ("label", "publishes_masks", "expected"),
    [("real", True, True), ("real", False, False), ("fake", True, False), ("fake", False, False)],
)
def test_has_mask_without_a_mask_file(tmp_path, label, publishes_masks, expected):
    record = _encode(tmp_path, label=label, publishes_masks=publishes_masks)
    assert record["has_mask"] is expected
    assert not np.asarray(PIL.Image.open(io.BytesIO(record["mask"]))).any()


def test_mask_of_another_size_is_an_error(tmp_path):
    unit = prepared_tree.real_unit(tmp_path)
    prepared_tree.write_video(unit, "000", mask=True)
    PIL.Image.fromarray(np.zeros((8, 9), np.uint8)).save(unit / "masks" / "000" / "010.png")
    video = layout.read_video(unit, "000")
    with pytest.raises(PreparedDataError, match=r"masks/000/010\.png: the mask is 9x8, .* is 16x16"):
        features.encode_frame(video.frames[2], video, root=tmp_path, publishes_masks=True, fields=FIELDS)


def test_absent_landmarks_are_flagged(tmp_path):
    unit = prepared_tree.real_unit(tmp_path)
    prepared_tree.write_video(unit, "000")
    for path in (unit / "landmarks" / "000").iterdir():
        path.unlink()
    (unit / "landmarks" / "000").rmdir()
    (unit / "landmarks").rmdir()
    video = layout.read_video(unit, "000")
    record = features.encode_frame(video.frames[0], video, root=tmp_path, publishes_masks=True, fields=FIELDS)
    assert record["has_landmarks"] is False
    np.testing.assert_array_equal(record["landmarks"], np.full((schema.NUM_LANDMARKS, 2), -1))
