"""PyTorch twins of published architectures that no installed library has, and what parity tests do with any model.

The twins are written from the papers' tables and the files' names and shapes; they share no code with `msddf_jax`.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

# B0's stages: blocks, expansion, kernel, stride, channels.
_STAGES = ((1, 1, 3, 1, 16), (2, 6, 3, 2, 24), (2, 6, 5, 2, 40), (3, 6, 3, 2, 80), (3, 6, 5, 1, 112), (4, 6, 5, 2, 192),
           (1, 6, 3, 1, 320))  # fmt: skip
# Width factor, depth factor, published side.
_SIZES = {"Mu": (0.25, 0.3, 64), "B0": (1.0, 1.0, 224), "B4": (1.4, 1.8, 380)}


class _StaticConv(nn.Conv2d):
    """A convolution that pads what a published input side asks for, whatever its input is."""

    def __init__(self, inputs, outputs, size, stride, side, groups=1):
        super().__init__(inputs, outputs, size, stride, groups=groups, bias=False)
        total = max((math.ceil(side / stride) - 1) * stride + size - side, 0)
        self.pads = (total // 2, total - total // 2) * 2

    def forward(self, x):
        return super().forward(F.pad(x, self.pads))


class _MBConv(nn.Module):
    """efficientnet_pytorch's block, by its names."""

    def __init__(self, before, after, expand, kernel, stride, side):
        super().__init__()
        wide = before * expand
        norm = lambda channels: nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
        if expand != 1:
            self._expand_conv, self._bn0 = nn.Conv2d(before, wide, 1, bias=False), norm(wide)
        self._depthwise_conv, self._bn1 = _StaticConv(wide, wide, kernel, stride, side, wide), norm(wide)
        self._se_reduce = nn.Conv2d(wide, max(1, int(before * 0.25)), 1)
        self._se_expand = nn.Conv2d(self._se_reduce.out_channels, wide, 1)
        self._project_conv, self._bn2 = nn.Conv2d(wide, after, 1, bias=False), norm(after)
        self.expands, self.skips = expand != 1, stride == 1 and before == after

    def forward(self, x):
        y = F.silu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.silu(self._bn1(self._depthwise_conv(y)))
        squeezed = F.silu(self._se_reduce(y.mean((2, 3), keepdim=True)))
        y = self._bn2(self._project_conv(y * torch.sigmoid(self._se_expand(squeezed))))
        return x + y if self.skips else y


class EfficientNet(nn.Module):
    """efficientnet_pytorch's EfficientNet by its names, without the classifier; no dropout, no skipped blocks.

    plain_stem: DeepfakeBench's stem, a convolution that does not pad.
    """

    def __init__(self, size, plain_stem=False):
        super().__init__()
        width, depth, side = _SIZES[size]
        rounded = lambda c: (
            max(8, int(c * width + 4) // 8 * 8) + 8 * (max(8, int(c * width + 4) // 8 * 8) < 0.9 * c * width)
        )
        before = rounded(32)
        self._conv_stem = nn.Conv2d(3, before, 3, 2, bias=False) if plain_stem else _StaticConv(3, before, 3, 2, side)
        self._bn0 = nn.BatchNorm2d(before, eps=1e-3, momentum=0.01)
        side = math.ceil(side / 2)
        self._blocks = nn.ModuleList()
        for blocks, expand, kernel, stride, channels in _STAGES:
            for index in range(math.ceil(blocks * depth)):
                step = stride if index == 0 else 1
                self._blocks.append(_MBConv(before, rounded(channels), expand, kernel, step, side))
                before, side = rounded(channels), math.ceil(side / step)
        self._conv_head = nn.Conv2d(before, rounded(1280), 1, bias=False)
        self._bn1 = nn.BatchNorm2d(rounded(1280), eps=1e-3, momentum=0.01)

    def forward(self, x):
        x = F.silu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.silu(self._bn1(self._conv_head(x)))


class Meso4(nn.Module):
    """DeepfakeBench's Meso4 by its names: two BatchNorms for four convolutions."""

    def __init__(self, dropout=0.5):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 5, padding=2, bias=False)
        self.conv3, self.conv4 = (nn.Conv2d(c, 16, 5, padding=2, bias=False) for c in (8, 16))
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(16)
        self.fc1, self.fc2, self.dropout = nn.Linear(1024, 16), nn.Linear(16, 2), nn.Dropout(dropout)

    def stages(self, x):
        """The output of every pooling."""
        plan = (
            (self.conv1, self.bn1, 2),
            (self.conv2, self.bn1, 2),
            (self.conv3, self.bn2, 2),
            (self.conv4, self.bn2, 4),
        )
        return _mesos(x, plan)

    def head(self, x):
        """(feature, logits) of the last pooling's output."""
        feature = F.leaky_relu(self.fc1(self.dropout(x.flatten(1))), 0.1)
        return feature, self.fc2(self.dropout(feature))


