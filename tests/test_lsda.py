"""LSDA: its losses by hand, features augmented, who plays and what of them is kept, and its files."""

import flax.linen as nn
import golden_figures
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_context
from safetensors.numpy import save_file

from configs.detectors import lsda as config_file
from msddf_jax import detector, optim, steps, trees
from msddf_jax.detectors import lsda
from msddf_jax.losses import masked_mean
from msddf_jax.models import latent
from msddf_jax.train_step import init_players, init_state, make_cast
from msddf_jax.weights import load_initial, table
from msddf_jax.weights.names import iresnet_names, lsda_names


def _config(arg="demo", **real):
    config = config_file.get_config(arg).unlock()
    config.loss_args.real.update(real)
    return config


class _Fixed(nn.Module):
    """A network that gives what it was made with, and counts its looks in a moving statistic."""

    value: tuple

    @nn.compact
    def __call__(self, *given, train=False):
        looks = self.variable("batch_stats", "looks", lambda: jnp.zeros(()))
        if train and self.is_mutable_collection("batch_stats"):
            looks.value = looks.value + 1
        return jax.tree.map(jnp.asarray, dict(self.value)) if isinstance(self.value[0], tuple) else given[0] * 0 + 1


def _terms(real=True):
    """Terms of two groups of a real, a reenactment and a swap, at maps of one cell of two channels."""
    config = _config(variant="Mu" if real else "")
    config.model.image_size = 2
    config.data.group.methods = ("toy_neural", "toy_texture")
    fused = np.array([[[1.0, 0.0], [0.0, 2.0]], [[0.0, 0.0], [1.0, 1.0]]]).reshape(2, 2, 1, 1, 2)
    kinds = np.zeros((2, 3, 3))
    kinds[0, 1, 1] = np.log(2)
    seen = np.array([[1.0, 0], [0, 1], [2, 0], [0, 3], [0, -1], [3, 4]]).reshape(6, 1, 1, 2)

    class Seen(_Fixed):
        def __call__(self, images, train=False):
            return jnp.asarray(seen)

    modules = {f"teacher_{name}": _Fixed((1,)) for name in config.data.group.methods}
    modules["mixer"] = _Fixed((("fused", fused), ("kinds", kinds)))
    variables = {name: {"batch_stats": {"looks": jnp.zeros(())}} for name in modules}
    if real:
        modules["real"], variables["real"] = Seen((1,)), {}
    student = jnp.asarray([[1.0, 1], [1, 0], [0, 0], [0, 3], [0, 2], [1, 3]]).reshape(6, 1, 1, 2)
    out = {"logits": jnp.asarray([[0.0, np.log(3)]] * 6), "spatial": student}
    rows = {"image": jnp.zeros((6, 2, 2, 3)), "label": jnp.asarray([0, 1, 1] * 2)}
    ctx = make_context(config, modules, variables)
    return lsda.losses(out, rows, ctx), ctx


def test_losses_by_hand():
    terms, ctx = _terms()
    np.testing.assert_allclose(terms["label"][0], [np.log(4), np.log(4 / 3), np.log(4 / 3)] * 2, rtol=1e-6)
    # Even odds of three kinds, but for the first reenactment: 2 to 1 to 1.
    np.testing.assert_allclose(terms["kind"][0], np.log([3, 2, 3, 3, 3, 3]), rtol=1e-6)
    assert terms["kind"][1].all()
    # A real (1, 1) for (1, 0); fakes (0, 0) for (0, 2), (0, 2) for (0, 0), (1, 3) for (1, 1); the others are equal.
    np.testing.assert_allclose(terms["distill_real"][0], [0.5, 0, 2, 0, 2, 2], rtol=1e-6)
    np.testing.assert_allclose(terms["distill_fake"][0], [0.5, 0, 2, 0, 2, 2], rtol=1e-6)
    np.testing.assert_array_equal(terms["distill_real"][1], [True, False, False] * 2)
    np.testing.assert_array_equal(terms["distill_fake"][1], [False, True, True] * 2)
    # Cosines of a fake's map and its real's: 0 and 1 of the first group, -1 and 4/5 of the second; swaps count less.
    np.testing.assert_allclose(terms["real"][0], [0, 1, 0, 0, 2, -0.2], atol=1e-5)
    np.testing.assert_array_equal(terms["real"][1], [False, True, True] * 2)
    total, _ = steps.weighted_sum(terms, config_file.get_config().loss_weights.to_dict())
    label, kind = 0.5 * (np.log(4) + 2 * np.log(4 / 3)) / 3, (5 * np.log(3) + np.log(2)) / 6
    np.testing.assert_allclose(total, label + kind + 0.5 / 2 + (0 + 2 + 2 + 2) / 4, rtol=1e-5)
    # Teachers' statistics move, once a step.
    assert {name: float(kept["batch_stats"]["looks"]) for name, kept in ctx.updates.items()} == {
        "teacher_toy_neural": 1.0, "teacher_toy_texture": 1.0,
    }  # fmt: skip


