"""Face X-ray as DeepfakeBench saves it: HRNet, and its head on it (`detectors.face_xray` with `port`)."""

from msddf_jax.weights.names import cnn_names, hrnet_names
from msddf_jax.weights.table import Entry, batch_norm, conv, linear

BACKBONE = "backbone."
SKIP = tuple(rf"backbone\.{pattern}" for pattern in hrnet_names.CLASSIFIER)


def find(shapes) -> str | None:
    """The variant of a file with these {name: shape}, None where it is no Face X-ray detector."""
    inside = {name.removeprefix(BACKBONE): shape for name, shape in shapes.items() if name.startswith(BACKBONE)}
    there = {"post_process.6.weight", "fc.6.weight"} <= set(shapes)
    return cnn_names.SOURCES["hrnet/imagenet"].recognise(inside) if there else None


def table(variant) -> dict[str, Entry]:
    """Table of a whole detector, `detectors.face_xray.Model`'s names. variant: of `models.hrnet.VARIANTS`."""
    out = hrnet_names.table(variant, BACKBONE) | linear("fc.6", cnn_names.HEAD)
    # Convolution or layer, norm, ReLU, twice.
    for number, place in enumerate((0, 3)):
        out |= conv(f"post_process.{place}", f"params/conv_{number}")
        out |= batch_norm(f"post_process.{place + 1}", f"norm_{number}")
        out |= linear(f"fc.{place}", f"params/hidden_{number}")
        out |= batch_norm(f"fc.{place + 1}", f"hidden_norm_{number}")
    out["post_process.6.weight"] = Entry("params/xray_head/kernel", "conv_to_linear")
    out["post_process.6.bias"] = Entry("params/xray_head/bias")
    return out
