"""CLIP's text transformer, and both towers with their projections: zero-shot logits (Radford et al., 2021)."""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from msddf_jax.models import clip, heads, layers


class TextVariant(NamedTuple):
    """Sizes of one text tower: width, blocks, attention heads, joint space `embed`, vocabulary, context length."""

    width: int
    depth: int
    heads: int
    embed: int
    vocabulary: int = 49408
    context: int = 77


# By the name of the vision tower that each was trained with. H/14 is LAION's; Mu is for tests, and Ti for demos, with
# the vocabulary "bytes" of `data.tokens`.
TEXT_VARIANTS = {
    "Mu/8": TextVariant(48, 2, 3, 32, vocabulary=99),
    "Ti/16": TextVariant(64, 2, 2, 64, vocabulary=514),
    "B/32": TextVariant(512, 12, 8, 512),
    "B/16": TextVariant(512, 12, 8, 512),
    "L/14": TextVariant(768, 12, 12, 768),
    "H/14": TextVariant(1024, 24, 16, 1024),
}
# OpenAI's training starts from a temperature of 0.07.
LOGIT_SCALE = math.log(1 / 0.07)


def get_text_variant(name) -> TextVariant:
    """The `TextVariant` that belongs to the vision tower `name`; ValueError where it has none."""
    return layers.get_variant(TEXT_VARIANTS, name, "text tower of CLIP")


class TextTransformer(nn.Module):
    """Causal transformer over token ids, pooled at the end of the text, without its projection.

    Attributes:
      variant: a name in `TEXT_VARIANTS`.
      dtype: compute dtype; parameters, softmax and LayerNorm statistics stay float32.
      quick_gelu: as `clip.VisionTransformer`'s.
    """

    variant: str
    dtype: Any = jnp.float32
    quick_gelu: bool = True

    @nn.compact
    def __call__(self, ids) -> dict[str, jax.Array]:
        """Feature of each text.

        Args:
          ids: [B, L] integer, L <= context length, of `data.tokens.tokenize`: start, text, end, padding. The end
            token has the highest id of the vocabulary. Padding after it may be anything, since no token sees what
            follows it and the first highest id is taken.

        Returns:
          dict: feature [B, width] float32, the last LayerNorm's output at the end token; tokens [B, L, width] float32.

        Raises:
          ValueError: unknown variant, ids of another rank or longer than the context. TypeError: ids that are no
            integers. Ids outside the vocabulary are not seen here (`tokenize` gives none).
        """
        size = get_text_variant(self.variant)
        if ids.ndim != 2 or not 0 < ids.shape[1] <= size.context:
            raise ValueError(
                f"CLIP {self.variant}'s text tower takes ids [B, 1..{size.context}], got {list(ids.shape)}"
            )
        if not jnp.issubdtype(ids.dtype, jnp.integer):
            raise TypeError(f"ids must be integers, got {ids.dtype}")
        normal = nn.initializers.normal
        embedding = self.param("token_embed", normal(0.02), (size.vocabulary, size.width), jnp.float32)
        positions = self.param("pos_embed", normal(0.01), (size.context, size.width), jnp.float32)
        x = embedding.astype(self.dtype)[ids] + positions[: ids.shape[1]].astype(self.dtype)
        for index in range(size.depth):
            x = clip.Block(size.heads, size.depth, self.quick_gelu, self.dtype, causal=True, name=f"block_{index}")(x)
        x = layers.layer_norm(jnp.float32, "ln_final")(x)
        end = jnp.argmax(ids, axis=1)
        return {"feature": jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0], "tokens": x}


class ClipModel(nn.Module):
    """Both towers, their projections into one space, and the temperature.

    Attributes:
      variant, image_size, dtype, quick_gelu, remat, pixel_mean, pixel_std: as `clip.VisionTransformer`'s; the text
        tower has the same activation.

    The vision tower is `backbone`, as in the detectors, so that one name table serves both.
    """

    variant: str
    image_size: int
    dtype: Any = jnp.float32
    quick_gelu: bool = True
    remat: bool = False
    pixel_mean: tuple = clip.PIXEL_MEAN
    pixel_std: tuple = clip.PIXEL_STD

    @nn.compact
    def __call__(self, images, ids) -> dict[str, jax.Array]:
        """Similarity of every image to every text.

        Args:
          images: [B, image_size, image_size, 3] float, RGB in [0, 1]. ids: [T, L] integer, see `TextTransformer`.
            In `apply` one of the two may be None: then only the other's embeds are returned.

        Returns:
          dict, float32: image_embeds [B, e] and text_embeds [T, e] of unit length; logits_per_image [B, T], their
          cosines times exp(logit_scale): a softmax over T is CLIP's zero-shot classifier.

        Raises:
          ValueError, TypeError: of the two towers.
        """
        embed = get_text_variant(self.variant).embed
        out = {}
        if images is not None:
            vision = clip.VisionTransformer(
                self.variant,
                self.image_size,
                self.dtype,
                self.quick_gelu,
                self.remat,
                self.pixel_mean,
                self.pixel_std,
                name="backbone",
            )
            image = project(vision(images)["feature"], embed, "vision_projection")
            out["image_embeds"] = heads.l2_normalize(image)
        if ids is not None:
            text = TextTransformer(self.variant, self.dtype, self.quick_gelu, name="text")
            out["text_embeds"] = heads.l2_normalize(project(text(ids)["feature"], embed, "text_projection"))
        scale = self.param("logit_scale", nn.initializers.constant(LOGIT_SCALE), (), jnp.float32)
        if len(out) == 2:
            out["logits_per_image"] = jnp.exp(scale) * out["image_embeds"] @ out["text_embeds"].T
        return out


def project(feature, embed, name) -> jax.Array:
    """CLIP's projection [B, d] -> [B, embed], not normalised, in float32; called inside a module's `__call__`.

    name: "vision_projection" or "text_projection".
    """
    normal = nn.initializers.normal(feature.shape[-1] ** -0.5)
    return layers.Linear(embed, kernel_init=normal, use_bias=False, name=name)(feature)
