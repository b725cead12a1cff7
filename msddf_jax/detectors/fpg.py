"""FPG-style (after Xia et al., ACM MM 2024): self-blended images chosen and changed by what the detector perceives.

What is known: the public repository has no method code (reference "fpg"). Its summary says that the detector's feature
responses and prediction scores on forgeries are watched in training; that forgeries are refined by them; that more
information of the samples enters the objective; that reals are all it needs, with a face image quality network of
TFace; and that it beats a baseline which trains more than three times as long. That it builds on SBI is inferred.
Rules, constants, losses and their weights below are this project's own: this is no reproduction, and there is no
published figure to expect.

1. Candidates. Every real is self-blended `refine.candidates` times. The detector, as it scores (moving statistics, no
   dropout), looks at each forgery, augmented as it will be seen; no gradient passes. It gives a score s and a response
   map: gradient x activation of the last spatial map, which under mean and linear layer is what each cell adds to the
   logit (up to the number of cells and the bias: the map is each cell's own log odds, and their mean is the logit).
2. Choice. The candidate with the highest loss -log s among those with low < s < `refine.high` (0.95); low rises in a
   straight line from `refine.low[0]` (0) at the start to `refine.low[1]` (0.2) at the end: what a trained detector
   still takes for real may have nothing to see. Where no candidate is inside, the one whose score is nearest to the
   window; of equals the first. One that changed nothing is taken only where none did. The real shown is the chosen
   candidate's own twin.
3. Suppression. With probability `refine.suppress` the chosen forgery is blended anew with a mask from which the
   `refine.share` of cells with the highest response are cut out (ramps to full weight in the cells beside them): other
   evidence has to be found. Where less than `blender.MIN_AREA` of weight or no visible change would be left, the
   forgery stays as it was.
4. Further terms: the cells' log odds against the blend mask, the quality of the image, the strength of the blend.
   Without the first, an EfficientNet may answer in any cell: squeeze and excitation tell each of all the others.

With the step "sam" the second pass looks with moved parameters and may choose other candidates than the first, so that
it is no longer SAM of one loss; the config takes plain gradients.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.models import backbones, heads, ir_net
from msddf_jax.models.filters import area_pool
from msddf_jax.synth import blend, blender, compose, degrade, geometry
from msddf_jax.synth.compose import ROLES

# Side of the quality network's input.
_FACE_SIZE = 112
QUALITIES = ("sharpness", "network")
# Their feature is the mean of their spatial map, which gradient x activation of one linear layer rests on.
FAMILIES = ("efficientnet", "resnet")


class Model(nn.Module):
    """Convolutional backbone + binary head, whose log odds are a mean over cells; quality and strength beside it.

    family, variant, options: of `backbones.make`; family one of `FAMILIES`.
    image_size: that the backbone sees; other images are resized on the device.
    """

    variant: str
    image_size: int
    family: str = "efficientnet"
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbone.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2], feature [B, d] of unit length; map_logits [B, g, g, 1],
          each cell's log odds, whose mean is logit (without dropout); quality [B] and strength [B] in (0, 1); spatial
          [B, g, g, d].

        Raises:
          ValueError: another family.
        """
        if self.family not in FAMILIES:
            raise ValueError(f"config.model.family is {self.family!r}, allowed: {FAMILIES}")
        images = compose.resize(rows["image"], self.image_size)
        make = functools.partial(backbones.make, self.family, self.variant, self.image_size)
        features = make(dtype=self.dtype, name="backbone", **(self.options or {}))(images, train=train)
        head, spatial = heads.BinaryHead("raw", name="binary_head"), features["spatial"]
        out = head(features["feature"])
        cells = head(spatial.reshape(-1, spatial.shape[-1]))["logit"]
        return {
            "logit": out["logit"],
            "logits": out["logits"],
            "feature": out["embedding"],
            "map_logits": cells.reshape(*spatial.shape[:3], 1),
            "quality": heads.StrengthHead(name="quality_head")(features["feature"]),
            "strength": heads.StrengthHead(name="strength_head")(features["feature"]),
            "spatial": spatial,
        }


def players(config) -> dict[str, hooks.Player]:
    """`hooks.players`; and with loss_args.quality.of "network" SDD-FIQA's, frozen, from `config.init.quality`.

    Raises ValueError for another source of quality than `QUALITIES`.
    """
    source = config.loss_args.quality.of
    if source not in QUALITIES:
        raise ValueError(f"config.loss_args.quality.of is {source!r}, allowed: {QUALITIES}")
    found = hooks.players(config)
    if source == "network":
        faces = jax.ShapeDtypeStruct((1, _FACE_SIZE, _FACE_SIZE, 3), jnp.float32)
        found["quality"] = hooks.Player(ir_net.QualityNet(dtype=jnp.dtype(config.dtype)), (faces,), frozen=True)
    return found


