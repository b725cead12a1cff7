"""DeepfakeBench's processed files: JSON with rgb folders or LMDB. Traps: keys with backslashes, int32 or int64."""

import io
import json

import hypothesis
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
import tiny_images
from hypothesis import strategies as st
from tiny_images import entry

from data_prep import build
from data_prep.dfb import dfb_dataset_builder as dfb
from data_prep.dfb import index, labels, stems, stores
from data_prep.layout import PreparedDataError
from msddf_jax.data import methods
from msddf_jax.data.source import open_source
from msddf_jax.faces.landmarks import to_dlib_order

SETTINGS = hypothesis.settings(deadline=None, max_examples=100)
REAL = "FaceForensics++/original_sequences/youtube/c23"
FAKE = "FaceForensics++/manipulated_sequences/Deepfakes/c23"
FLAVOURS = {
    "posix": lambda p: f"/home/someone/data/FaceForensics++/rgb/{p}",
    "windows": lambda p: f".\\datasets\\{p}".replace("/", "\\"),
    "mixed": lambda p: "./datasets\\" + p.replace("/", "\\"),
    "relative": lambda p: p.replace("/", "\\"),
    "rgb_dir": lambda p: f"./datasets/rgb/{p}",
    "drive": lambda p: f"D:\\x\\{p}".replace("/", "\\"),
}


def _ffpp(root, flavour=FLAVOURS["relative"], base="rgb", **kwargs):
    """FF-DF with two reals and two fakes in train, one of each in test."""
    out = {
        label: {"train": {"c23": {}, "c40": {}}, "val": {"c23": {}}, "test": {"c23": {}}}
        for label in ("FF-real", "FF-DF")
    }
    for split, ids in (("train", ("000", "001")), ("test", ("002",))):
        for i in ids:
            other = {"000": "001", "001": "000", "002": "003"}[i]
            real = tiny_images.write_dfb_video(root / base, REAL, i, **kwargs)
            fake = tiny_images.write_dfb_video(root / base, FAKE, f"{i}_{other}", masks=True, **kwargs)
            out["FF-real"][split]["c23"][i] = entry("FF-real", map(flavour, real))
            out["FF-DF"][split]["c23"][f"{i}_{other}"] = entry("FF-DF", map(flavour, fake), masks=[])
    tiny_images.write_dfb_json(root, "FF-DF", out)
    return root


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_path_flavour_names_the_same_frame(flavour):
    path = f"{FAKE}/frames/000_001/012.png"
    assert index.normalise(FLAVOURS[flavour](path), "FF-DF") == path


def test_paths_of_the_cluster_and_paths_that_lead_out():
    cluster = "/Youtu_Pangu_Security/public/deepfakes_detection_datasets/DF40_train/inswap/ff/frames/000_003/1.png"
    assert index.normalise(cluster, "inswap_ff") == "DF40_train/inswap/ff/frames/000_003/1.png"
    other = cluster.replace("deepfakes_", "deepfake_")
    assert index.normalise(other, "inswap_ff") == "DF40_train/inswap/ff/frames/000_003/1.png"
    assert index.normalise("UADFV/../../etc/passwd/1.png", "UADFV") is None
    assert index.normalise("1.png", "UADFV") is None


@SETTINGS
@hypothesis.given(
    st.lists(st.text("abcXYZ019 _-+.", min_size=1).filter(lambda s: s.strip(". ")), max_size=4),
    st.sampled_from(labels.FOLDERS),
    st.sampled_from(["/", "\\"]),
)
def test_whatever_stands_before_the_data_set_is_dropped(before, folder, separator):
    hypothesis.assume(not set(before) & {*labels.FOLDERS, ".."})
    path = separator.join(["", *before, folder, "a", "frames", "v", "0.png"])
    assert index.normalise(path, folder) == f"{folder}/a/frames/v/0.png"


def test_companions_change_the_last_folder_named_frames():
    assert index.companion("x/frames/UADFV/fake/frames/0000_fake/003.png", "masks") == (
        "x/frames/UADFV/fake/masks/0000_fake/003.png"
    )
    assert index.companion("a/frames_all/000/3.jpg", "landmarks") == "a/landmarks/000/3.npy"
    assert index.companion("DF40/MidJourney/fake/3.png", "masks") is None


