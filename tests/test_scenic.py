"""Scenic's data sets, ViT and checkpoints; with a checkout ($SCENIC_ROOT, or on the path) beside its own code.

The checkout: google-research/scenic at 4a38d475ee89cb821078c0e2bf2065ee030e1535, with tensorflow-cpu and clu. Without
it the ViT is the twin below, in the layers' own names.
"""

import functools
import importlib
import itertools
import os
import pathlib
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import prepared_tree
import pytest
from flax import linen as nn
from flax import serialization, traverse_util
from flax.training import checkpoints
from flax_vit import FlaxBlock, FlaxPositions
from ml_collections import ConfigDict

from data_prep import build
from msddf_jax import detector, export, inference
from msddf_jax.data import scenic_dataset, source
from msddf_jax.models import clip
from msddf_jax.weights import __main__ as command
from msddf_jax.weights import files, hub, identify, load_initial, scenic_files, table
from msddf_jax.weights.names import clip_names, scenic_names

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "howto" / "coming_from_scenic.md"
TOLERANCE = 1e-4
NAMES = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = FlaxPositions(name="posembed_input")(x)
        for i in range(4):
            x = FlaxBlock(NAMES, name=f"encoderblock_{i}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class ScenicViT(nn.Module):
    """Mu/8 as Scenic's baseline lays it out; `classes` of the layer behind the class token."""

    classes: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(64, (8, 8), strides=(8, 8), padding="VALID", name="embedding")(x).reshape(len(x), -1, 64)
        token = jnp.tile(self.param("cls", nn.initializers.zeros, (1, 1, 64)), (len(x), 1, 1))
        x = Encoder(name="Transformer")(jnp.concatenate([token, x], axis=1))[:, 0]
        return nn.Dense(self.classes, name="output_projection")(x)


@functools.cache
def _drawn(classes=2, size=24):
    """(twin, its parameters at random, also what starts as zeros)."""
    model = ScenicViT(classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))["params"]
    rng = np.random.default_rng(0)
    draw = lambda path, leaf: np.float32(path[-1].key.endswith("scale") + 0.1 * rng.normal(size=leaf.shape))
    return model, jax.tree_util.tree_map_with_path(draw, shapes)


def _state(params):
    """A training state as Scenic's trainer hands it to Flax."""
    moments = jax.tree.map(np.zeros_like, params)
    return {
        "global_step": 3,
        "opt_state": ({"mu": moments, "nu": moments}, {"count": np.int32(3)}),
        "params": params,
        "model_state": {},
        "rng": np.zeros(2, np.uint32),
        "metadata": {"chrono": {"accum_train_time": 1.5}},
    }


def _flat(tree):
    return {"/".join(path): leaf for path, leaf in traverse_util.flatten_dict(tree).items()}


def _images(count=3, size=24):
    return np.random.default_rng(1).uniform(size=(count, size, size, 3)).astype(np.float32)


def _difference(ours, theirs):
    assert ours.shape == theirs.shape
    return np.abs(np.float64(ours) - theirs).max() / np.abs(theirs).max()


def _outputs(model, images):
    """Of a loaded detector, in float32: its config computes in bfloat16."""
    with model.config.unlocked():
        model.config.dtype = "float32"
    variables = {"params": model.params["params"], **model.params["model_state"]}
    network = detector.make_model(model.config)
    return jax.jit(functools.partial(network.apply, train=False))(variables, {"image": images})


@pytest.fixture
def flax_file(tmp_path):
    checkpoints.save_checkpoint(tmp_path / "flax", _state(_drawn()[1]), 3, orbax_checkpointer=None)
    found = tmp_path / "flax" / "checkpoint_3"
    if found.is_dir():  # as flax does it by default
        shutil.rmtree(found)
        found.write_bytes(serialization.to_bytes(_state(_drawn()[1])))
    return found


# The ViT.


