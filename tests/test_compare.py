"""Two detectors on the same videos, and the tables of results."""

import csv
import io
import json

import numpy as np
import pytest

from msddf_jax import compare
from msddf_jax.data import methods
from msddf_jax.evaluators import detection
from msddf_jax.statistics import intervals, metrics, tables

REAL, SWAP, NEURAL = (methods.METHODS.index(name) for name in ("real", "toy_swap", "toy_neural"))


def make_scores(seed, noise, frames=2, per_method=12):
    """Scores as `collect_scores` gives them; seed 0 and 1 see the same videos."""
    shared, own = np.random.default_rng(7), np.random.default_rng(seed)
    method = np.repeat([REAL, SWAP, NEURAL], per_method)
    latent = shared.normal(size=method.size) + (method != REAL) + noise * own.normal(size=method.size)
    names = [f"toy/c23/{methods.METHODS[m]}/{i:03d}" for i, m in enumerate(method)]
    return {
        "score": np.float32(1 / (1 + np.exp(-np.repeat(latent, frames)))),
        "label": np.repeat(np.int32(method != REAL), frames),
        "method": np.repeat(np.int32(method), frames),
        "frame_index": np.tile(np.arange(frames, dtype=np.int32), method.size),
        "video_key": np.repeat(names, frames),
        "compression": np.repeat(["c23"] * method.size, frames),
        "file": np.array([f"{name}/{i}.png" for name in names for i in range(frames)], object),
    }


def shuffled(scores, seed=3):
    order = np.random.default_rng(seed).permutation(len(scores["score"]))
    return {name: values[order] for name, values in scores.items()}


