"""SBI (Shiohara and Yamasaki, CVPR 2022): EfficientNet-B4 on self-blended images of reals, and on nothing else.

    python -m msddf_jax.main --config configs/detectors/sbi.py --workdir runs/sbi

Published: video AUC 92.87 on Celeb-DF, 98.16 on DFD and 71.96 on DFDC, trained on c23. Differs from the paper: AdamW
instead of SAM, aligned crops instead of boxes with a random margin, and 256 px crops resized to 380. Pixels are not
normalised, as in the official code.
"""

from configs.detectors import common

# ImageNet's; the digest is the one in its name.
WEIGHTS = (
    "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b4-44fb3a87.pth"
    "#sha256=44fb3a87&format=efficientnet/lukemelas"
)


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/sbi.py")
    options = {"padding": "static", "pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (1.0, 1.0, 1.0)}
    config = common.get_plain("efficientnet", "B4", image_size=380, init=WEIGHTS, options=options)
    # Reals alone; each gives itself and its forgery: 16 and 16.
    common.train_on_reals(config)
    config.synth.recipe = {"name": "self_blend", "twin": {}, "blend": {}}
    if arg == "demo":
        config.model.variant = "B0"
        common.make_demo(config)
    return config.lock()
