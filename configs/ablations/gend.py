"""LN-tuning on the feature of unit length with uniformity and alignment, as GenD does."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.freeze(base.get_baseline(arg), base.LN_TUNE)
    config.model.normalize = True
    # GenD 3.
    config.loss_weights = {"label": 1.0, "feature_uniformity": 0.5, "feature_alignment": 0.1}
    return config.lock()
