"""LN-tuning: every LayerNorm and the linear layer."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_baseline(arg)
    config.optim.groups = base.LN_TUNE
    return config.lock()
