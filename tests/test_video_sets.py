import importlib
import re

import pytest
import tiny_downloads
from hypothesis import given
from hypothesis import strategies as st
from tiny_downloads import codes, counts, names, write_text, write_videos

from data_prep import build, catalog, prepare
from data_prep.catalog import DownloadError, Options
from data_prep.deepspeak import downloads as deepspeak
from data_prep.ffiw import downloads as ffiw
from data_prep.uadfv import downloads as uadfv
from msddf_jax.data import source
from msddf_jax.data.groups import make_groups

# UADFV.


@pytest.mark.parametrize("level", ["", "videos/"])
def test_uadfv(tmp_path, level):
    root = tmp_path / "UADFV"
    write_videos(root, f"real/{level}0000.mp4", f"real/{level}0001.mp4")
    write_videos(root, f"fake/{level}0000_fake.mp4", f"fake/{level}0002_fake.mp4", f"fake/{level}0001.mp4")
    found = uadfv.find(tmp_path, "default", Options())
    assert names(found[0]) == ["all real 0000", "all real 0001", "all fake 0000_fake", "all fake 0002_fake"]
    fake = found[0][2]
    assert (fake.fields["pair_id"], fake.fields["group_id"], fake.unit) == ("0000", "0000", "UADFV/fake")
    assert fake.fields["source_identity"] == fake.fields["target_identity"] == "uadfv:0000"
    assert codes(found[1]) == [
        ("name_unparsed", f"fake/{level}0001.mp4"), ("pair_missing", f"fake/{level}0002_fake.mp4"),
    ]  # fmt: skip
    assert counts(found[1]) == {"all real": "2 found, 49 published", "all fake": "2 found, 49 published"}
    assert uadfv.find(root, "default", Options()) == found
    opened = tiny_downloads.build_and_open(found, tmp_path, "uadfv", "default")
    assert tiny_downloads.rows(opened["all"], "video_id", "method", "pair_id")[1:3] == [
        ("0001", "real", ""), ("0000_fake", "uadfv", "0000"),
    ]  # fmt: skip
    other = "videos/" if not level else ""
    write_videos(root, f"real/{other}0000.mp4")
    with pytest.raises(DownloadError, match="duplicate_key"):
        uadfv.find(root, "default", Options())


def test_uadfv_that_is_none(tmp_path):
    with pytest.raises(DownloadError, match=r"found none of real, fake in .*, .*UADFV \[missing_root\]"):
        uadfv.find(tmp_path, "default", Options())
    (tmp_path / "real").mkdir()
    with pytest.raises(DownloadError, match="found no video"):
        uadfv.find(tmp_path, "default", Options())
    with pytest.raises(DownloadError, match="no folder"):
        uadfv.find(tmp_path / "nowhere", "default", Options())
    with pytest.raises(DownloadError, match="unknown_config"):
        uadfv.find(tmp_path, "all", Options())


@given(st.text("01_fake", max_size=9))
def test_uadfv_names(stem):
    fields = uadfv.name_fields(stem)
    match = re.fullmatch(r"([01]{4})(_fake)?", stem)
    assert (fields is None) == (match is None)
    if match:
        label, pair = ("fake", match[1]) if match[2] else ("real", "")
        assert (fields["label"], fields["pair_id"], fields["video_id"]) == (label, pair, stem)


# FFIW-10K.


def write_ffiw(root, split, stems, masks, level=""):
    release = "FFIW10K-v1-release" + "-test" * (split == "test")
    write_videos(root, *(f"{release}/{s}/{split}/{level}{n}.mp4" for s in ("source", "target") for n in stems))
    write_videos(root, *(f"{release}/target_mask/{split}/{level}{name}_mask.mp4" for name in masks))


@pytest.mark.parametrize("level", ["", "videos/"])
def test_ffiw(tmp_path, level):
    write_ffiw(tmp_path, "train", ["train_00000007"], ["train_00000007"], level)
    write_ffiw(tmp_path, "val", ["val_00000000", "val_00000001"], ["val_00000000"], level)
    first = ffiw.find(tmp_path, "default", Options())
    write_ffiw(tmp_path, "test", ["test_00000003"], ["test_00000003"], level)
    found = ffiw.find(tmp_path, "default", Options())
    # source is real, target is fake; the test set is a second archive.
    assert names(found[0]) == [
        "train real train_00000007", "train fake ffiw/train_00000007",
        "validation real val_00000000", "validation real val_00000001",
        "validation fake ffiw/val_00000000", "validation fake ffiw/val_00000001",
        "test real test_00000003", "test fake ffiw/test_00000003",
    ]  # fmt: skip
    assert {e.split for e in first[0]} == {"train", "validation"}
    assert found[0][1].fields["pair_id"] == found[0][1].fields["group_id"] == "train_00000007"
    masks = {entry.fields["video_id"]: entry.mask for entry in found[0] if entry.mask}
    expected = tmp_path / f"FFIW10K-v1-release-test/target_mask/test/{level}test_00000003_mask.mp4"
    assert masks["ffiw/test_00000003"] == str(expected)
    assert set(masks) == {"ffiw/train_00000007", "ffiw/val_00000000", "ffiw/test_00000003"}
    assert found[0][-1].unit == "FFIW10K-v1-release-test/target/test"
    assert codes(found[1]) == [("mask_missing", "target_mask/val/val_00000001_mask.mp4")]
    assert counts(found[1])["validation fake"] == "2 found, 250 published"
    assert ffiw.find(tmp_path / "FFIW10K-v1-release", "default", Options()) == found
    opened = tiny_downloads.build_and_open(found, tmp_path, "ffiw", "default")
    validation = opened["validation"]
    records = [validation[int(first)] for first in validation.first]
    # A real's mask is known to be empty; a fake's is there or not.
    assert [bool(record["has_mask"]) for record in records] == [True, True, True, False]
    assert records[2]["mask"].any() and not records[0]["mask"].any()
    assert opened["test"].videos["label"].tolist() == ["real", "fake"]


