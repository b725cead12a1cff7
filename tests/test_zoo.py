"""Every experiment of configs/detectors: its published size; that it trains, resumes, explains, exports, predicts."""

import importlib
import pathlib

import clip_vocabulary
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from few_steps import STILL

from msddf_jax import checkpoint, detector, export, inference, saliency, steps, train, trees
from msddf_jax.data import pipeline, schema, source
from msddf_jax.train_step import ema_weights, init_state, make_train_step

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "configs" / "detectors"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "common"))

# Parameters with a classifier of two outputs: the published count of the backbone + 2 (d + 1). Sources: Xception,
# EfficientNet and ResNet: timm's and torchvision's counts with 1000 classes (22,855,952; 19,341,616; 21,797,672) less
# 1000 (d + 1); Meso: DeepfakeBench's layers by hand; CLIP: OpenAI's towers (85,799,424; 303,179,776).
PARAMETERS = {
    # VGG-19's first eight convolutions (test_vgg). A capsule: 147,520 + 9232 (convolutions), 128 + 32 (norms), 88 + 25
    # (along the maps), 16 + 2. Routing 2 x 10 x 4 x 8. The paper's own figure.
    "capsule": 2_325_568 + 10 * (147_520 + 9232 + 128 + 32 + 88 + 25 + 16 + 2) + 640,
    "clip": 85_799_424 + 2 * 769,
    # CLIP and the head. Freq-Adapter: FFT branch 80,945 (convolutions 304 + 4640 + 18496 + 55392, cutoff 1, profile
    # 2112), wavelets 89,472 (2624 + 23680 + 63168), 224 -> 96 21,600, norm 192, depthwise 3 x 3 960, injection
    # 3 x (96 x 1024 + 1), pool 24,832. Boundary Mining: 880 + 4640 + 9248 + 33. Fusion: alpha 1, norm 2048, boundary
    # 1024 x 1024 + 1024, join 1280 x 1024 + 1024. Identity: 1024 -> 256 262,400, norm 512, 720 x 256.
    "clip_cross_domain": 303_179_776
    + 2 * 1025
    + (80_945 + 89_472 + 21_600 + 192 + 960 + 3 * (96 * 1024 + 1) + 24_832)
    + (880 + 4640 + 9248 + 33)
    + (1 + 2048 + 1024 * 1025 + 1281 * 1024)
    + (262_400 + 512 + 720 * 256),
    "core": 22_855_952 - 1000 * 2049 + 2 * 2049,
    "efficientnet_lite0": 4_652_008 - 1000 * 1281 + 2 * 1281,
    "efficientnetb4": 19_341_616 - 1000 * 1793 + 2 * 1793,
    # Each of the 4 x 24 projections of 1024 x 1024 is kept whole beside a u, s and v of rank 1.
    "effort": 303_179_776 + 4 * 24 * (1024 + 1 + 1024) + 2 * 1025,
    # HRNet-W48, timm's count less its classifier: a bottleneck on each of c channels (p, p and 4 p; norms), three
    # halvings with norms, 1024 -> 2048 with a norm, 1000 classes. A layer on 720 channels, one on the X-ray's mean.
    "face_xray": 77_469_864
    - sum(5 * c * p + 13 * p * p + 20 * p for c, p in ((48, 32), (96, 64), (192, 128), (384, 256)))
    - sum(9 * a * b + 3 * b for a, b in ((128, 256), (256, 512), (512, 1024)))
    - (1024 * 2048 + 3 * 2048 + 1000 * 2049)
    + 721
    + 2 * 2,
    # Xception; map 3 x 3 on 728 channels and 728 -> 1, no bias.
    "ffd": 22_855_952 - 1000 * 2049 + 2 * 2049 + (9 + 1) * 728,
    # EfficientNet-B4 and two more heads, each of one hidden layer of 64.
    "fpg": 19_341_616 - 1000 * 1793 + 2 * 1793 + 2 * (64 * 1793 + 65),
    # Two Xceptions whose first layers have 6 and 3 channels more; bands of 256 x 256 and of 10 x 10; after a block of c
    # channels four layers c -> c, two norms and two gains; a classifier on both features.
    "f3net": 2 * (22_855_952 - 1000 * 2049)
    + (6 + 3) * 9 * 32
    + (3 * 256**2 + 6 * 10**2)
    + sum(4 * c * (c + 1) + 4 * c + 2 for c in (728, 1024))
    + 2 * 4097,
    # ResNet-50.
    "fwa": 25_557_032 - 1000 * 2049 + 2 * 2049,
    "gend": 303_179_776 + 2 * 1025,
    # 216 + 1600 + 3200 + 6400 (convolutions) + 16 + 32 (two norms, each used twice) + 16400 + 34.
    # Xception; 2048 -> 512 with a norm of two, a classifier on 512; directions of 720; iResNet-50 (test_iresnet).
    "iid": 22_855_952 - 1000 * 2049 + (2048 * 512 + 3 * 512) + 2 * 513 + 720 * 512 + 43_590_848,
    # The student: EfficientNet-B4, 1792 -> 512, a hidden layer of 512.
    "lsda": 19_341_616 - 1000 * 1793 + 1793 * 512 + 513 * 512 + 2 * 513,
    "linear_probe": 303_179_776 + 2 * 1025,
    "meso4": 27_898,
    # Blocks of 379 and 480, convolutions 4800 + 6400, one norm 32, 16400 + 34.
    "mesoinception": 28_525,
    "resnet34": 21_797_672 - 1000 * 513 + 2 * 513,
    # ResNet-34 and, on its third stage of 256, two embeddings.
    "pcl_i2g": 21_797_672 - 1000 * 513 + 2 * 513 + 2 * 256 * 257,
    # Plain Xception.
    "rfm": 22_855_952 - 1000 * 2049 + 2 * 2049,
    "sbi": 19_341_616 - 1000 * 1793 + 2 * 1793,
    # EfficientNet-B4 and its plain head; attention on 160 channels; texture on 32: convolutions 1, 3, 3, 3 and 1 with
    # bias, norms of two; two layers of 256 behind 4 x 128, one behind 1792, one behind both, the head.
    "multi_attention": 19_341_616
    - 1000 * 1793
    + 2 * 1793
    + (160 * 160 * 9 + 160 + 2 * 160 + 160 * 4 + 2 * 4)
    + (32 * 33 + 32 * (9 * (32 + 64 + 96) + 3) + 128 * 129 + 2 * (32 + 64 + 96 + 128 + 128))
    + (513 * 256 + 257 * 256 + 1793 * 256 + 513 * 256 + 2 * 257),
    # Xception; decoder: three separable convolutions with a norm of two, between them blocks of three, an image; graph:
    # three embeddings of two layers each, two weights, two gates, the way back; attention.
    "recce": 22_855_952
    - 1000 * 2049
    + 2 * 2049
    + (728 * (9 + 256) + 256 * (9 + 128) + 128 * (9 + 64) + 2 * (256 + 128 + 64) + 64 * 3)
    + (3 * (256 * (9 + 256 + 2) + 128 * (9 + 128 + 2)))
    + (256 * (728 + 256 + 256 + 256 + 128 + 256) + 2 * 512 + 2 * 728 * 256 + (768 + 728) * 728)
    + (27 * 3 + 3 + 728 * 728 + 2 * 728),
    # EfficientNet-B4; links 32 to 56, 32 to 160 and 56 to 160 channels, each with a bias and a norm of two.
    "sia": 19_341_616 - 1000 * 1793 + 2 * 1793 + 35 * 56 + 35 * 160 + 59 * 160,
    # CLIP ViT-B/32, both towers and projections (test_clip_text), without its temperature.
    "sjedd": 151_277_313 - 1,
    # Xception; label, type and magnitude 2 + 5 + 1 outputs of 2048, map 3 x 3 and 1 x 1 on 728 channels without bias.
    "sladd": 22_855_952 - 1000 * 2049 + (2 + 5 + 1) * 2049 + (9 + 1) * 728,
    # Two Xceptions, two directions. Residuals 96 -> 32 and 192 -> 64 with norms; where to look: 864 + 18432, norms 64 +
    # 128, 7 x 7 x 2, and a norm of 64; twice keys of 91, their common layer, 256 places in both directions, values,
    # gains; fusion 4096 -> 2048 and norm, 2048 -> 128 -> 2048.
    "srm": 2 * (22_855_952 - 1000 * 2049)
    + 2 * 2048
    + (96 * 32 + 64 + 192 * 64 + 128)
    + (864 + 18432 + 64 + 128 + 98 + 128)
    + 2 * (2 * 91 * 729 + 91 * 92 + 2 * 256 * 257 + 2 * 728 * 729 + 2)
    + (4096 * 2048 + 2 * 2048 + 2 * 2048 * 128),
    # Xception without its eight middle blocks, each of three separable convolutions of 728 (9 and 728 inputs) and
    # norms, and with a first kernel of four channels.
    "spsl": 22_855_952 - 1000 * 2049 + 2 * 2049 - 8 * 3 * (9 * 728 + 728 * 728 + 2 * 728) + 9 * 32,
    # The plain ViT-B/16 (test_clip); a norm of its middle, and a head on two features.
    "uia_vit": 85_798_656 + 2 * 768 + 2 * (2 * 768 + 1),
    # Two EfficientNet-B4s, one with a first kernel of one channel; three attentions of c channels; 16 x 15 likenesses,
    # 128, 2; a decoder of eight convolutions, a map of 64.
    "local_relation": 2 * (19_341_616 - 1000 * 1793)
    - 2 * 9 * 48
    + sum(2 * c * c + c + 2 * c + 9 * c * 2 + 2 for c in (56, 160, 1792))
    + (241 * 128 + 2 * 129)
    + sum(9 * (a * b + b * b) + 2 * b for a, b in ((2008, 256), (256, 256), (256, 128), (128, 64)))
    + 64,
    # Two Xceptions, each narrowed 2048 -> 512 with a norm; twice three layers of 256; heads 256 -> 512 -> 2 and 5; a
    # decoder of three stages of two convolutions, an image of 64.
    "ucf": 2 * (22_855_952 - 1000 * 2049 + 2049 * 512 + 2 * 512)
    + 2 * (513 * 256 + 2 * 257 * 256)
    + (2 * 257 * 512 + 513 * 2 + 513 * 5)
    + sum(9 * a * b + b for a, b in ((512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)))
    + 65 * 3,
    "xception": 22_855_952 - 1000 * 2049 + 2 * 2049,
}


