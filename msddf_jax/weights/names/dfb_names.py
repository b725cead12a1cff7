"""DeepfakeBench's detectors whose network is more than one plain backbone: names of their published `.pth` files.

A line of `FORMATS` each: how it is recognised, and its table. The plain ones are in `cnn_names`.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from msddf_jax.weights import table
from msddf_jax.weights.names import (
    cnn_names,
    face_xray_names,
    iid_names,
    local_relation_names,
    lsda_names,
    multi_attention_names,
    recce_names,
    sia_names,
    srm_names,
    ucf_names,
    uia_vit_names,
)


class Format(NamedTuple):
    """detector: of msddf_jax/detectors. family: of its backbone. find: {their name: shape} -> variant or None.
    table: variant -> {their name: Entry}. skip: regexes of their names that may be there and are not wanted."""

    detector: str
    family: str
    find: Callable
    table: Callable
    skip: tuple = ()


def find(shapes) -> dict | None:
    """Fields of `identify.Found` for a file with these {name: shape}, None where it is none of `FORMATS`."""
    prefix = cnn_names.PARALLEL if shapes and all(name.startswith(cnn_names.PARALLEL) for name in shapes) else ""
    bare = {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items()}
    for name, kind in FORMATS.items():
        variant = kind.find(bare)
        if variant is not None:
            return {
                "format": name,
                "family": kind.family,
                "variant": variant,
                "options": dict(cnn_names.HALF),
                "image_size": None,
                "table": {prefix + theirs: entry for theirs, entry in kind.table(variant).items()},
                "skip": tuple(re.escape(prefix) + pattern for pattern in kind.skip),
                "detector": kind.detector,
            }
    return None


def _xception(channels, *names):
    """Finds an Xception whose first convolution takes so many channels, in a file that has `names` too."""

    def recognise(shapes):
        first = shapes.get("backbone.conv1.weight", ())
        if first[1:2] != (channels,) or not set(names) <= set(shapes):
            return None
        plain = {**shapes, "backbone.conv1.weight": (first[0], 3, *first[2:])}
        return _PLAIN.recognise(plain)

    return recognise


_PLAIN = cnn_names.SOURCES["xception/deepfakebench"]


def _ffd(variant):
    """FFD's map "reg" beside the Xception."""
    out = table.conv("map.c.conv1", "params/map_head/depthwise", bias=False)
    out["map.c.pointwise.weight"] = table.Entry("params/map_head/pointwise/kernel", "conv_to_linear")
    return _PLAIN.table(variant) | out


def _pcl(variant):
    """PCL's embedding beside the Xception."""
    out = {"PCL.theta.weight": table.Entry("params/theta/kernel", "conv_to_linear")}
    return _PLAIN.table(variant) | out | {"PCL.theta.bias": table.Entry("params/theta/bias")}


# A second embedding, and the heads of the SLADD that its Xception comes from; nothing runs them.
_PCL_UNUSED = (r"PCL\.phi\.(weight|bias)", r"backbone\.(type_fc|mag_fc|map)\..*")


def _f3net(variant):
    """F3-Net's first branch: an Xception with dropout in its classifier, and what its four bands learned."""
    out = cnn_names.xception_table(variant, "backbone.", classifier="last_linear.1", head=cnn_names.HEAD)
    learned = lambda number: table.Entry(f"params/decomposition/band_{number}")
    return out | {f"FAD_head.filters.{number}.learnable": learned(number) for number in range(4)}


# The transform and the bands themselves.
_F3NET_FIXED = (r"FAD_head\._DCT_all(_T)?", r"FAD_head\.filters\.\d\.base")


def _find_capsule(shapes):
    """Whether a file has VGG-19 up to the third pool and ten capsules."""
    there = all(n in shapes for n in ("fea_ext.capsules.9.0.weight", "routing_stats.route_weights"))
    telling = cnn_names.vgg_shapes("vgg19", _CAPSULE_VGG)
    return "vgg19" if there and all(shapes.get(n, cnn_names.ABSENT) == s for n, s in telling.items()) else None


def _capsule(variant):
    """Capsule-Forensics: each capsule is a sequence of layers."""
    out = cnn_names.vgg_table(variant, _CAPSULE_VGG)
    out["routing_stats.route_weights"] = table.Entry("params/route")
    for number in range(10):
        theirs, ours = f"fea_ext.capsules.{number}", f"capsule_{number}"
        for part, place in enumerate((0, 3, 7, 9), 1):
            out |= table.conv(f"{theirs}.{place}", f"params/{ours}/conv_{part}")
            out |= table.batch_norm(f"{theirs}.{place + 1}", f"{ours}/norm_{part}")
            if part > 2:
                name = f"{theirs}.{place}.weight"
                out[name] = out[name]._replace(kind="conv_1d")
    return out


_CAPSULE_VGG = "vgg_ext.vgg_1."

FORMATS = {
    "capsule/deepfakebench": Format("capsule", "vgg", _find_capsule, _capsule),
    "ffd/deepfakebench": Format("ffd", "xception", _xception(3, "map.c.pointwise.weight"), _ffd, _PLAIN.skip),
    "face_xray/deepfakebench": Format(
        "face_xray", "hrnet", face_xray_names.find, face_xray_names.table, face_xray_names.SKIP
    ),
    "f3net/deepfakebench": Format(
        "f3net",
        "xception",
        _xception(12, "FAD_head.filters.3.learnable"),
        _f3net,
        (*_PLAIN.skip, *_F3NET_FIXED),
    ),
    "iid/deepfakebench": Format("iid", "xception", iid_names.find, iid_names.table),
    "lsda/deepfakebench": Format("lsda", "efficientnet", lsda_names.find, lsda_names.table, lsda_names.SKIP),
    "spsl/deepfakebench": Format("spsl", "xception", _xception(4), _PLAIN.table, _PLAIN.skip),
    "srm/deepfakebench": Format("srm", "xception", srm_names.find, srm_names.table, srm_names.SKIP),
    "multi_attention/deepfakebench": Format(
        "multi_attention",
        "efficientnet",
        multi_attention_names.find,
        multi_attention_names.table,
        multi_attention_names.SKIP,
    ),
    "pcl_i2g/deepfakebench": Format(
        "pcl_i2g", "xception", _xception(3, "PCL.theta.weight"), _pcl, (*_PLAIN.skip, *_PCL_UNUSED)
    ),
    "recce/deepfakebench": Format("recce", "xception", recce_names.find, recce_names.table, recce_names.SKIP),
    "sia/deepfakebench": Format("sia", "efficientnet", sia_names.find, sia_names.table, sia_names.SKIP),
    "local_relation/deepfakebench": Format(
        "local_relation",
        "efficientnet",
        local_relation_names.find,
        local_relation_names.table,
        local_relation_names.SKIP,
    ),
    "ucf/deepfakebench": Format("ucf", "xception", ucf_names.find, ucf_names.table, ucf_names.SKIP),
    "uia_vit/deepfakebench": Format("uia_vit", "clip", uia_vit_names.find, uia_vit_names.table, uia_vit_names.SKIP),
}
