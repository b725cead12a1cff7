"""A detector of fifteen lines, and one that uses all of the protocol: written by the test, run by every command."""

import json
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import prepared_tree
import pytest
import safetensors.numpy
from few_steps import noise_batch
from flax import linen as nn

from data_prep import build
from msddf_jax import (
    checkpoint,
    detector,
    embedding,
    evaluate,
    experiments,
    explain,
    export,
    hooks,
    inference,
    logs,
    predict,
    sharding,
    train,
    trees,
)
from msddf_jax.data import pipeline
from msddf_jax.train_step import init_players, init_state, make_cast, make_train_step

ROOT = pathlib.Path(__file__).resolve().parents[1]

SMALL = """
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

class Model(nn.Module):
    width: int = 8
    dtype: jnp.dtype = jnp.float32
    @nn.compact
    def __call__(self, rows, *, train):
        x = nn.relu(nn.Conv(self.width, (3, 3), strides=4)(rows["image"]))
        return {"logit": nn.Dense(1)(x.mean((1, 2)))[:, 0]}

def losses(out, rows, ctx):
    return {"label": (optax.sigmoid_binary_cross_entropy(out["logit"], rows["label"]), rows["label"] >= 0)}
"""

# Two layers over a clip: what is in each frame, and how it changes.
CLIP = """
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

class Model(nn.Module):
    width: int = 4
    dtype: jnp.dtype = jnp.float32
    @nn.compact
    def __call__(self, rows, *, train):
        assert rows["image"].ndim == 5, rows["image"].shape
        frames = nn.relu(nn.Conv(self.width, (1, 3, 3))(rows["image"])).mean((2, 3))
        change = jnp.abs(frames[:, 1:] - frames[:, :-1]).mean(1)
        return {"logit": nn.Dense(1)(jnp.concatenate([frames.mean(1), change], -1))[:, 0]}

def losses(out, rows, ctx):
    return {"label": (optax.sigmoid_binary_cross_entropy(out["logit"], rows["label"]), rows["label"] >= 0)}
"""

# A frozen teacher, a moving statistic, and a second look at the model to hide what it looks at (as RFM does).
LARGE = """
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from msddf_jax import hooks

class Teacher(nn.Module):
    @nn.compact
    def __call__(self, image):
        return nn.Dense(4, name="out")(image.mean((1, 2)))

class Model(nn.Module):
    width: int = 4
    dtype: jnp.dtype = jnp.float32
    @nn.compact
    def __call__(self, rows, *, train):
        x = nn.relu(nn.Conv(self.width, (3, 3), strides=4)(rows["image"])).mean((1, 2))
        mean = self.variable("statistics", "mean", jnp.zeros, (self.width,))
        if train and not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * x.mean(0)
        return {"logit": nn.Dense(1)(x - mean.value)[:, 0], "feature": x}

def players(config):
    image = jax.ShapeDtypeStruct((1, config.data.image_size, config.data.image_size, 3), jnp.float32)
    return {"teacher": hooks.Player(Teacher(), (image,), frozen=True)}

def make_rows(key, batch, ctx):
    rows = hooks.make_rows(key, batch, ctx)
    look = lambda image: ctx.apply("detector", dict(rows, image=image))["logit"].sum()
    seen = jnp.abs(jax.lax.stop_gradient(jax.grad(look)(rows["image"]))).sum(-1, keepdims=True)
    hidden = seen >= jnp.max(seen, axis=(1, 2, 3), keepdims=True)
    return dict(rows, image=jnp.where(hidden, 0.5, rows["image"]), hidden=hidden.sum((1, 2, 3)))

def losses(out, rows, ctx):
    every = rows["label"] >= 0
    taught = ctx.apply("teacher", rows["image"])
    return {
        "label": (optax.sigmoid_binary_cross_entropy(out["logit"], rows["label"]), every),
        "teacher": (jnp.mean((out["feature"] - taught) ** 2, axis=-1), every),
    }

def scalars(out, rows):
    return {"hidden": rows["hidden"].mean().astype(jnp.float32)}
"""

