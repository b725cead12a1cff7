"""A diagram of each method's pipeline, from its description in diagrams.txt: docs/methods/<method>.svg.

    python -m benchmarks.diagrams

A diagram is a column of rows of boxes, 360 px wide, so that its text can be read on a phone. It has a background of its
own: one file serves light and dark pages. No font is shipped: lines are broken by an estimate that holds for DejaVu
Sans, the widest of the usual fonts. Numbers in a description are those of the default config; the page beside it has
all of them.
"""

import pathlib
import re
from typing import NamedTuple
from xml.sax.saxutils import escape

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "docs/methods"
DESCRIPTIONS = pathlib.Path(__file__).with_suffix(".txt")

# {kind of box: (fill, border, what the legend calls it)}
KINDS = {
    "data": ("#eceff1", "#546e7a", "data set"),
    "made": ("#fff3e0", "#e65100", "made in the step"),
    "net": ("#e3f2fd", "#1565c0", "network"),
    "loss": ("#e8f5e9", "#2e7d32", "loss (weight)"),
    "against": ("#f3e5f5", "#6a1b9a", "adversary"),
}
# Pixels.
WIDTH, LANE, GAP, ROW_GAP, PAD = 360, 24, 12, 28, 8
TITLE_SIZE, TEXT_SIZE, LINE = 12.5, 11.5, 15
# Widths in em, from above, of DejaVu Sans.
_NARROW, _WIDE = set(" .,:;'|!ijlIftr()[]/-"), set("mwMW@%+=~<>x")
_BOX = re.compile(r"(?P<kind>\w+) (?P<name>\w+): (?P<title>[^|]+?)( \| (?P<text>.+))?")
_INK, _PAPER, _ARROW = "#1a1a1a", "#fafafa", "#424242"


class Box(NamedTuple):
    """name: for arrows. kind: of `KINDS`. title, text: what stands in it; a new line in the text is one in the box."""

    name: str
    kind: str
    title: str
    text: str = ""


class Diagram(NamedTuple):
    """title: for screen readers. rows: of boxes, from top to bottom.

    arrows: "a > b" or, dashed, "a ~ b". They lead to the next row, to a neighbour, or along a margin to any other row;
    there both boxes have to be at that margin.
    """

    title: str
    rows: list[list[Box]]
    arrows: list[str]


def read_descriptions(text) -> dict[str, Diagram]:
    """{name: diagram} of a text like `DESCRIPTIONS`, whose head says how it is written.

    Raises ValueError for a line that is none of these, with its number.
    """
    found, rows, arrows, new_row = {}, [], [], True
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        box = _BOX.fullmatch(line)
        if not line or line.startswith("#"):
            new_row = True
        elif line.startswith("= ") and ": " in line:
            name, title = line[2:].split(": ", 1)
            rows, arrows, new_row = [], [], True
            found[name] = Diagram(title, rows, arrows)
        elif line.startswith("> "):
            arrows += [arrow.strip() for arrow in line[2:].split(",")]
        elif box and box["kind"] in KINDS:
            if new_row:
                rows.append([])
                new_row = False
            lines = [part.strip() for part in (box["text"] or "").split(" / ")]
            rows[-1].append(Box(box["name"], box["kind"], box["title"], "\n".join(lines)))
        else:
            raise ValueError(
                f"{DESCRIPTIONS.name}, line {number}: {line!r} is no title, box (of {', '.join(KINDS)}) or arrow"
            )
    return found


def text_width(text, size, *, bold=False) -> float:
    """Width of a line in pixels, from above."""
    em = sum(0.42 if c in _NARROW else 1.0 if c in _WIDE else 0.78 if c.isupper() else 0.65 for c in text)
    return em * size * (1.1 if bold else 1.0)


