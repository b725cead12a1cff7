"""Capsule-Forensics: ten small networks on VGG-19's map, and which of them agree (Nguyen et al., 2019).

"Use of a Capsule Network to Detect Fake Images and Videos", arXiv 1910.12467 (ICASSP 2019 before, 1810.11215); the
authors' code is nii-yamagishilab/Capsule-Forensics-v2. Every capsule makes 16 maps of VGG's third stage and gives eight
numbers of their means and standard deviations; dynamic routing (Sabour et al., 2017) weighs the capsules by how far
they agree. Two vectors of four numbers come out, real and fake; P(fake) is the mean over the four of the softmax of
the two.

`routing` "paper" is its algorithm 1 and its loss, the cross-entropy of that mean. Public code, the authors' and
DeepfakeBench's port of it, is "code", and differs:

- it squashes a number over the ten capsules, not a capsule over its eight numbers;
- agreement is by number and not the scalar product, and is normalised over capsules and not over real and fake;
- its loss is the sum over the four of a cross-entropy of what is a softmax already (term `label_parts`).

Mended in both: a vector of zeros gives 0 / 0 there; what dropout leaves was not scaled up; a batch of one lost its
axis. Differs from the authors' code: 256 px crops of DeepfakeBench's alignment, there 300 px.

The port, `configs/detectors/capsule.py:port`, trains VGG too, which the paper leaves as ImageNet's; normalises with 0.5
instead of ImageNet's pixels; has neither noise nor dropout in the routing; and scores with the softmax of P(real) and
P(fake). Expected result: 84.2 on FF++ c23 and 74.7 on Celeb-DF v2 are frame AUCs of the port as DeepfakeBench trained
it (reference "detectors", section 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import backbones, conv, heads, layers
from msddf_jax.synth import compose

ROUTINGS = ("paper", "code")
# Of a capsule: channels of its two convolutions and of its two over their statistics, whose last leaves 8 numbers.
_MAPS, _SERIES, _SIZE = (64, 16), (8, 1), 8
# Numbers of real and of fake; times that the weights of the capsules are looked at.
_OUT, _ROUNDS = 4, 2
_INIT = nn.initializers.normal(0.02)


class Model(nn.Module):
    """VGG + capsules + routing.

    family, variant, options: of `backbones.make`. image_size: that the backbone sees; other images are resized.
    capsules: how many. routing: of `ROUTINGS`. noise: deviation of what is added to the routing's weights in training.
    dropout: of the capsules' votes in training.
    """

    variant: str
    image_size: int
    family: str = "vgg"
    capsules: int = 10
    routing: str = "paper"
    noise: float = 0.01
    dropout: float = 0.05
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the capsules' norms, the noise and the dropout.

        Returns:
          dict, float32: logits [B, 2], log probabilities of real and fake, or with "code" probabilities less 0.5; logit
          [B], their difference, whose sigmoid is the score; parts [B, 4, 2], probabilities whose mean that is; capsules
          [B, 8, n], squashed; routed [B, 4, 2]; feature [B, 8 n] of unit length; spatial [B, h, w, c].

        Raises:
          ValueError: another routing.
        """
        if self.routing not in ROUTINGS:
            raise ValueError(f"config.model.routing is {self.routing!r}, allowed: {ROUTINGS}")
        images = compose.resize(rows["image"], self.image_size)
        settings = dict(self.options or {}, dtype=self.dtype, name="backbone")
        features = backbones.make(self.family, self.variant, self.image_size, **settings)(images, train=train)
        spatial = features["spatial"]
        made = [Capsule(self.dtype, name=f"capsule_{n}")(spatial, train) for n in range(self.capsules)]
        found = _squash(jnp.stack(made, axis=2), 1 if self.routing == "paper" else 2)
        shape = (2, self.capsules, _OUT, _SIZE)
        weights = self.param("route", nn.initializers.normal(1.0), shape, jnp.float32)
        if train and self.noise:
            weights = weights + self.noise * jax.random.normal(self.make_rng("dropout"), shape)
        votes = jnp.einsum("ocds,bsc->bocd", weights, found, precision=jax.lax.Precision.HIGHEST)
        votes = nn.Dropout(self.dropout, deterministic=not train)(votes)
        routed = _route(votes, self.routing).transpose(0, 2, 1)
        parts = jax.nn.softmax(routed, axis=-1)
        mean = parts.mean(1)
        logits = jnp.log(mean) if self.routing == "paper" else mean - 0.5
        return {
            "logit": logits[:, 1] - logits[:, 0],
            "logits": logits,
            "parts": parts,
            "capsules": found,
            "routed": routed,
            "feature": heads.l2_normalize(found.reshape(found.shape[0], -1)),
            "spatial": spatial,
        }


class Capsule(nn.Module):
    """Two convolutions, the mean and deviation of each map, two convolutions along the maps: [B, h, w, C] -> [B, 8]."""

    dtype: Any

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        for number, width in enumerate(_MAPS, 1):
            settings = {"padding": 1, "kernel_init": _INIT, "use_bias": True}
            x = conv.conv(width, 3, self.dtype, f"conv_{number}", **settings)(x)
            x = jax.nn.relu(layers.batch_norm(train, self.dtype, f"norm_{number}")(x))
        x = _statistics(x)
        for number, (width, size, stride) in enumerate(zip(_SERIES, (5, 3), (2, 1), strict=True), 3):
            padding, name = ((size // 2, size // 2),), f"conv_{number}"
            x = nn.Conv(width, (size,), strides=stride, padding=padding, kernel_init=_INIT, name=name)(x)
            x = layers.batch_norm(train, jnp.float32, f"norm_{number}")(x)
        return x[..., 0]


def _statistics(x):
    """[B, h, w, C] -> [B, C, 2] float32: mean and standard deviation (over n - 1) of each map."""
    x = x.astype(jnp.float32)
    mean, variance = x.mean((1, 2)), x.var((1, 2), ddof=1)
    return jnp.stack([mean, _root(variance)], axis=-1)


def _root(x):
    """Square root of x >= 0, whose gradient at 0 is 0."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


def _squash(x, axis):
    """Vectors along an axis: the same direction, length n -> n^2 / (1 + n^2); zeros stay zeros."""
    squared = jnp.sum(x**2, axis=axis, keepdims=True)
    return x * _root(squared) / (1.0 + squared)


def _route(votes, routing):
    """Votes [B, 2, capsules, d] of the capsules for real and fake -> [B, 2, d]. routing: of `ROUTINGS`."""
    paper = routing == "paper"
    agreed = jnp.zeros((*votes.shape[:3], 1 if paper else votes.shape[3]), jnp.float32)
    for _ in range(_ROUNDS):
        weight = jax.nn.softmax(agreed, axis=1 if paper else 2)
        out = _squash((weight * votes).sum(2), -1)
        each = votes * out[:, :, None]
        agreed = agreed + (each.sum(-1, keepdims=True) if paper else each)
    return out


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    label: cross-entropy of the logits, with "paper" that of the mean of the parts. label_parts: of each of the parts as
    if they were logits, summed, as public code has it.
    """
    del ctx
    label, parts = rows["label"], out["parts"]
    every = jnp.ones(label.shape[0], bool)
    each = [L.label_ce(parts[:, number], label) for number in range(parts.shape[1])]
    return {"label": (L.label_ce(out["logits"], label), every), "label_parts": (sum(each), every)}
