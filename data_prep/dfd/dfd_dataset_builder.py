"""TFDS builder of DeepFakeDetection (Dufour and Gully 2019), from prepared crops.

Built by `python -m data_prep.build dfd --config c23 --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.dfd import downloads

_RULES = {
    "": "all videos in one split",
    "_derived": "splits by groups of actors whom fakes link",
    "_derived_cut": "splits by actors, without the fakes that cross them",
}


class Builder(prepared.PreparedBuilder):
    """Frames or clips of DeepFakeDetection; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13."}
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [
            prepared.PreparedConfig(name=f"{compression}{rule}", description=f"{compression}, {what}.")
            for rule, what in _RULES.items()
            for compression in downloads.COMPRESSIONS
        ]
    )