CONFIG = """
from configs.common import get_common
def get_config(arg=None):
    config = get_common()
    config.detector, config.model.width, config.dtype = "{package}.{name}", {width}, "float32"
    config.init = {init}
    config.augment.image_size = 64
    return config
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """(folder, write): write(name, source, **config) puts a detector and its config into a package of its own."""
    folder = tmp_path / "their_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, source, width=8, init="{}"):
        (folder / f"{name}.py").write_text(textwrap.dedent(source).lstrip())
        path = folder / f"{name}_config.py"
        path.write_text(CONFIG.format(package=folder.name, name=name, width=width, init=init).lstrip())
        return path

    yield folder, write
    for name in [n for n in sys.modules if n.split(".")[0] == folder.name]:
        del sys.modules[name]


def _adjusted(path, toy_data, steps=4):
    """The config as the command line would change it."""
    config = experiments.load(str(path)).unlock()
    demo = experiments.load("configs/msddf.py:demo")
    config.data = demo.data
    config.data.data_dir, config.data.image_size = str(toy_data[1]), 64
    config.data.batch_size, config.data.eval_batch_size = 8, 16
    config.evals = {name: demo.evals[name] for name in ("val", "toy_swap")}
    config.select = {"eval": "val", "metric": "frame_auc", "every": steps}
    config.steps, config.log_every, config.checkpoint_every = steps, 1, 2
    return config.lock()


def _use(workdir, toy_data, tmp_path):
    """Evaluate, predict, explain and export a workdir; returns its results."""
    results = evaluate.evaluate_workdir(workdir, resamples=10)
    model = inference.load_for_inference(workdir)
    assert model.step == 4
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    [scored] = inference.score_crops(model, [image])
    assert 0.0 <= scored["score"] <= 1.0
    videos = sorted((toy_data[0]).rglob("*.mp4"))[:1]
    [line] = predict.predict_files(model, videos, tmp_path / "out", landmarks="sidecar", num_frames=2)
    assert line["label"] in ("real", "fake") and (line["probability"] > 0.5) == (line["label"] == "fake")
    [line] = explain.explain_files(model, videos, tmp_path / "maps", landmarks="sidecar", num_frames=1)
    assert line["faces"][0]["peak"].keys() == {"gradient"}
    sums = export.export_workdir(workdir, tmp_path / "exported")
    artifact = jax.export.deserialize(bytearray((tmp_path / "exported" / "model.stablehlo").read_bytes()))
    np.testing.assert_allclose(artifact.call(image[None])["score"][0], scored["score"], atol=1e-6)
    names = safetensors.numpy.load_file(tmp_path / "exported" / "model.safetensors")
    assert not any("teacher" in name for name in names) and "model.safetensors" in sums
    return results


@pytest.mark.long
def test_fifteen_lines_are_a_detector(package, toy_data, tmp_path, monkeypatch):
    _, write = package
    path = write("small", SMALL)
    lines = [line for line in SMALL.strip().splitlines() if line.strip()]
    assert len(lines) <= 15 and len(CONFIG.strip().splitlines()) <= 8
    config, workdir = _adjusted(path, toy_data), tmp_path / "run"
    # Stopped after two steps, and started again.
    real = train.Loop.run
    monkeypatch.setattr(train.Loop, "select", lambda *_: (_ for _ in ()).throw(OSError("stopped")))
    with pytest.raises(OSError, match="stopped"):
        train.train_and_evaluate(config.copy_and_resolve_references(), workdir)
    monkeypatch.undo()
    sys.path.insert(0, str(tmp_path))
    try:
        assert train.Loop.run is real and checkpoint.has_weights(workdir)
        train.train_and_evaluate(config, workdir)
        results = _use(workdir, toy_data, tmp_path)
        assert 0.0 <= results["toy_swap/video_auc"] <= 1.0
        with pytest.raises(ValueError, match="gives no `feature` to embed"):
            embedding.make_feature_fn(config)(
                inference.load_for_inference(workdir).params, {"image": np.zeros((1, 64, 64, 3), np.uint8)}
            )
    finally:
        sys.path.remove(str(tmp_path))


@pytest.mark.long
def test_a_teacher_a_statistic_and_a_second_look(package, toy_data, tmp_path):
    _, write = package
    rng = np.random.default_rng(1)
    kernel = {"params/out/kernel": rng.normal(size=(3, 4)).astype(np.float32), "params/out/bias": np.zeros(4, "f4")}
    safetensors.numpy.save_file(kernel, tmp_path / "teacher.safetensors")
    init = "{'teacher': '" + str(tmp_path / "teacher.safetensors") + "'}"
    config, workdir = _adjusted(write("large", LARGE, width=4, init=init), toy_data), tmp_path / "run"
    config.unlock()
    config.loss_weights = {"label": 1.0, "teacher": 0.5}
    train.train_and_evaluate(config.lock(), workdir)
    _use(workdir, toy_data, tmp_path)
    weights = inference.load_for_inference(workdir).params
    # The statistic moved and is scored with; the teacher is nowhere in what was saved.
    assert np.abs(weights["model_state"]["statistics"]["mean"]).max() > 0
    versions = json.loads((workdir / "versions.json").read_text())
    assert versions["weights"]["teacher"]["parameters"] == 16 and len(versions["weights"]["teacher"]["sha256"]) == 64
    with checkpoint.make_manager(workdir) as manager:
        folder = pathlib.Path(manager.directory) / str(manager.latest_step())
        assert not any("teacher" in path.read_text(errors="ignore") for path in folder.rglob("_METADATA"))
    # Its file is part of the experiment: without it, nothing starts.
    config.unlock().init = {}
    with pytest.raises(ValueError, match=r"teacher of detector .* is never trained, and config\.init names no file"):
        train.train_and_evaluate(config.lock(), tmp_path / "other")


@pytest.mark.long
@pytest.mark.parametrize("step", ["sam", "bilevel"])
def test_any_detector_takes_any_step(package, toy_data, step):
    _, write = package
    config = _adjusted(write("small", SMALL), toy_data).unlock()
    config.step.name, config.step.lr = step, 0.1
    state = jax.jit(lambda: init_state(config))()
    run, batch = jax.jit(make_train_step(config)), noise_batch(size=64)
    batches = (batch, {**batch, "image": batch["image"][::-1].copy(), "label": batch["label"][::-1].copy()})
    losses = []
    for _ in range(3):
        state, scalars = run(state, batches if step == "bilevel" else batches[:1])
        losses.append(float(scalars["loss"]))
    assert np.isfinite(losses).all()
    if step == "bilevel":
        weight = float(state.params["loss_weights"]["label"])
        assert weight != 1.0 and weight >= 0.0 and float(scalars["loss_weights/label"]) > 0
        assert any("loss_weights" in name for name in trees.flatten({"p": state.params}))
    else:
        assert "loss_weights" not in state.params


@pytest.mark.long
def test_bilevel_resumes_with_its_weights_and_both_places_in_the_data(package, toy_data, tmp_path, monkeypatch):
    _, write = package
    config = _adjusted(write("small", SMALL), toy_data).unlock()
    config.step.name, config.step.lr, config.select = "bilevel", 0.1, None
    train.train_and_evaluate(config.lock(), tmp_path / "alone")
    real_save = checkpoint.save

    def stop_after_two(manager, step, *rest):
        real_save(manager, step, *rest)
        manager.wait_until_finished()
        raise OSError("stopped")

    monkeypatch.setattr(checkpoint, "save", stop_after_two)
    with pytest.raises(OSError, match="stopped"):
        train.train_and_evaluate(config, tmp_path / "twice")
    monkeypatch.setattr(checkpoint, "save", real_save)
    train.train_and_evaluate(config, tmp_path / "twice")
    alone, twice = (logs.read_metrics(tmp_path / name) for name in ("alone", "twice"))
    values = lambda lines: [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]
    assert values(alone) == values(twice) and len({line["loss_weights/label"] for line in alone}) == 4
    # What was saved for one batch a step is no place for two.
    with config.unlocked():
        config.step.name = "gradient"
    batches = pipeline.JoinedBatches([])
    with pytest.raises(ValueError, match="independent batches a step"):
        batches.set_state([{}])


@pytest.mark.long
def test_a_clip_model_trains_and_scores_clips(package, tmp_path):
    _, write = package
    pairs = {split: [(f"00{i}", f"00{i + 1}")] for split, i in (("train", 0), ("val", 2), ("test", 4))}
    tree = prepared_tree.write_tree(tmp_path / "tree", pairs=pairs, frames=range(16), size=64)
    build.build("faceforensics", "toy_clip16", tree, tmp_path / "built")
    config = _adjusted(write("clip", CLIP, width=4), (tree, tmp_path / "built")).unlock()
    config.data.clip_length = 16
    for settings in (config.data.train, *config.evals.values()):
        settings.name, settings.methods = "faceforensics/toy_clip16", None
    config.select.metric = "video_auc"
    config.synth.recipe = {"name": "self_blend"}
    results = train.train_and_evaluate(config.lock(), tmp_path / "run")
    assert 0.0 <= results["toy_swap/video_auc"] <= 1.0
    model = inference.load_for_inference(tmp_path / "run")
    clip = np.zeros((2, 16, 64, 64, 3), np.uint8)
    assert np.asarray(model.predict_fn(model.params, {"image": clip})["score"]).shape == (2,)
    # Frames where clips are wanted, and the other way about, are told before anything runs.
    with config.unlocked():
        config.data.clip_length = 0
    with pytest.raises(ValueError, match="clip"):
        train.train_and_evaluate(config, tmp_path / "frames")


@pytest.mark.long
def test_sam_without_a_radius_is_the_gradient_step_bit_for_bit(package, toy_data):
    _, write = package
    config, ends = _adjusted(write("small", SMALL), toy_data).unlock(), []
    for name in ("gradient", "sam"):
        config.step.update(name=name, rho=0.0)
        state, batch = jax.jit(lambda: init_state(config))(), noise_batch(size=64)
        run = jax.jit(make_train_step(config))
        for _ in range(2):
            state, _ = run(state, (batch,))
        ends.append(jax.device_get(trees.flatten(state.params)))
    for name, value in ends[0].items():
        np.testing.assert_array_equal(value, ends[1][name], err_msg=name)


def test_no_group_of_the_user_takes_the_loss_weights(package, toy_data):
    _, write = package
    config = _adjusted(write("small", SMALL), toy_data).unlock()
    config.step.name, config.optim.groups = "bilevel", ((".*", {"lr": 1e-3, "weight_decay": 0.5}),)
    pattern, settings = make_cast(config).groups[0]
    assert pattern == "loss_weights/.*" and settings["lr"] == config.step.lr and settings["weight_decay"] == 0.0


# A trained network with batch norm, and a detector of this project as a teacher.
PLAYERS = """
import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import hooks
from msddf_jax.detectors import baseline
from their_package.small import Model, losses as _terms

