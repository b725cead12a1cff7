"""IID as DeepfakeBench saves it: Xception with a narrow last map, ArcFace's iResNet-50, directions of identities."""

from msddf_jax.weights.names import cnn_names, iresnet_names
from msddf_jax.weights.table import Entry, batch_norm

_PLAIN = cnn_names.SOURCES["xception/deepfakebench"]
RECOGNISER = "explicit_extractor."


def find(shapes) -> str | None:
    """The variant of a file with these {name: shape}, None where it is no IID detector."""
    if "IIE_LOSS.kernel" not in shapes or iresnet_names.recognise(shapes, RECOGNISER) != "iresnet50":
        return None
    return _PLAIN.recognise(shapes)


def table(variant) -> dict[str, Entry]:
    """Table of a whole detector, `detectors.iid.Model`'s names. variant: of `models.xception.VARIANTS`."""
    out = cnn_names.xception_table(variant, "backbone.", classifier="last_linear", head=cnn_names.HEAD)
    out["backbone.adjust_channel.0.weight"] = Entry("params/adjust/kernel", "conv_to_linear")
    out["backbone.adjust_channel.0.bias"] = Entry("params/adjust/bias")
    out |= batch_norm("backbone.adjust_channel.1", "adjust_norm")
    out["IIE_LOSS.kernel"] = Entry("params/identity_head/directions", "linear")
    recogniser = iresnet_names.table("iresnet50", prefix=RECOGNISER)
    return out | {n: e._replace(ours=e.ours.replace("/backbone/", "/identity/", 1)) for n, e in recogniser.items()}
