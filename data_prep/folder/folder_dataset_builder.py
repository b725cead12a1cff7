"""TFDS builder of people's own files, from prepared crops.

Built by `python -m data_prep.build folder --name mine --manual_dir PREPARED --data_dir DIR`.
"""

import re
from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.catalog import DownloadError
from data_prep.folder import downloads
from data_prep.layout import PreparedDataError

_CLIP_LENGTH = 16
_DESCRIPTION = "A user's own images and videos."


class Builder(prepared.PreparedBuilder):
    """Frames or clips of people's own files; see the README beside this file. Its configs are of `make_config`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    # `tfds build` takes no --config where none is listed; any other name is one too.
    BUILDER_CONFIGS: ClassVar = [prepared.PreparedConfig(name=downloads.DEFAULT_NAME, description=_DESCRIPTION)]

    def __init__(self, *, config=None, **kwargs):
        super().__init__(config=make_config(config) if isinstance(config, str) else config, **kwargs)


def make_config(name):
    """The config of a set by the name that prepare gave it, or that name and "_clip16".

    Raises:
      PreparedDataError: a name that prepare does not give.
    """
    own, clips = re.fullmatch(rf"(.*?)(_clip{_CLIP_LENGTH})?", name, re.DOTALL).groups()
    try:
        downloads.check_name(own)
    except DownloadError as error:
        raise PreparedDataError(str(error)) from error
    config = Builder.builder_configs.get(own) or prepared.PreparedConfig(name=own, description=_DESCRIPTION)
    return prepared.with_clips([config], _CLIP_LENGTH)[1] if clips else config