class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.BatchNorm(use_running_average=not train, momentum=0.5)(x).mean(-1)

def players(config):
    image = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    teacher = baseline.Model("Mu", 64, family="resnet")
    optim = {"lr": 1e-3, "weight_decay": 0.0}
    return {
        "normed": hooks.Player(Normed(), (image,), optim=optim),
        "teacher": hooks.Player(teacher, ({"image": image},), frozen=True),
    }

def losses(out, rows, ctx):
    normed = ctx.apply("normed", rows["image"], train=True, mutable=True).mean((1, 2))
    taught = jax.nn.sigmoid(ctx.apply("teacher", rows)["logit"])
    more = {"normed": (normed**2, rows["label"] >= 0), "taught": ((out["logit"] - taught) ** 2, rows["label"] >= 0)}
    return {**_terms(out, rows, ctx), **more}
"""


@pytest.mark.long
def test_networks_beside_the_detector_train_and_teach(package, toy_data, tmp_path):
    _, write = package
    write("small", SMALL)
    rng = np.random.default_rng(0)

    def save(name, variables):
        # Above 0, as variances are.
        flat = {k: rng.uniform(0.1, 1, v.shape).astype(np.float32) for k, v in trees.flatten(variables).items()}
        safetensors.numpy.save_file(flat, tmp_path / f"{name}.safetensors")

    init = repr({name: str(tmp_path / f"{name}.safetensors") for name in ("teacher", "normed")})
    config = _adjusted(write("players", PLAYERS, init=init), toy_data).unlock()
    config.loss_weights = {"label": 1.0, "normed": 0.1, "taught": 0.1}
    save("teacher", jax.eval_shape(lambda: init_players(config, frozen=True))["teacher"])
    save("normed", jax.eval_shape(lambda: init_players(config, frozen=False))["normed"])
    config.select, config.evals = None, {}
    workdir = tmp_path / "run"
    first = json.loads(json.dumps(_train(config, workdir, 2)))
    assert first["weights"]["teacher"]["parameters"] > 1000 and "normed" in first["weights"]
    mesh = sharding.make_mesh({"data": -1, "fsdp": 1})
    with jax.set_mesh(mesh), checkpoint.make_manager(workdir) as manager:
        state, shardings, fixed, _ = train.make_state(config, mesh)
        _, trained, _ = checkpoint.restore_last(manager, train.abstract(state, shardings))
    # It started from its file, and its statistics moved towards the images'.
    loaded = safetensors.numpy.load_file(tmp_path / "normed.safetensors")["batch_stats/BatchNorm_0/mean"]
    np.testing.assert_array_equal(state.model_state["normed"]["batch_stats"]["BatchNorm_0"]["mean"], loaded)
    moved = np.asarray(trained.model_state["normed"]["batch_stats"]["BatchNorm_0"]["mean"])
    assert set(fixed) == {"teacher"} and np.abs(moved - loaded).max() > 1e-3
    # Another teacher is another experiment.
    save("teacher", jax.eval_shape(lambda: init_players(config, frozen=True))["teacher"])
    with pytest.raises(ValueError, match=r"config\.init\.teacher was sha-256 .* put the file back"):
        _train(config, workdir, 4)
    assert json.loads((workdir / "versions.json").read_text())["weights"] == first["weights"]


def _train(config, workdir, steps):
    """Train to so many of the config's four steps; what versions.json says."""
    real = checkpoint.save

    def save(manager, step, *rest):
        real(manager, step, *rest)
        manager.wait_until_finished()
        if step == steps:
            raise KeyboardInterrupt

    checkpoint.save = save
    try:
        train.train_and_evaluate(config, workdir)
    except KeyboardInterrupt:
        pass
    finally:
        checkpoint.save = real
    return json.loads((workdir / "versions.json").read_text())


