import dataclasses
import re
import shutil

import numpy as np
import prepared_tree
import pytest
from made_source import make_record, make_source
from tensorflow_datasets.proto import tf_example_pb2

from data_prep import build
from msddf_jax.data import methods, schema
from msddf_jax.data import source as sources

TOY = ["toy_swap", "toy_reenact", "toy_neural", "toy_texture"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    build.build("faceforensics", "toy", prepared_tree.write_tree(folder / "tree"), folder / "built")
    build.build("faceforensics", "c23_partial", prepared_tree.write_partial(folder / "partial"), folder / "built")
    return folder / "built"


def _open(data_dir, **kwargs):
    return sources.open_source("faceforensics/toy", "train", data_dir, **kwargs)


def _partial(data_dir, **kwargs):
    return sources.open_source("faceforensics/c23_partial", "train", data_dir, **kwargs)


def _ids(source):
    return list(zip(source.column("video_id").tolist(), source.frame_index.tolist(), strict=True))


def test_record_is_decoded_to_the_fields_of_a_batch(data_dir):
    source = _open(data_dir)
    assert len(source) == 60
    index = _ids(source).index(("toy_neural/003_002", 9))
    record = source[index]
    assert set(record) == set(schema.DEVICE_FIELDS) | set(schema.HOST_FIELDS)
    for name, dtype in schema.DEVICE_FIELDS.items():
        assert np.asarray(record[name]).dtype == dtype, name
    assert record["image"].shape == (16, 16, 3)
    assert record["image"][0, 0].tolist() == [9, 3, 0]
    np.testing.assert_array_equal(record["mask"][..., 0], prepared_tree.mask_of(9, 16))
    np.testing.assert_array_equal(record["landmarks"][68], [77 + 9 / 16, 154])
    assert record["has_mask"]
    assert record["has_landmarks"]
    assert (record["label"], record["method"], record["identity"]) == (
        1,
        methods.METHODS.index("toy_neural"),
        -1,
    )
    assert {name: record[name] for name in schema.HOST_FIELDS} == {
        "dataset": "toy",
        "video_id": "toy_neural/003_002",
        "pair_id": "003",
        "group_id": "003",
        "source_identity": "toy:002",
        "target_identity": "toy:003",
        "frame_index": 9,
        "compression": "c23",
        "source_path": "manipulated_sequences/ToyNeural/c23/frames/003_002/009.png",
    }


def test_every_record_is_the_one_that_the_index_says(data_dir):
    source = _open(data_dir)
    for i in range(len(source)):
        record = source[i]
        method = 0 if record["label"] == 0 else 1 + TOY.index(methods.METHODS[record["method"]])
        assert record["image"][0, 0].tolist() == [record["frame_index"], method, 0]
        assert record["source_path"].endswith(f"{record['video_id'].split('/')[-1]}/{record['frame_index']:03d}.png")


def test_real_has_an_empty_known_mask_and_a_fake_without_one_is_flagged(data_dir):
    source = _partial(data_dir)
    ids = _ids(source)
    real, fake = source[ids.index(("000", 0))], source[ids.index(("faceswap/000_001", 1))]
    assert (real["has_mask"], real["mask"].any()) == (True, False)
    assert (fake["has_mask"], fake["mask"].any()) == (False, False)


def test_record_that_rotted_on_disk_is_named(data_dir):
    source = _open(data_dir)
    raw = bytearray(source.readers[0][0])
    # Within the pixels of each PNG, the first of which may be a real's mask, which is not read: the order of the fields
    # differs from build to build.
    for match in re.finditer(b"IDAT", bytes(raw)):
        start = match.start()
        length = int.from_bytes(raw[start - 4 : start], "big")
        raw[start + 4 : start + 4 + length] = bytes(length)
    rotten = dataclasses.replace(source, readers=([bytes(raw)],))
    with pytest.raises(ValueError, match=r"faceforensics/toy:train record 0: its (RGB|L) PNG does not decode"):
        rotten[0]
    cut = dataclasses.replace(source, readers=([source.readers[0][0][:100]],))
    with pytest.raises(ValueError, match=r"faceforensics/toy:train record 0 is no record that data_prep.build writes"):
        cut[0]


def test_a_mask_that_should_be_there_is_never_zeros(data_dir):
    # An empty PNG where the record says that there is a mask.
    source = _open(data_dir)
    index = _ids(source).index(("toy_neural/003_002", 9))
    example = tf_example_pb2.Example.FromString(source.readers[0][int(source.record[index])])
    example.features.feature["mask"].bytes_list.value[0] = b""
    empty = dataclasses.replace(source, readers=({int(source.record[index]): example.SerializeToString()},))
    with pytest.raises(ValueError, match=r"its L PNG does not decode \(0 bytes\)"):
        empty[index]


def test_index_out_of_range(data_dir):
    source = _open(data_dir)
    with pytest.raises(IndexError, match="record 60 of faceforensics/toy:train, which has 60"):
        source[60]
    with pytest.raises(IndexError):
        source[-1]


def test_methods_keep_the_reals(data_dir):
    source = _open(data_dir, methods=["toy_neural", "toy_swap"])
    assert set(source.column("method")) == {"real", "toy_neural", "toy_swap"}
    assert len(source) == 12 + 2 * 12
    assert [source[i]["video_id"] for i in range(len(source))] == source.column("video_id").tolist()
    assert set(_open(data_dir, methods=()).column("method")) == {"real"}


@pytest.mark.parametrize(("number", "frames"), [(1, [0]), (2, [0, 10]), (3, [0, 9, 10]), (9, [0, 9, 10])])
def test_max_frames_are_spread_over_the_video(data_dir, number, frames):
    source = _open(data_dir, max_frames=number)
    assert source.frame_index.tolist() == frames * 20
    assert source.first.tolist() == [len(frames) * i for i in range(20)]
    assert [int(source[i]["image"][0, 0, 0]) for i in range(len(frames))] == frames


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"methods": ["toy_swop"]}, "no manipulation 'toy_swop'; did you mean toy_swap"),
        ({"methods": ["real"]}, r"no manipulation 'real'.*There are: toy_neural, .*\(reals always stay\)"),
        ({"methods": "toy_swap"}, "expected a list of names"),
        ({"max_frames": 0}, "max_frames 0: expected at least 1"),
        ({"split": "val"}, "has no split 'val'.*There are: .*validation"),
        ({"name": "toy"}, '"<data set>/<config>"'),
    ],
)
def test_wrong_arguments(data_dir, kwargs, message):
    arguments = {"name": "faceforensics/toy", "split": "train", "data_dir": data_dir} | kwargs
    with pytest.raises(ValueError, match=message):
        sources.open_source(**arguments)


