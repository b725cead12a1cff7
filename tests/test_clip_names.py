"""CLIP and plain ViTs of transformers, open_clip, timm, Flax and Scenic beside ours, with the same parameters."""

import functools
import importlib.util

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax_vit import FlaxViT

from msddf_jax.models import clip
from msddf_jax.models.clip_text import ClipModel
from msddf_jax.weights import positions
from msddf_jax.weights.names import clip_names
from msddf_jax.weights.table import Tensor, check, to_ours, to_theirs

TOLERANCE = 1e-4
# The tests' small size: Mu/8 at 24 px, a grid of 3; the text tower's widths are in `clip_text.TEXT_VARIANTS`.
SIZE = 24
IDS = np.zeros((3, 77), np.int32)
IDS[0, :5], IDS[1, :2], IDS[2, :77] = [97, 3, 14, 15, 98], [97, 98], [97, *range(1, 76), 98]


@pytest.fixture(scope="module")
def torch():
    module = pytest.importorskip("torch", reason="parity needs the [torch] extra")
    import torch_reference

    torch_reference.prepare()
    return module


def _images(size=SIZE, count=2):
    return np.random.default_rng(0).uniform(size=(count, size, size, 3)).astype(np.float32)


def _normalised(images, fields):
    """Images as the reference wants them."""
    return (images - np.float32(fields["pixel_mean"])) / np.float32(fields["pixel_std"])


