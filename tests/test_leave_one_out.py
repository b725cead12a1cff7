"""One manipulation left out in turn: what trains, what chooses, what is tested, and the table of it."""

import argparse
import json

import pytest

from benchmarks import leave_one_out as logo
from msddf_jax.data import source

OWN = "faceforensics/toy"
METHODS = ("toy_neural", "toy_reenact", "toy_swap", "toy_texture")


def _args(data_dir, **changes):
    return argparse.Namespace(**{"data_dir": str(data_dir), "set": OWN, "steps": None, **changes})


def test_what_is_left_out_is_in_no_split_but_its_own(toy_data):
    config = logo.load_config("configs/detectors/xception.py:demo", _args(toy_data[1]), "toy_swap", METHODS, 2)
    others = {"toy_neural", "toy_reenact", "toy_texture"}
    there = lambda settings: set(source.open_configured(config, settings).column("method").tolist()) - {"real"}
    assert there(config.data.train) == others and config.seed == 2
    assert there(config.evals[config.select.eval]) == others == there(config.evals.seen)
    assert there(config.evals[logo.LEFT]) == {"toy_swap"} and config.evals[logo.LEFT].split == "test"


def test_reals_alone_leave_nothing_out(toy_data):
    with pytest.raises(ValueError, match="trains on reals alone"):
        logo.load_config("configs/detectors/sbi.py", _args(toy_data[1]), "toy_swap", METHODS, 0)


def _run(out, config, left, seed, auc, tpr):
    folder = out / config / left / str(seed)
    folder.mkdir(parents=True)
    results = {f"{logo.LEFT}/video_auc": auc, f"{logo.LEFT}/video_tpr_fpr1": tpr, "_intervals": {}}
    results["_intervals"][f"{logo.LEFT}/video_auc"] = [auc - 0.1, auc + 0.1]
    (folder / "results.json").write_text(json.dumps(results | {"_about": {"versions": {"commit": "abc"}}}))


def test_the_table_by_hand(tmp_path):
    for left, auc, tpr in (("a", 0.9, 0.5), ("b", 0.6, 0.125)):
        _run(tmp_path, "xception", left, 0, auc, tpr)
    _run(tmp_path, "probe", "a", 0, 0.5, 0.0)
    _run(tmp_path, "probe", "a", 1, 0.7, 0.0)
    table = logo.make_table(logo.read_runs(tmp_path))
    assert table.header[:3] == ["trained with", "without a", "without b"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["xception"] == ["90.0 [80.0, 100.0]", "60.0 [50.0, 70.0]", "75.0", "b", "12.5"]
    # sd of 50 and 70; no figure without b, so no average.
    assert rows["probe"] == ["60.0 (14.1)", "-", "-", "a", "0.0 (0.0)"]


def test_nothing_there_is_told(tmp_path):
    with pytest.raises(SystemExit, match="no finished run"):
        logo.main(["--table", f"--out={tmp_path}"])
    with pytest.raises(SystemExit, match="FileNotFoundError: data set none/none is not built"):
        logo.main(["--set=none/none", f"--data_dir={tmp_path}", f"--out={tmp_path}"])
