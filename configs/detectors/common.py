"""What the single-backbone detectors share: a data set's own fakes, one cross-entropy, everything trained.

Figures are DeepfakeBench's (reference "detectors"): 256 px crops, Adam 2e-4 with weight decay 5e-4, no schedule. Three
things differ on purpose: the checkpoint is chosen on the validation split instead of the test set, the learning rate
falls to a tenth, and augmentation runs on the device (`degrade.augment`).
"""

from ml_collections import ConfigDict

from configs import msddf
from configs.common import get_common


def get_plain(family, variant, *, image_size, init="random", normalize=False, options=None):
    """detectors/baseline.py on FaceForensics++ c23.

    Args:
      family, variant, options: of `models.backbones.make`. image_size: that the model sees.
      init: file of the backbone, or the word random. normalize: whether the head sees the feature at unit length.
    """
    config = get_common()
    config.detector = "baseline"
    config.data.batch_size = 32
    config.init.backbone = init
    config.model = ConfigDict(
        {
            "family": family,
            "variant": variant,
            "image_size": image_size,
            "normalize": normalize,
            "options": options or {},
        }
    )
    config.augment.image_size = image_size
    config.optim.final_lr = 2e-5
    config.optim.clip_norm = 5.0
    return config


def train_on_reals(config):
    """The same experiment without a single fake of the data set: forgeries are all it sees."""
    config.data.group.fake = 0
    config.data.batch_size = config.data.batch_size // 2
    config.data.train.methods = ()
    return config


def make_demo(config, *, lr=1e-3):
    """The same detector on the embedded data set, from random weights, in minutes on two cores."""
    demo = msddf.get_config("demo")
    reals_alone = config.data.group.fake == 0
    for name in ("dtype", "data", "evals", "select", "augment", "steps", "ema", "log_every", "checkpoint_every"):
        config[name] = demo[name]
    config.model.image_size = config.augment.image_size = demo.model.image_size
    config.init.backbone = "random"
    config.optim.groups = ((r"detector/.*", {"lr": lr, "weight_decay": 0.01}),)
    config.optim.warmup_steps = 20
    if reals_alone:
        train_on_reals(config)
        # The published ranges are for 256 px faces.
        config.synth.recipe.twin = {"factors": (2,)}
    return config


def check_arg(arg, where, others=()):
    """Raise ValueError where the argument behind a config's colon is neither nothing nor "demo" nor one of `others`."""
    if arg not in (None, "", "demo", *others):
        more = f"; it also takes {', '.join(others)}" if others else ""
        raise ValueError(f"{where} takes no argument or 'demo', got {arg!r}{more}")
