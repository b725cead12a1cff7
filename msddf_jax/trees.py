"""Parameter trees by name: one regex matcher serves freezing, learning rates and sharding."""

import difflib
import re
import zlib
from typing import TypeVar

import jax
from flax import traverse_util

Leaf = jax.typing.ArrayLike | jax.ShapeDtypeStruct | jax.sharding.Sharding
State = TypeVar("State")


def flatten(tree) -> dict[str, Leaf]:
    """Nested dict -> {"a/b/c": leaf}, in sorted order.

    An empty tree gives {}. Raises TypeError if `tree` is not a dict.
    """
    if not isinstance(tree, dict):
        raise TypeError(f"expected a nested dict of parameters, got {type(tree).__name__}")
    return dict(sorted(traverse_util.flatten_dict(tree, sep="/").items()))


def unflatten(flat) -> dict[str, dict | Leaf]:
    """{"a/b/c": leaf} -> nested dict; the inverse of `flatten`."""
    return traverse_util.unflatten_dict(flat, sep="/")


def match(names, rules) -> dict[str, object]:
    """The value of the first rule whose regex matches the whole name, for every name.

    Args:
      names: iterable of "a/b/c" strings.
      rules: sequence of (regex, value) pairs; order matters, the first match wins.

    Returns:
      dict name -> value.

    Raises:
      ValueError: a name that no rule covers, or a rule that is not a pair. Silent defaults are how a layer
        stays frozen without anyone noticing, so there are none.
    """
    for rule in rules:
        if len(rule) != 2:
            raise ValueError(f"a rule is a (regex, value) pair, got {rule!r}")
    compiled = [(re.compile(pattern), value) for pattern, value in rules]
    out, unmatched = {}, []
    for name in names:
        for pattern, value in compiled:
            if pattern.fullmatch(name):
                out[name] = value
                break
        else:
            unmatched.append(name)
    if unmatched:
        raise ValueError(
            f"{len(unmatched)} names match none of the patterns {[r[0] for r in rules]}; first: {unmatched[:5]}. "
            "Add a rule for them, or ('.*', ...) as the last one."
        )
    return out


def split(tree, wanted) -> tuple[dict[str, Leaf], dict[str, Leaf]]:
    """Split a nested dict into two flat ones by a {name: bool} table.

    Returns:
      (flat dict where wanted is true, flat dict of the rest).
    """
    flat = flatten(tree)
    return {k: v for k, v in flat.items() if wanted[k]}, {k: v for k, v in flat.items() if not wanted[k]}


def merge(*flats) -> dict[str, dict | Leaf]:
    """Flat dicts -> one nested dict. Raises ValueError if two hold the same name."""
    out = {}
    for flat in flats:
        twice = sorted(set(out) & set(flat))
        if twice:
            raise ValueError(f"parameters given twice: {twice[:5]}")
        out.update(flat)
    return unflatten(out)


def check_same_structure(expected, got, where) -> None:
    """Raise ValueError naming every missing, extra or differently shaped leaf of `got`.

    Args:
      expected, got: nested dicts of arrays or `jax.ShapeDtypeStruct`.
      where: what `got` was read from, for the message.
    """
    expected, got = flatten(expected), flatten(got)
    problems = []
    for name in sorted(set(expected) - set(got)):
        near = difflib.get_close_matches(name, got, n=1)
        problems.append(f"missing {name}" + (f" (nearest there: {near[0]})" if near else ""))
    for name in sorted(set(got) - set(expected)):
        near = difflib.get_close_matches(name, expected, n=1)
        problems.append(f"unexpected {name}" + (f" (nearest here: {near[0]})" if near else ""))
    for name in sorted(set(expected) & set(got)):
        if tuple(expected[name].shape) != tuple(got[name].shape):
            problems.append(f"{name} has shape {tuple(got[name].shape)}, the model {tuple(expected[name].shape)}")
    if problems:
        more = f" (+{len(problems) - 8} more)" if len(problems) > 8 else ""
        raise ValueError(f"{where} does not fit the model: " + "; ".join(problems[:8]) + more)


def count_parameters(tree) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def stream_key(root, name, step) -> jax.Array:
    """The random key of a named stream at a step: derived, not carried, so a resumed run draws the same.

    Args:
      root: typed key. name: str, for example "synth". step: int or int32 scalar, may be traced.
    """
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)
