import functools

import few_steps
import jax
import numpy as np
import pytest
import torch_reference

from configs.detectors import gend as experiment
from msddf_jax import trees
from msddf_jax.detectors import baseline
from msddf_jax.models import backbones, clip, dinov3
from msddf_jax.weights import table
from msddf_jax.weights.names import gend_names

# What the published sizes run on, and their parameters with the head (test_clip, test_dinov3, test_pe; PE's positions
# are those of its grid).
FULL = {
    "gend/clip": ("L/14", 224, 303_179_776 + 2050),
    "gend/clip_ln_tuning": ("L/14", 224, 303_179_776 + 2050),
    "gend/pe": ("L/14", 336, 316_102_656 + 2050),
    "gend/dinov3": ("L/16", 224, 303_128_576 + 2050),
}
PIXELS = {"clip": (clip.PIXEL_MEAN, clip.PIXEL_STD), "pe": (0.5, 0.5), "dinov3": (dinov3.PIXEL_MEAN, dinov3.PIXEL_STD)}


def _family(source):
    return {"gend/clip": "clip", "gend/clip_ln_tuning": "clip", "gend/pe": "pe", "gend/dinov3": "dinov3"}[source]


def _clip(torch, variant, image_size):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    width, depth, heads, patch = clip.VARIANTS[variant]
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        image_size=image_size,
        patch_size=patch,
    )
    extractor = torch.nn.Module()
    extractor.vision_model = CLIPVisionModel(config)
    extractor.visual_projection = torch.nn.Linear(width, 32, bias=False)
    return extractor, lambda x: extractor.vision_model(x).pooler_output


def _clip_ln_tuning(torch, variant, image_size):
    """The same inside PEFT's wrappers, whose LayerNorms keep CLIP's own beside the trained copy."""

    class Tuned(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.base_layer = layer
            copy = torch.nn.LayerNorm(layer.normalized_shape, layer.eps)
            self.ln_tuning_layers = torch.nn.ModuleDict({"default": copy})

        def forward(self, x):
            return self.ln_tuning_layers["default"](x)

    inner, run = _clip(torch, variant, image_size)
    for module in list(inner.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.LayerNorm):
                setattr(module, name, Tuned(child))
    extractor = torch.nn.Module()
    extractor.base_model = torch.nn.Module()
    extractor.base_model.model = inner
    return extractor, run


def _pe(torch, variant, image_size):
    from test_pe import _reference

    extractor = torch.nn.Module()
    extractor.backbone = _reference(variant, dynamic=False)
    return extractor, extractor.backbone


def _dinov3(torch, variant, image_size):
    from test_dinov3 import _reference

    extractor = torch.nn.Module()
    extractor.backbone, _ = _reference(variant)
    return extractor, lambda x: extractor.backbone(x).last_hidden_state[:, 0]


BUILDERS = {"gend/clip": _clip, "gend/clip_ln_tuning": _clip_ln_tuning, "gend/pe": _pe, "gend/dinov3": _dinov3}


def _reference(source, variant, image_size):
    """(pixels -> logits, {name: tensor}) of a GenD detector in PyTorch, every tensor random."""
    torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")
    torch_reference.prepare()
    detector = torch.nn.Module()
    detector.feature_extractor, run = BUILDERS[source](torch, variant, image_size)
    detector.model = torch.nn.Module()
    detector.model.linear = torch.nn.Linear(backbones.FAMILIES[_family(source)][0].VARIANTS[variant].width, 2)
    generator = torch.Generator().manual_seed(0)
    # Below 1 / sqrt(width): larger, a wide network multiplies rounding from layer to layer, in torch as well.
    scale = min(0.05, 0.5 * detector.model.linear.in_features**-0.5)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    detector.eval()
    # The releases were saved by a version whose DINOv3 has no "model" between backbone and layers.
    tensors = {n.replace("backbone.model.layer", "backbone.layer"): t.numpy() for n, t in detector.state_dict().items()}

    def logits(pixels):
        with torch.no_grad():
            feature = run(torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))))
            return detector.model.linear(torch.nn.functional.normalize(feature, dim=1)).numpy()

    return logits, tensors


