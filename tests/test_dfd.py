import re

import pytest
import tiny_downloads
from hypothesis import given
from hypothesis import strategies as st
from tiny_downloads import codes, names, write_videos

from data_prep import listing
from data_prep.catalog import DownloadError, Options
from data_prep.dfd import downloads
from data_prep.dfd.dfd_dataset_builder import Builder

REAL, FAKE = "original_sequences/actors/{}/videos/{}.mp4", "manipulated_sequences/DeepFakeDetection/{}/videos/{}.mp4"
MASK = "manipulated_sequences/DeepFakeDetection/masks/videos/{}.mp4"
REALS = ("01__exit_phone_room", "02__exit_phone_room")
# One pair of actors, one scene, recorded twice.
FAKES = ("01_02__exit_phone_room__YVGY8LOK", "01_02__exit_phone_room__9X2Z1K3B")


def write(root, reals=REALS, fakes=FAKES, compression="c23", masks=FAKES):
    write_videos(root, *(REAL.format(compression, n) for n in reals), *(FAKE.format(compression, n) for n in fakes))
    return write_videos(root, *(MASK.format(n) for n in masks))


def find(root, config="c23", **options):
    return downloads.find(root, config, Options(**options))


def test_one_split_named_all(tmp_path):
    root = write(tmp_path / "FaceForensics++")
    found = find(root)
    assert names(found[0]) == [
        "all real 01__exit_phone_room", "all real 02__exit_phone_room",
        "all fake dfd/01_02__exit_phone_room__9X2Z1K3B", "all fake dfd/01_02__exit_phone_room__YVGY8LOK",
    ]  # fmt: skip
    assert found[0][2].fields == {
        "label": "fake", "method": "dfd", "dataset": "dfd", "video_id": "dfd/01_02__exit_phone_room__9X2Z1K3B",
        "pair_id": "01__exit_phone_room", "group_id": "01__exit_phone_room", "source_identity": "dfd:02",
        "target_identity": "dfd:01", "compression": "c23", "perturbation": "",
    }  # fmt: skip
    assert found[0][2].unit == "manipulated_sequences/DeepFakeDetection/c23"
    assert tiny_downloads.counts(found[1]) == {
        "original_sequences/actors": "2 found, 363 published",
        "manipulated_sequences/DeepFakeDetection": "2 found, 3068 published",
    }
    opened = tiny_downloads.build_and_open(found, tmp_path, "dfd", "c23")
    assert list(opened) == ["all"] and opened["all"].videos["label"].tolist() == ["real", "real", "fake", "fake"]
    # "all" means something to TFDS too.
    builder = tiny_downloads.build.make_builder("dfd", "c23", tmp_path / "built")
    assert [len(builder.as_data_source("all")), len(builder.as_data_source()["all"])] == [8, 8]
    assert opened["all"][0]["has_mask"] and opened["all"][7]["mask"].any()


def test_masks_and_names(tmp_path):
    odd = ("01_02__walk", "01__walk", "1_2__walk__YVGY8LOK", "01_02__walk__YVGY8LOK__2")
    root = write(tmp_path / "root", fakes=(*FAKES, *odd), masks=FAKES[1:])
    entries, problems = find(tmp_path / "root")
    assert len(entries) == 4
    folder = "manipulated_sequences/DeepFakeDetection"
    assert sorted(codes(problems)) == [
        ("mask_missing", f"{folder}/masks/videos/{FAKES[0]}.mp4"),
        *(("name_unparsed", f"{folder}/c23/videos/{name}.mp4") for name in sorted(odd)),
    ]
    moved = write_videos(tmp_path / "elsewhere", *map(MASK.format, FAKES))
    assert all(e.mask.startswith(str(moved)) for e in find(root, mask_root=str(moved))[0][2:])


def test_compressions(tmp_path):
    root = write(tmp_path / "FaceForensics++", compression="c0")
    entries, problems = find(tmp_path, "raw")
    assert [e.fields["compression"] for e in entries] == ["raw"] * 4
    assert codes(problems)[0] == ("compression_alias", "actors/c0") and entries[0].unit.endswith("/raw")
    assert entries[0].path == "original_sequences/actors/c0/videos/01__exit_phone_room.mp4"
    with pytest.raises(DownloadError, match="found no video"):
        find(root, "c40")
    with pytest.raises(DownloadError, match="there are c23, c40, raw, c23_derived"):
        find(root, "c24")
    with pytest.raises(DownloadError, match="missing_root"):
        find(root / "original_sequences")


