"""What a detector calls each test video: counts, one of each kind, and the sentences that follow from them."""

import json

import numpy as np
import pytest
from scipy.stats import beta
from test_verdict import make_calibration
from tiny import tiny_config

from msddf_jax import checkpoint, confusion
from msddf_jax.data import methods
from msddf_jax.evaluators import calls, detection
from msddf_jax.show import answer

UNITS = {"real": "original_sequences/youtube", "toy_neural": "manipulated_sequences/ToyNeural"}
# At 0.5: of four reals one is a false alarm; of two toy_neural one is missed, of three toy_swap all.
SCORES = {"real": (0.1, 0.3, 0.4, 0.9), "toy_neural": (0.45, 0.7), "toy_swap": (0.2, 0.3, 0.5)}


def _columns(*kinds):
    """Scores of videos of one frame each, as an evaluation keeps them."""
    rows = [(kind, i, score) for kind in kinds for i, score in enumerate(SCORES[kind])]
    names = [f"{i:03d}" for _, i, _ in rows]
    return {
        "video_key": np.array([f"toy/c23/{kind}/{name}" for (kind, *_), name in zip(rows, names)]),
        "method": np.array([methods.METHODS.index(kind) for kind, *_ in rows], np.int32),
        "frame_index": np.zeros(len(rows), np.int32),
        "label": np.array([kind != "real" for kind, *_ in rows], np.int32),
        "score": np.array([score for *_, score in rows], np.float32),
        "file": np.array(
            [f"{UNITS.get(kind, kind)}/c23/frames/{name}/000.png" for (kind, *_), name in zip(rows, names)], object
        ),
    }


@pytest.fixture
def workdir(tmp_path):
    """The demo's config, which trains on toy_neural and not on toy_swap: two tests that share their reals."""
    checkpoint.save_config(tmp_path / "run", tiny_config("data", bare=True))
    for name in ("val", "toy_neural", "toy_swap"):
        kinds = ("real", "toy_swap") if name == "toy_swap" else ("real", "toy_neural")
        detection.write_scores(tmp_path / "run" / "scores" / f"{name}.csv", _columns(*kinds))
    about = {"step": 7, "weights": "best", "select": {"eval": "val", "metric": "video_auc"}, "versions": {}}
    row = {"name": "toy_swap", "of": "toy_swap", "auc": 0.5, "auc_interval": [0.1, 0.8], "tpr": None}
    pooled = {"sets": ["toy_neural", "toy_swap"], "figures": {"video_auc": 0.75}, "intervals": {"video_auc": [0.6, 1]}}
    results = {"_about": about, "_intervals": {}, "_pooled": pooled, "_worst": {"generator": row, "set": row}}
    checkpoint.write_json(tmp_path / "run" / "results.json", results)
    return tmp_path / "run"


def test_counts_are_those_by_hand_and_reals_count_once(workdir):
    rows = answer.load(workdir).counts
    found = [(row.group, row.method, row.in_training, row.real, row.fake, row.wrong) for row in rows]
    assert found == [
        ("toy/c23", "real", None, 3, 1, 1),
        ("toy/c23", "toy_neural", True, 1, 1, 1),
        ("toy/c23", "toy_swap", False, 3, 0, 3),
    ]
    # Clopper and Pearson by their quantiles of the beta distribution: 1 of 4, and 3 of 3.
    assert rows[0].interval == pytest.approx((beta.ppf(0.025, 1, 4), beta.ppf(0.975, 2, 3)))
    assert rows[2].interval == pytest.approx((0.025 ** (1 / 3), 1.0))


def test_the_clearest_of_each_kind(workdir):
    found = calls.one_of_each(answer.load(workdir).calls)
    keys = {kind: call.key.split("/", 2)[2] for kind, call in found.items()}
    assert keys == {
        "real, called real": "real/000",
        "fake, called fake": "toy_neural/001",
        "missed fake": "toy_swap/000",
        "false alarm": "real/003",
    }
    (workdir / "scores" / "toy_swap.csv").unlink()
    (workdir / "calibration.json").write_text(_calibration(0.95))
    found = calls.one_of_each(answer.load(workdir).calls)
    assert found["false alarm"] is None and found["fake, called fake"] is None


def _calibration(threshold):
    return json.dumps(make_calibration(2.0, threshold))


