import functools

import few_steps
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_reference
from random_params import random_params

from configs.detectors import effort as experiment
from msddf_jax import trees
from msddf_jax.detectors import effort
from msddf_jax.models import clip, low_rank
from msddf_jax.weights import table
from msddf_jax.weights.names import effort_names

# CLIP ViT-L/14: 303,179,776 (test_clip); 24 blocks x 4 projections x (1024 u + 1 s + 1024 v) beside them, and the head.
RESIDUAL = 24 * 4 * 2049
HEAD = 2 * 1024 + 2


def _published(variant, image_size):
    """The detector in PyTorch under its published names, every tensor random: (module, {name: tensor})."""
    torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")
    torch_reference.prepare()
    from transformers import CLIPVisionConfig, CLIPVisionModel

    class Split(torch.nn.Module):
        def __init__(self, width):
            super().__init__()
            self.weight_main = torch.nn.Parameter(torch.zeros(width, width))
            self.bias = torch.nn.Parameter(torch.zeros(width))
            self.S_residual = torch.nn.Parameter(torch.zeros(1))
            self.U_residual = torch.nn.Parameter(torch.zeros(width, 1))
            self.V_residual = torch.nn.Parameter(torch.zeros(1, width))

        def forward(self, x):
            whole = self.weight_main + self.U_residual @ torch.diag(self.S_residual) @ self.V_residual
            return torch.nn.functional.linear(x, whole, self.bias)

    width, depth, heads, patch = clip.VARIANTS[variant]
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch,
    )
    module = torch.nn.Module()
    module.backbone = CLIPVisionModel(config).eval()
    for layer in module.backbone.encoder.layers:
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(layer.self_attn, name, Split(width))
    module.head = torch.nn.Linear(width, 2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            # A singular value of 1 beside kernels of norm 1.6, so that the rest counts at every width.
            scale = 1.0 if name.endswith("S_residual") else 0.8 * width**-0.5
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module, {name: value.numpy() for name, value in module.state_dict().items()}


def _opened(tensors):
    return {n: table.Tensor(t.shape, t.dtype, lambda t=t: t) for n, t in tensors.items()}


def _expected(model, size):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), {"image": x}, train=False), images)
    return trees.flatten(shapes)


def _check_parity(variant, image_size, prefix, extra):
    """Load, run beside PyTorch, write back. extra: tensors in the file that are not wanted."""
    module, tensors = _published(variant, image_size)
    import torch

    tensors = {prefix + name: value for name, value in tensors.items()}
    found = effort_names.find({n: t.shape for n, t in (tensors | extra).items()})
    assert (found["variant"], found["image_size"], found["detector"]) == (variant, image_size, "effort")
    model = effort.Model(variant, image_size)
    table.check(_opened(tensors | extra), found["table"], _expected(model, image_size), "the reference", found["skip"])
    flat = table.to_ours(_opened(tensors), found["table"])
    images = np.random.default_rng(1).uniform(size=(2, image_size, image_size, 3)).astype(np.float32)
    out = jax.jit(functools.partial(model.apply, train=False))(trees.unflatten(flat), {"image": images})
    pixels = (images - np.float32(clip.PIXEL_MEAN)) / np.float32(clip.PIXEL_STD)
    with torch.no_grad():
        feature = module.backbone(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).pooler_output
        logits = module.head(feature).numpy()
    assert np.abs(np.asarray(out["logits"]) - logits).max() / np.abs(logits).max() <= 1e-4
    unit = feature.numpy() / np.linalg.norm(feature.numpy(), axis=1, keepdims=True)
    np.testing.assert_allclose(out["feature"], unit, atol=1e-5)
    back = table.to_theirs(flat, found["table"])
    assert set(back) == set(tensors)
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)


def test_published_detector_gives_the_same_logits_and_writes_back():
    # What some versions save beside the product of the main triplets.
    extra = {f"module.backbone.encoder.layers.0.self_attn.q_proj.{n}_r": np.zeros((64, 63), np.float32) for n in "SUV"}
    _check_parity("Mu/8", 40, "module.", extra)


@pytest.mark.parity
def test_full_size_published_detector_gives_the_same_logits():
    _check_parity("L/14", 224, "", {})


