"""Detectors beside the public implementations: golden figures, at a small side and, with -m parity, as published.

The state is filled by names, goes through the weights table as a file of that detector, and its figures are compared.
"""

import functools
import json
import re

import golden_figures as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msddf_jax import detector, experiments, trees
from msddf_jax.weights import __main__ as command
from msddf_jax.weights import identify, table
from msddf_jax.weights.names import dfb_names

TOLERANCE = 1e-4
NAMES = sorted(path.stem for path in golden.FOLDER.glob("*.json"))
# More than five seconds each to compile.
LARGE = ("face_xray", "iid", "local_relation", "lsda", "multi_attention", "recce", "sia", "srm", "ucf", "uia_vit")
# {detector: {depth of the golden file: what of the Model's output it is}}; "stages/<name>" of the backbone.
DEPTHS = {
    "capsule": {
        "middle": "stages/stage_2",
        "last": "spatial",
        "feature": "capsules",
        "routed": "routed",
        "logits": "logits",
    },
    "face_xray": {
        "first": "stages/stage_1",
        "joined": "stages/joined",
        "xray": "xray",
        "feature": "pooled",
        "logits": "logits",
    },
    "ffd": {
        "middle": "stages/block_7",
        "map": "map",
        "last": "stages/block_12",
        "feature": "spatial",
        "logits": "logits",
    },
    "f3net": {"bands": "bands", "middle": "stages/block_7", "feature": "spatial", "logits": "logits"},
    "iid": {
        "middle": "stages/block_7",
        "explicit": "explicit",
        "feature": "spatial",
        "logits": "logits",
    },
    "lsda": {"middle": "stages/block_21", "feature": "spatial", "logits": "logits"},
    "srm": {"attention": "attention", "feature": "spatial", "logits": "logits"},
    "spsl": {"stem": "stages/stem", "middle": "stages/block_7", "feature": "spatial", "logits": "logits"},
    "multi_attention": {
        "shallow": "stages/block_5",
        "middle": "stages/block_21",
        "attention": "attention",
        "feature": "spatial",
        "logits": "logits",
    },
    "pcl_i2g": {
        "middle": "stages/block_7",
        "consistency": "consistency",
        "feature": "spatial",
        "logits": "logits",
    },
    "recce": {
        "encoded": "stages/block_4",
        "last": "stages/block_12",
        "feature": "backbone/feature",
        "logits": "logits",
    },
    "uia_vit": {
        "last": "backbone/feature",
        "map": "map_logits",
        "affinity": "affinity",
        "feature": "patches",
        "logits": "logits",
    },
    "local_relation": {
        "low": "attention_low",
        "middle": "attention_middle",
        "high": "attention_high",
        "mask": "map_logits",
        "feature": "spatial",
        "logits": "logits",
    },
    "ucf": {
        "fingerprint": "spatial",
        "method": "method_logits",
        "made": "reconstruction",
        "feature": "common",
        "logits": "logits",
    },
    "sia": {
        "5": "stages/block_5",
        "9": "stages/block_9",
        "21": "stages/block_21",
        "feature": "spatial",
        "logits": "logits",
    },
}
# Fields of its Model, so that it gives the depths that scoring does without.
FIELDS = {"ucf": {"rebuild": True}}
# {detector: {our names, a regex: the depth that hangs on them}}, where the logits do not.
BESIDE = {
    "local_relation": {r"params/decoder/": "mask"},
    "pcl_i2g": {r"params/theta/": "consistency"},
    "ucf": {r"params/(backbone/content|narrow_content|decoder)/": "made", r"params/(specific|method_head)/": "method"},
}


def _sides(name):
    """The input sides that a detector has figures of, the smallest first; the largest is the published one."""
    return sorted(map(int, json.loads((golden.FOLDER / f"{name}.json").read_text())["sides"]))


def _config(name, side):
    """The experiment whose network the published file is of, at a side."""
    config = experiments.load(f"configs/detectors/{name}.py:port").unlock()
    config.dtype, config.model.image_size, config.augment.image_size = "float32", side, side
    config.model.update(FIELDS.get(name, {}))
    return config.lock()


