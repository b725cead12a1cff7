"""The built data sets of an experiment, where the command line names others than its config.

A set is "<data set>/<config>[:split]", as faceforensics/c23 or folder/mine:test. Behind the name of a config one takes
the place of all: `configs/msddf.py:folder/mine`, or after its argument, `configs/msddf.py:demo:folder/mine`.
"""

import math

from absl import logging
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from msddf_jax import experiments
from msddf_jax.data import schema, source

# A small set is learned by heart long before a published run of 30,000 steps ends.
_PASSES = 100
# Splits of a set that is trained, chosen and tested on.
_OWN_SPLITS = ("train", "validation", "test")


def eval_name(text) -> str:
    """The name in `config.evals` of a set on the command line: "celebdf_v2", "folder_mine_validation"."""
    path, _, split = text.partition(":")
    return (path if split in ("", "test") else f"{path}_{split}").replace("/", "_").removesuffix("_default")


def eval_settings(text) -> dict[str, str | None]:
    """The fields of `config.evals` for a set on the command line; of its split "test" where it names none.

    Raises ValueError for what is no set.
    """
    check_set(text)
    path, _, split = text.partition(":")
    return {"name": path, "split": split or "test", "methods": None, "max_frames": None, "data_dir": None}


def check_set(text, flag="a data set") -> None:
    """Raise ValueError, with what a set looks like, where text is none. flag: who named it."""
    if not experiments.is_set(text.partition(":")[0]):
        raise ValueError(f'{flag} {text!r}: expected "<data set>/<config>[:split]", as faceforensics/c23')


def fill_sets(config, *, train=None, test=None, methods=None, frames_per_video=None) -> ConfigDict:
    """The config with other data sets; what is None stays as it is.

    Args:
      config: locked ConfigDict. train, test: lists of "<set>/<config>[:split]", by default the splits "train" and
        "test". With `train`, checkpoints are chosen on the validation split of its first set; the eval that
        `config.select` names stays beside the test sets. methods: to train on; with `train`, all where None.
      frames_per_video: of each video, in training and in every eval.

    Returns:
      the same config, locked.

    Raises:
      ValueError: a set that is named otherwise, or twice.
    """
    for name in [*(train or ()), *(test or ())]:
        check_set(name, "--train or --test")
    with config.unlocked():
        if train is not None:
            config.data.train.update({"name": ",".join(train), "split": "train"})
            if config.data.group.fake:
                config.data.train.methods = None
            if config.select is not None:
                first = {"name": train[0].partition(":")[0], "split": "validation", "methods": None}
                config.evals[config.select.eval].update(first)
        if methods is not None:
            if not config.data.group.fake:
                raise ValueError("--methods: this config trains on reals alone (data.group.fake is 0)")
            config.data.train.methods = tuple(methods)
        if test is not None:
            kept = [] if config.select is None else [config.select.eval]
            for name in [n for n in config.evals if n not in kept]:
                del config.evals[name]
            for name in test:
                if (key := eval_name(name)) in config.evals:
                    raise ValueError(f"--test names {key} twice, or it is the config's own validation eval")
                config.evals[key] = {k: v for k, v in eval_settings(name).items() if k != "data_dir"}
        if frames_per_video is not None:
            for settings in (config.data.train, *config.evals.values()):
                settings.max_frames = frames_per_video
    return config