def make_rows(key, batch, ctx) -> dict[str, Any]:
    """Reals and, of each, the forgery that the rule in the module's docstring chooses.

    Args:
      key: typed key. batch: device batch of reals. ctx: `hooks.Context`; of `config.loss_args`, refine: {"candidates",
        "low", "high", "suppress", "share"} and quality: {"of", "half"}.

    Returns:
      rows of `hooks.see_rows`, with quality float32 [N] in [0, 1]; and of the forgeries (0 and False elsewhere) score
      [N], P(fake) when it was chosen, inside and suppressed bool [N].

    Raises:
      ValueError: clips, fakes of a data set, or views that are not one forgery a real.
    """
    layout, refine = _check(batch, ctx.config), ctx.config.loss_args.refine
    synth = ctx.config.synth
    make = functools.partial(
        compose.compose, layout=layout, recipe=synth.recipe, flip=synth.flip, progress=ctx.progress
    )
    made = [make(jax.random.fold_in(key, k), batch) for k in range(refine.candidates)]
    seen = [_look(rows, layout, ctx) for rows in made]
    stack = lambda *values: jnp.stack(values)
    score, response, window = jax.tree.map(stack, *seen)
    changed = jnp.stack([_forged(rows["label"], layout) for rows in made]) == 1
    low = refine.low[0] + (refine.low[1] - refine.low[0]) * ctx.progress
    index, inside = _choose(score, changed, low, refine.high)
    pick = lambda values: jax.vmap(lambda row, k: row[k], in_axes=(1, 0))(values, index)
    # The real goes with its forgery.
    of_rows = _as_rows(index, layout)
    take = lambda *values: jax.vmap(lambda row, k: row[k], in_axes=(1, 0))(jnp.stack(values), of_rows)
    rows = jax.tree.map(take, *made)
    wanted = jax.random.bernoulli(ctx.key("suppress"), refine.suppress, index.shape)
    rows, suppressed = _suppress(rows, pick(response), pick(window), wanted, layout, refine.share)
    rows = hooks.see_rows(rows, layout, ctx)
    marks = {"score": pick(score), "inside": inside, "suppressed": suppressed}
    forged = rows["role"] == ROLES.index("forgery")
    marks = {k: jnp.where(forged, _as_rows(v, layout), jnp.zeros((), v.dtype)) for k, v in marks.items()}
    return {**rows, **marks, "quality": _quality(rows["image"], ctx)}


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    Args:
      out: of `Model`. rows: of `make_rows`. ctx: `hooks.Context`; of `config.loss_args`, sample_weight: a, with which
        the label's term is weighed by 1 + a (1 - quality); 0 for equal weights.
    """
    label = rows["label"]
    every = jnp.ones(label.shape[0], bool)
    weight = 1.0 + ctx.config.loss_args.sample_weight * (1.0 - rows["quality"])
    target = area_pool(rows["blend_mask"], out["map_logits"].shape[1])
    return {
        "label": (weight * L.label_ce(out["logits"], label), every),
        "response_bce": (L.map_bce(out["map_logits"], target, pos_weight=1.0), rows["has_mask"]),
        "quality_mse": (L.strength_mse(out["quality"], rows["quality"]), every),
        "strength_mse": (L.strength_mse(out["strength"], rows["strength"]), rows["has_strength"]),
    }


def scalars(out, rows) -> dict[str, jax.Array]:
    """`hooks.scalars`; mean quality; of the forgeries the mean score when chosen, shares inside and suppressed."""
    values, forged = hooks.scalars(out, rows), rows["role"] == ROLES.index("forgery")
    for name in ("score", "inside", "suppressed"):
        values[f"refine/{name}"] = L.masked_mean(rows[name].astype(jnp.float32), forged)
    return {**values, "quality/mean": rows["quality"].mean()}


def _check(batch, config):
    """The layout. Raises ValueError as `make_rows`."""
    layout = hooks.layout_of(config)
    if batch["image"].ndim != 4 or layout.fake or layout.second_views or layout.forged != layout.real:
        raise ValueError(
            f"fpg trains on reals and one forgery of each: expected images [B, H, W, 3] and a group without the data "
            f"set's fakes (config.data.group.fake=0, synth.forged=None); got images {list(batch['image'].shape)} and "
            f"{layout}"
        )
    return layout


def _reals(values, layout):
    """Of rows, group-major with the reals first, those that are real."""
    grouped = values.reshape(-1, layout.rows, *values.shape[1:])[:, : layout.real]
    return grouped.reshape(-1, *values.shape[1:])


def _forged(values, layout):
    """Of rows, group-major with the reals first, those that are forgeries."""
    grouped = values.reshape(-1, layout.rows, *values.shape[1:])[:, layout.real :]
    return grouped.reshape(-1, *values.shape[1:])


def _as_rows(values, layout):
    """Values of the forgeries [F, ...] for all rows: a real has its forgery's."""
    grouped = values.reshape(-1, layout.real, *values.shape[1:])
    return jnp.concatenate([grouped, grouped], axis=1).reshape(-1, *values.shape[1:])


