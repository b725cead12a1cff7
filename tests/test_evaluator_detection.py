"""Scores are collected once an example, without the padding, on one process and on two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_processes

from msddf_jax import sharding
from msddf_jax.data import methods
from msddf_jax.evaluators import detection

REAL, SWAP, NEURAL = (methods.METHODS.index(name) for name in ("real", "toy_swap", "toy_neural"))


def make_batch(rows, size):
    """A host batch of `size` rows from (score, method, video, frame) tuples; the padding scores NaN."""
    padding = size - len(rows)
    return {
        "image": np.array([row[0] for row in rows] + [np.nan] * padding, np.float32),
        "label": np.array([row[1] != REAL for row in rows] + [0] * padding, np.int32),
        "method": np.array([row[1] for row in rows] + [0] * padding, np.int32),
        "video_id": np.array([row[2] for row in rows] + [""] * padding, object),
        "frame_index": np.array([row[3] for row in rows] + [-1] * padding, np.int32),
        "dataset": np.array(["toy"] * len(rows) + [""] * padding, object),
        "compression": np.array(["c23"] * len(rows) + [""] * padding, object),
        "source_path": np.array([f"crops/{row[2]}/{row[3]}.png" for row in rows] + [""] * padding, object),
        "_mask": np.array([True] * len(rows) + [False] * padding),
    }


def run(batches, predict=None, weights=1.0):
    mesh = sharding.make_mesh({"data": -1})
    put = lambda batch: sharding.put_batch({"image": batch["image"]}, mesh)
    predict = predict or jax.jit(lambda w, b: {"score": w * b["image"], "map": jnp.zeros((8, 2, 2))})
    return detection.collect_scores(predict, weights, batches, put, desc="toy")


ROWS = [
    (0.125, REAL, "a", 0),
    (0.375, REAL, "a", 5),
    (0.6, REAL, "b", 0),
    (0.9, SWAP, "a_b", 0),
    (0.5, SWAP, "a_b", 5),
    (0.25, NEURAL, "a_b", 0),
    (0.8, NEURAL, "b_a", 0),
    (0.4, REAL, "b", 5),
    (0.7, SWAP, "b_a", 0),
]


def test_every_row_once_in_order_and_no_padding():
    scores = run([make_batch(ROWS[:8], 8), make_batch(ROWS[8:], 8)])
    np.testing.assert_allclose(scores["score"], [row[0] for row in ROWS], rtol=1e-6)
    assert scores["score"].dtype == np.float32
    assert scores["label"].tolist() == [0, 0, 0, 1, 1, 1, 1, 0, 1]
    assert scores["method"].tolist() == [row[1] for row in ROWS]
    assert scores["frame_index"].tolist() == [row[3] for row in ROWS]
    assert scores["video_key"][0] == "toy/c23/real/a"
    assert scores["video_key"][3] == "toy/c23/toy_swap/a_b"
    assert scores["video_key"][5] == "toy/c23/toy_neural/a_b"
    assert scores["file"].tolist() == [f"crops/{row[2]}/{row[3]}.png" for row in ROWS]


def test_more_batches_than_are_in_flight_and_a_generator():
    scores = run(make_batch([(i / 20, REAL, f"v{i}", 0)], 8) for i in range(10))
    np.testing.assert_allclose(scores["score"], np.arange(10) / 20, rtol=1e-6)


def test_metrics_of_the_set_and_of_each_method_by_hand():
    scores = run([make_batch(ROWS, 16)])
    result = detection.set_metrics("test", scores)
    # Reals .125 .375 .6 .4; swap .9 .5 .7: 4 + 3 + 4 of 12. Neural .25 .8: 1 + 4 of 8.
    assert result["test/toy_swap/frame_auc"] == pytest.approx(11 / 12)
    assert result["test/toy_neural/frame_auc"] == pytest.approx(5 / 8)
    assert result["test/frame_auc"] == pytest.approx(16 / 20)
    # Videos: real a .25, b .5; swap a_b .7, b_a .7; neural a_b .25 (ties a), b_a .8. a_b is two videos.
    assert result["test/video_num_fake"] == 4
    assert result["test/toy_swap/video_auc"] == pytest.approx(1.0)
    assert result["test/toy_neural/video_auc"] == pytest.approx(2.5 / 4)
    assert result["test/video_auc"] == pytest.approx(6.5 / 8)
    assert {key.split("/")[1] for key in result if key.count("/") == 2} == {"toy_swap", "toy_neural"}


def test_figures_by_compression_where_there_are_several():
    batch = make_batch(ROWS, 16)
    assert not [key for key in detection.set_metrics("test", run([batch])) if "c23" in key]
    batch["compression"][: len(ROWS)] = ["c23", "c40", "c40", "c23", "c40", "c40", "c23", "c23", "c40"]
    batch["compression"] = batch["compression"].astype(object)
    scores = run([batch])
    assert scores["compression"].tolist() == batch["compression"][: len(ROWS)].tolist()
    result = detection.set_metrics("test", scores)
    # c23: reals .125 .4, fakes .9 .8; c40: reals .375 .6, fakes .5 .25 .7.
    assert result["test/c23/frame_auc"] == 1.0
    assert result["test/c40/frame_auc"] == pytest.approx((1 + 0 + 2) / 6)
    assert result["test/frame_auc"] == pytest.approx(16 / 20)


def test_dfb_compat_is_named_in_every_key():
    scores = run([make_batch(ROWS, 16)])
    plain, result = (detection.set_metrics("test", scores, dfb_compat=on) for on in (False, True))
    added = set(result) - set(plain)
    assert added and all(key.startswith("test/dfb_compat/") for key in added)
    # The fakes a_b of two methods are one video there, b_a too: .55 and .75 against .25 and .5.
    assert result["test/dfb_compat/video_auc"] == 1.0
    assert plain == {key: value for key, value in result.items() if key not in added}


def test_intervals_have_the_keys_of_the_metrics():
    scores = run([make_batch(ROWS, 16)])
    result, ends = detection.set_metrics("test", scores), detection.set_intervals("test", scores, resamples=50)
    assert set(ends) == {key for key in result if "num_" not in key}
    low, high = ends["test/video_accuracy"]
    assert low <= result["test/video_accuracy"] <= high
    # One method: the set itself, not drawn twice.
    one = run([make_batch([row for row in ROWS if row[1] != NEURAL], 8)])
    ends = detection.set_intervals("test", one, resamples=50)
    assert ends["test/toy_swap/video_brier"] == ends["test/video_brier"]


def test_the_way_to_a_video_score_is_passed_on():
    scores = run([make_batch(ROWS, 16)])
    # Highest frames: reals .375 .6, fakes .9 .7 .25 .8.
    assert detection.set_metrics("test", scores, aggregate="max")["test/video_auc"] == pytest.approx(6 / 8)


def test_maps_are_handed_over_batch_by_batch():
    seen = []
    predict = jax.jit(lambda w, b: {"score": b["image"], "map": b["image"][:, None, None] * jnp.ones((1, 2, 2))})
    batches = [make_batch(ROWS[:8], 8), make_batch(ROWS[8:], 8)]
    for batch in batches:
        batch |= {"mask": np.zeros((8, 4, 4, 1), np.uint8), "has_mask": np.ones(8, bool)}
    mesh = sharding.make_mesh({"data": -1})
    put = lambda batch: sharding.put_batch({"image": batch["image"]}, mesh)
    on_maps = lambda maps, batch: seen.append((maps[:, 0, 0], batch["label"], batch["mask"].shape, "image" in batch))
    detection.collect_scores(predict, 1.0, batches, put, on_maps=on_maps)
    np.testing.assert_allclose(seen[0][0], [row[0] for row in ROWS[:8]], rtol=1e-6)
    assert [entry[1].tolist() for entry in seen] == [batch["label"].tolist() for batch in batches]
    assert seen[1][2:] == ((8, 4, 4, 1), False)


def test_scores_are_read_back_to_the_bit(tmp_path):
    scores = run([make_batch([(1 / 3, REAL, "a", 0), *ROWS], 16)])
    detection.write_scores(tmp_path / "scores" / "test.csv", scores)
    again = detection.read_scores(tmp_path / "scores" / "test.csv")
    assert set(again) == set(scores)
    for name, values in scores.items():
        np.testing.assert_array_equal(again[name], values)
        assert again[name].dtype.kind == values.dtype.kind
    with pytest.raises(FileNotFoundError, match=r"python -m msddf_jax\.evaluate"):
        detection.read_scores(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="expected"):
        detection.read_scores(tmp_path / "other.csv")


def test_a_set_without_fakes_is_nan_not_zero():
    scores = run([make_batch(ROWS[:3], 8)])
    with pytest.warns(UserWarning, match="reals: every metric but accuracy, ECE and Brier score is undefined"):
        result = detection.set_metrics("reals", scores)
    assert np.isnan(result["reals/video_auc"])
    assert not [key for key in result if key.count("/") == 2]


def test_label_and_method_must_agree():
    batch = make_batch(ROWS, 16)
    batch["label"][3] = 0
    with pytest.raises(ValueError, match="toy_swap/a_b has label real and method toy_swap"):
        detection.set_metrics("test", run([batch]))


def test_a_score_that_is_not_finite_names_its_frame():
    rows = [*ROWS[:4], (np.nan, SWAP, "a_b", 17)]
    with pytest.raises(ValueError, match="toy/c23/toy_swap/a_b frame 17 is nan"):
        run([make_batch(rows, 8)])


@pytest.mark.parametrize("batches", [[], [make_batch([], 8)]], ids=["no batch", "padding alone"])
def test_an_empty_set_is_an_error(batches):
    with pytest.raises(ValueError, match="toy: the set has no examples"):
        run(batches)


def test_a_missing_field_and_a_wrong_number_of_scores():
    batch = make_batch(ROWS, 16)
    with pytest.raises(ValueError, match=r"scores \(8,\) for a batch with \(16,\) rows"):
        run([batch], predict=lambda w, b: {"score": b["image"][:8]})
    del batch["compression"]
    with pytest.raises(KeyError, match="compression"):
        run([batch])


def _process(index):
    """One of two processes with four devices each; prints what it gathered."""
    mesh = sharding.make_mesh({"data": -1})
    # Process 0 holds rows 0-3 of each global batch of 8, process 1 rows 4-7; the last batch is mostly
    # padding.
    local = [make_batch(ROWS[4 * index : 4 * index + 4], 4), make_batch(ROWS[8:] if index == 0 else [], 4)]
    put = lambda batch: sharding.put_batch({"image": batch["image"]}, mesh)
    for out in (sharding.batch_sharding(mesh), sharding.replicated(mesh)):
        predict = jax.jit(lambda w, b: {"score": w * b["image"]}, out_shardings=out)
        scores = detection.collect_scores(predict, 1.0, local, put)
        print("SCORES", [round(float(v), 3) for v in scores["score"]], flush=True)
    print("KEYS", scores["video_key"].tolist(), scores["frame_index"].tolist(), flush=True)
    print("FILES", scores["file"].tolist(), flush=True)
    print("AUC", detection.set_metrics("test", scores)["test/frame_auc"], flush=True)


@pytest.mark.long
def test_two_processes_gather_the_same_rows():
    rows = ROWS  # batches, within them processes: the order of the set
    keys = [f"toy/c23/{methods.METHODS[method]}/{video}" for _, method, video, _ in rows]
    for lines in two_processes.run("test_evaluator_detection", "_process"):
        assert lines.count(f"SCORES {[row[0] for row in rows]}") == 2
        assert f"KEYS {keys} {[row[3] for row in rows]}" in lines
        assert f"FILES {[f'crops/{row[2]}/{row[3]}.png' for row in rows]}" in lines
        assert any(line.startswith("AUC 0.8") for line in lines)
