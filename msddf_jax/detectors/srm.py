"""SRM: a second Xception on what high-pass filters leave, in exchange with the first (Luo et al., CVPR 2021).

"Generalizing Face Forgery Detection with High-frequency Features", arXiv 2103.12376. The second network sees three
filters' residuals of the image, and those of the first network's maps after each of its first two convolutions; where
the residuals are strong the first network looks closer; after the entry and in the middle each takes over what the
other sees at places that agree; channels of both last maps, weighted, decide.

Differs from DeepfakeBench's port (configs/detectors/srm.py:port, whose blocks are the authors'):

- Every channel of a map is filtered by all three filters. There the filters are repeated in the wrong order: most
  channels get one of them three times (`port`).
- AM-softmax takes cosines with two learned directions, as that loss is defined. There it takes the outputs of a linear
  layer, whose margin is then of no fixed size (`port`, and loss_args.am as here).

As there, the attention's image of residuals is filtered once more. Expected result: 95.8 on FF++ c23 and 75.5 on
Celeb-DF v2 are frame AUCs of that port (reference "detectors", section 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import conv, heads, layers, srm, streams, xception
from msddf_jax.models.tap import Tap
from msddf_jax.synth import compose

_SCALE = 30.0


class Model(nn.Module):
    """Two Xceptions, "rgb" and "noise", + binary head.

    family: "xception". variant: of `xception.VARIANTS`. image_size: that the network sees; other images are resized.
    The attention's parameters depend on it. port: whether filters and head are DeepfakeBench's. exchange: the blocks
    that cross-attention follows. options: none.
    """

    variant: str
    image_size: int
    family: str = "xception"
    port: bool = False
    exchange: tuple = ("block_3", "block_7")
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """{"image": float32 [B, H, W, 3] in [0, 1]} -> logit [B], logits [B, 2], without `port` cosine [B, 2], feature
        [B, d] of unit length, spatial [B, h, w, d], attention [B, h, w, 1] in (0, 1), where the residuals are."""
        images = compose.resize(rows["image"], self.image_size).astype(jnp.float32)
        images = (images - np.float32(xception.PIXEL_MEAN)) / np.float32(xception.PIXEL_STD)
        residual = srm.residual(images)
        network = streams.Streams(self.variant, (("rgb", 2), ("noise", 2)), self.dtype, name="backbone")
        maps = {"rgb": images.astype(self.dtype), "noise": residual.astype(self.dtype)}
        for number, unit in enumerate(("conv_1", "stem"), 1):
            maps = network(maps, unit, first=unit, train=train)
            found = srm.Residuals(self.port, self.dtype, name=f"residuals_{number}")(maps["rgb"], train)
            maps["noise"] = jax.nn.relu(maps["noise"] + found)
        # As many features as the network's own first convolutions have.
        attention = srm.PlaceAttention(xception.VARIANTS[self.variant].stem, self.dtype, name="places")(residual, train)
        looked = maps["rgb"] * attention.astype(self.dtype) + maps["rgb"]
        maps["rgb"] = jax.nn.relu(layers.batch_norm(train, self.dtype, "places_norm")(looked))
        last = "stem"
        for number, block in enumerate(self.exchange):
            maps = network(maps, block, first=streams.after(self.variant, last), train=train)
            cross = srm.CrossAttention(dtype=self.dtype, name=f"cross_{number}")
            maps["rgb"], maps["noise"] = cross(maps["rgb"], maps["noise"])
            last = block
        maps = network(maps, "sep_4", first=streams.after(self.variant, last), train=train, last_relu=False)
        spatial = Tap(name="tap")(srm.Fusion(self.dtype, name="fusion")(maps["rgb"], maps["noise"], train))
        kind = "raw" if self.port else "cosine"
        out = heads.BinaryHead(kind, scale=_SCALE, name="binary_head")(conv.global_mean(spatial))
        return dict(out, feature=out["embedding"], spatial=spatial, attention=attention)


def from_backbone(flat, model) -> dict[str, Any]:
    """Variables of a plain Xception for both networks. flat: {"params/backbone/...": array}. model: the config's."""
    del model
    return streams.spread(flat, {"rgb": 1, "noise": 1})


def losses(out, rows, ctx) -> dict[str, tuple]:
    """{"label": AM-softmax of every row, of `config.loss_args.am`: {"scale", "margin"}}, unweighted."""
    every = jnp.ones(rows["label"].shape[0], bool)
    scores = out.get("cosine", out["logits"])
    return {"label": (L.label_am(scores, rows["label"], **ctx.config.loss_args.am), every)}
