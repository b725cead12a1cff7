import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_reference
from random_params import random_params

from msddf_jax import trees
from msddf_jax.models import pe, rope
from msddf_jax.weights import pe_names, table

# timm's vit_pe_core_{tiny_patch16_384, small_patch16_384, base_patch16_224, large_patch14_336} with num_classes=0; Mu
# by the formula of `_count`.
PARAMETERS = {
    "Mu/8": 164_864,
    "T/16": 6_042_240,
    "S/16": 23_586_048,
    "B/16": 92_886_528,
    "L/14": 316_102_656,
}


def _count(width, depth, _, patch, grid):
    block = 12 * width * width + 9 * width + 4 * width
    pool = 12 * width * width + 9 * width + 2 * width + width
    return depth * block + pool + 3 * patch * patch * width + (2 + grid * grid) * width + 4 * width


@pytest.mark.parametrize("variant", pe.VARIANTS)
def test_parameter_count(variant):
    sizes = pe.VARIANTS[variant]
    side = sizes.grid * sizes.patch
    model = pe.VisionTransformer(variant, side)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    assert _count(*sizes) == PARAMETERS[variant]
    assert trees.count_parameters(shapes) == PARAMETERS[variant]


def _reference(variant, dynamic, seed=0):
    """timm's model with every parameter random. dynamic: it resamples its position embedding to the image."""
    torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")
    torch_reference.prepare()
    import timm
    from timm.layers import LayerNorm
    from timm.models.eva import Eva

    if variant == "Mu/8":
        width, depth, heads, patch, grid = pe.VARIANTS[variant]
        # As timm builds its published sizes.
        model = Eva(
            img_size=grid * patch,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            global_pool="map",
            attn_type="rope",
            use_pre_transformer_norm=True,
            use_rot_pos_emb=True,
            ref_feat_shape=(grid, grid),
            rope_grid_offset=1.0,
            rope_grid_indexing="xy",
            attn_pool_num_heads=pe.POOL_HEADS,
            attn_pool_mlp_ratio=4.0,
            norm_layer=lambda *args, **kwargs: LayerNorm(*args, eps=1e-5, **kwargs),
            dynamic_img_size=dynamic,
        )
    else:
        name = {"T/16": "tiny_patch16_384", "L/14": "large_patch14_336"}[variant]
        model = timm.create_model(f"vit_pe_core_{name}", num_classes=0, dynamic_img_size=dynamic)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def _theirs(model, images):
    """(pooled feature, patch tokens that enter the last block as a grid) of the reference."""
    import torch

    pixels = torch.from_numpy(((images - 0.5) / 0.5).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        before = model.forward_intermediates(pixels, indices=[len(model.blocks) - 2], intermediates_only=True)[0]
        return model(pixels).numpy(), before.numpy().transpose(0, 2, 3, 1)


def _relative(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def _check_parity(variant, image_size, batch):
    from timm.layers import resample_abs_pos_embed

    sizes = pe.VARIANTS[variant]
    grid = image_size // sizes.patch
    model = _reference(variant, dynamic=grid != sizes.grid)
    images = np.random.default_rng(1).uniform(size=(batch, image_size, image_size, 3)).astype(np.float32)
    feature, patches = _theirs(model, images)
    tensors = {name: value.detach() for name, value in model.state_dict().items()}
    # The published grid has its own size; elsewhere the model resamples its positions, and so does this.
    tensors["pos_embed"] = resample_abs_pos_embed(tensors["pos_embed"], [grid, grid])
    tensors = {name: value.numpy() for name, value in tensors.items()}
    assert pe_names.recognise({n: t.shape for n, t in tensors.items()}) == variant
    names = pe_names.timm_pe(variant)
    opened = {n: table.Tensor(t.shape, t.dtype, lambda t=t: t) for n, t in tensors.items()}
    ours = pe.VisionTransformer(variant, image_size)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), images)
    table.check(opened, names, trees.flatten({"params": {"backbone": shapes["params"]}}), "the reference")
    flat = table.to_ours(opened, names)
    out = jax.jit(ours.apply)({"params": trees.unflatten(flat)["params"]["backbone"]}, images)
    assert _relative(out["feature"], feature) <= 1e-4
    assert _relative(out["spatial"], patches) <= 1e-4
    back = table.to_theirs(flat, names)
    assert set(back) == set(tensors)
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)


