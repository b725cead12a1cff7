"""LN-tuning: every LayerNorm and the linear layer."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.freeze(base.get_baseline(arg), base.LN_TUNE)
    return config.lock()
