"""The rows on real faces: that each is an experiment, and the arithmetic of their table. The runs need the material."""

import json
import types

import numpy as np
import pytest

from benchmarks import real as bench
from configs import real
from msddf_jax import hooks, train
from msddf_jax.data.methods import METHODS
from msddf_jax.evaluators.detection import write_scores
from msddf_jax.statistics import intervals, metrics


@pytest.mark.parametrize("row", real.ROWS)
def test_a_row_is_an_experiment_of_32_rows_a_step(row):
    config = real.get_config(row)
    train.check_config(config)
    hooks.check(config)
    layout = hooks.layout_of(config)
    groups = config.data.batch_size // (layout.real + layout.fake)
    rows = 16 if row == "half" else 32
    assert rows - layout.rows < groups * layout.rows <= rows
    assert config.data.train.methods == (() if "reals only" in real.ROWS[row][0] else None)


def test_steps_and_what_is_left_out():
    short = real.get_config("msddf,150")
    assert short.steps == 150 and list(short.evals) == ["val"]
    apart = real.get_config("msddf,without=faceswap")
    assert apart.data.train.methods == apart.evals.val.methods == ("deepfakes", "face2face", "neuraltextures")
    assert apart.evals.test.methods == ("faceswap",) and "dfdc" in apart.evals
    both = real.get_config("msddf,150,without=faceswap")
    assert both.steps == 150 and sorted(both.evals) == ["test", "val"] and both.evals.test.methods == ("faceswap",)
    assert sorted(real.get_config("msddf,150,tested").evals) == ["dfdc", "test", "val"]
    for wrong in ("mssdf", "msddf,without=toy_swap", "msddf,0"):
        with pytest.raises(ValueError, match=r"configs/real\.py"):
            real.get_config(wrong)


def _write(folder, scores, labels, methods):
    folder.mkdir(parents=True)
    for name in ("val", "test", "dfdc"):
        keys = np.array([f"sjedd/none/{METHODS[m]}/{i}" for i, m in enumerate(methods)])
        rows = {
            "video_key": keys,
            "method": methods,
            "frame_index": np.zeros(len(keys), np.int32),
            "label": labels,
            "file": keys,
        }
        write_scores(folder / "scores" / f"{name}.csv", {**rows, "score": scores})
    (folder / "results.json").write_text("{}")


def test_the_table(tmp_path, capsys):
    """Two rows, one seed: AUC by column, the difference, and a run that was begun and not finished."""
    args = types.SimpleNamespace(out=tmp_path, seeds=3, steps=0, tested=False)
    methods = np.array([0] * 4 + [METHODS.index(m) for m in real.METHODS for _ in range(2)], np.int32)
    labels = (methods != 0).astype(np.int32)
    rng = np.random.default_rng(0)
    seen = {}
    for row in ("ln_tuning", "msddf"):
        seen[row] = rng.permutation(12).astype(np.float32) / 12
        _write(tmp_path / row / "0", seen[row], labels, methods)
        for method in real.METHODS:
            _write(tmp_path / f"{row}-without-{method}" / "0", seen[row], labels, methods)
    lines = [{"run": "ln_tuning", "seed": 0}, {"run": "msddf", "seed": 0}, {"run": "msddf", "seed": 1}]
    (tmp_path / "starts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    bench.print_table(args)
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in table[2:]] == [["LN-tuning", "1", "1"], ["MSDDF", "2", "1"]]
    for line, row in zip(table[2:], ("ln_tuning", "msddf"), strict=True):
        auc = lambda kept, scores=seen[row]: 100 * metrics.auc(scores[kept], labels[kept])
        by_method = [auc((methods == 0) | (methods == METHODS.index(m))) for m in real.METHODS]
        wanted = [auc(labels >= 0), auc(labels >= 0), *by_method, np.mean(by_method), auc(labels >= 0)]
        assert [float(cell.split()[0]) for cell in line[3:]] == pytest.approx(wanted, abs=0.051)
    assert all("[" in cell for cell in table[3][4:]) and not any("[" in cell for cell in table[2][4:])


def test_the_interval_of_a_difference_is_that_of_delong():
    """Against the variance of the paired difference by DeLong's formula, and zero for a row beside itself."""
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 150)
    shared = rng.normal(size=300) + 1.2 * labels
    a, b = (1 / (1 + np.exp(-(shared + 0.8 * rng.normal(size=300)))) for _ in range(2))
    mean, low, high = bench.paired_interval([bench.beats(a, labels)], [bench.beats(b, labels)])
    wanted = intervals.delong_test(a, b, labels)
    assert mean == pytest.approx(metrics.auc(a, labels) - metrics.auc(b, labels), abs=1e-6)
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.006)
    assert bench.paired_interval([bench.beats(a, labels)], [bench.beats(a, labels)]) == (0.0, 0.0, 0.0)
