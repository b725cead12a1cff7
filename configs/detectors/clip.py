"""CLIP ViT-B/16 with one linear layer, all of it trained: DeepfakeBench's "clip".

    python -m msddf_jax.main --config configs/detectors/clip.py --workdir runs/clip

The public code normalises with mean and deviation 0.5 and not with CLIP's, and trains at 2e-4 with weight decay 5e-4,
which is much for CLIP; here both are CLIP's usual: its own statistics, and 1e-5.
"""

from configs.detectors import common

# OpenAI\'s CLIP at a fixed commit, so that it is the same file next year.
CLIP_B16 = (
    "hf://openai/clip-vit-base-patch16@57c216476eefef5ab752ec549e440a49ae4ae5f3/pytorch_model.bin"
    "#sha256=ec89c7b09c749a60aae3c9cd910516f24b58214a7df060b48962d14c469cfbf0&format=clip/hf_clip"
)


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/clip.py")
    config = common.get_plain("clip", "B/16", image_size=224, init=CLIP_B16)
    config.optim.groups = ((r"detector/.*", {"lr": 1e-5, "weight_decay": 5e-4}),)
    config.optim.final_lr = 1e-6
    if arg == "demo":
        config.model.variant = "Ti/16"
        common.make_demo(config, lr=3e-4)
    return config.lock()
