"""What a batch of groups becomes: roles, flips, and recipes that fit what they are asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_batch

from msddf_jax.data import schema
from msddf_jax.synth import compose, face_xray, recipes

SIZE, GROUPS = 48, 3


def run(batch, recipe, group=(1, 1), **settings):
    recipe = {"name": recipe} if isinstance(recipe, str) else recipe
    shares = {name: settings.pop(name) for name in ("forged", "second_views") if name in settings}
    settings = {"layout": compose.make_layout(schema.Group(*group), recipe, **shares), "recipe": recipe, **settings}
    return jax.device_get(jax.jit(lambda b: compose.compose(jax.random.key(0), b, **settings))(batch))


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["self_blend", "face_xray", "sladd"])
def test_every_recipe_gives_a_real_a_forgery_and_the_fake(recipe):
    rows = run(make_batch(), recipe)
    assert [compose.ROLES[r] for r in rows["role"]] == ["target_twin", "forgery", "dataset_fake"] * GROUPS
    real = rows["role"] == 0
    assert not rows["label"][real].any() and not rows["mask"][real].any()
    forged = (rows["role"] == 2) & (rows["label"] == 1)
    assert forged.any() and (rows["mask"][forged].max((1, 2, 3)) > 0).all()
    outside = rows["mask"][forged] == 0
    target = rows["image"][np.flatnonzero(forged) - 1]
    assert np.abs((rows["image"][forged] - target) * outside).max() <= 1e-5


def test_without_a_recipe_reals_and_fakes_are_only_flipped():
    batch = make_batch()
    rows = run(batch, "none", flip=1.0)
    assert [compose.ROLES[r] for r in rows["role"]] == ["target_twin", "dataset_fake"] * GROUPS
    np.testing.assert_array_equal(rows["image"], batch["image"][:, :, ::-1])
    np.testing.assert_array_equal(rows["mask"], batch["mask"][:, :, ::-1])
    np.testing.assert_array_equal(run(batch, "none", flip=0.0)["image"], batch["image"])


def test_without_a_recipe_a_group_is_flipped_as_one():
    batch = make_batch((1, 4), groups=6)
    rows = run(batch, "none", group=(1, 4), flip=0.5)
    flipped = (rows["image"] != batch["image"]).any((1, 2, 3)).reshape(6, 5)
    assert 0 < flipped[:, 0].sum() < 6
    np.testing.assert_array_equal(flipped, np.repeat(flipped[:, :1], 5, axis=1))
    np.testing.assert_array_equal(rows["image"][flipped.ravel()], batch["image"][flipped.ravel()][:, :, ::-1])


def test_a_flip_moves_image_mask_and_landmarks_together():
    rows = make_batch()
    flipped = recipes.flip_rows(jax.random.key(0), rows, 1.0)
    points, x = np.asarray(rows["landmarks"][0]), np.asarray(flipped["landmarks"][0])
    # The right eye's outer corner of the mirrored face is the left one's of the face (iBUG 36 and 45).
    np.testing.assert_allclose(x[36], [SIZE - 1 - points[45, 0], points[45, 1]], atol=1e-4)
    part = recipes.flip_rows(jax.random.key(0), rows, 0.5)
    moved = (np.asarray(part["image"]) != np.asarray(rows["image"])).any((1, 2, 3))
    assert 0 < moved.sum() < len(moved)
    np.testing.assert_array_equal(moved, (np.asarray(part["landmarks"]) != np.asarray(rows["landmarks"])).any((1, 2)))


def test_reals_alone_without_a_recipe_are_refused():
    with pytest.raises(ValueError, match="no fake at all"):
        run(make_batch((1, 0)), "none", group=(1, 0))


@pytest.mark.long
@pytest.mark.parametrize("group", [(1, 0), (1, 1), (2, 1), (1, 4)])
@pytest.mark.parametrize("recipe", ["self_blend", "none"])
def test_every_row_keeps_its_records_label_method_and_group(group, recipe):
    if group[1] == 0 and recipe == "none":
        recipe = "face_xray"
    batch = make_batch(group)
    rows = run(batch, recipe, group=group)
    kept = ("label", "method", "identity", "donor", "group")
    grouped = {name: batch[name].reshape(GROUPS, sum(group)) for name in kept}
    for role, part in (("target_twin", slice(0, group[0])), ("dataset_fake", slice(group[0], None))):
        own = rows["role"] == compose.ROLES.index(role)
        for name, value in grouped.items():
            np.testing.assert_array_equal(rows[name][own], value[:, part].ravel(), err_msg=f"{role} {name}")
    forged = rows["role"] == compose.ROLES.index("forgery")
    changed = forged & (rows["label"] == 1)
    assert (rows["method"][changed] == -1).all() and (rows["method"][forged & ~changed] == 0).all()
    assert (rows["donor"][changed] == -1).all() and (rows["donor"][~changed] >= 0).all()
    np.testing.assert_array_equal(rows["group"], np.repeat(np.arange(GROUPS), len(rows["group"]) // GROUPS))
    # Of a forgery only that it is one is known; a real is known to have no attribute where its record says so.
    assert (rows["attributes"][changed, 0] == 1).all() and (rows["has_attributes"][changed].sum(1) == 1).all()
    np.testing.assert_array_equal(rows["attributes"][:, 0], rows["label"])


def test_a_place_does_not_make_a_label():
    # Four reals laid as two pairs: that the second place is a fake's does not make its record one.
    batch = make_batch((1, 1), groups=2)
    batch["label"], batch["method"] = np.zeros(4, np.int32), np.zeros(4, np.int32)
    assert run(batch, "none")["label"].tolist() == [0, 0, 0, 0]


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["msddf", "self_blend", "sladd"])
def test_all_frames_of_a_clip_are_drawn_alike(recipe):
    frames = 3
    batch = make_batch(frames=frames)
    # The same frame three times: whatever is drawn once makes them equal, and whatever is drawn apart does not.
    batch["image"] = np.repeat(batch["image"][:, :1], frames, axis=1)
    batch["landmarks"] = np.repeat(batch["landmarks"][:, :1], frames, axis=1)
    rows = run(batch, recipe, flip=0.5)
    assert rows["image"].shape[1] == frames and rows["label"].shape == rows["role"].shape == rows["image"].shape[:1]
    for name in ("image", "mask", "blend_mask"):
        np.testing.assert_allclose(rows[name][:, 1:], np.repeat(rows[name][:, :1], frames - 1, 1), atol=1e-5)
    still = run({**batch, **{n: batch[n][:, 0] for n in ("image", "mask", "landmarks")}}, recipe, flip=0.5)
    np.testing.assert_allclose(rows["image"][:, 0], still["image"], atol=1e-5)
    for name in ("label", "type", "strength", "role", "group", "method"):
        np.testing.assert_allclose(rows[name], still[name], atol=1e-5, err_msg=name)
    assert (rows["label"][rows["role"] == compose.ROLES.index("forgery")] == 1).any()


@pytest.mark.long
def test_all_frames_of_a_clip_take_the_same_face():
    # Whose landmarks are nearest differs from frame to frame: the second frame's are those of the next row.
    batch = make_batch((1, 0), groups=4, frames=2)
    shift = np.array([0.0, 9.0, 2.0, 14.0])[:, None, None]
    batch["landmarks"][:, 0] += shift
    batch["landmarks"][:, 1] += shift[[1, 3, 0, 2]]
    seen = []
    real = face_xray.face_xray

    def watched(*args, **kwargs):
        out = real(*args, **kwargs)
        seen.append(out["partner"])
        return out

    def run_watched(b):
        face_xray.face_xray = watched
        try:
            layout = compose.Layout(real=1, forged=1, second_views=0, fake=0)
            rows = compose.compose(jax.random.key(0), b, layout=layout, recipe={"name": "face_xray"}, flip=0.5)
        finally:
            face_xray.face_xray = real
        return rows["label"]

    # The partner is found from what all frames share: it has no axis of frames.
    jax.eval_shape(run_watched, batch)
    assert seen[0].shape == (4,)
    alone = [real(jax.random.key(0), *(batch[n][:, f] for n in ("image", "landmarks", "identity") if n != "identity"),
                  batch["identity"])["partner"] for f in (0, 1)]  # fmt: skip
    assert np.any(np.asarray(alone[0]) != np.asarray(alone[1]))


def test_a_clip_is_forged_where_any_of_its_frames_is():
    batch = make_batch((1, 0), frames=2)
    # Without landmarks in its first frame the clip is forged in its second alone.
    batch["landmarks"][:, 0] = np.nan
    rows = run(batch, "self_blend", group=(1, 0))
    forged = rows["role"] == compose.ROLES.index("forgery")
    assert rows["label"][forged].any()
    changed = forged & (rows["label"] == 1)
    assert (rows["mask"][changed, 0] == 0).all() and (rows["mask"][changed, 1].max((1, 2, 3)) > 0).all()
    assert (rows["type"][changed] == schema.FORGERY_TYPES.index("self_blend")).all()


def test_augmentation_of_a_clip_is_drawn_once():
    images = np.repeat(make_batch()["image"][:, None], 3, axis=1)
    out = compose.augment(jax.random.key(5), {"image": jnp.asarray(images)}, image_size=32, jpeg_prob=1.0)["image"]
    assert out.shape == (len(images), 3, 32, 32, 3)
    np.testing.assert_allclose(out[:, 1:], np.repeat(out[:, :1], 2, axis=1), atol=1e-6)
    alone = compose.augment(jax.random.key(5), {"image": jnp.asarray(images[:, 0])}, image_size=32, jpeg_prob=1.0)
    np.testing.assert_allclose(out[:, 0], alone["image"], atol=1e-5)
    assert np.abs(np.asarray(out[:, 0]) - np.asarray(compose.resize(jnp.asarray(images[:, 0]), 32))).max() > 0.01


@pytest.mark.long
def test_shares_of_rows_are_the_configs():
    batch = make_batch((3, 2))
    rows = run(batch, "msddf", group=(3, 2), forged=2, second_views=1)
    names = ["target_twin"] * 3 + ["source_twin"] + ["forgery"] * 2 + ["dataset_fake"] * 2
    assert [compose.ROLES[r] for r in rows["role"]] == names * GROUPS
    # The second view is of the first real, the forgeries are of the first two.
    np.testing.assert_array_equal(rows["base"], np.add.outer(8 * np.arange(GROUPS), [0, 1, 2, 0, 0, 1, 6, 7]).ravel())
    np.testing.assert_array_equal(rows["identity"], rows["identity"][rows["base"]])
    assert [compose.ROLES[r] for r in run(batch, "none", group=(3, 2))["role"][:5]] == names[:3] + names[-2:]


@pytest.mark.parametrize(
    ("recipe", "shares", "message"),
    [
        ("none", {"forged": 1}, r"synth\.forged is 1; .* it is 0 to 0"),
        ("msddf", {"forged": 3}, "it is 0 to 2"),
        ("msddf", {"forged": 1, "second_views": 2}, "synth.second_views is 2; with 1 forged reals a group .* 0 to 1"),
        ("self_blend", {"second_views": 1}, "it is 0 to 0"),
    ],
)
def test_shares_that_do_not_fit_are_refused(recipe, shares, message):
    with pytest.raises(ValueError, match=message):
        compose.make_layout(schema.Group(2, 1), {"name": recipe}, **shares)


@pytest.mark.long
@pytest.mark.parametrize("recipe", ["msddf", "self_blend"])
def test_what_is_done_to_reals_is_done_to_fakes(recipe):
    """The transform that half of the reals pass through marks no class, forged or not, unless as published."""
    twin = {"color_shift_prob": 1.0, "move": 0.0}
    batch = make_batch((2, 2), groups=16)
    altered = {}
    for alter_fakes in (True, False):
        recipe_of = {"name": recipe, "twin": twin, "alter_fakes": alter_fakes}
        rows = run(batch, recipe_of, group=(2, 2), forged=1, flip=0.0)
        plain = batch["image"].reshape(16, 4, *batch["image"].shape[1:])
        seen = rows["image"].reshape(16, 5, *batch["image"].shape[1:])[:, [0, 1, 3, 4]]
        altered[alter_fakes] = (np.abs(seen - plain).max((2, 3, 4)) > 1e-4).mean(0)
    # Of 32 rows each, half: 5 deviations of a fair coin are 0.44.
    assert (np.abs(altered[True] - 0.5) < 0.45).all() and altered[True].min() > 0
    assert altered[False][0] > 0 and (altered[False][1:] == 0).all()


def test_a_forgery_is_augmented_as_its_real():
    """Two rows of one number get the same noise, colour and JPEG; a third, of another, does not."""
    images = np.repeat(make_batch()["image"][:1], 3, axis=0)
    settings = {"noise_prob": 1.0, "noise_sigma": (0.1, 0.1), "image_size": 32}
    rows = compose.augment(jax.random.key(1), {"image": jnp.asarray(images)}, bases=jnp.array([0, 0, 2]), **settings)
    out = np.asarray(rows["image"])
    np.testing.assert_array_equal(out[0], out[1])
    assert np.abs(out[0] - out[2]).mean() > 0.02


def test_a_forgery_that_cannot_be_seen_is_not_counted():
    layout = compose.Layout(real=1, forged=1, second_views=1, fake=1)
    image = np.full((8, 16, 16, 3), 0.5, np.float32)
    # Group 0: one 2 x 2 cell changes by 10 grey levels. Group 1: by 1. The second views and the fakes differ, too.
    image[2, 4:6, 4:6] += 10 / 255
    image[6, 4:6, 4:6] += 1 / 255
    image[[1, 3, 5, 7]] += 0.3
    rows = {
        "image": jnp.asarray(image),
        "role": jnp.asarray([0, 1, 2, 3] * 2),
        "counted": jnp.array([True] * 7 + [False]),
    }
    out = compose.show_change(rows, layout, 2.0)
    # A cell takes in a share w of what changed, so that it is 10 w in colour and 10 sqrt(w (1 - w)) in contrast.
    change = np.asarray(out["change"])
    assert 7 < change[2] < 13 and change[6] == pytest.approx(change[2] / 10, rel=0.05)
    assert (change[[0, 1, 3, 4, 5, 7]] == 0).all()
    assert out["counted"].tolist() == [True] * 6 + [False, False]
    assert compose.show_change(rows, layout, 0.0)["counted"].tolist() == [True] * 7 + [False]


def test_figures_by_role():
    # Two forgeries: one seen through, one missed; a third changed nothing, is its target again and is called real; a
    # fourth cannot be seen and is asked of nothing.
    rows = {
        "role": jnp.array([0, 2, 0, 2, 0, 2, 3, 2]),
        "label": jnp.array([0, 1, 0, 1, 0, 0, 1, 1]),
        "counted": jnp.array([True] * 7 + [False]),
    }
    logit = jnp.array([-1.0, 2.0, 1.0, -2.0, -1.0, -3.0, 4.0, -50.0])
    found = {name: float(value) for name, value in compose.by_role(logit, rows).items()}
    expected = {"target_twin": 2 / 3, "source_twin": 0.0, "forgery": 0.5, "dataset_fake": 1.0}
    called = {"target_twin": 1 / 3, "source_twin": 0.0, "forgery": 0.5, "dataset_fake": 1.0}
    cost = lambda x: np.log1p(np.exp(-x))
    nll = {"target_twin": (2 * cost(1) + cost(-1)) / 3, "forgery": (cost(2) + cost(-2)) / 2, "dataset_fake": cost(4)}
    wanted = {f"accuracy/{name}": value for name, value in expected.items()}
    wanted |= {f"called_fake/{name}": value for name, value in called.items()}
    wanted |= {f"nll/{name}": nll.get(name, 0.0) for name in expected}
    wanted["nll/all"] = (3 * nll["target_twin"] + 2 * nll["forgery"] + cost(3) + cost(4)) / 7
    # 3 of 7 are fake.
    wanted["nll/prior"] = -3 / 7 * np.log(3 / 7) - 4 / 7 * np.log(4 / 7)
    assert found == pytest.approx(wanted)
