"""Checkpoints: the state with the data iterator for resuming, and the best weights by `config.select`.

The state is Orbax's, saved in the background and sharded. The best weights are one safetensors file, which a
reader maps into memory: a start of `predict` neither imports Orbax nor waits for it. Frozen arrays that a file of
`config.init` gives are in neither (`frozen.Base`): whoever reads gets them from that file (`delta.read_base`).
"""

import json
import os
import pathlib
import subprocess
from typing import TYPE_CHECKING

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from msddf_jax import __version__, frozen, remote

if TYPE_CHECKING:
    import orbax.checkpoint as ocp
LAST, BEST = "checkpoints", "best"
_WEIGHTS = "weights.safetensors"
# What `export` writes in place of `best`: what was trained, or everything. Collections have no "model_state/" in front
# in the second.
DELTA, WHOLE = "delta.safetensors", "model.safetensors"


def write_json(path, value) -> None:
    """Write JSON as `write_bytes` does."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def write_bytes(path, data) -> None:
    """Write a file atomically: a reader sees the old file or the new one, never half of one."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def versions() -> dict[str, str | int | None]:
    """Versions and devices of this process, for the record beside every result."""
    import importlib.metadata

    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    return {
        "msddf_jax": __version__,
        "commit": source_commit(),
        **{name: importlib.metadata.version(name) for name in names},
        "device": jax.devices()[0].device_kind,
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
    }


def source_commit() -> str | None:
    """The commit of the clone that this package runs from, with "-dirty" where files differ; None outside a clone."""
    root = pathlib.Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or one that does not trust the folder: nothing is claimed then


def save_config(workdir, config, allowed_leakage=()) -> None:
    """Write config.json and versions.json. If there are weights of a config already, it must be the same one.

    A workdir without a checkpoint binds nobody: a run that failed before its first one may be started corrected.

    allowed_leakage: lines that versions.json keeps: where training met a test split and the user allowed it.

    Fields that say where things are or how often to report may change between runs (`data.data_dir`,
    `data.num_threads`, `mesh`, `sharding`, `evals`, `log_every`, `init`); what shapes the parameters may not.

    Raises:
      ValueError: naming each differing field, the value there and the value given.
    """
    workdir = pathlib.Path(workdir)
    path = workdir / "config.json"
    ours = json.loads(config.to_json_best_effort())
    if path.exists() and has_weights(workdir):
        differences = _differences(_fixed(json.loads(path.read_text())), _fixed(ours))
        if differences:
            raise ValueError(
                f"{path} is of another config: "
                + "; ".join(f"{k} is {a!r} there, {b!r} now" for k, a, b in differences[:8])
                + ". Use another --workdir, or pass the old values."
            )
    if jax.process_index() == 0:
        write_json(path, ours)
        about = {"allowed_leakage": list(allowed_leakage)} if allowed_leakage else {}
        if (before := workdir / "versions.json").exists():
            about |= {k: v for k, v in json.loads(before.read_text()).items() if k == "weights"}
        write_json(workdir / "versions.json", {**versions(), **about})


def keep_origin(workdir, about, frozen, *, resumed) -> None:
    """Keep in versions.json where a run's weights came from: what it started with, whatever a resumed one is given.

    about: {tree or player: {"file", "sha256", ...}}. frozen: names of the players that are read at every start.
    Raises ValueError where a resumed run would go on with another file of one of those.
    """
    if jax.process_index() != 0:
        return
    path = pathlib.Path(workdir) / "versions.json"
    kept = json.loads(path.read_text())
    before = kept.get("weights", {}) if resumed else {}
    for name in set(frozen) & set(before):
        if before[name]["sha256"] != about[name]["sha256"]:
            raise ValueError(
                f"config.init.{name} was sha-256 {before[name]['sha256']} when {workdir} began, now it is "
                f"{about[name]['sha256']}: put the file back, or start in a new workdir"
            )
    write_json(path, {**kept, "weights": before or about})


def has_weights(workdir) -> bool:
    """Whether a workdir holds a whole checkpoint or best weights."""
    last = pathlib.Path(workdir) / LAST
    return _best_path(workdir).exists() or (last.is_dir() and any(p.name.isdigit() for p in last.iterdir()))


