"""What was trained and its base: small files, the same scores to the last bit, and no other base without a word."""

import json
import pathlib
import shutil
from typing import NamedTuple

import few_steps
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import two_processes
from jax.experimental import multihost_utils
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from test_export import FakeArtifact
from test_weights import _hugging_face
from tiny import tiny_config

from msddf_jax import (
    checkpoint,
    delta,
    detector,
    experiments,
    export,
    frozen,
    inference,
    logs,
    manifest,
    sharding,
    train,
    trees,
)
from msddf_jax.detectors import effort
from msddf_jax.train_step import ema_weights, init_state
from msddf_jax.weights import hub

SIZE = 32  # of the crops; the ViT's own is 48 px, the base's 32, so that its positions are resampled
IMAGES = np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


def write_base(path, seed=0, **changes):
    """A Mu/8 under Hugging Face's names; values that a LayerNorm leaves finite."""
    tensors = _hugging_face(depth=4, width=64, tokens=17, patch=8)
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: 0.1 * value if seed == 0 else rng.normal(size=value.shape).astype(value.dtype)
               for name, value in tensors.items() if "position_ids" not in name} | changes, path)  # fmt: skip
    return path


def make_config(base, name="gend", **init):
    config = few_steps.shrink(experiments.load(f"configs/detectors/{name}.py"), "Mu/8", 1e-3, 48)
    config.init = {"backbone": str(base), **init}
    config.ema, config.select = 0.0, None
    return config.lock()


def start(config):
    """(state as training makes it, its shardings, `train.Origin`); compiles."""
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1})
    with jax.set_mesh(mesh):
        state, shardings, _, origin = train.make_state(config, mesh)
    return state, shardings, origin


def draw(config, shift=0.25):
    """(weights as training would leave them, {our name: array} of them, `train.Origin`); nothing is compiled.

    What is trained is moved by `shift` from where the base has it, or drawn.
    """
    shapes = jax.eval_shape(lambda: init_state(config))
    initial, origin = train.load_weights(config, shapes)
    rng, flat = np.random.default_rng(2), {}
    for name, leaf in trees.flatten(detector.weight_shapes(config)).items():
        ours = name.removeprefix("model_state/")
        value = initial["detector"].get(ours, rng.uniform(0.1, 0.2, leaf.shape))
        moved = name.startswith("model_state/") or frozen.of_state(name) in shapes.ema
        flat[name] = np.asarray(value + (shift if moved else 0), np.float32)
    weights = {"model_state": {}, **trees.unflatten(flat)}
    return weights, {name.removeprefix("model_state/"): value for name, value in flat.items()}, origin


def save(folder, config, weights, base):
    checkpoint.save_config(folder, config)
    checkpoint.save_best(folder, 3, weights, {"val/frame_auc": 0.5}, base)
    return folder


def scores(folder):
    model = inference.load_for_inference(folder)
    return np.asarray(model.predict_fn(model.params, {"image": IMAGES})["score"])


