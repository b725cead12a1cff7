"""From a weight file to the variables an experiment starts from, and to a workdir that predicts."""

import hashlib
import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file
from tiny import tiny_config

from msddf_jax import checkpoint, detector, inference, trees
from msddf_jax.weights import __main__ as command
from msddf_jax.weights import files, identify, load_initial, table
from msddf_jax.weights.names import cnn_names


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


def _config(reference, *, image_size=32, options=None, tree="backbone"):
    model = {"variant": "Mu/8", "image_size": image_size, "options": options or {}}
    return ConfigDict({"init": {tree: str(reference)}, "model": model if tree == "backbone" else {tree: model}})


def _load(reference, *, image_size=32, options=None, tree="backbone", **settings):
    """What a detector that is a backbone alone starts from."""
    shapes = load_initial.backbone_shapes("clip", "Mu/8", image_size, options or {}, tree)
    config = _config(reference, image_size=image_size, options=options, tree=tree)
    return load_initial.load(config, shapes, **settings)[0]


def test_every_tensor_finds_its_place(weight_file):
    path, tensors = weight_file
    loaded = _load(path)
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
    loaded = _load(path, image_size=64)["params/backbone/pos_embed"]
    theirs = tensors["vision_model.embeddings.position_embedding.weight"]
    assert loaded.shape == (65, 64)
    np.testing.assert_array_equal(loaded[0], theirs[0])
    # Interpolation, not repetition: the centre of the finer grid lies between the old values, near their mean.
    fine, coarse = loaded[1:].reshape(8, 8, 64), theirs[1:].reshape(4, 4, 64)
    assert np.corrcoef(fine[::2, ::2].ravel(), coarse.ravel())[0, 1] > 0.8
    assert not np.array_equal(fine[::2, ::2], coarse)


def test_trees_that_the_file_has_nothing_for_stay_out(weight_file, tmp_path):
    path, tensors = weight_file
    config = tiny_config(tmp_path, bare=True).unlock()
    config.init = ConfigDict({"backbone": f"{path}#format=clip/hf_clip"})
    weights = detector.weight_shapes(config)
    shapes = trees.flatten({"params": weights["params"], **weights["model_state"]})
    flat, about = load_initial.load(config, shapes)
    np.testing.assert_array_equal(
        flat["params/backbone/block_0/mlp/fc_1/kernel"], tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].T
    )
    assert {name.split("/")[1] for name in flat} == {"backbone"}
    count = sum(v.size for n, v in tensors.items() if n.startswith("vision_model.") and "position_ids" not in n)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    # Positions of 4 x 4 patches come as 8 x 8.
    count += (64 - 16) * 64
    wanted = {"file": str(path), "sha256": digest, "format": "clip/hf_clip", "parameters": count}
    assert about == {"backbone": wanted}


def test_another_size_than_the_config_says_is_named(tmp_path):
    save_file(_hugging_face(depth=12, width=192, tokens=37, patch=16), tmp_path / "m.safetensors")
    with pytest.raises(
        ValueError, match=r"clip Ti/16 \(clip/hf_clip\).*backbone is clip Mu/8.*--config\.model\.variant=Ti/16$"
    ):
        _load(tmp_path / "m.safetensors")


def test_a_missing_tensor_is_named(weight_file):
    path, tensors = weight_file
    del tensors["vision_model.encoder.layers.3.mlp.fc2.bias"]
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"missing vision_model\.encoder\.layers\.3\.mlp\.fc2\.bias"):
        _load(path)


def test_other_arithmetic_than_the_config_says_is_an_error(weight_file):
    path, _ = weight_file
    # Without a config beside it Hugging Face's names are taken for OpenAI's; with one, it counts.
    (path.parent / "config.json").write_text(
        json.dumps({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}})
    )
    with pytest.raises(ValueError, match=r"was trained with quick_gelu=False.*config\.model\.options\.quick_gelu"):
        _load(path)
    assert _load(path, options={"quick_gelu": False})
    # Pixel statistics are the experiment's to change.
    assert _load(path, options={"quick_gelu": False, "pixel_mean": (0.5, 0.5, 0.5)})


def test_what_is_not_wanted_is_skipped_by_a_regex(weight_file):
    path, tensors = weight_file
    tensors["vision_model.encoder.layers.1.adapter.weight"] = np.ones(3, np.float32)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"unexpected vision_model\.encoder\.layers\.1\.adapter\.weight"):
        _load(path)
    assert _load(f"{path}#skip=.*\\.adapter\\..*")


