"""The runner on a small built set with a detector of our own: cells, resume, table, plot, command."""

import csv
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from msddf_jax import inference, sharding, stress
from msddf_jax.data import source
from msddf_jax.evaluators import attack, perturb, recompress, robustness


@pytest.fixture(scope="module")
def eval_set(toy_data):
    return source.open_source("faceforensics/toy", "test", toy_data[1], ("toy_swap",))


def red_share(weights, image):
    """A logit that grows with red and falls with blue."""
    return weights * (image[..., 0] - image[..., 2]).mean(axis=(1, 2))


@jax.jit
def predict(weights, batch):
    image = batch["image"].astype(jnp.float32) / 255
    return {"score": jax.nn.sigmoid(red_share(weights, image))}


@pytest.fixture(scope="module")
def scorer():
    mesh = sharding.make_mesh({"data": -1})
    weights = jax.device_put(jnp.float32(10.0), sharding.replicated(mesh))
    return robustness.Scorer(predict, weights, mesh, batch_size=8, image_size=64, num_threads=0)


def counted(scorer):
    calls = []

    def count(weights, batch):
        calls.append(batch["image"].shape)
        return predict(weights, batch)

    return scorer._replace(predict_fn=count), calls


def test_grids_hold_what_they_promise(eval_set):
    rows = {grid: [row.name for row in robustness.grid_rows(grid, eval_set, ("A",))] for grid in robustness.GRIDS[:-1]}
    # The toy set's three frames are samples of a video and no clip.
    assert rows["deeperforensics"] == ["CS", "CC", "BW", "GNC", "GB", "JPEG", "VC~"]
    assert rows["gend"][:2] == ["jpeg", "blur"] and rows["gend"][-1] == "noise" and len(rows["gend"]) == 8
    assert rows["jpeg"] == ["jpeg"] and rows["h264"] == ["h264"] and rows["screenshot"] == ["screenshot"]
    assert len(rows["resize"]) == 5
    assert robustness.grid_rows("attack", eval_set, ("A",)) == ["A"]
    with pytest.raises(ValueError, match="allowed: deeperforensics, gend"):
        robustness.grid_rows("deeper", eval_set)
    with pytest.raises(ValueError, match=r"give attack\.attacks"):
        robustness.grid_rows("attack", eval_set)


def test_videos_whose_frames_follow_each_other_get_the_codec(eval_set, monkeypatch):
    monkeypatch.setattr(recompress, "forms_clips", lambda source: True)
    assert robustness.grid_rows("deeperforensics", eval_set)[-1] is recompress.VC


def test_limit_videos_keeps_both_classes_and_whole_videos(eval_set):
    small = robustness.limit_videos(eval_set, 3)
    kept = small.count > 0
    assert sorted(small.videos["label"][kept].tolist()) == ["fake", "fake", "real"]
    assert len(small) == 9 and small.first[kept].tolist() == [0, 3, 6]
    for i in range(len(small)):
        assert 0 <= i - small.first[small.video[i]] < 3
    assert len(robustness.limit_videos(eval_set, 1000)) == len(eval_set)
    with pytest.raises(ValueError, match="at least 2"):
        robustness.limit_videos(eval_set, 1)


def test_same_seed_same_scores_and_a_level_that_is_nothing(eval_set, scorer):
    row = next(row for row in perturb.GEND if row.name == "noise")
    clean = robustness.score_level(scorer, eval_set, robustness._CLEAN, 0, "clean")
    nothing = robustness.score_level(scorer, eval_set, row, 0.0, "noise 0")
    np.testing.assert_array_equal(clean["score"], nothing["score"])
    once, again = (robustness.score_level(scorer, eval_set, row, 0.2, "noise")["score"] for _ in range(2))
    np.testing.assert_array_equal(once, again)
    other = robustness.score_level(scorer._replace(seed=1), eval_set, row, 0.2, "noise")["score"]
    assert (once != clean["score"]).all() and (once != other).all()


@pytest.mark.parametrize("kind", ["image", "clip"])
def test_the_host_changes_the_images_that_are_scored(eval_set, scorer, kind):
    drop_red = lambda images, level: images * np.array([1 - level, 1, 1], np.uint8)
    row = perturb.Perturbation("no red", (1,), drop_red, "", "", kind)
    got = robustness.score_level(scorer, eval_set, row, 1, kind)
    images = np.stack([eval_set[i]["image"] for i in range(len(eval_set))]).astype(np.float32) / 255
    images[..., 0] = 0
    np.testing.assert_allclose(got["score"], jax.nn.sigmoid(red_share(10.0, images)), atol=1e-5)