def test_label_names_are_the_complete_table_and_those_of_df40():
    reals = {name for name in labels.LABELS if labels.read_label(name).method == "real"}
    assert reals == {
        *("FF-real", "DFD_real", "CelebDFv1_real", "CelebDFv2_real", "CelebDFv3_real", "DFDCP_Real", "DFDC_Real"),
        *("DF_real", "UADFV_Real", "roop_Real"),
    }
    assert len(labels.LABELS) == 26  # DeepfakeBench's 24 and Celeb-DF-v3's two
    assert labels.read_label("FF-FH").method == "faceshifter"
    assert labels.read_label("inswap_Fake") == ("df40", "inswapper")
    assert labels.read_label("whichisreal_Real") == ("df40", "real")
    assert labels.read_label("EFSAll_Fake") == ("df40", None)
    with pytest.raises(PreparedDataError, match="FF-DF"):
        labels.read_label("FF-DFF")
    known = [m for _, m in labels.LABELS.values() if m] + [
        labels.read_label(f"{n[:-3]}_Fake").method for n in labels.DF40 if n.endswith("_ff")
    ]
    assert all(m is None or m in methods.METHODS for m in known)


def test_people_by_name():
    assert stems.ff("071_054") == ("ff:071", "ff:054", "071", "ff:071")
    assert stems.ff("071") == ("ff:071", "ff:071", "", "ff:071")
    assert stems.ff("0712") is None
    assert stems.cdf("id0_id16_0007") == ("cdf:id0", "cdf:id16", "id0_0007", "cdf:id0_0007")
    assert stems.cdf("00012") == ("cdf:yt:00012", "cdf:yt:00012", "", "cdf:yt:00012")
    assert stems.cdf("id3_0001_test_12").real == "id3_0001"
    assert stems.dfd("01_02__exit_phone_room__YVGY8LOK") == (
        "dfd:01",
        "dfd:02",
        "01__exit_phone_room",
        "dfd:01__exit_phone_room",
    )
    assert stems.dfd("01__exit_phone_room")[:3] == ("dfd:01", "dfd:01", "")
    assert stems.dfdcp("1224068_643049_A_001")[:3] == ("dfdcp:643049", "dfdcp:1224068", "643049_A_001")
    assert stems.df1("000_M101")[:3] == ("ff:000", "df1:M101", "000")
    assert stems.uadfv("0003_fake")[:3] == ("uadfv:0003", "uadfv:0003", "0003")


@SETTINGS
@hypothesis.given(st.text("0123456789_idAMW", max_size=24))
def test_name_parsers_take_any_text(stem):
    for parse in (stems.ff, stems.cdf, stems.dfd, stems.dfdcp, stems.df1, stems.uadfv):
        person = parse(stem)
        assert person is None or (person.target and person.group)


def test_rgb_build_by_hand(tmp_path, capsys):
    root = _ffpp(tmp_path / "dfb")
    folder = build.build("dfb", "FF-DF", root, tmp_path / "built")
    stored = [r["attributes"] for r in tfds.builder_from_directory(folder).as_data_source("test")]
    swap = [1, np.nan, 0, np.nan, 1, np.nan, 1, 1, 1, 1, 1, 1, 1]  # identity, by SJEDD's table
    np.testing.assert_array_equal(stored[::2], [[0] * 13, swap])
    train, test = (open_source("dfb/FF-DF", s, tmp_path / "built") for s in ("train", "test"))
    assert train.videos["video_id"].tolist() == ["000", "001", "deepfakes/000_001", "deepfakes/001_000"]
    assert train.videos["pair_id"].tolist() == ["", "", "000", "001"]
    assert train.videos["source_identity"].tolist() == ["ff:000", "ff:001", "ff:001", "ff:000"]
    assert set(train.videos["dataset"]) == {"faceforensics"} and set(train.videos["compression"]) == {"c23"}
    assert test.videos["video_id"].tolist() == ["002", "deepfakes/002_003"]
    real, fake = test[0], test[2]
    assert real["label"] == 0 and fake["label"] == 1 and real["image"].shape == (256, 256, 3)
    assert real["has_mask"] and not real["mask"].any() and fake["has_mask"] and fake["mask"].max() == 255
    np.testing.assert_array_equal(to_dlib_order(fake["landmarks"]), tiny_images.landmarks(0))
    assert fake["source_path"] == f"{FAKE}/frames/002_003/000.png"
    assert "train: fake 2 videos 4 frames, real 2 videos 4 frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "dtype"),
    [
        (lambda p: p.replace("/", "\\"), np.int32),
        (lambda p: p.replace("/", "\\", 1), np.int64),
        (lambda p: p, np.int32),
    ],
    ids=["windows", "linux", "slashes"],
)
def test_lmdb_in_each_key_flavour(tmp_path, key, dtype):
    root = _ffpp(tmp_path / "dfb", base="scratch")
    tiny_images.write_lmdb(root / "lmdb" / "FaceForensics++_lmdb", root / "scratch", "FaceForensics++", key, dtype)
    build.build("dfb", "FF-DF_lmdb", root, tmp_path / "built")
    test = open_source("dfb/FF-DF_lmdb", "test", tmp_path / "built")
    points = to_dlib_order(test[3]["landmarks"])
    np.testing.assert_array_equal(points, tiny_images.landmarks(1))
    assert points.min() == -2 and test[3]["has_mask"]


