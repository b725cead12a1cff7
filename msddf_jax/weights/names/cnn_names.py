"""Names of the convolutional backbones' weights in the files that others publish: ImageNet's and DeepfakeBench's.

`SOURCES` has one line for each kind of file; `find` says which of them a file's names and shapes fit. Adding a kind is
a function that makes its table, one that gives a few telling shapes, and a line.

Ours are the plain detector's: `backbone`, and `binary_head/out` where the file's classifier has two outputs of its own.
ImageNet's classifiers are skipped; the table functions take `head` for those who want one.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msddf_jax.models import efficientnet, hrnet, meso, resnet, vgg, xception
from msddf_jax.weights.names import hrnet_names, meso_names
from msddf_jax.weights.table import Entry, batch_norm, conv, linear

BACKBONE = "backbone"
HEAD = "params/binary_head/out"
# In front of every name where the model was saved inside torch's DataParallel.
PARALLEL = "module."
# In place of a shape: the file must not have the tensor. Sizes of one width differ in what comes after the last block.
ABSENT = ()
HALF = {"pixel_mean": (0.5, 0.5, 0.5), "pixel_std": (0.5, 0.5, 0.5)}
IMAGENET = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}
ZERO_ONE = {"pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (1.0, 1.0, 1.0)}
# TensorFlow's EfficientNet-Lite subtracts 127 and divides by 128.
LITE = {"pixel_mean": (127 / 255,) * 3, "pixel_std": (128 / 255,) * 3}


class Source(NamedTuple):
    """One kind of file.

    table: variant -> {their name: Entry}. recognise: {their name: shape} -> variant or None. family: module of
    `models`. fields: of that module's backbone, besides variant, image_size and dtype, with which the weights give what
    they gave there. skip: regexes of their names that may be there and are not wanted (`table.check`).
    """

    table: Callable
    recognise: Callable
    family: str
    fields: Mapping
    skip: tuple = ()


class Match(NamedTuple):
    """A source that fits a file: its key in `SOURCES`, variant, and table and skip with the file's own prefix."""

    source: str
    variant: str
    table: dict
    skip: tuple


def find(shapes) -> list[Match]:
    """Every source that a file's names and shapes fit, as `Match`es in the order of `SOURCES`.

    None fits: an empty list. Two fit for timm's EfficientNets, whose names and shapes do not tell "timm_tf" from "timm"
    (they differ in padding and epsilon), and for Meso's (`meso_names.ABOUT`): the model's name has to.

    Args:
      shapes: {their name: shape}. All names may have `PARALLEL` in front.
    """
    prefix = PARALLEL if shapes and all(name.startswith(PARALLEL) for name in shapes) else ""
    bare = {name.removeprefix(prefix): tuple(shape) for name, shape in shapes.items()}
    found = []
    for key, source in SOURCES.items():
        variant = source.recognise(bare)
        if variant is not None:
            table = {prefix + name: entry for name, entry in source.table(variant).items()}
            found.append(Match(key, variant, table, tuple(re.escape(prefix) + skip for skip in source.skip)))
    return found


def _recogniser(variants, telling):
    """The first of `variants` of which a file has all that `telling(variant)` says, as a function of its shapes."""

    def recognise(shapes):
        for variant in variants:
            if all(tuple(shapes.get(name, ABSENT)) == shape for name, shape in telling(variant).items()):
                return variant
        return None

    return recognise


def _pointwise(theirs, ours):
    """A convolution of one pixel without bias, which is a linear map here."""
    return {f"{theirs}.weight": Entry(f"params/{ours}/kernel", "conv_to_linear")}


def _conv(theirs, ours):
    return conv(theirs, f"params/{ours}", bias=False)


def _head(theirs, head):
    return linear(theirs, head) if head else {}


# Xception


