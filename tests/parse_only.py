"""Programs in this process: those that parse their command line and go no further, and those that run."""

import argparse
import contextlib
import os
import pathlib
import runpy
import sys

from absl import app, flags

from msddf_jax import remote

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Their programs read their flags by argparse or absl, which `parsing` stops. Another, such as pip, would do its work.
STOPPED = ("msddf_jax", "data_prep", "benchmarks")


class Parsed(Exception):
    """Raised in place of the work: the command line was taken."""


@contextlib.contextmanager
def own_flags_hidden():
    """Within it no flag of this project is defined, and afterwards those that were: a module imported by another test
    has defined its flags already, and would not be run once more."""
    definer = {name: flags.FLAGS.find_module_defining_flag(name) or "" for name in flags.FLAGS}
    hidden = {name: flags.FLAGS[name] for name, module in definer.items() if module.partition(".")[0] in STOPPED}
    for name in hidden:
        delattr(flags.FLAGS, name)
    before = set(flags.FLAGS)
    try:
        yield
    finally:
        flags.FLAGS.unparse_flags()
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
        for name, flag in hidden.items():
            flags.FLAGS[name] = flag
            flags.FLAGS.register_flag_by_module(definer[name], flag)


@contextlib.contextmanager
def parsing(monkeypatch):
    """Within it, a program that is run raises `Parsed` once it has its flags; flags that it defines are gone after."""

    def run(main, argv=None):
        flags.FLAGS(sys.argv if argv is None else argv)
        raise Parsed

    def parse_args(self, args=None, namespace=None):
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {rest}")
        raise Parsed(found)

    # The addresses of stores in the docs are nobody's.
    monkeypatch.setattr(remote, "open_workdir", pathlib.Path)
    monkeypatch.setattr(app, "run", run)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.chdir(ROOT)
    with own_flags_hidden():
        yield


def run(module, arguments, monkeypatch) -> None:
    """`python -m module arguments`, in the working directory. Raises AssertionError for an exit code."""

    def call(main, argv=None):
        raise SystemExit(main(flags.FLAGS(sys.argv if argv is None else argv)))

    def leave(code):
        raise SystemExit(code)

    with own_flags_hidden(), monkeypatch.context() as patch:
        patch.setattr(app, "run", call)
        patch.setattr(os, "_exit", leave)
        patch.setattr(sys, "argv", [module, *arguments])
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            assert not end.code, f"{module} ended with {end.code}"


def takes(module, arguments, monkeypatch) -> bool:
    """Whether `python -m module arguments` is taken; within `parsing`. Raises ValueError for what it would not stop."""
    if module.partition(".")[0] not in STOPPED:
        raise ValueError(f"{module} is none of {STOPPED}: it would run")
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        runpy.run_module(module, run_name="__main__")
    except Parsed:
        return True
    return False
