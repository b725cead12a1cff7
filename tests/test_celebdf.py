import re

import pytest
import tiny_downloads
from hypothesis import given
from hypothesis import strategies as st
from tiny_downloads import codes, names, write_text, write_videos

from data_prep.catalog import DownloadError, Options
from data_prep.celebdf import downloads
from data_prep.celebdf.celebdf_dataset_builder import Builder
from msddf_jax.data import methods

REALS = ["Celeb-real/id0_0000.mp4", "Celeb-real/id1_0000.mp4", "YouTube-real/00000.mp4", "YouTube-real/00001.mp4"]
FAKES = ["Celeb-synthesis/id0_id1_0000.mp4", "Celeb-synthesis/id1_id0_0000.mp4"]
# 1 is real in this list; ends of lines, blank lines and trailing blanks as they come.
LIST = "1 Celeb-real/id1_0000.mp4\r\n\r\n1 YouTube-real/00001.mp4  \r\n0 Celeb-synthesis/id1_id0_0000.mp4\n\n"


@pytest.fixture
def v2(tmp_path):
    root = write_videos(tmp_path / "Celeb-DF-v2", *REALS, *FAKES)
    write_text(root, downloads.TEST_LIST, LIST)
    return root


def find(root, config="v2", **options):
    return downloads.find(root, config, Options(**options))


def test_splits_labels_and_order(v2):
    entries, problems = find(v2)
    assert names(entries) == [
        "train real 00000", "train real id0_0000", "train fake celebdf/id0_id1_0000",
        "test real 00001", "test real id1_0000", "test fake celebdf/id1_id0_0000",
    ]  # fmt: skip
    # Both folders of reals are in train, and no video of test is.
    assert codes(problems) == []
    assert tiny_downloads.counts(problems) == {
        "Celeb-real": "2 found, 590 published",
        "YouTube-real": "2 found, 300 published",
        "Celeb-synthesis": "2 found, 5639 published",
        "test real": "2 found, 178 published",
        "test fake": "1 found, 340 published",
    }
    assert find(v2.parent) == (entries, problems)


def test_identities_and_partner(v2):
    fields = {e.fields["video_id"]: e.fields for e in find(v2)[0]}
    fake = fields["celebdf/id0_id1_0000"]
    # id0's video with the face of id1.
    assert (fake["target_identity"], fake["source_identity"]) == ("cdf:id0", "cdf:id1")
    assert (fake["pair_id"], fake["group_id"], fake["method"]) == ("id0_0000", "id0_0000", "celebdf")
    assert fields["00000"]["target_identity"] == fields["00000"]["source_identity"] == "cdf:yt:00000"
    assert fields["id0_0000"]["source_identity"] == "cdf:id0"


def test_built_and_read(v2, tmp_path):
    opened = tiny_downloads.build_and_open(find(v2), tmp_path, "celebdf", "v2")
    columns = ("video_id", "label", "method", "pair_id", "source_identity")
    assert tiny_downloads.rows(opened["train"], *columns) == [
        ("00000", "real", "real", "", "cdf:yt:00000"),
        ("id0_0000", "real", "real", "", "cdf:id0"),
        ("celebdf/id0_id1_0000", "fake", "celebdf", "id0_0000", "cdf:id1"),
    ]
    assert opened["train"].count.tolist() == [2, 2, 2]
    record = opened["test"][5]
    assert (record["label"], record["dataset"], record["video_id"]) == (1, "celebdf", "celebdf/id1_id0_0000")
    assert not record["has_mask"]


def test_videos_level_and_spelling(tmp_path):
    moved = [re.sub("/(?=[^/]*$)", "/videos/", name).replace("YouTube", "Youtube") for name in REALS + FAKES]
    root = write_videos(tmp_path / "v2", *moved)
    write_text(root, downloads.TEST_LIST, LIST)
    entries, problems = find(root)
    assert len(entries) == 6 and codes(problems) == [("folder_alias", "Youtube-real")]
    assert entries[0].path == "Youtube-real/videos/00000.mp4" and entries[0].unit == "Celeb-DF-v2/YouTube-real"
    write_videos(root, FAKES[0])
    with pytest.raises(DownloadError, match=r"Celeb-synthesis holds 1 videos, and 2 more in videos/.*duplicate_key"):
        find(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 Celeb-real/id1_0000.mp4", r"line 1, '0 Celeb-real/id1_0000.mp4': 1 is real.*\[label_conflict\]"),
        ("\n1 Celeb-synthesis/id1_id0_0000.mp4", r"line 2.*\[label_conflict\]"),
        ("1 Celeb-real/id1_0000", r"expected '1 Celeb-real/id0_0000.mp4'"),
        ("1 Real/id1_0000.mp4", "no folder of Celeb-DF v2"),
        ("1 Celeb-real/id1_0000.mp4\n" * 2, r"line 2.*listed twice"),
        ("1 Celeb-real/id9_0000.mp4", r"1 files that are not in .*Celeb-real/id9_0000.mp4.*missing_listed_file"),
        ("\udcff", "not text"),
    ],
)
def test_bad_list(v2, text, message):
    (v2 / downloads.TEST_LIST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DownloadError, match=message):
        find(v2)


