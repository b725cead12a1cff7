"""Which model a weight file is of, by the names and shapes in it: one place that knows every format there is."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from msddf_jax.weights.names import (
    clip_names,
    cnn_names,
    dfb_names,
    dinov3_names,
    effort_names,
    gend_names,
    ir_names,
    iresnet_names,
    meso_names,
    pe_names,
    scenic_names,
    sjedd_names,
    sladd_names,
)
from msddf_jax.weights.table import Entry, linear, prefixed

# Our own names: of exported weights, and of those in a workdir, whose collections stand below `STATE`.
STATE = "model_state/"
OWN = ("params/", "batch_stats/", STATE)
DEEPFAKEBENCH_CLIP = "clip/deepfakebench"
CONFIG_NAMES = ("config.json", "open_clip_config.json")
# Fields of a backbone that the tensors of DeepfakeBench's and timm's files cannot tell and a config may state.
_PIXELS = ("pixel_mean", "pixel_std")


class Found(NamedTuple):
    """A recognised file.

    format: its kind, in words. family, variant, options: of `models.backbones.make`. image_size: that its position
    embeddings are for, None where any will do. table, skip: of `weights.table`. detector: the detector whose head is in
    the file ("baseline", "effort", "sjedd", "sladd"), None for a backbone alone. normalize: of the baseline's head.
    assumed: the options that neither the tensors nor a config beside them tell. towers: of a CLIP with its text tower,
    the table of `clip_text.ClipModel`. by_digest: that names and shapes leave other formats, and the file is known.
    """

    format: str
    family: str
    variant: str
    options: Mapping
    image_size: int | None
    table: Mapping
    skip: tuple = ()
    detector: str | None = None
    normalize: bool = False
    assumed: tuple = ()
    towers: Mapping | None = None
    by_digest: bool = False


def identify(tensors, where, *, stated=None, wanted=None, digest="") -> Found:
    """What a file is.

    Args:
      tensors: {their name: Tensor}. where: the file, for the message.
      stated: what the JSON files beside it say (`read_configs`), or None.
      wanted: its format, where names and shapes leave more than one; None to find it.
      digest: its SHA-256, by which published files are known that names and shapes leave open.

    Returns:
      Found.

    Raises:
      ValueError: no format fits, or several do; with those that are known. A wanted one that a published file has not.
    """
    known = meso_names.known_format(digest)
    if known and wanted not in (None, known):
        raise ValueError(
            f"{where} is published as {known} (by its sha-256), which computes something else than {wanted}"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if wanted in sjedd_names.FORMATS:
        fields = sjedd_names.find(shapes, wanted)
        found = [Found(**fields)] if fields else []
    else:
        found = [candidate for candidate in _candidates(shapes, stated) if wanted in (None, candidate.format)]
    if len(found) == 1:
        return found[0]
    if known and len(found) > 1:
        return next(f for f in found if f.format == known)._replace(by_digest=True, assumed=())
    names = sorted(shapes)
    if not found:
        asked = f" as {wanted}" if wanted else ""
        raise ValueError(
            f"{where} is not recognised{asked}: {len(names)} tensors, {', '.join(names[:4])}, ... Known formats: "
            f"{', '.join(known_formats())}"
        )
    choices = [f.format + (f" ({meso_names.ABOUT[f.format]})" if f.format in meso_names.ABOUT else "") for f in found]
    raise ValueError(
        f"{where} may be {' or '.join(choices)}, which have the same names and shapes and differ in what they compute. "
        "Say which in the reference: #format=..."
    )


def known_formats() -> list[str]:
    """Names of every format."""
    clip = [f"clip/{name}" for name in clip_names.FORMATS]
    return [
        *clip,
        *cnn_names.SOURCES,
        "dinov3/hf",
        "pe/timm",
        ir_names.FORMAT,
        iresnet_names.FORMAT,
        *gend_names.FORMATS,
        *effort_names.FORMATS,
        *scenic_names.FORMATS,
        DEEPFAKEBENCH_CLIP,
        *sjedd_names.FORMATS,
        *sladd_names.FORMATS,
        *dfb_names.FORMATS,
    ]


def _candidates(shapes, stated):
    """Every `Found` that fits; the most specific alone where one contains another."""
    # PCL's files have SLADD's names too.
    modules = (gend_names, effort_names, dfb_names, sladd_names, scenic_names)
    for special in (*(module.find for module in modules), _deepfakebench_clip):
        found = special(shapes)
        if found:
            return [Found(**found)]
    out = []
    clip = clip_names.recognise(shapes, stated if _is_clip_config(stated) else None)
    if clip is not None:
        table, skip = clip_names.table_of(clip)
        options = {k: v for k, v in clip_names.model_fields(clip).items() if k not in ("variant", "image_size")}
        out.append(
            Found(
                f"clip/{clip['format']}",
                "clip",
                clip["variant"],
                options,
                clip["image_size"],
                table,
                skip,
                assumed=tuple(clip["assumed"]),
                towers=clip_names.table_of(clip, text=True)[0] if clip["text"] else None,
            )
        )
    for match in cnn_names.find(shapes):
        source = cnn_names.SOURCES[match.source]
        whole = any(name.startswith(cnn_names.HEAD) for name in map(_first, match.table.values()))
        out.append(
            Found(
                match.source,
                source.family,
                match.variant,
                dict(source.fields),
                None,
                match.table,
                match.skip,
                "baseline" if whole else None,
                assumed=_PIXELS,
            )
        )
    for name, module, make in (("dinov3/hf", dinov3_names, "hf_dinov3"), ("pe/timm", pe_names, "timm_pe")):
        variant = module.recognise(shapes)
        if variant is not None:
            family = name.split("/")[0]
            out.append(Found(name, family, variant, {}, None, getattr(module, make)(variant), module.SKIP))
    return [*out, *(Found(**fields) for module in (ir_names, iresnet_names) if (fields := module.find(shapes)))]


def _deepfakebench_clip(shapes):
    """Fields of `Found` for DeepfakeBench's "clip": Hugging Face's vision tower and one linear layer."""
    start = "module.backbone." if any(name.startswith("module.") for name in shapes) else "backbone."
    head = f"{start.removesuffix('backbone.')}head"
    tower = clip_names.recognise({n.removeprefix(start): s for n, s in shapes.items() if n.startswith(start)})
    if tower is None or tower["format"] != "hf_clip_tower" or f"{head}.weight" not in shapes:
        return None
    table, skip = clip_names.table_of(tower)
    return {
        "format": DEEPFAKEBENCH_CLIP,
        "family": "clip",
        "variant": tower["variant"],
        # Its images are normalised with 0.5 and not with CLIP's statistics.
        "options": {"quick_gelu": tower["quick_gelu"], **cnn_names.HALF},
        "image_size": tower["image_size"],
        "table": prefixed(table, start) | linear(head, cnn_names.HEAD),
        "skip": tuple(re.escape(start) + pattern for pattern in skip),
        "detector": "baseline",
        "assumed": ("quick_gelu", *_PIXELS),
    }


def _first(entry):
    return entry.ours if isinstance(entry.ours, str) else entry.ours[0]


def _is_clip_config(stated):
    keys = ("model_cfg", "architecture", "image_mean", "preprocess_cfg", "pretrained_cfg")
    return bool(stated) and (str(stated.get("model_type", "")).startswith("clip") or any(k in stated for k in keys))


def is_own(names) -> bool:
    """Whether a file has our own names, as training and `msddf_jax.export` write them."""
    return bool(names) and all(name.startswith(OWN) for name in names)


def own_table(names) -> dict[str, Entry]:
    """The table of a file with our own names."""
    return {name: Entry(name.removeprefix(STATE)) for name in names}


def own_tree(names, tree) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """(table, skip) for one tree of a file with our own names: the file's own of that name, else its backbone."""
    whole = own_table(names)
    there = lambda wanted: {n: e for n, e in whole.items() if e.ours.split("/")[1] == wanted}
    table = there(tree) or _rooted(there("backbone"), tree)
    return table, tuple(re.escape(name) for name in names if name not in table)


