"""MSDDF minus the Freq-Adapter."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    config.model.use_frequency = False
    del config.loss_weights.frequency_cosine
    return config.lock()
