"""The multi-attentional detector as DeepfakeBench saves it: EfficientNet-B4, its plain head, and what is beside it."""

from msddf_jax.weights.names import cnn_names
from msddf_jax.weights.table import Entry, batch_norm, conv, linear

_PLAIN = cnn_names.SOURCES["efficientnet/deepfakebench"]
# The border of the attention maps, a constant.
SKIP = (*_PLAIN.skip, r"attention_generation\.mask")
LINEAR = {
    "projection_local.0": "local_0",
    "projection_local.2": "local_1",
    "projection_final.0": "last",
    "ensemble_classifier_fc.0": "joined",
    "ensemble_classifier_fc.2": "binary_head/out",
}


def find(shapes) -> str | None:
    """The variant of a file with these {name: shape}, None where it is no multi-attentional detector."""
    telling = {f"{name}.weight" for name in (*LINEAR, "texture_enhance.conv_last", "attention_generation.conv2")}
    return _PLAIN.recognise(shapes) if telling <= set(shapes) else None


def table(variant) -> dict[str, Entry]:
    """Table of a detector, `detectors.multi_attention.Model`'s names; the centres of its loss are in no file.

    variant: of `models.efficientnet.VARIANTS`.
    """
    prefix, classifier = "backbone.efficientnet.", "backbone.last_layer"
    out = cnn_names.efficientnet_table(variant, prefix, classifier, "params/plain_head/out")
    for theirs, ours in LINEAR.items():
        out |= linear(theirs, f"params/{ours}")
    maps, texture = "attention_generation", "texture_enhance"
    out |= conv(f"{maps}.conv_extract", "params/attention/conv")
    out[f"{maps}.conv2.weight"] = Entry("params/attention/maps/kernel", "conv_to_linear")
    out |= batch_norm(f"{maps}.bn1", "attention/norm_0") | batch_norm(f"{maps}.bn2", "attention/norm_1")
    for theirs, ours in (("conv0", "conv_0"), ("conv_last", "conv_4")):
        out[f"{texture}.{theirs}.weight"] = Entry(f"params/texture/{ours}/kernel", "conv_to_linear")
        out[f"{texture}.{theirs}.bias"] = Entry(f"params/texture/{ours}/bias")
    for number in (1, 2, 3):
        out |= conv(f"{texture}.conv{number}", f"params/texture/conv_{number}")
    for number, theirs in enumerate(("bn1", "bn2", "bn3", "bn4", "bn_last"), 1):
        out |= batch_norm(f"{texture}.{theirs}", f"texture/norm_{number}")
    return out
