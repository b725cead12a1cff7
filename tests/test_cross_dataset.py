"""The cross-data-set table: what it takes from finished runs, and what it says of sets that are not built."""

import csv
import hashlib
import json

import pytest

from benchmarks import cross_dataset
from configs import datasets


def _run(out, config, seed, auc, interval=(0.5, 0.9), sets=("celebdf_v2",)):
    folder = out / config / str(seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(f'{{"seed": {seed}}}')
    results = {"_about": {"step": 7, "versions": {"commit": "abc"}}, "_intervals": {}}
    for name in sets:
        for level in ("video", "frame"):
            results |= {f"{name}/{level}_num_real": 2.0, f"{name}/{level}_num_fake": 3.0}
        for metric in cross_dataset.METRICS:
            results[f"{name}/{metric}"] = auc if metric == "video_auc" else None
        results["_intervals"][f"{name}/video_auc"] = list(interval)
    (folder / "results.json").write_text(json.dumps(results))


def test_mean_and_spread_over_seeds_or_one_seeds_interval(tmp_path):
    _run(tmp_path, "a", 0, 0.70)
    _run(tmp_path, "a", 1, 0.80)
    _run(tmp_path, "b", 0, 0.75, sets=("celebdf_v2", "dfdc"))
    table = cross_dataset.make_table(cross_dataset.figures(tmp_path))
    assert table.header == ["trained with", "celebdf_v2", "dfdc"]
    # The standard deviation of 70 and 80 is 10 / sqrt(2).
    assert table.rows == [["a", "75.0 (7.1)", "-"], ["b", "75.0 [50.0, 90.0]", "75.0 [50.0, 90.0]"]]
    assert "Commit abc" in table.note


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
