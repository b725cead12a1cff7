"""The page is one file that loads nothing, and says text as text."""

import csv
import html.parser

import numpy as np
import pytest

from msddf_jax.show import curves, page

HOSTILE = '<script>alert("x")</script> & 50 %_'


class Links(html.parser.HTMLParser):
    """Every tag and every address of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_page_holds_everything_and_escapes_text(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    table = page.Table(HOSTILE, ["name", "AUC"], [[HOSTILE, "50.0"]], HOSTILE)
    parts = [
        page.table(table),
        page.paragraphs(HOSTILE),
        page.code(HOSTILE),
        page.headline(HOSTILE),
        page.points(HOSTILE, [HOSTILE]),
        page.pictures([(HOSTILE, image)]),
    ]
    parts.append(page.figures([(curves.draw_roc([(HOSTILE, [0.1, 0.9], [0, 1])]), HOSTILE)]))
    page.write(
        tmp_path / "deep" / "page.html", HOSTILE, [page.section(HOSTILE, page.details(HOSTILE, *parts, opened=True))]
    )
    text = (tmp_path / "deep" / "page.html").read_text()
    found = Links(text)
    assert "script" not in found.tags and "link" not in found.tags
    assert len(found.sources) == 2 and all(source.startswith("data:image/") for source in found.sources)
    # Title and heading, section, summary, table with cell and note, code, title of a list, two captions.
    assert found.text.count(HOSTILE) == 11
    # In a sentence a percent sign is kept with its number: paragraph, headline, point.
    assert found.text.count(HOSTILE.replace(" %", "\u00a0%")) == 3
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text


def test_tables_are_written_as_csv_and_latex(tmp_path):
    table = page.Table("toy set / a", ["name", "AUC, %"], [["no_twins", "50.0 [40, 60]"]], "note")
    page.write_tables(tmp_path, [table])
    with open(tmp_path / "toy_set_a.csv", newline="") as file:
        assert list(csv.reader(file)) == [["name", "AUC, %"], ["no_twins", "50.0 [40, 60]"]]
    latex = (tmp_path / "toy_set_a.tex").read_text().splitlines()
    assert latex[1] == r"\begin{tabular}{lr}"
    assert r"name & AUC, \% \\" in latex and r"no\_twins & 50.0 [40, 60] \\" in latex


def test_curves_are_the_same_bytes_again_and_name_what_is_undefined():
    rng = np.random.default_rng(0)
    scores, labels = rng.random(40), np.arange(40) % 2
    for draw in (curves.draw_roc, curves.draw_precision_recall):
        assert draw([("a", scores, labels)]) == draw([("a", scores, labels)])
        assert "b: one class" in draw([("b", scores, np.ones(40, int))])
    assert "AUC" in curves.draw_roc([("a", scores, labels)])


def test_curves_state_the_figure_that_they_show():
    # Of four pairs three are in order: 75 %. Average precision by hand: (1 + 2 / 3) / 2.
    scores, labels = [0.1, 0.6, 0.5, 0.9], [0, 0, 1, 1]
    assert ">a 75.0<" in curves.draw_roc([("a", scores, labels)])
    assert ">a 83.3<" in curves.draw_precision_recall([("a", scores, labels)])


def test_calibration_and_histogram_draw_all_there_is():
    scores, labels = np.array([0.05, 0.95, 0.95, 0.95]), np.array([0, 1, 1, 0])
    # Bins 0 and 14: |0.05 - 0| x 1/4 + |0.95 - 2/3| x 3/4 = 22.5 %.
    assert "as scored, ECE 22.5 %" in curves.draw_calibration(scores, labels)
    assert "calibrated" in curves.draw_calibration(scores, labels, calibrated=scores)
    svg = curves.draw_histogram(scores, labels, 0.4)
    assert "real, 2" in svg and "fake, 2" in svg and "threshold 0.4" in svg
    assert "fake" not in curves.draw_histogram(scores[:1], labels[:1], 0.5).replace("P(fake)", "")


@pytest.mark.parametrize("values", [[0.9, 0.8, np.nan], [0.3, 0.2, 0.1]])
def test_robustness_draws_levels_that_are_missing(values):
    svg = curves.draw_robustness("JPEG", ["90", "70", "50"], [("a", values, 0.95), ("b", values, None)])
    assert ">clean<" in svg and ">JPEG<" in svg
