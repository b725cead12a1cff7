import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_reference

from msddf_jax import trees
from msddf_jax.models import dinov3, rope
from msddf_jax.weights import table
from msddf_jax.weights.names import dinov3_names


def _reference(variant, seed=0):
    """A DINOv3ViTModel with every parameter random, and its tensors under the names of its files."""
    torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")
    torch_reference.prepare()
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    width, depth, heads, patch, gated = dinov3.VARIANTS[variant]
    config = DINOv3ViTConfig(
        patch_size=patch,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        num_register_tokens=dinov3.REGISTERS,
        use_gated_mlp=gated,
        hidden_act="silu" if gated else "gelu",
    )
    model = DINOv3ViTModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    # Published files say "layer.0"; this class says "model.layer.0" in memory and renames when it loads.
    tensors = {name.removeprefix("model."): value.numpy() for name, value in model.state_dict().items()}
    return model, tensors


def _theirs(model, images):
    """(CLS after the last LayerNorm, patch tokens that enter the last block) of the reference."""
    import torch

    pixels = (images - np.float32(dinov3.PIXEL_MEAN)) / np.float32(dinov3.PIXEL_STD)
    with torch.no_grad():
        out = model(torch.from_numpy(pixels.transpose(0, 3, 1, 2)), output_hidden_states=True)
    return out.pooler_output.numpy(), out.hidden_states[-2][:, 1 + dinov3.REGISTERS :].numpy()


def _relative(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def _check_parity(variant, image_size, batch):
    model, tensors = _reference(variant)
    images = np.random.default_rng(1).uniform(size=(batch, image_size, image_size, 3)).astype(np.float32)
    names = dinov3_names.hf_dinov3(dinov3_names.recognise({n: t.shape for n, t in tensors.items()}))
    opened = {n: table.Tensor(t.shape, t.dtype, lambda t=t: t) for n, t in tensors.items()}
    ours = dinov3.VisionTransformer(variant, image_size)
    shapes = jax.eval_shape(ours.init, jax.random.key(0), images)
    expected = trees.flatten({"params": {"backbone": shapes["params"]}})
    table.check(opened, names, expected, "the reference", dinov3_names.SKIP)
    flat = table.to_ours(opened, names)
    out = jax.jit(ours.apply)({"params": trees.unflatten(flat)["params"]["backbone"]}, images)
    feature, patches = _theirs(model, images)
    assert _relative(out["feature"], feature) <= 1e-4
    assert _relative(out["spatial"].reshape(patches.shape), patches) <= 1e-4
    back = table.to_theirs(flat, names)
    assert set(tensors) - set(back) == {"embeddings.mask_token"}
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[name], err_msg=name)


@pytest.mark.parametrize(("variant", "image_size"), [("Mu/8", 32), ("Mu/8", 72), ("Mu+/8", 40)])
def test_features_equal_those_of_transformers(variant, image_size):
    _check_parity(variant, image_size, 2)


@pytest.mark.parity
@pytest.mark.parametrize(("variant", "image_size"), [("S+/16", 112), ("L/16", 224)])
def test_full_size_features_equal_those_of_transformers(variant, image_size):
    _check_parity(variant, image_size, 1)


def test_angles_of_two_patches_by_hand():
    # Two patches a side: centres at -1/2 and 1/2. Head width 4 has one frequency, 2 pi: angles of -pi and pi.
    np.testing.assert_allclose(
        rope.dinov3_angles(2, 4), np.pi * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]]), rtol=1e-6
    )
    # Head width 8 adds 2 pi / sqrt(100).
    np.testing.assert_allclose(rope.dinov3_angles(2, 8)[1], np.pi * np.array([-1, -0.1, 1, 0.1]), rtol=1e-6)


def test_rotation_by_a_quarter_turn():
    x = jnp.asarray([[1.0, 2.0, 3.0, 4.0]])
    quarter = np.full((1, 2), np.pi / 2, np.float32)
    np.testing.assert_allclose(rope.rotate(x, quarter, interleaved=False), [[-3, -4, 1, 2]], atol=1e-6)
    np.testing.assert_allclose(rope.rotate(x, quarter, interleaved=True), [[-2, 1, -4, 3]], atol=1e-6)
    np.testing.assert_array_equal(rope.rotate(x, np.zeros((1, 2), np.float32), interleaved=True), x)
