"""References to weights and where the files are: paths, folders, addresses, the hub's cache; what is said offline."""

import functools
import hashlib
import http.server
import os
import pathlib
import re
import subprocess
import sys
import threading
import urllib.parse

import hypothesis
import hypothesis.strategies as st
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
    script = f"from msddf_jax.weights import hub; print(hub.locate('hf://owner/name@{COMMIT}'))"
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


_WORD = st.text("abcXYZ019._-", min_size=1, max_size=12)
_SOURCES = st.one_of(
    st.builds("{}/{}".format, _WORD, _WORD),
    st.builds("hf://{}/{}@{}/{}".format, *([st.text("abc09", min_size=1, max_size=8)] * 4)),
    st.builds("https://{}/{}.pth".format, _WORD, _WORD),
)
_SKIPS = st.lists(st.text("ab.*#&=%+ |", min_size=1, max_size=8).filter(lambda p: _compiles(p)), max_size=3)


def _compiles(pattern):
    try:
        return bool(re.compile(pattern))
    except re.error:
        return False


@hypothesis.given(_SOURCES, st.text("0123456789abcdef", min_size=8, max_size=64), st.none() | _WORD, _SKIPS)
def test_a_reference_is_read_as_it_was_written(source, digest, kind, skip):
    parts = [f"sha256={digest.upper()}"] + [f"skip={urllib.parse.quote(p)}" for p in skip]
    if kind:
        # In any order.
        parts.insert(len(skip), f"format={kind}")
    got = hub.parse(f"{source}#{'&'.join(parts)}")
    assert got == hub.Reference(source, digest, kind, tuple(skip))
    assert hub.parse(source) == hub.Reference(source)


