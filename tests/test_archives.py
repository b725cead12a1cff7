import gzip
import io
import os
import pickle
import stat
import tarfile
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_prep import archives

FILES = {"1/000.png": b"first", "1/001.png": b"x" * 3000, "2/000.png": b""}


def write_tar(path, files=FILES, mode="w:gz", extra=()):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return path


def write_zip(path, files=FILES):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read_back(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(path, tmp_path, message, **limits):
    """The archive is an error, and nothing is left of it, neither inside nor outside the target."""
    before = sorted(p for p in tmp_path.rglob("*"))
    with pytest.raises(archives.ArchiveError, match=message) as caught:
        archives.unpack(path, tmp_path / "out", **limits)
    assert "[bad_archive]" in str(caught.value) and str(path) in str(caught.value)
    assert sorted(p for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("mode", ["w:gz", "w", "w:bz2", "w:xz"])
def test_tar_of_any_compression_under_one_name(tmp_path, mode):
    path = write_tar(tmp_path / "12.tar.gz", mode=mode)  # WildDeepfake names plain tar files so
    assert read_back(archives.unpack(path, tmp_path / "deep" / "out")) == FILES
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["out"]


def test_zip(tmp_path):
    assert read_back(archives.unpack(write_zip(tmp_path / "a.zip"), tmp_path / "out")) == FILES


def test_a_target_that_is_there_is_left(tmp_path):
    (tmp_path / "out").mkdir()
    assert archives.unpack(write_tar(tmp_path / "a.tar"), tmp_path / "out") == tmp_path / "out"
    assert read_back(tmp_path / "out") == {}


@pytest.mark.parametrize("name", ["../evil", "/abs/evil", "a/../../evil", "C:/evil", "a\\..\\evil", " "])
def test_paths_outside_the_target(tmp_path, name):
    refused(write_tar(tmp_path / "a.tar.gz", {"fine": b"1", name: b"2"}), tmp_path, "outside the target")
    if name != "a\\..\\evil":  # zipfile rewrites none of these on Linux but keeps the name
        refused(write_zip(tmp_path / "a.zip", {name: b"2"}), tmp_path, "outside the target")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar(tmp_path, kind):
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "../../etc/passwd"
    refused(write_tar(tmp_path / "a.tar.gz", extra=[info]), tmp_path, "link, device or pipe")


def test_link_in_zip(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path / "a.zip", tmp_path, "link, device or pipe")


def test_a_name_that_no_file_can_have():
    with pytest.raises(archives.ArchiveError, match="cannot be the name"):
        archives._inner_path("a.tar", "\ud800.png")


def test_limits(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz")
    refused(path, tmp_path, "more than 3004 bytes", max_bytes=3004)
    refused(path, tmp_path, "more than 2 members", max_members=2)
    assert read_back(archives.unpack(path, tmp_path / "fits", max_bytes=3005, max_members=3)) == FILES


def test_zip_that_lies_about_its_size(tmp_path):
    """A bomb says 10 bytes and unpacks to a megabyte: what is counted is what comes out."""
    path = write_zip(tmp_path / "a.zip", {"a": b"\0" * 10**6})
    data = bytearray(path.read_bytes())
    for at in [data.index(b"PK\x03\x04") + 22, data.index(b"PK\x01\x02") + 24]:
        data[at : at + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    refused(path, tmp_path, "damaged|cut short|more than")


def test_one_name_twice(tmp_path):
    info = tarfile.TarInfo("1/000.png")
    refused(write_tar(tmp_path / "a.tar", extra=[info]), tmp_path, "one name")
    below = tarfile.TarInfo("1/000.png/x")
    refused(write_tar(tmp_path / "b.tar", extra=[below]), tmp_path, "one name")


def test_damage(tmp_path):
    whole = write_tar(tmp_path / "a.tar", mode="w").read_bytes()
    cases = {
        "text": b"no archive",
        "empty": b"",
        "cut": whole[:2000],
        # tarfile takes a broken second header for the end of the archive.
        "header": whole[:1024] + b"\xff" * 512 + whole[1536:],
        "no end": whole[: 512 * 9],
        "gz": gzip.compress(whole)[:-20],
        "crc": gzip.compress(whole)[:-8] + b"12345678",
    }
    for name, data in cases.items():
        path = tmp_path / f"{name}.tar.gz"
        path.write_bytes(data)
        refused(path, tmp_path, "damaged|cut short|not an archive")
    refused(tmp_path / "absent.tar", tmp_path, "no such file")


@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.integers(0, 2**32 - 1), st.sampled_from(["w:gz", "w", "zip"]))
@hypothesis.example(38501, "zip")  # a member that begins before the file
@hypothesis.example(18356, "zip")  # a member without a name
def test_flipped_bytes_give_the_files_or_an_error_and_nothing_outside(tmp_path, seed, mode):
    rng = np.random.default_rng(seed)
    box = tmp_path / f"{seed}{mode[-2:]}"
    box.mkdir(exist_ok=True)
    path = box / "a"
    data = bytearray((write_zip(path) if mode == "zip" else write_tar(path, mode=mode)).read_bytes())
    for at in rng.integers(0, len(data), 4):
        data[at] ^= int(rng.integers(1, 256))
    path.write_bytes(data)
    target = box / "out"
    try:
        archives.unpack(path, target)
    except archives.ArchiveError:
        assert not target.exists()
    names = {p.name for p in box.iterdir()}
    assert names <= {"a", "out"}
    assert not any(os.path.islink(p) for p in box.rglob("*"))


def test_error_crosses_a_process_and_command_line(tmp_path, capsys):
    error = pickle.loads(pickle.dumps(archives.ArchiveError("a.tar", "damaged")))
    assert (error.code, error.path, error.detail) == ("bad_archive", "a.tar", "damaged")
    assert archives.main([str(write_tar(tmp_path / "a.tar")), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    assert archives.main([str(tmp_path / "none.tar"), str(tmp_path / "out2")]) == 1
    assert "[bad_archive]" in capsys.readouterr().err
