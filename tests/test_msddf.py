import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_batch, make_context
from tiny import tiny_config

from msddf_jax import detector
from msddf_jax.data import schema
from msddf_jax.detectors import msddf
from msddf_jax.models import clip
from msddf_jax.synth import compose

SIZE = 64
GROUPS = 3


def _batch(group=(1, 1)):
    """Groups whose rows carry their group's number as grey level, with faces as large as the frame."""
    batch = make_batch(group, GROUPS, SIZE, uint8=True)
    rows = len(batch["label"])
    noise = np.random.default_rng(0).integers(-20, 20, (rows, SIZE, SIZE, 3))
    image = np.clip(60 + 50 * batch["group"][:, None, None, None] + noise, 0, 255)
    angle = np.linspace(0, 2 * np.pi, 81, endpoint=False)
    points = SIZE / 2 + SIZE / 3 * np.stack([np.cos(angle), np.sin(angle)], -1)
    landmarks = np.tile(points[None], (rows, 1, 1)).astype(np.float32)
    return {**batch, "image": image.astype(np.uint8), "landmarks": landmarks}


def _make_rows(batch, group=(1, 1), recipe=None, second_views=1, **changes):
    """The detector's rows without augmentation; changes: of its recipe."""
    config = tiny_config("nowhere").copy_and_resolve_references().unlock()
    config.data.group.update({"real": group[0], "fake": group[1]})
    config.synth.update({"forged": group[0], "second_views": second_views, "joint": False, "visible": (0.0, 0.0)})
    config.policy.mode = "none"
    config.augment.update({"tone_prob": 0.0, "jpeg_prob": 0.0})
    if recipe is not None:
        config.synth.recipe = recipe
    config.synth.recipe.update(changes)
    rows = lambda b: msddf.make_rows(jax.random.key(3), detector.to_device_images(b), make_context(config))
    return jax.device_get(jax.jit(rows)(batch))


@pytest.fixture(scope="module")
def made():
    return _make_rows(_batch())


def test_each_real_gives_twins_and_a_forgery_group_major(made):
    roles = [compose.ROLES[r] for r in made["role"]]
    assert roles == ["target_twin", "source_twin", "forgery", "dataset_fake"] * GROUPS
    np.testing.assert_array_equal(made["identity"], np.repeat(np.arange(GROUPS), 4))
    # Rows of a group show its own grey level, whatever was done to them.
    level = made["image"].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(level, (60 + 50 * made["identity"]) / 255, atol=0.15)


def test_targets_agree_with_the_labels(made):
    real = made["label"] == 0
    assert (made["mask"][real] == 0).all() and (made["blend_mask"][real] == 0).all()
    assert (made["type"][real] == schema.FORGERY_TYPES.index("real")).all()
    assert (made["regions"][real] == 0).all() and not made["has_strength"][real].any()
    fake = made["role"] == compose.ROLES.index("dataset_fake")
    assert (made["label"][fake] == 1).all() and (made["mask"][fake].max(axis=(1, 2, 3)) == 1).all()
    assert not made["has_regions"][fake].any()
    forged = (made["role"] == compose.ROLES.index("forgery")) & ~real
    target = made["image"][np.flatnonzero(forged) - 2]
    outside = made["mask"][forged] == 0
    assert np.abs((made["image"][forged] - target) * outside).max() <= 1e-6
    assert (made["image"][forged] != target).any(axis=(1, 2, 3)).all()


@pytest.mark.long
def test_without_blends_every_forgery_is_real(made):
    out = _make_rows(_batch(), type_weights=(0.0, 0.0, 0.0, 1.0))
    forged = out["role"] == compose.ROLES.index("forgery")
    assert (out["label"][forged] == 0).all()
    np.testing.assert_array_equal(out["image"][forged], out["image"][np.flatnonzero(forged) - 2])


def test_a_face_without_landmarks_stays_real():
    batch = _batch()
    batch["has_landmarks"][2] = False
    out = _make_rows(batch)
    assert out["label"][4 + 2] == 0 and np.isfinite(out["image"]).all()


@pytest.mark.long
def test_reals_alone_and_two_reals_a_group():
    alone = _make_rows(_batch((1, 0)), (1, 0))
    assert [compose.ROLES[r] for r in alone["role"]] == ["target_twin", "source_twin", "forgery"] * GROUPS
    two = _make_rows(_batch((2, 1)), (2, 1), recipe={"name": "self_blend"}, second_views=0)
    assert [compose.ROLES[r] for r in two["role"][:5]] == ["target_twin"] * 2 + ["forgery"] * 2 + ["dataset_fake"]


@pytest.fixture(scope="module")
def drawn():
    """(variant, model, images, parameters as they are drawn)."""
    config = tiny_config("nowhere")
    model = msddf.Model(**config.model.to_dict())
    image = jax.random.uniform(jax.random.key(0), (4, SIZE, SIZE, 3))
    params = jax.jit(lambda: model.init(jax.random.key(1), {"image": image}, train=False))()["params"]
    return config.model.variant, model, image, params


@pytest.mark.long
def test_the_identity_term_reverses_into_the_backbone(drawn):
    _, model, image, params = drawn

    def loss(params, reversal):
        batch = {"image": image, "label": jnp.array([0, 1, 0, 1]), "reversal": reversal}
        out = model.apply({"params": params}, batch, train=False)
        return -jax.nn.log_softmax(out["identity_logits"])[:, 0].sum()

    gradient = jax.jit(jax.grad(loss))
    one, two = gradient(params, jnp.float32(1.0)), gradient(params, jnp.float32(2.0))
    key = ("block_1", "ln_1", "scale")
    pick = lambda tree: np.asarray(tree["backbone"][key[0]][key[1]][key[2]])
    np.testing.assert_allclose(pick(two), 2 * pick(one), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(
        two["identity_head"]["hidden"]["kernel"], one["identity_head"]["hidden"]["kernel"], rtol=1e-5
    )


def test_step_zero_equals_the_plain_backbone(drawn):
    """With the adapters untrained, the feature is CLIP's unit class feature to the last bit."""
    variant, model, image, params = drawn
    out = jax.jit(lambda p: model.apply({"params": p}, {"image": image}, train=False))(params)
    plain = clip.VisionTransformer(variant, SIZE)
    plain = jax.jit(lambda p: plain.apply({"params": p}, image))(params["backbone"])
    np.testing.assert_allclose(out["feature"], msddf.L.unit(plain["cls"]), atol=1e-6)


def test_resize_keeps_what_fits_and_a_constant():
    image = jnp.full((1, 32, 32, 3), 0.25)
    assert compose.resize(image, 32) is image
    np.testing.assert_allclose(compose.resize(image, 20), 0.25, atol=1e-5)
