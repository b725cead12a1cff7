"""A workdir's evaluation, whole, with records in memory and a detector that needs no training."""

import csv
import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from msddf_jax import compare, evaluate
from msddf_jax.data import methods, schema
from msddf_jax.inference import Inference
from msddf_jax.statistics import novelty, verdict

SIZE, FRAMES = 16, 2


class MemorySource:
    """Videos in memory; the pixel value is the score, with the manipulated square brighter."""

    def __init__(self, videos):
        # (method, video_id, pixel value)
        self.name, self.image_size, self.clip_length = "memory", (SIZE, SIZE), 0
        names, texts = [video[1] for video in videos], [""] * len(videos)
        columns = {"dataset": ["toy"] * len(videos), "compression": ["c23"] * len(videos), "video_id": names}
        columns |= {"method": [video[0] for video in videos], "group_id": names, "target_identity": texts}
        self.videos = {name: np.array(values) for name, values in {**columns, "pair_id": texts}.items()}
        self._rows = [(*video, frame) for video in videos for frame in range(FRAMES)]

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, index):
        method, video, value, frame = self._rows[index]
        image, mask = np.full((SIZE, SIZE, 3), value + frame, np.uint8), np.zeros((SIZE, SIZE, 1), np.uint8)
        if method != "real":
            mask[4:12, 4:12] = 255
        return {
            "image": image,
            "mask": mask,
            "has_mask": np.bool_(True),
            "landmarks": np.zeros((schema.NUM_LANDMARKS, 2), np.float32),
            "has_landmarks": np.bool_(False),
            "label": np.int32(method != "real"),
            "method": np.int32(methods.METHODS.index(method)),
            "attributes": np.zeros(len(schema.ATTRIBUTES), np.uint8),
            "has_attributes": np.zeros(len(schema.ATTRIBUTES), bool),
            "identity": np.int32(-1),
            "donor": np.int32(-1),
            "domain": np.int32(0),
            "group": np.int32(-1),
            "_mask": np.bool_(True),
            **dict.fromkeys(schema.HOST_FIELDS, ""),
            "dataset": "toy",
            "compression": "c23",
            "video_id": video,
            "frame_index": np.int32(frame),
        }


def make_set(seed, count=20, methods=("real", "toy_swap"), shift=40):
    rng = np.random.default_rng(seed)
    return MemorySource(
        [
            (method, f"{i:02d}", int(np.clip(rng.normal(95 + shift * (method != "real"), 30), 0, 250)))
            for method in methods
            for i in range(count)
        ]
    )


@jax.jit
def predict(weights, batch):
    score = batch["image"].astype(jnp.float32).mean((1, 2, 3)) / 255
    heat = jnp.zeros((4, 4)).at[1:3, 1:3].set(0.9)
    return {"score": jax.nn.sigmoid(weights * (score - 0.5)), "map": jnp.broadcast_to(heat, (len(score), 4, 4))}


@jax.jit
def predict_with_feature(weights, batch):
    image = batch["image"].astype(jnp.float32)
    return predict(weights, batch) | {"feature": jnp.stack([image.mean((1, 2, 3)), image[:, 0, 0, 0]], axis=1)}