def wrap(text, width, size, *, bold=False) -> list[str]:
    """Lines of a text that are no wider than `width` pixels.

    Raises ValueError for a word that is wider.
    """
    lines = []
    for paragraph in filter(None, text.split("\n")):
        line = ""
        for word in paragraph.split():
            if text_width(word, size, bold=bold) > width:
                raise ValueError(f"{word!r} is wider than its box ({width:.0f} px): use a shorter word")
            longer = f"{line} {word}".strip()
            if text_width(longer, size, bold=bold) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def place(diagram) -> dict[str, dict]:
    """{name of a box: its left, top, width, height (pixels), row, column, columns of its row, lines of title and text}.

    Raises ValueError for a word that is wider than its box, and for a name that stands twice.
    """
    places, top = {}, PAD
    for number, row in enumerate(diagram.rows):
        width = (WIDTH - 2 * LANE - GAP * (len(row) - 1)) / len(row)
        inner = width - 2 * PAD
        made = [(wrap(b.title, inner, TITLE_SIZE, bold=True), wrap(b.text, inner, TEXT_SIZE)) for b in row]
        height = max(len(title) + len(text) for title, text in made) * LINE + 2 * PAD
        for column, (box, (title, text)) in enumerate(zip(row, made, strict=True)):
            if box.name in places:
                raise ValueError(f"two boxes are called {box.name!r}")
            places[box.name] = {
                "left": LANE + column * (width + GAP),
                "top": top,
                "width": width,
                "height": height,
                "row": number,
                "column": column,
                "columns": len(row),
                "title": title,
                "text": text,
            }
        top += height + ROW_GAP
    return places


def _spread(place, index, count):
    """Where the arrow `index` of `count` meets an edge of a box."""
    return place["left"] + place["width"] * (index + 1) / (count + 1)


def _margin(start, end):
    """ "left" or "right": where an arrow between rows that are no neighbours runs. Raises ValueError where neither."""
    for side, edge in (("right", lambda box: box["columns"] - 1), ("left", lambda box: 0)):
        if start["column"] == edge(start) and end["column"] == edge(end):
            return side
    raise ValueError("an arrow along the margin needs both boxes at the same side")


def _ends(arrow, places):
    """(start, end, whether it is dashed) of an arrow. Raises ValueError for another form, and for no such box."""
    words = arrow.split()
    if len(words) != 3 or words[1] not in (">", "~") or not {words[0], words[2]} <= set(places):
        raise ValueError(f"arrow {arrow!r}: expected 'a > b' or 'a ~ b' of the boxes {', '.join(places)}")
    return words[0], words[2], words[1] == "~"


def route(diagram, places) -> list[tuple[str, bool]]:
    """[(path of an arrow in SVG's words, whether it is dashed)]. places: of `place`.

    Raises ValueError for an arrow that is none, or that has no margin to run along.
    """
    pairs = [_ends(arrow, places) for arrow in diagram.arrows]
    row = lambda name: places[name]["row"]
    between = [sorted((a, b), key=row) for a, b, _ in pairs if abs(row(a) - row(b)) == 1]
    # Arrows at one edge stand beside each other, in the order of the boxes at their other ends.
    left = lambda name: places[name]["left"]
    below = {a: sorted((y for x, y in between if x == a), key=left) for a, _ in between}
    above = {b: sorted((x for x, y in between if y == b), key=left) for _, b in between}
    paths, used = [], {"left": 0, "right": 0}
    for a, b, dashed in pairs:
        start, end = places[a], places[b]
        if abs(row(a) - row(b)) == 1:
            upper, lower = sorted((a, b), key=row)
            x0 = _spread(places[upper], below[upper].index(lower), len(below[upper]))
            x1 = _spread(places[lower], above[lower].index(upper), len(above[lower]))
            y0, y1 = places[upper]["top"] + places[upper]["height"], places[lower]["top"]
            (x0, y0), (x1, y1) = ((x0, y0), (x1, y1 - 2)) if upper == a else ((x1, y1), (x0, y0 + 2))
            paths.append((f"M{x0:.1f} {y0:.1f}V{(y0 + y1) / 2:.1f}H{x1:.1f}V{y1:.1f}", dashed))
        elif start["row"] == end["row"]:
            y = start["top"] + start["height"] / 2
            to_right = end["column"] > start["column"]
            x0 = start["left"] + start["width"] * to_right
            x1 = end["left"] + end["width"] * (not to_right)
            paths.append((f"M{x0:.1f} {y:.1f}H{x1 + (-2 if to_right else 2):.1f}", dashed))
        else:
            side = _margin(start, end)
            sign = 1 if side == "right" else -1
            edge = lambda box, right=side == "right": box["left"] + box["width"] * right
            lane = (WIDTH - LANE if sign > 0 else LANE) + sign * (9 + 6 * used[side])
            used[side] += 1
            y0, y1 = (box["top"] + box["height"] / 2 for box in (start, end))
            paths.append((f"M{edge(start):.1f} {y0:.1f}H{lane:.1f}V{y1:.1f}H{edge(end) + 2 * sign:.1f}", dashed))
    return paths


