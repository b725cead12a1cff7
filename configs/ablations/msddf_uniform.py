"""MSDDF without an adversary: regions, blends and strengths drawn by fixed odds."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    config.policy.mode = "none"
    return config.lock()
