"""A trained workdir, ready to score: config, weights, and a function from images to scores."""

import os
import pathlib
import platform
import zlib
from typing import Any, NamedTuple

import jax

from msddf_jax import checkpoint
from msddf_jax.train_step import dummy_batch, ema_weights, init_state, make_model, make_predict_fn


class Inference(NamedTuple):
    """config: ConfigDict. predict_fn(params, {"image": uint8 [B, H, W, 3]}) -> {"score": [B], "map": [B, g, g]}.
    params: weights for predict_fn. step: training step they are from. origin: "best" or "last"."""

    config: Any
    predict_fn: Any
    params: Any
    step: int
    origin: str


def load_for_inference(workdir):
    """The weights of a workdir: those chosen on validation where there are any, else the newest averages.

    Raises:
      FileNotFoundError: not a workdir, or no checkpoint in it.
      ValueError: the checkpoint is of another config.
    """
    config = checkpoint.load_config(workdir)
    folder = pathlib.Path(workdir)
    try:
        best = checkpoint.restore_best(folder, _on_device(weight_shapes(config)))
        if best is not None:
            return Inference(config, make_predict_fn(config), best[1], int(best[0]), "best")
        last = None
        if (folder / checkpoint.LAST).exists():
            state = _on_device(jax.eval_shape(lambda: init_state(config)))
            with checkpoint.make_manager(folder) as manager:
                last = checkpoint.restore_last(manager, state)
    except (ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the checkpoint in {folder} does not fit {folder / 'config.json'}: {first}. "
            "One of the two was replaced; train again in a new --workdir."
        ) from error
    if last is None:
        raise FileNotFoundError(
            f"no checkpoint in {folder} (looked in {folder / checkpoint.BEST} and {folder / checkpoint.LAST}); "
            "training has not saved one yet: run `python -m msddf_jax.main` with this --workdir again"
        )
    return Inference(config, make_predict_fn(config), ema_weights(last[1]), int(last[0]), "last")


def use_compilation_cache(folder):
    """Keep compiled code in `folder` for the next process; where JAX itself is told of one, that one stays.

    Args:
      folder: "~" is the home folder; in it, each kind of CPU has a folder of its own. "" does nothing.

    Returns:
      the folder that is used, or None.
    """
    if jax.config.jax_compilation_cache_dir or not folder:
        return jax.config.jax_compilation_cache_dir
    folder = os.path.join(os.path.expanduser(folder), _instruction_set())
    jax.config.update("jax_compilation_cache_dir", folder)
    return folder


def _instruction_set():
    """A name for what this CPU can run: home folders are shared by machines that differ in it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            features = next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{zlib.crc32(features.encode()):08x}"


def weight_shapes(config):
    """{"params", "model_state"} of the detector as `jax.ShapeDtypeStruct`s, without tracing optimiser or adversary."""
    _, model = make_model(config)
    init = lambda: model.init(jax.random.key(0, impl="rbg"), dummy_batch(config), train=False)
    variables = dict(jax.eval_shape(init))
    return {"params": variables.pop("params"), "model_state": variables}


def _on_device(shapes):
    """The same tree, to be restored onto the first device."""
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes)
