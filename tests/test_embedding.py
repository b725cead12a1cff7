"""Spectra against pure waves and a plain loop, t-SNE on clusters, and the whole command on a tiny run."""

import csv
import json

import jax
import numpy as np
import PIL.Image
import pytest
import tiny
from absl import logging

from msddf_jax import checkpoint, embedding
from msddf_jax.data import sample, source
from msddf_jax.show import plots
from msddf_jax.train_step import ema_weights, init_state

SIZE = 32


def _band(ring, size=SIZE):
    """Grey noise of one frequency in every direction, `ring` periods a picture, as uint8 RGB [1, size, size, 3]."""
    spectrum = np.fft.fft2(np.random.default_rng(ring).normal(size=(size, size)))
    steps = np.fft.fftfreq(size) * size
    grey = np.fft.ifft2(spectrum * (np.rint(np.hypot(steps[:, None], steps)) == ring)).real
    grey = np.rint(127.5 + 60 * grey / abs(grey).max())
    return np.repeat(grey[None, ..., None], 3, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("ring", [3, 7, 14])
def test_a_band_of_noise_peaks_at_its_frequency(ring):
    frequency, profile = embedding.radial_profile(_band(ring))
    assert profile.shape == (1, SIZE // 2)
    assert frequency[np.argmax(profile[0])] == pytest.approx(ring / SIZE)
    assert profile[0].max() > np.median(profile[0]) + 10


def test_profile_is_the_mean_over_rings_of_the_whole_spectrum():
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 12, 3)).astype(np.uint8)
    window = np.outer(np.hanning(14)[1:-1], np.hanning(14)[1:-1])
    for image, found in zip(images, embedding.radial_profile(images)[1], strict=True):
        grey = image @ np.array([0.299, 0.587, 0.114]) / 255
        spectrum = np.fft.fft2((grey - grey.mean()) * window)
        rings = {ring: [] for ring in range(1, 7)}
        for i in range(12):
            for j in range(12):
                ring = round(np.hypot(min(i, 12 - i), min(j, 12 - j)))
                if ring in rings:
                    rings[ring].append(10 * np.log10(abs(spectrum[i, j]) ** 2 / (window**2).sum() + 1e-12))
        np.testing.assert_allclose(found, [np.mean(values) for values in rings.values()], rtol=1e-9)


def test_brightness_changes_nothing_and_contrast_all_alike():
    band = _band(4).astype(int)
    changed = (band, band + 20, band // 2)
    plain, brighter, weaker = (embedding.radial_profile(x.astype(np.uint8))[1][0] for x in changed)
    np.testing.assert_allclose(brighter, plain, atol=1e-6)
    assert plain[3] - weaker[3] == pytest.approx(20 * np.log10(2), abs=0.1)


def test_tsne_keeps_clusters_and_the_seed(caplog):
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(center, 0.1, (15, 8)) for center in (-3.0, 3.0)])
    with caplog.at_level("WARNING", logger=logging.get_absl_logger().name):
        points = embedding.tsne(features)
    assert "perplexity 30 is too large for 30 images: 9.7 is used" in caplog.text
    np.testing.assert_array_equal(points, embedding.tsne(features, perplexity=29 / 3))
    assert np.linalg.norm(points[:15].mean(0) - points[15:].mean(0)) > 2 * points[:15].std(0).max()
    with pytest.raises(ValueError, match="at least 4"):
        embedding.tsne(features[:3])


def test_spread_takes_both_ends_evenly():
    np.testing.assert_array_equal(sample.spread(np.arange(10, 20), 4), [10, 13, 16, 19])
    np.testing.assert_array_equal(sample.spread([7, 8], 5), [7, 8])
    np.testing.assert_array_equal(sample.spread([7, 8], None), [7, 8])
    with pytest.raises(ValueError, match="at least 1"):
        sample.spread([1, 2], 0)


