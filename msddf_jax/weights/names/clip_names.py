"""CLIP's and the plain ViT's tensors under every name they are published with, both ways, and which file is which.

Known are Hugging Face's CLIPModel, CLIPVisionModel and CLIPVisionModelWithProjection; open_clip's CLIP and
CustomTextCLIP, and OpenAI's own files, which have open_clip's names; Scenic's CLIP; timm's ViT, with and without CLIP's
first LayerNorm; the ViT of vision_transformer (AugReg) and big_vision's with a class token. Not CLIP's: ResNet towers,
towers of timm inside open_clip, and big_vision's towers without a class token (SigLIP, LiT's "map" and "gap").
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from msddf_jax.models import clip, clip_text, layers
from msddf_jax.weights.table import COUNTERS, Entry, linear, norm, prefixed

ATTENTION = ("query", "key", "value")
# What saving programs put in front of every name.
PREFIXES = ("", "module.", "params/")
# Numbers that OpenAI's files hold beside the parameters; no other publisher's files have them.
OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
HALF = (0.5, 0.5, 0.5)
# Trees of `clip_text.ClipModel` beside the vision tower.
JOINT = ("text", "text_projection", "vision_projection")
# Keys of `recognise`'s answer that are no field of a model.
LABELS = ("format", "prefix", "text", "assumed")


def hf_clip(variant, text=True) -> dict[str, Entry]:
    """Table of a Hugging Face CLIPModel; without `text`, of the vision tower in it.

    Args:
      variant: of `clip.VARIANTS`. text: whether the text tower, projections and temperature belong to it
        (parameters of `clip_text.ClipModel`).

    Returns:
      {their name: Entry}; ours are "params/backbone/..." and, with `text`, "params/text/...",
      "params/vision_projection/kernel", "params/text_projection/kernel", "params/logit_scale".

    Raises:
      ValueError: unknown variant, or one without a text tower. Both hold for the other tables too.
    """
    depth, ours = clip.get_variant(variant).depth, "params/backbone"
    out = {
        "vision_model.embeddings.class_embedding": Entry(f"{ours}/class_token"),
        "vision_model.embeddings.patch_embedding.weight": Entry(f"{ours}/patch_embed", "conv"),
        "vision_model.embeddings.position_embedding.weight": Entry(f"{ours}/pos_embed"),
        **norm("vision_model.pre_layrnorm", f"{ours}/ln_pre"),
        **norm("vision_model.post_layernorm", f"{ours}/ln_post"),
    }
    for i in range(depth):
        out |= _hf_block(f"vision_model.encoder.layers.{i}", f"{ours}/block_{i}")
    if not text:
        return out
    out |= {
        "text_model.embeddings.token_embedding.weight": Entry("params/text/token_embed"),
        "text_model.embeddings.position_embedding.weight": Entry("params/text/pos_embed"),
        **norm("text_model.final_layer_norm", "params/text/ln_final"),
        **linear("visual_projection", "params/vision_projection", bias=False),
        **linear("text_projection", "params/text_projection", bias=False),
        "logit_scale": Entry("params/logit_scale"),
    }
    for i in range(clip_text.get_text_variant(variant).depth):
        out |= _hf_block(f"text_model.encoder.layers.{i}", f"params/text/block_{i}")
    return out


def hf_clip_tower(variant, text=False) -> dict[str, Entry]:
    """Table of a Hugging Face CLIPVisionModel whose names do not start with "vision_model."; `text` must be False."""
    _no_text(text, "hf_clip_tower")
    return {name.removeprefix("vision_model."): entry for name, entry in hf_clip(variant, text=False).items()}


def open_clip(variant, text=True, text_prefix="") -> dict[str, Entry]:
    """Table of open_clip's CLIP, and of OpenAI's files: see `hf_clip`. text_prefix: "text." for CustomTextCLIP."""
    out = {
        "visual.class_embedding": Entry("params/backbone/class_token"),
        "visual.positional_embedding": Entry("params/backbone/pos_embed"),
        "visual.conv1.weight": Entry("params/backbone/patch_embed", "conv"),
        **norm("visual.ln_pre", "params/backbone/ln_pre"),
        **norm("visual.ln_post", "params/backbone/ln_post"),
    }
    for i in range(clip.get_variant(variant).depth):
        out |= _open_clip_block(f"visual.transformer.resblocks.{i}", f"params/backbone/block_{i}")
    if not text:
        return out
    out |= {
        "visual.proj": Entry("params/vision_projection/kernel"),
        f"{text_prefix}token_embedding.weight": Entry("params/text/token_embed"),
        f"{text_prefix}positional_embedding": Entry("params/text/pos_embed"),
        **norm(f"{text_prefix}ln_final", "params/text/ln_final"),
        f"{text_prefix}text_projection": Entry("params/text_projection/kernel"),
        "logit_scale": Entry("params/logit_scale"),
    }
    for i in range(clip_text.get_text_variant(variant).depth):
        out |= _open_clip_block(f"{text_prefix}transformer.resblocks.{i}", f"params/text/block_{i}")
    return out


def open_clip_custom_text(variant, text=True) -> dict[str, Entry]:
    """Table of open_clip's CustomTextCLIP: see `hf_clip`."""
    return open_clip(variant, text, "text.")


