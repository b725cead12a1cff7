"""EfficientNet-Lite0 (Google, 2020, for phones), ImageNet's, all of it trained.

    python -m msddf_jax.main --config configs/detectors/efficientnet_lite0.py --workdir runs/lite0

3.4 million parameters without squeeze and excitation, at the published 224 px. The recipe is the plain detectors'
(`common.get_plain`); no benchmark has this detector.
"""

from configs.detectors import common

# TensorFlow's ImageNet weights in timm's file; the digest is the one in its name.
WEIGHTS = (
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/tf_efficientnet_lite0-0aa007d2.pth"
    "#sha256=0aa007d2&format=efficientnet/timm_tf_lite"
)
OPTIONS = {
    "padding": "same",
    "norm_momentum": 0.9,
    "pixel_mean": (0.5, 0.5, 0.5),
    "pixel_std": (0.5, 0.5, 0.5),
}


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/efficientnet_lite0.py")
    config = common.get_plain("efficientnet", "Lite0", image_size=224, init=WEIGHTS, options=OPTIONS)
    if arg == "demo":
        # From random weights in so few steps: a high rate, and an average that keeps up with it.
        common.make_demo(config, lr=4e-3)
        config.ema = 0.95
    return config.lock()
