import json

import prepared_tree
import pytest

from data_prep import layout
from data_prep.layout import PreparedDataError


def test_frames_are_sorted_by_number(tmp_path):
    prepared_tree.write_video(tmp_path, "000", frames=(1000, 5, 999, 10))
    video = layout.read_video(tmp_path, "000")
    assert [files.index for files in video.frames] == [5, 10, 999, 1000]
    assert video.frames[-1].image == tmp_path / "frames" / "000" / "1000.png"
    assert video.frames[-1].landmarks == tmp_path / "landmarks" / "000" / "1000.npy"
    assert video.frames[-1].mask is None


def test_companions_of_a_path_that_holds_the_word_frames(tmp_path):
    unit = tmp_path / "frames" / "unit"
    prepared_tree.write_video(unit, "000", mask=True)
    assert layout.read_video(unit, "000").frames[0].mask == unit / "masks" / "000" / "000.png"


def test_video_that_is_not_there(tmp_path):
    prepared_tree.write_video(tmp_path, "000")
    assert layout.read_video(tmp_path, "001") is None
    assert layout.read_video(tmp_path / "nowhere", "000") is None


def test_video_cut_off_before_its_meta_file_is_not_prepared(tmp_path):
    prepared_tree.write_video(tmp_path, "000")
    prepared_tree.write_video(tmp_path, "001", meta=False)
    assert layout.read_video(tmp_path, "001") is None
    assert len(layout.read_video(tmp_path, "000").frames) == 3


def test_video_without_a_face_has_no_frames(tmp_path):
    prepared_tree.write_meta(tmp_path, "000", ())
    video = layout.read_video(tmp_path, "000")
    assert (video.frames, video.num_frames) == ([], 11)


def test_frames_that_the_meta_file_does_not_list(tmp_path):
    prepared_tree.write_video(tmp_path, "000")
    (tmp_path / "frames" / "000" / "009.png").unlink()
    with pytest.raises(PreparedDataError, match=r"lists the frames \[0, 9, 10\] \(3\), .* holds \[0, 10\] \(2\)"):
        layout.read_video(tmp_path, "000")


def test_frame_without_landmarks(tmp_path):
    prepared_tree.write_video(tmp_path, "000")
    (tmp_path / "landmarks" / "000" / "009.npy").unlink()
    with pytest.raises(PreparedDataError, match=r"landmarks/000: no landmarks of frame 009\.png"):
        layout.read_video(tmp_path, "000")


@pytest.mark.parametrize(("name", "message"), [("a.png", "expected a frame number"), ("0009.png", "same frame")])
def test_odd_file_names(tmp_path, name, message):
    prepared_tree.write_video(tmp_path, "000")
    (tmp_path / "frames" / "000" / name).write_bytes(b"")
    with pytest.raises(PreparedDataError, match=message):
        layout.read_video(tmp_path, "000")


def test_hidden_and_other_files_are_passed_over(tmp_path):
    prepared_tree.write_video(tmp_path, "000")
    (tmp_path / "frames" / "000" / "._000.png").write_bytes(b"")
    (tmp_path / "frames" / "000" / "Thumbs.db").write_bytes(b"")
    assert len(layout.read_video(tmp_path, "000").frames) == 3


@pytest.mark.parametrize(
    "text",
    ["not json", "[]", "{}", json.dumps({"num_frames": 3, "frames": [{"frame_index": 0, "bbox": [1]}]})],
)
def test_meta_file_of_something_else(tmp_path, text):
    prepared_tree.write_video(tmp_path, "000")
    (tmp_path / "meta" / "000.json").write_text(text)
    with pytest.raises(PreparedDataError, match=r"meta/000\.json: not a meta file"):
        layout.read_video(tmp_path, "000")
