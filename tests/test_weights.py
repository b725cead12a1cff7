"""From a weight file to the variables an experiment starts from, and to a workdir that predicts."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file
from tiny import tiny_config

from msddf_jax import inference, train, train_step, trees
from msddf_jax.weights import __main__ as command
from msddf_jax.weights import files, identify, load_initial


def _hugging_face(depth, width, tokens, patch):
    """Random tensors with the names and shapes of a Hugging Face CLIPVisionModel."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    out = {
        "embeddings.class_embedding": draw(width),
        "embeddings.patch_embedding.weight": draw(width, 3, patch, patch),
        "embeddings.position_embedding.weight": draw(tokens, width),
        "embeddings.position_ids": np.arange(tokens)[None],
    }
    for norm in ("pre_layrnorm", "post_layernorm"):
        out |= {f"{norm}.weight": draw(width), f"{norm}.bias": draw(width)}
    for i in range(depth):
        at = f"encoder.layers.{i}."
        for norm in ("layer_norm1", "layer_norm2"):
            out |= {f"{at}{norm}.weight": draw(width), f"{at}{norm}.bias": draw(width)}
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            out |= {f"{at}self_attn.{name}.weight": draw(width, width), f"{at}self_attn.{name}.bias": draw(width)}
        out |= {f"{at}mlp.fc1.weight": draw(4 * width, width), f"{at}mlp.fc1.bias": draw(4 * width)}
        out |= {f"{at}mlp.fc2.weight": draw(width, 4 * width), f"{at}mlp.fc2.bias": draw(width)}
    return {f"vision_model.{name}": value for name, value in out.items()}


@pytest.fixture
def weight_file(tmp_path):
    """A whole CLIPModel's file as far as the vision tower goes: patch 8, 32 px, and something of the text tower."""
    tensors = _hugging_face(depth=4, width=64, tokens=17, patch=8)
    tensors["text_model.final_layer_norm.weight"] = np.ones(8, np.float32)
    tensors["logit_scale"] = np.ones((), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors", tensors


def _config(path, *, image_size=32, options=None, **init):
    model = {"variant": "Mu/8", "image_size": image_size, "options": options or {}}
    return ConfigDict({"init": {"path": str(path), **init}, "model": model})


def test_every_tensor_finds_its_place(weight_file):
    path, tensors = weight_file
    loaded = load_initial.load(_config(path))
    expected = load_initial.backbone_shapes("clip", "Mu/8", 32, {})
    assert {n: v.shape for n, v in loaded.items()} == {n: v.shape for n, v in expected.items()}
    query = tensors["vision_model.encoder.layers.2.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(loaded["params/backbone/block_2/attn/query/kernel"], query.T)
    np.testing.assert_array_equal(
        loaded["params/backbone/block_3/ln_2/scale"], tensors["vision_model.encoder.layers.3.layer_norm2.weight"]
    )
    patch = tensors["vision_model.embeddings.patch_embedding.weight"]
    assert loaded["params/backbone/patch_embed"][1, 2, 0, 5] == patch[5, 0, 1, 2]


def test_position_embeddings_are_resampled_to_the_grid_of_the_model(weight_file):
    path, tensors = weight_file
    loaded = load_initial.load(_config(path, image_size=64))["params/backbone/pos_embed"]
    theirs = tensors["vision_model.embeddings.position_embedding.weight"]
    assert loaded.shape == (65, 64)
    np.testing.assert_array_equal(loaded[0], theirs[0])
    # Interpolation, not repetition: the centre of the finer grid lies between the old values, near their mean.
    fine, coarse = loaded[1:].reshape(8, 8, 64), theirs[1:].reshape(4, 4, 64)
    assert np.corrcoef(fine[::2, ::2].ravel(), coarse.ravel())[0, 1] > 0.8
    assert not np.array_equal(fine[::2, ::2], coarse)


@pytest.mark.long
def test_what_is_loaded_is_what_the_state_starts_from(weight_file, toy_data):
    path, tensors = weight_file
    config = tiny_config(toy_data[1], bare=True).unlock()
    config.init.path = str(path)
    config.lock()
    shapes = jax.eval_shape(lambda: train_step.init_state(config))
    state = train_step.init_state(config, initial=train.load_weights(config, shapes))
    np.testing.assert_array_equal(
        state.params["detector"]["backbone"]["block_0"]["mlp"]["fc_1"]["kernel"],
        tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].T,
    )
    drawn = train_step.init_state(config)
    np.testing.assert_array_equal(
        state.params["detector"]["binary_head"]["out"]["kernel"],
        drawn.params["detector"]["binary_head"]["out"]["kernel"],
    )


def test_another_size_than_the_config_says_is_named(tmp_path):
    save_file(_hugging_face(depth=12, width=192, tokens=37, patch=16), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"is clip Ti/16 \(clip/hf_clip\); the config's backbone is clip Mu/8"):
        load_initial.load(_config(tmp_path / "m.safetensors"))


def test_a_missing_tensor_is_named(weight_file):
    path, tensors = weight_file
    del tensors["vision_model.encoder.layers.3.mlp.fc2.bias"]
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"missing vision_model\.encoder\.layers\.3\.mlp\.fc2\.bias"):
        load_initial.load(_config(path))


