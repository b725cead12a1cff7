"""TFDS builder of DeeperForensics-1.0 (Jiang et al. 2020), from prepared crops.

Built by `python -m data_prep.build deeperforensics --config end_to_end --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.deeperforensics import downloads


class Builder(prepared.PreparedBuilder):
    """Frames or clips of DeeperForensics-1.0, a config for each variant; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13."}
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [
            prepared.PreparedConfig(
                name=name,
                description=f"{name.removesuffix('_sourcereal')}, reals are "
                f"{'the source videos of the actors' if name.endswith('_sourcereal') else 'FaceForensics++ at c23'}.",
            )
            for name in downloads.CONFIGS
        ]
    )
