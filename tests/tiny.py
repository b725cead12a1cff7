"""A configuration of the real experiment that trains in seconds, for tests."""

from configs import msddf


def tiny_config(data_dir, steps=4, **changes):
    """configs/msddf.py:demo at 64 px with the smallest ViT, on the tests' small embedded data set."""
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
    config.update(changes)
    return config.lock()