def _draw_text(lines, x, y, size, *, bold=False):
    weight = ' font-weight="bold"' if bold else ""
    style = f'font-size="{size}"{weight} text-anchor="middle"'
    return [f'<text x="{x:.1f}" y="{y + i * LINE:.1f}" {style}>{escape(line)}</text>' for i, line in enumerate(lines)]


def _draw_box(box, place):
    fill, border, _ = KINDS[box.kind]
    x, lines = place["left"] + place["width"] / 2, len(place["title"]) + len(place["text"])
    # In the middle of the row's height.
    y = place["top"] + (place["height"] - lines * LINE) / 2 + 11
    return [
        "<g>",
        f'<rect x="{place["left"]:.1f}" y="{place["top"]:.1f}" width="{place["width"]:.1f}" '
        f'height="{place["height"]:.1f}" rx="6" fill="{fill}" stroke="{border}" stroke-width="1.5"/>',
        *_draw_text(place["title"], x, y, TITLE_SIZE, bold=True),
        *_draw_text(place["text"], x, y + len(place["title"]) * LINE, TEXT_SIZE),
        "</g>",
    ]


def _draw_legend(diagram, top):
    """(lines of SVG, height) of what colours and dashes mean, two a row."""
    used = {box.kind for row in diagram.rows for box in row}
    entries = [(fill, border, words) for kind, (fill, border, words) in KINDS.items() if kind in used]
    if any("~" in arrow for arrow in diagram.arrows):
        entries.append((None, _ARROW, "feeds back"))
    out = []
    for i, (fill, border, words) in enumerate(entries):
        x, y = LANE + (i % 2) * (WIDTH / 2 - LANE + GAP / 2), top + (i // 2) * 18
        mark = f'<rect x="{x:.1f}" y="{y:.1f}" width="18" height="12" rx="3" fill="{fill}" stroke="{border}"/>'
        if fill is None:
            mark = f'<path d="M{x:.1f} {y + 6:.1f}h18" stroke="{border}" stroke-width="1.5" stroke-dasharray="4 3"/>'
        out += [mark, f'<text x="{x + 26:.1f}" y="{y + 10:.1f}" font-size="{TEXT_SIZE}">{escape(words)}</text>']
    return out, (len(entries) + 1) // 2 * 18


def draw(diagram) -> str:
    """The SVG of a diagram, as text.

    Raises ValueError for a word that is wider than its box, and for an arrow that cannot be drawn.
    """
    places = place(diagram)
    bottom = max(box["top"] + box["height"] for box in places.values())
    legend, legend_height = _draw_legend(diagram, bottom + 16)
    height = bottom + 16 + legend_height + PAD
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="Helvetica, Arial, sans-serif" fill="{_INK}">',
        f"<title>{escape(diagram.title)}</title>",
        f'<defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{_ARROW}"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height:.0f}" rx="8" fill="{_PAPER}"/>',
    ]
    for path, dashed in route(diagram, places):
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        out.append(
            f'<path d="{path}" fill="none" stroke="{_ARROW}" stroke-width="1.5"{dashes} marker-end="url(#head)"/>'
        )
    for row in diagram.rows:
        for box in row:
            out += _draw_box(box, places[box.name])
    return "\n".join([*out, *legend, "</svg>"]) + "\n"


def main():
    """Write every diagram."""
    for name, diagram in read_descriptions(DESCRIPTIONS.read_text(encoding="utf-8")).items():
        path = FOLDER / f"{name}.svg"
        path.write_text(draw(diagram), encoding="utf-8")
        print(f"written: {path}")


if __name__ == "__main__":
    main()