def flat_of(weights):
    return jax.device_get(trees.flatten({"params": weights["params"], **weights["model_state"]}))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, config, {name: array}, origin): LN-tuning; folder/run has what was trained alone, folder/whole all."""
    folder = tmp_path_factory.mktemp("delta")
    config = make_config(write_base(folder / "base" / "model.safetensors"))
    weights, flat, origin = draw(config)
    save(folder / "run", config, weights, origin.base)
    save(folder / "whole", config, weights, None)
    return folder, config, flat, origin


@pytest.fixture
def copied(made, tmp_path):
    """(workdir, its base): copies, to be spoilt."""
    folder = made[0]
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.copytree(folder / "base", tmp_path / "base")
    edit_init(tmp_path / "run", tmp_path / "base" / "model.safetensors")
    return tmp_path / "run", tmp_path / "base" / "model.safetensors"


def edit_init(workdir, reference):
    path = workdir / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init": {"backbone": str(reference)}}))


def error_of(folder):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        inference.load_for_inference(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_trained_is_written_and_nothing_else(made):
    folder, config, flat, origin = made
    saved = load_file(folder / "run" / "best" / "weights.safetensors")
    assert saved.keys() == {name for name in flat if "/ln_" in name or name.startswith("params/binary_head/")}
    # 20 vectors of 64 of the LayerNorms and 64 x 2 + 2 of the linear layer.
    assert sum(value.size for value in saved.values()) == 20 * 64 + 130
    [record] = origin.base.trees.values()
    assert record["frozen"] == trees.count_parameters(flat) - 20 * 64 - 130
    assert record["configured"] == config.init.backbone and record["format"] == "clip/hf_clip"
    assert checkpoint.read_choice(folder / "run") == {"step": 3, "val/frame_auc": 0.5}
    assert checkpoint.best_value(folder / "run", "val/frame_auc") == 0.5


def test_scores_are_those_of_the_whole_file_to_the_last_bit(made, monkeypatch, capsys):
    folder, *_ = made
    np.testing.assert_array_equal(scores(folder / "run"), scores(folder / "whole"))
    # Standard output is for results.
    assert capsys.readouterr().out == ""
    one, other = (flat_of(inference.load_for_inference(folder / name).params) for name in ("run", "whole"))
    for name in other:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_the_base_is_read_once(made, monkeypatch):
    folder, read, real = made[0], [], delta.load_initial.open_reference
    monkeypatch.setattr(
        delta.load_initial, "open_reference", lambda reference: read.append(reference) or real(reference)
    )
    inference.load_for_inference(folder / "run")
    assert len(read) == 1


@pytest.mark.parametrize("what", ["another", "byte", "missing", "edited to another", "edited to nothing", "random"])
def test_another_a_damaged_or_a_missing_base_is_one_line(copied, what):
    workdir, base = copied
    if what == "another":
        write_base(base, seed=1)
    elif what == "byte":
        data = bytearray(base.read_bytes())
        data[-5] ^= 1
        base.write_bytes(data)
    elif what == "missing":
        base.unlink()
    elif what == "edited to another":
        edit_init(workdir, write_base(base.with_name("other.safetensors"), seed=1))
    else:
        edit_init(workdir, base.with_name("nothing.safetensors") if what == "edited to nothing" else "random")
    said = error_of(workdir)
    record = checkpoint.best_base(workdir).trees["backbone"]
    for text in (
        str(workdir),
        record["reference"],
        record["sha256"],
        "init.backbone in config.json",
        "msddf_jax.export",
    ):
        assert text in said
    if "nothing" in what or what == "missing":
        assert "(backbone) is missing: nothing at" in said
    elif what != "random":
        assert "has another base (backbone)" in said and "has sha-256" in said


def test_no_byte_of_what_was_trained_changes_unseen(copied):
    workdir, _ = copied
    path = workdir / "best" / "weights.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    # Numbers at both ends; what it says of its step, figure, base and digest; names, dtypes, offsets.
    places = [8 + length, len(whole) - 1, *(whole.index(text) for text in (
        b"step", b"0.5", b"trees", b"names", b"patch_embed", b"clip/hf", b"ln_1/scale", b"F32", b"data_offsets",
    ))]  # fmt: skip
    places += [8 + int(at) for at in np.random.default_rng(0).integers(1, length - 16, 12)]
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(ValueError):
            inference.load_for_inference(workdir)


def test_other_frozen_arrays_of_the_same_file_are_refused(made, copied, monkeypatch):
    # As of a program that resamples positions otherwise.
    real = delta.load_initial.positions.resample
    monkeypatch.setattr(delta.load_initial.positions, "resample", lambda *args: real(*args) + np.float32(1e-6))
    assert "gives other frozen arrays than in training" in error_of(copied[0])


def test_a_config_of_another_model_is_refused(made, copied):
    _, config, _, origin = made
    path = copied[0] / "config.json"
    changed = json.loads(path.read_text())
    changed["model"]["variant"] = "Ti/16"
    path.write_text(json.dumps(changed))
    assert "is clip Mu/8 (clip/hf_clip); the config's backbone is clip Ti/16" in error_of(copied[0])
    more = origin.base._replace(names=(*origin.base.names, "params/backbone/more"))
    with pytest.raises(ValueError, match="another model, which has no params/backbone/more"):
        delta.read_base(config, more, detector.weight_shapes(config), "best")


def test_a_base_is_found_from_another_folder_and_by_the_environment(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    write_base(pathlib.Path("weights/clip.safetensors"))
    config = make_config("weights/clip.safetensors")
    weights, _, origin = draw(config)
    save(tmp_path / "run", config, weights, origin.base)
    expected = flat_of(inference.load_for_inference(tmp_path / "run").params)
    # A relative name is meant from where training ran.
    monkeypatch.chdir(tmp_path)
    got = flat_of(inference.load_for_inference(tmp_path / "run").params)
    np.testing.assert_array_equal(got["params/backbone/pos_embed"], expected["params/backbone/pos_embed"])
    (tmp_path / "there" / "weights").rename(tmp_path / "mine")
    assert "is missing" in error_of(tmp_path / "run")
    monkeypatch.setenv("MSDDF_WEIGHTS", str(tmp_path / "mine"))
    model = inference.load_for_inference(tmp_path / "run")
    assert model.base_files == {"backbone": tmp_path / "mine" / "clip.safetensors"}
    # For others: where it lay is left out, the name in the config stays.
    assert str(tmp_path) not in json.dumps(delta.published(model.base)._asdict())
    # A file of that name where one happens to be is no excuse.
    write_base(tmp_path / "weights" / "clip.safetensors", seed=1)
    assert "has another base" in error_of(tmp_path / "run")


def test_a_hub_reference_is_kept_with_its_revision(tmp_path, monkeypatch):
    file = tmp_path / "models--a--b" / "snapshots" / "c0ffee" / "model.safetensors"
    monkeypatch.setattr(delta.hub, "locate", lambda _: file)
    assert delta._pinned("hf://a/b#format=x") == "hf://a/b@c0ffee#format=x"
    assert delta._pinned("hf://a/b/model.safetensors") == "hf://a/b@c0ffee/model.safetensors"
    assert delta._pinned("hf://a/b@main/model.safetensors") == "hf://a/b@main/model.safetensors"
    assert delta._pinned("weights/x.pth#sha256=00000000") == f"{file}#sha256=00000000"
    assert delta._pinned("https://a/x.pth#sha256=00000000") == "https://a/x.pth#sha256=00000000"
    assert delta._with_digest("a.pth#sha256=00000000&skip=x.*", "ff" * 32) == f"a.pth#sha256={'ff' * 32}&skip=x.*"


def test_random_or_wholly_trained_is_written_whole(made, tmp_path):
    config = made[1]
    everything = ((".*", config.optim.groups[0][1]),)
    for name, groups in (("random", config.optim.groups), (config.init.backbone, everything)):
        changed = config.copy_and_resolve_references().unlock()
        changed.init.backbone, changed.optim.groups = name, groups
        weights, flat, origin = draw(changed.lock())
        assert origin.base is None
        save(tmp_path / "run", changed, weights, origin.base)
        path = tmp_path / "run" / "best" / "weights.safetensors"
        with safe_open(path, framework="numpy") as file:
            assert json.loads(file.metadata()["choice"]) == {"step": 3, "val/frame_auc": 0.5}
        assert load_file(path).keys() == flat.keys()
        shutil.rmtree(tmp_path / "run")


def test_weights_with_a_base_start_another_run_and_are_its_base(made, tmp_path):
    folder, _, expected, _ = made
    for reference in (folder / "run", folder / "run" / "best" / "weights.safetensors"):
        second = make_config(reference)
        weights, got, found = draw(second, shift=0.5)
        for name in expected:
            if "backbone" in name:
                np.testing.assert_array_equal(got[name], expected[name] + 0.5 * ("/ln_" in name), err_msg=name)
    assert found.weights["backbone"]["format"] == "msddf_jax"
    # A delta on a delta.
    save(tmp_path / "run", second, weights, found.base)
    np.testing.assert_array_equal(
        flat_of(inference.load_for_inference(tmp_path / "run").params)["params/backbone/patch_embed"],
        expected["params/backbone/patch_embed"],
    )
    # The whole network, as a teacher is read.
    flat, about = delta.load_whole(str(folder / "run"), expected, "config.init.teacher")
    assert about["parameters"] == sum(v.size for n, v in expected.items() if n.startswith("params/"))
    for name, value in expected.items():
        np.testing.assert_array_equal(flat[name], value, err_msg=name)
    with pytest.raises(ValueError, match=r"config\.init\.teacher: .* gives params/more"):
        delta.load_whole(str(folder / "run"), {**expected, "params/more/bias": np.zeros(1)}, "config.init.teacher")


def test_what_a_detector_computes_of_its_base_is_saved(made, tmp_path, monkeypatch):
    """Effort splits the attention's kernels: two machines may come to different digits of them."""
    config = make_config(made[0] / "base" / "model.safetensors", "effort")
    weights, expected, origin = draw(config)
    assert not any("/attn/" in name and name.endswith("/kernel") for name in origin.base.names)
    assert "params/backbone/block_0/mlp/fc_1/kernel" in origin.base.names
    save(tmp_path / "run", config, weights, origin.base)
    monkeypatch.setattr(effort, "from_backbone", lambda *_: pytest.fail("computed again"))
    got = flat_of(inference.load_for_inference(tmp_path / "run").params)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def test_moving_statistics_of_a_frozen_network_are_saved(tmp_path):
    config = make_config("random").copy_and_resolve_references().unlock()
    config.model = {"variant": "Mu", "image_size": SIZE, "family": "resnet"}
    shapes = trees.flatten((lambda w: {"params": w["params"], **w["model_state"]})(detector.weight_shapes(config)))
    rng = np.random.default_rng(0)
    own = {n: rng.uniform(0.5, 1, leaf.shape).astype(np.float32) for n, leaf in shapes.items() if "/backbone/" in n}
    save_file(own, tmp_path / "base.safetensors")
    config.init.backbone = str(tmp_path / "base.safetensors")
    config.optim.groups = (("detector/backbone/.*", None), config.optim.groups[-1])
    weights, expected, origin = draw(config.lock())
    assert set(origin.base.names) == {name for name in own if name.startswith("params/")}
    save(tmp_path / "run", config, weights, origin.base)
    got = flat_of(inference.load_for_inference(tmp_path / "run").params)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert np.ptp(got["batch_stats/backbone/norm_1/mean"] - own["batch_stats/backbone/norm_1/mean"] - 0.25) < 1e-6


