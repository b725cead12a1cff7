"""Effort (ICML 2025): CLIP ViT-L/14 whose attention is split by SVD; the last singular triplets and the head train.

    python -m msddf_jax.main --config configs/detectors/effort.py --workdir runs/effort

Rates, batch and crops are DeepfakeBench's (reference "detectors", section 5). The paper's two constraints are off, as
in the release: --config.loss_weights.kernel_orthogonality=1.0 and --config.loss_weights.kernel_norm_change=1.0 turn
them on.
"""

from configs import msddf
from configs.detectors import common


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/effort.py")
    config = common.get_plain("clip", "L/14", image_size=224, init=msddf.CLIP_L14)
    config.detector = "effort"
    config.model = {"variant": "L/14", "image_size": 224, "rank": 1, "options": {}}
    config.loss_weights = {"label": 1.0, "kernel_orthogonality": 0.0, "kernel_norm_change": 0.0}
    config.optim.groups = (
        (r"detector/backbone/.*/attn/[^/]+/[usv]", {"lr": 2e-4, "weight_decay": 5e-4}),
        (r"detector/backbone/.*", None),
        (r"detector/.*", {"lr": 2e-4, "weight_decay": 5e-4}),
    )
    if arg == "demo":
        # There is no small pretrained backbone: from random weights everything is trained.
        config.model.variant = "Ti/16"
        common.make_demo(config, lr=3e-4)
    return config.lock()
