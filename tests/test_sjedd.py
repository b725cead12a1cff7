"""SJEDD and SO-DFD: what the network gives, what it is asked, and its files, against values worked by hand."""

import functools
import importlib

import clip_vocabulary
import few_steps
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params
from safetensors.numpy import save_file

from configs.detectors import sjedd as experiment
from data_prep.sjedd import labels
from msddf_jax import checkpoint, detector, experiments, export, hooks, inference, steps, train, trees
from msddf_jax.detectors import sjedd
from msddf_jax.models import clip, clip_text, semantic_graph
from msddf_jax.train_step import ema_weights, init_state, make_train_step
from msddf_jax.weights import __main__ as command
from msddf_jax.weights import load_initial, table
from msddf_jax.weights.names import clip_names

SIZE = 32
IDENTITY, REAL = "0101011111", "1000000000"


def _tiny(vocabulary="bytes", graph="ffpp"):
    """The demo's network at 32 px; nothing is perturbed."""
    config = few_steps.shrink(experiment.get_config("demo"), "Ti/16", lr=1e-3)
    config.augment = {"image_size": SIZE}
    config.loss_args.perturb.prob = 0.0
    config.model.vocabulary, config.model.graph = vocabulary, graph
    config.optim.schedule = "constant"
    return config.lock()


def _batch():
    """`few_steps.noise_batch` whose fakes are of another identity."""
    batch = few_steps.noise_batch()
    values = [labels.read_label(IDENTITY if fake else REAL)[1] for fake in batch["label"]]
    batch["attributes"] = np.array([[value or 0 for value in row] for row in values], np.uint8)
    batch["has_attributes"] = np.array([[value is not None for value in row] for row in values])
    return batch


def _context(**settings):
    config = _tiny().copy_and_resolve_references().unlock()
    for name, value in settings.items():
        *sections, field = name.split("__")
        functools.reduce(getattr, sections, config)[field] = value
    return hooks.Context(config, {}, {}, step=jnp.int32(0), key=jax.random.key(0))


@pytest.fixture(scope="module")
def model():
    """A model with random parameters and CLIP's ids for its prompts, its images and what it gives."""
    module = sjedd.Model("Ti/16", SIZE, vocabulary="bytes")
    rows = {"image": jnp.asarray(np.random.default_rng(0).uniform(size=(3, SIZE, SIZE, 3)), jnp.float32)}
    ids = jnp.asarray(sjedd._prompt_ids("bytes", "ffpp", "Ti/16"))
    variables = random_params(_Shapes(module), rows, scale=0.2)
    variables = {"params": variables["params"], "prompts": {"ids": ids}}
    return variables, rows, jax.jit(functools.partial(module.apply, train=False))(variables, rows)


class _Shapes:
    """`random_params` calls init(key, *args); the detector's takes `train` too."""

    def __init__(self, module):
        self.init = functools.partial(module.init, train=False)


@pytest.mark.long
def test_energies_are_a_tenth_of_the_products_of_clips_features(model):
    variables, rows, out = model
    params, ids = variables["params"], variables["prompts"]["ids"]
    image = clip.VisionTransformer("Ti/16", SIZE).apply({"params": params["backbone"]}, rows["image"])["feature"]
    text = clip_text.TextTransformer("Ti/16").apply({"params": params["text"]}, ids)["feature"]
    image, text = image @ params["vision_projection"]["kernel"], text @ params["text_projection"]["kernel"]
    np.testing.assert_allclose(out["energy"], image @ text.T / 10, rtol=2e-3, atol=1e-4)
    # Neither is of unit length, and the temperature is not a part of the detector.
    assert np.abs(np.linalg.norm(text, axis=1) - 1).min() > 0.1 and "logit_scale" not in params
    both = {**params, "logit_scale": jnp.zeros(())}
    cosines = clip_text.ClipModel("Ti/16", SIZE).apply({"params": both}, rows["image"], ids)["logits_per_image"]
    norms = np.linalg.norm(image, axis=1)[:, None] * np.linalg.norm(text, axis=1)
    np.testing.assert_allclose(10 * out["energy"] / norms, cosines, atol=1e-4)


def test_the_score_is_the_marginal_of_the_root(model):
    *_, out = model
    states = semantic_graph.legal_states(semantic_graph.get_graph("ffpp"))
    weight = np.exp(np.float64(out["energy"]) @ states.T)
    expected = weight[:, states[:, 0] == 1].sum(1) / weight.sum(1)
    np.testing.assert_allclose(detector.read(out)["score"], expected, rtol=1e-5)
    assert (experiment.get_config().aggregate, out["feature"].shape) == ("mean", (3, 64))


def _out(rng, nodes=12):
    p = rng.uniform(0.05, 0.95, (2, nodes)).astype(np.float32)
    return p, {"log_p": jnp.log(p), "log_rest": jnp.log(1 - p)}


