"""The backbone of the rows that freeze it: taught to tell the training identities apart, on real frames alone.

It stands in for CLIP, which no tiny size of exists: it has learned faces and nothing about forgeries.
"""

from configs.ablations import base


def get_config(arg=None):
    """The experiment; `arg` is the manipulation of the validation set, whose figures mean nothing here."""
    config = base.train_on_reals(base.get_msddf(arg))
    config.init.backbone = "random"
    config.policy.mode = "none"
    config.synth.second_views = 0
    config.synth.recipe = {"name": "self_blend", "twin": {"factors": (2,), "move": 0.5, "frequency_prob": 1.0}}
    config.model.use_frequency = config.model.use_boundary = False
    # Below 0 nothing is reversed: the identity head trains the backbone.
    config.loss_args.reversal = -1.0
    config.loss_weights = {"identity_ce": 1.0}
    config.optim.groups = (("detector/.*", {"lr": 5e-4, "weight_decay": 0.01}),)
    config.data.batch_size = 32
    config.select = None
    config.steps = 400
    return config.lock()
