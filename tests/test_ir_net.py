"""SDD-FIQA's quality network against a twin in PyTorch with its published names; and its file as a frozen player's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from msddf_jax import trees
from msddf_jax.models import ir_net
from msddf_jax.weights import __main__ as weights_main
from msddf_jax.weights import hub, identify, load_initial, table
from msddf_jax.weights.names import ir_names


def _twin(variant, size):
    """The network in PyTorch, every parameter and statistic random, in eval mode."""
    torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")
    import torch_reference
    import torch_twins

    torch_reference.prepare()
    nn = torch.nn
    conv = lambda before, after, side, stride=1: nn.Conv2d(before, after, side, stride, side // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, before, after, stride):
            super().__init__()
            shortcut = [conv(before, after, 1, stride), nn.BatchNorm2d(after)]
            self.shortcut_layer = nn.MaxPool2d(1, stride) if before == after else nn.Sequential(*shortcut)
            self.res_layer = nn.Sequential(
                nn.BatchNorm2d(before),
                conv(before, after, 3),
                nn.PReLU(after),
                conv(after, after, 3, stride),
                nn.BatchNorm2d(after),
            )

        def forward(self, x):
            return self.res_layer(x) + self.shortcut_layer(x)

    plans = ir_net.block_plans(variant)
    width, flat = plans[0][0], plans[-1][1] * (size // 16) ** 2
    module = nn.Module()
    module.input_layer = nn.Sequential(conv(3, width, 3), nn.BatchNorm2d(width), nn.PReLU(width))
    module.body = nn.Sequential(*(Block(*plan) for plan in plans))
    module.quality = nn.Sequential(nn.Flatten(), nn.PReLU(flat), nn.Dropout(0.5), nn.Linear(flat, 1))
    torch_twins.randomise(module)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if (parameter.ndim == 1 and name.split(".")[-2] == "2") or name == "quality.1.weight":
                # Slopes that differ, so that their order counts.
                parameter.uniform_(0.0, 0.5, generator=generator)
    module.eval()
    return module, {name: value.numpy().copy() for name, value in module.state_dict().items()}


def _shapes(model):
    image = jax.ShapeDtypeStruct((1, model.image_size, model.image_size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)


def _compare(variant, size, tmp_path):
    """Loads the twin's file as a frozen player's and compares scores; writes it back bit for bit."""
    module, tensors = _twin(variant, size)
    import torch

    model = ir_net.QualityNet(variant, size)
    save_file({f"module.{name}": value for name, value in tensors.items()}, tmp_path / "quality.safetensors")
    path = tmp_path / "quality.safetensors"
    reference = f"{path}#sha256={hub.sha256(path)}&format={ir_names.FORMAT}"
    flat, about = load_initial.load_whole(reference, trees.flatten(_shapes(model)), "config.init.quality")
    assert about["format"] == ir_names.FORMAT
    assert about["parameters"] == sum(p.numel() for p in module.parameters())
    images = np.random.default_rng(0).uniform(size=(3, size, size, 3)).astype(np.float32)
    score = jax.jit(model.apply)(trees.unflatten(flat), images)
    with torch.no_grad():
        x = torch.from_numpy((2 * images - 1).transpose(0, 3, 1, 2).copy())
        theirs = module.quality(module.body(module.input_layer(x)))[:, 0].numpy()
    assert score.shape == (3,) and np.ptp(theirs) > 1e-3 * np.abs(theirs).max()
    assert np.abs(score - theirs).max() / np.abs(theirs).max() <= 1e-4
    back = table.to_theirs(flat, ir_names.quality_table(variant))
    assert {name for name in tensors if not name.endswith("num_batches_tracked")} == set(back)
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)


def test_small_one_equals_the_reference(tmp_path):
    _compare("Mu", 32, tmp_path)


@pytest.mark.parity
def test_full_size_equals_the_reference(tmp_path):
    _compare("IR-50", 112, tmp_path)


def test_parameter_count():
    # By hand. Convolutions of 9 weights; a block of c channels has norms 2 c + 2 c and slopes c beside them.
    block = lambda before, after: 9 * before * after + 9 * after * after + 2 * before + 3 * after
    skip = lambda before, after: before * after + 2 * after
    body = 3 * block(64, 64)
    for before, after, blocks in ((64, 128, 4), (128, 256, 14), (256, 512, 3)):
        body += block(before, after) + skip(before, after) + (blocks - 1) * block(after, after)
    head = 2 * 512 * 7 * 7 + 1
    expected = 27 * 64 + 3 * 64 + body + head
    shapes = _shapes(ir_net.QualityNet())
    assert trees.count_parameters(shapes["params"]) == expected
    # 24 blocks of two convolutions, the first convolution and the last layer.
    assert len(ir_net.block_plans("IR-50")) == 24


def _published_shapes(variant="IR-50"):
    model = ir_net.QualityNet(variant)
    flat = {name: np.broadcast_to(np.float32(0), leaf.shape) for name, leaf in trees.flatten(_shapes(model)).items()}
    entries = ir_names.quality_table(variant)
    return {
        name: np.broadcast_to(np.float32(0), table.KINDS[e.kind][1](flat[e.ours]).shape) for name, e in entries.items()
    }


def test_a_file_is_known_by_its_names_and_shapes():
    tensors = {name: table.Tensor(v.shape, v.dtype, lambda v=v: v) for name, v in _published_shapes().items()}
    found = identify.identify(tensors, "SDD_FIQA_checkpoints_r50.pth")
    assert (found.format, found.variant, found.image_size) == (ir_names.FORMAT, "IR-50", 112)
    assert found.format in identify.known_formats()
    # The recogniser of the same repository has another head.
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    recogniser = {name.replace("quality", "output_layer"): shape for name, shape in shapes.items()}
    assert ir_names.find(recogniser) is None and ir_names.find({}) is None
    assert ir_names.find({name: s for name, s in shapes.items() if not name.startswith("body.23.res_layer")}) is None


def test_a_backbone_is_no_quality_network_and_the_other_way_about(tmp_path):
    small = {name: np.ascontiguousarray(value) for name, value in _published_shapes("Mu").items()}
    save_file(small, tmp_path / "quality.safetensors")
    with pytest.raises(ValueError, match=r"is ir/sdd_fiqa, no detector and no backbone: .* in config\.init"):
        weights_main.convert(str(tmp_path / "quality.safetensors"))
    shapes = trees.flatten(_shapes(ir_net.QualityNet()))
    with pytest.raises(ValueError, match=r"config\.init\.quality: .*does not fit the model: missing|has shape"):
        load_initial.load_whole(str(tmp_path / "quality.safetensors"), shapes, "config.init.quality")


def test_errors():
    image = jax.ShapeDtypeStruct((1, 112, 112, 3), jnp.float32)
    with pytest.raises(ValueError, match=r"unknown IR network variant 'IR-100'; known: IR-50, Mu"):
        jax.eval_shape(ir_net.QualityNet("IR-100").init, jax.random.key(0), image)
    with pytest.raises(ValueError, match=r"the IR network was built for images \[B, 112, 112, 3\], got"):
        jax.eval_shape(ir_net.QualityNet().init, jax.random.key(0), jax.ShapeDtypeStruct((1, 96, 96, 3), jnp.float32))