def fill_own(config, name, keep_steps=False) -> ConfigDict:
    """The config on one built set alone: its splits train, choose and test, its crops say what size is stored.

    Groups are by pair where each real that trains has a fake of its own, by class otherwise; fakes of methods that it
    lacks become fakes of any. A small set is not trained on for longer than `_PASSES` passes over its reals; rates,
    choices and checkpoints come as much sooner. What changes is logged.

    Args:
      config: locked ConfigDict; `config.data.data_dir` says where sets are built. name: "<data set>/<config>".
      keep_steps: whether the number of steps is the user's.

    Returns:
      the same config, locked.

    Raises:
      FileNotFoundError: the set is not built, with the command that builds it. ValueError: it has no split "train" or
        "validation", one of them lacks a class, or a name that is no set.
    """
    check_set(name, "the set behind the config's name")
    data_dir = config.data.train.get("data_dir") or config.data.data_dir
    splits = source.split_names(name, data_dir)
    lacking = [split for split in _OWN_SPLITS[:2] if split not in splits]
    if lacking:
        raise ValueError(
            f"{name} has the splits {', '.join(splits)}; to train on it and to choose a checkpoint it needs "
            f"{' and '.join(lacking)}: prepare it with splits, or name sets by --train and --test"
        )
    opened = {split: source.open_source(name, split, data_dir) for split in _OWN_SPLITS if split in splits}
    for split in _OWN_SPLITS[:2]:
        _check_classes(opened[split], config.data.group.fake if split == "train" else 1)
    settings = lambda split: {
        "name": name,
        "split": split,
        "methods": placeholder(tuple),
        "max_frames": placeholder(int),
    }
    with config.unlocked():
        config.data.train.update({"name": name, "split": "train", "max_frames": None})
        config.data.train.methods = None if config.data.group.fake else ()
        chosen = "val" if config.select is None else config.select.eval
        evals = {chosen: "validation", **({"test": "test"} if "test" in opened else {})}
        config.evals = ConfigDict(
            {key: settings(split) | {"data_dir": placeholder(str)} for key, split in evals.items()}
        )
        _fit_group(config, opened["train"])
        _fit_records(config, opened["train"])
        if not keep_steps:
            _fit_steps(config, opened["train"])
    if "test" not in opened:
        logging.warning("%s has no split test: validation alone is scored, on which the checkpoint is chosen too", name)
    return config


def _check_classes(opened, fakes):
    """Raise ValueError where a split lacks reals, or fakes that are needed."""
    there = set(opened.videos["label"][opened.count > 0].tolist())
    lacking = [label for label in schema.LABELS if label not in there and (label == "real" or fakes)]
    if lacking:
        raise ValueError(
            f"{opened.name} has no {' and no '.join(lacking)}: both are needed to train and to choose a checkpoint"
        )


def _fit_group(config, train):
    """Groups that a set can fill: `data.group.methods` and `match`."""
    group = config.data.group
    if group.methods and not set(group.methods) <= set(train.videos["method"].tolist()):
        logging.warning("%s lacks some of %s: groups take fakes of any method", train.name, ", ".join(group.methods))
        # As many reals for a fake as before.
        group.real = max(group.real // len(group.methods), 1)
        group.methods = ()
    if not group.fake:
        return
    reals = train.videos["video_id"][(train.videos["label"] == "real") & (train.count > 0)]
    paired = set(train.videos["pair_id"].tolist())
    match = "pair" if set(reals.tolist()) <= paired else "class"
    if match != group.match:
        logging.warning("%s: groups of a batch are by %s (config.data.group.match)", train.name, match)
        group.match = match


def _fit_steps(config, train):
    """Steps that a set is large enough for."""
    group = schema.make_group(config.data.group)
    reals = int(train.count[train.videos["label"] == "real"].sum())
    most = math.ceil(_PASSES * reals / max(1, config.data.batch_size // group.rows))
    if most >= config.steps:
        return
    share = most / config.steps
    logging.warning("%s: %d steps, %d passes over its %d reals (config.steps)", train.name, most, _PASSES, reals)
    config.optim.warmup_steps = int(config.optim.warmup_steps * share)
    config.optim.period = int(config.optim.period * share)
    config.steps = most
    config.checkpoint_every = min(config.checkpoint_every, max(1, most // 4))
    if config.select is not None:
        config.select.every = min(config.select.every, max(1, most // 4))


def _fit_records(config, train):
    """What is stored: side of the crops, frames of a clip."""
    height, width = train.image_size
    if height != width:
        raise ValueError(f"{train.name} holds images of {width}x{height}, expected squares: prepare it again")
    config.data.image_size = int(height)
    if train.clip_length != config.data.clip_length:
        raise ValueError(
            f"{train.name} holds {source.describe_records(train)}; this config takes "
            f"{f'clips of {config.data.clip_length}' if config.data.clip_length else 'single frames'}"
        )
