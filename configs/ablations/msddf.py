"""MSDDF, the adversary by REINFORCE."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    return base.get_msddf(arg).lock()
