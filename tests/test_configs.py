"""Every experiment has the same fields of one name, and each can be set on the command line."""

import importlib
import pathlib
import runpy
import sys

import parse_only
import pytest
from absl import flags
from ml_collections import ConfigDict

from configs.common import get_common
from msddf_jax import config_sets, experiments, hooks, steps, train
from msddf_jax.weights import hub, published

ROOT = pathlib.Path(__file__).resolve().parents[1]
SPECS = [name + argument for name in experiments.names() for argument in ("", ":demo")]
# The ablation is of drawn faces, and the rows of configs/real.py are of real ones: they have no demo.
_NO_DEMO = ("configs/ablations/", "configs/real.py")
SPECS = [spec for spec in SPECS if not (spec.startswith(_NO_DEMO) and spec.endswith(":demo"))]
SPECS += ["configs/msddf.py:published", "configs/msddf.py:reals"]
# Sections whose fields are the detector's, the recipe's or the user's own.
OPEN = ("model", "augment", "loss_weights", "loss_args", "synth.recipe", "init", "evals", "policy.reward", "step.upper")


def _fields(config, prefix=""):
    """{name of a field: its type} but for those of `OPEN`."""
    found = {}
    for name, value in config.items():
        path = f"{prefix}{name}"
        if path in OPEN:
            found[path] = ConfigDict
        elif isinstance(value, ConfigDict):
            found |= _fields(value, f"{path}.")
        else:
            found[path] = type(value)
    return found


@pytest.mark.parametrize("spec", SPECS)
def test_every_config_has_the_fields_of_all(spec):
    config = experiments.load(spec)
    common = _fields(get_common())
    fields = _fields(config)
    if config.select is None:
        fields |= {name: kind for name, kind in common.items() if name.startswith("select.")}
        del fields["select"]
    # A list of methods is None where all are kept.
    free = ("data.train.methods", "data.train.max_frames", "data.train.data_dir", "synth.forged")
    assert {n: t for n, t in fields.items() if n not in free} == {n: t for n, t in common.items() if n not in free}
    for settings in config.evals.values():
        assert set(settings) == {"name", "split", "methods", "max_frames", "data_dir"}
    train.check_config(config)
    hooks.check(config)
    assert config.step.name in steps.STEPS


@pytest.mark.parametrize("spec", SPECS)
def test_a_start_from_random_weights_is_asked_for_by_name(spec):
    config = experiments.load(spec)
    for tree, text in config.init.items():
        reference = hub.parse(text)
        if reference.source == hub.RANDOM:
            # Meso is published so; demos and ablations are of sizes that nobody publishes.
            assert ":demo" in spec or "ablations/" in spec or "/meso" in spec, (spec, tree)
        elif "ablations/" not in spec:
            assert reference.sha256 and reference.format, (spec, tree)


@pytest.mark.parametrize(("path", "entry"), [(c, e) for e in published.PUBLISHED.values() for c in e.configs])
def test_configs_start_from_the_published_file(path, entry):
    assert experiments.load(path).init.backbone == entry.reference


@pytest.fixture
def only_parse(monkeypatch):
    with parse_only.parsing(monkeypatch):
        yield


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("data.group.fake=0", 0),
        ("data.group.match=class", "class"),
        ("data.train.max_frames=8", 8),
        ("init.backbone=hf://openai/clip-vit-base-patch16", "hf://openai/clip-vit-base-patch16"),
        ("mesh.fsdp=8", 8),
        ("step.name=sam", "sam"),
        ("step.rho=0.1", 0.1),
        ("policy.mode=reinforce", "reinforce"),
        ("optim.schedule=linear", "linear"),
        ("aggregate=top3", "top3"),
        ("data.train.methods=('deepfakes', 'faceswap')", ("deepfakes", "faceswap")),
    ],
)
@pytest.mark.parametrize("spec", ["configs/msddf.py", "configs/detectors/xception.py", "configs/detectors/sbi.py:demo"])
def test_fields_of_one_name_are_set_on_every_config(spec, flag, value, only_parse, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main", f"--config={spec}", f"--config.{flag}"])
    with pytest.raises(parse_only.Parsed):
        runpy.run_module("msddf_jax.main", run_name="__main__")
    found = flags.FLAGS.config
    for part in flag.partition("=")[0].split("."):
        found = found[part]
    assert found == value


def test_a_config_of_the_project_is_found_from_anywhere(tmp_path, monkeypatch):
    main = importlib.import_module("msddf_jax.main")
    monkeypatch.chdir(tmp_path)
    there = str(ROOT / "configs" / "msddf.py")
    for given in (["--config=configs/msddf.py:demo"], ["--config", "configs/msddf.py:demo"]):
        assert main.find_config(["main", *given, "--config.seed=1"]) == [
            "main",
            "--config",
            f"{there}:demo",
            "--config.seed=1",
        ]
    # A file of the working directory comes first.
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "msddf.py").write_text("")
    assert main.find_config(["main", "--config=configs/msddf.py"])[2] == str(tmp_path / "configs" / "msddf.py")
    with pytest.raises(FileNotFoundError, match="one of configs/"):
        main.find_config(["main", "--config=configs/msdff.py"])
    assert main.find_config(["main", "--helpfull"]) == ["main", "--helpfull"]


