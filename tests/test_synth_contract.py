"""What every recipe of forgeries owes the trainer, whatever is inside: targets that agree with the pixels."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax.data import schema
from msddf_jax.synth import blender, recipes

SIZE, ROWS = 48, 4


def _faces():
    """Smooth noise and a plausible layout of landmarks, one face a row."""
    rng = np.random.default_rng(0)
    image = rng.random((ROWS, 8, 8, 3)).astype(np.float32)
    image = np.asarray(jax.image.resize(jnp.asarray(image), (ROWS, SIZE, SIZE, 3), "cubic")).clip(0, 1)
    from tiny_ffpp import face_points

    points = face_points() * SIZE / 330 + [SIZE / 2, SIZE / 2 - 4]
    return image, np.tile(points[None], (ROWS, 1, 1)).astype(np.float32)


def _choose(key, target, source, **_):
    region, blend_type, magnitude = blender.uniform_choices(key, target.shape[0])
    return {"region": region, "blend_type": blend_type, "magnitude": magnitude, "record": {}}


def _forge(recipe, key, image, landmarks, **settings):
    rows = {"image": image, "landmarks": landmarks, "identity": jnp.arange(image.shape[0])}
    made = recipes.forge({"name": recipe, **settings}, key, rows, choose=_choose, flip=0.5)
    return {**made["forged"], "target": made["target"]}


MIXED = "msddf, half by SBI's hull"
RECIPES = (*sorted(set(recipes.RECIPES) - {"none"}), MIXED)


@functools.cache
def _jitted(name):
    run = (
        functools.partial(_forge, "msddf", self_blend_share=(0.5, 0.5))
        if name == MIXED
        else functools.partial(_forge, name)
    )
    return jax.jit(run)


def _run(name, image, landmarks, seed=0):
    return jax.device_get(_jitted(name)(jax.random.key(seed), image, landmarks))


@pytest.mark.long
@pytest.mark.parametrize("name", RECIPES)
def test_targets_agree_with_the_pixels(name):
    image, landmarks = _faces()
    seen = 0
    for seed in range(3):
        out = _run(name, image, landmarks, seed)
        changed = np.abs(out["image"] - out["target"]).max(axis=(1, 2, 3)) > 0
        np.testing.assert_array_equal(changed, out["changed"])
        np.testing.assert_array_equal(out["label"], changed.astype(np.int32))
        assert (out["type"][~changed] == schema.FORGERY_TYPES.index("real")).all()
        assert (out["type"][changed] != schema.FORGERY_TYPES.index("real")).all()
        assert (out["map"][~changed] == 0).all() and (out["region_parts"][~changed] == 0).all()
        outside = out["map"] == 0
        assert np.abs((out["image"] - out["target"]) * outside).max() < 1e-5
        peak = out["map"].max(axis=(1, 2, 3))
        np.testing.assert_allclose(peak[out["has_strength"]], out["strength"][out["has_strength"]], atol=0.02)
        assert out["image"].min() >= 0 and out["image"].max() <= 1
        seen += changed.sum()
    assert seen > 0


@pytest.mark.parametrize("name", RECIPES)
def test_same_key_same_bits_and_another_key_differs(name):
    image, landmarks = _faces()
    one, again, other = (_run(name, image, landmarks, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one["image"], again["image"])
    assert not np.array_equal(one["image"], other["image"])


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("case", ["nan", "line", "outside", "uniform"])
def test_what_cannot_be_forged_stays_real_and_finite(name, case):
    image, landmarks = _faces()
    if case == "nan":
        landmarks[:, 3] = np.nan
    if case == "line":
        landmarks[..., 1] = SIZE / 2
    if case == "outside":
        landmarks += 10 * SIZE
    if case == "uniform":
        image[:] = 0.5
    out = _run(name, image, landmarks)
    assert all(np.isfinite(out[field]).all() for field in ("image", "map", "strength", "region_parts"))
    if case in ("nan", "outside"):
        assert (out["label"] == 0).all()
        np.testing.assert_array_equal(out["image"], out["target"])


@pytest.mark.long
@pytest.mark.parametrize("name", ["msddf", "self_blend", MIXED])
def test_a_row_does_not_depend_on_the_size_of_its_batch(name):
    image, landmarks = _faces()
    whole = _run(name, image, landmarks)
    alone = jax.device_get(_jitted(name)(jax.random.key(0), image[:1], landmarks[:1]))
    np.testing.assert_allclose(whole["image"][0], alone["image"][0], atol=1e-5)
    assert whole["label"][0] == alone["label"][0] and whole["type"][0] == alone["type"][0]


def test_some_twins_are_blended_by_the_hull_and_the_others_as_without():
    image, landmarks = _faces()
    hull = schema.FORGERY_TYPES.index("self_blend")
    rows = {"hull": 0, "chosen": 0}
    for seed in range(4):
        plain, mixed = (_run(name, image, landmarks, seed) for name in ("msddf", MIXED))
        np.testing.assert_array_equal(mixed["target"], plain["target"])
        by_hull = mixed["type"] == hull
        for field, value in mixed.items():
            # Two programs: a last bit may differ.
            np.testing.assert_allclose(value[~by_hull], plain[field][~by_hull], atol=1e-6, err_msg=field)
        # SBI's: every part of the face, a ratio as strength.
        assert (mixed["region_parts"][by_hull] == 1).all()
        assert set(np.round(mixed["strength"][by_hull], 5)) <= {0.25, 0.5, 0.75, 1.0}
        rows["hull"] += by_hull.sum()
        rows["chosen"] += (~by_hull).sum()
    assert min(rows.values()) >= 3, rows


@pytest.mark.long
def test_the_floor_of_strength_falls_as_training_goes_on():
    """Dynamic mixes of strength r x magnitude, at most 0.9 x 0.5 here, with a floor from 1 to 0.2."""
    image, landmarks = _faces()
    rows = {"image": image, "landmarks": landmarks, "identity": jnp.arange(ROWS)}
    ask = lambda *_, **__: {
        "region": jnp.full(ROWS, schema.REGIONS.index("hull")),
        "blend_type": jnp.full(ROWS, schema.BLENDS.index("dynamic")),
        "magnitude": jnp.array([0.1, 0.3, 0.6, 0.9]),
        "record": {},
    }
    recipe = {"name": "msddf", "strength_floor": (1.0, 0.2), "blend": {"ratios": (0.5,)}}
    forge = lambda progress: recipes.forge(recipe, jax.random.key(0), rows, flip=0.0, choose=ask, progress=progress)
    run = jax.jit(lambda progress: forge(progress)["forged"])
    for progress, expected in ((0.0, [1.0] * 4), (0.5, [0.6] * 4), (1.0, [0.2, 0.2, 0.3, 0.45])):
        out = jax.device_get(run(progress))
        assert out["changed"].all()
        np.testing.assert_allclose(out["strength"], expected, atol=1e-6)
        np.testing.assert_allclose(out["map"].max((1, 2, 3)), expected, atol=1e-5)


@pytest.mark.long
def test_a_full_transfer_of_colour_undoes_what_twins_differ_by():
    """Twins that differ in colour alone: pasted with a full transfer the face keeps its colour, without one it takes
    the other's."""
    image, landmarks = _faces()
    image = 0.3 + 0.4 * image  # far from black and white: no shift is clipped
    rows = {"image": image, "landmarks": landmarks, "identity": jnp.arange(ROWS)}
    ask = lambda *_, **__: {
        "region": jnp.full(ROWS, schema.REGIONS.index("hull")),
        "blend_type": jnp.full(ROWS, schema.BLENDS.index("dynamic")),
        "magnitude": jnp.ones(ROWS),
        "record": {},
    }
    twin = {"color_shift_prob": 1.0, "brightness": 0.0, "contrast": 0.0, "frequency_prob": 0.0, "move": 0.0}
    blend = {"ratios": (1.0,), "color_modes": ("rct_fs",), "soft": False}
    step = {}
    for transfer in (0.0, 1.0):
        recipe = {"name": "msddf", "twin": twin, "blend": blend, "transfer": (transfer, transfer)}
        made = recipes.forge(recipe, jax.random.key(2), rows, flip=0.0, choose=ask)
        inside = np.asarray(made["forged"]["map"])
        change = np.asarray(made["forged"]["image"] - made["target"]) * inside
        step[transfer] = np.abs(change.sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1.0)).max(-1)
        shift = np.abs(np.asarray(made["source"] - made["target"]).mean((1, 2))).max(-1)
    np.testing.assert_allclose(step[0.0], shift, rtol=0.02)
    assert (shift > 2 / 255).all() and (step[1.0] < 1e-4).all()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"name": "msddf", "self_blend_share": 0.5}, "expected two numbers in"),
        (
            {"name": "self_blend", "self_blend_share": (0.5, 0.5)},
            r"recipe\.self_blend_share: there is no such setting; allow",
        ),
        ({"name": "self_blnd"}, "did you mean 'self_blend'"),
        ({"name": "sbi"}, "allowed: face_xray, fwa, msddf, none, self_blend, sladd"),
        ({"twin": {}}, "expected a mapping with a `name`"),
        ({"name": "msddf", "twin": {"freqency_prob": 0.0}}, r"twin\.freqency_prob.*did you mean 'frequency_prob'"),
        ({"name": "msddf", "transfer": (0.0, 1.5)}, r"recipe\.transfer is \(0\.0, 1\.5\), expected two numbers in \[0"),
        ({"name": "sladd", "twin": {}}, r"recipe\.twin: there is no such setting"),
        ({"name": "face_xray", "blend": {"hull": ()}}, "did you mean 'hulls'"),
        ({"name": "fwa", "blend": {"size": (64,)}}, r"recipe\.blend\.size: .*did you mean 'sizes'"),
        ({"name": "fwa", "frame": {"jpg_prob": 0.5}}, r"recipe\.frame\.jpg_prob: .*did you mean 'jpeg_prob'"),
        ({"name": "msddf", "blend": {"feather": 0.5}}, "there is no such setting"),
    ],
)
def test_a_recipe_owns_its_settings(recipe, message):
    with pytest.raises(ValueError, match=message):
        recipes.check(recipe)


def test_every_setting_of_every_recipe_is_taken():
    # What `check` lets through is what the functions take: nothing is refused later, or passed over.
    image, landmarks = _faces()
    for name, found in recipes.RECIPES.items():
        settings = {}
        for setting, functions in found.inner.items():
            settings[setting] = {
                k: p.default
                for function in functions
                for k, p in inspect.signature(function).parameters.items()
                if p.kind is p.KEYWORD_ONLY and p.default is not p.empty and k not in recipes.OF_A_ROW
            }
            assert settings[setting], (name, setting)
        recipes.check({"name": name, **settings})
        rows = {"image": image, "landmarks": landmarks, "identity": jnp.arange(len(image))}
        forge = lambda rows, recipe: recipes.forge(recipe, jax.random.key(0), rows, flip=0.5)
        jax.eval_shape(functools.partial(forge, recipe={"name": name, **settings}), rows)