def test_other_arithmetic_than_the_config_says_is_an_error(weight_file):
    path, _ = weight_file
    # Without a config beside it Hugging Face's names are taken for OpenAI's; with one, it counts.
    (path.parent / "config.json").write_text(
        json.dumps({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}})
    )
    with pytest.raises(ValueError, match=r"was trained with quick_gelu=False.*config\.model\.options\.quick_gelu"):
        load_initial.load(_config(path))
    assert load_initial.load(_config(path, options={"quick_gelu": False}))
    # Pixel statistics are the experiment's to change.
    assert load_initial.load(_config(path, options={"quick_gelu": False, "pixel_mean": (0.5, 0.5, 0.5)}))


def test_what_is_not_wanted_is_skipped_by_a_regex(weight_file):
    path, tensors = weight_file
    tensors["vision_model.encoder.layers.1.adapter.weight"] = np.ones(3, np.float32)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"unexpected vision_model\.encoder\.layers\.1\.adapter\.weight"):
        load_initial.load(_config(path))
    assert load_initial.load(_config(path, skip=(r".*\.adapter\..*",)))


def test_a_file_of_nothing_known_lists_the_formats(tmp_path):
    save_file({"vision_model.something.weight": np.zeros(3, np.float32)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"is not recognised: 1 tensors.*clip/open_clip.*xception/deepfakebench"):
        load_initial.load(_config(tmp_path / "m.safetensors"))


def test_first_layer_equals_a_numpy_computation(weight_file):
    path, tensors = weight_file
    kernel = load_initial.load(_config(path))["params/backbone/patch_embed"]
    image = np.random.default_rng(1).random((8, 8, 3)).astype(np.float32)
    theirs = np.einsum("oihw,hwi->o", tensors["vision_model.embeddings.patch_embedding.weight"], image)
    np.testing.assert_allclose(image.reshape(-1) @ kernel.reshape(-1, 64), theirs, rtol=1e-4, atol=1e-4)


def test_a_backbone_is_written_under_our_names_and_starts_an_experiment(weight_file, tmp_path):
    path, _ = weight_file
    said = command.convert(str(path), str(tmp_path / "own.safetensors"))
    assert "clip/hf_clip, backbone, clip Mu/8" in said[0]
    own = load_file(tmp_path / "own.safetensors")
    assert identify.is_own(own)
    again = load_initial.load(_config(tmp_path / "own.safetensors"))
    for name, value in load_initial.load(_config(path)).items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    with pytest.raises(FileExistsError, match="is there already"):
        command.convert(str(path), str(tmp_path / "own.safetensors"))
    with pytest.raises(ValueError, match=r"a backbone without a classifier: name a \.safetensors file"):
        command.convert(str(path), str(tmp_path / "workdir"))


def _meso_file(path):
    """DeepfakeBench's Meso4, drawn: the tensors that its table names, in the shapes that it asks for."""
    from msddf_jax.weights import cnn_names, table

    source = cnn_names.SOURCES["meso/deepfakebench"]
    entries = source.table("meso4")
    config = command.detector_config(
        identify.Found("meso/deepfakebench", "meso", "meso4", dict(source.fields), None, entries, (), "baseline")
    )
    shapes = jax.eval_shape(lambda: train_step.init_state(config))
    rng = np.random.default_rng(0)
    flat = {
        name: np.abs(rng.normal(size=leaf.shape)).astype(np.float32)
        for name, leaf in trees.flatten({"params": shapes.params["detector"], **shapes.model_state}).items()
    }
    save_file(table.to_theirs(flat, entries), path)
    return flat


def test_a_published_detector_becomes_a_workdir_that_predicts(tmp_path):
    flat = _meso_file(tmp_path / "meso4_best.safetensors")
    said = command.convert(str(tmp_path / "meso4_best.safetensors"), str(tmp_path / "workdir"))
    assert "meso/deepfakebench, detector (baseline), meso meso4" in said[0]
    model = inference.load_for_inference(tmp_path / "workdir")
    got = trees.flatten({"params": model.params["params"], **model.params["model_state"]})
    assert set(got) == set(flat)
    for name, value in flat.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    score = model.predict_fn(model.params, {"image": jnp.zeros((2, 256, 256, 3), jnp.uint8)})["score"]
    assert score.shape == (2,) and np.isfinite(score).all()
    assert (
        model.config.model.options.pixel_mean == [0.5, 0.5, 0.5] or model.config.model.options.pixel_mean == (0.5,) * 3
    )


def test_the_command_says_what_a_file_is_and_what_is_wrong(weight_file, tmp_path):
    path, _ = weight_file
    run = lambda *args: subprocess.run(
        [sys.executable, "-m", "msddf_jax.weights", *args], capture_output=True, text=True, timeout=300
    )
    good = run(str(path))
    assert good.returncode == 0 and "sha-256" in good.stdout and "clip/hf_clip" in good.stdout
    (tmp_path / "bad.pth").write_bytes(b"this is text")
    bad = run(str(tmp_path / "bad.pth"))
    assert bad.returncode == 1 and bad.stderr.strip().startswith("error: ") and "Traceback" not in bad.stderr


def test_headers_are_checked_before_numbers_are_read(weight_file, monkeypatch):
    path, tensors = weight_file
    tensors["vision_model.post_layernorm.weight"] = np.ones(65, np.float32)
    save_file(tensors, path)
    opened = files.open_tensors(path)
    fail = lambda: pytest.fail("a tensor was read")
    monkeypatch.setattr(files, "open_tensors", lambda _: {n: t._replace(read=fail) for n, t in opened.items()})
    with pytest.raises(ValueError, match=r"post_layernorm\.weight has shape \(65,\)"):
        load_initial.load(_config(path))


def test_a_backbone_for_another_resolution_is_described_and_written(tmp_path):
    from msddf_jax.weights import pe_names, table

    # timm's PE towers are for 336 or 384 px; ours are written at 224.
    shapes = load_initial.backbone_shapes("pe", "T/16", 384, {})
    flat = {name: np.full(leaf.shape, 0.5, np.float32) for name, leaf in shapes.items()}
    save_file(table.to_theirs(flat, pe_names.timm_pe("T/16")), tmp_path / "pe.safetensors")
    assert "pe/timm, backbone, pe T/16, 6,042,240 numbers" in command.convert(str(tmp_path / "pe.safetensors"))[0]
    command.convert(str(tmp_path / "pe.safetensors"), str(tmp_path / "own.safetensors"))
    assert load_file(tmp_path / "own.safetensors")["params/backbone/pos_embed"].shape == (14 * 14 + 1, 192)


def test_deepfakebench_clip_becomes_a_workdir(tmp_path):
    tensors = {
        name.replace("vision_model.", "backbone."): value
        for name, value in _hugging_face(depth=4, width=64, tokens=17, patch=8).items()
    }
    tensors |= {"head.weight": np.full((2, 64), 0.25, np.float32), "head.bias": np.ones(2, np.float32)}
    save_file(tensors, tmp_path / "clip_best.safetensors")
    assert "clip/deepfakebench, detector (baseline)" in command.convert(str(tmp_path / "clip_best.safetensors"))[0]
    command.convert(str(tmp_path / "clip_best.safetensors"), str(tmp_path / "workdir"))
    model = inference.load_for_inference(tmp_path / "workdir")
    params = model.params["params"]
    assert params["binary_head"]["out"]["kernel"].shape == (64, 2)
    np.testing.assert_array_equal(
        params["backbone"]["block_1"]["mlp"]["fc_2"]["kernel"], tensors["backbone.encoder.layers.1.mlp.fc2.weight"].T
    )
    # The public code normalises with 0.5, whatever the weights were pretrained with.
    assert tuple(model.config.model.options.pixel_std) == (0.5, 0.5, 0.5)