def test_cells_are_made_once_and_again_when_the_weights_are_others(eval_set, scorer, tmp_path, monkeypatch):
    published = tuple(row for row in perturb.DEEPERFORENSICS if row.name in ("CS", "BW"))
    monkeypatch.setattr(perturb, "DEEPERFORENSICS", published)
    grids = ("deeperforensics", "attack")
    rows = attack.attacks(red_share, scorer.weights)
    run = lambda folder, scorer, step=1: robustness.stress_set(
        folder, "toy", eval_set, grids, scorer, about={"step": step}, attacks=rows
    )
    counting, calls = counted(scorer)
    first = run(tmp_path, counting)
    batches = -(-len(eval_set) // 8)
    # Clean, CS and VC~ with five levels (blocks are none at 64 px), FGSM and PGD with four.
    cells = 1 + 2 * 5 + 2 * 4
    assert len(calls) == batches * cells
    files = sorted((tmp_path / "toy").rglob("*.json"))
    assert len(files) == cells
    cell = json.loads((tmp_path / "toy" / "deeperforensics" / "CS_2.json").read_text())
    assert cell["settings"]["level"] == "0.3" and cell["settings"]["step"] == 1
    assert 0 <= cell["metrics"]["frame_auc"] <= 1

    calls.clear()
    assert run(tmp_path, counting) == first and not calls
    files[3].unlink()
    assert run(tmp_path, counting) == first and len(calls) == batches
    calls.clear()
    assert run(tmp_path, counting, step=2) == first and len(calls) == batches * cells

    by_name = {row["perturbation"]: row for row in first}
    blocks = by_name["BW"]
    assert not any(blocks["changed"]) and blocks["mean"] is None and blocks["values"] == [blocks["clean"]] * 5
    # Without chroma red is as blue: every score is the same and the AUC one half.
    assert by_name["CS"]["values"][-1] == pytest.approx(0.5)
    # The detector is linear: the attack takes the same from every fake and gives it to every real.
    assert by_name["FGSM"]["values"] == sorted(by_name["FGSM"]["values"], reverse=True)
    assert by_name["FGSM"]["drop"] >= 0


def row(name="toy", grid="g", perturbation="p", values=(0.9, 0.7), clean=1.0, changed=None, levels=None):
    changed = list(changed or [True] * len(values))
    found = {(grid, perturbation, i): v for i, v in enumerate(values)}
    levels = tuple(levels or range(1, len(values) + 1))
    made = perturb.Perturbation(
        perturbation, levels, None, "what", "how much", changes=lambda level, size: changed[levels.index(level)]
    )
    return robustness._summarize(name, grid, made, (64, 64), clean, found)


def test_mean_and_drop_by_hand():
    got = row(values=(0.9, 0.7), clean=0.95)
    assert got["mean"] == pytest.approx(0.8) and got["drop"] == pytest.approx(0.15 / 0.95)
    # A level that changes nothing shows the clean figure and is left out of the mean.
    got = row(values=(0.1, 0.7), clean=0.9, changed=(False, True))
    assert got["values"] == [0.9, 0.7] and got["mean"] == pytest.approx(0.7)
    assert row(values=(None, 0.7))["mean"] is None and row(values=(0.5,), clean=None)["drop"] is None
    (mean,) = robustness.grid_means([row(), row(perturbation="q", values=(0.5, 0.5)), row(grid="h")])
    assert mean["grid"] == "g" and mean["mean"] == pytest.approx(0.65) and mean["drop"] == pytest.approx(0.35)
    # Of nothing, no share is lost: a detector that ranks every clean pair wrongly has a mean and no drop.
    (mean,) = robustness.grid_means([row(clean=0.0), row(perturbation="q", clean=0.0)])
    assert mean["mean"] == pytest.approx(0.8) and mean["drop"] is None
    text = robustness.format_table([row(clean=0.0), row(perturbation="q", clean=0.0)])
    assert [line.split()[-2:] for line in text.splitlines() if "mean of 2" in line] == [["80.0", "-"]]


def test_tables_by_hand(tmp_path):
    rows = [row(), row(perturbation="VC~ 5%_x", values=(0.5, 0.25, None), changed=(True, False, True))]
    text = robustness.write_results(tmp_path, rows, {"step": 3})
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["eval", "grid", "perturbation", "1", "2", "3", "mean", "drop", "%"]
    assert lines[1] == ["toy", "clean", "100.0"]
    assert lines[2] == ["toy", "g", "p", "90.0", "70.0", "80.0", "20.0"]
    assert lines[4] == ["toy", "g", "mean", "of", "1", "80.0", "20.0"]
    assert lines[3] == ["toy", "g", "VC~", "5%_x", "50.0", "100.0*", "-", "-", "-"]
    assert "g p: what; how much: 1 | 2" in text and "leaves images of this size as they are" in text
    with open(tmp_path / "table.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert float(read[0]["video_auc_2"]) == 0.7 and read[0]["level_2"] == "2" and read[0]["level_3"] == ""
    assert float(read[0]["mean"]) == pytest.approx(0.8) and read[1]["levels_without_effect"] == "2"
    tex = (tmp_path / "table.tex").read_text()
    assert r"toy & g & VC\textasciitilde{} 5\%\_x & 50.0 & 100.0$^{*}$ & - & - & - \\" in tex
    body = [line for line in tex.splitlines() if line.endswith(r"\\")]
    assert all(line.replace(r"\&", "").count("&") == 7 for line in body)
    saved = json.loads((tmp_path / "stress.json").read_text())
    assert saved["rows"][0]["values"] == [0.9, 0.7] and saved["about"] == {"step": 3}
    assert (tmp_path / "stress.png").stat().st_size > 1000


@pytest.mark.parametrize("panels", [1, 7])
def test_the_plot_has_a_panel_each_and_takes_what_is_undefined(panels):
    rows = [row(perturbation=f"p{i}", name=name) for name in ("a", "b") for i in range(panels)]
    rows[0]["values"][1] = rows[0]["clean"] = None
    image = robustness.draw_plot(rows)
    assert image.dtype == np.uint8 and image.shape[2] == 3
    colors = {tuple(c) for c in image.reshape(-1, 3)[::7]}
    assert len(colors) > 10
    # Two lines of five panels for seven.
    assert (image.shape[0] > 500) == (panels > 5)


def test_the_command_end_to_end(toy_data, tmp_path, capsys, monkeypatch):
    """All but the network, which test_attack has: here it is the share of red, and the other run's that of blue."""
    config = tiny_config(toy_data[1], bare=True).unlock()
    config.evals = {"toy_swap": config.evals.toy_swap}
    weights = {"run": jnp.float32(10.0), "other": jnp.float32(-3.0)}
    load = lambda folder: inference.Inference(config, predict, weights[pathlib.Path(folder).name], 400, "best")
    monkeypatch.setattr(stress, "load_for_inference", load)
    monkeypatch.setattr(attack, "make_logit_fn", lambda config: red_share)
    run, settings = tmp_path / "run", {"evals": ["toy_swap"], "max_videos": 2}
    rows = stress.stress_workdir(
        run, grids=("jpeg", "h264", "attack"), transfer_from=tmp_path / "other", batch_size=8, **settings
    )
    names = ["jpeg", "h264", "FGSM", "PGD", "FGSM (transfer)", "PGD (transfer)"]
    assert [r["perturbation"] for r in rows] == names
    # The other's gradient points the opposite way: it helps where the own one harms.
    assert rows[2]["values"][-1] <= rows[2]["clean"] <= rows[4]["values"][-1]
    assert rows[2]["values"][-1] < rows[4]["values"][-1]
    assert "other (msddf, best, step 400)" in rows[4]["about"]
    out = capsys.readouterr().out
    assert "FGSM (transfer)" in out and str(run / "stress") in out
    assert (run / "stress" / "table.tex").exists() and (run / "stress" / "stress.png").exists()
    with pytest.raises(ValueError, match=r"unknown grid \['deeper'\], allowed: deeperforensics"):
        stress.stress_workdir(run, grids=("deeper",))
    with pytest.raises(ValueError, match=r"unknown eval \['dfdc'\], allowed: toy_swap"):
        stress.stress_workdir(run, evals=["dfdc"])
    with pytest.raises(ValueError, match="which is not among"):
        stress.stress_workdir(run, grids=("jpeg",), transfer_from=run)
