"""SLADD: its losses by hand, mirrored rows, the adversary as published and as mended, DeepfakeBench's names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_batch, make_context
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from configs.detectors import sladd as experiment
from msddf_jax import adversary, hooks, train, train_step, trees
from msddf_jax import losses as L
from msddf_jax.data import schema
from msddf_jax.detectors import sladd
from msddf_jax.models import policy
from msddf_jax.synth import compose, recipes
from msddf_jax.weights import __main__ as convert
from msddf_jax.weights import files, identify, table
from msddf_jax.weights.names import sladd_names

SIZE, GROUPS = 48, 3
KINDS = schema.FORGERY_TYPES


def _flat(variables):
    return trees.flatten(dict(variables))


def _shapes(model, size):
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return _flat(jax.eval_shape(lambda x: model.init(jax.random.key(0), {"image": x}, train=False), images))


def test_parameter_count_and_outputs():
    config = experiment.get_config()
    model = sladd.Model(**config.model.to_dict())
    shapes = _shapes(model, 256)
    # Xception with 1000 classes 22,855,952 (timm), less the classifier; 2 + 5 + 1 outputs of 2048 with bias; depthwise
    # 3 x 3 on 728 channels and 728 -> 1, no bias.
    expected = 22_855_952 - 1000 * 2049 + 8 * 2049 + 9 * 728 + 728
    assert expected == 20_830_624
    assert sum(np.prod(s.shape, dtype=int) for n, s in shapes.items() if n.startswith("params/")) == expected
    state = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), {"image": jnp.zeros((2, 256, 256, 3))}, train=False)
    )[0]
    assert state["map_logits"].shape == (2, 16, 16, 1) and state["blend_logits"].shape == (2, 5)
    assert state["logits"].shape == (2, 2) and state["magnitude"].shape == (2,) and state["feature"].shape == (2, 2048)


def test_published_settings():
    config = experiment.get_config()
    assert (config.optim.optimizer, config.optim.schedule, config.data.batch_size) == ("adam_l2", "constant", 32)
    groups = dict(config.optim.groups)
    assert dict(groups["detector/.*"]) == {"lr": 2e-4, "weight_decay": 5e-4}
    assert dict(groups["policy/.*"]) == {"lr": 5e-5, "weight_decay": 5e-4}
    assert config.loss_weights.to_dict() == {"label": 1.0, "map_mse": 0.1, "type_am": 0.05, "magnitude_mse": 0.1}
    assert len(experiment.REGIONS) == 10 and set(schema.REGIONS) - set(experiment.REGIONS) == {"hull"}


def test_dropout_is_before_the_label_alone():
    model = sladd.Model("Mu", 32, map_stage="block_3")
    images = {"image": jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 3)), jnp.float32)}
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.key(0), images)
    settings = {"train": True, "mutable": ["batch_stats"]}
    run = jax.jit(lambda seed: model.apply(variables, images, rngs={"dropout": jax.random.key(seed)}, **settings)[0])
    one, other = run(0), run(1)
    assert np.abs(one["logits"] - other["logits"]).max() > 0
    for name in ("blend_logits", "magnitude", "map_logits", "feature"):
        np.testing.assert_array_equal(one[name], other[name])
    with pytest.raises(ValueError, match=r"map_stage is 'block_7'; xception Mu has stem, block_1"):
        jax.eval_shape(lambda: sladd.Model("Mu", 32).init(jax.random.key(0), images, train=False))


# Losses


def test_am_softmax_by_hand():
    # 30 (0.5 - 0.45) = 1.5 against 30 x 0.2 = 6, and 30 (0.3 - 0.45) = -4.5 against -3.
    logits = jnp.array([[0.5, 0.2], [-0.1, 0.3]])
    expected = [np.log1p(np.exp(6.0 - 1.5)), np.log1p(np.exp(-3.0 + 4.5))]
    np.testing.assert_allclose(L.label_am(logits, jnp.array([0, 1])), expected, rtol=1e-5)
    free = L.label_am(logits, jnp.array([0, 1]), scale=1.0, margin=0.0)
    np.testing.assert_allclose(free, L.label_ce(logits, jnp.array([0, 1])), rtol=1e-6)


def _rows_and_outputs():
    """Six rows: the three blends, real, fake with a mask, fake without; map on 2 x 2 cells of a 4 x 4 mask."""
    names = ("alpha", "poisson", "dynamic", "real", "dataset_fake", "dataset_fake")
    mask = np.zeros((6, 4, 4, 1), np.float32)
    mask[[0, 1, 2, 4]] = 1.0
    rows = {
        "label": jnp.array([1, 1, 1, 0, 1, 1]),
        "type": jnp.array([KINDS.index(name) for name in names]),
        "blend_mask": jnp.asarray(mask),
        "has_mask": jnp.array([True] * 5 + [False]),
        "strength": jnp.array([0.9, 0.0, 0.6, 0.0, 0.0, 0.0]),
    }
    out = {
        "logits": jnp.tile(jnp.array([[0.5, 0.2]]), (6, 1)),
        "map_logits": jnp.full((6, 2, 2, 1), np.log(3.0)),
        "blend_logits": jnp.tile(0.1 * jnp.arange(5.0)[None], (6, 1)),
        "magnitude": jnp.array([0.1, 0.2, 0.4, 0.5, 0.6, 0.7]),
    }
    return rows, out


def _terms(magnitude="masked"):
    rows, out = _rows_and_outputs()
    settings = {"am": {"scale": 30.0, "margin": 0.45}, "magnitude": magnitude}
    ctx = make_context(ConfigDict({"steps": 1, "loss_args": settings}))
    return {name: jax.device_get(term) for name, term in sladd.losses(out, rows, ctx).items()}


def test_every_term_by_hand():
    terms = _terms()
    fake, real = np.log1p(np.exp(15.0 - (6.0 - 13.5))), np.log1p(np.exp(6.0 - 1.5))
    np.testing.assert_allclose(terms["label"][0], [fake, fake, fake, real, fake, fake], rtol=1e-5)
    # sigmoid(log 3) = 3/4, against masks of ones and zeros.
    np.testing.assert_allclose(terms["map_mse"][0], [1 / 16, 1 / 16, 1 / 16, 9 / 16, 1 / 16, 9 / 16], rtol=1e-5)
    assert terms["map_mse"][1].tolist() == [True] * 5 + [False]
    # Types 0, 1, 2, 3 real, 4 data set: logits 30 x 0.1 k, the own less 13.5.
    z = np.tile(3.0 * np.arange(5.0), (6, 1))
    own = [0, 1, 2, 3, 4, 4]
    z[range(6), own] -= 13.5
    expected = np.log(np.exp(z).sum(1)) - z[range(6), own]
    np.testing.assert_allclose(terms["type_am"][0], expected, rtol=1e-5)
    assert terms["type_am"][1].all()
    # The mix alone: (0.4 - 0.6)^2, not the alpha blend, which has a strength too.
    values, mask = terms["magnitude_mse"]
    assert mask.tolist() == [False, False, True, False, False, False] and values[2] == pytest.approx(0.04, rel=1e-5)
    assert float(L.masked_mean(values, mask)) == pytest.approx(0.04, rel=1e-5)


def test_all_pairs_is_the_broadcast():
    rows, out = _rows_and_outputs()
    # As torch broadcasts (B, 1) with (B,): entry [i, j] is (magnitude_i - target_j) where j is a mix, 0 elsewhere.
    mask = (np.asarray(rows["type"]) == KINDS.index("dynamic")).astype(np.float32)
    prediction = np.asarray(out["magnitude"])[:, None] * mask
    expected = np.mean((prediction - np.asarray(rows["strength"]) * mask) ** 2)
    values, every = _terms("all_pairs")["magnitude_mse"]
    assert every.all() and float(L.masked_mean(values, every)) == pytest.approx(expected, rel=1e-5)
    # One mix of strength 0.6 among six: the squares of -0.5, -0.4, -0.2, -0.1, 0, 0.1 over 36.
    assert expected == pytest.approx((0.25 + 0.16 + 0.04 + 0.01 + 0.0 + 0.01) / 36, rel=1e-5)
    with pytest.raises(ValueError, match=r"loss_args.magnitude is 'pairs', allowed: \('masked', 'all_pairs'\)"):
        _terms("pairs")


def test_map_target_is_read_at_the_middle_of_a_cell():
    mask = np.zeros((1, 256, 256, 1), np.float32)
    mask[:, 32:96, 160:224] = 1.0
    target = sladd._map_target(jnp.asarray(mask), 16)[0, :, :, 0]
    expected = np.zeros((16, 16))
    expected[2:6, 10:14] = 1.0
    np.testing.assert_allclose(target, expected, atol=1e-6)


# Rows


def _context(mode):
    """A context of the demo at 48 px, a real and a fake a group, with the adversary of a mode as it starts."""
    config = experiment.get_config("demo").unlock()
    config.policy.mode, config.augment.image_size, config.dtype = mode, SIZE, "float32"
    config.data.group.real = config.data.group.fake = config.synth.forged = 1
    config.synth.visible = (0.0, 0.0)
    if mode == "none":
        return make_context(config, step=100)
    network, example = adversary.make_network(config)
    variables = dict(jax.jit(network.init)(jax.random.key(0), *example))
    return make_context(config, {"policy": network}, {"policy": variables}, step=100)


@pytest.fixture(scope="module")
def made():
    """(rows of the default hook, the same mirrored by the detector's)."""
    batch = make_batch((1, 1), GROUPS, SIZE)

    @jax.jit
    def run(batch):
        key = jax.random.key(5)
        return hooks.make_rows(key, batch, _context("none")), sladd.make_rows(key, batch, _context("none"))

    return jax.device_get(run(batch))


def test_mirrored_rows_carry_mirrored_maps(made):
    rows, both = made
    assert both["label"].shape == (2 * 3 * GROUPS,) and {k for k in rows} == {k for k in both}
    first = jax.tree.map(lambda x: x[::2], both)
    second = jax.tree.map(lambda x: x[1::2], both)
    for name in set(rows) - {"base", "record"}:
        np.testing.assert_array_equal(first[name], rows[name], err_msg=name)
    for name in ("image", "mask", "blend_mask"):
        np.testing.assert_array_equal(second[name], rows[name][:, :, ::-1], err_msg=name)
        # Not symmetric: the test would see a map that stayed.
        assert np.abs(second[name] - first[name]).max() > 0.1
    same = ("label", "method", "type", "has_mask", "strength", "has_strength", "identity", "role", "group", "counted")
    for name in same:
        np.testing.assert_array_equal(second[name], rows[name], err_msg=name)
    left, right = (schema.FACE_PARTS.index(name) for name in ("left_eye", "right_eye"))
    np.testing.assert_array_equal(second["regions"][:, left], rows["regions"][:, right])
    np.testing.assert_array_equal(second["regions"][:, right], rows["regions"][:, left])
    np.testing.assert_array_equal(second["regions"][:, 2:], rows["regions"][:, 2:])
    # Each forgery's real: the plain one of a plain row, the mirrored one of a mirrored row.
    np.testing.assert_array_equal(first["base"], 2 * rows["base"])
    np.testing.assert_array_equal(second["base"], 2 * rows["base"] + 1)
    forged = rows["role"] == compose.ROLES.index("forgery")
    unchanged = np.all(both["image"] == both["image"][both["base"]], axis=(1, 2, 3))
    assert unchanged[::2][~forged].all() and unchanged[1::2][~forged].all()
    assert (rows["label"][forged] == 1).any() and not unchanged[both["label"] == 1][: GROUPS - 1].all()


def test_a_mirrored_window():
    rows = {"window": jnp.array([[0.1, 0.9, 0.0, 0.8]]), "base": jnp.zeros(1, jnp.int32)}
    np.testing.assert_allclose(sladd._add_mirrored(rows)["window"], [[0.1, 0.9, 0, 0.8], [0.1, 0.9, 0, 0.8]], atol=1e-6)
    rows["window"] = jnp.array([[0.2, 0.9, 0.0, 0.8]])
    np.testing.assert_allclose(sladd._add_mirrored(rows)["window"][1], [0.1, 0.8, 0.0, 0.8], atol=1e-6)


def test_the_regions_are_ten():
    found = recipes.region_names(experiment.get_config().synth.recipe)
    assert found == schema.REGIONS[:10] and recipes.region_names({"name": "sladd"}) == schema.REGIONS
    with pytest.raises(ValueError, match=r"regions is \('chin',\)"):
        recipes.check({"name": "sladd", "regions": ("chin",)})
    # Named regions, in whatever order, are what is drawn.
    odds = {"regions": ("mouth", "left_eye"), "type_weights": (1, 1, 1, 1), "magnitude_on": ()}
    drawn = recipes.choose_uniformly(jax.random.key(0), jnp.zeros((64, 1, 1, 3)), None, **odds)["region"]
    assert set(drawn.tolist()) == {schema.REGIONS.index("mouth"), schema.REGIONS.index("left_eye")}


# The adversary


@pytest.mark.long
@pytest.mark.parametrize("mode", ["reinforce", "published"])
def test_choices_reach_the_rows_and_the_loss_reaches_the_policy(mode):
    batch = make_batch((1, 1), GROUPS, SIZE)
    template = _context(mode)
    network, variables, config = template._modules["policy"], template.variables["policy"], template.config

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params, pixels, reward):
        ctx = make_context(config, {"policy": network}, {"policy": {**variables, "params": params}}, step=100)
        rows = sladd.make_rows(jax.random.key(1), batch, ctx)
        values = rows["image"].mean((1, 2, 3))
        every = jnp.ones(values.shape[0], bool)
        terms = {name: (values if name == "label" else 0 * values, every) for name in config.loss_weights}
        loss, scalars = adversary.judge(terms, rows, ctx)
        return pixels * values.sum() + reward * loss, (rows, scalars, ctx.updates)

    size = lambda tree: float(np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree))))
    assert size(gradient(variables["params"], 1.0, 0.0)[0]) == 0.0
    grads, (rows, scalars, updates) = jax.device_get(gradient(variables["params"], 0.0, 1.0))
    assert size(grads) > 0 and all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
    forged = rows["role"] == compose.ROLES.index("forgery")
    record = rows["record"]
    assert (record["action"]["region"] < 10).all() and forged.sum() == 2 * GROUPS
    np.testing.assert_array_equal(record["log_prob"][::2], record["log_prob"][1::2])
    total = sum(float(v) for name, v in scalars.items() if name.startswith("policy/region/"))
    assert total == pytest.approx(1.0, rel=1e-5)
    if mode == "published":
        assert updates == {} and set(variables) == {"params"}
        assert float(scalars["policy/reward"]) == pytest.approx(rows["image"].mean((1, 2, 3)).mean(), rel=1e-5)
        # From logits of zero: strength 1/2, one of ten regions, one of four types.
        assert float(scalars["policy/strength"]) == pytest.approx(0.5, abs=1e-6)
        np.testing.assert_allclose(record["log_prob"][forged], -np.log(10 * 4 * 2), rtol=1e-5)
        mixed = forged & (rows["type"] == KINDS.index("dynamic"))
        np.testing.assert_allclose(rows["strength"][mixed], 0.5, atol=1e-6)
    else:
        assert updates["policy"]["baseline"]["count"] == 1