def test_ffiw_odd_files(tmp_path):
    root = tmp_path / "mine"
    write_videos(root, "source/val/val_00000000.mp4", "source/val/train_00000000.mp4", "target/val/val_00000001.mp4")
    entries, problems = ffiw.find(root, "default", Options())
    assert names(entries) == ["validation real val_00000000", "validation fake ffiw/val_00000001"]
    assert entries[0].unit == "FFIW10K-v1-release/source/val"
    assert codes(problems) == [
        ("name_unparsed", "source/val/train_00000000.mp4"),
        ("mask_missing", "target_mask/val/val_00000001_mask.mp4"),
        ("pair_missing", "source/val/val_00000000.mp4"),
        ("pair_missing", "target/val/val_00000001.mp4"),
    ]
    with pytest.raises(DownloadError, match=r"no source/ and target/ in .*FFIW10K-v1-release-test"):
        ffiw.find(tmp_path, "default", Options())
    for release in ffiw.RELEASES:
        write_videos(tmp_path / release, "source/test/test_00000000.mp4")
    with pytest.raises(DownloadError, match="duplicate_key"):
        ffiw.find(tmp_path, "default", Options())


@given(st.sampled_from(["train", "val", "test", "tes"]), st.integers(0, 10**9 - 1), st.integers(7, 9))
def test_ffiw_names(split, number, digits):
    stem = f"{split}_{number:0{digits}d}"
    fields = ffiw.name_fields(stem, "target")
    assert (fields is None) == (split == "tes" or len(stem) != len(split) + 9)
    if fields:
        assert ffiw.name_fields(fields["pair_id"], "source")["video_id"] == stem


# DeepSpeak.

SPEAKERS = "identity,split\r\n10,train\r\n11,train\r\n87,test\r\n88,test\r\n"


@pytest.fixture
def speakers(tmp_path):
    root = tmp_path / "DeepSpeak-v1_1"
    write_videos(root, "a/b/87-0.mp4", "real/11-4897.mp4", "real/88-2.mp4")
    write_videos(root, "x/facefusion--10-11--4100-4897--0.mp4", "wav2lip--88-87--3-0--12.mp4")
    write_text(root, "csv/annotations-split-def.csv", SPEAKERS)
    return root


def find_speakers(root, config="v1_1", **options):
    return deepspeak.find(root, config, Options(**options))


def test_deepspeak(speakers, tmp_path):
    found = find_speakers(tmp_path)
    assert names(found[0]) == [
        "train real 11-4897", "train fake facefusion/facefusion--10-11--4100-4897--0",
        "test real 87-0", "test real 88-2", "test fake wav2lip/wav2lip--88-87--3-0--12",
    ]  # fmt: skip
    swap, lips = found[0][1].fields, found[0][4].fields
    # Donor, then who is on screen.
    assert (swap["source_identity"], swap["target_identity"], swap["pair_id"]) == ("dsv1:10", "dsv1:11", "11-4897")
    assert (lips["method"], lips["pair_id"]) == ("wav2lip", "87-0")
    assert (found[0][1].unit, found[0][2].unit) == ("DeepSpeak-v1_1/facefusion", "DeepSpeak-v1_1/reals")
    assert codes(found[1]) == [] and counts(found[1])["fake"] == "2 found, 6796 published"
    assert find_speakers(speakers) == found
    opened = tiny_downloads.build_and_open(found, tmp_path, "deepspeak", "v1_1")
    assert tiny_downloads.rows(opened["train"], "method", "target_identity") == [
        ("real", "dsv1:11"), ("facefusion", "dsv1:11"),
    ]  # fmt: skip
    assert len(make_groups(opened["train"])) == 2


