"""TFDS's own `tfds build` on the builders here, under TensorFlow in an environment of its own."""

import json
import os
import pathlib
import subprocess
import sys
import sysconfig

import prepared_tree
import pytest
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2
from tensorflow_datasets.scripts.cli import build as tfds_build
from test_folder_build import picture, prepared, write

from data_prep import build
from data_prep.folder import folder_dataset_builder as folder

ROOT = pathlib.Path(__file__).parents[1]
# What `tfds` of TFDS 4.9.10 imports to start. Beam takes no newer pyarrow than this, so they do not go into .venv.
PINS = ("tensorflow-cpu==2.21.0", "apache-beam==2.77.0", "mlcroissant==1.1.1")


def records_of(path):
    reader = array_record_module.ArrayRecordReader(str(path))
    return reader.read_all()


def test_a_record_has_its_features_in_one_order(tmp_path):
    # Protobuf's default order is each process's own: two builds of the same files were never the same bytes.
    root = prepared_tree.write_tree(tmp_path / "prepared", frames=(0,))
    made = build.build("faceforensics", "toy", root, tmp_path / "built")
    (path,) = made.glob("*-train.array_record*")
    for record in records_of(path):
        example = tf_example_pb2.Example.FromString(record)
        assert record == example.SerializeToString(deterministic=True)


def test_any_name_of_a_users_own_set_is_a_config(tmp_path):
    named = lambda name: tfds_build._get_config_name(
        builder_cls=folder.Builder, config_kwarg=None, config_name=name, config_idx=None
    )
    for name, length in (("mine", 0), ("theirs", 0), ("theirs_clip16", 16), ("mine_clip16", 16)):
        config = folder.Builder(config=named(name), data_dir=tmp_path).builder_config
        assert (config.name, config.clip_length) == (name, length)
        assert build.make_builder("folder", name, tmp_path).builder_config == config


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory):
    """Python of an environment laid over this one, with `PINS` in it; $MSDDF_TF_ENV names a folder that is kept."""
    kept = os.environ.get("MSDDF_TF_ENV")
    home = pathlib.Path(kept) if kept else tmp_path_factory.mktemp("tf") / "env"
    python, done = home / "bin/python", home / "pins.json"
    if done.exists() and json.loads(done.read_text()) == list(PINS):
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # Whether there is an index to take them from; a conflict with what is here is a failure of the next call.
    asked = subprocess.run([*pip, "--dry-run", "--no-deps", *PINS], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"{', '.join(PINS)} cannot be had here: {asked.stderr.strip().splitlines()[-1]}")
    beneath = sysconfig.get_paths()["purelib"]
    (site,) = home.glob("lib/python3*/site-packages")
    # Not a plain line: packages of `pip install -e` are found by .pth files of their own.
    (site / "beneath.pth").write_text(f"import site; site.addsitedir({beneath!r})\n")
    installed = subprocess.run([*pip, *PINS], capture_output=True, text=True)
    assert not installed.returncode, installed.stderr
    done.write_text(json.dumps(PINS))
    return python


def run_tfds(python, where, *arguments):
    """Runs `tfds` in a folder, as the command of that name does."""
    # Libraries write caches into the home folder, which must not be one of the project's.
    home = str(pathlib.Path(python).parents[1])
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "HOME": home}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [python, "-m", "tensorflow_datasets.scripts.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=300)


def check_same(ours, theirs):
    """Whether two built sets have the same files to the byte, but for the name the builder was imported by."""
    names = sorted(path.name for path in ours.iterdir())
    assert names == sorted(path.name for path in theirs.iterdir()) and any("array_record" in name for name in names)
    for name in names:
        if name != "dataset_info.json":
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    infos = [json.loads((built / "dataset_info.json").read_text()) for built in (ours, theirs)]
    modules = [info.pop("moduleName") for info in infos]
    assert infos[0] == infos[1] and modules[0] == f"data_prep.{modules[1]}"


# Long: the first run downloads 300 MB and takes a minute; each start of TensorFlow with Beam takes five seconds.
@pytest.mark.long
@pytest.mark.parametrize(
    ("where", "arguments"),
    [
        ("data_prep/faceforensics", ("build", "--config", "toy")),
        (".", ("build", "data_prep/faceforensics", "--config=toy")),
        (".", ("build", "data_prep/faceforensics/faceforensics_dataset_builder.py", "--config=toy", "--overwrite")),
    ],
    ids=["in its folder", "by folder", "by file"],
)
def test_faceforensics_is_the_set_that_is_built_here(tensorflow, tmp_path, where, arguments):
    root = prepared_tree.write_tree(tmp_path / "prepared")
    done = run_tfds(tensorflow, ROOT / where, *arguments, "--manual_dir", root, "--data_dir", tmp_path / "tfds")
    assert done.returncode == 0, done.stderr[-2000:]
    ours = build.build("faceforensics", "toy", root, tmp_path / "built")
    check_same(ours, tmp_path / "tfds" / ours.relative_to(tmp_path / "built"))


@pytest.mark.long  # as above
def test_a_users_own_set_is_the_set_that_is_built_here(tensorflow, tmp_path):
    pictures = {f"{label}/{i}.png": picture(100 * n + i) for n, label in enumerate(("real", "fake")) for i in range(12)}
    root = prepared(write(tmp_path / "files", pictures), name="theirs")
    flags = ("--manual_dir", root, "--data_dir", tmp_path / "tfds")
    done = run_tfds(tensorflow, ROOT / "data_prep/folder", "build", "--config", "theirs", *flags)
    assert done.returncode == 0, done.stderr[-2000:]
    ours = build.build("folder", "theirs", root, tmp_path / "built")
    check_same(ours, tmp_path / "tfds" / ours.relative_to(tmp_path / "built"))


@pytest.mark.long  # as above
def test_what_tfds_says_of_folders_that_are_none(tensorflow, tmp_path):
    root = prepared_tree.write_tree(tmp_path / "prepared")
    run = lambda *arguments: run_tfds(tensorflow, ROOT / "data_prep/faceforensics", "build", *arguments)
    for config, folder_, said in (
        ("c40", root, f"no catalog {root}/catalog/faceforensics-c40.jsonl"),
        ("toy", tmp_path / "nowhere", "manual_dir is the folder that data_prep.prepare wrote to (its --out)"),
    ):
        done = run("--config", config, "--manual_dir", folder_, "--data_dir", tmp_path / "tfds")
        assert done.returncode == 1 and said in done.stderr
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))
