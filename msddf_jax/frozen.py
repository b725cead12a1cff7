"""What a saved detector leaves out: frozen arrays that a published or earlier file gives again, and their digest."""

import concurrent.futures
import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from msddf_jax import trees


class Base(NamedTuple):
    """The frozen arrays of a detector that files of `config.init` give: read there again, and saved nowhere else.

    trees: {tree: {"configured", "reference", "sha256", "format", "frozen", "digest"}}: text of `config.init`; the same
    with a hub's revision, or the absolute path; SHA-256 and format of the file; numbers that are frozen; `digest` of
    their arrays. names: of those arrays, "params/<tree>/...", sorted.
    """

    trees: dict[str, dict]
    names: tuple[str, ...]


def from_json(about) -> Base | None:
    """The `Base` in what a file or a checkpoint says of itself, or None."""
    found = about.get("base")
    return None if found is None else Base(found["trees"], tuple(found["names"]))


def digest(arrays) -> str:
    """SHA-256 over names, dtypes, shapes and the SHA-256 of the bytes of {name: array}, in the order of the names."""

    def line(name):
        value = np.asarray(arrays[name], order="C")
        found = hashlib.sha256(value.reshape(-1).view(np.uint8)).hexdigest()
        return f"{name} {value.dtype.str} {value.shape} {found}\n"

    # Hashing leaves Python's lock.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return hashlib.sha256("".join(pool.map(line, sorted(arrays))).encode()).hexdigest()


def sign(about, arrays) -> str:
    """SHA-256 of a file's arrays and of what it says of itself (JSON object) but for the field "digest"."""
    said = json.dumps({name: value for name, value in about.items() if name != "digest"}, sort_keys=True)
    return hashlib.sha256(f"{said}\n{digest(arrays)}".encode()).hexdigest()


def check_signed(path, about, arrays) -> None:
    """Raise ValueError where what a file says and holds is not what `sign` gave when it was written."""
    if about.get("digest") != sign(about, arrays):
        raise ValueError(f"{path} is damaged: its content has not the digest that it was written with")


def of_state(name) -> str:
    """The name in a state's params of the detector's parameter "params/..."."""
    return f"detector/{name.removeprefix('params/')}"


def without(state: "trees.State", base) -> "trees.State":
    """A `train_step.TrainState`, or its shapes, without the parameters of a `Base`."""
    from msddf_jax import trees  # here and below: flax, which takes a tenth of a second and scoring does not need

    held = set(map(of_state, base.names))
    params = {name: leaf for name, leaf in trees.flatten(state.params).items() if name not in held}
    return state.replace(params=trees.unflatten(params))


def completed(state: "trees.State", start, base) -> "trees.State":
    """A state that `without` left, with the parameters of `base` as they are in the state `start`."""
    from msddf_jax import trees

    held = set(map(of_state, base.names))
    own = {name: leaf for name, leaf in trees.flatten(start.params).items() if name in held}
    return state.replace(params=trees.merge(trees.flatten(state.params), own))
