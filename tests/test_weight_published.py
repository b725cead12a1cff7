"""The published files that experiments start from: what the table says, and how they are fetched."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from msddf_jax.weights import hub, identify, published

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_a_reference_names_file_format_and_digest(name):
    entry = published.PUBLISHED[name]
    reference = hub.parse(entry.reference)
    file = reference.source.rsplit("/", 1)[1]
    assert reference.format in identify.known_formats()
    assert reference.sha256
    # A hub file at a commit, or the digits that torch.hub compares with the name.
    if hub.is_hub(reference.source):
        assert len(reference.source.partition("@")[2].partition("/")[0]) == 40
        assert len(reference.sha256) == 64
    else:
        folder = reference.source.rsplit("/", 2)[1]
        assert file.removesuffix(".pth").endswith(f"-{reference.sha256}") or folder == reference.sha256
    assert entry.what and entry.licence
    for config in entry.configs:
        assert (ROOT / config).is_file(), config


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"no published file called 'vgg'; there are clip-b16, .*resnet50, or all"):
        published.fetch(["xception", "vgg"])


def test_what_is_there_is_compared_and_described(tmp_path, monkeypatch):
    # A whole classifier of torchvision's names takes real weights; a small file with its own table stands in.
    save_file({"params/backbone/kernel": np.ones(3, np.float32)}, tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    found = identify.Found("meso/deepfakebench", "meso", "meso4", {}, None, {})
    monkeypatch.setattr(identify, "identify", lambda *_, **__: found)
    entry = published.Published(f"{path}#sha256={hub.sha256(path)[:8]}", "A net", "MIT", ("configs/msddf.py",))
    monkeypatch.setitem(published.PUBLISHED, "small", entry)
    lines = published.fetch(["small", "small"])
    assert lines[0] == f"small: {path}" and hub.sha256(path) in lines[1]
    assert lines[2:] == ["  A net; MIT", "  for configs/msddf.py"]
    monkeypatch.setitem(published.PUBLISHED, "small", entry._replace(reference=f"{path}#sha256=00000000"))
    with pytest.raises(ValueError, match="is to have 00000000"):
        published.fetch(["small"])


def test_without_a_network_the_command_says_what_to_put_where(tmp_path):
    env = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    # No proxy answers on this port, so nothing leaves the machine.
    env |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9") | {"PATH": "", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "msddf_jax.weights", "--fetch", "xception", "clip-b16"]
    run = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "xception: could not fetch http://data.lip6.fr/cadene/pretrainedmodels/xception-b5690688.pth" in run.stderr
    assert "put it at weights/xception-b5690688.pth or $MSDDF_WEIGHTS/xception-b5690688.pth" in run.stderr
    assert "clip-b16: could not fetch pytorch_model.bin of openai/clip-vit-base-patch16" in run.stderr
