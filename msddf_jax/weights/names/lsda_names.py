"""LSDA as DeepfakeBench saves it: of its networks the student, an EfficientNet-B4 of efficientnet_pytorch."""

from msddf_jax.weights.names import cnn_names
from msddf_jax.weights.table import Entry, linear

_PREFIX = "model.student_encoder.model."
_PLAIN = cnn_names.SOURCES["efficientnet/lukemelas"]
# ImageNet's classifier, and what none but training asks: teachers, recogniser, fusion and the head of methods.
SKIP = (r"model\.student_encoder\.model\._fc\.(weight|bias)", r"model\.(encoders_f|encoder_c|fc_weights|mlp)\..*")


def find(shapes) -> str | None:
    """The variant of a file with these {name: shape}, None where it is no LSDA detector."""
    if not {"model.student_encoder.conv.weight", "model.binary_classifier.4.weight"} <= set(shapes):
        return None
    return _PLAIN.recognise({name.removeprefix(_PREFIX): shape for name, shape in shapes.items()})


def table(variant) -> dict[str, Entry]:
    """Table of the student, `detectors.lsda.Model`'s names. variant: of `models.efficientnet.VARIANTS`."""
    out = cnn_names.efficientnet_table(variant, _PREFIX)
    out["model.student_encoder.conv.weight"] = Entry("params/narrow/kernel", "conv_to_linear")
    out["model.student_encoder.conv.bias"] = Entry("params/narrow/bias")
    head = "model.binary_classifier"
    return out | linear(f"{head}.2", "params/hidden") | linear(f"{head}.4", cnn_names.HEAD)
