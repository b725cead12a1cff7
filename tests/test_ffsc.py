"""FFSC by hand. Traps: YouTube ids that start with and hold underscores; digit 2 is unknown; blanks in listed paths."""

import hypothesis
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_images
from hypothesis import strategies as st

from data_prep import attributes, build
from data_prep.catalog import DownloadError, Options
from data_prep.ffsc import downloads
from msddf_jax.data import schema
from msddf_jax.data.source import open_source

SETTINGS = hypothesis.settings(deadline=None, max_examples=150)
A, B, C = "_-926WzaH2A_215", "abc_DEF-12__7", "ZZZZZZZZZZZ_0"
IMAGES = (
    "Train/Real/CDF-youtube/00012/0078.png",
    "Train/Real/CDF-youtube/00012/0079.png",
    f"Train/Real/AVSpeech/{A}/0003.png",
    f"Train/BlendFace/{A}_by_{B}.png",
    f"Train/diffae-age/{A}/0003.png",
    f"Train/diffae-gender/Male/{A}_0003_Male_2.0.png",
    f"Train/fomm-expr/{A}_0003_surprised.png",
    f"Train/fomm-expr/{A}_0011_surprised.png",
    "Train/fomm-pose/00012_0078_pose_fr100.png",
    f"Train/simswap/{A}_4_{B}/0003.png",
    f"Train/StyleRes-expr/{A}/0003.png",
    f"Train/TPS-pose/pose/{A}_0003_pose_fr100.png",
    f"Val/Real/AVSpeech/{B}/0001.png",
    f"Val/fsgan/{B}/0001.png",
    f"Test/Real/AVSpeech/{C}/0001.png",
    f"Test/Protocol-1/FNeVR/{C}/0001.png",
    f"Test/Protocol-1/HFGI-smile/{C}/0001.png",
    f"Test/Protocol-1/InfoSwap/{C}_1_{A}/0001.png",
    f"Test/Protocol-2/fsgan/{C}/0001.png",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tiny_images.write_pngs(tmp_path_factory.mktemp("ffsc") / "FFSC", IMAGES)


def _find(root, config="default", **options):
    return downloads.find(root, config, Options(**options))


def _by_id(entries):
    return {entry.fields["video_id"]: entry for entry in entries}


def test_counts_splits_and_order(root):
    entries, problems = _find(root.parent)
    assert problems == []
    assert tiny_images.split_counts(entries) == {
        ("train", "real"): 2,
        ("train", "fake"): 8,
        ("validation", "real"): 1,
        ("validation", "fake"): 1,
        ("test", "real"): 1,
        ("test", "fake"): 4,
    }
    assert [e.split for e in entries] == ["train"] * 10 + ["validation"] * 2 + ["test"] * 5
    assert sum(len(e.images) for e in entries) == len(IMAGES)
    assert entries[0].fields["label"] == "real"


def test_clips_are_read_from_the_right(root):
    found = _by_id(_find(root)[0])
    surprised = found[f"Train/fomm-expr/{A}_surprised"]
    assert [n for n, _ in surprised.images] == [3, 11]
    assert surprised.fields["target_identity"] == surprised.fields["group_id"] == "av:_-926WzaH2A"
    assert surprised.fields["pair_id"] == f"Train/Real/AVSpeech/{A}"
    swap = found[f"Train/simswap/{A}_4_{B}"].fields
    assert (swap["target_identity"], swap["source_identity"]) == ("av:_-926WzaH2A", "av:abc_DEF-12_")
    by = found[f"Train/BlendFace/{A}_by_{B}"].fields
    assert (by["target_identity"], by["source_identity"]) == ("av:_-926WzaH2A", "av:abc_DEF-12_")


def test_celeb_df_reals_are_seen_to_be_celeb_df(root):
    found = _by_id(_find(root)[0])
    assert found["Train/Real/CDF-youtube/00012"].fields["group_id"] == "cdf:yt:00012"
    assert found["Train/fomm-pose/00012_pose_fr100"].fields["target_identity"] == "cdf:yt:00012"


def test_attributes_by_folder(root):
    found = _by_id(_find(root)[0])
    attribute = lambda name: dict(zip(schema.ATTRIBUTES, found[name].fields["attributes"]))
    gender = attribute(f"Train/diffae-gender/Male/{A}_Male_2.0")
    assert gender["fake"] == 1 and gender["age"] is None and gender["gender"] == 1 and gender["lip"] == 1
    assert (gender["eyebrow"], gender["nose"]) == (1, 0)
    assert found["Train/Real/CDF-youtube/00012"].fields["attributes"] == [0] * 13
    smile, surprise = attribute(f"Test/Protocol-1/HFGI-smile/{C}"), attribute(f"Train/fomm-expr/{A}_surprised")
    assert (smile["eye"], smile["lip"], surprise["eye"], surprise["skin"]) == (0, 1, 1, 1)


def test_seven_codes_of_twelve_digits():
    assert len(set(downloads.CODES.values())) == 7 and {len(c) for c in downloads.CODES.values()} == {12}
    assert {downloads.folder_code(f) for f in downloads.ATTRIBUTE_OF} == set(downloads.CODES.values()) - {"0" * 12}
    assert attributes.of_code("120000000000") == [1, None, *[0] * 10, None]  # FFSC says nothing of "physical"


def test_protocols(root):
    count = lambda config: tiny_images.split_counts(_find(root, config)[0])
    assert count("protocol1")["test", "fake"] == 3 and count("protocol1")["train", "fake"] == 8
    pose = _find(root, "protocol2_pose")[0]
    assert {e.fields["method"] for e in pose if e.split == "test"} == {"real", "fnevr"}
    assert not {"fomm_pose", "tps_pose"} & {e.fields["method"] for e in pose if e.split == "train"}
    identity = _find(root, "protocol2_identity")[0]
    assert {e.fields["method"] for e in identity if e.split == "test"} == {"real", "infoswap", "fsgan"}
    assert ("validation", "fake") not in tiny_images.split_counts(identity)
    with pytest.raises(DownloadError, match="protocol2_pose"):
        _find(root, "protocol2_poes")


def test_lists_with_flags_blanks_and_other_disks(tmp_path):
    root = tiny_images.write_pngs(
        tmp_path / "FFSC",
        [f"Train/fsgan/my clip/{n}.png" for n in (1, 2)] + ["Train/Real/x/1.png", "Train/Real/x/2.png"],
    )
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text(
        "D:\\FFSC\\Train\\fsgan\\my clip\\1.png 1 120010111111\r\n\r\n"
        "/data/FFSC/Train/Real/x/1.png 000000000000\n"
        "Train/fsgan/my clip/3.png 120010111111\n"
    )
    with pytest.raises(DownloadError, match="missing_listed_file"):
        _find(root, lists=str(tmp_path / "lists"))
    entries, problems = _find(root, lists=str(tmp_path / "lists"), allow_missing=True)
    assert [(e.fields["method"], len(e.images)) for e in entries] == [("real", 1), ("fsgan", 1)]
    assert (
        sorted(p.code for p in problems) == ["identity_unknown"] * 2 + ["missing_listed_file"] + ["unlisted_file"] * 2
    )
    assert entries[1].fields["attributes"][:4] == [1, None, 0, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Train/fsgan/c/1.png 000000000000", "label_conflict"),
        ("Train/fsgan/c/1.png 0101011111", "12 digits"),
        ("Train/fsgan/c/1.png 320010111111", "12 digits"),
        ("Train/fsgan/c/1.png", "12 digits"),
        ("fsgan/1.png 120010111111", r"Train\|Val\|Test"),
        ("Train/../Train/fsgan/c/1.png 120010111111", r"Train\|Val\|Test"),
        ("Train/fsgan/c/1.png 120010111111\nTrain/fsgan/c/1.png 100001111111", "label_conflict"),
    ],
)
def test_bad_lists(tmp_path, line, message):
    root = tiny_images.write_pngs(tmp_path / "FFSC", ["Train/fsgan/c/1.png"])
    (root / "list.txt").write_text(line)
    with pytest.raises(DownloadError, match=message):
        _find(root)


