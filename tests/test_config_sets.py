"""Sets of the command line: behind a config's name, and those that `evaluate --sets` scores beside a config's own."""

import csv
import json
import types

import built_index
import jax
import numpy as np
import pytest
from tiny import tiny_config

from msddf_jax import asked_sets, checkpoint, config_sets, detector, evaluate, experiments, hooks, train
from msddf_jax.data import groups, overlap, source

OWN = "faceforensics/toy"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("configs/msddf.py:folder/mine", ("configs/msddf.py", "folder/mine")),
        ("configs/msddf.py:demo:folder/mine-2", ("configs/msddf.py:demo", "folder/mine-2")),
        ("configs/msddf.py:demo", ("configs/msddf.py:demo", None)),
        ("configs/msddf.py", ("configs/msddf.py", None)),
        # An argument of a config of the user's, and a drive.
        ("my_config.py:B/16", ("my_config.py:B/16", None)),
        ("C:/configs/msddf.py", ("C:/configs/msddf.py", None)),
    ],
)
def test_a_set_stands_last_behind_the_config(spec, expected):
    assert experiments.split_set(spec) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("celebdf/v2", "celebdf_v2"),
        ("dfdcp/default:test", "dfdcp"),
        ("folder/mine:validation", "folder_mine_validation"),
    ],
)
def test_the_name_of_a_set_in_results(text, name):
    assert config_sets.eval_name(text) == name


def test_every_config_trains_on_a_built_set_of_its_own_splits(toy_data):
    for spec in experiments.names():
        config = experiments.load(spec).unlock()
        config.data.data_dir = str(toy_data[1])
        if config.data.clip_length:
            continue
        config = config_sets.fill_own(config.lock(), OWN)
        assert (config.data.train.name, config.data.train.split) == (OWN, "train"), spec
        assert {(s.name, s.split) for s in config.evals.values()} == {(OWN, "validation"), (OWN, "test")}, spec
        assert config.data.image_size == 64 and config.data.group.methods == (), spec
        assert config.select is None or config.evals[config.select.eval].split == "validation", spec
        if config.data.batch_size % (1 + config.data.group.fake) == 0:
            train.check_config(config)
        hooks.check(config)


def test_reals_alone_stay_alone(toy_data):
    config = experiments.load("configs/detectors/sbi.py").unlock()
    config.data.data_dir = str(toy_data[1])
    config = config_sets.fill_own(config.lock(), OWN)
    opened = source.open_configured(config, config.data.train)
    assert set(opened.column("label").tolist()) == {"real"}


def _with_data(toy_data, name="configs/detectors/xception.py"):
    config = experiments.load(name).unlock()
    config.data.data_dir = str(toy_data[1])
    return config.lock()


def test_groups_are_by_class_where_a_real_has_no_fake(toy_data, monkeypatch):
    paired = config_sets.fill_own(_with_data(toy_data), OWN)
    assert paired.data.group.match == "pair"
    whole = source.open_source(OWN, "train", toy_data[1])
    whole.videos["pair_id"][:] = ""
    monkeypatch.setattr(source, "open_source", lambda *args, **keys: whole)
    alone = config_sets.fill_own(_with_data(toy_data), OWN)
    assert alone.data.group.match == "class"
    assert len(groups.make_groups(whole, alone.data.group)) == (whole.column("label") == "real").sum()