def xception_table(variant, prefix="", flat_pointwise=False, classifier="fc", head=None) -> dict[str, Entry]:
    """Names of the PyTorch port of Xception.

    Args:
      variant: of `models.xception.VARIANTS`. prefix: in front of their names.
      flat_pointwise: pointwise weights are [out, in], as the first published file has them, not [out, in, 1, 1].
      classifier: their name of it. head: our name of it, None without.
    """
    kind = "linear" if flat_pointwise else "conv_to_linear"

    def separable(theirs, ours):
        pointwise = {f"{prefix}{theirs}.pointwise.weight": Entry(f"params/{BACKBONE}/{ours}/pointwise/kernel", kind)}
        return _conv(f"{prefix}{theirs}.conv1", f"{BACKBONE}/{ours}/depthwise") | pointwise

    out = {}
    for number in (1, 2):
        out |= _conv(f"{prefix}conv{number}", f"{BACKBONE}/conv_{number}")
        out |= batch_norm(f"{prefix}bn{number}", f"{BACKBONE}/norm_{number}")
    before = xception.VARIANTS[variant].stem[1]
    for number, plan in enumerate(xception.block_plans(variant), 1):
        theirs, ours = f"block{number}", f"block_{number}"
        for index in range(len(plan.widths)):
            # Theirs counts the activations between: ReLU, convolution, norm; the first block begins without a ReLU.
            place = 3 * index + plan.first_relu
            out |= separable(f"{theirs}.rep.{place}", f"{ours}/sep_{index}")
            out |= batch_norm(f"{prefix}{theirs}.rep.{place + 1}", f"{BACKBONE}/{ours}/norm_{index}")
        if plan.stride != 1 or before != plan.widths[-1]:
            out |= _pointwise(f"{prefix}{theirs}.skip", f"{BACKBONE}/{ours}/skip")
            out |= batch_norm(f"{prefix}{theirs}.skipbn", f"{BACKBONE}/{ours}/skip_norm")
        before = plan.widths[-1]
    for number in (3, 4):
        out |= separable(f"conv{number}", f"sep_{number}")
        out |= batch_norm(f"{prefix}bn{number}", f"{BACKBONE}/norm_{number}")
    return out | _head(prefix + classifier, head)


def _xception_shapes(variant, prefix="", flat_pointwise=False):
    stem, entry, middle, widths = xception.VARIANTS[variant]
    last = (widths[2], widths[1])
    return {
        f"{prefix}conv1.weight": (stem[0], 3, 3, 3),
        f"{prefix}block{len(entry) + middle + 1}.skip.weight": (widths[0], entry[-1], 1, 1),
        f"{prefix}conv4.pointwise.weight": last if flat_pointwise else (*last, 1, 1),
    }


# EfficientNet


def efficientnet_table(variant, prefix="", classifier="_fc", head=None) -> dict[str, Entry]:
    """Names of efficientnet_pytorch and its Lite form, which SBI and DeepfakeBench use too.

    Args:
      variant: of `models.efficientnet.VARIANTS`. prefix: in front of their names, the classifier's excepted.
      classifier: their full name of it. head: our name of it, None without.
    """
    out = _conv(f"{prefix}_conv_stem", f"{BACKBONE}/stem") | batch_norm(f"{prefix}_bn0", f"{BACKBONE}/stem_norm")
    plans = [plan for stage in efficientnet.stage_plans(variant) for plan in stage]
    for index, plan in enumerate(plans):
        theirs, ours = f"{prefix}_blocks.{index}.", f"{BACKBONE}/block_{index}"
        if plan.expand != 1:
            out |= _pointwise(f"{theirs}_expand_conv", f"{ours}/expand")
            out |= batch_norm(f"{theirs}_bn0", f"{ours}/norm_0")
        out |= _conv(f"{theirs}_depthwise_conv", f"{ours}/depthwise")
        out |= batch_norm(f"{theirs}_bn1", f"{ours}/norm_1")
        if not efficientnet.VARIANTS[variant].lite:
            out |= _squeeze(f"{theirs}_se_reduce", f"{theirs}_se_expand", ours)
        out |= _pointwise(f"{theirs}_project_conv", f"{ours}/project")
        out |= batch_norm(f"{theirs}_bn2", f"{ours}/norm_2")
    out |= _pointwise(f"{prefix}_conv_head", f"{BACKBONE}/head")
    out |= batch_norm(f"{prefix}_bn1", f"{BACKBONE}/head_norm")
    return out | _head(classifier, head)


