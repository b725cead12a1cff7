"""The cross-data-set table: what it takes from finished runs, and what it says of sets that are not built."""

import csv
import hashlib
import json
import sys

import pytest

from benchmarks import cross_dataset, paper_figures
from configs import datasets
from msddf_jax.statistics import tables


def _run(out, config, seed, auc, interval=(0.5, 0.9), sets=("celebdf_v2",), frame_auc=None):
    folder = out / config / str(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"seed": {seed}}}')
    results = {"_about": {"step": 7, "versions": {"commit": "abc"}}, "_intervals": {}}
    for name in sets:
        for level in ("video", "frame"):
            results |= {f"{name}/{level}_num_real": 2.0, f"{name}/{level}_num_fake": 3.0}
        for metric in cross_dataset.METRICS:
            results[f"{name}/{metric}"] = {"video_auc": auc, "frame_auc": frame_auc}.get(metric)
        results["_intervals"][f"{name}/video_auc"] = list(interval)
    (folder / "results.json").write_text(json.dumps(results))


def test_mean_and_spread_over_seeds_or_one_seeds_interval(tmp_path):
    _run(tmp_path, "a", 0, 0.70)
    _run(tmp_path, "a", 1, 0.80)
    _run(tmp_path, "b", 0, 0.75, sets=("celebdf_v2", "dfdc"))
    table = cross_dataset.make_table(cross_dataset.figures(tmp_path))
    assert table.header == ["trained with", "celebdf_v2", "dfdc", "Avg cross", "Top3 cross"]
    # The standard deviation of 70 and 80 is 10 / sqrt(2). Where a set is missing there is no Avg.
    rows = [["a", "75.0 (7.1)", "-", "-", "1"], ["b", "75.0 [50.0, 90.0]", "75.0 [50.0, 90.0]", "75.0", "2"]]
    assert table.rows == rows and "Commit abc" in table.note


def test_average_is_of_complete_rows():
    assert tables.average([0.5, 1.0, 0.75]) == 0.75
    assert tables.average([0.5, None]) is None and tables.average([0.5, float("nan")]) is None
    assert tables.average([]) is None


def test_top3_by_hand():
    rows = [
        # Of five: 0.9 and 0.8 are above; on the second set all four that are there are the best.
        [0.7, 0.5, None],
        # Equal to the one before: both are third.
        [0.7, 0.5, None],
        [0.9, 0.5, 0.1],
        [0.8, None, 0.2],
        # Three are better on the first.
        [0.6, 0.5, float("nan")],
    ]
    assert tables.count_top(rows) == [2, 2, 3, 2, 1]
    # Three equals at the top leave no place for a fourth.
    assert tables.count_top([[1.0], [1.0], [1.0], [0.9]]) == [1, 1, 1, 0]
    assert tables.count_top([[0.1], [0.2], [0.3], [0.4]], lower=True) == [1, 1, 1, 0]
    assert tables.count_top([[0.1], [0.2], [0.3], [0.4]], best=1) == [0, 0, 0, 1]
    # A difference that rounding hides is one.
    assert tables.count_top([[0.90001], [0.9], [0.90002], [0.90003]]) == [1, 0, 1, 1]
    assert tables.count_top([]) == [] and tables.count_top([[], []]) == [0, 0]
    with pytest.raises(ValueError):
        tables.count_top([[0.1], [0.1, 0.2]])


def test_avg_and_top3_are_of_the_training_set_and_of_the_others(tmp_path):
    for config, auc in (("a", 0.6), ("b", 0.7), ("c", 0.8), ("d", 0.9)):
        _run(tmp_path, config, 0, auc, sets=("ff++", "ff++_c40", "celebdf_v2"))
    table = cross_dataset.make_table(cross_dataset.figures(tmp_path))
    averages = ["Avg within", "Top3 within", "celebdf_v2", "Avg cross", "Top3 cross"]
    assert table.header == ["trained with", "ff++", "ff++_c40", *averages]
    assert [[row[0], *row[3:5], *row[6:]] for row in table.rows] == [
        ["a", "60.0", "0", "60.0", "0"],
        ["b", "70.0", "2", "70.0", "1"],
        ["c", "80.0", "2", "80.0", "1"],
        ["d", "90.0", "2", "90.0", "1"],
    ]
    assert tables.AVERAGE_NOTE in table.note and tables.TOP_NOTE in table.note


def test_published_figures_are_those_of_the_source():
    found = paper_figures.figures()
    assert len({figure.detector for figure in found}) == 15 and len(found) == 15 * 14
    value = lambda detector, test_set: next(f for f in found if (f.detector, f.test_set) == (detector, test_set)).value
    # Picked from the source's table, at both ends of its columns.
    assert (value("Meso4", "FF_c23"), value("Meso4", "UADFV")) == (0.6077, 0.7150)
    assert (value("Face X-ray", "NT"), value("Face X-ray", "CDFv1")) == (0.9290, 0.7093)
    assert (value("SPSL", "CDFv2"), value("SRM", "DFDCP"), value("UCF", "Fsh")) == (0.7650, 0.7408, 0.6462)
    assert {figure.ours for figure in found} - {None} <= set(datasets.TEST_SETS)
    assert all(figure.level == "frame" and "test set" in figure.protocol and figure.source for figure in found)
    # Each Avg there is the mean of its row, as far as four digits tell: a figure in the wrong place would move it.
    for detector, (within, cross) in paper_figures.averages().items():
        of = lambda sets, detector=detector: [value(detector, test_set) for test_set in sets]
        assert tables.average(of(paper_figures.WITHIN)) == pytest.approx(within, abs=1.0e-4)
        assert tables.average(of(paper_figures.CROSS)) == pytest.approx(cross, abs=1.0e-4)


