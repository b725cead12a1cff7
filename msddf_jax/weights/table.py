"""Tensor names of other projects and of this one: one table reads a foreign checkpoint and writes it back.

A table is {their name: Entry(our names, kind)}. It is made for one architecture of one size, so that every name is
known beforehand: what is missing or too much is an error and not a guess. Our names are those of flax variables,
flattened: "params/backbone/block_0/ln_1/scale", "batch_stats/backbone/norm/mean".
"""

import difflib
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """A tensor of a file that has not been read: shape (tuple), dtype (numpy's), read() -> array."""

    shape: tuple
    dtype: np.dtype
    read: Callable


class Entry(NamedTuple):
    """ours: name, or the parts' names for "qkv" and "kv". kind: a key of `KINDS`.

    lead: leading axes of size 1 in theirs. shape: theirs, for the kinds whose inverse cannot tell it from ours.
    """

    ours: str | tuple
    kind: str = "same"
    lead: int = 0
    shape: tuple = ()


# kind -> (theirs to ours, ours to theirs), for one array. Linear weights are [out, in] there and [in, out] here,
# convolutions [out, in, height, width] there and [height, width, in, out] here; a depthwise one has in = 1 in both.
KINDS = {
    "same": (lambda a: a, lambda a: a),
    "linear": (lambda a: a.T, lambda a: a.T),
    "conv": (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),
    # Along one axis: [out, in, size] there and [size, in, out] here.
    "conv_1d": (lambda a: a.transpose(2, 1, 0), lambda a: a.transpose(2, 1, 0)),
    # A linear layer that is a convolution of one pixel in one of the two.
    "conv_to_linear": (lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None]),
    # Query, key and value in one matrix [3 d, d], or one bias [3 d].
    "qkv": (
        lambda a: [part.T for part in np.split(a, 3)],
        lambda parts: np.concatenate([part.T for part in parts]),
    ),
    # Key and value in one matrix [2 d, d], or one bias [2 d].
    "kv": (
        lambda a: [part.T for part in np.split(a, 2)],
        lambda parts: np.concatenate([part.T for part in parts]),
    ),
    # Attention weights with the heads on an axis of their own: [in, heads, d / heads] and [heads, d / heads] there,
    # or [heads, d / heads, out]. `Entry.shape` takes them apart again.
    "heads_last": (lambda a: a.reshape(*a.shape[:-2], -1), lambda a: a),
    "heads_first": (lambda a: a.reshape(-1, a.shape[-1]), lambda a: a),
    # A linear layer whose outputs, (fake, real) there, are (real, fake) here; its bias.
    "linear_reversed": (lambda a: a.T[:, ::-1], lambda a: a[:, ::-1].T),
    "reversed": (lambda a: a[::-1], lambda a: a[::-1]),
    # A layer [..., 1] under a sigmoid that becomes one of two logits, beside a 0: their softmax is the sigmoid.
    "first_logit": (
        lambda a: np.concatenate([a, np.zeros_like(a)], axis=-1),
        lambda a: a[..., :1] - a[..., 1:],
    ),
    "second_logit": (
        lambda a: np.concatenate([np.zeros_like(a), a], axis=-1),
        lambda a: a[..., 1:] - a[..., :1],
    ),
    # One-element parameters that are vectors there and scalars here.
    "scalar": (lambda a: a.reshape(()), lambda a: a.reshape(1)),
}


def linear(theirs, ours, bias=True) -> dict[str, Entry]:
    """Entries of a linear layer: `weight`, `bias` <- `kernel`, `bias`."""
    out = {f"{theirs}.weight": Entry(f"{ours}/kernel", "linear")}
    return out | ({f"{theirs}.bias": Entry(f"{ours}/bias")} if bias else {})


def conv(theirs, ours, bias=True) -> dict[str, Entry]:
    """Entries of a convolution, depthwise or not."""
    out = {f"{theirs}.weight": Entry(f"{ours}/kernel", "conv")}
    return out | ({f"{theirs}.bias": Entry(f"{ours}/bias")} if bias else {})


def norm(theirs, ours) -> dict[str, Entry]:
    """Entries of a LayerNorm: `weight`, `bias` <- `scale`, `bias`."""
    return {f"{theirs}.weight": Entry(f"{ours}/scale"), f"{theirs}.bias": Entry(f"{ours}/bias")}


def batch_norm(theirs, ours) -> dict[str, Entry]:
    """Entries of a BatchNorm; `ours` without its collection. `num_batches_tracked` is not used here: `COUNTERS`."""
    return {
        f"{theirs}.weight": Entry(f"params/{ours}/scale"),
        f"{theirs}.bias": Entry(f"params/{ours}/bias"),
        f"{theirs}.running_mean": Entry(f"batch_stats/{ours}/mean"),
        f"{theirs}.running_var": Entry(f"batch_stats/{ours}/var"),
    }


def prefixed(table, theirs="", ours=None) -> dict[str, Entry]:
    """The same table with `theirs` in front of their names, and "params/<ours>/" for "params/" in ours."""

    def move(name):
        collection, _, rest = name.partition("/")
        return f"{collection}/{ours}/{rest}" if ours else name

    def moved(entry):
        names = entry.ours
        return entry._replace(ours=tuple(map(move, names)) if isinstance(names, tuple) else move(names))

    return {theirs + name: moved(entry) for name, entry in table.items()}


# Buffers that no computation of ours reads: counters of BatchNorm, constant index tables.
COUNTERS = (r"(.*\.)?num_batches_tracked", r"(.*\.)?position_ids")