def test_what_is_missing_or_odd(v2):
    write_videos(v2, "Celeb-real/id0_1.mp4")
    (v2 / REALS[3]).unlink()
    entries, problems = find(v2, allow_missing=True)
    assert len(entries) == 5
    assert codes(problems) == [
        ("name_unparsed", "Celeb-real/id0_1.mp4"),
        ("missing_listed_file", "YouTube-real/00001.mp4"),
    ]
    assert names(find(v2, splits=("train",))[0])[0] == "train real 00000"
    with pytest.raises(DownloadError, match="no split 'validation' here"):
        find(v2, splits=("validation",), allow_missing=True)
    with pytest.raises(DownloadError, match="pass --config v2"):
        find(v2, "v1")
    with pytest.raises(DownloadError, match="did you mean v2"):
        find(v2, "2v")
    (v2 / downloads.TEST_LIST).unlink()
    with pytest.raises(DownloadError, match="missing_list"):
        find(v2)
    with pytest.raises(DownloadError, match="missing_root"):
        find(v2 / "Celeb-real")


def test_derived_validation_shares_no_person(tmp_path):
    stems = [f"id{a}_id{b}_{k:04d}" for a, b in ((0, 1), (1, 2), (7, 8), (8, 7)) for k in range(2)]
    reals = [f"Celeb-real/id{i}_{k:04d}.mp4" for i in (0, 1, 2, 7, 8) for k in range(2)]
    reals += [f"YouTube-real/{i:05d}.mp4" for i in range(40)]
    root = write_videos(tmp_path / "Celeb-DF-v2", *reals, *(f"Celeb-synthesis/{s}.mp4" for s in stems))
    write_text(root, downloads.TEST_LIST, "0 Celeb-synthesis/id0_id1_0001.mp4\n1 YouTube-real/00039.mp4\n")
    entries, _ = find(root, "v2_derivedval")
    people = {split: set() for split in ("train", "validation", "test")}
    for entry in entries:
        people[entry.split] |= {entry.fields["source_identity"], entry.fields["target_identity"]}
    assert not people["train"] & people["validation"]
    linked = {split: {p for p in found if ":yt:" not in p} for split, found in people.items()}
    # {0, 1, 2} has 6 reals and 3 fakes outside the test list, {7, 8} 4 and 4.
    assert linked["train"] == {"cdf:id0", "cdf:id1", "cdf:id2"}
    assert linked["validation"] == {"cdf:id7", "cdf:id8"}
    assert 3 <= len(people["validation"]) - 2 <= 15  # of 39, by hash: 20 %
    assert names(entries, "test") == ["real 00039", "fake celebdf/id0_id1_0001"]
    assert names(find(root, "v2")[0], "test") == names(entries, "test")
    for path in (root / "Celeb-synthesis").glob("id[78]*.mp4"):
        path.unlink()
    with pytest.raises(DownloadError, match=r"1 groups, and train, validation need one each.*cannot_split"):
        find(root, "v2_derivedval")


