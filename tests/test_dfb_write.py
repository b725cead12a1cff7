"""Prepared sets written as DeepfakeBench reads them, read back here and as its own loader walks through them."""

import gc
import json
import os
import pathlib
import shutil

import lmdb
import numpy as np
import prepared_tree
import pytest
import tiny_downloads
import tiny_images

from data_prep import build, catalog
from data_prep.celebdf import downloads as celebdf
from data_prep.deeperforensics import downloads as deeperforensics
from data_prep.dfb import dfb_dataset_builder as dfb
from data_prep.dfb import index, labels, write
from data_prep.dfd import downloads as dfd
from data_prep.dfdcp import downloads as dfdcp
from data_prep.layout import PreparedDataError
from data_prep.prepared import PreparedConfig
from data_prep.uadfv import downloads as uadfv
from msddf_jax.data.source import open_source
from msddf_jax.faces.landmarks import to_dlib_order
from msddf_jax.opencv import cv2

PAIRS = {"train": [("000", "001")], "val": [("004", "005")], "test": [("006", "007")]}
# DeepfakeBench's label_dict, training/config/test_config.yaml.
LABEL_DICT = {
    **{"DFD_fake": 1, "DFD_real": 0, "FF-SH": 1, "FF-F2F": 1, "FF-DF": 1, "FF-FS": 1, "FF-NT": 1, "FF-FH": 1},
    **{"FF-real": 0, "CelebDFv1_real": 0, "CelebDFv1_fake": 1, "CelebDFv2_real": 0, "CelebDFv2_fake": 1},
    **{"DFDCP_Real": 0, "DFDCP_FakeA": 1, "DFDCP_FakeB": 1, "DFDC_Fake": 1, "DFDC_Real": 0, "DF_fake": 1},
    **{"DF_real": 0, "UADFV_Fake": 1, "UADFV_Real": 0, "roop_Real": 0, "roop_Fake": 1},
}
# Their names that its loader takes a compression of.
POOL = ("FaceForensics++", "FaceShifter", "DeepFakeDetection", "FF-DF", "FF-F2F", "FF-FS", "FF-NT")


@pytest.fixture(scope="module")
def ffpp(tmp_path_factory):
    """FaceForensics++ at c23, crops of 256 pixels."""
    root = tmp_path_factory.mktemp("ffpp")
    return prepared_tree.write_tree(root, methods=prepared_tree.FFPP, pairs=PAIRS, size=256, frames=(8, 1000))


def prepare(out, dataset, config, rows):
    """What data_prep.prepare leaves of videos, crops of 16 pixels. rows: (unit, stem, split, fields)."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "x.mp4").touch()
    entries = [catalog.Entry("video", "x.mp4", *row, root=str(out)) for row in rows]
    return tiny_downloads.prepare(entries, out, dataset, config)


def load(name, mode, *, level="c23", label_dict=LABEL_DICT, env=None, folder="dataset_json"):
    """[(file's name, video's folder, label, image, mask or None, landmarks or None)] in order, as its dataset class has
    them: it knows `_c40` of five names, sorts frames by number, and puts `masks` and `landmarks` for every `frames`.

    env: an open LMDB environment, or None to read files below the working directory.
    """
    tree = json.loads((pathlib.Path(folder) / f"{name}.json").read_text())
    c40 = name.endswith("_c40") and name.removesuffix("_c40") in write._NAMED_C40
    name, level = (name.removesuffix("_c40"), "c40") if c40 else (name, level)

    def read(path):
        if env is None:
            assert path[0] == "."
            return pathlib.Path(path).read_bytes() if os.path.exists(path) else None
        with env.begin() as transaction:
            return transaction.get(path.encode())

    def decode(data, how=cv2.IMREAD_COLOR):
        return None if data is None else cv2.imdecode(np.frombuffer(data, np.uint8), how)

    found = []
    for label in tree[name]:
        listed = tree[name][label][mode]
        for video, entry in (listed[level] if name in POOL else listed).items():
            assert entry["label"] == label and video
            mark = "\\" if "\\" in entry["frames"][0] else "/"
            for path in sorted(entry["frames"], key=lambda path, mark=mark: int(path.split(mark)[-1].split(".")[0])):
                points = path.replace("frames", "landmarks").replace(".png", ".npy")
                if env is None:
                    points = np.load(points) if os.path.exists(points) else None
                elif (points := read(points)) is not None:
                    points = np.frombuffer(points, np.uint32).reshape(81, 2)
                parts = path.replace("\\", "/").split("/")
                image, mask = decode(read(path))[..., ::-1], decode(read(path.replace("frames", "masks")), 0)
                found.append((parts[-1], parts[-2], label_dict[label], image, mask, points))
    return found


def use(out, tmp_path, monkeypatch):
    """The working directory that the printed lines make of DeepfakeBench's folder."""
    (tmp_path / "bench" / "datasets").mkdir(parents=True)
    (tmp_path / "bench" / "datasets" / "rgb").symlink_to(out / "rgb")
    (tmp_path / "bench" / "dataset_json").symlink_to(out / "dataset_json")
    monkeypatch.chdir(tmp_path / "bench")


