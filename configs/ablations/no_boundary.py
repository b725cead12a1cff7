"""MSDDF minus Boundary Mining."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    config.model.use_boundary = False
    del config.loss_weights.boundary_bce
    return config.lock()
