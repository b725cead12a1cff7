"""SRM: its filters against OpenCV, its loss by hand, attention that starts from nothing, a plain Xception's start."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_context

from configs.detectors import srm as experiment
from msddf_jax import trees
from msddf_jax.detectors import srm as detector
from msddf_jax.models import srm, streams, xception

SIZE = 32


def _map(channels, size=9):
    return np.random.default_rng(0).normal(size=(2, size, size, channels)).astype(np.float32)


def _filtered(plane, number):
    return cv2.filter2D(plane, -1, srm.kernels()[number], borderType=cv2.BORDER_CONSTANT)


def test_filters_by_hand():
    kb, kv, second = srm.kernels()
    np.testing.assert_array_equal(4 * kb[1:4, 1:4], [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]])
    np.testing.assert_allclose(12 * kv[:3], [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2]], atol=1e-6)
    np.testing.assert_array_equal(kv[3:], kv[1::-1])
    np.testing.assert_array_equal(2 * second[2], [0, 1, -2, 1, 0])
    # A flat picture leaves nothing.
    np.testing.assert_allclose(srm.kernels().sum((1, 2)), 0, atol=1e-6)


def test_the_residual_is_opencvs_of_the_channels_sum():
    images = 2 * _map(3)
    found = jax.jit(srm.residual)(images)
    for row, image in enumerate(images):
        for number in range(3):
            expected = np.clip(_filtered(image.sum(-1), number), -3, 3)
            np.testing.assert_allclose(found[row, ..., number], expected, atol=1e-5)
    assert np.abs(found).max() == 3


def test_every_channel_has_all_three_filters_and_the_ports_has_not():
    x = _map(4)
    found, ports = jax.jit(lambda x: (srm.residuals(x), srm.residuals(x, grouped=True)))(x)
    # There, output n is of channel n // 3 by filter n // 4.
    for output in range(12):
        channel = x[0, ..., output // 3]
        np.testing.assert_allclose(found[0, ..., output], np.clip(_filtered(channel, output % 3), -3, 3), atol=1e-5)
        np.testing.assert_allclose(ports[0, ..., output], np.clip(_filtered(channel, output // 4), -3, 3), atol=1e-5)


def test_am_softmax_of_cosines_by_hand():
    context = make_context(experiment.get_config())
    # 30 (0.8 - 0.45) = 10.5 against 30 x 0.2 = 6; 30 (0.3 - 0.45) = -4.5 against 3.
    out = {"cosine": jnp.array([[0.8, 0.2], [0.1, 0.3]]), "logits": jnp.zeros((2, 2))}
    rows = {"label": jnp.array([0, 1])}
    expected = [np.log1p(np.exp(-4.5)), np.log1p(np.exp(7.5))]
    np.testing.assert_allclose(detector.losses(out, rows, context)["label"][0], expected, rtol=1e-4)
    # The port's: outputs of the linear layer in their place.
    ports = {"logits": out["cosine"]}
    np.testing.assert_allclose(detector.losses(ports, rows, context)["label"][0], expected, rtol=1e-4)


def test_attention_between_the_networks_adds_nothing_at_first():
    x, y = jnp.asarray(_map(16, 4)), jnp.asarray(_map(16, 4))[::-1]
    module = srm.CrossAttention()
    both, _ = jax.jit(module.init_with_output)(jax.random.key(0), x, y)
    for given, found in zip((x, y), both, strict=True):
        np.testing.assert_array_equal(found, given)


def test_channels_are_weighted_by_numpy():
    x = _map(32, 4)
    module = srm.ChannelAttention()
    variables = module.init(jax.random.key(0), x)
    variables = jax.tree.map(lambda value: 50 * value, variables)
    hidden, out = (np.asarray(variables["params"][name]["kernel"]) for name in ("hidden", "out"))
    total = sum(np.maximum(pooled @ hidden, 0) @ out for pooled in (x.mean((1, 2)), x.max((1, 2))))
    np.testing.assert_allclose(module.apply(variables, x)[:, 0, 0], 1 / (1 + np.exp(-total)), rtol=1e-4)


def _model():
    config = experiment.get_config("demo").unlock()
    config.model.image_size = SIZE
    return config, detector.Model(**config.model.to_dict())


def test_it_starts_from_a_plain_xception():
    config, model = _model()
    plain = jax.eval_shape(lambda: xception.Xception("Mu", SIZE).init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3))))
    plain = {
        f"{collection}/backbone/{name}": np.full(leaf.shape, 2.0, np.float32)
        for collection, tree in plain.items()
        for name, leaf in trees.flatten(tree).items()
    }
    found = detector.from_backbone(plain, config.model)
    own = jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": jnp.zeros((1, SIZE, SIZE, 3))}, train=False))
    own = {name: leaf.shape for name, leaf in trees.flatten(own).items() if name.split("/")[1] == "backbone"}
    assert own == {name: value.shape for name, value in found.items()}
    assert all((value == 2).all() for value in found.values())


def test_where_to_look_and_which_channels_have_a_finite_gradient():
    # `jnp.max` in the place of `_largest` gave NaN here, without optimisation of the compiled code.
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
    places, channels = srm.PlaceAttention((8, 16)), srm.ChannelAttention()
    variables = jax.jit(places.init, static_argnums=2)(jax.random.key(0), x, False)
    weights = channels.init(jax.random.key(0), jnp.zeros((2, 4, 4, 16)))

    def loss(params, weights):
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        found, _ = places.apply(state, x, True, mutable=["batch_stats"])
        return (found * channels.apply(weights, jnp.repeat(found, 16, -1))).sum()

    both = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], weights)
    gradient = trees.flatten(dict(zip(("places", "channels"), both, strict=True)))
    assert [name for name, value in gradient.items() if not np.isfinite(value).all()] == []
    assert min(np.abs(value).max() for name, value in gradient.items() if name.startswith("places")) > 0


def test_the_largest_and_its_gradient():
    x = jnp.array([[1.0, 3.0, 2.0], [5.0, 5.0, 4.0]])
    np.testing.assert_array_equal(srm._largest(x, -1), [3, 5])
    gradient = jax.grad(lambda x: srm._largest(x, -1).sum())(x)
    np.testing.assert_array_equal(gradient, [[0, 1, 0], [1, 0, 0]])


def test_units_out_of_order_are_named():
    with pytest.raises(ValueError, match="Xception Mu is not run from 'block_2' to 'stem'"):
        streams.Streams("Mu", (("rgb", 2),)).init(
            jax.random.key(0), {"rgb": jnp.zeros((1, 8, 8, 3))}, "stem", first="block_2"
        )
    with pytest.raises(ValueError, match="nothing follows 'sep_4'"):
        streams.after("Mu", "sep_4")