@pytest.mark.parametrize("as_lmdb", [False, True], ids=["rgb", "lmdb"])
def test_written_set_read_back_has_the_records_of_the_prepared_one(ffpp, tmp_path, as_lmdb):
    out, name = tmp_path / "out", "FF-DF_lmdb" if as_lmdb else "FF-DF"
    build.build("faceforensics", "c23_df", ffpp, tmp_path / "own")
    build.to_dfb("faceforensics", "c23_df", ffpp, out, lmdb=as_lmdb)
    build.build("dfb", name, out, tmp_path / "back")
    for split, number in (("train", 8), ("validation", 8), ("test", 8)):
        own = open_source("faceforensics/c23_df", split, tmp_path / "own")
        back = open_source(f"dfb/{name}", split, tmp_path / "back")
        assert len(own) == len(back) == number
        for column in ("video_id", "label", "method", "pair_id", "group_id", "source_identity", "compression"):
            assert own.videos[column].tolist() == back.videos[column].tolist(), column
        for one, other in zip(own, back, strict=True):
            for field in ("image", "mask", "has_mask", "attributes", "frame_index", "label", "has_landmarks"):
                np.testing.assert_array_equal(one[field], other[field], field)
            points = np.rint(one["landmarks"]) if as_lmdb else one["landmarks"]
            np.testing.assert_array_equal(points, other["landmarks"])


def test_files_are_the_prepared_ones(ffpp, tmp_path, monkeypatch, capsys):
    relative = "manipulated_sequences/Deepfakes/c23/{}/000_001"
    build.to_dfb("faceforensics", "c23", ffpp, tmp_path / "rgb")
    build.to_dfb("faceforensics", "c23", ffpp, tmp_path / "db", lmdb=True)
    assert "are copies" not in capsys.readouterr().out
    for kind, end in (("frames", "png"), ("masks", "png"), ("landmarks", "npy")):
        path = f"{relative.format(kind)}/1000.{end}"
        assert os.path.samefile(ffpp / path, tmp_path / "rgb/rgb/FaceForensics++" / path)
    monkeypatch.setattr(write.os, "link", lambda *_: (_ for _ in ()).throw(OSError("another disk")))
    build.to_dfb("faceforensics", "c23", ffpp, tmp_path / "copies")
    # 6 reals with landmarks, 24 fakes with masks too, two frames each.
    assert f"{6 * 2 * 2 + 24 * 2 * 3} files are copies" in capsys.readouterr().out
    for file in (tmp_path / "rgb").rglob("*.*"):
        assert (tmp_path / "copies" / file.relative_to(tmp_path / "rgb")).read_bytes() == file.read_bytes()
    with lmdb.open(str(tmp_path / "db/lmdb/FaceForensics++_lmdb"), readonly=True) as env, env.begin() as transaction:
        keys = {key.decode() for key in transaction.cursor().iternext(values=False)}
        for kind in ("frames", "masks"):
            path = f"{relative.format(kind)}/008.png"
            assert transaction.get(f"FaceForensics++/{path}".replace("/", "\\").encode()) == (ffpp / path).read_bytes()
    files = {p.relative_to(tmp_path / "rgb/rgb").as_posix() for p in (tmp_path / "rgb/rgb").rglob("*.*")}
    assert keys == {path.replace("/", "\\") for path in files if path.count("/") > 2}