def timm_efficientnet_table(variant, head=None) -> dict[str, Entry]:
    """Names of timm's (tf_)efficientnet_b* and _lite*. head: our name of the classifier, None without."""
    out = _conv("conv_stem", f"{BACKBONE}/stem") | batch_norm("bn1", f"{BACKBONE}/stem_norm")
    number = 0
    for stage, plans in enumerate(efficientnet.stage_plans(variant)):
        for index, plan in enumerate(plans):
            theirs, ours = f"blocks.{stage}.{index}.", f"{BACKBONE}/block_{number}"
            names = ["conv_dw", "conv_pw"] if plan.expand == 1 else ["conv_pw", "conv_dw", "conv_pwl"]
            if plan.expand != 1:
                out |= _pointwise(theirs + names[0], f"{ours}/expand")
                out |= batch_norm(f"{theirs}bn1", f"{ours}/norm_0")
            out |= _conv(f"{theirs}conv_dw", f"{ours}/depthwise") | _pointwise(theirs + names[-1], f"{ours}/project")
            out |= batch_norm(f"{theirs}bn{len(names) - 1}", f"{ours}/norm_1")
            out |= batch_norm(f"{theirs}bn{len(names)}", f"{ours}/norm_2")
            if not efficientnet.VARIANTS[variant].lite:
                out |= _squeeze(f"{theirs}se.conv_reduce", f"{theirs}se.conv_expand", ours)
            number += 1
    out |= _pointwise("conv_head", f"{BACKBONE}/head") | batch_norm("bn2", f"{BACKBONE}/head_norm")
    return out | _head("classifier", head)


def _squeeze(reduce, expand, ours):
    """Squeeze and excitation: two convolutions of one pixel with bias."""
    out = {}
    for theirs, name in ((reduce, "se_reduce"), (expand, "se_expand")):
        out |= _pointwise(theirs, f"{ours}/{name}") | {f"{theirs}.bias": Entry(f"params/{ours}/{name}/bias")}
    return out


