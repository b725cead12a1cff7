"""Maps equal what is computed by hand from the model's own activations, weights and attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn

from msddf_jax import saliency
from msddf_jax.detectors import baseline
from msddf_jax.models import clip, layers
from msddf_jax.models.tap import Tap

SIZE = 32


class LinearOfMean(nn.Module):
    """logit = mean over pixels of 2 red - green + 0 blue."""

    @nn.compact
    def __call__(self, batch, *, train):
        x = Tap(name="tap")(batch["image"])
        return {"logit": x.mean((1, 2)) @ jnp.array([2.0, -1.0, 0.0])}


def _images(count=2, size=SIZE, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (count, size, size, 3)).astype(np.float32)


def _random(model, images, seed=0):
    """Variables from NumPy, which costs no compilation; variances are positive."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": images}, train=False))

    def draw(path, leaf):
        values = 0.1 * rng.normal(size=leaf.shape).astype(np.float32)
        return jnp.abs(values) + 0.5 if path[-1].key == "var" else jnp.asarray(values)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def _applied(model):
    """As `detector.make_apply`, of whole variables."""
    return lambda variables, rows, mutable=False: model.apply(variables, rows, train=False, mutable=mutable)


def _explain(model, variables, images, *methods):
    return jax.jit(lambda v, x: saliency.explain(_applied(model), v, x, methods))(variables, images)


def _apply(model, variables, images):
    return jax.jit(lambda v, x: model.apply(v, {"image": x}, train=False))(variables, images)


def _capture(module, params, images):
    return jax.jit(lambda p, x: module.apply({"params": p}, x, capture_intermediates=True))(params, images)


def _detector(family, variant, size=SIZE, **options):
    return baseline.Model(variant, size, family=family, normalize=False, options=options)


def test_grad_cam_of_a_linear_head_by_hand():
    image = np.zeros((2, 2, 2, 3), np.float32)
    image[0, 0, 0], image[0, 0, 1], image[0, 1, 0] = (0.5, 0.2, 1), (0.1, 0.0, 0), (0.1, 0.9, 0)
    image[1, :, :, 1] = 0.5  # green lowers the logit everywhere
    out = saliency.explain(_applied(LinearOfMean()), {}, image, ["gradcam"])
    # 2 r - g is 0.8, 0.2 and -0.7: the last is no evidence for fake.
    np.testing.assert_allclose(out["gradcam"][0], [[1.0, 0.25], [0.0, 0.0]], atol=1e-6)
    np.testing.assert_array_equal(out["gradcam"][1], 0.0)
    np.testing.assert_allclose(out["score"][0], 1 / (1 + np.exp(-0.3 / 4)), rtol=1e-5)