@pytest.mark.parametrize("as_lmdb", [False, True], ids=["rgb", "lmdb"])
def test_its_loader_takes_every_frame(ffpp, tmp_path, monkeypatch, as_lmdb):
    out = tmp_path / "out"
    build.to_dfb("faceforensics", "c23", ffpp, out, lmdb=as_lmdb)
    use(out, tmp_path, monkeypatch)
    env = lmdb.open(str(out / "lmdb/FaceForensics++_lmdb"), readonly=True, lock=False) if as_lmdb else None
    for mode, (a, b) in (("train", ("000", "001")), ("val", ("004", "005")), ("test", ("006", "007"))):
        found = load("FaceForensics++", mode, env=env)
        # By number: by name, 1000 would come before 008.
        assert [(name, video, label) for name, video, label, *_ in found] == [
            (name, video, int("_" in video))
            for video in (a, b, *(f"{a}_{b}", f"{b}_{a}") * 4)
            for name in ("008.png", "1000.png")
        ]
        for name, _, label, image, mask, points in found:
            index = int(name.split(".")[0])
            assert image.shape == (256, 256, 3) and image[0, 0, 0] == index % 256
            np.testing.assert_allclose(points, prepared_tree.landmarks(index), atol=0.5 if as_lmdb else 0)
            assert (mask is None) == (label == 0) and (
                mask is None or (mask == prepared_tree.mask_of(index, 256)).all()
            )
    assert {image[0, 0, 1] for _, _, _, image, _, _ in found} == {0, 1, 2, 3, 4}  # each method from its own folder
    if env:
        env.close()


def _rows(dataset, config):
    cdf = celebdf.name_fields
    real = lambda **more: catalog.make_fields(
        "deeperforensics", "real", "000", source="ff:000", target="ff:000", **more
    )
    return {
        "celebdf/v2": [
            ("Celeb-DF-v2/Celeb-real", "id0_0000", "train", cdf("id0_0000", "Celeb-real", "real")),
            ("Celeb-DF-v2/YouTube-real", "00001", "test", cdf("00001", "YouTube-real", "real")),
            ("Celeb-DF-v2/Celeb-synthesis", "id0_id1_0000", "test", cdf("id0_id1_0000", "swap", "celebdf")),
        ],
        "celebdf/pp": [
            ("Celeb-DF++/Celeb-real", "id0_0000", "test", cdf("id0_0000", "Celeb-real", "real")),
            (
                "Celeb-DF++/Celeb-synthesis/FaceSwap/Celeb-DF",
                "id0_id1_0000",
                "test",
                cdf("id0_id1_0000", "swap", "celebdf"),
            ),
            (
                "Celeb-DF++/Celeb-synthesis/FaceSwap/SimSwap",
                "id0_id1_0000",
                "test",
                cdf("id0_id1_0000", "swap", "simswap"),
            ),
        ],
        "uadfv/default": [
            ("UADFV/real", "0000", "all", uadfv.name_fields("0000")),
            ("UADFV/fake", "0000_fake", "all", uadfv.name_fields("0000_fake")),
        ],
        "dfd/c40": [
            ("original_sequences/actors/c40", "01__exit", "all", dfd.name_fields("01__exit", "c40")),
            (
                *("manipulated_sequences/DeepFakeDetection/c40", "01_02__exit__YVGY8LOK", "all"),
                dfd.name_fields("01_02__exit__YVGY8LOK", "c40"),
            ),
        ],
        "dfdc/full": [
            ("DFDC/train/dfdc_train_part_3", "aaaaaaaaaa", "train", catalog.make_fields("dfdc", "real", "aaaaaaaaaa")),
            ("DFDC/validation", "bbbbbbbbbb", "validation", catalog.make_fields("dfdc", "dfdc", "bbbbbbbbbb")),
            ("DFDC/test", "cccccccccc", "test", catalog.make_fields("dfdc", "dfdc", "cccccccccc")),
        ],
        "dfdcp/default": [
            ("DFDCP/original_videos", "643049_A_001", "test", dfdcp.video_fields("643049_A_001", "real", {}, "")),
            ("DFDCP/method_A", "1_643049_A_001", "test", dfdcp.video_fields("1_643049_A_001", "dfdcp_a", {}, "")),
            ("DFDCP/method_B", "2_643049_A_001", "train", dfdcp.video_fields("2_643049_A_001", "dfdcp_b", {}, "")),
        ],
        "deeperforensics/end_to_end": [
            ("original_sequences/youtube/c23", "000", "test", real(compression="c23")),
            (
                *("DeeperForensics-1.0/manipulated_videos/end_to_end", "000_M101", "test"),
                deeperforensics.fake_fields("000_M101", "end_to_end", "", True),
            ),
        ],
        "deeperforensics/reenact_postprocess": [
            ("original_sequences/youtube/c23", "000", "test", real(compression="c23")),
            (
                *("DeeperForensics-1.0/manipulated_videos/reenact_postprocess", "000_M101", "test"),
                deeperforensics.fake_fields("000_M101", "reenact_postprocess", "", True),
            ),
        ],
    }[f"{dataset}/{config}"]


