"""The pages of config fields, from the files of configs/: docs/reference/config.md and docs/reference/experiments.md.

    python -m benchmarks.config_page

A field's default is the one that `configs/common.py` sets, its description the comment above it there. The second page
has what each experiment sets otherwise, with the comment above the field in the experiment's own file, if it has one.
"""

import argparse
import ast
import pathlib
import re
from typing import NamedTuple

from ml_collections import ConfigDict

from benchmarks import zoo
from configs.common import get_common
from msddf_jax import experiments

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/reference"
COMMON = ROOT / "configs/common.py"
# Sections whose fields are the detector's, the recipe's or the user's own: one row each.
OPEN = ("model", "augment", "loss_weights", "loss_args", "synth.recipe", "init", "evals", "policy.reward", "step.upper")


class Field(NamedTuple):
    """path: as on the command line behind `--config.`. comment: "" where there is none."""

    path: str
    default: object
    comment: str


def common_fields() -> list[Field]:
    """Every field of `configs/common.py`, in the order of that file."""
    written, values = _written_in(COMMON), dict(flatten(get_common()))
    order = [path for path in written if path in values] + [path for path in values if path not in written]
    return [Field(path, values[path], written.get(path, "")) for path in order]


def flatten(config, prefix="") -> list[tuple[str, object]]:
    """(path, value) of every field; one for each section of `OPEN`."""
    found = []
    for name, value in config.items():
        path = prefix + name
        if isinstance(value, ConfigDict) and path not in OPEN:
            found += flatten(value, f"{path}.")
        else:
            found.append((path, value))
    return found


def _written_in(path):
    """{path of a field: the comment above it} of a file whose `get_common` builds the config from its functions."""
    text = path.read_text(encoding="utf-8")
    functions = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    lines, found = text.splitlines(), {}

    def visit(value, prefix):
        if isinstance(value, ast.Call) and getattr(value.func, "id", "") in functions:
            # The dict of settings that the function builds.
            value = next(node for node in ast.walk(functions[value.func.id]) if isinstance(node, ast.Dict))
        if isinstance(value, ast.Call) and value.args:
            value = value.args[0]
        if isinstance(value, ast.Dict):
            for key, below in zip(value.keys, value.values, strict=True):
                found.setdefault(f"{prefix}.{key.value}", _comment_above(lines, key.lineno))
                visit(below, f"{prefix}.{key.value}")

    for node in functions["get_common"].body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            name = ast.unparse(node.targets[0]).partition(".")[2]
            found.setdefault(name, _comment_above(lines, node.lineno))
            visit(node.value, name)
    return found


def _comment_above(lines, number):
    """The comment lines straight above line `number` (from 1), joined."""
    found = []
    while number > 1 and lines[number - 2].strip().startswith("#"):
        number -= 1
        found.insert(0, lines[number - 1].strip().removeprefix("#").strip())
    return " ".join(found)


def _written_by_name(path):
    """{last part of a field's name: the comment above it} of a config file; names with two comments are left out."""
    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), {}
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Dict):
            names = [(key.value, key.lineno) for key in node.keys if isinstance(key, ast.Constant)]
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            names = [(node.targets[0].attr, node.lineno)]
        for name, number in names:
            if comment := _comment_above(lines, number):
                found.setdefault(name, set()).add(comment)
    return {name: comments.pop() for name, comments in found.items() if len(comments) == 1}


def config_page() -> str:
    """The page of all fields as Markdown."""
    lines = [
        "# Config fields",
        "",
        "Made by `python -m benchmarks.config_page` from [configs/common.py](../../configs/common.py). Every",
        "experiment has these fields. Each can be set on the command line: `--config.optim.warmup_steps=500`. A",
        "name that is not here is an error. What each experiment sets otherwise: [experiments.md](experiments.md).",
        "",
        "A tuple is written in quotes: `--config.data.train.methods=\"('deepfakes', 'faceswap')\"`. `None` stands for",
        "a field that is not set.",
    ]
    sections = {}
    for field in common_fields():
        name = field.path.partition(".")[0] if "." in field.path else ""
        sections.setdefault(name, []).append(field)
    for name, fields in sections.items():
        lines += ["", f"## {name or 'The run'}", "", "| field | default | what |", "| --- | --- | --- |"]
        lines += [f"| `{f.path}` | {_value(f.default)} | {_text(f.comment)} |" for f in fields]
    return "\n".join(lines) + "\n"


def experiments_page() -> str:
    """The page of what each experiment sets, as Markdown."""
    lines = [
        "# What each experiment sets",
        "",
        "Made by `python -m benchmarks.config_page` from the files of `configs/`: the fields whose value is not",
        "the one of [config.md](config.md). What each detector is: [detectors.md](detectors.md).",
    ]
    common = dict(flatten(get_common()))
    for name, spec in zoo.row_specs().items():
        comments = _written_by_name(ROOT / spec.partition(":")[0])
        lines += [
            "",
            f"## {name}",
            "",
            f"[{spec}](../../{spec})",
            "",
            "| field | value | what |",
            "| --- | --- | --- |",
        ]
        for path, value in flatten(experiments.load(spec)):
            if path not in common or _plain(value) != _plain(common[path]):
                inner = sorted(value.items()) if isinstance(value, ConfigDict) else None
                parts = [(path, value)] if not inner else [(f"{path}.{key}", below) for key, below in inner]
                for part, below in parts:
                    lines.append(f"| `{part}` | {_value(below)} | {_text(comments.get(part.rpartition('.')[2], ''))} |")
    return "\n".join(lines) + "\n"


def _plain(value):
    """A value without ConfigDicts."""
    return value.to_dict() if isinstance(value, ConfigDict) else value


def _value(value):
    """A value as code, without the digest of a file; a set that is evaluated as its name and split."""
    plain = _plain(value)
    if isinstance(plain, dict) and {"name", "split"} <= set(plain):
        kept = f" of {', '.join(plain['methods'])}" if plain["methods"] else ""
        return f"`{plain['name']}:{plain['split']}`{kept}"
    if (
        isinstance(plain, dict)
        and all(isinstance(below, dict) and "split" in below for below in plain.values())
        and plain
    ):
        return ", ".join(f"{name}: {_value(below)}" for name, below in plain.items())
    text = repr(plain) if not isinstance(plain, str) else re.sub(r"#?sha256=\w+&?", "#", f'"{plain}"')
    return f"`{text}`".replace("|", "\\|")


def _text(comment):
    """A comment in a cell: what looks like a tag is shown."""
    return comment.replace("|", "\\|").replace("<", "&lt;")


def main(argv=None):
    """Write the pages."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
        print(f"written: {FOLDER / name}")


PAGES = {"config.md": config_page, "experiments.md": experiments_page}

if __name__ == "__main__":
    main()
