"""EfficientNet B0 to B7 (Tan and Le, 2019) and Lite0 to Lite4, in the three paddings that published weights ask for.

Lite (2020, for phones): ReLU6 in place of SiLU, no squeeze and excitation, and neither the widths of stem and head nor
the depths of the first and last stage are scaled.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers
from msddf_jax.models.layers import Linear
from msddf_jax.models.tap import Tap

# Of the ImageNet weights; those trained with AdvProp, TensorFlow's Lite and DeepfakeBench's take 0.5 or near it, SBI's
# official ones 0 and 1.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
# Of the widths: every number of channels is a multiple.
WIDTH_STEP = 8
SQUEEZE = 4
STEM_WIDTH = 32
HEAD_WIDTH = 1280
# Published with every size; the rate grows linearly from 0 in the first block.
DROP_CONNECT = 0.2


class Variant(NamedTuple):
    """Factors of B0's widths and depths, published image side, dropout before the classifier, whether it is a Lite."""

    width: float
    depth: float
    resolution: int
    dropout: float
    lite: bool = False


# Mu is for tests.
VARIANTS = {
    "B0": Variant(1.0, 1.0, 224, 0.2),
    "B1": Variant(1.0, 1.1, 240, 0.2),
    "B2": Variant(1.1, 1.2, 260, 0.3),
    "B3": Variant(1.2, 1.4, 300, 0.3),
    "B4": Variant(1.4, 1.8, 380, 0.4),
    "B5": Variant(1.6, 2.2, 456, 0.4),
    "B6": Variant(1.8, 2.6, 528, 0.5),
    "B7": Variant(2.0, 3.1, 600, 0.5),
    "Lite0": Variant(1.0, 1.0, 224, 0.2, lite=True),
    "Lite1": Variant(1.0, 1.1, 240, 0.2, lite=True),
    "Lite2": Variant(1.1, 1.2, 260, 0.3, lite=True),
    "Lite3": Variant(1.2, 1.4, 280, 0.3, lite=True),
    "Lite4": Variant(1.4, 1.8, 300, 0.3, lite=True),
    "Mu": Variant(0.25, 0.3, 64, 0.0),
}


class BlockPlan(NamedTuple):
    """One block: expansion of the channels, side of the depthwise kernel, stride, channels before and after."""

    expand: int
    kernel: int
    stride: int
    before: int
    after: int


# B0's stages: blocks, expansion, kernel, stride of the first block, channels. Source: the paper's table 1.
STAGES = (
    (1, 1, 3, 1, 16),
    (2, 6, 3, 2, 24),
    (2, 6, 5, 2, 40),
    (3, 6, 3, 2, 80),
    (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192),
    (1, 6, 3, 1, 320),
)
PADDINGS = ("same", "static", "symmetric")


