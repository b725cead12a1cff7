"""What is asked of XLA on CPUs: that it is taken, and changes no result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from msddf_jax import cpu
from msddf_jax.models import backbones


def _config(family):
    return ConfigDict({"model": {"family": family} if family else {}})


def _program(config, run, *inputs):
    return jax.jit(run, compiler_options=cpu.compiler_options(config)).lower(*inputs).compile().as_text()


def test_every_backbone_is_one_of_convolutions_or_a_vit():
    convolve = {name for name, (module, _) in backbones.FAMILIES.items() if hasattr(module, "conv")}
    assert convolve == set(cpu.CONVOLUTIONAL)
    assert not cpu.is_convolutional(_config(None)) and not cpu.is_convolutional(_config("clip"))


@pytest.mark.parametrize("family", ["clip", "resnet"])
def test_convolutions_are_xlas_own_and_sums_are_not(family):
    x, kernel = jnp.ones((2, 16, 16, 32)), jnp.ones((3, 3, 32, 64))
    convolve = lambda x, kernel: nn.Conv(64, (3, 3), use_bias=False).apply({"params": {"kernel": kernel}}, x)
    with_both = lambda x, kernel: (convolve(x, kernel), x.sum(-1))
    text = _program(_config(family), with_both, x, kernel)
    assert " convolution(" in text and "ynn_fusion" in text
    product = _program(_config(family), jnp.matmul, jnp.ones((256, 256)), jnp.ones((256, 256)))
    assert ("ynn_fusion" in product) == (family == "clip")


def test_turned_kernels_by_hand():
    weights = {
        "a": {"kernel": np.array([[1, 2], [3, 4], [5, 6]]), "bias": np.arange(2)},
        "scale": np.ones((2, 3)),
        "deep": {"kernel": np.ones((3, 3, 1, 2))},
    }
    turned = cpu.turn_kernels(weights)
    np.testing.assert_array_equal(turned["a"]["kernel"], [[1, 3, 5], [2, 4, 6]])
    assert turned["scale"].shape == (2, 3) and turned["deep"]["kernel"].shape == (3, 3, 1, 2)
    again = cpu.turn_kernels(turned)
    jax.tree.map(np.testing.assert_array_equal, again, weights)


def test_a_turned_kernel_is_read_and_not_copied():
    x, weights = jnp.ones((64, 128)), {"kernel": jnp.ones((128, 256))}
    product = lambda turned, x: x @ cpu.turn_kernels(turned)["kernel"]
    text = _program(_config("clip"), product, cpu.turn_kernels(weights), x)
    assert "rhs_contracting_dims={1}" in text and "copy(" not in text and "transpose(" not in text
