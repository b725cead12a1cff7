"""People's own folder: drawn pictures as they lie in one, and the commands of docs/howto/own_data.md to a verdict."""

import csv
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from data_prep.toy import pictures
from msddf_jax.opencv import cv2

ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_drawn_pictures_lie_as_a_user_s_own(tmp_path):
    assert pictures.write_pictures(tmp_path / "faces", people=2, size=64, workers=1, split="test") == 4
    found = sorted(path.relative_to(tmp_path / "faces").as_posix() for path in (tmp_path / "faces").rglob("*.*"))
    assert found == sorted(
        f"test/{label}/person_00{n}{end}"
        for label in ("real", "fake")
        for n in (0, 1)
        for end in (".png", ".landmarks.npy")
    )
    real, fake = (cv2.imread(str(tmp_path / f"faces/test/{label}/person_000.png")) for label in ("real", "fake"))
    assert real.shape == (64, 64, 3) and 0 < np.mean(real != fake) < 0.9
    assert np.load(tmp_path / "faces/test/real/person_000.landmarks.npy").shape == (1, 81, 2)


@pytest.mark.parametrize(
    ("people", "size", "message"), [(3, 64, "even people"), (2, 32, "even size >= 64"), (2, 64, "holds something")]
)
def test_pictures_that_cannot_be_drawn_are_told(people, size, message, tmp_path):
    (tmp_path / "note.txt").touch()
    with pytest.raises(ValueError, match=message):
        pictures.write_pictures(tmp_path, people=people, size=size)


def _commands(title):
    """The commands of the first block below a heading of docs/howto/own_data.md."""
    text = (ROOT / "docs" / "howto" / "own_data.md").read_text(encoding="utf-8").split(f"## {title}", 1)[1]
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1]
    return [shlex.split(line, comments=True) for line in block.splitlines() if line and not line.startswith("#")]


@pytest.mark.long  # nine commands, of which one trains: minutes
def test_from_a_folder_to_a_verdict_by_the_page_s_commands(tmp_path):
    # One device, as a user has, and not the eight of the tests.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    for words in _commands("Try it on drawn faces"):
        assert words[0] == "python"
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stderr[-2000:])
    own = tmp_path / "demo" / "own"
    results = json.loads((own / "run" / "results.json").read_text())
    # People that training has not seen: 40 real pictures and 40 fakes.
    assert results["folder_other/video_auc"] >= 0.9, results["folder_other/video_auc"]
    assert results["folder_other/video_num_real"] == results["folder_other/video_num_fake"] == 40
    with open(own / "run" / "scores" / "folder_other.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all((own / "prepared" / row["file"]).is_file() for row in rows) and len(rows) == 80
    lines = (own / "predictions" / "predictions.jsonl").read_text().splitlines()
    scores = {json.loads(line)["file"].split("/")[-2]: json.loads(line) for line in lines}
    assert set(scores) == {"real", "fake"}
