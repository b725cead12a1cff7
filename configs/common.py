"""Fields that every experiment has, with the defaults that most of them share."""

from ml_collections import ConfigDict


def get_common():
    """A ConfigDict with every field that the trainer reads; experiments change what differs."""
    config = ConfigDict()
    config.seed = 0
    config.detector = "msddf"
    # Compute dtype; parameters, losses and statistics are float32.
    config.dtype = "bfloat16"

    config.data = ConfigDict()
    # Where `tfds build --data_dir` put the built data sets.
    config.data.data_dir = "data/tfds"
    # Rows of a group: (reals, fakes of the same source video). (1, 0) trains on reals alone.
    config.data.group = (1, 1)
    config.data.batch_size = 128
    config.data.eval_batch_size = 256
    # Size and alignment preset of the stored crops, as `data_prep.prepare` made them.
    config.data.image_size = 256
    config.data.preset = "dfb"
    config.data.num_threads = 16

    # The adversary that chooses the forgeries: "none", "reinforce" or "pathwise".
    config.policy = ConfigDict({"mode": "none"})

    config.ema = 0.999
    config.mesh = ConfigDict({"data": -1})
    config.sharding = ((".*", "replicate"),)
    config.log_every = 50
    config.checkpoint_every = 1000
    return config


def eval_set(name, split, methods=None):
    """One entry of `config.evals`: a built data set, its split, and the fake methods to keep (None: all)."""
    return ConfigDict({"name": name, "split": split, "methods": None if methods is None else tuple(methods)})
