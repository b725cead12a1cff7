import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_params import random_params

from msddf_jax.models import clip, clip_text
from msddf_jax.models.clip_text import ClipModel, TextTransformer

# Both towers, projections and temperature: Hugging Face's CLIPModel of openai/clip-vit-* and of LAION's H/14.
PARAMETERS = {
    ("B/32", 224): 151_277_313,
    ("B/16", 224): 149_620_737,
    ("L/14", 224): 427_616_513,
    ("L/14", 336): 427_944_193,
    ("H/14", 224): 986_109_441,
}
# Start, text, end (the highest id), padding.
IDS = np.array([[97, 3, 14, 15, 98, 0, 0], [97, 92, 98, 0, 0, 0, 0]], np.int32)


def _size(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(("variant", "image_size"), PARAMETERS)
def test_parameter_count(variant, image_size):
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    ids = jax.ShapeDtypeStruct((1, 77), jnp.int32)
    shapes = jax.eval_shape(ClipModel(variant, image_size).init, jax.random.key(0), images, ids)
    assert _size(shapes) == PARAMETERS[variant, image_size]


def test_every_text_tower_has_a_vision_tower():
    assert set(clip_text.TEXT_VARIANTS) <= set(clip.VARIANTS)
    assert {variant for variant, _ in PARAMETERS} == set(clip_text.TEXT_VARIANTS) - {"Mu/8", "Ti/16"}


@pytest.fixture(scope="module")
def mu():
    """A Mu/8 whose parameters are all random, and its images."""
    model = ClipModel("Mu/8", 16)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 16, 16, 3)), jnp.float32)
    return model, random_params(model, images, IDS, scale=0.2)["params"], images


@pytest.fixture(scope="module")
def both(mu):
    model, params, images = mu
    return jax.jit(model.apply)({"params": params}, images, IDS)


@pytest.fixture(scope="module")
def encode(mu):
    apply = jax.jit(TextTransformer("Mu/8").apply)
    return lambda ids: apply({"params": mu[1]["text"]}, jnp.asarray(ids))


def test_pooled_where_the_text_ends(encode):
    out = encode(IDS)
    assert out["feature"].shape == (2, 48) and out["feature"].dtype == jnp.float32
    # Compiled together they may differ in a last bit.
    np.testing.assert_allclose(out["feature"], np.stack([out["tokens"][0, 4], out["tokens"][1, 2]]), atol=1e-6)


def test_tokens_see_only_what_is_before_them(encode):
    changed = IDS.copy()
    changed[0, 3] = 50
    before, after = encode(IDS)["tokens"], encode(changed)["tokens"]
    np.testing.assert_array_equal(before[0, :3], after[0, :3])
    assert (np.abs(before - after)[0, 3:].max(-1) > 1e-4).all()


def test_what_pads_changes_no_feature(encode):
    padded = np.where(IDS == 0, 98, IDS)
    np.testing.assert_array_equal(encode(padded)["feature"], encode(IDS)["feature"])
    np.testing.assert_allclose(encode(IDS[1:, :3])["feature"], encode(IDS)["feature"][1:], atol=1e-5)


def test_logits_are_scaled_cosines(mu, both):
    image, text = np.float64(both["image_embeds"]), np.float64(both["text_embeds"])
    assert image.shape == (3, 32) and text.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(text, axis=1), 1, rtol=1e-5)
    scale = np.exp(np.float64(mu[1]["logit_scale"]))
    np.testing.assert_allclose(both["logits_per_image"], scale * image @ text.T, atol=1e-5)
    assert abs(scale - 1) > 0.01


def test_one_tower_alone(mu, both):
    model, params, images = mu
    for given, name in (((images, None), "image_embeds"), ((None, IDS), "text_embeds")):
        alone = jax.jit(model.apply)({"params": params}, *given)
        assert set(alone) == {name}
        np.testing.assert_allclose(alone[name], both[name], atol=1e-6)


def test_bfloat16_keeps_parameters_and_features_float32(mu, encode):
    _, params, _ = mu
    half = TextTransformer("Mu/8", dtype=jnp.bfloat16)
    shapes = jax.eval_shape(half.init, jax.random.key(0), IDS)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype(np.float32)}
    out = jax.jit(half.apply)({"params": params["text"]}, IDS)["feature"]
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, encode(IDS)["feature"], atol=0.1)


def test_errors():
    init = lambda ids, variant="Mu/8": jax.eval_shape(TextTransformer(variant).init, jax.random.key(0), ids)
    with pytest.raises(ValueError, match=r"\[B, 1\.\.77\], got \[1, 78\]"):
        init(jnp.zeros((1, 78), jnp.int32))
    with pytest.raises(ValueError, match=r"got \[77\]"):
        init(jnp.zeros(77, jnp.int32))
    with pytest.raises(TypeError, match="float32"):
        init(jnp.zeros((1, 77)))
    with pytest.raises(ValueError, match=r"'S/16'.*B/16"):
        init(jnp.zeros((1, 77), jnp.int32), "S/16")
