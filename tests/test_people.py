"""Everybody's verdict in a video, the worst stretch, and the lines that say it, worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_verdict import make_calibration

from msddf_jax.faces import detect, extract, find, scene, video
from msddf_jax.show import lines, plots, records
from msddf_jax.statistics import people


def test_the_verdict_is_about_the_person_of_the_highest_score():
    frames, tracks = [0, 0, 10, 10, 20, 20, 30], [0, 1, 0, 1, 0, 1, 0]
    scores = [0.1, 0.8, 0.1, 0.9, 0.3, 0.7, 0.1]
    found, best = people.judge_people(frames, tracks, scores, [0, 10, 20, 30])
    assert [person.track for person in found] == [0, 1] and best == 1
    assert found[0].judged.score == pytest.approx(0.15) and found[0].judged.label == "real"
    assert found[1].judged.score == pytest.approx(0.8) and found[1].judged.label == "fake"
    assert found[1].rows.tolist() == [1, 3, 5] and found[1].decides
    # From its first frame to half-way between its last one and the next that was looked at.
    assert found[1].stretch == (0.0, 25.0, pytest.approx(0.8), 3)


def test_a_face_of_a_moment_does_not_decide():
    """Seen in one frame, where the other person is seen in five: reported, and the verdict is about the other."""
    frames, tracks = [0, 1, 2, 3, 4, 4], [0, 0, 0, 0, 0, 1]
    found, best = people.judge_people(frames, tracks, [0.2] * 5 + [0.99], range(5))
    assert best == 0 and not found[1].decides and found[1].judged.label == "fake"
    # A quarter is enough.
    found, best = people.judge_people([0, 1, 2, 3, 3], [0, 0, 0, 0, 1], [0.2] * 4 + [0.99], range(4))
    assert best == 1


def test_each_person_is_calibrated_alike():
    fitted = make_calibration(2.0, 0.9)
    found, best = people.judge_people([0, 0], [0, 1], [0.85, 0.95], [0], fitted)
    assert [person.judged.label for person in found] == ["real", "fake"] and best == 1


def test_two_faces_of_one_person_in_a_frame_are_an_error():
    with pytest.raises(ValueError, match="two faces in one frame"):
        people.judge_people([0, 0], [1, 1], [0.5, 0.5], [0])


def test_the_worst_stretch():
    """Sums over the threshold 0.5: -.4 .3 .4 -.1 .2 -.4 .3; the best run is the second to the fifth frame, 0.8."""
    scores = [0.1, 0.8, 0.9, 0.4, 0.7, 0.1, 0.8]
    frames = np.arange(7) * 10
    assert people.find_stretch(frames, scores, 0.5, frames) == (5.0, 45.0, pytest.approx(0.7), 4)
    # Nothing above it: the highest frame alone.
    assert people.find_stretch([0, 10, 20], [0.1, 0.4, 0.2], 0.5, [0, 10, 20]) == (5.0, 15.0, 0.4, 1)
    # A frame in which this face is not seen ends the reach of the run.
    assert people.find_stretch([0, 40], [0.9, 0.1], 0.5, [0, 10, 20, 30, 40]) == (0.0, 5.0, 0.9, 1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.1, 0.9))
def test_no_other_stretch_is_worse(scores, threshold):
    """Against all runs, one by one."""
    frames = np.arange(len(scores))
    found = people.find_stretch(frames, scores, threshold, frames)
    runs = [
        np.sum(np.array(scores[i:j]) - threshold) for i in range(len(scores)) for j in range(i + 1, len(scores) + 1)
    ]
    inside = [s for f, s in zip(frames, scores, strict=True) if found.start <= f <= found.end]
    assert np.sum(np.array(inside) - threshold) == pytest.approx(max(runs), abs=1e-9)


POINTS = np.stack(np.meshgrid(np.linspace(0.2, 0.8, 9), np.linspace(0.2, 0.8, 9)), -1).reshape(81, 2)


def _models(boxes_of):
    """Face models that know: frames are named by the grey level of their corner."""

    def detector(image):
        found = [np.array(box, np.float32) for box in boxes_of(int(image[0, 0, 0]) // 10)]
        faces = [detect.Face(box, 1.0, np.zeros((5, 2), np.float32)) for box in found]
        return sorted(faces, key=lambda face: -detect.box_area(face.box))

    landmarker = lambda image, box: (box[:2] + POINTS * (box[2:] - box[:2])).astype(np.float32)
    return {"detector": detector, "landmarker": landmarker}


def _clip(path, count=12):
    """Twelve frames; the corner names the frame, the small face on the right is bright from the fifth to the eighth."""
    frames = np.full((count, 96, 160, 3), 40, np.uint8)
    for i in range(count):
        frames[i, :16, :16] = 10 * i + 5
        frames[i, 60:84, 120:144] = 230 if 4 <= i < 8 else 40
    video.write_video(path, frames, fps=4, crf=1)
    return path


def _both(index):
    return [[20, 20, 80, 80], [120 + index % 2, 60, 144 + index % 2, 84]]


def test_the_smaller_face_is_scored_and_named(tmp_path):
    path = _clip(tmp_path / "two.mp4")
    found = extract.extract_faces(path, num_frames=12, size=32, faces="people", **_models(_both))
    assert [(f.frame_index, f.track) for f in found.frames] == [(i, t) for i in range(12) for t in (0, 1)]
    outputs = [{"score": 0.9 if face.image[16, 16, 0] > 128 else 0.1} for face in found.frames]
    record = records.summarize(found, outputs, aggregate="top3")
    assert record["track"] == 1 and record["label"] == "fake"
    first, second = record["people"]
    assert first["label"] == "real" and second["label"] == "fake" and second["decides"]
    # Bright in frames 4 to 7, at 4 frames a second: from 1 to 2 s.
    assert second["stretch"]["start"] == pytest.approx(1.0, abs=0.13)
    assert second["stretch"]["end"] == pytest.approx(1.9, abs=0.13)
    assert record["frame_indices"] == list(range(12)) and record["frames_used"] == 12
    line = lines.describe({"file": "two.mp4", **record}, 7)
    assert line.startswith("two.mp4  FAKE score 0.") and "person 2 of 2, 12 of 12 frames" in line
    assert "worst 0.9-1.9 s (0.90)" in line and max(map(len, line.splitlines())) <= 80
    rows = records.timeline_rows(record, found)
    assert [row["frames"] for row in rows] == [list(range(12))] * 2 and rows[1]["thumbnail"][16, 16, 0] > 128
    judged = people.verdict.Verdict(*(record[name] for name in people.verdict.Verdict._fields))
    assert plots.draw_timeline("two", rows, judged, named=1, fps=4.0).shape == (630, 900, 3)
    alone = extract.extract_faces(path, num_frames=12, size=32, **_models(_both))
    assert {face.track for face in alone.frames} == {0} and len(alone.frames) == 12


def test_one_face_at_a_time_is_one_person(tmp_path):
    """After a cut the face is elsewhere: where no frame shows two, the tracks are not taken apart."""
    path = _clip(tmp_path / "cut.mp4")
    models = _models(lambda index: [[20, 20, 60, 60] if index < 6 else [100, 30, 140, 70]])
    found = extract.extract_faces(path, num_frames=12, size=32, faces="people", **models)
    assert len(found.frames) == 12 and {face.track for face in found.frames} == {0}


def test_a_crowd_is_said(tmp_path):
    path = _clip(tmp_path / "crowd.mp4")
    models = _models(lambda index: [[16 * i, 20, 16 * i + 8 + i / 10, 28] for i in range(10)])
    found = extract.extract_faces(path, num_frames=3, size=32, faces="people", **models)
    assert {face.track for face in found.frames} == set(range(extract.MAX_PEOPLE))
    [drop] = [d for d in found.drops if d.code == "more_faces"]
    assert drop.detail == "2 smaller faces are not scored, only the 8 largest"


def test_small_faces_of_a_large_image_are_found():
    """A detector that sees faces of 20 pixels and more of an image brought to 640, as YuNet does about 10."""
    rng = np.random.default_rng(0)
    image = np.zeros((1500, 2200, 3), np.uint8)
    places = [(100, 100, 40), (900, 700, 40), (925, 1400, 40), (1700, 300, 400), (2100, 1450, 30), (1195, 40, 44)]
    for x, y, side in places:
        image[y : y + side, x : x + side] = rng.integers(128, 256)

    def detector(part):
        scale = 640 / max(part.shape[:2])
        *_, stats, _ = detect.cv2.connectedComponentsWithStats((part[..., 0] > 0).astype(np.uint8))
        boxes = [np.array([x, y, x + w, y + h], np.float32) for x, y, w, h, _ in stats[1:]]
        return [detect.Face(box, 1.0, np.zeros((5, 2), np.float32)) for box in boxes if scale * (box[2] - box[0]) >= 20]

    assert len(detector(image)) == 1
    found = detect.search_image(detector, image)
    assert sorted(face.box.tolist() for face in found) == sorted([x, y, x + s, y + s] for x, y, s in places)
    assert detect.box_area(found[0].box) == 400**2
    small = np.zeros((300, 400, 3), np.uint8)
    assert detect.search_image(lambda part: [part.shape], small) == [(300, 400, 3)]


def test_folders_are_searched_through_links_once_and_what_is_left_out_is_said(tmp_path):
    top = tmp_path / "top"
    (top / "deep").mkdir(parents=True)
    for name in ("a.mp4", "b.JFIF", "deep/c.3gp", "deep/d.mts", "._a.mp4", "notes.txt", "x.doc", "y.doc", "bare",
                 "a.landmarks.npy"):  # fmt: skip
        (top / name).write_bytes(b"x")
    (top / "video.ts").write_bytes(b"\x47" + bytes(200))
    (top / "code.ts").write_bytes(b"export const a = 1;\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "e.png").write_bytes(b"x")
    (top / "link").symlink_to(elsewhere)
    (top / "again").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(top)
    found, left_out = find.find_files([top])
    assert {path.name for path, error in found if error is None} == {
        "a.mp4", "b.JFIF", "c.3gp", "d.mts", "video.ts", "e.png"
    }  # fmt: skip
    assert len(found) == 6
    assert find.describe_left_out(left_out) == "5 files left out (.doc 2, .ts 1, .txt 1, no extension 1)"


def test_half_of_the_frames_lost_is_said_first():
    face = lambda i: extract.FaceFrame(i, np.zeros((4, 4, 3), np.uint8), None, np.zeros(4), np.eye(3), None, 1)
    drops = [scene.Drop(i, "no_face", "the detector found no face") for i in (4, 5, 6, 7)]
    drops.append(scene.Drop(-1, "odd_header", "the header says 40 frames, 240 are there"))
    found = extract.Extraction([face(i) for i in range(4)], drops, video.VideoInfo(8, 4, 4, 25.0), 8)
    record = records.summarize(found, [{"score": 0.9}] * 4)
    line = lines.describe({"file": "a.mp4", **record}, 5)
    assert line.startswith("a.mp4  WARNING only 4 of 8 frames scored: FAKE score 0.90; 1 person, 4 of 8")
    assert "the header says 40 frames" in line.replace("\n       ", " ")
    assert all(len(part) <= 80 for part in line.splitlines())
    fewer = extract.Extraction(found.frames, drops[:3], found.info, 8)
    assert "warning" not in records.summarize(fewer, [{"score": 0.9}] * 4)


def test_long_names_are_cut_in_the_middle():
    name = "a_very_long_name_of_a_video_from_a_phone_20240131_123456.mp4"
    width = lines.name_width([name, "b.png"])
    line = lines.describe({"file": name, "error": {"code": "no_face", "message": "no face"}}, width)
    assert width == 28 and line == f"{name[:12]}...{name[-13:]}  not scored: no face [no_face]"
