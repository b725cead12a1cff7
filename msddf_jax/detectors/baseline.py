"""A backbone with one linear layer: what every other detector has to beat.

With the networks of DeepfakeBench it is that benchmark's plain detectors (Xception, EfficientNet-B4, ResNet-34, Meso4,
MesoInception, CLIP), and on self-blended images its SBI; configs/detectors/ has one config each. On a CLIP ViT, frozen
but for the layer, it is a linear probe; with the LayerNorms trained and the feature normalised it is GenD's
(WACV 2026) detector on CLIP, with its two metric losses; on self-blended images it trains as SBI (CVPR 2022) does.
Which parameters are trained, on what, is in the config (`optim.groups`, `synth.recipe`).

Differs from GenD: forgeries and augmentation come from the train step; the rest of the recipe is the config's. Expected
result: GenD's own figures need its data and weights and stand in its paper; the tables here are this project's.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import backbones, heads
from msddf_jax.synth import compose


class Model(nn.Module):
    """Backbone + binary head.

    family, variant, options: of `backbones.make`; options are the backbone's further fields, None for their defaults.
    image_size: that the backbone sees; other images are resized on the device.
    normalize: whether the head sees the feature at unit length (GenD 2) or as it is.
    """

    variant: str
    image_size: int
    family: str = "clip"
    normalize: bool = True
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """{"image": float32 [B, H, W, 3] in [0, 1]} -> logit [B], logits [B, 2], feature [B, d] of unit length."""
        images = compose.resize(rows["image"], self.image_size)
        make = functools.partial(backbones.make, self.family, self.variant, self.image_size)
        features = make(dtype=self.dtype, name="backbone", **(self.options or {}))(images, train=train)
        out = heads.BinaryHead("linear" if self.normalize else "raw", name="binary_head")(features["feature"])
        return dict(out, feature=out["embedding"], spatial=features["spatial"])


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted. Source: GenD 3."""
    del ctx
    label = rows["label"]
    every = jnp.ones(label.shape[0], bool)
    counted = rows.get("counted", every)
    return {
        "label": (L.label_ce(out["logits"], label), every),
        "feature_uniformity": (L.feature_uniformity(out["feature"], counted), every),
        "feature_alignment": (L.feature_alignment(out["feature"], label, counted), every),
    }
