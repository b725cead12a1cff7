"""Fields that every experiment has, with the defaults that most of them share."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_common():
    """A ConfigDict with every field that the trainer reads; experiments change what differs."""
    config = ConfigDict()
    # Of initial weights, forgeries, augmentation and the order of the data.
    config.seed = 0
    # A file of msddf_jax/detectors, or the dotted name of any module that holds one (msddf_jax/detector.py).
    config.detector = "msddf"
    # Compute dtype; parameters, losses and statistics are float32.
    config.dtype = "bfloat16"

    config.data = ConfigDict()
    # Where `data_prep.build --data_dir` put the built data sets.
    config.data.data_dir = "data/tfds"
    # What is trained on.
    config.data.train = eval_set("faceforensics/c23", "train")
    config.data.group = get_group()
    # Rows of a training batch, over all devices and processes: a multiple of the rows of a group.
    config.data.batch_size = 128
    # Crops that an evaluation scores at once.
    config.data.eval_batch_size = 256
    # Side of the stored crops in pixels, as `data_prep.prepare --size` made them.
    config.data.image_size = 256
    # Frames of a clip; 0 for images.
    config.data.clip_length = 0
    # Alignment of the stored crops, as `data_prep.prepare --preset` made them.
    config.data.preset = "dfb"
    # Threads that read and decode, in each process.
    config.data.num_threads = 16

    # The detector's own settings: fields of its module's Model (docs/reference/experiments.md).
    config.model = ConfigDict()
    # {tree of the detector, or frozen player: file}, or the word random. A file is a path, hf://owner/name@commit or an
    # address, with its digest and format behind a #.
    config.init = ConfigDict({"backbone": "random"})
    config.synth = get_synth()
    # Augmentation of a row and the size that the model sees: arguments of `synth.compose.augment`.
    config.augment = ConfigDict()
    config.policy = get_policy()
    # Weight of each term of the detector's `losses` in the sum that is lowered; the others are logged alone.
    config.loss_weights = ConfigDict({"label": 1.0})
    # Other numbers that the detector's losses read.
    config.loss_args = ConfigDict()
    config.optim = get_optim()
    config.step = get_step()
    # Train steps.
    config.steps = 30_000

    # Decay of the moving average of the parameters, which is what is evaluated and kept; 0: the last parameters.
    config.ema = 0.999
    config.mesh = get_mesh()
    # How parameters, averages and moments are split: (regex of the name, "fsdp(<axis>)" or "replicate"), the first fit.
    config.sharding = ((".*", "fsdp(fsdp)"),)
    # What is evaluated at the end, by name: each with the fields of data.train.
    config.evals = ConfigDict({"val": eval_set("faceforensics/c23", "validation")})
    for method in ("deepfakes", "face2face", "faceswap", "neuraltextures"):
        config.evals[method] = eval_set("faceforensics/c23", "test", (method,))
    config.select = get_select()
    # Score of a video from its frames': mean, median, max or top<k>.
    config.aggregate = "mean"
    # Steps between two lines of metrics.jsonl.
    config.log_every = 50
    # Steps between two checkpoints.
    config.checkpoint_every = 1000
    return config


def eval_set(name, split, methods=None):
    """A built data set (or several, "a/b,c/d:split"), its split, and what to keep.

    methods: fake methods to keep, None for all, () for none.
    """
    # Placeholders, not None: a flag can then set them.
    found = ConfigDict(
        {
            # Built data set, "<data set>/<config>", or several by commas, each with its own ":<split>" or this one.
            "name": name,
            # The split that is read.
            "split": split,
            # Fake methods to keep; None for all, () for reals alone.
            "methods": placeholder(tuple),
            # Frames of each video, spread evenly; None for all.
            "max_frames": placeholder(int),
            # Where the set is built; None for data.data_dir.
            "data_dir": placeholder(str),
        }
    )
    if methods is not None:
        found.methods = tuple(methods)
    return found


def get_group():
    """`config.data.group`: the rows of a group, of which a batch is made; fakes are of the same video or of anyone."""
    return ConfigDict(
        {
            # Reals of a group.
            "real": 1,
            # Fakes of the data set beside them; 0 trains on reals alone.
            "fake": 1,
            # With method names, `fake` rows of each of them.
            "methods": (),
            # Fakes of the same source video ("pair") or of anyone ("class").
            "match": "pair",
            # A file of data_prep.nearest: the second real is then a near face of another person.
            "nearest": "",
        }
    )


def get_step():
    """`config.step`: how a step comes to its gradient (msddf_jax/steps.py)."""
    return ConfigDict(
        {
            # "gradient"; "sam"; "bilevel", which learns the loss weights.
            "name": "gradient",
            # Radius of sam.
            "rho": 0.05,
            # Rate at which bilevel learns the loss weights.
            "lr": 1e-3,
            # Weights of the terms that bilevel lowers on a second batch.
            "upper": {"label": 1.0},
        }
    )


def get_mesh():
    """`config.mesh`: batches are split over both axes; parameters, averages and moments over the second."""
    return ConfigDict(
        {
            # Devices along the first axis; -1 for all that the second leaves.
            "data": -1,
            # Devices over which parameters, averages and moments are split.
            "fsdp": 1,
        }
    )


def get_select():
    """`config.select`: which weights are kept; None keeps the last."""
    return ConfigDict(
        {
            # Of `evals`: a validation split; a test split is refused.
            "eval": "val",
            # The metric, "<level>_<metric>", that is to be highest.
            "metric": "video_auc",
            # Steps between two such evaluations.
            "every": 2000,
        }
    )


def get_synth():
    """Which forgeries stand beside a group's rows, and what is asked of them."""
    return ConfigDict(
        {
            # How forgeries are made, and the settings of that recipe: msddf_jax/synth/recipes.py.
            "recipe": {"name": "none"},
            # Chance of a horizontal flip: one for all that comes of a row.
            "flip": 0.5,
            # How many of a group's reals are forged; None: all.
            "forged": placeholder(int),
            # How many of these are seen once more, as the other twin, where the recipe makes twins.
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
            # Share of uniform choices that are mixed in.
            "exploration": 0.2,
            # Share of training at its start in which all choices are uniform: the first of some twenty epochs.
            "warmup": 0.05,
            # No head may fall below this share of the entropy of a uniform choice.
            "entropy_floor": 0.3,
            # Weight of the entropy in the policy's objective.
            "entropy_weight": 0.01,
            # Decay of the moving mean of the reward, which is taken off it.
            "baseline_decay": 0.99,
            # Largest reward, less that mean, in standard deviations.
            "advantage_clip": 5.0,
            # Ceiling of the reversal that the pathwise mode learns by.
            "reversal": 1.0,
        }
    )