def test_landmarks_are_told_apart_by_length():
    points = tiny_images.landmarks()
    for dtype, size in ((np.int32, 648), (np.int64, 1296)):
        data = points.astype(dtype).tobytes()
        assert len(data) == size
        np.testing.assert_array_equal(stores.parse_landmarks(data, "x", bare=True), points)
    with pytest.raises(PreparedDataError, match="1300 bytes"):
        stores.parse_landmarks(bytes(1300), "x", bare=True)


def test_unknown_key_flavour_is_an_error(tmp_path):
    root = _ffpp(tmp_path / "dfb", base="scratch")
    odd = lambda p: "data:" + p
    tiny_images.write_lmdb(root / "FaceForensics++_lmdb", root / "scratch", "FaceForensics++", odd)
    with pytest.raises(PreparedDataError, match=r"key flavour unknown.*video"):
        build.build("dfb", "FF-DF_lmdb", root, tmp_path / "built")


def test_224_scales_image_landmarks_and_mask(tmp_path):
    root = _ffpp(tmp_path / "dfb")
    build.build("dfb", "FF-DF_224", root, tmp_path / "built")
    fake = open_source("dfb/FF-DF_224", "test", tmp_path / "built")[2]
    assert fake["image"].shape == (224, 224, 3) and set(np.unique(fake["mask"])) == {255}
    np.testing.assert_allclose(to_dlib_order(fake["landmarks"]), tiny_images.landmarks(0) * 0.875)


def test_c40_has_its_own_file_and_the_plain_key(tmp_path):
    base = tmp_path / "datasets" / "rgb"
    video = tiny_images.write_dfb_video(base, REAL.replace("c23", "c40"), "000")
    tree = {
        "FF-real": {
            "test": {
                "c23": {"000": entry("FF-real", ["FaceForensics++/gone/1.png"])},
                "c40": {"000": entry("FF-real", video)},
            }
        }
    }
    tiny_images.write_dfb_json(tmp_path, "FF-DF", tree, stem="FF-DF_c40")
    build.build("dfb", "FF-DF_c40", tmp_path, tmp_path / "built")
    source = open_source("dfb/FF-DF_c40", "test", tmp_path / "built")
    assert source.videos["compression"].tolist() == ["c40"] and len(source) == 2
    with pytest.raises(PreparedDataError, match=r"no FF-DF\.json"):
        build.build("dfb", "FF-DF", tmp_path, tmp_path / "built")


def test_celeb_df_v3_has_a_level_of_methods_on_fakes_alone(tmp_path):
    base = tmp_path / "rgb"
    real = tiny_images.write_dfb_video(base, "Celeb-DF-v3/Celeb-real", "id0_0000")
    fake = tiny_images.write_dfb_video(base, "Celeb-DF-v3/Celeb-synthesis/FaceSwap/SimSwap", "id0_id1_0000")
    old = tiny_images.write_dfb_video(base, "Celeb-DF-v3/Celeb-synthesis/FaceSwap/Celeb-DF-v2", "id0_id1_0000")
    tree = {
        "CelebDFv3_real": {"test": {"id0_0000": entry("CelebDFv3_real", real)}},
        "CelebDFv3_fake": {
            "test": {
                "SimSwap": {"id0_id1_0000": entry("CelebDFv3_fake", fake)},
                "Celeb-DF-v2": {"id0_id1_0000": entry("CelebDFv3_fake", old)},
            }
        },
    }
    tiny_images.write_dfb_json(tmp_path, "Celeb-DF-v3", tree)
    videos, _, _ = dfb.open_videos(tmp_path, dfb.Builder.builder_configs["Celeb-DF-v3"])
    assert [v.fields["video_id"] for v in videos] == ["id0_0000", "celebdf/id0_id1_0000", "simswap/id0_id1_0000"]
    assert [v.fields["pair_id"] for v in videos] == ["", "id0_0000", "id0_0000"]


