import csv
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import prepared_tree
import pytest
import tensorflow_datasets as tfds

from data_prep import build, catalog
from data_prep.layout import PreparedDataError
from msddf_jax.data import methods, schema

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return prepared_tree.write_tree(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory):
    return build.build("faceforensics", "toy", tree, tmp_path_factory.mktemp("built"))


def _records(folder, split):
    return list(tfds.builder_from_directory(folder).as_data_source(split))


def _copy(tree, tmp_path):
    return pathlib.Path(shutil.copytree(tree, tmp_path / "tree"))


def test_splits_and_counts(built):
    info = tfds.builder_from_directory(built).info
    # Per pair: 2 reals and 4 x 2 fakes, 3 frames each.
    assert {name: split.num_examples for name, split in info.splits.items()} == {
        "train": 60,
        "validation": 30,
        "test": 30,
    }
    assert info.file_format.value == "array_record"
    assert "FaceForensics++" in info.description
    assert "roessler2019" in info.citation


def test_splits_hold_the_listed_ids(built):
    for split, ids in (("train", "000 001 002 003"), ("validation", "004 005"), ("test", "006 007")):
        targets = {r["target_identity"].decode() for r in _records(built, split)}
        assert targets == {f"toy:{i}" for i in ids.split()}


def test_records_are_in_the_order_of_videos_and_frames(built):
    order = [(r["video_id"].decode(), int(r["frame_index"])) for r in _records(built, "validation")]
    videos = ["004", "005"]
    videos += [
        f"{m}/{v}" for m in ("toy_swap", "toy_reenact", "toy_neural", "toy_texture") for v in ("004_005", "005_004")
    ]
    assert order == [(video, frame) for video in videos for frame in (0, 9, 10)]


def test_content_of_a_fake(built):
    record = next(
        r for r in _records(built, "train") if r["video_id"] == b"toy_neural/003_002" and r["frame_index"] == 9
    )
    image, mask = record.pop("image"), record.pop("mask")
    assert image.shape == (16, 16, 3)
    assert image[0, 0].tolist() == [9, 3, 0]  # RGB: frame 9 of the third method
    np.testing.assert_array_equal(mask[..., 0], prepared_tree.mask_of(9, 16))
    landmarks = record.pop("landmarks")
    np.testing.assert_array_equal(landmarks[68], [77 + 9 / 16, 154])
    np.testing.assert_array_equal(record.pop("bbox"), [1, 2, 3, 13])
    np.testing.assert_array_equal(record.pop("align_matrix"), [[1, 0, 9], [0, 1, 5]])
    # An autoencoder's bottleneck over the inner face: nobody else, no other expression, and every part touched.
    assert record.pop("attributes").tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert record == {
        "perturbation": b"",
        "has_mask": True,
        "has_landmarks": True,
        "label": 1,
        "method": methods.METHODS.index("toy_neural"),
        "dataset": schema.DATASETS.index("toy"),
        "video_id": b"toy_neural/003_002",
        "pair_id": b"003",
        "group_id": b"003",
        "source_identity": b"toy:002",
        "target_identity": b"toy:003",
        "frame_index": 9,
        "num_frames_video": 11,
        "compression": schema.COMPRESSIONS.index("c23"),
        "source_path": b"manipulated_sequences/ToyNeural/c23/frames/003_002/009.png",
    }


def test_content_of_a_real(built):
    record = _records(built, "test")[1]
    assert (record["video_id"], record["pair_id"], record["frame_index"]) == (b"006", b"", 9)
    assert (record["label"], record["method"]) == (0, 0)
    assert record["source_identity"] == record["target_identity"] == b"toy:006"
    assert record["has_mask"]
    assert not record["mask"].any()
    assert record["attributes"].tolist() == [0] * 13


