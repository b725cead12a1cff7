"""The parts of a self-contained HTML page: tables, figures, pictures, folded sections. Text is escaped here, once."""

import base64
import csv
import html
import io
import pathlib
import re
from typing import NamedTuple

import numpy as np
import PIL.Image

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; margin: 0 auto; max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.3rem; margin: .3rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1rem; margin: .9rem 0 .3rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
td small { display: block; color: #555; font-size: .75rem; }
th { vertical-align: bottom; white-space: normal; } th:first-child, td:first-child { text-align: left; }
.big { font-size: 1.2rem; font-weight: 600; margin: .6rem 0 .3rem; } ul { margin: .2rem 0; padding-left: 1.1rem; }
.note { color: #555; font-size: .85rem; } p { overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: .8rem; }
figure { margin: 0; } figure img { width: 100%; height: auto; }
figcaption { font-size: .8rem; color: #444; overflow-wrap: anywhere; }
details { border: 1px solid #ddd; border-radius: .4rem; padding: .4rem .8rem; margin: .6rem 0; }
summary { cursor: pointer; font-weight: 600; overflow-wrap: anywhere; }
@media (max-width: 30rem) { body { font-size: 15px; line-height: 1.4; } }
pre { overflow-x: auto; font-size: .75rem; background: #f6f8fa; padding: .6rem; }
"""


class Table(NamedTuple):
    """title and note: text. header: list of str. rows: list of lists of str, the first column a name."""

    title: str
    header: list
    rows: list
    note: str


def write(path, title, sections) -> None:
    """Write the page atomically enough for a browser: one file, no script, nothing loaded from anywhere."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head += f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    body = f"<h1>{html.escape(title)}</h1>{''.join(sections)}"
    text = (
        f'<!DOCTYPE html><html lang="en"><head>{head}<title>{html.escape(title)}</title><style>{_STYLE}</style></head>'
    )
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}<body>{body}</body></html>\n", encoding="utf-8")


def section(title, *parts) -> str:
    """A headed section; parts are HTML."""
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"


def details(title, *parts, opened) -> str:
    """A part that folds; parts are HTML."""
    return f"<details{' open' if opened else ''}><summary>{html.escape(title)}</summary>{''.join(parts)}</details>"


def paragraphs(*lines) -> str:
    """Lines of text, a paragraph each."""
    return "".join(f"<p>{_text(line)}</p>" for line in lines)


def headline(text) -> str:
    """The one sentence that answers, larger than the rest."""
    return f'<p class="big">{_text(text)}</p>'


def points(title, lines) -> str:
    """A list under a small heading; nothing without lines."""
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<h3>{html.escape(title)}</h3><ul>{items}</ul>" if items else ""


def _text(line):
    """A sentence, escaped; a number and its percent sign stay on one line."""
    return html.escape(line).replace(" %", "\u00a0%")


def code(text) -> str:
    """Text as it is, in a box that scrolls."""
    return f"<pre>{html.escape(text)}</pre>"


def table(value) -> str:
    """A `Table` as HTML; wide ones scroll by themselves."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in value.header)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in value.rows)
    note = f'<p class="note">{html.escape(value.note)}</p>' if value.note else ""
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<h3>{html.escape(value.title)}</h3><div class="scroll">{body}</div>{note}'


def _cell(text):
    """A cell; an interval, "75.0 [50.0, 100.0]", stands small below its figure, so that a row is not too wide."""
    figure, bracket, interval = html.escape(text).partition(" [")
    small = f"<small>[{interval}</small>" if bracket and interval.endswith("]") else f"{bracket}{interval}"
    return f"<td>{figure}{small}</td>"


def figures(items) -> str:
    """A grid of SVGs. items: list of (SVG text, what it shows)."""
    return _grid([(f"data:image/svg+xml;base64,{_base64(svg.encode())}", caption) for svg, caption in items])


def pictures(items) -> str:
    """A grid of pictures. items: list of (what it shows, uint8 RGB [H, W, 3] or the bytes of a PNG file)."""
    sources = []
    for caption, picture in items:
        data = picture if isinstance(picture, bytes) else _png(picture)
        sources.append((f"data:image/png;base64,{_base64(data)}", caption))
    return _grid(sources)


def _grid(sources):
    cells = "".join(
        f'<figure><img src="{uri}" alt="{html.escape(caption, quote=True)}"><figcaption>{html.escape(caption)}'
        "</figcaption></figure>"
        for uri, caption in sources
    )
    return f'<div class="grid">{cells}</div>'


def write_tables(folder, tables) -> None:
    """Write each table as `<title>.csv` and `<title>.tex` (booktabs) into a folder."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for value in tables:
        stem = re.sub(r"[^A-Za-z0-9]+", "_", value.title).strip("_") or "table"
        with open(folder / f"{stem}.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([value.header, *value.rows])
        (folder / f"{stem}.tex").write_text(latex(value), encoding="utf-8")


def markdown(value) -> str:
    """A `Table` as Markdown, its note as a paragraph below."""
    escape = lambda cell: str(cell).replace("|", r"\|")
    lines = [value.header, ["---"] * len(value.header), *value.rows]
    text = "\n".join(f"| {' | '.join(map(escape, cells))} |" for cells in lines)
    return f"{text}\n\n{value.note}\n" if value.note else f"{text}\n"


def latex(value) -> str:
    """A `Table` as a LaTeX tabular (needs booktabs), its note as a comment."""
    escape = lambda cell: re.sub(r"([&%$#_{}])", r"\\\1", cell).replace("~", r"\textasciitilde{}")
    line = lambda cells: " & ".join(map(escape, cells)) + r" \\"
    return "\n".join(
        [
            f"% {value.title}. {value.note}",
            rf"\begin{{tabular}}{{l{'r' * (len(value.header) - 1)}}}",
            r"\toprule",
            line(value.header),
            r"\midrule",
            *map(line, value.rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _png(image):
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.ascontiguousarray(image)).save(buffer, "PNG")
    return buffer.getvalue()


def _base64(data):
    return base64.b64encode(data).decode("ascii")