@pytest.mark.parametrize("form", sjedd.FORMS)
def test_what_is_unknown_is_zero_in_one_form_and_masked_in_the_other(form):
    """FFSC's "gender", whose age is unknown, beside a row of which the label alone is known."""
    p, out = _out(np.random.default_rng(0))
    _, values = labels.read_label("120110111101")
    has = np.zeros((2, 13), bool)
    has[0] = [value is not None for value in values]
    rows = {"label": jnp.array([1, 0]), "has_attributes": jnp.asarray(has)}
    rows["attributes"] = jnp.asarray([[value or 0 for value in values], [1] * 13], jnp.uint8)
    terms = sjedd.losses(out, rows, _context(loss_args__form=form, model__graph="ffsc"))
    g = np.array([int(digit) for digit in "100110111101"])
    if form == "fidelity":
        loss = 1 - np.sqrt(p * g + 1e-8) - np.sqrt((1 - p) * (1 - g) + 1e-8)
        root = 1 - np.sqrt(1 - p[1, 0])
    else:
        loss = -(g * np.log(p) + (1 - g) * np.log(1 - p))
        loss[:, 1] = 0
        root = -np.log(1 - p[1, 0])
    np.testing.assert_allclose(terms["level_1"][0], [loss[0, 0], root], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(terms["level_2"][0][0], loss[0, 1:6].mean(), rtol=1e-4)
    np.testing.assert_allclose(terms["level_3"][0][0], loss[0, 6:].mean(), rtol=1e-4)
    assert [mask.tolist() for _, mask in terms.values()] == [[True, True], [True, False], [True, False]]


def test_an_unknown_form_is_named():
    with pytest.raises(ValueError, match=r"form is 'fidelty', allowed: \('fidelity', 'cross_entropy'\)"):
        sjedd.losses({}, {}, _context(loss_args__form="fidelty"))


def test_images_are_perturbed_at_their_own_size_and_then_resized():
    ctx = _context(loss_args__perturb={"prob": 1.0, "qualities": (75,)}, augment={"image_size": SIZE})
    batch = detector.to_device_images(few_steps.noise_batch(size=64))
    rows = sjedd.make_rows(jax.random.key(0), batch, ctx)
    plain = sjedd.make_rows(jax.random.key(0), batch, _context(loss_args__perturb={"prob": 0.0, "qualities": (75,)}))
    assert rows["image"].shape == plain["image"].shape == (8, SIZE, SIZE, 3)
    changed = np.abs(np.asarray(rows["image"] - plain["image"])).max((1, 2, 3)) > 0
    # At 64 px there are no blocks.
    assert changed.any() and (rows["label"] == batch["label"]).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"synth__recipe": {"name": "self_blend"}},
        {"augment": {"image_size": SIZE, "jpeg_prob": 0.5}},
    ],
)
def test_other_forgeries_and_augmentations_are_refused(settings):
    ctx = _context(**settings)
    with pytest.raises(ValueError, match=r"the recipe 'none', no setting of config\.augment but image_size"):
        sjedd.make_rows(jax.random.key(0), detector.to_device_images(few_steps.noise_batch()), ctx)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two steps with a vocabulary in a folder: (config, state before, state after, scalars, the folder)."""
    folder = clip_vocabulary.write(tmp_path_factory.mktemp("sjedd") / "vocabulary", "Ti/16")
    config = _tiny(str(folder))
    state = jax.jit(lambda: init_state(config))()
    before, step = jax.device_get(state), jax.jit(make_train_step(config))
    for _ in range(2):
        state, scalars = step(state, (_batch(),) * steps.STEPS["bilevel"].batches)
    return config, before, state, jax.device_get(scalars), folder


@pytest.mark.long
def test_two_steps_train_everything_and_the_weights_of_the_levels(trained):
    _, before, state, scalars, _ = trained
    assert all(np.isfinite(value) for value in scalars.values())
    after = trees.flatten(jax.device_get(state.params))
    same = [name for name, value in trees.flatten(before.params).items() if np.array_equal(value, after[name])]
    # Keys have no part in what is attended to; at the first steps their biases need not move.
    assert all(name.endswith("attn/key/bias") or "pos_embed" in name for name in same), same
    weights = {name: value for name, value in after.items() if name.startswith("loss_weights/")}
    assert len(weights) == 3 and all(value != 1.0 for value in weights.values())
    # The ids are no parameter: whole numbers, and what they were.
    ids = state.model_state["detector"]["prompts"]["ids"]
    assert ids.dtype == jnp.int32 and ids[0, 0] == 512
    np.testing.assert_array_equal(ids, before.model_state["detector"]["prompts"]["ids"])


@pytest.mark.long
def test_a_workdir_predicts_and_exports_without_the_vocabulary(trained, tmp_path):
    config, _, state, _, folder = trained
    checkpoint.save_config(tmp_path / "run", config)
    checkpoint.save_best(tmp_path / "run", 2, ema_weights(state), {"val/frame_auc": 50.0})
    away = folder.rename(folder.with_name("away"))
    sjedd._prompt_ids.cache_clear()
    try:
        with pytest.raises(FileNotFoundError, match=r"config\.model\.vocabulary: no tokenizer at .*vocabulary"):
            hooks.resolve(sjedd).players(config)
        assert not np.any(sjedd._ids_or_zeros(str(folder), "ffpp", "Ti/16"))
        loaded = inference.load_for_inference(tmp_path / "run")
        np.testing.assert_array_equal(
            loaded.params["model_state"]["prompts"]["ids"], state.model_state["detector"]["prompts"]["ids"]
        )
        images = _batch()["image"][:3]
        score = np.asarray(loaded.predict_fn(loaded.params, {"image": images})["score"])
        export.export_workdir(tmp_path / "run", tmp_path / "exported")
        artifact = jax.export.deserialize(bytearray((tmp_path / "exported" / "model.stablehlo").read_bytes()))
        np.testing.assert_allclose(artifact.call(images)["score"], score, atol=1e-5)
        # Hugging Face's tower is written too, and what is exported starts another experiment.
        assert (tmp_path / "exported" / "backbone.safetensors").exists()
    finally:
        away.rename(folder)


def test_training_never_starts_without_its_prompts(tmp_path):
    config = experiment.get_config().unlock()
    config.model.vocabulary = str(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.model\.vocabulary: .*hf download"):
        jax.eval_shape(lambda: init_state(config))
    config.model.vocabulary = "bytes"
    with pytest.raises(ValueError, match=r"'bytes' with 514 ids; the text tower of CLIP B/32 has 49408"):
        sjedd.players(config)


def _file(path, form, prefix="", numbers=False):
    """A CLIP of Ti/16's two towers, every tensor random, as others save it; {our flat name: array}."""
    module = clip_text.ClipModel("Ti/16", SIZE)
    images, ids = jnp.zeros((1, SIZE, SIZE, 3)), jnp.zeros((1, 77), jnp.int32)
    flat = trees.flatten({"params": random_params(module, images, ids)["params"]})
    flat = {name: np.asarray(value) for name, value in flat.items()}
    theirs = table.to_theirs(flat, clip_names.FORMATS[form].table("Ti/16", text=True))
    theirs = {prefix + name: value for name, value in theirs.items()}
    if numbers:
        theirs |= {name: np.array(77, np.int32) for name in clip_names.OPENAI_NUMBERS}
    save_file(theirs, path)
    return flat


