"""What DeepfakeBench's own scripts and loader do wrong, and that the builder `dfb` does right from the same files.

The nine, with their place in shared/reference/datasets.md:

 1. 1.5 (a)  one of Celeb-DF's two folders of reals is erased from train
 2. 1.5 (b)  videos of the test list stay in train (and val is test)
 3. 1.7      DFDC's val is {"label", "frames"}, which are no videos
 4. 2.3, 1.9 the LMDB of DeeperForensics-1.0 is empty: its writer leaves out folders with "video" in their path
 5. 2.1, 2.4 frames by name: 1000.png comes before 999.png
 6. 2.4      of more frames than wanted the first are taken, not evenly spaced ones
 7. 2.4      an image that does not decode is replaced by item 0
 8. 2.4, 2.3 a missing mask or landmarks file becomes zeros; landmarks are read as uint32
 9. 3.1 (a)  after a video without masks, no later video has any

And two more that cost nothing to hold: of several damaged files in a row each is an error (1.9), an empty list of
frames is counted (2.2).
"""

import numpy as np
import pytest
import tiny_images
from tiny_images import entry

from data_prep import build
from data_prep.dfb import dfb_dataset_builder as dfb
from data_prep.dfb import stores
from data_prep.layout import PreparedDataError
from msddf_jax.data.source import open_source
from msddf_jax.faces.landmarks import to_dlib_order

FFPP = "FaceForensics++/manipulated_sequences/{}/c23"


def _open(root, config):
    return dfb.open_videos(root, dfb.Builder.builder_configs[config])


def _build(root, config):
    build.build("dfb", config, root, root / "built")
    return lambda split, **kwargs: open_source(f"dfb/{config}", split, root / "built", **kwargs)


def _celeb(root, base="rgb"):
    """Celeb-DF-v2 as rearrange.py writes it: YouTube-real is lost from train, and test videos are in every split."""
    video = lambda folder, name: tiny_images.write_dfb_video(root / base, f"Celeb-DF-v2/{folder}", name, size=256)
    real, fake = lambda p: entry("CelebDFv2_real", p), lambda p: entry("CelebDFv2_fake", p)
    reals = {name: real(video("Celeb-real", name)) for name in ("id0_0000", "id0_0001")}
    video("YouTube-real", "00001")
    youtube = {"00000": real(video("YouTube-real", "00000"))}
    fakes = {name: fake(video("Celeb-synthesis", name)) for name in ("id0_id1_0000", "id0_id2_0001")}
    test_reals, test_fakes = {"id0_0001": reals["id0_0001"], **youtube}, {"id0_id2_0001": fakes["id0_id2_0001"]}
    tree = {
        "CelebDFv2_real": {"train": reals, "val": test_reals, "test": test_reals},
        "CelebDFv2_fake": {"train": fakes, "val": test_fakes, "test": test_fakes},
    }
    tiny_images.write_dfb_json(root, "Celeb-DF-v2", tree)
    return root


@pytest.mark.parametrize("lmdb", [False, True], ids=["rgb", "lmdb"])
def test_1_both_folders_of_celeb_reals_are_in_train(tmp_path, lmdb):
    _celeb(tmp_path, "scratch" if lmdb else "rgb")
    if lmdb:
        tiny_images.write_lmdb(tmp_path / "Celeb-DF-v2_lmdb", tmp_path / "scratch", "Celeb-DF-v2")
    videos, _, _ = _open(tmp_path, "Celeb-DF-v2_lmdb" if lmdb else "Celeb-DF-v2")
    train = [v for v in videos if v.split == "train" and v.fields["label"] == "real"]
    assert [v.stem for v in train] == ["id0_0000", "00001"]
    assert train[1].fields["target_identity"] == "cdf:yt:00001" and [n for n, _ in train[1].frames] == [0, 1]


def test_2_no_video_of_test_is_in_train_or_validation(tmp_path):
    videos, _, counts = _open(_celeb(tmp_path), "Celeb-DF-v2")
    of = lambda split: {v.fields["video_id"] for v in videos if v.split == split}
    assert of("test") == {"id0_0001", "00000", "celebdf/id0_id2_0001"}
    assert of("train") == {"id0_0000", "00001", "celebdf/id0_id1_0000"} and of("validation") == set()
    assert len(counts["split_overlap"]) == 5  # two in train, three in val


def test_3_keys_of_dfdc_val_are_no_videos(tmp_path):
    paths = {n: tiny_images.write_dfb_video(tmp_path / "rgb", "DFDC/test", n) for n in ("aaaaaaaaaa", "bbbbbbbbbb")}
    real, fake = entry("DFDC_Real", paths["aaaaaaaaaa"]), entry("DFDC_Fake", paths["bbbbbbbbbb"])
    tree = {
        "DFDC_Real": {"train": {}, "val": real, "test": {"aaaaaaaaaa": real}},
        "DFDC_Fake": {"train": {}, "val": fake, "test": {"bbbbbbbbbb": fake}},
    }
    tiny_images.write_dfb_json(tmp_path, "DFDC", tree)
    videos, _, counts = _open(tmp_path, "DFDC")
    assert [(v.split, v.fields["video_id"]) for v in videos] == [("test", "aaaaaaaaaa"), ("test", "bbbbbbbbbb")]
    assert counts["malformed_entry"] == [f"DFDC_{c}/val/{key}" for c in ("Real", "Fake") for key in ("label", "frames")]


