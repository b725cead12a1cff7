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


def test_every_backbone_is_one_of_convolutions_or_a_vit():
    convolve = {name for name, (module, _) in backbones.FAMILIES.items() if hasattr(module, "conv")}
    assert convolve == set(cpu.CONVOLUTIONAL)


OPTIONS = {
    "scoring": cpu.scoring_options(),
    **{f"training {family}": cpu.training_options(_config(family)) for family in (None, "clip", "resnet")},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_taken_and_change_no_result(name):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 16, 16, 32), (3, 3, 32, 64)))
    convolve = lambda x, kernel: nn.Conv(64, (3, 3), use_bias=False).apply({"params": {"kernel": kernel}}, x)
    run = lambda x, kernel: (convolve(x, kernel), x.sum(-1), jnp.matmul(x[0, 0], kernel[0, 0]))
    for ours, plain in zip(
        jax.jit(run, compiler_options=OPTIONS[name])(x, kernel), jax.jit(run)(x, kernel), strict=True
    ):
        np.testing.assert_allclose(ours, plain, atol=1e-4)


def test_other_devices_have_no_options(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert cpu.scoring_options() is None and cpu.training_options(_config("resnet")) is None
