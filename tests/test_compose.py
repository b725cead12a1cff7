"""What a batch of groups becomes: roles, flips, and recipes that fit what they are asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_points import face_images, face_points

from msddf_jax.synth import compose, recipes

SIZE, GROUPS = 48, 3


def make_batch(group=(1, 1)):
    rows = GROUPS * sum(group)
    label = np.tile([0] * group[0] + [1] * group[1], GROUPS)
    mask = np.zeros((rows, SIZE, SIZE, 1), np.float32)
    mask[label == 1, :, : SIZE // 4] = 1.0
    return {
        "image": jnp.asarray(face_images(SIZE, rows)),
        "mask": jnp.asarray(mask),
        "has_mask": jnp.ones(rows, bool),
        "landmarks": jnp.asarray(face_points(SIZE, rows)),
        "has_landmarks": jnp.ones(rows, bool),
        "label": jnp.asarray(label, jnp.int32),
        "identity": jnp.asarray(np.repeat(np.arange(GROUPS), sum(group))),
    }


def run(batch, **settings):
    settings = {"group": (1, 1), "source_twin": False, **settings}
    return jax.device_get(jax.jit(lambda b: compose.compose(jax.random.key(0), b, **settings))(batch))


@pytest.mark.parametrize("recipe", ["self_blend", "face_xray", "sladd"])
def test_every_recipe_gives_a_real_a_forgery_and_the_fake(recipe):
    rows = run(make_batch(), recipe=recipe)
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
    rows = run(batch, recipe="none", flip=1.0)
    assert [compose.ROLES[r] for r in rows["role"]] == ["target_twin", "dataset_fake"] * GROUPS
    np.testing.assert_array_equal(rows["image"], batch["image"][:, :, ::-1])
    np.testing.assert_array_equal(rows["mask"], batch["mask"][:, :, ::-1])
    np.testing.assert_array_equal(run(batch, recipe="none", flip=0.0)["image"], batch["image"])


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recipe": "sbi"}, "recipe is 'sbi'"),
        ({"recipe": "none", "group": (2, 0)}, "there would be no fake at all"),
        ({"recipe": "none", "self_blend_share": 0.5}, "only 'msddf' has it, not 'none'"),
        ({"recipe": "self_blend", "source_twin": True}, "'self_blend' has no second real view"),
        ({"recipe": "sladd", "twin": {"move": 0.5}}, "'sladd' alters no image"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    settings = {"group": (1, 1), "source_twin": False, **settings}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda b: compose.compose(jax.random.key(0), b, **settings), make_batch(settings["group"]))


def test_accuracy_of_forgeries_counts_those_that_changed_something():
    # Two forgeries: one seen through, one missed; a third changed nothing, is its target again and is called real.
    rows = {"role": jnp.array([0, 2, 0, 2, 0, 2, 3]), "label": jnp.array([0, 1, 0, 1, 0, 0, 1])}
    logit = jnp.array([-1.0, 2.0, 1.0, -2.0, -1.0, -3.0, 4.0])
    accuracy = compose.accuracy_by_role(logit, rows)
    expected = {"target_twin": 2 / 3, "source_twin": 0.0, "forgery": 0.5, "dataset_fake": 1.0}
    assert {name: float(value) for name, value in accuracy.items()} == pytest.approx(
        {f"accuracy/{name}": value for name, value in expected.items()}
    )
