"""FPG-style: the rule of choice, responses, suppression and quality by hand, and its rows and losses on faces."""

import functools

import few_steps
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from face_batch import make_batch, make_context
from random_params import random_params

from configs.detectors import fpg as experiment
from msddf_jax import hooks, train_step, trees
from msddf_jax.detectors import fpg
from msddf_jax.models import ir_net
from msddf_jax.synth import blend, compose, degrade

# Four cells a side.
SIZE, GRID = 128, 4


class _Scorer:
    """Stands for the detector: its score is the mean of the image, its response the image itself on the grid."""

    def __init__(self, gain=8.0, centre=0.5):
        self.gain, self.centre = gain, centre

    def apply(self, variables, rows, *, train, mutable):
        assert not train and not mutable
        cells = jax.image.resize(rows["image"].mean(-1), (*rows["image"].shape[:1], GRID, GRID), "linear")
        logit = self.gain * (rows["image"].mean((1, 2, 3)) - self.centre)
        return {"logit": logit, "map_logits": cells[..., None]}

    def __call__(self, rows, *, train):
        raise NotImplementedError


def _config(**refine):
    config = experiment.get_config().copy_and_resolve_references().unlock()
    config.augment = {"image_size": 64, **few_steps.STILL}
    config.loss_args.refine.update(refine)
    config.dtype = "float32"
    return config.lock()


def _context(config, step=0):
    modules = {"detector": _Scorer()}
    return make_context(config, modules, {"detector": {"params": {}}}, step=step)


def _batch(groups=4, size=64):
    return jax.tree.map(jnp.asarray, make_batch((1, 0), groups=groups, size=size))


# Candidates (rows) for each of seven reals (columns). low 0.2, high 0.95.
SCORES = np.array(
    [
        [0.30, 0.96, 0.10, 0.97, 0.50, 0.30, 0.4],
        [0.60, 0.90, 0.60, 0.99, 0.50, 0.60, 0.4],
        [0.90, 0.21, 0.05, 0.15, 0.50, 0.90, 0.4],
    ],
    np.float32,
)
CHANGED = np.array([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 0]], bool)


def test_the_chosen_candidate_is_the_one_that_the_rule_names():
    index, inside = fpg._choose(SCORES, CHANGED, 0.2, 0.95)
    # 0.3 has the highest loss of three inside; 0.21, as 0.96 is not inside; the only one inside; of none inside 0.97,
    # the nearest; of equals the first; the lowest changed nothing; none changed anything.
    assert index.tolist() == [0, 2, 1, 0, 0, 1, 0]
    assert inside.tolist() == [True, True, True, False, True, True, False]
    # Without a low end the lowest score wins.
    assert fpg._choose(SCORES, CHANGED, 0.0, 0.95)[0].tolist() == [0, 2, 2, 2, 0, 1, 0]
    # And nearest from below.
    far = np.array([[0.99], [0.19]], np.float32)
    assert fpg._choose(far, np.ones((2, 1), bool), 0.2, 0.95)[0].tolist() == [1]


REALS, STEPS = 8, (0, 10_000)


CONFIG, KEY = _config(candidates=3, suppress=0.5, low=(0.0, 0.5)), jax.random.key(0)


@pytest.fixture(scope="module")
def candidates():
    """The candidates one by one as the model sees them."""
    layout, synth = hooks.layout_of(CONFIG), CONFIG.synth

    @jax.jit
    def candidate(number):
        key = jax.random.fold_in(KEY, number)
        rows = compose.compose(key, _batch(REALS), layout=layout, recipe=synth.recipe, flip=synth.flip)
        return hooks.see_rows(rows, layout, _context(CONFIG))

    return [jax.tree.map(np.asarray, candidate(number)) for number in range(3)]


@pytest.fixture(scope="module")
def made():
    """{step: rows}."""
    make = jax.jit(lambda step: fpg.make_rows(KEY, _batch(REALS), _context(CONFIG, step)))
    return {step: jax.tree.map(np.asarray, make(step)) for step in STEPS}


