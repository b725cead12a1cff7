"""Names of insightface's iResNets in the files of its ArcFace networks (a folder of each with its backbone.pth)."""

from typing import Any

from msddf_jax.models import iresnet
from msddf_jax.weights.names.cnn_names import PARALLEL
from msddf_jax.weights.table import Entry, batch_norm, conv, linear, prefixed

FORMAT = "iresnet/insightface"
# Fields that the tensors do not tell.
ASSUMED = ("pixel_mean", "pixel_std")


def table(variant, embed=True, prefix="") -> dict[str, Entry]:
    """{their name: Entry} of `iresnet.IResNet` as the backbone. variant: of `iresnet.VARIANTS`.

    embed: with the embedding. prefix: in front of their names.
    """
    slope = lambda theirs, ours: {f"{theirs}.weight": Entry(f"params/backbone/{ours}/slope")}
    kernel = lambda theirs, ours: conv(theirs, f"params/backbone/{ours}", bias=False)
    norm = lambda theirs, ours: batch_norm(theirs, f"backbone/{ours}")
    out = kernel("conv1", "stem") | norm("bn1", "stem_norm") | slope("prelu", "stem_prelu") | norm("bn2", "norm")
    stages = [f"layer{n}.{i}" for n, depth in enumerate(iresnet.VARIANTS[variant].depths, 1) for i in range(depth)]
    for index, (theirs, (_, _, stride)) in enumerate(zip(stages, iresnet.block_plans(variant), strict=True)):
        ours = f"block_{index}"
        out |= norm(f"{theirs}.bn1", f"{ours}/norm_1") | kernel(f"{theirs}.conv1", f"{ours}/conv_1")
        out |= norm(f"{theirs}.bn2", f"{ours}/norm_inner") | slope(f"{theirs}.prelu", f"{ours}/prelu")
        out |= kernel(f"{theirs}.conv2", f"{ours}/conv_2") | norm(f"{theirs}.bn3", f"{ours}/norm_2")
        if stride != 1:
            skip = {f"{theirs}.downsample.0.weight": Entry(f"params/backbone/{ours}/skip/kernel", "conv_to_linear")}
            out |= skip | norm(f"{theirs}.downsample.1", f"{ours}/skip_norm")
    if embed:
        out |= linear("fc", "params/backbone/embedding") | norm("features", "embedding_norm")
    return prefixed(out, prefix)


def recognise(shapes, prefix="") -> str | None:
    """The variant of which a file with these {name: shape} has the map, or None. prefix: in front of their names."""
    shape = lambda name: tuple(shapes.get(prefix + name, ()))
    for variant, (widths, depths) in iresnet.VARIANTS.items():
        last = {f"layer{n}.{d - 1}.conv2.weight": (w, w, 3, 3) for n, (w, d) in enumerate(zip(widths, depths), 1)}
        deeper = [f"{prefix}layer{n}.{depth}.conv2.weight" for n, depth in enumerate(depths, 1)]
        inner = shape("layer1.0.prelu.weight") == shape("layer1.0.bn3.weight") == (widths[0],)
        if inner and all(shape(n) == s for n, s in last.items()) and not any(n in shapes for n in deeper):
            return variant
    return None


def find(shapes) -> dict[str, Any] | None:
    """Fields of `identify.Found` for an ArcFace iResNet, None for others.

    shapes: {their name: shape}. All names may have `PARALLEL` in front. Without the two layers behind the map
    (`#skip=(fc|features).*` of a reference) it is the map alone, for images of any size.
    """
    prefix = PARALLEL if shapes and all(name.startswith(PARALLEL) for name in shapes) else ""
    variant = recognise(shapes, prefix)
    if variant is None:
        return None
    inputs = tuple(shapes.get(f"{prefix}fc.weight", (0, 0)))[-1]
    embed = f"{prefix}fc.weight" in shapes
    side = round((inputs / iresnet.VARIANTS[variant].widths[-1]) ** 0.5)
    return {
        "format": FORMAT,
        "family": "iresnet",
        "variant": variant,
        "options": {"embed": embed, "pixel_mean": iresnet.PIXEL_MEAN, "pixel_std": iresnet.PIXEL_STD},
        "image_size": iresnet.STRIDE * side if embed else None,
        "table": table(variant, embed, prefix),
        "assumed": ASSUMED,
    }
