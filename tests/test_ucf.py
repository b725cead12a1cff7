"""UCF: its losses by hand, partners and orders within a kind, the decoder's style, wrong settings."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.detectors import ucf as config_file
from msddf_jax import detector, steps
from msddf_jax.data.methods import METHODS
from msddf_jax.detectors import ucf
from msddf_jax.models import fingerprint


def _context(config):
    return types.SimpleNamespace(config=config, key=lambda name: jax.random.key(0))


def test_losses_by_hand():
    # One of each method: every order within a kind is the only one, and reals are alike.
    config = config_file.get_config("demo")
    methods = jnp.asarray([0, 0, METHODS.index("toy_neural"), METHODS.index("toy_texture")])
    label = jnp.asarray([0, 0, 1, 1])
    third = jnp.log(jnp.asarray([1.0, 1.0, 2.0]))
    target = jnp.zeros((4, 1, 2, 3)).at[1].set(0.5)
    out = {
        "logits": jnp.tile(jnp.asarray([[0.0, jnp.log(3.0)]]), (4, 1)),
        "method_logits": jnp.tile(third, (4, 1)),
        "target": target,
        "reconstruction": target.at[0, 0, 0].add(0.2),
        "crossed": target.at[2].add(-0.3),
        "partner": jnp.asarray([2, 3, 0, 1]),
        "paired": jnp.asarray([True] * 4),
        # Reals at 0, fakes 4 away; of the specific ones toy_texture is 1 from the reals.
        "common": jnp.asarray([[0.0, 0], [0, 0], [4, 0], [4, 0]]),
        "specific": jnp.asarray([[0.0, 0], [0, 0], [0, 5], [0, 1]]),
    }
    rows = {"label": label, "method": methods}
    terms = jax.jit(lambda out, rows: ucf.losses(out, rows, _context(config)))(out, rows)
    np.testing.assert_allclose(terms["label"][0], np.log([4, 4, 4 / 3, 4 / 3]), rtol=1e-6)
    # softmax of (0, 0, log 2) is (1/4, 1/4, 1/2).
    np.testing.assert_allclose(terms["method"][0], np.log([4, 4, 4, 2]), rtol=1e-6)
    assert terms["method"][1].all()
    # Half of the first's pixels are 0.2 off, all of the third's 0.3 in its partner's style; twice.
    np.testing.assert_allclose(terms["reconstruction"][0], [0.2, 0.0, 0.6, 0.0], atol=1e-6)
    # Common: 0 - 4 + 3 < 0. Specific: 0 - 5 + 3 < 0 beside toy_neural, 0 - 1 + 3 beside toy_texture; twice.
    np.testing.assert_allclose(terms["contrast"][0], [0, 4, 0, 4], atol=1e-5)
    total, _ = steps.weighted_sum(terms, config.loss_weights.to_dict())
    expected = np.log([4, 4, 4 / 3, 4 / 3]).mean() + 0.1 * np.log([4, 4, 4, 2]).mean() + 0.3 * 0.2 + 0.05 * 2
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_a_fake_of_no_method_of_the_group_has_no_class():
    config = config_file.get_config()
    rows = {
        "label": jnp.asarray([0, 1, 1, 1, 1]),
        "method": jnp.asarray(
            [0, METHODS.index("neuraltextures"), METHODS.index("deepfakes"), -1, METHODS.index("dfd")]
        ),
    }
    assert ucf._kinds(rows, config).tolist() == [0, 4, 1, -1, -1]


def test_partners_stand_at_the_same_place_of_the_group():
    # Two reals and two fakes; one real with three fakes; a real alone; padding.
    label = jnp.asarray([0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 1])
    group = jnp.asarray([5, 5, 5, 5, 6, 6, 6, 6, 7, -1, -1])
    partner, paired = jax.jit(ucf._partners)(label, group)
    assert partner.tolist() == [2, 3, 0, 1, 5, 4, 4, 4, 8, 9, 10]
    assert paired.tolist() == [True] * 8 + [False] * 3


def test_an_order_within_kinds_is_one_of_all():
    kinds = np.asarray([2, 0, -1, 0, 2, 2])
    draw = jax.jit(lambda key: ucf._within(key, jnp.asarray(kinds)))
    seen = np.stack([draw(jax.random.key(n)) for n in range(60)])
    assert (np.sort(seen, axis=1) == np.arange(6)).all() and (kinds[seen] == kinds).all()
    # Three and two fellows stand in six times two orders.
    assert len(np.unique(seen, axis=0)) == 12


def test_contrast_has_a_finite_gradient_where_features_are_equal():
    z = jnp.asarray([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])
    loss = lambda z: ucf._contrast(z, jnp.asarray([1, 0, 3, 2]), jnp.asarray([2, 3, 0, 1])).sum()
    value, gradient = jax.jit(jax.value_and_grad(loss))(z)
    length = np.sqrt(5)
    # To a fellow 0, 0, root 5 twice; to the partner's fellow root 5 and 0, then 0 and root 5.
    np.testing.assert_allclose(value, 4 * 3 + 2 * length - 2 * length, rtol=1e-6)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_a_restyled_map_has_the_mean_and_deviation_of_its_style():
    rng = np.random.default_rng(0)
    content, style = rng.normal(2, 3, (2, 4, 5, 3)), rng.normal(-1, 0.5, (2, 4, 5, 3))
    out = np.asarray(jax.jit(fingerprint.restyle)(np.float32(content), np.float32(style)))
    moments = lambda x: (x.mean((1, 2)), x.std((1, 2), ddof=1))
    for ours, expected in zip(moments(out), moments(style), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4)
    # What it shows is the content's.
    standard = lambda x: (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)
    np.testing.assert_allclose(standard(out), standard(content), atol=1e-4)
    # A single place has a mean and no deviation.
    assert np.isfinite(fingerprint.restyle(jnp.ones((1, 1, 1, 2)), jnp.zeros((1, 1, 1, 2)))).all()


def test_decoder_and_content_are_of_training_alone():
    config = config_file.get_config("demo")
    model, rows = detector.make_model(config), detector.example_batch(config, 4)
    rows |= {"label": jnp.asarray([0, 0, 1, 1]), "group": jnp.zeros(4, jnp.int32)}
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": rows["image"]}, train=False))
    assert {"decoder", "narrow_content"} <= set(variables["params"])

    def run(train):
        look = lambda v: model.apply(v, rows, train=train, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
        return jax.eval_shape(look, variables)[0]

    assert not {"reconstruction", "target", "crossed"} & set(run(False))
    size = (4, config.model.image_size, config.model.image_size, 3)
    assert {run(True)[name].shape for name in ("reconstruction", "target", "crossed")} == {size}
    # Scoring needs no more than this: without the content's part of the file.
    needed = {k: v for k, v in variables["params"].items() if k not in ("decoder", "narrow_content")}
    needed["backbone"] = {"fingerprint": variables["params"]["backbone"]["fingerprint"]}
    bare = {**variables, "params": needed}
    assert jax.eval_shape(lambda v: model.apply(v, rows, train=False), bare)["logit"].shape == (4,)


def test_published_weights_start_both_networks():
    flat = {f"params/backbone/conv_1/{n}": np.ones((3, 3, 3, 8), np.float32) for n in ("kernel",)}
    spread = ucf.from_backbone(flat, None)
    assert set(spread) == {f"params/backbone/{n}/conv_1/kernel" for n in ("fingerprint", "content")}
    assert all((v == 1).all() for v in spread.values())


@pytest.mark.parametrize(
    ("methods", "classes", "said"),
    [((), 5, "names none: expected real and each of these, 1"), (("deepfakes", "dfd"), 5, "deepfakes, dfd.*these, 3")],
)
def test_classes_that_are_not_the_groups_are_named(methods, classes, said):
    config = config_file.get_config().unlock()
    config.data.group.methods, config.model.classes = methods, classes
    with pytest.raises(ValueError, match=f"config.model.classes is {classes}, .*{said}"):
        ucf._kinds({"label": jnp.zeros(1, int), "method": jnp.zeros(1, int)}, config)


def test_groups_are_balanced():
    for arg, match in ((None, "pair"), ("port", "class")):
        group = config_file.get_config(arg).data.group
        assert (group.real, group.fake, len(group.methods), group.match) == (4, 1, 4, match)
