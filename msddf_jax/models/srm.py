"""Residuals of the spatial rich model and the attention between two networks that SRM's detector is made of.

Filters: Fridrich and Kodovsky, "Rich Models for Steganalysis of Digital Images" (TIFS 2012). Attention: Luo et al.,
"Generalizing Face Forgery Detection with High-frequency Features" (CVPR 2021); within it, of channels and places, Woo
et al., "CBAM" (ECCV 2018).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.models import conv, layers

# Residuals are cut off at this; the images are in [-1, 1].
_CUT = 3.0
_SMALL = nn.initializers.variance_scaling(0.02**2, "fan_avg", "normal")


def kernels() -> np.ndarray:
    """[3, 5, 5] float32: KB / 4, KV / 12 and the second derivative along a row / 2."""
    edge = np.array([[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2]])
    found = np.zeros((3, 5, 5), np.float32)
    found[0, 1:4, 1:4] = np.array([[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]) / 4
    found[1] = np.stack([*edge, [-2, 8, -12, 8, -2], *edge[::-1]]) / 12
    found[2, 2, 1:4] = np.array([1, -2, 1]) / 2
    return found


def residual(x) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, 3] float32 in [-3, 3]: each of `kernels` on the sum of the channels, zeros outside."""
    return jnp.clip(_filtered(x.astype(jnp.float32).sum(-1, keepdims=True)), -_CUT, _CUT)[..., 0, :]


def residuals(x, grouped=False) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, 3 C] float32 in [-3, 3]: `kernels` on every channel, those of one side by side.

    grouped: as DeepfakeBench has them, output n with filter n // C, so that most channels have one filter three times.
    """
    found = jnp.clip(_filtered(x.astype(jnp.float32)), -_CUT, _CUT)
    if not grouped:
        return found.reshape(*x.shape[:3], -1)
    number = np.arange(3 * x.shape[-1])
    return found.reshape(*x.shape[:3], -1)[..., 3 * (number // 3) + number // x.shape[-1]]


def _filtered(x):
    """[B, H, W, C] -> [B, H, W, C, 3]: sums of shifted images, exact in float32 (`filters`)."""
    padded, total = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))), 0.0
    taps = kernels().reshape(3, 25)
    for tap, image in zip(taps.T, conv.shifted_images(padded, 5, 1), strict=True):
        total = total + image[..., None] * tap
    return total


def _largest(x, axis):
    """Maximum along an axis. The gradient of `jnp.max` divides by the number of entries that equal it, and is NaN where
    XLA computes x once more, with other rounding, and finds none."""
    return jnp.take_along_axis(x, jnp.argmax(x, axis, keepdims=True), axis).squeeze(axis)


class Residuals(nn.Module):
    """Features of the `residuals` of a map, as many as the map has channels: [B, H, W, C] -> [B, H, W, C]."""

    grouped: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        found = residuals(x, self.grouped).astype(self.dtype)
        out = layers.Linear(x.shape[-1], self.dtype, conv.HE_NORMAL, use_bias=False, name="out")(found)
        return jax.nn.relu(layers.batch_norm(train, self.dtype, "norm")(out))


class PlaceAttention(nn.Module):
    """Where to look, from the image of the residuals: [B, H, W, 3] -> [B, h, w, 1] float32 in (0, 1).

    h and w are those of the map after Xception's first two convolutions. features: after the two that are here.
    """

    features: tuple = (32, 64)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        x = residual(x).astype(self.dtype)
        for number, (width, stride) in enumerate(zip(self.features, (2, 1), strict=True), 1):
            x = conv.conv(width, 3, self.dtype, f"conv_{number}", stride=stride)(x)
            x = jax.nn.relu(layers.batch_norm(train, self.dtype, f"norm_{number}")(x))
        both = jnp.stack([x.mean(-1), _largest(x, -1)], axis=-1).astype(jnp.float32)
        return jax.nn.sigmoid(conv.conv(1, 7, jnp.float32, "out", padding=3)(both))


class ChannelAttention(nn.Module):
    """Which channels count: [B, H, W, C] -> [B, 1, 1, C] float32 in (0, 1), from their means and their maxima."""

    ratio: int = 16

    @nn.compact
    def __call__(self, x) -> jax.Array:
        width, x = x.shape[-1], x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])
        hidden = layers.Linear(width // self.ratio, kernel_init=_SMALL, use_bias=False, name="hidden")
        out = layers.Linear(width, kernel_init=_SMALL, use_bias=False, name="out")
        seen = sum(out(jax.nn.relu(hidden(pooled))) for pooled in (x.mean(1), _largest(x, 1)))
        return jax.nn.sigmoid(seen)[:, None, None]


class CrossAttention(nn.Module):
    """Adds to each of two maps what the other shows at the places that agree with it; nothing at initialisation.

    Agreement is the product of keys with a common last layer; a linear map over all places goes before the softmax, so
    that parameters depend on the maps' size. ratio: of channels to those of the keys.
    """

    ratio: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, y) -> tuple[jax.Array, jax.Array]:
        """x, y: [B, h, w, C] -> the same."""
        shape, places = x.shape, x.shape[1] * x.shape[2]
        linear = lambda width, name: layers.Linear(width, self.dtype, _SMALL, name=name)
        shared = linear(shape[-1] // self.ratio, "key_shared")
        tokens = [value.reshape(shape[0], places, -1) for value in (x, y)]
        keys = [shared(linear(shape[-1] // self.ratio, f"key_{n}")(value)) for n, value in enumerate(tokens, 1)]
        energy = jnp.einsum("bic,bjc->bij", *keys)
        out = []
        for number, (own, other) in enumerate(((x, tokens[1]), (y, tokens[0])), 1):
            turned = energy if number == 1 else energy.transpose(0, 2, 1)
            weights = jax.nn.softmax(linear(places, f"place_{number}")(turned).astype(jnp.float32)).astype(self.dtype)
            seen = jnp.einsum("bij,bjc->bic", weights, linear(shape[-1], f"value_{3 - number}")(other))
            gain = self.param(f"gain_{number}", nn.initializers.zeros, (), jnp.float32).astype(self.dtype)
            out.append(own + gain * seen.reshape(shape))
        return tuple(out)


class Fusion(nn.Module):
    """Two maps [B, h, w, C] as one [B, h, w, C], channels weighted: (x, y, train)."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, y, train) -> jax.Array:
        both = jnp.concatenate([x, y], axis=-1)
        both = layers.Linear(x.shape[-1], self.dtype, conv.HE_NORMAL, use_bias=False, name="join")(both)
        both = jax.nn.relu(layers.batch_norm(train, self.dtype, "norm")(both))
        return both * ChannelAttention(name="channels")(both).astype(self.dtype)