@pytest.mark.parametrize("as_lmdb", [False, True], ids=["rgb", "lmdb"])
@pytest.mark.parametrize(
    ("dataset", "config", "name"),
    [
        ("celebdf", "v2", "Celeb-DF-v2"),
        ("celebdf", "pp", "Celeb-DF-v3"),
        ("uadfv", "default", "UADFV"),
        ("dfd", "c40", "DeepFakeDetection_c40"),
        ("dfdc", "full", "DFDC"),
        ("dfdcp", "default", "DFDCP"),
        ("deeperforensics", "end_to_end", "DeeperForensics-1.0"),
        ("deeperforensics", "reenact_postprocess", "DeeperForensics-1.0"),
    ],
)
def test_each_set_has_its_labels_splits_and_people(tmp_path, monkeypatch, dataset, config, name, as_lmdb):
    rows = _rows(dataset, config)
    out, root = tmp_path / "out", prepare(tmp_path / "prepared", dataset, config, rows)
    build.to_dfb(dataset, config, root, out, lmdb=as_lmdb)
    videos, store, _ = dfb.open_videos(out, dfb.Builder.builder_configs[name + "_lmdb" * as_lmdb])
    same = ("video_id", "label", "method", "pair_id", "source_identity", "target_identity", "dataset")
    told = lambda split, fields: (split, *(fields[field] for field in same))
    assert sorted(told(v.split, v.fields) for v in videos) == sorted(
        told("test" if split == "all" else split, fields) for _, _, split, fields in rows
    )
    for video in videos:
        (unit,) = (unit for unit, stem, _, fields in rows if fields["video_id"] == video.fields["video_id"])
        for number, path in video.frames:
            assert store.read(path) == (root / unit / "frames" / video.stem / f"{number:03d}.png").read_bytes()
            # Crops of 16 pixels: landmarks count in 256 there.
            points = dfb.encode_frame(store, video, number, path, 256)["landmarks"]
            wanted = prepared_tree.landmarks(number) * 16
            np.testing.assert_allclose(to_dlib_order(points), wanted, atol=0.5 if as_lmdb else 0)
    if name == "Celeb-DF-v3":
        return  # its own loader knows no level of methods
    del store  # an environment is opened once in a process
    gc.collect()
    use(out, tmp_path, monkeypatch)
    plain = name.removesuffix("_c40")
    env = out / "lmdb" / f"{'FaceForensics++' if plain in POOL else plain}_lmdb"
    env = lmdb.open(str(env), readonly=True, lock=False) if as_lmdb else None
    for mode, split in (("train", "train"), ("test", "test"), ("val", "validation")):
        here = [row for row in rows if row[2] in (split, "all" if split == "test" else split)]
        found = load(plain, mode, level="c40", env=env) if here or plain not in POOL else []
        assert sorted({(video, label) for _, video, label, *_ in found}) == sorted(
            (stem, int(fields["label"] == "fake")) for _, stem, _, fields in here
        )
    if env:
        env.close()


