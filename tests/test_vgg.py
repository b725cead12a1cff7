"""VGG-19's first three stages against torchvision's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models import vgg

torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")

import torch_reference  # noqa: E402

torch_reference.prepare()
models = pytest.importorskip("torchvision.models", reason="parity needs torchvision")

import cnn_parity as parity  # noqa: E402
import torch_twins as twins  # noqa: E402

from msddf_jax.weights import table  # noqa: E402
from msddf_jax.weights.names import cnn_names  # noqa: E402

# The pools after which a stage ends.
POOLS = {"stage_1": 4, "stage_2": 9, "stage_3": 18}


@pytest.fixture(scope="module")
def reference():
    # Drawn on the meta device first: the classifier's 120 million numbers are read by nobody.
    with torch.device("meta"):
        whole = models.vgg19(weights=None)
    features = whole.features[:19].to_empty(device="cpu")
    torch.manual_seed(0)
    for module in features:
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
            torch.nn.init.normal_(module.bias, std=0.1)
    return features.eval()


def _file(reference):
    return {f"features.{name}": value for name, value in reference.state_dict().items()}


@pytest.mark.parametrize("side", [33, pytest.param(256, marks=pytest.mark.parity)])
def test_equals_torchvision(reference, side):
    model, variables, _ = parity.convert(_file(reference), "vgg/torchvision", "vgg19", side)
    images = twins.draw_images(2, side)
    out = jax.jit(model.apply)(variables, images)
    parts = {name: reference[place] for name, place in POOLS.items()}
    with torch.no_grad(), parity.recorded(parts) as stages:
        spatial = reference(twins.as_input(images, vgg.PIXEL_MEAN, vgg.PIXEL_STD))
    assert set(stages) == set(out["stages"])
    for name, stage in stages.items():
        assert parity.relative(out["stages"][name], stage) <= 1e-4, name
    assert parity.relative(out["feature"], spatial.mean((2, 3))) <= 1e-4


def test_the_whole_published_file_is_read_and_its_relatives_are_not():
    shapes = lambda name: {k: tuple(v.shape) for k, v in getattr(models, name)(weights=None).state_dict().items()}
    with torch.device("meta"):
        whole, others = shapes("vgg19"), [shapes(name) for name in ("vgg16", "vgg13", "vgg19_bn")]
    (match,) = cnn_names.find(whole)
    assert (match.source, match.variant, len(match.table)) == ("vgg/torchvision", "vgg19", 16)
    tensors = {name: table.Tensor(shape, np.dtype(np.float32), None) for name, shape in whole.items()}
    expected = {entry.ours: np.empty(_ours(whole[name])) for name, entry in match.table.items()}
    table.check(tensors, match.table, expected, "vgg19.pth", match.skip)
    assert [cnn_names.find(other) for other in others] == [[], [], []]


def _ours(shape):
    return shape if len(shape) == 1 else tuple(shape[k] for k in (2, 3, 1, 0))


def test_parameter_count():
    # 3 x 3 kernels and biases: 1792 + 36,928 + 73,856 + 147,584 + 295,168 + 3 x 590,080.
    assert parity.count_parameters(vgg.VGG("vgg19", 224)) == 2_325_568


def test_gradients_and_dtypes():
    parity.check_gradients(vgg.VGG("Mu", 40), twins.draw_images(4, 40))
    parity.check_dtypes(vgg.VGG("Mu", 40))


def test_errors():
    apply = lambda model, images: jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(ValueError, match=r"\[B, 64, 64, 3\], got \[2, 64, 64, 1\]"):
        apply(vgg.VGG("vgg19", 64), jnp.zeros((2, 64, 64, 1)))
    with pytest.raises(ValueError, match="'vgg16'; known: vgg19, Mu"):
        apply(vgg.VGG("vgg16", 64), jnp.zeros((2, 64, 64, 3)))
