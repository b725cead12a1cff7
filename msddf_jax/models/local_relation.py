"""Local relation learning's parts: a high-pass, streams of EfficientNets, attention, likeness of patches, a decoder."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.models import conv, dct, efficientnet, layers
from msddf_jax.models.filters import luma, resize_corners

_HIGH = jax.lax.Precision.HIGHEST
# OpenCV's conversion of 8-bit RGB to grey: shares of 2 ** 15.
_GREY = (9798, 19235, 3735)
# The map starts as one half everywhere.
_MAP_INIT = nn.initializers.normal(0.01)


def high_pass(images, cut, rounded=False) -> jax.Array:
    """What the cosine transform's high frequencies make of an image's grey levels, [B, S, S, 1] float32 around 0.

    Args:
      images: RGB [B, S, S, 3] float in [0, 1]. cut: frequencies (i, j) with i + j < cut * S are left out.
      rounded: whether pixels and grey levels are whole numbers up to 255, as OpenCV makes them; the gradient is that
        of grey levels which are not.
    """
    grey = luma(images)
    if rounded:
        whole = jnp.round(255 * images.astype(jnp.float32)).astype(jnp.int32)
        levels = (sum(share * whole[..., i] for i, share in enumerate(_GREY)) + (1 << 14)) >> 15
        grey += jax.lax.stop_gradient(levels.astype(jnp.float32) / 255 - grey)
    size = images.shape[1]
    transform, kept = dct.matrix(size), dct.band(size, cut * size, 2 * size)
    spectrum = jnp.einsum("ih,bhw,jw->bij", transform, grey, transform, precision=_HIGH)
    return jnp.einsum("ih,bij,jw->bhw", transform, spectrum * kept, transform, precision=_HIGH)[..., None]


class Streams(nn.Module):
    """EfficientNets of one variant with weights of their own, run part by part.

    settings: of `efficientnet.run`. dtype: to compute in.
    """

    variant: str
    settings: Mapping
    dtype: Any

    @nn.compact
    def __call__(self, maps, names, train) -> dict[str, jax.Array]:
        """{stream: [B, H, W, C]} before the first of `names` (of `efficientnet.stages`) -> those after the last."""
        settings = (self.variant, self.settings, self.dtype)
        return {stream: _Part(*settings, name=stream)(x, names, train) for stream, x in maps.items()}


class _Part(nn.Module):
    """One EfficientNet, of which a call runs the units that it names."""

    variant: str
    settings: Mapping
    dtype: Any

    @nn.compact
    def __call__(self, x, names, train) -> jax.Array:
        return efficientnet.run(x, self.variant, names, train, self.dtype, **self.settings)[names[-1]]


class Attention(nn.Module):
    """Where to look in each of two maps [B, h, w, C], from both: weights [B, h, w, 2] float32 in (0, 1) (RFAM)."""

    dtype: Any

    @nn.compact
    def __call__(self, first, second, train) -> jax.Array:
        x = jnp.concatenate([first, second], axis=-1)
        x = layers.Linear(first.shape[-1], self.dtype, conv.HE_NORMAL, name="mix")(x)
        x = jax.nn.relu(layers.batch_norm(train, self.dtype, "norm")(x)).astype(jnp.float32)
        return jax.nn.sigmoid(conv.conv(2, 3, jnp.float32, "places", padding=1, use_bias=True)(x))


def to_grid(x, grid) -> jax.Array:
    """[B, h, w, C] -> [B, grid, grid, C] by the nearest cell above and left, as PyTorch's "nearest"."""
    rows, columns = (np.arange(grid) * side // grid for side in x.shape[1:3])
    return x[:, rows][:, :, columns]


def likeness(x) -> jax.Array:
    """(1 + cosine) / 2 of every two patches of 2 x 2 cells of [B, g, g, C]: [B, p, p] float32, p = (g / 2) ** 2."""
    batch, grid, _, width = x.shape
    patches = x.astype(jnp.float32).reshape(batch, grid // 2, 2, grid // 2, 2, width).transpose(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(batch, (grid // 2) ** 2, 4 * width)
    patches *= jax.lax.rsqrt((patches**2).sum(-1, keepdims=True) + 1e-12)
    return (1 + jnp.einsum("bik,bjk->bij", patches, patches, precision=_HIGH)) / 2


def of_others(likeness) -> jax.Array:
    """[B, p, p] -> [B, p (p - 1)]: row by row, without the diagonal."""
    count = likeness.shape[1]
    places = np.flatnonzero(~np.eye(count, dtype=bool))
    return likeness.reshape(-1, count * count)[:, places]


class Decoder(nn.Module):
    """[B, g, g, C] -> logits of a map [B, k g, k g, 1] float32, k = 2 ** (len(widths) + 1)."""

    widths: tuple
    dtype: Any

    @nn.compact
    def __call__(self, x) -> jax.Array:
        for number, width in enumerate(self.widths):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            for part in range(2):
                x = conv.conv(width, 3, self.dtype, f"conv_{number}_{part}", padding=1, use_bias=True)(x)
                x = jax.nn.relu(_instance_norm(x))
        x = layers.Linear(1, jnp.float32, _MAP_INIT, use_bias=False, name="out")(x)
        return resize_corners(x, (2 * x.shape[1], 2 * x.shape[2]))


def _instance_norm(x):
    """Each channel of each image less its mean, over its deviation; [B, h, w, C], computed in float32."""
    y = x.astype(jnp.float32)
    y = y - y.mean((1, 2), keepdims=True)
    return (y * jax.lax.rsqrt((y**2).mean((1, 2), keepdims=True) + 1e-5)).astype(x.dtype)