@pytest.mark.long
@pytest.mark.parametrize("form", ["ours", "published"])
def test_a_step_of_either_form(form):
    """Traced and not run: players, their statistics and the terms fit together."""
    config = experiment.get_config("demo").unlock()
    if form == "published":
        config.policy.mode, config.loss_args.magnitude = "published", "all_pairs"
    train.check_config(config.lock())
    state = jax.eval_shape(lambda: train_step.init_state(config))
    assert state.params["policy"]["magnitude"]["kernel"].shape == (256, 1 if form == "published" else 8)
    assert ("baseline" in state.model_state["policy"]) == (form == "ours")
    batch = make_batch((2, 2), GROUPS, config.data.image_size, uint8=True)
    following, scalars = jax.eval_shape(train_step.make_train_step(config), state, (batch,))
    assert jax.tree.structure(following) == jax.tree.structure(state)
    terms = {f"loss/{name}" for name in config.loss_weights}
    assert terms <= set(scalars) and "policy/reward" in scalars
    assert ("policy/strength" in scalars) == (form == "published")


def test_published_loss_by_hand():
    log_prob = jnp.array([-1.0, -3.0, jnp.nan])
    entropies = {"region": jnp.array([1.0, 2.0, jnp.nan]), "magnitude": jnp.array([0.5, 0.3, jnp.nan])}
    mask = jnp.array([True, True, False])

    def loss_of(log_prob, reward):
        return policy.published_loss(log_prob, entropies, reward, mask)[0]

    loss, (grad, to_reward) = jax.value_and_grad(loss_of, (0, 1))(log_prob, jnp.float32(5.0))
    assert float(loss) == pytest.approx(5.0 * 2.0 - 1e-5 * (1.5 + 0.4), rel=1e-6)
    np.testing.assert_allclose(grad, [-2.5, -2.5, 0.0])
    assert float(to_reward) == 0.0