def _config(name, arg=None):
    return importlib.import_module(f"configs.detectors.{name}").get_config(arg)


def test_every_detector_has_its_published_size():
    assert set(PARAMETERS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_full_size(name, tmp_path):
    config = _config(name)
    if config.model.get("vocabulary"):
        with config.unlocked():
            config.model.vocabulary = str(clip_vocabulary.write(tmp_path))
    train.check_config(config)
    state = jax.eval_shape(lambda: init_state(config))
    assert trees.count_parameters(state.params["detector"]) == PARAMETERS[name]


def test_a_wrong_argument_is_named():
    for name in NAMES:
        with pytest.raises(ValueError, match=f"configs/detectors/{name}.py takes no argument or 'demo', got 'fast'"):
            _config(name, "fast")


def _small(name, data_dir):
    """The demo of a detector at 64 px on the tests' small embedded data set, without augmentation or warm-up."""
    config = _config(name, "demo").unlock()
    config.data.data_dir = str(data_dir)
    config.data.image_size = config.model.image_size = 64
    config.data.batch_size = 8 - 8 % schema.make_group(config.data.group).rows
    config.augment = {"image_size": 64, **STILL} if "perturb" not in config.loss_args else {"image_size": 64}
    if "perturb" in config.loss_args:
        config.loss_args.perturb.prob = 0.0
    if "views" in config.loss_args:
        config.loss_args.views = {"erase": 0.0, "crop": 0.0}
    config.synth.flip = 0.0
    config.optim.warmup_steps, config.steps = 0, 20
    return config.lock()


def _toy_batch(config):
    """The first batch of the training split, as the trainer sees it."""
    train_set, _ = train.open_data(config)
    batches = pipeline.train_batches(
        train_set,
        batch_size=config.data.batch_size,
        group=config.data.group,
        seed=0,
        image_size=config.data.image_size,
        num_threads=1,
        identities=source.identity_table(train_set),
    )
    batch = next(iter(batches))
    return {name: batch[name] for name in schema.DEVICE_FIELDS}


def _resumes(config, workdir, state, step, batches):
    """A step after a checkpoint is the step that would have been, bit for bit."""
    with checkpoint.make_manager(workdir) as manager:
        checkpoint.save(manager, int(state.step), state, "{}")
        manager.wait_until_finished()
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), state)
        _, restored, _ = checkpoint.restore_last(manager, shapes)
    (left, _), (resumed, _) = step(state, batches), step(restored, batches)
    raw = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(raw(a), raw(b)), left, resumed)