@hypothesis.given(st.text("rando:/#&=hf@.sk0123", max_size=30))
def test_any_text_is_a_reference_or_a_value_error_that_shows_one(text):
    try:
        assert text.startswith(hub.parse(text).source)
    except ValueError as error:
        assert "reference" in str(error) or "hub source" in str(error) or "sha256" in str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "say the word random"),
        (None, "say the word random"),
        ("#sha256=01234567", "names no file"),
        ("random#format=x", "names no file"),
        ("a.pth#sha256=0123", "8 to 64 hexadecimal digits, got '0123'"),
        ("a.pth#sha256=0123456x", "8 to 64 hexadecimal digits"),
        ("a.pth#sha256=01234567&sha256=01234567", "cannot be read at 'sha256=01234567'"),
        ("a.pth#revision=main", "cannot be read at 'revision=main'"),
        ("a.pth#", "cannot be read at ''"),
        ("a.pth#skip=(", "skip=( is no regex"),
        ("strange://host/a.pth", "unknown scheme strange://"),
        ("https://host/", "names no file"),
        ("http://host/a.pth", "add #sha256="),
    ],
)
def test_what_is_no_reference_says_why(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        hub.parse(text)


def test_the_word_random_is_no_file():
    assert hub.parse("random") == hub.Reference(hub.RANDOM)
    with pytest.raises(ValueError, match="stands for no file"):
        hub.locate("random")


def test_a_digest_is_compared_with_the_digits_that_are_given(tmp_path):
    (tmp_path / "f.pth").write_bytes(b"abc")
    path = hub.locate(f"{tmp_path}/f.pth#sha256=BA7816BF")
    assert hub.verify(path, hub.parse(f"{path}#sha256=ba7816bf")).startswith("ba7816bf8f01cfea")
    with pytest.raises(ValueError, match=r"has sha-256 ba7816bf8f01\w+; .*f\.pth is to have ba7816be"):
        hub.verify(path, hub.parse(f"{path}#sha256=ba7816be"))


def test_a_workdir_is_a_folder_with_chosen_weights(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "weights.safetensors").write_bytes(b"x")
    assert hub.locate(str(tmp_path)) == tmp_path / "best" / "weights.safetensors"


@pytest.fixture
def site(tmp_path, monkeypatch):
    """(address of a site that serves a folder, that folder, requests it got); fetched files go to tmp_path/cache."""
    served, asked = tmp_path / "site", []
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

        def send_header(self, name, value):
            # A file of this name is announced longer than it is.
            longer = name == "Content-Length" and self.path.endswith("short.pth")
            super().send_header(name, str(int(value) + 5) if longer else value)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(hub, "CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MSDDF_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    yield f"http://127.0.0.1:{server.server_port}", served, asked
    server.shutdown()
    server.server_close()


def test_an_address_is_fetched_once_into_the_cache(site, tmp_path):
    address, served, asked = site
    (served / "net.pth").write_bytes(b"abc")
    reference = f"{address}/net.pth#sha256=ba7816bf"
    assert hub.locate(reference) == tmp_path / "cache" / "net.pth"
    assert (tmp_path / "cache" / "net.pth").read_bytes() == b"abc"
    assert hub.locate(reference) == tmp_path / "cache" / "net.pth"
    assert len(asked) == 1
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["net.pth"]


def test_what_is_there_is_not_fetched_and_the_environment_comes_first(site, tmp_path, monkeypatch):
    address, _, asked = site
    reference = f"{address}/net.pth#sha256=ba7816bf"
    for folder in ("weights", "own"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.pth").write_bytes(b"abc")
    assert hub.locate(reference) == pathlib.Path("weights/net.pth")
    monkeypatch.setenv("MSDDF_WEIGHTS", str(tmp_path / "own"))
    assert hub.locate(reference) == tmp_path / "own" / "net.pth"
    assert not asked


def test_an_address_is_fetched_into_the_folder_of_the_environment(site, tmp_path, monkeypatch):
    address, served, _ = site
    (served / "net.pth").write_bytes(b"abc")
    monkeypatch.setenv("MSDDF_WEIGHTS", str(tmp_path / "own"))
    assert hub.locate(f"{address}/net.pth#sha256=ba7816bf") == tmp_path / "own" / "net.pth"


def test_another_file_or_half_of_one_is_never_kept(site, tmp_path):
    address, served, _ = site
    (served / "net.pth").write_bytes(b"abd")
    found = hashlib.sha256(b"abd").hexdigest()
    with pytest.raises(ValueError, match=f"has sha-256 {found}; .*is to have ba7816bf"):
        hub.locate(f"{address}/net.pth#sha256=ba7816bf")
    (served / "short.pth").write_bytes(b"abc")
    with pytest.raises(FileNotFoundError, match=r"3 bytes read, 5 more expected"):
        hub.locate(f"{address}/short.pth#sha256=ba7816bf")
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null"])
def test_a_home_that_cannot_be_written_is_told_before_the_download(site, monkeypatch, home):
    address, served, asked = site
    (served / "net.pth").write_bytes(b"abc")
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(hub, "CACHE", "~/.cache/msddf_jax/weights")
    with pytest.raises(FileNotFoundError, match=f"no place for .*{home}.*set MSDDF_WEIGHTS to a folder of yours"):
        hub.locate(f"{address}/net.pth#sha256=ba7816bf")
    assert not asked


def test_paths_in_a_config_may_start_with_the_home(site, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "net.pth").write_bytes(b"abc")
    assert hub.locate("~/own/net.pth#sha256=ba7816bf") == tmp_path / "own" / "net.pth"
    monkeypatch.setenv("MSDDF_WEIGHTS", "~/own")
    address = site[0]
    assert hub.locate("weights/net.pth") == hub.locate(f"{address}/net.pth#sha256=ba7816bf") == tmp_path / "own/net.pth"


def test_an_address_without_a_network_says_where_to_put_the_file(site):
    address, _, _ = site
    with pytest.raises(
        FileNotFoundError, match=r"could not fetch .*404.*put it at weights/gone\.pth or \$MSDDF_WEIGHTS/"
    ):
        hub.locate(f"{address}/gone.pth#sha256=ba7816bf")
