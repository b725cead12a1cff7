import json
import re

import pytest
import tiny_downloads
from hypothesis import given
from hypothesis import strategies as st
from tiny_downloads import codes, names, write_text, write_videos

from data_prep.catalog import DownloadError, Options
from data_prep.dfdc import downloads as dfdc
from data_prep.dfdcp import downloads as dfdcp

PART = "train/dfdc_train_part_{}"
REAL, FAKE = {"label": "REAL", "split": "train"}, {"label": "FAKE", "split": "train", "original": "aaaaaaaaaa.mp4"}
LABELS = "filename,label\r\nzzzzzzzzza.mp4,0\r\nzzzzzzzzzb.mp4,1\r\n"


def write_part(root, number, metadata, without=()):
    write_videos(root, *(f"{PART.format(number)}/{name}" for name in metadata if name not in without))
    write_text(root, f"{PART.format(number)}/metadata.json", json.dumps(metadata))


def write_labelled(root, folder, text=LABELS):
    write_videos(root, *(f"{folder}{name}" for name in re.findall(r"\w+\.mp4", text)))
    write_text(root, f"{folder}labels.csv", text)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "DFDC"
    write_part(root, 10, {"bbbbbbbbbb.mp4": REAL, "bbbbbbbbbc.mp4": FAKE | {"original": "bbbbbbbbbb.mp4"}})
    write_part(root, 2, {"aaaaaaaaab.mp4": FAKE, "aaaaaaaaaa.mp4": REAL, "aaaaaaaaac.mp4": FAKE})
    write_labelled(root, "test/")
    return root


def find(root, config="full", **options):
    return dfdc.find(root, config, Options(**options))


def test_originals_are_partners(root, tmp_path):
    found = find(root)
    assert names(found[0]) == [
        "train real aaaaaaaaaa", "train real bbbbbbbbbb",
        "train fake aaaaaaaaab", "train fake aaaaaaaaac", "train fake bbbbbbbbbc",
        "test real zzzzzzzzza", "test fake zzzzzzzzzb",
    ]  # fmt: skip
    fields = [entry.fields for entry in found[0]]
    assert [f["pair_id"] for f in fields] == ["", "", "aaaaaaaaaa", "aaaaaaaaaa", "bbbbbbbbbb", "", ""]
    assert [f["group_id"] for f in fields][1:3] == ["bbbbbbbbbb", "aaaaaaaaaa"]
    assert {f["source_identity"] + f["target_identity"] for f in fields} == {""}
    assert found[0][2].unit == "DFDC/train/dfdc_train_part_2"
    assert codes(found[1]) == []
    assert tiny_downloads.counts(found[1])["train fake"] == "3 found, 100000 published"
    assert tiny_downloads.counts(found[1])["validation real"] == "0 found, 2000 published"
    opened = tiny_downloads.build_and_open(found, tmp_path, "dfdc", "full")
    assert tiny_downloads.rows(opened["train"], "label", "method", "pair_id")[1:3] == [
        ("real", "real", ""), ("fake", "dfdc", "aaaaaaaaaa"),
    ]  # fmt: skip
    assert tiny_downloads.rows(opened["test"], "video_id", "label") == [("zzzzzzzzza", "real"), ("zzzzzzzzzb", "fake")]


def test_three_layouts(root, tmp_path):
    write_labelled(root, "validation/", LABELS.replace("zz", "yy"))
    official = find(root)
    assert names(official[0], "validation") == ["real yyyyyyyyza", "fake yyyyyyyyzb"]
    assert codes(official[1]) == []
    # One folder of videos beside its list is the test set.
    flat = tmp_path / "flat"
    write_videos(flat, "videos/zzzzzzzzza.mp4", "videos/zzzzzzzzzb.mp4")
    write_text(flat, "labels.csv", LABELS)
    for config in ("full", "test_only"):
        entries, problems = find(flat, config)
        assert names(entries) == ["test real zzzzzzzzza", "test fake zzzzzzzzzb"]
        assert codes(problems) == [("layout_alias", "videos")] and entries[0].unit == "DFDC/test"
    only, problems = find(root.parent, "test_only")
    assert [e.fields for e in only] == [e.fields for e in entries] and codes(problems) == []
    assert set(tiny_downloads.counts(problems)) == {"test real", "test fake"}
    write_videos(root, "videos/zzzzzzzzza.mp4")
    assert codes(find(root)[1]) == [("layout_alias", "videos")]  # says that it is left out


