"""A trained detector and its base: what is frozen is read where training got it, and proved to be the same.

`checkpoint` writes what was trained, and of the frozen arrays that a file of `config.init` gives where they are and
their digest (`frozen.Base`). An array is the base's where the file gives it as it is, position embeddings resampled
or not. What a detector's `from_backbone` computes is saved with what was trained: to compute it may take minutes (an
SVD of every projection), and another machine may come to other digits.
"""

import contextlib
import os
import pathlib
import re
import sys

import numpy as np
from ml_collections import ConfigDict

from msddf_jax import checkpoint, detector, frozen, trees
from msddf_jax.weights import hub, identify, load_initial, table


def find_base(config, loaded, about, held) -> frozen.Base | None:
    """What of a detector need not be saved: its frozen arrays that files give as they are; None where there are none.

    Args:
      config: the experiment. loaded: {"params/<tree>/...": array}, of the model's dtype. about: {tree: {"sha256",
        "format", ...}}, of `load`; a tree at random has no "sha256". held: names in `loaded` that are not trained and
        that `from_backbone` left as they were.
    """
    found = {}
    for tree, origin in about.items():
        own = {name: loaded[name] for name in held if _tree_of(name) == tree} if "sha256" in origin else {}
        if own:
            found[tree] = {
                "configured": config.init[tree],
                "reference": _pinned(config.init[tree]),
                "sha256": origin["sha256"],
                "format": origin["format"],
                "frozen": sum(value.size for value in own.values()),
                "digest": frozen.digest(own),
            }
    names = tuple(sorted(name for name in held if _tree_of(name) in found))
    return frozen.Base(found, names) if found else None


def published(base) -> frozen.Base:
    """A `frozen.Base` for others: where a file lay on this machine is not in it."""
    place = lambda record: record["configured"] if _is_path(record["reference"]) else record["reference"]
    return base._replace(trees={tree: {**r, "reference": place(r)} for tree, r in base.trees.items()})


def read_base(config, base, shapes, where) -> tuple[dict[str, np.ndarray], dict[str, pathlib.Path]]:
    """({"params/<tree>/...": array} of a `frozen.Base`, {tree: its file}), proved to be those of training.

    Args:
      config: of the detector. shapes: {"params", "model_state"} of it, as shapes. where: what was saved without these
        arrays, for messages.

    Raises:
      FileNotFoundError: a file that is not there. ValueError: another or a damaged file, or one that no longer gives
      the same arrays. Each says which file is expected, and how to name its place.
    """
    flat_shapes = trees.flatten({"params": shapes["params"], **shapes["model_state"]})
    given, files = {}, {}
    for tree, record in base.trees.items():
        mend = (
            f"Training read {record['reference']}, sha-256 {record['sha256']}: put that file back, set "
            f"$MSDDF_WEIGHTS to a folder that holds it, or name its place as init.{tree} in config.json; where it is, "
            "`python -m msddf_jax.export` writes weights that need no base"
        )
        try:
            text, files[tree] = _locate(config, tree, record)
            names = [name for name in base.names if _tree_of(name) == tree]
            own = _read_frozen(config, tree, _with_digest(text, record["sha256"]), flat_shapes, names)
            if frozen.digest(own) != record["digest"]:
                raise ValueError(
                    f"{files[tree]} gives other frozen arrays than in training: config.model, or this program, changed"
                )
        except FileNotFoundError as error:
            raise FileNotFoundError(f"the base of {where} ({tree}) is missing: {_line(error)}. {mend}") from error
        except ValueError as error:
            raise ValueError(f"{where} has another base ({tree}): {_line(error)}. {mend}") from error
        given |= own
    return given, files


def load(config, shapes, *, adapt=None, elsewhere=()) -> tuple[dict[str, np.ndarray], dict]:
    """`load_initial.load`, also of trees whose file holds what was trained alone: these are read with their base."""
    others = {tree: text for tree, text in config.init.items() if tree not in elsewhere}
    deltas = {tree: path for tree, text in others.items() if (path := _delta_file(text))}
    flat, about = load_initial.load(config, shapes, adapt=adapt, elsewhere=(*elsewhere, *deltas))
    opened = {}
    for tree, path in deltas.items():
        belongs = {name: leaf for name, leaf in shapes.items() if _tree_of(name) == tree}
        if not belongs:
            raise ValueError(f"config.init names {tree!r}; this experiment has {', '.join(set(map(_tree_of, shapes)))}")
        tensors, origin = _open_whole(path, config.init[tree], opened)
        entries, skip = identify.own_tree(tensors, tree)
        if not entries:
            raise ValueError(f"{path} has no {tree} and no backbone, which config.init.{tree} is to start from")
        tensors = load_initial.fit_positions(tensors, entries, belongs, tree)
        if adapt is None or {entry.ours for entry in entries.values()} == set(belongs):
            table.check(tensors, entries, belongs, path, skip)
            variables = table.to_ours(tensors, entries, path)
        else:
            variables = adapt(table.to_ours(tensors, entries, path))
        trees.check_same_structure(trees.unflatten(belongs), trees.unflatten(variables), path)
        flat, about = flat | variables, {**about, tree: {**origin, "parameters": _count(variables)}}
    return flat, about


