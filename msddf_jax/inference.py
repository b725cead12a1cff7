"""A trained workdir, ready to score: config, weights, and a function from images to scores."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np
from absl import logging

# Not `trees`: a program that an earlier start has compiled needs no flax, whose import takes a tenth of a second.
from msddf_jax import checkpoint, command, cpu, detector, paths


class Inference(NamedTuple):
    """config: ConfigDict. predict_fn(params, {"image": uint8 [B, H, W, 3]}) -> {"score": [B], ...} as `detector.read`.
    params: weights for predict_fn, {"params", "model_state"}. step: training step they are from. origin: "best" or
    "last". base: `frozen.Base` of those that the workdir has not, None where it has all. base_files: {tree: file that
    they were read from}, or None."""

    config: Any
    predict_fn: Any
    params: Any
    step: int
    origin: str
    base: Any = None
    base_files: Any = None


def load_for_inference(workdir, program_cache=None) -> Inference:
    """The weights of a workdir: those chosen on validation where there are any, else the newest averages.

    Frozen arrays that training left with the file they are from are read there (`delta.read_base`).

    Args:
      workdir: of a training run, or an export of one. program_cache: folder that keeps the traced model for the next
        process, which half of a start goes into; None traces it.

    Raises:
      FileNotFoundError: not a workdir, or no checkpoint in it; the file of frozen weights is missing.
      ValueError: the checkpoint is of another config; the file of frozen weights is another one or damaged; no device
      of the kind that JAX_PLATFORMS names.
    """
    command.check_devices()
    config = checkpoint.load_config(workdir)
    folder = pathlib.Path(workdir)
    if program_cache is None:
        shapes, predict_fn = detector.weight_shapes(config), make_score_fn(config)
    else:
        key = _program_key(config)
        shapes = _kept_shapes(config, program_cache, key)
        predict_fn = _kept_predict_fn(config, program_cache, key)
    with _fitting(folder):
        best, base = checkpoint.read_choice(folder), checkpoint.best_base(folder)
    if best is not None:
        given, files = _read_base(config, base, shapes, folder)
        with _fitting(folder):
            step, weights = checkpoint.restore_best(folder, _on_device(shapes), given)
        return Inference(config, predict_fn, weights, int(step), "best", base, files)
    last = None
    if (folder / checkpoint.LAST).exists():
        with checkpoint.make_manager(folder) as manager:
            with _fitting(folder):
                base = checkpoint.last_base(manager)
            given, files = _read_base(config, base, shapes, folder)
            with _fitting(folder):
                averaged = _averaged(config, shapes)
                last = checkpoint.restore_averages(manager, _on_device(shapes), averaged, given)
    if last is None:
        raise FileNotFoundError(
            f"no checkpoint in {folder} (looked in {folder / checkpoint.BEST} and {folder / checkpoint.LAST}); "
            "training has not saved one yet: run `python -m msddf_jax.main` with this --workdir again"
        )
    return Inference(config, predict_fn, last[1], int(last[0]), "last", base, files)


@contextlib.contextmanager
def _fitting(folder) -> Iterator[None]:
    """Tells an error of what is stored as one of a checkpoint and a config that do not belong together."""
    try:
        yield
    except (ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the checkpoint in {folder} does not fit {folder / 'config.json'}: {first}. "
            "One of the two was replaced; train again in a new --workdir."
        ) from error


def _read_base(config, base, shapes, where):
    """`delta.read_base`; nothing of nothing."""
    if base is None:
        return {}, None
    from msddf_jax import delta  # which knows how to read the files of others: a quarter of a second

    return delta.read_base(config, base, shapes, where)


def _averaged(config, shapes):
    """Names "detector/..." of the parameters that training keeps averages of: those that it trains."""
    from msddf_jax import optim  # optax: not needed where the best weights were kept

    trained = optim.trainable_names({"detector": shapes["params"]}, config.optim.groups)
    return [name for name, value in trained.items() if value]


def make_score_fn(config) -> Callable[[dict, dict], dict[str, jax.Array]]:
    """`detector.make_score`, jitted as scoring is fastest."""
    return jax.jit(detector.make_score(config), compiler_options=cpu.scoring_options())


def score_crops(model, crops, batch_size=32) -> list[dict[str, float | np.ndarray]]:
    """What the detector says of each of some face crops.

    Batches are padded to `batch_size`, so that the model compiles once; fewer crops than that to a power of two, so
    that a single image does not cost a whole batch.

    Args:
      model: `Inference`. crops: uint8 RGB [S, S, 3] each. batch_size: at most at once.

    Returns:
      list of N dicts: "score", a float, P(fake); and where the detector has them "map", float32 [g, g] in [0, 1],
      "type" [6], probabilities of `schema.FORGERY_TYPES`, "regions" [5], of `schema.FACE_PARTS`, "strength", a float,
      "feature" [d].
      A score may be NaN where the weights are.
    """
    frames = model.config.data.get("clip_length", 0)
    if frames:
        raise ValueError(f"detector {model.config.detector!r} takes clips of {frames} frames, these are single crops")
    size = batch_size if len(crops) >= batch_size else min(batch_size, 1 << max(len(crops) - 1, 0).bit_length())
    rows = []
    for start in range(0, len(crops), size):
        batch = np.stack(crops[start : start + size])
        count = len(batch)
        batch = np.concatenate([batch, np.zeros((size - count, *batch.shape[1:]), np.uint8)])
        out = model.predict_fn(model.params, {"image": batch})
        out = {name: np.asarray(value, np.float32) for name, value in out.items()}
        rows += [{k: v[i].item() if v.ndim == 1 else v[i] for k, v in out.items()} for i in range(count)]
    return rows


def use_compilation_cache(folder) -> str | None:
    """Keep compiled code in `folder` for the next process; where JAX's own setting names one, that one stays.

    Args:
      folder: "~" is the home folder; in it, each kind of CPU has a folder of its own. "" does nothing.

    Returns:
      the folder that is used, or None; one that cannot be written is not used, with a warning.
    """
    if jax.config.jax_compilation_cache_dir or not folder:
        return jax.config.jax_compilation_cache_dir
    folder = os.path.join(paths.expand(folder), instruction_set())
    try:
        paths.make_writable(folder)
    except OSError as error:
        logging.warning(
            "no cache, so that every start compiles anew (%s): set JAX_COMPILATION_CACHE_DIR or --compilation_cache to "
            "a folder that can be written",
            error,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", folder)
    return folder


def instruction_set() -> str:
    """A name for what this CPU can run: home folders are shared by machines that differ in it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            features = next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{zlib.crc32(features.encode()):08x}"