def _save_last(folder, state, base):
    with checkpoint.make_manager(folder) as manager:
        checkpoint.save(manager, 3, state, {"next": 3}, base)
        manager.wait_until_finished()


def _bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_checkpoints_leave_the_base_out_and_resume_to_the_last_bit(made, tmp_path):
    config = made[1]
    begun, shardings, origin = start(config)
    moved = {name: value + 0.25 for name, value in begun.ema.items()}
    params = trees.unflatten({**trees.flatten(begun.params), **moved})
    state = begun.replace(params=params, ema=moved, step=begun.step + 3)
    checkpoint.save_config(tmp_path, config)
    _save_last(tmp_path, state, origin.base)
    _save_last(tmp_path / "whole", state, None)
    frozen_bytes = 4 * sum(record["frozen"] for record in origin.base.trees.values())
    assert _bytes(tmp_path / "whole" / checkpoint.LAST) - _bytes(tmp_path / checkpoint.LAST) > 0.8 * frozen_bytes
    with checkpoint.make_manager(tmp_path) as manager:
        base = checkpoint.base_to_go_on(manager, origin.base)
        assert base == origin.base
        step, resumed, place = checkpoint.restore_last(manager, train.abstract(begun, shardings), base, begun)
        assert (step, place) == (3, {"next": 3}) and jax.tree.structure(resumed) == jax.tree.structure(state)
        different = make_config(write_base(tmp_path / "other.safetensors", seed=1))
        with pytest.raises(ValueError, match="was saved without the frozen arrays of backbone") as error:
            checkpoint.base_to_go_on(manager, draw(different)[2].base)
        assert "\n" not in str(error.value) and "other.safetensors" in str(error.value)
        with pytest.raises(ValueError, match=r"config\.init\.backbone now gives no such arrays"):
            checkpoint.base_to_go_on(manager, None)
    keys = lambda tree: jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree
    )
    jax.tree.map(np.testing.assert_array_equal, keys(resumed), keys(state))
    # Averages of a run that chose nothing, scored with.
    got = flat_of(inference.load_for_inference(tmp_path).params)
    for name, value in flat_of(ema_weights(state)).items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    (tmp_path / "other.safetensors").unlink()
    edit_init(tmp_path, tmp_path / "other.safetensors")
    assert "is missing" in error_of(tmp_path)


