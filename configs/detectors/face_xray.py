"""Face X-ray (CVPR 2020): HRNet that draws the seam of a blend, trained on blends of reals alone.

    python -m msddf_jax.main --config configs/detectors/face_xray.py --workdir runs/face_xray
    python -m msddf_jax.main --config configs/detectors/face_xray.py:port --workdir runs/face_xray_port

Arguments: nothing, the paper's head, losses, rates and 200,000 steps of 16 reals and their 16 forgeries; "port",
DeepfakeBench's head and rates; "demo". The X-ray counts 1000 in both. With the fakes of the data set beside:

    --config.data.group.fake=1 --config.data.train.methods='("deepfakes","face2face","faceswap")'

Faces lent by the nearest of the whole set, not of the batch (see data_prep/nearest.py), each real's and its partner's:

    python -m data_prep.nearest faceforensics/c23:train --data_dir data/tfds --out nearest.npz
    python -m msddf_jax.main --config configs/detectors/face_xray.py --workdir runs/face_xray_near \\
    --config.data.group.nearest=nearest.npz --config.data.group.real=2 --config.synth.recipe.partner=group

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights facexray_best.pth --to runs/face_xray_bench.
"""

from configs.detectors import common

# Microsoft's ImageNet weights as timm holds them; the digest is the one in its name. The authors' own file,
# hrnetv2_w48_imagenet_pretrained.pth, does as well.
WEIGHTS = (
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-hrnet/hrnetv2_w48-abd2e6ab.pth"
    "#sha256=abd2e6ab&format=hrnet/imagenet"
)
_HALF = {"pixel_mean": (0.5, 0.5, 0.5), "pixel_std": (0.5, 0.5, 0.5)}


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/face_xray.py", ("port",))
    port = arg == "port"
    config = common.get_plain("hrnet", "W48", image_size=256, init=WEIGHTS)
    config.detector = "face_xray"
    common.train_on_reals(config)
    config.model = {
        "family": "hrnet",
        "variant": "W48",
        "image_size": 256,
        "port": port,
        "map_size": 256,
        "options": _HALF if port else {},
    }
    config.synth.recipe = {"name": "face_xray", "blend": {}, "partner": "batch"}
    config.loss_weights = {"label": 1.0, "xray": 1000.0}
    config.loss_args = {"soften": 4.0}
    if port:
        # 16 images.
        config.data.batch_size = 8
        return config.lock()
    config.steps, config.optim.optimizer = 200_000, "adam_l2"
    config.optim.schedule, config.optim.start, config.optim.final_lr = "linear", 0.75, 0.0
    # Both fall over the last 50,000 steps: shares of all steps, and of those after the warm-up.
    rising = {"lr": 2e-4, "weight_decay": 0.0, "warmup_steps": 50_000, "start": 2 / 3}
    config.optim.groups = (
        (r"detector/backbone/.*", rising),
        (r"detector/.*", {"lr": 2e-4, "weight_decay": 0.0}),
    )
    return (_make_demo(config) if arg == "demo" else config).lock()


def _make_demo(config):
    """The same on the embedded data set, from random weights, with the data set's fakes beside.

    Drawn manipulations leave other traces than a seam: blends of reals alone gave a video AUC of 82 on toy_neural and
    55 on toy_texture after 500 steps, with these fakes 89 and 86 after 1500.
    """
    config.data.group.fake = 1
    common.make_demo(config, lr=4e-3)
    # It makes no twins.
    config.synth.recipe = {"name": "face_xray", "blend": {}, "partner": "batch"}
    config.model.variant, config.model.map_size = "Mu", 96
    config.optim.optimizer, config.optim.schedule, config.optim.start = "adamw", "cosine", 0.0
    # Means of X-rays differ by hundredths, and the layer on them needs weights of a hundred.
    config.optim.groups = ((r"detector/binary_head/.*", {"lr": 0.1, "weight_decay": 0.0}), *config.optim.groups)
    config.steps = 2400
    return config
