"""Metrics against hand computations and scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn import metrics as sk
from sklearn.exceptions import UndefinedMetricWarning

from msddf_jax.statistics import metrics, weighted

# Two reals and three fakes. Pairs (fake > real): .8 beats both, .6 beats both, .3 beats .2 alone: 5 of 6.
SCORES = np.array([0.2, 0.5, 0.8, 0.6, 0.3])
LABELS = np.array([0, 0, 1, 1, 1])

both_classes = st.lists(
    st.tuples(st.integers(0, 20).map(lambda v: v / 20), st.integers(0, 1)), min_size=2, max_size=40
).filter(lambda rows: len({label for _, label in rows}) == 2)


def _arrays(rows):
    return np.array([s for s, _ in rows]), np.array([y for _, y in rows])


def test_auc_by_hand():
    assert metrics.auc(SCORES, LABELS) == pytest.approx(5 / 6)


def test_auc_counts_a_tie_as_half():
    assert metrics.auc([0.5, 0.5, 0.5, 0.9], [0, 0, 1, 1]) == pytest.approx((0.5 + 0.5 + 1 + 1) / 4)


def test_eer_by_hand():
    # ROC (fpr, tpr): (0,0) (0,1/3) (0,2/3) (1/2,2/3) (1/2,1) (1,1). On the third segment tpr stays at 2/3, so
    # the miss rate is 1/3 until fpr is 1/3.
    assert metrics.eer(SCORES, LABELS) == pytest.approx(1 / 3)


def test_eer_interpolates_between_tied_points():
    # One threshold takes 1 of 4 reals and 3 of 4 fakes from (0, 0) to (1/4, 3/4): exactly the crossing.
    assert metrics.eer([0.5] * 4 + [0.1] * 4, [1, 1, 1, 0, 0, 0, 0, 1]) == pytest.approx(0.25)
    # (0, 0) to (1/2, 1) in one step: x = 1 - 2x.
    assert metrics.eer([0.5, 0.5, 0.1], [1, 0, 0]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "scores, expected", [([0.1, 0.9], (1.0, 0.0)), ([0.9, 0.1], (0.0, 1.0)), ([0.4, 0.4], (0.5, 0.5))]
)
def test_auc_and_eer_at_the_ends(scores, expected):
    assert (metrics.auc(scores, [0, 1]), metrics.eer(scores, [0, 1])) == expected


def test_average_precision_by_hand():
    # In falling order: fake .8 (1/1), fake .6 (2/2), real .5, fake .3 (3/4); each adds 1/3 of recall.
    assert metrics.average_precision(SCORES, LABELS) == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_accuracy_calls_exactly_a_half_real():
    assert metrics.accuracy(SCORES, LABELS) == pytest.approx(4 / 5)  # only the fake at .3 is missed
    assert metrics.accuracy([0.5], [0]) == 1.0
    assert metrics.accuracy([0.5], [1]) == 0.0


def test_accuracy_refuses_logits():
    with pytest.raises(ValueError, match=r"score 1 is 2\.5"):
        metrics.accuracy([0.1, 2.5], [0, 1])


def test_tnr_at_tpr_by_hand():
    fakes = np.arange(1, 11) / 10  # 0.1 ... 1.0
    reals = np.array([0.05, 0.1, 0.15, 0.2, 0.95])
    scores, labels = np.concatenate([fakes, reals]), np.array([1] * 10 + [0] * 5)
    # 90 % of the fakes are at 0.2 or above; below 0.2 are 0.05, 0.1, 0.15, and the tie at 0.2 is a false
    # alarm.
    assert metrics.tnr_at_tpr(scores, labels, 0.90) == pytest.approx(3 / 5)
    # 91 % to 100 % need the fake at 0.1 too.
    assert metrics.tnr_at_tpr(scores, labels, 0.95) == pytest.approx(1 / 5)
    assert metrics.tnr_at_tpr(scores, labels, 1.0) == pytest.approx(1 / 5)
    assert metrics.tnr_at_tpr(scores, labels, 0.1) == pytest.approx(1.0)
    # Two tied fakes come together: at t = 0.6 both count, whatever the target between.
    assert metrics.tnr_at_tpr([0.6, 0.6, 0.2, 0.5, 0.7], [1, 1, 1, 0, 0], 0.5) == pytest.approx(1 / 2)


@pytest.mark.parametrize("target", [0.0, 1.01, -1.0])
def test_tnr_refuses_a_target_outside_its_range(target):
    with pytest.raises(ValueError, match="TPR target"):
        metrics.tnr_at_tpr(SCORES, LABELS, target)


@settings(max_examples=60, deadline=None)
@given(both_classes)
def test_tnr_threshold_is_the_largest_that_reaches_the_target(rows):
    scores, labels = _arrays(rows)
    fakes, reals = scores[labels == 1], scores[labels == 0]
    for target in metrics.TNR_TARGETS:
        # The share found falls only just above a fake's score, so the largest threshold is one of them.
        threshold = max(t for t in fakes if np.mean(fakes >= t) >= target)
        assert metrics.tnr_at_tpr(scores, labels, target) == np.mean(reals < threshold)


def test_tpr_at_fpr_by_hand():
    reals = np.arange(1, 21) / 40  # 0.025 ... 0.5, 20 of them: one false alarm is 5 %
    fakes = np.array([0.1, 0.5, 0.49, 0.6, 0.9])
    scores, labels = np.concatenate([reals, fakes]), np.array([0] * 20 + [1] * 5)
    # Without a false alarm: above 0.5, so that the fake that ties with the highest real is not found.
    assert metrics.tpr_at_fpr(scores, labels, 0.001) == pytest.approx(2 / 5)
    assert metrics.tpr_at_fpr(scores, labels, 0.01) == pytest.approx(2 / 5)
    # One false alarm of 20 is exactly 5 %: from 0.49 on.
    assert metrics.tpr_at_fpr(scores, labels, 0.05) == pytest.approx(4 / 5)
    assert metrics.tpr_at_fpr([0.9, 0.1], [0, 1], 0.05) == 0.0
    with pytest.raises(ValueError, match="FPR target"):
        metrics.tpr_at_fpr(scores, labels, 1.0)


@settings(max_examples=60, deadline=None)
@given(both_classes)
def test_tpr_at_fpr_is_the_best_over_all_thresholds(rows):
    scores, labels = _arrays(rows)
    fakes, reals = scores[labels == 1], scores[labels == 0]
    for target in (*metrics.FPR_TARGETS, 0.3):
        tried = [np.mean(fakes >= t) for t in (*scores, 2.0) if np.mean(reals >= t) <= target]
        assert metrics.tpr_at_fpr(scores, labels, target) == max(tried)


def test_accuracies_at_another_threshold_by_hand():
    # Above 0.25: real .5 wrong, all fakes right.
    assert metrics.accuracy(SCORES, LABELS, 0.25) == pytest.approx(4 / 5)
    assert metrics.balanced_accuracy(SCORES, LABELS, 0.25) == pytest.approx((1 / 2 + 1) / 2)
    assert metrics.balanced_accuracy(SCORES, LABELS) == pytest.approx((1 + 2 / 3) / 2)


@settings(max_examples=60, deadline=None)
@given(both_classes)
def test_against_scikit_learn_and_a_root_finder(rows):
    scores, labels = _arrays(rows)
    fpr, tpr, _ = sk.roc_curve(labels, scores)
    assert metrics.auc(scores, labels) == pytest.approx(sk.auc(fpr, tpr))
    assert metrics.average_precision(scores, labels) == pytest.approx(sk.average_precision_score(labels, scores))
    assert metrics.accuracy(scores, labels) == sk.accuracy_score(labels, scores > 0.5)
    balanced = sk.balanced_accuracy_score(labels, scores > 0.3)
    assert metrics.balanced_accuracy(scores, labels, 0.3) == pytest.approx(balanced)
    value = metrics.eer(scores, labels)
    assert 0.0 <= value <= 1.0
    # np.interp is ambiguous where the curve is vertical: the value lies between the two readings.
    below = np.interp(value - 1e-9, fpr, tpr) if value > 0 else 0.0
    above = np.interp(min(value + 1e-9, 1.0), fpr, tpr)
    assert below - 1e-6 <= 1 - value <= above + 1e-6
    # A curve without vertical steps has one root, which a root finder gets too.
    slanted = np.linspace(0, 1, len(fpr)) * 1e-9 + fpr * (1 - 1e-9)
    root = brentq(lambda x: 1 - x - np.interp(x, slanted, tpr), 0, 1, xtol=1e-12)
    assert value == pytest.approx(root, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(both_classes, st.randoms(use_true_random=False))
def test_weighted_examples_against_scikit_learn(rows, random):
    scores, labels = _arrays(rows)
    weights = np.array([[random.randint(1, 4) for _ in rows] for _ in range(3)])
    found = metrics.weighted_metrics(weighted.Examples(scores, labels, np.arange(labels.size), weights))
    for i, weight in enumerate(weights):
        for name, expected in {
            "auc": sk.roc_auc_score(labels, scores, sample_weight=weight),
            "ap": sk.average_precision_score(labels, scores, sample_weight=weight),
            "accuracy": sk.accuracy_score(labels, scores > 0.5, sample_weight=weight),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, scores > 0.5, sample_weight=weight),
            "brier": sk.brier_score_loss(labels, scores, sample_weight=weight),
        }.items():
            assert found[name][i] == pytest.approx(expected), name


@settings(max_examples=15, deadline=None)
@given(both_classes, st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(rows, random):
    keys = [f"{label}/{i % 3}" for i, (_, label) in enumerate(rows)]
    shuffled = list(zip(rows, keys, strict=True))
    random.shuffle(shuffled)
    ours = metrics.detection_metrics(*_arrays(rows), keys)
    theirs = metrics.detection_metrics(*_arrays([row for row, _ in shuffled]), [key for _, key in shuffled])
    assert set(ours) == set(theirs)
    for name in ours:
        assert ours[name] == pytest.approx(theirs[name], abs=1e-12), name


@settings(max_examples=40, deadline=None)
@given(both_classes)
def test_reversed_scores_reverse_auc_and_eer(rows):
    scores, labels = _arrays(rows)
    assert metrics.auc(1 - scores, labels) == pytest.approx(1 - metrics.auc(scores, labels))
    # Swapping what is called fake as well changes nothing.
    assert metrics.auc(1 - scores, 1 - labels) == pytest.approx(metrics.auc(scores, labels))
    assert metrics.eer(1 - scores, 1 - labels) == pytest.approx(metrics.eer(scores, labels))


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_nan_with_a_warning(label):
    absent = "fake" if label == 0 else "real"
    for function in (
        metrics.auc,
        metrics.eer,
        metrics.average_precision,
        metrics.balanced_accuracy,
        lambda s, y: metrics.tnr_at_tpr(s, y, 0.9),
        lambda s, y: metrics.tpr_at_fpr(s, y, 0.01),
    ):
        with pytest.warns(UndefinedMetricWarning, match=f"none of the 2 examples is {absent}"):
            assert np.isnan(function([0.3, 0.7], [label, label]))


def test_detection_metrics_of_one_class_warns_once_and_keeps_accuracy():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = metrics.detection_metrics([0.3, 0.7], [1, 1], ["a", "b"], name="celebdf")
    assert [str(w.message) for w in caught] == [
        "celebdf: every metric but accuracy, ECE and Brier score is undefined, NaN: none of the 2 examples is real"
    ]
    assert np.isnan([result["frame_auc"], result["video_eer"], result["video_tnr99"], result["frame_ap"]]).all()
    assert np.isnan([result["frame_balanced_accuracy"], result["video_tpr_fpr0.1"]]).all()
    assert (result["frame_accuracy"], result["frame_brier"]) == (0.5, pytest.approx((0.49 + 0.09) / 2))
    assert result["frame_ece"] == pytest.approx((0.7 + 0.3) / 2)
    assert (result["video_num_real"], result["video_num_fake"]) == (0.0, 2.0)


@pytest.mark.parametrize(
    "scores, labels, message",
    [
        ([], [], "no scores"),
        ([0.1, np.nan, np.nan], [0, 1, 1], r"score 1 is nan \(2 of 3"),
        ([0.1, np.inf], [0, 1], "score 1 is inf"),
        ([0.1, 0.2], [0, 2], "label 1 is 2"),
        ([0.1, 0.2], [0], r"got \(2,\) and \(1,\)"),
        ([[0.1]], [[0]], r"\[N\]"),
    ],
)
def test_bad_input_is_named(scores, labels, message):
    for function in (metrics.auc, metrics.eer, metrics.average_precision, metrics.accuracy):
        with pytest.raises(ValueError, match=message):
            function(scores, labels)


def test_videos_are_means_grouped_by_full_path():
    # The same folder name under two methods is two videos.
    keys = [
        "toy/c23/deepfakes/000_003",
        "toy/c23/faceswap/000_003",
        "toy/c23/deepfakes/000_003",
        "toy/c23/real/000",
    ]
    scores, labels, names = metrics.group_videos([0.2, 0.9, 0.4, 0.1], [1, 1, 1, 0], keys)
    assert names.tolist() == ["toy/c23/deepfakes/000_003", "toy/c23/faceswap/000_003", "toy/c23/real/000"]
    np.testing.assert_allclose(scores, [0.3, 0.9, 0.1])
    assert labels.tolist() == [1, 1, 0]


def test_a_single_video_is_one_row():
    scores, labels, names = metrics.group_videos(np.float32([0.25, 0.75]), np.array([True, True]), ["v", "v"])
    assert (scores.tolist(), labels.tolist(), names.tolist()) == ([0.5], [1], ["v"])


def test_a_video_of_two_labels_is_an_error():
    with pytest.raises(ValueError, match=r"'b' has frames of both labels: 1 on row 1, 0 on row 3"):
        metrics.group_videos([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 0], ["a", "b", "a", "b"])
    with pytest.raises(ValueError, match="one video key a score"):
        metrics.group_videos([0.1, 0.2], [0, 1], ["a"])


def test_detection_metrics_by_hand():
    # Videos: real r1 (.1, .3 -> .2), real r2 (.7), fakes f1 (.9, .5 -> .7), f2 (.6).
    scores = [0.1, 0.3, 0.7, 0.9, 0.5, 0.6]
    result = metrics.detection_metrics(scores, [0, 0, 0, 1, 1, 1], ["r1", "r1", "r2", "f1", "f1", "f2"])
    assert set(result) == {
        f"{level}_{name}" for level in ("frame", "video") for name in (*metrics.NAMES, "num_real", "num_fake")
    }
    # Frames: .9 beats 3, .5 beats 2, .6 beats 2 of 3. Videos: .7 beats .2, ties .7; .6 beats .2: 2.5 of 4.
    assert result["frame_auc"] == pytest.approx(7 / 9)
    assert result["video_auc"] == pytest.approx(2.5 / 4)
    assert result["frame_accuracy"] == pytest.approx(4 / 6)  # .7 of r2 and .5 of f1 are wrong
    assert result["video_accuracy"] == pytest.approx(3 / 4)
    assert result["frame_tnr90"] == pytest.approx(2 / 3)  # threshold .5
    assert result["video_tnr90"] == pytest.approx(1 / 2)  # threshold .6
    assert (result["frame_num_real"], result["video_num_real"], result["video_num_fake"]) == (3, 2, 2)


def test_ways_to_a_video_score():
    scores = np.array([0.1, 0.9, 0.5, 0.3, 0.8])
    keys = ["a", "a", "a", "b", "b"]
    for aggregate, expected in {
        "mean": (0.5, 0.55),
        "median": (0.5, 0.55),
        "max": (0.9, 0.8),
        "top1": (0.9, 0.8),
        "top2": (0.7, 0.55),
        "top5": (0.5, 0.55),  # fewer frames than k: all of them
    }.items():
        values, _, _ = metrics.group_videos(scores, [1] * 5, keys, aggregate)
        np.testing.assert_allclose(values, expected, err_msg=aggregate)
    for wrong in ("top0", "topk", "min", "top-1"):
        with pytest.raises(ValueError, match=r"expected one of mean, median, max, top<k>"):
            metrics.group_videos(scores, [1] * 5, keys, wrong)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1, width=32)), min_size=1, max_size=30))
def test_video_scores_against_numpy(rows):
    keys, scores = [str(video) for video, _ in rows], np.array([score for _, score in rows])
    by_video = {key: scores[[k == key for k in keys]] for key in sorted(set(keys))}
    for aggregate, function in {
        "median": np.median,
        "max": np.max,
        "top3": lambda values: np.sort(values)[::-1][:3].mean(),
    }.items():
        values, _, names = metrics.group_videos(scores, [0] * len(rows), keys, aggregate)
        assert names.tolist() == list(by_video)
        np.testing.assert_allclose(values, [function(v) for v in by_video.values()], atol=1e-12)


def test_with_a_calibration_by_hand():
    part = {"slope": 0.5, "threshold": 0.65}
    calibration = {**part, "aggregate": "mean", "frame": {**part, "threshold": 0.25}}
    keys = ["r1", "r2", "f1", "f2", "f3"]
    result = metrics.detection_metrics(SCORES, LABELS, keys, calibration=calibration)
    assert result["video_accuracy_val"] == pytest.approx(3 / 5)  # .6 and .3 are missed
    assert result["video_balanced_accuracy_val"] == pytest.approx((1 + 1 / 3) / 2)
    assert result["frame_accuracy_val"] == pytest.approx(4 / 5)
    # sigmoid((logit(s) - logit(1/4)) / 2) = sqrt(3 s) / (sqrt(3 s) + sqrt(1 - s))
    scaled = np.sqrt(3 * SCORES) / (np.sqrt(3 * SCORES) + np.sqrt(1 - SCORES))
    assert result["frame_brier_calibrated"] == pytest.approx(sk.brier_score_loss(LABELS, scaled))
    assert result["frame_brier"] == pytest.approx(sk.brier_score_loss(LABELS, SCORES))
    assert result["frame_auc"] == pytest.approx(5 / 6)
    with pytest.raises(ValueError, match="by 'mean', these are by 'max'"):
        metrics.detection_metrics(SCORES, LABELS, keys, calibration=calibration, aggregate="max")


def _dfb_reference(scores, labels, paths):
    """DeepfakeBench's definitions, restated with loops."""
    videos = {}
    for score, label, path in zip(scores, labels, paths, strict=True):
        videos.setdefault(path.split("/")[-2], []).append((score, label))
    video_scores = [sum(s for s, _ in frames) / len(frames) for frames in videos.values()]
    video_labels = [int(sum(y for _, y in frames) / len(frames)) for frames in videos.values()]
    result = {"frame_accuracy": np.mean([(s > 0.5) == y for s, y in zip(scores, labels, strict=True)])}
    result["frame_ap"] = sk.average_precision_score(labels, scores)
    for level, (s, y) in {"frame": (scores, labels), "video": (video_scores, video_labels)}.items():
        fpr, tpr, _ = sk.roc_curve(y, s, pos_label=1)
        result[f"{level}_auc"] = sk.auc(fpr, tpr)
        result[f"{level}_eer"] = fpr[np.nanargmin(np.absolute((1 - tpr) - fpr))]
    return result