def test_codes_of_a_list_win_and_the_difference_is_told(tmp_path):
    root = tiny_images.write_pngs(tmp_path / "FFSC", [f"Train/fsgan/{A}/1.png"])
    (root / "list.txt").write_text(f"Train/fsgan/{A}/1.png 100001111111")
    entries, problems = _find(root)
    assert entries[0].fields["attributes"][5] == 1 and [p.code for p in problems] == ["attribute_conflict"]


def test_unknown_folders_are_counted(tmp_path):
    root = tiny_images.write_pngs(tmp_path / "FFSC", [f"Train/fsgan/{A}/1.png", f"Train/simswop/{A}/1.png"])
    entries, problems = _find(root)
    assert len(entries) == 1 and problems[0].code == "unknown_method" and "simswap" in problems[0].detail


CHARS = "abcXYZ019_-"
CLIPS = st.builds(lambda i, n: f"{i}_{n}", st.text(CHARS, min_size=11, max_size=11), st.integers(0, 999))


@SETTINGS
@hypothesis.given(CLIPS, CLIPS, st.integers(0, 99), st.integers(0, 9999))
def test_any_youtube_id_is_found_again(a, b, k, frame):
    group = lambda clip: f"av:{clip[:11]}"
    place = downloads.locate(f"Train/simswap/{a}_{k}_{b}/{frame:04d}.png")
    assert [downloads.clip_group(clip) for clip in place["clips"]] == [group(a), group(b)]
    place = downloads.locate(f"Train/fomm-expr/{a}_{frame:04d}_surprised.png")
    assert (place["clips"], place["frame"], place["stem"]) == ((a,), frame, f"{a}_surprised")


