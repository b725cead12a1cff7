"""The notebooks: outputs cleared, one way to install, and each runs from top to bottom on drawn faces."""

import os
import pathlib
import shutil
import subprocess
import sys
import types

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
# In the order in which they run: the first draws and builds the faces that the others find.
NAMES = ("quickstart", "your_own_video", "reproduce_table", "detector_zoo", "your_own_folder")
NOTEBOOKS = [ROOT / "colabs" / f"{name}.ipynb" for name in NAMES]


def test_there_are_five():
    assert sorted(NOTEBOOKS) == sorted((ROOT / "colabs").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_cleared(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


def _install_cell(path):
    return next(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")


def test_all_install_in_the_same_way():
    assert len({_install_cell(path) for path in NOTEBOOKS}) == 1
    for field in ('REPOSITORY = ""  # @param {type:"string"}', 'USE_DRIVE = False  # @param {type:"boolean"}'):
        assert field in _install_cell(NOTEBOOKS[0]).splitlines()


@pytest.fixture
def installer(tmp_path):
    """A function that runs the install cell in an empty folder, with git, pip and the rest noted and not done."""
    calls = []

    def run(words, **_):
        calls.append([str(word) for word in words])
        failed = "git" in words and "nowhere" in words
        if "git" in words and not failed:
            (tmp_path / "msddf_jax_clone" / "msddf_jax").mkdir(parents=True)
            (tmp_path / "msddf_jax_clone" / "setup.py").touch()
        said = "accelerator: TPU (/dev/vfio/0)\n" if "bash" in words else "fatal: no such repository\n"
        return types.SimpleNamespace(returncode=int(failed), stdout="tpu\n", stderr=said)

    def install(repository="", drive=False):
        source = _install_cell(NOTEBOOKS[0])
        source = source.replace('REPOSITORY = ""', f"REPOSITORY = {repository!r}")
        source = source.replace("USE_DRIVE = False", f"USE_DRIVE = {drive}")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(subprocess, "run", run)
            patch.setattr(sys, "path", list(sys.path))
            patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
            patch.setattr("importlib.metadata.distributions", lambda **_: ())  # not installed
            names = {}
            exec(compile(source, "install", "exec"), names)
        return names, calls

    return install


def test_an_empty_address_is_said(installer):
    with pytest.raises(SystemExit, match=r"REPOSITORY is empty, .* into the field REPOSITORY above"):
        installer()


def test_an_address_that_is_none_is_said_in_gits_words(installer):
    with pytest.raises(SystemExit, match="git could not clone REPOSITORY, nowhere: fatal: no such repository"):
        installer("nowhere")


def test_a_clone_is_made_and_installed_for_the_accelerator(installer, tmp_path, capsys):
    names, calls = installer(" https://host/project ")
    clone = tmp_path / "msddf_jax_clone"
    assert calls[0] == ["git", "clone", "--depth=1", "https://host/project", str(clone)]
    assert calls[1] == ["bash", "launch/accelerator.sh"] and calls[2][1:] == [
        "-m",
        "pip",
        "install",
        "--quiet",
        "-e",
        ".[tpu]",
    ]
    assert names["out"] == clone / "demo" and "TPU (/dev/vfio/0)" in capsys.readouterr().out
    # Run again, after the session was restarted: it is found.
    names, calls = installer()
    assert names["root"] == clone and [words[0] for words in calls[3:]] == ["bash", sys.executable]


def test_drive_is_mounted_where_asked(installer, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="USE_DRIVE mounts Google Drive, which Colab alone can"):
        installer("there", drive=True)
    mounted = []
    colab = types.ModuleType("google.colab")
    colab.drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    names, _ = installer(drive=True)
    assert mounted == ["/content/drive"] and names["out"] == pathlib.Path("/content/drive/MyDrive/msddf_jax/demo")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the tracked code, so that what the notebooks write is not in this one, and is shared by them."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("msddf_jax", "configs", "data_prep", "benchmarks", "colabs", "launch"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.py", folder)
    return folder


@pytest.mark.notebook
@pytest.mark.parametrize("name", NAMES)
def test_runs_from_top_to_bottom(name, clone, monkeypatch):
    monkeypatch.setenv("MSDDF_NOTEBOOK_QUICK", "1")
    # One device, as users have: the eight of the other tests would each make every forgery.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(clone), str(ROOT / "tests")]))
    notebook = nbformat.read(clone / "colabs" / f"{name}.ipynb", 4)
    resources = {"metadata": {"path": str(clone / "colabs")}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    images = sum("image/png" in output.get("data", {}) for output in outputs)
    expected = {
        # The forgeries, a timeline and an overlay of each of two videos.
        "quickstart": ("What this does not show", 5),
        "your_own_video": ("P(fake)", 3),
        "reproduce_table": ("report: ", 0),
        # A map of each of two detectors.
        "detector_zoo": ("report: ", 2),
        # The two files that are scored.
        "your_own_folder": ("What this does not show", 2),
    }[name]
    assert expected[0] in text and images >= expected[1], text[-2000:]
