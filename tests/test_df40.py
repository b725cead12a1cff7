"""DF40 by hand. Traps: three names for one method; e4e's same fakes in train and test; frames in frames_all."""

import json

import hypothesis
import pytest
import tiny_images
from hypothesis import strategies as st

from data_prep import build
from data_prep.catalog import DownloadError, Options
from data_prep.df40 import downloads, names
from msddf_jax.data import methods
from msddf_jax.data.source import open_source

REALS = downloads.FF_REALS


def _write(root):
    tiny_images.write_pngs(
        root,
        [
            *(f"DF40/inswap/ff/frames/002_003/{n}.png" for n in ("998", "999", "1000")),
            "DF40_train/inswap/ff/frames/000_001/000.png",
            "DF40_train/inswap/ff/frames/001_000/000.png",
            "DF40_train/inswap/ff/landmarks/001_000/000.png",
            *(f"{REALS}/frames_all/{i}/000.png" for i in ("000", "001", "002", "003")),
            "DF40/inswap/cdf/frames/id0_id1_0000/000.png",
            "Celeb-DF-v2/Celeb-real/frames/id0_0000/000.png",
            "Celeb-DF-v2/Celeb-real/frames/id1_0000/000.png",
            "Celeb-DF-v2/YouTube-real/frames/00012/000.png",
            "DF40/StyleGAN-XL/ff/seed1.png",
            "DF40/StyleGAN-XL/ff/seed2.jpg",
            "DF40_train/StyleGANXL/ff/seed1.png",
            "DF40/whichfaceisreal/fake/0001.png",
            "DF40/whichfaceisreal/real/0001.png",
            "DF40/whichfaceisreal/real/clip/1.png",
            "DF40/whichfaceisreal/real/clip/0.png",
        ],
    )
    (root / "DF40/inswap/ff/frames/003_002").mkdir()
    for split, pair in (("train", ["000", "001"]), ("test", ["002", "003"])):
        (root / "FaceForensics++" / f"{split}.json").write_text(json.dumps([pair]))
    return root


def _find(root, config, **options):
    return downloads.find(root, config, Options(**options))


def _listed(entries):
    return [(e.split, e.fields["video_id"], e.fields["pair_id"], e.fields["group_id"]) for e in entries]


def test_known_method_ff_by_hand(tmp_path):
    entries, problems = _find(_write(tmp_path), "inswapper_ff")
    assert _listed(entries) == [
        ("train", "ff/000", "", "ff:000"),
        ("train", "ff/001", "", "ff:001"),
        ("train", "inswapper/ff/000_001", "ff/000", "ff:000"),
        ("train", "inswapper/ff/001_000", "ff/001", "ff:001"),
        ("test", "ff/002", "", "ff:002"),
        ("test", "ff/003", "", "ff:003"),
        ("test", "inswapper/ff/002_003", "ff/002", "ff:002"),
    ]
    assert entries[2].fields["source_identity"] == "ff:001"
    assert [number for number, _ in entries[6].images] == [998, 999, 1000]
    assert entries[0].images == ((0, f"{REALS}/frames_all/000/000.png"),)
    assert [(p.code, p.path) for p in problems] == [("zero_frames", "DF40/inswap/ff/003_002")]


def test_built(tmp_path):
    tiny_images.prepare_crops(_write(tmp_path / "root"), tmp_path / "prepared", "df40", "inswapper_ff")
    build.build("df40", "inswapper_ff", tmp_path / "prepared", tmp_path / "built")
    test = open_source("df40/inswapper_ff", "test", tmp_path / "built")
    assert test.frame_index.tolist() == [0, 0, 998, 999, 1000]
    assert test.videos["label"].tolist() == ["real", "real", "fake"]
    assert [test[i]["image"][0, 0, 0] for i in (2, 3, 4)] == [0, 1, 2]
    assert len(open_source("df40/inswapper_ff", "train", tmp_path / "built")) == 4


def test_known_method_cdf_takes_the_listed_reals(tmp_path):
    root = _write(tmp_path)
    entries, problems = _find(root, "inswapper_cdf")
    assert [p.code for p in problems] == ["missing_list"] and len(entries) == 4
    (root / "Celeb-DF-v2/List_of_testing_videos.txt").write_text(
        "1 YouTube-real/00012.mp4\r\n1 Celeb-real/id1_0000.mp4\r\n0 Celeb-synthesis/id0_id1_0000.mp4\r\n"
    )
    entries, problems = _find(root, "inswapper_cdf")
    assert problems == [] and _listed(entries) == [
        ("test", "cdf/00012", "", "cdf:yt:00012"),
        ("test", "cdf/id1_0000", "", "cdf:id1_0000"),
        ("test", "inswapper/cdf/id0_id1_0000", "cdf/id0_0000", "cdf:id0_0000"),
    ]