def test_other_models_are_not_recognised():
    shapes = {name: (64, 64) for name in effort_names.effort("Mu/8")}
    assert effort_names.find(shapes) is None
    shapes["backbone.embeddings.patch_embedding.weight"] = (64, 3, 8, 8)
    shapes["backbone.embeddings.position_embedding.weight"] = (17, 64)
    assert effort_names.find(shapes)["variant"] == "Mu/8"
    plain = {name.replace("weight_main", "weight"): shape for name, shape in shapes.items()}
    assert effort_names.find(plain) is None


def test_parameter_count():
    config = experiment.get_config()
    fields = config.model.to_dict()
    flat = _expected(effort.Model(**fields), fields["image_size"])
    sizes = {f"detector/{name.removeprefix('params/')}": int(np.prod(leaf.shape)) for name, leaf in flat.items()}
    assert sum(sizes.values()) == 303_179_776 + RESIDUAL + HEAD
    settings = trees.match(sizes, list(config.optim.groups))
    assert sum(size for name, size in sizes.items() if settings[name]) == RESIDUAL + HEAD


@pytest.fixture(scope="module")
def dense():
    """A plain CLIP ViT with random parameters, its images and its feature."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)), jnp.float32)
    model = clip.VisionTransformer("Mu/8", 32)
    params = random_params(model, images)
    return (
        trees.flatten({"params": {"backbone": params["params"]}}),
        images,
        jax.jit(model.apply)(params, images)["feature"],
    )


def test_a_plain_clip_split_at_load_time_gives_its_own_feature(dense):
    flat, images, feature = dense
    split = effort.from_backbone(flat, {"rank": 1})
    model = effort.Model("Mu/8", 32)
    expected = _expected(model, 32)
    backbone = {name for name in expected if name.startswith("params/backbone/")}
    assert {n: v.shape for n, v in split.items()} == {n: expected[n].shape for n in backbone}
    params = trees.unflatten(
        {**split, "params/binary_head/out/kernel": jnp.zeros((64, 2)), "params/binary_head/out/bias": jnp.zeros(2)}
    )
    out = jax.jit(functools.partial(model.apply, train=False))(params, {"image": images})
    unit = feature / np.linalg.norm(feature, axis=1, keepdims=True)
    np.testing.assert_allclose(out["feature"], unit, atol=1e-5)
    np.testing.assert_allclose(out["orthogonality"], 0, atol=1e-6)
    name = "params/backbone/block_3/attn/value/"
    np.testing.assert_allclose(
        split[f"{name}kernel"] + (split[f"{name}u"] * split[f"{name}s"]) @ split[f"{name}v"],
        flat[f"{name}kernel"],
        atol=1e-6,
    )
    for other in set(flat) & set(split) - {n for n in flat if "/attn/" in n}:
        np.testing.assert_array_equal(split[other], flat[other])


def test_what_has_no_attention_is_refused():
    with pytest.raises(ValueError, match="no attention projection among 1 names"):
        effort_names.init_from_dense({"params/backbone/stem/kernel": np.zeros((3, 3))})


@pytest.fixture(scope="module")
def trained():
    """Three steps with the constraints on."""
    config = few_steps.shrink(experiment.get_config(), "Mu/8", lr=3e-3)
    config.loss_weights.kernel_orthogonality = config.loss_weights.kernel_norm_change = 1.0
    return few_steps.check_training(config)


@pytest.mark.long
def test_training_moves_the_last_triplets_and_the_head_alone(trained):
    before, after, names = trained
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    residual = {n for n in names if "/attn/" in n and n.rsplit("/", 1)[1] in low_rank.RESIDUAL}
    assert len(residual) == 4 * 4 * 3
    assert moved == residual | {"detector/binary_head/out/kernel", "detector/binary_head/out/bias"}


def test_losses_have_a_value_for_each_row():
    out = {"logits": jnp.zeros((3, 2)), "orthogonality": jnp.float32(0.5), "norm_change": jnp.float32(2.0)}
    terms = effort.losses(out, {"label": jnp.asarray([0, 1, 1])}, None)
    np.testing.assert_allclose(terms["label"][0], np.full(3, np.log(2)), rtol=1e-6)
    np.testing.assert_array_equal(terms["kernel_orthogonality"][0], np.full(3, 0.5))
    np.testing.assert_array_equal(terms["kernel_norm_change"][0], np.full(3, 2.0))
    assert all(mask.all() for _, mask in terms.values())


def test_demo_config_builds_its_model():
    config = experiment.get_config("demo")
    assert (config.detector, config.model.variant, config.init.backbone) == ("effort", "Ti/16", "random")
    with pytest.raises(ValueError, match="'demo', got 'toy'"):
        experiment.get_config("toy")
