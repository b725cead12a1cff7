"""CLIP's vision tower from a Hugging Face `model.safetensors` (CLIPModel or CLIPVisionModel)."""

import re

import numpy as np
from safetensors import safe_open

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
    for pattern, ours, kind in _RULES:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        ours = match.expand(ours)
        if kind == "conv":
            value = value.transpose(2, 3, 1, 0)
        if kind == "linear" and ours.endswith("/weight"):
            ours, value = ours.removesuffix("weight") + "kernel", value.T
        return ours, np.ascontiguousarray(value, np.float32)
    raise ValueError(f"{name!r} is no tensor of CLIP's vision tower")
