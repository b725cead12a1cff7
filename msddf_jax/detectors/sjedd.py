"""SJEDD and SO-DFD: a fake face by what it changes, a likelihood over the legal states of a tree of attributes.

SJEDD (Zou et al., "Semantics-oriented joint embedding DeepFake detection", TCSVT 2025) gives every node of the tree a
prompt and fine-tunes both towers of CLIP; SO-DFD (Zou et al., TIFS 2025), with head "linear", gives every node a row of
a linear layer on CLIP's projected image feature or on Xception. Fakeness is the marginal of the root. How much the
three levels of the tree weigh is learned: `config.step` is "bilevel", towards the root's loss on a second batch.

Differs from the public code: the images are looked at once a step and not once a level, the hypergradient is exact,
level weights stay >= 0, and one key names a data set's graph, levels, prompts and labels (there, FFSC is trained with
the graph of FaceForensics++). A row of which no attribute of a level is known is not asked of that level. Forgeries
made in the step have no attributes, so the recipe is "none". Images are resized on the device. Expected result: the
public repository has no table; the tables here are this project's own.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from msddf_jax import hooks
from msddf_jax import losses as L
from msddf_jax.data import tokens
from msddf_jax.models import backbones, clip_text, heads, layers, semantic_graph
from msddf_jax.synth import compose, perturbations

# CLIP's logit scale is divided by itself, and what is left by ten (reference: sjedd section 2).
TEMPERATURE = 10.0
FORMS = ("fidelity", "cross_entropy")


class Model(nn.Module):
    """Backbone + an energy of each node + the marginals of the legal states.

    family, variant, options: of `backbones.make`; quick_gelu of the options is the text tower's too.
    image_size: that the backbone sees; other images are resized on the device.
    graph: of `semantic_graph.GRAPHS`.
    head: "text", products with the features of prompts, for CLIP; or "linear", a linear layer.
    vocabulary: for head "text", of `tokens.load_tokenizer`. It is read where variables are drawn, and the ids are kept
      with them in the collection "prompts": what is trained predicts without it. Where it is not there, the ids are
      drawn as zeros (`players` says so before any training).
    """

    variant: str
    image_size: int
    graph: str = "ffpp"
    head: str = "text"
    vocabulary: str = ""
    family: str = "clip"
    options: Any = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, rows, *, train) -> dict[str, jax.Array]:
        """Forward pass.

        Args:
          rows: {"image": float32 [B, H, W, 3] in [0, 1]}. train: of the backbone.

        Returns:
          dict: logit [B], log odds of the root; energy, log_p and log_rest [B, nodes] float32, what
          `semantic_graph.log_marginals` takes and gives; feature [B, d] of unit length; spatial [B, g, g, c].

        Raises:
          ValueError: an unknown graph or head; prompts for a backbone that is no CLIP.
        """
        graph, options = semantic_graph.get_graph(self.graph), dict(self.options or {})
        if self.head not in ("text", "linear") or (self.head == "text" and self.family != "clip"):
            raise ValueError(f"head is {self.head!r} on {self.family}: allowed are 'text' on clip, and 'linear'")
        images = compose.resize(rows["image"], self.image_size)
        make = functools.partial(backbones.make, self.family, self.variant, self.image_size)
        features = make(dtype=self.dtype, name="backbone", **options)(images, train=train)
        image = features["feature"].astype(jnp.float32)
        if self.family == "clip":
            embed = clip_text.get_text_variant(self.variant).embed
            image = clip_text.project(image, embed, "vision_projection")
        if self.head == "linear":
            energy = layers.Linear(len(graph.nodes), name="head")(image)
        else:
            ids = self.variable("prompts", "ids", _ids_or_zeros, self.vocabulary, self.graph, self.variant).value
            tower = clip_text.TextTransformer(self.variant, self.dtype, options.get("quick_gelu", True), name="text")
            text = clip_text.project(tower(ids)["feature"], embed, "text_projection")
            energy = jnp.matmul(image, text.T, precision=jax.lax.Precision.HIGHEST) / TEMPERATURE
        log_p, log_rest = semantic_graph.log_marginals(energy, semantic_graph.legal_states(graph))
        out = {"logit": log_p[:, 0] - log_rest[:, 0], "energy": energy, "log_p": log_p, "log_rest": log_rest}
        return dict(out, feature=heads.l2_normalize(image), spatial=features["spatial"])


@functools.cache
def _prompt_ids(vocabulary, graph, variant):
    """int32 [nodes, context]: the prompts of a graph as the text tower of a variant takes them.

    Raises FileNotFoundError where there is no vocabulary, ValueError where it is of another size than the tower's.
    """
    try:
        tokenizer = tokens.load_tokenizer(vocabulary)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.model.vocabulary: {error}") from error
    size = clip_text.get_text_variant(variant)
    if tokenizer.get_vocab_size() != size.vocabulary:
        raise ValueError(
            f"config.model.vocabulary is {vocabulary!r} with {tokenizer.get_vocab_size()} ids; the text tower of CLIP "
            f"{variant} has {size.vocabulary}: name the vocabulary that it was trained with"
        )
    ids = tokens.tokenize(tokenizer, semantic_graph.prompts(semantic_graph.get_graph(graph)), size.context)
    ids.flags.writeable = False
    return ids


def _ids_or_zeros(vocabulary, graph, variant):
    try:
        return jnp.asarray(_prompt_ids(vocabulary, graph, variant))
    except (FileNotFoundError, ModuleNotFoundError):
        # Scoring wants their shape alone: the ids come with the weights.
        nodes = semantic_graph.get_graph(graph).nodes
        return jnp.zeros((len(nodes), clip_text.get_text_variant(variant).context), jnp.int32)


def players(config) -> dict[str, hooks.Player]:
    """`hooks.players`, once it is known that the prompts can be read: without their ids nothing would be learned.

    Raises:
      FileNotFoundError, ValueError, ModuleNotFoundError: `config.model.vocabulary` is not there, of another size than
      the text tower, or cannot be read.
    """
    if config.model.head == "text":
        _prompt_ids(config.model.vocabulary, config.model.graph, config.model.variant)
    return hooks.players(config)


def make_rows(key, batch, ctx) -> dict[str, jax.Array | dict]:
    """Rows of `compose.compose`, through `perturbations.perturb` at their own size, then at the size of the model.

    Args:
      key: typed key. batch: device batch. ctx: `hooks.Context`; of `config.loss_args`, perturb: {"prob", "qualities"}.

    Raises:
      ValueError: a recipe that forges, settings of the default augmentation, or clips.
    """
    config = ctx.config
    recipe, augment = config.synth.recipe, sorted(set(config.augment) - {"image_size"})
    if recipe["name"] != "none" or augment or batch["image"].ndim != 4:
        raise ValueError(
            f"sjedd trains on the images of a data set, perturbed by config.loss_args.perturb: expected the recipe "
            f"'none', no setting of config.augment but image_size and no clips; got {recipe['name']!r}, {augment} and "
            f"images {list(batch['image'].shape)}"
        )
    layout = hooks.layout_of(config)
    rows = compose.compose(key, batch, layout=layout, recipe=recipe, flip=config.synth.flip, progress=ctx.progress)
    images = perturbations.perturb(ctx.key("augment"), rows["image"], **config.loss_args.perturb)
    return dict(rows, image=compose.resize(images, config.augment.image_size))


def losses(out, rows, ctx) -> dict[str, tuple]:
    """Every term of the objective: {"level_1", "level_2", "level_3": (values [N], mask [N])}, unweighted.

    Args:
      out: of `Model`. rows: of `make_rows`. ctx: `hooks.Context`; of `config.model`, graph; of `config.loss_args`,
        form: "fidelity" (SJEDD; what is unknown of a row is 0) or "cross_entropy" (SO-DFD; what is unknown is 0 in the
        mean over the level's nodes).

    Raises:
      ValueError: an unknown form.
    """
    form, graph = ctx.config.loss_args.form, semantic_graph.get_graph(ctx.config.model.graph)
    if form not in FORMS:
        raise ValueError(f"config.loss_args.form is {form!r}, allowed: {FORMS}")
    target, known = semantic_graph.targets(graph, rows["label"], rows["attributes"], rows["has_attributes"])
    terms = {}
    for level, nodes in graph.levels.items():
        of_level = (out["log_p"][:, nodes], out["log_rest"][:, nodes], target[:, nodes])
        loss = L.node_fidelity(*of_level) if form == "fidelity" else L.node_ce(*of_level, known[:, nodes])
        # No published label leaves a whole level open; other data sets know nothing but the label.
        terms[level] = (loss, known[:, nodes].any(axis=-1))
    return terms
