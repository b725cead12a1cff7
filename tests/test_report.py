"""The report of evaluated workdirs: what stands in it comes from their files, and what is lacking is named."""

import csv
import json
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from test_verdict import make_calibration
from tiny import tiny_config

from msddf_jax import checkpoint, report

ROOT = pathlib.Path(__file__).resolve().parents[1]
ABOUT = {"step": 7, "weights": "best", "select": {"eval": "val", "metric": "video_auc"}, "versions": {"jax": "1.2.3"}}
SWAP = 7  # index of toy_swap among the methods
# Two videos a class, two frames each: video scores 0.2, 0.6 (real) and 0.5, 0.9 (fake), AUC 3 / 4.
ROWS = [
    *(("toy/c23/real/000", 0, i, 0, s) for i, s in enumerate((0.1, 0.3))),
    *(("toy/c23/real/001", 0, i, 0, s) for i, s in enumerate((0.6, 0.6))),
    *(("toy/c23/toy_swap/a", SWAP, i, 1, s) for i, s in enumerate((0.25, 0.75))),
    *(("toy/c23/toy_swap/b", SWAP, i, 1, s) for i, s in enumerate((0.9, 0.9))),
]


def _workdir(folder, rows=ROWS, evals=("first", "second")):
    checkpoint.save_config(folder, tiny_config("data", bare=True))
    (folder / "scores").mkdir()
    results = {"_about": ABOUT, "_intervals": {}}
    for name in evals:
        with open(folder / "scores" / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows(
                [("video_key", "method", "frame_index", "label", "score", "file"), *((*row, "a.png") for row in rows)]
            )
        results |= {f"{name}/video_auc": 0.75, f"{name}/video_eer": None, f"{name}/frame_auc": 0.7}
        results["_intervals"][f"{name}/video_auc"] = [0.5, 1.0]
    checkpoint.write_json(folder / "results.json", results)
    return folder


def test_report_of_one_workdir(tmp_path):
    folder = _workdir(tmp_path / "run")
    out = report.write_report([folder], tmp_path / "report.html", mistakes=0)
    text = out.read_text()
    assert "<td>75.0<small>[50.0, 100.0]</small></td>" in text and "<td>2 + 2</td>" in text and "<td>-</td>" in text
    assert "step 7 (best), chosen on val (video_auc)" in text and "1.2.3" in text
    assert f"python -m msddf_jax.stress --workdir {folder}" in text
    with open(tmp_path / "report_tables" / "run.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["first", "2 + 2", "75.0 [50.0, 100.0]", "-", "70.0"]


def test_the_first_screen_answers(tmp_path):
    folder = _workdir(tmp_path / "run", evals=("val", "first"))
    text = report.write_report([folder], tmp_path / "report.html", mistakes=0).read_text()
    first = text[text.index("<h1>") : text.index("<h2>Results")]
    assert '<p class="big">On first: video AUC 75.0\u00a0% (50.0 to 100.0).</p>' in first
    # Real 001 at 0.6 is called fake, fake a at 0.5 is missed.
    assert "1 of 2 real videos are called fake and 1 of 2 fakes are missed." in first
    assert "Where it is worst" in first and "<li>All faces are drawn" in first
    with open(tmp_path / "report_tables" / "run_what_the_videos_are_called.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[2] == ["toy_swap", "not known", "2", "1", "1", "50.0 [1.3, 98.7]"]


def test_the_first_screen_of_two_runs_says_what_holds_for_which(tmp_path):
    one, two = (_workdir(tmp_path / name, evals=("val", "first")) for name in ("one", "two"))
    (two / "calibration.json").write_text(json.dumps(make_calibration(2.0, 0.7)))
    text = report.write_report([one, two], tmp_path / "report.html", mistakes=0).read_text()
    first = text[text.index("<h1>") : text.index("<h2>Results")]
    assert first.count("On first: video AUC") == 2 and first.count("All faces are drawn") == 1
    assert "<li>one: The threshold 0.5 was not fitted" in first and "<li>two: The threshold 0.70 was fitted" in first


def test_bits_are_no_percent(tmp_path):
    folder = _workdir(tmp_path / "run")
    results = json.loads((folder / "results.json").read_text())
    results["first/video_cllr_calibrated"] = 0.4321
    results["_intervals"]["first/video_cllr_calibrated"] = [0.3, 0.75]
    (folder / "results.json").write_text(json.dumps(results))
    report.write_report([folder], tmp_path / "report.html", mistakes=0)
    with open(tmp_path / "report_tables" / "run.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["Cllr, bits"] for row in rows] == ["0.43 [0.30, 0.75]", "-"]


def test_comparison_pairs_the_same_videos(tmp_path):
    better = [(key, method, i, label, 0.95 if label else 0.05) for key, method, i, label, _ in ROWS]
    one, two = _workdir(tmp_path / "a" / "run"), _workdir(tmp_path / "b" / "run", better, evals=("second", "third"))
    report.write_report([one, two], tmp_path / "report.html", mistakes=0)
    with open(tmp_path / "report_tables" / "Comparison.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["test set", "a/run", "b/run", "p, b/run against a/run"]
    assert [row[0] for row in rows[1:]] == ["second"]
    assert 0.0 < float(rows[1][3]) < 1.0
    other = _workdir(tmp_path / "other", [(f"{row[0]}x", *row[1:]) for row in ROWS])
    with pytest.raises(ValueError, match="scored other videos of first"):
        report.write_report([one, other], tmp_path / "report.html", mistakes=0)


def test_workdirs_may_have_commas_in_their_names(tmp_path):
    """The command, in a process of its own: its flag was a list with commas once."""
    folders = [_workdir(tmp_path / name, evals=("first",)) for name in ("lr=1,wd=2", "other")]
    command = [sys.executable, "-m", "msddf_jax.report", *(f"--workdir=~/{folder.name}" for folder in folders)]
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run = lambda *words: subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True)
    done = run(*command, "--mistakes=0", "--out=~/page.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text()
    assert "p, other against lr=1,wd=2" in text
    done = run(*command[:3], "--workdir=other,lr", "--mistakes=0")
    assert done.returncode == 1 and "no folder other,lr; several workdirs are --workdir A --workdir B" in done.stderr


def test_comparison_ends_with_avg_and_from_four_runs_top3(tmp_path):
    runs, evals = [], ("val", "first", "second")
    for i, (first, second) in enumerate(((0.9, 0.5), (0.8, 0.6), (0.7, 0.7), (0.6, None))):
        run = report._load_run(_workdir(tmp_path / str(i), evals=evals), str(i))
        run.results.update({"first/video_auc": first, "second/video_auc": second})
        runs.append(run)
    table = report._comparison(runs, evals)
    # The validation set is in neither. The last lacks a figure of the second set, and is fourth on the first.
    blank = ["-"] * 3
    assert table.rows[3:] == [["Avg", "70.0", "70.0", "70.0", "-", *blank], ["Top3", "2", "2", "2", "0", *blank]]
    assert "Without val, where checkpoints were chosen" in table.note
    # Of three runs every one is among the best three.
    table = report._comparison(runs[:3], evals)
    assert table.rows[3:] == [["Avg", "70.0", "70.0", "70.0", "-", "-"]] and "Top3" not in table.note


def test_robustness_comes_from_the_stress_test(tmp_path):
    folder = _workdir(tmp_path / "run")
    row = {"eval": "first", "grid": "jpeg", "perturbation": "JPEG", "levels": ["90", "50"], "values": [0.7, None]}
    (folder / "stress").mkdir()
    (folder / "stress" / "stress.json").write_text(json.dumps({"rows": [row | {"clean": 0.75}]}))
    text = report.write_report([folder], tmp_path / "report.html", mistakes=0).read_text()
    assert 'alt="first: JPEG (jpeg)"' in text and "has not been stressed" not in text


def test_the_calibration_is_that_of_the_scores(tmp_path):
    folder = _workdir(tmp_path / "run")
    (folder / "calibration.json").write_text(json.dumps(make_calibration(2.0, 0.7)))
    text = report.write_report([folder], tmp_path / "report.html", mistakes=0).read_text()
    assert "threshold 0.700 and slope 2.00 fitted on val (8 videos)" in text
    (folder / "calibration.json").write_text(json.dumps(make_calibration(2.0, 0.7, step=8)))
    text = report.write_report([folder], tmp_path / "report.html", mistakes=0).read_text()
    assert (
        "not calibrated (calibration.json is of step 8, and these scores are of step 7)" in text and "slope" not in text
    )


def test_what_is_said_of_the_forgeries_has_a_table(tmp_path):
    folder = _workdir(tmp_path / "run")
    assert (
        "type, regions and strength" not in report.write_report([folder], tmp_path / "a.html", mistakes=0).read_text()
    )
    results = json.loads((folder / "results.json").read_text())
    results |= {"first/forgery_type_accuracy": 0.625, "first/forgery_strength_mae": 0.0815}
    (folder / "results.json").write_text(json.dumps(results | {"second/forgery_type_accuracy": None}))
    report.write_report([folder], tmp_path / "report.html", mistakes=0)
    with open(tmp_path / "report_tables" / "run_type_regions_and_strength.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["test set", "type, accuracy %", "strength, mean absolute error"],
            ["first", "62.5", "0.082"],
        ]


def test_what_cannot_be_reported_is_named(tmp_path):
    folder = _workdir(tmp_path / "run")
    with pytest.raises(ValueError, match="the same workdir twice"):
        report.write_report([folder, folder], tmp_path / "report.html", mistakes=0)
    with pytest.raises(ValueError, match="no eval is in all of"):
        report.write_report([folder, _workdir(tmp_path / "x", evals=("third",))], tmp_path / "r.html", mistakes=0)
    (folder / "results.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"msddf_jax\.evaluate --workdir"):
        report.write_report([folder], tmp_path / "report.html", mistakes=0)


def test_the_worst_mistakes_are_the_worst(tmp_path, monkeypatch):
    run = report._load_run(_workdir(tmp_path / "run"), "run")
    drawn = []
    settings = SimpleNamespace(to_dict=dict)
    config = SimpleNamespace(evals={"first": settings}, data=SimpleNamespace(data_dir="x"))
    monkeypatch.setattr(
        report, "_draw_mistake", lambda *args: drawn.append(args[3]) or ("", np.zeros((2, 2, 3), np.uint8))
    )
    monkeypatch.setattr(report, "load_for_inference", lambda folder: SimpleNamespace(config=config))
    monkeypatch.setattr(report.source, "open_configured", lambda *_: None)
    report._draw_mistakes(run, ["first"], 3, None)
    # Real 001 is off by 0.6; fake a, exactly 0.5, is called real, as every command calls it.
    assert drawn == ["toy/c23/real/001", "toy/c23/toy_swap/a"]
    # Above 0.65 is fake: real 001 is right, fake a is more wrong than before.
    drawn.clear()
    report._draw_mistakes(run._replace(fitted=make_calibration(1.0, 0.65)), ["first"], 3, None)
    assert drawn == ["toy/c23/toy_swap/a"]
