"""TFDS builder of the DFDC Preview set (Dolhansky et al. 2019), from prepared crops.

Built by `python -m data_prep.build dfdcp --config default --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared


class Builder(prepared.PreparedBuilder):
    """Frames or clips of the DFDC Preview set; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13."}
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [prepared.PreparedConfig(name="default", description="The splits of dataset.json.")]
    )
