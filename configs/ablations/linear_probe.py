"""Linear probe: the pretrained backbone stays as it is."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.freeze(
        base.get_baseline(arg), (("detector/backbone/.*", None), ("detector/.*", {"lr": 2e-2, "weight_decay": 0.0}))
    )
    return config.lock()