def test_published_choice_by_hand():
    logits = {"region": jnp.zeros((2, 10)), "type": jnp.zeros((2, 4)), "magnitude": jnp.array([[0.0], [np.log(3.0)]])}
    actions, log_prob, entropies = policy.choose_published(jax.random.key(0), logits)
    np.testing.assert_allclose(actions["magnitude"], [0.5, 0.75], rtol=1e-6)
    np.testing.assert_allclose(log_prob, np.log([0.5 / 40, 0.75 / 40]), rtol=1e-6)
    np.testing.assert_allclose(entropies["magnitude"], [-0.5 * np.log(0.5), -0.75 * np.log(0.75)], rtol=1e-6)
    np.testing.assert_allclose(entropies["region"], np.log(10.0), rtol=1e-6)


def _play(step, logits, carried, rows=64, steps=200):
    """Mean strength after steps of plain descent on one set of logits, with a loss that falls with the strength."""

    @jax.jit
    def update(logits, carried, key):
        def loss_fn(logits):
            of_rows = {name: jnp.broadcast_to(value, (rows, value.shape[0])) for name, value in logits.items()}
            return step(key, of_rows, carried)

        grads, (carried, strength) = jax.grad(loss_fn, has_aux=True)(logits)
        return jax.tree.map(lambda x, g: x - g, logits, grads), carried, strength

    key = jax.random.key(8)
    for i in range(steps):
        logits, carried, strength = update(logits, carried, jax.random.fold_in(key, i))
    return float(strength)