def _kept_shapes(config, folder, key):
    """`detector.weight_shapes`, read from `folder` where a process before has left them there."""
    path = pathlib.Path(folder) / f"weights-{key}.json"
    try:
        flat = json.loads(path.read_text())
        shapes = {"params": {}, "model_state": {}}
        for name, (shape, dtype) in flat.items():
            *parents, leaf = name.split("/")
            place = functools.reduce(lambda node, part: node.setdefault(part, {}), parents, shapes)
            place[leaf] = jax.ShapeDtypeStruct(shape, dtype)
        return shapes
    except OSError:
        pass
    except (ValueError, TypeError, AttributeError) as error:
        logging.warning("%s is damaged (%s): made anew", path, error)
    from msddf_jax import trees

    shapes = detector.weight_shapes(config)
    flat = {name: [leaf.shape, leaf.dtype.name] for name, leaf in trees.flatten(shapes).items()}
    _keep(checkpoint.write_json, path, flat)
    return shapes


def _kept_predict_fn(config, folder, key):
    """`make_score_fn`, its StableHLO kept in `folder`, a file a size of batch: nothing is traced again."""
    programs = {}

    def predict(weights, batch):
        shape = batch["image"].shape
        if shape not in programs:
            path = pathlib.Path(folder) / f"predict-{key}-{'x'.join(map(str, shape))}.stablehlo"
            program = _kept_program(config, path, weights, batch)
            programs[shape] = jax.jit(program.call, compiler_options=cpu.scoring_options())
        return programs[shape](weights, batch)

    return predict


def _kept_program(config, path, weights, batch):
    try:
        return jax.export.deserialize(bytearray(path.read_bytes()))
    except OSError:
        pass
    except Exception as error:  # FlatBuffers has no error of its own for what is cut short
        logging.warning("%s is damaged (%s: %s): made anew", path, type(error).__name__, error)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (weights, batch))
    program = jax.export.export(jax.jit(detector.make_score(config)))(*shapes)
    _keep(checkpoint.write_bytes, path, program.serialize())
    return program


def _keep(write, path, what):
    """Write a file of the cache, or go on without: a full or a protected disk stops no scoring."""
    try:
        write(path, what)
    except OSError as error:
        logging.log_first_n(logging.WARNING, "%s is not kept for the next start (%s)", 1, path, error)


def _program_key(config):
    """A name that changes with whatever the traced model depends on: config, sources, libraries, kind of device."""
    digest = hashlib.sha256(config.to_json_best_effort().encode())
    own = sorted(pathlib.Path(__file__).parent.rglob("*.py"))
    for path in [*own, *detector.sources(config.detector)]:
        digest.update(path.read_bytes())
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")]
    digest.update(" ".join([*versions, jax.default_backend()]).encode())
    return digest.hexdigest()[:24]


def _on_device(shapes):
    """The same tree, to be restored onto the first device of this process."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), shapes)
