"""Every module imports, imports point one way only, and names that JAX removed do not come back."""

import ast
import importlib
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(p for top in ("msddf_jax", "data_prep", "configs", "benchmarks") for p in (ROOT / top).rglob("*.py"))
NAMES = [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in FILES]

# A module may import from its own level or from one above it in this list.
LEVELS = (
    (
        "command",
        "paths",
        "remote",
        "cluster",
        "experiments",
        "opencv",
        "trees",
        "losses",
        "statistics",
        "data.schema",
        "data.methods",
    ),
    ("models", "synth", "faces"),
    ("optim", "sharding", "frozen", "checkpoint", "cpu", "logs", "data", "weights", "steps"),
    ("adversary",),
    ("hooks",),
    ("detectors",),
    ("detector",),
    ("evaluators", "compare", "saliency", "delta", "inference", "manifest", "config_sets"),
    ("show", "asked_sets"),
    (
        "evaluate",
        "faithfulness",
        "embedding",
        "report",
        "calibrate",
        "confusion",
        "predict",
        "score",
        "app",
        "export",
        "model_card",
        "stress",
        "explain",
    ),
    ("train_step",),
    ("train",),
    ("main", "weights.__main__"),
)
# What only scores: it imports no trainer, by whatever way.
SCORING = (
    "inference",
    "evaluate",
    "calibrate",
    "predict",
    "score",
    "app",
    "explain",
    "export",
    "embedding",
    "stress",
    "report",
    "confusion",
    "saliency",
)
SCORING += ("faithfulness", "compare", "evaluators.attack")
TRAINER = ("train_step", "train", "steps", "optim", "hooks", "adversary")
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


def test_every_module_imports():
    for name in NAMES:
        assert importlib.import_module(name) is not None, name


def test_imports_point_one_way():
    modules, wrong = set(NAMES), []
    for path in (p for p in FILES if p.relative_to(ROOT).parts[0] == "msddf_jax"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        own = _level(name)
        for target in _imports(path):
            if target.split(".")[0] in ("data_prep", "configs", "tests", "benchmarks"):
                wrong.append(f"{name} imports {target}")
            elif target in modules and target.startswith("msddf_jax.") and _level(target) > own:
                wrong.append(f"{name} (level {own}) imports {target} (level {_level(target)})")
    assert wrong == []


def _graph():
    """{module: modules of the package that it imports, in functions too}."""
    package = [(p, n) for p, n in zip(FILES, NAMES) if n.startswith("msddf_jax.")]
    return {name: {t for t in _imports(path) if t in NAMES and t != name} for path, name in package}


def _reached(graph, start):
    seen, waiting = set(), [start]
    while waiting:
        for target in graph.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def test_no_module_imports_itself_by_way_of_others():
    graph = _graph()
    assert [name for name in graph if name in _reached(graph, name)] == []


def test_what_only_scores_imports_no_trainer():
    # The one exception reads which parameters have averages, where a run kept no best weights.
    allowed = {"msddf_jax.optim"}
    trainer = {f"msddf_jax.{module}" for module in TRAINER} - allowed
    graph = _graph()
    assert {name: reached for name in SCORING if (reached := _reached(graph, f"msddf_jax.{name}") & trainer)} == {}


def test_data_prep_and_configs_stay_outside():
    allowed = (
        "msddf_jax",
        "msddf_jax.opencv",
        "msddf_jax.paths",
        "msddf_jax.faces",
        "msddf_jax.data",
        "msddf_jax.data.methods",
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


def test_removed_and_unsafe_names_are_absent():
    assert {str(path): found for path in FILES if (found := REMOVED.findall(path.read_text()))} == {}