def test_derived_splits_share_no_actor(tmp_path):
    # Three groups of actors: 1-2-3, 4-5 and 6-7; 8 is in reals only.
    swaps = [(1, 2), (2, 1), (2, 3), (3, 2), (4, 5), (5, 4), (6, 7)]
    fakes = [f"{a:02d}_{b:02d}__walk__AAAAAAA{i}" for i, (a, b) in enumerate(swaps)]
    reals = [f"{a:02d}__walk" for a in range(1, 9)]
    root = write(tmp_path, reals, fakes, masks=())
    split_of = {split: set() for split in ("train", "validation", "test")}
    entries, problems = find(root, "c23_derived")
    for entry in entries:
        split_of[entry.split] |= {entry.fields["source_identity"], entry.fields["target_identity"]}
    assert len(entries) == 15 and "crosses_splits" not in dict(codes(problems))
    groups = [{f"dfd:0{i}" for i in group} for group in ((1, 2, 3), (4, 5), (6, 7))]
    lone = {"dfd:08"}
    assert [split_of[split] - lone for split in split_of] == groups
    assert sum("dfd:08" in people for people in split_of.values()) == 1
    assert find(root, "c23_derived") == (entries, problems)
    opened = tiny_downloads.build_and_open((entries, problems), tmp_path, "dfd", "c23_derived")
    assert list(opened) == ["test", "train", "validation"]


def test_linked_actors_are_refused_or_cut(tmp_path):
    pairs = [(a, b) for a in range(10) for b in range(10) if a != b]
    fakes = [f"{a:02d}_{b:02d}__walk__AAAAAAAA" for a, b in pairs]
    root = write(tmp_path, [f"{a:02d}__walk" for a in range(10)], fakes, masks=())
    with pytest.raises(DownloadError, match=r"1 groups, .*cannot_split\]; --config c23_derived_cut leaves out"):
        find(root, "c23_derived")
    entries, problems = find(root, "c23_derived_cut")
    # 6, 2 and 2 actors: 30, 2 and 2 of the 90 fakes stay.
    assert [names(entries, s)[0].split()[0] + str(len(names(entries, s))) for s in ("train", "validation", "test")] == [
        "real36", "real4", "real4",
    ]  # fmt: skip
    assert [p.detail for p in problems if p.code == "crosses_splits"] == [
        "56 of 100 videos have actors of two splits; left out"
    ]


def test_configs():
    assert set(Builder.builder_configs) == {n for c in downloads.CONFIGS for n in (c, f"{c}_clip16")}


actors = st.integers(0, 99).map("{:02d}".format)
scenes = st.lists(st.text("abcz019", min_size=1, max_size=4), min_size=1, max_size=4).map("_".join)


@given(actors, actors, scenes, st.text("ABCZ0189", min_size=8, max_size=8))
def test_names_round_trip(target, source, scene, experiment):
    fields = downloads.name_fields(f"{target}_{source}__{scene}__{experiment}", "c40")
    assert (fields["target_identity"], fields["source_identity"]) == (f"dfd:{target}", f"dfd:{source}")
    assert fields["pair_id"] == f"{target}__{scene}" and fields["compression"] == "c40"
    real = downloads.name_fields(fields["pair_id"], "c40")
    assert (real["label"], real["video_id"], real["target_identity"]) == ("real", f"{target}__{scene}", f"dfd:{target}")


@given(st.text("01_aA", max_size=20))
def test_other_names_are_rejected(stem):
    scene = "[a-zA-Z0-9]+(_[a-zA-Z0-9]+)*"
    form = rf"\d\d__{scene}|\d\d_\d\d__{scene}__[a-zA-Z0-9]{{8}}"
    assert (downloads.name_fields(stem, "c23") is not None) == bool(re.fullmatch(form, stem))


people = st.integers(0, 12).map(str)


@given(st.lists(st.tuples(people, people), min_size=1, max_size=40), st.randoms())
def test_identity_splits(pairs, random):
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    try:
        split_of = listing.identity_splits(pairs, shares, "salt")
    except DownloadError as error:
        assert "cannot_split" in str(error)
        return
    assert all(split_of[a] == split_of[b] for a, b in pairs)
    assert {split_of[a] for a, b in pairs if a != b} == set(shares)
    random.shuffle(pairs)
    assert listing.identity_splits(pairs, shares, "salt") == split_of
