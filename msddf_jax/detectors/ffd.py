"""FFD: Xception whose middle is multiplied by a map of where the face was changed (Dang et al., CVPR 2020).

"On the Detection of Digital Face Manipulation", arXiv 1910.01717; the authors' code is JStehouwer/FFD_CVPR2020. A map
between 0 and 1 comes from what block 7 gives and is multiplied onto it; it learns from the masks of the fakes, or,
without any, from what a real and a fake must have.

- `map_type` "reg", the default: a separable convolution to one channel and a sigmoid.
- "tmp", manipulation appearance: a block and a linear layer give ten weights of ten fixed templates. The paper's are
  principal components of 100 masks, of which the authors' repository has no file. Here they are the other ten of its
  train_map.py: nothing, and three by three tiles that share a row of cells with their neighbours. Their sum is the map
  as it is, without a sigmoid, as there.
- "none": plain Xception, the paper's baseline.

Left out: "pca_tmp", which the paper does not describe and whose covariance is of positions and not of channels.

Differs from the paper: 256 px crops of DeepfakeBench's alignment, a map of 16 x 16, instead of 299 px and 19 x 19; a
fake without a mask is asked for no map, as in its code.

DeepfakeBench's port, `configs/detectors/ffd.py:port`, has the same network and cross-entropy alone: its `with_mask` is
off. Defects of its code that are not here: with masks on, its loss reads `mask_pred` and its output has `mask`, a
KeyError; its "none" calls a list; its templates are 19 x 19 whatever the image, so that 256 px fail. Expected result:
96.2 on FF++ c23 and 74.4 on Celeb-DF v2 are frame AUCs of the port (reference "detectors", section 1).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import heads, layers, xception
from msddf_jax.models.filters import area_pool
from msddf_jax.synth import compose

NEEDS = {"mask": "map_l1"}
MAP_TYPES = ("reg", "tmp", "none")
# A mask is changed from here on (the authors' train_map.py).
THRESHOLD = 0.1
# What the largest value of a fake's map is to be where its mask is not known (paper, section 3).
WEAK_PEAK = 0.75
# The map starts as one half everywhere (the authors' init_weights).
_MAP_INIT = nn.initializers.normal(0.01)
# Channels before the weights of the templates: half of block 7's in the published size.
_REDUCE = 2
TEMPLATES = 10


class Model(nn.Module):
    """Xception with an attention map after one of its blocks + binary head.

    family: "xception". variant: of `xception.VARIANTS`. image_size: that the network sees; other images are resized.
    map_type: of `MAP_TYPES`. map_stage: after which of its blocks. options: further fields of the backbone.
    """

    variant: str
    image_size: int
    family: str = "xception"
    map_type: str = "reg"
    map_stage: str = "block_7"
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbone and the templates' block.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2], feature [B, d] of unit length, spatial [B, h, w, d]; but
          for "none" also map [B, g, g, 1] float32, what the middle was multiplied by, and map_logits [B, g, g, 1], its
          log odds (of "tmp" those of the map within [0.01, 0.99]); 16 x 16 at 256 px.

        Raises:
          ValueError: another map type; a block that the backbone has not.
        """
        if self.map_type not in MAP_TYPES:
            raise ValueError(f"config.model.map_type is {self.map_type!r}, allowed: {MAP_TYPES}")
        images, maps = compose.resize(rows["image"], self.image_size), {}
        # Made here, or it would be a part of the backbone that calls it.
        head = {
            "reg": functools.partial(xception.SeparableConv, 1, jnp.float32, _MAP_INIT),
            "tmp": functools.partial(TemplateMap, self.dtype, train),
            "none": lambda **_: None,
        }[self.map_type](name="map_head")

        def attend(x):
            seen = head(x.astype(jnp.float32))
            if self.map_type == "reg":
                maps.update(map=jax.nn.sigmoid(seen), map_logits=seen)
            else:
                safe = jnp.clip(seen, 0.01, 0.99)
                maps.update(map=seen, map_logits=jnp.log(safe) - jnp.log1p(-safe))
            return x * maps["map"].astype(x.dtype)

        after = {self.map_stage: attend} if head is not None else None
        settings = dict(self.options or {}, after=after, dtype=self.dtype, name="backbone")
        features = xception.Xception(self.variant, self.image_size, **settings)(images, train=train)
        out = heads.BinaryHead("raw", name="binary_head")(features["feature"])
        return dict(out, feature=out["embedding"], spatial=features["spatial"], **maps)


class TemplateMap(nn.Module):
    """Ten weights of fixed templates from a map: [B, g, g, C] -> their sum, [B, g, g, 1] float32, of any sign."""

    dtype: Any
    train: bool

    @nn.compact
    def __call__(self, x) -> jax.Array:
        width, grid = x.shape[-1] // _REDUCE, x.shape[1]
        plan = xception.BlockPlan((x.shape[-1], width), 2, True)
        y = jax.nn.relu(xception.Block(plan, self.dtype, name="block")(x, self.train))
        weights = layers.Linear(TEMPLATES, name="out")(y.astype(jnp.float32).mean((1, 2)))
        return jnp.einsum("bt,thw->bhw", weights, _templates(grid))[..., None]


def _templates(grid):
    """float32 [10, grid, grid]: nothing, then nine tiles row by row; of 19 cells rows 0 to 6, 6 to 12 and 12 to 18."""
    side = -(-(grid + 2) // 3)
    starts = [0, (grid - side) // 2, grid - side]
    out = np.zeros((TEMPLATES, grid, grid), np.float32)
    for index in range(9):
        top, left = starts[index // 3], starts[index % 3]
        out[index + 1, top : top + side, left : left + side] = 1
    return out


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted; without a map the label's alone.

    label: cross-entropy. map_l1: mean |map - mask| over cells, of rows whose mask is known; a real's is 0 throughout.
    map_weak, for sets without masks: of a real the mean of |map|, of a fake |largest value - 0.75|. Source: paper,
    section 3; reference: detectors, "ffd".
    """
    del ctx
    label = rows["label"]
    every = jnp.ones(label.shape[0], bool)
    terms = {"label": (L.label_ce(out["logits"], label), every)}
    if "map" not in out:
        return terms
    seen = out["map"]
    target = (area_pool(rows["mask"], seen.shape[1]) >= THRESHOLD).astype(jnp.float32)
    weak = jnp.where(label == 1, jnp.abs(seen.max((1, 2, 3)) - WEAK_PEAK), jnp.abs(seen).mean((1, 2, 3)))
    l1 = jnp.abs(seen - target).mean((1, 2, 3))
    return terms | {"map_l1": (l1, rows["has_mask"]), "map_weak": (weak, every)}
