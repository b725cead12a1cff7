"""MSDDF on reals alone, every second forgery SBI's; `arg` changes only what validation sees."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation of the validation set."""
    config = base.train_on_reals(base.get_msddf(arg))
    config.synth.recipe.self_blend_share = (0.5, 0.5)
    # As SBI: the pasted twin is always moved, and a forgery stands beside one real.
    config.synth.recipe.twin.move = 1.0
    config.synth.second_views = 0
    return config.lock()