def test_unknown_method_has_its_own_reals(tmp_path):
    entries, _ = _find(_write(tmp_path) / "DF40", "unknown_whichfaceisreal")
    assert [e.fields["video_id"] for e in entries] == [
        "whichfaceisreal/real/0001.png",
        "whichfaceisreal/real/clip",
        "whichfaceisreal/0001.png",
    ]
    assert [n for n, _ in entries[1].images] == [0, 1] and entries[0].fields["target_identity"] == ""


def test_names_that_are_counters_are_compared_by_content(tmp_path):
    root = _write(tmp_path)
    entries, problems = _find(root, "stylegan_xl_ff")
    assert [e.fields["video_id"] for e in entries if e.fields["label"] == "fake"] == [
        "stylegan_xl/ff/train/seed1.png",
        "stylegan_xl/ff/seed1.png",
        "stylegan_xl/ff/seed2.jpg",
    ]
    assert [p.code for p in problems] == ["identity_unknown"] * 2
    (root / "DF40_train/StyleGANXL/ff/seed1.png").write_bytes((root / "DF40/StyleGAN-XL/ff/seed1.png").read_bytes())
    with pytest.raises(DownloadError, match=r"stylegan_xl/ff/seed1\.png.*split_conflict"):
        _find(root, "stylegan_xl_ff")


def test_e4e_ff_with_the_same_fakes_in_train_and_test_is_refused(tmp_path):
    root = _write(tmp_path)
    tiny_images.write_pngs(root, ["DF40/e4e/ff/frames/000_001/000.png", "DF40_train/e4e/ff/frames/000_001/000.png"])
    with pytest.raises(DownloadError, match=r"e4e_ff: 1 fakes are in DF40_train and in DF40.*split_conflict"):
        _find(root, "e4e_ff")


def test_fakes_of_another_split_by_the_lists_are_reported(tmp_path):
    root = tiny_images.write_pngs(_write(tmp_path), ["DF40/inswap/ff/frames/000_003/000.png"])
    problems = _find(root, "inswapper_ff")[1]
    assert [p.path for p in problems if p.code == "split_conflict"] == ["DF40/inswap/ff/frames/000_003"]


def test_what_is_not_there_is_told(tmp_path):
    root = _write(tmp_path)
    with pytest.raises(DownloadError, match="did you mean inswapper_ff"):
        _find(root, "inswaper_ff")
    with pytest.raises(DownloadError, match=r"no folder of simswap .* inswap, .*missing_root"):
        _find(root, "simswap_ff")
    (root / "FaceForensics++/test.json").write_text('[["002", "004"]]')
    with pytest.raises(DownloadError, match=r"youtube/c23/frames/004.*missing_listed_file"):
        _find(root, "inswapper_ff")
    entries, problems = _find(root, "inswapper_ff", allow_missing=True)
    assert len(entries) == 6 and "missing_listed_file" in [p.code for p in problems]
    (root / "FaceForensics++/test.json").unlink()
    with pytest.raises(DownloadError, match=r"test\.json.*missing_list"):
        _find(root, "inswapper_ff")
    (root / "DF40/InSwapper").mkdir()
    with pytest.raises(DownloadError, match="InSwapper and inswap, which are one method"):
        _find(root, "inswapper_ff")


@pytest.mark.parametrize(
    ("name", "method"),
    [
        *(
            ("InSwapper", "inswapper"),
            ("inswap", "inswapper"),
            ("FS_vid2vid", "facevid2vid"),
            ("OneShot", "one_shot_free"),
        ),
        *(("DaGAN", "dagan"), ("danet", "dagan"), ("DDPM", "ddim"), ("WhichisReal", "whichfaceisreal")),
        *(("whichisreal", "whichfaceisreal"), ("PixArt-alpha", "pixart"), ("PixArt", "pixart"), ("MRAA", "mraa")),
        *(("StyleGAN-XL", "stylegan_xl"), ("StyleGANXL", "stylegan_xl"), ("SD-2.1", "sd2_1"), ("sd2.1", "sd2_1")),
        *(("DiT-XL/2", "dit"), ("mobileswap", "mobilefaceswap"), ("tpsm", "tpsmm"), ("CollabDiff", "collabdiff")),
        ("no_such", None),
    ],
)
def test_aliases(name, method):
    assert names.method_of(name) == method


def test_forty_methods():
    assert len(names.SWAP) == 9 and len(names.REENACT) == 12 and len(names.SYNTHESIS) == 10
    assert len({*names.KNOWN, *names.UNKNOWN}) == 40 and {*names.KNOWN, *names.UNKNOWN} <= set(methods.METHODS)
    families = [methods.family(m) for m in (*names.KNOWN, *names.UNKNOWN)]
    # The talking heads are counted with the thirteen reenactments by the owners.
    assert [families.count(f) for f in ("face_swap", "reenactment", "talking_face")] == [10, 10, 3]
    assert [families.count(f) for f in ("entire_synthesis", "editing")] == [12, 5]


@hypothesis.settings(deadline=None, max_examples=100)
@hypothesis.given(st.text(max_size=20))
def test_any_name_is_a_method_or_none(name):
    assert names.method_of(name) in (None, "roop", *names.KNOWN, *names.UNKNOWN)
