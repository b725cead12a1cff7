"""TFDS builder of SLADD's FaceForensics++ crops (Chen et al. 2022), from prepared crops.

Built by `python -m data_prep.build sladd --config ff --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.prepared import PreparedConfig


class Builder(prepared.PreparedBuilder):
    """Frames or clips in SLADD's own layout; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13."}
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [PreparedConfig(name="ff", description="Pairs of FaceForensics++ with masks, in SLADD's splits.")]
    )
