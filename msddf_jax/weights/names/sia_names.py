"""SIA as DeepfakeBench saves it: EfficientNet-B4, and three links from block to block."""

from msddf_jax.weights.names import cnn_names
from msddf_jax.weights.table import Entry, batch_norm

_PLAIN = cnn_names.SOURCES["efficientnet/deepfakebench"]
# Theirs to ours: from the first place of attention to the second, to the third, from the second to the third.
LINKS = {"conv1": "link_0_1", "conv2": "link_0_2", "conv3": "link_1_2"}
# Kernels of ones of the attention, and a layer that nothing runs.
SKIP = (*_PLAIN.skip, r"att\dconv\.weight2?", r"linear\.(weight|bias)")


def find(shapes) -> str | None:
    """The variant of a file with these {name: shape}, None where it is no SIA detector."""
    telling = {f"{name}.0.weight" for name in LINKS} | {"att1conv.weight"}
    return _PLAIN.recognise(shapes) if telling <= set(shapes) else None


def table(variant) -> dict[str, Entry]:
    """Table of a whole detector, `detectors.sia.Model`'s names. variant: of `models.efficientnet.VARIANTS`."""
    out = dict(_PLAIN.table(variant))
    for theirs, ours in LINKS.items():
        out[f"{theirs}.0.weight"] = Entry(f"params/{ours}/linear/kernel", "conv_to_linear")
        out[f"{theirs}.0.bias"] = Entry(f"params/{ours}/linear/bias")
        out |= batch_norm(f"{theirs}.1", f"{ours}/norm")
    return out