def test_df40_json_is_re_rooted_and_absent_frames_are_counted(tmp_path, capsys):
    cluster = "/Youtu_Pangu_Security_Public/youtu-pangu-public/zhiyuanyan/deepfakes_detection_datasets/"
    base = tmp_path / "rgb"
    fake = tiny_images.write_dfb_video(base, "DF40/inswap/ff", "000_003", points=False)
    real = [p.replace("/frames_all/", "/frames/") for p in ()]
    for i in (0, 1):
        tiny_images.write_png(base / REAL / "frames_all" / "000" / f"{i:03d}.png", i, 256)
        real.append(f"{REAL}/frames/000/{i:03d}.png")
    gone = ["DF40/inswap/ff/frames/003_000/000.png"]
    tree = {
        "inswap_Real": {"test": {"000": entry("inswap_Real", [cluster + p for p in real])}},
        "inswap_Fake": {
            "test": {
                "000_003": entry("inswap_Fake", [cluster + p for p in fake]),
                "003_000": entry("inswap_Fake", [cluster + p for p in gone]),
                "004_005": entry("inswap_Fake", []),
            }
        },
    }
    tiny_images.write_dfb_json(tmp_path, "inswap_ff", tree)
    build.build("dfb", "inswap_ff", tmp_path, tmp_path / "built")
    source = open_source("dfb/inswap_ff", "test", tmp_path / "built")
    assert source.videos["video_id"].tolist() == ["ff/000", "inswapper/ff/000_003"]
    assert source.videos["group_id"].tolist() == ["ff:000", "ff:000"] and source.videos["pair_id"][1] == "ff/000"
    assert not source[0]["has_landmarks"] and (source[0]["landmarks"] == -1).all()
    out = capsys.readouterr().out
    assert "missing_listed_file: 1 left out" in out and "empty_frames: 1 left out: inswap_Fake/test/004_005" in out


def test_old_df40_files_call_every_label_roop(tmp_path):
    base = tmp_path / "rgb"
    fake = tiny_images.write_dfb_video(base, "DF40/simswap/ff", "000_003")
    tiny_images.write_dfb_json(tmp_path, "simswap_ff", {"roop_Fake": {"test": {"000_003": entry("roop_Fake", fake)}}})
    videos, _, _ = dfb.open_videos(tmp_path, dfb.Builder.builder_configs["simswap_ff"])
    assert videos[0].fields["method"] == "simswap"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected {data set"),
        ("{", "not JSON"),
        ('{"UADFV": []}', "expected an object"),
        ('{"UADFV": {"UADFV_Real": {"valid": {}}}}', "split 'valid'"),
        ('{"UADFV": {"UADFV_Reel": {"test": {}}}}', "did you mean UADFV_Real"),
        (
            '{"UADFV": {"UADFV_Real": {"test": {"a": {"label": "UADFV_Fake", "frames": ["UADFV/real/1.png"]}}}}}',
            "label_conflict",
        ),
        ('{"UADFV": {"UADFV_Real": {"test": {"a": {"frames": ["UADFV/../../1.png"]}}}}}', "no path below"),
        ('{"UADFV": {"UADFV_Real": {"test": {"a": {"frames": ["UADFV/r/1.png", "UADFV/r/01.png"]}}}}}', "same frame"),
        ('{"UADFV": {"UADFV_Real": {"test": {"a": {"frames": []}}}}}', "lists no frame"),
    ],
)
def test_bad_json_is_told(tmp_path, content, message):
    (tmp_path / "dataset_json").mkdir()
    (tmp_path / "dataset_json" / "UADFV.json").write_text(content)
    with pytest.raises(PreparedDataError, match=message):
        build.build("dfb", "UADFV", tmp_path, tmp_path / "built")


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=4) | st.just("UADFV/real/frames/0000/000.png"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["UADFV", "UADFV_Real", "UADFV_Fake", "test", "val", "label", "frames", "c23", "0000", ""]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@SETTINGS
@hypothesis.given(JSON, JSON)
def test_any_json_is_read_or_refused(tmp_path_factory, tree, videos):
    path = tmp_path_factory.getbasetemp() / "any.json"
    for content in (
        tree,
        {"UADFV": {"UADFV_Real": {"test": videos}}},
        {"UADFV": {"UADFV_Real": tree, "DF_fake": videos}},
    ):
        path.write_text(json.dumps(content))
        try:
            found, counts = index.read_json(path, "UADFV", "none")
        except PreparedDataError:
            continue
        assert all(v.frames and v.fields["video_id"] for v in found) and set(counts) >= {"malformed_entry"}


@SETTINGS
@hypothesis.given(st.data())
def test_damaged_images_are_refused_or_whole(data):
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)).save(buffer, "PNG")
    good = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
    bad = bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        out = dfb.resized_png(bad, "RGB", 16, "x.png")
    except PreparedDataError:
        return
    assert PIL.Image.open(io.BytesIO(out)).size == (16, 16)


def test_splits_are_flagged_as_not_the_owners():
    configs = dfb.Builder.builder_configs
    assert all("Its splits are DeepfakeBench's, not the owners'" in c.description for c in configs.values())
    assert {
        "FaceForensics++",
        "FaceForensics++_c40",
        "FF-NT_c40_lmdb",
        "DFDCP_lmdb",
        "whichisreal",
        "FSAll_cdf",
    } <= set(configs)
