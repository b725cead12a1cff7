import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors import safe_open
from safetensors.numpy import save_file

from msddf_jax import trees
from msddf_jax.models import clip
from msddf_jax.weights import hf_clip, load_initial


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
    tensors = _hugging_face(depth=4, width=64, tokens=17, patch=8)
    tensors["text_model.final_layer_norm.weight"] = np.ones(8, np.float32)
    tensors["logit_scale"] = np.ones((), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors", tensors


def _shapes():
    model = clip.VisionTransformer("Mu/8", 32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    return {"backbone": variables["params"]}


def test_every_tensor_finds_its_place(weight_file):
    path, tensors = weight_file
    config = ConfigDict({"init": {"path": str(path)}})
    loaded = load_initial.load(config, _shapes())["backbone"]
    trees.check_same_structure(_shapes()["backbone"], loaded, "the loaded weights")
    query = tensors["vision_model.encoder.layers.2.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(loaded["block_2"]["attn"]["query"]["kernel"], query.T)
    np.testing.assert_array_equal(
        loaded["block_3"]["ln_2"]["scale"], tensors["vision_model.encoder.layers.3.layer_norm2.weight"]
    )
    patch = tensors["vision_model.embeddings.patch_embedding.weight"]
    assert loaded["patch_embed"][1, 2, 0, 5] == patch[5, 0, 1, 2]


def test_first_layer_equals_a_numpy_computation(weight_file):
    path, tensors = weight_file
    flat = hf_clip.load(path)
    image = np.random.default_rng(1).random((8, 8, 3)).astype(np.float32)
    ours = image.reshape(-1) @ flat["patch_embed"].reshape(-1, 64)
    theirs = np.einsum("oihw,hwi->o", tensors["vision_model.embeddings.patch_embedding.weight"], image)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_file_of_another_size_names_what_differs(tmp_path):
    save_file(_hugging_face(depth=3, width=64, tokens=17, patch=8), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"missing backbone/block_3/.*"):
        load_initial.load(ConfigDict({"init": {"path": str(tmp_path / "m.safetensors")}}), _shapes())


def test_a_foreign_tensor_is_named(tmp_path):
    save_file({"vision_model.something.weight": np.zeros(3, np.float32)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"something\.weight"):
        hf_clip.load(tmp_path / "m.safetensors")


def test_what_is_no_safetensors_file_says_so(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"this is text")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        hf_clip.load(tmp_path / "m.safetensors")


def test_a_missing_file_says_where_and_how(tmp_path, monkeypatch):
    monkeypatch.setenv("MSDDF_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="hf download openai/clip-vit-large-patch14") as error:
        load_initial.locate("weights/openai/clip-vit-large-patch14/model.safetensors")
    assert str(tmp_path / "openai" / "clip-vit-large-patch14") in str(error.value)


def test_the_environment_names_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MSDDF_WEIGHTS", str(tmp_path))
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "model.safetensors").write_bytes(b"")
    assert load_initial.locate("weights/openai/model.safetensors") == tmp_path / "openai" / "model.safetensors"


def test_what_is_saved_is_what_hugging_face_has(weight_file, tmp_path):
    path, tensors = weight_file
    hf_clip.save(tmp_path / "again.safetensors", hf_clip.load(path))
    with safe_open(tmp_path / "again.safetensors", framework="numpy") as file:
        written = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open has no iterator)
    expected = {n: t for n, t in tensors.items() if n.startswith("vision_model.") and not n.endswith("position_ids")}
    assert set(written) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)
    with pytest.raises(ValueError, match="'head/kernel'"):
        hf_clip.save(tmp_path / "other.safetensors", {"head/kernel": np.zeros((2, 2))})
