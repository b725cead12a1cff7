"""Names of SDD-FIQA's quality network in TFace's checkpoint (SDD_FIQA_checkpoints_r50.pth)."""

from typing import Any

from msddf_jax.models import ir_net
from msddf_jax.weights.names.cnn_names import PARALLEL
from msddf_jax.weights.table import Entry, batch_norm, conv, linear, prefixed

FORMAT = "ir/sdd_fiqa"


def quality_table(variant) -> dict[str, Entry]:
    """{their name: Entry} of `ir_net.QualityNet`. variant: of `ir_net.VARIANTS`."""
    slope = lambda theirs, ours: {f"{theirs}.weight": Entry(f"params/{ours}/slope")}
    out = conv("input_layer.0", "params/stem", bias=False) | batch_norm("input_layer.1", "stem_norm")
    out |= slope("input_layer.2", "stem_prelu")
    for index, (before, after, _) in enumerate(ir_net.block_plans(variant)):
        theirs, ours = f"body.{index}", f"block_{index}"
        out |= batch_norm(f"{theirs}.res_layer.0", f"{ours}/norm_1")
        out |= conv(f"{theirs}.res_layer.1", f"params/{ours}/conv_1", bias=False)
        out |= slope(f"{theirs}.res_layer.2", f"{ours}/prelu")
        out |= conv(f"{theirs}.res_layer.3", f"params/{ours}/conv_2", bias=False)
        out |= batch_norm(f"{theirs}.res_layer.4", f"{ours}/norm_2")
        if before != after:
            skip = f"{theirs}.shortcut_layer"
            out |= {f"{skip}.0.weight": Entry(f"params/{ours}/skip/kernel", "conv_to_linear")}
            out |= batch_norm(f"{skip}.1", f"{ours}/skip_norm")
    # The head is a sequence; 0 flattens, 2 drops out.
    return out | slope("quality.1", "head_prelu") | linear("quality.3", "params/out")


def find(shapes) -> dict[str, Any] | None:
    """Fields of `identify.Found` for a quality network's file, None for others.

    shapes: {their name: shape}. All names may have `PARALLEL` in front, as DataParallel saves them.
    """
    prefix = PARALLEL if shapes and all(name.startswith(PARALLEL) for name in shapes) else ""
    shape = lambda name: tuple(shapes.get(prefix + name, ()))
    for variant, (widths, depths) in ir_net.VARIANTS.items():
        last = f"body.{sum(depths) - 1}.res_layer.3.weight"
        if shape(last) != (widths[-1], widths[-1], 3, 3) or f"{prefix}body.{sum(depths)}.res_layer.3.weight" in shapes:
            continue
        head = shape("quality.3.weight")
        if len(head) != 2 or head[0] != 1 or head[1] % widths[-1]:
            continue
        # Four stages halve the side: the published 112 leave 7 x 7.
        side = 16 * round((head[1] // widths[-1]) ** 0.5)
        table = prefixed(quality_table(variant), prefix)
        return {
            "format": FORMAT,
            "family": "ir",
            "variant": variant,
            "options": {},
            "image_size": side,
            "table": table,
        }
    return None
