"""Every experiment of configs/detectors: its size as published, and that it trains, exports and predicts."""

import importlib
import pathlib

import jax
import numpy as np
import pytest

from msddf_jax import logs, train, trees
from msddf_jax.train_step import init_state, load_detector

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "configs" / "detectors"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "common"))

# Parameters with a classifier of two outputs: the published count of the backbone + 2 (d + 1). Sources: Xception,
# EfficientNet and ResNet: timm's and torchvision's counts with 1000 classes (22,855,952; 19,341,616; 21,797,672) less
# 1000 (d + 1); Meso: DeepfakeBench's layers by hand; CLIP: OpenAI's towers (85,799,424; 303,179,776).
PARAMETERS = {
    "clip": 85_799_424 + 2 * 769,
    "efficientnetb4": 19_341_616 - 1000 * 1793 + 2 * 1793,
    # Each of the 4 x 24 projections of 1024 x 1024 is kept whole beside a u, s and v of rank 1.
    "effort": 303_179_776 + 4 * 24 * (1024 + 1 + 1024) + 2 * 1025,
    "gend": 303_179_776 + 2 * 1025,
    # 216 + 1600 + 3200 + 6400 (convolutions) + 16 + 32 (two norms, each used twice) + 16400 + 34.
    "meso4": 27_898,
    # Blocks of 379 and 480, convolutions 4800 + 6400, one norm 32, 16400 + 34.
    "mesoinception": 28_525,
    "resnet34": 21_797_672 - 1000 * 513 + 2 * 513,
    "sbi": 19_341_616 - 1000 * 1793 + 2 * 1793,
    "xception": 22_855_952 - 1000 * 2049 + 2 * 2049,
}


def _config(name, arg=None):
    return importlib.import_module(f"configs.detectors.{name}").get_config(arg)


def test_every_detector_has_its_published_size():
    assert set(PARAMETERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_full_size(name):
    config = _config(name)
    train.check_config(config)
    state = jax.eval_shape(lambda: init_state(config))
    assert trees.count_parameters(state.params["detector"]) == PARAMETERS[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_argument_is_named(name):
    with pytest.raises(ValueError, match=f"configs/detectors/{name}.py takes no argument or 'demo', got 'fast'"):
        _config(name, "fast")


def _small(name, toy_data, steps=20):
    """The demo of a detector on the tests' small embedded data set."""
    config = _config(name, "demo").unlock()
    config.data.data_dir = str(toy_data[1])
    config.data.image_size = 64
    config.data.batch_size = 8
    config.data.eval_batch_size = 16
    if config.model.get("family") != "meso":
        config.model.image_size = config.augment.image_size = 64
    config.evals = {"val": config.evals["val"]}
    config.select = None
    config.steps, config.log_every, config.checkpoint_every = steps, 1, steps
    config.optim.warmup_steps = 2
    return config.lock()


def _trains_exports_predicts(name, toy_data, tmp_path):
    from msddf_jax import export, inference

    config = _small(name, toy_data)
    assert hasattr(load_detector(config.detector), "losses")
    train.train_and_evaluate(config, tmp_path / "workdir")
    losses = [line["loss"] for line in logs.read_metrics(tmp_path / "workdir") if "loss" in line]
    assert len(losses) == 20 and np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5]), losses
    export.export(tmp_path / "workdir", tmp_path / "exported")
    artifact = jax.export.deserialize((tmp_path / "exported" / "model.stablehlo").read_bytes())
    model = inference.load_for_inference(tmp_path / "workdir")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    expected = model.predict_fn(model.params, {"image": images})["score"]
    np.testing.assert_allclose(artifact.call(images)["score"], expected, atol=1e-5)


def test_the_smallest_detector_trains_exports_and_predicts(toy_data, tmp_path):
    _trains_exports_predicts("meso4", toy_data, tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("name", [n for n in NAMES if n != "meso4"])
def test_every_detector_trains_exports_and_predicts(name, toy_data, tmp_path):
    _trains_exports_predicts(name, toy_data, tmp_path)
