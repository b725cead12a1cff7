"""Where the experiments of `configs/` are, and one of them from its name; works in a clone and from an installed wheel.

Config files import each other as `configs`, a name that no installation takes: it stands for this project's folder in
processes that ask for it here.
"""

import importlib.util
import pathlib
import re
import sys
from typing import TYPE_CHECKING

from msddf_jax import paths

if TYPE_CHECKING:  # what is loaded imports it; the commands start without
    from ml_collections import ConfigDict

_HERE = pathlib.Path(__file__).resolve().parent


def folder() -> pathlib.Path:
    """The folder of the experiments: `msddf_jax/configs` in an installed wheel, `configs` beside it in a clone.

    Raises:
      FileNotFoundError: neither is there; the installation is damaged.
    """
    places = (_HERE / "configs", _HERE.parent / "configs")
    found = next((place for place in places if (place / "common.py").is_file()), None)
    if found is None:
        raise FileNotFoundError(f"no experiments in {places[0]} nor in {places[1]}: install msddf_jax again")
    return found


def make_importable() -> None:
    """Make `import configs` find `folder()`, whatever the working directory and the path of modules.

    Raises:
      ImportError: another package of that name was imported before.
    """
    place = folder()
    if "configs" in sys.modules:
        there = [pathlib.Path(path).resolve() for path in getattr(sys.modules["configs"], "__path__", ())]
        if place not in there:
            raise ImportError(f"another `configs` is imported, of {there}: the experiments of {place} need that name")
        return
    _load("configs", place / "__init__.py", [str(place)])


def names() -> list[str]:
    """The experiments that come with the project: "configs/msddf.py", ..., sorted."""
    place = folder()
    files = [path for path in place.rglob("*.py") if "\ndef get_config(" in path.read_text(encoding="utf-8")]
    return sorted(path.relative_to(place.parent).as_posix() for path in files)


def is_set(text: str) -> bool:
    """Whether text names a built data set, "<data set>/<config>"."""
    return re.fullmatch(r"[a-z0-9_]+/[\w.+-]+", text) is not None


def split_set(spec: str) -> tuple[str, str | None]:
    """(spec without it, the built set that stands last in a spec, or None).

    "configs/msddf.py:demo:folder/mine" is ("configs/msddf.py:demo", "folder/mine").
    """
    rest, colon, last = spec.rpartition(":")
    return (rest, last) if colon and is_set(last) else (spec, None)


def find(spec: str) -> tuple[pathlib.Path, list[str]]:
    """The file that a spec names, and what its `get_config` is given.

    Args:
      spec: "configs/detectors/xception.py" or, with an argument, "configs/msddf.py:demo". A path is absolute, or below
        the working directory, or else one of `names`.

    Returns:
      (absolute Path, list of the argument, empty where there is none).

    Raises:
      FileNotFoundError: no such file; the message lists the experiments that there are.
    """
    name, *argument = spec.split(":", 1)
    path = pathlib.Path(paths.expand(name))
    if not path.is_file() and path.as_posix() in names():
        path = folder().parent / path
    if not path.is_file():
        raise FileNotFoundError(
            f"no experiment {name}: neither a file below {pathlib.Path.cwd()} nor one of {', '.join(names())}"
        )
    return path.resolve(), argument


def load(spec: str) -> "ConfigDict":
    """The ConfigDict of an experiment, as its file returns it.

    Args:
      spec: of `find`.

    Raises:
      FileNotFoundError: of `find`. ValueError: a file without `get_config`. What the file itself raises.
    """
    path, argument = find(spec)
    make_importable()
    module = _load("experiment_config", path)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path} has no get_config: it is no experiment; there are {', '.join(names())}")
    return module.get_config(*argument)


def _load(name, path, search=None):
    """A module from its file, as `sys.modules[name]`; search: the folders of its submodules, of a package."""
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=search)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
