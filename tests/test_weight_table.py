"""The table that reads a foreign checkpoint and writes it back: every kind by hand, every complaint by name."""

import numpy as np
import pytest

from msddf_jax.weights import table
from msddf_jax.weights.table import Entry, Tensor


def _tensors(arrays):
    return {n: Tensor(a.shape, a.dtype, lambda a=a: a) for n, a in arrays.items()}


ARRAYS = {
    "fc.weight": np.arange(6.0, dtype=np.float32).reshape(2, 3),
    "fc.bias": np.ones(2, np.float32),
    "conv.weight": np.arange(2 * 3 * 2 * 2, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.weight": np.full(2, 2, np.float32),
    "bn.bias": np.full(2, 3, np.float32),
    "bn.running_mean": np.full(2, 4, np.float32),
    "bn.running_var": np.full(2, 5, np.float32),
    "attn.in_proj_weight": np.arange(12.0, dtype=np.float32).reshape(6, 2),
    "attn.in_proj_bias": np.arange(6.0, dtype=np.float32),
    "cls": np.arange(4.0, dtype=np.float32).reshape(1, 1, 4),
    "scale": np.array([7.0], np.float32),
    "point.weight": np.arange(6.0, dtype=np.float32).reshape(2, 3, 1, 1),
}
TABLE = (
    table.linear("fc", "params/head/out")
    | table.conv("conv", "params/stem", bias=False)
    | table.batch_norm("bn", "norm")
    | {
        "attn.in_proj_weight": Entry(tuple(f"params/{n}/kernel" for n in "qkv"), "qkv"),
        "attn.in_proj_bias": Entry(tuple(f"params/{n}/bias" for n in "qkv"), "qkv"),
        "cls": Entry("params/cls", lead=2),
        "scale": Entry("params/scale", "scalar"),
        "point.weight": Entry("params/point/kernel", "conv_to_linear"),
    }
)


def test_every_kind_finds_its_place():
    ours = table.to_ours(_tensors(ARRAYS), TABLE)
    # Output 1 of the linear layer takes 5 times its input 2.
    assert ours["params/head/out/kernel"].shape == (3, 2) and ours["params/head/out/kernel"][2, 1] == 5
    assert ours["params/stem/kernel"].shape == (2, 2, 3, 2)
    assert ours["params/stem/kernel"][1, 0, 2, 1] == ARRAYS["conv.weight"][1, 2, 1, 0]
    assert [ours[n][0] for n in ("params/norm/scale", "params/norm/bias")] == [2, 3]
    assert [ours[n][0] for n in ("batch_stats/norm/mean", "batch_stats/norm/var")] == [4, 5]
    # Rows 2 and 3 of the joint matrix are the key's outputs.
    np.testing.assert_array_equal(ours["params/k/kernel"], [[4, 6], [5, 7]])
    np.testing.assert_array_equal(ours["params/v/bias"], [4, 5])
    assert ours["params/cls"].shape == (4,) and ours["params/scale"].shape == ()
    assert ours["params/point/kernel"][2, 1] == 5


def test_there_and_back_is_the_same_bits():
    back = table.to_theirs(table.to_ours(_tensors(ARRAYS), TABLE), TABLE)
    assert set(back) == set(ARRAYS)
    for name, value in ARRAYS.items():
        assert back[name].shape == value.shape and back[name].tobytes() == value.tobytes(), name


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_an_error_that_names_the_tensor(value):
    arrays = dict(ARRAYS, **{"fc.bias": np.array([1, value], np.float32)})
    with pytest.raises(ValueError, match=r"^m\.pth holds numbers that are NaN or Inf in float32: fc\.bias \(1 of 2\)$"):
        table.to_ours(_tensors(arrays), TABLE, "m.pth")


def test_a_number_that_float32_cannot_hold_is_named_too():
    arrays = dict(ARRAYS, **{"fc.bias": np.array([1, 1e300])})
    with pytest.raises(ValueError, match=r"fc\.bias \(1 of 2\)"):
        table.to_ours(_tensors(arrays), TABLE)


def test_outputs_of_a_classifier_find_their_class():
    # Linear 3 -> 2 as (fake, real), and layers of one output under a sigmoid, [in, out] as Keras has them.
    arrays = {"fc.weight": ARRAYS["fc.weight"], "fc.bias": np.array([1, 2], np.float32)}
    entries = {"fc.weight": Entry("kernel", "linear_reversed"), "fc.bias": Entry("bias", "reversed")}
    ours = table.to_ours(_tensors(arrays), entries)
    np.testing.assert_array_equal(ours["kernel"], [[3, 0], [4, 1], [5, 2]])
    np.testing.assert_array_equal(ours["bias"], [2, 1])
    back = table.to_theirs(ours, entries)
    assert all(back[name].tobytes() == arrays[name].tobytes() for name in arrays)
    for kind, columns in (("first_logit", [[5, 0], [-7, 0]]), ("second_logit", [[0, 5], [0, -7]])):
        arrays = {"dense/kernel": np.array([[5], [-7]], np.float32), "dense/bias": np.array([-0.0], np.float32)}
        entries = {"dense/kernel": Entry("kernel", kind), "dense/bias": Entry("bias", kind)}
        ours = table.to_ours(_tensors(arrays), entries)
        np.testing.assert_array_equal(ours["kernel"], columns)
        back = table.to_theirs(ours, entries)
        assert all(back[name].tobytes() == arrays[name].tobytes() for name in arrays)


def _expected():
    return table.to_ours(_tensors(ARRAYS), TABLE)


def _check(arrays, skip=(), expected=None):
    table.check(_tensors(arrays), TABLE, expected or _expected(), "m.pth", skip)


def test_what_fits_passes_and_counters_do_not_matter():
    _check(ARRAYS | {"bn.num_batches_tracked": np.array(3)})


def test_missing_and_unexpected_names_come_with_the_nearest():
    arrays = dict(ARRAYS)
    arrays["fc.wieght"] = arrays.pop("fc.weight")
    with pytest.raises(ValueError, match="does not fit") as error:
        _check(arrays)
    assert "missing fc.weight (nearest there: fc.wieght)" in str(error.value)
    assert "unexpected fc.wieght (nearest here: fc.weight)" in str(error.value)


def test_what_is_skipped_is_named_by_a_regex():
    extra = ARRAYS | {"classifier.weight": np.zeros((1000, 2), np.float32)}
    with pytest.raises(ValueError, match=r"unexpected classifier\.weight"):
        _check(extra)
    _check(extra, skip=(r"classifier\..*",))


def test_shapes_and_dtypes_are_compared_before_anything_is_read():
    def fail():
        pytest.fail("a tensor was read")

    tensors = {n: Tensor(a.shape, a.dtype, fail) for n, a in ARRAYS.items()}
    tensors["fc.weight"] = Tensor((4, 3), np.dtype(np.float32), fail)
    tensors["fc.bias"] = Tensor((2,), np.dtype(np.int64), fail)
    tensors["cls"] = Tensor((1, 10**9, 4), np.dtype(np.float32), fail)
    with pytest.raises(ValueError, match=r"cls has shape .* expected 2 leading axes of size 1"):
        table.check(tensors, TABLE, _expected(), "m.pth")
    del tensors["cls"]
    with pytest.raises(ValueError, match="does not fit") as error:
        table.check(tensors, TABLE, _expected(), "m.pth")
    assert "fc.weight has shape (4, 3), so params/head/out/kernel would have (3, 4)" in str(error.value)
    assert "fc.bias has dtype int64, expected floating point" in str(error.value)


def test_a_parameter_that_nothing_gives_is_named():
    expected = _expected() | {"params/other/kernel": np.zeros((2, 2), np.float32)}
    with pytest.raises(ValueError, match="nothing in the file gives params/other/kernel"):
        _check(ARRAYS, expected=expected)


def test_a_matrix_of_another_rank_is_an_error_and_not_a_guess():
    arrays = ARRAYS | {"conv.weight": np.zeros((2, 3), np.float32)}
    with pytest.raises(ValueError, match=r"conv\.weight of shape \(2, 3\) is no conv weight"):
        _check(arrays)


def test_a_table_can_be_moved_below_another_name():
    moved = table.prefixed(TABLE, theirs="backbone.", ours="backbone")
    assert moved["backbone.fc.weight"] == Entry("params/backbone/head/out/kernel", "linear")
    assert moved["backbone.bn.running_var"] == Entry("batch_stats/backbone/norm/var")
    assert moved["backbone.attn.in_proj_bias"].ours[1] == "params/backbone/k/bias"
