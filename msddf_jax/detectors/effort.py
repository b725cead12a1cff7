"""Effort: CLIP's attention split by SVD, all but the last singular triplet frozen (Yan et al., ICML 2025 oral).

"Orthogonal Subspace Decomposition for Generalizable AI-Generated Image Detection", arXiv 2411.15633. Every query, key,
value and output projection keeps its 1023 largest singular triplets (CLIP ViT-L/14); the last one is trained, with a
linear layer on the class token. Which parameters are trained is in the config (`optim.groups`).

Differs from the public code: its two constraints were commented out at the release; here they are terms whose weights
are 0 by default. Its first version measured u u' of one column against the identity, which no vector can be; here it is
u' u. Both take the main part for the singular vectors and the norm that are not in the checkpoints (`models.low_rank`).
The term on the singular values of the summed kernels, off too, is left out: it needs an SVD of 1024 x 1024 at every
step. Images are resized with a cubic kernel on the device, there bilinearly on the host. Expected result: the paper's
figures need its data and weights; the tables here are this project's own.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import clip, heads, low_rank
from msddf_jax.synth import compose
from msddf_jax.weights.names import effort_names


class Model(nn.Module):
    """CLIP ViT with `low_rank.LowRankLinear` in its attention + binary head on the feature as it is.

    variant: of `clip.VARIANTS`. image_size: of the ViT; other images are resized on the device.
    rank: singular triplets that are trained in each projection. options: further fields of the ViT, None for none.
    """

    variant: str
    image_size: int
    rank: int = 1
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: changes nothing here.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2], feature [B, d] of unit length, spatial [B, g, g, d];
          orthogonality and norm_change, scalars, means over the projections (`models.low_rank`).
        """
        images = compose.resize(rows["image"], self.image_size)
        linear = functools.partial(low_rank.LowRankLinear, rank=self.rank)
        settings = dict(self.options or {}, dtype=self.dtype, attn_linear=linear, name="backbone")
        features = clip.VisionTransformer(self.variant, self.image_size, **settings)(images, train=train)
        out = heads.BinaryHead("raw", name="binary_head")(features["feature"])
        split = low_rank.layers(self.variables["params"]["backbone"])
        for name, measure in (("orthogonality", low_rank.orthogonality), ("norm_change", low_rank.norm_change)):
            out[name] = sum(map(measure, split)) / len(split)
        return dict(out, feature=out["embedding"], spatial=features["spatial"])


def from_backbone(flat, model) -> dict[str, Any]:
    """Loaded variables of a plain CLIP ViT as this detector keeps them.

    Args:
      flat: {"params/backbone/...": array} of `clip.VisionTransformer`. model: the config's, for its rank.
    """
    return effort_names.init_from_dense(flat, model.get("rank", 1))


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    The two constraints have one value for the whole batch. Source: Effort 3.3.
    """
    del ctx
    label = rows["label"]
    every = jnp.ones(label.shape[0], bool)
    terms = {"label": (L.label_ce(out["logits"], label), every)}
    for name in ("orthogonality", "norm_change"):
        terms[f"kernel_{name}"] = (jnp.broadcast_to(out[name], label.shape), every)
    return terms
