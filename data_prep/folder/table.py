"""The table in which people list their own files: CSV as tools and Excel write it."""

import csv
import difflib
import sys
from typing import NamedTuple

from data_prep import contents
from data_prep.catalog import DownloadError, nearest

COLUMNS = ("path", "label", "split", "method", "group", "identity")
LABELS = {"real": "real", "fake": "fake", "0": "real", "1": "fake"}
SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
_DELIMITERS = ",;\t"
_HEADER_CHARACTERS = 100_000
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class Row(NamedTuple):
    """One file as listed: path as it stands, label and split in our words, the rest as it stands; "" where nothing."""

    path: str
    label: str
    split: str
    method: str
    group: str
    identity: str


def read_table(path):
    """The rows of a table of files.

    Args:
      path: of a file with a header. Columns: path; label, real, fake, 0 (real) or 1 (fake); and, where there are such,
        split (train, val, validation or test), method, group and identity. Commas, semicolons or tabs between cells,
        UTF-8 or UTF-16, with or without a byte order mark.

    Returns:
      list of Row, with a split in every row or in none. list of the names of other columns, which are not read.

    Raises:
      DownloadError: no such table, with the line.
    """
    with open(path, "rb") as file:
        encoding = "utf-16" if file.read(2) in _UTF_16 else "utf-8-sig"
    try:
        with open(path, newline="", encoding=encoding) as file:
            delimiter = _find_delimiter(path, file)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = next(reader)
            columns, others = _read_header(path, header)
            rows = [_make_row(cells, columns, len(header), path, reader) for cells in reader if any(cells)]
    except (UnicodeError, csv.Error) as error:
        raise DownloadError(
            f"{path} is not a CSV file in UTF-8 ({error}): save it as 'CSV UTF-8'; a path with a comma, a quote or a "
            "line break stands in double quotes, a quote in it doubled [bad_table]"
        ) from error
    if not rows:
        raise DownloadError(f"{path} lists no file: it has a header and no row [bad_table]")
    without = [row for row in rows if not row.split]
    if without and len(without) < len(rows):
        raise DownloadError(
            f"{path}: {len(without)} of {len(rows)} rows have no split, first {contents.shown(without[0].path)}; give "
            "every row one, or none, and splits are made here [bad_table]"
        )
    return rows, others


def _find_delimiter(path, file):
    """What stands between cells; `file` is left before the header."""
    start, first = 0, file.readline(_HEADER_CHARACTERS)
    if first.lower().startswith("sep=") and len(first.rstrip()) == 5:  # a line that Excel reads and writes
        start, first = file.tell(), file.readline(_HEADER_CHARACTERS)
    file.seek(start)
    for delimiter in _DELIMITERS:
        cells = next(csv.reader([first], delimiter=delimiter), [])
        if {"path", "label"} <= {cell.strip().lower() for cell in cells}:
            return delimiter
    raise DownloadError(
        f"{path} begins with {contents.shown(first.strip()[:100])!r}: expected a header with the columns path and "
        f"label, and where you have them {', '.join(COLUMNS[2:])}, with commas between [bad_table]"
    )


def _read_header(path, cells):
    """({column: number of its cell}, names of the columns that are not read)."""
    names = [cell.strip().lower() for cell in cells]
    twice = sorted({name for name in names if name in COLUMNS and names.count(name) > 1})
    if twice:
        raise DownloadError(f"{path} has the column {twice[0]} twice [bad_table]")
    others = [name for name in names if name and name not in COLUMNS]
    for name in others:
        near = difflib.get_close_matches(name, [c for c in COLUMNS if c not in names], n=1, cutoff=0.75)
        if near:
            raise DownloadError(f"{path} has a column {contents.shown(name)!r}: did you mean {near[0]}? [bad_table]")
    return {name: number for number, name in enumerate(names) if name in COLUMNS}, others


def _make_row(cells, columns, width, path, reader):
    if len(cells) != width and not (len(cells) > width and not any(cells[width:])):
        raise DownloadError(
            f"{path} line {reader.line_num} has {len(cells)} cells, the header {width}: a path with "
            f"{reader.dialect.delimiter!r} in it stands in double quotes [bad_table]"
        )
    name = cells[columns["path"]]
    if not name or "\0" in name:
        what = "a path with a zero byte" if name else "no path"
        raise DownloadError(f"{path} line {reader.line_num}: {what} [bad_table]")
    # A million rows share their words.
    word = lambda column: sys.intern(cells[columns[column]].strip()) if column in columns else ""
    label, split = LABELS.get(word("label").lower()), SPLITS.get(word("split").lower(), "")
    if label is None:
        raise DownloadError(
            f"{path} line {reader.line_num}: label {contents.shown(word('label'))!r} of {contents.shown(name)}: "
            "expected real or 0, fake or 1 [unknown_label]"
        )
    if word("split") and not split:
        raise DownloadError(
            f"{path} line {reader.line_num}: split {contents.shown(word('split'))!r}"
            f"{nearest(word('split').lower(), SPLITS)} [unknown_split]"
        )
    return Row(name, label, split, word("method"), word("group"), word("identity"))
