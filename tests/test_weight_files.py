"""Weight files of every kind: what is written by the library of that kind is read, and what would run code is not."""

import io
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from msddf_jax.weights import files, torch_file


def _pickled_archive(path, tree_bytes, storages):
    """A torch.save archive made by hand: data.pkl and one raw block a storage."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", tree_bytes)
        archive.writestr("model/byteorder", "little")
        for key, block in storages.items():
            archive.writestr(f"model/data/{key}", block)


class _Call:
    """Pickles as a call of a named function, as torch's own tensors do."""

    def __init__(self, module, name, *args):
        self.target, self.args = (module, name), args


def _dump(tree):
    """The bytes of a pickle in which `_Call` is a call and a `torch_file._Storage` a persistent id."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if isinstance(value, torch_file._Storage):
                return ("storage", _Name("torch", "FloatStorage"), value.key, "cpu", value.size)
            return None

        def save(self, value, save_persistent_id=True):
            if isinstance(value, _Name):
                self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
            elif isinstance(value, _Call):
                self.save(_Name(*value.target))
                self.save(value.args)
                self.write(pickle.REDUCE)
            else:
                super().save(value, save_persistent_id)

    out = io.BytesIO()
    Pickler(out, protocol=2).dump(tree)
    return out.getvalue()


class _Name:
    def __init__(self, module, name):
        self.module, self.name = module, name


def _tensor(storage, offset, shape, strides):
    return _Call("torch._utils", "_rebuild_tensor_v2", storage, offset, shape, strides, False, ())


def _numbers(count):
    return torch_file._Storage(np.dtype(np.float32), "0", count), np.arange(count, dtype=np.float32).tobytes()


def test_an_archive_made_by_hand(tmp_path):
    storage, block = _numbers(8)
    tree = {"epoch": 3, "state_dict": {"a": _tensor(storage, 2, (3, 2), (1, 3)), "b": _tensor(storage, 7, (), ())}}
    _pickled_archive(tmp_path / "m.pth", _dump(tree), {"0": block})
    tensors = files.open_tensors(tmp_path / "m.pth")
    assert sorted(tensors) == ["a", "b"]
    assert tensors["a"].shape == (3, 2) and tensors["a"].dtype == np.float32
    # Element (i, j) is number 2 + i + 3 j of the storage.
    np.testing.assert_array_equal(tensors["a"].read(), [[2, 5], [3, 6], [4, 7]])
    assert tensors["b"].read() == 7


@pytest.mark.parametrize(
    ("offset", "shape", "strides"), [(6, (3,), (1,)), (0, (2, 2), (8, 1)), (-1, (2,), (1,)), (4, (3,), (-1,))]
)
def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path, offset, shape, strides):
    storage, block = _numbers(8)
    _pickled_archive(tmp_path / "m.pt", _dump({"a": _tensor(storage, offset, shape, strides)}), {"0": block})
    with pytest.raises(ValueError, match="reaches outside its storage of 8"):
        files.open_tensors(tmp_path / "m.pt")


def test_numbers_that_are_cut_short_are_named(tmp_path):
    storage, block = _numbers(8)
    _pickled_archive(tmp_path / "m.pt", _dump({"a": _tensor(storage, 0, (8,), (1,))}), {"0": block[:-4]})
    with pytest.raises(ValueError, match=r"the numbers of a are cut short \(7 of 8\)"):
        files.open_tensors(tmp_path / "m.pt")["a"].read()


def _evil(path):
    return _Call("os", "system", f"touch {path}")


@pytest.mark.parametrize("place", ["value", "beside the tensors", "argument of an allowed name"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, place):
    storage, block = _numbers(4)
    good, mark = _tensor(storage, 0, (4,), (1,)), tmp_path / "was_run"
    tree = {
        "value": {"a": _evil(mark)},
        "beside the tensors": {"state_dict": {"a": good}, "args": _evil(mark)},
        "argument of an allowed name": {"a": _Call("torch._utils", "_rebuild_parameter", _evil(mark), True, ())},
    }[place]
    _pickled_archive(tmp_path / "m.pth", _dump(tree), {"0": block})
    with pytest.raises(ValueError, match=r"is refused: to be read it would have to run os\.system"):
        files.open_tensors(tmp_path / "m.pth")
    assert not mark.exists()
    # The same bytes do run where pickle is trusted: the test would notice a reader that executes.
    if place == "value":
        pickle.loads(_dump(tree))
        assert mark.exists()


def test_a_bare_pickle_that_would_run_code_is_refused(tmp_path):
    (tmp_path / "m.pth").write_bytes(_dump(_evil(tmp_path / "was_run")))
    with pytest.raises(ValueError, match=r"os\.system"):
        files.open_tensors(tmp_path / "m.pth")
    assert not (tmp_path / "was_run").exists()


def test_the_older_stream_of_pickles(tmp_path):
    storage, block = _numbers(4)
    head = [pickle.dumps(value, protocol=2) for value in (torch_file._MAGIC, 1001, {"little_endian": True})]
    body = _dump({"a": _tensor(storage, 1, (3,), (1,))})
    # That layout has one more field in a persistent id; None there means "not a view".
    data = b"".join([*head, body, pickle.dumps(["0"], protocol=2), struct.pack("<q", 4), block])
    (tmp_path / "m.pth").write_bytes(data)
    np.testing.assert_array_equal(files.open_tensors(tmp_path / "m.pth")["a"].read(), [1, 2, 3])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is text", "cannot be read as a PyTorch file"),
        (b"", "cannot be read as a PyTorch file"),
        (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
    ],
)
def test_rubbish_says_so(tmp_path, content, message):
    (tmp_path / "m.pth").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        files.open_tensors(tmp_path / "m.pth")


def test_an_archive_without_tensors_lists_what_it_has(tmp_path):
    _pickled_archive(tmp_path / "m.pth", _dump({"epoch": 3, "lr": 0.1}), {})
    with pytest.raises(ValueError, match=r"holds \['epoch', 'lr'\]"):
        files.open_tensors(tmp_path / "m.pth")
    _pickled_archive(tmp_path / "n.pth", _dump([1, 2]), {})
    with pytest.raises(ValueError, match="holds a list"):
        files.open_tensors(tmp_path / "n.pth")


def test_files_that_torch_writes(tmp_path):
    torch = pytest.importorskip("torch", reason="needs the [torch] extra")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)
            self.low = torch.nn.Linear(2, 2).half()
            self.blocks = torch.nn.ModuleList([torch.nn.BatchNorm1d(2)])
            self.sizes, self.name = [1, 2], "net"

        def forward(self, x):
            return self.layer(x)

    net = Net()
    table = dict(net.state_dict(), view=torch.arange(6.0).reshape(2, 3).t(), bf=torch.randn(3).bfloat16())
    torch.save({"state_dict": table, "step": 7}, tmp_path / "new.pth")
    torch.save(table, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.jit.script(net).save(tmp_path / "script.pt")
    torch.jit.trace(net, torch.zeros(1, 3)).save(tmp_path / "trace.pt")
    for name in ("new.pth", "old.pth", "script.pt", "trace.pt"):
        tensors = files.open_tensors(tmp_path / name)
        expected = net.state_dict() if name.endswith(".pt") else table
        assert set(tensors) == set(expected), name
        for key, value in expected.items():
            assert tensors[key].shape == tuple(value.shape)
            read = tensors[key].read().astype(np.float64)
            np.testing.assert_array_equal(read, value.double().numpy(), err_msg=f"{name} {key}")


def test_safetensors_and_npz(tmp_path):
    values = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones(2, np.float16),
        "c/d": np.zeros((), np.float32),
    }
    save_file(dict(values, e=np.ones(3, ml_dtypes.bfloat16)), tmp_path / "m.safetensors")
    np.savez(tmp_path / "m.npz", **values)
    for name, extra in (("m.safetensors", {"e"}), ("m.npz", set())):
        tensors = files.open_tensors(tmp_path / name)
        assert set(tensors) == set(values) | extra
        for key, value in values.items():
            assert (tensors[key].shape, tensors[key].dtype) == (value.shape, value.dtype)
            np.testing.assert_array_equal(tensors[key].read(), value)


def test_pickled_arrays_are_refused_by_their_header(tmp_path):
    np.savez(tmp_path / "m.npz", a=np.array([{"x": 1}], object))
    with pytest.raises(ValueError, match=r"'a\.npy' holds Python objects"):
        files.open_tensors(tmp_path / "m.npz")


def test_what_is_no_weight_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*missing\.npz"):
        files.open_tensors(tmp_path / "missing.npz")
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"weight files are .*\.h5.*\.safetensors.*got '\.onnx'"):
        files.open_tensors(tmp_path / "m.onnx")
    (tmp_path / "m.npz").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        files.open_tensors(tmp_path / "m.npz")
    (tmp_path / "m.safetensors").write_bytes(b"this is text")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        files.open_tensors(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("names", "bare"),
    [
        (("_orig_mod.a", "_orig_mod.b"), {"a", "b"}),
        (("module._orig_mod.a", "module._orig_mod.b"), {"a", "b"}),
        (("_orig_mod.module.a", "_orig_mod.module.b"), {"a", "b"}),
        # A part of the model was compiled.
        (("backbone._orig_mod.a", "head.b"), {"backbone.a", "head.b"}),
        # A model's own part may have that name.
        (("module.a", "b"), {"module.a", "b"}),
    ],
)
def test_what_torchs_wrappers_put_into_names_is_left_out(tmp_path, names, bare):
    save_file({name: np.full(2, i, np.float32) for i, name in enumerate(names)}, tmp_path / "m.safetensors")
    tensors = files.open_tensors(tmp_path / "m.safetensors")
    assert set(tensors) == bare
    assert {name[-1]: tensor.read()[0] for name, tensor in tensors.items()} == {"a": 0, "b": 1}


def test_two_names_that_differ_by_a_wrapper_are_an_error(tmp_path):
    arrays = {"_orig_mod.a": np.ones(2, np.float32), "a": np.zeros(2, np.float32)}
    save_file(arrays, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"holds (a and _orig_mod\.a|_orig_mod\.a and a), which are one tensor"):
        files.open_tensors(tmp_path / "m.safetensors")


def test_reading_headers_does_not_read_numbers(tmp_path, monkeypatch):
    np.savez(tmp_path / "m.npz", a=np.zeros(4, np.float32))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("numbers were read"))
    assert files.open_tensors(tmp_path / "m.npz")["a"].shape == (4,)