def scenic_clip(variant, text=True) -> dict[str, Entry]:
    """Table of the CLIP in Scenic's `projects/baselines/clip`, names joined by "/": see `hf_clip`."""
    width, depth, heads, _ = clip.get_variant(variant)
    names = ("ln_1", "attn", "ln_2", "mlp/c_fc", "mlp/c_proj")
    out = {
        "visual/class_embedding": Entry("params/backbone/class_token"),
        "visual/positional_embedding": Entry("params/backbone/pos_embed"),
        "visual/conv1/kernel": Entry("params/backbone/patch_embed"),
        **_same("visual/ln_pre", "params/backbone/ln_pre", "scale"),
        **_same("visual/ln_post", "params/backbone/ln_post", "scale"),
    }
    for i in range(depth):
        theirs = f"visual/transformer/resblocks.{i}"
        out |= _flax_block(theirs, f"params/backbone/block_{i}", names, width, heads)
    if not text:
        return out
    size = clip_text.get_text_variant(variant)
    out |= {
        "visual/proj/kernel": Entry("params/vision_projection/kernel"),
        "text/token_embedding/embedding": Entry("params/text/token_embed"),
        "text/positional_embedding": Entry("params/text/pos_embed"),
        **_same("text/ln_final", "params/text/ln_final", "scale"),
        "text/text_projection/kernel": Entry("params/text_projection/kernel"),
        "logit_scale": Entry("params/logit_scale"),
    }
    for i in range(size.depth):
        theirs = f"text/transformer/resblocks.{i}"
        out |= _flax_block(theirs, f"params/text/block_{i}", names, size.width, size.heads)
    return out


def timm_vit(variant, text=False) -> dict[str, Entry]:
    """Table of timm's ViT with a class token (`vit_*`, `deit_*`), without its classifier."""
    _no_text(text, "timm_vit")
    return _timm(variant) | {"patch_embed.proj.bias": Entry("params/backbone/patch_embed_bias")}


def timm_clip(variant, text=False) -> dict[str, Entry]:
    """Table of timm's `vit_*_clip_*`: LayerNorm before the blocks, no bias on the patches; without its classifier."""
    _no_text(text, "timm_clip")
    return _timm(variant) | norm("norm_pre", "params/backbone/ln_pre")


def augreg(variant, text=False) -> dict[str, Entry]:
    """Table of the ViT of google-research/vision_transformer (an .npz), without its classifier."""
    _no_text(text, "augreg")
    names = ("LayerNorm_0", "MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3/Dense_0", "MlpBlock_3/Dense_1")
    positions = {"Transformer/posembed_input/pos_embedding": Entry("params/backbone/pos_embed", lead=1)}
    return _flax_vit(variant, names) | positions


def big_vision(variant, text=False) -> dict[str, Entry]:
    """Table of big_vision's ViT with `pool_type="tok"` (an .npz), without its classifier."""
    _no_text(text, "big_vision")
    names = ("LayerNorm_0", "MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0/Dense_0", "MlpBlock_0/Dense_1")
    return _flax_vit(variant, names) | {"pos_embedding": Entry("params/backbone/pos_embed", lead=1)}


def _no_text(text, name):
    if text:
        raise ValueError(f"files of format {name} hold no text tower; those of hf_clip, open_clip and scenic_clip do")


def _hf_block(theirs, ours):
    out = {}
    for name in ATTENTION:
        out |= linear(f"{theirs}.self_attn.{name[0]}_proj", f"{ours}/attn/{name}")
    out |= linear(f"{theirs}.self_attn.out_proj", f"{ours}/attn/out")
    for i in (1, 2):
        out |= linear(f"{theirs}.mlp.fc{i}", f"{ours}/mlp/fc_{i}") | norm(f"{theirs}.layer_norm{i}", f"{ours}/ln_{i}")
    return out


def _qkv(ours, leaf):
    return Entry(tuple(f"{ours}/attn/{name}/{leaf}" for name in ATTENTION), "qkv")


