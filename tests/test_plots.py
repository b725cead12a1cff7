"""Pictures show what they were given: sizes, colours where they must be, errors for the rest."""

import matplotlib
import numpy as np
import pytest

from msddf_jax.show import plots
from msddf_jax.statistics.verdict import judge

RED, BLUE = matplotlib.colors.to_rgb("#d62728"), matplotlib.colors.to_rgb("#1f77b4")


def _pixels(image, color):
    return np.argwhere(np.abs(image.astype(int) - np.rint(np.array(color) * 255)).max(axis=-1) <= 2)


def _draw(title, frames, scores, judged=None, missing=(), **kwargs):
    """The timeline of one person."""
    judged = judged or judge(scores if len(scores) else [0.5])
    person = {"frames": frames, "scores": scores, "missing": missing, "score": judged.score}
    return plots.draw_timeline(title, [person], judged, **kwargs)


def _timeline(scores, **kwargs):
    return _draw("clip.mp4", np.arange(len(scores)) * 10, scores, **kwargs)


def test_the_timeline_shows_the_verdict_it_is_given():
    # The mean of these is real and their highest fake: whoever judged says which, not the picture.
    scores, frames = [0.1, 0.2, 0.9], [0, 10, 20]
    mean, highest = (_draw("c", frames, scores, judge(scores, None, how)) for how in ("mean", "max"))
    for image, color, other in ((mean, BLUE, RED), (highest, RED, BLUE)):
        row = lambda c, image=image: np.bincount(_pixels(image, c)[:, 0], minlength=400).max()
        # A line over the whole width in the colour of the label.
        assert row(color) > 600 > row(other)


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
    a = _draw("c", [0, 10, 20], [0.1, 0.9, 0.4], missing=[15, 5], fps=25)
    b = _draw("c", [20, 0, 10], [0.4, 0.1, 0.9], missing=[5, 15], fps=25)
    np.testing.assert_array_equal(a, b)
    without = _draw("c", [0, 10, 20], [0.1, 0.9, 0.4], fps=25)
    black = (0.0, 0.0, 0.0)
    assert len(_pixels(a[200:330], black)) > len(_pixels(without[200:330], black)) + 20


@pytest.mark.parametrize("title", ["$a_{$.mp4", "視頻.mp4", "two\nlines", "half \udcff", "x" * 500, ""])
@pytest.mark.filterwarnings("error")
def test_any_file_name_is_a_title(title):
    assert _draw(title, [0], [0.5], fps=0.0).shape == (400, 900, 3)
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
        (lambda: _draw("c", [], [], judge([0.5])), "N >= 1"),
        (lambda: _draw("c", [0, 1], [0.5], judge([0.5])), r"\(2,\) and \(1,\)"),
        (lambda: _draw("c", [0], [1.5], judge([0.5])), r"outside \[0, 1\]"),
        (lambda: _draw("c", [0], [np.nan], judge([0.5])), r"outside \[0, 1\]"),
        (lambda: plots.draw_overlay(np.zeros((8, 8, 3)), np.zeros((2, 2)), "c"), "uint8 RGB"),
        (lambda: plots.draw_overlay(np.zeros((8, 8, 3), np.uint8), np.zeros((2, 2, 1)), "c"), r"\[g, g\]"),
        (lambda: plots.draw_overlay(np.zeros((8, 8, 3), np.uint8), np.full((2, 2), -1.0), "c"), "the map"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _maps(**kwargs):
    image = np.full((32, 32, 3), (10, 200, 60), np.uint8)
    heat = np.zeros((4, 4))
    heat[0, 0] = 1.0
    return plots.draw_maps(image, {"one": heat, "two": np.zeros((2, 2)), "three": heat.T}, "clip", **kwargs)


def test_maps_stand_side_by_side_at_phone_width():
    wide, narrow = _maps(score=0.5), _maps(columns=2)
    assert wide.shape[1] == narrow.shape[1] == 810 and wide.dtype == np.uint8
    face = _pixels(narrow, np.array([10, 200, 60]) / 255)  # the maps lie over grey
    assert face[:, 0].max() < narrow.shape[0] / 2 and face[:, 1].max() < 405 and len(face) > 300 * 300


def test_embedding_colours_every_group_and_counts_it():
    points = np.random.default_rng(0).normal(size=(40, 2))
    groups = np.array([f"set_{i % 10}" for i in range(40)])
    image = plots.draw_embedding(points, groups, "t-SNE")
    assert image.shape[1] == 810
    for color in plots._COLORS:
        drawn = 0.75 * np.array(matplotlib.colors.to_rgb(color)) + 0.25  # three quarters opaque, on white
        assert len(_pixels(image, drawn)) > 50, color
    flat = plots.draw_embedding(points * [1, 0.01], groups, "t-SNE")
    assert flat.shape[0] < image.shape[0]
    assert plots.draw_embedding(points[:1], groups[:1], "one").shape[1] == 810


def test_profiles_of_one_image_and_of_many():
    rng = np.random.default_rng(0)
    frequency = np.arange(1, 17) / 32
    image = plots.draw_profiles(frequency, {"real": rng.normal(size=(9, 16)), "fake": rng.normal(size=(1, 16))}, "t")
    assert image.shape == (930, 810, 3)


def test_policy_averages_steps_into_columns():
    steps = np.arange(100)
    shares = {"type": {"alpha": (steps < 50) * 1.0, "none": (steps >= 50) * 1.0}}
    image = plots.draw_policy(steps, shares, {"type": np.ones(100)}, "policy", bins=4)
    yellow = np.array(matplotlib.colormaps["cividis"](1.0)[:3])
    where = _pixels(image[:, :650], yellow)
    middle = (where[:, 0].min() + where[:, 0].max()) / 2
    upper, lower = where[where[:, 0] < middle], where[where[:, 0] > middle]
    # alpha, above, in the first half of the steps; none, below, in the second.
    assert upper[:, 1].max() <= lower[:, 1].min() + 2
    assert plots.draw_policy([7], {"type": {"alpha": [1.0]}}, {}, "one step").shape[1] == 810


def test_faithfulness_draws_both_curves():
    curves = {"gradcam": {"deletion": [1, 0.2, 0], "insertion": [0, 0.9, 1]}}
    curves["random"] = {"deletion": [1, 0.5, 0], "insertion": [0, 0.5, 1]}
    assert plots.draw_faithfulness(curves, "toy").shape == (1080, 810, 3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plots.draw_maps(np.zeros((8, 8, 3)), {"a": np.zeros((2, 2))}, "c"), "uint8 RGB"),
        (lambda: plots.draw_maps(np.zeros((8, 8, 3), np.uint8), {"a": np.zeros(2)}, "c"), r"\[g, g\], got a"),
        (lambda: plots.draw_maps(np.zeros((8, 8, 3), np.uint8), {"a": np.full((2, 2), 2)}, "c"), "the map a"),
        (lambda: plots.draw_embedding(np.zeros((0, 2)), [], "c"), "N >= 1"),
        (lambda: plots.draw_profiles(np.zeros(3), {"real": np.zeros((2, 4))}, "c"), r"\[N, 3\]"),
        (lambda: plots.draw_policy([1, 2], {"type": {"alpha": [1.0]}}, {}, "c"), "2 steps"),
        (lambda: plots.draw_faithfulness({}, "c"), "at least one"),
        (lambda: plots.draw_faithfulness({"a": {"deletion": [2, 0], "insertion": [0, 1]}}, "c"), "score of a"),
    ],
)
def test_what_cannot_be_drawn_of_a_detector_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
