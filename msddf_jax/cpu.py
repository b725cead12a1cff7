"""What XLA does faster on a CPU if it is asked another way: another order of additions, the same results but for that.

Measured beside it with benchmarks/inference.py on jaxlib 0.10, which hands matrix products, sums and convolutions to
YNNPACK.
"""

import jax

# Backbones of convolutions, by `config.model.family`; what has no family is a ViT.
CONVOLUTIONAL = ("efficientnet", "meso", "resnet", "xception")
_SUMS, _PRODUCTS = "LIBRARY_FUSION_TYPE_REDUCE", "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"


def compiler_options(config):
    """Options of `jax.jit` for a program with the config's model, or None on other devices.

    XLA's own convolutions are faster than YNNPACK's; a convolutional backbone is faster without its products too, a ViT
    with them.
    """
    if jax.default_backend() != "cpu":
        return None
    kept = _SUMS if is_convolutional(config) else f"{_PRODUCTS},{_SUMS}"
    return {"xla_cpu_experimental_ynn_fusion_type": kept}


def is_convolutional(config):
    """Whether the config's backbone is one of `CONVOLUTIONAL`."""
    return config.model.get("family") in CONVOLUTIONAL


def turn_kernels(weights):
    """A tree of weights, each matrix called "kernel" turned, [in, out] to [out, in]; twice is as it was.

    YNNPACK's product with a kernel that lies as [out, in] is faster. Turned before a program that turns it back, it is
    read in that order and never copied.
    """
    turn = lambda path, leaf: leaf.T if leaf.ndim == 2 and path[-1] == jax.tree_util.DictKey("kernel") else leaf
    return jax.tree.map_with_path(turn, weights)
