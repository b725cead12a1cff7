"""Files in object stores (gs://, s3://, whatever fsspec opens): staged to this machine, and workdirs kept there.

Data sets and weights are read from local files, so each host copies what it needs once: `stage`. A workdir there is
worked on in a local copy; what changed goes back with every checkpoint and at the end (`push`), and a new machine goes
on with what came there last (`open_workdir`). A list of the files, with their digests, is written last: half an upload
is never taken for a whole one.

Local copies lie in $MSDDF_JAX_STAGE, by default ~/.cache/msddf_jax/stage, and take at most $MSDDF_JAX_STAGE_GB, by
default 200: what was used longest ago goes first, nothing that a running process uses.
"""

import concurrent.futures
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from absl import logging

from msddf_jax import paths

FOLDER, LIMIT = "~/.cache/msddf_jax/stage", 200
# In a copy: what it is of. In the store, beside the files of a workdir: which belong together.
_ABOUT, LIST = ".about.json", ".files.json"
_THREADS = 8
# Of what is copied by this process: locks that say "in use" for as long as it runs, by folder.
_in_use = {}
_background, _pushes = concurrent.futures.ThreadPoolExecutor(1), {}


def is_url(path) -> bool:
    """Whether a path is of an object store: gs://, s3://, or another scheme of fsspec but http and hf."""
    scheme, colon, _ = str(path).partition("://")
    return bool(colon) and scheme.isalnum() and scheme not in ("http", "https", "hf", "file")


def is_known(scheme) -> bool:
    """Whether fsspec has a file system for a scheme."""
    import fsspec

    return scheme in fsspec.available_protocols()


def open_store(url) -> tuple[Any, str]:
    """(fsspec's file system, path in it) of a URL. Raises ValueError where the package of its scheme is missing."""
    import fsspec  # a tenth of a second, which local paths do not need

    scheme = url.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        extra = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}.get(scheme)
        hint = f"pip install 'msddf_jax[{extra}]'" if extra else f"fsspec knows no {scheme}://, or not how to open it"
        raise ValueError(f"{url} cannot be opened: {error}; {hint}") from error


def _told(function):
    """Errors of a store's own library, as of a login or a name that is not found, as OSError: one line for a user."""

    @functools.wraps(function)
    def run(*args, **keys):
        try:
            return function(*args, **keys)
        except (OSError, ValueError):
            raise
        except Exception as error:
            raise OSError(f"the store gives {type(error).__name__}: {' '.join(str(error).split())}") from error

    return run


@_told
def stage(url) -> pathlib.Path:
    """The local copy of a file or of a folder with all that is below it, made or brought up to date.

    Processes of a host share it: one copies, the others wait. What is there already, by size and by the store's own
    mark of a version (ETag, generation or time), is not copied again; a digest that the store gives is compared.

    Raises:
      FileNotFoundError: nothing there. ValueError: the store cannot be opened, or gave other bytes than it said.
      OSError: no room.
    """
    url = str(url).rstrip("/")
    store, root = open_store(url)
    there = _listed(store, root)
    if not there:
        raise FileNotFoundError(f"nothing at {url}")
    folder = _folder_of(url, "files")
    with _locked(folder):
        _sweep(folder)
        known = _about(folder).get("files", {})
        wanted = {
            name: mark for name, mark in there.items() if known.get(name) != mark or not _is_whole(folder, name, mark)
        }
        if wanted:
            _make_room(sum(mark["size"] for mark in wanted.values()), folder)
            logging.info("staging %d files of %s to %s", len(wanted), url, folder)
        for name in set(known) - set(there):
            (folder / name).unlink(missing_ok=True)
        _each(lambda name: _fetch(store, _join(root, name), folder / (name or _name(url)), there[name]), wanted)
        _write_about(folder, {"url": url, "files": there})
        _hold(folder)
    return folder / _name(url) if set(there) == {""} else folder


@_told
def list_with(url, name) -> list[str]:
    """Names of the folders right below a URL that hold a file of this name."""
    store, root = open_store(str(url).rstrip("/"))
    below = (path.rpartition("/")[2] for path in store.ls(root, detail=False)) if store.exists(root) else ()
    return sorted(folder for folder in below if store.exists(f"{root}/{folder}/{name}"))


def push_opened() -> None:
    """`push` of every workdir that this process has opened in a store."""
    for folder in list(_in_use):
        if _about(folder).get("workdir"):
            push(folder)


@_told
def open_workdir(path) -> pathlib.Path:
    """The folder to work in: a local path as it is, a URL as its local copy with what was last pushed there.

    Files of a checkpoint are compared with their digests. Raises as `stage`; FileNotFoundError is none: a new workdir
    is empty.
    """
    if not is_url(path):
        return pathlib.Path(paths.expand(str(path)))
    url = str(path).rstrip("/")
    folder = _folder_of(url, "workdir")
    with _locked(folder):
        if not _is_used(folder):
            # Another process of this host, which trains for instance, has newer files than the store.
            _sweep(folder)
            _write_about(folder, {"url": url, "workdir": True})
            _pull(url, folder)
        _hold(folder)
    return folder


