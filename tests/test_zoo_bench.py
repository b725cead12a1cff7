"""The table of detectors: what its facts are, that they are made once, and the arithmetic of a row."""

import json
import sys

import jax
import numpy as np
import pytest
from few_steps import STILL

from benchmarks import zoo
from benchmarks.train_step import make_batch
from configs.common import eval_set
from configs.detectors import gend, meso4
from msddf_jax import checkpoint, experiments
from msddf_jax.data.methods import METHODS
from msddf_jax.evaluators.detection import write_scores
from msddf_jax.train_step import init_state

ABOUT = {"device": "toy", "devices": 1, "commit": "abc"}


def _small(data_dir="nowhere"):
    """Meso4's demo at 64 px, without augmentation, two steps."""
    config = zoo.load_demo("configs/detectors/meso4.py", 2)
    config.data.data_dir = str(data_dir)
    config.data.image_size = config.model.image_size = 64
    config.data.batch_size = config.data.eval_batch_size = 8
    config.augment = {"image_size": 64, **STILL}
    return config


def test_every_detector_is_a_row():
    found = zoo.row_specs()
    assert found["msddf"] == "configs/msddf.py" and list(found) == sorted(found)
    wanted = {name for name in experiments.names() if "/detectors/" in name} | {"configs/msddf.py"}
    assert set(found.values()) == wanted and "configs/detectors/meso4.py" in wanted


@pytest.mark.parametrize("name", zoo.row_specs())
def test_a_row_is_tested_on_what_it_has_not_seen(name):
    config = zoo.load_demo(zoo.row_specs()[name], 2)
    assert config.steps == 2 and set(zoo.SEEN + zoo.UNSEEN) < set(config.evals)
    assert not (config.data.group.fake and set(zoo.UNSEEN) & set(config.data.train.methods))


def test_what_trains_on_the_unseen_is_refused(monkeypatch):
    config = meso4.get_config("demo").unlock()
    config.data.train = eval_set("faceforensics/toy", "train")
    monkeypatch.setattr(zoo.experiments, "load", lambda spec: config)
    with pytest.raises(ValueError, match="trains on every manipulation; toy_swap, toy_reenact are for testing"):
        zoo.load_demo("configs/detectors/meso4.py")


def test_size_of_meso4():
    facts = zoo.measure_size(meso4.get_config())
    # 27,898 as test_zoo.py has it; at 64 px the first linear layer has 16 x 2 x 2 inputs in place of 16 x 8 x 8.
    assert facts["parameters"] == facts["trained"] == 27_898
    assert zoo.measure_size(_small())["parameters"] == 27_898 - 16 * 16 * (64 - 4)
    # Convolutions: multiply-adds of k x k x in x out at 256, 128, 64 and 32 px.
    products = 27 * 8 * 256**2 + 200 * 8 * 128**2 + 200 * 16 * 64**2 + 400 * 16 * 32**2
    assert facts["gflop"] == pytest.approx(2e-9 * products, rel=0.05) and not facts["loop"]
    # Nothing of it is done once a batch.
    assert facts["gflop_further"] == pytest.approx(facts["gflop"], rel=0.01)
    assert facts["image"] == [256, 256, 3]


def test_what_is_frozen_is_not_trained():
    config = gend.get_config("demo").unlock()
    config.optim.groups = ((r"detector/backbone/.*", None), (r"detector/.*", {"lr": 1e-3, "weight_decay": 0.0}))
    facts = zoo.measure_size(config)
    # Two outputs of a feature of 192.
    assert facts["trained"] == 2 * 193 and facts["parameters"] > 5_000_000


def test_what_is_done_once_a_batch_counts_for_the_first_image(monkeypatch):
    def make_score(config):
        def score(weights, batch):
            once = weights["params"]["binary_head"]["out"]["kernel"]
            return (once @ once.T).max() * batch["image"][:, 0, 0, 0]

        return score

    monkeypatch.setattr(zoo.detector, "make_score", make_score)
    facts = zoo.measure_size(_small())
    # A product of 16 x 2 x 16, its 256 numbers compared, and one multiplication an image.
    assert facts["gflop"] == pytest.approx(1e-9 * (2 * 16 * 2 * 16 + 256 + 1), abs=5e-9)
    assert facts["gflop_further"] == pytest.approx(1e-9, abs=2e-9)


