import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "reason, advice",
    [
        ("libGL.so.1: cannot open shared object file", "apt-get install libgl1 libglib2.0-0"),
        ("No module named 'cv2'", "pip install 'opencv-contrib-python>=4.11,<5'"),
    ],
)
def test_import_error_says_what_to_install(tmp_path, reason, advice):
    (tmp_path / "cv2.py").write_text(f"raise ImportError({reason!r})")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import msddf_jax.faces.align"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert line == f"ImportError: cv2 cannot load ({reason}): run `{advice}`"
