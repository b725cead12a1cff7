"""TFDS builder of SJEDD's crops (Zou et al. 2024), from prepared crops.

Built by `python -m data_prep.build sjedd --config list --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.prepared import PreparedConfig


class Builder(prepared.PreparedBuilder):
    """Frames or clips in SJEDD's own layout; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13, with physical inconsistency."}
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [
            PreparedConfig(name="list", description="Images of SJEDD's label lists."),
            PreparedConfig(name="cdf", description="Celeb-DF's test videos."),
            PreparedConfig(name="fsh", description="FaceShifter and FaceForensics++'s test reals."),
            PreparedConfig(name="df1", description="DeeperForensics' end_to_end and FaceForensics++'s test reals."),
            PreparedConfig(name="dfdc", description="DFDC's test videos."),
        ]
    )
