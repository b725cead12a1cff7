"""MSDDF minus the twins: forgeries from another person's face, no second real view, nothing asked to agree."""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation to train on."""
    config = base.get_msddf(arg)
    # The blender stays MSDDF's own, not SLADD's.
    blend = {"soft": True, "metric": True, "ratios": (0.25, 0.5, 0.75, 0.75, 1.0, 1.0, 1.0)}
    config.synth.recipe, config.synth.second_views = {"name": "sladd", "blend": blend}, 0
    return config.lock()