def test_a_checkpoint_of_scenics_trainer_becomes_a_detector(flax_file, tmp_path):
    lines = command.convert(str(flax_file), str(tmp_path / "run"))
    assert "clip/scenic_vit, detector (baseline), clip Mu/8" in lines[0]
    assert any("pixel_mean, pixel_std, which class is which: real, then fake" in line for line in lines)
    twin, params = _drawn()
    images = _images()
    theirs = np.asarray(jax.jit(twin.apply)({"params": params}, 2 * images - 1))
    ours = _outputs(inference.load_for_inference(tmp_path / "run"), images)
    assert _difference(np.asarray(ours["logits"]), theirs) <= TOLERANCE
    assert _difference(np.asarray(ours["logit"]), theirs[:, 1] - theirs[:, 0]) <= TOLERANCE


def test_there_and_back_bit_for_bit(flax_file, tmp_path):
    command.convert(str(flax_file), str(tmp_path / "run"))
    model = inference.load_for_inference(tmp_path / "run")
    flat = export.flat_variables(model.params)
    path = scenic_names.write(model.config, flat, tmp_path / "out")
    restored = checkpoints.restore_checkpoint(tmp_path / "out", None)  # as Scenic's pretrain_utils calls it
    theirs = _flat(_drawn()[1])
    assert set(_flat(restored["params"])) == set(theirs)
    for name, value in _flat(restored["params"]).items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert restored["global_step"] == 0 and restored["metadata"]["pixel_std"].tolist() == [0.5] * 3
    assert {n: t.shape for n, t in files.open_tensors(path).items()} == {n: a.shape for n, a in theirs.items()}
    with pytest.raises(FileExistsError, match="name another folder"):
        scenic_names.write(model.config, flat, tmp_path / "out")


def test_of_other_classes_the_backbone_alone(tmp_path):
    _, params = _drawn(classes=5)
    params = params | {"pre_logits": {"kernel": np.ones((64, 64), np.float32), "bias": np.zeros(64, np.float32)}}
    (tmp_path / "vit.msgpack").write_bytes(serialization.to_bytes(params))
    tensors = files.open_tensors(tmp_path / "vit.msgpack")
    found = identify.identify(tensors, "here")
    assert (found.detector, found.variant, found.image_size) == (None, "Mu/8", 24)
    shapes = load_initial.backbone_shapes("clip", "Mu/8", 24, found.options)
    table.check(tensors, found.table, shapes, "here", found.skip)
    # A config takes it at another size too, its positions resampled.
    model = {"variant": "Mu/8", "image_size": 32, "options": {**found.options}}
    config = ConfigDict({"init": {"backbone": str(tmp_path / "vit.msgpack")}, "model": model})
    flat, about = load_initial.load(config, load_initial.backbone_shapes("clip", "Mu/8", 32, found.options))
    assert about["backbone"]["format"] == "clip/scenic_vit" and flat["params/backbone/pos_embed"].shape == (17, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flat: flat.pop("cls"), "without a class token"),
        (lambda flat: flat.update({"embedding/kernel": np.zeros((4, 4, 3, 64), np.float32)}), "known are square grids"),
        (lambda flat: flat.update({"Transformer/posembed_input/pos_embedding": np.zeros((1, 9, 64))}), "9 tokens"),
        (lambda flat: flat.pop("Transformer/encoderblock_2/LayerNorm_0/scale"), None),
    ],
)
def test_a_vit_that_cannot_be_computed_is_refused(change, message):
    flat = dict(_flat(_drawn()[1]))
    change(flat)
    tensors = {name: table.Tensor(a.shape, a.dtype, lambda a=a: a) for name, a in flat.items()}
    if message:
        with pytest.raises(ValueError, match=message):
            identify.identify(tensors, "here")
        return
    found = identify.identify(tensors, "here")
    shapes = load_initial.backbone_shapes("clip", "Mu/8", 24, found.options)
    with pytest.raises(ValueError, match="missing Transformer/encoderblock_2/LayerNorm_0/scale"):
        table.check(tensors, *reversed([shapes, identify.backbone_only(found)[0]]), "here", (".*output.*",))


def test_big_visions_and_augregs_are_not_taken_for_scenics():
    for make in (clip_names.big_vision, clip_names.augreg):
        shapes = load_initial.backbone_shapes("clip", "Mu/8", 24, scenic_names.VIT)
        zeros = {name: np.zeros(leaf.shape, np.float32) for name, leaf in shapes.items()}
        assert scenic_names.find({n: a.shape for n, a in table.to_theirs(zeros, make("Mu/8")).items()}) is None


