"""Curves, areas and hits by hand; on a model whose evidence is a known square, the true map wins."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax import faithfulness

SIZE, GRID = 32, 8
# The evidence: cells (2, 4), (2, 5), (3, 4), (3, 5) of the grid, pixels 8 to 15 and 16 to 23.
ROWS, COLUMNS = slice(8, 16), slice(16, 24)


def square_score(weights, image):
    """P(fake) = contrast within the square: a checkerboard gives 1, a blurred one 0."""
    part = image[:, ROWS, COLUMNS].mean(-1)
    return jnp.abs(part - part.mean((1, 2), keepdims=True)).mean((1, 2)) * 2.0 * weights


def _batch(rows=4, has_mask=True):
    image = np.zeros((rows, SIZE, SIZE, 3), np.uint8)
    image[:, ::2, ::2] = image[:, 1::2, 1::2] = 255
    mask = np.zeros((rows, SIZE, SIZE, 1), np.uint8)
    mask[:, ROWS, COLUMNS] = 255
    text = lambda value: np.array([value] * rows, object)
    return {
        "image": image,
        "mask": mask * has_mask,
        "has_mask": np.full(rows, has_mask),
        "dataset": text("toy"),
        "compression": text("c23"),
        "video_id": np.array([f"{i // 2}" for i in range(rows)], object),
    }


def _maps(weights, batch):
    del weights
    true = np.zeros((len(batch["image"]), GRID, GRID), np.float32)
    true[:, 2:4, 4:6] = 1.0
    return {"score": np.zeros(len(true)), "gradcam": jnp.asarray(true), "map": jnp.asarray(1.0 - true)}


def _measure(**kwargs):
    return faithfulness.measure(square_score, _maps, 1.0, [(_batch(), 4), (_batch(), 2)], sigma=0.1, **kwargs)


@pytest.fixture(scope="module")
def rows():
    return {row["method"]: row for row in faithfulness.summarize(_measure())}


def test_the_true_map_beats_random_and_the_inverted_one(rows):
    true, inverted, random, mask = (rows[name] for name in ("gradcam", "map", "random", "mask"))
    assert true["deletion"][0] < random["deletion"][0] - 0.2 < inverted["deletion"][0]
    assert true["insertion"][0] > random["insertion"][0] + 0.2 > inverted["insertion"][0] + 0.2
    assert true["pointing"] == (1.0, 1.0, 1.0) and inverted["pointing"][0] < 0.1
    # The square is 1/16 of the image: all of it is gone after two of twenty steps.
    assert true["deletion"][0] < 0.1 and true["insertion"][0] > 0.9
    assert abs(mask["deletion"][0] - true["deletion"][0]) < 0.05
    assert true["deletion_minus_random"][2] < 0 < true["insertion_minus_random"][1]
    assert {row["n"] for row in rows.values()} == {6} and {row["n_masks"] for row in rows.values()} == {6}


def test_without_masks_there_is_no_pointing():
    measured = faithfulness.measure(square_score, _maps, 1.0, [(_batch(has_mask=False), 3)], steps=4)
    assert "mask" not in measured and len(measured["video"]) == 3
    found = faithfulness.summarize(measured)
    assert all(np.isnan(row["pointing"][0]) and row["n_masks"] == 0 and row["n"] == 3 for row in found)
    assert faithfulness.format_table(found).splitlines()[1].split()[-2:] == ["-", "3"]


def test_curves_go_from_the_image_to_the_blurred_copy_and_back():
    image, blurred = np.full((1, 2, 2, 3), 0.75, np.float32), np.full((1, 2, 2, 3), 0.25, np.float32)
    ranks = np.array([[[3, 0], [1, 2]]], np.int32)
    weight = np.array([[8.0, 1.0], [2.0, 4.0]], np.float32) / 15  # of each pixel in the score
    score = lambda weights, x: jnp.einsum("bhwc,hw->b", x / 3, weights)
    curves = faithfulness.replacement_curves(score, weight, image, blurred, ranks, steps=4)
    gone = np.array([0, 1, 3, 7, 15]) / 15
    np.testing.assert_allclose(curves["deletion"][:, 0], 0.75 - 0.5 * gone, atol=1e-6)
    np.testing.assert_allclose(curves["insertion"][:, 0], 0.25 + 0.5 * gone, atol=1e-6)


def test_area_is_by_trapezoids():
    np.testing.assert_allclose(faithfulness.area_under(np.array([[1.0, 0], [0.5, 1], [0.0, 0]])), [0.5, 0.5])
    np.testing.assert_allclose(faithfulness.area_under(np.full(21, 0.3)), 0.3)


def test_ranks_fall_with_saliency_then_with_the_second_map():
    heat = np.array([[[0.1, 0.9], [0.5, 0.3]]] * 2, np.float32)
    ties = np.array([[[0.1, 0.2], [0.3, 0.4]]] * 2, np.float32)
    np.testing.assert_array_equal(faithfulness.rank_pixels(heat, ties)[1], [[3, 0], [1, 2]])
    heat[1] = [[0.0, 0.9], [0.0, 0.0]]
    np.testing.assert_array_equal(faithfulness.rank_pixels(heat, ties)[1], [[3, 0], [2, 1]])


def test_hits_within_the_tolerance_shared_by_tied_peaks():
    mask = np.zeros((4, 8, 8), bool)
    mask[:3, 2:4, 2:4] = True
    heat = np.zeros((4, 8, 8))
    heat[0, 3, 3] = 1  # inside
    heat[1, 3, 5] = 1  # two pixels to the right of it
    heat[3, 3, 3] = 1  # no mask
    np.testing.assert_array_equal(faithfulness.point_hits(heat, mask, 0), [1, 0, 4 / 64, np.nan])
    np.testing.assert_array_equal(faithfulness.point_hits(heat, mask, 2)[:2], [1, 1])


def test_intervals_draw_videos_and_not_frames():
    videos = np.array(["a"] * 50 + ["b"] * 50)
    values = np.array([0.0] * 50 + [1.0] * 50)
    # With two videos a mean of 0 or 1 has chance 1/4 each: both ends are reached.
    assert faithfulness.mean_interval(values, videos) == (0.5, 0.0, 1.0)
    mean, low, _ = faithfulness.mean_interval(np.array([0.25, np.nan]), ["a", "b"])
    assert mean == 0.25 and np.isnan(low)
    assert np.isnan(faithfulness.mean_interval(np.array([np.nan]), ["a"])).all()


def test_what_is_written_is_json_without_nan():
    tree = {"a": [float("nan"), 1.0], "b": ({"c": float("nan")},)}
    assert json.loads(json.dumps(faithfulness._without_nan(tree), allow_nan=False)) == {
        "a": [None, 1.0],
        "b": [{"c": None}],
    }