class Parameters(NamedTuple):
    """Stands for `TrainState` as far as what is left out goes."""

    params: dict

    def replace(self, **changes):
        return self._replace(**changes)


def test_only_what_a_checkpoint_left_out_is_taken_from_files_at_a_resume(tmp_path):
    state = Parameters({"detector": {"a": {"x": jnp.ones(3)}, "b": {"y": jnp.zeros(2)}}})
    there = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=there), state)
    start = jax.tree.map(lambda x: x + 5, state)
    record = {"digest": "0", "reference": "x", "sha256": "1"}
    one, both = ({tree: record for tree in trees} for trees in ("a", "ab"))
    bases = [None, frozen.Base(one, ("params/a/x",)), frozen.Base(both, ("params/a/x", "params/b/y"))]
    for i, saved in enumerate(bases):
        _save_last(tmp_path / str(i), state, saved)
        with checkpoint.make_manager(tmp_path / str(i)) as manager:
            # A run of an earlier version, which left nothing out, goes on whole.
            base = checkpoint.base_to_go_on(manager, bases[2])
            assert base == saved == checkpoint.last_base(manager)
            _, resumed, _ = checkpoint.restore_last(manager, shapes, base, start)
        assert resumed.params["detector"]["a"]["x"][0] == (1 if i == 0 else 6)
        assert resumed.params["detector"]["b"]["y"][0] == (5 if i == 2 else 0)
    with checkpoint.make_manager(tmp_path / "new") as manager:
        assert checkpoint.base_to_go_on(manager, bases[2]) == bases[2] and checkpoint.last_base(manager) is None