def weight_files(workdir, step, origin) -> list[pathlib.Path]:
    """The files that scoring reads weights from, and the one of `best`, which comes first wherever it is there.

    step, origin: of `inference.Inference`. Raises FileNotFoundError where they are no longer there.
    """
    best, folder = _best_path(workdir), pathlib.Path(workdir) / LAST / str(step)
    if origin == BEST:
        found = [best] if best.exists() else []
    else:
        # What lies in the folder of the iterator is for training alone.
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        found = [best, *(path for path in files if path.relative_to(folder).parts[0] != "iterator")] if files else []
    if not found:
        raise FileNotFoundError(f"the weights of step {step} ({origin}) are no longer in {workdir}")
    return found


def load_config(workdir) -> ConfigDict:
    """The ConfigDict that a workdir was trained with. Raises FileNotFoundError with the command that trains."""
    path = pathlib.Path(workdir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(
            f"no config.json in {workdir}: not a workdir of a training run. Train one with "
            f"`python -m msddf_jax.main --config configs/msddf.py:demo --workdir {workdir}`"
        )
    return ConfigDict(json.loads(path.read_text()), type_safe=False)


def _fixed(config):
    flat = {}

    def walk(prefix, value):
        if isinstance(value, dict) and value:
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        else:
            flat[prefix] = value

    walk("", config)
    movable = ("data.data_dir", "data.num_threads", "mesh", "sharding", "evals", "log_every", "init")
    return {k: v for k, v in flat.items() if not any(k == m or k.startswith(m + ".") for m in movable)}


def _differences(old, new):
    return [(k, old.get(k), new.get(k)) for k in sorted(set(old) | set(new)) if old.get(k) != new.get(k)]


def make_manager(workdir, *, keep=2) -> "ocp.CheckpointManager":
    """The manager of the whole-state checkpoints in `<workdir>/checkpoints`, saving in the background.

    Several processes write one checkpoint together where they share the folder. Of a workdir in a store every host has
    a copy: the first process writes all of it, and each reads alone.
    """
    import orbax.checkpoint as ocp  # here and below: half a second, which reading `best` does not need

    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
    if _is_copied(workdir):
        own = jax.process_index()
        options.multiprocessing_options = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
        )
        options.create = False
        (pathlib.Path(workdir).absolute() / LAST).mkdir(parents=True, exist_ok=True)
    return ocp.CheckpointManager(pathlib.Path(workdir).absolute() / LAST, options=options)


def save(manager, step, state, iterator_state, base=None) -> None:
    """Save state and data iterator in one transaction; returns once the arrays are copied off the device.

    iterator_state: what the grain iterator's `get_state()` gave for *this* step: the batches that trained it.
    base: `frozen.Base` whose arrays are left out, or None.
    """
    import orbax.checkpoint as ocp

    copied = _is_copied(manager.directory.parent)
    about = {"state": iterator_state, "base": None if base is None else base._asdict(), "raw_key": copied}
    if base is not None:
        state = frozen.without(state, base)
    if copied:
        # All of it on the host of the first process, which Orbax takes for the only one.
        state = jax.tree.map(_on_host, state.replace(key=jax.random.key_data(state.key)))
        if jax.process_index() != 0:
            return
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), iterator=ocp.args.JsonSave(about))
    manager.save(step, args=args)


def _is_copied(workdir):
    """Whether several processes work in copies of a workdir that is in a store."""
    return jax.process_count() > 1 and remote.store_of(workdir) is not None


def last_base(manager) -> frozen.Base | None:
    """The `frozen.Base` that the newest whole checkpoint was saved without; None where all is there, or nothing."""
    import orbax.checkpoint as ocp

    step = manager.latest_step()
    if step is None:
        return None
    return frozen.from_json(manager.restore(step, args=ocp.args.Composite(iterator=ocp.args.JsonRestore()))["iterator"])


def base_to_go_on(manager, base) -> frozen.Base | None:
    """What a run's checkpoints are to be saved without: `base`, or None where the newest one holds everything.

    A run of an earlier version goes on as it began: its frozen arrays are those of its checkpoint, whatever the file
    is now. Raises ValueError where the newest was saved without other arrays than `base`'s.
    """
    if manager.latest_step() is None:
        return base
    saved = last_base(manager)
    for tree, record in saved.trees.items() if saved else ():
        now = base.trees.get(tree) if base else None
        if (now or {}).get("digest") != record["digest"]:
            gives = f"gives those of {now['reference']}, sha-256 {now['sha256']}" if now else "gives no such arrays"
            raise ValueError(
                f"{manager.directory}/{manager.latest_step()} was saved without the frozen arrays of {tree}: they are "
                f"those of {record['reference']}, sha-256 {record['sha256']}, and config.init.{tree} now {gives}; put "
                "the file back, or start in a new workdir"
            )
    # Not what else may now be frozen and of a file: those arrays are in the checkpoint.
    return frozen.Base({tree: base.trees[tree] for tree in saved.trees}, saved.names) if saved else None


