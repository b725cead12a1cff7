"""States that Flax and Orbax write, as Scenic's trainers leave them: the parameters by name, the rest left out.

Flax: one msgpack file, `checkpoint_<step>` of `flax.training.checkpoints` or any `.msgpack`. Orbax: a folder. Both are
data; neither format can name code. Out of a training state come the parameters, under their own names, and the batch
statistics, under "batch_stats/..."; moments, counters and keys are not read.
"""

import functools
import pathlib
import re
from collections.abc import Mapping

import numpy as np
from flax import serialization

from msddf_jax.weights.table import Tensor

# What `flax.training.checkpoints` calls its files; Scenic's `restore_checkpoint` finds them by it.
FLAX_NAME = re.compile(r"checkpoint_\d+(\.\d+)?")
# What stands in every folder of a tree, in that and in the folder of a step, and beside the numbers.
_TREE, _STEP, _NUMBERS = "_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"


def is_state(path) -> bool:
    """Whether a path is a file by Flax's name, or a folder with the marks of Orbax in it or one folder below."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return path.is_file() and FLAX_NAME.fullmatch(path.name) is not None
    return any((folder / mark).is_file() for folder in (path, *_folders(path)) for mark in (_TREE, _STEP, _NUMBERS))


def open_state(path) -> dict[str, Tensor]:
    """{name: Tensor} of what `is_state` knows.

    Raises:
      ValueError: of `open_flax` and `open_orbax`.
    """
    path = pathlib.Path(path)
    return open_orbax(path) if path.is_dir() else open_flax(path)


def open_flax(path) -> dict[str, Tensor]:
    """{name: Tensor} of a msgpack file of Flax's, joined by "/". It has no table of contents and is read whole.

    Raises:
      ValueError: a file that is damaged or no msgpack, or a parameter that is no array.
    """
    path = pathlib.Path(path)
    try:
        tree = serialization.msgpack_restore(path.read_bytes())
    except OSError:
        raise
    except Exception as error:
        # Of msgpack, of numpy's `frombuffer` and `dtype`, and of asserts in Flax: all that damaged bytes can meet.
        raise ValueError(f"{path} cannot be read as Flax's msgpack: {type(error).__name__}: {error}") from error
    leaves = _leaves(tree, path)
    return {name: Tensor(a.shape, a.dtype, lambda a=a: a) for name, (_, a) in leaves.items()}


def open_orbax(path) -> dict[str, Tensor]:
    """{name: Tensor} of an Orbax checkpoint, joined by "/"; all of them are read when the first is asked for.

    Args:
      path: folder of a tree, or of a step that holds one tree ("default", "state").

    Raises:
      ValueError: a folder of several steps or trees, a checkpoint that is damaged or not finished, or a parameter that
        is no array.
    """
    import orbax.checkpoint as ocp  # half a second, which other files do not need

    folder = _tree_folder(pathlib.Path(path)).absolute()
    try:
        with ocp.PyTreeCheckpointer() as reader:
            about = reader.metadata(folder).item_metadata
    except Exception as error:
        # Orbax raises what JSON, its own checks and tensorstore raise.
        raise ValueError(f"{folder} cannot be read as an Orbax checkpoint: {_first_line(error)}") from error
    if about is None:
        raise ValueError(f"{folder} cannot be read as an Orbax checkpoint: some of its tensors are not there")
    leaves = _leaves(about.tree, folder)

    @functools.cache
    def restored():
        wanted = _nested({where: leaf for where, leaf in leaves.values()})
        as_arrays = _nested({where: ocp.RestoreArgs(restore_type=np.ndarray) for where, _ in leaves.values()})
        arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=as_arrays, partial_restore=True)
        try:
            with ocp.PyTreeCheckpointer() as reader:
                return reader.restore(folder, args=arguments)
        except Exception as error:
            raise ValueError(f"{folder}: the numbers cannot be read: {_first_line(error)}") from error

    read = lambda where: np.asarray(_at(restored(), where))
    return {
        name: Tensor(tuple(leaf.shape), np.dtype(leaf.dtype), functools.partial(read, where))
        for name, (where, leaf) in leaves.items()
    }


def _leaves(tree, path):
    """{name: (keys down to it, leaf)} of the parameters and batch statistics of a state, or of parameters alone."""
    if not isinstance(tree, Mapping) or not tree:
        raise ValueError(f"{path} holds a {type(tree).__name__} of nothing by name, expected parameters by name")
    where = ("optimizer", "target") if "params" not in tree and "optimizer" in tree else ()
    node = _at(tree, where)
    while isinstance(node, Mapping) and "params" in node:
        where, node = (*where, "params"), node["params"]
    found = {"/".join(map(str, keys)): (where + keys, leaf) for keys, leaf in _flat(node)}
    if where:
        for stats in (("batch_stats",), ("model_state", "batch_stats")):
            flat = _flat(_at(tree, stats) or {})
            found |= {"/".join(("batch_stats", *map(str, keys))): (stats + keys, leaf) for keys, leaf in flat}
    for name, (_, leaf) in found.items():
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            about = f" ({leaf!r}: its numbers are in other files, which are not read)" if isinstance(leaf, str) else ""
            raise ValueError(f"{path}: {name or 'the state'} is a {type(leaf).__name__}, expected an array{about}")
    if not found:
        raise ValueError(f"{path} holds no parameters: it has {', '.join(sorted(map(str, tree)))}")
    return found


def _flat(node):
    """[(keys, leaf)] below a node."""
    if not isinstance(node, Mapping):
        return [((), node)]
    return [((key, *keys), leaf) for key, child in node.items() for keys, leaf in _flat(child)]


def _at(tree, keys):
    """The node at some keys, None where there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _nested(flat):
    """{keys: leaf} as nested dicts."""
    out = {}
    for (*above, last), leaf in flat.items():
        node = out
        for key in above:
            node = node.setdefault(key, {})
        node[last] = leaf
    return out


def _folders(path):
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _tree_folder(path):
    """The one folder in a checkpoint that holds a tree."""
    found = [folder for folder in (path, *_folders(path)) if (folder / _TREE).is_file()]
    if found and (found[0] == path or len(found) == 1):
        return found[0]
    if found:
        raise ValueError(f"{path} holds the trees {', '.join(f.name for f in found)}: name one of these folders")
    steps = [folder.name for folder in _folders(path) if (folder / _STEP).is_file()]
    advice = f"it holds the steps {', '.join(steps)}: name one of these folders" if steps else "it was not finished"
    raise ValueError(f"{path} is no Orbax checkpoint of one tree ({_TREE} is in no folder of it): {advice}")


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
