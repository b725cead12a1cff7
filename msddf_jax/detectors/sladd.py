"""SLADD: Xception beside an adversary that forges reals with regions of other faces (Chen et al., CVPR 2022 oral).

"Self-supervised Learning of Adversarial Example: Towards Good Generalizations for Deepfake Detection". A synthesiser
chooses region, blend and magnitude of each forgery to raise the detector's loss (recipe "sladd", `adversary`); the
detector also tells where, how and how strongly a face was forged. Every image is seen once more, mirrored.

Differs from the public code, on purpose:

- The synthesiser has a reward of its own for each forgery, a moving baseline and magnitudes that are drawn from bins.
  There it is paid with the loss of the batch, without a baseline, and its magnitude can only grow:
  config.policy.mode=published is that form. It is the small network of `models.policy`, there a second Xception.
- The magnitude's error is taken of a forgery's own; there a broadcast makes it that of all pairs:
  config.loss_args.magnitude=all_pairs.
- A group gives its real, a forgery of it and fakes of the data set (`config.data.group`); there an item is one of the
  three, and a real stays one only where the synthesiser leaves it alone. A blend that changed nothing is a real.
- Landmarks and masks are the data set's; the region is drawn on the real's landmarks, there on those of the reference,
  which is moved onto them bilinearly with repeated borders, there cubically and reflected. A fake without a mask is not
  asked for its map; there the map is zeros. A reference is a row of the batch.
- Images are augmented before they are mirrored (`config.augment`); the checkpoint is chosen on the validation split,
  there on the test set.

Expected result: the public code gives none, and its AUC is a mean over batches; the tables here are this project's.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.data import schema
from msddf_jax.models import backbones, heads, layers, xception
from msddf_jax.synth import compose

# SLADD's types, in their order: the three blends, real, fake of the data set.
TYPES = ("alpha", "poisson", "dynamic", "real", "dataset_fake")
_TYPE_TABLE = tuple(TYPES.index(name) if name in TYPES else -1 for name in schema.FORGERY_TYPES)
MAGNITUDES = ("masked", "all_pairs")
# Parts of a face as they are called once the image is mirrored.
_MIRRORED_PARTS = ("right_eye", "left_eye", "nose", "mouth", "whole_face")


class Model(nn.Module):
    """Xception + label, type and magnitude on its feature + map on one of its stages.

    family, variant, options: of `backbones.make`. image_size: that the backbone sees; other images are resized on the
    device. map_stage: of `backbones.stages`. dropout: of the feature, before the label's layer alone.
    """

    variant: str
    image_size: int
    family: str = "xception"
    map_stage: str = "block_7"
    dropout: float = 0.5
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbone and the dropout.

        Returns:
          dict, float32: logit [B] (log odds of fake), logits [B, 2], feature [B, d] of unit length, map_logits
          [B, g, g, 1] (16 x 16 at 256 px), blend_logits [B, 5] over `TYPES`, magnitude [B], of a linear layer, for the
          range [0, 1]; spatial [B, h, w, d].

        Raises:
          ValueError: a stage that the backbone has not.
        """
        images = compose.resize(rows["image"], self.image_size)
        make = functools.partial(backbones.make, self.family, self.variant, self.image_size)
        features = make(dtype=self.dtype, name="backbone", **(self.options or {}))(images, train=train)
        if self.map_stage not in features["stages"]:
            raise ValueError(
                f"config.model.map_stage is {self.map_stage!r}; {self.family} {self.variant} has "
                f"{', '.join(features['stages'])}"
            )
        feature, stage = features["feature"], features["stages"][self.map_stage].astype(jnp.float32)
        dropped = nn.Dropout(self.dropout, deterministic=not train)(feature)
        label = heads.BinaryHead("raw", name="binary_head")(dropped)
        return {
            "logit": label["logit"],
            "logits": label["logits"],
            "feature": heads.l2_normalize(feature),
            "map_logits": xception.SeparableConv(1, jnp.float32, name="map_head")(stage),
            "blend_logits": layers.Linear(len(TYPES), name="type_head")(feature),
            "magnitude": layers.Linear(1, name="magnitude_head")(feature)[:, 0],
            "spatial": features["spatial"],
        }


def make_rows(key, batch, ctx) -> dict[str, Any]:
    """`hooks.make_rows`, each row followed by itself mirrored; `base` of a mirrored row is its mirrored real.

    What the adversary chose stands in both rows: it is judged by the mean of the two.
    """
    return _add_mirrored(hooks.make_rows(key, batch, ctx))


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    Args:
      out: of `Model`. rows: of `make_rows`. ctx: `hooks.Context`; of `config.loss_args`, am: {"scale", "margin"} of
        AM-softmax; magnitude: "masked", each dynamic mix's own error, or "all_pairs", as published.

    Raises:
      ValueError: another `magnitude`.

    Source: reference: sladd, "Detector".
    """
    settings = ctx.config.loss_args
    if settings.magnitude not in MAGNITUDES:
        raise ValueError(f"config.loss_args.magnitude is {settings.magnitude!r}, allowed: {MAGNITUDES}")
    every = jnp.ones(rows["label"].shape[0], bool)
    kind = jnp.asarray(_TYPE_TABLE)[rows["type"]]
    mixed = kind == TYPES.index("dynamic")
    if settings.magnitude == "masked":
        magnitude = (L.strength_mse(out["magnitude"], rows["strength"]), mixed)
    else:
        magnitude = (L.strength_all_pairs(out["magnitude"], rows["strength"], mixed), every)
    target = _map_target(rows["blend_mask"], out["map_logits"].shape[1])
    return {
        "label": (L.label_am(out["logits"], rows["label"], **settings.am), every),
        "map_mse": (L.map_mse(out["map_logits"], target), rows["has_mask"]),
        "type_am": (L.label_am(out["blend_logits"], jnp.maximum(kind, 0), **settings.am), kind >= 0),
        "magnitude_mse": magnitude,
    }


def _map_target(mask, grid):
    """Masks [N, H, W, 1] on the grid, cubic and not smoothed before, as published; within [0, 1]."""
    small = jax.image.resize(mask, (mask.shape[0], grid, grid, 1), "cubic", antialias=False)
    return jnp.clip(small, 0.0, 1.0)


def _add_mirrored(rows):
    """Rows [N, ...] -> [2 N, ...], row i at 2 i and its mirror image at 2 i + 1, so that a group stays together."""
    swap = jnp.asarray([schema.FACE_PARTS.index(name) for name in _MIRRORED_PARTS])
    mirror = {name: lambda x: jnp.flip(x, axis=-2) for name in ("image", "mask", "blend_mask")}
    mirror["regions"] = lambda parts: parts[:, swap]
    mirror["window"] = lambda edges: jnp.stack([1.0 - edges[:, 1], 1.0 - edges[:, 0], edges[:, 2], edges[:, 3]], axis=1)
    both = lambda x, y: jnp.stack([x, y], axis=1).reshape(-1, *x.shape[1:])
    same = lambda x: x
    out = {name: jax.tree.map(both, value, mirror.get(name, same)(value)) for name, value in rows.items()}
    count = rows["base"].shape[0]
    return dict(out, base=2 * jnp.repeat(rows["base"], 2) + jnp.tile(jnp.arange(2, dtype=jnp.int32), count))
