"""The images of README and docs: what is written, how large, and where the headings of the synthesis sheet stand."""

import sys

import numpy as np
import PIL.Image
import pytest

from benchmarks import pictures, synthesis_sheet


def test_an_image_is_written_as_its_name_says_and_no_larger_than_allowed(tmp_path, monkeypatch):
    plain = np.full((40, 60, 3), (200, 30, 90), np.uint8)
    for name in ("a.jpg", "a.png"):
        pictures.save(plain, tmp_path / name)
        found = np.asarray(PIL.Image.open(tmp_path / name).convert("RGB"))
        assert found.shape == plain.shape and np.abs(found.astype(int) - plain).max() < 4
    monkeypatch.setattr(pictures, "LARGEST", 500)
    noise = np.random.default_rng(0).integers(0, 256, plain.shape, np.uint8)
    with pytest.raises(ValueError, match=r"b\.jpg has .* bytes, at most 500 are for an image"):
        pictures.save(noise, tmp_path / "b.jpg")


def test_an_image_that_is_not_known_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["pictures", "--root=r", "--workdir=w", f"--out={tmp_path}", "--only=app,table"])
    with pytest.raises(SystemExit, match="--only names table, allowed: synthesis, report, app, timeline"):
        pictures.main()


def test_the_sheet_puts_every_panel_below_its_heading():
    # Two columns of one group, a column of none; two rows; each panel of its own grey.
    grey = lambda value: np.full((30, 30, 3), value, np.float32)
    rows = [("both eyes", [grey(0.0), grey(0.2), grey(0.4)]), ("nose", [grey(0.6), grey(0.8), grey(1.0)])]
    blocks = [
        synthesis_sheet.Block("Title", [("alpha", "map"), ("alpha", "forgery"), ("", "real")], rows),
        synthesis_sheet.Block("Next", [("", "real")], [("nose", [grey(0.5)])]),
    ]
    sheet = synthesis_sheet.draw_sheet(blocks)
    left, line, gap = synthesis_sheet.MARGIN, synthesis_sheet.LINE, synthesis_sheet.GAP
    second = 3 * line + 60 + gap
    assert sheet.shape == (second + 2 * line + 30 + gap, left + 90, 3)
    middle = lambda row, column: sheet[3 * line + 30 * row + 15, left + 30 * column + 15, 0]
    assert [[middle(r, c) for c in range(3)] for r in range(2)] == [[0, 51, 102], [153, 204, 255]]
    assert sheet[second + 2 * line + 15, left + 15, 0] == 128
    # The group's rule spans its two columns, and not the third.
    rule = sheet[2 * line - 1, left:, 0]
    assert (rule[4:54] == 0).all() and (rule[60:] == 255).all()


def test_a_region_that_is_none_is_said():
    with pytest.raises(ValueError, match="regions are ear, allowed: left_eye, "):
        synthesis_sheet.make_sheet("nowhere", regions=("nose", "ear"))
    with pytest.raises(ValueError, match="faces is 0, allowed: 1 to 11"):
        synthesis_sheet.make_sheet("nowhere", faces=0)
