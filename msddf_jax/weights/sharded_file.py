"""A model in several safetensors files, with an index that says which tensor is in which (Hugging Face's layout)."""

import hashlib
import json
import pathlib
from collections.abc import Callable

from msddf_jax.weights.table import Tensor

INDEX = ".safetensors.index.json"


def is_index(path) -> bool:
    """Whether a path has the name of an index."""
    return pathlib.Path(path).name.endswith(INDEX)


def read_index(path) -> dict[str, str]:
    """{tensor: file name beside the index}.

    Raises:
      ValueError: a file that is no index, or names a shard that is not beside it.
    """
    path = pathlib.Path(path)
    if not is_index(path):
        raise ValueError(f"{path}: of .json files an index of shards is read, *{INDEX}")
    try:
        places = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = {str(tensor): str(file) for tensor, file in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is no index of shards: a JSON object with "weight_map" is expected') from error
    for name in names.values():
        if pathlib.PurePath(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{path} names {name!r}; a shard is a .safetensors file beside its index")
    return names


def open_sharded(path, open_file: Callable) -> dict[str, Tensor]:
    """{name: Tensor} of an index. open_file: path of a shard -> {name: Tensor}.

    Raises:
      FileNotFoundError: names the shards that are missing. ValueError: see `read_index`; a tensor that is not in the
        shard that the index says, or in one without the index saying so.
    """
    path, names = pathlib.Path(path), read_index(path)
    shards = sorted(set(names.values()))
    missing = [name for name in shards if not (path.parent / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{path} names {len(shards)} shards; missing beside it: {', '.join(missing)}")
    found = {name: open_file(path.parent / name) for name in shards}
    for tensor, file in names.items():
        if tensor not in found[file]:
            raise ValueError(f"{path} says that {tensor} is in {file}, which has not got it")
    for file, tensors in found.items():
        stray = sorted(tensor for tensor in tensors if names.get(tensor) != file)
        if stray:
            raise ValueError(f"{path.parent / file} holds {', '.join(stray[:4])}, which {path.name} does not say")
    return {tensor: found[file][tensor] for tensor, file in names.items()}


def digest(path, of_file: Callable) -> str:
    """SHA-256 of an index and all its shards: of the lines "<digest>  <name>\\n" of each, sorted by name.

    of_file: path -> its SHA-256. Raises FileNotFoundError for a shard that is missing.
    """
    path = pathlib.Path(path)
    names = sorted({path.name, *read_index(path).values()})
    lines = "".join(f"{of_file(path.parent / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()
