"""Face X-ray: where two images were blended into one, and whether they were (Li et al., CVPR 2020 oral).

"Face X-ray for More General Face Forgery Detection", arXiv 1912.13458. HRNet's maps give the X-ray of a face, which is
4 m (1 - m) of the mask m that blended it and nothing of a real; the X-ray alone decides. It learns from reals, each
once more with another person's face of the nearest landmarks blended in (recipe "face_xray"), and from no fakes of a
data set.

- A layer on each cell, enlarged to 256 px, a sigmoid; its mean and one layer give the label, as the paper has it.
- `port` is DeepfakeBench's head: two more convolutions; the X-ray without a sigmoid, by squares; three layers on it.

With fakes of the data set beside (--config.data.group.fake=1) those with a mask are asked for the X-ray of that mask,
softened (`config.loss_args.soften`): masks are stored with hard edges, of which the X-ray is nothing. The paper trains
on FF++'s fakes too; how their masks are softened is our choice. What `predict` shows as the map is the X-ray: the seam
and not the area.

Differs from the paper: HRNet learns from the first step on, at a rate that rises until step 50,000 (there it is held
until then); nearest faces are those of the batch (there of the whole set, which config.data.group.nearest is for);
crops are DeepfakeBench's alignment; reals and their forgeries are augmented alike.

Differs from the port's data, on purpose: no neighbour is of the same video or of a known identity (there only the frame
itself is left out); masks, colours and blending are the recipe's. Defects of that code that are not here: red and blue
change places in what it trains on and not in what it tests; its augmentation behind the blend is thrown away; its yaml
names a backbone and a map loss that nothing reads. Expected result: 95.9 on FF++ c23 and 67.9 on Celeb-DF v2 are frame
AUCs of that port (reference "detectors", section 1).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.models import backbones, conv, filters, heads, layers
from msddf_jax.synth import compose, face_xray

NEEDS = {"landmarks": ""}
# Of DeepfakeBench's head: channels of its convolutions, and of its layers on the X-ray.
_CONVS, _HIDDEN = (256, 128), (1024, 128)
# Starts as one half everywhere.
_MAP_INIT = nn.initializers.normal(0.01)


class Model(nn.Module):
    """Backbone + the X-ray of its last map + binary head on the X-ray.

    family, variant, options: of `backbones.make`. image_size: that the backbone sees; other images are resized. port:
    whether the head is DeepfakeBench's. map_size: side of the X-ray, even.
    """

    variant: str
    image_size: int
    family: str = "hrnet"
    port: bool = False
    map_size: int = 256
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbone and norms.

        Returns:
          dict, float32: logit [B] (log odds of fake), logits [B, 2], feature [B, d] of unit length, the backbone's, of
          `port` its last layer's; xray [B, S, S, 1] for S = map_size, in [0, 1], of `port` unbounded; xray_logits, its
          log odds, not of `port`; map_logits [B, g, g, 1], log odds of the X-ray in the backbone's cells (64 x 64 at
          256 px), of `port` those of the X-ray within [0.01, 0.99]; spatial [B, g, g, d]; of `port` pooled
          [B, S / 2, S / 2, 1], the X-ray that decides.
        """
        images = compose.resize(rows["image"], self.image_size)
        settings = dict(self.options or {}, dtype=self.dtype, name="backbone")
        features = backbones.make(self.family, self.variant, self.image_size, **settings)(images, train=train)
        x = features["spatial"]
        seen = self._read_port(x, train) if self.port else self._read(x, features["feature"])
        out = heads.BinaryHead("raw", name="binary_head")(seen.pop("decides"))
        feature = heads.l2_normalize(seen.pop("feature"))
        return seen | {"logit": out["logit"], "logits": out["logits"], "feature": feature, "spatial": x}

    def _read(self, x, feature):
        cells = layers.Linear(1, kernel_init=_MAP_INIT, name="xray_head")(x.astype(jnp.float32))
        logits = jax.image.resize(cells, (x.shape[0], self.map_size, self.map_size, 1), "linear")
        xray = jax.nn.sigmoid(logits)
        decides = xray.mean((1, 2))
        return {"xray": xray, "xray_logits": logits, "map_logits": cells, "decides": decides, "feature": feature}

    def _read_port(self, x, train):
        for number, width in enumerate(_CONVS):
            x = conv.conv(width, 3, self.dtype, f"conv_{number}", padding=1, use_bias=True)(x)
            x = jax.nn.relu(layers.batch_norm(train, self.dtype, f"norm_{number}")(x))
        cells = layers.Linear(1, kernel_init=_MAP_INIT, name="xray_head")(x.astype(jnp.float32))
        xray = filters.resize_corners(cells, (self.map_size, self.map_size))
        pooled = filters.window_mean(xray, (self.map_size // 2, self.map_size // 2))
        y = pooled.reshape(pooled.shape[0], -1)
        for number, width in enumerate(_HIDDEN):
            y = layers.Linear(width, name=f"hidden_{number}")(y)
            y = jax.nn.relu(layers.batch_norm(train, jnp.float32, f"hidden_norm_{number}")(y))
        safe = jnp.clip(cells, 0.01, 0.99)
        odds = jnp.log(safe) - jnp.log1p(-safe)
        return {"xray": xray, "map_logits": odds, "pooled": pooled, "decides": y, "feature": y}


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    label: cross-entropy. xray: of rows whose mask is known the mean over pixels of the X-ray's cross-entropy, of `port`
    of its squared error. Of `ctx.config.loss_args`, soften: see `_target`. Source: paper, section 3.3; reference:
    detectors, "facexray".
    """
    label = rows["label"]
    target = _target(rows, out["xray"].shape[1], ctx.config.loss_args.soften)
    if "xray_logits" in out:
        xray = L.map_bce(out["xray_logits"], target, pos_weight=1.0)
    else:
        xray = ((out["xray"] - target) ** 2).mean((1, 2, 3))
    every = jnp.ones(label.shape[0], bool)
    return {"label": (L.label_ce(out["logits"], label), every), "xray": (xray, rows["has_mask"])}


def _target(rows, size, soften):
    """[N, size, size, 1]: the X-ray of each row's mask; a data set's is blurred first.

    soften: standard deviation of that blur in pixels of a 256 px crop, 0 for none.
    """
    mask = rows["mask"].astype(jnp.float32)
    deviation = soften * mask.shape[1] / 256
    if deviation:
        taps = filters.gaussian_taps(2 * round(3 * deviation) + 1, deviation)
        soft = filters.correlate_bands(mask[..., 0], taps)[..., None]
        of_set = rows["role"] == compose.ROLES.index("dataset_fake")
        mask = jnp.where(of_set[:, None, None, None], soft, mask)
    return filters.area_pool(face_xray.boundary(mask), size)


def scalars(out, rows) -> dict[str, jax.Array]:
    """By role, and the share of forgeries that found no partner or changed nothing."""
    forgery = rows["role"] == compose.ROLES.index("forgery")
    unchanged = L.masked_mean((rows["label"] == 0).astype(jnp.float32), forgery)
    return {**hooks.scalars(out, rows), "synth/unchanged": unchanged}
