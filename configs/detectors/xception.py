"""Xception (Chollet, CVPR 2017), ImageNet's, all of it trained: the detector that most tables start with.

    python -m msddf_jax.main --config configs/detectors/xception.py --workdir runs/xception

The weights are those that DeepfakeBench starts from (any file of format xception/cadene or xception/timm will do).
"""

from configs.detectors import common

# ImageNet's; the digest is the one in its name.
WEIGHTS = "http://data.lip6.fr/cadene/pretrainedmodels/xception-b5690688.pth#sha256=b5690688&format=xception/cadene"


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/xception.py")
    config = common.get_plain("xception", "xception", image_size=256, init=WEIGHTS)
    return (common.make_demo(config) if arg == "demo" else config).lock()
