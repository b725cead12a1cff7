"""UIA-ViT: a ViT whose patches are to attend to patches of their own kind (Zhuang et al., ECCV 2022).

"UIA-ViT: Unsupervised Inconsistency-Aware Method based on Vision Transformer for Face Forgery Detection", arXiv
2210.12752; the authors' code is wany0824/UIA-ViT. Nobody says which patches of a fake are forged: two Gaussians of a
middle block's features, of the patches of reals and of those in the middle of fakes, do. How much two patches attend to
each other, mean over heads and the last blocks, is to be near one learned value where both are real, near another where
both are forged, and near a third where they differ. The class token's attention, the map for users, weighs the last
features of the patches, whose sum is classified with the class token's. That map learns from the label alone: it says
where the detector looks.

The authors' code is the paper's form. DeepfakeBench's port, `configs/detectors/uia_vit.py:port`, has the same network
and losses with other rates and lengths. Differs from both: the Gaussians are moving sums of the player "consistency"
(`models.gaussians`), part of a checkpoint and the same on any number of devices, where a list of all features was held
and was lost at a restart; squared distances are compared; nothing is a batch's number but a setting.

Mended: a checkpoint is scored with the weight that its map had at its step (the port scores each as if training were
over); the port's batches of validation count as steps of training, and their features enter the Gaussians. Expected
result: the benchmark publishes none.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.models import clip, gaussians, heads, layers
from msddf_jax.models.filters import correlate_bands, gaussian_taps
from msddf_jax.synth import compose

REAL, FAKE, CROSS = range(3)


class Model(nn.Module):
    """ViT, patches weighed by the class token's attention + binary head.

    family: "clip", with the `options` that make it a plain ViT (`clip.PLAIN_VIT`). variant: of `clip.VARIANTS`.
    image_size: that the network sees; other images are resized. middle: block whose features the Gaussians are of.
    affinity_from: first block whose attention counts. even_until: share of training in which patches weigh the same;
    turn, steepness: of the sigmoid by which the attention's share grows from there on. detail: None, or the factor by
    which what pixels have beside their Gaussian mean is shown in place of the image, to a ViT from random weights.
    """

    variant: str
    image_size: int
    family: str = "clip"
    middle: str = "block_5"
    affinity_from: int = 7
    even_until: float = 1 / 8
    turn: float = 0.7
    steepness: float = 12.0
    detail: float | None = None
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}, and in training "progress" [B], the share of it that is done.

        Returns:
          dict, float32: logit [B] (log odds of fake), logits [B, 2], feature [B, 2 d] of unit length, map_logits
          [B, g, g, 1], affinity [B, N, N] in (0, 1) of patch to patch, patches [B, g, g, d] of the middle block;
          spatial [B, g, g, d].

        Raises:
          ValueError: a block that the variant has not.
        """
        if self.middle not in clip.stages(self.variant):
            raise ValueError(f"config.model.middle is {self.middle!r}; {self.variant} has {clip.stages(self.variant)}")
        # What is left of training: 0, as in a published file, is its end.
        left = self.variable("schedule", "left", jnp.zeros, (), jnp.float32)
        if train and not self.is_initializing():
            left.value = 1.0 - rows["progress"].max()
        settings = dict(self.options or {}, affinity_from=self.affinity_from, dtype=self.dtype, name="backbone")
        images = _detail(compose.resize(rows["image"], self.image_size), self.detail)
        features = clip.VisionTransformer(self.variant, self.image_size, **settings)(images, train=train)
        looked = features["affinity"][:, 0, 1:]
        even = jax.nn.sigmoid(self.steepness * (self.turn - 1.0 + left.value))
        even = jnp.where(1.0 - left.value < self.even_until, 1.0, even)
        weight = even + (1.0 - even) * jax.nn.sigmoid(looked)
        seen = jnp.einsum("bn,bnd->bd", weight / looked.shape[1], features["tokens"])
        out = heads.BinaryHead("raw", name="binary_head")(jnp.concatenate([features["cls"], seen], axis=-1))
        eps = dict(self.options or {}).get("norm_eps", layers.LAYER_NORM_EPS)
        return {
            "logit": out["logit"],
            "logits": out["logits"],
            "feature": out["embedding"],
            "map_logits": layers.as_grid(looked[..., None]),
            "affinity": jax.nn.sigmoid(features["affinity"][:, 1:, 1:]),
            # No loss reaches this norm: it stays as it starts.
            "patches": layers.layer_norm(jnp.float32, "middle", eps)(features["stages"][self.middle]),
            "spatial": features["spatial"],
        }


def _detail(images, factor):
    """Grey and `factor` times images [B, H, W, 3] less their Gaussian mean of deviation 1, or for None the images."""
    if factor is None:
        return images
    planes = images.transpose(0, 3, 1, 2).reshape(-1, *images.shape[1:3])
    planes = planes - correlate_bands(planes, gaussian_taps(7, 1.0))
    return jnp.clip(0.5 + factor * planes.reshape(-1, 3, *images.shape[1:3]).transpose(0, 2, 3, 1), 0.0, 1.0)


