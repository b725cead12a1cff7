"""CORE: two views of one image are to have the same feature (Ni et al., CVPR Workshops 2022).

"CORE: Consistent Representation Learning for Face Forgery Detection", arXiv 2206.02749. Every image of the batch is
augmented twice, each view for itself; the objective is the cross-entropy of both views and, weighted, the squared
distance of the cosine between their features from 1. The network is a plain Xception: a checkpoint of DeepfakeBench's
CORE has the names of its Xception, and is read as one.

Differs from the authors' code: a group has as many reals as fakes, so that reals have no weight of 4; Adam's decay is
DeepfakeBench's; and before each view is left alone, loses a rectangle or is cropped (RaAug), `config.augment` changes
it as it does every detector's images, each view anew.

Mended: DeepfakeBench's port makes one view of each image and takes the first half of a batch and the second for the
two, so that the features of strangers, real and fake among them, are drawn together. Expected result: 96.4 on FF++ c23
and 74.3 on Celeb-DF v2 are frame AUCs of that port (reference "detectors", section 1).
"""

import jax
import jax.numpy as jnp

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.detectors import baseline
from msddf_jax.synth import compose, geometry

Model = baseline.Model
# RaAug of the authors' code: shares of the area that a rectangle and a crop take, and their ratios of sides.
_ERASED, _ERASED_RATIO = (0.02, 0.2), (0.5, 2.0)
_CROPPED, _CROPPED_RATIO = (1 / 1.3, 1.0), (0.9, 1.1)


def make_rows(key, batch, ctx) -> dict[str, jax.Array | dict]:
    """Every row of the data set twice, as row 2 i and row 2 i + 1: flipped, augmented and cut each for itself.

    Args:
      key: typed key. batch: device batch of images. ctx: `hooks.Context`; of `config.loss_args`, views: {"erase",
        "crop"}, the chances of either; the rest of the views stay whole.

    Returns:
      rows of `hooks.see_rows`; `base` of both views is the first one's number.

    Raises:
      ValueError: clips; forgeries (`synth.recipe` other than "none"); views that are augmented alike (`synth.joint`);
      chances that are negative or more than 1 together.
    """
    layout = _check(batch, ctx.config)
    synth, views = ctx.config.synth, ctx.config.loss_args.views
    make = lambda key: compose.compose(key, batch, layout=layout, recipe=synth.recipe, flip=synth.flip)
    flip_key, other_key, cut_key = jax.random.split(key, 3)
    both = lambda x, y: jnp.stack([x, y], axis=1).reshape(-1, *x.shape[1:])
    rows = jax.tree.map(both, make(flip_key), make(other_key))
    rows["base"] = jnp.repeat(2 * jnp.arange(rows["base"].shape[0] // 2, dtype=jnp.int32), 2)
    return _cut(cut_key, hooks.see_rows(rows, layout, ctx), views.erase, views.crop)


def losses(out, rows, ctx) -> dict[str, tuple]:
    """{"label": cross-entropy of every view; "consistency": (1 - cosine of the two views)^2}, unweighted.

    Args:
      out: of `Model`. rows: of `make_rows`, the views of an image side by side.
    """
    del ctx
    every = jnp.ones(rows["label"].shape[0], bool)
    views = out["feature"].reshape(-1, 2, out["feature"].shape[-1])
    consistency = L.pair_cosine(views[:, 0], views[:, 1]) ** 2
    return {
        "label": (L.label_ce(out["logits"], rows["label"]), every),
        "consistency": (jnp.repeat(consistency, 2), every),
    }


def _check(batch, config):
    """The layout. Raises ValueError as `make_rows`."""
    layout, views = hooks.layout_of(config), config.loss_args.views
    if batch["image"].ndim != 4 or layout.forged or config.synth.joint:
        raise ValueError(
            "core makes two views of each image of a data set: expected images [B, H, W, 3], synth.recipe.name='none' "
            f"and synth.joint=False; got images {list(batch['image'].shape)}, {layout} and {config.synth.joint}"
        )
    if min(views.erase, views.crop) < 0 or views.erase + views.crop > 1:
        raise ValueError(
            f"config.loss_args.views is erase {views.erase} and crop {views.crop}, expected chances, together at most 1"
        )
    return layout


def _cut(key, rows, erase, crop):
    """Rows of which some lose a rectangle, which turns black, and others are a part of themselves at the old size."""
    count = rows["image"].shape[0]
    draw_key, erase_key, crop_key = jax.random.split(key, 3)
    draw = jax.random.uniform(draw_key, (count,))
    hole = _rectangles(erase_key, count, _ERASED, _ERASED_RATIO)
    window = _rectangles(crop_key, count, _CROPPED, _CROPPED_RATIO)
    whole = jnp.array([0.0, 1.0, 0.0, 1.0])
    cropped = ((draw >= erase) & (draw < erase + crop))[:, None]
    window = jnp.where(cropped, window, whole)
    out = {name: geometry.cut_windows(rows[name], window) for name in ("image", "mask", "blend_mask")}
    inside = _inside(hole, rows["image"].shape[1]) & (draw < erase)[:, None, None]
    return {**rows, **out, "image": jnp.where(inside[..., None], 0.0, out["image"])}


def _rectangles(key, count, areas, ratios):
    """[count, 4]: left, right, top and bottom edge as shares of the sides; ratio of width to height, on a log scale."""
    area, ratio, x, y = jax.random.uniform(key, (4, count))
    area = areas[0] + (areas[1] - areas[0]) * area
    ratio = ratios[0] * (ratios[1] / ratios[0]) ** ratio
    width, height = jnp.minimum(jnp.sqrt(area * ratio), 1.0), jnp.minimum(jnp.sqrt(area / ratio), 1.0)
    left, top = x * (1.0 - width), y * (1.0 - height)
    return jnp.stack([left, left + width, top, top + height], axis=1)


def _inside(rectangles, size):
    """bool [B, size, size]: pixels whose centre is in each row's rectangle [B, 4]."""
    centre = (jnp.arange(size) + 0.5) / size
    left, right, top, bottom = (edge[:, None] for edge in rectangles.T)
    columns, rows = (centre >= left) & (centre < right), (centre >= top) & (centre < bottom)
    return rows[:, :, None] & columns[:, None, :]
