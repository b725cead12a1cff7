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
    settings = {"group": schema.Group(*group), "recipe": recipe, **settings}
    return jax.device_get(jax.jit(lambda b: compose.compose(jax.random.key(0), b, **settings))(batch))


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
    with pytest.raises(ValueError, match="there would be no fake at all"):
        run(make_batch((1, 0)), "none", group=(1, 0))


@pytest.mark.parametrize("group", [(1, 0), (1, 1), (2, 1), (1, 4)])
@pytest.mark.parametrize("recipe", ["self_blend", "none"])
def test_every_row_keeps_its_records_label_method_and_group(group, recipe):
    if group[1] == 0 and recipe == "none":
        recipe = "face_xray"
    batch = make_batch(group)
    rows = run(batch, recipe, group=group)
    grouped = {name: batch[name].reshape(GROUPS, sum(group)) for name in ("label", "method", "identity", "group")}
    for role, part in (("target_twin", slice(0, group[0])), ("dataset_fake", slice(group[0], None))):
        own = rows["role"] == compose.ROLES.index(role)
        for name, value in grouped.items():
            np.testing.assert_array_equal(rows[name][own], value[:, part].ravel(), err_msg=f"{role} {name}")
    forged = rows["role"] == compose.ROLES.index("forgery")
    changed = forged & (rows["label"] == 1)
    assert (rows["method"][changed] == -1).all() and (rows["method"][forged & ~changed] == 0).all()
    np.testing.assert_array_equal(rows["group"], np.repeat(np.arange(GROUPS), len(rows["group"]) // GROUPS))
    # Of a forgery only that it is one is known; a real is known to have no attribute where its record says so.
    assert (rows["attributes"][changed, 0] == 1).all() and (rows["has_attributes"][changed].sum(1) == 1).all()
    np.testing.assert_array_equal(rows["attributes"][:, 0], rows["label"])


def test_a_place_does_not_make_a_label():
    # Four reals laid as two pairs: that the second place is a fake's does not make its record one.
    batch = make_batch((1, 1), groups=2)
    batch["label"], batch["method"] = np.zeros(4, np.int32), np.zeros(4, np.int32)
    assert run(batch, "none")["label"].tolist() == [0, 0, 0, 0]


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
            rows = compose.compose(
                jax.random.key(0), b, group=schema.Group(1, 0), recipe={"name": "face_xray"}, flip=0.5
            )
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


def test_accuracy_of_forgeries_counts_those_that_changed_something():
    # Two forgeries: one seen through, one missed; a third changed nothing, is its target again and is called real.
    rows = {"role": jnp.array([0, 2, 0, 2, 0, 2, 3]), "label": jnp.array([0, 1, 0, 1, 0, 0, 1])}
    logit = jnp.array([-1.0, 2.0, 1.0, -2.0, -1.0, -3.0, 4.0])
    accuracy = compose.accuracy_by_role(logit, rows)
    expected = {"target_twin": 2 / 3, "source_twin": 0.0, "forgery": 0.5, "dataset_fake": 1.0}
    assert {name: float(value) for name, value in accuracy.items()} == pytest.approx(
        {f"accuracy/{name}": value for name, value in expected.items()}
    )