def test_index_describes_the_records(built):
    records = _records(built, "train")
    with open(built / "index-train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20
    names = {"label": schema.LABELS, "method": methods.METHODS, "dataset": schema.DATASETS}
    names["compression"] = schema.COMPRESSIONS
    number = 0
    for row in rows:
        assert (row["height"], row["width"], row["num_records"]) == ("16", "16", "3")
        assert int(row["first_record"]) == number
        for frame in row["frame_index"].split():
            record = records[number]
            assert record["frame_index"] == int(frame)
            for column in ("video_id", "pair_id", "group_id", "source_identity", "target_identity"):
                assert record[column].decode() == row[column]
            for column, values in names.items():
                assert values[record[column]] == row[column]
            number += 1
    assert number == 60


def test_official_methods_and_namespace(tmp_path):
    tree = prepared_tree.write_tree(tmp_path / "tree", methods=prepared_tree.FFPP, compression="c40", frames=(0,))
    folder = build.build("faceforensics", "c40", tree, tmp_path / "out")
    records = _records(folder, "test")
    assert [methods.METHODS[r["method"]] for r in records[2::2]] == [
        "deepfakes",
        "face2face",
        "faceswap",
        "neuraltextures",
    ]
    assert {schema.DATASETS[r["dataset"]] for r in records} == {"faceforensics"}
    assert {schema.COMPRESSIONS[r["compression"]] for r in records} == {"c40"}
    assert records[2]["source_identity"] == b"ff:007"
    # fake, age, expression, gender, identity, pose, eye, eyebrow, lip, mouth, nose, skin, physical; None is unknown.
    swap = [1, None, 0, None, 1, None, 1, 1, 1, 1, 1, 1, 1]
    reenact = [1, None, 1, None, 0, None, 0, 0, 1, 1, 0, 0, 1]
    found = [[None if np.isnan(v) else v for v in r["attributes"]] for r in records]
    assert found == [[0] * 13] * 2 + [swap] * 2 + [reenact] * 2 + [swap] * 2 + [reenact] * 2


def test_one_method_and_the_reals(tmp_path):
    folders = (*prepared_tree.FFPP, "FaceShifter")
    tree = prepared_tree.write_tree(tmp_path / "tree", methods=folders, frames=(0,))
    shutil.rmtree(prepared_tree.fake_unit(tree, "FaceShifter") / "masks")  # its owners publish none
    records = _records(build.build("faceforensics", "c23_fsh", tree, tmp_path / "out"), "test")
    assert [(r["video_id"], bool(r["has_mask"])) for r in records] == [
        (b"006", True), (b"007", True), (b"faceshifter/006_007", False), (b"faceshifter/007_006", False),
    ]  # fmt: skip
    records = _records(build.build("faceforensics", "c23_f2f", tree, tmp_path / "out"), "test")
    assert {methods.METHODS[r["method"]] for r in records} == {"real", "face2face"} and len(records) == 4
    configs = set(build.make_builder("faceforensics", "c23", tmp_path).builder_configs)
    names = {f"{c}{m}" for c in ("c23", "c40", "raw") for m in ("", "_partial", "_df", "_f2f", "_fs", "_nt", "_fsh")}
    assert configs == {f"{n}{clip}" for n in names | {"toy", "toy_c40"} for clip in ("", "_clip16")}


def test_clips_are_runs_of_sixteen_frames(tmp_path):
    # 20 frames in a row are one clip, and 4 that are left out.
    frames = (0, 1, *range(3, 19), *range(30, 50))
    pairs = {split: [(f"00{i}", f"00{i + 1}")] for split, i in (("train", 0), ("val", 2), ("test", 4))}
    tree = prepared_tree.write_tree(tmp_path / "tree", pairs=pairs, frames=frames, size=4)
    records = _records(build.build("faceforensics", "toy_clip16", tree, tmp_path / "out"), "train")
    assert len(records) == 2 * (2 + 8)
    numbers = [list(map(int, r["frames"]["frame_index"])) for r in records[:2]]
    assert numbers == [list(range(3, 19)), list(range(30, 46))]
    images = records[4]["frames"]["image"]
    assert (records[4]["video_id"], len(images)) == (b"toy_swap/000_001", 16)
    assert images[1].shape == (4, 4, 3) and images[1][0, 0].tolist() == [4, 1, 0]


def test_group_is_the_youtube_video(tree, tmp_path):
    tree = _copy(tree, tmp_path)
    clips = {f"{i:03d}": f"video_{i // 2} {i % 2}" for i in range(8)}
    (tree / "conversion_dict.json").write_text(json.dumps(clips))
    prepared_tree.write_catalog(tree)
    records = _records(build.build("faceforensics", "toy", tree, tmp_path / "out"), "train")
    assert {(r["target_identity"], r["group_id"]) for r in records} == {
        (b"toy:000", b"video_0"),
        (b"toy:001", b"video_0"),
        (b"toy:002", b"video_1"),
        (b"toy:003", b"video_1"),
    }
    del clips["003"]
    (tree / "conversion_dict.json").write_text(json.dumps(clips))
    with pytest.raises(catalog.DownloadError, match="lacks 1 ids of the split lists, first 003"):
        prepared_tree.write_catalog(tree)


def _remove(unit, name):
    for folder in ("frames", "landmarks", "masks"):
        shutil.rmtree(unit / folder / name, ignore_errors=True)
    (unit / "meta" / f"{name}.json").unlink()


def _edit_catalog(tree, edit, compression="c23"):
    """Puts `edit(line)` in place of each line; None takes it out."""
    path = catalog.catalog_path(tree, "faceforensics", compression)
    lines = [edit(json.loads(text)) for text in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))


