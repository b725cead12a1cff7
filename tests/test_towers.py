"""What every vision tower with rotary positions is held to; what is of one alone stands in its own test file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from msddf_jax import trees
from msddf_jax.models import dinov3, pe
from msddf_jax.weights.names import dinov3_names, pe_names


def _dinov3_count(width, depth, _, patch, gated):
    block = 4 * width * width + 3 * width + 2 * 4 * width * width + 5 * width + 6 * width
    block += gated * (4 * width * width + 4 * width)
    return depth * block + 3 * patch * patch * width + width + 5 * width + 2 * width


def _pe_count(width, depth, _, patch, grid):
    block = 12 * width * width + 9 * width + 4 * width
    pool = 12 * width * width + 9 * width + 2 * width + width
    return depth * block + pool + 3 * patch * patch * width + (2 + grid * grid) * width + 4 * width


# {module: (formula, {variant: parameters}, parameters that no gradient reaches, a variant that there is not, tensor of
# the patches, {variant: names of its file})}. Counts: DINOv3ViTModel of Hugging Face transformers with the sizes of
# facebook/dinov3-vit*16-pretrain-lvd1689m, less the mask token (d scalars); timm's vit_pe_core_{tiny_patch16_384,
# small_patch16_384, base_patch16_224, large_patch14_336} with num_classes=0; Mu by the formula.
TOWERS = {
    dinov3: (
        _dinov3_count,
        {
            "Mu/8": 112_896,
            "Mu+/8": 146_176,
            "S/16": 21_596_544 - 384,
            "S+/16": 28_692_864 - 384,
            "B/16": 85_660_416 - 768,
            "L/16": 303_129_600 - 1024,
        },
        set(),
        ("G/16", "L/16"),
        "embeddings.patch_embeddings.weight",
        (dinov3_names.hf_dinov3, dinov3_names.recognise),
    ),
    pe: (
        _pe_count,
        {"Mu/8": 164_864, "T/16": 6_042_240, "S/16": 23_586_048, "B/16": 92_886_528, "L/14": 316_102_656},
        # Softmax does not see what is added to every key alike, but for the rotation of the self-attention.
        {"params/pool/key/bias"},
        ("G/14", "L/14"),
        "patch_embed.proj.weight",
        (pe_names.timm_pe, pe_names.recognise),
    ),
}
each_tower = pytest.mark.parametrize("tower", TOWERS, ids=lambda module: module.__name__.rpartition(".")[2])


@each_tower
def test_parameter_count(tower):
    count, expected, *_ = TOWERS[tower]
    assert set(expected) == set(tower.VARIANTS)
    for variant, sizes in tower.VARIANTS.items():
        side = 64 if tower is dinov3 else sizes.grid * sizes.patch
        model = tower.VisionTransformer(variant, side)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
        assert count(*sizes) == trees.count_parameters(shapes) == expected[variant], variant


@pytest.fixture(scope="module")
def made():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)), jnp.float32)
    models = {tower: tower.VisionTransformer("Mu/8", 32) for tower in TOWERS}
    return {tower: (model, random_params(model, images), images) for tower, model in models.items()}


@each_tower
def test_remat_and_bfloat16(tower, made):
    model, params, images = made[tower]
    apply = lambda **fields: jax.jit(model.clone(**fields).apply)(params, images)
    exact = apply()["feature"]
    np.testing.assert_allclose(apply(remat=True)["feature"], exact, atol=1e-5)
    np.testing.assert_allclose(apply(attention="flash", dtype=jnp.bfloat16)["feature"], exact, atol=0.1)
    half = apply(dtype=jnp.bfloat16)
    assert half["feature"].dtype == jnp.float32 and half["spatial"].dtype == jnp.bfloat16
    np.testing.assert_allclose(half["feature"], exact, atol=0.1)


@each_tower
def test_gradient_reaches_every_parameter(tower, made):
    model, params, images = made[tower]
    score = lambda p: jnp.sum(model.apply(p, images)["feature"] ** 2 * jnp.arange(64))
    sizes = {name: np.abs(grad).max() for name, grad in trees.flatten(jax.jit(jax.grad(score))(params)).items()}
    bound = 1e-7 * max(sizes.values())
    assert {name for name, size in sizes.items() if size <= bound} == TOWERS[tower][2]


@each_tower
def test_wrong_images_and_variants_are_named(tower):
    init = lambda size, *args: jax.eval_shape(tower.VisionTransformer("Mu/8", size).init, jax.random.key(0), *args)
    with pytest.raises(ValueError, match=r"16, 16.*32, 32"):
        init(16, jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match="multiple of 8, got 20"):
        init(20, jnp.zeros((1, 20, 20, 3)))
    with pytest.raises(TypeError, match="uint8"):
        init(16, jnp.zeros((1, 16, 16, 3), jnp.uint8))
    unknown, largest = TOWERS[tower][3]
    with pytest.raises(ValueError, match=f"'{unknown}'.*{largest}"):
        tower.get_variant(unknown)


@each_tower
def test_files_of_other_models_are_not_recognised(tower):
    patches, (table_of, recognise) = TOWERS[tower][4:]
    names = dict.fromkeys(table_of("Mu/8"), (64,))
    assert recognise(names) is None
    assert recognise(names | {patches: (64, 3, 8, 8)}) == "Mu/8"
    assert recognise(names | {patches: (64, 3, 9, 9)}) is None
