"""Multi-attentional detection (CVPR 2021): EfficientNet-B4, four attention maps, the texture under each of them.

    python -m msddf_jax.main --config configs/detectors/multi_attention.py --workdir runs/multi_attention
    python -m msddf_jax.main --config configs/detectors/multi_attention.py:port --workdir runs/multi_attention_port

Arguments: nothing, the authors' form and rates (config.py of github.com/yoctta/multiple-attention: AdamW, halved after
every five epochs), with the paper's margins; "port", DeepfakeBench's; "demo". There 50 frames a video at 380 px, here
32 at 256. Lengths are in epochs of `EPOCH` steps; the port's first ten train the plain network, and its first
convolution is fresh, where here it starts with ImageNet's kernel.

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights multi_attention_best.pth --to runs/multi_attention_bench.
"""

from configs.detectors import common, efficientnetb4, sia

# Batches of 32 in an epoch, as DeepfakeBench counts them for FaceForensics++ with 32 frames a video.
EPOCH = 3591


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/multi_attention.py", ("port",))
    port = arg == "port"
    config = common.get_plain("efficientnet", "B4", image_size=256, init=efficientnetb4.WEIGHTS)
    config.detector = "multi_attention"
    config.model = {
        "family": "efficientnet",
        "variant": "B4",
        "image_size": 256,
        # The last blocks of 160 and 32 channels.
        "attend": "block_21",
        "texture": "block_5",
        "maps": 4,
        "hidden": 256,
        "form": "port" if port else "paper",
        "dropout": 0.25,
        "drop_final": 0.5,
        "options": sia.PORT if port else {"padding": "static"},
    }
    config.loss_args = {
        "alpha": 0.05,
        "alpha_decay": 0.9,
        "every": EPOCH,
        "inter_margin": 0.2,
        "intra_margin": (0.05, 0.1),
        "backbone_steps": 10 * EPOCH if port else 0,
        "agda": {
            "kernel_size": 11,
            "sigma": 7.0,
            "threshold": (0.4, 0.6),
            "zoom": (3.0, 5.0),
            "scale": 0.5,
            "noise": 0.1,
        },
    }
    config.loss_weights = {"label": 1.0, "regions": 1.0, "agda_label": 1.0, "agda_match": 0.1}
    if port:
        config.loss_weights = {"plain": 1.0, "agda_label": 1.0, "agda_regions": 1.0}
    config.optim.groups = ((r"detector/.*", {"lr": 2e-4 if port else 1e-4, "weight_decay": 1e-6}),)
    config.optim.optimizer = "adam_l2" if port else "adamw"
    config.optim.schedule, config.optim.period, config.optim.factor = "step", 5 * EPOCH, 0.5
    config.steps = (50 if port else 20) * EPOCH
    return (_make_demo(config) if arg == "demo" else config).lock()


def _make_demo(config):
    """The same from random weights on the same stages of the smallest EfficientNet, without dropout."""
    common.make_demo(config, lr=4e-3)
    config.optim.schedule = "cosine"
    config.model.variant, config.model.attend, config.model.texture = "Mu", "block_4", "block_1"
    config.model.hidden, config.model.dropout, config.model.drop_final = 32, 0.0, 0.0
    config.loss_args.every = 50
    return config
