"""UIA-ViT as DeepfakeBench saves it: timm's ViT, a norm of its middle, and a classifier on two features."""

from msddf_jax.weights.names import clip_names, cnn_names
from msddf_jax.weights.table import Entry, linear, norm, prefixed

MODEL = "model."
# The values that its loss learned.
SKIP = (r"model\.c_(real|fake|cross)",)
_OWN = {"norm_middle.weight", "norm_middle.bias", "head.weight", "head.bias", "c_real", "c_fake", "c_cross"}


def find(shapes) -> str | None:
    """The variant of a file with these {name: shape}, None where it is no UIA-ViT."""
    if not {f"{MODEL}norm_middle.weight", f"{MODEL}head.weight"} <= set(shapes):
        return None
    bare = {name.removeprefix(MODEL): shape for name, shape in shapes.items() if name.startswith(MODEL)}
    found = clip_names.recognise({name: shape for name, shape in bare.items() if name not in _OWN})
    return found["variant"] if found is not None and found["format"] == "timm_vit" else None


def table(variant) -> dict[str, Entry]:
    """Table of a whole detector, `detectors.uia_vit.Model`'s names. variant: of `models.clip.VARIANTS`."""
    own = norm(f"{MODEL}norm_middle", "params/middle") | linear(f"{MODEL}head", cnn_names.HEAD)
    return prefixed(clip_names.timm_vit(variant), MODEL) | own