def test_celeb_df_pp_by_method_is_a_set_of_its_own_name(tmp_path, monkeypatch, capsys):
    root = prepare(tmp_path / "prepared", "celebdf", "pp", _rows("celebdf", "pp"))
    build.to_dfb("celebdf", "pp_faceswap_simswap", root, tmp_path / "out")
    use(tmp_path / "out", tmp_path, monkeypatch)
    name = "celebdf-pp_faceswap_simswap"
    own = {f"{name}_Real": 0, f"{name}_Fake": 1}
    assert "".join(f"    {label}: {value}\n" for label, value in own.items()) in capsys.readouterr().out
    found = load(name, "test", label_dict=own)
    assert {(video, label) for _, video, label, *_ in found} == {
        ("Celeb-real__id0_0000", 0), ("Celeb-synthesis__FaceSwap__SimSwap__id0_id1_0000", 1),
    }  # fmt: skip


def test_a_users_own_set(tmp_path, monkeypatch, capsys):
    fields = lambda method, path: catalog.make_fields("folder", method, f"mine/{path}")
    deep = "/".join(["a" * 50] * 4)
    rows = [
        ("folder/mine/real/frames", "clip", "train", fields("real", "real/frames/clip.mp4")),
        ("folder/mine/fake", "clip", "train", fields("unknown", "fake/clip.mp4")),
        (f"folder/mine/fake/{deep}", "clip", "test", fields("unknown", f"fake/{deep}/clip.mp4")),
    ]
    root = prepare(tmp_path / "prepared", "folder", "mine", rows)
    arguments = ["folder", "--name=mine", f"--manual_dir={root}", f"--to_dfb={tmp_path / 'out'}"]
    assert build.main(arguments) == 0
    said = capsys.readouterr().out
    assert "    mine_Real: 0\n    mine_Fake: 1\n" in said and "mine val: no video" in said
    use(tmp_path / "out", tmp_path, monkeypatch)
    train, test = (load("mine", mode, label_dict={"mine_Real": 0, "mine_Fake": 1}) for mode in ("train", "test"))
    # Its video scores take all frames below folders of one name for one video.
    assert {(video, label) for _, video, label, *_ in train} == {("real__Frames__clip", 0), ("fake__clip", 1)}
    assert len({video for _, video, *_ in test}) == 1 and len(test[0][1]) < 125
    for name in ("simswap_ff", "roop"):
        with pytest.raises(PreparedDataError, match=f"{name} is a name of DeepfakeBench or DF40"):
            write.find_target("folder", PreparedConfig(name=name), [])


def test_c40_has_a_file_of_its_own_where_its_loader_knows_the_name(tmp_path, monkeypatch):
    for level in ("c23", "c40"):
        prepared_tree.write_tree(tmp_path / level, methods=("Deepfakes",), pairs=PAIRS, compression=level, frames=(0,))
        for as_lmdb in (False, True):
            out = tmp_path / ("db" if as_lmdb else "out")
            build.to_dfb("faceforensics", f"{level}_df", tmp_path / level, out, lmdb=as_lmdb)
    assert sorted(os.listdir(tmp_path / "out/dataset_json")) == ["FF-DF.json", "FF-DF_c40.json"]
    use(tmp_path / "out", tmp_path, monkeypatch)
    assert len(load("FF-DF", "test")) == len(load("FF-DF_c40", "test")) == 4
    # Its loader opens the environment by the name with _c40.
    with lmdb.open(str(tmp_path / "db/lmdb/FF-DF_c40_lmdb"), readonly=True, lock=False) as env:
        assert len(load("FF-DF_c40", "test", env=env, folder=tmp_path / "db/dataset_json")) == 4


def test_a_method_folder_by_a_data_sets_name_is_below_faceforensics(tmp_path):
    for dataset in ("FaceShifter", "DeepFakeDetection"):
        path = f"FaceForensics++/manipulated_sequences/{dataset}/c23/frames/000_001/000.png"
        assert index.normalise("./datasets\\" + path.replace("/", "\\"), dataset) == path
        assert index.normalise(f"/disk/{path}", dataset) == path
    root = prepared_tree.write_tree(tmp_path / "prepared", methods=("FaceShifter",), pairs=PAIRS, frames=(0,))
    build.to_dfb("faceforensics", "c23_fsh", root, tmp_path / "out")
    tree = json.loads((tmp_path / "out/dataset_json/FaceShifter.json").read_text())["FaceShifter"]
    assert list(tree) == ["FF-real", "FF-FH"] and list(tree["FF-FH"]["val"]["c23"]) == ["004_005", "005_004"]
    videos, _, _ = dfb.open_videos(tmp_path / "out", dfb.Builder.builder_configs["FaceShifter"])
    assert [v.fields["video_id"] for v in videos if v.split == "train"] == [
        "000", "001", "faceshifter/000_001", "faceshifter/001_000",
    ]  # fmt: skip


