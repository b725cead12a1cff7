"""Everything trained on the data set's fakes, without any forgery of our own: what the rows below are to beat."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    return base.get_baseline(arg).lock()
