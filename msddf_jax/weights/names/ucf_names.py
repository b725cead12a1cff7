"""UCF as DeepfakeBench saves it: two Xceptions, the shares of the fingerprint and their heads, a decoder."""

from msddf_jax.weights.names import cnn_names
from msddf_jax.weights.table import Entry, batch_norm, conv, linear

_STREAMS = {"encoder_f": "fingerprint", "encoder_c": "content"}
_SHARES = {"spe": ("specific", "method_head"), "sha": ("common", "binary_head")}
# Classifiers of the Xceptions, which nothing runs.
SKIP = (r"encoder_[fc]\.last_linear\..*",)


def find(shapes) -> str | None:
    """The variant of both Xceptions in a file with these {name: shape}; None where it is no UCF."""
    if not {"con_gan.conv_last.weight", "block_spe.conv2d.0.weight", "encoder_c.conv1.weight"} <= set(shapes):
        return None
    start = "encoder_f."
    plain = {name.removeprefix(start): shape for name, shape in shapes.items() if name.startswith(start)}
    return cnn_names.SOURCES["xception/timm"].recognise(plain)


def table(variant) -> dict[str, Entry]:
    """Table of a whole detector, `detectors.ucf.Model`'s names. variant: of `models.xception.VARIANTS`."""
    out = {}
    for theirs, ours in _STREAMS.items():
        plain = cnn_names.xception_table(variant, f"{theirs}.")
        move = lambda name, ours=ours: name.replace("/backbone/", f"/backbone/{ours}/", 1)
        out |= {name: entry._replace(ours=move(entry.ours)) for name, entry in plain.items()}
        out |= _pixel(f"{theirs}.adjust_channel.0", f"narrow_{ours}/linear")
        out |= batch_norm(f"{theirs}.adjust_channel.1", f"narrow_{ours}/norm")
    for theirs, (share, head) in _SHARES.items():
        for number in range(3):
            out |= _pixel(f"block_{theirs}.conv2d.{2 * number}", f"{share}/linear_{number}")
        out |= linear(f"head_{theirs}.mlp.0", f"params/{head}/hidden")
        out |= linear(f"head_{theirs}.mlp.2", f"params/{head}/out")
    for number in range(3):
        for index in range(2):
            theirs = f"con_gan.dconv_up{3 - number}.{2 * index}"
            out |= conv(theirs, f"params/decoder/stage_{number}/conv_{index}")
    return out | _pixel("con_gan.conv_last", "decoder/image")


def _pixel(theirs, ours):
    """A convolution of one pixel with bias."""
    weight = {f"{theirs}.weight": Entry(f"params/{ours}/kernel", "conv_to_linear")}
    return weight | {f"{theirs}.bias": Entry(f"params/{ours}/bias")}
