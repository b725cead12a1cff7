"""MSDDF on reals alone without the adversary: forgeries drawn uniformly."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation of the validation set."""
    config = base.train_on_reals(base.get_msddf(arg))
    config.policy.mode = "none"
    return config.lock()
