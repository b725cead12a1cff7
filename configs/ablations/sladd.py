"""SLADD's recipe on the ablation's ViT: regions of another face chosen by REINFORCE; map, type, strength as side tasks.

Heads and losses are MSDDF's. The method itself, on Xception, is configs/detectors/sladd.py.
"""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    config.synth.recipe, config.synth.second_views = {"name": "sladd", "blend": {}}, 0
    config.model.use_frequency = config.model.use_boundary = False
    config.model.num_identities = 0
    config.loss_weights = {"label": 1.0, "map_bce": 0.1, "type_ce": 0.05, "strength_mse": 0.1}
    return config.lock()
