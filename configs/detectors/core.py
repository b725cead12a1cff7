"""CORE (CVPR Workshops 2022): Xception, and two views of each image that are to have one feature.

    python -m msddf_jax.main --config configs/detectors/core.py --workdir runs/core

Rates and batch are DeepfakeBench's (reference "detectors"); with two views the network sees 64 images a step. The
weight of the consistency is 1, as the authors train and test within one data set; across data sets they take

    --config.loss_weights.consistency=100

A checkpoint of DeepfakeBench's CORE is one of its Xception:

    python -m msddf_jax.weights core_best.pth --to runs/core_bench
"""

from configs.detectors import common, xception


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/core.py")
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "core"
    # Each view is augmented for itself; there are no forgeries to compare with their reals.
    config.synth.joint, config.synth.visible = False, (0.0, 0.0)
    config.loss_weights = {"label": 1.0, "consistency": 1.0}
    # One of three for each view, with equal chances: whole, without a rectangle, or a part of it (RaAug).
    config.loss_args = {"views": {"erase": 1 / 3, "crop": 1 / 3}}
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        config.model.variant = "Mu"
    return config.lock()