def _open_clip_block(theirs, ours):
    return {
        f"{theirs}.attn.in_proj_weight": _qkv(ours, "kernel"),
        f"{theirs}.attn.in_proj_bias": _qkv(ours, "bias"),
        **linear(f"{theirs}.attn.out_proj", f"{ours}/attn/out"),
        **linear(f"{theirs}.mlp.c_fc", f"{ours}/mlp/fc_1"),
        **linear(f"{theirs}.mlp.c_proj", f"{ours}/mlp/fc_2"),
        **norm(f"{theirs}.ln_1", f"{ours}/ln_1"),
        **norm(f"{theirs}.ln_2", f"{ours}/ln_2"),
    }


def _timm(variant):
    """What timm's two kinds of ViT have in common."""
    out = {
        "cls_token": Entry("params/backbone/class_token", lead=2),
        "pos_embed": Entry("params/backbone/pos_embed", lead=1),
        "patch_embed.proj.weight": Entry("params/backbone/patch_embed", "conv"),
        **norm("norm", "params/backbone/ln_post"),
    }
    for i in range(clip.get_variant(variant).depth):
        theirs, ours = f"blocks.{i}", f"params/backbone/block_{i}"
        out |= {
            f"{theirs}.attn.qkv.weight": _qkv(ours, "kernel"),
            f"{theirs}.attn.qkv.bias": _qkv(ours, "bias"),
            **linear(f"{theirs}.attn.proj", f"{ours}/attn/out"),
        }
        for j in (1, 2):
            out |= linear(f"{theirs}.mlp.fc{j}", f"{ours}/mlp/fc_{j}") | norm(f"{theirs}.norm{j}", f"{ours}/ln_{j}")
    return out


def _same(theirs, ours, leaf):
    """Entries of a Flax LayerNorm (leaf "scale") or Dense ("kernel"), which are ours as they are."""
    return {f"{theirs}/{name}": Entry(f"{ours}/{name}") for name in (leaf, "bias")}


def _flax_block(theirs, ours, names, width, heads):
    """names: of the first LayerNorm, the attention, the second LayerNorm and the two Dense layers."""
    norm_1, attention, norm_2, dense_1, dense_2 = names
    side = width // heads
    out = {
        f"{theirs}/{attention}/out/kernel": Entry(f"{ours}/attn/out/kernel", "heads_first", shape=(heads, side, width)),
        f"{theirs}/{attention}/out/bias": Entry(f"{ours}/attn/out/bias"),
        **_same(f"{theirs}/{norm_1}", f"{ours}/ln_1", "scale"),
        **_same(f"{theirs}/{norm_2}", f"{ours}/ln_2", "scale"),
        **_same(f"{theirs}/{dense_1}", f"{ours}/mlp/fc_1", "kernel"),
        **_same(f"{theirs}/{dense_2}", f"{ours}/mlp/fc_2", "kernel"),
    }
    for name in ATTENTION:
        for leaf, shape in (("kernel", (width, heads, side)), ("bias", (heads, side))):
            out[f"{theirs}/{attention}/{name}/{leaf}"] = Entry(f"{ours}/attn/{name}/{leaf}", "heads_last", shape=shape)
    return out


def _flax_vit(variant, names):
    width, depth, heads, _ = clip.get_variant(variant)
    out = {
        "cls": Entry("params/backbone/class_token", lead=2),
        "embedding/kernel": Entry("params/backbone/patch_embed"),
        "embedding/bias": Entry("params/backbone/patch_embed_bias"),
        **_same("Transformer/encoder_norm", "params/backbone/ln_post", "scale"),
    }
    for i in range(depth):
        theirs = f"Transformer/encoderblock_{i}"
        out |= _flax_block(theirs, f"params/backbone/block_{i}", names, width, heads)
    return out


class Format(NamedTuple):
    """One naming: its table, regexes of a vision block and of what is not the vision tower, and its model's fields.

    needs: a name without which it is not this format. fields: see `recognise`; assumed: those of them that the tensors
    do not tell.
    """

    table: Callable
    block: str
    other: tuple
    fields: dict
    assumed: tuple = ("quick_gelu", "pixel_mean", "pixel_std")
    needs: str = ""