def _chosen(candidates, step):
    """(index, inside, score) of each real, from the candidates' own scores."""
    logits = [_Scorer().apply({}, c, train=False, mutable=False)["logit"][1::2] for c in candidates]
    scores = np.asarray(jax.nn.sigmoid(jnp.stack(logits)))
    index, inside = fpg._choose(scores, np.ones_like(scores, bool), 0.5 * step / CONFIG.steps, 0.95)
    return np.asarray(index), np.asarray(inside), scores[index, np.arange(REALS)]


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_rows_are_of_the_chosen_candidates(made, candidates, step):
    rows, (index, inside, score) = made[step], _chosen(candidates, step)
    assert len(set(index.tolist())) > 1 and rows["label"].tolist() == [0, 1] * REALS
    np.testing.assert_allclose(rows["score"], np.stack([0 * score, score], 1).ravel(), atol=1e-5)
    np.testing.assert_array_equal(rows["inside"][1::2], inside)
    assert not rows["inside"][::2].any() and not rows["suppressed"][::2].any()
    for number, k in enumerate(index.tolist()):
        # Real and forgery come of the same candidate.
        real, forged = rows["image"][2 * number : 2 * number + 2]
        np.testing.assert_allclose(real, candidates[k]["image"][2 * number], atol=1e-6)
        if not rows["suppressed"][2 * number + 1]:
            np.testing.assert_allclose(forged, candidates[k]["image"][2 * number + 1], atol=1e-6)
    assert rows["quality"].shape == (2 * REALS,) and (rows["quality"] > 0).all() and (rows["quality"] < 1).all()


def test_the_window_closes_from_below(candidates):
    # The scores are near one half: late in training, low is there too, and another candidate is taken.
    assert (_chosen(candidates, 0)[0] != _chosen(candidates, 10_000)[0]).any()


def test_suppression_takes_the_highest_cells_from_the_mask():
    response = jnp.zeros((2, 5, 5)).at[0, 1, 2].set(9.0).at[0, 3, 3].set(8.0).at[0, 0, 0].set(7.0).at[0, 4, 0].set(6.0)
    # 20 % of 25 cells are five.
    response = response.at[0, 0, 1].set(5.0)
    kept = np.asarray(fpg._kept(response, 0.2, 55))
    cells = kept[0].reshape(5, 11, 5, 11)
    gone = np.zeros((5, 5), bool)
    gone[[1, 3, 0, 4, 0], [2, 3, 0, 0, 1]] = True
    # Removed cells are empty to the border, all others are whole about their centre.
    assert (cells.max((1, 3))[gone] == 0).all()
    np.testing.assert_allclose(cells[:, 5, :, 5][~gone], 1.0, atol=1e-5)
    # One with no removed cell beside it is untouched.
    np.testing.assert_allclose(cells[1, :, 4], 1.0, atol=1e-5)
    # No step from pixel to pixel that would show a grid.
    assert np.abs(np.diff(kept[0], axis=0)).max() <= 0.41
    # Nothing is taken by a share of nothing.
    np.testing.assert_allclose(fpg._kept(response, 0.0, 55), 1.0, atol=1e-5)


@pytest.mark.long  # compiles the rows of the chosen candidates, as the test above
def test_a_suppressed_forgery_is_its_real_where_the_response_was_highest(made, candidates):
    rows, index = made[0], _chosen(candidates, 0)[0]
    did = np.flatnonzero(rows["suppressed"][1::2])
    assert 1 <= len(did) < REALS
    for number in did:
        plain, row = candidates[index[number]], 2 * number + 1
        real, old, new = plain["image"][row - 1], plain["image"][row], rows["image"][row]
        response = _Scorer().apply({}, {"image": jnp.asarray(old[None])}, train=False, mutable=False)["map_logits"]
        kept = np.asarray(fpg._kept(response[..., 0], 0.2, 64))[0]
        # 20 % of 16 cells are three.
        assert (kept == 0).mean() >= 3 / 16
        np.testing.assert_allclose(new[kept == 0], real[kept == 0], atol=1e-6)
        np.testing.assert_allclose(new, real + kept[..., None] * (old - real), atol=1e-6)
        np.testing.assert_allclose(rows["mask"][row, ..., 0], kept * plain["mask"][row, ..., 0], atol=1e-6)
        # What is left can be seen, and strength is its peak.
        assert np.abs(new - real).max() >= blend.MIN_CHANGE and rows["label"][row] == 1
        np.testing.assert_allclose(rows["strength"][row], rows["mask"][row].max(), atol=1e-6)
        np.testing.assert_allclose(rows["blend_mask"][row].max(), 1.0, atol=1e-6)


def _half_grey():
    """Rows of a black real and its forgery, half grey with the weight 0.5 everywhere."""
    mask = jnp.zeros((2, 64, 64, 1)).at[1].set(0.5)
    rows = {"image": jnp.repeat(mask, 3, axis=-1), "mask": mask, "blend_mask": 2 * mask}
    return rows | {"strength": jnp.array([0.0, 0.5]), "label": jnp.array([0, 1])}


