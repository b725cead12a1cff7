"""UCF: what all forgeries share, separated from what one method leaves and from the content (Yan et al., ICCV 2023).

"UCF: Uncovering Common Features for Generalizable Deepfake Detection", arXiv 2304.13949; DeepfakeBench is its authors'.
One Xception sees the fingerprint of a forgery and one the content. Half of the fingerprint is to name the method, the
other half, which decides, to tell fakes from reals whatever the method. A decoder rebuilds each image from its content
in the style of its own fingerprint, and in that of its partner of the other class.

A group (`config.data.group`) is a number of reals and one fake of each of its methods, which are the classes beside
"real". A row's partner is the row of the other class that has its place in the group. Nothing rebuilt is of another
image's content, so that the partner may be of any video: in the benchmark it is, here it is of the real's own, and a
video without a fake of each method is left out.

Content encoder and decoder are run in training alone. A checkpoint has them all the same, as the published file has.

Differs from DeepfakeBench's port, `configs/detectors/ucf.py:port`: dropout is in front of the heads' last layer; there
it sets logits to 0. Common features are shuffled for the decoder alone; there for the head too, where a shuffle within
a class changes nothing. Expected result: 97.1 on FF++ c23 and 75.3 on Celeb-DF v2 are frame AUCs of the port (reference
"detectors", section 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.data.methods import METHODS
from msddf_jax.models import conv, fingerprint, heads, streams, xception
from msddf_jax.models.tap import Tap
from msddf_jax.synth import compose


class Model(nn.Module):
    """Two Xceptions, "fingerprint" and "content"; heads of two and of `classes` outputs; a decoder.

    family: "xception". variant: of `xception.VARIANTS`. image_size: that the network sees; other images are resized.
    classes: real and each method of the group. width: channels of fingerprint and content, and of the heads' hidden
    layers. decoder: channels of its stages. dropout: of the heads. late: see `fingerprint.Head`. shuffle: how often in
    training the common halves of a class change places before they are decoded. rebuild: whether there are
    reconstructions outside training. options: none.
    """

    variant: str
    image_size: int
    family: str = "xception"
    classes: int = 5
    width: int = 512
    decoder: tuple = (256, 128, 64)
    dropout: float = 0.2
    late: bool = False
    shuffle: float = 0.7
    rebuild: bool = False
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}; to train also label and group [B]. train: of norms, dropout
            and the decoder.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2], method_logits [B, classes], float32; common and specific
          [B, width / 2] float32, the halves' means; feature, the first of unit length; spatial [B, h, w, width]. In
          training and with `rebuild` also target and reconstruction [B, S, S, 3] float32 in [-1, 1]; in training
          crossed, of the same shape, in the partner's style, and partner [B] int, paired [B] bool (`_partners`).
        """
        images = compose.resize(rows["image"], self.image_size).astype(jnp.float32)
        images = (images - np.float32(xception.PIXEL_MEAN)) / np.float32(xception.PIXEL_STD)
        decodes = train or self.rebuild or self.is_initializing()
        names = ("fingerprint", "content") if decodes else ("fingerprint",)
        network = streams.Streams(self.variant, tuple((name, 2) for name in names), self.dtype, name="backbone")
        maps = network(dict.fromkeys(names, images.astype(self.dtype)), "sep_4", train=train, last_relu=False)
        maps = {n: fingerprint.Narrow(self.width, self.dtype, name=f"narrow_{n}")(maps[n], train) for n in names}
        seen = Tap(name="tap")(maps["fingerprint"])
        specific, common = (
            fingerprint.Share(self.width // 2, self.dtype, name=name)(seen) for name in ("specific", "common")
        )
        head = lambda classes, name: fingerprint.Head(self.width, classes, self.dropout, self.late, name=name)
        means = {"common": conv.global_mean(common), "specific": conv.global_mean(specific)}
        logits = head(2, "binary_head")(means["common"], train)
        out = {
            "logit": logits[:, 1] - logits[:, 0],
            "logits": logits,
            "method_logits": head(self.classes, "method_head")(means["specific"], train),
            **means,
            "feature": heads.l2_normalize(means["common"]),
            "spatial": seen,
        }
        if not decodes:
            return out
        style, content = jnp.concatenate([specific, common], axis=-1), maps["content"]
        decoder = fingerprint.Decoder(self.decoder, 0.3, self.dtype, name="decoder")
        if not train:
            return out | {"target": images, "reconstruction": decoder(style, content, images.shape[1:3], train)}
        whether, order = jax.random.split(self.make_rng("dropout"))
        moved = jnp.where(jax.random.bernoulli(whether, self.shuffle), common[_within(order, rows["label"])], common)
        style = jnp.concatenate([specific, moved], axis=-1)
        partner, paired = _partners(rows["label"], rows["group"])
        both = decoder(
            jnp.concatenate([style, style[partner]]), jnp.concatenate([content, content]), images.shape[1:3], train
        )
        made, crossed = jnp.split(both, 2)
        rebuilt = {"target": images, "reconstruction": made, "crossed": crossed}
        return out | rebuilt | {"partner": partner, "paired": paired}


def from_backbone(flat, model) -> dict[str, Any]:
    """Variables of a plain Xception for both networks. flat: {"params/backbone/...": array}. model: the config's."""
    del model
    return streams.spread(flat, {"fingerprint": 1, "content": 1})


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    label: cross-entropy. method: that of the method, of rows of the group's. reconstruction: mean |image -
    reconstruction|, pixels in [-1, 1], of own and partner's style. contrast: `_contrast` of common features within
    real and fake, and of specific ones within a method. The last two are of rows with a partner, and twice what a row
    has: a mean over reals and one over fakes, added up. Source: loss/contrastive_regularization.py and the detector of
    DeepfakeBench; reference: detectors, "ucf".

    Raises ValueError where the model's classes are not those of the config's group.
    """
    label, paired = rows["label"], out["paired"]
    kinds = _kinds(rows, ctx.config)
    unlike = lambda name: jnp.abs(out["target"] - out[name]).mean((1, 2, 3))
    first, second = jax.random.split(ctx.key("losses"))
    apart = _contrast(out["common"], _within(first, label), out["partner"])
    apart += _contrast(out["specific"], _within(second, kinds), out["partner"])
    return {
        "label": (L.label_ce(out["logits"], label), jnp.ones(label.shape[0], bool)),
        "method": L.known_ce(out["method_logits"], kinds),
        "reconstruction": (2 * (unlike("reconstruction") + unlike("crossed")), paired),
        "contrast": (2 * apart, paired),
    }


def scalars(out, rows) -> dict[str, jax.Array]:
    """Those of `hooks.scalars`, and how many rows have a partner."""
    return hooks.scalars(out, rows) | {"paired": out["paired"].mean()}


def _kinds(rows, config):
    """[B] int: 0 of a real, 1 and on of a method by its place in `config.data.group.methods`, -1 of other fakes."""
    methods = tuple(config.data.group.methods)
    if config.model.classes != len(methods) + 1:
        raise ValueError(
            f"config.model.classes is {config.model.classes}, and config.data.group.methods names "
            f"{', '.join(methods) or 'none'}: expected real and each of these, {len(methods) + 1}"
        )
    numbers = np.full(len(METHODS) + 1, -1)
    numbers[[METHODS.index(name) for name in methods]] = np.arange(1, len(methods) + 1)
    # A method of -1 is the last entry.
    return jnp.where(rows["label"] == 0, 0, jnp.asarray(numbers)[rows["method"]])


def _partners(label, group):
    """(row of the other class at the same place among its class in the group, whether there is any), both [B].

    The first one where the other class is smaller, itself where there is none.
    """
    same = (group[:, None] == group[None, :]) & (group[:, None] >= 0)
    alike = label[:, None] == label[None, :]
    place = jnp.tril(same & alike, k=-1).sum(1)
    fits = (same & ~alike) * (1 + (place[:, None] == place[None, :]))
    paired = fits.any(1)
    return jnp.where(paired, fits.argmax(1), jnp.arange(len(label))), paired


def _within(key, kinds):
    """[B] int: a random order of rows in which each stands at the place of one of its kind. kinds: [B] int."""
    shuffled = jnp.lexsort((jax.random.uniform(key, kinds.shape), kinds))
    return jnp.zeros(len(kinds), jnp.int32).at[jnp.argsort(kinds, stable=True)].set(shuffled.astype(jnp.int32))


def _contrast(z, order, partner, margin=3.0):
    """max(0, |z - one of its kind| - |z - one of its partner's kind| + margin), [B]. z: [B, d]. order: of `_within`."""
    length = lambda x: jnp.sqrt((x**2).sum(-1) + 1e-12)
    others = z[order]
    return jnp.maximum(length(z - others) - length(z - others[partner]) + margin, 0.0)
