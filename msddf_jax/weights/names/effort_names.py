"""Effort's detectors as DeepfakeBench and the authors' repository save them, and a plain CLIP in their form."""

import numpy as np
from tqdm import tqdm

from msddf_jax.models import clip
from msddf_jax.models.low_rank import split_svd
from msddf_jax.weights.names import clip_names
from msddf_jax.weights.table import Entry, linear

FORMATS = ("effort/deepfakebench",)
# The singular triplets of the frozen part, which some versions save beside their product.
SKIP = (r".*\.[SUV]_r",)
# In front of every name where the model was saved inside torch's DataParallel.
PARALLEL = "module."
_ATTENTION = tuple(f"/attn/{name}/" for name in ("query", "key", "value", "out"))


def effort(variant, prefix="") -> dict[str, Entry]:
    """Table of a whole detector; `detectors.effort.Model`'s names.

    Their weight is [out, in] = weight_main + U_residual diag(S_residual) V_residual, ours its transpose: our u is their
    V, our v their U.

    Args:
      variant: of `clip.VARIANTS`. prefix: in front of every name of theirs.
    """
    out = {}
    for theirs, entry in clip_names.hf_clip_tower(variant).items():
        if entry.kind != "linear" or not any(part in entry.ours for part in _ATTENTION):
            out[f"backbone.{theirs}"] = entry
            continue
        layer, ours = f"backbone.{theirs.removesuffix('.weight')}", entry.ours.removesuffix("/kernel")
        out[f"{layer}.weight_main"] = entry
        out[f"{layer}.S_residual"] = Entry(f"{ours}/s")
        out[f"{layer}.U_residual"] = Entry(f"{ours}/v", "linear")
        out[f"{layer}.V_residual"] = Entry(f"{ours}/u", "linear")
    out |= linear("head", "params/binary_head/out")
    return {prefix + theirs: entry for theirs, entry in out.items()}


def find(shapes) -> dict | None:
    """Fields of `identify.Found` for a file with these {name: shape}, None where it is no Effort detector."""
    prefix = PARALLEL if any(name.startswith(PARALLEL) for name in shapes) else ""
    start = f"{prefix}backbone."
    patches = shapes.get(f"{start}embeddings.patch_embedding.weight", ())
    positions = shapes.get(f"{start}embeddings.position_embedding.weight", ())
    split = f"{start}encoder.layers.0.self_attn.q_proj.weight_main"
    if len(patches) != 4 or len(positions) != 2 or split not in shapes:
        return None
    depth = len({n.split("layers.")[1].split(".")[0] for n in shapes if n.startswith(f"{start}encoder.layers.")})
    for name, size in clip.VARIANTS.items():
        if (size.width, size.depth, size.patch) == (patches[0], depth, patches[2]):
            return {
                "format": FORMATS[0],
                "family": "clip",
                "variant": name,
                "options": {},
                "image_size": round((positions[0] - 1) ** 0.5) * size.patch,
                "table": effort(name, prefix),
                "skip": SKIP,
                "detector": "effort",
            }
    return None


def init_from_dense(flat, rank=1) -> dict[str, np.ndarray]:
    """A plain CLIP ViT as Effort starts from it: every projection of its attention split by SVD on the host.

    Args:
      flat: {"params/backbone/...": array} of `clip.VisionTransformer`; other names pass unchanged.
      rank: triplets that are trained.

    Returns:
      {our flat name: array} with `kernel`, `u`, `s`, `v` (float32) in place of each such `kernel`.

    Raises:
      ValueError: no attention in `flat`, or a `rank` that its kernels do not have.
    """
    out = dict(flat)
    kernels = [name for name in flat if name.endswith("/kernel") and any(part in name for part in _ATTENTION)]
    if not kernels:
        raise ValueError(f"no attention projection among {len(flat)} names such as {sorted(flat)[:3]}")
    # 96 of 1024 x 1024 in ViT-L/14: a minute and a half on one core.
    for name in tqdm(kernels, desc="splitting the attention's kernels", disable=None, leave=False):
        parts = split_svd(np.asarray(flat[name], np.float32), rank, np)
        out |= zip((f"{name.removesuffix('kernel')}{leaf}" for leaf in ("kernel", "u", "s", "v")), parts, strict=True)
    return out
