import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_points import face_images

from msddf_jax.models import edges


def _levels():
    """uint8 [4, 96, 96]: two grainy faces, blurred noise, and noise, in which ties and every direction occur."""
    faces = np.asarray(face_images(96, 2)).mean(-1) + np.random.default_rng(1).normal(0, 0.04, (2, 96, 96))
    faces = np.clip(faces, 0, 1)
    noise = np.random.default_rng(0).uniform(size=(2, 96, 96)).astype(np.float32)
    noise[0] = cv2.normalize(cv2.GaussianBlur(noise[0], (9, 9), 2.0), None, 0, 1, cv2.NORM_MINMAX)
    return np.rint(255 * np.concatenate([faces, noise])).astype(np.uint8)


def _opencv(levels, low, high):
    return np.stack([cv2.Canny(image, low, high) for image in levels]) / 255


@pytest.mark.parametrize(("low", "high"), [(50, 150), (100, 200), (10, 40)])
def test_canny_is_opencvs_to_the_pixel_where_the_steps_suffice(low, high):
    levels = _levels()
    grey = levels.astype(np.float32) / 255
    theirs = _opencv(levels, low, high)
    run = lambda steps: np.asarray(edges.canny(grey, low=low, high=high, steps=steps))
    ours = run(400)
    np.testing.assert_array_equal(ours, theirs)
    assert all(0 < share < 0.5 for share in theirs.mean((1, 2)))
    # In the steps of the default a long faint chain may end early: edges are missing then, none is added.
    short = run(16)
    assert (short <= theirs).all() and (short == theirs).mean() > 0.99


def test_hysteresis_follows_a_faint_edge_for_as_many_steps():
    # A vertical step of 10 grey levels, |gx| + |gy| = 40, but for its first rows of 100: faint below, strong above.
    levels = np.zeros((1, 40, 12), np.float32)
    levels[0, :, 6:] = 10
    levels[0, :5, 6:] = 100
    run = lambda steps: np.asarray(edges.canny(levels / 255, low=30.0, high=200.0, steps=steps))[0, 10:]
    assert run(0).sum() == 0
    rows = [np.flatnonzero(run(steps).any(1)) for steps in (8, 12, 40)]
    assert len(rows[0]) + 4 == len(rows[1]) and len(rows[2]) == 30
    # One pixel wide.
    assert (run(40).sum(1) == 1).all()


def test_no_gradient_passes_and_a_flat_image_has_no_edge():
    grey = jnp.asarray(_levels()[:1, :24, :24], jnp.float32) / 255
    assert not np.asarray(jax.grad(lambda x: edges.canny(x).sum())(grey)).any()
    assert not np.asarray(edges.canny(jnp.full((1, 8, 8), 0.5))).any()


@pytest.mark.parametrize("settings", [{"low": 20.0, "high": 10.0}, {"steps": -1}])
def test_wrong_settings_are_named(settings):
    with pytest.raises(ValueError, match="canny needs low <= high and steps >= 0"):
        edges.canny(jnp.zeros((1, 8, 8)), **settings)
