"""TFDS builder of FFSC, the images with semantic attributes of SO-DFD and SJEDD, from prepared crops.

Built by `python -m data_prep.build ffsc --config default --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.ffsc import downloads
from data_prep.prepared import PreparedConfig


class Builder(prepared.PreparedBuilder):
    """Images of FFSC; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {
        "1.0.0": "First release.",
        "1.1.0": "Attributes are 13, physical inconsistency is unknown of fakes.",
    }
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [
            PreparedConfig(name="default", description="All of FFSC."),
            PreparedConfig(name="protocol1", description="Tested on methods that training has not seen."),
            *(
                PreparedConfig(
                    name=f"protocol2_{attribute}",
                    description=f"Trained without {attribute}, tested on it; derived from the folders.",
                )
                for attribute in downloads.ATTRIBUTES
            ),
        ]
    )