def _clip_config(**options):
    model = {"variant": "Mu/8", "image_size": 24, "options": options}
    return ConfigDict({"detector": "msddf", "model": model})


def test_clips_vision_tower_out_and_in(tmp_path):
    shapes = load_initial.backbone_shapes("clip", "Mu/8", 24, {})
    rng = np.random.default_rng(0)
    flat = {name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in shapes.items()}
    path = scenic_names.write(_clip_config(), flat | {"params/other/kernel": np.ones(2)}, tmp_path / "out")
    tensors = files.open_tensors(path)
    found = identify.identify(tensors, path)
    assert (found.format, found.options["quick_gelu"]) == ("clip/scenic_clip", True)
    back = table.to_ours(tensors, found.table, path)
    assert set(back) == set(flat)
    for name, value in back.items():
        np.testing.assert_array_equal(value, flat[name], err_msg=name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (_clip_config(quick_gelu=False), "quick_gelu=True, the config's backbone False"),
        (_clip_config(**clip.PLAIN_VIT), "tanh_gelu=True, the config's backbone False"),
        (_clip_config(in_channels=6), "in_channels=3"),
        (
            ConfigDict({"detector": "baseline", "model": {"family": "xception", "variant": "plain"}}),
            "is xception plain",
        ),
        (_clip_config(), "params/backbone/block_0/attn/query/s differ"),
    ],
)
def test_what_scenic_would_compute_otherwise_is_not_written(config, message, tmp_path):
    shapes = load_initial.backbone_shapes("clip", "Mu/8", 24, {})
    flat = {name: np.zeros(leaf.shape, np.float32) for name, leaf in shapes.items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        scenic_names.write(config, flat | {"params/backbone/block_0/attn/query/s": np.ones(1)}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Files.

TREE = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": {"c": jnp.ones(3, jnp.bfloat16)}}
STATES = {
    "parameters alone": (TREE, {"a", "b/c"}),
    "optax": ({"params": TREE, "opt_state": TREE, "step": 1}, {"a", "b/c"}),
    "variables in params": ({"params": {"params": TREE}, "step": 1}, {"a", "b/c"}),
    "flax.optim": ({"optimizer": {"target": {"params": TREE}, "state": TREE}}, {"a", "b/c"}),
    "statistics": ({"params": TREE, "batch_stats": {"m": np.ones(2)}}, {"a", "b/c", "batch_stats/m"}),
    "scenic's statistics": (
        {"params": TREE, "model_state": {"batch_stats": {"m": np.ones(2)}}},
        {"a", "b/c", "batch_stats/m"},
    ),
}


@pytest.mark.parametrize("form", ["flax", "orbax"])
@pytest.mark.parametrize("name", STATES)
def test_of_a_state_the_parameters(name, form, tmp_path):
    tree, expected = STATES[name]
    if form == "flax":
        path = tmp_path / "checkpoint_12"
        path.write_bytes(serialization.msgpack_serialize(tree))
    else:
        path = tmp_path / "orbax"
        ocp.PyTreeCheckpointer().save(path, tree)
    tensors = files.open_tensors(path)
    assert set(tensors) == expected
    assert tensors["a"].shape == (2, 3) and tensors["a"].dtype == np.float32
    np.testing.assert_array_equal(tensors["a"].read(), [[0, 1, 2], [3, 4, 5]])
    assert tensors["b/c"].dtype == jnp.bfloat16 and np.float32(tensors["b/c"].read()).tolist() == [1, 1, 1]
    # A config names it as any file; its digest is that of all that lies in it.
    assert hub.locate(str(path)) == path
    digest = hub.verify(path, hub.parse(str(path)))
    changed = path if form == "flax" else next(p for p in sorted(path.rglob("*")) if p.is_file())
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(ValueError, match="has sha-256"):
        hub.verify(path, hub.parse(f"{path}#sha256={digest}"))


def test_steps_of_an_orbax_manager(tmp_path):
    for item in ("default", "state"):
        with ocp.CheckpointManager(tmp_path / item) as manager:
            for step in (5, 10):
                tree = ocp.args.StandardSave({"params": {"a": np.full(2, step, np.float32)}})
                manager.save(step, args=tree if item == "default" else ocp.args.Composite(state=tree))
            manager.wait_until_finished()
        assert files.open_tensors(tmp_path / item / "10")["a"].read().tolist() == [10, 10]
        with pytest.raises(ValueError, match="holds the steps 10, 5: name one"):
            files.open_tensors(tmp_path / item)
    shutil.copytree(tmp_path / "state" / "5" / "state", tmp_path / "state" / "5" / "ema")
    with pytest.raises(ValueError, match="holds the trees ema, state: name one"):
        files.open_tensors(tmp_path / "state" / "5")
    with pytest.raises(FileNotFoundError, match="no weight file"):
        files.open_tensors(tmp_path)


def test_optimiser_moments_of_orbax_are_not_read(tmp_path):
    """Theirs are damaged, and nobody notices."""
    ocp.PyTreeCheckpointer(use_ocdbt=False).save(tmp_path / "o", {"params": TREE, "opt_state": {"m": np.ones(4)}})
    (tmp_path / "o" / "opt_state.m" / "0").write_bytes(b"damaged")
    np.testing.assert_array_equal(files.open_tensors(tmp_path / "o")["a"].read(), TREE["a"])
    (tmp_path / "o" / "params.a" / "0.0").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="the numbers cannot be read") as error:
        files.open_tensors(tmp_path / "o")["a"].read()
    assert "\n" not in str(error.value)
    shutil.rmtree(tmp_path / "o" / "params.a")
    with pytest.raises(ValueError, match="some of its tensors are not there"):
        files.open_tensors(tmp_path / "o")


@pytest.mark.parametrize("gone", ["_METADATA", "damaged"])
def test_a_damaged_orbax_folder(gone, tmp_path):
    ocp.PyTreeCheckpointer().save(tmp_path / "o", {"params": TREE})
    file = tmp_path / "o" / "_METADATA"
    file.unlink() if gone == "_METADATA" else file.write_text("{")
    with pytest.raises(ValueError, match=r"it was not finished|cannot be read as an Orbax checkpoint") as error:
        files.open_tensors(tmp_path / "o")
    assert "\n" not in str(error.value) and str(tmp_path / "o") in str(error.value)


def test_a_damaged_flax_file_is_one_line(tmp_path):
    whole = serialization.msgpack_serialize({"params": {"a": np.arange(64, dtype=np.float32)}, "step": 3})
    path = tmp_path / "checkpoint_3"
    # Every cut, and every byte of the heads replaced: an error in one line, or numbers of the shape that is announced.
    damaged = [whole[:end] for end in range(len(whole))]
    damaged += [whole[:i] + bytes([value]) + whole[i + 1 :] for i in range(40) for value in (0, 0x7F, 0xC1, 0xFF)]
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            for tensor in files.open_tensors(path).values():
                assert tensor.read().shape == tensor.shape
        except ValueError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused >= len(whole)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], "holds a list"),
        ({}, "holds a dict of nothing"),
        ({"params": {}}, "holds no parameters: it has params"),
        ({"params": {"a": "//GDAPlaceholder:a"}}, "a is a str, expected an array .*in other files"),
        ({"params": {"a": {"b": 0.5}}}, "a/b is a float, expected an array"),
        ({"params": 3}, "the state is a int"),
    ],
)
def test_what_is_no_table_of_arrays(tree, message, tmp_path):
    (tmp_path / "x.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    with pytest.raises(ValueError, match=message):
        files.open_tensors(tmp_path / "x.msgpack")


def test_which_paths_are_states(tmp_path):
    for name in ("checkpoint_3", "checkpoint_3.5", "checkpoint_", "checkpoint_3.pt", "model.bin"):
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in sorted(tmp_path.iterdir()) if scenic_files.is_state(path)]
    assert names == ["checkpoint_3", "checkpoint_3.5"]
    assert not scenic_files.is_state(tmp_path) and not scenic_files.is_state(tmp_path / "none")


