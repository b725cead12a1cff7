"""Groups: which reals and fakes stand together, and that every row keeps its record's own label and method."""

import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import prepared_tree
import pytest
from made_source import make_source

from data_prep import build
from msddf_jax.data import groups as grouping
from msddf_jax.data import methods, pipeline, schema
from msddf_jax.data import source as sources

TOY = ["toy_swap", "toy_reenact", "toy_neural", "toy_texture"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    build.build("faceforensics", "toy", prepared_tree.write_tree(folder / "tree"), folder / "built")
    build.build("faceforensics", "c23_partial", prepared_tree.write_partial(folder / "partial"), folder / "built")
    return folder / "built"


def _open(data_dir, **kwargs):
    return sources.open_source("faceforensics/toy", "train", data_dir, **kwargs)


def _partial(data_dir, **kwargs):
    return sources.open_source("faceforensics/c23_partial", "train", data_dir, **kwargs)


def _make(source, real=1, fake=1, **kwargs):
    return grouping.make_groups(source, schema.Group(real, fake, **kwargs))


def _drawn(groups, index, seed=0):
    source = groups.source
    drawn = groups.draw(index, np.random.default_rng(seed))
    return [(str(source.column("video_id")[i]), int(source.frame_index[i])) for i in drawn]


def test_groups_are_one_source_video_and_one_frame(data_dir):
    groups = grouping.make_groups(_open(data_dir))
    assert len(groups) == 12
    seen = set()
    for index in range(12):
        for seed in range(20):
            (real, real_frame), (fake, fake_frame) = _drawn(groups, index, seed)
            assert "/" not in real
            assert fake.split("/")[1].startswith(real)
            assert real_frame == fake_frame
            seen.add(fake)
    assert len(seen) == 16  # every fake video is drawn


def test_fakes_of_a_group_are_of_different_videos_while_there_are(data_dir):
    drawn = _drawn(_make(_open(data_dir), 1, 4), 4)
    assert sorted(video.split("/")[0] for video, _ in drawn[1:]) == sorted(TOY)
    more = [video for video, _ in _drawn(_make(_open(data_dir), 1, 6), 4)[1:]]
    assert len(set(more[:4])) == 4


def test_more_reals_are_other_frames_of_the_video(data_dir):
    drawn = _drawn(_make(_open(data_dir), 3, 3), 4)
    assert [video for video, _ in drawn[:3]] == ["001"] * 3
    assert drawn[0] == ("001", 9)  # the anchor ahead
    assert sorted(frame for _, frame in drawn[:3]) == [0, 9, 10]
    assert [frame for _, frame in drawn[3:]] == [frame for _, frame in drawn[:3]]


def test_nearest_frame_stands_in_for_one_that_is_not_there(data_dir):
    groups = _make(_partial(data_dir, methods=["faceswap"]))
    assert [_drawn(groups, i) for i in range(3)] == [
        [("000", 0), ("faceswap/000_001", 1)],
        [("000", 9), ("faceswap/000_001", 8)],
        [("000", 10), ("faceswap/000_001", 8)],
    ]


def test_reals_without_a_partner_are_left_out_and_counted(data_dir, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        groups = _make(_partial(data_dir))
    assert {groups.source.column("video_id")[i] for i in groups.anchors} == {"000"}
    assert "2 real videos have no fake and are left out" in caplog.text


@pytest.mark.parametrize("match", ["pair", "class"])
def test_reals_only(data_dir, match):
    groups = _make(_partial(data_dir), 1, 0, match=match)
    assert [_drawn(groups, i) for i in range(len(groups))] == [
        [(video, frame)] for video in ("000", "001", "002") for frame in (0, 9, 10)
    ]


@pytest.mark.parametrize("match", ["pair", "class"])
def test_no_fake_at_all(data_dir, match):
    source = sources.open_source("faceforensics/c23_partial", "test", data_dir)
    with pytest.raises(ValueError, match=r"1 real and 0 fake videos, and no fake for any .* train on reals alone"):
        _make(source, match=match)
    assert len(_make(source, 1, 0)) == 3
    with pytest.raises(ValueError, match="0 real and 1 fake videos"):
        _make(make_source([("a", "deepfakes", "", 1)]), match=match)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"real": 0}, "expected real >= 1"),
        ({"fake": -1}, "fake >= 0"),
        ({"fake": 0, "methods": ("toy_swap",)}, "fake >= 1 with methods"),
        ({"methods": "toy_swap"}, "expected names"),
        ({"match": "video"}, "allowed: 'pair', 'class'"),
        ({"fakes": 1}, "expected the fields"),
        ((1, 1), "expected the fields"),
    ],
)
def test_wrong_group(data_dir, group, message):
    with pytest.raises(ValueError, match=message):
        grouping.make_groups(_open(data_dir), group)


