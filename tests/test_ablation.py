"""The ablation: every row's settings fit together, and the table says what the results say."""

import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
from face_batch import make_batch, make_context

from benchmarks import ablation
from configs.ablations import base
from msddf_jax import detector, hooks, train
from msddf_jax.data import schema
from msddf_jax.train_step import init_players

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
    group = schema.make_group(config.data.group)
    batch = make_batch(group, count // group.rows, size)
    found = hooks.resolve(detector.load(config.detector))
    modules = {name: player.module for name, player in found.players(config).items()}
    variables = jax.eval_shape(lambda: init_players(config, frozen=False))
    run = lambda batch, variables: found.make_rows(jax.random.key(0), batch, make_context(config, modules, variables))
    rows = jax.eval_shape(run, batch, variables)
    expected = count // group.rows * hooks.layout_of(config).rows
    assert rows["image"].shape == (expected, size, size, 3) and rows["label"].dtype == jnp.int32
    # On reals alone not a fake of the data set is read for training.
    if "reals" in name or name == "self_blend":
        assert group.fakes == 0 and config.data.train.methods == ()
    else:
        assert config.data.train.methods == (base.TRAINED_ON,) and group.fakes > 0


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
