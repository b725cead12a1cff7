"""EfficientNet-B4 (Tan and Le, ICML 2019), ImageNet's, all of it trained.

    python -m msddf_jax.main --config configs/detectors/efficientnetb4.py --workdir runs/b4

DeepfakeBench replaces the first convolution by a fresh one without padding and so loses ImageNet's; here it stays. Its
own checkpoints load with theirs (`python -m msddf_jax.weights`).
"""

from configs.detectors import common

# ImageNet's; the digest is the one in its name.
WEIGHTS = (
    "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/efficientnet-b4-6ed6700e.pth"
    "#sha256=6ed6700e&format=efficientnet/lukemelas"
)


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/efficientnetb4.py")
    config = common.get_plain("efficientnet", "B4", image_size=256, init=WEIGHTS, options={"padding": "static"})
    return (common.make_demo(config) if arg == "demo" else config).lock()