def test_named_methods_are_fakes_of_each_in_that_order_of_the_reals_video(data_dir):
    order = ("toy_texture", "toy_swap", "toy_neural", "toy_reenact")
    groups = grouping.make_groups(_open(data_dir), {"real": 1, "fake": 1, "methods": order})
    assert len(groups) == 12
    assert _drawn(groups, 4) == [("001", 9)] + [(f"{name}/001_000", 9) for name in order]
    # Two of each have the frames of two reals, in turn.
    drawn = _drawn(_make(_open(data_dir), 2, 2, methods=("toy_swap", "toy_neural")), 0)
    assert [video for video, _ in drawn[2:]] == ["toy_swap/000_001"] * 2 + ["toy_neural/000_001"] * 2
    assert [frame for _, frame in drawn[2:]] == 2 * [frame for _, frame in drawn[:2]]


def test_reals_that_lack_one_of_the_methods_are_left_out_and_counted(caplog):
    reals = [("r0", "real", "", 2), ("r1", "real", "", 1)]
    fakes = [("a", "deepfakes", "r0", 1), ("b", "faceswap", "r0", 1), ("c", "faceswap", "r1", 1)]
    with caplog.at_level("WARNING", logger="absl"):
        groups = _make(make_source(reals + fakes), methods=("faceswap", "deepfakes"))
    assert [_drawn(groups, i) for i in range(len(groups))] == [[("r0", f), ("b", 0), ("a", 0)] for f in (0, 1)]
    assert "1 real videos have no fake of each of faceswap, deepfakes and are left out" in caplog.text
    with pytest.raises(ValueError, match=r"no fake of each of faceswap, deepfakes for any of the reals"):
        _make(make_source(reals + fakes[1:] + [("d", "deepfakes", "r1 too", 1)]), methods=("faceswap", "deepfakes"))


def test_a_method_that_the_set_has_not(data_dir):
    with pytest.raises(ValueError, match="no manipulation 'toy_swop'; did you mean toy_swap"):
        _make(_open(data_dir), methods=("toy_neural", "toy_swop"))
    with pytest.raises(ValueError, match=r"no manipulation 'toy_swap'.*There are: toy_neural"):
        _make(_open(data_dir, methods=("toy_neural",)), methods=("toy_swap",))


LIST = [(f"r{i}", "real", "", 1) for i in range(5)] + [(f"f{i}", "unknown", "", 1) for i in range(7)]