def _converted(name, state, config):
    """Variables of the Model from {their name: array}, checked, and the table with which they were read."""
    found = dfb_names.find({theirs: value.shape for theirs, value in state.items()})
    assert found is not None and found["detector"] == config.detector
    shapes = detector.weight_shapes(config)
    expected = trees.flatten({"params": shapes["params"], **shapes["model_state"]})
    # Moving statistics of a loss are in no file, and start at 0.
    moving = [key for key in expected if not key.startswith(("params/", "batch_stats/"))]
    fresh = {key: np.zeros(expected.pop(key).shape, np.float32) for key in moving}
    tensors = {theirs: table.Tensor(v.shape, v.dtype, lambda v=v: v) for theirs, v in state.items()}
    table.check(tensors, found["table"], expected, name, found["skip"])
    return trees.unflatten(fresh | table.to_ours(tensors, found["table"], name)), found["table"]


def _outputs(config, variables, images):
    """{name: array} of the Model's output, with the backbone's stages and feature."""
    model = detector.make_model(config)
    apply = functools.partial(model.apply, train=False, capture_intermediates=lambda m, _: m.name == "backbone")
    out, kept = jax.jit(lambda v, x: apply(v, {"image": x}, mutable=["intermediates"]))(variables, jnp.asarray(images))
    inside = kept["intermediates"].get("backbone", {}).get("__call__", [{}])[0]
    stages = {f"stages/{name}": value for name, value in inside.get("stages", {}).items()}
    return out | stages | {"backbone/feature": inside.get("feature")}


def _state(content):
    fixed = {name: np.zeros(shape, np.float32) for name, shape in content["fixed"]}
    return golden.state(content) | fixed


def _check(name, side):
    content = golden.read(name, side)
    golden.check_worth(content, TOLERANCE)
    assert set(DEPTHS[name]) == set(content["outputs"])
    config, state = _config(name, side), _state(content)
    variables, entries = _converted(name, state, config)
    out = _outputs(config, variables, golden.images(side))
    for depth, ours in DEPTHS[name].items():
        assert golden.difference(content, depth, out[ours]) < TOLERANCE, depth
    flat = {k: np.asarray(v) for k, v in trees.flatten(variables).items()}
    back = table.to_theirs(flat, entries)
    for theirs, value in back.items():
        np.testing.assert_array_equal(value, state[theirs], err_msg=theirs)
    return content, config, flat


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in LARGE else n for n in NAMES])
def test_figures_are_those_of_the_public_implementation(name):
    _check(name, _sides(name)[0])


@pytest.mark.parity
@pytest.mark.parametrize("name", NAMES)
def test_figures_at_the_published_side(name):
    _check(name, _sides(name)[-1])


@pytest.mark.parity
@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_out_of_order_is_seen(name):
    side = _sides(name)[0]
    content, config, flat = _check(name, side)
    model, images = detector.make_model(config), jnp.asarray(golden.images(side))
    beside = BESIDE.get(name, {})
    look = lambda out: {depth: out[DEPTHS[name][depth]] for depth in {"logits", *beside.values()}}
    apply = jax.jit(lambda v: look(model.apply(v, {"image": images}, train=False)))
    rng = np.random.default_rng(0)
    for kernel in [n for n in flat if n.endswith("kernel") and flat[n].size > 1]:
        moved = rng.permutation(flat[kernel].ravel()).reshape(flat[kernel].shape)
        out = apply(trees.unflatten(flat | {kernel: moved}))
        depth = next((told for names, told in beside.items() if re.match(names, kernel)), "logits")
        assert golden.difference(content, depth, out[depth]) > TOLERANCE, kernel


@pytest.mark.parametrize("name", NAMES)
def test_a_published_file_is_told_from_others_and_is_its_experiments(name):
    content = golden.read(name, _sides(name)[-1])
    shapes = [*content["filled"], *content["fixed"]]
    tensors = {theirs: table.Tensor(tuple(shape), np.dtype(np.float32), None) for theirs, shape in shapes}
    found = identify.identify(tensors, f"{name}_best.pth")
    assert (found.format, found.detector) == (f"{name}/deepfakebench", name)
    config = command.detector_config(found)
    assert config.model == experiments.load(f"configs/detectors/{name}.py:port").model


def test_every_detector_of_the_benchmark_has_golden_figures():
    assert {kind.detector for kind in dfb_names.FORMATS.values()} == set(NAMES) == set(DEPTHS)