def test_the_workdir_is_the_configs_name():
    main = importlib.import_module("msddf_jax.main")
    assert main.default_workdir("configs/msddf.py") == "runs/msddf"
    assert main.default_workdir("configs/msddf.py:demo") == "runs/msddf-demo"
    assert main.default_workdir("/somewhere/else/my_config.py:B/16") == "runs/my_config-B_16"
    # One name in two folders: two workdirs.
    assert main.default_workdir("configs/detectors/gend.py") == "runs/detectors-gend"
    assert main.default_workdir("/clone/configs/ablations/gend.py:toy_swap") == "runs/ablations-gend-toy_swap"
    assert len({main.default_workdir(name) for name in experiments.names()}) == len(experiments.names())


def test_the_command_line_tells_set_and_config_apart():
    main = importlib.import_module("msddf_jax.main")
    words = main.find_config(["main", "--config=configs/msddf.py:demo:folder/mine", "--config.seed=1"])
    assert words[2].endswith("configs/msddf.py:demo") and words[3:] == ["--own=folder/mine", "--config.seed=1"]
    assert main.default_workdir("configs/msddf.py:demo:folder/mine") == "runs/msddf-demo_folder_mine"


def test_sets_on_the_command_line_fill_the_config():
    config = experiments.load("configs/detectors/xception.py")
    sets = {"train": ["faceforensics/c23", "dfdc/full:train"], "test": ["celebdf/v2", "dfdc/full:validation"]}
    filled = config_sets.fill_sets(config, **sets, methods=["deepfakes", "dfdc"], frames_per_video=4)
    assert (filled.data.train.name, filled.data.train.split) == ("faceforensics/c23,dfdc/full:train", "train")
    assert filled.data.train.methods == ("deepfakes", "dfdc") and filled.data.train.max_frames == 4
    # The validation set that checkpoints are chosen on stays.
    evals = {name: (s.name, s.split, s.methods, s.max_frames) for name, s in filled.evals.items()}
    assert evals == {
        "val": ("faceforensics/c23", "validation", None, 4),
        "celebdf_v2": ("celebdf/v2", "test", None, 4),
        "dfdc_full_validation": ("dfdc/full", "validation", None, 4),
    }
    assert filled.is_locked
    # With a training set of its own, what the config kept of another set is forgotten.
    demo = config_sets.fill_sets(experiments.load("configs/msddf.py:demo"), train=["sjedd/list"])
    assert demo.data.train.methods is None
    assert (demo.evals.val.name, demo.evals.val.split, demo.evals.val.methods) == ("sjedd/list", "validation", None)
    # Reals alone stay so, and are told of methods that they would not read.
    reals = config_sets.fill_sets(experiments.load("configs/detectors/sbi.py"), train=["sjedd/list"])
    assert reals.data.train.methods == ()
    with pytest.raises(ValueError, match="reals alone"):
        config_sets.fill_sets(experiments.load("configs/detectors/sbi.py"), methods=["deepfakes"])
    empty = experiments.load("configs/detectors/meso4.py").unlock()
    empty.evals, empty.select = {}, None
    assert list(config_sets.fill_sets(empty.lock(), test=["dfd/c23:all"]).evals) == ["dfd_c23_all"]
    untouched = experiments.load("configs/msddf.py")
    assert (
        config_sets.fill_sets(untouched).to_json_best_effort()
        == experiments.load("configs/msddf.py").to_json_best_effort()
    )
    for wrong in ("celebdf", "a/b/c"):
        with pytest.raises(ValueError, match="expected"):
            config_sets.fill_sets(experiments.load("configs/msddf.py"), test=[wrong])
    with pytest.raises(ValueError, match="twice"):
        config_sets.fill_sets(experiments.load("configs/msddf.py"), test=["celebdf/v2", "celebdf/v2"])
