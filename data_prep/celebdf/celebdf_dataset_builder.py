"""TFDS builder of Celeb-DF v1 and v2 (Li et al. 2020) and Celeb-DF++ (Li et al. 2025), from prepared crops.

Built by `python -m data_prep.build celebdf --config v2 --manual_dir PREPARED --data_dir DIR`.
"""

from typing import ClassVar

import tensorflow_datasets as tfds

from data_prep import prepared
from data_prep.celebdf import downloads
from data_prep.prepared import PreparedConfig

_VERSIONS = {"v1": "Celeb-DF-v1", "v2": "Celeb-DF-v2", "pp": "Celeb-DF++, all methods"}


class Builder(prepared.PreparedBuilder):
    """Frames or clips of Celeb-DF; see the README beside this file."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release.", "1.1.0": "Attributes are 13."}
    BUILDER_CONFIGS: ClassVar = prepared.with_clips(
        [
            *(PreparedConfig(name=name, description=f"{what}.") for name, what in _VERSIONS.items()),
            *(
                PreparedConfig(name=f"{name}_derivedval", description=f"{what}, a validation split out of train.")
                for name, what in _VERSIONS.items()
            ),
            *(
                PreparedConfig(
                    name=f"pp_{family.lower()}_{method}",
                    description=f"Celeb-DF++, {folder} and the reals.",
                    catalog="pp",
                    methods=(method,),
                )
                for family, methods in downloads.METHODS.items()
                for folder, method in methods.items()
            ),
        ]
    )