# Not in the catalog, as after --allow_missing; or there, and its video does not decode.
@pytest.mark.parametrize("outcome", [None, "unreadable_video"])
def test_missing_listed_video_is_an_error_that_names_it(tree, tmp_path, outcome):
    tree = _copy(tree, tmp_path)
    _remove(prepared_tree.fake_unit(tree, "ToySwap"), "002_003")
    gone = lambda line: outcome and line | {"outcome": outcome}
    _edit_catalog(tree, lambda line: gone(line) if "ToySwap/c23/002_003" in f"{line['unit']}/{line['stem']}" else line)
    with pytest.raises(
        PreparedDataError,
        match=r"1 listed videos are not prepared: toy_swap/002_003\. "
        r"Prepare them: python -m data_prep\.prepare --layout=faceforensics --root DOWNLOAD --out \S+ "
        "--compression=c23$",
    ):
        build.build("faceforensics", "toy", tree, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.array_record*"))


def test_only_the_first_twenty_missing_are_named(tmp_path):
    prepared_tree.write_lists(tmp_path)
    prepared_tree.write_video(prepared_tree.real_unit(tmp_path), "000")
    prepared_tree.write_video(prepared_tree.fake_unit(tmp_path, "FaceSwap"), "000_001")
    prepared_tree.write_catalog(tmp_path)
    with pytest.raises(PreparedDataError, match=r"38 listed videos .* and 18 more\. .*or build --config c23_p"):
        build.build("faceforensics", "c23", tmp_path, tmp_path / "out")


def test_config_whose_methods_were_not_prepared(tree, tmp_path):
    with pytest.raises(PreparedDataError, match="has none of deepfakes; it has real, toy_neural, toy_reenact"):
        build.build("faceforensics", "c23_df", tree, tmp_path / "out")


@pytest.mark.parametrize("config", ["toy", "toy_clip16", "c23_partial"])
def test_tree_of_before_there_was_a_catalog_is_prepared_again(tree, tmp_path, config):
    tree = _copy(tree, tmp_path)
    shutil.rmtree(tree / "catalog")
    with pytest.raises(PreparedDataError, match=r"no catalog .*c23\.jsonl.* Run prepare again, which leaves finished"):
        build.build("faceforensics", config, tree, tmp_path / "out")


def test_catalog_of_before_there_were_attributes_is_written_again(tree, tmp_path):
    old = _copy(tree, tmp_path)
    _edit_catalog(old, lambda line: line["fields"].pop("attributes") and line)
    with pytest.raises(PreparedDataError, match=r"before it held attributes\. Run prepare again.*--compression=c23$"):
        build.build("faceforensics", "toy", old, tmp_path / "out")
    old = _copy(tree, tmp_path / "twelve")
    _edit_catalog(old, lambda line: line["fields"]["attributes"].pop() is not None and line)
    with pytest.raises(PreparedDataError, match=r"line 1 is none .*expected 13 of 0, 1, None.*run prepare again"):
        build.build("faceforensics", "toy", old, tmp_path / "out")


def test_partial_takes_what_is_there_and_says_what_is_not(tmp_path, capsys):
    prepared_tree.write_lists(tmp_path / "tree")
    prepared_tree.write_video(prepared_tree.real_unit(tmp_path / "tree"), "000")
    prepared_tree.write_video(prepared_tree.fake_unit(tmp_path / "tree", "FaceSwap"), "000_001")
    prepared_tree.write_video(prepared_tree.fake_unit(tmp_path / "tree", "FaceSwap"), "006_007", mask=True)
    prepared_tree.write_catalog(tmp_path / "tree")
    folder = build.build("faceforensics", "c23_partial", tmp_path / "tree", tmp_path / "out")
    info = tfds.builder_from_directory(folder).info
    assert {name: split.num_examples for name, split in info.splits.items()} == {"train": 6, "test": 3}
    assert [bool(r["has_mask"]) for r in _records(folder, "train")] == [True] * 3 + [False] * 3
    out = capsys.readouterr().out
    assert "train: fake 1 videos 3 frames, real 1 videos 3 frames\n" in out
    assert "train: 3 fake frames have no mask" in out
    assert "validation" not in out
    assert "test: fake 1 videos 3 frames (one class only" in out


def test_nothing_there(tmp_path):
    unit = prepared_tree.fake_unit(tmp_path, "FaceSwap")
    prepared_tree.write_lists(tmp_path)
    prepared_tree.write_video(unit, "000_001")
    prepared_tree.write_catalog(tmp_path)
    _remove(unit, "000_001")
    with pytest.raises(PreparedDataError, match=r"1 videos that .* calls prepared are not there: .*/000_001\. Prepare"):
        build.build("faceforensics", "c23_partial", tmp_path, tmp_path / "out")
    prepared_tree.write_meta(unit, "000_001", ())
    prepared_tree.write_catalog(tmp_path)
    with pytest.raises(PreparedDataError, match="config c23_partial has no video with a usable frame"):
        build.build("faceforensics", "c23_partial", tmp_path, tmp_path / "out")


def test_video_without_a_usable_frame_is_reported(tree, tmp_path, capsys):
    tree = _copy(tree, tmp_path)
    _remove(prepared_tree.real_unit(tree), "004")
    prepared_tree.write_meta(prepared_tree.real_unit(tree), "004", ())
    prepared_tree.write_catalog(tree)
    folder = build.build("faceforensics", "toy", tree, tmp_path / "out")
    assert tfds.builder_from_directory(folder).info.splits["validation"].num_examples == 27
    said = "validation: no usable frame in 1 videos, which any score on it leaves out: 004 [no_face_video]"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no split list .*val.json"),
        ("[", "val.json is not JSON"),
        ('{"a": 1}', "must be a list of pairs"),
        ('[["004", "000"]]', "id 000 stands in both train.json and val.json"),
    ],
)
def test_bad_split_list(tree, tmp_path, text, message):
    tree = _copy(tree, tmp_path)
    (tree / "val.json").unlink()
    if text is not None:
        (tree / "val.json").write_text(text)
    with pytest.raises(PreparedDataError, match=message):
        build.build("faceforensics", "toy", tree, tmp_path / "out")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("manipulated_sequences/ToySwap/c23/frames/000_001/009.png", "not a readable PNG"),
        ("manipulated_sequences/ToySwap/c23/masks/000_001/009.png", "not a readable PNG"),
        ("original_sequences/youtube/c23/landmarks/000/009.npy", "not a landmarks file"),
        ("original_sequences/youtube/c23/meta/000.json", "not a meta file"),
    ],
)
def test_file_that_is_text_gives_one_line_and_leaves_nothing(tree, tmp_path, capsys, path, message):
    tree = _copy(tree, tmp_path)
    (tree / path).write_text("text")
    out = tmp_path / "out"
    code = build.main(["faceforensics", "--config", "toy", "--manual_dir", str(tree), "--data_dir", str(out)])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 1
    assert last.startswith(f"data_prep.build: {tree / path}: {message}")
    assert not list(out.rglob("dataset_info.json"))
    assert not list(out.rglob("*.array_record*"))


