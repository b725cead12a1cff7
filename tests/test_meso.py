"""Meso4 and MesoInception4 against twins of DeepfakeBench's, pooling by pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models import meso

torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")

import cnn_parity as parity  # noqa: E402
import torch_twins as twins  # noqa: E402

from msddf_jax.weights.names import meso_names  # noqa: E402

TWINS = {"meso4": twins.Meso4, "meso_inception4": twins.MesoInception4}
HALF = (0.5, 0.5, 0.5)
# Parameters with the classifier of two: convolutions, BatchNorm's scales and biases, 1024 -> 16 -> 2.
PARAMETERS = {
    "meso4": (216 + 1600 + 3200 + 6400) + 2 * (8 + 16) + (1024 * 16 + 16) + 34,
    "meso_inception4": (357 + 456 + 4800 + 6400) + 2 * (11 + 12 + 16) + (1024 * 16 + 16) + 34,
}
# The paper's, with one output instead of two.
PUBLISHED = {"meso4": 27_977, "meso_inception4": 28_615}


def _twin(variant, **settings):
    return twins.randomise(TWINS[variant](**settings))


def _file(twin):
    return {f"backbone.{name}": value for name, value in twin.state_dict().items()}


@pytest.mark.parametrize("variant", TWINS)
def test_equals_the_twin_stage_by_stage(variant):
    twin = _twin(variant)
    model, variables, flat = parity.convert(_file(twin), "meso/deepfakebench", variant, 256)
    images = twins.draw_images(2, 256)
    with torch.no_grad():
        stages = twin.stages(twins.as_input(images, HALF, HALF))
        feature, logits = twin.head(stages[-1])
    # The outputs of the norms, to which the twin's poolings are applied here: what lies between two stages.
    apply = lambda v, x: model.apply(v, x, capture_intermediates=True, mutable=["intermediates"])
    out, state = jax.jit(apply)(variables, images)
    ours = _stages(state["intermediates"], meso.VARIANTS[variant])
    assert len(ours) == len(stages) == 4
    for mine, theirs in zip(ours, stages, strict=True):
        assert parity.relative(mine, parity.nhwc(theirs)) <= 1e-4
    assert parity.relative(out["spatial"], parity.nhwc(stages[-1])) <= 1e-4
    assert parity.relative(out["feature"], feature) <= 1e-4
    assert parity.relative(parity.logits(out["feature"], flat), logits) <= 1e-4


def _stages(intermediates, variant):
    """What leaves each pooling, from the captured outputs of blocks and norms."""
    out = [intermediates[f"inception_{n}"]["__call__"][0] for n in range(1, len(variant.inception) + 1)]
    seen = {}
    for _, _, norm, window in variant.convs:
        call = seen[norm] = seen.get(norm, -1) + 1
        x = np.asarray(intermediates[f"norm_{norm}"]["__call__"][call])
        batch, height, width, channels = x.shape
        out.append(x.reshape(batch, height // window, window, width // window, window, channels).max((2, 4)))
    return out


@pytest.mark.parametrize("variant", TWINS)
def test_parameter_count(variant):
    count = parity.count_parameters(meso.Meso(variant, 256)) + 34
    assert count == PARAMETERS[variant] == sum(p.numel() for p in TWINS[variant]().parameters())
    # The authors' form has a bias and a BatchNorm a convolution.
    assert parity.count_parameters(meso.Meso(variant, 256, **meso.KERAS)) + 17 == PUBLISHED[variant]


@pytest.mark.parametrize("variant", TWINS)
def test_odd_sizes_drop_what_a_window_does_not_fill(variant):
    # 75 -> 37 -> 18 -> 9 -> 2, as PyTorch's pooling floors.
    images = twins.draw_images(1, 75)
    model = meso.Meso(variant, 75)
    out = jax.jit(model.apply)(parity.draw_variables(model), images)
    twin = _twin(variant)
    with torch.no_grad():
        theirs = twin.stages(twins.as_input(images, HALF, HALF))[-1]
    assert out["spatial"].shape == parity.nhwc(theirs).shape == (1, 2, 2, 16)


@pytest.mark.parametrize("variant", TWINS)
def test_training_statistics(variant):
    # Without dropout, whose draws differ; it comes after every norm.
    twin = _twin(variant, dropout=0.0)
    model, variables, _ = parity.convert(_file(twin), "meso/deepfakebench", variant, 256)
    images = twins.draw_images(2, 256)
    table = meso_names.port_table(variant)
    worst = parity.check_train_statistics(_Stages(twin), model, variables, _nested(table), images)
    assert worst <= 1e-4


class _Stages(torch.nn.Module):
    """A twin whose call runs its stages."""

    def __init__(self, twin):
        super().__init__()
        self.twin = twin

    def forward(self, x):
        return self.twin.stages(x)


def _nested(table):
    return {f"twin.{name}": entry for name, entry in table.items()}


@pytest.mark.parametrize("variant", TWINS)
def test_gradients_and_dtypes(variant):
    images = twins.draw_images(4, 64)
    parity.check_gradients(meso.Meso(variant, 64), images)
    for settings in ({}, meso.KERAS):
        parity.check_dtypes(meso.Meso(variant, 64, **settings))


def test_dropout_in_training_only():
    # The share of zeros in the feature is one half, and two keys differ.
    model = meso.Meso("meso4", 32)
    variables, images = parity.draw_variables(model), twins.draw_images(64, 32)
    apply = lambda key: model.apply(
        variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(key)}
    )[0]["feature"]
    apply = jax.jit(apply)
    one, other = apply(0), apply(1)
    # 1024 draws: five standard deviations are 0.08.
    assert abs(float((one == 0).mean()) - 0.5) <= 0.08
    assert not np.array_equal(one, other)
    assert (jax.jit(model.apply)(variables, images)["feature"] != 0).all()


def test_errors():
    apply = lambda model, images: jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(ValueError, match=r"\[B, 256, 256, 3\], got \[2, 255, 256, 3\]"):
        apply(meso.Meso("meso4", 256), jnp.zeros((2, 255, 256, 3)))
    with pytest.raises(ValueError, match="'meso3'; known: meso4, meso_inception4"):
        apply(meso.Meso("meso3", 64), jnp.zeros((2, 64, 64, 3)))
