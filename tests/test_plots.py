"""Pictures show what they were given: sizes, colours where they must be, errors for the rest."""

import matplotlib
import numpy as np
import pytest

from msddf_jax import plots

RED, BLUE = matplotlib.colors.to_rgb("#d62728"), matplotlib.colors.to_rgb("#1f77b4")


def _pixels(image, color):
    return np.argwhere(np.abs(image.astype(int) - np.rint(np.array(color) * 255)).max(axis=-1) <= 2)


def _timeline(scores, **kwargs):
    return plots.draw_timeline("clip.mp4", np.arange(len(scores)) * 10, scores, **kwargs)


def test_timeline_colours_frames_by_the_threshold():
    image = _timeline([0.9, 0.8], fps=25)
    assert image.shape == (400, 900, 3) and image.dtype == np.uint8
    assert len(_pixels(image, RED)) > 100 and len(_pixels(image, BLUE)) == 0
    image = _timeline([0.1, 0.5], fps=25)  # exactly at the threshold is not above it
    assert len(_pixels(image, BLUE)) > 100 and len(_pixels(image, RED)) == 0


def test_timeline_higher_scores_stand_higher():
    low, high = (_pixels(_timeline([s, s]), RED)[:, 0] for s in (0.6, 0.95))
    assert np.median(high[high < 300]) < np.median(low[low < 300]) - 50


def test_timeline_takes_frames_in_any_order_and_marks_those_without_a_score():
    a = plots.draw_timeline("c", [0, 10, 20], [0.1, 0.9, 0.4], missing=[15, 5], fps=25)
    b = plots.draw_timeline("c", [20, 0, 10], [0.4, 0.1, 0.9], missing=[5, 15], fps=25)
    np.testing.assert_array_equal(a, b)
    without = plots.draw_timeline("c", [0, 10, 20], [0.1, 0.9, 0.4], fps=25)
    black = (0.0, 0.0, 0.0)
    assert len(_pixels(a[200:330], black)) > len(_pixels(without[200:330], black)) + 20


@pytest.mark.parametrize("title", ["$a_{$.mp4", "視頻.mp4", "two\nlines", "half \udcff", "x" * 500, ""])
@pytest.mark.filterwarnings("error")
def test_any_file_name_is_a_title(title):
    assert plots.draw_timeline(title, [0], [0.5], fps=0.0).shape == (400, 900, 3)
    assert plots.draw_overlay(np.zeros((16, 16, 3), np.uint8), np.zeros((2, 2)), title).shape == (390, 740, 3)


def test_overlay_is_hot_where_the_map_is():
    heat = np.zeros((4, 4))
    heat[0, 3] = 1.0
    image = np.full((64, 64, 3), 128, np.uint8)
    blended = plots.blend_heat(image, heat).astype(int)
    assert blended.shape == (64, 64, 3)
    # The corner cell is a quarter of the colour map's far end over grey, its opposite a quarter of its start.
    hot, cold = (np.array(matplotlib.colormaps["inferno"](v)[:3]) * 255 for v in (1.0, 0.0))
    np.testing.assert_allclose(blended[0, 63], 0.75 * hot + 0.25 * 128, atol=1)
    np.testing.assert_allclose(blended[63, 0], 0.25 * cold + 0.75 * 128, atol=1)
    # Rows are y: the other two corners stay cold.
    np.testing.assert_array_equal(blended[0, 0], blended[63, 63])


def test_overlay_shows_the_crop_unchanged():
    color = np.array([10, 200, 60], np.uint8)
    picture = plots.draw_overlay(np.full((64, 64, 3), color), np.zeros((4, 4)), "clip", score=0.25)
    assert len(_pixels(picture[:, :370], color / 255)) > 200 * 200
    assert len(_pixels(picture[:, 370:], color / 255)) == 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plots.draw_timeline("c", [], []), "N >= 1"),
        (lambda: plots.draw_timeline("c", [0, 1], [0.5]), r"\(2,\) and \(1,\)"),
        (lambda: plots.draw_timeline("c", [0], [1.5]), r"outside \[0, 1\]"),
        (lambda: plots.draw_timeline("c", [0], [np.nan]), r"outside \[0, 1\]"),
        (lambda: plots.draw_overlay(np.zeros((8, 8, 3)), np.zeros((2, 2)), "c"), "uint8 RGB"),
        (lambda: plots.draw_overlay(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2, 1)), "c"), r"\[g, g\]"),
        (lambda: plots.draw_overlay(np.zeros((8, 8, 3), np.uint8), np.full((2, 2), -1.0), "c"), "the map"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