def restore_last(manager, abstract_state, base=None, start=None) -> tuple[int, object, str | dict] | None:
    """(step, state, iterator state) of the newest whole checkpoint, or None where there is none.

    abstract_state: the state as `jax.ShapeDtypeStruct`s with shardings. base: `frozen.Base` that it was saved without
    (`base_to_go_on`), whose arrays are those of `start`, the state before the first step.
    Raises ValueError if what is stored does not fit the model.
    """
    import orbax.checkpoint as ocp

    step = manager.latest_step()
    if step is None:
        return None
    about = manager.restore(step, args=ocp.args.Composite(iterator=ocp.args.JsonRestore()))["iterator"]
    wanted = abstract_state if base is None else frozen.without(abstract_state, base)
    if raw := about.get("raw_key", False):
        data = jax.eval_shape(jax.random.key_data, wanted.key)
        wanted = wanted.replace(key=jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=wanted.key.sharding))
    state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted)))["state"]
    if raw:
        state = state.replace(key=jax.random.wrap_key_data(state.key))
    return step, state if base is None else frozen.completed(state, start, base), about["state"]


def restore_averages(manager, shapes, averaged, given=None) -> tuple[int, dict[str, dict]] | None:
    """(step, weights) of the detector in the newest whole checkpoint, averages in place of what was trained; or None.

    shapes: {"params", "model_state"} of the detector as `jax.ShapeDtypeStruct`s with shardings. averaged: names
    "detector/..." of its parameters that have an average. given: {"params/...": array} of what it was saved without
    (`last_base`). Nothing else of the state is read.
    Raises ValueError if what is stored does not fit.
    """
    import orbax.checkpoint as ocp

    from msddf_jax import trees

    step = manager.latest_step()
    if step is None:
        return None
    flat = _by_name({"detector": shapes["params"]})
    given = {frozen.of_state(name): value for name, value in (given or {}).items()}
    wanted = {
        "params": trees.unflatten({name: leaf for name, leaf in flat.items() if name not in given}),
        "ema": {name: flat[name] for name in averaged},
        "model_state": {"detector": shapes["model_state"]},
    }
    settings = {"restore_args": ocp.checkpoint_utils.construct_restore_args(wanted), "partial_restore": True}
    state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.PyTreeRestore(wanted, **settings)))["state"]
    trained = _by_name(state["params"]) | state["ema"]
    leaves = [_put(given[name], leaf) if name in given else trained[name] for name, leaf in flat.items()]
    params = jax.tree.unflatten(jax.tree.structure(shapes["params"]), leaves)
    return step, {"params": params, "model_state": state["model_state"]["detector"]}


def save_best(workdir, step, weights, choice, base=None) -> None:
    """Replace the weights in `<workdir>/best` by these: one file, so that weights and choice change together.

    weights: {"params", "model_state"} of the detector. choice: JSON object that says why these: the validation figure
    {"<eval>/<metric>": value}, or where they were converted from. base: `frozen.Base` of what is left out, or None.
    """
    if jax.process_count() > 1:
        # No process may replace the figure that another still has to read.
        multihost_utils.sync_global_devices("save_best")
    held = set(base.names) if base else set()
    arrays = {name: _on_host(leaf) for name, leaf in _by_name(weights).items() if name not in held}
    if jax.process_index() == 0:
        write_bytes(pathlib.Path(workdir) / BEST / _WEIGHTS, best_bytes(step, arrays, choice, base))


def best_bytes(step, arrays, choice, base=None) -> bytes:
    """The file of `save_best`. arrays: {"params/...", "model_state/...": array}, those of `base` not among them."""
    about = {"step": int(step), **choice}
    if base is not None:
        about["base"] = base._asdict()
        about["digest"] = frozen.sign(about, arrays)
    # One entry: safetensors writes several in an order of chance.
    return safetensors.numpy.save(arrays, metadata={"choice": json.dumps(about, sort_keys=True)})


def read_choice(workdir) -> dict[str, int | float | str] | None:
    """What `<workdir>/best` says of its weights, {"step": int, **choice}, or None where there are none."""
    path = _best_path(workdir)
    if not _is_there(path):
        return None
    with _open(path) as file:
        return {name: value for name, value in _choice(path, file).items() if name not in ("base", "digest")}


