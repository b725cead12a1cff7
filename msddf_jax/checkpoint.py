"""Checkpoints: the whole state with the data iterator for resuming, and the best weights by `config.select`."""

import json
import os
import pathlib
import subprocess

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from msddf_jax import __version__

LAST, BEST = "checkpoints", "best"


def write_json(path, value):
    """Write JSON as `write_bytes` does."""
    write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def write_bytes(path, data):
    """Write a file atomically: a reader sees the old file or the new one, never half of one."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def versions():
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


def source_commit():
    """The commit of the clone that this package runs from, with "-dirty" where files differ; None outside a clone."""
    root = pathlib.Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or one that does not trust the folder: nothing is claimed then


def save_config(workdir, config, allowed_leakage=()):
    """Write config.json and versions.json. If a config is there already, it must be the same one.

    allowed_leakage: lines that versions.json keeps: where training met a test split, and was told to go on.

    Fields that say where things are or how often to report may change between runs (`data.data_dir`,
    `data.num_threads`, `mesh`, `sharding`, `evals`, `log_every`, `init`); what shapes the parameters may not.

    Raises:
      ValueError: naming each differing field, the value there and the value given.
    """
    workdir = pathlib.Path(workdir)
    path = workdir / "config.json"
    ours = json.loads(config.to_json_best_effort())
    if path.exists():
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
        write_json(workdir / "versions.json", {**versions(), **about})


def load_config(workdir):
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


def make_manager(workdir, *, keep=2):
    """The manager of the whole-state checkpoints in `<workdir>/checkpoints`, saving in the background."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=True)
    return ocp.CheckpointManager(pathlib.Path(workdir).absolute() / LAST, options=options)


def save(manager, step, state, iterator_state):
    """Save state and data iterator in one transaction; returns once the arrays are copied off the device.

    iterator_state: what the grain iterator's `get_state()` gave for *this* step: the batches that trained it.
    """
    manager.save(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(state), iterator=ocp.args.JsonSave({"state": iterator_state})
        ),
    )


def restore_last(manager, abstract_state):
    """(step, state, iterator state) of the newest whole checkpoint, or None where there is none.

    abstract_state: the state as `jax.ShapeDtypeStruct`s with shardings.
    Raises ValueError if what is stored does not fit the model.
    """
    step = manager.latest_step()
    if step is None:
        return None
    restored = manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), iterator=ocp.args.JsonRestore()),
    )
    return step, restored["state"], restored["iterator"]["state"]


def save_best(workdir, step, weights, choice):
    """Replace the weights in `<workdir>/best` by these.

    weights: {"params", "model_state"} of the detector. choice: JSON object that says why these: the validation figure
    {"<eval>/<metric>": value}, or where they were converted from.
    """
    root = pathlib.Path(workdir).absolute() / BEST
    with ocp.CheckpointManager(root, options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True)) as manager:
        manager.save(
            step,
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(weights),
                choice=ocp.args.JsonSave({"step": int(step), **choice}),
            ),
            force=True,
        )
        manager.wait_until_finished()


def best_value(workdir, name):
    """The validation figure of the weights in `<workdir>/best`, or None."""
    root = pathlib.Path(workdir).absolute() / BEST
    if not root.exists():
        return None
    with ocp.CheckpointManager(root) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        restored = manager.restore(step, args=ocp.args.Composite(choice=ocp.args.JsonRestore()))
    return restored["choice"].get(name)


def restore_best(workdir, abstract_weights):
    """(step, {"params", "model_state"}) of the weights in `<workdir>/best`, or None where there are none.

    abstract_weights: the same tree of `jax.ShapeDtypeStruct`s with shardings.
    """
    root = pathlib.Path(workdir).absolute() / BEST
    if not root.exists():
        return None
    with ocp.CheckpointManager(root) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(weights=ocp.args.StandardRestore(abstract_weights))
        return step, manager.restore(step, args=args)["weights"]
