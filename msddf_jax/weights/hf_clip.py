"""CLIP's vision tower from and to a Hugging Face `model.safetensors` (CLIPModel or CLIPVisionModel)."""

import re

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

# Hugging Face name -> (ours, what to do with the array). Linear weights are [out, in] there and [in, out] here.
_RULES = (
    (r"embeddings\.class_embedding", "class_token", None),
    (r"embeddings\.patch_embedding\.weight", "patch_embed", "conv"),
    (r"embeddings\.position_embedding\.weight", "pos_embed", None),
    (r"pre_layrnorm\.weight", "ln_pre/scale", None),
    (r"pre_layrnorm\.bias", "ln_pre/bias", None),
    (r"post_layernorm\.weight", "ln_post/scale", None),
    (r"post_layernorm\.bias", "ln_post/bias", None),
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.weight", r"block_\1/ln_\2/scale", None),
    (r"encoder\.layers\.(\d+)\.layer_norm([12])\.bias", r"block_\1/ln_\2/bias", None),
    (r"encoder\.layers\.(\d+)\.self_attn\.q_proj\.(weight|bias)", r"block_\1/attn/query/\2", "linear"),
    (r"encoder\.layers\.(\d+)\.self_attn\.k_proj\.(weight|bias)", r"block_\1/attn/key/\2", "linear"),
    (r"encoder\.layers\.(\d+)\.self_attn\.v_proj\.(weight|bias)", r"block_\1/attn/value/\2", "linear"),
    (r"encoder\.layers\.(\d+)\.self_attn\.out_proj\.(weight|bias)", r"block_\1/attn/out/\2", "linear"),
    (r"encoder\.layers\.(\d+)\.mlp\.fc([12])\.(weight|bias)", r"block_\1/mlp/fc_\2/\3", "linear"),
)
# Buffers, and what belongs to the other tower: not parameters of the vision tower.
_IGNORED = re.compile(r"(.*\.)?position_ids|text_model\..*|(visual|text)_projection\.weight|logit_scale")


def load(path):
    """{our flat name: float32 array} of the vision tower in a safetensors file.

    Raises:
      ValueError: not a safetensors file, or a tensor whose name is not CLIP's.
    """
    out = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (safe_open has no iterator)
                if not _IGNORED.fullmatch(name):
                    ours, value = convert(name.removeprefix("vision_model."), file.get_tensor(name))
                    out[ours] = value
    except (ValueError, KeyError):
        raise
    except Exception as error:
        # safetensors raises a class of its own that is no subclass of anything useful.
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    return out


def convert(name, value):
    """(our name, our array) of one tensor of the vision tower. Raises ValueError for a name that is not CLIP's."""
    ours, kind = _rename(name)
    if kind == "conv":
        value = value.transpose(2, 3, 1, 0)
    if kind == "linear" and ours.endswith("/kernel"):
        value = value.T
    return ours, np.ascontiguousarray(value, np.float32)


def _rename(name):
    """(our name, kind of tensor) of a Hugging Face name."""
    for pattern, ours, kind in _RULES:
        match = re.fullmatch(pattern, name)
        if match is not None:
            ours = match.expand(ours)
            if kind == "linear" and ours.endswith("/weight"):
                ours = ours.removesuffix("weight") + "kernel"
            return ours, kind
    raise ValueError(f"{name!r} is no tensor of CLIP's vision tower")


def save(path, flat):
    """Write a vision tower under the names that `load` reads and CLIPVisionModel has.

    Args:
      path: of the safetensors file. flat: {our flat name: array}, of `models.clip.VisionTransformer`.

    Raises:
      ValueError: a name that is no parameter of the vision tower.
    """
    depth = len({name.split("/")[0] for name in flat if name.startswith("block_")})
    theirs = {_rename(name)[0]: name for name in _theirs(depth)}
    unknown = sorted(set(flat) - set(theirs))
    if unknown:
        raise ValueError(f"{unknown} are no parameters of CLIP's vision tower of {depth} blocks")
    tensors = {}
    for ours, value in flat.items():
        kind, value = _rename(theirs[ours])[1], np.asarray(value, np.float32)
        if kind == "conv":
            value = value.transpose(3, 2, 0, 1)
        if kind == "linear" and ours.endswith("/kernel"):
            value = value.T
        tensors[f"vision_model.{theirs[ours]}"] = np.ascontiguousarray(value)
    save_file(tensors, path)


def _theirs(depth):
    """Every Hugging Face name of a vision tower of `depth` blocks."""
    names = ["embeddings.class_embedding", "embeddings.patch_embedding.weight", "embeddings.position_embedding.weight"]
    layers = [f"{ln}.{kind}" for ln in ("layer_norm1", "layer_norm2") for kind in ("weight", "bias")]
    linear = [f"self_attn.{n}_proj" for n in ("q", "k", "v", "out")] + ["mlp.fc1", "mlp.fc2"]
    layers += [f"{name}.{kind}" for name in linear for kind in ("weight", "bias")]
    names += [f"{ln}.{kind}" for ln in ("pre_layrnorm", "post_layernorm") for kind in ("weight", "bias")]
    return names + [f"encoder.layers.{i}.{layer}" for i in range(depth) for layer in layers]
