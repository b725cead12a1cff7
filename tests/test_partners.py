"""Partners by hand-made batches; alignment by a face moved on purpose."""

import jax
import jax.numpy as jnp
import numpy as np
from face_points import face_images, face_points

from msddf_jax.synth import geometry, partners


def test_nearest_other_identity():
    base = face_points(64)[0]
    points = np.stack([base + d for d in (0.0, 0.1, 1.0, 5.0, 0.2)]).astype(np.float32)
    points[4, 3] = np.nan
    identity = np.array([7, 7, 8, 9, 9])
    allowed = partners.allowed_partners(points, identity)
    index, found = partners.nearest_partner(points, allowed)
    assert index.tolist() == [2, 2, 1, 2, 4] and found.tolist() == [True] * 4 + [False]
    usable = np.array([True, True, False, True, True])
    index, _ = partners.nearest_partner(points, partners.allowed_partners(points, identity, usable))
    assert index.tolist() == [3, 3, 2, 1, 4]


def test_unknown_identities_do_not_pair_with_each_other():
    points = face_points(64, 3)
    allowed = np.asarray(partners.allowed_partners(points, np.array([-1, -1, 4])))
    np.testing.assert_array_equal(allowed, [[False, False, True], [False, False, True], [True, True, False]])


def test_random_partners_are_allowed_and_all_come_up():
    allowed = np.array([[False, True, True], [True, False, False], [False, False, False]])
    drawn = [partners.random_partner(jax.random.key(i), allowed) for i in range(40)]
    index = np.array([d[0] for d in drawn])
    assert set(index[:, 0]) == {1, 2} and set(index[:, 1]) == {0} and set(index[:, 2]) == {2}
    assert drawn[0][1].tolist() == [True, True, False]


def test_alignment_undoes_a_similarity():
    image, onto = jnp.asarray(face_images(64)[0]), jnp.asarray(face_points(64)[0])
    matrix = jnp.array([[0.95, -0.12, 5.0], [0.12, 0.95, -3.0]])
    moved = geometry.transform_points(onto, matrix)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2].astype(np.float32)
    planes = geometry.warp(jnp.moveaxis(image, -1, 0), *geometry.matrix_grid(inverse, 64, 64))
    back = partners.align_face(jnp.moveaxis(planes, 0, -1), moved, onto)
    inner = (slice(16, 48), slice(16, 48))
    assert np.abs(back - image)[inner].mean() < 0.02 < np.abs(jnp.moveaxis(planes, 0, -1) - image)[inner].mean()
    same = partners.align_face(image, jnp.full((81, 2), jnp.nan), onto)
    np.testing.assert_allclose(same, image, atol=1e-6)
