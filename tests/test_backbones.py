"""What every backbone gives beside its feature: named stages, as listed, on any number of input channels."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.models import backbones, layers

SMALL = {
    "clip": ("Mu/8", 32),
    "dinov3": ("Mu/8", 32),
    "pe": ("Mu/8", 32),
    "xception": ("Mu", 96),
    "efficientnet": ("Mu", 64),
    "resnet": ("Mu", 64),
    "meso": ("meso_inception4", 64),
    "vgg": ("Mu", 64),
    "hrnet": ("Mu", 64),
    "iresnet": ("Mu", 64),
}


def _images(size, channels=3):
    return np.random.default_rng(0).random((2, size, size, channels), np.float32)


def _shapes(family, variant, size, dtype=jnp.float32, channels=3):
    model = backbones.make(family, variant, size, dtype=dtype, name=None, in_channels=channels)
    run = lambda key: model.init_with_output(key, jnp.zeros((2, size, size, channels)))
    return jax.eval_shape(run, jax.random.key(0))


@pytest.mark.parametrize("family", backbones.FAMILIES)
def test_the_list_of_stages_is_what_runs(family):
    variant, size = SMALL[family]
    out, _ = _shapes(family, variant, size, jnp.bfloat16)
    listed = backbones.stages(family, variant)
    assert set(out["stages"]) == set(listed)
    for name, (channels, stride) in listed.items():
        stage = out["stages"][name]
        assert (stage.shape[0], stage.shape[3], stage.dtype) == (2, channels, jnp.bfloat16), name
        assert [round(size / side) for side in stage.shape[1:3]] == [stride, stride], name


@pytest.mark.parametrize(
    ("family", "variant", "expected"),
    [
        # Widths and reductions of the papers' tables, in pixels of the image.
        ("xception", "xception", {"stem": (64, 2), "block_3": (728, 16), "block_7": (728, 16), "sep_4": (2048, 32)}),
        ("efficientnet", "B4", {"block_2": (32, 4), "block_5": (32, 4), "block_9": (56, 8), "block_21": (160, 16)}),
        ("efficientnet", "B4", {"stem": (48, 2), "block_31": (448, 32), "head": (1792, 32)}),
        ("resnet", "resnet34", {"stem": (64, 4), "stage_1": (64, 4), "stage_4": (512, 32)}),
        ("vgg", "vgg19", {"stage_1": (64, 2), "stage_2": (128, 4), "stage_3": (256, 8)}),
        ("hrnet", "W48", {"stem": (64, 4), "stage_1": (256, 4), "map_32": (384, 32), "joined": (720, 4)}),
        ("iresnet", "iresnet50", {"stem": (64, 1), "block_2": (64, 2), "block_20": (256, 8), "norm": (512, 16)}),
        ("meso", "meso4", {"conv_1": (8, 2), "conv_4": (16, 32)}),
        ("clip", "L/14", {"block_0": (1024, 14), "block_23": (1024, 14)}),
    ],
)
def test_stages_that_detectors_read(family, variant, expected):
    listed = backbones.stages(family, variant)
    assert {name: listed[name] for name in expected} == expected


@pytest.mark.parametrize("family", ["clip", "dinov3", "pe"])
def test_stages_of_a_tower_are_its_patch_tokens(family):
    variant, size = SMALL[family]
    model = backbones.make(family, variant, size, dtype=jnp.float32, name=None)
    _, shapes = _shapes(family, variant, size)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), shapes)
    variables["params"]["ln_post"] = {"scale": np.ones(64, np.float32), "bias": np.zeros(64, np.float32)}
    out = jax.jit(model.apply)(variables, _images(size))
    before_last, last = list(backbones.stages(family, variant))[-2:]
    # What enters the last block is what the one before gave.
    np.testing.assert_array_equal(out["stages"][before_last], out["spatial"])
    if family == "clip":
        last = out["stages"][last]
        normed = (last - last.mean(-1, keepdims=True)) / np.sqrt(last.var(-1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(normed.reshape(2, 16, 64), out["tokens"], atol=1e-4)


@pytest.mark.parametrize("family", ["xception", "resnet", "efficientnet", "meso", "vgg", "hrnet", "iresnet"])
def test_the_last_stage_of_a_convolutional_one_is_its_map(family):
    variant, size = SMALL[family]
    model = backbones.make(family, variant, size, dtype=jnp.float32, name=None)
    _, variables = _shapes(family, variant, size)
    last = list(backbones.stages(family, variant))[-1]

    def both(variables, images):
        out = model.apply(variables, images)
        return out["stages"][last], out["spatial"], out["feature"]

    # One value of the program, which nothing has to run for.
    stage, spatial, feature = jax.make_jaxpr(both)(variables, _images(size)).jaxpr.outvars
    assert stage is spatial and stage is not feature


@pytest.mark.parametrize("family", backbones.FAMILIES)
def test_another_number_of_channels_is_taken_as_it_is(family):
    variant, size = SMALL[family]
    _, variables = _shapes(family, variant, size, channels=5)
    _, plain = _shapes(family, variant, size)
    differs = [
        (jax.tree_util.keystr(path), leaf.shape, other.shape)
        for (path, leaf), other in zip(
            jax.tree_util.tree_leaves_with_path(variables), jax.tree.leaves(plain), strict=True
        )
        if leaf.shape != other.shape
    ]
    # The first layer of MesoInception is four: one for each branch.
    assert len(differs) == (4 if family == "meso" else 1)
    assert all(shape[-2] == 5 and other[-2] == 3 for _, shape, other in differs)


def test_pixels_are_normalised_where_mean_and_deviation_fit():
    images = np.full((1, 2, 2, 4), 0.75, np.float32)
    four = layers.normalized(
        images, 2, (0.5, 0.25, 0.75, 0.0), (0.5, 0.25, 1.0, 3.0), jnp.float32, "Net", in_channels=4
    )
    np.testing.assert_array_equal(four[0, 1, 1], [0.5, 2.0, 0.0, 0.25])
    # The default three entries say nothing about four channels.
    plain = layers.normalized(images, 2, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), jnp.bfloat16, "Net", in_channels=4)
    assert plain.dtype == jnp.bfloat16
    np.testing.assert_array_equal(plain.astype(np.float32), images)
    with pytest.raises(ValueError, match="Net has 4 input channels; pixel_mean and pixel_std have 3 and 4 entries"):
        layers.normalized(images, 2, (0.5,) * 3, (0.5,) * 4, jnp.float32, "Net", in_channels=4)
    with pytest.raises(ValueError, match="Net has 3 input channels; pixel_mean and pixel_std have 1 and 1 entries"):
        layers.normalized(images[..., :3], 2, (0.5,), (0.5,), jnp.float32, "Net")
    with pytest.raises(ValueError, match=r"Net was built for images \[B, 2, 2, 3\], got \[1, 2, 2, 4\]"):
        layers.normalized(images, 2, (0.5,) * 3, (0.5,) * 3, jnp.float32, "Net")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="unknown backbone family 'inception'; there are clip, dinov3"):
        backbones.stages("inception", "v3")
    with pytest.raises(ValueError, match="resnet has no variant 'resnet18'; it has resnet34, resnet50, Mu"):
        backbones.stages("resnet", "resnet18")


def test_only_what_is_of_clip_imports_it():
    folder = pathlib.Path(backbones.__file__).parent
    of_clip = {path.stem for path in folder.glob("*.py") if re.search(r"^from .*\bclip\b", path.read_text(), re.M)}
    assert of_clip == {"backbones", "clip_text", "trunk"}
