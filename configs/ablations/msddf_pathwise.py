"""MSDDF, the adversary's strength, feather and colour by the gradient through the blender."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    config.policy.mode = "pathwise"
    config.synth.recipe.blend.magnitude_on = ("alpha", "dynamic")
    return config.lock()