def test_a_forgery_of_which_nothing_would_be_left_stays():
    rows, layout = _half_grey(), compose.Layout(1, 1, 0, 0)
    whole = jnp.array([[0.0, 1.0, 0.0, 1.0]])
    for share, wanted in ((1.0, True), (0.5, False)):
        out, did = fpg._suppress(rows, jnp.ones((1, 2, 2)), whole, jnp.array([wanted]), layout, share)
        assert not did[0]
        for name, value in rows.items():
            np.testing.assert_array_equal(out[name], value, err_msg=name)


def test_suppression_is_where_the_window_showed_the_response():
    """The window is the right half of the frame: its left column of cells is the frame's third quarter."""
    rows, layout = _half_grey(), compose.Layout(1, 1, 0, 0)
    response = jnp.zeros((1, 2, 2)).at[:, :, 0].set(1.0)
    window = jnp.array([[0.5, 1.0, 0.0, 1.0]])
    out, did = fpg._suppress(rows, response, window, jnp.array([True]), layout, 0.5)
    columns = np.asarray(out["mask"])[1, :, :, 0].mean(0)
    assert bool(did[0])
    # Within the window (columns 32 to 63) the left half of it is gone; before it, what is at its edge.
    assert columns[:48].max() == 0.0 and columns[-8:].min() > 0.4999
    np.testing.assert_array_equal(out["image"][0], rows["image"][0])


class _Scoring:
    """A model whose `init` is for scoring."""

    def __init__(self, net):
        self.init = functools.partial(net.init, train=False)


@pytest.fixture(scope="module")
def model():
    """A small detector with random parameters, and images."""
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, SIZE, SIZE, 3)), jnp.float32)
    net = fpg.Model("Mu", SIZE, options={"padding": "static"})
    params = random_params(_Scoring(net), {"image": images})
    return net, params, images


