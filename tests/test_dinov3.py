import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_reference
from random_params import random_params

from msddf_jax import trees
from msddf_jax.models import dinov3, rope
from msddf_jax.weights import dinov3_names, table

# DINOv3ViTModel of Hugging Face transformers with the sizes of facebook/dinov3-vit*16-pretrain-lvd1689m, less the mask
# token (d scalars); Mu by the formula of `_count`.
PARAMETERS = {
    "Mu/8": 112_896,
    "Mu+/8": 146_176,
    "S/16": 21_596_544 - 384,
    "S+/16": 28_692_864 - 384,
    "B/16": 85_660_416 - 768,
    "L/16": 303_129_600 - 1024,
}


def _count(width, depth, _, patch, gated):
    block = 4 * width * width + 3 * width + 2 * 4 * width * width + 5 * width + 6 * width
    block += gated * (4 * width * width + 4 * width)
    return depth * block + 3 * patch * patch * width + width + 5 * width + 2 * width


@pytest.mark.parametrize("variant", dinov3.VARIANTS)
def test_parameter_count(variant):
    model = dinov3.VisionTransformer(variant, 64)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert _count(*dinov3.VARIANTS[variant]) == PARAMETERS[variant]
    assert trees.count_parameters(shapes) == PARAMETERS[variant]


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


@pytest.fixture(scope="module")
def mu():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)), jnp.float32)
    model = dinov3.VisionTransformer("Mu/8", 32)
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
    assert [name for name, grad in grads.items() if not np.abs(grad).max() > 0] == []


def test_errors_name_both_sizes():
    init = lambda size, *args: jax.eval_shape(dinov3.VisionTransformer("Mu/8", size).init, jax.random.key(0), *args)
    with pytest.raises(ValueError, match=r"16, 16.*32, 32"):
        init(16, jnp.zeros((1, 32, 32, 3)))
    with pytest.raises(ValueError, match="multiple of 8, got 20"):
        init(20, jnp.zeros((1, 20, 20, 3)))
    with pytest.raises(TypeError, match="uint8"):
        init(16, jnp.zeros((1, 16, 16, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"'G/16'.*L/16"):
        dinov3.get_variant("G/16")


def test_other_models_are_not_recognised():
    names = dict.fromkeys(dinov3_names.hf_dinov3("Mu/8"), (64,))
    assert dinov3_names.recognise(names) is None
    assert dinov3_names.recognise(names | {"embeddings.patch_embeddings.weight": (64, 3, 8, 8)}) == "Mu/8"
    assert dinov3_names.recognise(names | {"embeddings.patch_embeddings.weight": (64, 3, 9, 9)}) is None
