"""UIA-ViT (ECCV 2022): ViT-B/16 whose patches are to attend to patches of their own kind.

    python -m msddf_jax.main --config configs/detectors/uia_vit.py --workdir runs/uia_vit
    python -m msddf_jax.main --config configs/detectors/uia_vit.py:port --workdir runs/uia_vit_port

Arguments: nothing, the authors' rates and lengths (train.py of github.com/wany0824/UIA-ViT: Adam without decay, batches
of 96, eight epochs), but for their halving of the rate where validation stands still; "port", DeepfakeBench's; "demo".
The Gaussians are fitted twice an epoch, and the patches' losses begin with the second.

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights uia_vit_best.pth --to runs/uia_vit_bench.
"""

from ml_collections.config_dict import placeholder

from configs.detectors import common

# ImageNet's ViT-B/16, as timm 0.4 names it; the digest is the one in its name.
WEIGHTS = (
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx/jx_vit_base_p16_224-80ecf9dd.pth"
    "#sha256=80ecf9dd&format=clip/timm_vit"
)
# Batches in an epoch: of 96 in the authors' balanced 115,200 images, and of 64 as the port counts them.
EPOCH, PORT_EPOCH = 1200, 1796
# The tower of CLIP as a plain ViT.
PLAIN = {
    "quick_gelu": False,
    "use_pre_norm": False,
    "patch_bias": True,
    "norm_eps": 1e-6,
    "pixel_mean": (0.5, 0.5, 0.5),
    "pixel_std": (0.5, 0.5, 0.5),
}


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/uia_vit.py", ("port",))
    port = arg == "port"
    epoch = PORT_EPOCH if port else EPOCH
    config = common.get_plain("clip", "B/16", image_size=224, init=WEIGHTS)
    config.detector = "uia_vit"
    config.model = {
        "family": "clip",
        "variant": "B/16",
        "image_size": 224,
        "middle": "block_5",
        "affinity_from": 7,
        "even_until": 1 / 8,
        "turn": 0.7,
        "steepness": 12.0,
        "detail": placeholder(float),
        "options": PLAIN,
    }
    config.loss_args = {
        # Of two real patches, of two forged ones, and of one of each.
        "affinities": (0.6, 0.6, 0.2),
        "refit_every": epoch // 2,
        "begin": epoch,
        "samples": 4,
        # Cells 3 to 10 of 14.
        "inner": (0.2, 0.8),
    }
    config.loss_weights = {"label": 1.0, "reals": 0.06, "fakes": 0.06, "same": 0.05, "cross": 0.5}
    lr = {"lr": 3e-5, "weight_decay": 1e-5 if port else 0.0}
    config.optim.groups = ((r"detector/middle/.*", None), (r"(detector|consistency)/.*", lr))
    config.optim.optimizer, config.optim.schedule = "adam_l2", "constant"
    config.data.batch_size = 64 if port else 96
    config.steps = (10 if port else 8) * epoch
    return (_make_demo(config) if arg == "demo" else config).lock()


def _make_demo(config):
    """The same on the smallest ViT from random weights, with four fits of the Gaussians before the losses begin.

    On images as they are it learned nothing in 250 steps at rates of 5e-4 and 2e-3: light and shade are nearly all that
    a fresh embedding of patches has of them. On their detail it learns.
    """
    common.make_demo(config)
    config.optim.optimizer, config.optim.schedule = "adamw", "cosine"
    lr = {"lr": 1e-3, "weight_decay": 0.01}
    config.optim.groups = ((r"detector/middle/.*", None), (r"(detector|consistency)/.*", lr))
    config.model.detail = 8.0
    config.model.variant, config.model.middle, config.model.affinity_from = "Mu/8", "block_1", 2
    config.loss_args.refit_every, config.loss_args.begin, config.steps = 40, 160, 480
    return config
