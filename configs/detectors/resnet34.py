"""ResNet-34 (He et al., CVPR 2016), ImageNet's, all of it trained: DeepfakeBench's CNN-Aug.

python -m msddf_jax.main --config configs/detectors/resnet34.py --workdir runs/resnet34
"""

from configs.detectors import common


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/resnet34.py")
    config = common.get_plain("resnet", "resnet34", image_size=256)
    return (common.make_demo(config) if arg == "demo" else config).lock()
