"""The two model files of the face front end: where they are, and that they are the right ones."""

import hashlib
import os
import pathlib
import textwrap

from msddf_jax import paths

# Name -> (file name, SHA-256, public home, licence).
MODELS = {
    "yunet": (
        "face_detection_yunet_2023mar.onnx",
        "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
        "MIT",
    ),
    "face_landmarker": (
        "face_landmarker.task",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/"
        "face_landmarker.task",
        "Apache-2.0",
    ),
}


class ModelFileError(RuntimeError):
    """A model file is missing or is not the one expected; the message says what to do."""


def model_file(name, model_dir=None) -> pathlib.Path:
    """The path of a model file, downloaded on first use and checked against its SHA-256.

    Args:
      name: a key of `MODELS`.
      model_dir: a folder that holds the file; None means `$MSDDF_MODELS`, and where that is unset the file is
        downloaded once to the user's cache folder.

    Returns:
      pathlib.Path of a file whose checksum is right.

    Raises:
      ValueError: unknown name. ModelFileError: the file in the folder is missing or another one, the download failed,
        or the cache folder cannot be written.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model file {name!r}; there are {', '.join(MODELS)}")
    file_name, sha256, url, _ = MODELS[name]
    folder = model_dir or os.environ.get("MSDDF_MODELS")
    if not folder:
        return _download(file_name, sha256, url)
    path = pathlib.Path(paths.expand(folder)) / file_name
    if not path.is_file():
        raise ModelFileError(
            f"no {file_name} in {folder}: put it there ({url}), or unset MSDDF_MODELS to have it downloaded"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ModelFileError(f"{path} is not the expected file: SHA-256 {found}, expected {sha256} ({url})")
    return path


def _download(file_name, sha256, url):
    # Imported here: nothing else of the package needs it, and an offline user never gets here.
    import pooch

    cache = pathlib.Path(pooch.os_cache("msddf_jax"))
    if not os.path.isfile(cache / file_name):
        try:
            paths.make_writable(cache)
        except OSError as error:
            raise ModelFileError(
                f"cannot keep {file_name} ({error}): put the file from {url} into a folder and set MSDDF_MODELS to "
                "that folder; `--landmarks=sidecar` needs no model files"
            ) from error
    try:
        return pathlib.Path(pooch.retrieve(url, f"sha256:{sha256}", fname=file_name, path=cache, progressbar=True))
    except (OSError, ValueError) as error:  # requests raises OSError; pooch a ValueError for the checksum
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 120)
        raise ModelFileError(
            f"cannot download {file_name} ({reason}): put the file from {url} into a folder and set "
            f"MSDDF_MODELS to that folder, or into {cache}; `--landmarks=sidecar` needs no model files"
        ) from error