def store_of(workdir) -> str | None:
    """The URL that a folder of `open_workdir` is a copy of, or None."""
    about = _about(pathlib.Path(workdir))
    return about["url"] if about.get("workdir") else None


@_told
def pull(workdir) -> None:
    """Bring the local copy of a workdir up to date with what another host has pushed; nothing for a local one."""
    workdir = pathlib.Path(workdir)
    if url := store_of(workdir):
        with _locked(workdir):
            _pull(url, workdir)


@_told
def push(workdir) -> None:
    """Copy what is new in a workdir to where it belongs, then the list of its files; nothing for a local one.

    Half-written files and checkpoints stay here. What was taken away here goes there too, after the list. What another
    host has pushed since stays as it is.
    """
    workdir = pathlib.Path(workdir)
    url = store_of(workdir)
    if url is None:
        return
    store, root = open_store(url)
    with _locked(workdir):
        there, known, own = _read_list(store, root), _about(workdir).get("files", {}), {}
        for path in sorted(workdir.rglob("*")):
            name = path.relative_to(workdir).as_posix()
            if path.is_file() and not _is_half(name):
                own[name] = _mark_of(path, known.get(name))
        changed = [name for name, mark in own.items() if known.get(name, {}).get("sha256") != mark["sha256"]]
        gone = _each(lambda name: _put(store, workdir / name, _join(root, name)), changed)
        # Orbax has removed an old checkpoint meanwhile: nothing of it is listed.
        steps = {name.rpartition("/")[0].split("/")[1] for name in gone if name.startswith("checkpoints/")}
        own = {n: m for n, m in own.items() if n not in gone and n.split("/")[1:2] not in [[step] for step in steps]}
        removed = set(known) - set(own)
        # Without times, which are of this copy alone.
        fresh = {n: {"size": own[n]["size"], "sha256": own[n]["sha256"]} for n in changed if n in own}
        now = {name: mark for name, mark in {**there, **fresh}.items() if name not in removed}
        if now != there:
            store.pipe_file(_join(root, LIST), json.dumps(now, indent=1, sort_keys=True).encode())
        _write_about(workdir, {**_about(workdir), "files": own})
        if left := [_join(root, name) for name in removed & set(there)]:
            store.rm(left)


def push_soon(workdir) -> None:
    """`push`, beside what this process does; what failed before is raised now. What comes meanwhile waits for the next.

    Nothing for a local workdir.
    """
    workdir = pathlib.Path(workdir)
    if store_of(workdir) is None:
        return
    before = _pushes.get(workdir)
    if before is None or before.done():
        _pushes[workdir] = _background.submit(push, workdir)
    if before is not None and before.done():
        before.result()


def _put(store, source, target):
    """Whether the file has gone meanwhile."""
    try:
        store.put_file(str(source), target)
    except FileNotFoundError:
        return not source.exists()
    return False


def _pull(url, folder):
    store, root = open_store(url)
    listed = _read_list(store, root)
    if not listed:
        # Put there by other means than `push`: what is there is what there is.
        listed = {name: {"size": mark["size"]} for name, mark in _listed(store, root).items() if name}
    wanted = {n: m for n, m in listed.items() if not _is_same(folder / n, m)}
    _make_room(sum(mark["size"] for mark in wanted.values()), folder)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        name = path.relative_to(folder).as_posix()
        # What a killed process has left here and never pushed is of no checkpoint that anyone else goes on from.
        if listed and name not in listed and name != _ABOUT:
            path.unlink()
    _each(lambda name: _fetch_listed(store, _join(root, name), folder / name, wanted[name]), wanted)
    for path in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            path.rmdir()  # empty: Orbax takes a folder of a step for the step
    marks = {name: _mark_of(folder / name, None) for name in listed if (folder / name).exists()}
    _write_about(folder, {**_about(folder), "files": marks})


def _fetch_listed(store, source, target, mark):
    _copy(store, source, target)
    digest = _sha256(target)
    # Small files are replaced one by one between two lists; checkpoints never change.
    if mark.get("sha256") not in (None, digest) and "checkpoints/" in source:
        raise ValueError(f"{source} is damaged: it has not the digest that it was written with")