def test_4_deeperforensics_is_built_and_its_empty_lmdb_refused(tmp_path):
    root = "DeeperForensics-1.0"
    real = tiny_images.write_dfb_video(tmp_path / "rgb", f"{root}/source_videos/M004", "light_front")
    fake = tiny_images.write_dfb_video(tmp_path / "rgb", f"{root}/manipulated_videos/end_to_end", "000_M004")
    level = tiny_images.write_dfb_video(tmp_path / "rgb", f"{root}/manipulated_videos/end_to_end_level_1", "000_M004")
    tree = {
        "DF_real": {"test": {"M004\\light_front": entry("DF_real", real)}},
        "DF_fake": {
            "test": {"000_M004": entry("DF_fake", fake), "end_to_end_level_1\\000_M004": entry("DF_fake", level)}
        },
    }
    tiny_images.write_dfb_json(tmp_path, root, tree)
    test = _build(tmp_path, root)("test")
    assert len(test) == 6
    assert test.videos["video_id"].tolist() == [
        "source__M004__light_front",
        "end_to_end/000_M004",
        "end_to_end_level_1/000_M004",
    ]
    assert test.videos["source_identity"].tolist() == ["df1:M004"] * 3
    assert test.videos["target_identity"].tolist() == ["df1:M004", "ff:000", "ff:000"]
    (tmp_path / "lmdb").mkdir()
    (tmp_path / "nothing").mkdir()
    tiny_images.write_lmdb(tmp_path / "lmdb" / f"{root}_lmdb", tmp_path / "nothing", ".")
    with pytest.raises(PreparedDataError, match=r"It has 0 keys.*leaves out every folder with 'video'"):
        _open(tmp_path, f"{root}_lmdb")


def _one_fake(root, frames=(0,), **kwargs):
    paths = tiny_images.write_dfb_video(root / "rgb", "UADFV/fake", "0000_fake", frames, **kwargs)
    tree = {"UADFV_Fake": {"test": {"0000_fake": entry("UADFV_Fake", reversed(paths))}}}
    tiny_images.write_dfb_json(root, "UADFV", tree)
    return paths


def test_5_frame_1000_comes_after_999(tmp_path):
    _one_fake(tmp_path, (998, 999, 1000, 1001))
    test = _build(tmp_path, "UADFV")("test")
    assert test.frame_index.tolist() == [998, 999, 1000, 1001]
    assert [test[i]["image"][0, 0, 0] for i in range(4)] == [230, 231, 232, 233]


def test_6_fewer_frames_are_evenly_spaced(tmp_path):
    _one_fake(tmp_path, range(0, 32))
    test = _build(tmp_path, "UADFV")("test", max_frames=8)
    assert test.frame_index.tolist() == [0, 4, 8, 13, 17, 22, 26, 31]


def test_7_an_image_that_does_not_decode_is_an_error(tmp_path):
    paths = _one_fake(tmp_path, range(4))
    for path in paths[1:3]:  # two in a row: DeepfakeBench's clean-up misses every second one
        good = (tmp_path / "rgb" / path).read_bytes()
        (tmp_path / "rgb" / path).write_bytes(good[: len(good) // 2])
        with pytest.raises(PreparedDataError, match=rf"{path}: not a readable image"):
            _build(tmp_path, "UADFV")
        (tmp_path / "rgb" / path).write_bytes(good)
    (tmp_path / "rgb" / paths[3]).unlink()
    with pytest.raises(PreparedDataError, match=r"lists 1 frames that are not in .*missing_listed_file"):
        _build(tmp_path, "UADFV")
    assert len(_build(tmp_path, "UADFV_partial")("test")) == 3


def test_8_missing_mask_and_landmarks_are_flagged(tmp_path, capsys):
    _one_fake(tmp_path, (0, 1))
    (tmp_path / "rgb/UADFV/fake/landmarks/0000_fake/001.npy").unlink()
    test = _build(tmp_path, "UADFV")("test")
    assert [test[i]["has_landmarks"] for i in (0, 1)] == [True, False]
    assert (test[1]["landmarks"] == -1).all() and not test[0]["has_mask"]
    assert "test: 1 frames without landmarks, 2 fakes without a mask" in capsys.readouterr().out
    points = tiny_images.landmarks()
    assert points.min() == -3 and points.astype(np.int32).tobytes()[3] == 255  # 4294967293 as uint32
    assert stores.parse_landmarks(points.astype(np.int32).tobytes(), "x", bare=True).min() == -3
    np.testing.assert_array_equal(to_dlib_order(test[0]["landmarks"]), points)


def test_9_videos_after_one_without_masks_have_theirs(tmp_path):
    fakes = {}
    for name, masks in (("000_001", False), ("001_000", True), ("002_003", True)):
        paths = tiny_images.write_dfb_video(tmp_path / "rgb", FFPP.format("Deepfakes"), name, masks=masks)
        fakes[name] = entry("FF-DF", paths, masks=[])
    tiny_images.write_dfb_json(tmp_path, "FF-DF", {"FF-DF": {"train": {"c23": fakes}}})
    train = _build(tmp_path, "FF-DF")("train")
    assert [bool(train[i]["has_mask"]) for i in range(6)] == [False, False, True, True, True, True]
    assert train[2]["mask"].all() and not train[0]["mask"].any()


def test_empty_frame_lists_are_counted(tmp_path):
    path = tiny_images.write_dfb_video(tmp_path / "rgb", "UADFV/real", "0000")
    tree = {"UADFV_Real": {"test": {"0000": entry("UADFV_Real", path), "0001": entry("UADFV_Real", [])}}}
    tiny_images.write_dfb_json(tmp_path, "UADFV", tree)
    videos, _, counts = _open(tmp_path, "UADFV")
    assert [v.stem for v in videos] == ["0000"] and counts["empty_frames"] == ["UADFV_Real/test/0001"]