class MesoInception4(Meso4):
    """DeepfakeBench's MesoInception4 by its names: no ReLU in the inception blocks."""

    def __init__(self, dropout=0.5):
        nn.Module.__init__(self)
        for block, before, first in ((1, 3, 1), (2, 11, 2)):
            layers = {"conv1": nn.Conv2d(before, first, 1, bias=False)}
            for branch, width in ((2, 4), (3, 4), (4, 2)):
                far = branch - 1
                layers[f"conv{branch}_1"] = nn.Conv2d(before, width, 1, bias=False)
                layers[f"conv{branch}_2"] = nn.Conv2d(width, width, 3, padding=far, dilation=far, bias=False)
            layers["bn"] = nn.BatchNorm2d(10 + first)
            for name, layer in layers.items():
                setattr(self, f"Incption{block}_{name}", layer)
        self.conv1, self.conv2 = (nn.Conv2d(c, 16, 5, padding=2, bias=False) for c in (12, 16))
        self.bn1 = nn.BatchNorm2d(16)
        self.fc1, self.fc2, self.dropout = nn.Linear(1024, 16), nn.Linear(16, 2), nn.Dropout(dropout)

    def stages(self, x):
        """The output of every pooling."""
        out = []
        for block in (1, 2):
            part = lambda name, block=block: getattr(self, f"Incption{block}_{name}")
            branches = [part("conv1")(x)] + [part(f"conv{b}_2")(part(f"conv{b}_1")(x)) for b in (2, 3, 4)]
            x = F.max_pool2d(part("bn")(torch.cat(branches, 1)), 2)
            out.append(x)
        return out + _mesos(x, ((self.conv1, self.bn1, 2), (self.conv2, self.bn1, 4)))


def _mesos(x, plan):
    out = []
    for conv, norm, window in plan:
        x = F.max_pool2d(norm(F.relu(conv(x))), window)
        out.append(x)
    return out


def randomise(model, seed=0):
    """Draw every tensor, BatchNorm's statistics too, so that each of them matters; `model` in eval mode.

    The spread of BatchNorm's factors is where deep networks keep signals of their size. From 0.8 to 1.2 an
    EfficientNet-B4's grow by thousands, and timm's own float32 differs from its float64 by up to three quarters of the
    largest value; from 0.5 to 1.0 the image no longer reaches the feature. Here rounding is 1e-6 and two images differ
    by 7e-3 and more.
    """
    rng = np.random.default_rng(seed)
    draw = {
        "weight": lambda shape: rng.uniform(0.7, 1.1, shape),
        "bias": lambda shape: rng.normal(0, 0.1, shape),
        "running_mean": lambda shape: rng.normal(0, 0.1, shape),
        "running_var": lambda shape: rng.uniform(0.5, 1.5, shape),
    }
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            shape, leaf = tuple(tensor.shape), name.rsplit(".", 1)[-1]
            if leaf in draw:
                kernel = leaf == "weight" and len(shape) > 1
                # A weight [outputs, inputs, ...] scaled to its inputs.
                value = rng.normal(0, (2 / math.prod(shape[1:])) ** 0.5, shape) if kernel else draw[leaf](shape)
                tensor.copy_(torch.from_numpy(np.asarray(value, np.float32)))
    return model.eval()


def draw_images(count, side, seed=0):
    """float32 [count, side, side, 3] in [0, 1]."""
    return np.random.default_rng(seed).random((count, side, side, 3), np.float32)


def as_input(images, mean, std):
    """What the PyTorch model sees of NHWC images in [0, 1]: NCHW, normalised."""
    return torch.from_numpy(((images - np.float32(mean)) / np.float32(std)).transpose(0, 3, 1, 2).copy())


def norm_counts(model):
    """A dict that a forward pass fills: {name of BatchNorm: values a channel in its input}."""
    counts = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda module, inputs, _, name=name: counts.update({name: inputs[0].numel() // inputs[0].shape[1]})
            )
    return counts
