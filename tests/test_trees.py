import jax
import numpy as np
import pytest

from msddf_jax import trees

TREE = {"a": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}, "ln": {"scale": np.ones(3)}}


def test_flatten_and_back():
    flat = trees.flatten(TREE)
    assert list(flat) == ["a/bias", "a/kernel", "ln/scale"]
    assert jax.tree.structure(trees.unflatten(flat)) == jax.tree.structure(TREE)


def test_match_takes_the_first_rule():
    got = trees.match(["a/bias", "a/kernel", "ln/scale"], [(".*/bias", 1), ("a/.*", 2), (".*", 3)])
    assert got == {"a/bias": 1, "a/kernel": 2, "ln/scale": 3}


def test_match_needs_the_whole_name():
    with pytest.raises(ValueError, match="match none of the patterns"):
        trees.match(["a/bias"], [("a", 1)])


def test_uncovered_name_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="ln/scale"):
        trees.match(trees.flatten(TREE), [("a/.*", 1)])


def test_split_and_merge_are_inverse():
    wanted = {"a/bias": True, "a/kernel": False, "ln/scale": True}
    yes, no = trees.split(TREE, wanted)
    assert set(yes) == {"a/bias", "ln/scale"} and set(no) == {"a/kernel"}
    assert jax.tree.structure(trees.merge(yes, no)) == jax.tree.structure(TREE)
    with pytest.raises(ValueError, match="given twice"):
        trees.merge(yes, yes)


def test_structure_check_names_the_nearest():
    other = {"a": {"kernal": np.zeros((2, 3)), "bias": np.zeros(4)}, "ln": {"scale": np.ones(3)}}
    with pytest.raises(ValueError) as error:
        trees.check_same_structure(TREE, other, "file.npz")
    message = str(error.value)
    assert "file.npz" in message and "missing a/kernel (nearest there: a/kernal)" in message
    assert "a/bias has shape (4,), the model (3,)" in message
    trees.check_same_structure(TREE, TREE, "itself")


def test_stream_keys_differ_by_name_and_step_and_repeat():
    root = jax.random.key(0)
    draw = lambda name, step: float(jax.random.uniform(trees.stream_key(root, name, step)))
    assert draw("synth", 3) == draw("synth", 3)
    assert len({draw("synth", 3), draw("synth", 4), draw("augment", 3)}) == 3


def test_count_parameters():
    assert trees.count_parameters(TREE) == 6 + 3 + 3