@pytest.mark.parametrize(
    ("form", "prefix", "numbers"),
    [
        ("hf_clip", "", False),
        # OpenAI's archive, which holds three numbers; SJEDD's checkpoints, with and without DataParallel.
        ("open_clip", "", True),
        ("open_clip", "", False),
        ("open_clip", "module.", False),
    ],
)
def test_both_towers_start_from_one_file_of_clips(tmp_path, form, prefix, numbers):
    flat = _file(tmp_path / "clip.safetensors", form, prefix, numbers)
    config = _tiny().copy_and_resolve_references().unlock()
    config.init = {tree: str(tmp_path / "clip.safetensors") for tree in experiment.get_config().init}
    weights = detector.weight_shapes(config)
    loaded, about = load_initial.load(config, trees.flatten({"params": weights["params"], **weights["model_state"]}))
    assert set(loaded) == set(flat) - {"params/logit_scale"} and set(about) == set(config.init)
    for name, value in loaded.items():
        np.testing.assert_array_equal(value, flat[name], err_msg=name)
    # Everything that is learned comes from the file.
    assert set(loaded) == set(trees.flatten({"params": weights["params"]}))


def test_a_checkpoint_with_openais_names_does_not_tell_its_activation(tmp_path):
    _file(tmp_path / "clip.safetensors", "open_clip")
    config = _tiny().copy_and_resolve_references().unlock()
    config.init = {"text": str(tmp_path / "clip.safetensors")}
    shapes = trees.flatten({"params": detector.weight_shapes(config)["params"]})
    assert config.model.options.quick_gelu and load_initial.load(config, shapes)[0]
    config.model.options = {}
    with pytest.raises(ValueError, match=r"quick_gelu=False.*Set config\.model\.options\.quick_gelu"):
        load_initial.load(config, shapes)