def _write_log(workdir, lines):
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_policy_history_reads_shares_by_head_and_entropy_against_uniform(tmp_path):
    line = {"policy/type/none": 0.25, "policy/type/alpha": 0.75, "policy/entropy_type": np.log(2) / 2}
    line |= {"policy/magnitude/10": 0.5, "policy/magnitude/2": 0.5, "policy/entropy_magnitude": np.log(2)}
    _write_log(tmp_path, [{"step": 5, **line}, {"step": 7, "val/frame_auc": 0.5}, {"step": 10, **line}])
    steps, shares, entropy = embedding.policy_history(tmp_path)
    assert steps.tolist() == [5, 10]
    assert {head: list(actions) for head, actions in shares.items()} == {
        "type": ["alpha", "none"],
        "strength bin": ["2", "10"],
    }
    assert shares["type"]["alpha"].tolist() == [0.75, 0.75]
    np.testing.assert_allclose(entropy["type"], 0.25)  # log(2) / 2 of log(4)
    np.testing.assert_allclose(entropy["strength bin"], 1 / 3)  # log(2) of log(8)
    _write_log(tmp_path, [{"step": 5, "policy/strength": 0.5, "policy/color": 0.25}])
    steps, shares, entropy = embedding.policy_history(tmp_path)
    assert list(shares["value"]) == ["color", "strength"] and entropy == {}
    assert plots.draw_policy(steps, shares, entropy, "pathwise").dtype == np.uint8
    _write_log(tmp_path, [{"step": 5, "loss": 1.0}])
    assert embedding.policy_history(tmp_path)[1:] == ({}, {})


def _brightness(weights, batch):
    grey = batch["image"].astype(np.float32).mean((1, 2, 3)) / 255
    return {"feature": np.stack([grey, weights - grey], axis=1), "score": grey}


def test_records_that_sets_share_stand_once(toy_data):
    name = "faceforensics/toy"
    sets = {method: source.open_source(name, "test", toy_data[1], (method,)) for method in ("toy_swap", "toy_reenact")}
    found = embedding.collect(_brightness, 1.0, sets, max_images=None, batch_size=4)
    keys = list(zip(found["video"], found["frame_index"].tolist(), strict=True))
    assert len(set(keys)) == len(keys) == sum(map(len, sets.values())) - (found["label"] == "real").sum()
    assert set(found["set"][found["label"] == "real"]) == {"toy_swap"}
    assert set(found["method"]) == {"real", "toy_swap", "toy_reenact"}
    assert found["profile"].shape == (len(keys), 32) and found["feature"].shape == (len(keys), 2)
    few = embedding.collect(_brightness, 1.0, sets, max_images=4, batch_size=4)
    assert [(few["set"] == s).sum() for s in sets] == [4, 4] and (few["label"] == "real").sum() == 4


@pytest.mark.long
def test_the_command_draws_everything(toy_data, tmp_path, capsys):
    config = tiny.tiny_config(toy_data[1], bare=True)
    workdir, out = tmp_path / "run", tmp_path / "out"
    checkpoint.save_config(workdir, config)
    checkpoint.save_best(workdir, 1, ema_weights(jax.jit(lambda: init_state(config))()), {"val/frame_auc": 0.5})
    _write_log(workdir, [{"step": s, "policy/type/alpha": 1.0, "policy/entropy_type": 0.0} for s in (1, 2)])
    written = embedding.embed_workdir(workdir, out, evals=["toy_swap"], max_images=8, batch_size=8)
    names = {path.name for path in written}
    pictures = {"tsne_set.png", "tsne_method.png", "tsne_label.png", "frequency.png", "policy.png"}
    assert names == pictures | {"embedding.csv", "frequency.csv"}
    for name in pictures:
        with PIL.Image.open(out / name) as image:
            assert image.size[0] == 810
    rows = list(csv.DictReader((out / "embedding.csv").open(encoding="utf-8")))
    assert len(rows) == 8 and {row["label"] for row in rows} == {"real", "fake"}
    spectrum = list(csv.DictReader((out / "frequency.csv").open(encoding="utf-8")))
    assert len(spectrum) == 32 and float(spectrum[-1]["cycles_per_pixel"]) == 0.5
    with pytest.raises(ValueError, match=r"unknown eval \['celebdf'\], allowed: "):
        embedding.embed_workdir(workdir, out, evals=["celebdf"])
