"""A list of files in parts: lines as predict writes them, once each, whatever a file does to its reader."""

import contextlib
import json
import threading
import time

import numpy as np
import PIL.Image
import psutil
import pytest
from test_predict import make_model, write_clip, write_image

from msddf_jax import predict, score

SETTINGS = {"size": 32, "preset": "dfb", "num_frames": 4, "landmarks": "sidecar", "faces": "people"}


@pytest.fixture
def job():
    return score.Job(make_model(), SETTINGS, None, None, "mean", batch_size=4, workers=2, timeout=60.0)


@pytest.fixture
def files(tmp_path):
    """Seven images from dark to bright, a video among them, and a file that is not there."""
    made = [str(write_image(tmp_path / "in" / f"{level}.png", level)) for level in range(20, 231, 35)]
    made.insert(3, str(write_clip(tmp_path / "in" / "clip", [40] * 6)))
    return [*made, str(tmp_path / "in" / "missing.png")]


def _lines(out):
    return [json.loads(line) for path in sorted(out.glob("scores-*.jsonl")) for line in path.read_text().splitlines()]


def test_parts_of_a_list_hold_what_predict_says(job, files, tmp_path):
    out = tmp_path / "out"
    assert score.score_list(job, files, out, shard_size=3) == 9
    assert [path.name for path in sorted(out.glob("scores-*"))] == [
        f"scores-{part:05d}-of-00003.jsonl" for part in range(3)
    ]
    lines = _lines(out)
    assert [line["file"] for line in lines] == files and [line["number"] for line in lines] == list(range(len(files)))
    assert lines[-1]["error"]["code"] == "not_found"
    said = predict.predict_files(make_model(), files[:-1], tmp_path / "said", landmarks="sidecar", num_frames=4)
    for line, record in zip(lines, said, strict=False):
        assert line["score"] == pytest.approx(record["score"], abs=1e-6)
        assert all(line[name] == record[name] for name in ("kind", "label", "frame_indices", "drops", "faces_found"))
    assert score.score_list(job, files, out, shard_size=3) == 0  # all is there
    with pytest.raises(ValueError, match=r"holds scores of something else \(files: 9 then, 8 now"):
        score.score_list(job, files[1:], out, shard_size=3)


def test_processes_share_a_list_and_another_start_does_what_is_left(job, files, tmp_path):
    out = tmp_path / "out"
    own = [score.score_list(job, files, out, shard_size=2, process_index=i, process_count=3) for i in (0, 2)]
    assert sum(own) == 6 and score.summarise(files, np.zeros(9, np.int32), out, 2, "mean", None) is None
    assert score.score_list(job, files, out, shard_size=2) == 3
    assert [line["number"] for line in _lines(out)] == list(range(9))


def test_a_part_that_was_cut_goes_on_behind_its_last_whole_line(job, files, tmp_path):
    out = tmp_path / "out"
    score.score_list(job, files, out, shard_size=9)
    (whole,) = out.glob("scores-*")
    before = whole.read_text()
    lines = before.splitlines(keepends=True)
    # As a kill leaves it: out of order, the last line cut.
    (out / f".{whole.name}.partial").write_text(lines[4] + lines[0] + lines[2][:50])
    whole.unlink()
    assert score.score_list(job, files, out, shard_size=9) == 7
    assert whole.read_text() == before and not list(out.glob(".*partial"))


def test_a_file_that_kills_or_stops_its_reader_costs_itself_alone(job, files, tmp_path):
    # Takes a second to decode.
    large = PIL.Image.fromarray(np.zeros((9000, 9000), np.uint8))
    for name in ("killer", "slow"):
        write_image(tmp_path / "in" / f"{name}.png", 100)
        large.save(tmp_path / "in" / f"{name}.png")
    files[2:2] = [str(tmp_path / "in" / "killer.png")]
    over = threading.Event()

    def kill():
        while not over.is_set():
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if any(opened.path.endswith("killer.png") for opened in child.open_files()):
                        child.kill()
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        score.score_list(job, files, tmp_path / "out", shard_size=20)
    finally:
        over.set()
        killer.join()
    lines = _lines(tmp_path / "out")
    assert lines[2]["error"] == {"code": "crashed", "message": "the process that read this file ended with SIGKILL"}
    assert sum("score" in line for line in lines) == 8
    late = job._replace(timeout=0.2)
    score.score_list(late, [*files[:2], str(tmp_path / "in" / "slow.png"), *files[3:5]], tmp_path / "late")
    lines = _lines(tmp_path / "late")
    assert lines[2]["error"] == {"code": "timeout", "message": "not read within 0.2 s"}
    assert sum("score" in line for line in lines) == 4


def test_lists_and_their_labels(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a b.mp4\n\nc,d.mp4\n")
    files, labels = score.read_list(path)
    assert files == ["a b.mp4", "c,d.mp4"] and labels is None
    path.write_text('label,file\nreal,a.mp4\n1,"b,c.mp4"\n')
    files, labels = score.read_list(path)
    assert files == ["a.mp4", "b,c.mp4"] and labels.tolist() == [0, 1]
    path.write_text("file,label\na.mp4,maybe\n")
    with pytest.raises(ValueError, match=r"line 2: label 'maybe', expected real or fake, 0 or 1"):
        score.read_list(path)
    path.write_text("")
    with pytest.raises(ValueError, match="names no file"):
        score.read_list(path)


def test_figures_of_a_list_with_labels(job, files, tmp_path):
    score.score_list(job, files, tmp_path / "out", shard_size=4)
    # By brightness: the two darkest images real, the video real, all else fake; what is not there is in no figure.
    labels = np.array([0, 0, 1, 0, 1, 1, 1, 1, 1], np.int32)
    results = score.summarise(files, labels, tmp_path / "out", 4, "mean", None)
    assert results["auc"] == 1.0 and results["not_scored"] == 1 and results["files"] == 9
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())


def test_which_process_this_is():
    assert score._place(None, None, {}) == (0, 1)
    assert score._place(None, None, {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}) == (3, 4)
    assert score._place(1, 2, {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}) == (1, 2)
    with pytest.raises(ValueError, match="give both or none"):
        score._place(1, None, {})
    with pytest.raises(ValueError, match="process_id is 2, expected a number below num_processes, 2"):
        score._place(2, 2, {})