def test_a_call_follows_the_calibration_of_these_scores(workdir):
    (workdir / "calibration.json").write_text(_calibration(0.35))
    tested = answer.load(workdir)
    assert [(row.real, row.fake) for row in tested.counts] == [(2, 2), (0, 2), (2, 1)]
    assert "At the threshold 0.35: 2 of 4 real videos are called fake and 2 of 5 fakes are missed." in answer.how_good(
        tested
    )
    assert any(line.startswith("The threshold 0.35 was fitted on val (8 videos)") for line in
               answer.not_to_conclude(tested))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "method", "fake", "kept", "expected"),
    [
        ("faceforensics/toy", "toy_neural", 1, ("toy_neural",), True),
        ("faceforensics/c40", "toy_neural", 1, ("toy_neural",), True),  # the same data set, compressed more
        ("faceforensics/toy", "toy_swap", 1, ("toy_neural",), False),
        ("faceforensics/toy", "toy_swap", 1, None, True),  # all that there are
        ("celebdf/v2", "celebdf", 1, None, False),
        ("dfdc/full", "unknown", 1, None, None),  # of which method, nobody says
        ("celebdf/v2,faceforensics/toy", "toy_swap", 1, None, True),
        ("faceforensics/toy", "toy_neural", 0, ("toy_neural",), False),  # reals alone, and forgeries of them
    ],
)
def test_what_was_in_training(name, method, fake, kept, expected):
    config = tiny_config("data", bare=True).unlock()
    config.data.train.methods, config.data.group.fake = kept, fake
    assert calls.trained_on(config, name, method) is expected


def test_each_folder_of_own_files_is_a_data_set():
    config = tiny_config("data", bare=True).unlock()
    config.data.train.name, config.data.train.methods, config.data.group.fake = "folder/mine", None, 1
    assert calls.trained_on(config, "folder/mine", "unknown") is True
    assert calls.trained_on(config, "folder/mine:test", "simswap") is True
    assert calls.trained_on(config, "folder/other", "unknown") is None
    assert calls.trained_on(config, "folder/other", "simswap") is False
    assert calls.group_of("folder/none/real/other/test/real/person_000.png") == "folder/other"
    assert calls.group_of("ffpp/c40/deepfakes/000_003") == "ffpp/c40"


def test_of_converted_weights_nobody_knows(workdir):
    checkpoint.save_best(workdir, 0, {"a": np.zeros(1, np.float32)}, {"converted_from": "some/format"})
    tested = answer.load(workdir)
    assert {row.in_training for row in tested.counts} == {None}
    assert "Whether these were in its training is not known: toy_neural, toy_swap." in answer.not_to_conclude(tested)


def test_the_sentences(workdir):
    tested = answer.load(workdir)
    assert answer.how_good(tested) == [
        "Pooled over 2 test sets: video AUC 75.0 % (60.0 to 100.0).",
        "Of a real and a fake video taken at random, the fake has the higher score 75 times in 100 (60 to 100); "
        "guessing gives 50.",
        "At the threshold 0.50: 1 of 4 real videos are called fake and 4 of 5 fakes are missed.",
    ]
    # The set is the generator's own, and is said once; its interval holds one half.
    assert answer.where_worst(tested) == [
        "Worst generator: toy_swap, video AUC 50.0 % (10.0 to 80.0), and these videos are too few to tell it from "
        "guessing.",
        "Called wrong most: toy_swap, 3 of 3 missed, 29 to 100 % of all such videos (95 % interval).",
    ]
    limits = answer.not_to_conclude(tested)
    assert limits[0] == "All faces are drawn: nothing here says how the detector does on real faces."
    assert limits[1].startswith("Not in training: toy_swap. In training: toy_neural;")
    assert limits[2].startswith("The smallest row has 2 videos (toy_neural): 1 of them called wrong may be 1 to 99 %")
    assert limits[3].startswith("The threshold 0.5 was not fitted (there is no calibration.json")


def test_what_a_calibration_bears_out_is_said(workdir):
    tested = answer.load(workdir)
    ratio = {"low": -1.0, "high": np.log10(25.0), "num_real": 24, "num_fake": 9}
    fitted = make_calibration(2.0, 0.35) | {"lr": ratio}
    line = "Its likelihood ratios end at 25 for fake and 10 for real: 24 real and 9 fake calibration videos"
    assert f"{line} bear out no more." in answer.not_to_conclude(tested._replace(fitted=fitted))
    pooled = tested.results["_pooled"]
    pooled["figures"]["video_cllr_calibrated"], pooled["intervals"]["video_cllr_calibrated"] = 0.4, [0.3, 0.55]
    line = "Cllr 0.40 bits (0.30 to 0.55), the cost of its likelihood ratios: 0 is perfect, 1 is as good as none."
    assert line in answer.how_good(tested)


def test_the_command_names_each_video(workdir, tmp_path):
    video = tmp_path / "videos" / UNITS["real"] / "c23" / "videos" / "000.mp4"
    video.parent.mkdir(parents=True)
    video.touch()
    text = confusion.describe(workdir, tmp_path / "videos")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "toy_swap no 3 3 0 100.0 [29.2, 100.0]" in lines
    assert f"real, called real: P(fake) 0.10, {video}" in lines
    # No such video: the frame's own name.
    assert "missed fake (toy_swap, not in training): P(fake) 0.20, toy_swap/c23/frames/000/000.png" in lines
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere of videos"):
        confusion.describe(workdir, tmp_path / "nowhere")
    (workdir / "results.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"msddf_jax\.evaluate --workdir"):
        confusion.describe(workdir)
