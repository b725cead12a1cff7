"""IID: a face whose identity, as a face recogniser sees it, is not the one that the image is of (Huang, CVPR 2023).

"Implicit Identity Driven Deepfake Face Swapping Detection". A recogniser, ArcFace's iResNet-50 and frozen, gives the
explicit identity of a face; of a swapped one that is the donor's. Xception learns an embedding of the implicit one: of
a real it is to be like the explicit identity, of a fake unlike, and it is to tell whose video a face is from. What
decides is the difference of the two, so that the recogniser scores too. It is a part of the detector, "identity", that
`config.init.identity` gives: a checkpoint keeps its digest alone, an export has all of it.

Terms, weights and constants are DeepfakeBench's port's (reference "detectors", "iid"). Differs from that port, whose
form is `configs/detectors/iid.py:port`:

- An implicit identity is the target's (`implicit` = "identity"), as the paper has it: "fake faces with known target
  identities". The port takes the last number of a video's name, in FF++ the donor's ("donor"), for all methods.
- A class for each identity of the training set, 720 of FF++; there 1000, the numbers of its videos.

Mended in both: the recogniser is frozen. There it is in the optimiser, and `train()` before each step sets its norms to
the batch's statistics. Its last norm is left out for one image, and is not here; a batch without a real or a fake gives
no NaN. The port's signs are as the paper has them: its names "real" and "fake" are exchanged, for labels of which 1 is
real, and with its own labels, where 1 is fake, the term pulls reals closer and pushes fakes away (test_iid).

Expected result: the benchmark publishes none.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import conv, heads, iresnet, layers, xception
from msddf_jax.synth import compose

NEEDS = {"identity": "implicit"}
IMPLICIT = ("identity", "donor")
# Of the label's loss, cosines' in name: sigmoids in place of cosines. Of the identities' loss: ArcFace's.
SCALE, MARGIN = 8.0, 0.2
ARC_SCALE, ARC_MARGIN = 64.0, 0.4


class Model(nn.Module):
    """Xception with an embedding, less the recogniser's, + binary head.

    family: "xception". variant: of `xception.VARIANTS`. image_size: that Xception sees; other images are resized.
    identity: {"variant": of `iresnet.VARIANTS`, "image_size"} of the recogniser, None for none: then the embedding
    alone decides, and the explicit terms are 0. num_identities: classes of the implicit identity, 0 without.
    options: further fields of the backbone.
    """

    variant: str
    image_size: int
    family: str = "xception"
    identity: Any = None
    num_identities: int = 720
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of Xception and the norm of the embedding.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2], feature [B, 512] of unit length, the difference; implicit
          and explicit [B, 512] float32, of any length, explicit only with the recogniser; cosine [B, num_identities]
          with the identities; spatial [B, h, w, 512], whose mean is implicit.
        """
        settings = dict(self.options or {}, last_relu=False, dtype=self.dtype, name="backbone")
        images = compose.resize(rows["image"], self.image_size)
        x = xception.Xception(self.variant, self.image_size, **settings)(images, train=train)["spatial"]
        x = layers.Linear(iresnet.WIDTH, self.dtype, conv.HE_NORMAL, name="adjust")(x)
        x = jax.nn.relu(layers.batch_norm(train, self.dtype, "adjust_norm")(x))
        out = {"implicit": conv.global_mean(x), "spatial": x}
        seen = out["implicit"]
        if self.identity is not None:
            out["explicit"] = jax.lax.stop_gradient(self._recognise(rows["image"]))
            seen = seen - out["explicit"]
        if self.num_identities:
            out["cosine"] = heads.CosineHead(self.num_identities, name="identity_head")(out["implicit"])
        head = heads.BinaryHead("raw", name="binary_head")(seen)
        return out | {"logit": head["logit"], "logits": head["logits"], "feature": head["embedding"]}

    def _recognise(self, images):
        """Embeddings [B, 512] float32 of images of any size, resized without smoothing as the port does it."""
        size = self.identity["image_size"]
        small = jax.image.resize(images, (len(images), size, size, 3), "linear", antialias=False)
        fields = {"dtype": self.dtype, "tapped": False, "name": "identity"}
        return iresnet.IResNet(self.identity["variant"], size, **fields)(small, train=False)["feature"]


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    label: cross-entropy of 8 (sigmoid(logits) - 0.2 for the label's own). explicit_real: of reals minus the cosine of
    the two identities, explicit_fake: of fakes the cosine; without the recogniser 0. implicit: ArcFace's loss of the
    rows whose identity is known, of `ctx.config.loss_args.implicit`; not without classes. Source: the port.

    Raises ValueError for another kind of identity than `IMPLICIT`.
    """
    label, kind = rows["label"], ctx.config.loss_args.implicit
    every = jnp.ones(label.shape[0], bool)
    if kind not in IMPLICIT:
        raise ValueError(f"config.loss_args.implicit is {kind!r}, allowed: {IMPLICIT}")
    terms = {"label": (L.label_am(jax.nn.sigmoid(out["logits"]), label, scale=SCALE, margin=MARGIN), every)}
    likeness = jnp.zeros(label.shape[0])
    if "explicit" in out:
        likeness = 1 - L.pair_cosine(out["implicit"], out["explicit"])
    terms |= {"explicit_real": (-likeness, label == 0), "explicit_fake": (likeness, label == 1)}
    if "cosine" in out:
        number = rows[kind]
        values = L.label_arc(out["cosine"], jnp.maximum(number, 0), scale=ARC_SCALE, margin=ARC_MARGIN)
        terms["implicit"] = (values, number >= 0)
    return terms