def check(tensors, table, expected, where, skip=()) -> None:
    """Raise ValueError naming every tensor that is missing, too much, or of another shape than the model's.

    Nothing is read: shapes and dtypes come from the headers.

    Args:
      tensors: {their name: Tensor}. table: {their name: Entry}.
      expected: {our flat name: array or shape struct} of the model.
      where: the file, for the message. skip: regexes of their names that may be there and are not wanted.
    """
    problems = []
    theirs = {name for name in tensors if not any(re.fullmatch(p, name) for p in (*COUNTERS, *skip))}
    for name in sorted(set(table) - theirs):
        problems.append(f"missing {name}" + _nearest(name, theirs - set(table), "there"))
    for name in sorted(theirs - set(table)):
        problems.append(f"unexpected {name}" + _nearest(name, set(table) - theirs, "here"))
    ours = set()
    for name in sorted(theirs & set(table)):
        names = _names(table[name])
        ours.update(names)
        tensor = tensors[name]
        if tensor.dtype.kind not in "fV":
            problems.append(f"{name} has dtype {tensor.dtype}, expected floating point")
            continue
        shapes, theirs_shape = _our_shapes(name, tensor, table[name], where), tuple(tensor.shape)
        for our_name, shape in zip(names, shapes, strict=True):
            if our_name not in expected:
                problems.append(f"{name} belongs to {our_name}, which the model has not")
            elif tuple(expected[our_name].shape) != shape:
                problems.append(
                    f"{name} has shape {theirs_shape}, so {our_name} would have {shape}; "
                    f"the model has {tuple(expected[our_name].shape)}"
                    + _channels(shape, tuple(expected[our_name].shape))
                )
    # An entry of the table that is missing in the file has been named above; this is what no entry covers.
    covered = ours | {n for entry in table.values() for n in _names(entry)}
    problems += [f"nothing in the file gives {name}" for name in sorted(set(expected) - covered)]
    if problems:
        more = f" (+{len(problems) - 8} more)" if len(problems) > 8 else ""
        raise ValueError(f"{where} does not fit the model: " + "; ".join(problems[:8]) + more)


def to_ours(tensors, table, where="the file") -> dict[str, np.ndarray]:
    """{our flat name: float32 array} of what `check` let through.

    Args:
      where: the file, for the message.

    Raises:
      ValueError: names the tensors with a NaN or an Inf in float32; every score would be one.
    """
    out, bad = {}, []
    for name, entry in table.items():
        with np.errstate(over="ignore"):  # reported below, by name
            value = np.asarray(tensors[name].read(), np.float32)
        if count := value.size - np.count_nonzero(np.isfinite(value)):
            bad.append(f"{name} ({count} of {value.size})")
        value = value.reshape(value.shape[entry.lead :])
        value = KINDS[entry.kind][0](value)
        for our_name, part in zip(_names(entry), value if isinstance(entry.ours, tuple) else [value], strict=True):
            # ascontiguousarray makes a scalar a vector of one.
            out[our_name] = np.ascontiguousarray(part).reshape(part.shape)
    if bad:
        more = f" (+{len(bad) - 8} more)" if len(bad) > 8 else ""
        raise ValueError(f"{where} holds numbers that are NaN or Inf in float32: {', '.join(bad[:8])}{more}")
    return out


def to_theirs(flat, table) -> dict[str, np.ndarray]:
    """{their name: float32 array}: the inverse of `to_ours`, bit for bit. Raises KeyError for a name not in `flat`."""
    out = {}
    for name, entry in table.items():
        parts = [np.asarray(flat[our_name], np.float32) for our_name in _names(entry)]
        value = KINDS[entry.kind][1](parts if isinstance(entry.ours, tuple) else parts[0])
        out[name] = np.ascontiguousarray(value).reshape(entry.shape or (1,) * entry.lead + value.shape)
    return out


def _names(entry):
    return entry.ours if isinstance(entry.ours, tuple) else (entry.ours,)


def _our_shapes(name, tensor, entry, where):
    """Shapes that the parts of a tensor would have here, found on an array that takes no memory."""
    empty = np.broadcast_to(np.float32(0), tensor.shape)
    if any(side != 1 for side in tensor.shape[: entry.lead]):
        raise ValueError(f"{where}: {name} has shape {tensor.shape}, expected {entry.lead} leading axes of size 1")
    if entry.shape and tuple(tensor.shape) != entry.shape:
        raise ValueError(f"{where}: {name} has shape {tensor.shape}, expected {entry.shape}")
    empty = np.broadcast_to(np.float32(0), tensor.shape[entry.lead :])
    try:
        value = KINDS[entry.kind][0](empty)
    except (ValueError, IndexError) as error:
        raise ValueError(f"{where}: {name} of shape {tensor.shape} is no {entry.kind} weight: {error}") from error
    return [tuple(part.shape) for part in (value if isinstance(entry.ours, tuple) else [value])]


def _channels(theirs, ours):
    """Of two shapes of a first convolution's kernel [h, w, in, out] that differ in the channels of the image alone."""
    if len(theirs) != 4 or theirs[2] != 3 or theirs[:2] + theirs[3:] != ours[:2] + ours[3:]:
        return ""
    return f" (in_channels {ours[2]} and not 3: the detector has to adapt the kernel, nothing here does)"


def _nearest(name, others, side):
    near = difflib.get_close_matches(name, sorted(others), n=1)
    return f" (nearest {side}: {near[0]})" if near else ""
