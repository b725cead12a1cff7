import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from msddf_jax import checkpoint, evaluate, logs, optim, sharding, train, trees
from msddf_jax.data import pipeline, schema, source
from msddf_jax.inference import load_for_inference
from msddf_jax.train_step import init_state, make_train_step

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def workdir(toy_data, tmp_path_factory):
    """A finished run of four steps."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny_config(toy_data[1], bare=True)
    train.train_and_evaluate(config, folder)
    return folder


@pytest.fixture(scope="module")
def one_batch(toy_data):
    config = tiny_config(toy_data[1])
    opened = source.open_source("faceforensics/toy", "train", config.data.data_dir, ("toy_swap", "toy_texture"))
    batches = pipeline.train_batches(opened, batch_size=8, identities=source.identity_table(opened))
    return schema.device_batch(next(batches))


@pytest.mark.long
def test_a_run_writes_all_it_promises(workdir):
    results = json.loads((workdir / "results.json").read_text())
    for name in ("val", "toy_swap", "toy_texture", "toy_reenact", "toy_neural"):
        for metric in ("video_auc", "frame_auc", "video_eer", "frame_accuracy"):
            assert 0.0 <= results[f"{name}/{metric}"] <= 1.0
    assert results["_about"]["step"] == 4 and results["_about"]["weights"] == "best"
    lines = logs.read_metrics(workdir)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert lines[0]["loss"] > 0 and "loss/type_ce" in lines[0] and "images_per_second" in lines[0]
    assert list((workdir / "tensorboard").iterdir()) and (workdir / "config.json").exists()
    scores = (workdir / "scores" / "toy_swap.csv").read_text().splitlines()
    # Two test identities: 2 real and 2 fake videos of 3 frames.
    assert len(scores) == 1 + 12


@pytest.mark.long
def test_evaluating_again_gives_the_same_figures(workdir):
    before = json.loads((workdir / "results.json").read_text())
    after = evaluate.evaluate_workdir(workdir)
    assert {k: v for k, v in after.items() if k != "_about"} == {k: v for k, v in before.items() if k != "_about"}


@pytest.mark.long
def test_frozen_parameters_stay_bit_identical_without_optimiser_memory(toy_data, one_batch):
    groups = ((r"detector/backbone/(.*/)?ln_[^/]+/.*", {"lr": 1e-3, "weight_decay": 0.0}),
              (r"detector/backbone/.*", None), (r"detector/.*", {"lr": 1e-3, "weight_decay": 0.0}))  # fmt: skip
    config = tiny_config(toy_data[1], bare=True).copy_and_resolve_references().unlock()
    config.optim.groups = groups
    config.optim.warmup_steps = 0
    before, after, state, _ = _before_and_after(config, one_batch, 2)
    trained = optim.trainable_names(state.params, groups)
    frozen = [name for name, value in trained.items() if not value]
    assert any("attn/query/kernel" in name for name in frozen)
    for name in frozen:
        np.testing.assert_array_equal(before[name], after[name])
    assert all(not np.array_equal(before[n], after[n]) for n in trained if trained[n] and "/ln_1/" in n)
    # Two Adam moments for each trained scalar; what is left over are the integer step counts.
    held = sum(x.size for x in jax.tree.leaves(state.opt_state) if jnp.issubdtype(x.dtype, jnp.floating))
    assert held == 2 * sum(before[name].size for name, value in trained.items() if value)


def _before_and_after(config, batch, steps):
    """(parameters as drawn, parameters after, state, scalars of the last step)."""
    state = jax.jit(lambda: init_state(config))()
    before = jax.device_get(trees.flatten(state.params))
    step = jax.jit(make_train_step(config))
    for _ in range(steps):
        state, scalars = step(state, (batch,))
    return before, jax.device_get(trees.flatten(state.params)), state, scalars


def _run_steps(config, batch, devices, steps):
    """[(parameters, scalars) after each of the first steps], and how often the step was traced."""
    axes = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((len(devices), 1), ("data", "fsdp"), axis_types=axes, devices=devices)
    ends = []
    with jax.set_mesh(mesh):
        state, shardings, _, _ = train.make_state(config, mesh)
        step = jax.jit(make_train_step(config), in_shardings=(shardings, None), out_shardings=(shardings, None))
        for i in range(steps):
            state, scalars = step(state, (sharding.put_batch(batch, mesh),))
            if i < 2:
                ends.append(jax.device_get((trees.flatten(state.params), scalars)))
    return ends, step._cache_size()


@pytest.fixture(scope="module")
def fifty_steps(toy_data, one_batch):
    """The whole method on one device for 50 steps."""
    return _run_steps(tiny_config(toy_data[1], steps=50), one_batch, jax.devices()[:1], 50)


@pytest.mark.long
def test_fifty_steps_of_the_whole_method_trace_once(fifty_steps):
    assert fifty_steps[1] == 1


@pytest.mark.long
def test_one_device_and_eight_agree(toy_data, one_batch, fifty_steps):
    one, one_scalars = fifty_steps[0][1]
    ends, _ = _run_steps(tiny_config(toy_data[1], steps=50), one_batch, jax.devices(), 2)
    eight, eight_scalars = ends[1]
    np.testing.assert_allclose(one_scalars["loss"], eight_scalars["loss"], rtol=1e-4)
    for name in one:
        # Adam divides by the gradient's own size, so a last-bit difference of a tiny gradient may show as a step.
        np.testing.assert_allclose(one[name], eight[name], atol=5e-4, err_msg=name)


@pytest.mark.long
def test_training_brings_the_loss_down(toy_data, one_batch):
    """One batch again and again, without forgeries that would differ each time: it is learned by heart."""
    config = tiny_config(toy_data[1], steps=60, bare=True)
    step = jax.jit(make_train_step(config))
    state = jax.jit(lambda: init_state(config))()
    losses = []
    for _ in range(60):
        state, scalars = step(state, (one_batch,))
        losses.append(float(scalars["loss"]))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5]), losses


def test_select_may_not_name_a_test_split(toy_data):
    config = tiny_config(toy_data[1]).copy_and_resolve_references().unlock()
    config.select.eval = "toy_swap"
    with pytest.raises(ValueError, match="test split"):
        train.check_config(config)


@pytest.mark.long
def test_another_config_in_the_workdir_is_refused(workdir, toy_data):
    config = tiny_config(toy_data[1], bare=True).copy_and_resolve_references().unlock()
    config.model.rank = 16
    with pytest.raises(ValueError, match=r"model\.rank is 8 there, 16 now"):
        train.train_and_evaluate(config, workdir)


@pytest.mark.long
def test_a_checkpoint_of_another_config_is_one_message(workdir, tmp_path):
    import shutil

    shutil.copytree(workdir, tmp_path / "copy")
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    config["model"]["num_identities"] = 7
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit"):
        load_for_inference(tmp_path / "copy")


def test_more_identities_than_classes_is_an_error(toy_data):
    config = tiny_config(toy_data[1]).copy_and_resolve_references().unlock()
    config.model.num_identities = 2
    with pytest.raises(ValueError, match="num_identities is 2"):
        train.check_identities(config, {f"toy:{i}": i for i in range(5)})


def test_a_value_that_is_not_finite_stops_the_run_and_names_itself():
    with pytest.raises(FloatingPointError, match="loss/map_bce"):
        train.check_finite(7, {"loss": jnp.float32(1.0), "loss/map_bce": jnp.float32(jnp.nan)})


def test_unknown_loss_weight_is_an_error(toy_data, one_batch):
    config = tiny_config(toy_data[1]).copy_and_resolve_references().unlock()
    config.loss_weights.map_bse = 1.0
    with pytest.raises(ValueError, match="map_bse"):
        jax.eval_shape(make_train_step(config), jax.eval_shape(lambda: init_state(config)), (one_batch,))


@pytest.mark.long
def test_a_full_disk_keeps_the_last_checkpoint(toy_data, tmp_path, monkeypatch):
    config = tiny_config(toy_data[1], steps=4, bare=True).copy_and_resolve_references().unlock()
    config.select = None
    real_save, calls = checkpoint.save, []

    def full_at_the_second(manager, step, *rest):
        calls.append(step)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real_save(manager, step, *rest)

    monkeypatch.setattr(checkpoint, "save", full_at_the_second)
    with pytest.raises(OSError, match="No space left"):
        train.train_and_evaluate(config, tmp_path / "run")
    monkeypatch.undo()
    with checkpoint.make_manager(tmp_path / "run") as manager:
        assert manager.latest_step() == 2
    train.train_and_evaluate(config, tmp_path / "run")
    assert logs.read_metrics(tmp_path / "run")[-1]["step"] == 4


@pytest.mark.long
def test_a_pathwise_adversary_trains_in_the_same_step(toy_data, one_batch):
    config = tiny_config(toy_data[1], steps=50).copy_and_resolve_references().unlock()
    config.model.use_frequency = config.model.use_boundary = False
    del config.loss_weights.boundary_bce
    del config.loss_weights.frequency_cosine
    config.augment.jpeg_prob = 0.0
    config.policy.mode, config.policy.warmup, config.policy.exploration = "pathwise", 0.0, 0.0
    config.policy.entropy_floor = 0.0
    config.synth.recipe.blend.magnitude_on = ("alpha", "dynamic")
    config.optim.warmup_steps = 0
    # The reversal starts at 0: the first step moves the detector alone.
    before, after, _, scalars = _before_and_after(config, one_batch, 3)
    assert all(np.isfinite(value).all() for value in after.values()) and np.isfinite(scalars["loss"])
    for player in ("policy/values/kernel", "policy/trunk/", "detector/backbone/"):
        moved = [name for name in after if name.startswith(player) and not np.array_equal(before[name], after[name])]
        assert moved, player
    assert {"policy/strength", "policy/feather", "policy/color"} <= set(scalars)
