"""The trees of SJEDD and SO-DFD: legal states and marginals against an enumeration of all vectors, and by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sladd_sjedd import FFPP_TARGETS, FFSC_TARGETS

from data_prep.sjedd import labels
from msddf_jax.data import schema
from msddf_jax.models import semantic_graph

# Parents of the parts as the public tables have them, by number of the node (reference: sjedd section 1).
PARENTS = {
    "ffpp": {4: (2, 3), 5: (2,), 6: (1, 2, 3), 7: (1, 2, 3), 8: (2, 3), 9: (2,)},
    "ffsc": {6: (1, 2, 3, 4, 5), 7: (3, 4, 5), 8: (2, 3, 4, 5), 9: (2, 3, 4, 5), 10: (2, 4, 5), 11: (1, 2, 3, 4, 5)},
}
COUNTS = {"ffpp": 251, "ffsc": 1544}


def _enumerate(name):
    """Legal vectors of all 2^n, by the three published rules."""
    parents = PARENTS[name]
    nodes, parts = max(parents) + 1, min(parents)
    found = set()
    for state in itertools.product((0, 1), repeat=nodes):
        without_root = any(state[i] and not state[0] for i in range(1, parts))
        childless = any(
            state[i] and not any(state[j] for j, above in parents.items() if i in above) for i in range(1, parts)
        )
        orphan = any(state[j] and not any(state[i] for i in above) for j, above in parents.items())
        if not (without_root or childless or orphan):
            found.add(state)
    return found


@pytest.mark.parametrize("name", semantic_graph.GRAPHS)
def test_legal_states_are_those_of_the_three_rules(name):
    states = semantic_graph.legal_states(semantic_graph.get_graph(name))
    assert states.dtype == np.float32 and len(states) == COUNTS[name]
    assert {tuple(map(int, state)) for state in states} == _enumerate(name)
    assert not states[0].any()
    # A fake of which nothing more is said.
    assert (states.sum(axis=1) == 1).sum() == 1


@pytest.mark.parametrize("name", semantic_graph.GRAPHS)
def test_edges_levels_and_columns_are_of_one_table(name):
    graph = semantic_graph.get_graph(name)
    index = {node: i for i, node in enumerate(graph.nodes)}
    assert {index[k]: tuple(index[p] for p in v) for k, v in graph.parents.items()} == PARENTS[name]
    assert [(s.start, s.stop) for s in graph.levels.values()] == {
        "ffpp": [(0, 1), (1, 4), (4, 10)],
        "ffsc": [(0, 1), (1, 6), (6, 12)],
    }[name]
    assert [schema.ATTRIBUTES[i] for i in graph.columns] == list(graph.nodes)


def test_an_unknown_graph_names_those_there_are():
    with pytest.raises(ValueError, match="'ffp'; there are ffpp, ffsc"):
        semantic_graph.get_graph("ffp")


def test_prompts_are_as_published():
    prompts = semantic_graph.prompts(semantic_graph.get_graph("ffpp"))
    assert [prompts[i] for i in (0, 3, 9)] == [
        "A photo of a fake face",
        "A photo of a face with the global attribute of physical inconsistency altered",
        "A photo of a face with the local attribute of skin altered",
    ]
    assert len(prompts) == 10 and len(semantic_graph.prompts(semantic_graph.get_graph("ffsc"))) == 12


def test_a_graph_of_three_nodes_by_hand():
    # Root, one global attribute, its one part: real, fake of nothing, fake with both. e^f = 1, 2, 2 * 3 * 4 of Z = 27.
    graph = semantic_graph.Graph(("fake", "expression", "mouth"), {"expression": ("mouth",)})
    states = semantic_graph.legal_states(graph)
    np.testing.assert_array_equal(states, [[0, 0, 0], [1, 0, 0], [1, 1, 1]])
    log_p, log_rest = semantic_graph.log_marginals(jnp.log(jnp.array([[2.0, 3.0, 4.0]])), states)
    np.testing.assert_allclose(np.exp(log_p), [[26 / 27, 24 / 27, 24 / 27]], rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_rest), [[1 / 27, 3 / 27, 3 / 27]], rtol=1e-6)


@pytest.mark.parametrize("name", semantic_graph.GRAPHS)
def test_marginals_are_those_of_brute_force(name):
    energy = 3 * np.random.default_rng(0).normal(size=(4, max(PARENTS[name]) + 1))
    expected = np.zeros_like(energy)
    states = np.array(sorted(_enumerate(name)), np.float64)
    for row, f in enumerate(energy):
        weight = np.array([np.exp(sum(a * b for a, b in zip(state, f, strict=True))) for state in states])
        for node in range(energy.shape[1]):
            expected[row, node] = weight[states[:, node] == 1].sum() / weight.sum()
    log_p, log_rest = semantic_graph.log_marginals(
        jnp.asarray(energy, jnp.float32), semantic_graph.legal_states(semantic_graph.get_graph(name))
    )
    np.testing.assert_allclose(np.exp(log_p), expected, rtol=1e-4)
    np.testing.assert_allclose(np.exp(log_rest), 1 - expected, rtol=1e-4, atol=1e-7)


def test_large_energies_stay_finite_with_their_gradient():
    states = semantic_graph.legal_states(semantic_graph.get_graph("ffpp"))
    for sign in (1.0, -1.0):
        energy = jnp.full((1, 10), sign * 200.0)
        # Log odds of the root: all ten nodes at once, or, against it, the fake of which nothing is said.
        log_p, log_rest = semantic_graph.log_marginals(energy, states)
        np.testing.assert_allclose(log_p[0, 0] - log_rest[0, 0], 2000.0 if sign > 0 else -200.0, rtol=1e-5)
        slope = jax.grad(lambda e: (lambda a, b: (a - b).sum())(*semantic_graph.log_marginals(e, states)))(energy)
        assert np.isfinite(slope).all()


def _target(name, key):
    """(target, known) of a graph for a label string, by way of the record's columns."""
    fake, values = labels.read_label(key)
    known = np.array([value is not None for value in values])
    attributes = np.array([value or 0 for value in values], np.uint8)
    graph = semantic_graph.get_graph(name)
    made = semantic_graph.targets(
        graph, jnp.array([int(fake)]), jnp.asarray(attributes)[None], jnp.asarray(known)[None]
    )
    return tuple(np.asarray(value)[0] for value in made)


@pytest.mark.parametrize(("key", "row"), FFPP_TARGETS.items())
def test_targets_of_faceforensics_are_the_published_rows(key, row):
    target, known = _target("ffpp", key)
    assert "".join(str(int(v)) for v in target) == row and known.all()
    # Every one of them is a state that may be.
    assert tuple(map(int, row)) in _enumerate("ffpp")


@pytest.mark.parametrize(("key", "row"), FFSC_TARGETS.items())
def test_targets_of_ffsc_are_the_published_rows(key, row):
    target, known = _target("ffsc", key)
    assert "".join(str(int(v)) for v in target) == row
    # The digit 2 alone is unknown.
    assert [digit == "2" for digit in key] == [not k for k in known]


def test_without_attributes_the_root_is_the_label():
    graph = semantic_graph.get_graph("ffpp")
    none = jnp.zeros((2, 13), bool)
    target, known = semantic_graph.targets(graph, jnp.array([0, 1]), jnp.ones((2, 13), jnp.uint8), none)
    np.testing.assert_array_equal(target, [[0] * 10, [1] + [0] * 9])
    np.testing.assert_array_equal(known, [[True] + [False] * 9] * 2)
