"""The ablation: every row's settings fit together, and the table says what the results say."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import ablation
from configs.ablations import base
from msddf_jax import train, train_step

ROOT = pathlib.Path(__file__).parents[1]


def _config(name):
    args = type("Args", (), {"method": base.TRAINED_ON, "data_dir": "nowhere", "out": "nowhere"})
    return ablation.load_config(name, args, 3)


def test_every_config_is_a_row():
    files = {path.stem for path in (ROOT / "configs" / "ablations").glob("*.py")}
    assert files - {"__init__", "base", "pretrain"} == set(ablation.ROWS)


@pytest.mark.parametrize("name", ablation.ROWS)
def test_a_row_composes_its_batch(name):
    config = _config(name)
    train.check_config(config)
    count, size = config.data.batch_size, config.data.image_size
    batch = {
        "image": np.zeros((count, size, size, 3), np.float32),
        "mask": np.zeros((count, size, size, 1), np.float32),
        "has_mask": np.ones(count, bool),
        "landmarks": np.zeros((count, 81, 2), np.float32),
        "has_landmarks": np.ones(count, bool),
        "label": np.zeros(count, np.int32),
        "identity": np.zeros(count, np.int32),
    }
    detector = train_step.load_detector(config.detector)
    run = lambda batch: detector.synthesize(jax.random.key(0), batch, progress=0.5, **config.synth)
    rows = jax.eval_shape(run, batch)
    reals, fakes = config.data.group
    groups = count // (reals + fakes)
    forged = config.synth.recipe != "none"
    expected = groups * (reals * (1 + config.synth.source_twin + forged) + fakes)
    assert rows["image"].shape == (expected, size, size, 3) and rows["label"].dtype == jnp.int32
    # On reals alone not a fake of the data set is read for training.
    if "reals" in name or name == "self_blend":
        assert fakes == 0 and config.data.train.methods == ()
    else:
        assert config.data.train.methods == (base.TRAINED_ON,) and fakes > 0


def test_the_table_is_the_mean_and_spread_of_the_results(tmp_path, capsys):
    for seed, (seen, swap) in enumerate(((0.9, 0.7), (0.8, 0.5))):
        values = {"toy_neural": seen, "toy_swap": swap, "toy_reenact": 0.6, "toy_texture": 0.5}
        folder = tmp_path / "msddf" / str(seed)
        folder.mkdir(parents=True)
        results = {f"{name}/video_auc": value for name, value in values.items()}
        results |= {f"{name}_c40/video_auc": 0.5 for name in values}
        (folder / "results.json").write_text(json.dumps(results))
    ablation.print_table(tmp_path, "toy_neural")
    header, _, row = capsys.readouterr().out.splitlines()[2:]
    assert header.split(" | ")[1:3] == ["seeds", "seen"]
    # Seen 90 and 80: mean 85, sample deviation 7.1. Unseen (70 + 60 + 50) / 3 = 60 and 53.3: 56.7 and 4.7.
    figures = ["85.0 (7.1)", "56.7 (4.7)", "50.0 (0.0)", "50.0 (0.0)", "60.0 (14.1)", "60.0 (0.0)", "50.0 (0.0)"]
    assert row.strip("| ").split(" | ") == ["MSDDF, REINFORCE", "2", *figures]
