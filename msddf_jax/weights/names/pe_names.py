"""PE-Core's vision towers as timm publishes them (timm/vit_pe_core_*)."""

from msddf_jax.models import pe
from msddf_jax.weights.table import Entry, linear, norm

# The projection to the space shared with text: no detector sees through it.
SKIP = (r"(.*\.)?head\.(weight|bias)",)


def timm_pe(variant) -> dict[str, Entry]:
    """Table of timm's file. Raises ValueError for a name that is not in `pe.VARIANTS`."""
    ours = "params/backbone"
    out = {
        "cls_token": Entry(f"{ours}/class_token", lead=2),
        "pos_embed": Entry(f"{ours}/pos_embed", lead=1),
        "patch_embed.proj.weight": Entry(f"{ours}/patch_embed", "conv"),
        **norm("norm_pre", f"{ours}/ln_pre"),
        **norm("norm", f"{ours}/ln_post"),
        "attn_pool.latent": Entry(f"{ours}/pool/latent", lead=2),
        **linear("attn_pool.q", f"{ours}/pool/query"),
        **_fused("attn_pool.kv", [f"{ours}/pool/{part}" for part in ("key", "value")], "kv"),
        **linear("attn_pool.proj", f"{ours}/pool/out"),
        **norm("attn_pool.norm", f"{ours}/pool/ln_mlp"),
        **_mlp("attn_pool.mlp", f"{ours}/pool/mlp"),
    }
    for index in range(pe.get_variant(variant).depth):
        out |= _block(f"blocks.{index}", f"{ours}/block_{index}")
    return out


def _block(theirs, ours):
    out = norm(f"{theirs}.norm1", f"{ours}/ln_1") | norm(f"{theirs}.norm2", f"{ours}/ln_2")
    out |= _fused(f"{theirs}.attn.qkv", [f"{ours}/attn/{part}" for part in ("query", "key", "value")], "qkv")
    return out | linear(f"{theirs}.attn.proj", f"{ours}/attn/out") | _mlp(f"{theirs}.mlp", f"{ours}/mlp")


def _fused(theirs, parts, kind):
    return {
        f"{theirs}.weight": Entry(tuple(f"{part}/kernel" for part in parts), kind),
        f"{theirs}.bias": Entry(tuple(f"{part}/bias" for part in parts), kind),
    }


def _mlp(theirs, ours):
    return linear(f"{theirs}.fc1", f"{ours}/fc_1") | linear(f"{theirs}.fc2", f"{ours}/fc_2")


def recognise(shapes) -> str | None:
    """The variant in `pe.VARIANTS` whose file has these {name: shape}; None where it is another model's."""
    patches = shapes.get("patch_embed.proj.weight", ())
    if len(patches) != 4 or "attn_pool.latent" not in shapes or "norm_pre.weight" not in shapes:
        return None
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    for name, variant in pe.VARIANTS.items():
        if (variant.width, variant.depth, variant.patch) == (patches[0], depth, patches[2]):
            return name
    return None
