"""UIA-ViT: its Gaussians beside NumPy's, on a resume and on eight devices; losses, schedule and weights by hand."""

import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from few_steps import noise_batch, shrink
from ml_collections import ConfigDict
from sklearn.covariance import LedoitWolf

from configs.detectors import uia_vit as config_file
from msddf_jax import checkpoint, detector, sharding, trees
from msddf_jax.detectors import uia_vit
from msddf_jax.models import clip, gaussians
from msddf_jax.train_step import init_state, make_train_step
from msddf_jax.weights import load_initial, table
from msddf_jax.weights.names import clip_names

WIDTH, VALUES = 3, jnp.asarray([0.6, 0.7, 0.2])
SETTINGS = ConfigDict({"refit_every": 3, "begin": 6, "samples": 2, "inner": (0.2, 0.8)})
LABEL = np.asarray([1, 0, 0, 1, 0, 1, 1, 0])
COLLECT, FIT = jax.jit(gaussians.collect), jax.jit(lambda kept: gaussians.refit(kept, True))


def _start():
    return {name: jnp.zeros(shape) for name, shape in gaussians.shapes(2, WIDTH).items()}


def _context(step, kept, moved):
    return types.SimpleNamespace(
        config=ConfigDict({"loss_args": SETTINGS}),
        step=step,
        apply=lambda name: (VALUES, kept),
        update=lambda name, **collections: moved.update(collections),
    )


@jax.jit
def _step(step, kept, patches, label, counted):
    """(Gaussians after a step, terms) of features [8, 4, 4, WIDTH]."""
    moved, number = {}, label.shape[0]
    out = {"patches": patches, "affinity": jnp.full((number, 16, 16), 0.5), "logits": jnp.zeros((number, 2))}
    terms = uia_vit.losses(out, {"label": label, "counted": counted}, _context(step, kept, moved))
    return moved["gaussians"], terms