def _check_parity(source, variant, image_size, batch):
    run, tensors = _reference(source, variant, image_size)
    found = gend_names.find({n: t.shape for n, t in tensors.items()})
    assert (found["format"], found["variant"], found["detector"], found["normalize"]) == (
        source,
        variant,
        "baseline",
        True,
    )
    model = baseline.Model(variant, image_size, found["family"], normalize=True)
    images = np.random.default_rng(1).uniform(size=(batch, image_size, image_size, 3)).astype(np.float32)
    opened = {n: table.Tensor(t.shape, t.dtype, lambda t=t: t) for n, t in tensors.items()}
    init = lambda x: model.init(jax.random.key(0), {"image": x}, train=False)
    table.check(opened, found["table"], trees.flatten(jax.eval_shape(init, images)), "the reference", found["skip"])
    flat = table.to_ours(opened, found["table"])
    out = jax.jit(functools.partial(model.apply, train=False))(trees.unflatten(flat), {"image": images})
    mean, std = PIXELS[found["family"]]
    logits = run((images - np.float32(mean)) / np.float32(std))
    assert np.abs(np.asarray(out["logits"]) - logits).max() / np.abs(logits).max() <= 1e-4
    back = table.to_theirs(flat, found["table"])
    assert all(
        any(part in n for part in ("base_layer", "mask_token", "visual_projection")) for n in set(tensors) - set(back)
    )
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)
    return found, flat


@pytest.mark.parametrize("source", gend_names.FORMATS)
def test_published_detector_gives_the_same_logits_and_writes_back(source):
    # 48 px is the pretraining grid of PE's test size; any other multiple of 8 serves the rest as well.
    found, _ = _check_parity(source, "Mu/8", 48, 2)
    assert found["image_size"] == (48 if found["family"] == "clip" else 224)


@pytest.mark.parity
@pytest.mark.parametrize("source", gend_names.FORMATS)
def test_full_size_published_detector_gives_the_same_logits(source):
    variant, image_size, count = FULL[source]
    _, flat = _check_parity(source, variant, image_size, 1)
    assert sum(value.size for value in flat.values()) == count


def test_other_models_are_not_recognised():
    shapes = {name: (64, 64) for name in gend_names.gend("gend/clip", "Mu/8")}
    assert gend_names.recognise(shapes) is None
    shapes["feature_extractor.vision_model.embeddings.patch_embedding.weight"] = (64, 3, 8, 8)
    assert gend_names.recognise(shapes) == ("gend/clip", "Mu/8")
    del shapes["model.linear.weight"]
    assert gend_names.find(shapes) is None
    with pytest.raises(ValueError, match="'gend/vit'; there are gend/clip"):
        gend_names.gend("gend/vit", "L/14")


@pytest.mark.long
@pytest.mark.parametrize("family", ["pe", "dinov3"])
def test_norms_and_head_alone_train_on_the_other_backbones(family):
    config = few_steps.shrink(experiment.get_config(), "Mu/8", lr=1e-2)
    config.model.family = family
    before, after, trained = few_steps.check_training(config)
    moved = {name for name, value in trained.items() if value}
    assert {"detector/backbone/ln_post/scale", "detector/backbone/block_1/ln_2/bias"} <= moved
    assert not any("/attn/" in name or "patch_embed" in name for name in moved)
    # GenD counts every LayerNorm, the pooling's too: two in each of two blocks, the last one, and PE's two others.
    norms = sum(before[name].size for name in moved if "/ln_" in name)
    assert norms == 2 * 64 * (5 + 2 * (family == "pe"))
    assert after.keys() == before.keys()
