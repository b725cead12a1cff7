"""What the single-backbone detectors share: a data set's own fakes, one cross-entropy, everything trained.

Figures are DeepfakeBench's (reference "detectors"): 256 px crops, Adam 2e-4 with weight decay 5e-4, no schedule. Three
things differ on purpose: the checkpoint is chosen on the validation split instead of the test set, the learning rate
falls to a tenth, and augmentation runs on the device (`degrade.augment`).
"""

from ml_collections import ConfigDict

from configs import msddf
from configs.common import eval_set, get_common


def get_plain(family, variant, *, image_size, normalize=False, options=None):
    """detectors/baseline.py on FaceForensics++ c23.

    Args:
      family, variant, options: of `models.backbones.make`. image_size: that the model sees.
      normalize: whether the head sees the feature at unit length.
    """
    config = get_common()
    config.detector = "baseline"
    config.data.train = eval_set("faceforensics/c23", "train")
    config.data.batch_size = 32
    config.evals = ConfigDict({"val": eval_set("faceforensics/c23", "validation")})
    for method in ("deepfakes", "face2face", "faceswap", "neuraltextures"):
        config.evals[method] = eval_set("faceforensics/c23", "test", (method,))
    config.select = ConfigDict({"eval": "val", "metric": "video_auc", "every": 2000})
    config.init = ConfigDict({"path": ""})
    config.model = ConfigDict(
        {
            "family": family,
            "variant": variant,
            "image_size": image_size,
            "normalize": normalize,
            "options": options or {},
        }
    )
    config.synth = ConfigDict({"recipe": "none", "group": config.data.group, "flip": 0.5, "source_twin": False})
    config.augment = ConfigDict({"image_size": image_size})
    config.loss_weights = ConfigDict({"label": 1.0})
    config.loss_args = ConfigDict()
    config.optim = ConfigDict(
        {
            "groups": ((r"detector/.*", {"lr": 2e-4, "weight_decay": 5e-4}),),
            "warmup_steps": 0,
            "final_lr": 2e-5,
            "clip_norm": 5.0,
        }
    )
    config.steps = 30_000
    return config


def make_demo(config, *, lr=1e-3):
    """The same detector on the embedded data set, from random weights, in minutes on two cores."""
    demo = msddf.get_config("demo")
    for name in ("dtype", "data", "evals", "select", "augment", "steps", "ema", "log_every", "checkpoint_every"):
        config[name] = demo[name]
    config.model.image_size = config.augment.image_size = demo.model.image_size
    config.init.path = ""
    config.optim.groups = ((r"detector/.*", {"lr": lr, "weight_decay": 0.01}),)
    config.optim.warmup_steps = 20
    if config.synth.recipe != "none":
        # Reals alone, as in full size; the published ranges are for 256 px faces.
        config.data = demo.data.copy_and_resolve_references()
        config.data.group, config.data.batch_size = (1, 0), demo.data.batch_size // 2
        config.data.train.methods = ()
        config.synth.twin = {"factors": (2,)}
    config.synth.group = config.data.group
    return config


def check_arg(arg, where):
    """Raise ValueError where the argument behind a config's colon is neither nothing nor "demo"."""
    if arg not in (None, "", "demo"):
        raise ValueError(f"{where} takes no argument or 'demo', got {arg!r}")
