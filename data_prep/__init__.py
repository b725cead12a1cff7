"""Prepares downloaded data sets and builds them. Importing it registers every builder: `tfds.builder("celebdf/v2")`."""

import importlib
import pathlib

from data_prep import contents

# TFDS registers a builder when its class is made.
for _path in contents.matching(pathlib.Path(__file__).parent, "*/*_dataset_builder.py"):
    importlib.import_module(f"data_prep.{_path.parent.name}.{_path.stem}")
