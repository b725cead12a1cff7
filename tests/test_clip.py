import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from msddf_jax.models import clip, layers
from msddf_jax.models.clip import VARIANTS, VisionTransformer, grid_size, injection_blocks

# Parameters by variant and image size. B/32, B/16, L/14 at 224: CLIPVisionModel of Hugging Face transformers
# for openai/clip-vit-*; H/14: the same for LAION's; the rest by the formula of `_count`.
PARAMETERS = {
    ("B/32", 224): 87_456_000,
    ("B/16", 224): 85_799_424,
    ("L/14", 224): 303_179_776,
    ("L/14", 336): 303_507_456,
    ("H/14", 224): 630_766_080,
    ("L/16", 224): 303_302_656,
    ("S/16", 224): 21_666_048,
    ("Ti/16", 224): 5_524_608,
    ("Ti/8", 64): 5_388_672,
    ("Mu/8", 64): 216_704,
}
# The plain ViT at 224, without classifier: timm's vit_{tiny,small,base,large}_patch16_224.
PLAIN_PARAMETERS = {"Ti/16": 5_524_416, "S/16": 21_665_664, "B/16": 85_798_656, "L/16": 303_301_632}
LAYER_NORM_PARAMETERS = {"B/16": 39_936, "L/14": 102_400}


