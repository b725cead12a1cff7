"""Weight files, read as data: headers first, tensors when asked for, code never.

Whatever the format, `open_tensors` gives {name: Tensor}, so that names, shapes and dtypes are checked against the model
before anything is allocated.
"""

import functools
import pathlib
import zipfile

import ml_dtypes
import numpy as np
from safetensors import safe_open

from msddf_jax.weights import keras_file, scenic_files, sharded_file, torch_file
from msddf_jax.weights.table import Tensor

_SAFETENSORS_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
# In front of every name of a model that was saved inside torch's DataParallel; anywhere in a name below a part that
# torch.compile has wrapped.
PARALLEL, COMPILED = "module.", "_orig_mod."


def open_tensors(path) -> dict[str, Tensor]:
    """{name: Tensor} of a weight file.

    Args:
      path: .safetensors or the index of several (`sharded_file`), .npz, a PyTorch file (.pt, .pth, .pkl, .bin, .ckpt,
        .tar), Keras' .h5 or .hdf5 (`keras_file`), or a state of Flax or Orbax (`scenic_files`: .msgpack,
        checkpoint_<step>, a folder). What torch's wrappers put into names (`PARALLEL`, `COMPILED`) is left out.

    Raises:
      FileNotFoundError: no such file, or a missing shard. ValueError: a suffix that is none of these, a file that is
        not what its suffix says, one that would have to run code to be read, or two names that differ by a wrapper.
    """
    path = pathlib.Path(path)
    if scenic_files.is_state(path):
        return scenic_files.open_state(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file at {path}")
    if path.suffix not in OPENERS:
        raise ValueError(f"{path}: weight files are {', '.join(sorted(OPENERS))}, got {path.suffix!r}")
    return _without_wrappers(OPENERS[path.suffix](path), path)


def _without_wrappers(tensors, path):
    """The tensors under the names of the model that torch.compile or DataParallel wrapped, in either order."""
    bare = {name: name.replace(COMPILED, "") for name in tensors}
    while bare and all(name.startswith(PARALLEL) for name in bare.values()):
        bare = {name: short.removeprefix(PARALLEL) for name, short in bare.items()}
    first = {}
    for name, short in bare.items():
        if short in first:
            raise ValueError(f"{path} holds {first[short]} and {name}, which are one tensor without torch's wrappers")
        first[short] = name
    return {short: tensors[name] for name, short in bare.items()}


def _open_safetensors(path):
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it has no iterator)
            heads = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except Exception as error:
        # safetensors raises a class of its own that is no subclass of anything useful.
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    unknown = sorted({dtype for _, dtype in heads.values()} - set(_SAFETENSORS_DTYPES))
    if unknown:
        raise ValueError(f"{path} holds dtypes {unknown}, known are {', '.join(_SAFETENSORS_DTYPES)}")

    def read(name):
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)

    return {
        name: Tensor(shape, np.dtype(_SAFETENSORS_DTYPES[dtype]), lambda name=name: read(name))
        for name, (shape, dtype) in heads.items()
    }


def _open_npz(path):
    """Arrays of an .npz; pickled ones are refused when their header says so."""
    out = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if not member.endswith(".npy"):
                    raise ValueError(f"{path} holds {member!r}, which is no array")
                with archive.open(member) as file:
                    shape, dtype = _npy_header(file)
                if dtype.hasobject:
                    raise ValueError(f"{path}: {member!r} holds Python objects, which are not read")
                name = member.removesuffix(".npy")
                out[name] = Tensor(shape, dtype, lambda name=name: _read_npz(path, name))
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} cannot be read as .npz: {error}") from error
    return out


def _npy_header(file):
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(file)
    return shape, dtype


def _read_npz(path, name):
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[name]


OPENERS = {
    ".safetensors": _open_safetensors,
    ".json": functools.partial(sharded_file.open_sharded, open_file=_open_safetensors),
    ".npz": _open_npz,
    **dict.fromkeys((".pt", ".pth", ".pkl", ".bin", ".ckpt", ".tar"), torch_file.open_torch),
    **dict.fromkeys((".h5", ".hdf5"), keras_file.open_keras),
    ".msgpack": scenic_files.open_flax,
}