def test_a_file_without_a_text_tower_is_told(tmp_path):
    flat = _file(tmp_path / "clip.safetensors", "hf_clip")
    theirs = table.to_theirs(flat, clip_names.hf_clip("Ti/16", text=False))
    save_file(theirs, tmp_path / "vision.safetensors")
    config = _tiny().copy_and_resolve_references().unlock()
    config.init = {"text": str(tmp_path / "vision.safetensors")}
    shapes = trees.flatten({"params": detector.weight_shapes(config)["params"]})
    with pytest.raises(ValueError, match="does not fit the model"):
        load_initial.load(config, shapes)


@pytest.mark.parametrize(("kind", "nodes"), [("sjedd/ffpp", 10), ("sjedd/ffsc", 12)])
def test_a_published_checkpoint_becomes_a_workdir_that_predicts(tmp_path, monkeypatch, kind, nodes):
    flat = _file(tmp_path / "best.safetensors", "open_clip", "module.")
    monkeypatch.chdir(tmp_path)
    source = f"{tmp_path}/best.safetensors#format={kind}"
    sjedd._prompt_ids.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"config\.model\.vocabulary: no tokenizer at data/clip"):
        command.convert(source, str(tmp_path / "run"))
    clip_vocabulary.write(tmp_path / "data" / "clip", "Ti/16")
    assert f"{kind}, detector (sjedd), clip Ti/16" in command.convert(source, str(tmp_path / "run"))[0]
    loaded = inference.load_for_inference(tmp_path / "run")
    assert loaded.config.model.image_size == SIZE
    found = trees.flatten({"params": loaded.params["params"]})
    assert set(found) == set(flat) - {"params/logit_scale"}
    for name, value in found.items():
        np.testing.assert_array_equal(value, flat[name], err_msg=name)
    ids = np.asarray(loaded.params["model_state"]["prompts"]["ids"])
    assert ids.shape == (nodes, 77) and (ids[:, 0] == 512).all() and ids.dtype == np.int32
    sjedd._prompt_ids.cache_clear()


# What the reference's table says (section 5), and counts: CLIP ViT-B/32's vision tower with its projection
# (transformers: 87,849,216) and Xception's 20,806,952, each with a linear layer of 12.
@pytest.mark.parametrize(
    ("arg", "count", "form", "rate", "weights_rate", "prob", "schedule", "optimizer", "decay"),
    [
        (None, 151_277_312, "fidelity", 6e-7, 1e-3, 0.3, "oscillate", "adamw", 1e-3),
        ("ffsc", 151_277_312, "fidelity", 6e-7, 1e-3, 0.36, "oscillate", "adamw", 1e-3),
        ("so_vit_b32", 87_849_216 + 12 * 513, "cross_entropy", 1e-6, 1e-4, 0.3, "step", "adam_l2", 0.0),
        ("so_xception", 20_806_952 + 12 * 2049, "cross_entropy", 1e-4, 1e-3, 0.3, "step", "adam_l2", 0.0),
    ],
)
def test_variants_have_the_published_settings(arg, count, form, rate, weights_rate, prob, schedule, optimizer, decay):
    config = experiments.load(f"configs/detectors/sjedd.py{':' + arg if arg else ''}")
    train.check_config(config)
    assert trees.count_parameters(detector.weight_shapes(config)["params"]) == count
    ((_, settings),) = config.optim.groups
    assert (settings["lr"], settings["weight_decay"]) == (rate, decay)
    found = (config.loss_args.form, config.step.lr, config.loss_args.perturb.prob, config.optim.schedule)
    assert found == (form, weights_rate, prob, schedule) and config.optim.optimizer == optimizer
    assert (config.step.name, config.step.upper.to_dict()) == ("bilevel", {"level_1": 1.0})
    assert set(config.loss_weights.values()) == {1.0} and config.data.batch_size == 32
    assert config.model.graph == ("ffsc" if arg else "ffpp")
    assert config.augment.to_dict() == {"image_size": 299 if arg == "so_xception" else 224}


def test_a_linear_head_on_both_backbones():
    rows = {"image": jnp.zeros((2, 64, 64, 3))}
    for family, variant in (("clip", "Ti/16"), ("xception", "Mu")):
        module = sjedd.Model(variant, 64, graph="ffsc", head="linear", family=family)
        variables = jax.eval_shape(functools.partial(module.init, train=False), jax.random.key(0), rows)
        assert "prompts" not in variables and "text" not in variables["params"]
        out = jax.eval_shape(functools.partial(module.apply, train=False), variables, rows)
        assert out["logit"].shape == (2,) and out["energy"].shape == (2, 12)
    with pytest.raises(ValueError, match="allowed are 'text' on clip"):
        jax.eval_shape(
            functools.partial(sjedd.Model("Mu", 64, family="xception").init, train=False), jax.random.key(0), rows
        )


def test_a_wrong_argument_names_the_others():
    module = importlib.import_module("configs.detectors.sjedd")
    with pytest.raises(ValueError, match=r"got 'fast'; it also takes ffsc, so_vit_b32, so_xception"):
        module.get_config("fast")
