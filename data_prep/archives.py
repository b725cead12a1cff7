"""Unpacks downloaded archives, and nothing outside their target: an archive is not to be trusted with paths.

python -m data_prep.archives ARCHIVE TARGET      (tar, plain or compressed whatever its name says, or zip)
"""

import argparse
import contextlib
import errno
import os
import pathlib
import re
import shutil
import stat
import sys
import tarfile
import tempfile
import zipfile

from data_prep import contents
from data_prep.catalog import DownloadError
from msddf_jax import paths

MAX_BYTES = 200 * 10**9
MAX_MEMBERS = 5_000_000
_BLOCK = 1 << 20


class ArchiveError(DownloadError):
    """An archive that is damaged, or that would write where it must not. The message ends with [bad_archive]."""

    def __init__(self, path, detail):
        super().__init__(f"{path}: {detail} [bad_archive]")
        self.code, self.path, self.detail = "bad_archive", str(path), detail

    def __reduce__(self):
        return type(self), (self.path, self.detail)


def unpack(path, target, *, max_bytes=MAX_BYTES, max_members=MAX_MEMBERS):
    """Unpacks an archive into a folder that is made whole or not at all.

    A target that is there already is left as it is, so that a second call costs nothing. Dot files and what macOS puts
    into archives beside the data (`contents.is_data`) are left out.

    Args:
      path: a tar archive (`r:*`: gzip, bzip2, xz or none, found out from its bytes) or a zip archive.
      target: folder to make; its parent is made where needed.
      max_bytes: of all members unpacked, counted while they are written. max_members: how many there may be.

    Returns:
      Path of the target.

    Raises:
      ArchiveError: not an archive, cut short or damaged; a member with an absolute path, with "..", twice the same
        one; a link, a device or a pipe; over a limit.
      OSError: cannot be written.
    """
    path, target = pathlib.Path(path), pathlib.Path(target)
    if target.is_dir():
        return target
    if not path.is_file():
        raise ArchiveError(path, "no such file")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename within one file system.
    part = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _unpack_into(path, part, max_bytes, max_members)
        part.chmod(0o755)
        part.rename(target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return target


def _unpack_into(path, folder, max_bytes, max_members):
    left, seen = max_bytes, 0
    members = _members(path)
    while True:
        with _reading(path):
            member = next(members, None)
        if member is None:
            return
        name, is_folder, stream, size = member
        seen += 1
        if seen > max_members:
            raise ArchiveError(path, f"more than {max_members} members")
        inner = _inner_path(path, name)
        if not contents.is_data(inner):
            continue
        try:
            if is_folder:
                (folder / inner).mkdir(parents=True, exist_ok=True)
            else:
                left -= _copy(path, stream, folder / inner, size, left, max_bytes)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ArchiveError(path, f"two members have one name ({pathlib.Path(error.filename).name})") from error


@contextlib.contextmanager
def _reading(path):
    """What the libraries' parsers trip over on damaged bytes, as ArchiveError.

    They raise nearly anything: zipfile an IndexError for a member without a name, RuntimeError for a password, EINVAL
    of the system for a place before the file's start. An error of the disk or of memory stays what it is.
    """
    try:
        yield
    except (ArchiveError, MemoryError):
        raise
    except OSError as error:
        # gzip's errors have no number.
        if error.filename is not None or error.errno not in (None, errno.EINVAL):
            raise
        raise ArchiveError(path, f"damaged ({error})") from error
    except Exception as error:
        raise ArchiveError(path, f"damaged or not an archive ({type(error).__name__}: {error})") from error


def _members(path):
    """(name, is a folder, open file or None, size in bytes) of every member, in the archive's order."""
    if zipfile.is_zipfile(path) and not tarfile.is_tarfile(path):
        yield from _zip_members(path)
        return
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            if not (member.isfile() or member.isdir()):
                raise ArchiveError(path, f"{member.name!r} is a link, device or pipe, which are not unpacked")
            yield member.name, member.isdir(), archive.extractfile(member), member.size
        # tarfile takes a damaged header for the end: the end is a block of zeros.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ArchiveError(path, "cut short or damaged: the mark at the end of a tar archive is missing")
        while archive.fileobj.read(_BLOCK):  # to the end, where gzip has its checksum
            pass


def _zip_members(path):
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ArchiveError(path, f"{info.filename!r} is a link, device or pipe, which are not unpacked")
            if info.is_dir():
                yield info.filename, True, None, 0
            else:
                with archive.open(info) as stream:
                    yield info.filename, False, stream, info.file_size


def _inner_path(path, name):
    """A member's path below the target."""
    inner = pathlib.PurePosixPath(name)
    outside = inner.is_absolute() or ".." in inner.parts or "\\" in name or re.match(r"[A-Za-z]:", name)
    if outside or "\0" in name or not name.strip():
        raise ArchiveError(path, f"member {name!r} would be written outside the target")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise ArchiveError(path, f"member {name!r} cannot be the name of a file here") from error
    return inner


def _copy(path, stream, file, size, left, max_bytes):
    """Write one member; returns its bytes."""
    if size > left:
        raise ArchiveError(path, f"unpacks to more than {max_bytes} bytes")
    file.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(file, "xb") as out:
        while True:
            with _reading(path):
                block = stream.read(_BLOCK)
            if not block:
                break
            written += len(block)
            if written > left:
                raise ArchiveError(path, f"unpacks to more than {max_bytes} bytes")
            out.write(block)
    if written != size:
        raise ArchiveError(path, f"{file.name} is cut short: {written} of {size} bytes")
    return written


def main(argv=None):
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.archives", description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=paths.expand)
    parser.add_argument("target", type=paths.expand, help="folder to make")
    parser.add_argument("--max_bytes", type=int, default=MAX_BYTES)
    args = parser.parse_args(argv)
    try:
        print(unpack(args.archive, args.target, max_bytes=args.max_bytes))
    except (ArchiveError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
