"""RECCE: a network that learns to rebuild real faces looks where it cannot (Cao et al., CVPR 2022).

"End-to-End Reconstruction-Classification Learning for Face Forgery Detection". A decoder rebuilds the image from
Xception's middle, and is asked to for reals alone: what it learns is how real faces are. What it decodes on the way is
gathered, cell by cell, into the encoder's map (graph reasoning), and where image and reconstruction differ the map is
emphasised (guided attention). In the decoder's maps reals are to be like each other and unlike fakes.

Network and order are DeepfakeBench's port's, which are the authors'. That port trains with cross-entropy alone
(`configs/detectors/recce.py:port`), so that its decoder learns nothing of faces but what the labels ask for; here it is
the three losses of the paper. Differs from the authors' code: two logits in place of one, no flooding of the label's
loss at 0.04, and single images are scored (there an axis of length 1 is lost). Expected result: 96.2 on FF++ c23 and
73.2 on Celeb-DF v2 are frame AUCs of the port as DeepfakeBench trained it (reference "detectors", section 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import conv, heads, reconstruction, xception
from msddf_jax.models.filters import resize_corners
from msddf_jax.synth import compose


class Model(nn.Module):
    """Xception, decoder, graph reasoning and guided attention + binary head.

    family: "xception". variant: of `xception.VARIANTS`. image_size: that the network sees; other images are resized.
    places: blocks after which the map is decoded, joined with what was decoded, and guided, none before the one in
    front of it and all of one stride. widths: channels of the decoder's three stages, each of twice the side.
    nodes: channels of the graph. dropout: of the decoded map, graph, attention and feature. noise: deviation of the
    white noise on half of the images in training, pixels in [-1, 1]. options: further fields of the backbone.
    """

    variant: str
    image_size: int
    family: str = "xception"
    places: tuple = (4, 7, 8)
    widths: tuple = (256, 128, 64)
    nodes: int = 256
    dropout: float = 0.2
    noise: float = 1e-6
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array | tuple]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbone, norms, dropout and noise.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2], feature [B, d] of unit length; reconstruction and target
          [B, S, S, 3] float32 in [-1, 1]; embeddings: of the encoder's map and two of the decoder's their means
          [B, k] of unit length; spatial [B, h, w, d].

        Raises:
          ValueError: places out of order, or blocks that the backbone has not.
        """
        if list(self.places) != sorted(self.places) or len(self.places) != 3:
            raise ValueError(f"config.model.places is {tuple(self.places)}, expected three blocks, none before another")
        target = 2 * compose.resize(rows["image"], self.image_size).astype(jnp.float32) - 1
        drop = lambda name: nn.Dropout(self.dropout, deterministic=not train, name=name)
        decoder = reconstruction.Decoder(self.widths, self.dtype, name="decoder")
        graph = reconstruction.Graph(self.nodes, self.dtype, name="graph")
        guided = reconstruction.Guided(self.dtype, name="guided")
        dropped, kept = {name: drop(f"drop_{name}") for name in ("decoder", "graph", "guided", "feature")}, {}

        def decode(x):
            first, second, made = decoder(dropped["decoder"](x), train)
            kept.update(maps=(x, first, second), made=resize_corners(made, target.shape[1:3]))
            return x

        steps = (
            decode,
            lambda x: x + dropped["graph"](graph(x, *kept["maps"][1:])),
            lambda x: guided(x, jnp.abs(target - kept["made"]), train) + dropped["guided"](x),
        )
        seen = self._noisy(target) if train and self.noise else target
        settings = dict(self.options or {}, after=_chain(self.places, steps), dtype=self.dtype, name="backbone")
        features = xception.Xception(self.variant, self.image_size, **settings)((seen + 1) / 2, train=train)
        out = heads.BinaryHead("raw", name="binary_head")(dropped["feature"](features["feature"]))
        return {
            "logit": out["logit"],
            "logits": out["logits"],
            "feature": heads.l2_normalize(features["feature"]),
            "reconstruction": kept["made"],
            "target": target,
            "embeddings": tuple(heads.l2_normalize(conv.global_mean(x)) for x in kept["maps"]),
            "spatial": features["spatial"],
        }

    def _noisy(self, target):
        which, values = jax.random.split(self.make_rng("dropout"))
        chosen = jax.random.bernoulli(which, 0.5, (target.shape[0], 1, 1, 1))
        return jnp.clip(target + chosen * self.noise * jax.random.normal(values, target.shape), -1.0, 1.0)


def _chain(places, steps):
    """{stage: what is done there, one after the other} as `Xception.after` takes it."""
    after = {}
    for number, step in zip(places, steps, strict=True):
        before = after.get(f"block_{number}", lambda x: x)
        after[f"block_{number}"] = lambda x, before=before, step=step: step(before(x))
    return after


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    label: cross-entropy. reconstruction: mean |image - reconstruction|, pixels in [-1, 1], of reals. contrast: see
    `_contrast`, the same for every row. Source: trainer/utils.py of the authors.
    """
    del ctx
    label = rows["label"]
    every = jnp.ones(label.shape[0], bool)
    counted = rows.get("counted", every)
    rebuilt = jnp.abs(out["target"] - out["reconstruction"]).mean((1, 2, 3))
    return {
        "label": (L.label_ce(out["logits"], label), every),
        "reconstruction": (rebuilt, label == 0),
        "contrast": (sum(_contrast(z, label, counted) for z in out["embeddings"]), every),
    }


def _contrast(z, label, counted):
    """max(0, 1 - likeness of two reals + likeness of a real and a fake), [B]; likeness (1 + cosine) / 2, mean of pairs.

    z [B, k] of unit length, label [B], counted [B] of the rows that take part. A mean without pairs is 0.
    """
    likeness = (1 + jnp.matmul(z, z.T, precision=jax.lax.Precision.HIGHEST)) / 2
    real, fake = counted & (label == 0), counted & (label == 1)
    both = real[:, None] & real[None, :] & ~jnp.eye(len(label), dtype=bool)
    mixed = real[:, None] & fake[None, :]
    value = 1 - L.masked_mean(likeness.ravel(), both.ravel()) + L.masked_mean(likeness.ravel(), mixed.ravel())
    return jnp.broadcast_to(jnp.maximum(value, 0.0), label.shape)