_CLIP = {"quick_gelu": False, "pixel_mean": clip.PIXEL_MEAN, "pixel_std": clip.PIXEL_STD}
_PLAIN = {**clip.PLAIN_VIT, "pixel_mean": HALF, "pixel_std": HALF}
_PIXELS = ("pixel_mean", "pixel_std")
_HF_BLOCK = r"encoder\.layers\.(\d+)\..*"
_HF_OTHER = (r"text_model\..*", r"(visual|text)_projection\.weight", "logit_scale")
_OPEN_CLIP_BLOCK = r"visual\.transformer\.resblocks\.(\d+)\..*"
_OPEN_CLIP_OTHER = (r"(?!visual\.).*", r"visual\.proj")
_HEAD = (r"(head|pre_logits)[./](weight|kernel|bias)",)
_FLAX_BLOCK = r"Transformer/encoderblock_(\d+)/.*"
FORMATS = {
    "hf_clip": Format(hf_clip, rf"vision_model\.{_HF_BLOCK}", _HF_OTHER, _CLIP | {"quick_gelu": True}),
    "hf_clip_tower": Format(hf_clip_tower, _HF_BLOCK, (), _CLIP | {"quick_gelu": True}),
    "open_clip_custom_text": Format(
        open_clip_custom_text, _OPEN_CLIP_BLOCK, _OPEN_CLIP_OTHER, _CLIP, needs="text.token_embedding.weight"
    ),
    "open_clip": Format(open_clip, _OPEN_CLIP_BLOCK, _OPEN_CLIP_OTHER, _CLIP),
    "scenic_clip": Format(
        scenic_clip,
        r"visual/transformer/resblocks\.(\d+)/.*",
        (r"(?!visual/).*", "visual/proj/kernel"),
        _CLIP | {"quick_gelu": True},
        assumed=(),
    ),
    "timm_vit": Format(timm_vit, r"blocks\.(\d+)\..*", _HEAD, _PLAIN, _PIXELS),
    "timm_clip": Format(timm_clip, r"blocks\.(\d+)\..*", _HEAD, _CLIP),
    "augreg": Format(augreg, _FLAX_BLOCK, _HEAD, _PLAIN | {"tanh_gelu": True}, ()),
    "big_vision": Format(big_vision, _FLAX_BLOCK, _HEAD, _PLAIN | {"tanh_gelu": True}, _PIXELS),
}


def recognise(shapes, config=None) -> dict | None:
    """Which format and model a file's tensors are of, by names and shapes; None for what is no known CLIP or ViT.

    Args:
      shapes: {their name: shape}. config: None, or what the JSON files beside the weights say, see `settings`.

    Returns:
      None, or a dict: format, a key of `FORMATS`; prefix, in front of every name; text, whether the file holds the text
      tower of `clip_text.ClipModel` too; assumed, the fields that neither tensors nor `config` tell and that take the
      publisher's usual value (OpenAI's for Hugging Face names, LAION's for open_clip's); and the fields of
      `clip.VisionTransformer`: variant, image_size (that of the position embeddings), quick_gelu, pixel_mean,
      pixel_std, ... CLIP's own formats give only fields that `clip_text.ClipModel` has as well.

    Raises:
      ValueError: of `settings`, where the tensors are CLIP's or a ViT's.
    """
    for name in FORMATS:
        for prefix in PREFIXES:
            own = {key.removeprefix(prefix): tuple(shape) for key, shape in shapes.items() if key.startswith(prefix)}
            found = _match(name, own)
            if found is not None:
                stated = settings(config) if config is not None else {}
                fields, assumed = {**FORMATS[name].fields, **found}, FORMATS[name].assumed
                if set(OPENAI_NUMBERS) & set(own):
                    fields, assumed = fields | {"quick_gelu": True}, ()
                assumed = tuple(field for field in assumed if field not in stated)
                return {"format": name, "prefix": prefix, "assumed": assumed, **fields, **stated}
    return None


def _match(name, shapes):
    """{variant, image_size, text, and class_position for a plain ViT} where the tensors are of format `name`."""
    form = FORMATS[name]
    names = {entry.ours: theirs for theirs, entry in form.table("Mu/8", text=False).items()}
    class_token, patch_embed, pos_embed = (
        names[f"params/backbone/{leaf}"] for leaf in ("class_token", "patch_embed", "pos_embed")
    )
    if not {class_token, patch_embed, pos_embed} <= set(shapes) or (form.needs and form.needs not in shapes):
        return None
    kernel, positions = shapes[patch_embed], shapes[pos_embed]
    blocks = {match[1] for match in (re.fullmatch(form.block, key) for key in shapes) if match}
    # Patches are [d, 3, p, p] in PyTorch and [p, p, 3, d] in Flax: the third or the first side is the patch's.
    sizes = [
        (variant, size)
        for variant, size in clip.VARIANTS.items()
        if kernel in ((size.width, 3, size.patch, size.patch), (size.patch, size.patch, 3, size.width))
        and size.depth == len(blocks)
    ]
    if not sizes or len(positions) < 2:
        return None
    variant, size = sizes[0]
    # Other architectures differ in what a block or the tower's ends hold. A single tensor that is missing or strange
    # further down is no other architecture: the table's check will name it.
    for key in set(shapes) - set(form.table(variant, text=False)):
        match = re.fullmatch(form.block, key)
        if not any(re.fullmatch(p, key) for p in (*COUNTERS, *form.other)) and (not match or match[1] == "0"):
            return None
    class_position = math.isqrt(positions[-2]) ** 2 != positions[-2]
    grid = math.isqrt(positions[-2] - class_position)
    plain = form.fields["pixel_mean"] == HALF
    if grid == 0 or grid**2 + class_position != positions[-2] or not (class_position or plain):
        return None
    found = {"variant": variant, "image_size": grid * size.patch, "text": _holds_text(form, variant, shapes)}
    return found | ({"class_position": class_position} if plain else {})