def test_deepspeak_odd_files(speakers):
    write_videos(
        speakers, "99-1.mp4", "87_1.mp4", "newswap--10-11--1-2--0.mp4", "retalking--10-87--1-0--0.mp4"
    )  # fmt: skip
    entries, problems = find_speakers(speakers)
    assert len(entries) == 6
    assert sorted(codes(problems)) == [
        ("crosses_splits", "retalking--10-87--1-0--0.mp4"),
        ("name_unparsed", "87_1.mp4"),
        ("unknown_method", "newswap--10-11--1-2--0.mp4"),
        ("unlisted_file", "99-1.mp4"),
    ]
    write_videos(speakers, "again/87-0.mp4")
    with pytest.raises(DownloadError, match=r"87-0.mp4 and .*87-0.mp4 have one name"):
        find_speakers(speakers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("identity,split\n10,train\n10,test\n", "actor 10 is in both train and test"),
        ("identity,split\n10,val\n", r"split 'val', expected train or test \[unknown_split\]"),
        ("actor,split\n10,train\n", "the columns identity,split"),
        ("", "it has no row"),
    ],
)
def test_deepspeak_bad_list(speakers, text, message):
    write_text(speakers, "csv/annotations-split-def.csv", text)
    with pytest.raises(DownloadError, match=message):
        find_speakers(speakers)


def test_deepspeak_list_and_release(speakers, tmp_path):
    write_text(speakers, "annotations-split-def.csv", SPEAKERS)
    with pytest.raises(DownloadError, match=r"expected one .*, found 2 files .*\[missing_list\]"):
        find_speakers(speakers)
    assert len(find_speakers(speakers, lists=str(speakers / "csv"))[0]) == 5
    for root in (speakers, tmp_path):
        with pytest.raises(DownloadError, match="another release than v1"):
            find_speakers(root, "v1")
    with pytest.raises(DownloadError, match="no method 'wav2lips' here; did you mean wav2lip"):
        find_speakers(speakers, lists=str(speakers / "csv"), methods=("wav2lips",))


numbers = st.integers(0, 9999)


@given(st.sampled_from(deepspeak.ENGINES), numbers, numbers, numbers, numbers, st.integers(0, 9))
def test_deepspeak_names(engine, source, target, first, second, n):
    fields = deepspeak.name_fields(f"{engine}--{source}-{target}--{first}-{second}--{n}")
    assert (fields["method"], fields["source_identity"]) == (engine, f"dsv1:{source}")
    real = deepspeak.name_fields(fields["pair_id"])
    assert (real["video_id"], real["target_identity"]) == (f"{target}-{second}", fields["target_identity"])


@given(st.text("01-_w", max_size=8))
def test_deepspeak_rejects_other_names(stem):
    assert (deepspeak.name_fields(stem) is not None) == bool(re.fullmatch(r"[01]+-[01]+", stem))


# What holds for all of them.

ALL = ("celebdf", "dfd", "dfdc", "dfdcp", "deeperforensics", "uadfv", "ffiw", "deepspeak")


@pytest.mark.parametrize("name", ALL)
def test_builder(name, tmp_path):
    module = importlib.import_module(f"data_prep.{name}.downloads")
    first = build.make_builder(name, module.CONFIGS[0], tmp_path)
    configs = first.builder_configs
    # What prepare makes can be built, and what is built was prepared; each also as clips.
    assert {config.catalog or config.name for config in configs.values()} == set(module.CONFIGS)
    assert {f"{config}_clip16" for config in configs if not config.endswith("_clip16")} <= set(configs)
    assert "python -m data_prep.prepare" in first.info.description and "@" in first.info.citation
    clips = build.make_builder(name, f"{module.CONFIGS[0]}_clip16", tmp_path)
    assert clips.builder_config.clip_length == 16 and "frames" in clips.info.features
    with pytest.raises(DownloadError, match="unknown_config"):
        module.find(tmp_path, "nothing", Options())


# From the download to training data, with the real tools.


def test_end_to_end(tmp_path):
    root = write_videos(tmp_path / "UADFV", "real/0000.mp4", "fake/0000_fake.mp4")
    arguments = f"--layout=uadfv --root={root} --out={tmp_path / 'out'} --landmarks=sidecar --num_frames=2 --size=32"
    assert prepare.main([*arguments.split(), "--workers=1"]) == 0
    lines = catalog.read_catalog(catalog.catalog_path(tmp_path / "out", "uadfv", "default"))
    assert [line["outcome"] for line in lines] == ["prepared", "prepared"]
    build.build("uadfv", "default", tmp_path / "out", tmp_path / "built")
    opened = source.open_source("uadfv/default", "all", tmp_path / "built")
    assert [opened[i]["label"] for i in range(4)] == [0, 0, 1, 1]
    assert opened[3]["image"].shape == (32, 32, 3) and opened[3]["has_landmarks"]
    assert opened[3]["image"].std() > 1
