"""Nearest faces: those of the batch and those of a file are what a search by hand finds, and never of one person."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from made_source import make_source

from data_prep import nearest as command
from msddf_jax.data import groups as grouping
from msddf_jax.data import nearest, overlap, pipeline, schema
from msddf_jax.data import source as sources
from msddf_jax.synth import compose, partners

CHOOSE = jax.jit(lambda points, who: partners.nearest_partner(points, partners.allowed_partners(points, who)))
VIDEOS = [("a", "real", "", 3), ("b", "real", "", 2), ("c", "real", "", 2), ("a/x", "deepfakes", "a", 3)]


def _by_hand(points, person, row):
    """Others in the order of their distance."""
    apart = [(float(((points[row] - points[i]) ** 2).sum()), i) for i in range(len(points)) if person[i] != person[row]]
    return [i for _, i in sorted(apart)]


# Rows, people among them, and a seed.
_LANDMARKS = st.tuples(st.integers(2, 9), st.integers(1, 5), st.integers(0, 2**31))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(_LANDMARKS, st.integers(1, 12))
def test_a_file_has_what_a_search_by_hand_finds(drawn, number):
    count, people, seed = drawn
    rng = np.random.default_rng(seed)
    points, person = rng.normal(0, 30, (count, 162)), rng.integers(0, people, count)
    found = command.find_nearest(points, person, number)
    assert found.shape == (count, number) and found.dtype == np.int32
    for row in range(count):
        expected = _by_hand(points, person, row)[:number]
        assert found[row].tolist() == expected + [-1] * (number - len(expected))


def test_a_search_in_pieces_is_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    points, person = rng.normal(0, 30, (40, 162)), rng.integers(0, 7, 40)
    whole = command.find_nearest(points, person, 9)
    monkeypatch.setattr(command, "_AT_ONCE", 3 * 40)
    np.testing.assert_array_equal(command.find_nearest(points, person, 9), whole)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.integers(0, 2**31))
def test_a_batch_takes_what_a_search_by_hand_finds(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(120, 30, (8, 81, 2)).astype(np.float32)
    # Classes of known identities, numbers of videos of unknown ones, and -1 of nothing known.
    who = rng.choice(np.array([0, 1, -1, -2, -3], np.int32), 8)
    index, found = map(np.asarray, CHOOSE(points, who))
    for row in range(8):
        expected = _by_hand(points, who, row)
        assert bool(found[row]) == bool(expected) and index[row] == (expected[0] if expected else row)


def test_persons_are_told_by_identity_else_by_group_else_by_video():
    columns = {
        "target_identity": ["ff:1", "ff:1", "", "", "", ""],
        "dataset": ["ff", "dfd", "ff", "ff", "ff", "dfd"],
        "group_id": ["g", "h", "g", "g", "", "g"],
        "pair_id": ["", "", "", "a", "a", ""],
        "video_id": ["a", "b", "c", "d", "e", "f"],
    }
    keys = overlap.persons(columns)
    assert keys[0] == keys[1] and keys[2] == keys[3] and len(set(keys)) == 4
    source = make_source(VIDEOS)
    source.videos["target_identity"] = np.array(["", "", "toy:c", ""])
    numbers = sources.stranger_numbers(source)
    # A fake of unknown identity is of its real's person; one that is known has a class.
    assert numbers[0] == numbers[3] < -1 and numbers[1] < -1 and numbers[0] != numbers[1] and numbers[2] == -1


def test_frames_of_one_unknown_video_never_pair_in_a_batch():
    source = make_source(VIDEOS)
    batch = next(pipeline.train_batches(source, batch_size=7, group={"fake": 0}, num_threads=0, identities={}))
    # An epoch is every real frame once: three of a, two of b and c, each a group of its own.
    assert sorted(batch["video_id"]) == ["a"] * 3 + ["b"] * 2 + ["c"] * 2 and len(set(batch["group"])) == 7
    points = np.random.default_rng(0).normal(4, 2, (7, 81, 2)).astype(np.float32)
    allowed = np.asarray(partners.allowed_partners(points, batch["identity"]))
    video = batch["video_id"]
    np.testing.assert_array_equal(allowed, video[:, None] != video[None, :])
    # Where no identity is asked for, none is told.
    plain = next(pipeline.train_batches(source, batch_size=7, group={"fake": 0}, num_threads=0))
    assert (plain["identity"] == -1).all()


def _write(path, source, near):
    """A file of the source's reals, in its order; near: {row: rows}."""
    real = np.flatnonzero(source.column("label") == "real")
    table = np.full((len(real), 2), -1, np.int32)
    for row, others in near.items():
        table[row, : len(others)] = others
    np.savez(path, nearest=table, **{name: source.column(name)[real] for name in nearest.KEY})
    return str(path)


