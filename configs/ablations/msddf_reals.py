"""MSDDF without a single fake of the data set; `arg` changes only what validation sees."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation of the validation set."""
    return base.train_on_reals(base.get_msddf(arg)).lock()