def test_without_a_recogniser_nothing_is_asked_of_reals_but_their_label():
    terms, _ = _terms(real=False)
    assert not terms["distill_real"][1].any() and not terms["real"][1].any()
    np.testing.assert_array_equal(terms["kind"][1], [False, True, True] * 2)


@pytest.mark.parametrize("samples", latent.SAMPLES)
def test_maps_are_changed_in_one_of_four_ways(samples):
    groups, kinds, side, channels = 5, 3, 2, 4
    key = jax.random.key(3)
    maps = np.random.default_rng(0).normal(size=(groups, kinds, side, side, channels)).astype(np.float32)
    made = np.asarray(jax.jit(latent.augment_within, static_argnums=2)(key, maps, samples))
    count = channels if samples == "channels" else 1
    lead = (kinds, groups, count)
    way_key, share_key, deviation_key, noise_key = jax.random.split(key, 4)
    way = np.asarray(jax.random.randint(way_key, (kinds, groups, 1, 1), 0, 4)).reshape(kinds, groups)
    share, deviation = (np.asarray(jax.random.uniform(k, (*lead, 1))) for k in (share_key, deviation_key))
    noise = np.asarray(jax.random.normal(noise_key, (*lead, channels * side * side // count)))
    assert set(way.ravel()) == {0, 1, 2, 3}
    as_samples = lambda m: m.transpose(2, 0, 1).reshape(count, -1)
    for k in range(kinds):
        samples_of = np.concatenate([as_samples(maps[g, k]) for g in range(groups)])
        mean = samples_of.mean(0)
        hardest = samples_of[np.argmax(np.linalg.norm(samples_of - mean, axis=1))]
        for g in range(groups):
            z = as_samples(maps[g, k])
            others = [as_samples(maps[(g + step) % groups, k]) for step in (1, 2)]
            apart = others[0] - others[1] if samples == "maps" else z[0] - z[1]
            step = [hardest - z, z - mean, deviation[k, g] * noise[k, g], apart][way[k, g]]
            np.testing.assert_allclose(as_samples(made[g, k]), z + share[k, g] * step, rtol=1e-4, atol=1e-5)


def test_kinds_are_mixed_within_a_group():
    groups, kinds = 4000, 4
    maps = np.zeros((groups, kinds, 1, 1, kinds), np.float32)
    maps[:, np.arange(kinds), 0, 0, np.arange(kinds)] = 1
    made = np.asarray(jax.jit(latent.mix_across)(jax.random.key(0), maps)).reshape(groups, kinds, kinds)
    np.testing.assert_allclose(made.sum(2), 1, rtol=1e-5)
    # Permuted: each kind goes into the others once.
    np.testing.assert_allclose(made.sum(1), 1, rtol=1e-5)
    own = made[:, np.arange(kinds), np.arange(kinds)]
    moved = own < 1 - 1e-6
    np.testing.assert_allclose(moved.mean(), 1 - 1 / kinds, atol=0.02)
    # One weight a group; its variance is the mean of 1 / (4 (2 a + 1)) over a in (0.5, 2): (ln 5 - ln 2) / 12.
    weight = own[moved.any(1)].min(1)
    assert np.all(np.isclose(own, own.min(1, keepdims=True)) | ~moved)
    np.testing.assert_allclose(weight.mean(), 0.5, atol=0.02)
    np.testing.assert_allclose(weight.var(), np.log(2.5) / 12, rtol=0.08)


def test_other_samples_are_refused():
    with pytest.raises(ValueError, match=r"samples is 'pixels', allowed: \('maps', 'channels'\)"):
        latent.augment_within(jax.random.key(0), jnp.zeros((1, 1, 1, 1, 1)), "pixels")


def test_who_plays():
    config = _config(None)
    found = lsda.players(config)
    assert set(found) == {*(f"teacher_{name}" for name in config_file.METHODS), "mixer", "real"}
    assert {name for name, player in found.items() if player.frozen} == {"real"}
    assert set(config.init) == {"backbone", "real", *(n for n in found if n.startswith("teacher_"))}
    assert not lsda.players(_config("port"))["real"].frozen and "real" not in lsda.players(_config("demo"))


@pytest.mark.parametrize(
    "change", [{"methods": ()}, {"real": 2}, {"fake": 2}, {"match": "class"}, {"recipe": {"name": "self_blend"}}]
)
def test_another_group_is_refused(change):
    config = _config()
    if "recipe" in change:
        config.synth.update(change)
    else:
        config.data.group.update(change)
    with pytest.raises(ValueError, match="lsda trains on a real and one fake of each method, of its own video"):
        lsda.players(config)


# Traces six networks of full size.
@pytest.mark.long
def test_what_is_kept_and_what_is_trained():
    config = _config(None)
    state = jax.eval_shape(lambda: init_state(config))
    size = lambda tree: sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if leaf.dtype != "key<fry>"
    )
    student = {"params": state.params["detector"], "model_state": state.model_state["detector"]}
    assert set(student["params"]) == {"backbone", "narrow", "hidden", "binary_head"}
    assert round(size(student) / 1e6) == 75
    kept = sum(size(getattr(state, name)) for name in ("params", "model_state", "opt_state", "ema"))
    assert round(kept / 1e9, 2) == 1.25
    assert "real" not in state.params and set(jax.eval_shape(lambda: init_players(config, frozen=True))) == {"real"}
    # Of the port's recogniser the first three stages stay.
    config = _config("port")
    shapes = {"real": jax.eval_shape(lambda: init_state(config).params["real"])}
    trained = optim.trainable_names(shapes, make_cast(config).groups)
    still = {int(n.split("/")[2].removeprefix("block_")) for n, value in trained.items() if not value}
    assert still == set(range(3 + 13 + 30))
    assert {n.split("/")[2] for n, value in trained.items() if value} == {
        "stem", "stem_norm", "stem_prelu", "norm", "block_46", "block_47", "block_48",
    }  # fmt: skip


# Compiles a gradient through four networks.
@pytest.mark.long
def test_teachers_and_fusion_learn_and_a_frozen_recogniser_does_not():
    config = _config(variant="Mu", trained=False)
    config.model.image_size, config.dtype = 32, "float32"
    players = lsda.players(config)
    modules = {"detector": detector.make_model(config), **{name: p.module for name, p in players.items()}}
    image = jnp.asarray(np.random.default_rng(0).random((6, 32, 32, 3), np.float32))
    rows = {"image": image, "label": jnp.asarray([0, 1, 1] * 2)}
    examples = {name: p.example for name, p in players.items()} | {"detector": (rows,)}

    def variables():
        give = lambda name: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), examples[name])
        return {n: m.init(jax.random.key(i), *give(n), train=False) for i, (n, m) in enumerate(modules.items())}

    drawn = jax.jit(variables)()

    names = ("kind", "distill_fake", "distill_real")

    def total(params, weights):
        ctx = make_context(config, modules, {name: {**drawn[name], "params": params[name]} for name in drawn})
        out = ctx.apply("detector", rows, train=True, mutable=True)
        terms = lsda.losses(out, rows, ctx)
        return sum(weight * masked_mean(*terms[name]) for name, weight in zip(names, weights, strict=True))

    gradient, reach = jax.jit(jax.grad(total)), {}
    for index, term in enumerate(names):
        flat = trees.flatten(gradient({n: v["params"] for n, v in drawn.items()}, jnp.eye(3)[index]))
        assert all(np.isfinite(value).all() for value in flat.values())
        reach[term] = {name.split("/")[0] for name, value in flat.items() if np.abs(value).max() > 0}
    teachers = {"teacher_toy_neural", "teacher_toy_texture"}
    assert reach["kind"] >= {*teachers, "mixer"} and "detector" not in reach["kind"]
    assert reach["distill_fake"] == {*teachers, "mixer", "detector"}
    assert "mixer" not in reach["distill_real"] and "detector" in reach["distill_real"]


