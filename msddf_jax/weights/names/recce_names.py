"""RECCE as DeepfakeBench saves it: timm's Xception as the encoder, and the decoder, graph and attention beside it."""

from msddf_jax.weights.names import cnn_names
from msddf_jax.weights.table import Entry, batch_norm, conv, linear

ENCODER = "model.encoder."
# A second Xception that nothing runs, and the encoder's ImageNet classifier.
SKIP = (r"backbone\..*", r"model\.encoder\.fc\.(weight|bias)")
# Theirs to ours: convolutions of one pixel and linear layers, none with a bias.
POINTS = {
    "reasoning.va_embedding.0": "graph/own_0",
    "reasoning.va_embedding.2": "graph/own_1",
    "reasoning.va_gated_b.0": "graph/first_gate",
    "reasoning.va_gated_c.0": "graph/second_gate",
    "reasoning.reproject.0": "graph/back_0",
    "reasoning.reproject.2": "graph/back_1",
    "attention.gated.2": "guided/place",
    "attention.h.0": "guided/mix",
    "decoder6.0": "decoder/image",
}
LINEAR = {
    "reasoning.vb_embedding.0": "graph/first_0",
    "reasoning.vb_embedding.2": "graph/first_1",
    "reasoning.vc_embedding.0": "graph/second_0",
    "reasoning.vc_embedding.2": "graph/second_1",
    "reasoning.reweight_ab.0": "graph/first_weight",
    "reasoning.reweight_ac.0": "graph/second_weight",
}


def find(shapes) -> str | None:
    """The variant of a file with these {name: shape}, None where it is no RECCE detector."""
    telling = {f"model.{name}.weight" for name in (*POINTS, *LINEAR)}
    inside = {name.removeprefix(ENCODER): shape for name, shape in shapes.items() if name.startswith(ENCODER)}
    return cnn_names.SOURCES["xception/timm"].recognise(inside) if telling <= set(shapes) else None


def table(variant) -> dict[str, Entry]:
    """Table of a whole detector, `detectors.recce.Model`'s names. variant: of `models.xception.VARIANTS`."""
    out = cnn_names.xception_table(variant, ENCODER) | linear("model.fc", cnn_names.HEAD)
    out |= conv("model.attention.gated.0", "params/guided/unlike", bias=False)
    out |= batch_norm("model.attention.h.1", "guided/norm")
    for theirs, ours in POINTS.items():
        out[f"model.{theirs}.weight"] = Entry(f"params/{ours}/kernel", "conv_to_linear")
    for theirs, ours in LINEAR.items():
        out[f"model.{theirs}.weight"] = Entry(f"params/{ours}/kernel", "linear")
    for number, theirs in enumerate(("decoder1", "decoder3", "decoder5")):
        out |= _separable(f"model.{theirs}.1", f"decoder/sep_{number}")
        out |= batch_norm(f"model.{theirs}.2", f"decoder/norm_{number}")
    for number, theirs in enumerate(("decoder2", "decoder4")):
        for index in range(3):
            # ReLU, convolution, norm, three times.
            out |= _separable(f"model.{theirs}.rep.{3 * index + 1}", f"decoder/block_{number}/sep_{index}")
            out |= batch_norm(f"model.{theirs}.rep.{3 * index + 2}", f"decoder/block_{number}/norm_{index}")
    return out


def _separable(theirs, ours):
    depthwise = conv(f"{theirs}.conv1", f"params/{ours}/depthwise", bias=False)
    return depthwise | {f"{theirs}.pointwise.weight": Entry(f"params/{ours}/pointwise/kernel", "conv_to_linear")}