def test_part_without_metadata_is_named(root):
    (root / PART.format(10) / "metadata.json").unlink()
    with pytest.raises(DownloadError, match=r"dfdc_train_part_10.metadata.json: without .*\[missing_metadata\]"):
        find(root)
    assert len(find(root, "test_only")[0]) == 2
    (root / "test/labels.csv").unlink()
    with pytest.raises(DownloadError, match=r"no list .*test.labels.csv.*\[missing_list\]"):
        find(root, "test_only")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (FAKE | {"label": "fake"}, "label 'fake', expected REAL or FAKE"),
        (REAL | {"original": "aaaaaaaaaa.mp4"}, "REAL, and yet made from aaaaaaaaaa.mp4"),
        (FAKE | {"original": "aaaaaaaaab.mp4"}, "its original aaaaaaaaab.mp4 is no REAL"),
        (FAKE | {"original": ["a"]}, "expected a file name"),
        ("FAKE", "an object for each video"),
    ],
)
def test_metadata_that_contradicts_itself(root, value, message):
    write_part(root, 3, {"cccccccccc.mp4": value})
    with pytest.raises(DownloadError, match=message):
        find(root)


def test_missing_unlisted_and_odd_files(root):
    write_part(
        root, 4, {"dddddddddd.mp4": FAKE, "ddd.mp4": FAKE, "eeeeeeeeee.mp4": {"label": "FAKE"}}, ["dddddddddd.mp4"]
    )
    write_videos(root, PART.format(4) + "/ffffffffff.mp4", "test/ffffffffff.mp4")
    with pytest.raises(DownloadError, match=r"1 files .*dfdc_train_part_4/dddddddddd.mp4"):
        find(root)
    assert len(find(root, splits=("test",))[0]) == 2
    entries, problems = find(root, allow_missing=True)
    assert len(entries) == 8
    assert sorted(codes(problems)) == [
        ("missing_listed_file", "train/dfdc_train_part_4/dddddddddd.mp4"),
        ("name_unparsed", "train/dfdc_train_part_4/ddd.mp4"),
        ("original_missing", "train/dfdc_train_part_4/eeeeeeeeee.mp4"),
        ("unlisted_file", "test/ffffffffff.mp4"),
        ("unlisted_file", "train/dfdc_train_part_4/ffffffffff.mp4"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has no row"),
        ("name,label\nzzzzzzzzza.mp4,0\n", "the columns filename,label; row 1 lacks one"),
        ("filename,label\nzzzzzzzzza.mp4,REAL\n", "expected <name>.mp4 and 0 or 1"),
        ("filename,label\nzzzzzzzzza.mp4,0\nzzzzzzzzza.mp4,1\n", "is both 0 and 1"),
    ],
)
def test_bad_labels(root, text, message):
    write_text(root, "test/labels.csv", text)
    with pytest.raises(DownloadError, match=message):
        find(root)


def test_one_video_in_two_parts(root):
    write_part(root, 5, {"aaaaaaaaaa.mp4": REAL})
    with pytest.raises(DownloadError, match="duplicate_key"):
        find(root)


# DFDC Preview.

PREVIEW = {
    "original_videos/643049/643049_A_001.mp4": {
        "label": "real", "set": "train", "target_id": 643049, "swapped_id": None,
    },
    "method_A/643049/643049_A/1224068_643049_A_001.mp4": {
        "label": "fake", "set": "train", "target_id": 643049, "swapped_id": 1224068, "augmentations": ["fps"],
    },
    "method_B/643049/643049_B/77_643049_B_002.mp4": {"label": "fake", "set": "test", "augmentations": []},
}  # fmt: skip


def write_preview(root, listed=PREVIEW, nest=True):
    # One copy has videos/ between, and dataset.json does not know of it.
    write_videos(root, *(re.sub("/", "/videos/", name, count=1) if nest else name for name in listed))
    write_text(root, "dataset.json", json.dumps(listed))
    return root


def find_preview(root, **options):
    return dfdcp.find(root, "default", Options(**options))


