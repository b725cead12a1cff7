"""RFM: where it looks, what it covers beside the published order of steps in NumPy, and its flooded loss by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from face_batch import make_batch, make_context
from few_steps import STILL
from ml_collections import ConfigDict

from configs.detectors import rfm as experiment
from msddf_jax import hooks
from msddf_jax.detectors import rfm


class _Scorer:
    """Stands for the detector: a weighted sum of pixels."""

    def __init__(self, weights):
        self.weights = weights

    def apply(self, variables, rows, *, train, mutable):
        assert not train and not mutable
        return {"logit": (rows["image"] * self.weights).sum((1, 2, 3))}

    def __call__(self, rows, *, train):
        raise NotImplementedError


def _published(attention, boxes):
    """Pixels in falling order; one that is covered by then is passed over, any other gets the next rectangle."""
    height, width = attention.shape
    mask, boxes = np.ones((height, width), bool), list(boxes)
    for place in np.argsort(-attention.ravel(), kind="stable"):
        row, column = divmod(place, width)
        if boxes and mask[row, column]:
            tall, wide, above, left = boxes.pop(0)
            top, bottom = max(row - above, 0), min(row + tall - above, height)
            start, end = max(column - left, 0), min(column + wide - left, width)
            mask[top:bottom, start:end] = False
    return mask


def test_attention_is_the_largest_slope_of_a_pixels_channels():
    # Slopes of (2 r^2 - 3 g + b) at r = 0.5 are 2, 3 and 1; at r = 1 they are 4, 3 and 1.
    image = np.full((2, 2, 2, 3), 0.5, np.float32)
    image[1, 0, 1, 0] = 1.0
    score = lambda x: (2 * x[..., 0] ** 2 - 3 * x[..., 1] + x[..., 2]).sum((1, 2))
    expected = np.full((2, 2, 2), 3.0)
    expected[1, 0, 1] = 4.0
    np.testing.assert_allclose(rfm._attention(jnp.asarray(image), score), expected)


def test_one_rectangle_by_hand():
    attention = jnp.zeros((6, 6)).at[2, 3].set(1.0)
    # 3 rows of which 2 above, 4 columns of which 1 to the left: rows 0 to 2, columns 2 to 5.
    expected = np.ones((6, 6), bool)
    expected[0:3, 2:6] = False
    np.testing.assert_array_equal(rfm._kept(attention, jnp.array([[3, 4, 2, 1]])), expected)


def test_what_is_covered_is_as_published():
    kept = jax.jit(rfm._kept)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        attention = rng.random((12, 12)).astype(np.float32)
        boxes = np.array(rfm._draw(jax.random.key(seed), 3, 8))
        if seed % 2:
            # Wholly before its pixel: the next takes another.
            boxes[0, 2:] = boxes[0, :2]
        np.testing.assert_array_equal(kept(attention, boxes), _published(attention, boxes), err_msg=str(seed))


def test_sides_and_parts_of_rectangles():
    boxes = np.array(jax.vmap(lambda key: rfm._draw(key, 3, 5))(jax.random.split(jax.random.key(0), 500)))
    size, before = boxes[..., :2], boxes[..., 2:]
    assert set(np.unique(size)) == set(range(1, 6)) and (before >= 1).all() and (before <= size).all()
    # Every part of a side of five is as likely: 600 of 3000 sides, of each part 120 (three deviations 30).
    counts = np.bincount(before[size == 5], minlength=6)[1:]
    assert (np.abs(counts - counts.mean()) < 40).all(), counts


def _context(**erase):
    config = experiment.get_config().copy_and_resolve_references().unlock()
    config.augment = {"image_size": 32, **STILL}
    config.loss_args.erase.update(erase)
    weights = np.zeros((32, 32, 3), np.float32)
    weights[8, 20] = (0.1, -5.0, 0.2)
    return make_context(config.lock(), {"detector": _Scorer(weights)}, {"detector": {"params": {}}})


def test_rows_are_the_plain_ones_but_for_noise():
    ctx, batch = _context(blocks=1), jax.tree.map(jnp.asarray, make_batch((1, 1), groups=4, size=32))
    key = jax.random.key(3)
    rows, plain = jax.jit(lambda key, batch: (rfm.make_rows(key, batch, ctx), hooks.make_rows(key, batch, ctx)))(
        key, batch
    )
    changed = np.asarray((rows["image"] != plain["image"]).any(-1))
    np.testing.assert_allclose(rows["erased"], changed.mean((1, 2)), atol=2 / 1024)
    assert (rows["image"] >= 0).all() and (rows["image"] <= 1).all() and changed.any((1, 2)).all()
    # Each image has a rectangle of its own, next to the one pixel that counts.
    edges = {(*np.flatnonzero(c.any(1))[[0, -1]], *np.flatnonzero(c.any(0))[[0, -1]]) for c in changed}
    assert len(edges) > 4 and all(a <= 8 <= b + 1 and s <= 20 <= e + 1 for a, b, s, e in edges)
    assert set(rows) == set(plain) | {"erased"}


def test_flooded_loss_by_hand():
    # Cross-entropies log 4 and log 4/3, whose mean is log 4 - log 3 / 2 = 0.837.
    out = {"logits": jnp.tile(jnp.array([[0.0, np.log(3.0)]]), (2, 1))}
    rows, mean = {"label": jnp.array([0, 1])}, np.log(4) - np.log(3) / 2
    term = lambda flood: rfm.losses(
        out, rows, make_context(ConfigDict({"loss_args": {"flood": flood}, "steps": 1}), {}, {})
    )
    np.testing.assert_allclose(term(0.0)["label"][0], [np.log(4), np.log(4 / 3)], rtol=1e-6)
    np.testing.assert_allclose(term(0.04)["label"][0], [mean, mean], rtol=1e-6)
    np.testing.assert_allclose(term(1.0)["label"][0], [2 - mean, 2 - mean], rtol=1e-6)


def test_wrong_settings_are_named():
    batch = jax.tree.map(jnp.asarray, make_batch((1, 1), groups=1, size=32))
    with pytest.raises(ValueError, match=r"loss_args.erase is .*'share': 1.5.*expected a share in \(0, 1\]"):
        rfm.make_rows(jax.random.key(0), batch, _context(share=1.5))
    with pytest.raises(ValueError, match=r"images \[B, H, W, 3\], got \[2, 3, 32, 32, 3\]"):
        clips = dict(batch, image=jnp.zeros((2, 3, 32, 32, 3)))
        rfm.make_rows(jax.random.key(0), clips, _context())
