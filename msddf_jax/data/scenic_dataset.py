"""Built data sets as Scenic's trainers read them (google-research/scenic, commit 4a38d475ee89, July 2026).

Over `source` and `pipeline`; Scenic and TensorFlow are not imported. What a Scenic trainer does to a batch is its own:
forgeries and augmentations of this project's training step have no place there.
"""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from msddf_jax.data import overlap, pipeline, schema, source
from msddf_jax.data.groups import make_groups

SPLITS = ("train", "validation", "test")
# To [-1, 1], as the configs of Scenic's ViT have it (`value_range(-1, 1)`).
HALF = (0.5, 0.5, 0.5)


class Dataset(NamedTuple):
    """What trainers read of Scenic's `dataset_utils.Dataset`, under its names.

    The iterators are endless; the evaluating ones start over after every record was given once, which is
    ceil(number of records / rows of all processes) batches. test_iter is None where there is no test set.
    """

    train_iter: Iterator
    valid_iter: Iterator
    test_iter: Iterator | None
    meta_data: dict[str, Any]


def make_dataset(
    sets,
    *,
    batch_size,
    eval_batch_size=None,
    num_shards=None,
    data_dir=None,
    group=None,
    seed=0,
    num_threads=4,
    pixel_mean=HALF,
    pixel_std=HALF,
    allow_leakage=False,
) -> Dataset:
    """Built data sets as the `dataset` argument of a Scenic train loop.

    Batches are {"inputs": float32 [num_shards, B / num_shards, H, W, 3], (RGB in [0, 1] - pixel_mean) / pixel_std;
    "label": float32 one-hot [num_shards, B / num_shards, 2], real, then fake; "batch_mask": float32
    [num_shards, B / num_shards], 0 for padding}. Of clips, inputs have their frames in front of H. Rows of a training
    batch are groups, as `pipeline.train_batches` gives them, so that classes are balanced as `group` says.

    Args:
      sets: "<data set>/<config>", whose splits train, validation and, if there is one, test are taken; or
        {"train": names, "validation": names, "test": names or left out} of `source.open_sources`; or an experiment's
        config: its training set, and the eval that `config.select` names.
      batch_size, eval_batch_size: rows of this process, as Scenic calls its builders: config.batch_size /
        jax.process_count(). None: the same.
      num_shards: None for the number of local devices.
      data_dir: where built sets are; None for the config's, else for TFDS's default.
      group: of `schema.make_group`; None for the config's, else for one real and one fake of its video.
      seed, num_threads: of `pipeline.train_batches`.
      pixel_mean, pixel_std: three numbers each; (0, 0, 0) and (1, 1, 1) leave [0, 1].
      allow_leakage: log what training and test sets share, in place of an error.

    Returns:
      Dataset. meta_data: num_classes, input_shape (-1, H, W, 3), input_dtype, target_is_onehot, num_train_examples
      (rows of an epoch, one pass over the real frames that have fakes), num_eval_examples, num_test_examples, and
      label_names.

    Raises:
      FileNotFoundError: a set that is not built. ValueError: sets of another form; a config that trains on reals alone;
      sizes that do not divide; a training set that meets the test set.
    """
    opened, group = _open(sets, data_dir, group)
    if schema.make_group(group or {}).fake == 0:
        raise ValueError(
            f"{opened['train'].name}: groups have no fake (group.fake = 0). Fakes that are made in this project's "
            "training step are not made in Scenic's: name a set with fakes and a group such as {'real': 1, 'fake': 1}"
        )
    _check_leakage(opened, allow_leakage)
    num_shards = jax.local_device_count() if num_shards is None else num_shards
    eval_batch_size = batch_size if eval_batch_size is None else eval_batch_size
    for name, rows in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
        if rows < 1 or num_shards < 1 or rows % num_shards:
            raise ValueError(f"{name} {rows} is not a multiple of the {num_shards} shards (local devices)")
    shape, count = opened["train"].image_size, jax.process_count()
    settings = {"clip_length": opened["train"].clip_length, "num_threads": num_threads}
    convert = lambda batch: _convert(batch, num_shards, pixel_mean, pixel_std)
    train = pipeline.train_batches(opened["train"], batch_size=batch_size * count, group=group, seed=seed, **settings)
    again = {}
    for split in SPLITS[1:]:
        if split in opened:
            one = opened[split]
            if one.image_size != shape:
                raise ValueError(f"{one.name} has images of {one.image_size}, {opened['train'].name} of {shape}")
            batches = pipeline.eval_batches(one, batch_size=eval_batch_size * count, **settings)
            again[split] = map(convert, itertools.chain.from_iterable(itertools.repeat(batches)))
    return Dataset(map(convert, train), again["validation"], again.get("test"), _describe(opened, group))


def _open(sets, data_dir, group):
    """({split: Source}, group) of what `make_dataset` takes."""
    if isinstance(sets, ConfigDict):
        if sets.select is None:
            raise ValueError("the config chooses no checkpoints (select), so that it says no validation set: name sets")
        of = {"train": sets.data.train, "validation": sets.evals[sets.select.eval]}
        opened = {split: source.open_configured(sets, settings, data_dir) for split, settings in of.items()}
        return opened, sets.data.group if group is None else group
    if isinstance(sets, str):
        there = source.split_names(sets, data_dir)
        lacking = [split for split in SPLITS[:2] if split not in there]
        if lacking:
            raise ValueError(f"{sets} has the splits {', '.join(there)} and no {' and no '.join(lacking)}: name sets")
        sets = {split: sets for split in SPLITS if split in there}
    if not isinstance(sets, dict) or not {"train", "validation"} <= set(sets) <= set(SPLITS):
        raise ValueError(f"sets are a name, a config, or a dict with train, validation and may be test; got {sets!r}")
    return {split: source.open_sources(name, split, data_dir) for split, name in sets.items()}, group


def _describe(opened, group):
    """meta_data of a Dataset."""
    train = opened["train"]
    groups = make_groups(train, group)
    return {
        "num_classes": len(schema.LABELS),
        "input_shape": (-1, *([train.clip_length] if train.clip_length else []), *train.image_size, 3),
        "input_dtype": np.float32,
        "target_is_onehot": True,
        "num_train_examples": len(groups) * groups.group.rows,
        "num_eval_examples": len(opened["validation"]),
        "num_test_examples": len(opened["test"]) if "test" in opened else 0,
        "label_names": tuple(schema.LABELS),
    }


def _check_leakage(opened, allow):
    parts = [overlap.from_sources([opened[split]] if split in opened else [], split) for split in SPLITS]
    errors, reports = overlap.check_experiment(*parts)
    if errors and not allow:
        raise ValueError(
            "training and test sets share videos or people: " + "; ".join(map(overlap.describe, errors))
            + ". allow_leakage=True goes on all the same"
        )  # fmt: skip
    for finding in (*errors, *reports):
        logging.warning("leakage: %s", overlap.describe(finding))


def _convert(batch, num_shards, mean, std):
    """A batch of the pipeline as Scenic's trainers read it."""
    images = (batch["image"].astype(np.float32) / np.float32(255) - np.float32(mean)) / np.float32(std)
    rows = {
        "inputs": images,
        "label": np.eye(len(schema.LABELS), dtype=np.float32)[batch["label"]],
        "batch_mask": batch["_mask"].astype(np.float32),
    }
    return {name: value.reshape(num_shards, -1, *value.shape[1:]) for name, value in rows.items()}
