"""Keras' weights in HDF5 (.h5): what `save_weights` of Keras 2 writes, or the weights in a whole model.

Names are "<layer>/<weight>". Keras counts layers of a kind over a whole process, so "conv2d_5" may be a model's first:
numbers are moved so that the lowest of each kind is 1. Nothing of a model's Python is looked at.
"""

import pathlib
import re

import numpy as np

from msddf_jax.weights.table import Tensor

_NUMBERED = re.compile(r"(.*?)(?:_(\d+))?")


def open_keras(path) -> dict[str, Tensor]:
    """{"<layer>/<weight>": Tensor} of a file, layers in the file's order.

    Raises:
      ValueError: a file that is damaged, no HDF5, of another layout, or with numbers that lie outside of it.
    """
    import h5py  # only who has such a file needs it

    path = pathlib.Path(path)
    out = {}
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            if "layer_names" not in root.attrs:
                raise ValueError(
                    f"{path} holds {sorted(file)[:4]} and no layer_names: weights as Keras 2 saves them are expected "
                    "(save_weights to .h5; Keras 3 writes another layout to .weights.h5)"
                )
            layers = [_text(name) for name in root.attrs["layer_names"]]
            first = _first_numbers(layers)
            for layer in layers:
                for weight in map(_text, root[layer].attrs["weight_names"]):
                    name = f"{_renumbered(layer, first)}/{weight.split('/')[-1].removesuffix(':0')}"
                    if name in out:
                        raise ValueError(f"{path} holds {name} twice, once as {layer}/{weight}")
                    out[name] = _tensor(path, root[layer][weight])
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as Keras' HDF5: {error}") from error
    if not out:
        raise ValueError(f"{path} holds no weight")
    return out


def _tensor(path, dataset):
    import h5py

    place = dataset.name
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiub":
        raise ValueError(f"{path}: {place} is no array of numbers")
    if dataset.is_virtual or dataset.external or pathlib.Path(dataset.file.filename) != path:
        raise ValueError(f"{path}: the numbers of {place} lie in another file, which is not read")

    def read():
        try:
            with h5py.File(path, "r") as file:
                return np.asarray(file[place])
        except OSError as error:
            raise ValueError(f"{path}: the numbers of {place} cannot be read: {error}") from error

    return Tensor(tuple(dataset.shape), dataset.dtype, read)


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _first_numbers(layers):
    """{kind: lowest number} of names such as "conv2d_5"; a name without a number has 0, as TensorFlow 2 starts."""
    first = {}
    for layer in layers:
        kind, number = _NUMBERED.fullmatch(layer).groups()
        first[kind] = min(first.get(kind, int(number or 0)), int(number or 0))
    return first


def _renumbered(layer, first):
    kind, number = _NUMBERED.fullmatch(layer).groups()
    return f"{kind}_{int(number or 0) - first[kind] + 1}"