class Consistency(nn.Module):
    """What the consistency of patches is measured with: () -> (values [3] that affinities are to have, Gaussians).

    width: of the features. start: of the values of two real patches, of two forged ones, and of one of each.
    """

    width: int
    start: tuple

    @nn.compact
    def __call__(self) -> tuple[jax.Array, dict[str, jax.Array]]:
        values = self.param("values", lambda _: jnp.asarray(self.start, jnp.float32))
        kept = gaussians.shapes(2, self.width)
        return values, {name: self.variable("gaussians", name, jnp.zeros, kept[name]).value for name in kept}


def players(config) -> dict[str, hooks.Player]:
    """The default ones, and "consistency" with its values and Gaussians; it is no part of an export."""
    module = Consistency(clip.get_variant(config.model.variant).width, tuple(config.loss_args.affinities))
    return {**hooks.players(config), "consistency": hooks.Player(module, ())}


def make_rows(key, batch, ctx) -> dict[str, jax.Array | dict]:
    """Rows of `hooks.make_rows`, and how much of training is done as "progress" [B]."""
    rows = hooks.make_rows(key, batch, ctx)
    return {**rows, "progress": jnp.full(rows["label"].shape, ctx.progress, jnp.float32)}


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted; from `begin` on all but the label's.

    label: cross-entropy. reals, fakes: mean |affinity - its value| of pairs of patches (`_consistency`). same: 1 / |v|
    of the values of two real patches and of two forged ones; cross: |v| of one of each. In steps that `refit_every`
    divides, the Gaussians are fitted to what was collected since; each step collects of its first `samples` reals all
    patches, and of its first `samples` fakes those within the shares `inner` of the grid.

    Args:
      out: of `Model`. rows: of `make_rows`. ctx: `hooks.Context`; its `config.loss_args` has these settings, and
        as `affinities` the values at the start.

    Source: authors' train.py and utils/utils.py; reference: detectors, "uia_vit".
    """
    settings, label = ctx.config.loss_args, rows["label"]
    every = jnp.ones(label.shape, bool)
    counted = rows.get("counted", every)
    values, kept = ctx.apply("consistency")
    kept = gaussians.refit(kept, (ctx.step > 0) & (ctx.step % settings.refit_every == 0))
    patches = jax.lax.stop_gradient(out["patches"])
    far = gaussians.distances(kept, patches)
    forged = (far[REAL] > far[FAKE]).reshape(label.shape[0], -1) & (label == 1)[:, None]
    reals = _samples(patches, counted & (label == 0), settings.samples, (0.0, 1.0))
    fakes = _samples(patches, counted & (label == 1), settings.samples, settings.inner)
    ctx.update("consistency", gaussians=gaussians.collect(kept, *(jnp.stack(pair) for pair in zip(reals, fakes))))
    begun = jnp.broadcast_to((ctx.step >= settings.begin) & (kept["fitted"].min() > 0), label.shape)
    off = _consistency(out["affinity"], forged, label, values)
    same = 1 / jnp.abs(values[REAL]) + 1 / jnp.abs(values[FAKE])
    return {
        "label": (L.label_ce(out["logits"], label), every),
        "reals": (off, begun & (label == 0)),
        "fakes": (off, begun & (label == 1)),
        "same": (jnp.broadcast_to(same, label.shape), begun),
        "cross": (jnp.broadcast_to(jnp.abs(values[CROSS]), label.shape), begun),
    }


def _consistency(affinity, forged, label, values):
    """[B]: sum of |affinity - its value| over all pairs of patches, over N^2 - N. affinity [B, N, N], forged [B, N].

    A patch's affinity to itself is to be 1 in a real, and in a fake the value of its kind, as in the authors' code.
    """
    count = affinity.shape[-1]
    same = jnp.where(forged[:, :, None], values[FAKE], values[REAL])
    target = jnp.where(forged[:, :, None] == forged[:, None, :], same, values[CROSS])
    target = jnp.where(jnp.eye(count, dtype=bool) & (label == 0)[:, None, None], 1.0, target)
    return jnp.abs(affinity - target).sum((1, 2)) / (count**2 - count)


def _samples(patches, mask, number, inner):
    """(features [M, d], weight [M]) of the first rows [B, g, g, d] that mask [B] keeps, cells from share to share.

    Both classes give as many places, so that they can be stacked: what is not within weighs 0.
    """
    chosen = jnp.argsort(~mask)[:number]
    grid = patches.shape[1]
    first, end = (round(share * grid) for share in inner)
    within = (jnp.arange(grid) >= first) & (jnp.arange(grid) < end)
    weight = mask[chosen][:, None, None] & within[:, None] & within[None, :]
    return patches[chosen].reshape(-1, patches.shape[-1]), weight.reshape(-1).astype(jnp.float32)
