"""One verdict for every command: label and probability never disagree, and calibrations of others are not used."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msddf_jax.data import schema
from msddf_jax.statistics import likelihood, metrics, verdict

probabilities = st.one_of(st.floats(0, 1), st.floats(0, 1, width=32), st.sampled_from([0.0, 1.0, 1e-9, 1 - 1e-9]))
slopes = st.floats(*likelihood.SLOPES)
# A threshold that calls all fake lies a hair below 0.
thresholds = st.one_of(probabilities, st.just(np.nextafter(0.0, -1.0)))


def make_calibration(slope, threshold, frame=None, **changes):
    """As `calibration.fit_calibration` and `evaluate` write it."""
    part = lambda s, t: {"slope": s, "offset": float(-s * verdict.logit(t)), "threshold": t}
    about = {"fitted_on": "val", "split": "validation", "aggregate": "mean", "step": 7, "weights": "best"}
    return {
        **part(slope, threshold),
        **about,
        "num_videos": 8,
        "frame": part(*(frame or (slope, threshold))),
        **changes,
    }


def test_the_case_that_contradicted_itself():
    """A real clip of score 0.62, a steep slope, threshold 0.67: real, so improbable to be fake."""
    found = verdict.judge([0.60, 0.64], make_calibration(1 / 0.13, 0.67))
    assert (found.label, found.threshold, found.score) == ("real", 0.67, pytest.approx(0.62))
    # slope * (logit(0.62) - logit(0.67)), by hand.
    odds = (0.62 / 0.38 / (0.67 / 0.33)) ** (1 / 0.13)
    assert found.probability == pytest.approx(odds / (1 + odds)) and 0.1 < found.probability < 0.2
    assert verdict.judge([0.62], None) == (0.62, 0.62, "fake", 0.5, None)


@settings(max_examples=300, deadline=None)
@given(st.lists(probabilities, min_size=1, max_size=6), slopes, thresholds, st.sampled_from(["mean", "max", "top2"]))
def test_label_and_probability_never_disagree(scores, slope, threshold, aggregate):
    for fitted in (None, make_calibration(slope, threshold, aggregate=aggregate)):
        for level in ("video", "frame"):
            found = verdict.judge(scores, fitted, aggregate, level)
            assert (found.label == "fake") == (found.probability > 0.5) == (found.score > found.threshold)
            assert 0.0 <= found.probability <= 1.0


@settings(max_examples=100, deadline=None)
@given(st.lists(probabilities, min_size=2, max_size=20), slopes, thresholds)
def test_probability_rises_with_the_score(scores, slope, threshold):
    values = verdict.apply_calibration(np.sort(scores), {"slope": slope, "threshold": threshold})
    assert np.all(np.diff(values) >= 0.0)


def test_the_threshold_is_one_half_and_slopes_by_hand():
    part = {"slope": 2.0, "threshold": 0.75}
    # Odds over those of the threshold, 3, squared.
    np.testing.assert_allclose(verdict.apply_calibration([0.75, 0.9, 0.5], part), [0.5, 0.9, 0.1])
    np.testing.assert_array_equal(verdict.apply_calibration([0.3, 0.9], None), [0.3, 0.9])
    assert np.all(np.isfinite(verdict.apply_calibration([0.0, 1.0], {"slope": 20.0, "threshold": 0.5})))
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="above 0"):
            verdict.apply_calibration([0.5], {"slope": wrong, "threshold": 0.5})
    with pytest.raises(ValueError, match="probabilities"):
        verdict.apply_calibration([1.5], part)


def test_levels_and_aggregates():
    fitted = make_calibration(1.0, 0.4, frame=(1.0, 0.8), aggregate="max")
    assert verdict.judge([0.2, 0.6], fitted, "max").label == "fake"
    assert verdict.judge([0.2, 0.6], fitted, "max", "frame").label == "real"
    with pytest.raises(ValueError, match="by 'max', these are by 'mean'"):
        verdict.judge([0.2, 0.6], fitted)
    with pytest.raises(ValueError, match="level is 'clip'"):
        verdict.judge([0.2], None, level="clip")
    for wrong in ([], [np.nan], [1.5], [[0.1]]):
        with pytest.raises(ValueError, match="expected scores"):
            verdict.judge(wrong)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=7), st.sampled_from(["mean", "median", "max", "top3"]))
def test_the_score_is_that_of_the_evaluation_to_the_bit(scores, aggregate):
    keys, labels = ["b"] * len(scores) + ["a"], [1] * len(scores) + [0]
    videos, _, _ = metrics.group_videos(np.float32([*scores, 0.5]), labels, keys, aggregate)
    assert verdict.judge(scores, None, aggregate).score == videos[1]


def test_a_calibration_is_read_back(tmp_path):
    assert verdict.load_calibration(tmp_path) is None
    fitted = make_calibration(2.0, 0.7)
    path = tmp_path / verdict.FILE
    path.write_text(json.dumps(fitted))
    assert verdict.load_calibration(tmp_path) == fitted
    assert verdict.of_level(fitted, "frame") == fitted["frame"] and verdict.of_level(None, "frame") is None
    old = {"temperature": 2.0, "threshold": 0.7, "frame": {"temperature": 2.0, "threshold": 0.7}}
    for wrong, message in (
        ({}, "lacks aggregate"),
        (old, r"has a temperature.*write it anew: python -m msddf_jax\.evaluate"),
        ({**fitted, "offset": 0.0}, "does not make the threshold 0.7 one half"),
        ({**fitted, "slope": -1.0}, "out of range"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=message):
            verdict.load_calibration(tmp_path)


def test_a_calibration_of_other_weights_is_not_used(tmp_path):
    wanted = {"step": 7, "weights": "best", "aggregate": "mean"}
    assert verdict.calibration_of(tmp_path, **wanted)[1].startswith("there is no calibration.json")
    fitted = make_calibration(2.0, 0.7)
    (tmp_path / verdict.FILE).write_text(json.dumps(fitted))
    assert verdict.calibration_of(tmp_path, **wanted) == (fitted, "")
    for name, other in (("step", 8), ("weights", "last"), ("aggregate", "max")):
        found, why = verdict.calibration_of(tmp_path, **{**wanted, name: other})
        assert found is None and why.endswith(f"these scores are of {name} {other!r}")


def test_what_is_said_of_the_forgery():
    names = schema.FORGERY_TYPES
    poisson, dynamic = names.index("poisson"), names.index("dynamic")
    first, second = np.full(6, 0.04), np.full(6, 0.02)
    first[poisson], second[dynamic], second[poisson] = 0.8, 0.5, 0.42
    outputs = [
        {"score": 0.9, "type": first, "regions": np.linspace(0.1, 0.5, 5), "strength": 0.2},
        {"score": 0.8, "type": second, "regions": np.linspace(0.3, 0.7, 5), "strength": 0.6},
    ]
    found = verdict.describe_forgery(outputs)
    assert (found["type"], found["type_probability"]) == ("poisson", pytest.approx(0.61))
    assert found["regions"] == pytest.approx(dict(zip(schema.FACE_PARTS, (0.2, 0.3, 0.4, 0.5, 0.6), strict=True)))
    assert found["strength"] == pytest.approx(0.4)
    assert verdict.describe_forgery([{"score": 0.9}]) == {}


def test_the_highest_face_counts():
    outputs = [{"score": score} for score in (0.2, 0.9, 0.4)]
    assert verdict.top_faces([3, 3, 5], outputs) == {3: outputs[1], 5: outputs[2]}
