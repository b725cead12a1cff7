"""PyTorch files without PyTorch: tensors are read, and a file that would run code to be read is refused.

A .pt or .pth file is a pickle, and a pickle is a program. Here it may name nothing but what a table of tensors needs
(`_ALLOWED`); any other name is an error, before anything is built. Three layouts: the zip archive that torch.save has
written since 1.6, the older stream of pickles, and a TorchScript archive (OpenAI's CLIP), whose modules become plain
dicts of attributes and whose code is not looked at.
"""

import collections
import io
import math
import pathlib
import pickle
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np

from msddf_jax.weights.table import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Keys under which training scripts keep a model's tensors, in the order of preference.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")


class _Storage(NamedTuple):
    """A block of numbers in the file: dtype, key, number of elements."""

    dtype: np.dtype
    key: str
    size: int


class _View(NamedTuple):
    """A tensor: its storage, and which elements of it."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple


class _Module(dict):
    """A TorchScript module as the dict of its attributes."""

    def __setstate__(self, state):
        self.update(state)


def _rebuild_tensor(storage, offset, shape, strides, *_):
    return _View(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data, *_):
    return data


def _plain(value=None, *_):
    return value


_ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    # Typed lists of TorchScript.
    ("torch.jit._pickle", "build_intlist"): _plain,
    ("torch.jit._pickle", "build_doublelist"): _plain,
    ("torch.jit._pickle", "build_boollist"): _plain,
    ("torch.jit._pickle", "build_tensorlist"): _plain,
    ("torch.jit._pickle", "restore_type_tag"): _plain,
} | {("torch", name): np.dtype(dtype) for name, dtype in _STORAGES.items()}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, path):
        super().__init__(file)
        self.path = path
        self.storages = {}

    def find_class(self, module, name):
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if (module, name) not in _ALLOWED:
            raise ValueError(
                f"{self.path} is refused: to be read it would have to run {module}.{name}, which is not part of a "
                "table of tensors. Ask its author for a .safetensors file, or load it where you trust it and save its "
                "state_dict alone."
            )
        return _ALLOWED[module, name]

    def persistent_load(self, ident):
        kind, dtype, key, _, size, *view = ident
        if kind != "storage" or not isinstance(dtype, np.dtype) or (view and view[0] is not None):
            raise ValueError(f"{self.path} holds a storage that is not known here: {ident!r}")
        self.storages[str(key)] = _Storage(dtype, str(key), int(size))
        return self.storages[str(key)]


def open_torch(path) -> dict[str, Tensor]:
    """{name: Tensor} of the tensors in a PyTorch file; nested tables are joined by dots.

    Where the file is a checkpoint with a table of tensors under a usual name (`WRAPPERS`), that table is given.

    Raises:
      ValueError: not a PyTorch file, one that asks for code, or one with a tensor that reaches outside its storage.
    """
    path = pathlib.Path(path)
    try:
        tree, locate = _open_zip(path) if zipfile.is_zipfile(path) else _open_stream(path)
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as a PyTorch file: {error}") from error
    views = {}
    _collect("", _unwrap(path, tree), views, set())
    if not views:
        raise ValueError(f"{path} holds no tensor")
    return {name: _tensor(path, name, view, locate) for name, view in views.items()}


def _open_zip(path):
    """(the unpickled tree, storage -> its bytes) of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError(f"{path} is a zip archive without a data.pkl: not a PyTorch file")
        root = pickles[0].removesuffix("data.pkl")
        order = archive.read(f"{root}byteorder").decode() if f"{root}byteorder" in names else "little"
        if order != "little":
            raise ValueError(f"{path} is written in {order} byte order; little is expected")
        tree = _Unpickler(io.BytesIO(archive.read(pickles[0])), path).load()

    def locate(storage):
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{root}data/{storage.key}")

    return tree, locate


def _open_stream(path):
    """(the unpickled tree, storage -> its bytes) of the layout before PyTorch 1.6."""
    with path.open("rb") as file:
        if _Unpickler(file, path).load() != _MAGIC:
            raise ValueError(f"{path} is a pickle, but not one that torch.save wrote")
        for _ in range(2):  # the version of the protocol, and sizes of C types
            _Unpickler(file, path).load()
        reader = _Unpickler(file, path)
        tree = reader.load()
        keys = _Unpickler(file, path).load()
        places = {}
        for key in keys:
            count = int.from_bytes(file.read(8), "little")
            storage = reader.storages[str(key)]
            if count != storage.size:
                raise ValueError(f"{path}: storage {key} has {count} elements, {storage.size} were announced")
            places[str(key)] = (file.tell(), count * storage.dtype.itemsize)
            file.seek(count * storage.dtype.itemsize, io.SEEK_CUR)

    def locate(storage):
        start, length = places[storage.key]
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    return tree, locate


def _unwrap(path, tree):
    """The table of tensors of a checkpoint."""
    if not isinstance(tree, dict):
        raise ValueError(f"{path} holds a {type(tree).__name__}, expected a table of tensors")
    if isinstance(tree, _Module) or any(isinstance(value, _View) for value in tree.values()):
        return tree
    for name in WRAPPERS:
        if isinstance(tree.get(name), dict):
            return tree[name]
    raise ValueError(f"{path} holds {sorted(map(str, tree))}; a table of tensors is expected there or under {WRAPPERS}")


def _collect(prefix, value, out, above):
    """Every tensor below a dict, by its dotted name; TorchScript modules may refer to each other in a circle."""
    if isinstance(value, _View):
        out[prefix] = value
    elif isinstance(value, dict) and id(value) not in above:
        for key, item in value.items():
            _collect(f"{prefix}.{key}" if prefix else str(key), item, out, above | {id(value)})


def _tensor(path, name, view, locate):
    storage, shape = view.storage, view.shape
    last = view.offset + sum((n - 1) * s for n, s in zip(shape, view.strides, strict=True)) if math.prod(shape) else 0
    negative = view.offset < 0 or any(n < 0 for n in shape) or any(s < 0 for s in view.strides)
    if negative or last >= max(storage.size, 1):
        raise ValueError(f"{path}: {name} of shape {shape} reaches outside its storage of {storage.size} elements")

    def read():
        flat = np.frombuffer(locate(storage), storage.dtype)
        if flat.size != storage.size:
            raise ValueError(f"{path}: the numbers of {name} are cut short ({flat.size} of {storage.size})")
        strides = [s * storage.dtype.itemsize for s in view.strides]
        return np.lib.stride_tricks.as_strided(flat[view.offset :], shape, strides, writeable=False)

    return Tensor(shape, storage.dtype, read)
