"""SIA: attention by self-information, which has no parameters, inside EfficientNet-B4 (Sun et al., ECCV 2022).

"An Information Theoretic Approach for Attention-Driven Face Forgery Detection". What differs from its neighbours in
place and among channels is rare, and a forgery is. After three blocks the map is weighed by how far each of its values
is from those around it and from the next channels at its place, and each channel by how much of this it has; what was
found goes on to the later blocks through linear maps and largest values.

No code of the authors' is public, so that constants and order are those of DeepfakeBench's port, and so is what of the
paper's estimate of the density it keeps. Differs from that port, whose form is `configs/detectors/sia.py:port`:

- The differences to the five next channels are added up for each channel (`inter` = "own"). There the five differences
  of all channels stand behind one another and every five in a row are added: those of five channels to one and the
  same distance ("rows").
- The stem is padded, so that ImageNet's first kernel fits; pixels are ImageNet's.

Mended in both: the differences are divided by their mean over the image, there over the batch, so that a face's score
depends on which others come with it; a map without differences is multiplied by one number, there it is NaN; links fit
any image, there 256 px alone. Expected result: the benchmark publishes none.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import conv, efficientnet, heads, layers
from msddf_jax.models.filters import windows
from msddf_jax.synth import compose

INTERS = ("own", "rows")
# Next channels that each is compared with; after the last comes the first.
CHANNELS = 5
# Share of what channels differ by, beside what places do; added under the logarithm, so that it has a bound.
INTER_WEIGHT, LEAST = 0.5, 0.1


class Model(nn.Module):
    """EfficientNet with self-information attention after some of its blocks + binary head.

    family: "efficientnet". variant: of `efficientnet.VARIANTS`. image_size: that the network sees; other images are
    resized. attend: the blocks, in their order. inter: of `INTERS`. options: further fields of the backbone.
    """

    variant: str
    image_size: int
    family: str = "efficientnet"
    attend: tuple = ("block_5", "block_9", "block_21")
    inter: str = "own"
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbone and the links.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2], feature [B, d] of unit length, spatial [B, h, w, d].

        Raises:
          ValueError: another `inter`; blocks that the backbone has not.
        """
        if self.inter not in INTERS:
            raise ValueError(f"config.model.inter is {self.inter!r}, allowed: {INTERS}")
        stages, names = efficientnet.stages(self.variant), tuple(self.attend)
        unknown = sorted(set(names) - set(stages))
        if unknown:
            raise ValueError(f"config.model.attend names {unknown}; {self.variant} has {', '.join(stages)}")
        links = {
            (i, j): Link(stages[names[j]][0], self.dtype, name=f"link_{i}_{j}")
            for j in range(len(names))
            for i in range(j)
        }
        found = {}

        def attend(number, x):
            for before in range(number):
                x = x + _max_to(links[before, number](found[before], train), x.shape[1:3])
            seen = _self_information(x, self.inter)
            found[number] = seen.astype(self.dtype)
            return _weigh(x, seen)

        after = {name: lambda x, number=number: attend(number, x) for number, name in enumerate(names)}
        settings = dict(self.options or {}, after=after, dtype=self.dtype, name="backbone")
        images = compose.resize(rows["image"], self.image_size)
        features = efficientnet.EfficientNet(self.variant, self.image_size, **settings)(images, train=train)
        out = heads.BinaryHead("raw", name="binary_head")(features["feature"])
        return dict(out, feature=out["embedding"], spatial=features["spatial"])


class Link(nn.Module):
    """Linear map of the channels, norm and ReLU: [B, H, W, C] -> [B, H, W, features]."""

    features: int
    dtype: Any

    @nn.compact
    def __call__(self, x, train) -> jax.Array:
        x = layers.Linear(self.features, self.dtype, conv.HE_NORMAL, name="linear")(x)
        return jax.nn.relu(layers.batch_norm(train, self.dtype, "norm")(x))


def _self_information(x, inter):
    """[B, H, W, C] -> the same, float32: half of each value's distance over the image's mean distance. No gradient."""
    x = jax.lax.stop_gradient(x.astype(jnp.float32))
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    near = jnp.abs(9 * x - sum(conv.shifted_images(padded, 3, 1)))
    apart = [x - jnp.roll(x, -step, axis=-1) for step in range(1, CHANNELS + 1)]
    if inter == "own":
        among = sum(apart)
    else:
        among = jnp.concatenate(apart, axis=-1).reshape(*x.shape, CHANNELS).sum(-1)
    distance = near + INTER_WEIGHT * jnp.abs(among)
    # Where nothing differs anywhere, all is 0.
    return distance / jnp.maximum(distance.mean((1, 2, 3), keepdims=True), 1e-12) / 2


def _weigh(x, seen):
    """x [B, H, W, C] by place and channel: times 1 + sigmoid(seen), times 1 + mean(-log(exp(-seen) + 0.1))."""
    channel = 1 - jnp.log(jnp.exp(-seen) + LEAST).mean((1, 2), keepdims=True)
    return x * ((1 + jax.nn.sigmoid(seen)) * channel).astype(x.dtype)


def _max_to(x, size):
    """Largest values of [B, H, W, C] in the `windows` of a grid of (rows, columns)."""
    for axis, count in zip((1, 2), size, strict=True):
        first, end = windows(x.shape[axis], count)
        # Of one length: a shorter one sees its last row again.
        seen = np.minimum(first[:, None] + np.arange((end - first).max()), end[:, None] - 1)
        x = jnp.take(x, seen, axis=axis).max(axis + 1)
    return x


def losses(out, rows, ctx) -> dict[str, tuple]:
    """{"label": cross-entropy of every row}, unweighted."""
    del ctx
    return {"label": (L.label_ce(out["logits"], rows["label"]), jnp.ones(rows["label"].shape[0], bool))}
