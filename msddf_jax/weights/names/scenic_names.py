"""Scenic's ViT, and checkpoints that Scenic restores (google-research/scenic, commit 4a38d475ee89, July 2026).

Its ViT (`projects/baselines/vit.py`) with `classifier="token"` is `models.clip.VisionTransformer` with the settings
`VIT`: the blocks have big_vision's names, the positions stand inside the encoder, the GELU is its tanh form. Those
without a class token ("gap", "map", ...) are refused, since ours always has one. Scenic's CLIP is
`clip_names.scenic_clip`.
"""

import inspect
import math
import pathlib

import numpy as np
from flax import serialization

from msddf_jax import checkpoint, trees
from msddf_jax.models import clip, layers
from msddf_jax.weights import table
from msddf_jax.weights.names import clip_names, cnn_names
from msddf_jax.weights.table import Entry

FORMATS = ("clip/scenic_vit",)
# What its ViT computes, and what its CLIP does.
VIT = {**clip.PLAIN_VIT, "class_position": True, "tanh_gelu": True}
CLIP = {
    "quick_gelu": True,
    "use_pre_norm": True,
    "patch_bias": False,
    "norm_eps": layers.LAYER_NORM_EPS,
    "class_position": True,
    "tanh_gelu": False,
}
# Its classifier, and what may stand in front of it (`representation_size`).
SKIP = (r"output_projection/(kernel|bias)", r"pre_logits/(kernel|bias)")
_HEAD, _POSITIONS = "output_projection", "Transformer/posembed_input/pos_embedding"
_QUERY = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel"


def vit(variant, head=False) -> dict[str, Entry]:
    """Table of Scenic's ViT with a class token; head: with a classifier, as `detectors.baseline`'s.

    Raises:
      ValueError: unknown variant of `clip.VARIANTS`.
    """
    out = clip_names.big_vision(variant)
    out[_POSITIONS] = out.pop("pos_embedding")
    if head:
        out |= {f"{_HEAD}/{leaf}": Entry(f"{cnn_names.HEAD}/{leaf}") for leaf in ("kernel", "bias")}
    return out


def find(shapes) -> dict | None:
    """Fields of `identify.Found` for a file with these {name: shape}, None where it is no ViT of Scenic's.

    A classifier of two classes right behind the class token makes it a detector: real, then fake, as
    `data.scenic_dataset` gives them.

    Raises:
      ValueError: a ViT of Scenic's that cannot be computed here: no class token, or sizes that are not in
        `clip.VARIANTS`.
    """
    patches, positions, query = (tuple(shapes.get(name, ())) for name in ("embedding/kernel", _POSITIONS, _QUERY))
    if (len(patches), len(positions), len(query)) != (4, 3, 3) or patches[2] != 3:
        return None
    if "cls" not in shapes:
        raise ValueError(
            'a ViT of Scenic without a class token (classifier "gap", "map" or another): only those with '
            'classifier="token" can be computed by models/clip.py'
        )
    depth = len({name.split("/")[1] for name in shapes if name.startswith("Transformer/encoderblock_")})
    size = clip.Variant(patches[3], depth, query[1], patches[0])
    variant = next((name for name, known in clip.VARIANTS.items() if known == size), None)
    grid = math.isqrt(max(positions[1] - 1, 0))
    if variant is None or patches[0] != patches[1] or grid == 0 or grid**2 + 1 != positions[1]:
        raise ValueError(
            f"a ViT of Scenic of width {size.width}, {depth} blocks, {size.heads} heads, patches {patches[:2]} and "
            f"{positions[1]} tokens; known are square grids of {', '.join(clip.VARIANTS)}"
        )
    whole = shapes.get(f"{_HEAD}/kernel") == (size.width, 2) and not any(n.startswith("pre_logits/") for n in shapes)
    return {
        "format": FORMATS[0],
        "family": "clip",
        "variant": variant,
        "options": {**VIT, **cnn_names.HALF},
        "image_size": grid * size.patch,
        "table": vit(variant, head=whole),
        "skip": () if whole else SKIP,
        "detector": "baseline" if whole else None,
        "assumed": (*cnn_names.HALF, *(["which class is which: real, then fake"] if whole else [])),
    }


def to_scenic(config, flat) -> dict[str, np.ndarray]:
    """{Scenic's name: float32 array} of a backbone, with a classifier where it is `detectors.baseline`'s plain one.

    Args:
      config: the experiment. flat: {our flat name: array} of the detector; heads that Scenic's models have not are left
        out.

    Returns:
      names of Scenic's ViT, or of the vision tower of its CLIP where the backbone has CLIP's first LayerNorm.

    Raises:
      ValueError: a backbone that is no ViT of this kind, or that computes something else than Scenic's does.
    """
    model = config.model
    if model.get("family", "clip") != "clip" or model.get("variant") not in clip.VARIANTS:
        raise ValueError(
            f"Scenic's names are written of ViTs of {', '.join(clip.VARIANTS)}; the config's backbone is "
            f"{model.get('family', 'clip')} {model.get('variant')}"
        )
    defaults = {name: field.default for name, field in inspect.signature(clip.VisionTransformer).parameters.items()}
    ours = {**defaults, **(model.get("options") or {})}
    name, settings = ("CLIP", CLIP) if ours["use_pre_norm"] else ("ViT", VIT)
    for key, theirs in {**settings, "in_channels": 3}.items():
        if ours[key] != theirs:
            raise ValueError(f"Scenic's {name} has {key}={theirs!r}, the config's backbone {ours[key]!r}")
    if name == "CLIP":
        entries = clip_names.scenic_clip(model.variant, text=False)
    else:
        head = config.detector == "baseline" and not model.get("normalize", True)
        entries = vit(model.variant, head=head)
    wanted = {entry.ours for entry in entries.values()}
    there = {key for key in flat if key.split("/")[1] == "backbone"} | (wanted & set(flat))
    if wanted != there:
        raise ValueError(f"no parameters of Scenic's {name}: {', '.join(sorted(wanted ^ there)[:4])} differ")
    return table.to_theirs(flat, entries)


def write(config, flat, folder) -> pathlib.Path:
    """Write `to_scenic` as a checkpoint that Scenic's `pretrain_utils.restore_pretrained_checkpoint` restores.

    Its "metadata" says what the images are normalised with, which Scenic does in its data pipeline.

    Args:
      config, flat: of `to_scenic`. folder: where `checkpoint_0` goes; made where it is not there.

    Returns:
      the file.

    Raises:
      ValueError: of `to_scenic`. FileExistsError: there is a `checkpoint_0` already.
    """
    path = pathlib.Path(folder) / "checkpoint_0"
    if path.exists():
        raise FileExistsError(f"{path} is there already; name another folder")
    options = config.model.get("options") or {}
    pixels = {"pixel_mean": clip.PIXEL_MEAN, "pixel_std": clip.PIXEL_STD}
    state = {
        "global_step": 0,
        "params": trees.unflatten(to_scenic(config, flat)),
        "model_state": {},
        "rng": np.zeros(2, np.uint32),
        "metadata": {name: np.float32(options.get(name, usual)) for name, usual in pixels.items()},
    }
    checkpoint.write_bytes(path, serialization.msgpack_serialize(state))
    return path