def test_levels_share_a_file_where_it_does_not(tmp_path):
    rows = [row for row in _rows("dfd", "c40")]
    other = [
        (unit.replace("c40", "c23"), stem, split, fields | {"compression": "c23"}) for unit, stem, split, fields in rows
    ]
    out = tmp_path / "out"
    build.to_dfb("dfd", "c40", prepare(tmp_path / "c40", "dfd", "c40", rows), out)
    build.to_dfb("dfd", "c23", prepare(tmp_path / "c23", "dfd", "c23", other), out)
    for label in json.loads((out / "dataset_json/DeepFakeDetection.json").read_text())["DeepFakeDetection"].values():
        assert {level: len(videos) for level, videos in label["test"].items()} == {"c23": 1, "c40": 1}
        assert label["train"] == {"c23": {}, "c40": {}}
    with pytest.raises(PreparedDataError, match=r"DeepFakeDetection\.json is there already: --overwrite"):
        build.to_dfb("dfd", "c23", tmp_path / "c23", out)
    build.to_dfb("dfd", "c23", tmp_path / "c23", out, overwrite=True)
    (out / "dataset_json/DeepFakeDetection.json").write_text('{"DeepFakeDetection": {"DFD_real": []}}')
    with pytest.raises(PreparedDataError, match=r"is there and no JSON of DeepFakeDetection"):
        build.to_dfb("dfd", "c23", tmp_path / "c23", out, overwrite=True)


@pytest.mark.parametrize("as_lmdb", [False, True], ids=["rgb", "lmdb"])
def test_what_is_there_and_other_is_left_alone(tmp_path, as_lmdb):
    rows = _rows("uadfv", "default")
    root, out = prepare(tmp_path / "prepared", "uadfv", "default", rows), tmp_path / "out"
    build.to_dfb("uadfv", "default", root, out, lmdb=as_lmdb)
    listed = (out / "dataset_json/UADFV.json").read_bytes()
    (out / "dataset_json/UADFV.json").unlink()
    build.to_dfb("uadfv", "default", root, out, lmdb=as_lmdb)  # the same files
    assert (out / "dataset_json/UADFV.json").read_bytes() == listed
    with pytest.raises(PreparedDataError, match=r"UADFV\.json is there already"):
        build.to_dfb("uadfv", "default", root, out, lmdb=as_lmdb)
    (out / "dataset_json/UADFV.json").unlink()
    frame = root / "UADFV/fake/frames/0000_fake/001.png"
    frame.unlink()  # a new file: the old one's bytes are those of its link
    tiny_images.write_png(frame, 7)
    with pytest.raises(PreparedDataError, match=r"0000_fake/001\.png.*--overwrite replaces it"):
        build.to_dfb("uadfv", "default", root, out, lmdb=as_lmdb)
    assert not list((out / "dataset_json").iterdir())
    build.to_dfb("uadfv", "default", root, out, lmdb=as_lmdb, overwrite=True)
    _, store, _ = dfb.open_videos(out, dfb.Builder.builder_configs["UADFV_lmdb" if as_lmdb else "UADFV"])
    assert store.read("UADFV/fake/frames/0000_fake/001.png") == frame.read_bytes()


