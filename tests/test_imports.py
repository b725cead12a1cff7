"""Every module imports, imports point one way only, and names that JAX removed do not come back."""

import ast
import importlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(p for top in ("msddf_jax", "data_prep", "configs", "benchmarks") for p in (ROOT / top).rglob("*.py"))
NAMES = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in FILES]

# A module may import from its own level or from one above it in this list.
LEVELS = (
    ("command", "opencv", "trees", "losses", "statistics", "data.schema"),
    ("models", "synth", "faces"),
    ("optim", "sharding", "checkpoint", "cpu", "logs", "data", "weights", "experiments"),
    ("adversary", "detectors"),
    ("train_step", "evaluators", "compare", "saliency"),
    ("inference",),
    ("show",),
    ("evaluate", "faithfulness", "embedding", "report"),
    ("train", "predict", "app", "export", "model_card", "stress", "explain", "weights.__main__"),
    ("main",),
)
REMOVED = re.compile(
    r"jax\.tree_map|jax\.pmap|host_callback|PositionalSharding|device_put_sharded|device_put_replicated"
    r"|PRNGKey\(|jax\.experimental\.shard_map|allow_pickle=True|weights_only=False|\bwith mesh:"
)


def _level(module):
    parts = module.split(".")[1:]
    if not parts:
        return -1
    for length in (2, 1):
        for i, names in enumerate(LEVELS):
            if ".".join(parts[:length]) in names:
                return i
    raise AssertionError(f"{module} has no place in LEVELS; add it where it belongs")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in NAMES else node.module


@pytest.mark.parametrize("name", NAMES)
def test_module_imports(name):
    assert importlib.import_module(name) is not None


@pytest.mark.parametrize("path", [p for p in FILES if p.relative_to(ROOT).parts[0] == "msddf_jax"], ids=str)
def test_imports_point_one_way(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    own = _level(name)
    modules = set(NAMES)
    for target in _imports(path):
        assert target.split(".")[0] not in ("data_prep", "configs", "tests", "benchmarks"), f"{name} imports {target}"
        if target in modules and target.startswith("msddf_jax."):
            assert _level(target) <= own, f"{name} (level {own}) imports {target} (level {_level(target)})"


def test_data_prep_and_configs_stay_outside():
    allowed = (
        "msddf_jax",
        "msddf_jax.opencv",
        "msddf_jax.faces",
        "msddf_jax.data",
        "msddf_jax.data.schema",
        "msddf_jax.data.overlap",
    )
    for path in FILES:
        top = path.relative_to(ROOT).parts[0]
        for target in _imports(path):
            if top == "configs":
                assert target.split(".")[0] in ("ml_collections", "configs"), f"{path.name} imports {target}"
            if top == "data_prep" and target.split(".")[0] == "msddf_jax" and target in NAMES:
                assert target in allowed or target.startswith("msddf_jax.faces."), f"{path.name} imports {target}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_removed_and_unsafe_names_are_absent(path):
    assert not REMOVED.findall(path.read_text())