def test_the_published_update_drives_the_strength_to_one_and_ours_does_not():
    """A detector that strong blends are easy for, loss 2 - strength: an adversary that works weakens them."""
    detector_loss = lambda strength: 2.0 - strength

    def published(key, logits, carried):
        actions, log_prob, entropies = policy.choose_published(key, logits)
        reward = detector_loss(actions["magnitude"]).mean()
        loss, _ = policy.published_loss(log_prob, entropies, reward, jnp.ones(log_prob.shape, bool))
        return loss, (carried, actions["magnitude"].mean())

    def mended(key, logits, baseline):
        draw_key, strength_key = jax.random.split(key)
        actions, log_probs = policy.sample(draw_key, logits, 0.2)
        strength = policy.draw_magnitude(strength_key, actions["magnitude"], *adversary.MAGNITUDE)
        loss, following, _ = policy.reinforce_loss(
            # Every type a mix, so that the strength always has an effect.
            policy.joint_log_prob(log_probs, jnp.full(strength.shape, schema.BLENDS.index("dynamic"))),
            policy.entropy(logits, 0.2),
            detector_loss(strength),
            jnp.ones(strength.shape, bool),
            baseline,
        )
        return loss, (following, strength.mean())

    heads = {"region": jnp.zeros(10), "type": jnp.zeros(4)}
    assert _play(published, {**heads, "magnitude": jnp.zeros(1)}, {}) > 0.95
    assert _play(mended, {**heads, "magnitude": jnp.zeros(8)}, policy.init_baseline()) < 0.35


