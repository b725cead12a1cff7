"""Keras' HDF5 weights: names and numbers, and what is no such file says so."""

import h5py
import numpy as np
import pytest

from msddf_jax.weights import files, keras_file


def _write(path, layers, root=None):
    """layers: {layer: {weight name as Keras writes it: array}}."""
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        for layer, weights in layers.items():
            group = top.create_group(layer)
            for name, value in weights.items():
                group.create_dataset(name, data=value)
            group.attrs["weight_names"] = [name.encode() for name in weights]
        top.attrs["layer_names"] = [name.encode() for name in layers]
    return path


KERNEL = np.arange(6.0, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(("first", "second"), [("dense_3", "dense_4"), ("dense", "dense_1")])
@pytest.mark.parametrize("root", [None, "model_weights"])
def test_layers_of_a_kind_are_counted_from_one(tmp_path, first, second, root):
    layers = {"input_2": {}, first: {f"{first}/kernel:0": KERNEL}, second: {f"{second}/kernel:0": KERNEL + 1}}
    tensors = files.open_tensors(_write(tmp_path / "m.h5", layers, root))
    assert list(tensors) == ["dense_1/kernel", "dense_2/kernel"]
    assert tensors["dense_1/kernel"].shape == (2, 3) and tensors["dense_1/kernel"].dtype == np.float32
    np.testing.assert_array_equal(tensors["dense_2/kernel"].read(), KERNEL + 1)


def test_a_layer_that_is_missing_leaves_its_number_free(tmp_path):
    layers = {name: {f"{name}/kernel:0": KERNEL} for name in ("dense_5", "dense_7")}
    assert list(files.open_tensors(_write(tmp_path / "m.hdf5", layers))) == ["dense_1/kernel", "dense_3/kernel"]


def test_headers_are_read_and_numbers_are_not(tmp_path):
    path = _write(tmp_path / "m.h5", {"dense": {"dense/kernel:0": KERNEL}})
    tensors = keras_file.open_keras(path)
    path.unlink()
    assert tensors["dense_1/kernel"].shape == (2, 3)
    with pytest.raises(ValueError, match="numbers of /dense/dense/kernel:0 cannot be read"):
        tensors["dense_1/kernel"].read()


def test_what_is_no_such_file_says_so(tmp_path):
    path = tmp_path / "m.h5"
    path.write_bytes(b"this is text")
    with pytest.raises(ValueError, match=r"m\.h5 cannot be read as Keras' HDF5"):
        files.open_tensors(path)
    # Keras 3.
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=KERNEL)
    with pytest.raises(ValueError, match=r"holds \['layers'\] and no layer_names: weights as Keras 2 saves them"):
        files.open_tensors(path)
    _write(path, {"dense": {}})
    with pytest.raises(ValueError, match="holds no weight"):
        files.open_tensors(path)
    _write(path, {"dense": {"dense/kernel:0": KERNEL}, "dense_0": {"dense_0/kernel:0": KERNEL}})
    with pytest.raises(ValueError, match="holds dense_1/kernel twice, once as dense_0/dense_0/kernel:0"):
        files.open_tensors(path)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"dense"]
    with pytest.raises(ValueError, match=r"cannot be read as Keras' HDF5: .*dense"):
        files.open_tensors(path)


def test_a_cut_file_is_an_error(tmp_path):
    path = _write(tmp_path / "m.h5", {"dense": {"dense/kernel:0": np.ones((64, 64), np.float32)}})
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(ValueError, match="cannot be read as Keras' HDF5"):
        files.open_tensors(path)


def test_numbers_in_other_files_are_not_read(tmp_path):
    _write(tmp_path / "other.h5", {"dense": {"dense/kernel:0": KERNEL}})
    path = _write(tmp_path / "m.h5", {"dense": {}})
    with h5py.File(path, "a") as file:
        file["dense"]["kernel:0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/dense/dense/kernel:0")
        file["dense"].attrs["weight_names"] = [b"kernel:0"]
    with pytest.raises(ValueError, match="lie in another file, which is not read"):
        files.open_tensors(path)
    (tmp_path / "raw").write_bytes(KERNEL.tobytes())
    with h5py.File(path, "w") as file:
        group = file.create_group("dense")
        group.create_dataset("kernel:0", (2, 3), np.float32, external=[(str(tmp_path / "raw"), 0, 24)])
        group.attrs["weight_names"] = [b"kernel:0"]
        file.attrs["layer_names"] = [b"dense"]
    with pytest.raises(ValueError, match="lie in another file, which is not read"):
        files.open_tensors(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("dense/kernel:0", data=[b"text"])
        file["dense"].attrs["weight_names"] = [b"kernel:0"]
        file.attrs["layer_names"] = [b"dense"]
    with pytest.raises(ValueError, match="/dense/kernel:0 is no array of numbers"):
        files.open_tensors(path)
