"""Distances by hand, SciPy and scikit-learn; how many files of the same law are called out of range; what is read."""

import types

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import ledoit_wolf

from msddf_jax.evaluators import features as collected
from msddf_jax.statistics import novelty


def draw(seed, num_videos, frames=4, width=6, *, within=0.5, shift=0.0, unit=False, classes=2):
    """Features of videos of two classes: a video's own place, and its frames around it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_videos) % classes
    # Directions of different spread, as a detector's features have.
    scale = np.geomspace(1.0, 0.05, width)
    places = rng.normal(size=(num_videos, width)) * scale + 3.0 * labels[:, None] * (np.arange(width) == 0)
    values = places[:, None] + within * scale * rng.normal(size=(num_videos, frames, width)) + shift
    if unit:
        # Around a direction, as learned features are, and not around nothing.
        values[..., 1] += 8.0
        values /= np.linalg.norm(values, axis=-1, keepdims=True)
    videos = np.repeat(np.arange(num_videos), frames)
    return values.reshape(-1, width).astype(np.float32), videos, np.repeat(labels, frames)


def share_out(fitted, sample):
    """Share of the videos whose median distance is above the threshold."""
    features, videos, _ = sample
    frames = novelty.distance(features, fitted).reshape(len(np.unique(videos)), -1)  # as many a video
    return np.mean(np.median(frames, axis=1) > fitted["threshold"])


def test_distance_by_hand():
    fitted = {"means": np.float32([[0, 0], [10, 0]]), "whiten": np.float32([[0.5, 0], [0, 2]])}
    # From (0, 0): (4 / 2, 1 * 2); from (10, 0): (1 / 2, 0).
    np.testing.assert_allclose(novelty.distance([[4, 1], [9, 0]], fitted), [8**0.5, 0.5])
    fitted |= {"threshold": 2.0, "frame_threshold": 3.0}
    frames = [[0, 0.5], [4, 1], [0, 1.25]]  # distances 1, 2.83, 2.5
    assert novelty.judge(frames, fitted) == {"distance": 2.5, "threshold": 2.0, "out_of_range": True}
    assert novelty.judge(frames, fitted, "frame") == {"distance": 2.5, "threshold": 3.0, "out_of_range": False}
    for wrong, message in (([[1, 2, 3]], "have 3 numbers, those of the range 2"), ([[np.nan, 1]], "not finite")):
        with pytest.raises(ValueError, match=message):
            novelty.judge(wrong, fitted)
    with pytest.raises(ValueError, match="at least one frame"):
        novelty.judge(np.zeros((0, 2)), fitted)
    with pytest.raises(ValueError, match="level is 'clip'"):
        novelty.judge(frames, fitted, "clip")


def test_one_frame_a_video_is_ledoit_and_wolf():
    features, videos, labels = draw(0, 60, frames=1)
    fitted = novelty.fit(features, videos, labels)
    means = np.stack([features[labels == label].mean(0) for label in (0, 1)])
    covariance, shrinkage = ledoit_wolf(features - means[labels], assume_centered=True)
    assert fitted["shrinkage"] == pytest.approx(shrinkage, rel=1e-5) and 0 < shrinkage < 1
    precision = np.linalg.inv(covariance)
    for point in np.random.default_rng(1).normal(size=(5, 6)):
        expected = min(mahalanobis(point, mean, precision) for mean in means)
        assert novelty.distance(point[None], fitted)[0] == pytest.approx(expected, rel=1e-4)


def test_frames_that_repeat_add_nothing():
    features, videos, labels = draw(0, 60, frames=1)
    repeat = lambda values: np.repeat(values, 7, axis=0)
    once, often = novelty.fit(features, videos, labels), novelty.fit(*map(repeat, (features, videos, labels)))
    assert often["shrinkage"] == pytest.approx(once["shrinkage"], rel=1e-5)
    assert often["threshold"] == pytest.approx(once["threshold"], rel=1e-5) and often["num_frames"] == 420


def test_a_group_is_held_out_as_one():
    labels = np.repeat([0, 1, 0], [4, 6, 10])
    groups = np.array(["a", "b", "b", "c", "d", "d", "e", "f", "g", "h", *"ijklmnopqr"])
    fold = novelty.deal_folds(labels, groups)
    assert len(set(fold)) == 18 and len(set(zip(fold.tolist(), groups.tolist(), strict=True))) == 18
    # More than twenty: 22 of one class, the names of six of them, and 11 of another, dealt out in turn.
    many, kinds = np.r_[np.arange(33), np.arange(6)], np.repeat([0, 1, 0], [22, 11, 6])
    dealt = novelty.deal_folds(kinds, many)
    np.testing.assert_array_equal(dealt[33:], dealt[:6])
    assert np.bincount(dealt[:22]).tolist() == [5, 5, 4, 4, 4] and sorted(np.bincount(dealt[22:33])) == [2, 2, 2, 2, 3]
    # What is held out is not in the fit: a frame that stands alone, far away, is as far as it is from the others.
    features = np.random.default_rng(0).normal(size=(20, 3))
    features[-1] += 100.0
    distances = novelty._held_out_distances(features, np.arange(20), np.zeros(20, int), groups)
    assert np.argmax(distances) == 19 and distances[19] > 50.0


def test_thresholds_of_few_and_of_many_videos():
    # 199 values: the 198th, which one of 200 passes by the next value's rank, (200 - 198) / 200.
    assert novelty._upper_bound(np.random.default_rng(0).permutation(np.arange(1.0, 200.0)), 199) == 198.0
    assert novelty._upper_bound(np.arange(1.0, 100.0), 99) == 99.0
    # Twenty: none so high; exp(mean + t sd sqrt(21 / 20)) of logs 0 and 1.
    logs = np.tile([0.0, 1.0], 10)
    expected = 0.5 + stats.t.ppf(0.99, 19) * logs.std(ddof=1) * (21 / 20) ** 0.5
    assert novelty._upper_bound(np.exp(logs), 20) == pytest.approx(np.exp(expected))
    logs = np.r_[np.zeros(19), 9.0]
    assert novelty._upper_bound(np.exp(logs), 20) == pytest.approx(np.exp(9.0))


@pytest.mark.parametrize("num_videos, unit", [(30, False), (30, True), (240, False), (240, True)])
def test_false_alarms_on_new_files_of_the_same_law(num_videos, unit):
    shares = []
    for seed in range(12):
        fitted = novelty.fit(*draw(seed, num_videos, unit=unit))
        shares.append(share_out(fitted, draw(1000 + seed, 500, unit=unit)))
    # Twelve thresholds, each of a finite set. Of thirty videos it is the greatest distance or more: fewer are out.
    assert (0.003 if num_videos == 240 else 0.0) <= np.mean(shares) < 0.017


@pytest.mark.parametrize("width, unit", [(6, False), (6, True), (300, False), (300, True)])
def test_a_shifted_file_is_found_in_few_and_in_many_dimensions(width, unit):
    sample = draw(0, 40, width=width, unit=unit)
    fitted = novelty.fit(*sample)
    assert np.isfinite(fitted["whiten"]).all() and np.isfinite(fitted["threshold"])
    assert share_out(fitted, draw(1, 200, width=width, unit=unit)) < 0.1
    # In each direction one standard deviation of the widest: little in the first, much in the last.
    features, videos, labels = draw(2, 50, width=width, unit=unit, shift=1.0)
    assert share_out(fitted, (features, videos, labels)) > 0.9
    assert novelty.judge(features[videos == 0], fitted)["out_of_range"]


def test_reals_alone_have_a_range_too():
    fitted = novelty.fit(*draw(0, 120, classes=1))
    assert len(fitted["means"]) == 1 and share_out(fitted, draw(1, 300, classes=1)) < 0.04
    assert share_out(fitted, draw(1, 50, classes=1, shift=2.0)) == 1.0


def test_no_range_without_videos_groups_or_differences():
    features, videos, labels = draw(0, 9)
    with pytest.warns(UserWarning, match="9 videos in 9 groups, expected 10"):
        assert novelty.fit(features, videos, labels) is None
    features, videos, labels = draw(0, 20)
    with pytest.warns(UserWarning, match="20 videos in 1 groups"):
        assert novelty.fit(features, videos, labels, np.zeros(len(videos))) is None
    same = np.where(labels[:, None] == 0, 0.25, 0.75) * np.ones((1, 6))
    with pytest.warns(UserWarning, match="are the same"):
        assert novelty.fit(same, videos, labels) is None
    alone = np.where((videos == 3)[:, None], features, same)
    with pytest.warns(UserWarning, match="without one part of the groups"):
        assert novelty.fit(alone, videos, labels) is None
    with pytest.raises(ValueError, match=r"expected labels \[N\]"):
        novelty.fit(features, videos, labels[1:])


def test_a_range_is_read_back_and_is_of_its_weights_alone(tmp_path, caplog):
    wanted = {"step": 7, "weights": "best"}
    assert novelty.load(tmp_path) is None
    assert novelty.fitted_of(tmp_path, **wanted)[1].startswith("there is no novelty.npz")
    fitted = novelty.fit(*draw(0, 30)) | {"fitted_on": "val", "split": "validation", **wanted}
    path = tmp_path / novelty.FILE
    path.write_bytes(novelty.to_bytes(fitted))
    found, why = novelty.fitted_of(tmp_path, **wanted)
    assert why == "" and found.keys() == fitted.keys()
    assert all(np.array_equal(found[name], fitted[name]) for name in fitted)
    assert type(found["step"]) is int and type(found["threshold"]) is float
    features = draw(1, 1)[0]
    assert novelty.judge(features, found) == novelty.judge(features, fitted)
    for name, other in (("step", 8), ("weights", "last")):
        found, why = novelty.fitted_of(tmp_path, **{**wanted, name: other})
        assert found is None and why.endswith(f"these features are of {name} {other!r}")
    model = lambda step: types.SimpleNamespace(step=step, origin="best")
    assert novelty.find(tmp_path, model(7)) is not None and not caplog.records
    assert novelty.find(tmp_path, model(8)) is None
    assert "are not recognised: novelty.npz is of step 7" in caplog.records[0].getMessage()


def test_a_damaged_range_is_an_error(tmp_path):
    fitted = novelty.fit(*draw(0, 30)) | {"fitted_on": "val", "split": "validation", "step": 7, "weights": "best"}
    path, whole = tmp_path / novelty.FILE, novelty.to_bytes(fitted)
    wrong = {**fitted, "whiten": fitted["whiten"][:5]}, {**fitted, "threshold": np.nan}
    for data in (b"", whole[:-200], b"not a file of arrays", *map(novelty.to_bytes, wrong)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"is damaged .*write it anew: python -m msddf_jax\.evaluate"):
            novelty.load(tmp_path)


def make_batch(videos, groups, mask):
    """A host batch of which only what `add_batch` reads is there."""
    size = len(videos)
    return {
        "_mask": np.array(mask),
        "label": np.arange(size, dtype=np.int32) % 2,
        "method": np.zeros(size, np.int32),
        "dataset": np.full(size, "toy", object),
        "compression": np.full(size, "c23", object),
        "video_id": np.array(videos, object),
        "group_id": np.array(groups, object),
    }


def test_features_are_collected_without_the_padding():
    found = collected.init_features(6)
    assert collected.gather_features(found) is None
    features = np.arange(8, dtype=np.float32).reshape(4, 2)
    collected.add_batch(found, features, make_batch(list("aabc"), ["g", "g", "g", ""], [True, True, True, True]))
    collected.add_batch(found, features + 8, make_batch(list("dc--"), ["", "", "", ""], [True, True, False, False]))
    rows = collected.gather_features(found)
    np.testing.assert_array_equal(rows["feature"], np.r_[features, features[:2] + 8])
    assert rows["label"].tolist() == [0, 1, 0, 1, 0, 1]
    same = lambda values: np.asarray(values)[:, None] == np.asarray(values)
    np.testing.assert_array_equal(same(rows["video"]), same(list("aabcdc")))
    np.testing.assert_array_equal(same(rows["group"]), same(list("gggcdc")))


def test_of_a_large_set_every_so_many_features(monkeypatch):
    monkeypatch.setattr(collected, "MAX_FRAMES", 3)
    found = collected.init_features(7)  # every third
    for start, count in ((0, 4), (4, 3)):
        features = np.arange(start, start + 4, dtype=np.float32)[:, None]
        collected.add_batch(found, features, make_batch(list("abcd"), [""] * 4, np.arange(4) < count))
    assert collected.gather_features(found)["feature"].ravel().tolist() == [0.0, 3.0, 6.0]