def _explains(config, weights, images):
    """Maps in [0, 1] of every method that the detector has, its own among them where it gives one."""
    maps = saliency.make_explain_fn(config)(weights, {"image": images})
    gives = jax.eval_shape(detector.make_apply(config), weights, {"image": jnp.asarray(images, jnp.float32)})
    assert ("map" in maps) == ("map_logits" in gives) and len(maps) > 1
    for method, heat in maps.items():
        assert np.isfinite(heat).all() and heat.min() >= 0 and heat.max() <= 1, method


def _trains_exports_predicts(name, toy_data, tmp_path):
    config = _small(name, toy_data[1])
    batch = _toy_batch(config)
    state = jax.jit(lambda: init_state(config))()
    step, losses = jax.jit(make_train_step(config)), []
    for _ in range(20):
        # The same pictures each time: whether it learns them is then no matter of which ones came last.
        if not config.data.group.fake:
            # Nor of which forgeries were made of them: those of a step follow from its number.
            state = state.replace(step=jnp.zeros_like(state.step))
        state, scalars = step(state, (batch,) * steps.STEPS[config.step.name].batches)
        losses.append(float(scalars["loss"]))
    assert np.isfinite(losses).all() and np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3]), losses

    _resumes(config, tmp_path / "resumed", state, step, (batch,) * steps.STEPS[config.step.name].batches)
    _explains(config, ema_weights(state), batch["image"][:2])
    checkpoint.save_config(tmp_path / "workdir", config)
    checkpoint.save_best(tmp_path / "workdir", 20, ema_weights(state), {"val/frame_auc": 50.0})
    export.export_workdir(tmp_path / "workdir", tmp_path / "exported")
    artifact = jax.export.deserialize(bytearray((tmp_path / "exported" / "model.stablehlo").read_bytes()))
    model = inference.load_for_inference(tmp_path / "workdir")
    images = batch["image"][:3]
    expected = model.predict_fn(model.params, {"image": images})["score"]
    np.testing.assert_allclose(artifact.call(images)["score"], expected, atol=1e-5)


@pytest.mark.long
def test_the_smallest_detector_trains_resumes_explains_exports_and_predicts(toy_data, tmp_path):
    _trains_exports_predicts("meso4", toy_data, tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("name", [n for n in NAMES if n != "meso4"])
def test_every_detector_trains_resumes_explains_exports_and_predicts(name, toy_data, tmp_path):
    _trains_exports_predicts(name, toy_data, tmp_path)
