"""A linear probe: CLIP ViT-L/14 as it is and one linear layer, which alone is trained: what all others have to beat.

    python -m msddf_jax.main --config configs/detectors/linear_probe.py --workdir runs/linear_probe

Recipe of UnivFD (Ojha et al., CVPR 2023): the class token's feature, cross-entropy; there on the penultimate feature of
generated images, here on faces. What it reaches is in the features that CLIP has of itself.
"""

from configs import msddf
from configs.detectors import common

FROZEN = (
    (r"detector/backbone/.*", None),
    (r"detector/.*", {"lr": 1e-3, "weight_decay": 0.0}),
)


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/linear_probe.py")
    config = common.get_plain("clip", "L/14", image_size=224, init=msddf.CLIP_L14)
    config.optim.groups = FROZEN
    if arg == "demo":
        # A random network's features tell nothing: the demo shows that it runs.
        config.model.variant = "Ti/16"
        common.make_demo(config)
        config.optim.groups = ((r"detector/backbone/.*", None), (r"detector/.*", {"lr": 2e-2, "weight_decay": 0.0}))
    return config.lock()
