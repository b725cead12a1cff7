"""The weights that an experiment starts from: `config.init.path`."""

import os
import pathlib

from tqdm import tqdm

from msddf_jax import trees
from msddf_jax.weights import hf_clip


def locate(path):
    """The weight file of `config.init.path`: as given, or below `$MSDDF_WEIGHTS`.

    Raises:
      FileNotFoundError: with the places looked in and the command that fetches it.
    """
    tried = [pathlib.Path(path)]
    if os.environ.get("MSDDF_WEIGHTS"):
        tried.append(pathlib.Path(os.environ["MSDDF_WEIGHTS"]) / path.removeprefix("weights/"))
    for candidate in tried:
        if candidate.is_file():
            return candidate
    folder = pathlib.Path(path).parent
    raise FileNotFoundError(
        f"no weights at {path} (looked for {', '.join(map(str, tried))}). Fetch OpenAI's CLIP from Hugging Face: "
        f"`hf download {'/'.join(folder.parts[-2:])} model.safetensors --local-dir {folder}`, or set "
        "$MSDDF_WEIGHTS to a folder that holds it, or start from random weights with --config.init.path=''"
    )


def load(config, shapes):
    """Nested dict of the backbone's loaded parameters, to lay over the drawn ones.

    Args:
      config: the experiment. shapes: nested dict of the detector's parameters (arrays or shapes).

    Raises:
      FileNotFoundError: no such file. ValueError: tensors that do not fit the backbone, each named.
    """
    path = locate(config.init.path)
    loaded = {"backbone": trees.unflatten(hf_clip.load(path))}
    trees.check_same_structure({"backbone": shapes["backbone"]}, loaded, str(path))
    tqdm.write(f"backbone from {path}: {trees.count_parameters(loaded):,} parameters")
    return loaded
