"""DINOv3's vision towers as Hugging Face publishes them (facebook/dinov3-vit*16-pretrain-*)."""

from msddf_jax.models import dinov3
from msddf_jax.weights.table import Entry, linear, norm

# Used in pretraining alone; no computation of ours reads it, and nothing of ours writes it back.
SKIP = (r"(.*\.)?mask_token",)


def hf_dinov3(variant) -> dict[str, Entry]:
    """Table of a DINOv3ViTModel's file. Raises ValueError for a name that is not in `dinov3.VARIANTS`."""
    _, depth, _, _, gated = dinov3.get_variant(variant)
    ours = "params/backbone"
    out = {
        "embeddings.cls_token": Entry(f"{ours}/class_token", lead=2),
        "embeddings.register_tokens": Entry(f"{ours}/register_tokens", lead=1),
        "embeddings.patch_embeddings.weight": Entry(f"{ours}/patch_embed", "conv"),
        "embeddings.patch_embeddings.bias": Entry(f"{ours}/patch_embed_bias"),
        **norm("norm", f"{ours}/ln_post"),
    }
    for index in range(depth):
        out |= _block(f"layer.{index}", f"{ours}/block_{index}", gated)
    return out


def _block(theirs, ours, gated):
    out = norm(f"{theirs}.norm1", f"{ours}/ln_1") | norm(f"{theirs}.norm2", f"{ours}/ln_2")
    for name, our_name in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")):
        out |= linear(f"{theirs}.attention.{name}_proj", f"{ours}/attn/{our_name}", bias=name != "k")
    out |= linear(f"{theirs}.mlp.up_proj", f"{ours}/mlp/fc_1") | linear(f"{theirs}.mlp.down_proj", f"{ours}/mlp/fc_2")
    if gated:
        out |= linear(f"{theirs}.mlp.gate_proj", f"{ours}/mlp/gate")
    return out | {f"{theirs}.layer_scale{i}.lambda1": Entry(f"{ours}/scale_{i}") for i in (1, 2)}


def recognise(shapes) -> str | None:
    """The variant in `dinov3.VARIANTS` whose file has these {name: shape}; None where it is another model's."""
    patches = shapes.get("embeddings.patch_embeddings.weight", ())
    if len(patches) != 4 or "embeddings.register_tokens" not in shapes:
        return None
    depth = len({name.split(".")[1] for name in shapes if name.startswith("layer.")})
    gated = "layer.0.mlp.gate_proj.weight" in shapes
    for name, variant in dinov3.VARIANTS.items():
        if (variant.width, variant.depth, variant.patch, variant.gated) == (patches[0], depth, patches[2], gated):
            return name
    return None
