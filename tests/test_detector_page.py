"""The page of all detectors is the one that today's docstrings give."""

import json

from benchmarks import detector_page, zoo


def test_the_page_is_up_to_date():
    costs = json.loads(detector_page.COSTS.read_text())
    assert set(costs) == set(zoo.row_specs())
    text = detector_page.make_page(costs)
    assert detector_page.PAGE.read_text(encoding="utf-8") == text, "run python -m benchmarks.detector_page"
    # Every link within the page has its heading, and code blocks are closed.
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
    links = {part.split(")")[0] for part in text.split("](#")[1:]}
    assert links <= headings and text.count("```") % 2 == 0
