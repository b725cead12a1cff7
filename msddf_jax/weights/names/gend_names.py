"""GenD's published detectors (Yermakov et al., WACV 2026) on their three backbones, and its predecessor's.

Hugging Face: yermandy/GenD_CLIP_L_14, GenD_PE_L, GenD_DINOv3_L (model.safetensors), and yermandy/deepfake-detection
(model.ckpt; "Unlocking the Hidden Potential of CLIP", 2025), whose LayerNorms are PEFT's copies beside CLIP's own. All
have a linear layer on the feature at unit length: `detectors.baseline` with `normalize`.

What they see: crops of the preset "gend" at their native size (the predecessor: "dfb" at 256), then on the host the
shortest side to 224 with a bicubic antialiased kernel and a centre crop (CLIP, PE), or 224 x 224 bilinear (DINOv3), and
each backbone's own mean and deviation. Here crops are square at `data.image_size` and are resized on the device in
float32 with the bicubic antialiased kernel, for DINOv3 too, and without the rounding to 8 bits in between.
"""

from collections.abc import Callable
from typing import NamedTuple

from msddf_jax.models import clip
from msddf_jax.weights.names import clip_names, dinov3_names, pe_names
from msddf_jax.weights.table import Entry, linear

_HEAD = "model.linear"
_TUNED = "ln_tuning_layers.default"


class _Source(NamedTuple):
    """family: of `backbones.make`. prefix: in front of the backbone's names. table: variant -> Entry by their name.

    recognise: {their name without prefix: shape} -> variant or None. skip: of `table.check`. image_size: that the
    detector runs at, None where the position embedding tells.
    """

    family: str
    prefix: str
    table: Callable
    recognise: Callable
    skip: tuple
    image_size: int | None = None


def _clip(variant):
    return clip_names.hf_clip(variant, text=False)


def _clip_ln_tuning(variant):
    """CLIP's table with the LayerNorms of PEFT's LN-tuning: the trained copy, not `base_layer`."""
    out = {}
    for theirs, entry in _clip(variant).items():
        layer, _, leaf = theirs.rpartition(".")
        tuned = "/ln_" in entry.ours
        out[f"{layer}.{_TUNED}.{leaf}" if tuned else theirs] = entry
    return out


def _clip_variant(shapes):
    patches = shapes.get("vision_model.embeddings.patch_embedding.weight", ())
    blocks = {name.split(".")[3] for name in shapes if name.startswith("vision_model.encoder.layers.")}
    for name, size in clip.VARIANTS.items():
        if len(patches) == 4 and (size.width, size.depth, size.patch) == (patches[0], len(blocks), patches[2]):
            return name
    return None


def _plain_variant(shapes):
    return None if any(_TUNED in name for name in shapes) else _clip_variant(shapes)


def _tuned_variant(shapes):
    return _clip_variant(shapes) if f"vision_model.pre_layrnorm.{_TUNED}.weight" in shapes else None


_PEFT = "feature_extractor.base_model.model."
_OTHERS = "feature_extractor.backbone."
_PROJECTION = r".*\.visual_projection\.weight"
_SOURCES = {
    "gend/clip": _Source("clip", "feature_extractor.", _clip, _plain_variant, (_PROJECTION,)),
    "gend/clip_ln_tuning": _Source(
        "clip", _PEFT, _clip_ln_tuning, _tuned_variant, (_PROJECTION, r".*\.base_layer\.(weight|bias)")
    ),
    # Run at 224 px on positions of 336 px, which are resampled.
    "gend/pe": _Source("pe", _OTHERS, pe_names.timm_pe, pe_names.recognise, pe_names.SKIP, 224),
    "gend/dinov3": _Source("dinov3", _OTHERS, dinov3_names.hf_dinov3, dinov3_names.recognise, dinov3_names.SKIP, 224),
}
FORMATS = tuple(_SOURCES)


def gend(source, variant) -> dict[str, Entry]:
    """Table of a whole detector; `detectors.baseline.Model`'s names.

    Args:
      source: of `FORMATS`. variant: of its family's `VARIANTS`.

    Raises:
      ValueError: an unknown source or variant.
    """
    if source not in _SOURCES:
        raise ValueError(f"unknown GenD release {source!r}; there are {', '.join(FORMATS)}")
    prefix, table = _SOURCES[source].prefix, _SOURCES[source].table(variant)
    return {prefix + name: entry for name, entry in table.items()} | linear(_HEAD, "params/binary_head/out")


def recognise(shapes) -> tuple[str, str] | None:
    """(source, variant) for `gend` of a file with these {name: shape}; None where it is another model's."""
    if f"{_HEAD}.weight" not in shapes:
        return None
    for name, source in _SOURCES.items():
        own = {n.removeprefix(source.prefix): s for n, s in shapes.items() if n.startswith(source.prefix)}
        variant = source.recognise(own)
        if variant is not None:
            return name, variant
    return None


def find(shapes) -> dict | None:
    """Fields of `identify.Found` for a file with these {name: shape}, None where it is no GenD detector."""
    found = recognise(shapes)
    if found is None:
        return None
    name, variant = found
    source = _SOURCES[name]
    image_size = source.image_size
    if image_size is None:
        rows = shapes[f"{source.prefix}vision_model.embeddings.position_embedding.weight"][0]
        image_size = round((rows - 1) ** 0.5) * clip.get_variant(variant).patch
    return {
        "format": name,
        "family": source.family,
        "variant": variant,
        "options": {},
        "image_size": image_size,
        "table": gend(name, variant),
        "skip": source.skip,
        "detector": "baseline",
        "normalize": True,
    }