def test_the_second_real_of_a_group_is_a_neighbour(tmp_path, caplog):
    source = make_source(VIDEOS)
    # Rows 0 to 2 are a's, 3 and 4 b's, 5 and 6 c's; row 2 has none.
    near = {0: [3, 5], 1: [4], 3: [0], 4: [6, 0], 5: [0], 6: [1]}
    path = _write(tmp_path / "near.npz", source, near)
    group = {"real": 2, "fake": 0, "nearest": path}
    with caplog.at_level("WARNING", logger="absl"):
        made = grouping.make_groups(source, group)
    assert made.anchors.tolist() == [0, 1, 3, 4, 5, 6]
    assert "1 of 7 reals have no neighbour" in caplog.text
    drawn = {}
    for index in range(len(made)):
        for seed in range(20):
            anchor, other = made.draw(index, np.random.default_rng(seed))
            drawn.setdefault(anchor, set()).add(other)
    assert drawn == {row: set(others) for row, others in near.items()}
    # A fake beside is the anchor's, of its frame, whatever frame the neighbour is.
    made = grouping.make_groups(source, group | {"fake": 2})
    assert made.anchors.tolist() == [0, 1]
    assert [made.draw(1, np.random.default_rng(seed)) for seed in range(3)] == [[1, 4, 8, 8]] * 3
    # Records that a source has no more of are no neighbours.
    fewer = sources.keep_records(source, ~np.isin(np.arange(len(source)), [3, 4]))
    found = nearest.load(path, fewer)
    assert {k: v.tolist() for k, v in found.items()} == {0: [3], 3: [0], 4: [1]}


def test_a_checkpoint_goes_on_with_the_same_neighbours_alone(tmp_path):
    source = make_source(VIDEOS)
    settings = {"batch_size": 2, "num_threads": 0}
    batches = lambda near, name: pipeline.train_batches(
        source, group={"real": 2, "fake": 0, "nearest": _write(tmp_path / name, source, near)}, **settings
    )
    first = batches({0: [3], 3: [0]}, "one.npz")
    next(first)
    batches({0: [3], 3: [0]}, "moved.npz").set_state(first.get_state())
    with pytest.raises(ValueError, match="of another order"):
        batches({0: [4], 3: [0]}, "other.npz").set_state(first.get_state())


def test_what_does_not_fit_is_named(tmp_path):
    source = make_source(VIDEOS)
    with pytest.raises(
        FileNotFoundError, match=r"nearest: there is no file .*none.npz; make it with: python -m data_pr"
    ):
        nearest.load(tmp_path / "none.npz", source)
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    (tmp_path / "text.npz").write_text("nothing")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match=f"{name} is no file of data_prep.nearest"):
            nearest.load(tmp_path / name, source)
    other = dataclasses.replace(source, videos=source.videos | {"compression": np.array(["c40"] * 4)})
    path = _write(tmp_path / "near.npz", source, {0: [3]})
    with pytest.raises(ValueError, match="names 7 records, of which toy/made:train has 0, none with a neighbour"):
        nearest.load(path, other)
    with pytest.raises(ValueError, match=r"gives the second of two reals, and group\.real is 1"):
        schema.make_group({"real": 1, "nearest": path})


def test_neighbours_and_the_recipe_belong_together():
    paired = {"name": "face_xray", "partner": "group"}
    group = schema.Group(2, 0, nearest="near.npz")
    assert compose.make_layout(group, paired) == (2, 2, 0, 0)
    wrong = [(schema.Group(2, 0), paired, {}), (group, {"name": "face_xray"}, {}), (group, paired, {"forged": 1})]
    for wrong_group, recipe, shares in wrong:
        with pytest.raises(ValueError, match="is lent by the recipe 'face_xray' with partner='group'"):
            compose.make_layout(wrong_group, recipe, **shares)


def test_the_command_writes_a_file_that_a_built_set_is_trained_with(toy_data, tmp_path, capsys):
    data_dir, path = toy_data[1], str(tmp_path / "near" / "toy.npz")
    assert command.main(["faceforensics/toy", "--data_dir", str(data_dir), "--out", path, "--number", "5"]) == 0
    source = sources.open_source("faceforensics/toy", "train", data_dir)
    found = nearest.load(path, source)
    reals = np.flatnonzero(source.column("label") == "real")
    assert f"{len(reals)} real records" in capsys.readouterr().out and sorted(found) == reals.tolist()
    points = {record: source[record]["landmarks"].ravel() for record in reals.tolist()}
    person = source.column("target_identity")
    for record, near in found.items():
        rest = [i for i in reals.tolist() if person[i] != person[record]]
        by_hand = sorted(rest, key=lambda i: ((points[i] - points[record]) ** 2).sum())
        assert near.tolist() == by_hand[:5]
    batch = next(
        pipeline.train_batches(source, batch_size=4, group={"real": 2, "fake": 0, "nearest": path}, num_threads=0)
    )
    identity = batch["target_identity"]
    assert (batch["label"] == 0).all() and (identity[0::2] != identity[1::2]).all()
    for arguments, said in (
        (["faceforensics/none", "--data_dir", str(data_dir), "--out", path], "no built data set"),
        (["faceforensics/toy:test2", "--data_dir", str(data_dir), "--out", path], "no index of a split 'test2'"),
    ):
        assert command.main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error and "Traceback" not in error
