"""Every backbone behind one call: images in, one feature vector and one map out."""

import inspect

from msddf_jax.models import clip, dinov3, efficientnet, meso, pe, resnet, xception

# family -> linen module with fields variant, image_size, dtype, pixel_mean, pixel_std; its module has VARIANTS.
FAMILIES = {
    "clip": (clip, clip.VisionTransformer),
    "dinov3": (dinov3, dinov3.VisionTransformer),
    "pe": (pe, pe.VisionTransformer),
    "xception": (xception, xception.Xception),
    "efficientnet": (efficientnet, efficientnet.EfficientNet),
    "resnet": (resnet, resnet.ResNet),
    "meso": (meso, meso.Meso),
}


def make(family, variant, image_size, *, dtype, name, **settings):
    """The linen module of a backbone: `module(images, train=...)` -> {"feature": [B, d], "spatial": [B, h, w, c], ...}.

    Args:
      family: of `FAMILIES`. variant: one of that family's `VARIANTS`. image_size: side of its square input.
      dtype: of the computation. name: in the tree of parameters. settings: further fields of the module.

    Raises:
      ValueError: a family, variant or setting that is not known, with those that are.
    """
    if family not in FAMILIES:
        raise ValueError(f"unknown backbone family {family!r}; there are {', '.join(FAMILIES)}")
    module, backbone = FAMILIES[family]
    if variant not in module.VARIANTS:
        raise ValueError(f"{family} has no variant {variant!r}; it has {', '.join(module.VARIANTS)}")
    fields = set(inspect.signature(backbone).parameters) - {"variant", "image_size", "dtype", "name", "parent"}
    unknown = sorted(set(settings) - fields)
    if unknown:
        raise ValueError(f"{family} has no settings {unknown}; it has {sorted(fields)}")
    return backbone(variant=variant, image_size=image_size, dtype=dtype, name=name, **settings)