def test_dfb_compat_merges_videos_of_one_name():
    # Folder "x" is real in one method and fake in another: int(mean label) calls it real.
    keys = ["d/c23/real/x", "d/c23/real/y", "d/c23/df/x", "d/c23/df/z", "d/c23/fs/z", "d/c23/df/w"]
    scores, labels = [0.2, 0.4, 0.8, 0.9, 0.1, 0.3], [0, 0, 1, 1, 1, 1]
    result = metrics.dfb_metrics(scores, labels, keys)
    # Videos x: (.2 + .8) / 2 = .5, real; y: .4, real; z: (.9 + .1) / 2 = .5, fake; w: .3, fake.
    assert result["video_auc"] == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert metrics.detection_metrics(scores, labels, keys)["video_num_fake"] == 4
    reference = _dfb_reference(scores, labels, [f"{key}/000.png" for key in keys])
    assert result == pytest.approx(reference)


@settings(max_examples=60, deadline=None)
@given(both_classes)
def test_dfb_compat_equals_its_definitions(rows):
    scores, labels = _arrays(rows)
    keys = [f"d/{label}/{label}{i % 4}" for i, label in enumerate(labels)]
    reference = _dfb_reference(scores, labels, [f"{key}/000.png" for key in keys])
    assert metrics.dfb_metrics(scores, labels, keys) == pytest.approx(reference)


def test_dfb_compat_of_one_class_is_nan_with_a_warning():
    with pytest.warns(UndefinedMetricWarning, match="DeepfakeBench's AUC and EER"):
        result = metrics.dfb_metrics([0.2, 0.7], [1, 1], ["a", "b"])
    assert np.isnan([result["frame_auc"], result["video_eer"], result["frame_ap"]]).all()
    assert result["frame_accuracy"] == 0.5
