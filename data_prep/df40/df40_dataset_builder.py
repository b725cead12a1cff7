"""TFDS builder of DF40 (Yan et al. 2024), from prepared crops.

Built by `python -m data_prep.build df40 --config simswap_ff --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.df40 import downloads, names
from data_prep.prepared import PreparedConfig


def _description(config):
    if config.startswith("unknown_"):
        return f"{config.removeprefix('unknown_')} and the reals that came with it."
    method, domain = config.rsplit("_", 1)
    if method in names.GROUPS:
        method = f"All of {', '.join(names.GROUPS[method])}"
    return f"{method} and the reals of {'FaceForensics++' if domain == 'ff' else 'Celeb-DF'}."


class Builder(prepared.PreparedBuilder):
    """Frames or clips of DF40; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13."}
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [PreparedConfig(name=name, description=_description(name)) for name in downloads.CONFIGS]
    )
