"""SIA: self-information by hand, of each image by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.detectors import sia as config_file
from msddf_jax import detector
from msddf_jax.detectors import sia

SEEN, WEIGH = jax.jit(sia._self_information, static_argnums=1), jax.jit(sia._weigh)
# One place, six channels: its neighbours are zeros, so that nine times itself less their sum is eight times itself.
ONE = jnp.asarray([1.0, 0, 0, 0, 0, 0]).reshape(1, 1, 1, 6)


def test_differences_of_each_channel_by_hand():
    # To the next five: 5 for the first; -1 for each other, of which one of the next five is the first.
    distance = np.asarray([8 + 0.5 * 5, 0.5, 0.5, 0.5, 0.5, 0.5])
    seen = SEEN(ONE, "own")
    np.testing.assert_allclose(seen.ravel(), distance / (13 / 6) / 2, rtol=1e-6)


def test_differences_as_published_by_hand():
    # Behind one another, by distance: 1 0 0 0 0 -1 | 1 0 0 0 -1 0 | 1 0 0 -1 0 0 | 1 0 -1 0 0 0 | 1 -1 0 0 0 0; every
    # five in a row give 1, 0, 0, 0, 0, -1.
    distance = np.asarray([8.5, 0, 0, 0, 0, 0.5])
    seen = SEEN(ONE, "rows")
    np.testing.assert_allclose(seen.ravel(), distance / 1.5 / 2, rtol=1e-6)


def test_neighbours_in_place_by_hand():
    # Equal channels differ in place alone: a 1 in the middle of 3 x 3 has 9 - 1, the others 1; their mean is 16 / 9.
    x = jnp.zeros((1, 3, 3, 6)).at[:, 1, 1].set(1.0)
    seen = np.asarray(SEEN(x, "own"))[0, :, :, 0]
    expected = np.full((3, 3), 9 / 32)
    expected[1, 1] = 8 * 9 / 32
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_weights_by_hand():
    seen = jnp.asarray([[[[0.0, 1.0]], [[0.0, 3.0]]]])
    x = jnp.full(seen.shape, 2.0)
    channels = [1 - np.log(1.1), 1 - (np.log(np.exp(-1) + 0.1) + np.log(np.exp(-3) + 0.1)) / 2]
    places = 1 + 1 / (1 + np.exp(-np.asarray(seen)))
    np.testing.assert_allclose(WEIGH(x, seen), 2 * places * np.asarray(channels), rtol=1e-6)


def test_windows_of_the_largest_values():
    # Five onto two: 0 to 2 and 2 to 4; four onto two: pairs.
    x = jnp.asarray([[3.0, 0, 9, 1], [0, 0, 0, 0], [5, 0, 0, 0], [0, 2, 0, 0], [0, 0, 0, 8]])[None, :, :, None]
    np.testing.assert_array_equal(sia._max_to(x, (2, 2))[0, :, :, 0], [[5, 9], [5, 8]])


def test_an_image_is_weighed_by_itself_and_no_gradient_comes_through_the_weights():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(3, 4, 4, 8)), jnp.float32).at[1].multiply(9.0).at[2].set(0.0)
    for inter in sia.INTERS:
        seen = SEEN(x, inter)
        # The mean is over the image and not over the batch; and an image without differences has no NaN.
        np.testing.assert_allclose(seen[:1], SEEN(x[:1], inter), rtol=1e-5)
        np.testing.assert_allclose(seen.mean((1, 2, 3)), [0.5, 0.5, 0.0], rtol=1e-5)
        grad = jax.jit(jax.grad(lambda x, i=inter: WEIGH(x, SEEN(x, i)).sum()))(x)
        np.testing.assert_allclose(grad, WEIGH(jnp.ones_like(x), seen), rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("inter", "five", "inter is 'five'"),
        ("attend", ("block_77",), "attend names"),
        ("attend", ("stem",), "after is of"),
    ],
)
def test_wrong_settings_are_named(field, value, said):
    config = config_file.get_config("demo").unlock()
    config.model[field] = value
    with pytest.raises(ValueError, match=said):
        detector.weight_shapes(config)
