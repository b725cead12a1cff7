"""What all commands share: paths with "~", and one line where JAX has no such device."""

import argparse
import os
import pathlib
import re
import runpy
import subprocess
import sys

import jax
import parse_only
import pytest
from absl import app, flags

from msddf_jax import command, paths

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = {
    path.relative_to(ROOT): path.read_text()
    for top in ("msddf_jax", "data_prep", "benchmarks")
    for path in sorted((ROOT / top).rglob("*.py"))
}
COMMANDS = [
    ".".join(path.with_suffix("").parts).removesuffix(".__main__")
    for path, text in SOURCES.items()
    if "app.run(" in text or "ArgumentParser(" in text
]


def test_a_path_flag_expands_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    values = flags.FlagValues()
    command.define_path("out", "~/default", "Folder.", flag_values=values)
    command.define_path("none", None, "Folder.", flag_values=values)
    command.define_paths("workdir", None, "Folder.", flag_values=values)
    values(["program", "--workdir=~/a,b", "--workdir", "/x/~y"])
    assert values.out == "/home/someone/default" and values.none is None
    assert values.workdir == ["/home/someone/a,b", "/x/~y"]
    values(["program", "--out=~"])
    assert values.out == "/home/someone"
    # As a shell does it: names of nobody stay, and so do addresses.
    assert [paths.expand(p) for p in ("~nobody-of-that-name/x", "gs://~/x", "a/~")] == [
        "~nobody-of-that-name/x", "gs://~/x", "a/~",
    ]  # fmt: skip


def test_a_path_flag_is_the_commands_own_in_its_help():
    values = flags.FlagValues()
    command.define_path("out", None, "Folder.", flag_values=values)
    assert "--out" in values.module_help(__name__)


class _Parsed(Exception):
    """Raised in place of the work; holds what the command line is read by."""


@pytest.fixture
def flags_of(monkeypatch):
    """A function from the name of a command to {flag: (help, function from text to value)} of those that take text."""

    def run(main, argv=None):
        # Libraries that the command imports have flags too.
        own = [name for name in flags.FLAGS if flags.FLAGS.find_module_defining_flag(name) == sys.argv[0]]
        raise _Parsed({name: (flags.FLAGS[name].help, flags.FLAGS[name].parser.parse) for name in own})

    def parse_args(self, args=None, namespace=None):
        taking = [a for a in self._actions if a.nargs != 0 and not a.choices and a.type is not int]
        texts = {(a.option_strings or [a.dest])[-1]: a for a in taking}
        raise _Parsed({n: (a.help or "", lambda text, a=a: self._get_value(a, text)) for n, a in texts.items()})

    def flags_of(name):
        monkeypatch.setattr(sys, "argv", [name])
        with pytest.raises(_Parsed) as caught:
            runpy.run_module(name, run_name="__main__")
        return caught.value.args[0]

    monkeypatch.setattr(app, "run", run)
    for name in ("parse_args", "parse_known_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, parse_args)
    monkeypatch.chdir(ROOT)
    with parse_only.own_flags_hidden():
        yield flags_of


SAYS_PATH = re.compile(
    r"\b(path|folder|folders|file|workdir|workdirs|root|where|PNG|write)\b|_(dir|file|root|cache)$|^-*out$"
)
# Flags whose help speaks of files and that name none, or that are expanded elsewhere.
NOT_PATHS = {
    (
        "msddf_jax.predict",
        "compilation_cache",
    ): "inference.use_compilation_cache expands it",
    ("msddf_jax.app", "compilation_cache"): "as that of predict",
    ("msddf_jax.score", "compilation_cache"): "as that of predict",
    ("msddf_jax.calibrate", "set"): "the name of a built set",
    ("benchmarks.tables", "--collect"): "a table, then workdirs, each a word of its own that the shell expands",
    ("benchmarks.tables", "--row"): "the name of a row",
    ("benchmarks.tables", "--command"): "a command, which is kept as it is",
    ("benchmarks.protocols", "--configs"): "as of cross_dataset",
    ("benchmarks.protocols", "--qualities"): "names of folders of data_dir",
    ("msddf_jax.main", "config"): "experiments.find expands it, with the argument behind its colon",
    ("benchmarks.cross_dataset", "--configs"): "several, which experiments.find expands one by one",
    ("benchmarks.visibility", "--set"): "the name of a built set",
    ("benchmarks.leave_one_out", "--set"): "the name of a built set",
    ("benchmarks.leave_one_out", "--configs"): "as of cross_dataset",
    ("msddf_jax.main", "own"): "the name of a built set",
    ("msddf_jax.evaluate", "sets"): "names of built sets",
    ("data_prep.build", "dataset"): "one of the names is folder",
    ("data_prep.prepare", "--layout"): "as that of build",
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_every_flag_that_is_a_path_expands_the_home_folder(name, flags_of, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    literal = set()
    for flag, (text, read) in flags_of(name).items():
        if SAYS_PATH.search(flag) or SAYS_PATH.search(text):
            try:
                value = read("~/x")
            except (ValueError, argparse.ArgumentError):
                continue  # a number or one of some words
            if value != "/home/someone/x" and (name, flag) not in NOT_PATHS:
                literal.add(flag)
    assert literal == set()


def test_there_are_commands_of_both_kinds():
    assert {"msddf_jax.predict", "msddf_jax.weights", "data_prep.prepare", "data_prep.toy"} <= set(COMMANDS)


@pytest.mark.parametrize(
    "error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda':\n no supported devices")]
)
def test_a_device_that_is_not_there_is_one_line(monkeypatch, error):
    def devices():
        raise error

    before = jax.config.jax_platforms
    monkeypatch.setattr(jax, "devices", devices)
    try:
        jax.config.update("jax_platforms", "cuda")
        with pytest.raises(ValueError, match=r"JAX_PLATFORMS=cuda, but JAX finds no such device: unset it") as caught:
            command.check_devices()
        assert "\n" not in str(caught.value) and "jax[cuda" in str(caught.value)
        assert ("no supported devices" in str(caught.value)) == isinstance(error, RuntimeError)
        jax.config.update("jax_platforms", None)
        with pytest.raises(type(error)):
            command.check_devices()
    finally:
        jax.config.update("jax_platforms", before)


def test_devices_that_are_there_are_no_error():
    command.check_devices()


@pytest.mark.parametrize(
    "arguments",
    [
        ["msddf_jax.predict", "--workdir=none", "--out=none", "none.png", "--landmarks=sidecar"],
        ["msddf_jax.main", "--config=configs/msddf.py:demo", "--workdir=none"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_without_its_device_says_so_in_one_line(tmp_path, arguments):
    environment = os.environ | {"JAX_PLATFORMS": "abacus", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("E")]
    assert len(told) == 1 and "JAX_PLATFORMS=abacus, but JAX finds no such device: unset it" in told[0]