# Mu's own grid is 6 x 6; 5 x 5 and 7 x 7 are resampled.
@pytest.mark.parametrize("image_size", [48, 40, 56])
def test_features_equal_those_of_timm(image_size):
    pytest.importorskip("torch", reason="parity needs the [torch] extra")
    torch_reference.prepare()
    _check_parity("Mu/8", image_size, 2)


@pytest.mark.parity
@pytest.mark.parametrize(("variant", "image_size"), [("T/16", 384), ("T/16", 224), ("L/14", 336), ("L/14", 224)])
def test_full_size_features_equal_those_of_timm(variant, image_size):
    pytest.importorskip("torch", reason="parity needs the [torch] extra")
    torch_reference.prepare()
    _check_parity(variant, image_size, 1)


def test_angles_of_two_patches_by_hand():
    # Head width 8 has the frequencies 1 and 1 / sqrt(10,000); two tokens of pretraining at 1 and 2, column first.
    expected = [[1, 0.01, 1, 0.01], [2, 0.02, 1, 0.01], [1, 0.01, 2, 0.02], [2, 0.02, 2, 0.02]]
    np.testing.assert_allclose(rope.pe_angles(2, 2, 8), expected, rtol=1e-6)
    # A single token where pretraining had three spans all of them.
    np.testing.assert_allclose(rope.pe_angles(1, 3, 8), [[3, 0.03, 3, 0.03]], rtol=1e-6)


@pytest.fixture(scope="module")
def mu():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)), jnp.float32)
    model = pe.VisionTransformer("Mu/8", 32)
    return model, random_params(model, images), images


def test_remat_and_bfloat16(mu):
    model, params, images = mu
    apply = lambda **fields: jax.jit(model.clone(**fields).apply)(params, images)
    exact = apply()["feature"]
    np.testing.assert_allclose(apply(remat=True)["feature"], exact, atol=1e-5)
    half = apply(dtype=jnp.bfloat16)
    assert half["feature"].dtype == jnp.float32 and half["spatial"].dtype == jnp.bfloat16
    np.testing.assert_allclose(half["feature"], exact, atol=0.1)


def test_gradient_reaches_every_parameter(mu):
    model, params, images = mu
    score = lambda p: jnp.sum(model.apply(p, images)["feature"] ** 2 * jnp.arange(64))
    grads = trees.flatten(jax.jit(jax.grad(score))(params))
    # Softmax does not see what is added to every key alike, but for the rotation of the self-attention.
    bound = 1e-4 * np.abs(grads["params/pos_embed"]).max()
    still = {name for name, grad in grads.items() if np.abs(grad).max() < bound}
    assert still == {"params/pool/key/bias"}


def test_errors_name_both_sizes():
    init = lambda size, *args: jax.eval_shape(pe.VisionTransformer("Mu/8", size).init, jax.random.key(0), *args)
    with pytest.raises(ValueError, match=r"16, 16.*32, 32"):
        init(16, jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match="multiple of 8, got 20"):
        init(20, jnp.zeros((1, 20, 20, 3)))
    with pytest.raises(TypeError, match="uint8"):
        init(16, jnp.zeros((1, 16, 16, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"'G/14'.*L/14"):
        pe.get_variant("G/14")


def test_other_models_are_not_recognised():
    names = dict.fromkeys(pe_names.timm_pe("Mu/8"), (64,))
    assert pe_names.recognise(names) is None
    assert pe_names.recognise(names | {"patch_embed.proj.weight": (64, 3, 8, 8)}) == "Mu/8"
    assert pe_names.recognise(names | {"patch_embed.proj.weight": (64, 3, 9, 9)}) is None
