"""MSDDF minus the region, type and strength heads."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    config.loss_weights.region_bce = config.loss_weights.type_ce = config.loss_weights.strength_mse = 0.0
    return config.lock()
