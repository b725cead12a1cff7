"""Names of HRNet's weights: HRNet-Image-Classification's, which timm and DeepfakeBench keep."""

from msddf_jax.models import hrnet
from msddf_jax.weights.table import Entry, batch_norm, conv

_BACKBONE = "backbone"
# Layers of the ImageNet classifier, which detectors do not run: one line of names each.
CLASSIFIER = (r"(incre_modules|downsamp_modules|final_layer)\..*", r"(fc|classifier)\.(weight|bias)")


def table(variant, prefix="") -> dict[str, Entry]:
    """{their name: Entry} of the backbone. variant: of `models.hrnet.VARIANTS`. prefix: in front of their names."""
    plan = hrnet.VARIANTS[variant]
    out = {}
    for number in (1, 2):
        out |= conv(f"{prefix}conv{number}", f"params/{_BACKBONE}/conv_{number}", bias=False)
        out |= batch_norm(f"{prefix}bn{number}", f"{_BACKBONE}/norm_{number}")
    for index in range(plan.bottlenecks):
        out |= _bottleneck(f"{prefix}layer1.{index}", f"{_BACKBONE}/stage_1_{index}", first=index == 0)
    # Theirs counts the maps of a stage; a new one is a sequence of one step.
    enters = {"transition1.0": 0, "transition1.1.0": 1, "transition2.2.0": 2, "transition3.3.0": 3}
    for theirs, number in enters.items():
        out |= _step(prefix + theirs, f"{_BACKBONE}/enter_{number}")
    for stage, modules in enumerate(plan.modules, 2):
        for index in range(modules):
            theirs, ours = f"{prefix}stage{stage}.{index}", f"{_BACKBONE}/stage_{stage}_{index}"
            out |= _exchange(theirs, ours, stage, plan.blocks)
    return out


def shapes(variant, prefix="") -> dict[str, tuple]:
    """{their name: shape} that tell a variant; () for a name that must not be there."""
    plan, own = hrnet.VARIANTS[variant], hrnet.widths(variant)
    out = {f"{prefix}conv1.weight": (plan.stem, 3, 3, 3)}
    for stage, modules in enumerate(plan.modules, 2):
        coarsest = f"branches.{stage - 1}.{plan.blocks - 1}.conv2.weight"
        out[f"{prefix}stage{stage}.{modules - 1}.{coarsest}"] = (own[stage - 1], own[stage - 1], 3, 3)
        out[f"{prefix}stage{stage}.{modules}.{coarsest}"] = ()
        out[f"{prefix}stage{stage}.0.branches.0.{plan.blocks}.conv2.weight"] = ()
    return out


def _pixel(theirs, ours):
    """A convolution of one pixel without bias."""
    return {f"{theirs}.weight": Entry(f"params/{ours}/kernel", "conv_to_linear")}


def _step(theirs, ours):
    return conv(f"{theirs}.0", f"params/{ours}/conv", bias=False) | batch_norm(f"{theirs}.1", f"{ours}/norm")


def _bottleneck(theirs, ours, first):
    out = _pixel(f"{theirs}.conv1", f"{ours}/conv_1") | _pixel(f"{theirs}.conv3", f"{ours}/conv_3")
    out |= conv(f"{theirs}.conv2", f"params/{ours}/conv_2", bias=False)
    for number in (1, 2, 3):
        out |= batch_norm(f"{theirs}.bn{number}", f"{ours}/norm_{number}")
    if first:
        out |= _pixel(f"{theirs}.downsample.0", f"{ours}/skip")
        out |= batch_norm(f"{theirs}.downsample.1", f"{ours}/skip_norm")
    return out


def _exchange(theirs, ours, count, blocks):
    """A module with `count` maps."""
    out = {}
    for number in range(count):
        for index in range(blocks):
            for part in (1, 2):
                block, own = f"{theirs}.branches.{number}.{index}", f"{ours}/map_{number}_{index}"
                out |= conv(f"{block}.conv{part}", f"params/{own}/conv_{part}", bias=False)
                out |= batch_norm(f"{block}.bn{part}", f"{own}/norm_{part}")
        for to in range(count):
            fuse, own = f"{theirs}.fuse_layers.{to}.{number}", f"{ours}/from_{number}_to_{to}"
            if number > to:
                out |= _pixel(f"{fuse}.0", own) | batch_norm(f"{fuse}.1", f"{own}_norm")
            for index in range(to - number):
                out |= _step(f"{fuse}.{index}", f"{own}_{index}")
    return out
