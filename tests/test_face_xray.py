"""Face X-ray and SLADD: who lends a face to whom, and targets that agree with the pixels."""

import jax
import numpy as np
import pytest
from face_points import face_images, face_points

from msddf_jax.data import schema
from msddf_jax.synth import face_xray, sladd

SIZE, BATCH = 48, 6
IDENTITY = np.array([0, 0, 1, 1, 2, 2])
USABLE = np.array([True] * 5 + [False])
XRAY = jax.jit(face_xray.face_xray, static_argnames="one_by_one")
FIND = jax.jit(sladd.find_reference)
BLEND = jax.jit(sladd.blend_reference)
REAL = schema.FORGERY_TYPES.index("real")


@pytest.fixture(scope="module")
def batch():
    points = face_points(SIZE, BATCH)
    points[4, 0] = np.nan
    return face_images(SIZE, BATCH), points


def numpy(out):
    return jax.tree.map(np.asarray, out)


def test_boundary_is_one_where_both_meet():
    weight = np.array([0.0, 0.25, 0.5, 1.0])
    np.testing.assert_allclose(face_xray.boundary(weight), [0, 0.75, 1, 0])


def test_face_xray(batch):
    image, points = batch
    out = numpy(XRAY(jax.random.key(0), image, points, IDENTITY, usable=USABLE))
    assert out["changed"].tolist() == [True] * 4 + [False] * 2
    assert (IDENTITY[out["partner"]] != IDENTITY)[:4].all() and (out["partner"][:4] < 4).all()
    difference = np.abs(out["image"] - image).max(-1, keepdims=True)
    assert (difference <= out["map"] + 1e-6).all()
    np.testing.assert_allclose(out["boundary"], 4 * out["map"] * (1 - out["map"]), atol=1e-6)
    assert (out["boundary"][:4].max((1, 2, 3)) > 0.9).all() and not out["boundary"][4:].any()
    np.testing.assert_array_equal(out["image"][4:], image[4:])
    assert (out["type"][4:] == REAL).all() and (out["type"][:4] == schema.FORGERY_TYPES.index("alpha")).all()
    vectorised = XRAY(jax.random.key(0), image, points, IDENTITY, usable=USABLE, one_by_one=False)
    for name in out:
        np.testing.assert_allclose(vectorised[name], out[name], atol=2e-4, err_msg=name)


def test_one_identity_has_no_partner(batch):
    image, points = batch
    out = numpy(XRAY(jax.random.key(0), image, points, np.zeros(6, int), usable=np.ones(6, bool)))
    assert not out["changed"].any()
    np.testing.assert_array_equal(out["image"], image)


def _sladd(seed, reals, others, region, kind, magnitude, usable=None):
    reference = FIND(jax.random.key(seed), reals, others, usable=usable)
    key = jax.random.key(seed + 100)
    given = {"region": region, "blend_type": kind, "magnitude": magnitude}
    return numpy(reference), numpy(BLEND(key, reals["image"], reals["landmarks"], reference, **given))


def _rows(batch, rows):
    return {"image": batch[0][rows], "landmarks": batch[1][rows], "identity": IDENTITY[rows]}


def test_sladd_takes_its_reference_from_the_other_class(batch):
    image = batch[0][:4]
    reals, fakes = _rows(batch, slice(0, 4)), _rows(batch, slice(4, 6))
    kind, magnitude = np.array([0, 1, 2, 2]), np.linspace(0.5, 1, 4).astype(np.float32)
    reference, out = _sladd(0, reals, fakes, np.full(4, 10), kind, magnitude)
    # Row 4 has no landmarks, so row 5 (the second of the fakes) lends to all.
    assert reference["found"].all() and (reference["partner"] == 5).all()
    assert out["changed"].all()
    # The mix is the binary mask times the magnitude; the feathered blend has one constant weight.
    for i in (2, 3):
        np.testing.assert_allclose(np.unique(out["map"][i]), [0, magnitude[i]], atol=1e-6)
    assert len(np.unique(out["map"][0])) == 2
    difference = np.abs(out["image"] - image).max(-1, keepdims=True)
    assert (difference[out["map"] == 0] == 0).all()


def test_sladd_falls_back_to_another_identity_or_leaves_the_real(batch):
    reals = _rows(batch, slice(0, 6))
    args = (np.full(6, 10), np.full(6, 2), np.ones(6, np.float32))
    for others in (None, _rows(batch, slice(4, 5))):  # no fake, and one without landmarks
        reference, out = _sladd(1, reals, others, *args, usable=USABLE)
        assert (IDENTITY[reference["partner"]] != IDENTITY)[:4].all() and out["changed"][:4].all()
        assert not reference["found"][4:].any() and not out["changed"][4:].any()
        np.testing.assert_array_equal(out["image"][4:], batch[0][4:])