def _randomise(torch, model):
    """Random values for everything, also what starts as zeros or ones, so that all of it matters."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("logit_scale"):
                parameter.fill_(1.5)
            elif parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif parameter.std() == 0:
                parameter.normal_(std=0.05)
    return model.eval()


def _state(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def _tensors(state):
    return {
        name: Tensor(value.shape, value.dtype, functools.partial(np.asarray, value)) for name, value in state.items()
    }


def _difference(ours, theirs):
    assert ours.shape == theirs.shape
    return np.abs(np.float64(ours) - theirs).max() / np.abs(theirs).max()


@functools.cache
def _ours(text, fields):
    """(shapes of our variables by flat name, compiled forward) of a model; traced once for all that share it."""
    fields = dict(fields)
    size = fields["image_size"]
    images, ids = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32), jax.ShapeDtypeStruct((1, 77), jnp.int32)
    if text:
        model = ClipModel(**fields)
        shapes = jax.eval_shape(model.init, jax.random.key(0), images, ids)
    else:
        model = clip.VisionTransformer(**fields)
        shapes = {"params": {"backbone": jax.eval_shape(model.init, jax.random.key(0), images)["params"]}}
    return flax.traverse_util.flatten_dict(shapes, sep="/"), jax.jit(model.apply)


def _read(state, found, text):
    """({our flat name: array}, our outputs' function of images and ids), through check, there and back again."""
    expected, apply = _ours(text, tuple(clip_names.model_fields(found).items()))
    table, skip = clip_names.table_of(found, text=text)
    check(_tensors(state), table, expected, "the reference", skip)
    flat = to_ours(_tensors(state), table)
    for name, value in to_theirs(flat, table).items():
        assert value.shape == state[name].shape
        np.testing.assert_array_equal(value, state[name].astype(np.float32), err_msg=name)
    params = flax.traverse_util.unflatten_dict(flat, sep="/")["params"]
    params = params if text else params["backbone"]
    return flat, functools.partial(apply, {"params": params})


def _check_joint(state, reference, config=None, ids=IDS, **expected):
    """A file with both towers against `reference(normalised images, ids)`: three arrays by our names."""
    shapes = {name: value.shape for name, value in state.items()}
    found = clip_names.recognise(shapes, config)
    assert found is not None and {key: found[key] for key in expected} == expected
    flat, apply = _read(state, found, text=True)
    images = _images(found["image_size"])
    ours, theirs = apply(images, ids), reference(_normalised(images, found), ids)
    assert set(ours) == set(theirs)
    differences = {name: _difference(ours[name], theirs[name]) for name in theirs}
    assert max(differences.values()) <= TOLERANCE, differences
    print(found["format"], found["variant"], differences)
    # The vision tower of the same file, on its own.
    tower, _ = clip_names.table_of(found)
    alone = to_ours(_tensors(state), tower)
    assert set(alone) == {name for name in flat if name.startswith("params/backbone/")}
    for name, value in alone.items():
        np.testing.assert_array_equal(value, flat[name])


def _check_tower(state, reference, config=None, **expected):
    """A vision tower against `reference(normalised images)`: its feature."""
    found = clip_names.recognise({name: value.shape for name, value in state.items()}, config)
    assert found is not None and {key: found[key] for key in expected} == expected
    assert not found["text"]
    _, apply = _read(state, found, text=False)
    images = _images(found["image_size"])
    difference = _difference(apply(images)["feature"], reference(_normalised(images, found)))
    assert difference <= TOLERANCE
    print(found["format"], found["variant"], difference)


def _nchw(torch, images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _hf_config(variant="Mu/8", image_size=SIZE, activation="quick_gelu"):
    from transformers import CLIPConfig

    from msddf_jax.models.clip_text import get_text_variant

    size, text = clip.get_variant(variant), get_text_variant(variant)
    shared = {"hidden_act": activation, "projection_dim": text.embed}
    return CLIPConfig(
        projection_dim=text.embed,
        vision_config=shared
        | {
            "hidden_size": size.width, "intermediate_size": 4 * size.width, "num_hidden_layers": size.depth,
            "num_attention_heads": size.heads, "image_size": image_size, "patch_size": size.patch,
        },
        text_config=shared
        | {
            "hidden_size": text.width, "intermediate_size": 4 * text.width, "num_hidden_layers": text.depth,
            "num_attention_heads": text.heads, "vocab_size": text.vocabulary, "bos_token_id": text.vocabulary - 2,
            "eos_token_id": text.vocabulary - 1,
        },
    )  # fmt: skip


def _hf_reference(torch, model):
    def run(images, ids):
        with torch.no_grad():
            out = model(pixel_values=_nchw(torch, images), input_ids=torch.from_numpy(ids).long())
        names = ("image_embeds", "text_embeds", "logits_per_image")
        return {name: getattr(out, name).numpy() for name in names}

    return run


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_hugging_face_clip_model(torch, activation):
    from transformers import CLIPModel

    config = _hf_config(activation=activation)
    model = _randomise(torch, CLIPModel(config))
    _check_joint(
        _state(model), _hf_reference(torch, model), config.to_dict(), format="hf_clip", variant="Mu/8",
        image_size=SIZE, text=True, quick_gelu=activation == "quick_gelu", assumed=("pixel_mean", "pixel_std"),
    )  # fmt: skip


def test_hugging_face_vision_towers(torch):
    from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

    config = _hf_config().vision_config

    def reference(images):
        with torch.no_grad():
            return tower(_nchw(torch, images)).pooler_output.numpy()

    projected = _randomise(torch, CLIPVisionModelWithProjection(config))
    tower = projected.vision_model
    _check_tower(_state(projected), reference, config.to_dict(), format="hf_clip", quick_gelu=True)
    tower = _randomise(torch, CLIPVisionModel(config))
    bare = {name.removeprefix("vision_model."): value for name, value in _state(tower).items()}
    _check_tower(bare, reference, config.to_dict(), format="hf_clip_tower", quick_gelu=True)


def _open_clip(torch, kind="CLIP", quick_gelu=False):
    import open_clip

    vision = {"image_size": SIZE, "layers": 4, "width": 64, "head_width": 32, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 99, "width": 48, "heads": 3, "layers": 2}
    return _randomise(torch, getattr(open_clip, kind)(32, vision, text, quick_gelu=quick_gelu))


def _open_clip_reference(torch, model):
    def run(images, ids):
        with torch.no_grad():
            image = model.encode_image(_nchw(torch, images), normalize=True)
            text = model.encode_text(torch.from_numpy(ids).long(), normalize=True)
            logits = model.logit_scale.exp() * image @ text.T
        return {"image_embeds": image.numpy(), "text_embeds": text.numpy(), "logits_per_image": logits.numpy()}

    return run


@pytest.mark.parametrize(("kind", "name"), [("CLIP", "open_clip"), ("CustomTextCLIP", "open_clip_custom_text")])
def test_open_clip(torch, kind, name):
    model = _open_clip(torch, kind)
    _check_joint(
        {f"module.{key}": value for key, value in _state(model).items()}, _open_clip_reference(torch, model),
        format=name, prefix="module.", variant="Mu/8", text=True, quick_gelu=False,
        assumed=("quick_gelu", "pixel_mean", "pixel_std"),
    )  # fmt: skip


def test_openai(torch):
    model = _open_clip(torch, quick_gelu=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())
    state = {name: value.astype(np.float16) for name, value in _state(model).items()}
    numbers = {"input_resolution": SIZE, "context_length": 77, "vocab_size": 99}
    state |= {name: np.array(value) for name, value in numbers.items()}
    _check_joint(
        state, _open_clip_reference(torch, model), format="open_clip", quick_gelu=True, image_size=SIZE, assumed=()
    )


def _timm_reference(torch, model):
    def run(images):
        with torch.no_grad():
            return model.forward_head(model.forward_features(_nchw(torch, images)), pre_logits=True).numpy()

    return run


@pytest.mark.parametrize("class_position", [True, False])
def test_timm_vit(torch, class_position):
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=SIZE, patch_size=8, embed_dim=64, depth=4, num_heads=2, num_classes=2,
        no_embed_class=not class_position,
    )  # fmt: skip
    model = _randomise(torch, model)
    config = {"architecture": "vit_x", "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}
    _check_tower(
        _state(model), _timm_reference(torch, model), config, format="timm_vit", variant="Mu/8", norm_eps=1e-6,
        image_size=SIZE, class_position=class_position, pixel_mean=(0.485, 0.456, 0.406), assumed=(),
    )  # fmt: skip


def test_timm_clip(torch):
    from timm.layers import QuickGELU
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=SIZE, patch_size=8, embed_dim=64, depth=4, num_heads=2, num_classes=32, pre_norm=True,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-5), act_layer=QuickGELU,
    )  # fmt: skip
    model = _randomise(torch, model)
    config = {"architecture": "vit_base_patch16_clip_quickgelu_224", "pretrained_cfg": {"mean": [0.4] * 3}}
    _check_tower(
        _state(model), _timm_reference(torch, model), config, format="timm_clip", quick_gelu=True,
        assumed=("pixel_std",), pixel_mean=(0.4,) * 3,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["augreg", "big_vision"])
