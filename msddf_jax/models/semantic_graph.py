"""Which attributes of a face a forgery changes, in three levels, and which combinations of them there may be.

Level 1 is the root, "fake"; level 2 are global attributes, level 3 are parts of the face. One entry of `GRAPHS` is all
that a detector has to know of a data set: nodes, edges, levels, prompts, and which recorded attribute is which node.
Source: SO-DFD (Zou et al., TIFS 2025), SJEDD (Zou et al., TCSVT 2025); reference: sjedd section 1.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.data import schema

LEVELS = ("level_1", "level_2", "level_3")


class Graph(NamedTuple):
    """nodes: of `schema.ATTRIBUTES`, the root first, then level 2, then level 3.

    children: {node of level 2: its nodes of level 3}. Every node of level 2 is a child of the root, nothing excludes
    anything.
    """

    nodes: tuple[str, ...]
    children: Mapping[str, tuple[str, ...]]

    @property
    def levels(self) -> dict[str, slice]:
        """{level: which of the nodes it is}."""
        start = 1 + len(self.children)
        return dict(zip(LEVELS, (slice(0, 1), slice(1, start), slice(start, len(self.nodes))), strict=True))

    @property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """{node of level 3: its nodes of level 2}."""
        parts = self.nodes[self.levels["level_3"]]
        return {part: tuple(name for name, below in self.children.items() if part in below) for part in parts}

    @property
    def columns(self) -> tuple[int, ...]:
        """Place of each node in `schema.ATTRIBUTES`."""
        return tuple(map(schema.ATTRIBUTES.index, self.nodes))


_PARTS = ("eye", "eyebrow", "lip", "mouth", "nose", "skin")
GRAPHS = {
    "ffpp": Graph(
        ("fake", "expression", "identity", "physical", *_PARTS),
        {"expression": ("lip", "mouth"), "identity": _PARTS, "physical": ("eye", "lip", "mouth", "nose")},
    ),
    # The public edge list of "pose" has nose twice and lip never; its tables of parents and of children have all six.
    "ffsc": Graph(
        ("fake", "age", "expression", "gender", "identity", "pose", *_PARTS),
        {
            "age": ("eye", "skin"),
            "expression": ("eye", "lip", "mouth", "nose", "skin"),
            "gender": ("eye", "eyebrow", "lip", "mouth", "skin"),
            "identity": _PARTS,
            "pose": _PARTS,
        },
    ),
}
# Where a node is called otherwise in a prompt.
_WORDS = {"physical": "physical inconsistency"}


def get_graph(name) -> Graph:
    """The `Graph` called `name`; ValueError where there is none, with those there are."""
    if name not in GRAPHS:
        raise ValueError(f"unknown semantic graph {name!r}; there are {', '.join(GRAPHS)}")
    return GRAPHS[name]


def prompts(graph) -> list[str]:
    """One English sentence a node, in their order. Source: SJEDD; reference: sjedd section 2."""
    names = [_WORDS.get(name, name) for name in graph.nodes]
    of_level = lambda level: names[graph.levels[level]]
    whole, part = (f"A photo of a face with the {kind} attribute of " for kind in ("global", "local"))
    return [
        *(f"A photo of a {name} face" for name in of_level("level_1")),
        *(f"{whole}{name} altered" for name in of_level("level_2")),
        *(f"{part}{name} altered" for name in of_level("level_3")),
    ]


def legal_states(graph) -> np.ndarray:
    """Every combination of nodes that may be, float32 [states, nodes] of 0 and 1; the first is that of a real.

    A global attribute is changed only in a fake and only with one of its parts, a part only with one of its global
    attributes: 251 for "ffpp" and 1,544 for "ffsc". Nothing but "fake" may be, too. Source: reference: sjedd section 1.
    """
    index = {name: i for i, name in enumerate(graph.nodes)}
    found = [(), (graph.nodes[0],)]
    for chosen in _subsets(tuple(graph.children)):
        below = [part for part in graph.parents if any(part in graph.children[name] for name in chosen)]
        for parts in _subsets(tuple(below)):
            if chosen and all(set(graph.children[name]) & set(parts) for name in chosen):
                found.append((graph.nodes[0], *chosen, *parts))
    states = np.zeros((len(found), len(graph.nodes)), np.float32)
    for state, names in zip(states, found, strict=True):
        state[[index[name] for name in names]] = 1.0
    return states


def _subsets(names):
    return itertools.chain.from_iterable(itertools.combinations(names, n) for n in range(len(names) + 1))


def log_marginals(energy, states) -> tuple[jax.Array, jax.Array]:
    """Log-probability that each node is 1, and that it is 0, where a state s has a chance of exp(s . f) / Z.

    Args:
      energy: f [B, nodes] float. states: of `legal_states`, in which every node is 0 somewhere and 1 somewhere.

    Returns:
      (log p, log(1 - p)), float32 [B, nodes]; each a sum over states of its own, so that neither is rounded to log 0.

    Source: SO-DFD, SJEDD ("joint embedding", likelihood); reference: sjedd section 3.
    """
    total = jnp.matmul(energy.astype(jnp.float32), states.T, precision=jax.lax.Precision.HIGHEST)
    total = jax.nn.log_softmax(total, axis=-1)[:, :, None]
    on = states[None] > 0
    return tuple(jax.nn.logsumexp(total, axis=1, where=where) for where in (on, ~on))


def targets(graph, label, attributes, has_attributes) -> tuple[jax.Array, jax.Array]:
    """What is known of a graph's nodes.

    Args:
      label: int [B], which the root is. attributes, has_attributes: [B, 13], as `schema.DEVICE_FIELDS`.

    Returns:
      (float32 [B, nodes] of 0 and 1, 0 where unknown; bool [B, nodes], whether it is known). The root always is.
    """
    columns = np.array(graph.columns)
    value = jnp.where(has_attributes, attributes, 0)[:, columns].astype(jnp.float32)
    return value.at[:, 0].set(label.astype(jnp.float32)), has_attributes[:, columns].at[:, 0].set(True)
