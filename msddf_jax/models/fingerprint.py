"""UCF's parts: an encoder's map with fewer channels, its share, a head, and a decoder that joins style and content."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers
from msddf_jax.models.filters import resize_corners

_EPS = 1e-5


class Narrow(nn.Module):
    """[B, h, w, C] -> [B, h, w, width] >= 0: a linear map of the channels, its norm and a ReLU."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        x = layers.Linear(self.width, self.dtype, conv.HE_NORMAL, name="linear")(x)
        return jax.nn.relu(layers.batch_norm(train, self.dtype, "norm")(x))


class Share(nn.Module):
    """[B, h, w, C] -> [B, h, w, width]: three linear maps of the channels."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x) -> jax.Array:
        for number in range(3):
            x = jax.nn.leaky_relu(x) if number else x
            x = layers.Linear(self.width, self.dtype, conv.HE_NORMAL, name=f"linear_{number}")(x)
        return x


class Head(nn.Module):
    """[B, d] -> logits [B, classes] float32, with one hidden layer.

    dropout: in training, of the hidden layer; `late`: of the logits themselves, as DeepfakeBench has it.
    """

    hidden: int
    classes: int
    dropout: float
    late: bool

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x = jax.nn.leaky_relu(layers.Linear(self.hidden, name="hidden")(x))
        x = layers.Linear(self.classes, name="out")(x if self.late else drop(x))
        return drop(x) if self.late else x


def restyle(content, style) -> jax.Array:
    """Content whose mean and deviation over the places are the style's, channel by channel (AdaIN).

    content, style: [B, h, w, C]; the result has content's dtype. Source: Huang and Belongie, ICCV 2017, eq. 8.
    """
    mean, deviation = _moments(content)
    wanted, spread = _moments(style)
    return ((content.astype(jnp.float32) - mean) / deviation * spread + wanted).astype(content.dtype)


def _moments(x):
    """Mean and deviation over places, [B, 1, 1, C] float32; of n places the variance is over n - 1, as PyTorch's."""
    x = x.astype(jnp.float32)
    mean = x.mean((1, 2), keepdims=True)
    variance = ((x - mean) ** 2).sum((1, 2), keepdims=True) / max(x.shape[1] * x.shape[2] - 1, 1)
    return mean, jnp.sqrt(variance + _EPS)


class Decoder(nn.Module):
    """Images from content [B, h, w, C] and a style of that shape, in three stages of twice the side.

    widths: channels of the stages. dropout: in training, before each. The style goes through the same layers.
    """

    widths: tuple
    dropout: float
    dtype: Any

    @nn.compact
    def __call__(self, style, content, size, train) -> jax.Array:
        """[B, *size, 3] float32 in (-1, 1). size: (rows, columns). train: of the dropout."""
        drop, x = nn.Dropout(self.dropout, deterministic=not train), content
        for number, width in enumerate(self.widths):
            stage = _Stage(width, self.dtype, name=f"stage_{number}")
            x = stage(drop(_doubled(restyle(x, style))))
            if number + 1 < len(self.widths):
                style = stage(drop(_doubled(style)))
        image = layers.Linear(3, jnp.float32, conv.HE_NORMAL, name="image")(x)
        return jnp.tanh(resize_corners(image, size))


class _Stage(nn.Module):
    """Two convolutions of side 3, each with a ReLU."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(self, x) -> jax.Array:
        for number in range(2):
            x = conv.conv(self.width, 3, self.dtype, f"conv_{number}", padding=1, use_bias=True)(x)
            x = jax.nn.relu(x)
        return x


def _doubled(x):
    return resize_corners(x, (2 * x.shape[1], 2 * x.shape[2]))