def scale_width(channels, factor) -> int:
    """`channels` times `factor`, rounded to the nearest multiple of 8 that is not below 90 % of it."""
    wanted = channels * factor
    rounded = max(WIDTH_STEP, int(wanted + WIDTH_STEP / 2) // WIDTH_STEP * WIDTH_STEP)
    return rounded + WIDTH_STEP if rounded < 0.9 * wanted else rounded


def end_widths(variant) -> tuple[int, int]:
    """(channels of the stem, of the head). Raises ValueError for an unknown variant."""
    width, *_, lite = layers.get_variant(VARIANTS, variant, "EfficientNet")
    return tuple(scale_width(channels, 1.0 if lite else width) for channels in (STEM_WIDTH, HEAD_WIDTH))


def stage_plans(variant) -> list[list[BlockPlan]]:
    """For each of the seven stages the list of its `BlockPlan`s. Raises ValueError for an unknown variant."""
    width, depth, _, _, lite = layers.get_variant(VARIANTS, variant, "EfficientNet")
    before, stages = end_widths(variant)[0], []
    for number, (blocks, expand, kernel, stride, channels) in enumerate(STAGES):
        after = scale_width(channels, width)
        fixed = lite and number in (0, len(STAGES) - 1)
        stage = [BlockPlan(expand, kernel, stride, before, after)]
        stage += [BlockPlan(expand, kernel, 1, after, after)] * (math.ceil(blocks * (1.0 if fixed else depth)) - 1)
        stages.append(stage)
        before = after
    return stages


def same_padding(size, kernel, stride) -> tuple[int, int]:
    """(before, after) pixels with which a side of `size` gives ceil(size / stride): TensorFlow's "SAME"."""
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output, in their order.

    "stem", every block from "block_0" on, "head" after the last activation. B4's last block of each width is 1, 5, 9,
    15, 21, 29 and 31.
    """
    stem, head = end_widths(variant)
    out, stride = {"stem": (stem, 2)}, 2
    for index, plan in enumerate(plan for stage in stage_plans(variant) for plan in stage):
        stride *= plan.stride
        out[f"block_{index}"] = (plan.after, stride)
    return out | {"head": (head, stride)}


class Block(nn.Module):
    """Inverted bottleneck: widen, depthwise convolution, squeeze and excitation, narrow; skip where shapes allow.

    padding: ((top, bottom), (left, right)) of the depthwise convolution. drop: probability in training that an
    image takes the skip connection only. lite: ReLU6, and no squeeze and excitation.
    """

    plan: BlockPlan
    padding: tuple
    epsilon: float
    momentum: float
    drop: float
    dtype: Any
    lite: bool = False

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        expand, kernel, stride, before, after = self.plan
        norm = lambda name: layers.batch_norm(train, self.dtype, name, epsilon=self.epsilon, momentum=self.momentum)
        linear = lambda features, name, **kw: Linear(features, self.dtype, conv.HE_NORMAL, name=name, **kw)
        activate = jax.nn.relu6 if self.lite else jax.nn.silu
        y = x
        if expand != 1:
            y = activate(norm("norm_0")(linear(expand * before, "expand", use_bias=False)(y)))
        y = conv.Depthwise(kernel, stride, self.padding, self.dtype, name="depthwise")(y)
        y = activate(norm("norm_1")(y))
        if not self.lite:
            # Squeezed channels are counted from the block's input, before it is widened.
            squeezed = jax.nn.silu(linear(max(1, before // SQUEEZE), "se_reduce")(conv.global_mean(y)))
            y = y * jax.nn.sigmoid(linear(expand * before, "se_expand")(squeezed))[:, None, None]
        y = norm("norm_2")(linear(after, "project", use_bias=False)(y))
        if stride != 1 or before != after:
            return y
        # One draw an image.
        return x + nn.Dropout(self.drop, broadcast_dims=(1, 2, 3), deterministic=not train)(y)


def _published_sides(variant):
    """{unit: side of its input at the published resolution}, of `stages`."""
    side, out = VARIANTS[variant].resolution, {}
    strides = [2, *(plan.stride for stage in stage_plans(variant) for plan in stage), 1]
    for name, stride in zip(stages(variant), strides, strict=True):
        out[name] = side
        side = math.ceil(side / stride)
    return out


def _pads(x, padding, published, kernel, stride):
    """((top, bottom), (left, right)) of a convolution of `x`, whose published side would be `published`."""
    if padding == "symmetric":
        return conv.symmetric(kernel // 2)
    sides = x.shape[1:3] if padding == "same" else (published, published)
    return tuple(same_padding(side, kernel, stride) for side in sides)


def run(
    x,
    variant,
    names,
    train,
    dtype,
    *,
    padding="static",
    stem_padding=None,
    norm_eps=1e-3,
    norm_momentum=0.99,
    drop_connect=0.0,
    end_activation=True,
    after=None,
) -> dict[str, jax.Array]:
    """The map after each of `names`, from the map before the first of them.

    For use in a compact module, whose children the layers become under their own names.

    Args:
      x: [B, H, W, C]. variant: of `VARIANTS`. names: some of `stages`, in their order. train: of BatchNorm and of
        skipped blocks. **: as of `EfficientNet`.

    Returns:
      {name: [B, h, w, c] in `dtype`}.

    Raises ValueError for an unknown variant or padding.
    """
    plans = [plan for stage in stage_plans(variant) for plan in stage]
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, got {padding!r}")
    lite, (stem, head), published = VARIANTS[variant].lite, end_widths(variant), _published_sides(variant)
    activate = jax.nn.relu6 if lite else jax.nn.silu
    at_ends = activate if end_activation else lambda x: x
    norm = lambda name: layers.batch_norm(train, dtype, name, epsilon=norm_eps, momentum=norm_momentum)
    maps, after = {}, after or {}
    for name in names:
        if name == "stem":
            pads = _pads(x, padding, published[name], 3, 2) if stem_padding is None else stem_padding
            x = conv.conv(stem, 3, dtype, name, stride=2, padding=pads)(x)
            x = at_ends(norm("stem_norm")(x))
        elif name == "head":
            x = Linear(head, dtype, conv.HE_NORMAL, use_bias=False, name=name)(x)
            x = at_ends(norm("head_norm")(x))
        else:
            index = int(name.removeprefix("block_"))
            plan = plans[index]
            pads = _pads(x, padding, published[name], plan.kernel, plan.stride)
            drop = drop_connect * index / len(plans)
            x = Block(plan, pads, norm_eps, norm_momentum, drop, dtype, lite, name=name)(x, train)
        maps[name] = x
        x = after[name](x) if name in after else x
    return maps


class EfficientNet(nn.Module):
    """EfficientNet without its classifier.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, at least 32; published ones in `VARIANTS`.
      dtype: compute dtype; parameters and BatchNorm statistics stay float32.
      pixel_mean, pixel_std: of each channel, what the weights were trained with.
      in_channels: of the input; other than 3, see `layers.normalized`.
      padding: "same" = TensorFlow's, found from the image (timm's tf_efficientnet_*); "static" = the same, found once
        from the variant's published resolution whatever the image is (efficientnet_pytorch, and with it SBI and
        DeepfakeBench); "symmetric" = half the kernel on each side (timm's efficientnet_*).
      stem_padding: None = as `padding` says; pixels on each side otherwise. DeepfakeBench replaces the stem
        convolution by a new one with 0, so the ImageNet weights of the stem are lost there.
      norm_eps, norm_momentum: of BatchNorm. 1e-3 and 0.99 in TensorFlow, efficientnet_pytorch; 1e-5 and 0.9 in timm's
        efficientnet_*, 1e-3 and 0.9 in its tf_efficientnet_*.
      dropout: of the feature in training; the published rates are in `VARIANTS`, DeepfakeBench has none.
      drop_connect: probability that the last block is skipped in training, growing linearly from 0 in the first;
        published, and in efficientnet_pytorch, SBI and DeepfakeBench: `DROP_CONNECT`. Both draw from the stream
        "dropout".
      after: {stage of a block: function of its map}, what the next block sees in the map's place, as in `xception`;
        `stages` keep the map as it was.
      end_activation: whether stem and head have their activation; DeepfakeBench's multi_attention leaves both out.
    """

    variant: str
    image_size: int
    dtype: Any = jnp.float32
    pixel_mean: tuple = PIXEL_MEAN
    pixel_std: tuple = PIXEL_STD
    padding: str = "static"
    stem_padding: int | None = None
    norm_eps: float = 1e-3
    norm_momentum: float = 0.99
    dropout: float = 0.0
    drop_connect: float = 0.0
    in_channels: int = 3
    after: Mapping | None = None
    end_activation: bool = True

    @nn.compact
    def __call__(self, images, *, train=False) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Features of a batch.

        Args:
          images: [B, image_size, image_size, in_channels] float, RGB in [0, 1]; normalised here.
          train: BatchNorm takes the batch's statistics and updates the running ones (collection batch_stats); dropout
            and skipped blocks, where their rates are not 0.

        Returns:
          dict: feature [B, d] float32, the mean of spatial (after dropout in training); spatial [B, h, w, d] in
          `dtype`, after the last activation; stages, the maps that `stages` lists, in `dtype`. d is 1280 for B0 and
          every Lite, 1792 for B4.

        Raises:
          ValueError: unknown variant or padding; images of another size or rank; `after` of a block that there is not.
          TypeError: images that are not floating point.
        """
        names = list(stages(self.variant))
        after, blocks = self.after or {}, names[1:-1]
        if not set(after) <= set(blocks):
            raise ValueError(f"after is of {sorted(after)}; EfficientNet {self.variant} has block_0 to {blocks[-1]}")
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        x = conv.normalized(images, self.image_size, *pixels, "EfficientNet", in_channels=self.in_channels)
        maps = run(
            x,
            self.variant,
            names,
            train,
            self.dtype,
            padding=self.padding,
            stem_padding=self.stem_padding,
            norm_eps=self.norm_eps,
            norm_momentum=self.norm_momentum,
            drop_connect=self.drop_connect,
            end_activation=self.end_activation,
            after=after,
        )
        x = maps["head"] = Tap(name="tap")(maps["head"])
        feature = nn.Dropout(self.dropout, deterministic=not train)(conv.global_mean(x))
        return {"feature": feature, "spatial": x, "stages": maps}