def test_an_export_is_a_workdir_whole_or_as_what_was_trained(made, tmp_path, monkeypatch):
    folder = made[0]
    monkeypatch.setattr(export, "make_artifact", lambda model: FakeArtifact())
    expected = scores(folder / "whole")
    export.export_workdir(folder / "run", tmp_path / "whole")
    sums = export.export_workdir(folder / "run", tmp_path / "delta", only_trained=True)
    assert set(sums) == set(export.DELTA_FILES) and (tmp_path / "delta" / "delta.safetensors").stat().st_size < 60_000
    # `config.init` of another run may name the folder.
    assert hub.locate(str(tmp_path / "delta")) == tmp_path / "delta" / checkpoint.DELTA
    for name in ("whole", "delta"):
        np.testing.assert_array_equal(scores(tmp_path / name), expected)
        assert checkpoint.read_choice(tmp_path / name) == {"step": 3, "val/frame_auc": 0.5}
        card = (tmp_path / name / "README.md").read_text()
        [record] = made[3].base.trees.values()
        assert f"- backbone: `{record['configured']}`, {record['format']}, SHA-256 {record['sha256']}" in card
        # A delta of a delta is the same; the other form replaces it.
        again = export.export_workdir(folder / "run", tmp_path / name, only_trained=True)
        assert again == sums and not (tmp_path / name / "model.safetensors").exists()
    with pytest.raises(ValueError, match="export without --delta"):
        export.export_workdir(folder / "whole", tmp_path / "no", only_trained=True)
    assert not (tmp_path / "no").exists()


def test_a_manifest_of_scores_has_the_base_among_its_files(copied):
    workdir, base = copied
    model = inference.load_for_inference(workdir)
    made = manifest.make(model, workdir, [], [], {"landmarks": "sidecar"}, [])
    [entry] = [file for file in made["files"] if file["role"] == "base weights"]
    assert entry["path"] == str(base) and entry["sha256"] == model.base.trees["backbone"]["sha256"]
    manifest.write(workdir / "run.json", made)
    write_base(base, seed=1)
    [line] = manifest.check(manifest.read(workdir / "run.json"), workdir)
    assert str(base) in line and "SHA-256 was" in line


def test_digests_depend_on_names_types_shapes_and_bytes():
    one = {"a": np.zeros((2, 3), np.float32), "b": np.float32(1)}
    others = [
        {"a": one["a"], "c": one["b"]},
        {"a": one["a"].reshape(3, 2), "b": one["b"]},
        {"a": one["a"].view(np.int32), "b": one["b"]},
        {"a": one["a"], "b": np.float32(-1)},
        {"a": -one["a"], "b": one["b"]},
        {"a": one["a"]},
    ]
    assert len({frozen.digest(arrays) for arrays in [one, *others]}) == 7
    assert frozen.digest(dict(reversed(one.items()))) == frozen.digest(one)
    assert frozen.digest({**one, "a": np.asfortranarray(one["a"])}) == frozen.digest(one)