def _stream(steps, seed=0):
    """Features far from 0, correlated and skew, the fakes elsewhere; and which rows count."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(WIDTH, WIDTH))
    for _ in range(steps):
        patches = rng.exponential(size=(8, 4, 4, WIDTH)) @ mix + [50, -20, 5] + 0.5 * LABEL[:, None, None, None]
        yield patches.astype(np.float32), rng.uniform(size=8) < 0.8


def _run(kept, stream, put=lambda x: x, first=0):
    for step, (patches, counted) in enumerate(stream, first):
        kept, terms = _step(step, kept, *(put(x) for x in (patches, LABEL, counted)))
    return kept, terms


def _collected(stream):
    """What `losses` has to collect of a stream, a list of vectors a class: two rows each, inner cells of fakes."""
    found = ([], [])
    for patches, counted in stream:
        for label, cells in ((0, slice(0, 4)), (1, slice(1, 3))):
            rows = np.flatnonzero(counted & (label == LABEL))[:2]
            found[label].extend(patches[rows][:, cells, cells].reshape(-1, WIDTH).astype(np.float64))
    return [np.asarray(x) for x in found]


def _ledoit_wolf(x):
    """Mean and covariance by the definition, every product of every vector for itself."""
    centred = x - x.mean(0)
    products = centred[:, :, None] * centred[:, None, :]
    sample = products.mean(0)
    mu = np.trace(sample) / WIDTH
    apart = ((sample - mu * np.eye(WIDTH)) ** 2).sum()
    noise = min(((products - sample) ** 2).sum() / len(x) ** 2, apart)
    return x.mean(0), sample + noise / apart * (mu * np.eye(WIDTH) - sample)


def test_gaussians_are_numpys_on_a_fixed_stream():
    # Steps 3 and 6 fit what came in the three before them; step 7 collects.
    kept, _ = _run(_start(), _stream(8))
    stream = list(_stream(8))
    window = _collected(stream[6:])
    points = stream[0][0].reshape(-1, WIDTH)
    far = gaussians.distances(kept, points)
    for label, vectors in enumerate(_collected(stream[3:6])):
        mean, covariance = _ledoit_wolf(vectors)
        assert kept["fitted"][label] == len(vectors) and kept["count"][label] == len(window[label])
        np.testing.assert_allclose(kept["fit_mean"][label], mean, rtol=1e-6)
        whiten = np.asarray(kept["whiten"][label], np.float64)
        np.testing.assert_allclose(np.linalg.inv(whiten.T @ whiten), covariance, rtol=1e-4, atol=1e-5)
        expected = np.einsum("md,de,me->m", points - mean, np.linalg.inv(covariance), points - mean)
        np.testing.assert_allclose(far[label], expected, rtol=1e-3)
        np.testing.assert_allclose(kept["mean"][label], window[label].mean(0), rtol=1e-6)


def test_shrinkage_is_scikit_learns():
    x = np.random.default_rng(1).normal(size=(6, WIDTH)) * [1, 2, 5] + 3
    kept = FIT(COLLECT(_start(), jnp.asarray(np.stack([x, x])), jnp.ones((2, 6))))
    whiten = np.asarray(kept["whiten"][1], np.float64)
    np.testing.assert_allclose(whiten.T @ whiten, LedoitWolf().fit(x).precision_, rtol=1e-4, atol=1e-6)


def test_a_class_that_is_not_there_keeps_its_fit():
    kept, _ = _run(_start(), _stream(4))
    before = jax.device_get(kept)
    x = jnp.ones((2, 5, WIDTH)).at[0, 0].set(2.0)
    kept = COLLECT(kept, x, jnp.asarray([[1.0] * 5, [0.0] * 5]))
    # The window of fakes holds what step 3 left.
    kept = {**kept, "count": kept["count"].at[1].set(1.0)}
    kept = FIT(kept)
    assert kept["fitted"][0] == before["count"][0] + 5
    for name in ("fit_mean", "whiten", "fitted"):
        np.testing.assert_array_equal(kept[name][1], before[name][1])
    # Vectors that do not vary are no division by 0.
    flat = FIT(COLLECT(_start(), jnp.ones((2, 5, WIDTH)), jnp.ones((2, 5))))
    assert np.isfinite(flat["whiten"]).all()


def test_one_device_and_eight_agree():
    mesh = sharding.make_mesh({"data": -1})
    alone, terms = _run(_start(), _stream(8))
    with jax.set_mesh(mesh):
        split, split_terms = _run(_start(), _stream(8), put=lambda x: sharding.put_batch({"x": x}, mesh)["x"])
    for name, value in alone.items():
        np.testing.assert_allclose(split[name], value, rtol=2e-5, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(split_terms["fakes"][1], terms["fakes"][1])
    np.testing.assert_allclose(split_terms["fakes"][0], terms["fakes"][0], rtol=1e-6)


def test_a_resume_is_the_same_to_the_bit(tmp_path):
    whole, _ = _run(_start(), _stream(8))
    begun, _ = _run(_start(), list(_stream(8))[:5])
    with checkpoint.make_manager(tmp_path) as manager:
        checkpoint.save(manager, 5, begun, {})
        manager.wait_until_finished()
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), begun)
        step, restored, _ = checkpoint.restore_last(manager, shapes)
    again, _ = _run(restored, list(_stream(8))[5:], first=step)
    for name, value in whole.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


def test_losses_begin_with_a_fit_and_after_their_step():
    kept, seen = _start(), []
    for step, (patches, counted) in enumerate(_stream(8)):
        kept, terms = _step(step, kept, patches, LABEL, counted)
        seen.append({name: np.asarray(mask) for name, (_, mask) in terms.items()})
    for step, masks in enumerate(seen):
        assert masks["label"].all()
        np.testing.assert_array_equal(masks["reals"], (LABEL == 0) & (step >= 6))
        np.testing.assert_array_equal(masks["fakes"], (LABEL == 1) & (step >= 6))
        assert (masks["same"] == (step >= 6)).all() and (masks["cross"] == (step >= 6)).all()
    # Without a fit they wait.
    assert not np.asarray(_step(7, _start(), patches, LABEL, counted)[1]["reals"][1]).any()
    np.testing.assert_allclose(terms["label"][0], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(terms["same"][0], 1 / 0.6 + 1 / 0.7, rtol=1e-6)
    np.testing.assert_allclose(terms["cross"][0], 0.2, rtol=1e-6)


def test_consistency_by_hand():
    affinity, forged = jnp.full((2, 4, 4), 0.5), jnp.asarray([[False] * 4, [True, True, False, False]])
    value = jax.jit(lambda values: uia_vit._consistency(affinity, forged, jnp.asarray([0, 1]), values))
    # A real: 12 pairs 0.1 off, and four patches 0.5 from 1. A fake: four pairs of reals 0.1 off, four forged ones 0.2,
    # eight of both 0.3, patches with themselves among them.
    np.testing.assert_allclose(
        value(VALUES), [(12 * 0.1 + 4 * 0.5) / 12, (4 * 0.1 + 4 * 0.2 + 8 * 0.3) / 12], rtol=1e-6
    )
    # Each value learns from its own pairs.
    slopes = jax.jit(jax.jacobian(value))(VALUES)
    np.testing.assert_allclose(slopes, [[1, 0, 0], [4 / 12, 4 / 12, -8 / 12]], rtol=1e-6)


def test_attention_before_softmax_is_the_mean_over_heads():
    module = clip.Attention(heads=2, depth=4, dtype=jnp.float32, affinity=True)
    x = np.random.default_rng(0).normal(size=(1, 5, 8)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    found, affinity = jax.jit(lambda v: module.apply(v, x, (1, None)))(variables)
    plain = clip.Attention(heads=2, depth=4, dtype=jnp.float32)
    np.testing.assert_allclose(found, jax.jit(lambda v: plain.apply(v, x, (1, None)))(variables), rtol=1e-6)
    query, key = (x[0] @ variables["params"][name]["kernel"] for name in ("query", "key"))
    heads = [query[1:, s] @ key[:, s].T / np.sqrt(4) for s in (slice(0, 4), slice(4, 8))]
    np.testing.assert_allclose(affinity[0], np.mean(heads, axis=0), rtol=1e-5, atol=1e-6)


def _small():
    config = shrink(config_file.get_config("demo"), "Mu/8", 1e-3, image_size=16)
    config.loss_args.refit_every, config.loss_args.begin = 2, 4
    return config


# Compiles the network three times.
@pytest.mark.long
def test_patches_weigh_by_attention_the_more_the_longer_it_trained():
    model, rows = detector.make_model(_small()), {"image": jnp.asarray(noise_batch(2, 16)["image"]) / 255.0}
    variables = jax.jit(lambda: model.init(jax.random.key(0, impl="rbg"), rows, train=False))()
    kept = {"params": variables["params"]}
    catch = lambda module, _: module.name == "backbone"

    @jax.jit
    def train(progress):
        out, moved = model.apply(
            variables, {**rows, "progress": jnp.full(2, progress)}, train=True,
            mutable=["schedule", "intermediates"], capture_intermediates=catch,
        )  # fmt: skip
        return out, moved

    score = jax.jit(lambda variables: model.apply(variables, rows, train=False))
    head = variables["params"]["binary_head"]["out"]
    for progress, even in ((0.1, 1.0), (0.2, 1 / (1 + np.exp(-12 * 0.5))), (0.95, 1 / (1 + np.exp(12 * 0.25)))):
        out, moved = train(progress)
        tower = moved["intermediates"]["backbone"]["__call__"][0]
        weight = even + (1 - even) / (1 + np.exp(-np.asarray(out["map_logits"]).reshape(2, 4)))
        seen = (weight[..., None] * tower["tokens"]).sum(1) / 4
        logits = np.concatenate([tower["cls"], seen], axis=1) @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(out["logits"], logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["map_logits"][:, 0, 1, 0], tower["affinity"][:, 0, 2], rtol=1e-6)
        np.testing.assert_allclose(moved["schedule"]["left"], 1 - progress, rtol=1e-5)
        # What is scored is what was trained; where nothing is known of training, its end.
        scored = score({**kept, "schedule": moved["schedule"]})
        np.testing.assert_allclose(scored["logits"], logits, rtol=1e-4, atol=1e-5)


# Imports torch.
@pytest.mark.long
def test_a_file_of_timms_starts_the_backbone(tmp_path):
    config = config_file.get_config("demo").unlock()
    config.init.backbone = f"{tmp_path}/vit.pth#format=clip/timm_vit"
    shapes = detector.weight_shapes(config)
    flat = trees.flatten({"params": shapes["params"], **shapes["model_state"]})
    rng = np.random.default_rng(0)
    ours = {name: rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in flat.items()}
    theirs = table.to_theirs(ours, clip_names.timm_vit("Mu/8"))
    # With its classifier of a thousand, as published.
    theirs |= {"head.weight": np.zeros((1000, 64), np.float32), "head.bias": np.zeros(1000, np.float32)}
    torch = pytest.importorskip("torch", reason="writes a .pth")
    torch.save({name: torch.from_numpy(value) for name, value in theirs.items()}, tmp_path / "vit.pth")
    found, about = load_initial.load(config, flat, elsewhere=("consistency",))
    assert set(found) == {name for name in flat if name.startswith("params/backbone/")}
    assert about["backbone"]["format"] == "clip/timm_vit"
    for name, value in found.items():
        np.testing.assert_array_equal(value, ours[name], err_msg=name)


def test_detail_is_what_pixels_have_beside_their_mean():
    images = np.random.default_rng(0).uniform(size=(2, 20, 24, 3)).astype(np.float32)
    local = [cv2.GaussianBlur(image, (7, 7), 1.0, borderType=cv2.BORDER_REFLECT_101) for image in images]
    found = jax.jit(lambda x: uia_vit._detail(x, 2.0))(images)
    np.testing.assert_allclose(found, np.clip(0.5 + 2 * (images - local), 0, 1), atol=1e-5)
    assert uia_vit._detail(images, None) is images


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("middle", "block_9", "middle is 'block_9'"), ("affinity_from", 4, r"affinity_from is 4; .* blocks 0..3")],
)
def test_wrong_settings_are_named(field, value, said):
    config = config_file.get_config("demo").unlock()
    config.model[field] = value
    with pytest.raises(ValueError, match=said):
        detector.weight_shapes(config)


# Compiles a whole train step, twice.
@pytest.mark.long
def test_a_run_moves_its_gaussians_and_values_and_goes_on_to_the_bit(tmp_path):
    config = _small()
    state, batch = jax.jit(lambda: init_state(config))(), (noise_batch(8, 32),)
    step, before = jax.jit(make_train_step(config)), jax.device_get(trees.flatten(state.params))
    states, scalars = [state], []
    for _ in range(7):
        state, found = step(state, batch)
        states.append(state)
        scalars.append(found)
    assert [bool(s["loss/fakes"] > 0) for s in scalars] == [False] * 4 + [True] * 3
    assert all(np.isfinite(value) for found in scalars for value in found.values())
    after = jax.device_get(trees.flatten(state.params))
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {"detector/middle/bias", "detector/middle/scale"}
    with checkpoint.make_manager(tmp_path) as manager:
        checkpoint.save(manager, 5, states[5], {})
        manager.wait_until_finished()
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), states[5])
        _, again, _ = checkpoint.restore_last(manager, shapes)
    for _ in range(2):
        again, _ = step(again, batch)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(state), strict=True):
        a, b = (jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b))
        np.testing.assert_array_equal(a, b)
