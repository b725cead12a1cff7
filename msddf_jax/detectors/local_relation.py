"""Local relation learning: how alike the regions of a face are decides (Chen et al., AAAI 2021).

"Local Relation Learning for Face Forgery Detection", arXiv 2105.02577. One EfficientNet sees the colours, another what
a high-pass leaves of the grey levels; at three depths each is weighted by where both say to look. The sums of their
maps, joined, are cut into patches, and a small network sees the likeness of every two patches alone. Two patches are to
be as unlike as the shares of them that were changed; a decoder names the changed pixels.

The authors published no code. Network, order, cut and the loss of likeness are those of DeepfakeBench's port, and so
are batch, rates and the weights of the losses, 1 each: we have no public source for the paper's own.

Differs from that port (`configs/detectors/local_relation.py:port`): both networks start with ImageNet's whole file (the
colours' first kernel summed for the grey levels), where that code has fresh first kernels without padding; grey levels
are not rounded. Mended in both: a patch of zeros is unlike all others (there the likeness is NaN), a fake whose mask is
not known is asked for neither map nor likeness (there it counts as untouched), images of any size. Expected result: the
benchmark publishes none.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import conv, efficientnet, heads, layers, local_relation
from msddf_jax.models.filters import area_pool
from msddf_jax.models.tap import Tap
from msddf_jax.synth import compose

NEEDS = {"mask": ""}
DEPTHS = ("low", "middle", "high")


class Model(nn.Module):
    """Two EfficientNets, "rgb" and "frequency"; attention between them; likeness of patches; a decoder of the mask.

    family: "efficientnet". variant: of `efficientnet.VARIANTS`. image_size: that the networks see; other images are
    resized. places: stages after which they are weighted, in their order, the last one "head". grid: cells a side of
    the joined map, even; a patch is 2 x 2 of them. hidden: of the layer on the likeness, dropout: behind it. decoder:
    channels of its stages. cut, rounded: of `local_relation.high_pass`. options: pixel_mean and pixel_std, and further
    fields of `efficientnet.run`.
    """

    variant: str
    image_size: int
    family: str = "efficientnet"
    places: tuple = ("block_9", "block_21", "head")
    grid: int = 8
    hidden: int = 128
    dropout: float = 0.2
    decoder: tuple = (256, 256, 128, 64)
    cut: float = 0.33
    rounded: bool = False
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbones, norms and dropout.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2]; likeness [B, p, p] in [0, 1] of patches, row by row;
          feature [B, p (p - 1)] of unit length, the likeness of different ones; map_logits [B, k, k, 1], 256 x 256 in
          the published size; attention_low, attention_middle, attention_high [B, h, w, 2] in (0, 1); spatial
          [B, grid, grid, d], the joined map.

        Raises:
          ValueError: places that the backbone has not, or out of order; a grid that is odd.
        """
        names = list(efficientnet.stages(self.variant))
        order = [names.index(place) if place in names else -1 for place in self.places]
        if len(order) != len(DEPTHS) or order != sorted(set(order)) or order[0] < 0 or order[-1] + 1 != len(names):
            raise ValueError(
                f"config.model.places is {tuple(self.places)}, expected two of {', '.join(names[:-1])} in this order, "
                "and head"
            )
        if self.grid % 2:
            raise ValueError(f"config.model.grid is {self.grid}, expected an even number of cells")
        settings = dict(self.options or {})
        pixels = [settings.pop(key, getattr(efficientnet, key.upper())) for key in ("pixel_mean", "pixel_std")]
        images = compose.resize(rows["image"], self.image_size)
        maps = {
            "rgb": conv.normalized(images, self.image_size, *pixels, self.dtype, "EfficientNet"),
            # As pixels are in the port.
            "frequency": (2 * local_relation.high_pass(images, self.cut, self.rounded) - 1).astype(self.dtype),
        }
        network, joined, out, start = (
            local_relation.Streams(self.variant, settings, self.dtype, name="backbone"),
            [],
            {},
            0,
        )
        for depth, place in zip(DEPTHS, order, strict=True):
            maps = network(maps, tuple(names[start : place + 1]), train)
            weights = local_relation.Attention(self.dtype, name=f"attention_{depth}")(*maps.values(), train)
            out[f"attention_{depth}"] = weights
            weighted = weights.astype(self.dtype)
            maps = {stream: x * weighted[..., i : i + 1] for i, (stream, x) in enumerate(maps.items())}
            joined.append(local_relation.to_grid(sum(maps.values()), self.grid))
            start = place + 1
        spatial = Tap(name="tap")(jnp.concatenate(joined, axis=-1))
        alike = local_relation.likeness(spatial)
        feature = local_relation.of_others(alike)
        x = jax.nn.relu(layers.Linear(self.hidden, name="hidden")(feature))
        head = heads.BinaryHead("raw", name="binary_head")(nn.Dropout(self.dropout, deterministic=not train)(x))
        return out | {
            "logit": head["logit"],
            "logits": head["logits"],
            "likeness": alike,
            "feature": heads.l2_normalize(feature),
            "map_logits": local_relation.Decoder(self.decoder, self.dtype, name="decoder")(spatial),
            "spatial": spatial,
        }


def from_backbone(flat, model) -> dict[str, Any]:
    """Variables of a plain EfficientNet for both networks; the first kernel of the frequencies' is summed over colours.

    flat: {"params/backbone/...": array}. model: the config's.
    """
    del model
    out = {}
    for name, value in flat.items():
        collection, backbone, rest = name.split("/", 2)
        out[f"{collection}/{backbone}/rgb/{rest}"] = value
        grey = np.sum(value, axis=2, keepdims=True) if rest == "stem/kernel" else value
        out[f"{collection}/{backbone}/frequency/{rest}"] = grey
    return out


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    label: cross-entropy. mask: binary cross-entropy of the map, mean over its cells. similarity: mean over all pairs of
    patches of (likeness - (1 - |r_i - r_j|))^2, r the share of a patch that was changed. The last two are of rows whose
    mask is known; a real's is 0 throughout. Source: the detector of DeepfakeBench; reference: detectors, "lrl".
    """
    del ctx
    label, seen, alike = rows["label"], out["map_logits"], out["likeness"]
    target = area_pool(rows["mask"], seen.shape[1])
    share = area_pool(rows["mask"], round(alike.shape[1] ** 0.5)).reshape(-1, alike.shape[1])
    wanted = 1 - jnp.abs(share[:, :, None] - share[:, None, :])
    return {
        "label": (L.label_ce(out["logits"], label), jnp.ones(label.shape[0], bool)),
        "mask": (L.map_bce(seen, target, pos_weight=1.0), rows["has_mask"]),
        "similarity": (((alike - wanted) ** 2).mean((1, 2)), rows["has_mask"]),
    }
