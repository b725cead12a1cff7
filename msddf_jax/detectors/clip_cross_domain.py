"""A frozen CLIP with frequency and boundary modules, on the data set's own fakes: cross-domain deepfake detection.

CLIP ViT, LayerNorms trained; Freq-Adapter, Boundary Mining and identity reversal beside it; cross-entropy or ArcMargin
on the feature of unit length, with alignment, uniformity, frequency consistency and slerp. Its description gives no
figures, hyper-parameters or places of fusion; those here are part B of the reference "clip_cross_domain". The trunk is
MSDDF's (`models.trunk`), which adds forgeries and heads that need them.

Beyond the description, each off by default: a head that tells the training sets apart behind a gradient reversal
(`num_domains`; where one set has more fakes than another, it opposes the label too), correlation with a feature that
was taught identity as a penalty (`identity_width`), Canny's edges in place of Sobel's (`edges`). Differs from B5: the
second view of the frequency consistency is the row as it is augmented, re-sampling and blur among it; no term on the
tokens of the two views. From B8: faces are shifted and scaled (`augment.crop`), each side on its own, and not rotated.
Expected result: none is published; the ablation's rows are in benchmarks/ablation.py.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.data import overlap
from msddf_jax.models import boundary, heads, trunk
from msddf_jax.models.layers import Linear
from msddf_jax.models.reverse_grad import dann_schedule, reverse_grad
from msddf_jax.synth import compose, geometry

# Terms of parts that may be off, and the field of the Model that turns them on.
_PART_OF = {
    "boundary_bce": "use_boundary",
    "boundary_mean": "use_boundary",
    "boundary_variation": "use_boundary",
    "frequency_cosine": "use_frequency",
    "identity_ce": "num_identities",
    "domain_ce": "num_domains",
    "own_identity_ce": "identity_width",
    "identity_correlation": "identity_width",
}


class Model(nn.Module):
    """CLIP ViT + Freq-Adapter + Boundary Mining + binary head, and the adversaries.

    variant: of `clip.VARIANTS`. image_size: of the ViT; other images are resized on the device.
    num_identities, num_domains: classes of the heads behind the gradient reversal, 0 for none.
    identity_width: of the feature that is taught identity, 0 for none; needs num_identities.
    rank, use_frequency, use_boundary, edges: of `trunk.encode`.
    slerp_probability, binary_head: of `trunk.classify`; "cosine" is for ArcMargin.
    remat, remat_mlp, attention: of `clip.VisionTransformer`.
    options: further fields of `clip.VisionTransformer`, None for their defaults (LAION's weights: quick_gelu False).
    """

    variant: str
    image_size: int
    num_identities: int = 0
    num_domains: int = 0
    identity_width: int = 0
    rank: int = 64
    use_frequency: bool = True
    use_boundary: bool = True
    edges: str = "sobel"
    slerp_probability: float = 0.0
    binary_head: str = "linear"
    remat: bool = False
    remat_mlp: bool = False
    attention: str = "auto"
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]} and, in training, "label" [B], "reversal" (scalar, strength of
            the gradient reversals) and "clean" (the images at the size of the model before augmentation) or no such.

        Returns:
          dict: logit [B] (log odds of fake), logits [B, 2], feature [B, d] unit, spatial [B, g, g, d];
          boundary_logits [B, g, g]; frequency [B, d / 4] and, of clean rows, frequency_clean; identity_logits [B, I],
          domain_logits [B, D]; identity_feature [B, w] and own_identity_logits [B, I] of it; cosine [B, 2] with the
          "cosine" head.
        """
        settings = {name: getattr(self, name) for name in ("remat", "remat_mlp", "attention", "dtype")}
        settings |= self.options or {}
        features, out = trunk.encode(
            compose.resize(rows["image"], self.image_size),
            variant=self.variant,
            image_size=self.image_size,
            rank=self.rank,
            use_frequency=self.use_frequency,
            use_boundary=self.use_boundary,
            edges=self.edges,
            clean=rows.get("clean"),
            **settings,
        )
        key = self.make_rng("dropout") if train and self.slerp_probability > 0 else None
        head = {"kind": self.binary_head, "slerp_probability": self.slerp_probability}
        out.update(trunk.classify(features["fused"], rows.get("label"), key=key, **head))
        # Before fusion and normalisation (B4).
        cls = features["cls"]
        unlearned = reverse_grad(cls, rows.get("reversal", 0.0))
        if self.num_identities:
            out["identity_logits"] = heads.IdentityHead(self.num_identities, name="identity_head")(unlearned)
        if self.num_domains:
            # The two layers of the type head, over data sets.
            out["domain_logits"] = heads.TypeHead(self.num_domains, name="domain_head")(unlearned)
        if self.identity_width:
            if not self.num_identities:
                raise ValueError("model.identity_width teaches a feature identity: set model.num_identities too")
            taught = Linear(self.identity_width, name="identity_feature")(jax.lax.stop_gradient(cls))
            out["identity_feature"] = taught
            out["own_identity_logits"] = Linear(self.num_identities, name="identity_classes")(taught)
        return dict(out, spatial=features["spatial"])


def players(config) -> dict[str, hooks.Player]:
    """None.

    Raises:
      ValueError: a recipe of forgeries, or an adversary that chooses them; a weight of a part that is off, a head
        without a weight; domains that are not the training sets.
    """
    if config.synth.recipe.name != "none" or config.policy.mode != "none":
        raise ValueError(
            f"config.synth.recipe.name is {config.synth.recipe.name!r} and config.policy.mode {config.policy.mode!r}: "
            "clip_cross_domain learns from the data set's fakes and makes none; set both to none, or train msddf, "
            "which has the same trunk"
        )
    for term, field in _PART_OF.items():
        weight, part = config.loss_weights.get(term, 0.0), config.model[field]
        if (weight and not part) or (part and not weight and term.endswith("_ce")):
            raise ValueError(
                f"config.loss_weights.{term} is {weight} and config.model.{field} {part}: give the term a weight where "
                "its part is on, and 0 where it is off"
            )
    sets = [f"{name}:{split}" for name, split in overlap.split_names(config.data.train.name, config.data.train.split)]
    domains = config.model.num_domains
    if domains and (domains != len(sets) or domains < 2):
        raise ValueError(
            f"config.model.num_domains is {domains}, config.data.train names {len(sets)} ({', '.join(sets)}): one "
            "domain a set and at least two, or 0 for no such head"
        )
    return {}


def make_rows(key, batch, ctx) -> dict[str, jax.Array | dict]:
    """Rows of `compose.compose`, augmented; with `reversal`, the strength of the gradient reversals at this step.

    Where frequency_cosine has a weight, `clean` is the rows without their photometric augmentation, at the size of the
    model: flipped and cut as they are.
    """
    config, synth = ctx.config, ctx.config.synth
    rows = compose.compose(key, batch, layout=hooks.layout_of(config), recipe=synth.recipe, flip=synth.flip)
    clean = rows["image"]
    rows = compose.augment(ctx.key("augment"), rows, **config.augment)
    if config.loss_weights.get("frequency_cosine", 0.0):
        clean = geometry.cut_windows(clean, rows["window"]) if "window" in rows else clean
        rows["clean"] = compose.resize(clean, config.model.image_size)
    return dict(rows, reversal=dann_schedule(ctx.progress, config.loss_args.reversal))


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    Args:
      out: of `Model`. rows: of `make_rows`. ctx: `hooks.Context`; `config.loss_args` as `losses.label_loss` wants them.

    Source: clip_cross_domain B3 to B5; GenD 3.
    """
    label, feature = rows["label"], out["feature"]
    every = jnp.ones(label.shape[0], bool)
    # Weights of 0 beside parts that are off (`players`) still need a term.
    off = {name: (jnp.zeros(label.shape[0]), ~every) for name in ctx.config.loss_weights if name in _PART_OF}
    terms = off | {
        "label": (L.label_loss(out, label, ctx.progress, ctx.config.loss_args), every),
        "feature_uniformity": (L.feature_uniformity(feature, every), every),
        "feature_alignment": (L.feature_alignment(feature, label, every), every),
    }
    if "boundary_logits" in out:
        weight, unknown = jax.nn.sigmoid(out["boundary_logits"]), ~rows["has_mask"]
        terms["boundary_bce"] = (boundary.boundary_bce(out["boundary_logits"], rows["blend_mask"]), rows["has_mask"])
        terms["boundary_mean"] = (weight.mean((1, 2)), unknown)
        terms["boundary_variation"] = (boundary.total_variation(weight), unknown)
    if "frequency_clean" in out:
        terms["frequency_cosine"] = (L.pair_cosine(out["frequency_clean"], out["frequency"]), every)
    if "identity_logits" in out:
        terms["identity_ce"] = L.known_ce(out["identity_logits"], rows["identity"])
    if "domain_logits" in out:
        terms["domain_ce"] = L.known_ce(out["domain_logits"], rows["domain"])
    if "identity_feature" in out:
        terms["own_identity_ce"] = L.known_ce(out["own_identity_logits"], rows["identity"])
        # The feature is to give way, and not what was taught identity.
        taught = jax.lax.stop_gradient(out["identity_feature"])
        terms["identity_correlation"] = (L.feature_decorrelation(taught, feature, every), every)
    return terms


def scalars(out, rows) -> dict[str, jax.Array]:
    """By role, and how often the adversaries are right: identity top-1 is to fall (B4)."""
    values = compose.by_role(out["logit"], rows)
    for name, of in (("identity", "identity"), ("own_identity", "identity"), ("domain", "domain")):
        if f"{name}_logits" in out:
            values[f"{name}/top1"] = L.known_accuracy(out[f"{name}_logits"], rows[of])
    return values