@functools.cache
def _shapes(variant, image_size, plain=False):
    model = VisionTransformer(variant, image_size, **(clip.PLAIN_VIT if plain else {}))
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def _size(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _count(variant, image_size):
    width, depth, _, patch = VARIANTS[variant]
    tokens = (image_size // patch) ** 2
    block = 4 * (width * width + width) + 2 * 4 * width * width + 4 * width + width + 2 * 2 * width
    return depth * block + patch * patch * 3 * width + width + (tokens + 1) * width + 2 * 2 * width


@pytest.mark.parametrize(("variant", "image_size"), PARAMETERS)
def test_parameter_count(variant, image_size):
    assert _count(variant, image_size) == PARAMETERS[variant, image_size]
    assert _size(_shapes(variant, image_size)) == PARAMETERS[variant, image_size]


@pytest.mark.parametrize("variant", PLAIN_PARAMETERS)
def test_parameter_count_of_the_plain_vit(variant):
    assert _size(_shapes(variant, 224, plain=True)) == PLAIN_PARAMETERS[variant]


def test_every_variant_has_a_pinned_count():
    assert {variant for variant, _ in PARAMETERS} == set(VARIANTS)


@pytest.mark.parametrize("variant", LAYER_NORM_PARAMETERS)
def test_layer_norm_parameter_count(variant):
    flat = flax.traverse_util.flatten_dict(_shapes(variant, 224), sep="/")
    norms = [leaf for name, leaf in flat.items() if "ln_" in name]
    assert _size(norms) == LAYER_NORM_PARAMETERS[variant]


def test_parameter_names():
    params = _shapes("Mu/8", 16)
    assert set(params) == {"class_token", "pos_embed", "patch_embed", "ln_pre", "ln_post"} | {
        f"block_{i}" for i in range(4)
    }
    flat = flax.traverse_util.flatten_dict(params["block_3"], sep="/")
    block = {name: leaf.shape for name, leaf in flat.items()}
    linear = {"attn/query": (64, 64), "attn/key": (64, 64), "attn/value": (64, 64), "attn/out": (64, 64)}
    linear |= {"mlp/fc_1": (64, 256), "mlp/fc_2": (256, 64)}
    expected = {f"{name}/kernel": shape for name, shape in linear.items()}
    expected |= {f"{name}/bias": shape[1:] for name, shape in linear.items()}
    expected |= {f"{ln}/{leaf}": (64,) for ln in ("ln_1", "ln_2") for leaf in ("scale", "bias")}
    assert block == expected


def _norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * p["scale"] + p["bias"]


def _affine(x, p):
    return x @ p["kernel"] + p["bias"]


def _numpy_clip(params, images, heads, patch, inject):
    """CLIP's vision tower in float64 NumPy, patches and heads by explicit loops."""
    mean, std = np.array(clip.PIXEL_MEAN), np.array(clip.PIXEL_STD)
    outputs = []
    for index, image in enumerate((np.asarray(images, np.float64) - mean) / std):
        side = image.shape[0] // patch
        tokens = [params["class_token"]]
        for row in range(side):
            for col in range(side):
                cut = image[row * patch : (row + 1) * patch, col * patch : (col + 1) * patch]
                tokens.append(np.tensordot(cut, params["patch_embed"], 3))
        x = _norm(np.stack(tokens) + params["pos_embed"], params["ln_pre"])
        mid = None
        depth = sum(name.startswith("block_") for name in params)
        for i in range(depth):
            mid = x[1:].copy() if i == depth // 2 else mid
            x[1:] += inject.get(i, np.zeros((len(images), 1, 1)))[index]
            p = params[f"block_{i}"]
            y = _norm(x, p["ln_1"])
            q, k, v = (_affine(y, p["attn"][name]) for name in ("query", "key", "value"))
            mixed = []
            for cut in np.split(np.arange(x.shape[1]), heads):
                scores = q[:, cut] @ k[:, cut].T / np.sqrt(len(cut))
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                mixed.append(weights / weights.sum(-1, keepdims=True) @ v[:, cut])
            x = x + _affine(np.concatenate(mixed, -1), p["attn"]["out"])
            y = _affine(_norm(x, p["ln_2"]), p["mlp"]["fc_1"])
            x = x + _affine(y / (1 + np.exp(-1.702 * y)), p["mlp"]["fc_2"])
        x = _norm(x, params["ln_post"])
        outputs.append((x[0], x[1:], mid))
    return [np.stack(part) for part in zip(*outputs)]


@pytest.fixture(scope="module")
def mu():
    """A Mu/8 at 16 px whose parameters are all random, its images, and tokens to inject."""
    rng = np.random.default_rng(0)
    model = VisionTransformer("Mu/8", 16)
    images = jnp.asarray(rng.uniform(size=(2, 16, 16, 3)), jnp.float32)
    params = random_params(model, images, scale=0.2)["params"]
    inject = {i: jnp.asarray(rng.normal(size=(2, 4, 64)), jnp.float32) for i in (0, 2, 3)}
    return model, params, images, inject


def test_forward_equals_numpy(mu):
    model, params, images, inject = mu
    out = jax.jit(model.apply)({"params": params}, images, inject)
    double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    cls, tokens, mid = _numpy_clip(double, images, 2, 8, jax.tree.map(np.asarray, inject))
    np.testing.assert_allclose(out["cls"], cls, atol=2e-4)
    np.testing.assert_allclose(out["tokens"], tokens, atol=2e-4)
    np.testing.assert_allclose(out["mid_tokens"], mid, atol=2e-4)


@pytest.mark.long
def test_the_class_token_alone_costs_less_and_is_the_same():
    model, images = VisionTransformer("Mu/8", 16), jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
    params = jax.jit(model.init)(jax.random.key(0), images)
    out, _ = model.apply(params, images, mutable=["intermediates"])  # the last block for all tokens at once
    apart = model.apply(params, images)
    for name in ("cls", "tokens"):
        np.testing.assert_allclose(apart[name], out[name], atol=2e-5)
    work = lambda names: jax.jit(lambda p, x: [model.apply(p, x)[n] for n in names]).lower(params, images).compile()
    flops = [work(names).cost_analysis()["flops"] for names in (["cls"], ["cls", "tokens"])]
    # 4 patch tokens of width 64: query, output and the MLP's two products, 10 * 64 * 64 each, two operations a term.
    spared = 2 * len(images) * 4 * 10 * 64 * 64
    assert 0.9 * spared < flops[1] - flops[0] < 1.5 * spared


def test_remat_and_bfloat16(mu):
    model, params, images, _ = mu
    apply = lambda model: jax.jit(model.apply)({"params": params}, images)
    exact = apply(model)["cls"]
    np.testing.assert_allclose(apply(VisionTransformer("Mu/8", 16, remat=True))["cls"], exact, atol=1e-5)
    with pytest.raises(ValueError, match="set one of the two"):
        apply(VisionTransformer("Mu/8", 16, remat=True, remat_mlp=True))

    half = VisionTransformer("Mu/8", 16, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(0), images)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
    out = apply(half)
    assert {name: value.dtype for name, value in out.items() if name != "stages"} == {
        "cls": jnp.float32, "tokens": jnp.float32, "mid_tokens": jnp.bfloat16, "late_tokens": jnp.bfloat16,
        "feature": jnp.float32, "spatial": jnp.bfloat16,
    }  # fmt: skip
    np.testing.assert_allclose(out["cls"], exact, atol=0.1)


def test_gradient_of_tokens_injected_at_the_last_block_reaches_the_class_token(mu):
    # What Grad-CAM differentiates: late_tokens through a zero injected where they enter.
    model, params, images, _ = mu
    score = lambda zeros: model.apply({"params": params}, images, {3: zeros})["cls"].sum()
    grad = jax.jit(jax.grad(score))(jnp.zeros((2, 4, 64)))
    assert np.abs(grad).max(-1).min() > 0


def test_feature_and_grid_of_the_backbone_contract(mu):
    model, params, images, inject = mu
    out = jax.jit(functools.partial(model.apply, train=True))({"params": params}, images, inject)
    np.testing.assert_array_equal(out["feature"], out["cls"])
    assert out["spatial"].shape == (2, 2, 2, 64)
    np.testing.assert_array_equal(out["spatial"][:, 1, 0], out["late_tokens"][:, 2])


def test_pixel_statistics_are_the_models(mu):
    model, params, images, _ = mu
    half = VisionTransformer("Mu/8", 16, pixel_mean=(0.5,) * 3, pixel_std=(0.25,) * 3)
    # The same normalised pixels, whichever statistics they come from.
    shown = (images - 0.5) / 0.25 * np.float32(clip.PIXEL_STD) + np.float32(clip.PIXEL_MEAN)
    feature = lambda model, images: jax.jit(model.apply)({"params": params}, images)["feature"]
    np.testing.assert_allclose(feature(half, images), feature(model, shown), atol=1e-4)


def test_plain_vit_has_a_patch_bias_and_no_first_norm():
    model = VisionTransformer("Mu/8", 16, class_position=False, **clip.PLAIN_VIT)
    images = jnp.full((1, 16, 16, 3), 0.5)
    params = random_params(model, images)["params"]
    assert "ln_pre" not in params and params["pos_embed"].shape == (4, 64)
    apply = jax.jit(model.apply)
    feature = lambda params: apply({"params": params}, images)["feature"]
    moved = dict(params, patch_embed_bias=params["patch_embed_bias"] + 1.0, pos_embed=params["pos_embed"] - 1.0)
    # What the bias adds to every patch token, the positions take away again; the class token has neither.
    np.testing.assert_allclose(feature(moved), feature(params), atol=1e-5)


@pytest.mark.parametrize(("fields", "slope"), [({}, 1.702), ({"quick_gelu": False, "tanh_gelu": True}, None)])
def test_activations(fields, slope):
    mlp = layers.Mlp(1, fields.get("quick_gelu", True), jnp.float32, fields.get("tanh_gelu", False))
    x = np.linspace(-3, 3, 8, dtype=np.float32)[:, None] * np.eye(1, 2, dtype=np.float32)
    eye = {"fc_1": {"kernel": np.eye(2, 8), "bias": np.zeros(8)}, "fc_2": {"kernel": np.eye(8, 2), "bias": np.zeros(2)}}
    tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    expected = x / (1 + np.exp(-slope * x)) if slope else tanh
    np.testing.assert_allclose(mlp.apply({"params": jax.tree.map(jnp.float32, eye)}, x), expected, atol=1e-6)


def test_errors_name_both_sizes():
    key, images = jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    init = lambda *args: jax.eval_shape(VisionTransformer("Mu/8", 16).init, key, *args)
    with pytest.raises(ValueError, match=r"16, 16.*32, 32"):
        init(images)
    with pytest.raises(TypeError, match="uint8"):
        init(jnp.zeros((1, 16, 16, 3), jnp.uint8))
    with pytest.raises(ValueError, match=r"block 4.*0\.\.3"):
        init(images[:, :16, :16], {4: jnp.zeros((1, 4, 64))})
    with pytest.raises(ValueError, match=r"\[1, 9, 64\], expected \[1, 4, 64\]"):
        init(images[:, :16, :16], {0: jnp.zeros((1, 9, 64))})
    with pytest.raises(ValueError, match="two activations"):
        jax.eval_shape(VisionTransformer("Mu/8", 16, tanh_gelu=True).init, key, images[:, :16, :16])
    with pytest.raises(ValueError, match="multiple of 16, got 100"):
        grid_size("B/16", 100)
    with pytest.raises(ValueError, match=r"'B/8'.*B/16"):
        grid_size("B/8", 224)


def test_injection_depths():
    assert injection_blocks("B/16") == (3, 6, 9)
    assert injection_blocks("L/14") == (6, 12, 18)