def get_optim():
    """`config.optim`: groups by regex, and what a group does not say for itself (msddf_jax/optim.py)."""
    return ConfigDict(
        {
            # (regex of the parameter's name, settings), the first that fits; None in place of settings freezes.
            "groups": ((r"detector/.*", {"lr": 2e-4, "weight_decay": 5e-4}),),
            # "adamw", "adam_l2" (PyTorch's Adam with weight decay) or "sgd".
            "optimizer": "adamw",
            # Decay of Adam's first moment.
            "b1": 0.9,
            # Decay of Adam's second moment.
            "b2": 0.999,
            # Of sgd.
            "momentum": 0.9,
            # "cosine"; "restarts", "oscillate" and "step" (each `period` steps); "constant"; "linear" from the share
            # `start` on.
            "schedule": "cosine",
            # Steps in which the learning rate rises from 0 to the group's.
            "warmup_steps": 0,
            # Learning rate at the end of cosine, restarts, oscillate and linear.
            "final_lr": 0.0,
            # Steps of restarts, oscillate and step.
            "period": 0,
            # What step multiplies the rate by after each period.
            "factor": 0.5,
            # Share of training after which linear begins.
            "start": 0.0,
            # Largest norm of the gradient of each player, the detector or another network.
            "clip_norm": 1.0,
        }
    )
