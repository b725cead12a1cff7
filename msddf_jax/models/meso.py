"""Meso-4 and MesoInception-4 (Afchar et al., 2018), in the two forms that have published weights.

By default as the PyTorch port defines them, whose names DeepfakeBench has too. What it changed: convolutions of one
width share one BatchNorm, convolutions have no bias, the classifier has two outputs, and the inception branches have no
ReLU. `KERAS` undoes all but the classifier: the authors' own code, with the paper's 27,977 and 28,615 parameters.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers
from msddf_jax.models.layers import Linear
from msddf_jax.models.tap import Tap

# DeepfakeBench's.
PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.5, 0.5, 0.5)
DROPOUT = 0.5
LEAKY_SLOPE = 0.1
FEATURES = 16
# Fields of `Meso` that make the authors' form.
KERAS = {
    "shared_norm": False,
    "use_bias": True,
    "branch_relu": True,
    "channels_last": True,
    "norm_eps": 1e-3,
    "norm_momentum": 0.99,
}
# PyTorch's default, with which both are trained from nothing: uniform within 1 / sqrt(inputs).
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Variant(NamedTuple):
    """Widths of the four branches of each inception block; width, kernel side, BatchNorm where they share them, and
    pooling window of each convolution after them."""

    inception: tuple
    convs: tuple


VARIANTS = {
    "meso4": Variant((), ((8, 3, 1, 2), (8, 5, 1, 2), (16, 5, 2, 2), (16, 5, 2, 4))),
    "meso_inception4": Variant(((1, 4, 4, 2), (2, 4, 4, 2)), ((16, 5, 1, 2), (16, 5, 1, 4))),
}


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output, in their order.

    "inception_1" and so on, then "conv_1" and so on, each after its pooling.
    """
    inception, convs = layers.get_variant(VARIANTS, variant, "Meso")
    out, stride = {}, 1
    for number, widths in enumerate(inception, 1):
        stride *= 2
        out[f"inception_{number}"] = (sum(widths), stride)
    for number, (width, _, _, window) in enumerate(convs, 1):
        stride *= window
        out[f"conv_{number}"] = (width, stride)
    return out


class Inception(nn.Module):
    """Four branches side by side, BatchNorm, max-pool 2: a 1x1 convolution, and three of 1x1 then 3x3, whose 3x3 is
    dilated by 1, 2 and 3. [B, H, W, C] -> [B, H // 2, W // 2, sum of `widths`].

    relu: after each convolution. norm: of `layers.batch_norm`.
    """

    widths: tuple
    dtype: Any
    use_bias: bool
    relu: bool
    norm: Mapping

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        activate = jax.nn.relu if self.relu else lambda y: y
        linear = lambda width, name: Linear(width, self.dtype, UNIFORM, use_bias=self.use_bias, name=name)
        branches = [activate(linear(self.widths[0], "branch_1")(x))]
        for dilation, width in enumerate(self.widths[1:], 1):
            y = activate(linear(width, f"branch_{dilation + 1}_reduce")(x))
            settings = {"padding": dilation, "dilation": dilation, "kernel_init": UNIFORM, "use_bias": self.use_bias}
            branches.append(activate(conv.conv(width, 3, self.dtype, f"branch_{dilation + 1}", **settings)(y)))
        x = layers.batch_norm(train, self.dtype, "norm", **self.norm)(jnp.concatenate(branches, axis=-1))
        return conv.max_pool(x, 2, 2)


class Meso(nn.Module):
    """Meso-4 or MesoInception-4 without the last linear layer.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, at least 32; published at 256. The first linear layer has
        16 * (image_size // 32)^2 inputs, so weights fit one size in steps of 32.
      dtype: compute dtype; parameters and BatchNorm statistics stay float32.
      pixel_mean, pixel_std: of each channel, what the weights were trained with.
      in_channels: of the input; other than 3, see `layers.normalized`.
      shared_norm: convolutions of one width share one BatchNorm; else each has its own.
      use_bias: of the convolutions. branch_relu: after each convolution of the inception blocks.
      channels_last: order in which the first linear layer numbers its inputs; channels first where False.
      norm_eps, norm_momentum: of BatchNorm.
    """

    variant: str
    image_size: int
    dtype: Any = jnp.float32
    pixel_mean: tuple = PIXEL_MEAN
    pixel_std: tuple = PIXEL_STD
    in_channels: int = 3
    shared_norm: bool = True
    use_bias: bool = False
    branch_relu: bool = False
    channels_last: bool = False
    norm_eps: float = 1e-5
    norm_momentum: float = 0.9

    @nn.compact
    def __call__(self, images, *, train=False) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Features of a batch.

        Args:
          images: [B, image_size, image_size, in_channels] float, RGB in [0, 1]; normalised here.
          train: BatchNorm takes the batch's statistics and updates the running ones (collection batch_stats); dropout
            of one half before the first linear layer and on the feature (stream "dropout").

        Returns:
          dict: feature [B, 16] float32, after the first linear layer and its leaky ReLU; spatial [B, h, w, 16] in
          `dtype`, after the last pooling, 8 x 8 at 256; stages, the maps that `stages` lists, in `dtype`.

        Raises:
          ValueError: unknown variant; images of another size or rank. TypeError: images that are not floating point.
        """
        inception, convs = layers.get_variant(VARIANTS, self.variant, "Meso")
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        x = conv.normalized(images, self.image_size, *pixels, "Meso", in_channels=self.in_channels)
        stages, statistics = {}, {"epsilon": self.norm_eps, "momentum": self.norm_momentum}
        for number, widths in enumerate(inception, 1):
            name = f"inception_{number}"
            block = Inception(widths, self.dtype, self.use_bias, self.branch_relu, statistics, name=name)
            x = stages[name] = block(x, train)
        norms = {}
        for number, (width, kernel, shared, window) in enumerate(convs, 1):
            norm = shared if self.shared_norm else number
            if norm not in norms:
                norms[norm] = layers.batch_norm(train, self.dtype, f"norm_{norm}", **statistics)
            name = f"conv_{number}"
            settings = {"padding": kernel // 2, "kernel_init": UNIFORM, "use_bias": self.use_bias}
            x = conv.conv(width, kernel, self.dtype, name, **settings)(x)
            x = stages[name] = conv.max_pool(norms[norm](jax.nn.relu(x)), window, window)
        x = Tap(name="tap")(x)
        flat = (x if self.channels_last else x.transpose(0, 3, 1, 2)).reshape(x.shape[0], -1)
        drop = lambda y: nn.Dropout(DROPOUT, deterministic=not train)(y)
        feature = Linear(FEATURES, self.dtype, UNIFORM, name="fc_1")(drop(flat))
        feature = drop(jax.nn.leaky_relu(feature.astype(jnp.float32), LEAKY_SLOPE))
        return {"feature": feature, "spatial": x, "stages": stages}
