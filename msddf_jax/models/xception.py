"""Xception (Chollet, 2017) as its PyTorch port defines it: no padding in the first two convolutions, 2048 features."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers
from msddf_jax.models.layers import Linear
from msddf_jax.models.tap import Tap

# Of the ImageNet weights, and of DeepfakeBench.
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.5, 0.5, 0.5)


class Variant(NamedTuple):
    """Channels of the stem's two convolutions, the three entry blocks, the last block and the last two convolutions;
    number of middle blocks, which keep the last entry block's channels."""

    stem: tuple
    entry: tuple
    middle: int
    exit: tuple


# Mu is for tests.
VARIANTS = {
    "xception": Variant((32, 64), (128, 256, 728), 8, (1024, 1536, 2048)),
    "Mu": Variant((8, 16), (16, 24), 1, (32, 40, 48)),
}


class BlockPlan(NamedTuple):
    """One block: channels after each of its separable convolutions, stride, whether a ReLU comes first."""

    widths: tuple
    stride: int
    first_relu: bool


def block_plans(variant) -> list[BlockPlan]:
    """The `BlockPlan` of every block, in order; block_1 is the first. Raises ValueError for an unknown variant."""
    _, entry, middle, (last, _, _) = layers.get_variant(VARIANTS, variant, "Xception")
    plans = [BlockPlan((width, width), 2, index > 0) for index, width in enumerate(entry)]
    plans += [BlockPlan((entry[-1],) * 3, 1, True)] * middle
    return [*plans, BlockPlan((entry[-1], last), 2, True)]


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output, in their order.

    "stem" after both convolutions, "block_1" to "block_12", "sep_3" and "sep_4" after the last two convolutions; all
    but the blocks' after a ReLU. The stem has no padding, so maps may be smaller than the image over the stride.
    """
    (_, second), _, _, exit_widths = layers.get_variant(VARIANTS, variant, "Xception")
    out, stride = {"stem": (second, 2)}, 2
    for number, plan in enumerate(block_plans(variant), 1):
        stride *= plan.stride
        out[f"block_{number}"] = (plan.widths[-1], stride)
    return out | {f"sep_{n}": (width, stride) for n, width in zip((3, 4), exit_widths[1:], strict=True)}


class SeparableConv(nn.Module):
    """3x3 depthwise convolution, then a linear map of the channels: [B, H, W, C] -> [B, H, W, features].

    kernel_init: of the linear map; the default counts its outputs, so that few of them would start large.
    """

    features: int
    dtype: Any
    kernel_init: Any = conv.HE_NORMAL

    @nn.compact
    def __call__(self, x) -> jax.Array:
        x = conv.Depthwise(3, dtype=self.dtype, name="depthwise")(x)
        return Linear(self.features, self.dtype, self.kernel_init, use_bias=False, name="pointwise")(x)


class Block(nn.Module):
    """Separable convolutions beside a skip connection, which is a linear map where size or channels change."""

    plan: BlockPlan
    dtype: Any

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        widths, stride, first_relu = self.plan
        y = x
        for index, width in enumerate(widths):
            if index or first_relu:
                y = jax.nn.relu(y)
            y = SeparableConv(width, self.dtype, name=f"sep_{index}")(y)
            y = layers.batch_norm(train, self.dtype, f"norm_{index}")(y)
        if stride != 1:
            y = conv.max_pool(y, 3, stride, padding=1)
        if stride == 1 and x.shape[-1] == widths[-1]:
            return x + y
        skip = x[:, ::stride, ::stride]
        skip = Linear(widths[-1], self.dtype, conv.HE_NORMAL, use_bias=False, name="skip")(skip)
        return layers.batch_norm(train, self.dtype, "skip_norm")(skip) + y


def units(variant) -> tuple[str, ...]:
    """What `run` goes through, in order: "conv_1", the first convolution alone, and then `stages`."""
    return ("conv_1", *stages(variant))


def run(x, variant, names, train, dtype, *, stride=2, last_relu=True, after=None) -> dict[str, jax.Array]:
    """The map after each of `names`, from the map before the first of them.

    For use in a compact module, whose children the layers become under their own names.

    Args:
      x: [B, H, W, C]. variant: of `VARIANTS`. names: some of `units`, in their order. train: of the BatchNorms.
      stride: of the first convolution; with 1 it is padded and keeps the side of a map that is as small already.
      last_relu: whether "sep_4" ends with its ReLU. after: as of `Xception`.

    Returns:
      {name: [B, h, w, c] in `dtype`}.
    """
    stem, _, _, exit_widths = layers.get_variant(VARIANTS, variant, "Xception")
    plans, maps, after = block_plans(variant), {}, after or {}
    for name in names:
        kind, _, number = name.rpartition("_")
        if kind == "block":
            x = Block(plans[int(number) - 1], dtype, name=name)(x, train)
        elif kind == "sep":
            x = SeparableConv(exit_widths[int(number) - 2], dtype, name=name)(x)
        elif kind == "conv":
            x = conv.conv(stem[0], 3, dtype, name, stride=stride, padding=int(stride == 1))(x)
        else:
            x = conv.conv(stem[1], 3, dtype, "conv_2")(x)
        if kind != "block":
            x = layers.batch_norm(train, dtype, f"norm_{number if kind else 2}")(x)
            x = jax.nn.relu(x) if last_relu or name != "sep_4" else x
        maps[name] = x
        x = after[name](x) if name in after else x
    return maps


class Xception(nn.Module):
    """Xception without its classifier.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, at least 32; published at 299, in DeepfakeBench at 256.
      dtype: compute dtype; parameters and BatchNorm statistics stay float32.
      pixel_mean, pixel_std: of each channel, what the weights were trained with.
      in_channels: of the input; other than 3, see `layers.normalized`.
      without: numbers of blocks that are left out; the others keep their names (SPSL's shallow network).
      after: {stage of a block: function of its map}, what the next layer sees in the map's place (FFD's attention);
        `stages` keep the map as it was.
      last_relu: whether the last map ends with its ReLU; where a layer of the detector's own follows, it may not.

    There is no dropout: neither the ImageNet port nor DeepfakeBench's configuration has one.
    """

    variant: str
    image_size: int
    dtype: Any = jnp.float32
    pixel_mean: tuple = PIXEL_MEAN
    pixel_std: tuple = PIXEL_STD
    in_channels: int = 3
    without: tuple = ()
    after: Mapping | None = None
    last_relu: bool = True

    @nn.compact
    def __call__(self, images, *, train=False) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Features of a batch.

        Args:
          images: [B, image_size, image_size, in_channels] float, RGB in [0, 1]; normalised here.
          train: BatchNorm takes the batch's statistics and updates the running ones (collection batch_stats).

        Returns:
          dict: feature [B, 2048] float32, the mean of spatial; spatial [B, h, w, 2048] in `dtype`, after the last
          norm and ReLU, 8 x 8 at 256 and 10 x 10 at 299; stages, the maps that `stages` lists, in `dtype`.

        Raises:
          ValueError: unknown variant; images of another size or rank; `after` of a block that there is not. TypeError:
          images that are not floating point.
        """
        gone = {f"block_{number}" for number in self.without}
        names = [name for name in units(self.variant) if name not in gone]
        after, blocks = self.after or {}, [name for name in names if name.startswith("block")]
        if not set(after) <= set(blocks):
            raise ValueError(f"after is of {sorted(after)}; Xception {self.variant} has {', '.join(blocks)} here")
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        x = conv.normalized(images, self.image_size, *pixels, "Xception", in_channels=self.in_channels)
        maps = run(x, self.variant, names, train, self.dtype, after=after, last_relu=self.last_relu)
        maps.pop("conv_1")
        x = Tap(name="tap")(maps["sep_4"])
        return {"feature": conv.global_mean(x), "spatial": x, "stages": maps}