# Data sets.


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """demo/tfds with reals 000 to 003 in train, 004 and 005 in validation, 006 and 007 in test; 3 frames, 4 fakes."""
    folder = tmp_path_factory.mktemp("scenic")
    build.build("faceforensics", "toy", prepared_tree.write_tree(folder / "tree"), folder / "demo" / "tfds")
    return folder


def _make(built, sets="faceforensics/toy", **settings):
    settings = {"data_dir": built / "demo" / "tfds", "num_threads": 0, "batch_size": 8, "num_shards": 2, **settings}
    return scenic_dataset.make_dataset(sets, **settings)


def test_batches_as_scenics_trainers_read_them(built):
    made = _make(built, eval_batch_size=16, pixel_mean=(0, 0, 0), pixel_std=(1, 0.5, 1))
    assert made.meta_data == {
        "num_classes": 2,
        "input_shape": (-1, 16, 16, 3),
        "input_dtype": np.float32,
        "target_is_onehot": True,
        "num_train_examples": 24,  # 12 real frames, each beside a fake
        "num_eval_examples": 30,  # 2 reals and 8 fakes, 3 frames each
        "num_test_examples": 30,
        "label_names": ("real", "fake"),
    }
    batch = next(made.train_iter)
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "inputs": ((2, 4, 16, 16, 3), "float32"),
        "label": ((2, 4, 2), "float32"),
        "batch_mask": ((2, 4), "float32"),
    }
    # Groups of a real and a fake, in their order over the shards.
    assert batch["label"].reshape(8, 2)[:, 1].tolist() == [0, 1] * 4 and batch["batch_mask"].all()
    records = source.open_source("faceforensics/toy", "validation", built / "demo" / "tfds")
    for _ in range(2):  # the second pass starts over
        one, two = itertools.islice(made.valid_iter, 2)
        inputs = np.concatenate([part["inputs"].reshape(16, 16, 16, 3) for part in (one, two)])
        labels = np.concatenate([part["label"].reshape(16, 2) for part in (one, two)])
        for row in range(30):
            expected = records[row]["image"] / 255 / np.array([1, 0.5, 1])
            np.testing.assert_allclose(inputs[row], expected, atol=1e-6)
            assert labels[row].tolist() == ([0, 1] if records[row]["label"] else [1, 0])
        assert one["batch_mask"].sum() == 16 and two["batch_mask"].reshape(-1).tolist() == [1] * 14 + [0, 0]
    assert next(made.test_iter)["inputs"].shape == (2, 8, 16, 16, 3)