def test_published_figures_stand_below_ours_and_apart(tmp_path, monkeypatch):
    _run(tmp_path, "a", 0, 0.70, sets=("ff++", "celebdf_v2", "dfdc", "ffiw_val"), frame_auc=0.5)
    monkeypatch.setattr(sys, "argv", ["x", f"--out={tmp_path}", "--table", "--against=published"])
    cross_dataset.main()
    text = (tmp_path / "table_published.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    header, _, ours, *theirs = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert header[:4] == ["trained with", "level", "protocol", "ff++"] and len(theirs) == 15
    # Frame AUC, not the video AUC of 70; in the ranking of ours alone.
    assert ours == ["a", "frame", cross_dataset.OURS, "50.0", "50.0", "1", "50.0", "50.0", "50.0", "50.0", "3"]
    row = next(row for row in theirs if row[0] == "Xception (published)")
    assert row[1:3] == ["frame", paper_figures.PROTOCOL] and "test set" in paper_figures.PROTOCOL
    # FFIW has no published figure, so that there is no Avg; no rank at all.
    assert row[3:] == ["96.37", "96.37", "-", "73.65", "70.77", "-", "-", "-"]
    assert paper_figures.NOTE in text
    # The table without them is not touched.
    assert not (tmp_path / "table.md").exists() and (tmp_path / "table.csv").exists()


def test_published_figures_are_of_frames_alone(tmp_path, monkeypatch, capsys):
    _run(tmp_path, "a", 0, 0.70, frame_auc=0.5)
    flags = ["--table", "--against=published", "--metric=video_auc"]
    monkeypatch.setattr(sys, "argv", ["x", f"--out={tmp_path}", *flags])
    with pytest.raises(SystemExit):
        cross_dataset.main()
    assert "another level; leave --metric out or give --metric=frame_auc" in capsys.readouterr().err
    rows = cross_dataset.figures(tmp_path)
    with pytest.raises(ValueError, match="published figures are frame_auc, the table is of video_auc"):
        cross_dataset.make_table(rows, "video_auc", paper_figures.figures())
    _run(tmp_path / "toy", "a", 0, 0.70, sets=("toy",), frame_auc=0.5)
    with pytest.raises(ValueError, match=r"none of \['toy'\] has published figures"):
        cross_dataset.make_table(cross_dataset.figures(tmp_path / "toy"), "frame_auc", paper_figures.figures())


def test_a_table_of_another_metric_has_its_own_name(tmp_path, monkeypatch):
    _run(tmp_path, "a", 0, 0.70, frame_auc=0.6)
    monkeypatch.setattr(sys, "argv", ["x", f"--out={tmp_path}", "--table", "--metric=frame_auc"])
    cross_dataset.main()
    assert "| a | 60.0 | 60.0 | 1 |" in (tmp_path / "table_frame_auc.md").read_text()
    assert not (tmp_path / "table.md").exists()


def test_every_figure_has_its_config_and_commit(tmp_path):
    _run(tmp_path, "a", 0, 0.70)
    cross_dataset.write_tables(tmp_path)
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(cross_dataset.METRICS)
    row = next(row for row in rows if row["metric"] == "video_auc")
    digest = hashlib.sha256(b'{"seed": 0}').hexdigest()
    assert (row["value"], row["low"], row["high"], row["num_real"]) == ("0.7", "0.5", "0.9", "2.0")
    assert (row["config_sha256"], row["commit"], row["step"], row["seed"]) == (digest, "abc", "7", "0")
    assert "70.0 [50.0, 90.0]" in (tmp_path / "table.md").read_text()
    assert r"\toprule" in (tmp_path / "table.tex").read_text()


def test_sets_that_are_not_built_are_told_from_those_that_are(tmp_path):
    folder = tmp_path / "celebdf" / "v2" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    assert cross_dataset.built_sets(["dfdc", "celebdf_v2"], tmp_path) == (["celebdf_v2"], ["dfdc"])


def test_every_test_set_has_a_builder_and_a_config():
    from data_prep import build

    for name, split in datasets.TEST_SETS.values():
        dataset, config = name.split("/")
        assert config in build.make_builder(dataset, config, None).builder_configs
        assert split in ("test", "validation", "all")
    with pytest.raises(ValueError, match=r"unknown test sets \['celeb'\], there are: ff\+\+"):
        datasets.get_test_sets(["celeb"])
