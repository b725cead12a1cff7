"""RECCE's parts: a decoder of images, what it decodes gathered on the encoder's map, attention where it fails."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import conv, layers, xception
from msddf_jax.models.filters import resize_corners


class Decoder(nn.Module):
    """[B, h, w, C] -> maps of twice and four times the side, and an image [B, 8 h, 8 w, 3] float32 in (-1, 1)."""

    widths: tuple
    dtype: Any

    @nn.compact
    def __call__(self, x, train) -> tuple[jax.Array, jax.Array, jax.Array]:
        maps = []
        for number, width in enumerate(self.widths):
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = xception.SeparableConv(width, self.dtype, name=f"sep_{number}")(x)
            x = jax.nn.relu(layers.batch_norm(train, self.dtype, f"norm_{number}")(x))
            if number < 2:
                plan = xception.BlockPlan((width,) * 3, 1, True)
                x = xception.Block(plan, self.dtype, name=f"block_{number}")(x, train)
                maps.append(x)
        image = layers.Linear(3, jnp.float32, conv.HE_NORMAL, use_bias=False, name="image")(x)
        return *maps, jnp.tanh(image)


class Graph(nn.Module):
    """What the cells of two finer maps that lie in each cell of a map add to it: [B, h, w, C] -> the same.

    A fine cell's weight among its fellows comes from its embedding beside the coarse cell's; a gate of the coarse cell
    says how much of their sum it takes.
    """

    nodes: int
    dtype: Any

    @nn.compact
    def __call__(self, x, first, second) -> jax.Array:
        linear = lambda width, name: layers.Linear(width, self.dtype, conv.HE_NORMAL, use_bias=False, name=name)
        embed = lambda y, name: linear(self.nodes, f"{name}_1")(jax.nn.relu(linear(self.nodes, f"{name}_0")(y)))
        own, gathered = embed(x, "own"), []
        for name, fine in (("first", first), ("second", second)):
            cells = embed(_inside(fine, x.shape[1:3]), name)
            both = jnp.concatenate([jnp.broadcast_to(own[:, :, :, None], cells.shape), cells], axis=-1)
            weight = jax.nn.softmax(jax.nn.relu(linear(1, f"{name}_weight")(both)).astype(jnp.float32), axis=3)
            gate = 1 - jax.nn.sigmoid(linear(self.nodes, f"{name}_gate")(x))
            gathered.append((weight.astype(self.dtype) * cells).sum(3) * gate)
        joined = jax.nn.sigmoid(jnp.concatenate([*gathered, own], axis=-1))
        joined = jax.nn.relu(linear(x.shape[-1], "back_0")(joined))
        return linear(x.shape[-1], "back_1")(joined)


def _inside(fine, size):
    """[B, h k, w k, C] -> [B, h, w, k k, C]: the cells that lie in each, row by row."""
    (rows, columns), (batch, height, _, width) = size, fine.shape
    side = height // rows
    cut = fine.reshape(batch, rows, side, columns, side, width).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(batch, rows, columns, side * side, width)


class Guided(nn.Module):
    """A map [B, h, w, C], its channels mixed, times where an image is unlike its reconstruction: [B, S, S, 3]."""

    dtype: Any

    @nn.compact
    def __call__(self, x, unlike, train) -> jax.Array:
        y = conv.conv(3, 3, jnp.float32, "unlike", padding=1)(resize_corners(unlike, x.shape[1:3]))
        y = layers.Linear(1, jnp.float32, conv.HE_NORMAL, use_bias=False, name="place")(jax.nn.relu(y))
        mixed = layers.Linear(x.shape[-1], self.dtype, conv.HE_NORMAL, use_bias=False, name="mix")(x)
        mixed = jax.nn.relu(layers.batch_norm(train, self.dtype, "norm")(mixed))
        return jax.nn.sigmoid(y).astype(self.dtype) * mixed