def test_a_file_of_nothing_known_lists_the_formats(tmp_path):
    save_file({"vision_model.something.weight": np.zeros(3, np.float32)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"is not recognised: 1 tensors.*clip/open_clip.*xception/deepfakebench"):
        _load(tmp_path / "m.safetensors")


def test_first_layer_equals_a_numpy_computation(weight_file):
    path, tensors = weight_file
    kernel = _load(path)["params/backbone/patch_embed"]
    image = np.random.default_rng(1).random((8, 8, 3)).astype(np.float32)
    theirs = np.einsum("oihw,hwi->o", tensors["vision_model.embeddings.patch_embedding.weight"], image)
    np.testing.assert_allclose(image.reshape(-1) @ kernel.reshape(-1, 64), theirs, rtol=1e-4, atol=1e-4)


def test_a_backbone_is_written_under_our_names_and_starts_an_experiment(weight_file, tmp_path):
    path, _ = weight_file
    said = command.convert(str(path), str(tmp_path / "own.safetensors"))
    assert "clip/hf_clip, backbone, clip Mu/8" in said[0]
    own = load_file(tmp_path / "own.safetensors")
    assert identify.is_own(own)
    again = _load(tmp_path / "own.safetensors")
    for name, value in _load(path).items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)
    with pytest.raises(FileExistsError, match="is there already"):
        command.convert(str(path), str(tmp_path / "own.safetensors"))
    with pytest.raises(ValueError, match=r"a backbone without a classifier: name a \.safetensors file"):
        command.convert(str(path), str(tmp_path / "workdir"))


