"""F3-Net: what bands of the spectrum show, and how much of them there is where (Qian et al., ECCV 2020).

"Thinking in Frequency: Face Forgery Detection by Mining Frequency-aware Clues", arXiv 2007.09355. Two Xceptions: one
sees the image that each of three learned bands of its cosine transform gives (FAD), the other the amplitude of six
bands in windows that slide over it (LFS). After a middle and a late block each takes over what the other sees, where
rows of the two agree (MixBlock); both features together decide.

There is no code of the authors'. The shape of the attention (rows with rows, of each channel), grey windows, a second
branch that starts without a stride, and the dropout are those of the public re-implementation
(github.com/yyk-wew/F3Net). Differs from it, as the paper has it: three bands and no fourth of all frequencies; a band
ends where the next begins, there they share an edge; the logarithm is of a band's sum, there the sum is of logarithms,
with negative weights among them; and the attention, which is there and left out, takes part. Its windows are 149 a side
at 299 pixels in both; the convolution that follows is padded here, so that both branches have maps of one size at any
other image's too. The scale of each channel in front of a norm is left to the norm.

`port` is DeepfakeBench's (configs/detectors/f3net.py:port): FAD alone with the fourth band and shared edges. Expected
result: 96.4 on FF++ c23 and 73.5 on Celeb-DF v2 are frame AUCs of that port (reference "detectors", section 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import conv, dct, heads, layers, streams, xception
from msddf_jax.models.tap import Tap
from msddf_jax.synth import compose

_BANDS = 6


class Model(nn.Module):
    """One Xception for each branch + binary head.

    family: "xception". variant: of `xception.VARIANTS`. image_size: that the network sees; other images are resized.
    port: whether it is DeepfakeBench's form. mix: the two blocks that MixBlocks follow. dropout: of the feature.
    options: none.
    """

    variant: str
    image_size: int
    family: str = "xception"
    port: bool = False
    mix: tuple = ("block_7", "block_12")
    dropout: float = 0.2
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """{"image": float32 [B, H, W, 3] in [0, 1]} -> logit [B], logits [B, 2], feature [B, d] of unit length,
        spatial [B, h, w, d], both branches' last maps, and bands [B, S, S, 9], what the first branch sees (12 with
        `port`)."""
        images = compose.resize(rows["image"], self.image_size).astype(jnp.float32)
        normalised = (images - np.float32(xception.PIXEL_MEAN)) / np.float32(xception.PIXEL_STD)
        edges = _edges(self.image_size, self.port)
        bands = dct.Decomposition(edges, closed=self.port, name="decomposition")(normalised)
        if self.port:
            settings = {"in_channels": bands.shape[-1], "dtype": self.dtype, "name": "backbone"}
            features = xception.Xception(self.variant, self.image_size, **settings)(bands, train=train)
        else:
            # As many windows as the other branch has places after its first convolution: 149 at 299 pixels.
            local = dct.LocalStatistics((self.image_size - 1) // 2, bands=_BANDS, name="statistics")(images)
            features = self._two_branches(bands.astype(self.dtype), local.astype(self.dtype), train)
        feature = features["feature"]
        out = heads.BinaryHead("raw", name="binary_head")(nn.Dropout(self.dropout, deterministic=not train)(feature))
        return {
            "logit": out["logit"],
            "logits": out["logits"],
            "feature": heads.l2_normalize(feature),
            "spatial": features["spatial"],
            "bands": bands,
        }

    def _two_branches(self, bands, local, train):
        network = streams.Streams(self.variant, (("fad", 2), ("lfs", 1)), self.dtype, name="backbone")
        maps, first = {"fad": bands, "lfs": local}, "conv_1"
        for number, block in enumerate(self.mix):
            maps = network(maps, block, first=first, train=train)
            maps = MixBlock(self.dtype, name=f"mix_{number}")(maps, train)
            first = streams.after(self.variant, block)
        maps = network(maps, "sep_4", first=first, train=train)
        spatial = Tap(name="tap")(jnp.concatenate([maps["fad"], maps["lfs"]], axis=-1))
        return {"feature": conv.global_mean(spatial), "spatial": spatial}


class MixBlock(nn.Module):
    """Adds to each branch what the other sees, weighted by how rows of both agree; nothing at initialisation.

    In every channel, attention [h, h] is the softmax over row j of q_i . k_j, of both branches added up, where q_i and
    k_j are rows of two linear maps of the branch; it weighs the place (i, j), so maps are square.
    """

    dtype: Any

    @nn.compact
    def __call__(self, maps, train) -> dict[str, jax.Array]:
        """{"fad": [B, h, h, C], "lfs": [B, h, h, C]} -> the same."""
        energy = 0.0
        for branch, x in maps.items():
            query, key = (
                layers.Linear(x.shape[-1], self.dtype, name=f"{branch}_{part}")(x) for part in ("query", "key")
            )
            energy = energy + jnp.einsum("biwc,bjwc->bijc", query, key).astype(jnp.float32)
        attention = jax.nn.softmax(energy, axis=2).astype(self.dtype)
        out = {}
        for branch, other in (("fad", "lfs"), ("lfs", "fad")):
            gain = self.param(f"{other}_gain", nn.initializers.zeros, (), jnp.float32)
            seen = maps[other] * attention * (2.0 * jax.nn.sigmoid(gain) - 1.0).astype(self.dtype)
            out[branch] = maps[branch] + layers.batch_norm(train, self.dtype, f"{branch}_norm")(seen)
        return out


def _edges(size, port):
    """((low, high), ...) of the bands of FAD: the first sixteenth of the coefficients, up to an eighth, the rest."""
    low, middle, high = size // 2.82, size // 2, 2 * size
    bands = ((0, low), (low, middle), (middle, high))
    return (*bands, (0, high)) if port else bands


def from_backbone(flat, model) -> dict[str, Any]:
    """Variables of a plain Xception for each branch; a first kernel sees the mean of the image's for its bands.

    Args:
      flat: {"params/backbone/...": array} of `xception.Xception`. model: the config's.
    """
    if model.get("port"):
        return streams.repeat_channels(flat, 4)
    return streams.spread(flat, {"fad": 3, "lfs": _BANDS // 3})


def losses(out, rows, ctx) -> dict[str, tuple]:
    """{"label": cross-entropy of every row}, unweighted."""
    del ctx
    return {"label": (L.label_ce(out["logits"], rows["label"]), jnp.ones(rows["label"].shape[0], bool))}
