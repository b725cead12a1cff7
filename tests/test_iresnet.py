"""iResNet against a twin in PyTorch with insightface's names; its file as a tree of a detector and as a player's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from msddf_jax import trees
from msddf_jax.models import backbones, iresnet
from msddf_jax.weights import __main__ as weights_main
from msddf_jax.weights import identify, load_initial, table
from msddf_jax.weights.names import iresnet_names


def _twin(variant, size):
    """The network in PyTorch, every parameter and statistic random, in eval mode, and its tensors."""
    torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")
    import torch_reference
    import torch_twins

    torch_reference.prepare()
    nn = torch.nn
    conv = lambda before, after, side, stride=1: nn.Conv2d(before, after, side, stride, side // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            self.bn1, self.conv1, self.bn2 = nn.BatchNorm2d(before), conv(before, after, 3), nn.BatchNorm2d(after)
            self.prelu, self.conv2 = nn.PReLU(after), conv(after, after, 3, stride)
            self.bn3, self.downsample = nn.BatchNorm2d(after), nn.Identity()
            if stride != 1:
                self.downsample = nn.Sequential(conv(before, after, 1, stride), nn.BatchNorm2d(after))

        def forward(self, x):
            y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
            return self.bn3(self.conv2(y)) + self.downsample(x)

    (widths, depths), module, before = iresnet.VARIANTS[variant], nn.Module(), iresnet.VARIANTS[variant].widths[0]
    module.conv1, module.bn1, module.prelu = conv(3, before, 3), nn.BatchNorm2d(before), nn.PReLU(before)
    for number, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
        blocks = [Block(before, width, 2), *(Block(width, width, 1) for _ in range(depth - 1))]
        setattr(module, f"layer{number}", nn.Sequential(*blocks))
        before = width
    module.bn2, module.fc = nn.BatchNorm2d(before), nn.Linear(before * (size // 16) ** 2, 512)
    module.features = nn.BatchNorm1d(512)
    torch_twins.randomise(module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "prelu" in name:
                # Slopes that differ, so that their order counts.
                parameter.uniform_(0.0, 0.5, generator=generator)
    return module.eval(), {name: value.numpy().copy() for name, value in module.state_dict().items()}


def _run(module, images):
    import torch

    with torch.no_grad():
        x = torch.from_numpy((2 * images - 1).transpose(0, 3, 1, 2).copy())
        x = module.prelu(module.bn1(module.conv1(x)))
        for number in range(1, 5):
            x = getattr(module, f"layer{number}")(x)
        x = module.bn2(x)
        return x.numpy().transpose(0, 2, 3, 1), module.features(module.fc(torch.flatten(x, 1))).numpy()


def _difference(ours, theirs):
    assert ours.shape == theirs.shape and np.ptp(theirs, axis=0).max() > 1e-3 * np.abs(theirs).max()
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def _compare(variant, size, tmp_path):
    """The weights tool reads the twin's file; embedding and map are the twin's; back out bit for bit."""
    module, tensors = _twin(variant, size)
    path = tmp_path / "backbone.safetensors"
    save_file(tensors, path)
    weights_main.convert(str(path), str(tmp_path / "own.safetensors"))
    shapes = load_initial.backbone_shapes("iresnet", variant, size, {})
    flat, _ = load_initial.load_whole(str(tmp_path / "own.safetensors"), shapes, "config.init.identity")
    images = np.random.default_rng(0).uniform(size=(3, size, size, 3)).astype(np.float32)
    apply = lambda flat, **kw: jax.jit(iresnet.IResNet(variant, **kw).apply)(
        {kind: tree["backbone"] for kind, tree in trees.unflatten(flat).items()}, images
    )
    out, (spatial, embedding) = apply(flat, image_size=size), _run(module, images)
    assert _difference(out["spatial"], spatial) <= 1e-4 and _difference(out["feature"], embedding) <= 1e-4
    back = table.to_theirs(flat, iresnet_names.table(variant))
    assert {name for name in tensors if not name.endswith("num_batches_tracked")} == set(back)
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)


def test_small_one_equals_the_reference(tmp_path):
    _compare("Mu", 32, tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("variant", ["iresnet50", "iresnet100"])
def test_full_size_equals_the_reference(variant, tmp_path):
    _compare(variant, 112, tmp_path)


@pytest.mark.parametrize(("variant", "depths"), [("iresnet50", (3, 4, 14, 3)), ("iresnet100", (3, 13, 30, 3))])
def test_parameter_count(variant, depths):
    # By hand. Convolutions of 9 weights; a block has a norm of its input, two of its output and slopes; every first
    # block of a stage a linear map and a norm beside it. The public counts are 43.59 and 65.16 million.
    block = lambda before, after: 9 * before * after + 9 * after * after + 2 * before + 5 * after
    expected, before = 27 * 64 + 3 * 64, 64
    for width, depth in zip((64, 128, 256, 512), depths, strict=True):
        expected += block(before, width) + before * width + 2 * width + (depth - 1) * block(width, width)
        before = width
    expected += 2 * 512 + (49 * 512 + 1) * 512 + 2 * 512
    shapes = load_initial.backbone_shapes("iresnet", variant, 112, {})
    assert sum(v.size for name, v in shapes.items() if name.startswith("params/")) == expected
    assert round(expected / 1e6, 2) == {"iresnet50": 43.59, "iresnet100": 65.16}[variant]


def _published(variant, prefix=""):
    """{name: Tensor} with the shapes of a published file."""
    shapes, entries = load_initial.backbone_shapes("iresnet", variant, 112, {}), iresnet_names.table(variant)
    theirs = lambda e: table.KINDS[e.kind][1](np.broadcast_to(np.float32(0), shapes[e.ours].shape)).shape
    return {prefix + name: table.Tensor(theirs(e), np.dtype(np.float32), None) for name, e in entries.items()}


@pytest.mark.parametrize("variant", ["iresnet50", "iresnet100", "Mu"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_is_known_by_its_names_and_shapes(variant, prefix):
    tensors = _published(variant, prefix)
    found = identify.identify(tensors, "ms1mv3_arcface_fp16/backbone.pth")
    assert (found.format, found.family, found.variant, found.image_size) == (
        iresnet_names.FORMAT, "iresnet", variant, 112,
    )  # fmt: skip
    assert found.format in identify.known_formats() and found.detector is None
    # Without the layers behind the map, of any size of image.
    body = {name: t for name, t in tensors.items() if not name.removeprefix(prefix).startswith(("fc.", "features."))}
    found = identify.identify(body, "backbone.pth")
    assert found.options["embed"] is False and found.image_size is None
    assert set(found.table) == set(body)


def test_other_networks_are_none():
    shapes = {name: tensor.shape for name, tensor in _published("iresnet50").items()}
    assert iresnet_names.find({}) is None
    # One block more in a stage, and one less; ResNet has no slopes.
    assert iresnet_names.find(shapes | {"layer3.14.conv2.weight": (256, 256, 3, 3)}) is None
    assert iresnet_names.find({n: s for n, s in shapes.items() if not n.startswith("layer4.2.")}) is None
    assert iresnet_names.find({n: s for n, s in shapes.items() if "prelu" not in n}) is None


def test_a_map_alone_for_images_of_another_size():
    module = backbones.make("iresnet", "iresnet100", 256, dtype=jnp.float32, name=None, embed=False)
    out = jax.eval_shape(module.init_with_output, jax.random.key(0), jnp.zeros((1, 256, 256, 3)))[0]
    assert out["spatial"].shape == (1, 16, 16, 512) and out["feature"].shape == (1, 512)


def test_errors():
    with pytest.raises(ValueError, match=r"unknown IR network variant 'r50'; known: iresnet50, iresnet100, Mu"):
        iresnet.block_plans("r50")
    image = jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"iResNet was built for images \[B, 112, 112, 3\], got"):
        jax.eval_shape(iresnet.IResNet("iresnet50").init, jax.random.key(0), image)
