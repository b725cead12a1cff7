"""A CLIP ViT with one linear layer: what every other detector has to beat.

Frozen but for the layer it is a linear probe; with the LayerNorms trained and the feature normalised it is GenD's
(WACV 2026) detector on CLIP, with its two metric losses; on self-blended images it trains as SBI (CVPR 2022) does.
Which parameters are trained, on what, is in the config (`optim.groups`, `synth.recipe`).

Differs from GenD: forgeries and augmentation come from the train step; the rest of the recipe is the config's. Expected
result: GenD's own figures need its data and weights and stand in its paper; the README's tables are this project's.
"""

import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import clip, heads
from msddf_jax.synth import compose


class Model(nn.Module):
    """CLIP ViT + binary head.

    variant: of `clip.VARIANTS`. image_size: of the ViT; other images are resized on the device.
    normalize: whether the head sees the feature at unit length (GenD 2) or as it is.
    """

    variant: str
    image_size: int
    normalize: bool = True
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, batch, *, train):
        """{"image": float32 [B, H, W, 3] in [0, 1]} -> logit [B], logits [B, 2], feature [B, d] of unit length."""
        del train
        images = compose.resize(batch["image"], self.image_size)
        backbone = clip.VisionTransformer(
            self.variant, self.image_size, remat=self.remat, dtype=self.dtype, name="backbone"
        )
        feature = backbone(images)["cls"]
        out = heads.BinaryHead("linear" if self.normalize else "raw", name="binary_head")(feature)
        return dict(out, feature=out["embedding"])


def synthesize(key, batch, *, progress, choose=None, **settings):
    """The rows of `compose.compose`; `progress` changes nothing here."""
    del progress
    return compose.compose(key, batch, choose=choose, **settings)


augment = compose.augment


def losses(out, batch, *, key, progress):
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted. Source: GenD 3."""
    del key, progress
    label = batch["label"]
    every = jnp.ones(label.shape[0], bool)
    return {
        "label": (L.label_ce(out["logits"], label), every),
        "feature_uniformity": (L.feature_uniformity(out["feature"], every), every),
        "feature_alignment": (L.feature_alignment(out["feature"], label, every), every),
    }


def scalars(out, batch):
    """Accuracy by role."""
    return compose.accuracy_by_role(out["logit"], batch)