def _look(rows, layout, ctx):
    """Score [F], response [F, g, g] and window [F, 4] of the forgeries among rows, without a gradient."""
    image = _forged(rows["image"], layout)
    # Key and numbers are those of `hooks.see_rows`: what is looked at is what will be seen.
    numbers = rows["base"] if ctx.config.synth.joint else jnp.arange(rows["base"].shape[0])
    numbers = _forged(numbers, layout)
    seen = compose.augment(ctx.key("augment"), {"image": image}, bases=numbers, **ctx.config.augment)
    out = jax.lax.stop_gradient(ctx.apply("detector", {"image": jax.lax.stop_gradient(seen["image"])}))
    whole = jnp.tile(jnp.array([0.0, 1.0, 0.0, 1.0]), (image.shape[0], 1))
    logit = out["logit"].astype(jnp.float32)
    return jax.nn.sigmoid(logit), out["map_logits"][..., 0].astype(jnp.float32), seen.get("window", whole)


def _choose(score, changed, low, high):
    """(index of the candidate [F], whether its score is inside the window [F]). score, changed: [K, F]."""
    inside = (score > low) & (score < high)
    outside = jnp.maximum(jnp.maximum(low - score, score - high), 0.0)
    # A loss is at least 0 and a distance at most 1: whatever is inside comes before whatever is outside.
    rank = jnp.where(inside, 1.0 - jnp.log(jnp.maximum(score, 1e-12)), -outside)
    rank = jnp.where(changed, rank, -2.0)
    index = jnp.argmax(rank, axis=0)
    return index, jnp.take_along_axis(inside & changed, index[None], axis=0)[0]


def _kept(response, share, size):
    """Weight [F, size, size] in [0, 1]: 0 in the cells of `response` [F, g, g] with the highest share of values."""
    count, grid = response.shape[0], response.shape[1]
    flat = response.reshape(count, -1)
    place = jnp.argsort(jnp.argsort(-flat, axis=1), axis=1)
    kept = (place >= round(share * grid * grid)).astype(jnp.float32).reshape(response.shape)
    # Linear between centres it is a half on a removed cell's sides and three quarters at its corners: 0 up to there,
    # and 1 in the next cell's centre. A step would be a seam on the grid itself, which marks forgeries.
    return jnp.clip(4.0 * jax.image.resize(kept, (count, size, size), "linear") - 3.0, 0.0, 1.0)


def _suppress(rows, response, window, wanted, layout, share):
    """(rows whose wanted forgeries [F] are blended without the cells of highest response, which of them were).

    response: [F, g, g], of what the window [F, 4] showed of each.
    """
    size = rows["image"].shape[1]
    left, right, top, bottom = window.T
    # The frame as seen from the window: outside of it, what is at its edge.
    frame = jnp.stack([-left, 1.0 - left, -top, 1.0 - top], axis=1)
    frame = frame / jnp.repeat(jnp.stack([right - left, bottom - top], axis=1), 2, axis=1)
    keep = geometry.cut_windows(_kept(response, share, size)[..., None], frame)
    image, target = _forged(rows["image"], layout), _reals(rows["image"], layout)
    mask = keep * _forged(rows["mask"], layout)
    # What was blended in is target + weight (source - target).
    made = target + keep * (image - target)
    seen = jnp.abs(made - target).max((1, 2, 3)) >= blend.MIN_CHANGE
    did = wanted & seen & (mask.mean((1, 2, 3)) >= blender.MIN_AREA) & (_forged(rows["label"], layout) == 1)
    peak = mask.max((1, 2, 3))
    new = {
        "image": made,
        "mask": mask,
        "blend_mask": mask / jnp.maximum(peak, 1e-6)[:, None, None, None],
        "strength": peak,
    }
    out = dict(rows)
    for name, value in new.items():
        old = _forged(rows[name], layout)
        value = jnp.where(did.reshape(-1, *[1] * (old.ndim - 1)), value, old)
        reals = _reals(rows[name], layout)
        both = [part.reshape(-1, layout.real, *part.shape[1:]) for part in (reals, value)]
        out[name] = jnp.concatenate(both, axis=1).reshape(rows[name].shape)
    return out, did


def _quality(images, ctx):
    """Quality [N] in [0, 1] of images [N, H, W, 3] as the detector sees them, without a gradient."""
    settings = ctx.config.loss_args.quality
    images = jax.lax.stop_gradient(images)
    if settings.of == "sharpness":
        return degrade.sharpness(images, settings.half)
    score = ctx.apply("quality", compose.resize(images, _FACE_SIZE))
    return jax.lax.stop_gradient(jnp.clip(score / ir_net.SCORE_RANGE, 0.0, 1.0))
