"""`msddf_jax.calibrate`: what it fits and refuses, what `evaluate` and the commands that score make of it."""

import json

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from test_evaluate import MemorySource, make_config, predict
from test_verdict import make_calibration

from msddf_jax import asked_sets, calibrate, evaluate, inference
from msddf_jax.data import source
from msddf_jax.show import lines, records, words
from msddf_jax.show import verdict as shown
from msddf_jax.statistics import likelihood, verdict

# As `verdict.weigh` gives it.
ANSWER = {"log10_lr": 1.4, "bounds": [-2.2, 1.8], "num_real": 60, "num_fake": 170, "abstained": False, "reason": ""}


def make_people(first, split, methods=("real", "toy_swap"), count=12, name="toy/c23", shift=30, seed=0):
    """A set of people whose numbers begin at `first`, with an index that `overlap` reads."""
    rng = np.random.default_rng(seed)
    rows = [
        (method, f"{first + i:03d}", int(np.clip(rng.normal(110 + shift * (method != "real"), 20), 0, 250)))
        for method in methods
        for i in range(count)
    ]
    found = MemorySource(rows)
    found.name, found.sets, found.count = f"{name}:{split}", (f"{name}:{split}",), np.ones(len(rows), int)
    labels = np.where(found.videos["method"] == "real", "real", "fake")
    people = np.array([f"toy:{person}" for _, person, _ in rows])
    found.videos |= {"label": labels, "target_identity": people, "source_identity": people}
    found.videos |= {"reader": np.zeros(len(rows), int)}
    return found


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A folder whose detector trained on people 0 to 11, chose on 100 to 111 and is tested on 200 to 211."""
    config = make_config(eval="val", metric="video_auc", every=1)
    fields = {"methods": None, "max_frames": None, "data_dir": None}
    for eval_config in config.evals.values():
        eval_config.update(fields)
    config.data.train = ml_collections.ConfigDict({"name": "toy/c23", "split": "train", **fields})
    sets = {
        "toy/c23:train": make_people(0, "train"),
        "toy/c23:validation": make_people(100, "validation", seed=1),
        "toy/c23:test": make_people(200, "test", seed=2),
        "toy/more:validation": make_people(300, "validation", name="toy/more", seed=3, shift=20, count=20),
        "toy/more:test": make_people(400, "test", name="toy/more", seed=4),
        "toy/same:test": make_people(5, "test", name="toy/same"),
        "toy/few:validation": make_people(500, "validation", name="toy/few", count=9),
        "toy/reals:validation": make_people(500, "validation", ("real",), name="toy/reals"),
    }
    opened = []

    def open_configured(config, settings, data_dir=None):
        opened.append((settings.name, settings.split, settings.methods))
        return sets[f"{settings.name}:{settings.split}"]

    monkeypatch.setattr(source, "open_configured", open_configured)
    monkeypatch.setattr(source, "open_sources", lambda name, split, data_dir=None, **_: sets[f"{name}:{split}"])
    model = inference.Inference(config, predict, jnp.float32(12.0), 7, "best")
    for module in (calibrate, evaluate):
        monkeypatch.setattr(module, "load_for_inference", lambda workdir: model)
    return tmp_path, opened


def test_another_set_calibrates_and_evaluate_keeps_it(workdir, capsys):
    folder, opened = workdir
    settings = {"resamples": 20}
    results = evaluate.evaluate_workdir(folder, **settings)
    # By itself on the eval that chose: two classes of 12 people.
    by_itself = verdict.load_calibration(folder)
    assert by_itself["fitted_on"] == "val" and by_itself["lr"]["num_real"] == 12 and "set" not in by_itself
    assert results["_about"]["calibration"] == by_itself
    low, high = results["_intervals"]["test/video_cllr_loss"]
    assert low <= results["test/video_cllr_loss"] <= high

    capsys.readouterr()
    fitted = calibrate.calibrate_workdir(folder, set_text="toy/more", methods=["toy_swap"])
    assert fitted == verdict.load_calibration(folder)
    assert ("toy/more", "validation", ("toy_swap",)) in opened
    assert fitted["fitted_on"] == "toy_more_validation" and (fitted["step"], fitted["weights"]) == (7, "best")
    assert fitted["set"] == {
        "name": "toy/more", "split": "validation", "methods": ["toy_swap"], "data_dir": None
    }  # fmt: skip
    for part in (fitted, fitted["frame"]):
        assert (part["lr"]["num_real"], part["lr"]["num_fake"]) == (20, 20)
        assert 0.0 < part["lr"]["high"] <= np.log10(21) and part["lr"]["abstain_below"] >= likelihood.LEAST_LOG10
    said = capsys.readouterr().out
    assert "by 20 real and 20 fake videos" in said and "anew: python -m msddf_jax.evaluate" in said

    again = evaluate.evaluate_workdir(folder, **settings)
    assert again["_about"]["calibration"] == fitted == verdict.load_calibration(folder)
    assert again["test/video_cllr"] == results["test/video_cllr"]
    assert again["test/video_cllr_calibrated"] != results["test/video_cllr_calibrated"]
    # Of other weights it is not kept.
    (folder / verdict.FILE).write_text(json.dumps(fitted | {"step": 6}))
    assert evaluate.evaluate_workdir(folder, **settings)["_about"]["calibration"] == by_itself


def test_people_of_training_and_test_are_refused(workdir):
    folder, _ = workdir
    for text, message in (
        ("toy/same:test", r"(?s)shares videos or people with what .* 7 identities in both, such as toy:005"),
        ("toy/c23:test", "shares videos or people"),
        ("toy/c23:train", "shares videos or people"),
        ("toy/few", "gives no likelihood ratio: 9 real and 9 fake videos, expected 10 of each"),
        ("nothing", 'expected "<data set>/<config>'),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate.calibrate_workdir(folder, set_text=text)
    with pytest.warns(UserWarning, match="undefined"), pytest.raises(ValueError, match="it has one class only"):
        calibrate.calibrate_workdir(folder, set_text="toy/reals")
    with pytest.raises(ValueError, match="--eval names 'test', whose split is 'test'"):
        calibrate.calibrate_workdir(folder, eval_name="test")
    with pytest.raises(ValueError, match=r"--eval is 'other'; config.evals has \['test', 'val'\]"):
        calibrate.calibrate_workdir(folder, eval_name="other")
    with pytest.raises(ValueError, match="not both"):
        calibrate.calibrate_workdir(folder, eval_name="val", set_text="toy/more")
    with pytest.raises(ValueError, match=r"--methods has \['swap'\]"):
        calibrate.calibrate_workdir(folder, methods=["swap"])
    assert not (folder / verdict.FILE).exists()


def test_a_test_split_that_nothing_is_tested_on_may_calibrate_and_is_no_test_set_then(workdir):
    folder, _ = workdir
    fitted = calibrate.calibrate_workdir(folder, set_text="toy/more:test", share=0.0)
    assert fitted["fitted_on"] == "toy_more" and fitted["lr"]["abstain_below"] == likelihood.LEAST_LOG10
    config = calibrate.load_for_inference(folder).config
    with pytest.raises(ValueError, match=r"(?s)met what it is to be tested on.*12 identities in both"):
        asked_sets.open_asked(folder, config, ["toy/more:test"])
    # And the other way round: what results.json has is tested on.
    (folder / verdict.FILE).unlink()
    sets = {"toy_more": {"name": "toy/more", "split": "test"}}
    (folder / "results.json").write_text(json.dumps({"_about": {"sets": sets}}))
    with pytest.raises(ValueError, match="shares videos or people"):
        calibrate.calibrate_workdir(folder, set_text="toy/more:test")


def test_people_are_held_out_together(workdir):
    found = evaluate.persons_of(make_people(7, "test", count=2), ["toy/c23/toy_swap/008", "toy/c23/real/008"])
    assert found.tolist() == ["identity toy:008"] * 2


@pytest.mark.parametrize(
    ("log10_lr", "text", "strength"),
    [
        (0.0, "1 times", "no"),
        (np.log10(1.96), "2 times", "weak"),
        (-0.9, "7.9 times", "weak"),
        (np.log10(9.96), "10 times", "moderate"),
        (1.4, "25 times", "moderate"),
        (-2.52, "330 times", "moderately strong"),
        (3.1, "1,300 times", "strong"),
        (4.0, "10,000 times", "very strong"),
        (6.5, "3,200,000 times", "extremely strong"),
    ],
)
def test_numbers_in_words(log10_lr, text, strength):
    assert words.times(log10_lr) == text and words.support(log10_lr) == f"{strength} support"


def test_sentences():
    assert words.describe(ANSWER) == (
        "The score supports 'fake' 25 times more than 'real': moderate support. The limit of what 60 real and 170 fake "
        "calibration videos can show is 63 times."
    )
    assert words.describe_short(ANSWER) == "supports fake 25 times (limit 63)"
    assert words.describe(ANSWER | {"log10_lr": -2.2}) == (
        "The score supports 'real' 160 times more than 'fake': moderately strong support, and the limit of what 60 "
        "real and 170 fake calibration videos can show."
    )
    assert words.describe(ANSWER | {"abstained": True, "reason": "because"}) == "No answer: because."


def _record(lr, label="fake"):
    verdict_of = {"score": 0.8, "probability": 0.96, "label": label, "threshold": 0.5, "calibration": {}}
    return {"file": "a.png", "kind": "image", **verdict_of, "lr": lr, "faces": [{}], "drops": []}


def test_lines_on_a_fit():
    fitted = make_calibration(2.0, 0.7)
    assert words.describe_fit(fitted)[1] == "no likelihood ratio: the calibration is of an earlier version"
    assert words.describe_fit(fitted | {"lr": None, "no_lr": "too few"})[1] == "no likelihood ratio: too few"
    lr = {"low": -1.0, "high": 1.3, "num_real": 20, "num_fake": 9, "cllr": 0.4, "cllr_min": 0.31, "error": 0.07}
    lr |= {"abstain_below": 0.5, "abstained": 0.2, "error_rest": 0.012}
    assert words.describe_fit(fitted | {"lr": lr})[1:] == [
        "likelihood ratio: at most 20 times for fake and 10 times for real, by 20 real and 9 fake videos; on held-out "
        "ones Cllr 0.40 bits, least 0.31",
        "no answer below 3.2 times either way: 20% of held-out videos; wrong are 7.0% of all and 1.2% of the others",
    ]
    assert words.describe_fit(fitted | {"lr": lr | {"error_rest": None}})[2].endswith("and there are no others")


def test_lines_for_people():
    said = " ".join(lines.describe(_record(ANSWER)).split())
    assert said == "a.png FAKE 96 %; supports fake 25 times (limit 63); 1 face"
    unsure = _record(ANSWER | {"abstained": True, "reason": "too near"})
    said = lines.describe(unsure)
    assert "no answer (score 0.80); too near; 1 face" in said and "FAKE" not in said and "96" not in said
    made = [_record(ANSWER), unsure, _record(None, "real")]
    assert lines.summarize(made, {}, "out").splitlines()[0] == "3 files: 1 fake, 1 real, 1 no answer"


def test_the_page_says_it_too():
    judged = verdict.Verdict(0.8, 0.96, "fake", 0.5, {"fitted_on": "val", "threshold": 0.5})
    page = {"kind": "image", "judged": judged, "shown": [{}], "rows": [], "drops": []}
    said = shown._render_headline(page | {"lr": ANSWER | {"words": words.describe(ANSWER)}})
    assert "supports &#x27;fake&#x27; 25 times more" in said and "is 63 times." in said and "96&thinsp;%" in said
    unsure = ANSWER | {"abstained": True, "reason": "neither <side>"}
    said = shown._render_headline(page | {"lr": unsure | {"words": words.describe(unsure)}})
    assert "No answer" in said and "Neither &lt;side&gt;." in said and "96" not in said and "<b>fake</b>" not in said


def test_out_of_range_is_no_answer_either():
    lr = {"low": -1.0, "high": 1.0, "num_real": 12, "num_fake": 12, "abstain_below": 0.3, "abstained": 0.2}
    fitted = make_calibration(2.0, 0.5)
    fitted |= {"lr": lr, "frame": fitted["frame"] | {"lr": lr}}
    near, far = ({"distance": d, "threshold": 1.0, "out_of_range": d > 1.0} for d in (0.5, 2.0))
    assert records.weigh(0.9, fitted, "video", near)["abstained"] is False
    found = records.weigh(0.9, fitted, "frame", far)
    assert found["abstained"] is True and found["words"] == f"No answer: {records.OUT_OF_RANGE}."
    assert records.weigh(0.9, make_calibration(2.0, 0.5), "video") is None
    assert records.why_unanswered({"lr": found}) == f"no answer: {records.OUT_OF_RANGE}"
    assert records.why_unanswered({"lr": found, "range": far}).startswith("no verdict: ")


def test_bounds_that_cannot_be_are_refused(tmp_path):
    fitted = make_calibration(2.0, 0.5) | {"lr": {"low": 0.1, "high": 1.0}}
    (tmp_path / verdict.FILE).write_text(json.dumps(fitted))
    with pytest.raises(ValueError, match="the bounds of the likelihood ratio"):
        verdict.load_calibration(tmp_path)