def test_grad_cam_on_a_cnn_is_the_class_activation_map():
    model = _detector("resnet", "Mu", size=96)
    images = _images(size=96)
    variables = _random(model, images, seed=3)
    out = _apply(model, variables, images)
    kernel = np.asarray(variables["params"]["binary_head"]["out"]["kernel"])
    cam = np.maximum(np.asarray(out["spatial"]) @ (kernel[:, 1] - kernel[:, 0]), 0)
    assert (cam.max((1, 2)) > 0).any()
    expected = cam / np.maximum(cam.max((1, 2), keepdims=True), 1e-12)
    found = _explain(model, variables, images, "gradcam")
    np.testing.assert_allclose(found["gradcam"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["score"], jax.nn.sigmoid(out["logit"]), rtol=1e-5)


def test_grad_cam_on_a_vit_is_that_of_its_last_block():
    model = _detector("clip", "Mu/8")
    images = _images()
    variables = _random(model, images)
    params = variables["params"]
    backbone = clip.VisionTransformer("Mu/8", SIZE)
    _, seen = _capture(backbone, params["backbone"], images)
    entering = seen["intermediates"]["block_2"]["__call__"][0]

    def logit(tokens):
        x = clip.Block(2, 4, True, jnp.float32).apply({"params": params["backbone"]["block_3"]}, tokens)
        x = layers.layer_norm(jnp.float32).apply({"params": params["backbone"]["ln_post"]}, x[:, 0])
        logits = x @ params["binary_head"]["out"]["kernel"] + params["binary_head"]["out"]["bias"]
        return (logits[:, 1] - logits[:, 0]).sum()

    gradient, patches = np.asarray(jax.jit(jax.grad(logit))(entering))[:, 1:], np.asarray(entering)[:, 1:]
    heat = np.maximum(np.einsum("bnd,bd->bn", patches, gradient.mean(1)), 0).reshape(2, 4, 4)
    assert (heat.max((1, 2)) > 0).any()
    expected = heat / np.maximum(heat.max((1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(_explain(model, variables, images, "gradcam")["gradcam"], expected, rtol=1e-3, atol=1e-4)


def _rollout_reference(attention):
    """Abnar and Zuidema in plain loops: list of [heads, N, N] of one image -> [N, N]."""
    joint = np.eye(attention[0].shape[-1])
    for weights in attention:
        mixed = 0.5 * np.mean(weights, axis=0) + 0.5 * np.eye(len(joint))
        joint = (mixed / mixed.sum(axis=1, keepdims=True)) @ joint
    return joint


def test_rollout_equals_numpy_from_the_recorded_attention():
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(7), (3, 2, 4, 7)).astype(np.float32)  # blocks, batch, heads, N, N
    joint = np.asarray(saliency.attention_rollout(list(attention)))
    for row in range(2):
        np.testing.assert_allclose(joint[row], _rollout_reference(attention[:, row]), atol=1e-6)
    np.testing.assert_allclose(joint.sum(-1), 1.0, atol=1e-6)


@pytest.mark.parametrize("remat", [False, True])
def test_rollout_map_is_the_class_tokens_row_of_queries_and_keys(remat):
    model = _detector("clip", "Mu/8", remat=remat)
    images = _images()
    variables = _random(model, images)
    backbone = clip.VisionTransformer("Mu/8", SIZE)
    _, seen = _capture(backbone, variables["params"]["backbone"], images)
    attention = []
    for index in range(4):
        own = seen["intermediates"][f"block_{index}"]["attn"]
        query, key = (np.asarray(own[n]["__call__"][0][1], np.float64).reshape(17, 2, 32) for n in ("query", "key"))
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(32)
        attention.append(np.exp(scores) / np.exp(scores).sum(-1, keepdims=True))
    row = _rollout_reference(attention)[0, 1:].reshape(4, 4)
    heat = _explain(model, variables, images, "rollout")["rollout"][1]
    np.testing.assert_allclose(heat, (row - row.min()) / (row.max() - row.min()), atol=1e-4)


def test_rollout_passes_the_pooling_query_of_the_perception_encoder():
    model = _detector("pe", "Mu/8")
    images = _images(1)
    variables = _random(model, images)
    run = jax.jit(lambda v, x: model.apply(v, {"image": x}, train=False, mutable=["intermediates"]))
    _, sown = run(variables, images)
    sown = sown["intermediates"]["backbone"]
    joint = _rollout_reference([np.asarray(sown[f"block_{i}"]["attn"]["attention"][0][0]) for i in range(2)])
    row = (np.asarray(sown["pool"]["attention"][0][0]).mean(0) @ joint)[0, 1:].reshape(4, 4)
    heat = _explain(model, variables, images, "rollout")["rollout"][0]
    np.testing.assert_allclose(heat, (row - row.min()) / (row.max() - row.min()), atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "variant", "methods"),
    [
        ("clip", "Mu/8", {"gradcam", "rollout"}),
        ("dinov3", "Mu/8", {"gradcam", "rollout"}),
        ("pe", "Mu/8", {"gradcam", "rollout"}),
        ("xception", "Mu", {"gradcam"}),
        ("efficientnet", "Mu", {"gradcam"}),
        ("resnet", "Mu", {"gradcam"}),
        ("meso", "meso4", {"gradcam"}),
    ],
)
def test_every_backbone_has_maps_and_no_new_variables(family, variant, methods):
    model = _detector(family, variant)
    images = _images()
    variables = _random(model, images)
    assert set(variables) <= {"params", "batch_stats"} and "tap" not in variables["params"]["backbone"]
    out = _explain(model, variables, images, *sorted(methods))
    assert set(out) == {"score", *methods}
    plain = jax.eval_shape(lambda v, x: model.apply(v, {"image": x}, train=False), variables, images)
    spatial = plain["spatial"].shape[1:3]
    for name in methods:
        assert out[name].shape == (2, *spatial) and out[name].dtype == jnp.float32
        assert out[name].min() >= 0 and out[name].max() <= 1


def test_the_methods_of_a_config_and_what_it_has_not(tmp_path):
    config = tiny.tiny_config(tmp_path)
    assert saliency.methods_of(config) == ("gradcam", "rollout", "map", "boundary")
    bare = tiny.tiny_config(tmp_path, bare=True)
    with pytest.raises(ValueError, match=r"boundary: it has no boundary module.*allowed: gradcam, rollout, map"):
        saliency.make_explain_fn(bare, ["boundary"])
    with pytest.raises(ValueError, match="lime: no such method"):
        saliency.make_explain_fn(bare, ["map", "lime"])
    model = _detector("resnet", "Mu")
    with pytest.raises(ValueError, match=r"rollout: it has no attention.*allowed: gradcam"):
        saliency.explain(_applied(model), _random(model, _images()), _images(), ["rollout"])


def test_upsample_keeps_places_and_range():
    heat = np.zeros((1, 4, 4), np.float32)
    heat[0, 0, 3] = 1.0
    large = np.asarray(saliency.upsample(heat, 16))[0]
    assert large.shape == (16, 16) and large[:2, 14:].min() == 1.0 and large[8:, :8].max() == 0.0
    assert large.min() >= 0 and large.max() <= 1