def test_vits_trained_in_flax(name):
    model = FlaxViT(old=name == "augreg")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))["params"]
    rng = np.random.default_rng(0)
    state = {
        key: np.float32(key.endswith("scale") + 0.1 * rng.normal(size=leaf.shape))
        for key, leaf in flax.traverse_util.flatten_dict(shapes, sep="/").items()
    }
    params = flax.traverse_util.unflatten_dict(state, sep="/")
    _check_tower(
        {f"params/{key}": value for key, value in state.items()},
        lambda images: np.asarray(jax.jit(model.apply)({"params": params}, images)),
        format=name, prefix="params/", variant="Mu/8", tanh_gelu=True, class_position=name == "augreg",
        pixel_mean=(0.5, 0.5, 0.5),
    )  # fmt: skip


def test_scenic():
    try:
        google = importlib.util.find_spec("scenic.projects.baselines.clip") is not None
    except ModuleNotFoundError:
        google = False
    if not google:
        pytest.skip("needs a checkout of google-research/scenic on PYTHONPATH (PyPI's `scenic` is another project)")
    from scenic.projects.baselines.clip import layers

    model = layers.CLIP(
        vocab_size=99, embed_dim=32, text_features=48, text_num_layers=2, text_num_heads=3, vision_features=64,
        vision_num_layers=4, vision_head_dim=32, vision_patch_size=8,
    )  # fmt: skip
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)), IDS)["params"]
    rng = np.random.default_rng(0)
    state = {
        key: np.float32(key.endswith("scale") + 0.1 * rng.normal(size=leaf.shape))
        for key, leaf in flax.traverse_util.flatten_dict(shapes, sep="/").items()
    }
    params = flax.traverse_util.unflatten_dict(state, sep="/")

    def reference(images, ids):
        image, text = jax.jit(model.apply)({"params": params}, images, ids)
        logits = np.exp(params["logit_scale"]) * image @ text.T
        return {"image_embeds": image, "text_embeds": text, "logits_per_image": logits}

    _check_joint(state, reference, format="scenic_clip", variant="Mu/8", text=True, quick_gelu=True, assumed=())
    tower = layers.VisionTransformer(patch_size=8, features=64, num_layers=4, num_heads=2, out_features=None)
    own = {"params": {key: value for key, value in params["visual"].items() if key != "proj"}}
    _check_tower(
        {key: value for key, value in state.items() if key.startswith("visual/")},
        lambda images: np.asarray(jax.jit(tower.apply)(own, images)[0][:, 0]),
        format="scenic_clip",
    )