def _write_detector(package, text):
    folder, _ = package
    (folder / "odd.py").write_text(text)
    sys.modules.pop(f"{folder.name}.odd", None)
    return f"{folder.name}.odd"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Model = None\ndef losses(out, rows, ctx): ...\ndef synthesise(key): ...\n", "synthesise, which is no hook"),
        ("Model = None\ndef losses(out, rows, ctx): ...\ndef make_row(key): ...\n", r"did you mean make_rows\?"),
        ("def losses(out, rows, ctx): ...\n", "lacks Model. Hooks: Model, losses, example"),
        ("Model = None\n", "lacks losses"),
    ],
)
def test_a_hook_that_is_misspelt_or_missing_is_an_error(package, text, message):
    with pytest.raises(ValueError, match=message):
        detector.load(_write_detector(package, text))


def test_private_and_imported_functions_are_no_hooks(package):
    text = "from math import sqrt\nfrom json import dumps as save\nModel = None\ndef losses(out, rows, ctx): ...\n"
    module = detector.load(_write_detector(package, text + "def _helper(): ...\n"))
    assert hooks.resolve(module).make_rows is hooks.make_rows


def test_an_unknown_detector_names_those_there_are():
    with pytest.raises(ValueError, match=r"did you mean 'msddf'\?.*\['baseline',.* 'msddf'.*\]"):
        detector.load("mssdf")
    # A module that is there and fails to import something else says so itself.
    assert detector.load("msddf").Model is not None