def test_of_a_file_the_student_is_read():
    content = golden_figures.read("lsda", 256)
    shapes = {name: tuple(shape) for name, shape in (*content["filled"], *content["fixed"])}
    others = (
        "model.encoders_f.0.conv.weight",
        "model.encoder_c.fc.weight",
        "model.fc_weights.0.bias",
        "model.mlp.2.bias",
    )
    shapes |= dict.fromkeys(others, (1,))
    assert lsda_names.find(shapes) == "B4"
    assert lsda_names.find({n: s for n, s in shapes.items() if n != "model.student_encoder.conv.weight"}) is None
    tensors = {name: table.Tensor(shape, np.dtype(np.float32), None) for name, shape in shapes.items()}
    weights = detector.weight_shapes(config_file.get_config("port"))
    expected = trees.flatten({"params": weights["params"], **weights["model_state"]})
    table.check(tensors, lsda_names.table("B4"), expected, "lsda_best.pth", lsda_names.SKIP)


def test_a_recognisers_file_gives_its_map_alone(tmp_path):
    whole = load_initial.backbone_shapes("iresnet", "Mu", 112, {})
    theirs = lambda e: table.KINDS[e.kind][1](np.broadcast_to(np.float32(0.5), whole[e.ours].shape))
    arrays = {name: np.ascontiguousarray(theirs(e)) for name, e in iresnet_names.table("Mu").items()}
    save_file(arrays, tmp_path / "backbone.safetensors")
    net = latent.Recogniser("Mu", 64, 2)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = trees.flatten(jax.eval_shape(lambda x: net.init(jax.random.key(0), x), image))
    path, skip = tmp_path / "backbone.safetensors", config_file.RECOGNISER.rpartition("&")[2]
    flat, about = load_initial.load_whole(f"{path}#{skip}", shapes, "config.init.real")
    assert set(flat) == set(shapes) and about["format"] == iresnet_names.FORMAT
    with pytest.raises(ValueError, match=r"config\.init\.real: .*embedding"):
        load_initial.load_whole(str(path), shapes, "config.init.real")
