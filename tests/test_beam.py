"""Preparation on Apache Beam; skipped where it is not installed."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from tiny_ffpp import write_tree

pytest.importorskip("apache_beam", reason="Apache Beam is optional: pip install apache-beam")
ROOT = pathlib.Path(__file__).resolve().parents[1]


def prepare(tree, out, *flags):
    command = [sys.executable, "-m", "data_prep.prepare", "--layout=faceforensics", f"--root={tree}", f"--out={out}"]
    command += ["--landmarks=sidecar", "--num_frames=3", "--size=64", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=out.parent, env=environment, capture_output=True, text=True, timeout=300)


def files(top):
    skip = ("report.json",)
    return {p.relative_to(top).as_posix(): p.read_bytes() for p in top.rglob("*") if p.is_file() and p.name not in skip}


def test_direct_runner_in_two_processes_writes_what_processes_write(tmp_path):
    tree = write_tree(tmp_path / "FaceForensics++")
    (tree / "original_sequences/youtube/c23/videos/001.mp4").write_bytes(b"no video")
    limit = "--max_bad_fraction=0.5"
    plain = prepare(tree, tmp_path / "plain", "--workers=1", limit)
    assert plain.returncode == 0, plain.stderr
    beam_flags = ("--runner=DirectRunner", limit, "--", "--direct_num_workers=2")
    done = prepare(tree, tmp_path / "beam", *beam_flags, "--direct_running_mode=multi_processing")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "beam") == files(tmp_path / "plain")
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("plain", "beam")]
    assert reports[0] == reports[1] and reports[0]["counts"] == {"unreadable_video": 1}
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "beam").rglob("*.png")}
    again = prepare(tree, tmp_path / "beam", *beam_flags)
    assert again.returncode == 0 and "3 of 4 videos were done before" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "beam").rglob("*.png")} == stamps


def test_a_worker_that_fails_fails_the_job_in_one_line(tmp_path):
    tree = write_tree(tmp_path / "FaceForensics++")
    out = tmp_path / "out"
    (out / "original_sequences/youtube/c23").mkdir(parents=True)
    (out / "original_sequences/youtube/c23/meta").write_text("a file where a folder must be")
    done = prepare(tree, out, "--runner=DirectRunner")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1 and len(errors) == 1


def test_unknown_beam_option_is_told(tmp_path):
    tree = write_tree(tmp_path / "FaceForensics++")
    done = prepare(tree, tmp_path / "out", "--runner=Direct")
    assert done.returncode == 2 and "DataflowRunner" in done.stderr


def test_a_set_built_on_beam_is_the_one_built_here(tmp_path, monkeypatch):
    import tiny_downloads

    from data_prep import build, catalog, prepared
    from data_prep.uadfv import downloads
    from msddf_jax.data import source

    root = tiny_downloads.write_videos(tmp_path / "UADFV", *(f"real/{i:04d}.mp4" for i in range(3)))
    tiny_downloads.write_videos(root, *(f"fake/{i:04d}_fake.mp4" for i in range(3)))
    entries, _ = downloads.find(root, "default", catalog.Options())
    tiny_downloads.prepare(entries, tmp_path / "prepared", "uadfv", "default")
    monkeypatch.setattr(prepared, "_VIDEOS_A_PART", 2)
    opened = []
    for name, runner in (("plain", None), ("beam", ("DirectRunner", []))):
        build.build("uadfv", "default", tmp_path / "prepared", tmp_path / name, on_beam=runner)
        opened.append(source.open_source("uadfv/default", "all", tmp_path / name))
    plain, beam = opened
    index = next((tmp_path / "plain").rglob("index-all.csv")).read_text()
    assert next((tmp_path / "beam").rglob("index-all.csv")).read_text() == index
    assert len(list((tmp_path / "beam").rglob("*.array_record*"))) == 3  # three parts of two videos
    assert len(beam) == len(plain) == 12
    for i in range(12):
        assert (beam[i]["image"] == plain[i]["image"]).all() and beam[i]["video_id"] == plain[i]["video_id"]