def test_inputs_are_from_minus_one_to_one(built):
    made = _make(built)
    inputs = next(made.train_iter)["inputs"]
    assert -1 <= inputs.min() < -0.9 and 0.9 < inputs.max() <= 1
    other = _make(built, seed=1)
    assert not np.array_equal(next(other.train_iter)["inputs"], inputs)
    np.testing.assert_array_equal(next(_make(built).train_iter)["inputs"], inputs)


def _config(**group):
    config = ConfigDict({"select": {"eval": "val"}, "data": {"data_dir": "nowhere", "group": group}, "evals": {}})
    settings = {"name": "faceforensics/toy", "methods": None, "max_frames": 1}
    config.data.train = ConfigDict(settings | {"split": "train"})
    config.evals.val = ConfigDict(settings | {"split": "validation"})
    return config


def test_a_configs_sets_and_groups(built):
    made = _make(built, _config(real=1, fake=3, methods=(), match="pair"))
    assert next(made.train_iter)["label"].reshape(8, 2)[:, 1].tolist() == [0, 1, 1, 1] * 2
    # One frame of each video: 4 groups of 4 rows, 10 videos.
    assert (made.meta_data["num_train_examples"], made.meta_data["num_eval_examples"]) == (16, 10)
    assert made.test_iter is None and made.meta_data["num_test_examples"] == 0


@pytest.mark.parametrize(
    ("sets", "settings", "message"),
    [
        ("faceforensics/toy", {"batch_size": 9}, "batch_size 9 is not a multiple of the 2 shards"),
        ("faceforensics/toy", {"eval_batch_size": 3}, "eval_batch_size 3 is not a multiple"),
        ("faceforensics/toy", {"batch_size": 2, "group": {"fake": 3}}, "is not a multiple of 4"),
        ("faceforensics/toy", {"group": {"fake": 0}}, "groups have no fake"),
        (_config(real=1, fake=0, methods=(), match="pair"), {}, "are not made in Scenic's"),
        ({"train": "faceforensics/toy"}, {}, "dict with train, validation"),
        (dict.fromkeys(scenic_dataset.SPLITS, "faceforensics/toy:test"), {}, "share videos or people"),
    ],
    ids=str,
)  # fmt: skip
def test_sets_that_cannot_be_given(built, sets, settings, message):
    with pytest.raises(ValueError, match=message):
        _make(built, sets, **settings)