def test_preview(tmp_path):
    root = write_preview(tmp_path / "DFDCP")
    found = find_preview(root)
    assert names(found[0]) == [
        "train real 643049_A_001", "train fake dfdcp_a/1224068_643049_A_001", "test fake dfdcp_b/77_643049_B_002",
    ]  # fmt: skip
    assert found[0][1].fields == {
        "label": "fake", "method": "dfdcp_a", "dataset": "dfdcp", "video_id": "dfdcp_a/1224068_643049_A_001",
        "pair_id": "643049_A_001", "group_id": "643049_A_001", "source_identity": "dfdcp:1224068",
        "target_identity": "dfdcp:643049", "compression": "none", "perturbation": "fps",
    }  # fmt: skip
    # What dataset.json does not say is in the name.
    last = found[0][2].fields
    assert (last["source_identity"], last["pair_id"], last["perturbation"]) == ("dfdcp:77", "643049_B_002", "")
    assert found[0][0].path == "original_videos/videos/643049/643049_A_001.mp4"
    assert (found[0][1].unit, codes(found[1])) == ("DFDCP/method_A", [])
    assert tiny_downloads.counts(found[1])["train fake"] == "1 found, 3618 published"
    flat = find_preview(write_preview(tmp_path / "other/dfdc_preview_set", nest=False).parent)
    assert [e.fields for e in flat[0]] == [e.fields for e in found[0]]
    opened = tiny_downloads.build_and_open(found, tmp_path, "dfdcp", "default")
    assert tiny_downloads.rows(opened["train"], "method", "target_identity") == [
        ("real", "dfdcp:643049"), ("dfdcp_a", "dfdcp:643049"),
    ]  # fmt: skip
    record = opened["test"][0]
    assert (record["label"], record["pair_id"]) == (1, "643049_B_002")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (1, {"label": "real"}, r"label 'real' in the folder of dfdcp_a \[label_conflict\]"),
        (1, {"target_id": 1}, r"target_id 1, its name says 643049 \[label_conflict\]"),
        (1, {"swapped_id": "5"}, r"swapped_id 5, its name says 1224068 \[label_conflict\]"),
        (0, {"swapped_id": 3}, "a real with swapped_id 3"),
        (0, {"set": "val"}, r"set 'val', expected train or test \[unknown_split\]"),
    ],
)
def test_preview_contradictions(tmp_path, name, change, message):
    key = list(PREVIEW)[name]
    with pytest.raises(DownloadError, match=message):
        find_preview(write_preview(tmp_path, PREVIEW | {key: PREVIEW[key] | change}))


def test_preview_files(tmp_path):
    root = write_preview(tmp_path)
    write_videos(root, "method_A/1_2_A_003.mp4")
    assert codes(find_preview(root)[1]) == [("unlisted_file", "method_A/1_2_A_003.mp4")]
    (root / "method_A/1_2_A_003.mp4").rename(root / "method_B/643049_A_001.mp4")
    with pytest.raises(DownloadError, match=r"have one name.*duplicate_key"):
        find_preview(root)
    (root / "original_videos/videos/643049/643049_A_001.mp4").unlink()
    with pytest.raises(DownloadError, match=r"lies in method_B \[label_conflict\]"):
        find_preview(root)
    (root / "method_B/643049_A_001.mp4").unlink()
    with pytest.raises(DownloadError, match="1 files that are not in"):
        find_preview(root)
    assert len(find_preview(root, allow_missing=True)[0]) == 2
    (root / "method_B/videos/643049/643049_B/77_643049_B_002.mp4").unlink()
    with pytest.raises(DownloadError, match="2 files that are not in"):
        find_preview(root)
    with pytest.raises(DownloadError, match=r"1 files that are not in .*original_videos"):
        find_preview(root, methods=("dfdcp_a",))
    (root / "dataset.json").write_text("{")
    with pytest.raises(DownloadError, match="is not JSON"):
        find_preview(root)
    (root / "dataset.json").unlink()
    with pytest.raises(DownloadError, match="missing_metadata"):
        find_preview(root)


def test_preview_name_that_says_nothing(tmp_path):
    listed = {"method_A/a.mp4": PREVIEW["method_A/643049/643049_A/1224068_643049_A_001.mp4"]}
    entries, problems = find_preview(write_preview(tmp_path, listed))
    assert entries[0].fields["target_identity"] == "dfdcp:643049" and entries[0].fields["pair_id"] == ""
    listed |= {"method_A/b.mp4": {"label": "fake", "set": "train"}}
    entries, problems = find_preview(write_preview(tmp_path, listed))
    assert len(entries) == 1 and codes(problems) == [("name_unparsed", "method_A/videos/b.mp4")]


identities = st.integers(0, 10**7).map(str)


@given(identities, identities, st.sampled_from("ABCDE"), st.integers(0, 999))
def test_preview_names_round_trip(source, target, suffix, counter):
    clip = f"{suffix}_{counter:03d}"
    fields = dfdcp.video_fields(f"{source}_{target}_{clip}", "dfdcp_b", {}, "")
    assert (fields["source_identity"], fields["target_identity"]) == (f"dfdcp:{source}", f"dfdcp:{target}")
    real = dfdcp.video_fields(fields["pair_id"], "real", {"target_id": int(target)}, "")
    assert (real["video_id"], real["source_identity"]) == (f"{target}_{clip}", f"dfdcp:{target}")


@given(st.text("01_A.", max_size=12))
def test_preview_rejects_other_names(stem):
    assert (dfdcp.video_fields(stem, "real", {}, "") is not None) == bool(re.fullmatch(r"\d+_[A-Z0-9]+_\d+", stem))
