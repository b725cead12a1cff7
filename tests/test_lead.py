"""What stands above a table of results: worst generator, quality and set, and all test sets as one."""

import numpy as np
import pytest

from msddf_jax.data import methods
from msddf_jax.evaluators import lead

REAL, SWAP, NEURAL = (methods.METHODS.index(name) for name in ("real", "toy_swap", "toy_neural"))


def _scores(rows):
    """Of (video, method, frame, score)."""
    keys, method, frames, score = zip(*rows, strict=True)
    return {
        "video_key": np.array([f"toy/c23/{methods.METHODS[m]}/{v}" for v, m in zip(keys, method, strict=True)]),
        "method": np.array(method, np.int32),
        "label": np.array([m != REAL for m in method], np.int32),
        "frame_index": np.array(frames, np.int32),
        "score": np.array(score, np.float32),
    }


REALS = [("a", REAL, 0, 0.1), ("a", REAL, 1, 0.3), ("b", REAL, 0, 0.6)]


def test_a_frame_of_two_sets_counts_once():
    first, second = _scores([*REALS, ("x", SWAP, 0, 0.9)]), _scores([*REALS, ("y", NEURAL, 0, 0.4)])
    pooled = lead.pool([first, second])
    assert pooled["score"].tolist() == pytest.approx([0.1, 0.3, 0.6, 0.9, 0.4])


def test_one_threshold_for_all_sets():
    first, second = _scores([*REALS, ("x", SWAP, 0, 0.9)]), _scores([*REALS, ("y", NEURAL, 0, 0.4)])
    pooled = lead.pooled_figures(["one", "two"], [first, second], resamples=10)
    assert pooled["sets"] == ["one", "two"]
    # Videos: reals 0.2 and 0.6, fakes 0.9 and 0.4: three of four pairs in order.
    assert pooled["figures"]["video_auc"] == 0.75
    assert pooled["figures"]["video_num_real"] == 2 and pooled["figures"]["video_num_fake"] == 2
    assert set(pooled["intervals"]["video_auc"]) and "video_tpr_fpr1" in pooled["figures"]


RESULTS = {
    "val/video_auc": 0.1,
    "one/video_auc": 0.9,
    "one/toy_swap/video_auc": 0.8,
    "one/toy_swap/video_tpr_fpr1": 0.25,
    "one/toy_neural/video_auc": 0.95,
    "one/c40/video_auc": 0.7,
    "one/c23/video_auc": 0.92,
    "one/dfb_compat/x/video_auc": 0.0,
    "two/video_auc": 0.85,
    "two/toy_swap/video_auc": None,
    "two/toy_swap/frame_auc": 0.2,
    "_intervals": {"one/toy_swap/video_auc": [0.7, 0.9], "one/toy_swap/video_tpr_fpr1": [0.1, 0.4]},
}


def test_the_worst_of_each_kind_by_hand():
    found = lead.worst(RESULTS, ["one", "two"])
    assert {kind: (row["name"], row["of"], row["auc"]) for kind, row in found.items()} == {
        "generator": ("toy_swap", "one", 0.8),
        "quality": ("c40", "one", 0.7),
        "set": ("two", "two", 0.85),
    }
    assert lead.worst(RESULTS, []) == {}
    # DeepfakeBench's own figures of a set are no compression of it.
    assert lead.worst(RESULTS | {"one/dfb_compat/video_auc": 0.1}, ["one", "two"]) == found


def test_the_lines_have_both_figures_with_their_intervals():
    pooled = {"sets": ["one", "two"], "figures": {"video_auc": 0.75}, "intervals": {}}
    text = lead.lines({**RESULTS, "_worst": lead.worst(RESULTS, ["one", "two"]), "_pooled": pooled})
    assert text == [
        "worst generator: toy_swap (of one): video AUC 80.0 [70.0, 90.0], TPR at 1 % FPR 25.0 [10.0, 40.0]",
        "worst quality: c40 (of one): video AUC 70.0, TPR at 1 % FPR -",
        "worst test set: two: video AUC 85.0, TPR at 1 % FPR -",
        "pooled over 2 test sets, one threshold for all: video AUC 75.0, TPR at 1 % FPR -",
    ]
    assert lead.lines(RESULTS) == []