def test_a_broken_import_inside_a_detector_is_not_called_unknown(package):
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        detector.load(_write_detector(package, "import no_such_library\n"))


def test_a_program_is_of_its_detectors_source(package, toy_data):
    folder, write = package
    config = _adjusted(write("small", SMALL), toy_data)
    before = inference._program_key(config)
    assert inference._program_key(config) == before
    (folder / "small.py").write_text(SMALL.replace("nn.relu", "nn.gelu"))
    changed = inference._program_key(config)
    (folder / "helper.py").write_text("SIZE = 3\n")
    assert len({before, changed, inference._program_key(config)}) == 3


def test_a_context_says_who_is_there_and_what_may_move():
    ctx = hooks.Context(
        experiments.load("configs/msddf.py:demo"),
        {"detector": None},
        {"detector": {"params": {}, "statistics": {}}},
        step=jnp.int32(60),
        key=jax.random.key(0),
    )
    assert float(ctx.progress) == 0.25
    with pytest.raises(ValueError, match=r"no player 'teacher'; there are \['detector'\]"):
        ctx.apply("teacher")
    with pytest.raises(ValueError, match=r"no collections \['params'\]; its module declares \['statistics'\]"):
        ctx.update("detector", params={})
    ctx.update("detector", statistics={"mean": 1.0})
    assert ctx.updates == {"detector": {"statistics": {"mean": 1.0}}}


