"""HRNet (Wang et al., 2019): four maps of different fineness side by side, exchanged again and again.

"Deep High-Resolution Representation Learning for Visual Recognition", arXiv 1908.07919; the code that published the
ImageNet weights is HRNet/HRNet-Image-Classification. Here without the layers of its classifier: what detectors read are
the four maps, the coarser ones brought to the finest, on one another (HRNetV2).
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers, resnet
from msddf_jax.models.layers import Linear
from msddf_jax.models.tap import Tap

# Of the ImageNet weights; DeepfakeBench gives its HRNet-W48 mean and deviation 0.5.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
# Pixels of the image that a cell of the coarsest map stands for.
COARSEST = 32


class Variant(NamedTuple):
    """stem: channels of the first two convolutions. bottlenecks: of stage 1, that give four times `stem`.

    width: channels of the finest map; each coarser one has twice as many. modules: of stages 2, 3 and 4, with two,
    three and four maps. blocks: of each map in each module.
    """

    stem: int
    bottlenecks: int
    width: int
    modules: tuple
    blocks: int


# Mu is for tests.
VARIANTS = {
    "W18": Variant(64, 4, 18, (1, 4, 3), 4),
    "W48": Variant(64, 4, 48, (1, 4, 3), 4),
    "Mu": Variant(8, 1, 8, (1, 1, 1), 1),
}


def widths(variant) -> tuple[int, int, int, int]:
    """Channels of the four maps, the finest first."""
    first = layers.get_variant(VARIANTS, variant, "HRNet").width
    return first, 2 * first, 4 * first, 8 * first


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output, in their order.

    "stem" after two convolutions; "stage_1"; the finest map behind "stage_2" and "stage_3"; all four behind the last
    stage, "map_4", "map_8", "map_16" and "map_32" by their strides; "joined", these four at the finest's places.
    """
    stem = layers.get_variant(VARIANTS, variant, "HRNet").stem
    own = widths(variant)
    out = {"stem": (stem, 4), "stage_1": (4 * stem, 4), "stage_2": (own[0], 4), "stage_3": (own[0], 4)}
    out |= {f"map_{4 << n}": (width, 4 << n) for n, width in enumerate(own)}
    return out | {"joined": (sum(own), 4)}


class Step(nn.Module):
    """A convolution of side 3, norm and, unless `relu` is False, ReLU."""

    width: int
    stride: int
    dtype: Any
    relu: bool = True

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        y = conv.conv(self.width, 3, self.dtype, "conv", stride=self.stride, padding=1)(x)
        y = layers.batch_norm(train, self.dtype, "norm")(y)
        return jax.nn.relu(y) if self.relu else y


class Exchange(nn.Module):
    """A module of a stage: residual blocks on each map, then each map takes the sum of all.

    A coarser map is mapped to the finer one's channels and its cells are repeated; a finer one is halved, convolution
    by convolution, and gets the coarser one's channels with the last.
    """

    widths: tuple
    blocks: int
    dtype: Any

    @nn.compact
    def __call__(self, maps, train) -> list[jax.Array]:
        own = []
        for number, (x, width) in enumerate(zip(maps, self.widths, strict=True)):
            for index in range(self.blocks):
                x = resnet.Block(width, 1, self.dtype, name=f"map_{number}_{index}")(x, train)
            own.append(x)
        return [jax.nn.relu(sum(self._brought(x, n, to, train) for n, x in enumerate(own))) for to in range(len(own))]

    def _brought(self, x, number, to, train):
        """Map `number` as map `to` takes it."""
        name, width = f"from_{number}_to_{to}", self.widths[to]
        if number > to:
            x = Linear(width, self.dtype, conv.HE_NORMAL, use_bias=False, name=name)(x)
            x = layers.batch_norm(train, self.dtype, f"{name}_norm")(x)
            return x.repeat(1 << (number - to), axis=1).repeat(1 << (number - to), axis=2)
        for index in range(to - number):
            last = index == to - number - 1
            features = width if last else self.widths[number]
            x = Step(features, 2, self.dtype, relu=not last, name=f"{name}_{index}")(x, train)
        return x


class HRNet(nn.Module):
    """HRNet without its classifier.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, a multiple of 32; published at 224, in DeepfakeBench at 256.
      dtype: compute dtype; parameters and BatchNorm statistics stay float32.
      pixel_mean, pixel_std: of each channel, what the weights were trained with.
      in_channels: of the input; other than 3, see `layers.normalized`.
    """

    variant: str
    image_size: int
    dtype: Any = jnp.float32
    pixel_mean: tuple = PIXEL_MEAN
    pixel_std: tuple = PIXEL_STD
    in_channels: int = 3

    @nn.compact
    def __call__(self, images, *, train=False) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Features of a batch.

        Args:
          images: [B, image_size, image_size, in_channels] float, RGB in [0, 1]; normalised here.
          train: BatchNorm takes the batch's statistics and updates the running ones (collection batch_stats).

        Returns:
          dict: feature [B, 15 * width] float32, the mean of spatial; spatial [B, h, w, 15 * width] in `dtype`, the four
          maps on one another, the coarser ones linearly enlarged: 64 x 64 x 720 of W48 at 256; stages, the maps that
          `stages` lists, in `dtype`.

        Raises:
          ValueError: unknown variant; a side that 32 does not divide; images of another size or rank.
          TypeError: images that are not floating point.
        """
        plan, own = layers.get_variant(VARIANTS, self.variant, "HRNet"), widths(self.variant)
        if self.image_size % COARSEST:
            raise ValueError(f"HRNet needs an image_size that {COARSEST} divides, got {self.image_size}")
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        x = conv.normalized(images, self.image_size, *pixels, "HRNet", in_channels=self.in_channels)
        for number in (1, 2):
            x = conv.conv(plan.stem, 3, self.dtype, f"conv_{number}", stride=2, padding=1)(x)
            x = jax.nn.relu(layers.batch_norm(train, self.dtype, f"norm_{number}")(x))
        kept = {"stem": x}
        for index in range(plan.bottlenecks):
            x = resnet.Bottleneck(plan.stem, 1, self.dtype, name=f"stage_1_{index}")(x, train)
        kept["stage_1"] = x
        maps = [Step(own[0], 1, self.dtype, name="enter_0")(x, train)]
        for stage, modules in enumerate(plan.modules, 2):
            # The new map comes of the coarsest there is; the first of them of stage 1.
            coarsest = x if stage == 2 else maps[-1]
            maps.append(Step(own[stage - 1], 2, self.dtype, name=f"enter_{stage - 1}")(coarsest, train))
            for index in range(modules):
                module = Exchange(own[:stage], plan.blocks, self.dtype, name=f"stage_{stage}_{index}")
                maps = module(maps, train)
            kept[f"stage_{stage}"] = maps[0]
        kept.pop("stage_4")
        kept |= {f"map_{4 << number}": value for number, value in enumerate(maps)}
        side = maps[0].shape[1]
        enlarge = lambda m: jax.image.resize(m, (m.shape[0], side, side, m.shape[3]), "linear")
        x = Tap(name="tap")(jnp.concatenate([maps[0], *map(enlarge, maps[1:])], axis=-1))
        return {"feature": conv.global_mean(x), "spatial": x, "stages": kept | {"joined": x}}