def _holds_text(form, variant, shapes):
    if variant not in clip_text.TEXT_VARIANTS or form.table not in (
        hf_clip,
        open_clip,
        open_clip_custom_text,
        scenic_clip,
    ):
        return False
    size = clip_text.get_text_variant(variant)
    names = {entry.ours: theirs for theirs, entry in form.table(variant, text=True).items()}
    return shapes.get(names["params/text/token_embed"]) == (size.vocabulary, size.width)


def model_fields(found) -> dict:
    """The fields of `clip.VisionTransformer` in an answer of `recognise`."""
    return {name: value for name, value in found.items() if name not in LABELS}


def table_of(found, text=False) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """(table, regexes of their names to skip) to read a file that `recognise` knows.

    Args:
      found: of `recognise`. text: with the text tower, projections and temperature (`clip_text.ClipModel`), or the
        vision tower alone, whatever else the file holds.

    Raises:
      ValueError: `text` where the file holds no text tower.
    """
    form, prefix = FORMATS[found["format"]], found["prefix"]
    if text and not found["text"]:
        raise ValueError(f"this file of format {found['format']} holds no text tower that fits CLIP {found['variant']}")
    skip = OPENAI_NUMBERS if text else form.other
    table = form.table(found["variant"], text=text)
    return prefixed(table, prefix), tuple(re.escape(prefix) + p for p in skip)


def settings(config) -> dict[str, bool | float | tuple[float, ...]]:
    """Fields of `clip.VisionTransformer` that the JSON files beside weights state.

    Args:
      config: dict, one of: Hugging Face's config.json of a CLIP, preprocessor_config.json or both merged;
        open_clip_config.json; timm's config.json.

    Returns:
      dict with what is stated of quick_gelu, tanh_gelu, norm_eps, pixel_mean, pixel_std.

    Raises:
      ValueError: another kind of file, an activation that is not known, or two towers with two activations.
    """
    pixels = config.get("preprocess_cfg") or config.get("pretrained_cfg") or {}
    pixels = {"mean": config.get("image_mean"), "std": config.get("image_std"), **pixels}
    out = {f"pixel_{name}": tuple(pixels[name]) for name in ("mean", "std") if pixels[name]}
    if "model_cfg" in config:
        return out | {"quick_gelu": bool(config["model_cfg"].get("quick_gelu", False))}
    if "architecture" in config:
        return out | {"quick_gelu": "quickgelu" in config["architecture"]}
    if str(config.get("model_type", "")).startswith("clip"):
        return out | _hf_settings(
            [config[key] for key in ("vision_config", "text_config") if key in config] or [config]
        )
    if not out:
        raise ValueError(
            "no CLIP's or ViT's config: expected Hugging Face's (model_type clip...; or image_mean), open_clip's "
            f"(model_cfg) or timm's (architecture), got the keys {', '.join(sorted(config)) or 'none'}"
        )
    return out


def _hf_settings(towers):
    """Of one or two towers' sections; what a section does not say has Hugging Face's default."""
    stated = {
        (tower.get("hidden_act", "quick_gelu"), tower.get("layer_norm_eps", layers.LAYER_NORM_EPS)) for tower in towers
    }
    activation, epsilon = min(stated)
    known = {"quick_gelu": (True, False), "gelu": (False, False), "gelu_pytorch_tanh": (False, True)}
    if len(stated) > 1 or activation not in known:
        raise ValueError(f"expected one activation of {', '.join(known)} and one epsilon for all, got {sorted(stated)}")
    quick, tanh = known[activation]
    out = {"quick_gelu": quick} | ({"tanh_gelu": True} if tanh else {})
    return out | ({"norm_eps": epsilon} if epsilon != layers.LAYER_NORM_EPS else {})