def best_base(workdir) -> frozen.Base | None:
    """The `frozen.Base` that the weights in `<workdir>/best` were saved without; None where all are there, or none."""
    path = _best_path(workdir)
    return base_of(path) if _is_there(path) else None


def base_of(path) -> frozen.Base | None:
    """The `frozen.Base` that a safetensors file was saved without, None where it says nothing of one.

    Raises ValueError where it is damaged: one with a base is compared with the digest that it was written with.
    """
    with _open(path) as file:
        about = _choice(path, file) if "choice" in (file.metadata() or {}) else {}
        if "base" in about:
            frozen.check_signed(path, about, {name: file.get_tensor(name) for name in set(file.keys())})
        return frozen.from_json(about)


def read_arrays(path) -> dict[str, np.ndarray]:
    """{"params/...", "model_state/...": array} of a file of `save_best`."""
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in set(file.keys())}


def best_value(workdir, name) -> float | None:
    """The validation figure of the weights in `<workdir>/best`, or None."""
    return (read_choice(workdir) or {}).get(name)


def restore_best(workdir, abstract_weights, given=None) -> tuple[int, dict[str, dict]] | None:
    """(step, {"params", "model_state"}) of the weights in `<workdir>/best`, or None where there are none.

    abstract_weights: the same tree of `jax.ShapeDtypeStruct`s with shardings. given: {"params/...": array} of
    `best_base`, which finds damage; it is empty afterwards, since no array is to be held twice.
    Raises ValueError, naming what differs, where the file is damaged or of another model.
    """
    path = _best_path(workdir)
    if not _is_there(path):
        return None
    given = {} if given is None else given
    expected = {_of_file(path, name): leaf for name, leaf in _by_name(abstract_weights).items()}
    with _open(path) as file:
        about, own = _choice(path, file), set(file.keys())
        base = frozen.from_json(about)
        held, names = set(base.names if base else ()), own | set(given)
        if held != set(given):
            raise ValueError(f"{path} was saved without {len(held)} arrays of its base, and {len(given)} are given")
        if names != set(expected):
            missing, extra = sorted(set(expected) - names), sorted(names - set(expected))
            raise ValueError(f"{path} does not fit the model: it lacks {missing[:3]}, and has {extra[:3]} too much")
        values = []
        for name, leaf in expected.items():
            value = given.pop(name) if name in given else file.get_tensor(name)
            if (value.shape, value.dtype) != (leaf.shape, leaf.dtype):
                raise ValueError(
                    f"{path} does not fit the model: {name} is {value.dtype} {value.shape} there, "
                    f"{leaf.dtype} {leaf.shape} in the model"
                )
            values.append(_put(value, leaf))
    return about["step"], jax.tree.unflatten(jax.tree.structure(abstract_weights), values)


def _put(value, leaf):
    """An array of the host where a `jax.ShapeDtypeStruct` has its own."""
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, value.__getitem__)


def _of_file(path, name):
    """The name in a file of `best` or of an export of the weight "params/..." or "model_state/..."."""
    return name.removeprefix("model_state/") if path.name == WHOLE else name


def _best_path(workdir):
    best = pathlib.Path(workdir) / BEST / _WEIGHTS
    exported = (best.parents[1] / name for name in (DELTA, WHOLE) if not best.exists())
    return next((path for path in exported if path.exists()), best)


def _is_there(path):
    """Raises ValueError where an earlier version left Orbax's folders: the newest weights would pass for the best."""
    if not path.exists() and any(child.is_dir() for child in path.parent.glob("*")):
        raise ValueError(
            f"{path.parent} is of an earlier version, which wrote no {path.name}: train in a new --workdir"
        )
    return path.exists()


def _open(path):
    try:
        return safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _choice(path, file):
    try:
        said = file.metadata() or {}
        if path.name == WHOLE:
            return json.loads(said["about"])["choice"]
        return json.loads(said["choice"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} does not say which step its weights are of: training did not write it") from error


def _by_name(tree):
    """{"params/a/b": leaf}, in the order of the tree's leaves."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _on_host(leaf):
    """The whole array; one that is spread over processes is gathered."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        leaf = multihost_utils.process_allgather(leaf, tiled=True)
    # safetensors writes the buffer in memory order, whatever the array's strides say.
    return np.asarray(leaf, order="C")
