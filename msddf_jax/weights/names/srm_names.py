"""Names of DeepfakeBench's SRM: two Xceptions and the attention between them (`detectors.srm` with `port`)."""

from msddf_jax.weights.names import cnn_names
from msddf_jax.weights.table import Entry, batch_norm, conv, linear

_STREAMS = {"backbone_rgb": "rgb", "backbone_srm": "noise"}
# Fixed filters, a blur that nothing applies, and the layers of an Xception that this network does not run.
SKIP = (
    r"(srm_conv[012]|srm_sa\.srm)\.kernel",
    r"blur\.weight",
    r"backbone_(rgb|srm)\.adjust_channel\..*",
    r"backbone_srm\.last_linear\..*",
)


def find(shapes) -> str | None:
    """The variant of both Xceptions in a file with these {name: shape}; None where it is no SRM."""
    if "fusion.convblk.0.weight" not in shapes or "dual_cma0.gamma1" not in shapes:
        return None
    start = "backbone_rgb."
    plain = {name.removeprefix(start): shape for name, shape in shapes.items() if name.startswith(start)}
    return cnn_names.SOURCES["xception/timm"].recognise(plain)


def table(variant) -> dict[str, Entry]:
    """{their name: Entry}. variant: of `models.xception.VARIANTS`."""
    out = linear("backbone_rgb.last_linear", cnn_names.HEAD)
    for theirs, ours in _STREAMS.items():
        plain = cnn_names.xception_table(variant, f"{theirs}.")
        move = lambda name, ours=ours: name.replace("/backbone/", f"/backbone/{ours}/", 1)
        out |= {name: entry._replace(ours=move(entry.ours)) for name, entry in plain.items()}
    for number in (1, 2):
        theirs, ours = f"srm_conv{number}.out_conv", f"residuals_{number}"
        out |= _pixel(f"{theirs}.0", f"{ours}/out") | batch_norm(f"{theirs}.1", f"{ours}/norm")
        out |= conv(f"srm_sa.conv.{3 * number - 3}", f"params/places/conv_{number}", bias=False)
        out |= batch_norm(f"srm_sa.conv.{3 * number - 2}", f"places/norm_{number}")
        out |= _cross(f"dual_cma{number - 1}", f"cross_{number - 1}")
    out |= conv("srm_sa.pa.conv", "params/places/out", bias=False) | batch_norm("srm_sa_post.0", "places_norm")
    out |= _pixel("fusion.convblk.0", "fusion/join") | batch_norm("fusion.convblk.1", "fusion/norm")
    shared = "fusion.ca.sharedMLP"
    return out | _pixel(f"{shared}.0", "fusion/channels/hidden") | _pixel(f"{shared}.2", "fusion/channels/out")


def _pixel(theirs, ours):
    """A convolution of one pixel without bias."""
    return {f"{theirs}.weight": Entry(f"params/{ours}/kernel", "conv_to_linear")}


def _cross(theirs, ours):
    """`models.srm.CrossAttention`."""
    out = {}
    layers = {"key_conv1": "key_1", "key_conv2": "key_2", "key_conv_share": "key_shared"}
    layers |= {"value_conv1": "value_1", "value_conv2": "value_2"}
    for name, own in layers.items():
        bias = {f"{theirs}.{name}.bias": Entry(f"params/{ours}/{own}/bias")}
        out |= _pixel(f"{theirs}.{name}", f"{ours}/{own}") | bias
    for number in (1, 2):
        out |= linear(f"{theirs}.linear{number}", f"params/{ours}/place_{number}")
        out[f"{theirs}.gamma{number}"] = Entry(f"params/{ours}/gain_{number}", "scalar")
    return out