def test_a_small_set_has_fewer_steps(toy_data):
    config = config_sets.fill_own(_with_data(toy_data, "configs/msddf.py"), OWN)
    whole = source.open_source(OWN, "train", toy_data[1])
    reals, per = int((whole.column("label") == "real").sum()), config.data.batch_size // (1 + config.data.group.fake)
    assert config.steps == -(-100 * reals // per) < 30_000
    assert config.select.every == config.checkpoint_every == config.steps // 4
    assert config_sets.fill_own(_with_data(toy_data, "configs/msddf.py"), OWN, keep_steps=True).steps == 30_000
    published = experiments.load("configs/msddf.py")
    assert config.optim.warmup_steps == int(published.optim.warmup_steps * config.steps / published.steps)


@pytest.mark.parametrize(
    ("splits", "name", "error", "message"),
    [
        (["train", "test"], OWN, ValueError, "has the splits train, test; .* needs validation"),
        (None, "folder/none", FileNotFoundError, "folder/none is not built"),
        (None, "mine", ValueError, 'expected "<data set>/<config>'),
    ],
)
def test_a_set_that_cannot_be_trained_on_is_told(toy_data, monkeypatch, splits, name, error, message):
    if splits:
        monkeypatch.setattr(source, "split_names", lambda *_: splits)
    with pytest.raises(error, match=message):
        config_sets.fill_own(_with_data(toy_data), name)


def test_one_class_alone_is_told(toy_data, monkeypatch):
    whole = source.open_source(OWN, "train", toy_data[1], methods=[])
    monkeypatch.setattr(source, "open_source", lambda *args, **keys: whole)
    with pytest.raises(ValueError, match="has no fake: both are needed"):
        config_sets.fill_own(_with_data(toy_data), OWN)


@pytest.fixture(scope="module")
def workdir(toy_data, tmp_path_factory):
    """A workdir with drawn weights, as training leaves one."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(toy_data[1], bare=True)
    checkpoint.save_config(folder, config)
    rng = np.random.default_rng(0)
    draw = lambda leaf: np.abs(0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
    checkpoint.save_best(folder, 3, jax.tree.map(draw, detector.weight_shapes(config)), {"val/video_auc": 0.5})
    return folder


def test_other_sets_are_scored_and_stand_beside_the_config_s(workdir, toy_data):
    evaluate.evaluate_workdir(workdir, resamples=20)
    before = json.loads((workdir / "results.json").read_text())
    (workdir / "copy" / "faceforensics").mkdir(parents=True)
    (workdir / "copy" / "faceforensics" / "other").symlink_to(toy_data[1] / "faceforensics" / "toy")
    asked = ["faceforensics/other:test"]
    with pytest.raises(FileNotFoundError, match="faceforensics/other is not built"):
        evaluate.evaluate_workdir(workdir, sets=asked, resamples=20)
    evaluate.evaluate_workdir(workdir, sets=asked, data_dir=workdir / "copy", resamples=20)
    after = json.loads((workdir / "results.json").read_text())
    assert {key: value for key, value in after.items() if key in before and key[0] != "_"} == {
        key: value for key, value in before.items() if key[0] != "_"
    }
    assert after["faceforensics_other/video_auc"] is not None
    assert after["_about"]["sets"] == {"faceforensics_other": {"name": "faceforensics/other", "split": "test"}}
    assert not [line for line in after["_about"]["leakage"] if line.startswith(("error", "not checked"))]
    with open(workdir / "scores" / "faceforensics_other.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all((toy_data[0] / row["file"]).is_file() for row in rows) and len(rows) == 30
    # Again: each line once.
    evaluate.evaluate_workdir(workdir, sets=asked, data_dir=workdir / "copy", resamples=20)
    assert json.loads((workdir / "results.json").read_text())["_about"]["leakage"] == after["_about"]["leakage"]


def test_a_table_has_one_way_of_counting(tmp_path):
    about = {"step": 1, "weights": "w", "aggregate": "max", "dfb_compat": False}
    (tmp_path / "results.json").write_text(json.dumps({"_about": about}))
    model = types.SimpleNamespace(step=1, origin="w")
    assert asked_sets.earlier_results(tmp_path, model, "max", False) == {"_about": about}
    with pytest.raises(ValueError, match="pass --aggregate=max, or evaluate every set again, without --sets"):
        asked_sets.earlier_results(tmp_path, model, "mean", False)
    # What was passed is not advised once more.
    with pytest.raises(ValueError, match="pass --nodfb_compat, or"):
        asked_sets.earlier_results(tmp_path, model, "max", True)


def test_what_trained_is_no_test(workdir, toy_data):
    with pytest.raises(ValueError, match=r"(?s)met what it is to be tested on.*--allow_leakage"):
        evaluate.evaluate_workdir(workdir, sets=[f"{OWN}:train"], resamples=20)
    results = evaluate.evaluate_workdir(workdir, sets=[f"{OWN}:train"], allow_leakage=True, resamples=20)
    assert any(line.startswith("error: ") for line in results["_about"]["leakage"])


def test_sets_that_cannot_be_scored_are_told(workdir):
    config = checkpoint.load_config(workdir)
    for asked, message in ((["toy_swap"], "expected"), ([f"{OWN}:test"] * 2, "named twice")):
        with pytest.raises(ValueError, match=message):
            asked_sets.open_asked(workdir, config, asked)
    with pytest.raises(ValueError, match="aggregate='mean'"):
        evaluate.evaluate_workdir(workdir, sets=[f"{OWN}:test"], aggregate="max", resamples=20)


def test_a_set_that_trained_and_is_not_there_is_told(workdir, toy_data, tmp_path):
    config = checkpoint.load_config(workdir)
    config.data.data_dir = str(tmp_path)
    _, about = asked_sets.open_asked(workdir, config, [f"{OWN}:test"], toy_data[1])
    assert about["leakage"] == []
    config.data.train.name = "faceforensics/c23"
    _, about = asked_sets.open_asked(workdir, config, [f"{OWN}:test"], toy_data[1])
    (line,) = about["leakage"]
    assert line.startswith(
        "not checked: faceforensics/c23:train (train) cannot be compared: data set faceforensics/c23 is"
    )


def test_a_folder_of_one_s_own_is_told_to_be_compared_by_pictures():
    row = built_index.row("mine/real/a.png", dataset="folder")
    other = built_index.row("faces/real/b.png", dataset="folder")
    columns = lambda one: {name: [str(value)] for name, value in one.items()}
    mine = overlap.make_split("folder/mine:train", columns(row))
    test = overlap.make_split("folder/other:test", columns(other))
    errors, reports = overlap.check_experiment([mine], [], [test])
    assert errors == [] and "data_prep.leakage --phash" in overlap.describe(reports[0])


def test_of_a_converted_detector_it_is_not_known_what_it_met(toy_data, workdir, tmp_path):
    config = checkpoint.load_config(workdir)
    checkpoint.save_best(tmp_path, 0, {"params": {}, "model_state": {}}, {"converted_from": "meso/deepfakebench"})
    _, about = asked_sets.open_asked(tmp_path, config, [f"{OWN}:train"])
    assert about["leakage"] == [
        "not checked: the weights are converted (meso/deepfakebench): what they were trained on is not recorded"
    ]