@pytest.mark.parametrize("folder", ["Celeb-DF", "Celeb-DF-v2"])
def test_plus_plus(tmp_path, folder):
    fakes = [
        f"FaceSwap/{folder}/id0_id1_0000", "FaceSwap/GHOST/id0_id1_0000", "FaceReenact/LIA/id1_id0_0000",
        "TalkingFace/SadTalker/id0_0000_test_00012", "TalkingFace/IP_LAP/id1_0000_test_3",
    ]  # fmt: skip
    root = write_videos(tmp_path / "Celeb-DF++", *REALS, *(f"Celeb-synthesis/{name}.mp4" for name in fakes))
    listed = ["1 YouTube-real/00001.mp4", *(f"0 Celeb-synthesis/{fakes[i]}.mp4" for i in (0, 3))]
    write_text(root, downloads.TEST_LIST, "\n".join(listed))
    write_videos(root, "Celeb-synthesis/FaceSwap/Ghost2/id0_id1_0000.mp4", "Celeb-synthesis/id0_id1_0000.mp4")
    found = find(root.parent, "pp")
    assert names(found[0], "test") == [
        "real 00001", "fake celebdf/id0_id1_0000", "fake sadtalker/id0_0000_test_00012",
    ]  # fmt: skip
    assert names(found[0], "train")[3:] == [
        "fake ghost/id0_id1_0000", "fake lia/id1_id0_0000", "fake ip_lap/id1_0000_test_3",
    ]  # fmt: skip
    fields = {e.fields["method"]: e.fields for e in found[0]}
    assert fields["sadtalker"] | {"label": 0} == {
        "label": 0, "method": "sadtalker", "dataset": "celebdf", "video_id": "sadtalker/id0_0000_test_00012",
        "pair_id": "id0_0000", "group_id": "id0_0000", "source_identity": "", "target_identity": "cdf:id0",
        "compression": "none", "perturbation": "",
    }  # fmt: skip
    assert [methods.family(m) for m in ("celebdf", "lia", "ip_lap")] == [
        "face_swap", "reenactment", "talking_face",
    ]  # fmt: skip
    problems = codes(found[1], ("count_mismatch", "folder_alias"))
    assert problems == [
        ("name_unparsed", "Celeb-synthesis/id0_id1_0000.mp4"),
        ("unknown_method", "Celeb-synthesis/FaceSwap/Ghost2"),
    ]
    opened = tiny_downloads.build_and_open(found, tmp_path, "celebdf", "pp_faceswap_ghost", "pp")
    assert tiny_downloads.rows(opened["train"], "method")[-1] == ("ghost",) and len(opened["train"].count) == 4
    assert tiny_downloads.rows(opened["test"], "video_id") == [("00001",)]
    # Who asks for one method needs the listed videos of no other.
    (root / "Celeb-synthesis/TalkingFace/SadTalker/id0_0000_test_00012.mp4").unlink()
    assert len(find(root, "pp", methods=("ghost",))[0]) == 5
    with pytest.raises(DownloadError, match="1 files that are not in"):
        find(root, "pp")
    other = "Celeb-DF" if folder != "Celeb-DF" else "Celeb-DF-v2"
    write_videos(root, f"Celeb-synthesis/FaceSwap/{other}/id0_id1_0000.mp4")
    with pytest.raises(DownloadError, match="which are one folder"):
        find(root, "pp")


def test_list_of_plus_plus_names_family_and_method(tmp_path):
    write_text(tmp_path, "list", "0 Celeb-synthesis/FaceReenact/GHOST/id0_id1_0000.mp4")
    with pytest.raises(DownloadError, match="no folder of Celeb-DF pp"):
        downloads.read_test_list(tmp_path / "list", "pp")


def test_configs():
    there = set(Builder.builder_configs)
    names = [m for family in downloads.METHODS.values() for m in family.values()]
    assert len(names) == len(set(names)) == 22 and set(names) <= set(methods.METHODS)
    assert len(there) == 2 * (6 + 22)
    assert {"v1", "v2_clip16", "pp_talkingface_ip_lap", "pp_facereenact_mcnet_clip16", "v2_derivedval"} <= there


def test_clips(v2, tmp_path):
    tiny_downloads.prepare(find(v2)[0], tmp_path / "out", "celebdf", "v2", frames=range(17))
    folder = tiny_downloads.build.build("celebdf", "v2_clip16", tmp_path / "out", tmp_path / "built")
    info = tiny_downloads.build.make_builder("celebdf", "v2_clip16", tmp_path / "built").info
    assert {name: split.num_examples for name, split in info.splits.items()} == {"train": 3, "test": 3}
    assert (folder / "index-train.csv").is_file()


numbers = st.integers(0, 99)


@given(numbers, numbers, st.integers(0, 9999))
def test_names_round_trip(a, b, k):
    fields = downloads.name_fields(f"id{a}_id{b}_{k:04d}", "swap", "ghost")
    target, source = fields["target_identity"], fields["source_identity"]
    stem = f"{target.removeprefix('cdf:')}_{source.removeprefix('cdf:')}_{fields['pair_id'].split('_')[1]}"
    assert f"ghost/{stem}" == fields["video_id"] == f"ghost/id{a}_id{b}_{k:04d}"
    assert downloads.name_fields(fields["pair_id"], "Celeb-real", "real")["target_identity"] == target


@given(st.text("id0123_ ٣\n-", max_size=16))
def test_other_names_are_rejected(stem):
    for kind, pattern in (
        ("Celeb-real", r"id[0-9]+_[0-9]{4}"),
        ("YouTube-real", r"[0-9]{5}"),
        ("swap", r"id[0-9]+_id[0-9]+_[0-9]{4}"),
    ):
        method = "celebdf" if kind == "swap" else "real"
        assert (downloads.name_fields(stem, kind, method) is not None) == bool(re.fullmatch(pattern, stem))
