"""GenD (WACV 2026): CLIP ViT-L/14, its LayerNorms and one linear layer trained, the feature at unit length.

    python -m msddf_jax.main --config configs/detectors/gend.py --workdir runs/gend

Loss, rates and batch are GenD's (reference "gend", sections 3 and 5): cross-entropy + 0.5 uniformity + 0.1 alignment,
3e-4, 512 crops. One cosine instead of its restarts every ten epochs. Prepare crops with --preset=gend.
"""

from configs import msddf
from configs.detectors import common


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/gend.py")
    config = common.get_plain("clip", "L/14", image_size=224, init=msddf.CLIP_L14, normalize=True)
    config.data.preset = "gend"
    config.data.batch_size = 512
    config.loss_weights = {"label": 1.0, "feature_uniformity": 0.5, "feature_alignment": 0.1}
    config.optim.groups = (
        (r"detector/backbone/(.*/)?ln_[^/]+/.*", {"lr": 3e-4, "weight_decay": 0.0}),
        (r"detector/backbone/.*", None),
        (r"detector/.*", {"lr": 3e-4, "weight_decay": 0.0}),
    )
    config.optim.final_lr = 1e-6
    if arg == "demo":
        # There is no small pretrained backbone: from random weights everything is trained, on cross-entropy alone.
        config.model.variant = "Ti/16"
        config.loss_weights = {"label": 1.0}
        common.make_demo(config, lr=3e-4)
    return config.lock()