def _squeezed(variant):
    """Shape of the first block's squeezing weights, by which a file of B0 is none of Lite0."""
    if efficientnet.VARIANTS[variant].lite:
        return ABSENT
    stem = efficientnet.end_widths(variant)[0]
    return (max(1, stem // efficientnet.SQUEEZE), stem, 1, 1)


def _efficientnet_shapes(variant, prefix=""):
    (stem, head), stages = efficientnet.end_widths(variant), efficientnet.stage_plans(variant)
    last, blocks = stages[-1][-1].after, sum(map(len, stages))
    return {
        f"{prefix}_conv_stem.weight": (stem, 3, 3, 3),
        f"{prefix}_blocks.0._se_reduce.weight": _squeezed(variant),
        f"{prefix}_blocks.{blocks - 1}._bn2.weight": (last,),
        f"{prefix}_blocks.{blocks}._bn2.weight": ABSENT,
        f"{prefix}_conv_head.weight": (head, last, 1, 1),
    }


def _timm_efficientnet_shapes(variant):
    (stem, head), stages = efficientnet.end_widths(variant), efficientnet.stage_plans(variant)
    out = {
        "conv_stem.weight": (stem, 3, 3, 3),
        "blocks.0.0.se.conv_reduce.weight": _squeezed(variant),
        "conv_head.weight": (head, stages[-1][-1].after, 1, 1),
    }
    for number, stage in enumerate(stages):
        wide = stage[-1].expand * stage[-1].before
        out[f"blocks.{number}.{len(stage) - 1}.conv_dw.weight"] = (wide, 1, stage[0].kernel, stage[0].kernel)
        out[f"blocks.{number}.{len(stage)}.conv_dw.weight"] = ABSENT
    return out


# ResNet


def _resnet_parts(sequential):
    """Their names of the first convolution, its norm, and the four stages."""
    # DeepfakeBench put the children in a sequence; 2 and 3 are the ReLU and the pooling.
    return ("0", "1", "4", "5", "6", "7") if sequential else ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")


def resnet_table(variant, prefix="", sequential=False, classifier="fc", head=None) -> dict[str, Entry]:
    """Names of torchvision's and timm's ResNet.

    Args:
      variant: of `models.resnet.VARIANTS`. prefix: in front of their names, the classifier's excepted.
      sequential: numbered children, as DeepfakeBench has them.
      classifier: their full name of it. head: our name of it, None without.
    """
    first, norm, *stages = _resnet_parts(sequential)
    out = _conv(prefix + first, f"{BACKBONE}/conv_1") | batch_norm(prefix + norm, f"{BACKBONE}/norm_1")
    _, depths, bottleneck = resnet.VARIANTS[variant]
    # Those of one pixel are linear layers.
    kinds = (_pointwise, _conv, _pointwise) if bottleneck else (_conv, _conv)
    for stage, (name, depth) in enumerate(zip(stages, depths, strict=True), 1):
        for index in range(depth):
            theirs, ours = f"{prefix}{name}.{index}", f"{BACKBONE}/stage_{stage}_{index}"
            for part, kind in enumerate(kinds, 1):
                out |= kind(f"{theirs}.conv{part}", f"{ours}/conv_{part}")
                out |= batch_norm(f"{theirs}.bn{part}", f"{ours}/norm_{part}")
            if index == 0 and (stage > 1 or bottleneck):
                out |= _pointwise(f"{theirs}.downsample.0", f"{ours}/skip")
                out |= batch_norm(f"{theirs}.downsample.1", f"{ours}/skip_norm")
    return out | _head(classifier, head)


def _resnet_shapes(variant, prefix="", sequential=False):
    first, _, *stages = _resnet_parts(sequential)
    widths, depths, bottleneck = resnet.VARIANTS[variant]
    out = {f"{prefix}{first}.weight": (widths[0], 3, 7, 7)}
    for name, width, depth in zip(stages, widths, depths, strict=True):
        out[f"{prefix}{name}.{depth - 1}.conv2.weight"] = (width, width, 3, 3)
        out[f"{prefix}{name}.{depth}.conv2.weight"] = ABSENT
    out[f"{prefix}{stages[0]}.0.conv3.weight"] = (4 * widths[0], widths[0], 1, 1) if bottleneck else ABSENT
    return out


# VGG


def vgg_table(variant, prefix="features.") -> dict[str, Entry]:
    """Names of torchvision's VGG, which numbers convolutions, ReLUs and pools alike. variant: of `vgg.VARIANTS`."""
    out, place = {}, 0
    for stage, depth in enumerate(vgg.VARIANTS[variant].depths, 1):
        for index in range(depth):
            out |= conv(f"{prefix}{place}", f"params/{BACKBONE}/conv_{stage}_{index}")
            place += 2
        place += 1
    return out


def vgg_shapes(variant, prefix="features.") -> dict[str, tuple]:
    """Telling shapes: first and last convolution that are read, and no norm between, as vgg19_bn has it."""
    widths, places = vgg.VARIANTS[variant].widths, list(vgg_table(variant, prefix))
    last = (widths[-1], widths[-1], 3, 3)
    return {f"{prefix}0.weight": (widths[0], 3, 3, 3), f"{prefix}1.weight": ABSENT, places[-2]: last}


def _source(family, variants, table, shapes, fields, skip=(), **arguments):
    """A `Source`; `arguments` go to `table`, those that `shapes` knows to both."""
    known = {name: value for name, value in arguments.items() if name in ("prefix", "sequential", "flat_pointwise")}
    recognise = _recogniser(variants, functools.partial(shapes, **known))
    return Source(functools.partial(table, **arguments), recognise, family, fields, skip)


_XCEPTION = ("xception", xception.VARIANTS, xception_table, _xception_shapes)
_LITES = tuple(name for name, variant in efficientnet.VARIANTS.items() if variant.lite)
_OTHERS = tuple(name for name in efficientnet.VARIANTS if name not in _LITES)
_EFFICIENTNET = ("efficientnet", _OTHERS, efficientnet_table, _efficientnet_shapes)
_EFFICIENTNET_LITE = ("efficientnet", _LITES, efficientnet_table, _efficientnet_shapes)
_TIMM_EFFICIENTNET = ("efficientnet", _OTHERS, timm_efficientnet_table, _timm_efficientnet_shapes)
_TIMM_LITE = ("efficientnet", _LITES, timm_efficientnet_table, _timm_efficientnet_shapes)
_RESNET = ("resnet", resnet.VARIANTS, resnet_table, _resnet_shapes)
_VGG = ("vgg", vgg.VARIANTS, vgg_table, vgg_shapes)
_HRNET = ("hrnet", hrnet.VARIANTS, hrnet_names.table, hrnet_names.shapes)
_MESO = ("meso", meso.VARIANTS, meso_names.port_table, meso_names.port_shapes)
_KERAS_MESO = ("meso", meso.VARIANTS, meso_names.keras_table, meso_names.keras_shapes)
_TIMM = {"padding": "symmetric", "norm_eps": 1e-5, "norm_momentum": 0.9}
_TIMM_TF = {"padding": "same", "norm_eps": 1e-3, "norm_momentum": 0.9}
_CLASSIFIER = (r"(fc|last_linear|_fc|classifier)\.(weight|bias)",)
# In DeepfakeBench's backbones for detectors that compress the features; the plain ones do not run it.
_ADJUST = (r"backbone\.adjust_channel\..*",)

SOURCES = {
    # xception-b5690688.pth, which DeepfakeBench starts from.
    "xception/cadene": _source(*_XCEPTION, HALF, _CLASSIFIER, flat_pointwise=True),
    # timm's legacy_xception, pretrainedmodels' xception, xception-43020ad28.pth.
    "xception/timm": _source(*_XCEPTION, HALF, _CLASSIFIER),
    "xception/deepfakebench": _source(
        *_XCEPTION, HALF, _ADJUST, prefix="backbone.", classifier="last_linear", head=HEAD
    ),
    # efficientnet_pytorch's own ImageNet files. Those trained with AdvProp have the same names and take HALF.
    "efficientnet/lukemelas": _source(*_EFFICIENTNET, dict(IMAGENET, padding="static"), _CLASSIFIER),
    # SBI's official checkpoint (FFc23.tar), under its key "model".
    "efficientnet/sbi": _source(
        *_EFFICIENTNET, dict(ZERO_ONE, padding="static"), prefix="net.", classifier="net._fc", head=HEAD
    ),
    # DeepfakeBench's EfficientNet-B4. Its SBI has the same names, takes IMAGENET, and a third output as configured
    # there.
    "efficientnet/deepfakebench": _source(
        *_EFFICIENTNET,
        dict(HALF, padding="static", stem_padding=0),
        _ADJUST,
        prefix="backbone.efficientnet.",
        classifier="backbone.last_layer",
        head=HEAD,
    ),
    "efficientnet/timm": _source(*_TIMM_EFFICIENTNET, IMAGENET | _TIMM, _CLASSIFIER),
    "efficientnet/timm_tf": _source(*_TIMM_EFFICIENTNET, IMAGENET | _TIMM_TF, _CLASSIFIER),
    # EfficientNet-Lite-PyTorch's packages of weights, from TensorFlow's.
    "efficientnet/lukemelas_lite": _source(*_EFFICIENTNET_LITE, dict(LITE, padding="static"), _CLASSIFIER),
    # Trained in timm, and there from TensorFlow's, with timm's own pixels for each.
    "efficientnet/timm_lite": _source(*_TIMM_LITE, IMAGENET | _TIMM, _CLASSIFIER),
    "efficientnet/timm_tf_lite": _source(*_TIMM_LITE, HALF | _TIMM_TF, _CLASSIFIER),
    "resnet/torchvision": _source(*_RESNET, IMAGENET, _CLASSIFIER),
    "resnet/deepfakebench": _source(
        *_RESNET, HALF, _ADJUST, prefix="backbone.resnet.", sequential=True, classifier="backbone.fc", head=HEAD
    ),
    # Of torchvision's VGG-19 what comes before the fourth stage.
    "vgg/torchvision": _source(*_VGG, IMAGENET, (r"(features\.(19|2\d|3\d)|classifier\.\d)\.(weight|bias)",)),
    # hrnetv2_w48_imagenet_pretrained.pth and its relatives, and timm's hrnet_w*.
    "hrnet/imagenet": _source(*_HRNET, IMAGENET, hrnet_names.CLASSIFIER),
    "meso/deepfakebench": _source(*_MESO, HALF, prefix="backbone.", head=HEAD),
    meso_names.TORCH: _source(*_MESO, HALF, head=HEAD),
    meso_names.TORCH_FAKE_FIRST: _source(*_MESO, HALF, head=HEAD, fake_first=True),
    meso_names.KERAS: _source(*_KERAS_MESO, meso.KERAS | ZERO_ONE, head=HEAD, high="real"),
    meso_names.KERAS_FFPP: _source(*_KERAS_MESO, meso.KERAS | HALF, head=HEAD, high="fake"),
}  # fmt: skip
