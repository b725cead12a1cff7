"""SIA (ECCV 2022): EfficientNet-B4 with attention by self-information after three of its blocks.

    python -m msddf_jax.main --config configs/detectors/sia.py --workdir runs/sia
    python -m msddf_jax.main --config configs/detectors/sia.py:port --workdir runs/sia_port

Arguments: nothing, each channel's own differences; "port", DeepfakeBench's form; "demo". Rates and batch are
DeepfakeBench's (reference "detectors"). The port's first convolution has no padding and is fresh there; here it starts
with ImageNet's kernel.

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights sia_best.pth --to runs/sia_bench.
"""

from configs.detectors import common, efficientnetb4

# DeepfakeBench's EfficientNet-B4.
PORT = {"padding": "static", "stem_padding": 0, "pixel_mean": (0.5,) * 3, "pixel_std": (0.5,) * 3}


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/sia.py", ("port",))
    config = common.get_plain("efficientnet", "B4", image_size=256, init=efficientnetb4.WEIGHTS)
    config.detector = "sia"
    config.model = {
        "family": "efficientnet",
        "variant": "B4",
        "image_size": 256,
        # The last blocks of 32, 56 and 160 channels.
        "attend": ("block_5", "block_9", "block_21"),
        "inter": "rows" if arg == "port" else "own",
        "options": PORT if arg == "port" else {"padding": "static"},
    }
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        # The same stages of the smallest EfficientNet.
        config.model.variant, config.model.attend = "Mu", ("block_1", "block_2", "block_4")
        config.steps = 480
    return config.lock()