def test_the_response_is_gradient_times_activation(model):
    net, variables, images = model
    out = jax.jit(functools.partial(net.apply, train=False))(variables, {"image": images})
    kernel = variables["params"]["binary_head"]["out"]["kernel"]
    bias = variables["params"]["binary_head"]["out"]["bias"]

    def logit(spatial):
        logits = spatial.mean((1, 2)) @ kernel + bias
        return (logits[:, 1] - logits[:, 0]).sum()

    product = (jax.grad(logit)(out["spatial"]) * out["spatial"]).sum(-1)
    assert out["map_logits"].shape == (2, GRID, GRID, 1)
    cells = GRID * GRID * product + bias[1] - bias[0]
    np.testing.assert_allclose(out["map_logits"][..., 0], cells, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(out["map_logits"].mean((1, 2, 3)), out["logit"], rtol=1e-4, atol=1e-4)


def _planted(rng, count):
    """Images of smooth noise, the last half with a chequered square in one cell: (images, labels, cells)."""
    coarse = jnp.asarray(rng.uniform(0.3, 0.7, (count, 8, 8, 3)), jnp.float32)
    images = np.array(jax.image.resize(coarse, (count, SIZE, SIZE, 3), "linear"))
    side, label, cells = SIZE // GRID, np.arange(count) >= count // 2, rng.integers(0, GRID, (count, 2))
    pattern = 0.25 * (np.indices((side - 8, side - 8)).sum(0) // 2 % 2 * 2 - 1)
    for image, fake, (row, column) in zip(images, label, cells, strict=True):
        if fake:
            image[row * side + 4 : (row + 1) * side - 4, column * side + 4 : (column + 1) * side - 4] += pattern[
                ..., None
            ]
    return jnp.asarray(images.clip(0, 1)), jnp.asarray(label, jnp.int32), cells


@pytest.mark.long
@pytest.mark.parametrize(("family", "weight"), [("resnet", 0.0), ("efficientnet", 0.1)])
def test_the_response_lies_where_a_trace_was_planted(family, weight):
    """Highest in its cell: of a ResNet trained on labels alone, and of an EfficientNet with the config's weights.

    Squeeze and excitation tell every cell what is in the others: on labels alone an EfficientNet answers anywhere.
    """
    rng, size = np.random.default_rng(0), (GRID, GRID)
    options = {"padding": "static", "norm_momentum": 0.8} if family == "efficientnet" else {}
    net = fpg.Model("Mu", SIZE, family=family, options=options)
    variables = jax.jit(functools.partial(net.init, train=False))(jax.random.key(0), {"image": _planted(rng, 2)[0]})
    state, tx = dict(variables), optax.adam(3e-3)
    moments, ctx = tx.init(state["params"]), make_context(_config())

    @jax.jit
    def step(state, moments, rows):
        def loss(params):
            given = {**state, "params": params}
            out, new = net.apply(given, rows, train=True, mutable=["batch_stats"])
            terms = fpg.losses(out, rows, ctx)
            return terms["label"][0].mean() + weight * terms["response_bce"][0].mean(), new["batch_stats"]

        gradients, statistics = jax.grad(loss, has_aux=True)(state["params"])
        updates, moments_ = tx.update(gradients, moments)
        return {"params": optax.apply_updates(state["params"], updates), "batch_stats": statistics}, moments_

    for _ in range(30):
        images, label, cells = _planted(rng, 16)
        mask = np.zeros((16, *size, 1), np.float32)
        mask[np.arange(16), cells[:, 0], cells[:, 1], 0] = label
        zeros, yes = jnp.zeros(16), jnp.ones(16, bool)
        rows = {"image": images, "label": label, "blend_mask": mask, "has_mask": yes}
        state, moments = step(state, moments, rows | {"quality": zeros, "strength": zeros, "has_strength": yes})
    images, label, cells = _planted(rng, 32)
    out = jax.jit(functools.partial(net.apply, train=False))(state, {"image": images})
    assert ((out["logit"] > 0) == (label == 1)).mean() >= 0.9
    highest = np.asarray(out["map_logits"]).reshape(32, -1).argmax(1)
    found = np.stack(np.unravel_index(highest, size), axis=1)
    assert (found == cells)[16:].all(1).mean() >= 0.8


def test_sharpness_orders_clean_and_blurred_images():
    clean = jnp.asarray(make_batch((1, 0), groups=4, size=64)["image"])
    values = [degrade.sharpness(clean, 100.0)]
    for sigma in (1.0, 2.0):
        values.append(degrade.sharpness(degrade.gaussian_blur(clean, 9, sigma), 100.0))
    assert (values[0] > values[1]).all() and (values[1] > values[2]).all()
    # One bright pixel on grey in the middle of 5 x 5: the Laplacian is -4 d, d, d, d, d and four zeros.
    dot = jnp.full((1, 5, 5, 3), 0.4).at[0, 2, 2].add(20.0 / 255.0)
    variance = (16 + 4) * 400.0 / 9
    np.testing.assert_allclose(degrade.sharpness(dot, 100.0), [variance / (variance + 100.0)], rtol=1e-3)
    np.testing.assert_allclose(degrade.sharpness(jnp.full((1, 5, 5, 3), 0.4), 100.0), [0.0], atol=1e-6)


def _terms(sample_weight):
    config = _config().copy_and_resolve_references().unlock()
    config.loss_args.sample_weight = sample_weight
    out = {
        "logits": jnp.zeros((2, 2)),
        "map_logits": jnp.zeros((2, 2, 2, 1)),
        "quality": jnp.array([0.5, 0.5]),
        "strength": jnp.array([0.25, 0.75]),
    }
    rows = {
        "label": jnp.array([0, 1]),
        "quality": jnp.array([1.0, 0.2]),
        "blend_mask": jnp.zeros((2, 8, 8, 1)).at[1, :4].set(1.0),
        "has_mask": jnp.ones(2, bool),
        "strength": jnp.array([0.0, 0.5]),
        "has_strength": jnp.array([False, True]),
    }
    return fpg.losses(out, rows, make_context(config))


def test_losses_by_hand():
    terms = _terms(0.0)
    np.testing.assert_allclose(terms["label"][0], np.log([2, 2]), rtol=1e-6)
    # At odds of one every cell costs log 2, whatever its target.
    np.testing.assert_allclose(terms["response_bce"][0], np.log([2, 2]), rtol=1e-6)
    np.testing.assert_allclose(terms["quality_mse"][0], [0.25, 0.09], rtol=1e-6)
    np.testing.assert_allclose(terms["strength_mse"][0], [0.0625, 0.0625], rtol=1e-6)
    assert terms["strength_mse"][1].tolist() == [False, True]
    # 1 + 0.5 (1 - q).
    np.testing.assert_allclose(_terms(0.5)["label"][0], np.log(2) * np.array([1.0, 1.4]), rtol=1e-6)


def test_the_response_is_aligned_with_the_mask():
    target = jnp.zeros((1, 4, 4, 1)).at[0, :2, :2].set(1.0)
    rows = {name: jnp.zeros(1) for name in ("quality", "strength")} | {"label": jnp.ones(1, jnp.int32)}
    rows |= {"blend_mask": jnp.repeat(jnp.repeat(target, 4, 1), 4, 2), "has_mask": jnp.ones(1, bool)}
    rows["has_strength"] = jnp.zeros(1, bool)
    out = {"logits": jnp.zeros((1, 2)), "quality": jnp.zeros(1), "strength": jnp.zeros(1)}
    ctx = make_context(_config())
    value = lambda cells: float(fpg.losses({**out, "map_logits": cells}, rows, ctx)["response_bce"][0][0])
    there = 6.0 * (2.0 * target - 1.0)
    assert value(there) < 0.01 and value(-there) > 5.0


def test_quality_is_a_choice_of_the_config():
    config = experiment.get_config().copy_and_resolve_references().unlock()
    assert fpg.players(config) == {}
    config = experiment.get_config("network").copy_and_resolve_references().unlock()
    assert "SDD_FIQA" in config.init.quality  # a flag can change a field that is there
    player = fpg.players(config)["quality"]
    assert player.frozen and isinstance(player.module, ir_net.QualityNet)
    assert player.example[0].shape == (1, 112, 112, 3)
    config.loss_args.quality.of = "laplacian"
    with pytest.raises(ValueError, match=r"quality\.of is 'laplacian', allowed: \('sharpness', 'network'\)"):
        fpg.players(config)


def test_the_networks_score_is_quality_from_nothing_to_one(monkeypatch):
    config = _config().copy_and_resolve_references().unlock()
    config.loss_args.quality.of = "network"

    class Net:
        def apply(self, variables, images, *, mutable):
            assert images.shape == (2, 112, 112, 3)
            return 200.0 * images.mean((1, 2, 3)) - 20.0

        def __call__(self, images):
            raise NotImplementedError

    ctx = make_context(config, {"quality": Net()}, {"quality": {"params": {}}})
    images = jnp.stack([jnp.full((64, 64, 3), 0.3), jnp.full((64, 64, 3), 0.8)])
    np.testing.assert_allclose(fpg._quality(images, ctx), [0.4, 1.0], atol=1e-5)


def test_no_gradient_passes_the_look(model):
    net, variables, _ = model
    config = _config(suppress=1.0)
    config.unlock().augment.image_size = SIZE

    def total(params):
        given = {"detector": {**variables, "params": params}}
        ctx = make_context(config, {"detector": net}, given)
        rows = fpg.make_rows(jax.random.key(0), _batch(groups=1), ctx)
        return sum(rows[name].sum() for name in ("image", "mask", "score", "strength", "quality"))

    gradients = jax.jit(jax.grad(total))(variables["params"])
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(gradients))


def test_what_it_cannot_train_on_is_told():
    config = _config()
    pair = config.copy_and_resolve_references().unlock()
    pair.data.group.fake = 1
    batch = jax.tree.map(jnp.asarray, make_batch((1, 1), groups=2, size=64))
    with pytest.raises(ValueError, match=r"without the data set's fakes .* Layout\(real=1, forged=1"):
        fpg.make_rows(jax.random.key(0), batch, _context(pair.lock()))
    clip = jax.tree.map(jnp.asarray, make_batch((1, 0), groups=2, size=64, frames=2))
    with pytest.raises(ValueError, match=r"expected images \[B, H, W, 3\]"):
        fpg.make_rows(jax.random.key(0), clip, _context(config))
    with pytest.raises(ValueError, match=r"family is 'clip', allowed: \('efficientnet', 'resnet'\)"):
        image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        jax.eval_shape(
            lambda x: fpg.Model("Mu/8", 32, family="clip").init(jax.random.key(0), {"image": x}, train=False), image
        )


def test_the_experiment_is_sbis_but_for_what_it_says():
    ours, sbi = experiment.get_config(), experiment.sbi.get_published()
    assert (ours.optim.schedule, ours.steps, ours.step.name) == ("cosine", 30 * 360, "gradient")
    for name in ("data", "augment", "synth", "init", "evals", "select"):
        assert ours[name].to_json_best_effort() == sbi[name].to_json_best_effort(), name
    weights = {"label": 1.0, "response_bce": 0.1, "quality_mse": 0.05, "strength_mse": 0.05}
    assert ours.loss_weights.to_dict() == weights
    assert train_step.make_cast(ours).players == {}
    sizes = trees.flatten(jax.eval_shape(lambda: train_step.init_state(ours)).params)
    assert any(name.startswith("detector/quality_head/") for name in sizes)
