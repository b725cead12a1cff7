"""DINOv3's vision transformer (Siméoni et al., 2025): rotary positions, register tokens, LayerScale."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.models import layers, rope
from msddf_jax.models.layers import MLP_RATIO, Linear, feed_forward, layer_norm
from msddf_jax.models.tap import Tap

# ImageNet's statistics, RGB in [0, 1]: what the LVD-1689M checkpoints were trained with. Those of SAT-493M have others.
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)
REGISTERS = 4
_INIT = nn.initializers.truncated_normal(0.02)


class Variant(NamedTuple):
    """Sizes of one tower: width d, number of blocks, attention heads, patch side in pixels, gated MLP or not."""

    width: int
    depth: int
    heads: int
    patch: int
    gated: bool = False


# Mu is for tests.
VARIANTS = {
    "Mu/8": Variant(64, 2, 2, 8),
    "Mu+/8": Variant(64, 2, 2, 8, gated=True),
    "S/16": Variant(384, 12, 6, 16),
    "S+/16": Variant(384, 12, 6, 16, gated=True),
    "B/16": Variant(768, 12, 12, 16),
    "L/16": Variant(1024, 24, 16, 16),
}


def get_variant(name) -> Variant:
    """The `Variant` called `name`; ValueError where there is none."""
    return layers.get_variant(VARIANTS, name, "DINOv3")


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output: the patches after each block."""
    size = get_variant(variant)
    return {f"block_{index}": (size.width, size.patch) for index in range(size.depth)}


class Mlp(nn.Module):
    """Two linear maps around exact GELU, or SwiGLU where `gated`: [B, N, d] -> [B, N, d]."""

    gated: bool
    dtype: Any

    @nn.compact
    def __call__(self, x) -> jax.Array:
        width = x.shape[-1]
        hidden = Linear(MLP_RATIO * width, self.dtype, _INIT, name="fc_1")(x)
        if self.gated:
            hidden = hidden * jax.nn.silu(Linear(MLP_RATIO * width, self.dtype, _INIT, name="gate")(x))
        else:
            hidden = jax.nn.gelu(hidden, approximate=False)
        return Linear(width, self.dtype, _INIT, name="fc_2")(hidden)


class Block(nn.Module):
    """Pre-LN transformer block with LayerScale: [B, N, d] -> [B, N, d]; attention, remat_mlp: as the tower's."""

    heads: int
    gated: bool
    dtype: Any
    attention: str = "auto"
    remat_mlp: bool = False

    @nn.compact
    def __call__(self, x, angles) -> jax.Array:
        scale = lambda name: self.param(name, nn.initializers.ones, x.shape[-1:], jnp.float32).astype(self.dtype)
        attention = rope.Attention(self.heads, False, False, self.dtype, _INIT, self.attention, name="attn")
        x = x + scale("scale_1") * attention(layer_norm(self.dtype, "ln_1")(x), angles)

        def half(block, x):
            return Mlp(block.gated, block.dtype, name="mlp")(layer_norm(block.dtype, "ln_2")(x))

        return x + scale("scale_2") * feed_forward(self, x, half, self.remat_mlp)


class VisionTransformer(nn.Module):
    """DINOv3's backbone; the feature is the class token after the last LayerNorm.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, any multiple of the patch side: no parameter depends on it.
      dtype: compute dtype; parameters, rotations, softmax and LayerNorm statistics stay float32.
      remat, remat_mlp: what the backward pass computes again, for memory: of `layers.remat_block`.
      attention: how it is computed, of `attention.KINDS`.
      pixel_mean, pixel_std: of the preprocessing the weights were trained with, RGB in [0, 1].
      in_channels: of the input; other than 3, see `layers.normalized`.

    Initial values follow Hugging Face's class. The random stretching of coordinates in pretraining is left out, and so
    is the mask token, which only pretraining uses.
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
        width, depth, heads, patch, gated = get_variant(self.variant)
        grid = rope.grid_size(f"DINOv3 {self.variant}", self.image_size, patch)
        x = self._embed(images, patch, width)
        angles = np.pad(rope.dinov3_angles(grid, width // heads), ((1 + REGISTERS, 0), (0, 0)))
        block = layers.remat_block(Block, self.remat, self.remat_mlp)
        stages = {}
        for index in range(depth):
            if index == depth - 1:
                last = x = Tap(1 + REGISTERS, name="tap")(x)
            x = block(heads, gated, self.dtype, self.attention, name=f"block_{index}")(x, angles)
            stages[f"block_{index}"] = layers.as_grid(x, 1 + REGISTERS)
        x = layer_norm(jnp.float32, "ln_post")(x)
        return {"feature": x[:, 0], "spatial": layers.as_grid(last, 1 + REGISTERS), "stages": stages}

    def _embed(self, images, patch, width):
        """Images to [B, 1 + 4 + N, d]: class token, registers, patches."""
        kernel = self.param("patch_embed", _INIT, (patch, patch, self.in_channels, width), jnp.float32)
        bias = self.param("patch_embed_bias", nn.initializers.zeros, (width,), jnp.float32)
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        images = layers.normalized(
            images, self.image_size, *pixels, f"DINOv3 {self.variant}", in_channels=self.in_channels
        )
        tokens = layers.embed_patches(images, kernel, self.dtype)
        class_token = self.param("class_token", _INIT, (width,), jnp.float32)
        registers = self.param("register_tokens", _INIT, (REGISTERS, width), jnp.float32)
        prefix = jnp.concatenate([class_token[None], registers]).astype(self.dtype)
        prefix = jnp.broadcast_to(prefix, (images.shape[0], *prefix.shape))
        return jnp.concatenate([prefix, tokens + bias.astype(self.dtype)], axis=1)
