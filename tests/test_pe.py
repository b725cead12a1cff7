import jax
import numpy as np
import pytest
import torch_reference

from msddf_jax import trees
from msddf_jax.models import pe, rope
from msddf_jax.weights import table
from msddf_jax.weights.names import pe_names


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
