"""CLIP's vision transformer (Radford et al., 2021) without its projection; sizes, and token injection.

The plain ViT (Dosovitskiy et al., 2021; AugReg, DeiT) is the same tower with `PLAIN_VIT`'s settings.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import layers
from msddf_jax.models.attention import attend, split_heads
from msddf_jax.models.layers import LAYER_NORM_EPS, Linear, Mlp, feed_forward, layer_norm
from msddf_jax.models.tap import Tap

# Mean and standard deviation of OpenAI's CLIP preprocessing, RGB in [0, 1].
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
# (first, end) of the tokens that a block is asked for.
ALL = (0, None)
# Fields of `VisionTransformer` that make it a plain ViT as timm builds it.
PLAIN_VIT = {"quick_gelu": False, "use_pre_norm": False, "patch_bias": True, "norm_eps": 1e-6}


class Variant(NamedTuple):
    """Sizes of one tower: width d, number of blocks, attention heads, patch side in pixels."""

    width: int
    depth: int
    heads: int
    patch: int


# B/32, B/16 and L/14 are OpenAI's, H/14 is LAION's; Ti, S and L/16 are sizes of the plain ViT (no CLIP weights exist
# for them); Mu is for tests.
VARIANTS = {
    "Mu/8": Variant(64, 4, 2, 8),
    "Ti/8": Variant(192, 12, 3, 8),
    "Ti/16": Variant(192, 12, 3, 16),
    "S/16": Variant(384, 12, 6, 16),
    "B/32": Variant(768, 12, 12, 32),
    "B/16": Variant(768, 12, 12, 16),
    "L/16": Variant(1024, 24, 16, 16),
    "L/14": Variant(1024, 24, 16, 14),
    "H/14": Variant(1280, 32, 16, 14),
}


def get_variant(name) -> Variant:
    """The `Variant` called `name`; ValueError where there is none."""
    return layers.get_variant(VARIANTS, name, "CLIP")


def stages(variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of the maps in `stages` of the output: the patches after each block."""
    width, depth, _, patch = get_variant(variant)
    return {f"block_{index}": (width, patch) for index in range(depth)}


def grid_size(name, image_size) -> int:
    """Side g of the token grid of variant `name` on square images of `image_size` pixels.

    Raises:
      ValueError: unknown variant, or `image_size` is not a positive multiple of its patch side.
    """
    patch = get_variant(name).patch
    if image_size < patch or image_size % patch:
        raise ValueError(f"CLIP {name} needs an image_size that is a multiple of {patch}, got {image_size}")
    return image_size // patch


def injection_blocks(name) -> tuple[int, int, int]:
    """Indices of the three blocks before which side tokens enter: quarter, half and three quarters deep.

    (3, 6, 9) for the 12-block towers, (6, 12, 18) for L/14.
    """
    depth = get_variant(name).depth
    return depth // 4, depth // 2, 3 * depth // 4