def test_set_that_is_not_built_gives_the_command(data_dir, tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match="data set faceforensics/tow is not built: looked in .*faceforensics/tow; did you mean "
        r"faceforensics/toy\? There are: faceforensics/c23_partial, faceforensics/toy\. Build it: "
        "python -m data_prep.build faceforensics --config tow --manual_dir PREPARED_FOLDER --data_dir",
    ):
        sources.open_source("faceforensics/tow", "train", data_dir)
    with pytest.raises(FileNotFoundError, match="There are: none"):
        sources.open_source("faceforensics/toy", "train", tmp_path)


def _copy(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "built")
    return tmp_path / "built", tmp_path / "built" / "faceforensics" / "toy" / "1.2.0"


def test_missing_index_or_records_give_the_command(data_dir, tmp_path):
    copy, folder = _copy(data_dir, tmp_path)
    (folder / "index-train.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"no index .*index-train\.csv; .* --overwrite"):
        _open(copy)
    next(folder.glob("*validation.array_record*")).unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of its files, first .*validation"):
        sources.open_source("faceforensics/toy", "validation", copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-1], "lists 57 records, the split has 60"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "not in the order of the records"),
        (lambda lines: [lines[0].replace("method", "way"), *lines[1:]], "expected .*'method'"),
        (
            lambda lines: [lines[0], lines[1].replace("real,real", "real,magic"), *lines[2:]],
            r"unknown method \[",
        ),
        (lambda lines: [lines[0], lines[1].replace("0 9 10", "0 9"), *lines[2:]], "num_records disagree"),
    ],
    ids=["short", "order", "columns", "method", "frames"],
)
def test_index_that_does_not_fit(data_dir, tmp_path, change, message):
    copy, folder = _copy(data_dir, tmp_path)
    path = folder / "index-train.csv"
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(ValueError, match=message):
        _open(copy)


def test_identity_table_is_sorted_and_of_the_targets(data_dir):
    assert sources.identity_table(_open(data_dir)) == {"toy:000": 0, "toy:001": 1, "toy:002": 2, "toy:003": 3}
    assert sources.identity_table(_partial(data_dir)) == {"ff:000": 0, "ff:001": 1, "ff:002": 2, "ff:003": 3}


