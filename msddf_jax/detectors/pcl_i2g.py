"""PCL + I2G: a network that compares every patch of a face with every other one (Zhao et al., ICCV 2021).

"Learning Self-Consistency for Deepfake Detection", arXiv 2012.09311. A forged image is of two sources, and a patch
carries the traces of its own. Of every two cells of a middle map the network says whether they are of one source
(pair-wise self-consistency learning); the class comes of the rest of the network as ever. It trains on reals and on
faces of the nearest other person blended into them (inconsistency image generator; recipe "face_xray"), whose masks are
known; fakes of a data set take part where they have masks.

The map for users is how unlike each cell is to the outermost ring of cells, mean over them and both directions: the
ring is the frame's own in a swapped face, so that 0 is real and 1 is forged. Unlikeness to all cells, the plain mean
over the volume, would change sides where a mask covers more than half of the cells, as it does in tight crops. What is
forged as a whole is consistent: its map is 0.

Differs from the paper: a cell's mask is its mean, there one value between the nearest pixels; of the generator, what is
in configs/detectors/pcl_i2g.py. DeepfakeBench's port, `configs/detectors/pcl_i2g.py:port`: Xception, one embedding for
both cells (its second is there and not used), and a consistency that weighs 1 in place of 10. A defect of its code that
is not here: it places the mask's corner pixels on the corner cells, so that a cell at the border looks up to 8 px
beside itself. Expected result: the paper's abstract has AUCs of 98.05 within and 92.18 across data sets, means over
seven; of the port reference "detectors" has no figures.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import backbones, heads, layers
from msddf_jax.models.filters import area_pool
from msddf_jax.synth import compose

# Without them nobody's face is blended into anyone's.
NEEDS = {"landmarks": ""}
# Embeddings start small: large ones would start at a consistency of 0 or 1, which learns from neither.
_START = nn.initializers.normal(0.01)
# Of the map's probability, so that its log odds are finite.
_LEAST = 1e-4


class Model(nn.Module):
    """Backbone + binary head, and the consistency of the cells of one of its stages.

    family, variant, options: of `backbones.make`. image_size: that the backbone sees; other images are resized.
    stage: of `backbones.stages`. shared: whether both cells of a pair are embedded alike.
    """

    variant: str
    image_size: int
    family: str = "resnet"
    stage: str = "stage_3"
    shared: bool = False
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbone.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2], feature [B, d] of unit length, spatial [B, h, w, d];
          consistency [B, n, n] float32, log odds that cells i and j, of n = g x g row by row, are of one source;
          map_logits [B, g, g, 1], 16 x 16 at 256 px.

        Raises:
          ValueError: a stage that the backbone has not.
        """
        known = backbones.stages(self.family, self.variant)
        if self.stage not in known:
            raise ValueError(
                f"config.model.stage is {self.stage!r}; {self.family} {self.variant} has {', '.join(known)}"
            )
        images = compose.resize(rows["image"], self.image_size)
        make = functools.partial(backbones.make, self.family, self.variant, self.image_size)
        features = make(dtype=self.dtype, name="backbone", **(self.options or {}))(images, train=train)
        cells = features["stages"][self.stage].astype(jnp.float32)
        batch, grid, _, width = cells.shape
        embed = lambda name: layers.Linear(width, kernel_init=_START, name=name)(cells.reshape(batch, -1, width))
        one = embed("theta")
        other = one if self.shared else embed("phi")
        product = jnp.einsum("bid,bjd->bij", one, other, precision=jax.lax.Precision.HIGHEST)
        consistency = product / width**0.5
        out = heads.BinaryHead("raw", name="binary_head")(features["feature"])
        return dict(
            out,
            feature=out["embedding"],
            spatial=features["spatial"],
            consistency=consistency,
            map_logits=_map_logits(consistency, grid),
        )


def _map_logits(consistency, grid):
    """Log odds that a cell is of another source than the ring: [B, n, n] -> [B, grid, grid, 1]."""
    place = np.arange(grid)
    edge = (place == 0) | (place == grid - 1)
    ring = (edge[:, None] | edge).ravel().astype(np.float32)
    alike = jax.nn.sigmoid(consistency)
    alike = (alike + alike.transpose(0, 2, 1)) / 2
    unlike = 1 - jnp.matmul(alike, ring / ring.sum(), precision=jax.lax.Precision.HIGHEST)
    unlike = jnp.clip(unlike, _LEAST, 1 - _LEAST).reshape(-1, grid, grid, 1)
    return jnp.log(unlike) - jnp.log1p(-unlike)


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    label: cross-entropy. consistency: binary cross-entropy against 1 - |m_i - m_j|, mean over all pairs of cells, each
    with itself too; m is the mean of the mask over a cell. Of rows whose mask is known; a real's is 0 throughout, and
    all its cells are of one source. Source: paper, section 3; reference: detectors, "pcl_xception".
    """
    del ctx
    label, logits = rows["label"], out["consistency"]
    mask = area_pool(rows["mask"], out["map_logits"].shape[1]).reshape(len(label), -1)
    target = 1 - jnp.abs(mask[:, :, None] - mask[:, None, :])
    return {
        "label": (L.label_ce(out["logits"], label), jnp.ones(label.shape[0], bool)),
        "consistency": (optax.sigmoid_binary_cross_entropy(logits, target).mean((1, 2)), rows["has_mask"]),
    }
