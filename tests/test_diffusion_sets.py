"""DiffusionFace and DiFF by lists. Traps: 1 is fake here; blanks in paths; DiFF's method DiffFace is no data set."""

import hypothesis
import pytest
import tiny_images
from hypothesis import strategies as st

from data_prep import build
from data_prep.catalog import DownloadError, Options
from data_prep.diff import downloads as diff
from data_prep.diffusionface import downloads as diffusionface
from msddf_jax.data.source import open_source

SETTINGS = hypothesis.settings(deadline=None, max_examples=150)


def _write(root, name, lines, **lists):
    """The images of the lines, and the lists."""
    for i, line in enumerate(lines):
        tiny_images.write_png(root / line.rsplit(" ", 1)[0], i)
    for stem, text in ({"DiFFtest": lines} | lists).items():
        (root / f"{stem}.txt").write_text("\r\n".join([*text, ""]))
    return root


def test_diff_by_hand(tmp_path):
    lines = ["DiFF_real/1 a.png 0", "DiFF_real/2.jpg 0", "DCFace/x/1.png 1", "DiffFace/1.png 1", "new/1.png 1"]
    root = _write(tmp_path / "DiFF", "DiFF", lines)
    entries, problems = diff.find(tmp_path, "list", Options())
    assert problems == [] and {e.split for e in entries} == {"test"}
    assert [(e.fields["video_id"], e.fields["method"]) for e in entries] == [
        ("DiFF_real/1 a.png", "real"),
        ("DiFF_real/2.jpg", "real"),
        ("new/1.png", "unknown"),
        ("DCFace/x/1.png", "dcface"),
        ("DiffFace/1.png", "diffface"),
    ]
    assert entries[3].unit == "DiFF/DCFace/x" and entries[3].images == ((0, "DCFace/x/1.png"),)
    tiny_images.prepare_crops(tmp_path, tmp_path / "prepared", "diff", "list")
    build.build("diff", "list", tmp_path / "prepared", tmp_path / "built")
    test = open_source("diff/list", "test", tmp_path / "built")
    assert test.videos["label"].tolist() == ["real", "real", "fake", "fake", "fake"]
    assert [test[i]["image"][0, 0, 0] for i in (0, 2, 3)] == [0, 4, 2]
    assert root.is_dir()


def test_diffusionface_lists_of_other_disks_and_methods(tmp_path):
    root = tmp_path / "DiffusionFace"
    tiny_images.write_pngs(root, ["Real/1.png", "DiffSwap/1.png", "inpaint/a b.png"])
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text(
        "D:\\sets\\DiffusionFace\\Real\\1.png 0\n/x/DiffusionFace/DiffSwap/1.png 1\n"
    )
    (tmp_path / "lists" / "mine.txt").write_text("inpaint/a b.png 1 LDM-inpaint\n")
    entries, problems = diffusionface.find(root, "list", Options(lists=str(tmp_path / "lists")))
    assert [(e.split, e.fields["method"], e.fields["dataset"]) for e in entries] == [
        ("train", "real", "diffusionface"),
        ("train", "diffswap", "diffusionface"),
        ("test", "unknown", "diffusionface"),
    ]
    assert [p.code for p in problems] == ["unknown_method"] and "LDM-inpaint" in problems[0].detail


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("DiFF_real/1.png 1", "label_conflict"),
        ("DCFace/1.png 0", "label_conflict"),
        ("DCFace/1.png 1 real", "label_conflict"),
        ("DCFace/1.png 2", "expected"),
        ("DCFace/1.png", "expected"),
        ("DCFace/1.txt 1", "expected"),
        ("../1.png 1", "leads out"),
        ("DCFace/1.png 1\nDCFace/1.png 1", "twice"),
        ("gone/1.png 1", "missing_listed_file"),
        ("", "found no video"),
    ],
)
def test_bad_lists(tmp_path, line, message):
    root = tiny_images.write_pngs(tmp_path / "DiFF", ["DiFF_real/1.png", "DCFace/1.png"])
    (root / "list.txt").write_text(line)
    with pytest.raises(DownloadError, match=message):
        diff.find(root, "list", Options())


def test_no_list_says_what_one_is(tmp_path):
    (tmp_path / "DiFF").mkdir()
    with pytest.raises(DownloadError, match=r"no list \*.txt.*missing_list"):
        diff.find(tmp_path, "list", Options())


@SETTINGS
@hypothesis.given(
    st.text("ab/ 01._-", max_size=20), st.sampled_from([0, 1]), st.sampled_from(["", "DiffSwap", "sd-2.1", "x1"])
)
def test_any_listed_path_is_read_back(middle, label, method):
    hypothesis.assume(not {"..", ".", ""} & set(f"x{middle}x".split("/")))
    path = f"x{middle}x.png"
    line = f"{path} {label} {method}"
    assert diffusionface.parse_line(line, "here", "DiffusionFace") == (path, label, method)