def read_configs(path) -> dict | None:
    """The JSON configs beside a weight file, merged; None where there is none.

    Raises:
      ValueError: a file that is no JSON object.
    """
    merged = {}
    for name in CONFIG_NAMES:
        file = pathlib.Path(path).parent / name
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(f"{file} is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{file} holds a {type(content).__name__}, expected an object")
        merged |= content
    return merged or None


def backbone_only(found, tree="backbone") -> tuple[dict[str, Entry], tuple[str, ...]]:
    """(table, skip) for the backbone in a file, as our `tree`: what belongs to heads is skipped by name."""
    table = {name: entry for name, entry in found.table.items() if _first(entry).split("/")[1] == "backbone"}
    rest = tuple(re.escape(name) for name in found.table if name not in table)
    return _rooted(table, tree), (*found.skip, *rest)


def of_tree(found, tree) -> tuple[dict[str, Entry], tuple[str, ...]]:
    """(table, skip) of what a file gives to our `tree`: a text tower or a projection to one of `clip_names.JOINT`.

    Every other tree is a backbone (`backbone_only`), and so are those of a file without a text tower.
    """
    if found.towers is None or tree not in clip_names.JOINT:
        return backbone_only(found, tree)
    table = {name: entry for name, entry in found.towers.items() if _first(entry).split("/")[1] == tree}
    rest = (re.escape(name) for name in found.towers if name not in table)
    return table, (*clip_names.OPENAI_NUMBERS, *rest)


def _rooted(table, tree):
    """The table of a backbone with another name for it."""
    move = lambda name: name.replace("/backbone/", f"/{tree}/", 1)
    moved = lambda ours: move(ours) if isinstance(ours, str) else tuple(map(move, ours))
    return {name: entry._replace(ours=moved(entry.ours)) for name, entry in table.items()}
