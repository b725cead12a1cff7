"""Local relation learning as DeepfakeBench saves it: two EfficientNets, attention, a decoder, a small classifier."""

from msddf_jax.weights.names import cnn_names
from msddf_jax.weights.table import Entry, batch_norm, conv, linear

_STREAMS = {"encoder_rgb": "rgb", "encoder_idct": "frequency"}
# Classifiers and a narrower map of the EfficientNets, which nothing runs.
SKIP = (r"encoder_(rgb|idct)\.(last_layer|adjust_channel)\..*",)


def find(shapes) -> str | None:
    """The variant of both EfficientNets in a file with these {name: shape}; None where it is no such detector."""
    if not {"rfam3.attention.3.weight", "overall_classifier.3.weight", "final.weight"} <= set(shapes):
        return None
    start = "encoder_rgb.efficientnet."
    plain = {name.removeprefix(start): shape for name, shape in shapes.items() if name.startswith(start)}
    return cnn_names.SOURCES["efficientnet/lukemelas"].recognise(plain)


def table(variant) -> dict[str, Entry]:
    """Table of a whole detector, `detectors.local_relation.Model`'s names. variant: of `models.efficientnet`'s."""
    out = linear("overall_classifier.0", "params/hidden") | linear("overall_classifier.3", cnn_names.HEAD)
    for theirs, ours in _STREAMS.items():
        plain = cnn_names.efficientnet_table(variant, f"{theirs}.efficientnet.")
        move = lambda name, ours=ours: name.replace("/backbone/", f"/backbone/{ours}/", 1)
        out |= {name: entry._replace(ours=move(entry.ours)) for name, entry in plain.items()}
    for number, depth in enumerate(("low", "middle", "high"), 1):
        theirs, ours = f"rfam{number}.attention", f"attention_{depth}"
        out[f"{theirs}.0.weight"] = Entry(f"params/{ours}/mix/kernel", "conv_to_linear")
        out[f"{theirs}.0.bias"] = Entry(f"params/{ours}/mix/bias")
        out |= batch_norm(f"{theirs}.1", f"{ours}/norm") | conv(f"{theirs}.3", f"params/{ours}/places")
    for number in range(4):
        # Theirs counts the first of the two from the end.
        out |= conv(f"decoder.decoder_stages.{3 - number}.layer.1", f"params/decoder/conv_{number}_0")
        out |= conv(f"decoder.bottlenecks.{number}.seq.0", f"params/decoder/conv_{number}_1")
    out["final.weight"] = Entry("params/decoder/out/kernel", "conv_to_linear")
    return out
