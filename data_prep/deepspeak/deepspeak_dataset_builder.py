"""TFDS builder of DeepSpeak v1 and v1.1 (Barrington et al. 2024), from prepared crops.

Built by `python -m data_prep.build deepspeak --config v1_1 --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared


class Builder(prepared.PreparedBuilder):
    """Frames or clips of DeepSpeak; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13."}
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [
            prepared.PreparedConfig(name="v1", description="Release 1."),
            prepared.PreparedConfig(name="v1_1", description="Release 1.1."),
        ]
    )