def _meso_file(path):
    """DeepfakeBench's Meso4, drawn: the tensors that its table names, in the shapes that it asks for."""
    source = cnn_names.SOURCES["meso/deepfakebench"]
    entries = source.table("meso4")
    config = command.detector_config(
        identify.Found("meso/deepfakebench", "meso", "meso4", dict(source.fields), None, entries, (), "baseline")
    )
    shapes = detector.weight_shapes(config)
    rng = np.random.default_rng(0)
    flat = {
        name: np.abs(rng.normal(size=leaf.shape)).astype(np.float32)
        for name, leaf in trees.flatten({"params": shapes["params"], **shapes["model_state"]}).items()
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
    # Its weights are those beside it, and nothing else is loaded or drawn.
    assert model.config.init.to_dict() == {}
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
        _load(path)


def test_a_backbone_for_another_resolution_is_described_and_written(tmp_path):
    from msddf_jax.weights.names import pe_names

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


def test_another_tree_than_the_backbone_has_its_own_settings(weight_file):
    path, _ = weight_file
    backbone, student = _load(path), _load(path, tree="student")
    assert set(student) == {name.replace("/backbone/", "/student/") for name in backbone}
    np.testing.assert_array_equal(student["params/student/pos_embed"], backbone["params/backbone/pos_embed"])
    assert _load(path, tree="student", image_size=64)["params/student/pos_embed"].shape == (65, 64)
    config = _config(path, tree="student")
    config.model.student.variant = "Ti/16"
    shapes = load_initial.backbone_shapes("clip", "Mu/8", 32, {}, "student")
    with pytest.raises(ValueError, match=r"--config\.model\.student\.variant=Mu/8"):
        load_initial.load(config, shapes)


def test_random_is_a_word_and_every_tree_is_one_of_the_detectors(weight_file):
    path, _ = weight_file
    shapes = load_initial.backbone_shapes("clip", "Mu/8", 32, {})
    assert load_initial.load(_config("random"), shapes) == ({}, {"backbone": {"file": "random"}})
    with pytest.raises(ValueError, match=r"config\.init\.backbone: '' names no weights.*say the word random"):
        load_initial.load(_config(""), shapes)
    config = _config(path)
    config.init.teacher = str(path)
    with pytest.raises(ValueError, match=r"config\.init names 'teacher'; this experiment has backbone"):
        load_initial.load(config, shapes)
    assert set(load_initial.load(config, shapes, elsewhere=("teacher",))[1]) == {"backbone"}


def test_a_digest_is_compared_before_anything_is_read(weight_file):
    path, _ = weight_file
    assert _load(f"{path}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()[:8]}")
    with pytest.raises(ValueError, match=r"has sha-256 \w{64}; .* is to have 01234567"):
        _load(f"{path}#sha256=01234567")


def test_every_missing_file_is_named(weight_file, tmp_path):
    path, _ = weight_file
    init = ConfigDict({"backbone": str(path), "student": "random"})
    assert load_initial.locate_all(init) == {"backbone": path}
    init.update({"teacher": f"{tmp_path}/gone.npz", "quality": f"{tmp_path}/lost.npz"})
    with pytest.raises(FileNotFoundError, match=r"(?s)init\.quality: .*lost\.npz.*init\.teacher: .*gone\.npz"):
        load_initial.locate_all(init)
    with pytest.raises(ValueError, match=r"config\.init\.backbone: '' names no weights"):
        load_initial.locate_all({"backbone": ""})


def test_a_file_of_three_channels_fits_no_other_number(weight_file):
    path, _ = weight_file
    with pytest.raises(ValueError, match=r"would have \(8, 8, 3, 64\).*\(in_channels 4 and not 3: the detector"):
        _load(path, options={"in_channels": 4})

    def adapt(flat):
        kernel = flat["params/backbone/patch_embed"]
        return {**flat, "params/backbone/patch_embed": np.concatenate([kernel, kernel[:, :, :1]], axis=2)}

    kernel = _load(path, options={"in_channels": 4}, adapt=adapt)["params/backbone/patch_embed"]
    assert kernel.shape == (8, 8, 4, 64)
    np.testing.assert_array_equal(kernel[:, :, 3], kernel[:, :, 0])
    with pytest.raises(ValueError, match=r"patch_embed has shape \(8, 8, 3, 64\), the model \(8, 8, 4, 64\)"):
        _load(path, options={"in_channels": 4}, adapt=lambda flat: flat)


def _saved_by_training(folder):
    """A workdir's weights: a linear layer and BatchNorm's statistics below their collection."""
    weights = {
        "params": {"backbone": {"out": {"kernel": np.arange(6, dtype=np.float32).reshape(3, 2)}}},
        "model_state": {"batch_stats": {"backbone": {"norm": {"mean": np.ones(2, np.float32)}}}},
    }
    checkpoint.save_best(folder, 7, weights, {"val/video_auc": 0.5})
    return trees.flatten({"params": weights["params"], **weights["model_state"]})


def test_a_frozen_network_is_a_workdirs_weights_and_fits_to_the_name(tmp_path):
    flat = _saved_by_training(tmp_path / "run")
    got, about = load_initial.load_whole(str(tmp_path / "run"), flat, "teacher")
    assert set(got) == set(flat)
    for name, value in flat.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    digest = hashlib.sha256((tmp_path / "run/best/weights.safetensors").read_bytes()).hexdigest()
    assert about == {"file": str(tmp_path / "run"), "sha256": digest, "format": "msddf_jax", "parameters": 6}
    wrong = {**flat, "params/backbone/out/kernel": np.zeros((3, 3)), "params/head/bias": np.zeros(2)}
    del wrong["batch_stats/backbone/norm/mean"]
    with pytest.raises(ValueError) as error:
        load_initial.load_whole(str(tmp_path / "run"), wrong, "teacher")
    for said in ("teacher: ", "would have (3, 2); the model has (3, 3)", "norm/mean", "gives params/head/bias"):
        assert said in str(error.value)
    # What the network has not, and is known to be there.
    part = {name: value for name, value in flat.items() if name.startswith("params/")}
    got, _ = load_initial.load_whole(f"{tmp_path}/run#skip=model_state/.*", part, "teacher")
    assert set(got) == set(part)
    with pytest.raises(ValueError, match=r"teacher: .* a frozen one needs a file"):
        load_initial.load_whole("random", flat, "teacher")


def test_a_nan_in_weights_of_our_own_is_named(tmp_path):
    flat = _saved_by_training(tmp_path / "run")
    arrays = load_file(tmp_path / "run/best/weights.safetensors")
    arrays["params/backbone/out/kernel"][1, 1] = np.nan
    save_file(arrays, tmp_path / "own.safetensors")
    with pytest.raises(ValueError, match=r"own\.safetensors holds .* NaN .*: params/backbone/out/kernel \(1 of 6\)"):
        load_initial.load(_config(tmp_path / "own.safetensors"), flat)
    with pytest.raises(ValueError, match=r"params/backbone/out/kernel \(1 of 6\)"):
        load_initial.load_whole(str(tmp_path / "own.safetensors"), flat, "teacher")


def test_a_frozen_network_from_a_published_file(weight_file, tmp_path):
    path, _ = weight_file
    shapes = load_initial.backbone_shapes("clip", "Mu/8", 32, {})
    got, about = load_initial.load_whole(str(path), shapes, "teacher")
    assert set(got) == set(shapes) and about["format"] == "clip/hf_clip"
    # A head that no file gives would stay random.
    with pytest.raises(ValueError, match="nothing in the file gives params/head/kernel"):
        load_initial.load_whole(str(path), {**shapes, "params/head/kernel": np.zeros((64, 2))}, "teacher")
    # A published detector gives its head as well.
    flat = _meso_file(tmp_path / "meso4_best.safetensors")
    got, _ = load_initial.load_whole(str(tmp_path / "meso4_best.safetensors"), flat, "teacher")
    assert set(got) == set(flat) and "params/binary_head/out/kernel" in got


def test_weights_of_a_run_start_another(tmp_path):
    flat = _saved_by_training(tmp_path / "run")
    head = {"params/binary_head/out/bias": np.zeros(2, np.float32)}
    # As the detector keeps them already, so nothing is adapted a second time.
    fail = lambda _: pytest.fail("adapted twice")
    got, _ = load_initial.load(_config(tmp_path / "run"), {**flat, **head}, adapt=fail)
    assert set(got) == set(flat)
    student = {name.replace("backbone", "student"): value for name, value in flat.items()}
    got, _ = load_initial.load(_config(tmp_path / "run", tree="student"), student)
    assert set(got) == set(student)
