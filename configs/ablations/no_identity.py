"""MSDDF minus the identity head behind the gradient reversal."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    config.model.num_identities = 0
    del config.loss_weights.identity_ce
    return config.lock()
