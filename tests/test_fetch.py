import hashlib

import pytest
import requests

from msddf_jax.faces import fetch


@pytest.fixture
def tiny_model(monkeypatch):
    """YuNet's entry with the checksum of b"model"."""
    name, _, url, licence = fetch.MODELS["yunet"]
    monkeypatch.setitem(fetch.MODELS, "yunet", (name, hashlib.sha256(b"model").hexdigest(), url, licence))
    return name


def test_file_in_the_folder_of_the_environment(tiny_model, tmp_path, monkeypatch):
    (tmp_path / tiny_model).write_bytes(b"model")
    monkeypatch.setenv("MSDDF_MODELS", str(tmp_path))
    assert fetch.model_file("yunet") == tmp_path / tiny_model


def test_folder_given_goes_before_the_environment(tiny_model, tmp_path, monkeypatch):
    (tmp_path / tiny_model).write_bytes(b"model")
    monkeypatch.setenv("MSDDF_MODELS", str(tmp_path / "elsewhere"))
    assert fetch.model_file("yunet", tmp_path) == tmp_path / tiny_model


def test_another_file_of_that_name_is_refused(tiny_model, tmp_path):
    (tmp_path / tiny_model).write_bytes(b"another")
    with pytest.raises(fetch.ModelFileError, match="not the expected file") as caught:
        fetch.model_file("yunet", tmp_path)
    assert hashlib.sha256(b"another").hexdigest() in str(caught.value)
    assert hashlib.sha256(b"model").hexdigest() in str(caught.value)


def test_missing_file_says_both_ways(tmp_path):
    with pytest.raises(fetch.ModelFileError, match=r"face_landmarker\.task") as caught:
        fetch.model_file("face_landmarker", tmp_path)
    for part in (str(tmp_path), "unset MSDDF_MODELS", fetch.MODELS["face_landmarker"][2]):
        assert part in str(caught.value)


def test_unknown_name():
    with pytest.raises(ValueError, match="yunet, face_landmarker"):
        fetch.model_file("retinaface")


def test_download_asks_for_the_checksum(tiny_model, tmp_path, monkeypatch):
    asked = {}

    def retrieve(url, known_hash, **kwargs):
        asked.update(url=url, known_hash=known_hash, **kwargs)
        return str(tmp_path / kwargs["fname"])

    monkeypatch.delenv("MSDDF_MODELS", raising=False)
    monkeypatch.setattr("pooch.retrieve", retrieve)
    assert fetch.model_file("yunet") == tmp_path / tiny_model
    assert asked["url"] == fetch.MODELS["yunet"][2]
    assert asked["known_hash"] == "sha256:" + hashlib.sha256(b"model").hexdigest()


@pytest.mark.parametrize(
    "error",
    [requests.exceptions.ConnectionError("no route\nto host"), ValueError("SHA256 hash does not match")],
)
def test_failed_download_says_both_ways(monkeypatch, error):
    def retrieve(*args, **kwargs):
        raise error

    monkeypatch.delenv("MSDDF_MODELS", raising=False)
    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(fetch.ModelFileError, match="cannot download") as caught:
        fetch.model_file("yunet")
    message = str(caught.value)
    assert " ".join(str(error).split()) in message and "\n" not in message
    assert "MSDDF_MODELS" in message and "--landmarks=sidecar" in message


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null"])
def test_a_home_that_cannot_be_written_is_told_before_the_download(monkeypatch, home):
    def retrieve(*args, **kwargs):
        raise AssertionError("nothing to download into")

    for name in ("MSDDF_MODELS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(fetch.ModelFileError, match="cannot keep face_landmarker") as caught:
        fetch.model_file("face_landmarker")
    assert home in str(caught.value) and "set MSDDF_MODELS to that folder" in str(caught.value)


def test_the_folder_of_the_environment_may_start_with_the_home(tiny_model, tmp_path, monkeypatch):
    (tmp_path / tiny_model).write_bytes(b"model")
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("MSDDF_MODELS", f"~/{tmp_path.name}")
    assert fetch.model_file("yunet") == tmp_path / tiny_model


def test_every_model_has_a_checksum_and_a_licence():
    for file_name, sha256, url, licence in fetch.MODELS.values():
        assert len(sha256) == 64 and set(sha256) <= set("0123456789abcdef")
        assert url.startswith("https://") and url.endswith(file_name)
        assert licence in ("MIT", "Apache-2.0")
