"""What is asked of XLA on CPUs: that it is taken, and changes no result."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from msddf_jax import cpu
from msddf_jax.models import backbones


def _config(family):
    return ConfigDict({"model": {"family": family} if family else {}})


def _program(options, run, *inputs):
    return jax.jit(run, compiler_options=options).lower(*inputs).compile().as_text()


def _product_is_ynnpacks(options):
    return "ynn_fusion" in _program(options, jnp.matmul, jnp.ones((256, 256)), jnp.ones((256, 256)))


def test_every_backbone_is_one_of_convolutions_or_a_vit():
    convolve = {name for name, (module, _) in backbones.FAMILIES.items() if hasattr(module, "conv")}
    assert convolve == set(cpu.CONVOLUTIONAL)


OPTIONS = {
    "scoring": cpu.scoring_options(),
    **{f"training {family}": cpu.training_options(_config(family)) for family in (None, "clip", "resnet")},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_convolutions_are_xlas_own_and_sums_are_not(name):
    x, kernel = jnp.ones((2, 16, 16, 32)), jnp.ones((3, 3, 32, 64))
    convolve = lambda x, kernel: nn.Conv(64, (3, 3), use_bias=False).apply({"params": {"kernel": kernel}}, x)
    text = _program(OPTIONS[name], lambda x, kernel: (convolve(x, kernel), x.sum(-1)), x, kernel)
    assert " convolution(" in text and "ynn_fusion" in text
    assert _product_is_ynnpacks(OPTIONS[name]) == (name in ("training None", "training clip"))


def test_other_devices_have_no_options(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cpu.scoring_options() is None and cpu.training_options(_config("resnet")) is None