def test_what_a_context_cannot_do_it_says():
    config = experiments.load("configs/msddf.py:demo")
    modules = {"detector": None, "teacher": nn.Dense(1)}
    variables = {"detector": {"params": {}}, "teacher": {"params": {}, "statistics": {}}}
    ctx = hooks.Context(config, modules, variables, step=0, key=jax.random.key(0), frozen=("teacher",))
    with pytest.raises(ValueError, match="'teacher' is frozen"):
        ctx.update("teacher", statistics={})
    with pytest.raises(ValueError, match="Dense is not called with `train`"):
        ctx.apply("teacher", jnp.ones((1, 2)), train=True)


def test_players_names_and_the_policy_are_checked(package):
    text = SMALL + "\ndef players(config):\n    return {NAMES}\n"
    config = experiments.load("configs/msddf.py:demo").unlock()
    config.detector = _write_detector(package, text.replace("{NAMES}", "{}"))
    with pytest.raises(ValueError, match=r"policy\.mode=reinforce needs the policy of hooks\.players"):
        make_cast(config)
    config.policy.mode = "none"
    for name in ("detector", "loss_weights"):
        config.detector = _write_detector(package, text.replace("{NAMES}", f"{{'{name}': None}}"))
        with pytest.raises(ValueError, match="none may be called detector or loss_weights"):
            make_cast(config)


def test_what_is_read_of_outputs_has_the_schemas_shapes():
    out = {"logit": jnp.zeros(2), "map_logits": jnp.zeros((2, 3, 3))}
    assert detector.read(out)["map"].shape == (2, 3, 3)
    assert detector.read({**out, "map_logits": jnp.zeros((2, 3, 3, 1))})["map"].shape == (2, 3, 3)
    with pytest.raises(ValueError, match=r"type_logits are of \('alpha', .*these have 4 classes"):
        detector.read({**out, "type_logits": jnp.zeros((2, 4))})
    assert detector.read({**out, "feature": jnp.zeros((2, 8), jnp.bfloat16)})["feature"].dtype == jnp.float32
    with pytest.raises(ValueError, match=r"feature is \[B, d\], this one is \(2, 3, 3, 8\)"):
        detector.read({**out, "feature": jnp.zeros((2, 3, 3, 8))})


def test_a_clip_is_the_example_of_its_model():
    config = experiments.load("configs/msddf.py:demo").unlock()
    assert detector.example(config) == {"image": (96, 96, 3)}
    config.data.clip_length = 4
    assert detector.example_batch(config, 2)["image"].shape == (2, 4, 96, 96, 3)


def test_a_detector_of_another_package_runs_from_the_command_line(package, tmp_path):
    folder, write = package
    path = write("small", SMALL)
    command = [sys.executable, "-m", "msddf_jax.main", "--config", str(path), "--workdir", str(tmp_path / "w")]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": ""}
    )
    # Without data it stops at what is missing, which is after the detector and its config were found.
    assert done.returncode == 1 and "data set faceforensics/c23 is not built" in done.stderr, done.stderr
    assert not (tmp_path / "w").exists() and folder.exists()