@SETTINGS
@hypothesis.given(
    st.text("ab/ 01._-", max_size=20), st.sampled_from(["", " 0", " 1"]), st.text("012", min_size=11, max_size=11)
)
def test_any_listed_path_is_read_back(middle, flag, digits):
    hypothesis.assume(not {"..", ".", ""} & set(f"x{middle}x".split("/")) and middle == middle.strip())
    line = f"Train/x{middle}x/1.png{flag} 1{digits}"
    assert downloads.parse_line(line, "here") == (f"Train/x{middle}x/1.png", f"1{digits}")


def test_built(root, tmp_path):
    tiny_images.prepare_crops(root, tmp_path / "prepared", "ffsc", "default")
    folder = build.build("ffsc", "default", tmp_path / "prepared", tmp_path / "built")
    stored = {
        r["video_id"].decode(): r["attributes"] for r in tfds.builder_from_directory(folder).as_data_source("train")
    }
    np.testing.assert_array_equal(stored["Train/Real/CDF-youtube/00012"], [0] * 13)
    surprise = [1, 0, 1, 0, 0, 0, 1, 0, 1, 1, 1, 1, np.nan]
    np.testing.assert_array_equal(stored[f"Train/fomm-expr/{A}_surprised"], surprise)
    train = open_source("ffsc/default", "train", tmp_path / "built")
    assert len(train) == 12 and len(open_source("ffsc/default", "test", tmp_path / "built")) == 5
    names = train.videos["video_id"].tolist()
    index = int(train.first[names.index(f"Train/fomm-expr/{A}_surprised")])
    assert train.frame_index[index : index + 2].tolist() == [3, 11]
    assert train[index]["image"][0, 0, 0] == 6 and train[index]["label"] == 1
    assert not np.isnan(train[0]["landmarks"]).any() and not train[0]["has_landmarks"]
