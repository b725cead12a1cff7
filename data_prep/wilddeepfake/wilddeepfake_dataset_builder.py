"""TFDS builder of WildDeepfake (Zi et al. 2020), from prepared crops.

Built by `python -m data_prep.build wilddeepfake --config default --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.prepared import PreparedConfig


class Builder(prepared.PreparedBuilder):
    """Frames or clips of WildDeepfake; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13."}
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [PreparedConfig(name="default", description="Face sequences in the owners' train and test.")]
    )
