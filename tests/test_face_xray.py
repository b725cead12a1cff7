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
SLADD = jax.jit(sladd.sladd, static_argnames="one_by_one")
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


def test_sladd_takes_its_reference_from_the_other_class(batch):
    image, points = batch
    label = np.array([0, 1, 0, 1, 0, 0])
    kind = np.array([0, 1, 2, 2, 0, 0])
    magnitude = np.linspace(0.5, 1, BATCH).astype(np.float32)
    region = np.full(BATCH, 10)
    args = (image, points, label, IDENTITY, region, kind, magnitude)
    out = numpy(SLADD(jax.random.key(0), *args, usable=USABLE))
    assert (label[out["partner"]] != label)[:4].all() and (out["partner"][:4] < 4).all()
    assert out["changed"].tolist() == [True] * 4 + [False] * 2
    np.testing.assert_array_equal(out["image"][4:], image[4:])
    # The mix is the binary mask times the magnitude; the feathered blend has one constant weight.
    for i in (2, 3):
        np.testing.assert_allclose(np.unique(out["map"][i]), [0, magnitude[i]], atol=1e-6)
    assert len(np.unique(out["map"][0])) == 2
    difference = np.abs(out["image"] - image).max(-1, keepdims=True)
    assert (difference[out["map"] == 0] == 0).all()


def test_sladd_falls_back_to_another_identity(batch):
    image, points = batch
    args = (image, points, np.zeros(6, int), IDENTITY, np.full(6, 10), np.full(6, 2), np.ones(6, np.float32))
    out = numpy(SLADD(jax.random.key(1), *args, usable=USABLE))
    assert (IDENTITY[out["partner"]] != IDENTITY)[:4].all() and out["changed"][:4].all()