# DeepfakeBench's file


def _bench_file(variant, prefix="", sequential=False, seed=0):
    """{their name: array}: a detector of ours with drawn numbers under DeepfakeBench's names, spelt out here."""
    rng = np.random.default_rng(seed)
    shapes = {name: tuple(leaf.shape) for name, leaf in _shapes(_model(variant), 64).items()}
    out = {}
    for name, entry in sladd_names.sladd(variant, "", sequential).items():
        shape = shapes[entry.ours]
        value = rng.uniform(0.5, 1.5, shape) if name.endswith("running_var") else rng.normal(0, 0.3, shape)
        out[prefix + name] = table.to_theirs({entry.ours: value.astype(np.float32)}, {name: entry})[name]
    counters = {n.replace("running_mean", "num_batches_tracked") for n in out if n.endswith("running_mean")}
    out |= {name: np.zeros((), np.float32) for name in counters}
    # The synthesiser goes with it; its first layer has the two images' six channels.
    out[f"{prefix}synthesizer.netG.model.iniconv.weight"] = np.zeros((32, 6, 3, 3), np.float32)
    return out


def _model(variant):
    return sladd.Model(variant, 64, map_stage="block_3" if variant == "Mu" else "block_7")


def test_names_and_shapes_are_deepfakebenchs():
    """Those of networks/xception_sladd.py that a plain Xception has not, and its last layer."""
    shapes = {name: value.shape for name, value in _bench_file("xception").items() if "synthesizer" not in name}
    heads = {
        "backbone.last_linear.weight": (2, 2048),
        "backbone.last_linear.bias": (2,),
        "backbone.type_fc.weight": (5, 2048),
        "backbone.type_fc.bias": (5,),
        "backbone.mag_fc.weight": (1, 2048),
        "backbone.mag_fc.bias": (1,),
        "backbone.map.c.conv1.weight": (728, 1, 3, 3),
        "backbone.map.c.pointwise.weight": (1, 728, 1, 1),
    }
    of_blocks = ("backbone.conv", "backbone.bn", "backbone.block")
    assert {n: s for n, s in shapes.items() if not n.startswith(of_blocks)} == heads
    assert shapes["backbone.conv1.weight"] == (32, 3, 3, 3)
    assert shapes["backbone.block12.skip.weight"] == (1024, 728, 1, 1)


