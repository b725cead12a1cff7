"""The notebooks: outputs cleared, and each runs from top to bottom on the embedded data set."""

import os
import pathlib
import shutil

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == ["quickstart", "reproduce_table", "your_own_video"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_cleared(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the tracked code, so that what the notebooks write is not in this one."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("msddf_jax", "configs", "data_prep", "benchmarks", "colabs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.py", folder)
    return folder


@pytest.mark.notebook
@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_runs_from_top_to_bottom(name, clone, monkeypatch):
    monkeypatch.setenv("MSDDF_NOTEBOOK_QUICK", "1")
    # One device, as users have: the eight of the other tests would each make every forgery.
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(clone), str(ROOT / "tests")]))
    notebook = nbformat.read(clone / "colabs" / name, 4)
    resources = {"metadata": {"path": str(clone / "colabs")}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    expected = {
        "quickstart.ipynb": ("toy_reenact", 5),  # the forgeries, a timeline and an overlay of each of two videos
        "reproduce_table.ipynb": ("report: ", 0),
        "your_own_video.ipynb": ("P(fake)", 3),
    }[name]
    assert expected[0] in text and pictures >= expected[1], text[-2000:]
