"""RFM: a plain network that does not get to see where it looked most (Wang and Deng, CVPR 2021).

"Representative Forgery Mining for Fake Face Detection", arXiv 2104.06609; the authors' code is crywang/RFM. In every
step the network, as it scores, is asked which pixels its answer hangs on: the largest |d (logit fake - logit real) /
d pixel| of the three channels (forgery attention map). From the highest on, pixels that are not yet covered get a
rectangle of noise around them, three an image, and the network trains on what is left. It has to find further traces.

The network is a plain Xception: a checkpoint of DeepfakeBench's RFM has its names, and is read as one.

Differs from the authors' code: rectangles have sides of up to 120 / 224 of the image, whose side there is 224; half of
the rows are of the same videos, there reals and fakes of anyone; the image is augmented first (`config.augment`);
Xception starts with ImageNet's weights, there with none. From it are the flooding of the loss (Ishida et al., 2020),
which the paper does not name, and rates and batch.

DeepfakeBench's port, `configs/detectors/rfm.py:port`, has 120 pixels of 256 and no flooding. Its code covers pixels by
a size of 256 whatever the image is, and covers images of its test set where the flag of inference is not set; neither
is here. Expected result: no row of DeepfakeBench's table; the paper's are on DFFD and Celeb-DF.
"""

import jax
import jax.numpy as jnp

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.detectors import baseline

Model = baseline.Model


def make_rows(key, batch, ctx) -> dict[str, jax.Array | dict]:
    """`hooks.make_rows`, whose images are covered with noise where the detector looks most.

    Args:
      key: typed key. batch: device batch. ctx: `hooks.Context`; of `config.loss_args`, erase: {"blocks": rectangles an
        image, "share": their largest side, of the image's}.

    Returns:
      rows, with erased float32 [N], the share of each image that is covered.

    Raises:
      ValueError: a share outside (0, 1], fewer than one rectangle; clips.
    """
    erase = ctx.config.loss_args.erase
    if not (0.0 < erase.share <= 1.0 and erase.blocks >= 1):
        raise ValueError(
            f"config.loss_args.erase is {erase.to_dict()}, expected a share in (0, 1] and at least 1 of blocks"
        )
    if batch["image"].ndim != 4:
        raise ValueError(f"rfm trains on images [B, H, W, 3], got {list(batch['image'].shape)}")
    rows = hooks.make_rows(key, batch, ctx)
    image = rows["image"]
    attention = _attention(image, lambda x: ctx.apply("detector", {"image": x})["logit"])
    box_key, noise_key = jax.random.split(ctx.key("erase"))
    keys = jax.random.split(box_key, image.shape[0])
    longest = max(1, round(erase.share * image.shape[1]))
    kept = jax.vmap(lambda k, seen: _kept(seen, _draw(k, erase.blocks, longest)))(keys, attention)
    noise = jax.random.uniform(noise_key, image.shape, image.dtype)
    covered = jnp.where(kept[..., None], image, noise)
    return dict(rows, image=covered, erased=1.0 - kept.astype(jnp.float32).mean((1, 2)))


def _attention(image, score):
    """Forgery attention map [N, H, W] of images [N, H, W, 3] and score(images) [N], without a gradient."""
    gradient = jax.grad(lambda x: score(x).astype(jnp.float32).sum())(jax.lax.stop_gradient(image))
    return jax.lax.stop_gradient(jnp.abs(gradient).max(-1))


def _draw(key, blocks, longest):
    """int32 [blocks, 4]: height and width in [1, longest], and how much of each lies before its pixel, at least 1."""
    size_key, part_key = jax.random.split(key)
    size = jax.random.randint(size_key, (blocks, 2), 1, longest + 1)
    return jnp.concatenate([size, jax.random.randint(part_key, (blocks, 2), 1, size + 1)], axis=1)


def _kept(attention, boxes):
    """bool [H, W]: what the rectangles leave of an image.

    One after another each takes the pixel of highest attention [H, W] that is neither covered nor was taken (a
    rectangle ends before its pixel where all of it lies before), of equals the first, and covers from `before` above
    and to the left of it on. boxes: [blocks, 4] of `_draw`.
    """
    height, width = attention.shape
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None]
    kept = free = jnp.ones((height, width), bool)
    for tall, wide, above, left in boxes:
        place = jnp.argmax(jnp.where(free, attention, -1.0))
        row, column = place // width, place % width
        top, start = row - above, column - left
        inside = (y >= top) & (y < top + tall) & (x >= start) & (x < start + wide)
        kept &= ~inside
        free &= ~inside & ~((y == row) & (x == column))
    return kept


def losses(out, rows, ctx) -> dict[str, tuple]:
    """{"label": cross-entropy}, unweighted; with `config.loss_args.flood` b > 0 its mean m as |m - b| + b, every row's.

    Source: the authors' train.py, b = 0.04. The gradient rises again where the mean falls below b.
    """
    values = L.label_ce(out["logits"], rows["label"])
    every = jnp.ones(values.shape[0], bool)
    flood = ctx.config.loss_args.flood
    if flood > 0:
        mean = L.masked_mean(values, rows.get("counted", every))
        values = jnp.broadcast_to(jnp.abs(mean - flood) + flood, values.shape)
    return {"label": (values, every)}


def scalars(out, rows) -> dict[str, jax.Array]:
    """`hooks.scalars`; and the mean share of an image that is covered."""
    return {**hooks.scalars(out, rows), "erase/share": rows["erased"].mean()}