def _hf_shapes(variant="Mu/8", grid=3):
    """Names and shapes of a Hugging Face vision tower, without any library."""
    size = clip.get_variant(variant)
    shapes = jax.eval_shape(
        clip.VisionTransformer(variant, grid * size.patch).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct((1, grid * size.patch, grid * size.patch, 3), jnp.float32),
    )
    flat = flax.traverse_util.flatten_dict({"params": {"backbone": shapes["params"]}}, sep="/")
    zeros = {name: np.broadcast_to(np.float32(0), leaf.shape) for name, leaf in flat.items()}
    theirs = to_theirs(zeros, clip_names.hf_clip(variant, text=False))
    return {name: value.shape for name, value in theirs.items()}, flat


def test_the_image_size_comes_from_the_positions_and_moves_with_them():
    shapes, _ = _hf_shapes(grid=3)
    found = clip_names.recognise(shapes)
    assert (found["format"], found["image_size"], found["text"]) == ("hf_clip", 24, False)
    assert found["assumed"] == ("quick_gelu", "pixel_mean", "pixel_std")
    moved = positions.resample(np.zeros(shapes["vision_model.embeddings.position_embedding.weight"]), 5)
    assert clip_names.recognise(shapes | {"vision_model.embeddings.position_embedding.weight": moved.shape}) == {
        **found, "image_size": 40,
    }  # fmt: skip


def test_other_architectures_are_not_recognised():
    shapes, _ = _hf_shapes()
    assert clip_names.recognise({}, {"model_type": "something"}) is None
    with pytest.raises(ValueError, match="model_type"):
        clip_names.recognise(shapes, {"model_type": "something"})
    assert clip_names.recognise({"visual.layer1.0.conv1.weight": (64, 64, 1, 1), "visual.attnpool.k": (4, 4)}) is None
    # LayerScale, a third size, no class token, a grid that is no square.
    assert clip_names.recognise(shapes | {"vision_model.encoder.layers.0.scale.gamma": (64,)}) is None
    assert clip_names.recognise(shapes | {"vision_model.encoder.layers.4.layer_norm1.weight": (64,)}) is None
    assert clip_names.recognise(shapes | {"vision_model.head.probe": (1, 1, 64)}) is None
    without = {name: shape for name, shape in shapes.items() if "class_embedding" not in name}
    assert clip_names.recognise(without) is None
    assert clip_names.recognise(shapes | {"vision_model.embeddings.position_embedding.weight": (12, 64)}) is None


def test_a_strange_tensor_further_down_is_named_with_the_nearest():
    shapes, flat = _hf_shapes()
    name = "vision_model.encoder.layers.2.mlp.fc1.weight"
    shapes[name + "s"] = shapes.pop(name)
    table, skip = clip_names.table_of(clip_names.recognise(shapes))
    tensors = {key: Tensor(shape, np.dtype(np.float32), None) for key, shape in shapes.items()}
    with pytest.raises(ValueError, match=rf"missing {name} \(nearest there: {name}s\); unexpected {name}s"):
        check(tensors, table, flat, "the file", skip)


