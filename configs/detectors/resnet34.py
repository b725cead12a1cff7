"""ResNet-34 (He et al., CVPR 2016), ImageNet's, all of it trained: DeepfakeBench's CNN-Aug.

python -m msddf_jax.main --config configs/detectors/resnet34.py --workdir runs/resnet34
"""

from configs.detectors import common

# ImageNet's; the digest is the one in its name.
WEIGHTS = "https://download.pytorch.org/models/resnet34-b627a593.pth#sha256=b627a593&format=resnet/torchvision"


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/resnet34.py")
    config = common.get_plain("resnet", "resnet34", image_size=256, init=WEIGHTS)
    return (common.make_demo(config) if arg == "demo" else config).lock()