def test_mixed_sources_are_one_after_the_other(data_dir):
    first = _open(data_dir, methods=["toy_swap"], max_frames=2)
    second = _partial(data_dir)
    mixed = sources.mix_sources([first, second])
    assert len(mixed) == len(first) + len(second)
    assert _ids(mixed) == _ids(first) + _ids(second)
    for i in (0, len(first) - 1, len(first), len(mixed) - 1):
        expected = first[i] if i < len(first) else second[i - len(first)]
        assert mixed[i]["source_path"] == expected["source_path"]
        np.testing.assert_array_equal(mixed[i]["image"], expected["image"])
        # Each set is a domain of its own.
        assert mixed[i]["domain"] == (i >= len(first)) and expected["domain"] == 0
    assert set(mixed.column("dataset")) == {"toy", "faceforensics"}
    for video, (start, count) in enumerate(zip(mixed.first, mixed.count, strict=True)):
        assert (mixed.video[start : start + count] == video).all()


def test_mix_refuses_the_same_video_twice(data_dir):
    with pytest.raises(ValueError, match="video toy/c23/000 stands twice"):
        sources.mix_sources([_open(data_dir), _open(data_dir)])
    with pytest.raises(ValueError, match="at least one"):
        sources.mix_sources([])


def test_names_of_several_sets(data_dir):
    open_both = lambda name, **kwargs: sources.open_sources(name, "train", data_dir, **kwargs)
    assert _ids(open_both("faceforensics/toy", max_frames=2)) == _ids(_open(data_dir, max_frames=2))
    assert _ids(open_both("faceforensics/toy:test")) == _ids(sources.open_source("faceforensics/toy", "test", data_dir))
    # A set keeps what it has of the methods; the toy set has none.
    mixed = open_both("faceforensics/toy:test, faceforensics/c23_partial", methods=("faceswap",), max_frames=1)
    assert mixed.sets == ("faceforensics/toy:test", "faceforensics/c23_partial:train")
    videos = ["006", "007", "000", "001", "002", "faceswap/000_001", "faceswap/003_002"]
    assert mixed.column("video_id").tolist() == videos
    with pytest.raises(ValueError, match=r"c23_partial:train has no manipulation 'toy_swop'; did you mean toy_swap"):
        open_both("faceforensics/toy,faceforensics/c23_partial", methods=("deepfakes", "toy_swop"))
    with pytest.raises(ValueError, match="has no split 'tset'; did you mean test"):
        open_both("faceforensics/toy:tset,faceforensics/c23_partial")
    with pytest.raises(ValueError, match='expected "<data set>/<config>"'):
        open_both("faceforensics/toy,")


def test_mix_refuses_two_forms():
    small = make_source([("a", "real", "", 1)], name="toy/small:train")
    large = make_source([("b", "real", "", 1)], name="toy/large:train", size=16)
    with pytest.raises(
        ValueError, match=r"small:train has frames of 8x8, toy/large:train has frames of 16x16; .*--size"
    ):
        sources.mix_sources([small, large])
    clips = dataclasses.replace(large, name="toy/large_clip16:train", clip_length=16)
    with pytest.raises(ValueError, match=r"large:train has frames of 16x16, .* has clips of 16 frames of 16x16"):
        sources.mix_sources([large, clips])


def test_attributes_are_known_one_by_one():
    source = make_source([("a", "deepfakes", "", 1)])
    stored = [1.0, 0.0, np.nan] + [0.0] * 9 + [1.0]
    record = dataclasses.replace(source, readers=([make_record(0, "deepfakes", 0, 8, stored)],))[0]
    assert record["attributes"].tolist() == [1, 0, 0] + [0] * 9 + [1]
    assert record["has_attributes"].tolist() == [True, True, False] + [True] * 10
    assert not source[0]["has_attributes"].any()


def test_records_of_the_time_of_twelve_attributes_are_refused(data_dir, tmp_path):
    copy, folder = _copy(data_dir, tmp_path)
    path = folder / "features.json"
    text = path.read_text()
    assert text.count('"13"') == 1
    path.write_text(text.replace('"13"', '"12"'))
    again = "this version reads 13 of them; build the set again: python -m data_prep.build faceforensics .*--overwrite"
    with pytest.raises(ValueError, match=rf"toy/1.2.0 holds attributes of shape \(12,\), {again}"):
        _open(copy)


def test_images_of_two_sizes(data_dir):
    source = _open(data_dir)
    assert source.image_size == (16, 16)
    videos = source.videos | {"height": np.where(np.arange(20) < 3, 8, 16)}
    with pytest.raises(ValueError, match=r"sizes \[\(8, 16\), \(16, 16\)\].*--size"):
        _ = dataclasses.replace(source, videos=videos).image_size