def test_a_loop_is_marked(monkeypatch):
    def make_score(config):
        return lambda weights, batch: jax.lax.fori_loop(
            0, batch["image"][0, 0, 0, 0].astype(int), lambda i, x: x * 2.0, 1.0
        )

    monkeypatch.setattr(zoo.detector, "make_score", make_score)
    facts = zoo.measure_size(_small())
    assert facts["loop"] and zoo._size_cells({"size": facts})[-1].endswith("+")


@pytest.mark.long
def test_speed_of_a_small_detector():
    config = _small()
    facts = zoo.measure_speed(config, runs=2)
    weights = 4 * 27_898 - 4 * 16 * 16 * 60
    for part in facts.values():
        assert part["images"] == 8 and len(part["seconds"]) == 2
        assert part["images_per_second"] == pytest.approx(8 / np.median(part["seconds"]))
        assert part["bytes"] > weights + 8 * 64 * 64 * 3
    # Beside the weights there are two moments and the average.
    assert facts["train"]["bytes"] > 4 * weights


def test_rows_of_a_step_are_those_that_the_detector_sees():
    spec = zoo.row_specs()["sbi"]
    config = zoo.load_demo(spec)
    state = jax.eval_shape(lambda: init_state(config))
    # Each of the reals is seen as it is and as its forgery.
    assert zoo._rows_of_step(config, state, make_batch(config), {}) == 2 * config.data.batch_size
    full = zoo.full_size("configs/detectors/meso4.py", 5)
    # Pairs of a real and a fake: whole ones.
    assert (full.data.batch_size, full.data.eval_batch_size) == (4, 5)


def _scores(fakes, method):
    """Two reals with two frames each, scores 0.2 and 0.6, and fakes of one frame."""
    reals = [("toy/c23/real/000", 0, 0.1), ("toy/c23/real/000", 0, 0.3), ("toy/c23/real/001", 0, 0.6)]
    rows = reals + [(f"toy/c23/{method}/{i}", METHODS.index(method), score) for i, score in enumerate(fakes)]
    keys, methods, scores = zip(*rows, strict=True)
    methods = np.array(methods, np.int32)
    labels = (methods != 0).astype(np.int32)
    return {
        "video_key": np.array(keys),
        "method": methods,
        "frame_index": np.arange(len(rows), dtype=np.int32),
        "label": labels,
        "score": np.array(scores, np.float32),
        "file": np.array([f"{number}.png" for number in range(len(rows))], object),
    }


def test_a_pool_has_every_video_once():
    scores, labels = zoo.pool([_scores([0.5, 0.9], "toy_swap"), _scores([0.7], "toy_reenact")])
    assert sorted(zip(labels, np.round(scores, 6), strict=True)) == [(0, 0.2), (0, 0.6), (1, 0.5), (1, 0.7), (1, 0.9)]


def _write_run(config, workdir):
    """A run as training leaves one: of seed s the seen fakes are found by 1 or by 3 / 4, the unseen by 1 / 2."""
    good = 0.9 if config.seed == 0 else 0.5
    fakes = {"toy_neural": [good, 0.9], "toy_texture": [good, 0.9], "toy_swap": [0.5, 0.5], "toy_reenact": [0.5, 0.5]}
    checkpoint.save_config(workdir, config)
    results = {"_about": {"step": 2, "aggregate": "mean", "versions": ABOUT}}
    for name, scores in fakes.items():
        write_scores(workdir / "scores" / f"{name}.csv", _scores(scores, name))
        results[f"{name}/video_auc"] = 0.5
    checkpoint.write_json(workdir / "results.json", results)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """(call the command on meso4, list of the seeds that were trained); training and timing are made up."""
    trained = []

    def train(config, workdir):
        trained.append(config.seed)
        _write_run(config, workdir)

    speed = {what: {"images_per_second": 100.0, "bytes": 3 * 2**20} for what in ("train", "score")}
    monkeypatch.setattr(zoo.train, "train_and_evaluate", train)
    monkeypatch.setattr(zoo, "measure_speed", lambda config, runs: speed)

    def call(*flags):
        arguments = ["zoo", f"--out={tmp_path}", "--rows=meso4", *flags]
        monkeypatch.setattr(sys, "argv", arguments)
        zoo.main()
        return [cell.strip() for cell in (tmp_path / "table.md").read_text().splitlines()[2].split("|")[1:-1]]

    return call, trained


