"""Operations written in the form that XLA compiles to faster code on a CPU. Only the order of additions differs.

Measured beside it with benchmarks/inference.py on jaxlib 0.10, which hands matrix products, sums and convolutions to
YNNPACK.
"""

import jax

# Backbones of convolutions, by `config.model.family`; what has no family is a ViT.
CONVOLUTIONAL = ("efficientnet", "hrnet", "iresnet", "meso", "resnet", "vgg", "xception")
_SUMS, _PRODUCTS = "LIBRARY_FUSION_TYPE_REDUCE", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


def scoring_options() -> dict[str, str] | None:
    """Options of `jax.jit` for a program that scores, or None on other devices: products and convolutions by XLA."""
    return _kept_by_ynnpack(_SUMS)


def training_options(config) -> dict[str, str] | None:
    """Options of `jax.jit` for a train step of the config's model, or None on other devices.

    Convolutions are XLA's own, and products too where the backbone is made of convolutions. A ViT's gradient reads its
    kernels the other way round, as [out, in], where YNNPACK's products are the faster ones.
    """
    return _kept_by_ynnpack(_SUMS if config.model.get("family") in CONVOLUTIONAL else f"{_PRODUCTS},{_SUMS}")


def _kept_by_ynnpack(kinds):
    return {"xla_cpu_experimental_ynn_fusion_type": kinds} if jax.default_backend() == "cpu" else None