def make_config(**select):
    evals = {"val": {"name": "toy/c23", "split": "validation"}, "test": {"name": "toy/c23", "split": "test"}}
    data = {"eval_batch_size": 8, "image_size": SIZE, "num_threads": 0, "data_dir": ""}
    fields = {"evals": evals, "data": data, "mesh": {"data": -1}, "select": select or None}
    fields["synth"] = {"recipe": {"name": "none"}}
    return ml_collections.ConfigDict(fields)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Evaluates a "workdir" of a given config and weight, in tmp_path/<name>."""

    def evaluate_one(config, name="a", weight=12.0, sets=None, predict=predict, **settings):
        model = Inference(config, predict, jnp.float32(weight), 7, "best")
        monkeypatch.setattr(evaluate, "load_for_inference", lambda workdir: model)
        sets = {"test": make_set(1), "val": make_set(0)} if sets is None else sets
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name, evaluate.evaluate_workdir(tmp_path / name, sets, resamples=100, **settings)

    return evaluate_one


SELECT = {"eval": "val", "metric": "video_auc", "every": 1}


def test_what_is_written(run, capsys):
    folder, results = run(make_config(**SELECT))
    assert json.loads((folder / "results.json").read_text()) == results
    for level in ("frame", "video"):
        low, high = results["_intervals"][f"test/{level}_auc"]
        assert 0 < low <= results[f"test/{level}_auc"] <= high <= 1
    assert results["test/toy_swap/video_auc"] == results["test/video_auc"]
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert len(rows) == len([key for key in results if not key.startswith("_")])
    assert "\\begin{tabular}" in (folder / "results.tex").read_text()
    assert len((folder / "scores" / "test.csv").read_text().splitlines()) == 1 + 40 * FRAMES
    printed = capsys.readouterr().out
    assert "BCa bootstrap over videos" in printed and "fitted on val (40 videos)" in printed
    low, high = results["_intervals"]["test/video_auc"]
    assert f"{100 * results['test/video_auc']:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in printed


def test_the_calibration_is_of_the_validation_set_and_applies_to_all(run):
    folder, results = run(make_config(**SELECT))
    fitted = verdict.load_calibration(folder)
    assert (fitted["fitted_on"], fitted["split"], fitted["step"], fitted["num_videos"]) == ("val", "validation", 7, 40)
    assert results["_about"]["calibration"] == fitted and fitted["slope"] > 0
    assert results["test/video_balanced_accuracy_val"] is not None and "test/frame_ece_calibrated" in results
    assert results["val/video_balanced_accuracy_val"] >= results["val/video_balanced_accuracy"]
    # Only the test set again: the stored calibration is of these weights.
    _, again = run(make_config(**SELECT), sets={"test": make_set(1)})
    assert again["test/video_accuracy_val"] == results["test/video_accuracy_val"]
    _, other = run(make_config(**SELECT), sets={"test": make_set(1)}, aggregate="max")
    assert "test/video_accuracy_val" not in other and "is of aggregate 'mean'" in other["_about"]["no_calibration"]


def test_the_range_is_of_the_validation_sets_features(run, capsys):
    folder, results = run(make_config(**SELECT), predict=predict_with_feature)
    fitted, why = novelty.fitted_of(folder, step=7, weights="best")
    assert why == "" and (fitted["fitted_on"], fitted["split"]) == ("val", "validation")
    # Twenty reals and the fakes of their names are one group each.
    assert (fitted["num_videos"], fitted["num_groups"], fitted["num_frames"]) == (40, 20, 40 * FRAMES)
    assert fitted["means"].shape == (2, 2) and fitted["means"][0, 0] < fitted["means"][1, 0]
    about = results["_about"]["range"]
    assert about == {key: value for key, value in fitted.items() if key not in novelty.ARRAYS}
    told = f"further than {fitted['threshold']:.3g} from those of val (40 videos in 20 groups)"
    assert told in capsys.readouterr().out
    inside, outside = np.float32([[95, 95], [96, 96]]), np.float32([[95, 255], [96, 255]])
    assert not novelty.judge(inside, fitted)["out_of_range"] and novelty.judge(outside, fitted)["out_of_range"]
    # The test set alone leaves it; a detector without features takes it away.
    run(make_config(**SELECT), predict=predict_with_feature, sets={"test": make_set(1)})
    assert novelty.load(folder) is not None
    _, results = run(make_config(**SELECT))
    assert novelty.load(folder) is None and results["_about"]["range"] is None


@pytest.mark.parametrize(
    ("select", "why"), [({}, "config.select names no eval"), ({**SELECT, "eval": "test"}, "whose split is 'test'")]
)
def test_no_calibration_without_a_validation_set(run, capsys, select, why):
    folder, results = run(make_config(**select))
    assert not (folder / verdict.FILE).exists() and results["_about"]["calibration"] is None
    assert not [key for key in results if key.endswith(("_val", "_calibrated"))]
    assert why in results["_about"]["no_calibration"]
    assert f"no calibration: {results['_about']['no_calibration']}" in capsys.readouterr().out


def test_sets_of_one_class_are_null(run):
    sets = {"val": make_set(0, methods=("real",)), "test": make_set(1, methods=("toy_swap",))}
    with pytest.warns(UserWarning, match="undefined"):
        folder, results = run(make_config(**SELECT), sets=sets)
    assert "NaN" not in (folder / "results.json").read_text() and not (folder / verdict.FILE).exists()
    assert results["test/video_auc"] is None and results["_intervals"]["val/frame_auc"] == [None, None]
    assert results["val/video_accuracy"] > 0 and "one class only" in results["_about"]["no_calibration"]


def test_maps_are_measured_where_there_are_masks(run):
    _, results = run(make_config())
    # The map is 0.9 on the middle half of each side, as the mask; upsampled 4 times, corners lose a little.
    assert results["test/pixel_num_frames"] == 20 * FRAMES
    assert 0.7 < results["test/pixel_iou"] <= 1.0 and results["test/pixel_boundary_f1"] > 0.5
    assert results["test/pixel_auc"] > 0.95 and results["test/pixel_auc_error"] < 0.05


def test_dfb_compat_and_aggregate_are_named(run, capsys):
    _, results = run(make_config(), dfb_compat=True, aggregate="top1")
    assert results["_about"]["dfb_compat"] is True and results["_about"]["aggregate"] == "top1"
    assert "test/dfb_compat/frame_eer" in results
    assert "DeepfakeBench's own figures" in capsys.readouterr().out
    with pytest.raises(ValueError, match="aggregate is 'min'"):
        run(make_config(), aggregate="min")


def test_against_another_workdir(run, capsys):
    a, results = run(make_config())
    b, _ = run(make_config(), name="b", weight=-12.0)
    found = evaluate.compare_workdirs(a, b, resamples=100)
    # The other detector is this one upside down.
    row = found["test"]
    assert row["a"] == pytest.approx(results["test/video_auc"]) and row["b"] == pytest.approx(1 - row["a"])
    assert row["p_delong"] < 0.05 and row["p_permutation"] < 0.05 and row["low"] > 0
    assert json.loads((a / "compare.json").read_text()) == found
    assert compare.format_comparison(found) in capsys.readouterr().out


def test_evaluate_set_is_what_training_asks_for(tmp_path):
    from msddf_jax import sharding

    config = make_config()
    mesh = sharding.make_mesh({"data": -1})
    with jax.set_mesh(mesh):
        result = evaluate.evaluate_set(
            config, predict, jnp.float32(12.0), "val", make_set(0), mesh, tmp_path / "scores" / "val.csv"
        )
    assert 0.5 < result["val/video_auc"] <= 1 and (tmp_path / "scores" / "val.csv").exists()
    assert not [key for key in result if "pixel" in key or "_val" in key.split("/")[-1]]