@pytest.mark.parametrize(("prefix", "sequential"), [("", False), ("module.", True)])
def test_a_file_of_deepfakebench_is_recognised_loaded_and_written_back(tmp_path, prefix, sequential):
    path = tmp_path / "sladd_best.safetensors"
    tensors = _bench_file("Mu", prefix, sequential)
    save_file(tensors, path)
    opened = files.open_tensors(path)
    found = identify.identify(opened, path)
    assert (found.format, found.detector, found.family, found.variant) == (
        "sladd/deepfakebench",
        "sladd",
        "xception",
        "Mu",
    )
    model = _model("Mu")
    table.check(opened, found.table, _shapes(model, 64), path, found.skip)
    flat = table.to_ours(opened, found.table)
    back = table.to_theirs(flat, found.table)
    # Under the names without DataParallel's prefix.
    assert set(tensors) - {prefix + n for n in back} == {n for n in tensors if "synthesizer" in n or "num_batches" in n}
    for name, value in back.items():
        np.testing.assert_array_equal(value, tensors[prefix + name], err_msg=name)
    # What the heads give is what their tensors say.
    images = jnp.asarray(np.random.default_rng(1).uniform(size=(2, 64, 64, 3)), jnp.float32)
    apply = lambda v: model.apply(v, {"image": images}, train=False, capture_intermediates=True)
    out, captured = jax.device_get(jax.jit(apply)(trees.unflatten(flat)))
    [inner] = captured["intermediates"]["backbone"]["__call__"]
    last = f"{prefix}backbone.last_linear{'.1' if sequential else ''}"
    for name, theirs in (("logits", last), ("blend_logits", f"{prefix}backbone.type_fc")):
        expected = inner["feature"] @ tensors[f"{theirs}.weight"].T + tensors[f"{theirs}.bias"]
        np.testing.assert_allclose(out[name], expected, rtol=1e-4, atol=1e-4)
    magnitude = (
        inner["feature"] @ tensors[f"{prefix}backbone.mag_fc.weight"][0] + tensors[f"{prefix}backbone.mag_fc.bias"]
    )
    np.testing.assert_allclose(out["magnitude"], magnitude, rtol=1e-4, atol=1e-4)
    kernel = tensors[f"{prefix}backbone.map.c.conv1.weight"][:, 0]
    stage = np.pad(inner["stages"]["block_3"], ((0, 0), (1, 1), (1, 1), (0, 0)))
    side = stage.shape[1] - 2
    depthwise = sum(stage[:, i : i + side, j : j + side] * kernel[:, i, j] for i in range(3) for j in range(3))
    expected = depthwise @ tensors[f"{prefix}backbone.map.c.pointwise.weight"][0, :, 0, 0]
    np.testing.assert_allclose(out["map_logits"][..., 0], expected, rtol=1e-4, atol=1e-3)


def test_a_plain_xception_is_none_and_a_full_one_becomes_its_experiment():
    shapes = {name: value.shape for name, value in _bench_file("xception").items()}
    plain = {n: s for n, s in shapes.items() if not any(part in n for part in ("type_fc", "mag_fc", ".map."))}
    assert sladd_names.find(plain) is None and sladd_names.find({}) is None
    found = identify.Found(**sladd_names.find(shapes))
    config = convert.detector_config(found)
    assert (config.detector, config.model.variant, config.model.map_stage) == ("sladd", "xception", "block_7")
    assert {entry.ours for entry in found.table.values()} == set(_shapes(sladd.Model(**config.model.to_dict()), 256))
