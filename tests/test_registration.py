"""Importing data_prep registers every builder with TFDS, which then opens a built set by its name."""

import pathlib
import subprocess
import sys

import tiny_downloads

import data_prep
from data_prep.catalog import Options
from data_prep.celebdf import downloads

OPEN = """
import sys
import data_prep, numpy as np, tensorflow_datasets as tfds
name, split, folder = sys.argv[1:]
source = tfds.data_source(name, split=split, data_dir=folder)
record = source[0]
frames = record.get("frames")
print(len(source), record["video_id"].decode(), np.shape((frames or record)["image"]))
"""


def _python(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_every_builder_is_registered():
    folder = pathlib.Path(data_prep.__file__).parent
    names = sorted(path.parent.name for path in folder.glob("*/*_dataset_builder.py"))
    code = "import data_prep; from tensorflow_datasets.core import registered as r; print(sorted(r._DATASET_REGISTRY))"
    assert _python(code) == str(names)
    assert len(names) == 18


def test_a_built_set_opens_by_its_name(tmp_path):
    root = tiny_downloads.write_videos(tmp_path / "Celeb-DF-v2", "Celeb-real/id0_0000.mp4", "YouTube-real/00000.mp4")
    tiny_downloads.write_videos(root, "Celeb-synthesis/id0_id1_0000.mp4")
    tiny_downloads.write_text(root, downloads.TEST_LIST, "0 Celeb-synthesis/id0_id1_0000.mp4\n")
    entries, _ = downloads.find(root, "v2", Options())
    tiny_downloads.prepare(entries, tmp_path / "prepared", "celebdf", "v2", frames=range(16))
    for config in ("v2", "v2_clip16"):
        tiny_downloads.build.build("celebdf", config, tmp_path / "prepared", tmp_path / "built")
    opened = [_python(OPEN, f"celebdf/{config}", "test", tmp_path / "built") for config in ("v2", "v2_clip16")]
    assert opened == ["16 celebdf/id0_id1_0000 (16, 16, 3)", "1 celebdf/id0_id1_0000 (16, 16, 16, 3)"]
