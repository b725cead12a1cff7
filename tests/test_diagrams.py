"""Diagrams of methods: files are as the script draws them, text stays in its box, and pages say what the configs do."""

import itertools
import pathlib
import re
import xml.etree.ElementTree as ET

import matplotlib
import pytest
from PIL import ImageFont

from benchmarks import diagrams
from msddf_jax import experiments

FOLDER = diagrams.FOLDER
DIAGRAMS = diagrams.read_descriptions(diagrams.DESCRIPTIONS.read_text(encoding="utf-8"))
SVG = "{http://www.w3.org/2000/svg}"
_FONTS = pathlib.Path(matplotlib.get_data_path(), "fonts/ttf")
# Advance widths, thousandths of an em, of the font that the estimate is to hold for.
_REGULAR, _BOLD = (ImageFont.truetype(_FONTS / f"DejaVuSans{kind}.ttf", 1000) for kind in ("", "-Bold"))


def _real_width(text, size, bold):
    return (_BOLD if bold else _REGULAR).getlength(text) * size / 1000


def _boxes(svg):
    """[(left, top, right, bottom), its <text> elements] of each box."""
    for group in svg.iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        left, top, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
        yield (left, top, left + width, top + height), group.findall(f"{SVG}text")


def _corners(path):
    """Points of a path of M, V and H."""
    x = y = 0.0
    for letter, numbers in re.findall(r"([MVH])([^MVH]+)", path):
        values = [float(number) for number in numbers.split()]
        x = x if letter == "V" else values[0]
        y = y if letter == "H" else values[-1]
        yield x, y


def test_the_files_are_what_the_script_draws():
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(DIAGRAMS)
    for name, diagram in DIAGRAMS.items():
        drawn = diagrams.draw(diagram)
        assert (FOLDER / f"{name}.svg").read_text(encoding="utf-8") == drawn, "run python -m benchmarks.diagrams"


@pytest.mark.parametrize("name", sorted(DIAGRAMS))
def test_text_stays_in_its_box_and_arrows_outside_of_boxes(name):
    svg = ET.parse(FOLDER / f"{name}.svg").getroot()
    width, height = float(svg.get("width")), float(svg.get("height"))
    boxes = list(_boxes(svg))
    assert len(boxes) == sum(map(len, DIAGRAMS[name].rows)) and width == 360
    for (left, top, right, bottom), texts in boxes:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        for text in texts:
            size, y, centre = (float(text.get(key)) for key in ("font-size", "y", "x"))
            half = _real_width(text.text, size, text.get("font-weight") == "bold") / 2
            assert left + 2 <= centre - half and centre + half <= right - 2, text.text
            assert top + size <= y <= bottom - 4, text.text
    for one, ((left, top, right, bottom), _) in enumerate(boxes):
        for (l2, t2, r2, b2), _ in boxes[one + 1 :]:
            assert right <= l2 or r2 <= left or bottom <= t2 or b2 <= top
    arrows = [path.get("d") for path in svg.findall(f"{SVG}path") if path.get("marker-end")]
    assert len(arrows) == len(DIAGRAMS[name].arrows)
    for arrow in arrows:
        points = list(_corners(arrow))
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
            assert x0 >= 0 and x1 <= width
            for (left, top, right, bottom), _ in boxes:
                assert x1 <= left or right <= x0 or y1 <= top or bottom <= y0, (arrow, left, top)


def test_the_estimate_of_a_width_is_from_above():
    texts = [
        "minimum",
        "www",
        "AVAIL",
        "fill (0.05), it.",
        "ViT-L/14",
        "EfficientNet-B4, 380 px",
        "1,024",
        "quick brown",
    ]
    for text in texts:
        for bold in (False, True):
            assert _real_width(text, 12, bold) <= diagrams.text_width(text, 12, bold=bold) <= 1.5 * 12 * len(text)


def test_a_small_diagram_by_hand():
    text = "= two: Two boxes.\n\ndata a: A | one / two\n\nnet b: B\n\n> a > b\n"
    diagram = diagrams.read_descriptions(text)["two"]
    assert diagram == diagrams.Diagram(
        "Two boxes.",
        [[diagrams.Box("a", "data", "A", "one\ntwo")], [diagrams.Box("b", "net", "B")]],
        ["a > b"],
    )
    places = diagrams.place(diagram)
    # Three lines of 15 px and 8 px above and below; 28 px between rows.
    assert (places["a"]["top"], places["a"]["height"], places["b"]["top"]) == (8, 61, 97)
    # From the middle of the lower edge to 2 px above the upper one.
    assert diagrams.route(diagram, places) == [("M180.0 69.0V82.0H180.0V95.0", False)]
    assert diagrams.wrap("aa bb", 14 * 1.3, 10) == ["aa", "bb"] and diagrams.wrap("aa bb", 31, 10) == ["aa bb"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= x: X\nnothing\n", "line 2: 'nothing' is no title, box"),
        ("= x: X\nodd a: A\n", "line 2: .* box .of data, made"),
        ("= x: X\ndata a: A\n> a > b\n", "arrow 'a > b': expected .* boxes a$"),
        ("= x: X\ndata a: A\n> a - a\n", "arrow 'a - a': expected"),
        ("= x: X\ndata a: A\ndata a: B\n", "two boxes are called 'a'"),
        ("= x: X\ndata a: " + "m" * 60 + "\n", "is wider than its box"),
        ("= x: X\ndata a: A\ndata b: B\n\nnet c: C\n\nnet d: D\nnet e: E\n> a > e\n", "at the same side"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        diagrams.draw(diagrams.read_descriptions(text)["x"])


def _config_of(name):
    return "configs/msddf.py" if name == "msddf" else f"configs/detectors/{name}.py"


@pytest.mark.parametrize("name", sorted(DIAGRAMS))
def test_the_page_of_a_method_shows_its_diagram_and_the_losses_of_its_config(name):
    page = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert f"]({name}.svg)" in page and f"{name}.md" in (FOLDER / "index.md").read_text(encoding="utf-8")
    for heading in ("## Losses", "## What differs from the ", "## Commands", "## Where its results stand"):
        assert heading in page
    specs = [_config_of(name)] + ["configs/msddf.py:published"] * (name == "msddf")
    rows = re.findall(r"^\| `(\w+)` \| ([\d. |]+) \|", page, re.M)
    for column, spec in enumerate(specs):
        weights = experiments.load(spec).loss_weights.to_dict()
        assert {term: float(cells.split(" | ")[column]) for term, cells in rows} == weights, spec
    assert {path.stem for path in FOLDER.glob("*.md")} == {*DIAGRAMS, "index"}


def test_weights_in_a_diagram_are_those_of_its_page():
    """Of each number in brackets of a box "loss" or "against"."""
    for name, diagram in DIAGRAMS.items():
        known = set(experiments.load(_config_of(name)).loss_weights.to_dict().values())
        for box in (box for row in diagram.rows for box in row if box.kind in ("loss", "against")):
            for number in re.findall(r"\(([\d.]+)\)", f"{box.title} {box.text}"):
                assert float(number) in known, (name, box.name, number)
