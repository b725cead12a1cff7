"""Every backbone behind one call: images in, one feature vector, one map and the named maps of its stages out."""

import inspect
import types

from flax import linen as nn

from msddf_jax.models import clip, dinov3, efficientnet, hrnet, iresnet, meso, pe, resnet, vgg, xception

# family -> (its module, with VARIANTS and `stages(variant)`; the linen module, with fields variant, image_size, dtype,
# pixel_mean, pixel_std, in_channels).
FAMILIES = {
    "clip": (clip, clip.VisionTransformer),
    "dinov3": (dinov3, dinov3.VisionTransformer),
    "pe": (pe, pe.VisionTransformer),
    "xception": (xception, xception.Xception),
    "efficientnet": (efficientnet, efficientnet.EfficientNet),
    "resnet": (resnet, resnet.ResNet),
    "meso": (meso, meso.Meso),
    "vgg": (vgg, vgg.VGG),
    "hrnet": (hrnet, hrnet.HRNet),
    "iresnet": (iresnet, iresnet.IResNet),
}


def make(family, variant, image_size, *, dtype, name, **settings) -> nn.Module:
    """The linen module of a backbone: `module(images, train=...)` -> {"feature": [B, d], "spatial": [B, h, w, c], ...}.

    "stages" of what it gives are the maps {name: [B, h, w, c]} that `stages` lists; XLA leaves out what nobody reads.

    Args:
      family: of `FAMILIES`. variant: one of that family's `VARIANTS`. image_size: side of its square input.
      dtype: of the computation. name: in the tree of parameters. settings: further fields of the module.

    Raises:
      ValueError: a family, variant or setting that is not known, with those that are.
    """
    backbone = _look_up(family, variant)[1]
    fields = set(inspect.signature(backbone).parameters) - {"variant", "image_size", "dtype", "name", "parent"}
    unknown = sorted(set(settings) - fields)
    if unknown:
        raise ValueError(f"{family} has no settings {unknown}; it has {sorted(fields)}")
    return backbone(variant=variant, image_size=image_size, dtype=dtype, name=name, **settings)


def stages(family, variant) -> dict[str, tuple[int, int]]:
    """{name: (channels, stride in pixels)} of a backbone's stages, in their order, without running it.

    Raises:
      ValueError: a family or variant that is not known, with those that are.
    """
    return _look_up(family, variant)[0].stages(variant)


def _look_up(family, variant) -> tuple[types.ModuleType, type[nn.Module]]:
    if family not in FAMILIES:
        raise ValueError(f"unknown backbone family {family!r}; there are {', '.join(FAMILIES)}")
    module, backbone = FAMILIES[family]
    if variant not in module.VARIANTS:
        raise ValueError(f"{family} has no variant {variant!r}; it has {', '.join(module.VARIANTS)}")
    return module, backbone
