import json
import math

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from msddf_jax import logs


def test_lines_and_tensorboard_events(tmp_path):
    writer = logs.MetricWriter(tmp_path, 0)
    writer.write(1, {"loss": 0.5})
    writer.write(2, {"loss": math.nan, "toy/video_auc": 0.75})
    writer.close()
    assert logs.read_metrics(tmp_path) == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": None, "toy/video_auc": 0.75},
    ]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("toy/video_auc")] == [(2, 0.75)]


def test_resume_cuts_what_is_run_again_and_a_torn_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": s, "loss": 1.0}) + "\n" for s in (10, 20, 30)) + '{"step": 4')
    assert [m["step"] for m in logs.read_metrics(tmp_path)] == [10, 20, 30]  # a run that still writes
    writer = logs.MetricWriter(tmp_path, 20)
    writer.write(30, {"loss": 2.0})
    writer.close()
    assert [(m["step"], m["loss"]) for m in logs.read_metrics(tmp_path)] == [(10, 1.0), (20, 1.0), (30, 2.0)]


def test_no_file_is_no_metrics(tmp_path):
    assert logs.read_metrics(tmp_path) == []


def _watched(nll, steps, prior=0.69):
    watch = logs.PriorWatch()
    scalars = {"nll/all": nll, "nll/prior": prior, "nll/forgery": 0.7, "called_fake/forgery": 0.25, "loss": 1.0}
    return [watch.look(step, scalars) for step in range(1, steps + 1)]


def test_two_hundred_steps_at_the_prior_are_told_once():
    told = [text for text in _watched(0.68, 500) if text]
    assert len(told) == 1 and _watched(0.68, 500).index(told[0]) == 199
    assert "label loss, 0.680" in told[0] and "nothing else, 0.690" in told[0]
    assert "forgery 25%, nll 0.70" in told[0] and "config.synth.visible" in told[0]


def test_what_learns_or_has_no_roles_is_not_told_of():
    assert not any(_watched(0.6, 500))
    watch = logs.PriorWatch()
    assert not any(watch.look(step, {"loss": 1.0}) for step in range(500))
