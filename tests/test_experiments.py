"""Experiments by name from a clone and from an installed package, and what setup.py installs."""

import pathlib
import shutil
import subprocess
import sys

import ml_collections
import numpy as np
import pytest

from msddf_jax import experiments

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Without `site`, so that no editable install of this project is found; the packages that configs need are.
PACKAGES = sorted({str(pathlib.Path(module.__file__).parents[1]) for module in (ml_collections, np)})


def _run(code, where, cwd, *, returncode=0):
    """What `code` prints in a process that finds `msddf_jax` in `where` alone."""
    head = f"import sys; sys.path[:0] = [{str(where)!r}]; sys.path += {PACKAGES!r}\n"
    command = [sys.executable, "-I", "-S", "-c", head + code]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == returncode, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(params=["clone", "installed"])
def place(request, tmp_path):
    """(folder that msddf_jax is in, folder of the experiments), as in a clone and as setup.py installs them."""
    site = tmp_path / "site"
    (site / "msddf_jax").mkdir(parents=True)
    for name in ("__init__.py", "experiments.py", "paths.py"):
        shutil.copy(ROOT / "msddf_jax" / name, site / "msddf_jax")
    configs = site / "configs" if request.param == "clone" else site / "msddf_jax" / "configs"
    shutil.copytree(ROOT / "configs", configs, ignore=shutil.ignore_patterns("__pycache__"))
    if request.param == "installed":  # another distribution's, which must not be taken for ours
        (site / "configs").mkdir()
        (site / "configs" / "__init__.py").write_text("raise RuntimeError('not ours')")
    return site, configs


def test_experiments_load_from_anywhere(place, tmp_path):
    site, configs = place
    code = "from msddf_jax import experiments as e\nassert 'ml_collections' not in sys.modules\nprint(e.folder())\n"
    code += "for name in e.names(): print(name, e.load(name).detector)\n"
    code += "print(e.load('configs/msddf.py:demo') != e.load('configs/msddf.py'))\n"
    first, *rows, differs = _run(code, site, tmp_path).splitlines()
    assert first == str(configs) and differs == "True"
    loaded = dict(row.split() for row in rows)
    assert loaded["configs/msddf.py"] == "msddf"
    files = {
        p.relative_to(configs.parent).as_posix() for p in configs.rglob("*.py") if "def get_config" in p.read_text()
    }
    assert set(loaded) == files and len(files) > 20


def test_configs_can_be_imported_from_anywhere(place, tmp_path):
    site, configs = place
    code = "from msddf_jax import experiments as e\ne.make_importable(); e.make_importable()\n"
    code += "from configs.detectors import xception\nprint(xception.__file__)"
    assert _run(code, site, tmp_path).strip() == str(configs / "detectors" / "xception.py")


def test_own_file_before_that_of_the_project(place, tmp_path):
    """A file below the working directory wins, and may import the project's `configs`."""
    own = tmp_path / "own"
    (own / "configs").mkdir(parents=True)
    text = "from configs.common import get_common\ndef get_config(word='none'):\n    c = get_common()\n"
    text += "    c.detector = word\n    return c\n"
    for path in (own / "mine.py", own / "configs" / "msddf.py"):
        path.write_text(text)
    specs = ["mine.py", "mine.py:a:b", f"{own / 'mine.py'}:c", "configs/msddf.py", "configs/detectors/xception.py"]
    code = f"from msddf_jax import experiments as e\n*own, last = [e.load(spec) for spec in {specs!r}]\n"
    code += "from configs.detectors import xception\nprint([c.detector for c in own], last == xception.get_config())"
    assert _run(code, place[0], own).strip() == "['none', 'a:b', 'c', 'none'] True"


def test_errors_list_what_there_is(place, tmp_path):
    code = "from msddf_jax import experiments as e\ne.load('configs/detectors/xcept.py:demo')"
    text = _run(code, place[0], tmp_path, returncode=1).splitlines()[-1]
    assert text.startswith(
        f"FileNotFoundError: no experiment configs/detectors/xcept.py: neither a file below {tmp_path}"
    )
    assert "configs/detectors/xception.py, configs/msddf.py" in text and "common" not in text
    code = "import types; sys.modules['configs'] = types.ModuleType('configs')\n"
    code += "from msddf_jax import experiments as e\ne.make_importable()"
    assert "ImportError: another `configs` is imported" in _run(code, place[0], tmp_path, returncode=1)


def test_file_that_is_no_experiment(tmp_path):
    (tmp_path / "x.py").write_text("")
    with pytest.raises(ValueError, match=r"x\.py has no get_config: .* configs/msddf\.py"):
        experiments.load(str(tmp_path / "x.py"))
    (tmp_path / "x.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        experiments.load(str(tmp_path / "x.py"))
    damaged = "from msddf_jax import experiments as e\ne.folder()"
    (tmp_path / "msddf_jax").mkdir()
    for name in ("experiments.py", "paths.py"):
        shutil.copy(ROOT / "msddf_jax" / name, tmp_path / "msddf_jax")
    assert "install msddf_jax again" in _run(damaged, tmp_path, tmp_path, returncode=1)


def test_what_setup_installs():
    """No top-level name but the two, and every module of the three folders."""
    code = (
        "import setuptools\nfrom distutils.core import run_setup\n"
        "d = run_setup('setup.py', stop_after='init')\n"
        "print([[p, d.package_dir.get('msddf_jax.configs')] for p in d.packages])"
    )
    pytest.importorskip("setuptools")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    packages = dict(eval(done.stdout.strip().splitlines()[-1]))
    assert {name.split(".")[0] for name in packages} == {"msddf_jax", "data_prep"}
    assert set(packages.values()) == {"configs"}
    folders = {
        p.parent.relative_to(ROOT).parts for top in ("msddf_jax", "data_prep") for p in (ROOT / top).rglob("*.py")
    }
    folders |= {("msddf_jax", *p.parent.relative_to(ROOT).parts) for p in (ROOT / "configs").rglob("*.py")}
    assert set(packages) == {".".join(parts) for parts in folders}
