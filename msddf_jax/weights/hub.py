"""References to weights, and where the files are: a path, a folder, a published address, or the Hugging Face hub."""

import hashlib
import os
import pathlib
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from typing import NamedTuple

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from msddf_jax import paths, remote
from msddf_jax.weights import scenic_files, sharded_file

# In place of a file: start from random weights.
RANDOM = "random"
# The names under which repositories and folders keep a model, in the order of preference: data formats first.
FILE_NAMES = (
    "model.safetensors",
    f"model{sharded_file.INDEX}",
    "open_clip_model.safetensors",
    "backbone.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
# Where a workdir of training keeps the weights that validation chose (`checkpoint.save_best`).
WORKDIR_FILE = "best/weights.safetensors"
# What `msddf_jax.export --delta` writes.
DELTA_FILE = "delta.safetensors"
# Where published files lie that were fetched, unless $MSDDF_WEIGHTS names a folder.
CACHE = "~/.cache/msddf_jax/weights"
_HUB = re.compile(r"(?:hf://|hf-hub:)([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/([\w./-]+))?")
_SYNTAX = (
    "A reference is a path, a folder, hf://owner/name[@revision][/file], https://host/path/file, the address of a file "
    "or folder in a store (gs://, s3://), or the word random; behind a file may follow #, then sha256=<at least 8 "
    "digits>, format=<name>, skip=<regex>, joined by &"
)


class Reference(NamedTuple):
    """What a reference says.

    source: path, folder, address, or `RANDOM`. sha256: digest or its first digits, lower case, "" for any. format: of
    `identify.identify`, None to find it. skip: regexes of their names that may be there and are not wanted.
    """

    source: str
    sha256: str = ""
    format: str | None = None
    skip: tuple[str, ...] = ()


def parse(text) -> Reference:
    """The parts of a reference such as "hf://owner/name@commit/model.safetensors#sha256=0123abcd&format=clip/hf_clip".

    Values behind the first # may have %xx for a character, as in web addresses: %26 for an & in a regex.

    Raises:
      ValueError: text that is none, with what one looks like; an http:// address without a digest.
    """
    if not isinstance(text, str) or not text:
        raise ValueError(f"{text!r} names no weights: give a file, or say the word random. {_SYNTAX}")
    source, sharp, rest = text.partition("#")
    fields, skip = {}, []
    for part in rest.split("&") if sharp else ():
        key, _, value = part.partition("=")
        value = urllib.parse.unquote(value)
        if key == "skip" and value:
            _compile(value, text)
            skip.append(value)
        elif key in ("sha256", "format") and value and key not in fields:
            fields[key] = value
        else:
            raise ValueError(f"{text!r} cannot be read at {part!r}. {_SYNTAX}")
    digest = fields.get("sha256", "").lower()
    if digest and not re.fullmatch(r"[0-9a-f]{8,64}", digest):
        raise ValueError(f"{text!r}: sha256 is 8 to 64 hexadecimal digits, got {fields['sha256']!r}")
    _check_source(source, digest, bool(sharp), text)
    return Reference(source, digest, fields.get("format"), tuple(skip))


def _compile(pattern, text):
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{text!r}: skip={pattern} is no regex: {error}") from error


def _check_source(source, digest, has_fields, text):
    if not source or (source == RANDOM and has_fields):
        raise ValueError(f"{text!r} names no file that the part behind # could be about. {_SYNTAX}")
    if is_hub(source) and not _HUB.fullmatch(source):
        raise ValueError(f"{source!r} is no hub source; expected hf://owner/name[@revision][/file]")
    scheme = source.partition("://")[0] if "://" in source else ""
    if scheme not in ("", "hf", "http", "https") and not remote.is_known(scheme):
        raise ValueError(f"{text!r} has an unknown scheme {scheme}://. {_SYNTAX}")
    if scheme == "http" and not digest:
        raise ValueError(f"{text!r}: what http:// sends may be changed on the way; add #sha256=<at least 8 digits>")
    if is_address(source) and not _file_name(source):
        raise ValueError(f"{text!r} names no file. {_SYNTAX}")


def is_hub(source) -> bool:
    """Whether a source names a repository of the hub: `hf://owner/name[@revision][/file]`, or open_clip's hf-hub:."""
    return source.startswith(("hf://", "hf-hub:"))


def is_address(source) -> bool:
    """Whether a source is a published address of one file."""
    return source.startswith(("https://", "http://"))


def locate(reference) -> pathlib.Path:
    """The local file of a reference, fetched where it has to be; its digest is not looked at (`verify`).

    A path may start with "~". One that does not exist is looked for below `$MSDDF_WEIGHTS` as well, and so is
    owner/name of a repository. A folder is looked in for `FILE_NAMES`, a workdir of training for its chosen weights;
    one that Orbax wrote stands for itself. The file of an address is looked for in `$MSDDF_WEIGHTS`, in weights/ and in
    `CACHE`, and fetched into the first or, where that is not set, the last.

    Args:
      reference: text of `parse`, or a `Reference`.

    Raises:
      FileNotFoundError: with every place looked in, and where to put the file on a machine without a network, or where
        the cache cannot be written.
      ValueError: see `parse`; the word random, which is no file; a fetched file of another digest.
    """
    reference = reference if isinstance(reference, Reference) else parse(reference)
    source = reference.source
    if source == RANDOM:
        raise ValueError("the word random stands for no file")
    if is_hub(source):
        return _from_hub(source)
    if is_address(source):
        return _from_address(reference)
    tried = [remote.stage(source) if remote.is_url(source) else pathlib.Path(paths.expand(source))]
    if own := _own_folder():
        tried.append(own / source.removeprefix("weights/"))
    names = (*FILE_NAMES, WORKDIR_FILE, DELTA_FILE)
    for candidate in tried:
        found = _in_folder(candidate, names) if candidate.is_dir() else candidate
        if found is not None and found.is_file():
            return found
        if candidate.is_dir() and scenic_files.is_state(candidate):
            return candidate
    raise FileNotFoundError(
        f"no weights at {source} (looked for {', '.join(map(str, tried))}; in a folder for {', '.join(names)}). "
        "Name a file, a folder or hf://owner/name, set $MSDDF_WEIGHTS to a folder that holds it, or start from random "
        "weights with the word random"
    )


def verify(path, reference) -> str:
    """SHA-256 of a file, of an index with its shards (`sharded_file.digest`), or of the files in Orbax's folder.

    Raises:
      ValueError: it is not the one that a `Reference` asks for, with both. FileNotFoundError: names missing shards.
    """
    if path.is_dir():
        digest = _folder_digest(path)
    else:
        digest = sharded_file.digest(path, sha256) if sharded_file.is_index(path) else sha256(path)
    if not digest.startswith(reference.sha256):
        raise ValueError(
            f"{path} has sha-256 {digest}; {reference.source} is to have {reference.sha256}: another or a damaged file"
        )
    return digest


def sha256(path) -> str:
    """Hex digest of a file."""
    with pathlib.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_digest(folder):
    """SHA-256 over names and digests of the files below a folder, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return total.hexdigest()


def _from_hub(source):
    repository, revision, file = _HUB.fullmatch(source).groups()
    names = (file,) if file else FILE_NAMES
    if own := _own_folder():
        found = _in_folder(own / repository, names)
        if found is not None:
            return found
    for name in names:
        try:
            path = pathlib.Path(hf_hub_download(repository, name, revision=revision))
        except LocalEntryNotFoundError:
            # Without a network: the next name may be in the cache. It is a subclass of EntryNotFoundError.
            continue
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise FileNotFoundError(f"{source}: the hub has no {repository} at revision {revision}: {error}") from error
        except EntryNotFoundError:
            continue
        except (OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
            raise FileNotFoundError(_offline(repository, revision, names, error)) from error
        if sharded_file.is_index(path):
            _fetch_shards(path, repository, revision, pathlib.PurePosixPath(name).parent)
        return path
    raise FileNotFoundError(_offline(repository, revision, names, "none of them is there or in the cache"))


def _fetch_shards(index, repository, revision, folder):
    """Put the shards of an index of the hub beside it. folder: of the index in its repository."""
    for shard in sorted(set(sharded_file.read_index(index).values())):
        name = str(folder / shard)
        try:
            hf_hub_download(repository, name, revision=revision)
        except (EntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
            raise FileNotFoundError(_offline(repository, revision, (name,), error)) from error


def _offline(repository, revision, names, error):
    wanted = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    return (
        f"could not fetch {wanted} of {repository} at revision {revision or 'main'}: {error}. Without a network, put "
        f"the file at $MSDDF_WEIGHTS/{repository}/{names[0]}, with MSDDF_WEIGHTS set to a folder of yours; fetch it "
        f"elsewhere with `hf download {repository} {names[0]}" + (f" --revision {revision}`" if revision else "`")
    )


def _from_address(reference):
    own, cache = _own_folder(), pathlib.Path(paths.expand(CACHE))
    folders = [*([own] if own else []), pathlib.Path("weights"), cache]
    name = _file_name(reference.source)
    found = next((folder / name for folder in folders if os.path.isfile(folder / name)), None)
    if found is not None:
        return found
    target = (folders[0] if own else cache) / name
    try:
        paths.make_writable(target.parent)
    except OSError as error:
        raise FileNotFoundError(
            f"no place for {reference.source} ({error}): set MSDDF_WEIGHTS to a folder of yours that can be written, "
            f"or put the file at weights/{name}"
        ) from error
    try:
        _download(reference, target)
    except OSError as error:  # as are those of requests
        raise FileNotFoundError(
            f"could not fetch {reference.source}: {error}. Without a network, fetch it elsewhere and put it at "
            f"weights/{name} or $MSDDF_WEIGHTS/{name}, with MSDDF_WEIGHTS set to a folder of yours"
        ) from error
    return target


def _download(reference, target):
    """Fetch an address. The file appears under its name when it is whole and its digest the right one, or never."""
    import pooch  # only who has not got the file needs it

    pooch.get_logger().setLevel("WARNING")
    # Beside the target: pooch compares whole digests alone, and published names carry their first digits.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = pathlib.Path(pooch.retrieve(reference.source, None, fname=target.name, path=folder, progressbar=True))
        verify(part, reference)
        os.replace(part, target)


def _own_folder():
    """The folder that $MSDDF_WEIGHTS names, or None."""
    named = os.environ.get("MSDDF_WEIGHTS")
    return pathlib.Path(paths.expand(named)) if named else None


def _file_name(address):
    return pathlib.PurePosixPath(urllib.parse.urlsplit(address).path).name


def _in_folder(folder, names):
    return next((folder / name for name in names if (folder / name).is_file()), None)
