"""A configuration of the real experiment that trains in seconds, for tests."""

from configs import msddf


def tiny_config(data_dir, steps=4, bare=False, **changes):
    """configs/msddf.py:demo at 64 px with the smallest ViT, on the tests' small embedded data set.

    bare: no forgeries, no adversary, no adapters, almost no augmentation: what is left compiles in a fraction of the
    time, for tests of the loop.
    """
    config = msddf.get_config("demo").unlock()
    config.data.data_dir = str(data_dir)
    config.data.image_size = 64
    config.data.batch_size = 8
    config.data.eval_batch_size = 16
    config.model.variant = "Mu/8"
    config.model.image_size = 64
    config.model.rank = 8
    config.augment.image_size = 64
    config.optim.warmup_steps = 1
    config.select.every = steps
    config.steps = steps
    config.log_every = 1
    config.checkpoint_every = 2
    if bare:
        config.synth.recipe, config.synth.second_views, config.policy.mode = {"name": "none"}, 0, "none"
        config.model.use_frequency = config.model.use_boundary = False
        config.augment.jpeg_prob = 0.0
        del config.loss_weights.boundary_bce
        del config.loss_weights.frequency_cosine
    config.update(changes)
    return config.lock()
