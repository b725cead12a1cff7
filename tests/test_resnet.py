"""ResNet-34 and -50 against timm's, which have torchvision's names; DeepfakeBench's is the same by other names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models import resnet

torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")

import torch_reference  # noqa: E402

torch_reference.prepare()
timm = pytest.importorskip("timm", reason="parity needs timm")

import cnn_parity as parity  # noqa: E402
import torch_twins as twins  # noqa: E402

from msddf_jax.weights.names import cnn_names  # noqa: E402

# DeepfakeBench wraps the children up to the last stage in a sequence.
SEQUENCE = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


@pytest.fixture(scope="module")
def reference():
    return twins.randomise(timm.create_model("resnet34", num_classes=1000))


def _deepfakebench(state):
    out = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if first == "fc":
            out[f"backbone.fc.{rest}"] = value[:2]
        else:
            out[f"backbone.resnet.{SEQUENCE[first]}.{rest}"] = value
    return out


def _compare(reference, side, variant="resnet34"):
    """Largest relative difference of stages, spatial, feature and logits with a file named as DeepfakeBench's."""
    state = _deepfakebench(reference.state_dict())
    model, variables, flat = parity.convert(state, "resnet/deepfakebench", variant, side)
    images = twins.draw_images(2, side)
    out = jax.jit(model.apply)(variables, images)
    parts = {f"stage_{n}": getattr(reference, f"layer{n}") for n in (1, 2, 3, 4)} | {"stem": reference.maxpool}
    with torch.no_grad(), parity.recorded(parts) as stages:
        spatial = reference.forward_features(twins.as_input(images, (0.5,) * 3, (0.5,) * 3))
        logits = reference.forward_head(spatial)[:, :2]
    assert set(stages) == set(out["stages"])
    assert out["feature"].dtype == jnp.float32
    return max(
        parity.relative(out["spatial"], parity.nhwc(spatial)),
        parity.relative(out["feature"], spatial.mean((2, 3))),
        parity.relative(parity.logits(out["feature"], flat), logits),
        *(parity.relative(out["stages"][name], stage) for name, stage in stages.items()),
    )


def test_equals_timm(reference):
    assert _compare(reference, 45) <= 1e-4


@pytest.mark.parity
@pytest.mark.parametrize("side", [32, 224, 256, 301])
def test_equals_timm_at_full_size(reference, side):
    assert _compare(reference, side) <= 1e-4


@pytest.mark.long  # Five seconds to draw and compile.
def test_bottlenecks_equal_timm():
    reference = twins.randomise(timm.create_model("resnet50", num_classes=1000))
    assert _compare(reference, 45, "resnet50") <= 1e-4
    # torchvision publishes 25,557,032, with the classifier of 1000.
    assert parity.count_parameters(resnet.ResNet("resnet50", 224)) + 2048 * 1000 + 1000 == 25_557_032
    assert resnet.stages("resnet50")["stage_3"] == (1024, 16)


def test_both_kinds_of_file_give_the_same_backbone(reference):
    state = reference.state_dict()
    _, _, torchvision = parity.convert(state, "resnet/torchvision", "resnet34", 32)
    _, _, bench = parity.convert(_deepfakebench(state), "resnet/deepfakebench", "resnet34", 32)
    assert set(bench) - set(torchvision) == {f"{cnn_names.HEAD}/kernel", f"{cnn_names.HEAD}/bias"}
    assert all(np.array_equal(bench[name], value) for name, value in torchvision.items())


def test_parameter_count(reference):
    # torchvision publishes 21,797,672, with the classifier of 1000.
    assert parity.count_parameters(resnet.ResNet("resnet34", 224)) + 512 * 1000 + 1000 == 21_797_672
    assert sum(p.numel() for p in reference.parameters()) == 21_797_672


@pytest.mark.parity
def test_training_statistics():
    reference = twins.randomise(timm.create_model("resnet34"))
    model, variables, _ = parity.convert(reference.state_dict(), "resnet/torchvision", "resnet34", 64)
    table = cnn_names.resnet_table("resnet34")
    assert parity.check_train_statistics(reference, model, variables, table, twins.draw_images(4, 64)) <= 1e-4


def test_gradients_and_dtypes():
    images = twins.draw_images(4, 40)
    parity.check_gradients(resnet.ResNet("Mu", 40), images)
    parity.check_dtypes(resnet.ResNet("Mu", 40))


def test_errors():
    apply = lambda model, images: jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(ValueError, match=r"\[B, 64, 64, 3\], got \[2, 64, 64, 1\]"):
        apply(resnet.ResNet("resnet34", 64), jnp.zeros((2, 64, 64, 1)))
    with pytest.raises(ValueError, match="'resnet18'; known: resnet34, resnet50, Mu"):
        apply(resnet.ResNet("resnet18", 64), jnp.zeros((2, 64, 64, 3)))
