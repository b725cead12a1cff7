"""Experiments by the path of their config file."""

import pathlib
import runpy

from ml_collections import ConfigDict


def load(path, argument=None) -> ConfigDict:
    """What `get_config(argument)` of a config file gives.

    Args:
      path: of the file, from the current folder or from the one that holds `configs/`. argument: behind the colon.

    Raises:
      FileNotFoundError: no such file.
    """
    found = [file for file in (pathlib.Path(path), pathlib.Path(__file__).parents[1] / path) if file.is_file()]
    if not found:
        raise FileNotFoundError(f"no config file {path} here or beside the package")
    return runpy.run_path(str(found[0]))["get_config"](argument)
