import few_steps
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_batch, make_context

from configs.detectors import clip_cross_domain as experiment
from msddf_jax import losses, trees
from msddf_jax.detectors import clip_cross_domain
from msddf_jax.models.boundary import boundary_target
from msddf_jax.synth import compose

SIZE = 32


def _config(**changes):
    """The full-size config on the smallest ViT; changes: of model or loss_weights, by name."""
    config = few_steps.shrink(experiment.get_config(), "Mu/8", 1e-3)
    config.model.rank = 8
    for name, value in changes.items():
        part = config.loss_weights if name in config.loss_weights else config.model
        part[name] = value
    return config


def _every_part(**changes):
    on = {"num_domains": 2, "identity_width": 16, "num_identities": 4, "domain_ce": 1.0, "own_identity_ce": 1.0}
    config = _config(**{**on, "identity_correlation": 0.01, **changes})
    config.data.train.name = "faceforensics/c23,celebdf/v2"
    return config


@pytest.fixture(scope="module")
def looked():
    """(config, model, parameters, rows with all that training has) with every part on."""
    config = _every_part(slerp_probability=0.0)
    fields = config.model.to_dict()
    model = clip_cross_domain.Model(**fields)
    batch = make_batch(size=SIZE)
    rows = clip_cross_domain.make_rows(jax.random.key(0), batch, make_context(config, step=10))
    # The views differ, as they do with augmentation.
    rows["clean"] = jnp.clip(rows["clean"] + 0.1 * jax.random.normal(jax.random.key(1), rows["clean"].shape), 0, 1)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), {"image": rows["image"]}, train=False))["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32), shapes)
    return config, model, params, rows


def _terms(looked, params, **changes):
    """Terms of the rows of `looked`, some of them changed."""
    return _terms_of(looked, looked[1].apply({"params": params}, {**looked[3], **changes}, train=True), **changes)


def _terms_of(looked, out, **changes):
    return clip_cross_domain.losses(out, {**looked[3], **changes}, make_context(looked[0]))


@pytest.fixture(scope="module")
def gradient(looked):
    """gradient(name of a term, reversal=, clean=) -> flat gradients of its mean: parameters, "image" and "clean"."""
    image, clean = looked[3]["image"], looked[3]["clean"]

    # The term is picked by a traced weight: compiled once for all.
    def weighted(params, image, clean, reversal, weights):
        terms = _terms(looked, params, image=image, clean=clean, reversal=reversal)
        return sum(weights[name] * losses.masked_mean(*term) for name, term in terms.items())

    run = jax.jit(jax.grad(weighted, argnums=(0, 1, 2)))

    def of_term(name, reversal=1.0):
        weights = {term: jnp.float32(term == name) for term in looked[0].loss_weights}
        params, *views = run(looked[2], image, clean, jnp.float32(reversal), weights)
        return jax.device_get({**trees.flatten(params), **dict(zip(("image", "clean"), views, strict=True))})

    return of_term


@pytest.fixture(scope="module")
def out(looked):
    """What the Model gives for the rows of `looked` in training."""
    return jax.device_get(jax.jit(lambda p: looked[1].apply({"params": p}, looked[3], train=True))(looked[2]))


def _moved(gradient):
    """First names of the parameters, and of the two views, that a gradient reaches."""
    return {name.split("/")[0] for name, value in gradient.items() if np.abs(value).max() > 0}


def test_rows_are_the_data_sets_own_and_no_forgery():
    batch = make_batch((1, 2), size=48)
    config = _config()
    config.data.group.fake = 2
    config.augment = {"image_size": SIZE, **few_steps.STILL, "tone_prob": 1.0}
    rows = clip_cross_domain.make_rows(jax.random.key(0), batch, make_context(config))
    assert [compose.ROLES[r] for r in rows["role"]] == ["target_twin", "dataset_fake", "dataset_fake"] * 3
    for name in ("label", "method", "identity", "domain", "group"):
        np.testing.assert_array_equal(rows[name], batch[name])
    # One view is the records' own pictures, the other is augmented: they differ in tone alone.
    np.testing.assert_array_equal(rows["clean"], compose.resize(batch["image"], SIZE))
    np.testing.assert_array_equal(rows["mask"], batch["mask"])
    gap = np.abs(np.asarray(rows["image"]) - np.asarray(rows["clean"])).max((1, 2, 3))
    assert (gap > 1e-3).all()
    config.loss_weights.frequency_cosine = 0.0
    assert "clean" not in clip_cross_domain.make_rows(jax.random.key(0), batch, make_context(config))


def test_both_views_are_cut_alike():
    batch, config = make_batch(size=SIZE), _config()
    config.augment.crop = 0.2
    rows = clip_cross_domain.make_rows(jax.random.key(0), batch, make_context(config))
    np.testing.assert_allclose(rows["image"], rows["clean"], atol=1e-6)
    assert (np.abs(np.asarray(rows["image"]) - batch["image"]).max((1, 2, 3)) > 1e-3).all()


def test_both_views_are_flipped_alike():
    batch, config = make_batch(size=SIZE), _config()
    config.synth.flip = 1.0
    rows = clip_cross_domain.make_rows(jax.random.key(0), batch, make_context(config))
    np.testing.assert_array_equal(rows["clean"], batch["image"][:, :, ::-1])
    np.testing.assert_array_equal(rows["image"], rows["clean"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.synth.recipe.update({"name": "self_blend"}), "makes none; set both to none"),
        (lambda c: c.policy.update({"mode": "reinforce"}), "policy.mode 'reinforce'"),
        (
            lambda c: c.model.update({"num_domains": 3}),
            "num_domains is 3, config.data.train names 2 .*celebdf/v2:train",
        ),
        (lambda c: c.data.train.update({"name": "celebdf/v2"}), "num_domains is 2, config.data.train names 1"),
        (lambda c: c.loss_weights.update({"domain_ce": 0.0}), "domain_ce is 0.0 and config.model.num_domains 2"),
        (lambda c: c.model.update({"use_boundary": False}), "boundary_bce is 0.1 and config.model.use_boundary False"),
        (lambda c: c.model.update({"identity_width": 0}), "own_identity_ce is 1.0 and config.model.identity_width 0"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    config = _every_part()
    assert clip_cross_domain.players(config) == {}
    change(config)
    with pytest.raises(ValueError, match=message):
        clip_cross_domain.players(config)


@pytest.mark.long
@pytest.mark.parametrize("adversary", ["domain", "identity"])
def test_an_adversary_trains_itself_and_reverses_into_the_backbone(adversary, gradient):
    term = f"{adversary}_ce"
    one, two, forward = (gradient(term, reversal=scale) for scale in (1.0, 2.0, -1.0))
    # By the class token, before fusion.
    assert _moved(one) == {"backbone", "frequency", "boundary", f"{adversary}_head", "image"}
    name = "backbone/block_1/ln_1/scale"
    np.testing.assert_allclose(two[name], 2 * one[name], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(one[name], -forward[name], rtol=1e-4, atol=1e-8)
    head = f"{adversary}_head/hidden/kernel"
    np.testing.assert_allclose(one[head], forward[head], rtol=1e-5, atol=1e-8)


def test_the_domain_of_a_row_is_its_target(looked):
    config, _, _, rows = looked
    np.testing.assert_array_equal(rows["domain"], [0, 0, 1, 1, 0, 0])
    # Log odds of 2 for domain 0: log(1 + e^-2) where that is right, log(1 + e^2) where it is 1, nothing in padding.
    out = {"domain_logits": jnp.tile(jnp.array([[2.0, 0.0]]), (6, 1)), "logits": jnp.zeros((6, 2))}
    out |= {"feature": jnp.eye(6), "logit": jnp.zeros(6)}
    rows = {**rows, "domain": jnp.array([0, 0, 1, 1, 0, -1])}
    values, mask = clip_cross_domain.losses(out, rows, make_context(config))["domain_ce"]
    right, wrong = np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0))
    np.testing.assert_allclose(values[:5], [right, right, wrong, wrong, right], rtol=1e-5)
    assert mask.tolist() == [True] * 5 + [False]
    top = clip_cross_domain.scalars(out, rows)["domain/top1"]
    np.testing.assert_allclose(top, 3 / 5)


@pytest.mark.long
def test_identity_is_taught_beside_the_backbone_and_decorrelated_from_the_feature(gradient, looked, out):
    assert _moved(gradient("own_identity_ce")) == {"identity_feature", "identity_classes"}
    moved = _moved(gradient("identity_correlation"))
    assert {"backbone", "fusion"} <= moved and not moved & {"identity_feature", "identity_classes", "identity_head"}
    values, _ = _terms_of(looked, out)["identity_correlation"]
    pairs = np.corrcoef(out["identity_feature"].T, out["feature"].T)[:16, 16:]
    np.testing.assert_allclose(values, (pairs**2).sum(), rtol=1e-3)


@pytest.mark.long
def test_frequency_consistency_moves_the_augmented_view_alone(gradient, looked, out):
    moved = gradient("frequency_cosine")
    assert _moved(moved) == {"frequency", "boundary", "image"}
    # Of the last bias, which shifts both vectors, the gradient is that of the augmented one: with unit vectors u and c
    # of both and |q| the length of the augmented, -(c - (u c) u) / |q|.
    q, clean = out["frequency"], out["frequency_clean"]
    length = np.linalg.norm(q, axis=1, keepdims=True)
    u, c = q / length, clean / np.linalg.norm(clean, axis=1, keepdims=True)
    cosine = (u * c).sum(1, keepdims=True)
    np.testing.assert_allclose(moved["frequency/pool/bias"], (-(c - cosine * u) / length).mean(0), rtol=1e-2, atol=1e-7)
    np.testing.assert_allclose(_terms_of(looked, out)["frequency_cosine"][0], 1 - cosine[:, 0], atol=1e-6)


def test_frequency_consistency_of_equal_views_is_0(looked):
    _, model, params, rows = looked
    rows = {**rows, "clean": rows["image"]}
    same = jax.jit(lambda p: model.apply({"params": p}, rows, train=True))(params)
    np.testing.assert_array_equal(same["frequency"], same["frequency_clean"])
    np.testing.assert_allclose(_terms_of(looked, same)["frequency_cosine"][0], 0.0, atol=1e-6)


def test_the_weight_map_learns_from_masks_and_is_kept_small_without(looked, out):
    has_mask = jnp.arange(6) != 1
    terms = _terms_of(looked, out, has_mask=has_mask)
    for name, expected in (("boundary_bce", has_mask), ("boundary_mean", ~has_mask), ("boundary_variation", ~has_mask)):
        np.testing.assert_array_equal(terms[name][1], expected)
    weight = 1 / (1 + np.exp(-out["boundary_logits"]))
    target = boundary_target(looked[3]["blend_mask"], weight.shape[1])
    bce = -(target * np.log(weight) + (1 - target) * np.log(1 - weight)).mean((1, 2))
    np.testing.assert_allclose(terms["boundary_bce"][0], bce, rtol=1e-4)
    np.testing.assert_allclose(terms["boundary_mean"][0], weight.mean((1, 2)), rtol=1e-5)
    steps = [np.abs(np.diff(weight, axis=axis)).mean((1, 2)) for axis in (1, 2)]
    np.testing.assert_allclose(terms["boundary_variation"][0], np.mean(steps, axis=0), rtol=1e-4)


def test_arc_margin_where_the_head_gives_cosines():
    config = _config(binary_head="cosine", slerp_probability=0.0)
    config.loss_args.arc.update({"scale": 16.0, "margin": 0.3, "warmup": 0.5})
    config.steps = 100
    cosine, label = jnp.array([[0.2, -0.1], [0.6, 0.1]]), jnp.array([0, 1])
    out = {"cosine": cosine, "logits": 30 * cosine, "feature": jnp.eye(2)}
    look = lambda step: clip_cross_domain.losses(out, {"label": label}, make_context(config, step=step))["label"][0]
    # No margin at first, half of it after a quarter, all of it from the middle on.
    for step, margin in ((0, 0.0), (25, 0.15), (50, 0.3), (100, 0.3)):
        own = np.cos(np.arccos([0.2, 0.1]) + margin)
        expected = np.log1p(np.exp(16 * (np.array([-0.1, 0.6]) - own)))
        np.testing.assert_allclose(look(step), expected, rtol=1e-4)
    model = clip_cross_domain.Model(**config.model.to_dict())
    shapes = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), {"image": jnp.zeros((2, SIZE, SIZE, 3))},
                                                           train=False))  # fmt: skip
    assert shapes[0]["cosine"].shape == (2, 2) and "directions" in shapes[1]["params"]["binary_head"]


