"""IID: its losses by hand, the difference that decides, the recogniser frozen, and its files."""

import golden_figures
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_context

from configs.detectors import iid as config_file
from msddf_jax import detector, optim, steps, trees
from msddf_jax.detectors import iid
from msddf_jax.models import iresnet
from msddf_jax.weights.names import iid_names


def _context(implicit="identity"):
    config = config_file.get_config("demo").unlock()
    config.loss_args.implicit = implicit
    return make_context(config)


def _outputs():
    implicit = jnp.asarray([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [4.0, 0.0]])
    explicit = jnp.asarray([[1.0, 0.0], [5.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    cosine = jnp.asarray([[0.5, 0.0, -0.5]] * 4)
    logits = jnp.asarray([[0.0, 0.0], [np.log(3), 0.0], [0.0, 0.0], [0.0, np.log(3)]])
    return {"implicit": implicit, "explicit": explicit, "cosine": cosine, "logits": logits}


def test_losses_by_hand():
    rows = {"label": jnp.asarray([0, 0, 1, 1]), "identity": jnp.asarray([0, 1, -1, 0]), "donor": jnp.zeros(4, int)}
    terms = jax.jit(lambda out, rows: iid.losses(out, rows, _context()))(_outputs(), rows)
    # Sigmoids are 1/2 and 3/4, of which 0.2 goes for the label's own; eight times these.
    ce = lambda own, other: np.log(1 + np.exp(8 * (other - own)))
    expected = [ce(0.3, 0.5), ce(0.55, 0.5), ce(0.3, 0.5), ce(0.55, 0.5)]
    np.testing.assert_allclose(terms["label"][0], expected, rtol=1e-5)
    # Cosines of the two identities: 1 and 0 of reals, 1 / sqrt(2) and -1 of fakes.
    np.testing.assert_array_equal(terms["explicit_real"][1], [True, True, False, False])
    np.testing.assert_allclose(terms["explicit_real"][0][:2], [-1, 0], atol=1e-5)
    np.testing.assert_allclose(terms["explicit_fake"][0][2:], [0.5**0.5, -1], atol=1e-5)
    # 64 cosines with the own one's angle 0.4 larger; an unknown identity is not asked for.
    values, mask = terms["implicit"]
    np.testing.assert_array_equal(mask, [True, True, False, True])
    turned = np.cos(np.arccos([0.5, 0.0]) + 0.4)
    rest = ([0.0, -0.5], [0.5, -0.5])
    expected = [np.log(np.exp(64 * np.array([t, *r])).sum()) - 64 * t for t, r in zip(turned, rest, strict=True)]
    np.testing.assert_allclose(values[:2], expected, rtol=1e-3)
    weights = {"explicit_real": 0.1, "explicit_fake": 0.1}
    total, _ = steps.weighted_sum(terms, weights)
    np.testing.assert_allclose(total, 0.1 * (-0.5) + 0.1 * (0.5**0.5 - 1) / 2, rtol=1e-4)


def test_reals_are_pulled_to_their_explicit_identity_and_fakes_pushed_away():
    def total(implicit, label):
        rows = {"label": label, "identity": jnp.zeros(2, int)}
        terms = iid.losses(_outputs() | {"implicit": implicit} | {
            name: _outputs()[name][:2] for name in ("explicit", "cosine", "logits")
        }, rows, _context())  # fmt: skip
        return steps.weighted_sum(terms, {"explicit_real": 0.1, "explicit_fake": 0.1})[0]

    implicit = jnp.asarray([[1.0, 1.0], [1.0, 1.0]])
    moved = implicit - jax.jit(jax.grad(total))(implicit, jnp.asarray([0, 1]))
    before, after = (np.asarray(x[:, 0] / jnp.linalg.norm(x, axis=1)) for x in (implicit, moved))
    # Both explicit identities point along the first axis.
    assert after[0] > before[0] and after[1] < before[1]


def test_the_donor_is_the_ports_identity():
    rows = {"label": jnp.asarray([0, 0, 1, 1]), "identity": jnp.zeros(4, int), "donor": jnp.asarray([0, 1, 2, -1])}
    values = {kind: iid.losses(_outputs(), rows, _context(kind))["implicit"] for kind in iid.IMPLICIT}
    np.testing.assert_array_equal(values["donor"][1], [True, True, True, False])
    np.testing.assert_array_equal(values["identity"][1], [True] * 4)
    assert values["donor"][0][2] > values["identity"][0][2] > values["identity"][0][0] - 1e-6
    assert config_file.get_config("port").loss_args.implicit == "donor"
    with pytest.raises(ValueError, match=r"loss_args.implicit is 'source', allowed: \('identity', 'donor'\)"):
        iid.losses(_outputs(), rows, _context("source"))


@pytest.fixture(scope="module")
def small():
    """(Model with the smallest recogniser, its variables, images)."""
    model = iid.Model("Mu", 32, identity={"variant": "Mu", "image_size": 32}, num_identities=3)
    images = jnp.asarray(np.random.default_rng(0).random((4, 40, 40, 3), np.float32))
    rng, draw = np.random.default_rng(1), {}
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": images}, train=False))
    for name, leaf in trees.flatten(shapes).items():
        positive = name.endswith(("scale", "var"))
        draw[name] = rng.uniform(0.5, 1.5, leaf.shape) if positive else rng.normal(0, 0.1, leaf.shape)
    return model, trees.unflatten({name: jnp.asarray(value, jnp.float32) for name, value in draw.items()}), images


def test_the_score_is_of_the_difference(small):
    model, variables, images = small
    out = jax.jit(lambda v: model.apply(v, {"image": images}, train=False))(variables)
    size = (4, 32, 32, 3)
    net = iresnet.IResNet("Mu", 32)
    own = {kind: tree["identity"] for kind, tree in variables.items()}
    explicit = jax.jit(net.apply)(own, jax.image.resize(images, size, "linear", antialias=False))["feature"]
    np.testing.assert_allclose(out["explicit"], explicit, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["implicit"], out["spatial"].mean((1, 2)), rtol=1e-5)
    head = variables["params"]["binary_head"]["out"]
    logits = (out["implicit"] - explicit) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(out["logits"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out["logit"], logits[:, 1] - logits[:, 0], rtol=1e-4, atol=1e-4)


# Compiles a train step's gradient.
@pytest.mark.long
def test_nothing_moves_the_recogniser(small):
    model, variables, images = small
    rows = {"image": images, "label": jnp.asarray([0, 1, 0, 1]), "identity": jnp.asarray([0, 0, 1, 2])}

    def total(params):
        state = {**variables, "params": params}
        out, changed = model.apply(state, rows, train=True, mutable=["batch_stats"])
        terms = iid.losses(out, rows, _context())
        weights = config_file.get_config().loss_weights.to_dict()
        return steps.weighted_sum(terms, weights)[0], changed

    gradient, changed = jax.jit(jax.grad(total, has_aux=True))(variables["params"])
    sizes = {name: float(np.abs(value).max()) for name, value in trees.flatten(gradient).items()}
    assert np.isfinite(list(sizes.values())).all()
    assert {name.split("/")[0] for name, size in sizes.items() if size} == {
        "backbone", "adjust", "adjust_norm", "identity_head", "binary_head",
    }  # fmt: skip
    before, after = (trees.flatten(x["batch_stats"]["identity"]) for x in (variables, changed))
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)


def test_the_config_freezes_the_recogniser_and_names_its_file():
    config = config_file.get_config().unlock()
    assert set(config.init) == {"backbone", "identity"}
    config.model.variant = config.model.identity.variant = "Mu"
    shapes = {"detector": detector.weight_shapes(config)["params"]}
    trained = optim.trainable_names(shapes, config.optim.groups)
    assert {name.split("/")[1] for name, value in trained.items() if not value} == {"identity"}
    demo = config_file.get_config("demo")
    assert "identity" not in demo.init
    assert not any(name.startswith("identity/") for name in trees.flatten(detector.weight_shapes(demo)["params"]))


def test_a_file_without_the_recogniser_is_none():
    content = golden_figures.read("iid", 256)
    shapes = {name: tuple(shape) for name, shape in (*content["filled"], *content["fixed"])}
    assert iid_names.find(shapes) == "xception"
    assert iid_names.find({n: s for n, s in shapes.items() if n != "IIE_LOSS.kernel"}) is None
    assert iid_names.find({n: s for n, s in shapes.items() if not n.startswith(iid_names.RECOGNISER)}) is None
