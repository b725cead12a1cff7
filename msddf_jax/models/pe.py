"""The Perception Encoder's vision tower (PE-Core; Bolya et al., 2025), without its projection."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.models import layers, rope
from msddf_jax.models.attention import attend, split_heads
from msddf_jax.models.layers import Linear, Mlp, feed_forward, layer_norm
from msddf_jax.models.tap import Tap

PIXEL_MEAN = (0.5, 0.5, 0.5)
PIXEL_STD = (0.5, 0.5, 0.5)
POOL_HEADS = 8
_INIT = nn.initializers.truncated_normal(0.02)


class Variant(NamedTuple):
    """Sizes of one tower: width d, blocks, attention heads, patch side in pixels, tokens a side in pretraining."""

    width: int
    depth: int
    heads: int
    patch: int
    grid: int


# The releases' own resolutions are grid x patch: 384 (T, S), 224 (B) and 336 (L). Mu is for tests.
VARIANTS = {
    "Mu/8": Variant(64, 2, 2, 8, 6),
    "T/16": Variant(192, 12, 3, 16, 24),
    "S/16": Variant(384, 12, 6, 16, 24),
    "B/16": Variant(768, 12, 12, 16, 14),
    "L/14": Variant(1024, 24, 16, 14, 24),
}


def get_variant(name) -> Variant:
    """The `Variant` called `name`; ValueError where there is none."""
    return layers.get_variant(VARIANTS, name, "Perception Encoder")


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output: the patches after each block."""
    size = get_variant(variant)
    return {f"block_{index}": (size.width, size.patch) for index in range(size.depth)}


class Block(nn.Module):
    """Pre-LN transformer block [B, N, d] -> [B, N, d]; attention, remat_mlp: as the tower's."""

    heads: int
    depth: int
    dtype: Any
    attention: str = "auto"
    remat_mlp: bool = False

    @nn.compact
    def __call__(self, x, angles) -> jax.Array:
        attention = rope.Attention(self.heads, True, True, self.dtype, _INIT, self.attention, name="attn")
        x = x + attention(layer_norm(self.dtype, "ln_1")(x), angles)

        def half(block, x):
            return Mlp(block.depth, False, block.dtype, name="mlp")(layer_norm(block.dtype, "ln_2")(x))

        return x + feed_forward(self, x, half, self.remat_mlp)


class AttentionPool(nn.Module):
    """Tokens [B, N, d] to a vector [B, d]: one learned query attends to all of them, then an MLP."""

    depth: int
    dtype: Any

    @nn.compact
    def __call__(self, x) -> jax.Array:
        width = x.shape[-1]
        linear = lambda name: Linear(width, self.dtype, _INIT, name=name)
        latent = self.param("latent", nn.initializers.truncated_normal(width**-0.5), (width,), jnp.float32)
        split = lambda t: split_heads(t, POOL_HEADS)
        query = linear("query")(jnp.broadcast_to(latent.astype(self.dtype), (x.shape[0], 1, width)))
        y = linear("out")(attend(self, split(query), split(linear("key")(x)), split(linear("value")(x))))
        return (y + Mlp(self.depth, False, self.dtype, name="mlp")(layer_norm(self.dtype, "ln_mlp")(y)))[:, 0]


class VisionTransformer(nn.Module):
    """PE-Core's vision tower up to and including its attention pooling: what the projection to CLIP space sees.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, a multiple of the patch side. The learned positions have its
        grid; those of a release at another size are resampled. The rotary ones stretch by themselves.
      dtype: compute dtype; parameters, rotations, softmax and LayerNorm statistics stay float32.
      remat, remat_mlp: what the backward pass computes again, for memory: of `layers.remat_block`.
      attention: how it is computed, of `attention.KINDS`.
      pixel_mean, pixel_std: of the preprocessing the weights were trained with, RGB in [0, 1].
      in_channels: of the input; other than 3, see `layers.normalized`.

    Initial values follow timm's class, the MLPs CLIP's.
    """

    variant: str
    image_size: int
    dtype: Any = jnp.float32
    remat: bool = False
    pixel_mean: tuple = PIXEL_MEAN
    pixel_std: tuple = PIXEL_STD
    in_channels: int = 3
    remat_mlp: bool = False
    attention: str = "auto"

    @nn.compact
    def __call__(self, images, *, train=False) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Features of a batch.

        Args:
          images: [B, image_size, image_size, in_channels] float, RGB in [0, 1]; normalised here.
          train: changes nothing here; every backbone is called with it.

        Returns:
          dict: feature [B, d] float32; spatial [B, g, g, d], patch tokens that enter the last block, `dtype`;
          stages {"block_0": [B, g, g, d], ...}, the patch tokens after each block, no LayerNorm, `dtype`.

        Raises:
          ValueError: unknown variant; images of another size or rank; a size that is no multiple of the patch.
          TypeError: images that are not floating point.
        """
        del train
        width, depth, heads, patch, reference = get_variant(self.variant)
        name, pixels = f"Perception Encoder {self.variant}", (self.pixel_mean, self.pixel_std, self.dtype)
        grid = rope.grid_size(name, self.image_size, patch)
        images = layers.normalized(images, self.image_size, *pixels, name, in_channels=self.in_channels)
        kernel = self.param("patch_embed", _INIT, (patch, patch, self.in_channels, width), jnp.float32)
        tokens = layers.embed_patches(images, kernel, self.dtype)
        class_token = self.param("class_token", _INIT, (width,), jnp.float32).astype(self.dtype)
        first = jnp.broadcast_to(class_token, (images.shape[0], 1, width))
        positions = self.param("pos_embed", _INIT, (1 + grid * grid, width), jnp.float32)
        x = jnp.concatenate([first, tokens], axis=1) + positions.astype(self.dtype)
        x = layer_norm(self.dtype, "ln_pre")(x)
        angles = np.pad(rope.pe_angles(grid, reference, width // heads), ((1, 0), (0, 0)))
        block = layers.remat_block(Block, self.remat, self.remat_mlp)
        stages = {}
        for index in range(depth):
            if index == depth - 1:
                last = x = Tap(1, name="tap")(x)
            x = block(heads, depth, self.dtype, self.attention, name=f"block_{index}")(x, angles)
            stages[f"block_{index}"] = layers.as_grid(x, 1)
        x = layer_norm(self.dtype, "ln_post")(x)
        pooled = AttentionPool(depth, self.dtype, name="pool")(x)
        return {"feature": pooled.astype(jnp.float32), "spatial": layers.as_grid(last, 1), "stages": stages}
