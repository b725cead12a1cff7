"""Multi-attentional detection: several maps of attention, each over the texture of its region (Zhao et al., CVPR 2021).

"Multi-attentional Deepfake Detection", arXiv 2103.02406. From EfficientNet-B4's middle come four attention maps; what
shallow features have beside their local mean is enhanced by a small dense network and pooled under each map, the last
features under all of them. Regions keep apart by a loss on what each sees on average, whose centres move from step to
step (the collection "centers"). Each image is looked at a second time with the region of one map blurred (AGDA), so
that the other maps have to find something too.

Differs from the paper's text as the authors' code does: distances, not their squares; in training whole maps are
dropped, and half of the last features. Differs from that code: one draw of AGDA's threshold and steepness an image, not
a batch; its pixels stay in [0, 1]; the loss between centres is divided by the number of maps and their rate, as it was
meant to be. DeepfakeBench's port, `configs/detectors/multi_attention.py:port`, trains the plain network first, sees
the blurred image alone, and drops single values of the texture (`form`); and, since its weights want it: neither stem
nor head of its EfficientNet has an activation, and the last features have two in a row.

Mended in both: centres have a gradient, without which their loss changes nothing; numbers of batches are settings; what
is scored is the whole network, there until so many batches after every start the plain one. Expected result: the
benchmark publishes none.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import losses as L
from msddf_jax.models import efficientnet, heads, layers, multi_attention
from msddf_jax.models.filters import correlate_bands, gaussian_taps, resize_corners
from msddf_jax.synth import compose

FORMS = ("paper", "port")


class Model(nn.Module):
    """EfficientNet, attention maps, texture under each of them + binary head; a plain head beside it.

    family: "efficientnet". variant: of `efficientnet.VARIANTS`. image_size: that the network sees; other images are
    resized. attend, texture: stages that maps and texture are made of. maps: how many. hidden: width of the layers
    before the head. form: of `FORMS`. dropout: in training, of maps ("port": of single values of their texture).
    drop_final: of the last features ("port": none). options: further fields of the backbone.
    """

    variant: str
    image_size: int
    family: str = "efficientnet"
    attend: str = "block_21"
    texture: str = "block_5"
    maps: int = 4
    hidden: int = 256
    form: str = "paper"
    dropout: float = 0.25
    drop_final: float = 0.5
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbone, norms and dropout.

        Returns:
          dict, float32 but for spatial: logit [B] (log odds of fake), logits [B, 2], plain_logits [B, 2], of the plain
          network; feature [B, hidden] of unit length; attention [B, h, w, M] >= 0; regions [B, M, N], unit vectors of
          what each map sees; centers [M, N]; spatial [B, h', w', d].

        Raises:
          ValueError: another form; stages that the backbone has not.
        """
        if self.form not in FORMS:
            raise ValueError(f"config.model.form is {self.form!r}, allowed: {FORMS}")
        unknown = sorted({self.attend, self.texture} - set(efficientnet.stages(self.variant)))
        if unknown:
            there = ", ".join(efficientnet.stages(self.variant))
            raise ValueError(f"config.model.attend and texture name {unknown}; {self.variant} has {there}")
        port = self.form == "port"
        settings = dict(self.options or {}, end_activation=not port, dtype=self.dtype, name="backbone")
        images = compose.resize(rows["image"], self.image_size)
        features = efficientnet.EfficientNet(self.variant, self.image_size, **settings)(images, train=train)
        stages, drop = features["stages"], lambda rate: nn.Dropout(rate, deterministic=not train)
        attention = multi_attention.AttentionMaps(self.maps, self.dtype, name="attention")(stages[self.attend], train)
        enhanced, local = multi_attention.Texture(self.dtype, name="texture")(
            stages[self.texture], attention.shape[1:3], train
        )
        regions = multi_attention.pool(local, attention)
        centers = self.variable("centers", "value", jnp.zeros, regions.shape[1:], jnp.float32)
        texture, shown = multi_attention.pool(enhanced, attention), attention
        if port:
            texture = drop(self.dropout)(texture)
        else:
            kept = drop(self.dropout)(jnp.ones((images.shape[0], self.maps)))
            texture, shown = texture * kept[..., None], attention * kept[:, None, None]
        last = multi_attention.mean_under(features["spatial"], shown.sum(-1, keepdims=True))
        active = lambda width, name: lambda x: jax.nn.hard_swish(layers.Linear(width, name=name)(x))
        local_hidden = active(self.hidden, "local_1")(
            active(self.hidden, "local_0")(texture.reshape(images.shape[0], -1))
        )
        last = active(self.hidden, "last")(last if port else drop(self.drop_final)(last))
        last = jax.nn.hard_swish(last) if port else last
        joined = active(self.hidden, "joined")(jnp.concatenate([local_hidden, last], axis=-1))
        out = heads.BinaryHead("raw", name="binary_head")(joined)
        return {
            "logit": out["logit"],
            "logits": out["logits"],
            "plain_logits": heads.BinaryHead("raw", name="plain_head")(features["feature"])["logits"],
            "feature": out["embedding"],
            "attention": attention,
            "regions": regions,
            "centers": centers.value,
            "spatial": features["spatial"],
        }


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    plain: cross-entropy of the plain network, in the first `backbone_steps`; all others after these. label, regions
    (`_regions`) of the image; agda_label, agda_regions of the image as AGDA blurs it; agda_match: distance of what a
    map sees in the two, mean over the maps that were not blurred. Centres move with those of regions and agda_regions
    that have a weight.

    Args:
      out: of `Model`. rows: of `hooks.make_rows`. ctx: `hooks.Context`; of `config.loss_args`, alpha: share of a batch
        in the centres, times alpha_decay after every `every` steps; intra_margin: of reals and fakes; inter_margin;
        backbone_steps; agda: see `_blur`.

    Source: authors' models/MAT.py and train.py; reference: detectors, "multi_attention".
    """
    settings, weights = ctx.config.loss_args, ctx.config.loss_weights
    label = rows["label"]
    begun = jnp.broadcast_to(ctx.step >= settings.backbone_steps, label.shape)
    counted = rows.get("counted", jnp.ones(label.shape[0], bool))
    image, chosen = _blur(ctx.key("agda"), rows["image"], out["attention"], settings.agda)
    again = ctx.apply("detector", {**rows, "image": image}, train=True, mutable=True)
    alpha = settings.alpha * settings.alpha_decay ** (ctx.step // settings.every)
    centers, terms = out["centers"], {"plain": (L.label_ce(out["plain_logits"], label), ~begun)}
    for prefix, look in (("", out), ("agda_", again)):
        values, moved = _regions(look["regions"], centers, label, counted, alpha, settings)
        centers = moved if weights.get(f"{prefix}regions", 0) else centers
        terms[f"{prefix}label"] = (L.label_ce(look["logits"], label), begun)
        terms[f"{prefix}regions"] = (values, begun)
    others = 1 - jax.nn.one_hot(chosen, out["regions"].shape[1])
    terms["agda_match"] = ((_length(again["regions"] - out["regions"]) * others).mean(1), begun)
    centers = jnp.where(ctx.step >= settings.backbone_steps, centers, out["centers"])
    ctx.update("detector", centers={"value": jax.lax.stop_gradient(centers)})
    return terms


def _regions(regions, centers, label, counted, alpha, settings):
    """(region-independence loss [B], moved centres [M, N]).

    Centres move by `alpha` to the mean of regions [B, M, N] over the rows that are `counted`. The loss: how far each
    region is from its centre beyond the class's margin, mean over maps; and how much nearer than inter_margin two
    centres are to each other, over the number of maps and alpha.
    """
    share = counted.astype(jnp.float32) / jnp.maximum(counted.sum(), 1)
    moved = centers + alpha * jnp.einsum("b,bmn->mn", share, regions - centers)
    margin = jnp.asarray(tuple(settings.intra_margin), jnp.float32)[label]
    intra = jax.nn.relu(_length(regions - moved) - margin[:, None]).mean(1)
    count = moved.shape[0]
    apart = _length(moved[:, None] - moved[None, :])
    pairs = jnp.triu(jnp.ones((count, count)), k=1)
    inter = (jax.nn.relu(settings.inter_margin - apart) * pairs).sum() / count / alpha
    return intra + inter, moved


def _length(x):
    """|x| over the last axis, with a finite gradient at 0."""
    return jnp.sqrt((x**2).sum(-1) + 1e-12)


def _blur(key, images, attention, settings):
    """(images [B, H, W, 3] with one map's region made coarse, numbers [B] of the maps). No gradient.

    A map is drawn by the root of 1 + its sum. Its weight, over its largest, is made steep by a sigmoid and shows the
    image made smaller by `scale`, blurred, with white noise.

    settings: kernel_size and sigma of the blur, pixels of the smaller image; threshold and zoom: ranges of the
    sigmoid's middle and steepness; scale; noise: its deviation, pixels in [-1, 1].
    """
    images, attention = jax.lax.stop_gradient((images, attention))
    number, middle, steep, noise = jax.random.split(key, 4)
    (batch, height, width, channels), (low, high) = images.shape, settings.threshold
    chosen = jax.random.categorical(number, 0.5 * jnp.log1p(attention.sum((1, 2))))
    weight = jnp.take_along_axis(resize_corners(attention, (height, width)), chosen[:, None, None, None], axis=3)
    weight = weight / (weight.max((1, 2, 3), keepdims=True) + 1e-8)
    middle = jax.random.uniform(middle, (batch, 1, 1, 1), minval=low, maxval=high)
    steep = jax.random.uniform(steep, (batch, 1, 1, 1), minval=settings.zoom[0], maxval=settings.zoom[1])
    bottom = jax.nn.sigmoid(-middle * steep)
    weight = (jax.nn.sigmoid((weight - middle) * steep) - bottom) / (1 - bottom)
    small = resize_corners(images, (int(height * settings.scale), int(width * settings.scale)))
    planes = small.transpose(0, 3, 1, 2).reshape(-1, *small.shape[1:3])
    planes = correlate_bands(planes, gaussian_taps(settings.kernel_size, settings.sigma))
    coarse = planes.reshape(batch, channels, *small.shape[1:3]).transpose(0, 2, 3, 1)
    coarse = coarse + settings.noise / 2 * jax.random.normal(noise, coarse.shape)
    coarse = resize_corners(coarse, (height, width))
    return jnp.clip(images + weight * (coarse - images), 0.0, 1.0), chosen
