import re

import pytest
import tiny_downloads
from hypothesis import given
from hypothesis import strategies as st
from tiny_downloads import codes, names, write_text, write_videos

from data_prep.catalog import DownloadError, Options
from data_prep.deeperforensics import downloads
from data_prep.deeperforensics.deeperforensics_dataset_builder import Builder
from msddf_jax.data.groups import make_groups

FFPP = "FaceForensics++/original_sequences/youtube/c23/videos/{}.mp4"
SPLITS = {"train": ["000_M101", "003_W004"], "val": ["001_M102"], "test": ["002_W001"]}
FAKES = [stem for stems in SPLITS.values() for stem in stems]


@pytest.fixture
def root(tmp_path):
    """The folder that both data sets are in."""
    root = tmp_path / "data"
    base = root / "DeeperForensics-1.0"
    for variant in ("end_to_end", "end_to_end_level_3", "reenact_postprocess"):
        write_videos(base, *(f"manipulated_videos/{variant}/{stem}.mp4" for stem in FAKES))
    write_videos(root, *(FFPP.format(f"00{i}") for i in range(5)))
    for split, stems in SPLITS.items():
        write_text(base, f"lists/splits/{split}.txt", "".join(f"{stem}.mp4\r\n" for stem in stems) + "\n")
    for actor in ("M101", "M102", "W001", "W004", "M999"):
        write_videos(base, f"source_videos/{actor}/down/angry/camera_left/take.mp4")
    meta = "manipulated_videos/end_to_end_level_3/002_W001.mp4 CS:3 GNC:1\nwhatever\n"
    write_text(base, "lists/manipulated_videos_distortions_meta/meta.txt", meta)
    return root


def find(root, config="end_to_end", **options):
    return downloads.find(root, config, Options(**options))


def test_reals_are_faceforensics(root, tmp_path):
    found = find(root)
    assert names(found[0]) == [
        "train real 000", "train real 003",
        "train fake end_to_end/000_M101", "train fake end_to_end/003_W004",
        "validation real 001", "validation fake end_to_end/001_M102",
        "test real 002", "test fake end_to_end/002_W001",
    ]  # fmt: skip
    # Not 004, which no list has a fake of; and not one of the source videos.
    fake = found[0][2].fields
    assert (fake["target_identity"], fake["source_identity"], fake["pair_id"]) == ("ff:000", "df1:M101", "000")
    assert (fake["method"], fake["perturbation"], fake["compression"]) == ("deeperforensics", "", "c23")
    assert found[0][0].unit == "original_sequences/youtube/c23" and found[0][0].root.endswith("FaceForensics++")
    assert found[0][2].unit == "DeeperForensics-1.0/manipulated_videos/end_to_end"
    assert find(root / "DeeperForensics-1.0") == found  # the other folder is beside it
    opened = tiny_downloads.build_and_open(found, tmp_path, "deeperforensics", "end_to_end")
    assert list(opened) == ["test", "train", "validation"]
    assert tiny_downloads.rows(opened["test"], "video_id", "label", "pair_id", "compression") == [
        ("002", "real", "", "c23"), ("end_to_end/002_W001", "fake", "002", "c23"),
    ]  # fmt: skip
    # A fake can be paired with its real.
    assert len(make_groups(opened["train"])) == 4


def test_counts_are_those_of_the_lists(root):
    problems = find(root)[1]
    # 21 is what the owners' page says; 201 would make up the thousand.
    assert tiny_downloads.counts(problems) == {
        "lists/splits/train.txt": "2 found, 703 published",
        "lists/splits/val.txt": "1 found, 96 published",
        "lists/splits/test.txt": "1 found, 21 published",
        "end_to_end": "4 found, 1000 published",
    }
    assert codes(problems) == [("name_unparsed", "lists/manipulated_videos_distortions_meta/meta.txt line 2")]


def test_variants(root):
    level = {e.fields["video_id"]: e.fields for e in find(root, "end_to_end_level_3")[0]}
    assert level["end_to_end_level_3/002_W001"]["perturbation"] == "end_to_end_level_3 CS:3 GNC:1"
    assert level["end_to_end_level_3/000_M101"]["perturbation"] == "end_to_end_level_3"
    assert find(root, "reenact_postprocess")[0][2].fields["method"] == "reenact_postprocess"
    with pytest.raises(DownloadError, match=r"no folder .*end_to_end_level_2 \[missing_root\]"):
        find(root, "end_to_end_level_2")
    assert len(downloads.VARIANTS) == 11 and len(Builder.builder_configs) == 44
    assert {"end_to_end_mix_4_distortions_sourcereal_clip16", "end_to_end_random_level"} <= set(Builder.builder_configs)


