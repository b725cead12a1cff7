"""A trained workdir, ready to score: config, weights, and a function from images to scores."""

import pathlib
from typing import Any, NamedTuple

import jax

from msddf_jax import checkpoint
from msddf_jax.train_step import ema_weights, init_state, make_predict_fn


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
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: init_state(config))
    state = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes)
    weights = {"params": state.params["detector"], "model_state": state.model_state}
    folder = pathlib.Path(workdir)
    try:
        best = checkpoint.restore_best(folder, weights)
        if best is not None:
            return Inference(config, make_predict_fn(config), best[1], int(best[0]), "best")
        last = None
        if (folder / checkpoint.LAST).exists():
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
