"""Models in several safetensors files: the index, a folder, the hub's cache; what is missing or does not fit."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from msddf_jax.weights import files, hub, sharded_file

NAME = "model.safetensors.index.json"
PARTS = {
    "model-00001-of-00002.safetensors": {"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2), np.float32)},
    "model-00002-of-00002.safetensors": {"c": np.full(4, 7, np.float16)},
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    """A folder with an index and its two shards."""
    return _write(tmp_path / "model")


def _write(folder):
    folder.mkdir(parents=True)
    for name, arrays in PARTS.items():
        save_file(arrays, folder / name)
    places = {tensor: name for name, arrays in PARTS.items() for tensor in arrays}
    (folder / NAME).write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": places}))
    return folder


def test_an_index_gives_the_tensors_of_all_shards(folder):
    tensors = files.open_tensors(folder / NAME)
    assert set(tensors) == {"a", "b", "c"}
    for arrays in PARTS.values():
        for name, value in arrays.items():
            assert (tensors[name].shape, tensors[name].dtype) == (value.shape, value.dtype)
            np.testing.assert_array_equal(tensors[name].read(), value)


def test_a_folder_holds_an_index_and_the_digest_covers_the_shards(folder):
    path = hub.locate(str(folder))
    assert path == folder / NAME
    digest = hub.verify(path, hub.parse(str(folder)))
    # As `sha256sum` prints them, sorted by name: model-..., then model.safetensors...
    names = [*PARTS, NAME]
    lines = "".join(f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names)
    assert digest == hashlib.sha256(lines.encode()).hexdigest()
    save_file({"c": np.full(4, 8, np.float16)}, folder / "model-00002-of-00002.safetensors")
    with pytest.raises(ValueError, match=f"is to have {digest}"):
        hub.verify(path, hub.parse(f"{folder}#sha256={digest}"))


def test_a_whole_file_comes_before_an_index(folder):
    save_file({"a": np.ones(1, np.float32)}, folder / "model.safetensors")
    assert hub.locate(str(folder)) == folder / "model.safetensors"


def test_missing_shards_are_named(folder):
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"2 shards; missing beside it: model-00002-of-00002\.safetensors$"):
        files.open_tensors(folder / NAME)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ("text", "is no index of shards"),
        ({"weight_map": ["a"]}, "is no index of shards"),
        ({"other": {}}, "is no index of shards"),
        ({"weight_map": {"a": "../model.safetensors"}}, r"names '\.\./model\.safetensors'; a shard is"),
        ({"weight_map": {"a": "model.pth"}}, r"names 'model\.pth'; a shard is"),
        ({"weight_map": {"d": "model-00001-of-00002.safetensors"}}, "says that d is in .*, which has not got it"),
        ({"weight_map": {"a": "model-00001-of-00002.safetensors"}}, "holds b, which .* does not say"),
    ],
)
def test_an_index_that_does_not_fit_says_why(folder, places, message):
    (folder / NAME).write_text(places if isinstance(places, str) else json.dumps(places))
    with pytest.raises(ValueError, match=message):
        files.open_tensors(folder / NAME)


def test_other_json_is_no_index(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json: of \.json files an index of shards is read"):
        files.open_tensors(tmp_path / "config.json")
    assert not sharded_file.is_index(tmp_path / "config.json")


@pytest.mark.parametrize("whole", [True, False])
def test_the_hub_gives_an_index_with_its_shards(tmp_path, whole):
    snapshot = _write(tmp_path / "hub" / "models--owner--name" / "snapshots" / COMMIT)
    if not whole:
        (snapshot / "model-00002-of-00002.safetensors").unlink()
    root = pathlib.Path(__file__).resolve().parents[1]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(root)}
    env.pop("MSDDF_WEIGHTS", None)
    script = f"from msddf_jax.weights import hub; print(hub.locate('hf://owner/name@{COMMIT}'))"
    run = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    if whole:
        assert run.stdout.strip() == str(snapshot / NAME)
    else:
        assert "FileNotFoundError: could not fetch model-00002-of-00002.safetensors of owner/name" in run.stderr