def load_whole(reference, shapes, where) -> tuple[dict[str, np.ndarray], dict]:
    """`load_initial.load_whole`, also of a file that holds what was trained alone: it is read with its base."""
    path = _delta_file(reference)
    if path is None:
        return load_initial.load_whole(reference, shapes, where)
    tensors, origin = _open_whole(path, reference, {})
    entries = identify.own_table(tensors)
    table.check(tensors, entries, shapes, f"{where}: {path}")
    flat = table.to_ours(tensors, entries, path)
    return flat, {**origin, "parameters": _count(flat)}


def _locate(config, tree, record):
    """(reference, file) of a base: where the config says now, or said in training.

    A path relative to the folder that training ran in is looked for from there too. A config that was edited since is
    believed.
    """
    text = config.init.get(tree, record["configured"])
    tried = [text]
    if text == record["configured"]:
        tried = [text, record["reference"]] if _is_path(text) else [record["reference"]]
    for candidate in tried:
        try:
            return candidate, hub.locate(candidate)
        except FileNotFoundError as error:
            missing = f"nothing at {candidate.partition('#')[0]}" if _is_path(candidate) else error
    raise FileNotFoundError(missing)


def _read_frozen(config, tree, text, shapes, names):
    """{name: array} of what one file gives of a base; what it was read as has to be the file of that digest."""
    belongs = {name: leaf for name, leaf in shapes.items() if _tree_of(name) == tree}
    if strange := [name for name in names if name not in belongs]:
        raise ValueError(f"config.json is of another model, which has no {strange[0]} ({len(strange)} such)")

    def keep(loaded):
        # In place of `from_backbone`: what that computes was saved, and is not wanted.
        fits = lambda name, leaf: name in loaded and loaded[name].shape == tuple(leaf.shape)
        nothing = lambda leaf: np.broadcast_to(np.float32(0), leaf.shape)
        return {name: loaded[name] if fits(name, leaf) else nothing(leaf) for name, leaf in belongs.items()}

    adapts = hasattr(detector.load(config.detector), "from_backbone")
    start = ConfigDict({"init": {tree: text}, "model": config.model})
    # What is loaded is reported on standard error: standard output is for results.
    with contextlib.redirect_stdout(sys.stderr):
        flat, _ = load(start, shapes, adapt=keep if adapts else None)
    return {name: np.asarray(flat[name], belongs[name].dtype) for name in names}


def _delta_file(text):
    """The file of a reference that holds what was trained alone; None of any other, and of one that is not there."""
    try:
        source = hub.parse(text).source
        path = hub.locate(text) if _is_path(source) and source != hub.RANDOM else None
    except (ValueError, FileNotFoundError):
        return None  # `load_initial` says what is wrong
    return path if path and path.suffix == ".safetensors" and checkpoint.base_of(path) else None


def _open_whole(path, text, opened):
    """({our flat name: Tensor}, {"file", "sha256", "format"}) of a file that holds what was trained, with its base.

    opened: {path: {name: array}} of what was opened before, added to: no base is read twice.
    """
    reference = hub.parse(text)
    origin = {"file": reference.source, "sha256": hub.verify(path, reference), "format": "msddf_jax"}
    workdir = path.parents[1] if path.parent.name == checkpoint.BEST else path.parent
    if path not in opened:
        if not (workdir / "config.json").exists():
            raise FileNotFoundError(
                f"{path} holds what was trained alone; the config.json of its workdir has to be there"
            )
        config, own = checkpoint.load_config(workdir), checkpoint.read_arrays(path)
        given, _ = read_base(config, checkpoint.base_of(path), detector.weight_shapes(config), path)
        opened[path] = {name.removeprefix(identify.STATE): value for name, value in own.items()} | given
    wanted = {name: v for name, v in opened[path].items() if not any(re.fullmatch(p, name) for p in reference.skip)}
    return {name: table.Tensor(v.shape, v.dtype, lambda v=v: v) for name, v in wanted.items()}, origin


def _with_digest(text, digest):
    """The reference with a whole digest in place of its own."""
    source, _, rest = text.partition("#")
    fields = [field for field in rest.split("&") if field and not field.startswith("sha256=")]
    return f"{source}#{'&'.join([f'sha256={digest}', *fields])}"


def _pinned(text):
    """A reference that stays: a path from the root, a repository at the revision that its file is of."""
    source, sharp, rest = text.partition("#")
    if hub.is_address(source):
        return text
    path = pathlib.Path(os.path.abspath(hub.locate(text)))
    if not hub.is_hub(source):
        return f"{path}{sharp}{rest}"
    repository = re.fullmatch(r"((?:hf://|hf-hub:)[^/@]+/[^/@]+)(/.*)?", source)
    if repository is None or "snapshots" not in path.parts:
        return text
    revision = path.parts[path.parts.index("snapshots") + 1]
    return f"{repository[1]}@{revision}{repository[2] or ''}{sharp}{rest}"


def _is_path(text):
    return not hub.is_hub(text) and not hub.is_address(text)


def _tree_of(name):
    return name.split("/")[1]


def _count(variables):
    return sum(value.size for name, value in variables.items() if name.startswith("params/"))


def _line(error):
    return " ".join(str(error).split())
