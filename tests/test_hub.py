"""Where weights come from: paths, folders, the hub's cache; and what is said where there is no network."""

import os
import pathlib
import subprocess
import sys

import pytest

from msddf_jax.weights import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _offline(script, home):
    """Output of a Python line in a process without a network, with the hub's cache in `home`."""
    root = pathlib.Path(__file__).resolve().parents[1]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "PYTHONPATH": str(root)}
    env.pop("MSDDF_WEIGHTS", None)
    run = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
    return run.stdout + run.stderr


def test_a_file_a_folder_and_the_environment(tmp_path, monkeypatch):
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    for name in ("pytorch_model.bin", "model.safetensors"):
        (folder / name).write_bytes(b"x")
    assert hub.locate(str(folder / "pytorch_model.bin")) == folder / "pytorch_model.bin"
    # Of several files the one that is data and no pickle.
    assert hub.locate(str(folder)) == folder / "model.safetensors"
    monkeypatch.setenv("MSDDF_WEIGHTS", str(tmp_path))
    assert hub.locate("owner/name/model.safetensors") == folder / "model.safetensors"
    assert hub.locate("weights/owner/name") == folder / "model.safetensors"
    assert hub.locate("hf://owner/name@main/pytorch_model.bin") == folder / "pytorch_model.bin"
    assert hub.locate("hf-hub:owner/name") == folder / "model.safetensors"


def test_a_path_that_is_not_there_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setenv("MSDDF_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"no weights at weights/a/b\.npz") as error:
        hub.locate("weights/a/b.npz")
    assert str(tmp_path / "a" / "b.npz") in str(error.value)
    assert "hf://owner/name" in str(error.value)


@pytest.mark.parametrize("source", ["hf://owner", "hf://owner/name@", "hf://owner/name/../../x y"])
def test_a_source_that_is_none_is_an_error(source):
    with pytest.raises(ValueError, match="is no hub source"):
        hub.locate(source)


def test_a_pinned_file_in_the_cache_needs_no_network(tmp_path):
    snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "pytorch_model.bin").write_bytes(b"x")
    script = f"from msddf_jax.weights import hub; print(hub.locate('hf://owner/name', '{COMMIT}'))"
    assert str(snapshot / "pytorch_model.bin") in _offline(script, tmp_path)


def test_without_a_network_the_error_names_the_file_and_the_place(tmp_path):
    script = f"from msddf_jax.weights import hub; hub.locate('hf://owner/name@{COMMIT}/model.safetensors')"
    said = _offline(script, tmp_path)
    assert "FileNotFoundError: could not fetch model.safetensors of owner/name" in said
    assert "$MSDDF_WEIGHTS/owner/name/model.safetensors" in said
    assert f"hf download owner/name model.safetensors --revision {COMMIT}" in said


def test_digest_of_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert hub.sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
