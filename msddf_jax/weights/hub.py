"""Where weights come from: a path, a folder, or a repository of the Hugging Face hub at a pinned revision."""

import hashlib
import os
import pathlib
import re

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# The names under which repositories and folders keep a model, in the order of preference: data formats first.
FILE_NAMES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "backbone.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)
_HUB = re.compile(r"(?:hf://|hf-hub:)([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/([\w./-]+))?")


def is_hub(source):
    """Whether a source names a repository of the hub: hf://owner/name[@revision][/file], or open_clip's hf-hub:."""
    return source.startswith(("hf://", "hf-hub:"))


def locate(source, revision=None):
    """The local file of a source, downloaded where it has to be.

    Args:
      source: a weight file; a folder that holds one of `FILE_NAMES`; hf://owner/name[@revision][/file]. A path that
        does not exist is looked for below `$MSDDF_WEIGHTS` as well, and so is owner/name of a repository.
      revision: commit of the hub repository, where the source names none; None is the newest.

    Returns:
      pathlib.Path of a file.

    Raises:
      FileNotFoundError: with every place looked in, and where to put the file on a machine without a network.
      ValueError: a source that cannot be parsed.
    """
    if is_hub(source):
        return _from_hub(source, revision)
    tried = [pathlib.Path(source)]
    if os.environ.get("MSDDF_WEIGHTS"):
        tried.append(pathlib.Path(os.environ["MSDDF_WEIGHTS"]) / str(source).removeprefix("weights/"))
    for candidate in tried:
        found = _in_folder(candidate, FILE_NAMES) if candidate.is_dir() else candidate
        if found is not None and found.is_file():
            return found
    raise FileNotFoundError(
        f"no weights at {source} (looked for {', '.join(map(str, tried))}; in a folder for {', '.join(FILE_NAMES)}). "
        "Name a file, a folder or hf://owner/name, set $MSDDF_WEIGHTS to a folder that holds it, or start from random "
        "weights with --config.init.path=''"
    )


def _from_hub(source, revision):
    match = _HUB.fullmatch(source)
    if match is None:
        raise ValueError(f"{source!r} is no hub source; expected hf://owner/name[@revision][/file]")
    repository, named, file = match.groups()
    revision = named or revision
    names = (file,) if file else FILE_NAMES
    if os.environ.get("MSDDF_WEIGHTS"):
        found = _in_folder(pathlib.Path(os.environ["MSDDF_WEIGHTS"]) / repository, names)
        if found is not None:
            return found
    for name in names:
        try:
            return pathlib.Path(hf_hub_download(repository, name, revision=revision))
        except LocalEntryNotFoundError:
            # Without a network: the next name may be in the cache. It is a subclass of EntryNotFoundError.
            continue
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise FileNotFoundError(f"{source}: the hub has no {repository} at revision {revision}: {error}") from error
        except EntryNotFoundError:
            continue
        except (OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
            raise FileNotFoundError(_offline(repository, revision, names, error)) from error
    raise FileNotFoundError(_offline(repository, revision, names, "none of them is there or in the cache"))


def _offline(repository, revision, names, error):
    wanted = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    return (
        f"could not fetch {wanted} of {repository} at revision {revision or 'main'}: {error}. Without a network, put "
        f"the file at $MSDDF_WEIGHTS/{repository}/{names[0]}, with MSDDF_WEIGHTS set to a folder of yours; fetch it "
        f"elsewhere with `hf download {repository} {names[0]}" + (f" --revision {revision}`" if revision else "`")
    )


def _in_folder(folder, names):
    return next((folder / name for name in names if (folder / name).is_file()), None)


def sha256(path):
    """Hex digest of a file, for the log."""
    with pathlib.Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
