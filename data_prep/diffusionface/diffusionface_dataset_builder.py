"""TFDS builder of DiffusionFace (Chen et al. 2024), from prepared crops of the images that lists name.

Built by `python -m data_prep.build diffusionface --config list --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.prepared import PreparedConfig


class Builder(prepared.PreparedBuilder):
    """Images of DiffusionFace; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13."}
    # No clips: each image is a video of its own.
    BUILDER_CONFIGS: ClassVar = [PreparedConfig(name="list", description="The images of the user's lists.")]
