"""Xception against timm's, whose names the published files have, from 33 pixels to 299."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models import xception

torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")

import torch_reference  # noqa: E402

torch_reference.prepare()
timm = pytest.importorskip("timm", reason="parity needs timm")

import cnn_parity as parity  # noqa: E402
import torch_twins as twins  # noqa: E402

from msddf_jax.weights.names import cnn_names  # noqa: E402

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def reference():
    return twins.randomise(timm.create_model("legacy_xception", num_classes=1000))


def _files(state):
    """{source: the state_dict as that kind of file has it, classifier included}."""
    backbone = {n: v for n, v in state.items() if not n.startswith("fc.")}
    classifier = {n.removeprefix("fc."): v for n, v in state.items() if n.startswith("fc.")}
    bench = {f"module.backbone.{n}": v for n, v in backbone.items()}
    bench |= {f"module.backbone.last_linear.{n}": v[:2] for n, v in classifier.items()}
    bench |= {"module.backbone.adjust_channel.0.weight": torch.ones(512, 2048, 1, 1)}
    bench |= {"module.backbone.adjust_channel.1.running_mean": torch.ones(512)}
    flat = {n: v[:, :, 0, 0] if "pointwise" in n else v for n, v in state.items()}
    return {
        "xception/timm": state,
        "xception/cadene": flat,
        "xception/deepfakebench": bench,
    }


def _compare(reference, side):
    """Largest relative difference of stages, spatial, feature and logits with DeepfakeBench's file."""
    source = "xception/deepfakebench"
    model, variables, flat = parity.convert(_files(reference.state_dict())[source], source, "xception", side)
    images = twins.draw_images(2, side)
    out = jax.jit(model.apply)(variables, images)
    blocks = {f"block_{n}": getattr(reference, f"block{n}") for n in range(1, 13)} | {"stem": reference.act2}
    with torch.no_grad(), parity.recorded(blocks) as stages:
        spatial = reference.forward_features(twins.as_input(images, HALF, HALF))
        logits = reference.forward_head(spatial)[:, :2]
    assert out["feature"].dtype == jnp.float32
    return max(
        parity.relative(out["spatial"], parity.nhwc(spatial)),
        parity.relative(out["feature"], spatial.mean((2, 3))),
        parity.relative(parity.logits(out["feature"], flat), logits),
        *(parity.relative(out["stages"][name], stage) for name, stage in stages.items()),
    )


def test_equals_timm(reference):
    assert _compare(reference, 33) <= 1e-4


def test_every_kind_of_file_gives_the_same_backbone(reference):
    read = {}
    for source, state in _files(reference.state_dict()).items():
        _, _, flat = parity.convert(state, source, "xception", 33)
        read[source] = {name: value for name, value in flat.items() if "binary_head" not in name}
    first = read["xception/timm"]
    for flat in read.values():
        assert set(flat) == set(first)
        assert all(np.array_equal(flat[name], first[name]) for name in first)


@pytest.mark.parity
@pytest.mark.parametrize("side", [299, 256, 101])
def test_equals_timm_at_full_size(reference, side):
    assert _compare(reference, side) <= 1e-4


def test_parameter_count(reference):
    # 22,855,952 is published, with the classifier of 1000.
    assert parity.count_parameters(xception.Xception("xception", 299)) + 2048 * 1000 + 1000 == 22_855_952
    assert sum(p.numel() for p in reference.parameters()) == 22_855_952


def test_classifier_is_read_where_it_is_wanted(reference):
    table = cnn_names.xception_table("xception", classifier="last_linear", head="params/head")
    assert table["last_linear.weight"].ours == "params/head/kernel"
    assert set(table) - set(cnn_names.xception_table("xception")) == {"last_linear.weight", "last_linear.bias"}


@pytest.mark.parity
def test_training_statistics(reference):
    model, variables, _ = parity.convert(reference.state_dict(), "xception/timm", "xception", 48)
    table = cnn_names.xception_table("xception")
    reference_copy = twins.randomise(timm.create_model("legacy_xception"))
    images = twins.draw_images(4, 48)
    assert parity.check_train_statistics(reference_copy, model, variables, table, images) <= 1e-4


@pytest.mark.long
def test_gradients_and_dtypes():
    images = twins.draw_images(4, 32)
    parity.check_gradients(xception.Xception("Mu", 32), images)
    parity.check_dtypes(xception.Xception("Mu", 32))


def test_errors():
    apply = lambda model, images: jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(ValueError, match=r"\[B, 64, 64, 3\], got \[2, 65, 64, 3\]"):
        apply(xception.Xception("xception", 64), jnp.zeros((2, 65, 64, 3)))
    with pytest.raises(TypeError, match="uint8"):
        apply(xception.Xception("xception", 64), jnp.zeros((2, 64, 64, 3), jnp.uint8))
    with pytest.raises(ValueError, match="at least 32, got 24"):
        apply(xception.Xception("xception", 24), jnp.zeros((2, 24, 24, 3)))
    with pytest.raises(ValueError, match="'xception41'; known: xception, Mu"):
        apply(xception.Xception("xception41", 64), jnp.zeros((2, 64, 64, 3)))