@pytest.mark.parametrize("match", ["pair", "class"])
def test_a_list_without_pairs_is_grouped_by_class(match, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        groups = _make(make_source(LIST), match=match)
    said = "toy/made:train: none of its 7 fake videos is of one of its 5 real videos; grouped by class" in caplog.text
    assert said == (match == "pair")
    assert len(groups) == 5
    drawn = [[_drawn(groups, i, seed) for i in range(5)] for seed in range(30)]
    assert all([group[0] for group in epoch] == [(f"r{i}", 0) for i in range(5)] for epoch in drawn)
    assert {group[1] for epoch in drawn for group in epoch} == {(f"f{i}", 0) for i in range(7)}
    assert drawn[0] != drawn[1]


def test_by_class_no_record_stands_twice_in_a_group_while_there_are_others():
    groups = _make(make_source(LIST), 5, 7, match="class")
    for seed in range(5):
        assert sorted(_drawn(groups, 0, seed)) == sorted((video, 0) for video, *_ in LIST)
    few = _drawn(_make(make_source(LIST[4:]), 2, 9, match="class"), 0)
    assert few[:2] == [("r4", 0)] * 2 and len(set(few[2:])) == 7


def test_by_class_fakes_are_of_any_real(data_dir):
    groups = _make(_open(data_dir), methods=("toy_neural", "toy_swap"), match="class")
    drawn = [_drawn(groups, 0, seed) for seed in range(60)]
    assert {group[0] for group in drawn} == {("000", 0)}
    for place, name in ((1, "toy_neural"), (2, "toy_swap")):
        videos = {f"{name}/{pair}" for pair in ("000_001", "001_000", "002_003", "003_002")}
        assert {group[place][0] for group in drawn} == videos


def test_pairs_stay_within_a_data_set(data_dir):
    # Ids 000 and 001 stand in both sets; a toy real must never get an FF++ fake.
    mixed = sources.mix_sources([_open(data_dir), _partial(data_dir)])
    groups = _make(mixed, 1, 2)
    assert len(groups) == 12 + 3
    for index in range(len(groups)):
        drawn = groups.draw(index, np.random.default_rng(index))
        assert len(set(mixed.column("dataset")[drawn])) == 1


def test_a_set_without_pairs_beside_one_with_pairs_is_grouped_by_class(caplog):
    paired = make_source([("a", "real", "", 2), ("b", "real", "", 2), ("c", "faceswap", "a", 2)])
    mixed = sources.mix_sources([paired, make_source(LIST, name="toy/list:train")])
    with caplog.at_level("WARNING", logger="absl"):
        groups = _make(mixed)
    assert "toy/list:train: none of its 7" in caplog.text and "made:train: none" not in caplog.text
    assert "1 real videos have no fake" in caplog.text
    drawn = [_drawn(groups, i, 1) for i in range(len(groups))]
    assert drawn[:2] == [[("a", frame), ("c", frame)] for frame in (0, 1)]
    assert [real for real, _ in drawn[2:]] == [(f"r{i}", 0) for i in range(5)]
    assert all(fake[0].startswith("f") for _, fake in drawn[2:])


NAMES = ("deepfakes", "faceswap", "neuraltextures")


@st.composite
def _cases(draw):
    """(videos, group, whether fakes name their reals): one real at least has fakes of all three methods."""
    frames = st.integers(1, 3)
    reals = [(f"r{i}", "real", "", draw(frames)) for i in range(draw(st.integers(1, 4)))]
    paired = draw(st.booleans())
    made = [("r0", name) for name in NAMES]
    made += draw(st.lists(st.tuples(st.sampled_from([r[0] for r in reals]), st.sampled_from(NAMES)), max_size=6))
    fakes = [(f"f{i}", name, real if paired else "", draw(frames)) for i, (real, name) in enumerate(made)]
    real, fake = draw(st.sampled_from([(1, 0), (1, 1), (2, 1), (1, 4)]))
    named = draw(st.permutations(NAMES))[: draw(st.integers(0, 3))] if fake else []
    group = schema.Group(real, fake, tuple(named), draw(st.sampled_from(["pair", "class"])))
    return draw(st.permutations(reals + fakes)), group, paired


@hypothesis.given(_cases(), st.integers(0, 3))
@hypothesis.settings(max_examples=60, deadline=None)
def test_every_row_has_the_label_method_and_group_of_its_record(case, seed):
    videos, group, paired = case
    method_of, pair_of = {v[0]: v[1] for v in videos}, {v[0]: v[2] for v in videos}
    settings = dict(batch_size=2 * group.rows, group=group, seed=seed, num_threads=0, process_index=0, process_count=1)
    anchors = []
    for batch in itertools.islice(pipeline.train_batches(make_source(videos), **settings), 4):
        wanted = [method_of[video] for video in batch["video_id"]]
        assert [methods.METHODS[m] for m in batch["method"]] == wanted
        assert batch["label"].tolist() == [int(name != "real") for name in wanted]
        # The first pixel says which video and frame was read.
        told = batch["image"][:, 0, 0, :2].tolist()
        names = [v[0] for v in videos]
        assert told == [[f, names.index(v)] for v, f in zip(batch["video_id"], batch["frame_index"], strict=True)]
        assert batch["group"].dtype == np.int32 and batch["group"].tolist() == [0] * group.rows + [1] * group.rows
        for rows in (slice(0, group.rows), slice(group.rows, None)):
            mine, ids = wanted[rows], batch["video_id"][rows].tolist()
            fakes = mine[group.real :]
            assert mine[: group.real] == ["real"] * group.real and "real" not in fakes
            if group.methods:
                assert fakes == [name for name in group.methods for _ in range(group.fake)]
            if paired and group.match == "pair":
                assert {pair_of[video] or video for video in ids} == {ids[0]}
            anchors.append((ids[0], int(batch["frame_index"][rows][0])))
    have = lambda real: {method_of[v] for v in pair_of if pair_of[v] == real} >= set(group.methods or ())
    left = [v for v in videos if v[1] == "real"]
    if paired and group.match == "pair" and group.fake:
        left = [v for v in left if v[0] in pair_of.values() and have(v[0])]
    epoch = [(v[0], frame) for v in left for frame in range(v[3])]
    assert set(anchors) <= set(epoch)
    first = anchors[: len(epoch)]
    assert len(set(first)) == len(first)


def test_processes_do_not_repeat_group_numbers():
    settings = dict(batch_size=12, group={"fake": 2}, num_threads=0, process_count=2)
    batches = [next(pipeline.train_batches(make_source(LIST), process_index=i, **settings)) for i in range(2)]
    assert [batch["group"].tolist() for batch in batches] == [[0] * 3 + [1] * 3, [2] * 3 + [3] * 3]


@pytest.mark.parametrize(
    ("stored", "column", "said", "group", "message"),
    [
        (["deepfakes"], "label", ["real"], {"fake": 0}, r"has label 'fake' .* place 0 of its group, .* for 'real'"),
        (["real", "real"], "label", ["real", "fake"], {}, r"record 1 \(1, .*\) has label 'real' .* place 1 .* fake'"),
        (
            ["real", "deepfakes"], "method", ["real", "faceswap"], {"methods": ("faceswap",)},
            r"has label 'fake' and method 'deepfakes', and stands at place 1 of its group, which is for 'faceswap'",
        ),
    ],
)  # fmt: skip
def test_a_place_that_contradicts_the_record_is_an_error(stored, column, said, group, message):
    # The index says something else than the records.
    source = make_source([(str(i), name, "", 1) for i, name in enumerate(stored)])
    source = dataclasses.replace(source, videos=source.videos | {column: np.array(said)})
    rows = schema.make_group(group).rows
    batches = pipeline.train_batches(source, batch_size=rows, group=group, process_index=0, process_count=1)
    with pytest.raises(ValueError, match=message):
        next(batches)
