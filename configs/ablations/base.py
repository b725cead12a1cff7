"""What the rows of the ablation share: the embedded data set, a tiny ViT, one manipulation to train on.

The argument behind the colon is the manipulation, for example configs/ablations/msddf.py:toy_neural. Every row sees the
same reals for the same number of steps and is tested on all four manipulations, as they are and recompressed. Rows that
train everything start from random weights; rows that freeze the backbone start from that of
configs/ablations/pretrain.py, which has learned faces and nothing about forgeries.
"""

from configs import msddf
from configs.common import eval_set
from configs.detectors.common import train_on_reals

__all__ = ["freeze", "get_baseline", "get_msddf", "train_on_reals"]

METHODS = ("toy_swap", "toy_reenact", "toy_neural", "toy_texture")
TRAINED_ON = "toy_neural"
BACKBONE = "ablation/backbone.safetensors"

# Everything is trained. On fakes alone a Ti/16 learns nothing at 2e-3 in 240 steps and learns at 3e-4.
FINE_TUNE = (
    ("policy/.*", {"lr": 1e-3, "weight_decay": 0.0}),
    ("detector/backbone/.*", {"lr": 3e-4, "weight_decay": 0.01}),
    ("detector/.*", {"lr": 1e-3, "weight_decay": 0.01}),
)
# GenD's LN-tuning: every LayerNorm and the head.
LN_TUNE = (
    (r"detector/backbone/(.*/)?ln_[^/]+/.*", {"lr": 2e-3, "weight_decay": 0.0}),
    (r"detector/backbone/.*", None),
    (r"detector/.*", {"lr": 2e-3, "weight_decay": 0.0}),
)


def get_msddf(method=None):
    """The whole method; `method` is the manipulation to train on."""
    method = method or TRAINED_ON
    if method not in METHODS:
        raise ValueError(f"an ablation trains on one of {METHODS}, got {method!r}")
    # Its synthesis is the published one; the default's is measured on real faces (configs/real.py).
    config = msddf.get_config("demo").unlock()
    config.model.variant = "Ti/16"
    # Not from the pretrained backbone, whose features follow the person: from there everything trained stays at chance.
    config.init.backbone = "random"
    config.optim.groups = FINE_TUNE
    # As published; the demo's twins are those of "recolored_twins".
    config.synth.recipe.twin.frequency_prob = 1.0
    config.data.train = eval_set("faceforensics/toy", "train", (method,))
    config.evals = {"val": eval_set("faceforensics/toy", "validation", (method,))}
    for name in METHODS:
        config.evals[name] = eval_set("faceforensics/toy", "test", (name,))
        config.evals[f"{name}_c40"] = eval_set("faceforensics/toy_c40", "test", (name,))
    config.select.every = 120
    config.checkpoint_every = 120
    config.steps = 240
    return config


def freeze(config, groups):
    """The same experiment on the pretrained backbone, which `groups` (of `optim`) leave as it is but for a part."""
    config.init.backbone = BACKBONE
    config.optim.groups = groups
    return config


def get_baseline(method=None):
    """A ViT and a linear layer on the data set's fakes alone (detectors/baseline.py), everything trained."""
    config = get_msddf(method)
    config.detector = "baseline"
    config.model = {"variant": config.model.variant, "image_size": config.model.image_size, "normalize": False}
    config.synth.recipe, config.synth.second_views = {"name": "none"}, 0
    config.policy.mode = "none"
    config.loss_weights = {"label": 1.0}
    config.loss_args = {}
    return config
