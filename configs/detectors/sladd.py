"""SLADD (CVPR 2022 oral): Xception, and an adversary that blends regions of other faces into reals.

    python -m msddf_jax.main --config configs/detectors/sladd.py --workdir runs/sladd

Backbone, heads, losses and their weights, rates and batch are the published ones (reference "sladd"). With

    --config.policy.mode=published --config.loss_args.magnitude=all_pairs

the synthesiser's update and the magnitude's loss are those of the public code too, with their faults; what differs
beside them is in detectors/sladd.py. 32 images a step: 16 reals, of which each is forged once, and 16 fakes of anyone,
which lend their faces; with the mirrored ones the network sees 96. A run is 30,000 steps, whatever number of images an
epoch has; there 30 epochs of 270 frames a video, and 32 images on each of eight devices.

A checkpoint of DeepfakeBench's SLADD: python -m msddf_jax.weights sladd_best.pth --to runs/sladd_bench.
"""

from configs.detectors import common, xception

# The ten that the synthesiser chooses from: all of schema.REGIONS but the hull.
REGIONS = (
    "left_eye",
    "right_eye",
    "both_eyes",
    "nose",
    "mouth",
    "nose_left_eye",
    "nose_right_eye",
    "nose_both_eyes",
    "nose_mouth",
    "eyes_nose_mouth",
)


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/sladd.py")
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "sladd"
    del config.model["normalize"]
    config.model.map_stage, config.model.dropout = "block_7", 0.5
    config.data.group.match = "class"
    # Every image is seen in both directions as it is.
    config.synth.flip = 0.0
    # Four types alike where nobody chooses (--config.policy.mode=none).
    config.synth.recipe = {"name": "sladd", "blend": {}, "regions": REGIONS, "type_weights": (0.25, 0.25, 0.25, 0.25)}
    config.policy.mode = "reinforce"
    config.loss_weights = {"label": 1.0, "map_mse": 0.1, "type_am": 0.05, "magnitude_mse": 0.1}
    # What the adversary raises is what the detector lowers.
    config.policy.reward = dict(config.loss_weights)
    config.loss_args = {"am": {"scale": 30.0, "margin": 0.45}, "magnitude": "masked"}
    config.optim.optimizer, config.optim.schedule = "adam_l2", "constant"
    config.optim.groups = (
        ("policy/.*", {"lr": 5e-5, "weight_decay": 5e-4}),
        ("detector/.*", {"lr": 2e-4, "weight_decay": 5e-4}),
    )
    # Neither averages nor clipping are published.
    config.ema, config.optim.clip_norm = 0.0, 1e9
    return (_make_demo(config) if arg == "demo" else config).lock()


def _make_demo(config):
    """The same from random weights on the smallest Xception, whose last middle block is the third; in more steps."""
    common.make_demo(config)
    config.model.variant, config.model.map_stage, config.model.dropout = "Mu", "block_3", 0.0
    # Every other real is forged, and what is too faint to be seen at 96 px is asked about by no loss: most of the small
    # network's steps would go into forgeries that look like reals.
    config.data.group.match, config.data.group.real, config.data.group.fake = "class", 2, 2
    config.synth.forged, config.synth.visible = 1, (6.0, 2.0)
    config.steps, config.optim.schedule = 480, "cosine"
    config.optim.groups = (
        ("policy/.*", {"lr": 1e-3, "weight_decay": 0.0}),
        ("detector/.*", {"lr": 4e-3, "weight_decay": 0.0}),
    )
    return config