def test_what_is_not_built_is_told_with_the_command(built):
    with pytest.raises(FileNotFoundError, match="is not built"):
        _make(built, "celebdf/v2")


# Beside Scenic itself.


@pytest.fixture
def scenic(monkeypatch):
    if root := os.environ.get("SCENIC_ROOT"):
        monkeypatch.syspath_prepend(root)
    try:
        return importlib.import_module("scenic.train_lib.classification_trainer")
    except ImportError as error:
        pytest.skip(f"needs google-research/scenic, tensorflow-cpu and clu as {PAGE.name} says ({error})")


def _blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def test_the_code_of_the_page_compiles():
    assert len(_blocks("python")) == 5
    for block in _blocks("python"):
        compile(block, str(PAGE), "exec")


# Compiles Scenic's train and eval step on eight devices.
@pytest.mark.long
def test_the_page_from_data_to_weights_and_back(scenic, built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(built / "demo")
    code = iter(_blocks("python"))
    page = {"__name__": "page"}
    run = lambda: exec(compile(next(code), str(PAGE), "exec"), page)
    run()  # the data set
    run()  # the builder by name
    faces = page["datasets"].get_dataset("faces")
    named = faces(
        batch_size=16, eval_batch_size=16, num_shards=8, dtype_str="float32", rng=None, dataset_service_address=None,
        shuffle_seed=0, dataset_configs={"sets": "faceforensics/toy", "data_dir": "demo/tfds"},
    )  # fmt: skip
    assert named.meta_data == page["dataset"].meta_data
    np.testing.assert_array_equal(
        next(named.train_iter)["inputs"], next(page["get_faces"](
            batch_size=16, eval_batch_size=16, num_shards=8,
            dataset_configs={"sets": "faceforensics/toy", "data_dir": "demo/tfds"},
        ).train_iter)["inputs"],
    )  # fmt: skip
    run()  # the trainer
    assert np.isfinite(page["train_summary"]["loss"]) and 0 <= page["eval_summary"]["accuracy"] <= 1
    commands = [line.partition("#")[0].split() for block in _blocks("bash") for line in block.splitlines()]
    weights = [words[3:] for words in commands if words[1:3] == ["-m", "msddf_jax.weights"]]
    assert "clip/scenic_vit, detector (baseline), clip Mu/8" in command.convert(weights[0][0])[0]
    command.convert(weights[1][0], weights[1][2])
    run()  # a tensor
    run()  # and out again
    params = jax.tree.map(lambda leaf: np.asarray(leaf[0]), page["state"].params)
    assert set(_flat(page["restored"]["params"])) == set(_flat(params)) and page["logits"].shape == (2, 2)
    for name, value in _flat(page["restored"]["params"]).items():
        np.testing.assert_array_equal(value, _flat(params)[name], err_msg=name)
    images = _images(size=16)
    network = page["FaceViT"](page["config"], page["dataset"].meta_data).flax_model
    theirs = np.asarray(network.apply({"params": params}, 2 * images - 1, train=False))
    difference = _difference(np.asarray(_outputs(page["model"], images)["logits"]), theirs)
    print("scenic, ViT Mu/8 and its classifier after 20 steps", difference)
    assert difference <= TOLERANCE


def test_scenics_vit_is_the_twin(scenic):
    """The twin stands for Scenic's own module where there is no checkout."""
    vit = importlib.import_module("scenic.projects.baselines.vit")
    model = vit.ViT(
        num_classes=2, mlp_dim=256, num_layers=4, num_heads=2, patches=ConfigDict({"size": (8, 8)}), hidden_size=64,
        classifier="token", dropout_rate=0.0, attention_dropout_rate=0.0,
    )  # fmt: skip
    twin, params = _drawn()
    images = _images()
    theirs = jax.jit(functools.partial(model.apply, train=False))({"params": params}, images)
    assert _difference(np.asarray(jax.jit(twin.apply)({"params": params}, images)), np.asarray(theirs)) <= 1e-5
    assert "tensorflow" in sys.modules