def _fetch(store, source, target, mark):
    _copy(store, source, target)
    if target.stat().st_size != mark["size"]:
        raise ValueError(f"{source} came with {target.stat().st_size} bytes, the store says {mark['size']}")
    etag = mark["mark"].strip('"')
    # Of an object in one piece S3's mark is the digest itself.
    if len(etag) == 32 and all(c in "0123456789abcdef" for c in etag):
        with open(target, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != etag:
            target.unlink()
            raise ValueError(f"{source} is damaged: MD5 {found}, the store says {etag}; start again")


def _copy(store, source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        store.get_file(source, str(temporary))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _listed(store, root):
    """{path below root, "" for root itself: {"size", "mark"}} of all files there."""
    store.invalidate_cache()
    try:
        found = store.find(root, detail=True)
    except FileNotFoundError:
        return {}
    out = {}
    for path, info in found.items():
        if info["type"] == "file":
            mark = next(
                (info[key] for key in ("ETag", "generation", "mtime", "LastModified", "created") if key in info), ""
            )
            name = path.removeprefix(root.rstrip("/")).lstrip("/")
            out[name] = {"size": info["size"] or 0, "mark": str(mark)}
    return out


def _read_list(store, root):
    store.invalidate_cache()
    try:
        return json.loads(store.cat_file(_join(root, LIST)))
    except FileNotFoundError:
        return {}


def _is_half(name):
    """Whether a name is of something that is still being written, or of this copy alone."""
    parts = name.split("/")
    return name == _ABOUT or any("orbax-checkpoint-tmp" in part or part.endswith(".tmp") for part in parts)


def _mark_of(path, before):
    about = path.stat()
    if before and before.get("size") == about.st_size and before.get("mtime") == about.st_mtime_ns:
        return before
    return {"size": about.st_size, "mtime": about.st_mtime_ns, "sha256": _sha256(path)}


def _is_same(path, mark):
    if not path.exists() or path.stat().st_size != mark["size"]:
        return False
    return mark.get("sha256") == _sha256(path)


def _is_whole(folder, name, mark):
    path = folder / (name or _name(_about(folder)["url"]))
    return path.exists() and path.stat().st_size == mark["size"]


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _join(root, name):
    return f"{root.rstrip('/')}/{name}" if name else root


def _name(url):
    return url.rpartition("/")[2]


def _base():
    return pathlib.Path(paths.expand(os.environ.get("MSDDF_JAX_STAGE", FOLDER)))


def _folder_of(url, kind):
    return _base() / f"{kind}-{hashlib.sha256(url.encode()).hexdigest()[:16]}-{_name(url)}"


def _about(folder):
    try:
        return json.loads((folder / _ABOUT).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _write_about(folder, about):
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{_ABOUT}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(about))
    os.replace(temporary, folder / _ABOUT)


def _each(work, names):
    """The names for which `work` gives something true; raises what it raises."""
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        futures = {name: pool.submit(work, name) for name in names}
        return {name for name, future in futures.items() if future.result()}


def _sweep(folder):
    """Removes what a killed process has half copied; to be called by who has the lock."""
    for path in folder.rglob(".*.tmp"):
        path.unlink()


@contextlib.contextmanager
def _locked(folder) -> Iterator[None]:
    """One process of the host at a time."""
    paths.make_writable(folder.parent)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hold(folder):
    """Says that the copy is in use, until this process ends."""
    if folder not in _in_use:
        _in_use[folder] = open(f"{folder}.used", "w")  # noqa: SIM115, for as long as the process runs
        fcntl.flock(_in_use[folder], fcntl.LOCK_SH)
    os.utime(f"{folder}.used")


def _is_used(folder):
    """Whether another process has the copy."""
    if folder in _in_use or not folder.exists():
        return False
    with open(f"{folder}.used", "a") as used:
        try:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _make_room(size, folder):
    """Removes copies until `size` bytes more are within the limit and on the disk, the one used longest ago first."""
    limit = float(os.environ.get("MSDDF_JAX_STAGE_GB", LIMIT)) * 1e9
    folder.parent.mkdir(parents=True, exist_ok=True)
    copies = [path for path in folder.parent.iterdir() if path.is_dir() and path != folder]
    used = lambda path: pathlib.Path(f"{path}.used").stat().st_mtime if pathlib.Path(f"{path}.used").exists() else 0.0
    kept = sum(_size(path) for path in [*copies, folder])
    for path in sorted(copies, key=used):
        if kept + size <= limit and shutil.disk_usage(folder.parent).free > size:
            break
        kept -= _remove(path)
    free = shutil.disk_usage(folder.parent).free
    if kept + size > limit or free < size:
        raise OSError(
            f"no room to stage {size / 1e9:.1f} GB in {folder.parent}: {kept / 1e9:.1f} GB of {limit / 1e9:.0f} are in "
            f"use, {free / 1e9:.1f} GB of the disk are free; set MSDDF_JAX_STAGE to another disk, or MSDDF_JAX_STAGE_GB"
        )


def _remove(path):
    """Bytes that were freed: 0 where a process uses the copy."""
    size = _size(path)
    with open(f"{path}.used", "w") as used:
        try:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        shutil.rmtree(path)
        pathlib.Path(f"{path}.used").unlink()
    return size


def _size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
