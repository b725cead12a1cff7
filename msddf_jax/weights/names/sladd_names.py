"""SLADD's detector as DeepfakeBench saves it: Xception with three more heads, and the synthesiser beside it."""

from msddf_jax.weights.names import cnn_names
from msddf_jax.weights.table import Entry, conv, linear

FORMATS = ("sladd/deepfakebench",)
# The second network of a training run, which chose the forgeries.
SKIP = (r"(module\.)?synthesizer\..*",)
_PLAIN = "xception/deepfakebench"


def sladd(variant, prefix="", sequential=False) -> dict[str, Entry]:
    """Table of a whole detector; `detectors.sladd.Model`'s names.

    Args:
      variant: of `models.xception.VARIANTS`. prefix: in front of every name of theirs.
      sequential: whether dropout stands in front of their last layer, which then has a number.
    """
    last, ours = "backbone.last_linear", cnn_names.HEAD
    out = dict(cnn_names.SOURCES[_PLAIN].table(variant))
    if sequential:
        out = {name: entry for name, entry in out.items() if not name.startswith(last)} | linear(f"{last}.1", ours)
    out |= linear("backbone.type_fc", "params/type_head") | linear("backbone.mag_fc", "params/magnitude_head")
    out |= conv("backbone.map.c.conv1", "params/map_head/depthwise", bias=False)
    out["backbone.map.c.pointwise.weight"] = Entry("params/map_head/pointwise/kernel", "conv_to_linear")
    return {prefix + theirs: entry for theirs, entry in out.items()}


def find(shapes) -> dict | None:
    """Fields of `identify.Found` for a file with these {name: shape}, None where it is no SLADD detector."""
    prefix = cnn_names.PARALLEL if f"{cnn_names.PARALLEL}backbone.conv1.weight" in shapes else ""
    bare = {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items()}
    telling = {"backbone.type_fc.weight", "backbone.mag_fc.weight", "backbone.map.c.pointwise.weight"}
    source = cnn_names.SOURCES[_PLAIN]
    variant = source.recognise(bare)
    if variant is None or not telling <= set(bare):
        return None
    return {
        "format": FORMATS[0],
        "family": source.family,
        "variant": variant,
        "options": dict(source.fields),
        "image_size": None,
        "table": sladd(variant, prefix, sequential="backbone.last_linear.1.weight" in bare),
        "skip": SKIP,
        "detector": "sladd",
    }