def test_names_that_do_not_exist_give_the_nearest(tmp_path):
    with pytest.raises(
        build.UnknownNameError, match=r"'faceforensic' to build; did you mean faceforensics or deeperforensics\?"
    ):
        build.build("faceforensic", "toy", tmp_path, tmp_path)
    with pytest.raises(
        build.UnknownNameError, match=r"no config 'c32'; did you mean c23\? There are: c23, c23_clip16, c23_df, "
    ):
        build.build("faceforensics", "c32", tmp_path, tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        build.build("faceforensics", "toy", tmp_path / "nowhere", tmp_path)


def test_built_set_is_left_alone_unless_overwritten(tree, tmp_path, capsys):
    tree = _copy(tree, tmp_path)
    folder = build.build("faceforensics", "toy", tree, tmp_path / "out")
    shutil.rmtree(prepared_tree.real_unit(tree) / "frames" / "002")
    build.build("faceforensics", "toy", tree, tmp_path / "out")
    assert "is built already" in capsys.readouterr().out
    # The failed second build must not cost the first.
    with pytest.raises(PreparedDataError, match="delete both and prepare 002 again"):
        build.build("faceforensics", "toy", tree, tmp_path / "out", overwrite=True)
    assert len(_records(folder, "train")) == 60
    shutil.rmtree(tree)
    prepared_tree.write_tree(tree, frames=(0,))
    build.build("faceforensics", "toy", tree, tmp_path / "out", overwrite=True)
    assert len(_records(folder, "train")) == 20


def test_command_line_in_a_process_without_tensorflow(tree, tmp_path):
    command = [sys.executable, "-m", "data_prep.build", "faceforensics", "--config", "toy"]
    command += ["--manual_dir", str(tree), "--data_dir", str(tmp_path)]
    # An import of tensorflow anywhere on the way fails, also where it is installed.
    (tmp_path / "block" / "tensorflow").mkdir(parents=True)
    (tmp_path / "block" / "tensorflow" / "__init__.py").write_text("raise ImportError('no TensorFlow here')")
    environment = {"PYTHONPATH": f"{tmp_path / 'block'}:{ROOT}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "faceforensics/toy train: 60 frames" in done.stdout
    assert (tmp_path / "faceforensics" / "toy" / "1.2.0" / "dataset_info.json").exists()


def test_full_disk_gives_one_line_and_leaves_nothing(tree, tmp_path):
    # A limit on the size of files stands for the full disk.
    code = (
        "import resource, signal, sys\n"
        "from data_prep import build\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))\n"
        "sys.exit(build.main(sys.argv[1:]))"
    )
    args = [
        "faceforensics",
        "--config",
        "toy",
        "--manual_dir",
        str(tree),
        "--data_dir",
        str(tmp_path / "out"),
    ]
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "is the disk full?" in done.stderr.strip().splitlines()[-1]
    assert not list((tmp_path / "out").rglob("*"))


def test_tfds_build_finds_the_builder(tmp_path):
    # What `tfds build data_prep/faceforensics` does to load it, in a process of its own: names register once.
    code = (
        "from tensorflow_datasets.scripts.cli import build\n"
        "cls, _ = build._get_builder_cls_and_kwargs('data_prep/faceforensics', has_imports=False)\n"
        "print(cls.name, sorted(cls.builder_configs))\n"
        "cls(config='toy', data_dir='unused').info.features['label']"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("faceforensics ['c23', 'c23_clip16', 'c23_df', 'c23_df_clip16', 'c23_f2f', ")
