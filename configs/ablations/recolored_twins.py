"""MSDDF with twins that are recoloured and moved, neither re-sampled nor sharpened."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    config.synth.recipe.twin.frequency_prob = 0.0
    return config.lock()
