import csv

import numpy as np
import prepared_tree
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from data_prep import build, records
from data_prep.layout import PreparedDataError
from msddf_jax.data import source


def _read(path):
    reader = array_record_module.ArrayRecordReader(str(path))
    return [reader.read([i])[0] for i in range(reader.num_records())]


def test_shards_close_at_their_size_and_keep_the_order(tmp_path):
    data = [bytes([i]) * (10 * i + 1) for i in range(8)]  # 1 11 21 31 41 51 61 71 bytes
    with records.ShardWriter(tmp_path, max_bytes=70) as writer:
        for record in data:
            writer.write(record)
    assert writer.lengths == [4, 1, 1, 1, 1]
    assert writer.num_bytes == 288
    assert [record for path in writer.paths for record in _read(path)] == data


def test_write_to_a_folder_that_is_gone_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="gone failed"):
        records.ShardWriter(tmp_path / "gone", 100).write(b"x")


def test_index_columns_are_those_that_the_loader_reads():
    assert records.INDEX_COLUMNS == source._INDEX_COLUMNS


def test_png_size_is_read_from_the_header(tmp_path):
    prepared_tree.write_video(tmp_path, "000", size=16)
    assert records.png_size((tmp_path / "frames" / "000" / "000.png").read_bytes()) == (16, 16)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return prepared_tree.write_tree(tmp_path_factory.mktemp("prepared"))


def _prepare(tree, data_dir, **config):
    builder = build.make_builder("faceforensics", "toy", data_dir)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tree, **config))
    return builder


def test_many_shards_are_read_back_in_order(tree, tmp_path):
    builder = _prepare(tree, tmp_path, max_shard_size=20_000)
    assert len(builder.info.splits["train"].shard_lengths) > 3
    assert not list(builder.data_path.glob("*.partial"))
    with open(builder.data_path / "index-train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(row["video_id"], int(i)) for row in rows for i in row["frame_index"].split()]
    built = builder.as_data_source("train")
    assert [(r["video_id"].decode(), int(r["frame_index"])) for r in built] == expected
    assert [int(row["first_record"]) for row in rows] == list(np.arange(len(rows)) * 3)


def test_max_examples_per_split(tree, tmp_path):
    builder = _prepare(tree, tmp_path, max_examples_per_split=5)
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        "train": 5,
        "validation": 5,
        "test": 5,
    }
    assert len(source.open_source("faceforensics/toy", "train", tmp_path)) == 5


def test_num_shards_is_refused(tree, tmp_path):
    with pytest.raises(ValueError, match="num_shards"):
        _prepare(tree, tmp_path, num_shards=2)


def test_other_file_formats_are_refused(tmp_path):
    cls = type(build.make_builder("faceforensics", "toy", tmp_path))
    with pytest.raises(ValueError, match="only array_record"):
        cls(config="toy", data_dir=tmp_path, file_format="tfrecord")


def test_frames_of_two_sizes_are_refused(tmp_path):
    tree = prepared_tree.write_tree(tmp_path / "tree")
    prepared_tree.write_video(prepared_tree.real_unit(tree), "003", size=18)
    with pytest.raises(PreparedDataError, match=r"two sizes: .*16x16, .*003/000\.png is 18x18; .*--size"):
        _prepare(tree, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("dataset_info.json"))
