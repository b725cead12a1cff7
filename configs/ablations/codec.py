"""MSDDF with H.264 in the step: every second row is coded, at a QP between those of CRF 23 and 40."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    config.augment.h264_prob = 0.5
    return config.lock()