# Two runs of the loop, a minute on two cores.
@pytest.mark.long
def test_a_run_on_a_base_resumes_to_the_last_bit(toy_data, tmp_path, monkeypatch):
    config = tiny_config(toy_data[1], bare=True).copy_and_resolve_references().unlock()
    config.init.backbone = str(write_base(tmp_path / "base.safetensors"))
    config.optim.groups = ((r"detector/backbone/(.*/)?ln_[^/]+/.*", {"lr": 1e-3, "weight_decay": 0.0}),
              (r"detector/backbone/.*", None), (r"detector/.*", {"lr": 1e-3, "weight_decay": 0.0}))  # fmt: skip
    config.mesh = {"data": 4, "fsdp": 2}
    train.train_and_evaluate(config.lock(), tmp_path / "alone")
    real = checkpoint.save

    def stop_after_two(manager, step, *rest):
        real(manager, step, *rest)
        manager.wait_until_finished()
        raise OSError("stopped")

    monkeypatch.setattr(checkpoint, "save", stop_after_two)
    with pytest.raises(OSError, match="stopped"):
        train.train_and_evaluate(config, tmp_path / "twice")
    monkeypatch.undo()
    train.train_and_evaluate(config, tmp_path / "twice")
    ends = []
    for name in ("alone", "twice"):
        assert checkpoint.best_base(tmp_path / name) is not None
        lines = [
            {k: v for k, v in line.items() if k != "images_per_second"} for line in logs.read_metrics(tmp_path / name)
        ]
        with checkpoint.make_manager(tmp_path / name) as manager:
            assert checkpoint.last_base(manager) is not None
        shutil.move(tmp_path / name / "best", tmp_path / f"{name}_best")
        ends.append((lines, flat_of(inference.load_for_inference(tmp_path / name).params)))
    assert ends[0][0] == ends[1][0]
    for name, value in ends[0][1].items():
        np.testing.assert_array_equal(value, ends[1][1][name], err_msg=name)


def _save_and_resume(index, folder):
    """In each of two processes, four devices each: parameters lie over all of them."""
    config = make_config(pathlib.Path(folder) / "base.safetensors")
    mesh = sharding.make_mesh({"data": 1, "fsdp": -1})
    with jax.set_mesh(mesh), checkpoint.make_manager(folder) as manager:
        state, shardings, _, origin = train.make_state(config, mesh)
        begun, _, _, _ = train.make_state(config, mesh)
        state = state.replace(ema=jax.tree.map(lambda x: 2 * x, state.ema))
        checkpoint.save(manager, 3, state, {"next": index}, origin.base)
        manager.wait_until_finished()
        base = checkpoint.base_to_go_on(manager, origin.base)
        _, resumed, _ = checkpoint.restore_last(manager, train.abstract(begun, shardings), base, begun)
        same = jax.jit(
            lambda a, b: jax.tree.reduce(lambda x, y: x & y, jax.tree.map(lambda p, q: (p == q).all(), a, b))
        )
        print("SAME", *(bool(same(getattr(resumed, n), getattr(state, n))) for n in ("params", "ema")), flush=True)
        checkpoint.save_best(folder, 3, ema_weights(state), {"val/auc": 0.5}, origin.base)
    multihost_utils.sync_global_devices("written")
    saved = load_file(pathlib.Path(folder) / "best" / "weights.safetensors")
    doubled = all(set(value.tolist()) == {2.0} for name, value in saved.items() if name.endswith("ln_1/scale"))
    print("SAVED", len(saved), doubled, flush=True)


# Two processes that each compile: half a minute.
@pytest.mark.long
def test_two_processes_leave_the_base_out(tmp_path):
    ones = {f"vision_model.encoder.layers.{i}.layer_norm1.weight": np.ones(64, np.float32) for i in range(4)}
    write_base(tmp_path / "base.safetensors", **ones)
    for lines in two_processes.run("test_delta", "_save_and_resume", str(tmp_path)):
        assert "SAME True True" in lines and "SAVED 22 True" in lines, lines


# 86 million numbers, drawn, written and read four times: half a minute.
@pytest.mark.long
def test_the_layer_norms_of_a_b16_take_less_than_two_megabytes(tmp_path):
    tensors = _hugging_face(depth=12, width=768, tokens=197, patch=16)
    save_file({n: np.float32(0.02) * v.astype(np.float32) for n, v in tensors.items() if "ids" not in n},
              tmp_path / "base.safetensors")  # fmt: skip
    config = make_config(tmp_path / "base.safetensors").copy_and_resolve_references().unlock()
    config.model.variant, config.model.image_size = "B/16", 224
    weights, _, origin = draw(config.lock(), shift=0.01)
    save(tmp_path / "run", config, weights, origin.base)
    save(tmp_path / "whole", config, weights, None)
    sizes = [(tmp_path / name / "best" / "weights.safetensors").stat().st_size for name in ("run", "whole")]
    assert sizes[0] < 2_000_000 and sizes[1] > 340_000_000
    np.testing.assert_array_equal(scores(tmp_path / "run"), scores(tmp_path / "whole"))
