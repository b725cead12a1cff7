"""Published files on a built set: each manipulation's AUC is that of the detector's own scores."""

import json
import sys

import keras_meso
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks import published
from msddf_jax import inference
from msddf_jax.data import methods, source
from msddf_jax.weights import __main__ as weights


def _run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["published", *map(str, arguments)])
    published.main()
    return capsys.readouterr().out


@pytest.mark.long
def test_the_figures_are_those_of_the_detectors_scores(toy_data, tmp_path, monkeypatch, capsys):
    _, built = toy_data
    reference = f"{keras_meso.write(tmp_path / 'm.h5', keras_meso.drawn('meso4'))}#format=meso/keras"
    asked = ("--data_dir", built, "--set", "faceforensics/toy", "--out", tmp_path / "out.json")
    said = _run(monkeypatch, capsys, "--weights", reference, *asked)
    # Stored crops are of 64 px, the detector's are of 256.
    opened = source.open_source("faceforensics/toy", "test", built)
    weights.convert(reference, tmp_path / "run")
    rows = [opened[i] for i in range(len(opened))]
    assert rows[0]["image"].shape == (64, 64, 3)
    made = inference.score_crops(inference.load_for_inference(tmp_path / "run"), [row["image"] for row in rows])
    score = np.array([one["score"] for one in made])
    label, method = (np.array([row[name] for row in rows]) for name in ("label", "method"))
    out = json.loads((tmp_path / "out.json").read_text())
    found = out["results"][reference]["figures"]
    assert out["set"] == "faceforensics/toy:test" and out["image_size"] == [64, 64] and out["commit"] and out["device"]
    assert set(found) == {"all", *(methods.METHODS[i] for i in np.unique(method[label == 1]))}
    for name, figure in found.items():
        kept = (label == 0) | (method == methods.METHODS.index(name)) if name != "all" else np.ones(len(label), bool)
        assert figure["auc"] == pytest.approx(roc_auc_score(label[kept], score[kept]), abs=1e-6)
        assert (figure["num_real"], figure["num_fake"]) == ((label == 0).sum(), (label[kept] == 1).sum())
    assert f"| m.h5 | {100 * found['all']['auc']:.1f} |" in said


def test_a_file_or_set_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    asked = ("--data_dir", tmp_path, "--set", "faceforensics/toy")
    with pytest.raises(SystemExit, match=r"FileNotFoundError: .*faceforensics/toy"):
        _run(monkeypatch, capsys, "--weights", tmp_path / "gone.h5", *asked)
