"""VGG-19 (Simonyan and Zisserman, 2015) up to its third max-pool, as torchvision defines it: no BatchNorm."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers
from msddf_jax.models.tap import Tap

# Of the ImageNet weights; DeepfakeBench gives its VGG-19 mean and deviation 0.5.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


class Variant(NamedTuple):
    """Channels and number of convolutions of each stage."""

    widths: tuple
    depths: tuple


# Mu is for tests.
VARIANTS = {
    "vgg19": Variant((64, 128, 256), (2, 2, 4)),
    "Mu": Variant((8, 16, 32), (1, 1, 2)),
}


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output: "stage_1" and so on, each pooled."""
    widths = layers.get_variant(VARIANTS, variant, "VGG").widths
    return {f"stage_{number}": (width, 1 << number) for number, width in enumerate(widths, 1)}


class VGG(nn.Module):
    """The first three stages of VGG, each of 3x3 convolutions with ReLUs and a max-pool of 2.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, at least 32; published at 224, in DeepfakeBench at 256.
      dtype: compute dtype; parameters stay float32.
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
          train: makes no difference: these stages have neither BatchNorm nor dropout.

        Returns:
          dict: feature [B, 256] float32, the mean of spatial; spatial [B, h, w, 256] in `dtype`, 32 x 32 at 256;
          stages, the maps that `stages` lists, in `dtype`.

        Raises:
          ValueError: unknown variant; images of another size or rank. TypeError: images that are not floating point.
        """
        del train
        widths, depths = layers.get_variant(VARIANTS, self.variant, "VGG")
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        x = conv.normalized(images, self.image_size, *pixels, "VGG", in_channels=self.in_channels)
        stages = {}
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
            for index in range(depth):
                x = conv.conv(width, 3, self.dtype, f"conv_{stage}_{index}", padding=1, use_bias=True)(x)
                x = jax.nn.relu(x)
            x = stages[f"stage_{stage}"] = conv.max_pool(x, 2, 2)
        x = Tap(name="tap")(x)
        return {"feature": conv.global_mean(x), "spatial": x, "stages": stages}