def test_videos_without_a_frame_are_left_out_and_told(tmp_path, capsys):
    root = prepared_tree.write_tree(tmp_path / "prepared", methods=("Deepfakes",), pairs=PAIRS)
    unit = prepared_tree.real_unit(root)
    shutil.rmtree(unit / "frames/004")
    prepared_tree.write_meta(unit, "004", ())
    prepared_tree.write_catalog(root)
    path = build.to_dfb("faceforensics", "c23_df", root, tmp_path / "out")
    assert list(json.loads(path.read_text())["FF-DF"]["FF-real"]["val"]["c23"]) == ["005"]
    said = capsys.readouterr().out
    assert "no usable frame in 1 videos, which any score on it leaves out: 004 [no_face_video]" in said
    assert "FF-DF val: FF-DF 2 videos 6 frames, FF-real 1 videos 3 frames" in said


def test_landmarks_outside_the_crop_are_negative_in_lmdb_and_told(tmp_path, capsys):
    root = prepare(tmp_path / "prepared", "uadfv", "default", _rows("uadfv", "default"))
    for path in root.rglob("landmarks/0000/001.npy"):
        np.save(path, np.float32([[-0.5, 3]] * 81))
    for path in root.rglob("landmarks/0000_fake/*.npy"):
        path.unlink()
    for path in root.rglob("meta/0000_fake.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"landmarks": "optional"}))
    build.to_dfb("uadfv", "default", root, tmp_path / "out", lmdb=True)
    said = capsys.readouterr().out
    assert "1 frames have landmarks left of or above the crop" in said and "2 frames have no landmarks" in said
    with lmdb.open(str(tmp_path / "out/lmdb/UADFV_lmdb"), readonly=True) as env, env.begin() as transaction:
        data = transaction.get(rb"UADFV\real\landmarks\0000\001.npy")
    assert len(data) == 648 and np.frombuffer(data, np.int32).reshape(81, 2).tolist() == [[-8, 48]] * 81


def test_what_cannot_be_written_is_one_line(tmp_path, capsys):
    root = prepared_tree.write_tree(tmp_path / "prepared", methods=("Deepfakes",), pairs=PAIRS, frames=(0,))
    out = tmp_path / "out"
    run = lambda *arguments: build.main([*arguments, f"--manual_dir={root}", f"--to_dfb={out}"])
    for arguments, said in (
        (
            ("faceforensics", "--config=c23_df_clip16"),
            "is of clips; DeepfakeBench makes its own of frames: take c23_df\n",
        ),
        (("dfb", "--config=UADFV"), "--to_dfb is for data sets that prepare wrote a catalog of; not for dfb"),
        (("uadfv", "--config=default"), "no catalog"),
    ):
        assert run(*arguments) == 1 and said in capsys.readouterr().err
    for arguments in (
        ("--lmdb", f"--data_dir={out}"),
        ("--to_dfb=x", f"--data_dir={out}"),
        ("--to_dfb=x", "--runner=x"),
    ):
        with pytest.raises(SystemExit):
            build.main(["faceforensics", "--config=c23", f"--manual_dir={root}", *arguments])
    damaged = root / "manipulated_sequences/Deepfakes/c23/frames/000_001/000.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    capsys.readouterr()
    for more in ((), ("--lmdb",)):
        assert run("faceforensics", "--config=c23_df", *more) == 1
        assert f"data_prep.build: {damaged}: not a readable PNG" in capsys.readouterr().err
    assert not list(out.rglob("*.json"))
    with pytest.raises(PreparedDataError, match="takes every `frames` in a path"):
        line = {"unit": "UADFV/fake", "stem": "frames_1", "fields": uadfv.name_fields("0000_fake")}
        write.place_videos(write.Target("UADFV", "UADFV", "", True), [("test", line, None)])


def test_labels_are_those_that_the_reader_knows():
    assert set(labels.JSON_LABELS) == {*labels.FF_FAMILY, *labels.OTHERS}
    known = {label for names in labels.JSON_LABELS.values() for label in names}
    assert known - {"CelebDFv3_real", "CelebDFv3_fake"} <= set(LABEL_DICT)
    for name, (real, *fakes) in labels.JSON_LABELS.items():
        assert labels.label_of(name, "real") == real and labels.LABELS[real][1] == "real"
        for fake in fakes:
            assert labels.label_of(name, labels.LABELS[fake][1] or "simswap") == fake
    with pytest.raises(PreparedDataError, match="'face2face' has no label in DeepfakeBench's FF-DF"):
        labels.label_of("FF-DF", "face2face")
