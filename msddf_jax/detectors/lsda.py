"""LSDA: a student learns from teachers whose features were made into more kinds of forgeries (Yan et al., CVPR 2024).

"Transcending Forgery Specificity with Latent Space Augmentation for Generalizable Deepfake Detection". A group is a
real and a fake of each method of its own video. Each method has a teacher, which learns to tell its fakes from those of
others. Their maps are changed within a method and mixed across methods (`models.latent`), and the two are fused; the
student's map of a fake is to be like that, and its map of a real like that of a face recogniser, ArcFace's iResNet-100.

The student alone scores: an export is one EfficientNet-B4 with its head, 75 MB. Teachers and fusion train together with
it, as in the authors' code, and are players: a checkpoint has them with Adam's moments, 1.25 GB in all (test_lsda). The
recogniser is frozen, comes from `config.init.real`, and is in neither.

Code of the authors is DeepfakeBench's port; what the paper leaves open is as there. Differs from that port, whose form
is `configs/detectors/lsda.py:port`:

- Samples of a kind are whole maps (`samples`); there each channel of a map, so that "mean" and "hardest" are of
  channels of any number.
- The recogniser is trained on faces and frozen, as the paper has it. There it starts at random, its first three stages
  stay so, the last is trained, and its maps of a reenactment's fake are drawn to those of its real and those of a swap
  pushed away ("real"). Here that form starts with ArcFace's weights too.

Left out: rotated maps, which that code has and does not call. Expected result: the benchmark publishes none.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.data import methods
from msddf_jax.models import conv, efficientnet, heads, latent, layers
from msddf_jax.synth import compose

NEEDS = {"pair": ""}
# Pixels of the image to a cell of the last map, a side.
_STRIDE = 32


class Model(nn.Module):
    """The student: EfficientNet, a linear map of its channels, and a head of one hidden layer.

    family: "efficientnet". variant: of `efficientnet.VARIANTS`. image_size: that every network sees; other images are
    resized. width: channels of the maps that are compared, those of the recogniser's. options: further fields of
    student and teachers.
    """

    variant: str
    image_size: int
    family: str = "efficientnet"
    width: int = 512
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """{"image": float32 [B, H, W, 3] in [0, 1]} -> logit [B] (log odds of fake), logits [B, 2], feature [B, width]
        of unit length, of the hidden layer, spatial [B, h, w, width]."""
        settings = dict(self.options or {}, dtype=self.dtype, name="backbone")
        images = compose.resize(rows["image"], self.image_size)
        x = efficientnet.EfficientNet(self.variant, self.image_size, **settings)(images, train=train)["spatial"]
        x = layers.Linear(self.width, self.dtype, conv.HE_NORMAL, name="narrow")(x)
        hidden = jax.nn.leaky_relu(layers.Linear(self.width, name="hidden")(conv.global_mean(x)))
        out = heads.BinaryHead("raw", name="binary_head")(hidden)
        return {"logit": out["logit"], "logits": out["logits"], "feature": out["embedding"], "spatial": x}


def players(config) -> dict[str, hooks.Player]:
    """`hooks.players`; a teacher of each method, "teacher_<method>", "mixer", and "real" where there is a recogniser.

    Raises ValueError for a group that is not one real and one fake of each of some methods, of its own video, or that
    gets forgeries beside these.
    """
    group, model, settings = config.data.group, config.model, config.loss_args
    forged = hooks.layout_of(config).forged
    if not group.methods or (group.real, group.fake, group.match) != (1, 1, "pair") or forged:
        raise ValueError(
            "lsda trains on a real and one fake of each method, of its own video, and no forgery: set config.data.group"
            f".methods, real=1, fake=1, match='pair', and config.synth.recipe.name='none'; got {group.to_dict()} and "
            f"{config.synth.recipe.name!r}"
        )
    size, dtype, found = model.image_size, jnp.dtype(config.dtype), hooks.players(config)
    grid, channels = math.ceil(size / _STRIDE), efficientnet.end_widths(model.variant)[1]
    shape = lambda *sides: jax.ShapeDtypeStruct(sides, jnp.float32)
    options = dict(model.options)
    for name in group.methods:
        teacher = latent.Teacher(model.variant, size, options, dtype)
        found[f"teacher_{name}"] = hooks.Player(teacher, (shape(1, size, size, 3),))
    maps = (shape(1, len(group.methods), grid, grid, channels), shape(1, grid, grid, model.width))
    found["mixer"] = hooks.Player(latent.Mixer(model.width, settings.samples, dtype), maps)
    if settings.real.variant:
        net = latent.Recogniser(settings.real.variant, size, grid, dtype)
        found["real"] = hooks.Player(net, (shape(1, size, size, 3),), frozen=not settings.real.trained)
    return found


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {name: (values [N], mask [N])}, unweighted.

    label: cross-entropy. kind: cross-entropy of the teachers' maps with real and methods. distill_real, distill_fake:
    mean squared difference of the student's map to the recogniser's of a real, to the fused one of a fake. real: of a
    fake the mean over cells of 1 - cosine of the recogniser's maps of it and its real, minus that for a swap. What
    takes the recogniser is masked out where there is none. Source: the authors' code; reference: detectors, "lsda".
    """
    named, settings = ctx.config.data.group.methods, ctx.config.loss_args.real
    label, student = rows["label"], out["spatial"].astype(jnp.float32)
    every = jnp.ones(label.shape[0], bool)
    images = compose.resize(rows["image"], ctx.config.model.image_size)
    grouped = images.reshape(-1, 1 + len(named), *images.shape[1:])
    taught = [
        ctx.apply(f"teacher_{name}", grouped[:, place], train=True, mutable=True) for place, name in enumerate(named, 1)
    ]
    recognised, seen = bool(settings.variant), jnp.zeros_like(student)
    if recognised:
        seen = ctx.apply("real", images, train=settings.trained, mutable=settings.trained)
    seen = seen.reshape(*grouped.shape[:2], *student.shape[1:])
    made = ctx.apply("mixer", jnp.stack(taught, axis=1), seen[:, 0], train=True)
    # A fake is compared with what was fused, a real with what was recognised.
    goal = jnp.concatenate([seen[:, :1], made["fused"]], axis=1).reshape(student.shape)
    apart = jnp.square(student - goal).mean((1, 2, 3))
    kinds = jnp.tile(jnp.arange(1 + len(named)), len(grouped))
    kind = L.label_ce(made["kinds"].reshape(len(kinds), -1), kinds)
    sign = jnp.asarray([0.0, *(-1.0 if methods.family(name) == "face_swap" else 1.0 for name in named)])
    unlike = (1 - (L.unit(seen) * L.unit(seen[:, :1])).sum(-1)).mean((2, 3)) * sign
    return {
        "label": (L.label_ce(out["logits"], label), every),
        "kind": (kind, every if recognised else label == 1),
        "distill_real": (apart, (label == 0) & recognised),
        "distill_fake": (apart, label == 1),
        "real": (unlike.ravel(), (label == 1) & recognised),
    }