def write_workdir(folder, scores, **about):
    detection.write_scores(folder / "scores" / "test.csv", scores)
    results = {"test/video_auc": 0.5, "_about": {"step": 10, "weights": "best", "aggregate": "mean", **about}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_comparison_is_of_the_same_videos_in_any_order():
    ours, theirs = make_scores(0, 0.2), make_scores(1, 1.5)
    found = compare.compare_scores("test", ours, shuffled(theirs), resamples=200)
    assert set(found) == {"test", "test/toy_swap", "test/toy_neural"}
    row = found["test"]
    a, labels, _ = metrics.group_videos(ours["score"], ours["label"], ours["video_key"])
    b, _, _ = metrics.group_videos(theirs["score"], theirs["label"], theirs["video_key"])
    test = intervals.delong_test(a, b, labels)
    assert (row["a"], row["b"]) == pytest.approx((metrics.auc(a, labels), metrics.auc(b, labels)))
    assert (row["low"], row["high"], row["p_delong"]) == pytest.approx((test.low, test.high, test.p_value))
    assert row["p_permutation"] == pytest.approx(test.p_value, abs=0.05)
    assert (row["num_real"], row["num_fake"]) == (12, 24)
    eer = row["metrics"]["video_eer"]
    assert eer["difference"] == pytest.approx(eer["a"] - eer["b"]) and eer["low"] < eer["high"]


def test_other_frames_or_labels_are_refused():
    ours, theirs = make_scores(0, 0.2), make_scores(1, 1.5)
    fewer = {name: values[:-1] for name, values in theirs.items()}
    with pytest.raises(
        ValueError, match=r"other frames \(72 and 71; first difference: \('toy/c23/toy_neural/035', 1\)"
    ):
        compare.compare_scores("test", ours, fewer)
    theirs["label"] = 1 - theirs["label"]
    with pytest.raises(ValueError, match="other labels"):
        compare.compare_scores("test", ours, theirs)


def test_two_workdirs_give_a_file_and_a_table(tmp_path):
    a = write_workdir(tmp_path / "a", make_scores(0, 0.2))
    b = write_workdir(tmp_path / "b", make_scores(1, 1.5))
    found = compare.compare_workdirs(a, b, resamples=100)
    assert json.loads((a / "compare.json").read_text()) == found
    assert found["_about"]["b"] == {"workdir": str(b), "step": 10, "weights": "best"}
    lines = compare.format_comparison(found).splitlines()
    assert lines[1] == f"b: {b} (step 10)" and "p (DeLong)" in lines[2]
    cells = tables.percent(found["test"]["difference"], (found["test"]["low"], found["test"]["high"]))
    assert lines[3].startswith("test ") and cells in lines[3] and lines[3].endswith("12 + 24")


def test_one_class_only_is_null_and_a_dash(tmp_path):
    reals = {name: values[:24] for name, values in make_scores(0, 0.2).items()}
    a, b = (write_workdir(tmp_path / side, reals) for side in "ab")
    with pytest.warns(UserWarning, match="undefined"):
        found = compare.compare_workdirs(a, b, resamples=20)
    text = (a / "compare.json").read_text()
    assert (
        "NaN" not in text and found["test"]["p_delong"] is None and found["test"]["metrics"]["video_auc"]["a"] is None
    )
    assert "-" in compare.format_comparison(found).splitlines()[3]


def test_workdirs_that_cannot_be_compared(tmp_path):
    a = write_workdir(tmp_path / "a", make_scores(0, 0.2))
    with pytest.raises(FileNotFoundError, match="evaluate it first"):
        compare.compare_workdirs(a, tmp_path / "none")
    b = write_workdir(tmp_path / "b", make_scores(0, 0.2), aggregate="max")
    with pytest.raises(ValueError, match=r"are by mean, of .* by max"):
        compare.compare_workdirs(a, b)
    assert compare.compare_workdirs(a, b, aggregate="median", resamples=20)["_about"]["aggregate"] == "median"
    (b / "results.json").write_text(json.dumps({"other/video_auc": 1.0, "_about": {}}))
    with pytest.raises(ValueError, match="no eval in common"):
        compare.compare_workdirs(a, b)


RESULTS = {
    "a_b/video_auc": 0.912,
    "a_b/video_eer": None,
    "a_b/video_num_real": 3.0,
    "a_b/video_num_fake": 4.0,
    "a_b/frame_auc": 1.0,
    "a_b/toy_swap/video_tpr_fpr0.1": 0.25,
    "_intervals": {"a_b/video_auc": [0.88, 0.9412], "a_b/frame_auc": [None, None]},
    "_about": {"step": 7, "weights": "best", "aggregate": "mean", "intervals": {"method": "BCa", "level": 0.95}},
}


def test_text_table():
    header, row = tables.format_table(RESULTS).splitlines()
    assert header.split() == [
        "eval",
        "video_auc",
        "video_eer",
        "video_ap",
        "video_accuracy",
        "frame_auc",
        "frame_eer",
    ]
    assert row.split() == ["a_b", "91.2", "[88.0,", "94.1]", "-", "-", "-", "100.0", "[-]", "-"]
    # Results of an older version, without intervals.
    assert "91.2" in tables.format_table({"a_b/video_auc": 0.912})


def test_csv_holds_every_figure():
    rows = list(csv.DictReader(io.StringIO(tables.to_csv(RESULTS))))
    assert len(rows) == 6
    assert rows[0] == {
        "eval": "a_b", "group": "", "level": "video", "metric": "auc", "value": "0.912", "low": "0.88", "high": "0.9412"
    }  # fmt: skip
    assert rows[1]["value"] == "" and rows[5]["group"] == "toy_swap" and rows[5]["metric"] == "tpr_fpr0.1"


def test_latex_table():
    lines = tables.to_latex(RESULTS).splitlines()
    assert lines[0].startswith("% weights: best, step 7") and lines[1] == "% brackets: 95 % intervals, BCa"
    columns = lines[2].removeprefix("\\begin{tabular}{").removesuffix("}")
    row = lines[6]
    assert row.count("&") == lines[4].count("&") == len(columns) - 1
    assert row == "a\\_b & 3 + 4 & 91.2 {\\scriptsize [88.0, 94.1]} & - & - & - & 100.0 {\\scriptsize [-]} \\\\"
    assert lines[-1] == "\\end{tabular}"


def test_none_for_nan():
    value = {"a": float("nan"), "b": [1.0, float("inf")], "c": (2, "x")}
    assert compare.none_for_nan(value) == {"a": None, "b": [1.0, None], "c": [2, "x"]}
