"""Fields that every experiment has, with the defaults that most of them share."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_common():
    """A ConfigDict with every field that the trainer reads; experiments change what differs."""
    config = ConfigDict()
    config.seed = 0
    # A file of msddf_jax/detectors, or the dotted name of any module that holds one (msddf_jax/detector.py).
    config.detector = "msddf"
    # Compute dtype; parameters, losses and statistics are float32.
    config.dtype = "bfloat16"

    config.data = ConfigDict()
    # Where `tfds build --data_dir` put the built data sets.
    config.data.data_dir = "data/tfds"
    config.data.train = eval_set("faceforensics/c23", "train")
    # A group of rows: reals, then fakes of the same source video ("pair") or of anyone ("class"); with methods, `fake`
    # of each of them. fake = 0 trains on reals alone.
    # nearest: a file of data_prep.nearest, of which the second real comes.
    config.data.group = ConfigDict({"real": 1, "fake": 1, "methods": (), "match": "pair", "nearest": ""})
    config.data.batch_size = 128
    config.data.eval_batch_size = 256
    # Size and alignment preset of the stored crops, as `data_prep.prepare` made them; frames of a clip, 0 for images.
    config.data.image_size = 256
    config.data.clip_length = 0
    config.data.preset = "dfb"
    config.data.num_threads = 16

    config.model = ConfigDict()
    # {tree of the detector, or frozen player: file}, or the word random. A file is a path, hf://owner/name@commit or an
    # address, with its digest and format behind a #.
    config.init = ConfigDict({"backbone": "random"})
    config.synth = get_synth()
    config.augment = ConfigDict()
    config.policy = get_policy()
    config.loss_weights = ConfigDict({"label": 1.0})
    config.loss_args = ConfigDict()
    config.optim = get_optim()
    # How a step comes to its gradient (msddf_jax/steps.py): "gradient"; "sam", whose radius is rho; "bilevel", whose
    # loss weights are learned at the rate lr to lower `upper` on a second batch.
    config.step = ConfigDict({"name": "gradient", "rho": 0.05, "lr": 1e-3, "upper": {"label": 1.0}})
    config.steps = 30_000

    config.ema = 0.999
    # Batches are split over both axes; parameters, averages and moments over the second.
    config.mesh = ConfigDict({"data": -1, "fsdp": 1})
    config.sharding = ((".*", "fsdp(fsdp)"),)
    config.evals = ConfigDict({"val": eval_set("faceforensics/c23", "validation")})
    for method in ("deepfakes", "face2face", "faceswap", "neuraltextures"):
        config.evals[method] = eval_set("faceforensics/c23", "test", (method,))
    # Best figure on a validation split; a test split is refused.
    config.select = ConfigDict({"eval": "val", "metric": "video_auc", "every": 2000})
    # Score of a video from its frames': mean, median, max or top<k>.
    config.aggregate = "mean"
    config.log_every = 50
    config.checkpoint_every = 1000
    return config


def eval_set(name, split, methods=None):
    """A built data set (or several, "a/b,c/d:split"), its split, and what to keep.

    methods: fake methods to keep, None for all, () for none. max_frames: of each video, None for all. The field
    data_dir is where it is built, None for `config.data.data_dir`.
    """
    # Placeholders, not None: a flag can then set them.
    found = ConfigDict({"name": name, "split": split, "methods": placeholder(tuple), "max_frames": placeholder(int)})
    found.data_dir = placeholder(str)
    if methods is not None:
        found.methods = tuple(methods)
    return found


def get_synth():
    """Which forgeries stand beside a group's rows, and what is asked of them."""
    return ConfigDict(
        {
            # How they are made, and its settings: msddf_jax/synth/recipes.py.
            "recipe": {"name": "none"},
            # One flip for all that comes of a row.
            "flip": 0.5,
            # Of the reals of a group: how many are forged (None: all), and how many of these are seen once more, as the
            # other twin, where the recipe makes twins.
            "forged": placeholder(int),
            "second_views": 0,
            # Whether views of one real, its forgery among them, are augmented alike (SBI, step 5).
            "joint": True,
            # Least change that a forgery is asked about, grey levels as the model sees it, at the start of training and
            # at its end (`compose.show_change`). 0.5 is what rounding leaves.
            "visible": (0.5, 0.5),
        }
    )


def get_policy():
    """The adversary that chooses the forgeries (MSDDF 6, "Policy"; MSDDF 5, defects 10, 11 and 18), off."""
    return ConfigDict(
        {
            # "none", "reinforce", "pathwise", or "published", as SLADD's public code has it (msddf_jax/adversary.py).
            "mode": "none",
            # Its learning rate, where no group of `optim` names it: a quarter of the detector's in the public code.
            "lr": 5e-5,
            # Reward of a forgery: its own cross-entropy, and other terms of the detector.
            "reward": {"label": 1.0},
            # Uniform choices mixed in: 0.2; alone for the first of some twenty epochs.
            "exploration": 0.2,
            "warmup": 0.05,
            # No head may fall below this share of the entropy of a uniform choice.
            "entropy_floor": 0.3,
            "entropy_weight": 0.01,
            "baseline_decay": 0.99,
            "advantage_clip": 5.0,
            # Ceiling of the reversal that the pathwise mode learns by.
            "reversal": 1.0,
        }
    )


def get_optim():
    """`config.optim`: groups by regex, and what a group does not say for itself (msddf_jax/optim.py)."""
    return ConfigDict(
        {
            "groups": ((r"detector/.*", {"lr": 2e-4, "weight_decay": 5e-4}),),
            # "adamw", "adam_l2" or "sgd".
            "optimizer": "adamw",
            "b1": 0.9,
            "b2": 0.999,
            "momentum": 0.9,
            # "cosine"; "restarts", "oscillate" and "step" (each `period` steps); "constant"; "linear" from the share
            # `start` on.
            "schedule": "cosine",
            "warmup_steps": 0,
            "final_lr": 0.0,
            "period": 0,
            "factor": 0.5,
            "start": 0.0,
            "clip_norm": 1.0,
        }
    )
