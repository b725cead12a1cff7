"""Detectors share code and do not copy it: no run of six equal statements stands in two of their files."""

import ast
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "msddf_jax" / "detectors"
RUN = 6


class _Plain(ast.NodeTransformer):
    """Local names by the order in which they come, so that renaming hides nothing; docstrings are no statements."""

    def __init__(self):
        self.names = {}

    def visit_Name(self, node):
        node.id = self.names.setdefault(node.id, f"n{len(self.names)}")
        return node


def _runs(source):
    """{normalised run of `RUN` statements: line of the first} of every body in a file; imports are left out."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        # A lambda's body is one expression.
        body = getattr(node, "body", []) if not isinstance(node, (ast.Lambda, ast.IfExp)) else []
        body = [s for s in body if not isinstance(s, (ast.Import, ast.ImportFrom))]
        body = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
        # Fields of a module are a table of settings, which are alike on purpose.
        body = [s for s in body if not isinstance(s, ast.AnnAssign)]
        for start in range(len(body) - RUN + 1):
            part = ast.parse("\n".join(map(ast.unparse, body[start : start + RUN])))
            found.setdefault(ast.dump(_Plain().visit(part)), body[start].lineno)
    return found


def test_a_copy_is_found_under_other_names():
    lines = [f"a{i} = f(b, {i})" for i in range(RUN)]
    first = "def one(b):\n    " + "\n    ".join(lines)
    other = "def two(x):\n    y = 1\n    " + "\n    ".join(line.replace("b,", "x,").replace("a", "z") for line in lines)
    assert set(_runs(first)) & set(_runs(other))
    assert not set(_runs(first)) & set(_runs(other.replace("f(x, 3)", "f(3)")))


def test_no_run_of_statements_stands_in_two_detectors():
    seen, twice = {}, []
    for path in sorted(FOLDER.glob("*.py")):
        for run, line in _runs(path.read_text(encoding="utf-8")).items():
            first = seen.setdefault(run, f"{path.name}:{line}")
            if not first.startswith(f"{path.name}:"):
                twice.append(f"{first} and {path.name}:{line}")
    assert twice == []


def test_a_detector_is_a_short_file():
    """Under 200 lines, but for two with several players or looks."""
    longer = {"fpg.py", "clip_cross_domain.py"}
    sizes = {path.name: path.read_text(encoding="utf-8").count("\n") for path in FOLDER.glob("*.py")}
    assert {name for name, size in sizes.items() if size >= 200} <= longer
