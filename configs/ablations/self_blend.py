"""SBI: reals and self-blended images, no fake of the data set; `arg` changes only what validation sees."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation of the validation set."""
    config = base.train_on_reals(base.get_baseline(arg))
    config.synth.recipe = {"name": "self_blend", "twin": {"factors": (2,)}}
    return config.lock()