def test_the_table_and_that_nothing_is_made_twice(bench, tmp_path):
    call, trained = bench
    row = call("--steps=2")
    # All four seen fakes above both reals, where no draw differs; the unseen above one of two reals.
    assert row[:6] == ["meso4", "neural, texture", "2", "1", "100.0 [-]", "50.0 [0.0, 100.0]"]
    assert row[6:8] == ["0.028", "0.028"] and row[11:] == ["100.0", "100.0", "3", "3"]
    before = (tmp_path / "meso4" / "facts.json").read_text()
    assert call("--steps=2") == row and trained == [0]
    assert (tmp_path / "meso4" / "facts.json").read_text() == before
    # Of seed 1 two fakes beat both reals and two beat one: 75. Mean 87.5, deviation 25 / sqrt(2).
    assert call("--steps=2", "--seeds=2")[3:6] == ["2", "87.5 (17.7)", "50.0 (0.0)"] and trained == [0, 1]
    # A row that is begun alone; --table makes nothing.
    (tmp_path / "xception").mkdir()
    (tmp_path / "xception" / "facts.json").write_text(json.dumps({"speed": json.loads(before)["speed"]}))
    call("--table")
    assert trained == [0, 1]
    text = (tmp_path / "table.md").read_text()
    assert "| xception | - | - | - | - | - | - | - | - | - | - | 100.0 | 100.0 | 3 | 3 |" in text
    assert "abc" in text and f"jax {jax.__version__}" in text and "evice" in text


def test_a_run_without_facts_is_read_and_not_repeated(bench, tmp_path):
    call, trained = bench
    row = call("--steps=2")
    facts = json.loads((tmp_path / "meso4" / "facts.json").read_text())
    del facts["seed 0"]
    (tmp_path / "meso4" / "facts.json").write_text(json.dumps(facts))
    assert call("--steps=2") == row and trained == [0]
    assert json.loads((tmp_path / "meso4" / "facts.json").read_text())["seed 0"]["about"] == ABOUT
    (tmp_path / "meso4" / "facts.json").unlink()
    with pytest.raises(
        SystemExit, match=r"meso4, seed 0: ValueError: .* was trained with another config: give another"
    ):
        call("--steps=4")


def test_what_fails_is_told_and_stops_nothing_else(bench, tmp_path, monkeypatch):
    call, trained = bench

    def fail(config):
        raise FileNotFoundError("no tokenizer")

    monkeypatch.setattr(zoo, "measure_size", fail)
    with pytest.raises(SystemExit, match="not made:\nmeso4, size: FileNotFoundError: no tokenizer\nmeso4, demo_size"):
        call("--steps=2")
    assert trained == [0] and "| 100.0 [-] | 50.0 [0.0, 100.0] | - | - | - | - | - | 100.0 |" in (
        (tmp_path / "table.md").read_text()
    )


def test_what_does_not_fit_is_refused(bench, tmp_path):
    call, _ = bench
    with pytest.raises(SystemExit, match="no facts in"):
        call("--table")
    with pytest.raises(SystemExit, match=r"--rows names \['mesa4'\], allowed: .*meso4"):
        call("--rows=mesa4")
    call("--steps=2")
    with pytest.raises(SystemExit, match=r"meso4, demo_size: .*'demo_size' of another config .*or other --steps"):
        call("--steps=3")
    # Where its data lie is not what a config is.
    assert zoo.digest(_small("here")) == zoo.digest(_small("there"))


@pytest.mark.long
def test_a_run_of_two_steps(toy_data, tmp_path, monkeypatch):
    small = _small()
    monkeypatch.setattr(zoo, "load_demo", lambda spec, num_steps=None: small.copy_and_resolve_references().unlock())
    arguments = ["zoo", f"--out={tmp_path}", f"--data_dir={toy_data[1]}", "--rows=meso4", "--runs=1"]
    monkeypatch.setattr(sys, "argv", arguments)
    zoo.main()
    facts = json.loads((tmp_path / "meso4" / "facts.json").read_text())
    found, results = facts["seed 0"], json.loads((tmp_path / "meso4" / "0" / "results.json").read_text())
    for part, names in (("seen", zoo.SEEN), ("unseen", zoo.UNSEEN)):
        # As many fakes of either, and the same reals.
        wanted = np.mean([results[f"{name}/video_auc"] for name in names])
        assert found[part]["auc"] == pytest.approx(wanted, abs=1e-6)
        assert found[part]["num_fake"] == 2 * results[f"{names[0]}/video_num_fake"]
        assert found[part]["num_real"] == results[f"{names[0]}/video_num_real"]
    assert found["about"]["commit"] == results["_about"]["versions"]["commit"]
