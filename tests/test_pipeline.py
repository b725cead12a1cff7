import collections
import dataclasses
import itertools
import json

import numpy as np
import prepared_tree
import pytest

from data_prep import build
from msddf_jax.data import pipeline, schema
from msddf_jax.data import source as sources


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    build.build("faceforensics", "toy", prepared_tree.write_tree(folder / "tree"), folder / "built")
    return folder / "built"


@pytest.fixture(scope="module")
def source(data_dir):
    return sources.open_source("faceforensics/toy", "train", data_dir)  # 12 real and 48 fake frames


def _train(source, **kwargs):
    settings = {"batch_size": 8, "num_threads": 0, "process_index": 0, "process_count": 1}
    return pipeline.train_batches(source, **(settings | kwargs))


def _take(batches, number):
    return list(itertools.islice(batches, number))


def _keys(batches):
    return [
        (video, int(frame))
        for batch in batches
        for video, frame in zip(batch["video_id"], batch["frame_index"], strict=True)
    ]


def _assert_equal(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_batch_has_the_fields_of_the_schema(source):
    table = sources.identity_table(source)
    batch = next(_train(source, batch_size=6, group={"fake": 2}, identities=table))
    assert set(batch) == set(schema.DEVICE_FIELDS) | set(schema.HOST_FIELDS)
    device = schema.device_batch(batch)
    shapes = {name: value.shape for name, value in device.items()}
    assert shapes == {
        "image": (6, 16, 16, 3),
        "mask": (6, 16, 16, 1),
        "has_mask": (6,),
        "landmarks": (6, 81, 2),
        "has_landmarks": (6,),
        "label": (6,),
        "method": (6,),
        "identity": (6,),
        "donor": (6,),
        "domain": (6,),
        "attributes": (6, 13),
        "has_attributes": (6, 13),
        "group": (6,),
        "_mask": (6,),
    }
    assert device["_mask"].all()
    assert batch["label"].tolist() == [0, 1, 1, 0, 1, 1]
    assert [table[name] for name in batch["target_identity"]] == batch["identity"].tolist()
    assert [table[name] for name in batch["source_identity"]] == batch["donor"].tolist()
    assert batch["frame_index"].dtype == np.int32
    assert all(isinstance(name, str) for name in batch["video_id"])


def test_identity_is_unknown_without_a_table(source):
    batch = next(_train(source))
    assert (batch["identity"] == -1).all() and (batch["donor"] == -1).all()


def test_a_donor_who_is_no_target_is_unknown(source):
    batch = next(_train(source, identities={"toy:000": 0}))
    for ours, theirs in (("identity", "target_identity"), ("donor", "source_identity")):
        assert batch[ours].tolist() == [0 if name == "toy:000" else -1 for name in batch[theirs]]
    assert (batch["donor"] != batch["identity"]).any()


def test_a_row_says_which_set_it_is_of(data_dir):
    mixed = sources.open_sources("faceforensics/toy,faceforensics/toy:test", "train", data_dir)
    second = set(sources.open_source("faceforensics/toy", "test", data_dir).videos["video_id"])
    batches = _take(_train(mixed, batch_size=8), 10)
    for batch in batches:
        assert batch["domain"].tolist() == [int(video in second) for video in batch["video_id"]]
    assert set(np.concatenate([batch["domain"] for batch in batches])) == {0, 1}
    last = list(pipeline.eval_batches(mixed, batch_size=64, num_threads=0))[-1]
    assert (last["domain"][~last["_mask"]] == -1).all() and (last["domain"][last["_mask"]] == 1).all()
    assert not last["_mask"].all()


@pytest.mark.parametrize("group", [(1, 1), (1, 3), (2, 2), (2, 1), (1, 0)])
def test_each_group_is_of_one_source_video(source, group):
    rows = sum(group)
    for batch in _take(_train(source, batch_size=4 * rows, group=schema.Group(*group)), 6):
        videos = np.where(batch["label"] == 0, batch["video_id"], batch["pair_id"]).reshape(4, rows)
        assert (videos == videos[:, :1]).all()
        labels = batch["label"].reshape(4, rows)
        assert labels.tolist() == [[0] * group[0] + [1] * group[1]] * 4
        frames = batch["frame_index"].reshape(4, rows)
        if group[0] == 1:
            assert (frames == frames[:, :1]).all()


def test_an_epoch_is_every_real_once_in_another_order_with_other_fakes(source):
    batches = _train(source)
    epochs = [_keys(_take(batches, 3)) for _ in range(4)]  # 12 groups of 2 rows are 3 batches of 8
    reals = [epoch[::2] for epoch in epochs]
    everything = sorted((f"{i:03d}", frame) for i in range(4) for frame in prepared_tree.FRAMES)
    assert all(sorted(epoch) == everything for epoch in reals)
    assert len({tuple(epoch) for epoch in reals}) == 4
    partners = [dict(zip(epoch[::2], epoch[1::2], strict=True)) for epoch in epochs]
    assert all(a != b for a, b in itertools.combinations(partners, 2))


def test_the_order_depends_on_the_seed_alone(source):
    first = _take(_train(source, seed=3), 7)
    _assert_equal(first, _take(_train(source, seed=3), 7))
    _assert_equal(first, _take(_train(source, seed=3, num_threads=3), 7))
    for other in (2, 4, 5):
        assert _keys(first) != _keys(_take(_train(source, seed=other), 7))


def test_the_draws_of_a_seed_stay_what_they_were(source):
    # Published figures depend on them: as drawn by the version before groups had names.
    pairs = [("000", 0), ("toy_texture/000_001", 0), ("001", 0), ("toy_swap/001_000", 0), ("003", 10)]
    pairs += [("toy_neural/003_002", 10), ("000", 10), ("toy_texture/000_001", 10)]
    assert _keys([next(_train(source, seed=3))]) == pairs
    groups = [("000", 0), ("000", 10), ("toy_reenact/000_001", 0), ("toy_swap/000_001", 10), ("toy_texture/000_001", 0)]
    groups += [("001", 0), ("001", 10), ("toy_neural/001_000", 0), ("toy_swap/001_000", 10), ("toy_texture/001_000", 0)]
    assert _keys([next(_train(source, seed=3, batch_size=20, group=schema.Group(2, 3)))])[:10] == groups


def test_seeds_beside_each_other_share_no_epoch(source):
    # Grain's shuffle of epoch e with seed s is that of epoch e + 1 with seed s - 1: seeds are hashed before.
    def epochs(seed):
        batches = _train(source, seed=seed)
        return {tuple(_keys(_take(batches, 3))[::2]) for _ in range(4)}

    assert not epochs(0) & epochs(1)


@pytest.mark.parametrize("num_threads", [0, 3])
@pytest.mark.parametrize("done", [0, 1, 4])
def test_a_restored_state_gives_the_same_batches(source, done, num_threads):
    batches = _train(source, num_threads=num_threads, seed=1)
    _take(batches, done)
    state = pipeline.encode_state(batches.get_state())
    expected = _take(batches, 6)  # crosses two epochs
    json.loads(state)
    fresh = _train(source, num_threads=3 - num_threads, seed=1)
    fresh.set_state(pipeline.decode_state(state))
    _assert_equal(_take(fresh, 6), expected)
    batches.set_state(pipeline.decode_state(state))  # and back, on an iterator that has run ahead
    _assert_equal(_take(batches, 6), expected)


def test_state_of_other_data_or_settings_is_refused(source, data_dir):
    state = _train(source, seed=1).get_state()
    less = sources.open_source("faceforensics/toy", "train", data_dir, max_frames=2)
    for other, message in (
        (_train(source, seed=2), "seed: 1 then, 2 now"),
        (
            _train(source, seed=1, group={"fake": 3}),
            r"group: {.*'fake': 1.*} then, {.*'fake': 3.*} now",
        ),
        (_train(less, seed=1), "records: "),
        (_train(source, seed=1, batch_size=16), "batch_size: 8 then, 16 now"),
    ):
        with pytest.raises(ValueError, match=f"of another order.*{message}"):
            other.set_state(state)


def _of_processes(source, count, batches, **settings):
    """Batches put together of those of `count` processes, and the state that each of them then has."""
    parts = [_train(source, process_index=i, process_count=count, **settings) for i in range(count)]
    if "state" in (given := dict(batches)):
        for part in parts:
            part.set_state(given["state"])
    joined = []
    for _ in range(given["number"]):
        shares = [next(part) for part in parts]
        joined.append({name: np.concatenate([share[name] for share in shares]) for name in shares[0]})
    states = [part.get_state() for part in parts]
    assert all(state == states[0] for state in states)  # one checkpoint serves all
    return joined, states[0]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_any_number_of_processes_reads_the_same_batches(source, count):
    settings = {"batch_size": 24, "seed": 7, "num_threads": 2}
    alone, state = _of_processes(source, 1, {"number": 5}, **settings)
    shared, there = _of_processes(source, count, {"number": 5}, **settings)
    _assert_equal(shared, alone)
    assert state == there
    further, _ = _of_processes(source, 1, {"number": 3, "state": state}, **settings)
    taken_over, _ = _of_processes(source, count, {"number": 3, "state": state}, **settings)
    _assert_equal(taken_over, further)


def test_no_example_is_lost_or_seen_twice_where_batches_do_not_divide_an_epoch(source):
    # 12 groups, 5 a batch, by five processes: 12 batches are five epochs.
    joined, _ = _of_processes(source, 5, {"number": 12}, batch_size=10, seed=7)
    reals = [key for batch in joined for key in _keys([batch])[::2]]
    epochs = [reals[start : start + 12] for start in range(0, 60, 12)]
    assert all(len(set(epoch)) == 12 for epoch in epochs)


@pytest.mark.parametrize(("batch_size", "count"), [(1, 1), (7, 1), (16, 1), (60, 1), (64, 1), (4, 2), (14, 2), (90, 3)])
def test_evaluation_keeps_every_example_once(source, batch_size, count):
    seen, lengths, padding = collections.Counter(), set(), 0
    for index in range(count):
        batches = pipeline.eval_batches(
            source, batch_size=batch_size, num_threads=0, process_index=index, process_count=count
        )
        given = list(batches)
        lengths |= {len(batches), len(given)}
        for batch in given:
            shapes = {name: value.shape for name, value in schema.device_batch(batch).items()}
            assert shapes["image"] == (batch_size // count, 16, 16, 3)
            assert all(shape[0] == batch_size // count for shape in shapes.values())
            assert all(len(batch[name]) == batch_size // count for name in schema.HOST_FIELDS)
            keep = batch["_mask"]
            seen.update(zip(batch["video_id"][keep], batch["frame_index"][keep].tolist(), strict=True))
            padding += int((~keep).sum())
            assert not batch["image"][~keep].any()
            assert (batch["group"] == -1).all()
            assert (batch["frame_index"][~keep] == -1).all()
            assert set(batch["video_id"][~keep]) <= {""}
    expected = zip(source.column("video_id").tolist(), source.frame_index.tolist(), strict=True)
    assert seen == collections.Counter(expected)
    assert lengths == {-(-60 // batch_size)}
    assert padding == lengths.pop() * batch_size - 60


def test_evaluation_is_in_the_order_of_the_source_and_repeatable(source):
    batches = pipeline.eval_batches(source, batch_size=16, num_threads=3, identities={"toy:002": 5})
    first = list(batches)
    keys = [key for key in _keys(first) if key[0]]
    assert keys == list(zip(source.column("video_id").tolist(), source.frame_index.tolist(), strict=True))
    _assert_equal(first, list(batches))
    identity = np.concatenate([batch["identity"][batch["_mask"]] for batch in first])
    assert identity.tolist() == [5 if name == "toy:002" else -1 for name in source.column("target_identity")]


@pytest.mark.parametrize("function", [pipeline.train_batches, pipeline.eval_batches])
def test_image_size_must_be_the_stored_one(source, function):
    function(source, batch_size=8, image_size=16)
    with pytest.raises(ValueError, match=r"image_size is 32, the images of .*toy:train are 16x16: .*--size 32"):
        function(source, batch_size=8, image_size=32)
    videos = source.videos | {"width": np.where(np.arange(20) == 7, 8, 16)}
    with pytest.raises(ValueError, match="a batch takes one"):
        function(dataclasses.replace(source, videos=videos), batch_size=8)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 7}, r"batch_size 7 is not a multiple of 2: 2 rows a group \(1 real, 1 fake\) x 1 processes"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"batch_size": 6, "process_count": 2}, "not a multiple of 4"),
        ({"process_index": 1}, "process_index 1 is not below process_count 1"),
        ({"process_index": None}, "give both or none"),
    ],
)
def test_wrong_sizes(source, kwargs, message):
    with pytest.raises(ValueError, match=message):
        _train(source, **kwargs)


def test_wrong_evaluation_sizes(source):
    with pytest.raises(ValueError, match="batch_size 5 is not a multiple of the 2 processes"):
        pipeline.eval_batches(source, batch_size=5, process_index=0, process_count=2)


def test_a_record_that_does_not_decode_stops_with_its_place(source):
    # The index says 16 pixels; a record of another size must not pass silently.
    videos = source.videos | {"height": np.full(20, 8), "width": np.full(20, 8)}
    batches = pipeline.eval_batches(dataclasses.replace(source, videos=videos), batch_size=4, num_threads=2)
    with pytest.raises(ValueError, match=r"toy:train record \d+ decodes to uint8 \(16, 16, 3\), the index says"):
        next(iter(batches))


def test_records_that_do_not_fit_into_a_batch_are_refused(source):
    class Other:
        name, clip_length = "other", 0

        def __init__(self, **fields):
            self.fields = fields

        def __getitem__(self, index):
            return source[index] | self.fields

    batch = pipeline.collect(Other(), [3, None, 1], image_size=(16, 16))
    assert batch["_mask"].tolist() == [True, False, True]
    np.testing.assert_array_equal(batch["image"][[0, 2]], [source[3]["image"], source[1]["image"]])
    with pytest.raises(ValueError, match=r"other record 3: image is \(8, 8, 3\), expected \(16, 16, 3\)"):
        pipeline.collect(Other(image=np.zeros((8, 8, 3), np.uint8)), [3], image_size=(16, 16))
    with pytest.raises(TypeError, match=r"float64.*uint8"):
        pipeline.collect(Other(image=np.zeros((16, 16, 3))), [3], image_size=(16, 16))


@pytest.mark.parametrize("batch_size", [64, 65, 130, 2 * 67, 192])
def test_batches_of_any_size_are_the_records_in_order(source, batch_size):
    # 67 is prime, and more than a thread reads at once.
    (batch,) = pipeline.eval_batches(source, batch_size=batch_size, num_threads=2)
    for name in (*schema.DEVICE_FIELDS, *schema.HOST_FIELDS):
        expected = np.stack([source[i][name] for i in range(len(source))])
        np.testing.assert_array_equal(batch[name][: len(source)], expected, err_msg=name)
    assert batch["_mask"].sum() == len(source) == 60


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    # Of every video two clips, frames 0 to 15 and 20 to 35; one frame of one fake has no mask.
    folder, frames = tmp_path_factory.mktemp("clips"), (*range(16), *range(20, 36))
    pairs = {split: [(f"00{i}", f"00{i + 1}")] for split, i in (("train", 0), ("val", 2), ("test", 4))}
    tree = prepared_tree.write_tree(folder / "tree", pairs=pairs, frames=frames, size=8)
    (tree / "manipulated_sequences/ToySwap/c23/masks/000_001/003.png").unlink()
    build.build("faceforensics", "toy_clip16", tree, folder / "built")
    return sources.open_source("faceforensics/toy_clip16", "train", folder / "built")


def test_a_clip_is_opened_frame_by_frame(clips):
    assert (len(clips), clips.clip_length, clips.image_size) == (2 * 2 * 5, 16, (8, 8))
    keys = list(zip(clips.column("video_id").tolist(), clips.frame_index.tolist(), strict=True))
    record = clips[keys.index(("toy_neural/001_000", 20))]
    assert record["image"].shape == (16, 8, 8, 3) and record["landmarks"].shape == (16, 81, 2)
    assert record["image"][:, 0, 0].tolist() == [[frame, 3, 0] for frame in range(20, 36)]
    masks = np.stack([prepared_tree.mask_of(frame, 8) for frame in range(20, 36)])
    np.testing.assert_array_equal(record["mask"], masks[..., None])
    np.testing.assert_array_equal(record["landmarks"][:, 0, 0], np.arange(20, 36) / 16)
    assert record["has_mask"] and record["has_landmarks"] and record["frame_index"] == 20
    # One frame of this clip has no mask: there is none of the clip.
    partial = clips[keys.index(("toy_swap/000_001", 0))]
    assert not partial["has_mask"] and not partial["mask"].any() and partial["mask"].shape == (16, 8, 8, 1)
    assert clips[keys.index(("toy_swap/000_001", 20))]["has_mask"] and clips[keys.index(("000", 0))]["has_mask"]


def test_clips_in_batches(clips):
    batch = next(_train(clips, batch_size=6, group={"fake": 2}, clip_length=16, image_size=8))
    shapes = {name: value.shape for name, value in schema.device_batch(batch).items()}
    assert shapes["image"] == (6, 16, 8, 8, 3) and shapes["mask"] == (6, 16, 8, 8, 1)
    assert shapes["landmarks"] == (6, 16, 81, 2) and shapes["has_mask"] == shapes["label"] == (6,)
    frames = batch["image"][:, :, 0, 0, 0]
    np.testing.assert_array_equal(frames, batch["frame_index"][:, None] + np.arange(16))
    assert (batch["frame_index"][[0, 3]] == batch["frame_index"][[1, 4]]).all()
    seen = list(pipeline.eval_batches(clips, batch_size=12, clip_length=16, num_threads=2))
    assert [b["image"].shape for b in seen] == [(12, 16, 8, 8, 3)] * 2
    assert sum(b["_mask"].sum() for b in seen) == 20 and not seen[1]["image"][8:].any()


def test_clips_for_frames_and_frames_for_clips_are_refused(clips, source):
    for make in (pipeline.train_batches, pipeline.eval_batches):
        with pytest.raises(ValueError, match="asks for frames, faceforensics/toy_clip16:train holds clips of 16"):
            make(clips, batch_size=8)
        with pytest.raises(ValueError, match="asks for clips of 16 frames, faceforensics/toy:train holds frames"):
            make(source, batch_size=8, clip_length=16)
    with pytest.raises(ValueError, match=r"asks for clips of 8 frames, .* holds clips of 16 frames"):
        pipeline.check_image_size(clips, 8, 8)