@pytest.mark.long
def test_slerp_moves_features_in_training_alone(looked, out):
    config, _, params, rows = looked
    model = clip_cross_domain.Model(**{**config.model.to_dict(), "slerp_probability": 1.0})
    moved = model.apply({"params": params}, rows, train=True, rngs={"dropout": jax.random.key(0)})
    # `out` is of a model whose features stay; every row has another of its class.
    np.testing.assert_allclose(moved["feature"], out["feature"], atol=1e-5)
    assert (np.abs(np.asarray(moved["embedding"]) - out["embedding"]).max(1) > 1e-4).all()
    # Without training there are no labels, nor a key.
    still = model.apply({"params": params}, {"image": rows["image"]}, train=False)
    np.testing.assert_allclose(still["embedding"], out["embedding"], atol=1e-5)


@pytest.mark.long
def test_thin_edges_are_another_map(looked, out):
    config, _, params, rows = looked
    thin = clip_cross_domain.Model(**{**config.model.to_dict(), "edges": "canny"})
    look = lambda model: model.apply({"params": params}, {"image": rows["image"]}, train=False)["boundary_logits"]
    assert np.abs(np.asarray(look(thin)) - out["boundary_logits"]).max() > 1e-4
    wrong = clip_cross_domain.Model(**{**config.model.to_dict(), "edges": "laplace"})
    with pytest.raises(ValueError, match=r"edges are 'laplace', allowed: \('sobel', 'canny'\)"):
        look(wrong)


@pytest.mark.long
def test_it_trains_and_what_is_frozen_stays():
    config = _every_part(slerp_probability=0.0)
    before, _, trained = few_steps.check_training(config)
    frozen = {name for name, value in trained.items() if not value}
    assert all(name.startswith("detector/backbone/") and "/ln_" not in name for name in frozen)
    assert (
        sum(before[name].size for name in before if "/ln_" in name and "backbone" in name) == (1 + 2 * 4 + 1) * 2 * 64
    )


def test_parts_that_are_off_have_terms_that_count_no_row():
    config = _config(use_frequency=False, num_identities=0, frequency_cosine=0.0, identity_ce=0.0)
    assert clip_cross_domain.players(config) == {}
    out = {"logits": jnp.zeros((2, 2)), "feature": jnp.eye(2)}
    terms = clip_cross_domain.losses(out, {"label": jnp.array([0, 1])}, make_context(config))
    assert set(config.loss_weights) == set(terms)
    for name in ("frequency_cosine", "identity_ce", "domain_ce", "identity_correlation"):
        assert not np.asarray(terms[name][1]).any()