def test_heads_that_differ_are_an_error():
    table = clip_names.augreg("Mu/8")
    name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/bias"
    entry = {name: table[name]}
    flat = {table[name].ours: np.zeros(64, np.float32)}
    check({name: Tensor((2, 32), np.dtype(np.float32), None)}, entry, flat, "the file")
    with pytest.raises(ValueError, match=r"\(4, 16\), expected \(2, 32\)"):
        check({name: Tensor((4, 16), np.dtype(np.float32), None)}, entry, flat, "the file")


def test_a_file_without_text_says_so():
    found = clip_names.recognise(_hf_shapes()[0])
    with pytest.raises(ValueError, match="holds no text tower"):
        clip_names.table_of(found, text=True)
    with pytest.raises(ValueError, match=r"timm_vit hold no text tower"):
        clip_names.timm_vit("Mu/8", text=True)


def test_settings():
    half, laion = [0.5, 0.5, 0.5], {"vision_config": {"hidden_act": "gelu"}, "text_config": {"hidden_act": "gelu"}}
    assert clip_names.settings({"model_type": "clip", "vision_config": {}, "text_config": {}}) == {"quick_gelu": True}
    assert clip_names.settings({"model_type": "clip", **laion, "image_mean": half, "image_std": half}) == {
        "quick_gelu": False, "pixel_mean": (0.5,) * 3, "pixel_std": (0.5,) * 3,
    }  # fmt: skip
    assert clip_names.settings({"model_type": "clip_vision_model", "hidden_act": "gelu", "layer_norm_eps": 1e-6}) == {
        "quick_gelu": False, "norm_eps": 1e-6,
    }  # fmt: skip
    assert clip_names.settings({"model_cfg": {"embed_dim": 512}, "preprocess_cfg": {"mean": half}}) == {
        "quick_gelu": False, "pixel_mean": (0.5,) * 3,
    }  # fmt: skip
    assert clip_names.settings({"image_mean": half}) == {"pixel_mean": (0.5,) * 3}
    with pytest.raises(ValueError, match="one activation"):
        clip_names.settings({"model_type": "clip", "vision_config": {"hidden_act": "gelu"}, "text_config": {}})
    with pytest.raises(ValueError, match="relu"):
        clip_names.settings({"model_type": "clip", "hidden_act": "relu"})
    with pytest.raises(ValueError, match="got the keys depth"):
        clip_names.settings({"depth": 3})


def _full_ids():
    """The same texts with the start and end of the real vocabulary."""
    return np.where(IDS >= 97, IDS - 97 + 49406, IDS)


@pytest.mark.parity
@pytest.mark.parametrize("variant", ["B/16", "L/14"])
def test_full_size_hugging_face(torch, variant):
    from transformers import CLIPModel

    config = _hf_config(variant, 224)
    model = _randomise(torch, CLIPModel(config))
    _check_joint(
        _state(model), _hf_reference(torch, model), config.to_dict(), _full_ids(), variant=variant, format="hf_clip"
    )


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "variant", "size"), [("ViT-B-32-quickgelu", "B/32", 224), ("ViT-L-14-336", "L/14", 336)]
)
def test_full_size_open_clip(torch, name, variant, size):
    import open_clip

    model = _randomise(torch, open_clip.create_model(name, pretrained=None))
    config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": {}}
    _check_joint(
        _state(model), _open_clip_reference(torch, model), config, _full_ids(),
        variant=variant, image_size=size, format="open_clip", quick_gelu="quick" in name,
    )  # fmt: skip


@pytest.mark.parity
def test_full_size_timm(torch):
    import timm

    model = _randomise(torch, timm.create_model("vit_base_patch16_224", pretrained=False))
    _check_tower(_state(model), _timm_reference(torch, model), format="timm_vit", variant="B/16", image_size=224)


@pytest.mark.parity
def test_h_14_has_as_many_parameters_in_open_clip(torch):
    import open_clip

    with torch.device("meta"):
        model = open_clip.create_model("ViT-H-14", pretrained=None, device="meta")
    table = clip_names.open_clip("H/14")
    assert set(table) == set(model.state_dict())
    assert sum(parameter.numel() for parameter in model.parameters()) == 986_109_441