class Attention(nn.Module):
    """Multi-head self-attention [B, N, d] -> [B, M, d]; scores and softmax in float32.

    causal: a token sees itself and those before it (the text tower). linear: module of the four projections, called
    like `Linear`. affinity: whether the call gives (that, affinity [B, M, N] float32), what goes into softmax, mean
    over heads. kind: of `attend`. In the call, asking: (first, end) of the M tokens that look at all; all N where it is
    causal.
    """

    heads: int
    depth: int
    dtype: Any
    causal: bool = False
    linear: Any = Linear
    affinity: bool = False
    kind: str = "auto"

    @nn.compact
    def __call__(self, x, asking=ALL) -> jax.Array | tuple[jax.Array, jax.Array]:
        width = x.shape[-1]
        std = width**-0.5
        query, key, value = (
            self.linear(width, self.dtype, nn.initializers.normal(std), name=name)(y)
            for name, y in (("query", x[:, slice(*asking)]), ("key", x), ("value", x))
        )
        split = (split_heads(y, self.heads) for y in (query, key, value))
        mixed = attend(self, *split, causal=self.causal, kind=self.kind)
        out_init = nn.initializers.normal(std * (2 * self.depth) ** -0.5)
        out = self.linear(width, self.dtype, out_init, name="out")(mixed)
        if not self.affinity:
            return out
        # A sum over heads of products is one product of all their channels.
        scores = jnp.einsum("bqd,bkd->bqk", query, key, preferred_element_type=jnp.float32)
        return out, scores * (width // self.heads) ** -0.5 / self.heads


class Block(nn.Module):
    """Pre-LN transformer block [B, N, d] -> [B, M, d]: the M tokens of (first, end) `asking`, by default all.

    affinity, attention: of its `Attention`, the latter its kind. remat_mlp: of `layers.remat_block`.
    """

    heads: int
    depth: int
    quick_gelu: bool
    dtype: Any
    tanh_gelu: bool = False
    norm_eps: float = LAYER_NORM_EPS
    causal: bool = False
    attn_linear: Any = Linear
    affinity: bool = False
    attention: str = "auto"
    remat_mlp: bool = False

    @nn.compact
    def __call__(self, x, asking=ALL) -> jax.Array | tuple[jax.Array, jax.Array]:
        y = layer_norm(self.dtype, "ln_1", self.norm_eps)(x)
        settings = (self.heads, self.depth, self.dtype, self.causal, self.attn_linear, self.affinity, self.attention)
        mixed = Attention(*settings, name="attn")(y, asking)
        mixed, *affinity = mixed if self.affinity else (mixed,)
        x = x[:, slice(*asking)] + mixed

        def half(block, x):
            y = layer_norm(block.dtype, "ln_2", block.norm_eps)(x)
            return Mlp(block.depth, block.quick_gelu, block.dtype, block.tanh_gelu, name="mlp")(y)

        x = x + feed_forward(self, x, half, self.remat_mlp)
        return (x, *affinity) if self.affinity else x


class VisionTransformer(nn.Module):
    """CLIP's vision tower up to and including the last LayerNorm, without the projection.

    Attributes:
      variant: a name in `VARIANTS`.
      image_size: side of the square input in pixels, a multiple of the patch side.
      dtype: compute dtype; parameters, softmax and LayerNorm statistics stay float32.
      quick_gelu: the activation the weights were trained with. True for OpenAI's, whoever hosts them; False (exact
        GELU) for LAION's and most others of open_clip, whose names end in "-quickgelu" where it is True. Hugging
        Face's config.json says it as `hidden_act`, open_clip's as `quick_gelu`.
      remat, remat_mlp: what the backward pass computes again, for memory: of `layers.remat_block`.
      attention: how it is computed, of `attention.KINDS`.
      pixel_mean, pixel_std: of the preprocessing the weights were trained with, RGB in [0, 1].
      use_pre_norm: LayerNorm before the first block (`ln_pre`); CLIP's has one, the plain ViT does not.
      patch_bias: the patch embedding has a bias (`patch_embed_bias`); the plain ViT's has one.
      class_position: the class token has a position embedding; big_vision's and DeiT III's has none.
      norm_eps: epsilon of every LayerNorm; 1e-6 in the plain ViT.
      tanh_gelu: GELU's tanh form, with which Flax's ViTs (AugReg, big_vision) were trained; timm runs the exact one.
      attn_linear: module of the attention's projections, called like `Linear` (`models.low_rank`).
      in_channels: of the input; other than 3, see `layers.normalized`.
      affinity_from: None, or the index of a block: "affinity" of the output is the mean of that block's and all later
        ones'.

    Initial values follow CLIP's released code (std scaled by width and depth).
    """

    variant: str
    image_size: int
    dtype: Any = jnp.float32
    quick_gelu: bool = True
    remat: bool = False
    pixel_mean: tuple = PIXEL_MEAN
    pixel_std: tuple = PIXEL_STD
    use_pre_norm: bool = True
    patch_bias: bool = False
    class_position: bool = True
    norm_eps: float = LAYER_NORM_EPS
    tanh_gelu: bool = False
    attn_linear: Any = Linear
    in_channels: int = 3
    remat_mlp: bool = False
    attention: str = "auto"
    affinity_from: int | None = None

    @nn.compact
    def __call__(self, images, inject=None, *, train=False) -> dict[str, jax.Array | dict[str, jax.Array]]:
        """Features of a batch.

        Args:
          images: [B, image_size, image_size, in_channels] float, RGB in [0, 1]; normalised here.
          inject: None, or a mapping from block index to [B, N, d] added to the patch tokens before that
            block; the class token sees them through attention only.
          train: changes nothing here; every backbone is called with it.

        Returns:
          dict, with N = g * g patch tokens in row-major order:
            cls [B, d] float32 and tokens [B, N, d] float32, after the last LayerNorm; feature [B, d] is cls;
            mid_tokens [B, N, d], patch tokens after half of the blocks, no LayerNorm, `dtype`;
            late_tokens [B, N, d], patch tokens that enter the last block, `dtype`: what Grad-CAM weighs,
            since the last block's own patch outputs do not reach the class token;
            spatial [B, g, g, d], late_tokens as a grid;
            stages {"block_0": [B, g, g, d], ...}, the patch tokens after each block, no LayerNorm, `dtype`;
            with `affinity_from` also affinity [B, 1 + N, 1 + N] float32, see `Attention`.

        Raises:
          ValueError: unknown variant; images of another size or rank; an `inject` index or `affinity_from` without a
            block, or tokens of another shape; two activations. TypeError: images that are not floating point.
        """
        del train
        width, depth, heads, patch = get_variant(self.variant)
        grid = grid_size(self.variant, self.image_size)
        if self.quick_gelu and self.tanh_gelu:
            raise ValueError("quick_gelu and tanh_gelu are two activations; set quick_gelu=False for tanh_gelu")
        x = self._embed(images, grid, patch, width)
        self._check(inject, (images.shape[0], grid * grid, width), depth)
        if self.use_pre_norm:
            x = layer_norm(self.dtype, "ln_pre", self.norm_eps)(x)
        block = layers.remat_block(Block, self.remat, self.remat_mlp, static_argnums=2)
        settings = {name: getattr(self, name) for name in ("tanh_gelu", "norm_eps", "attn_linear", "attention")}
        out, stages, affinities = {}, {}, []
        for index in range(depth):
            if index == depth // 2:
                out["mid_tokens"] = x[:, 1:]
            if inject and index in inject:
                # Padded rather than updated in place: one fused addition, also in the backward pass.
                x = x + jnp.pad(inject[index].astype(self.dtype), ((0, 0), (1, 0), (0, 0)))
            if index == depth - 1:
                x = Tap(1, name="tap")(x)
                out["late_tokens"] = x[:, 1:]
            asked = self.affinity_from is not None and index >= self.affinity_from
            layer = block(heads, depth, self.quick_gelu, self.dtype, name=f"block_{index}", affinity=asked, **settings)
            x = layer(x, ALL) if index < depth - 1 or asked else self._last(layer, x)
            if asked:
                x, affinity = x
                affinities.append(affinity)
                x = x if index < depth - 1 else (x[:, :1], x[:, 1:])
            stages[f"block_{index}"] = layers.as_grid(x, 1) if index < depth - 1 else layers.as_grid(x[1])
        norm = layer_norm(jnp.float32, "ln_post", self.norm_eps)
        cls, tokens = norm(x[0])[:, 0], norm(x[1])
        spatial = layers.as_grid(out["late_tokens"])
        if affinities:
            out["affinity"] = sum(affinities) / len(affinities)
        return {"cls": cls, "tokens": tokens, "feature": cls, "spatial": spatial, "stages": stages, **out}

    def _last(self, block, x):
        """(class token [B, 1, d], patch tokens [B, N, d]) after the last block.

        Apart, because most detectors read the class token alone: XLA then leaves out what only the patch tokens need,
        which is ten of this block's twelve products. Together where attention is looked at.
        """
        if self.is_initializing() or self.is_mutable_collection("intermediates"):
            x = block(x, ALL)
            return x[:, :1], x[:, 1:]
        return block(x, (0, 1)), block(x, (1, None))

    def _check(self, inject, token_shape, depth):
        if self.affinity_from not in (None, *range(depth)):
            raise ValueError(f"affinity_from is {self.affinity_from}; CLIP {self.variant} has blocks 0..{depth - 1}")
        if inject is not None and not isinstance(inject, Mapping):
            raise TypeError(f"inject must map block indices to tokens, got {type(inject).__name__}")
        for index, tokens in (inject or {}).items():
            if index not in range(depth):
                raise ValueError(f"inject names block {index}; CLIP {self.variant} has blocks 0..{depth - 1}")
            if tokens.shape != token_shape:
                raise ValueError(f"inject[{index}] has shape {list(tokens.shape)}, expected {list(token_shape)}")

    def _embed(self, images, grid, patch, width):
        """Normalised images to [B, 1 + N, d]: class token first, position embedding added."""
        pixels = (self.pixel_mean, self.pixel_std, self.dtype)
        images = layers.normalized(
            images, self.image_size, *pixels, f"CLIP {self.variant}", in_channels=self.in_channels
        )
        shape = (patch, patch, self.in_channels, width)
        kernel = self.param("patch_embed", nn.initializers.lecun_normal(), shape, jnp.float32)
        tokens = layers.embed_patches(images, kernel, self.dtype)
        if self.patch_bias:
            bias = self.param("patch_embed_bias", nn.initializers.zeros, (width,), jnp.float32)
            tokens = tokens + bias.astype(self.dtype)
        normal = nn.initializers.normal(width**-0.5)
        class_token = self.param("class_token", normal, (width,), jnp.float32)
        rows = self.class_position + grid * grid
        positions = self.param("pos_embed", normal, (rows, width), jnp.float32).astype(self.dtype)
        if not self.class_position:
            positions = jnp.pad(positions, ((1, 0), (0, 0)))
        first = jnp.broadcast_to(class_token.astype(self.dtype), (images.shape[0], 1, width))
        return jnp.concatenate([first, tokens], axis=1) + positions