def test_source_videos_as_reals(root):
    entries, problems = find(root, "end_to_end_sourcereal")
    video = "real source__{}__down__angry__camera_left__take"
    assert names(entries, "train")[:2] == [video.format("M101"), video.format("W004")]
    # An actor's own videos are where the fakes with the actor's face are.
    assert [names(entries, split)[0] for split in ("validation", "test")] == [
        video.format("M102"), video.format("W001"),
    ]  # fmt: skip
    assert entries[0].unit == "DeeperForensics-1.0/source_videos/M101/down/angry/camera_left"
    assert entries[0].fields["target_identity"] == "df1:M101" and entries[2].fields["pair_id"] == ""
    assert entries[0].fields["group_id"] == entries[2].fields["group_id"] == "M101"
    unlisted = "source_videos/M999/down/angry/camera_left/take.mp4"
    assert codes(problems)[-1] == ("unlisted_file", unlisted)


def test_reals_elsewhere_and_absent(root, tmp_path):
    (root / "FaceForensics++").rename(tmp_path / "ff")
    with pytest.raises(DownloadError, match=r"not source_videos; name that folder by --reals_root \[missing_root\]"):
        find(root)
    assert len(find(root, reals_root=str(tmp_path / "ff"))[0]) == 8
    (tmp_path / "ff/original_sequences/youtube/c23/videos/002.mp4").unlink()
    with pytest.raises(DownloadError, match=r"1 files .*youtube/c23/videos/002.mp4"):
        find(root, reals_root=str(tmp_path / "ff"))
    assert len(find(root, reals_root=str(tmp_path / "ff"), splits=("train",))[0]) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("002_W001.mp4\n000_M101.mp4", r"line 2: 000_M101 is listed twice \[duplicate_key\]"),
        ("000_W001.mp4", "the real 000 would be in train and in test"),
        ("2_W001.mp4", r"line 1, '2_W001.mp4': expected a name like 000_M101.mp4"),
        ("002_W001.mp4\n009_W009.mp4", r"2 files .*end_to_end/009_W009.mp4, original_sequences.*/009.mp4"),
        (None, "missing_list"),
    ],
)
def test_bad_lists(root, text, message):
    path = root / "DeeperForensics-1.0/lists/splits/test.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(DownloadError, match=message):
        find(root)


def test_files_in_no_list(root):
    folder = "DeeperForensics-1.0/manipulated_videos/end_to_end"
    write_videos(root, f"{folder}/004_W004.mp4", f"{folder}/004.mp4")
    entries, problems = find(root)
    assert len(entries) == 8
    assert sorted(codes(problems))[:1] == [
        ("name_unparsed", "lists/manipulated_videos_distortions_meta/meta.txt line 2")
    ]
    assert sorted(codes(problems))[1:] == [
        ("name_unparsed", "manipulated_videos/end_to_end/004.mp4"),
        ("unlisted_file", "manipulated_videos/end_to_end/004_W004.mp4"),
    ]


def test_an_actor_in_two_splits_has_no_place(root):
    write_text(root / "DeeperForensics-1.0", "lists/splits/test.txt", "002_M101.mp4\n")
    write_videos(root / "DeeperForensics-1.0", "manipulated_videos/end_to_end/002_M101.mp4")
    assert len(find(root)[0]) == 8
    with pytest.raises(DownloadError, match="actor M101 is in train and in test"):
        find(root, "end_to_end_sourcereal")


@given(st.integers(0, 999), st.sampled_from("MW"), st.integers(0, 999))
def test_names_round_trip(target, sex, number):
    stem = f"{target:03d}_{sex}{number:03d}"
    fields = downloads.fake_fields(stem, "end_to_end_level_1", "", True)
    people = [fields[name].split(":")[1] for name in ("target_identity", "source_identity")]
    assert "_".join(people) == stem and fields["pair_id"] == people[0]


@given(st.text("01MW_x", max_size=9))
def test_other_names_are_rejected(stem):
    assert bool(downloads._FAKE.fullmatch(stem)) == bool(re.fullmatch(r"[01]{3}_(M|W)[01]{3}", stem))
