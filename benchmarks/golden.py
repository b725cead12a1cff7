"""Golden figures of a published detector, from a checkout of its repository: `tests/golden/<detector>.json`.

    python -m benchmarks.golden spsl --root DeepfakeBench --commit 8a4a7bf5e966c5c5618bc27d1719c3683eae9a04

The detector is built as that code builds it, without its pretrained file; every trained parameter and every statistic
is filled by name and shape (`tests/golden_figures.draw`), and what its modules give for three drawn images is written
at the depths of `DETECTORS`. Names, shapes and figures are all that is kept. Needs PyYAML, the extra `torch` and what
the file of that detector imports.
"""

import argparse
import contextlib
import functools
import importlib
import json
import pathlib
import sys
import types
from unittest import mock

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

import golden_figures  # noqa: E402
import torch_reference  # noqa: E402

from msddf_jax import paths  # noqa: E402

REPOSITORY = "https://github.com/SCLBD/DeepfakeBench"
# {detector: (its file below training/detectors, its yaml, sides, {depth: module whose output it is, or with "< " its
# input})}; "logits" is what the detector returns as "cls", "feature" as "feat".
DETECTORS = {
    "capsule": (
        "capsule_net_detector",
        "capsule_net",
        (96, 256),
        {"middle": "vgg_ext.vgg_1.9", "last": "vgg_ext.vgg_1", "routed": "routing_stats"},
    ),
    "ffd": (
        "ffd_detector",
        "ffd",
        (96, 256),
        {"middle": "backbone.block7", "map": "map.s", "last": "backbone.block12"},
    ),
    "f3net": ("f3net_detector", "f3net", (96, 256), {"bands": "FAD_head", "middle": "backbone.block7"}),
    "srm": ("srm_detector", "srm", (96, 256), {"attention": "srm_sa"}),
    "spsl": ("spsl_detector", "spsl", (96, 256), {"stem": "< backbone.block1", "middle": "backbone.block7"}),
    "multi_attention": (
        "multi_attention_detector",
        "multi_attention",
        (96, 256),
        {
            "shallow": "backbone.efficientnet._blocks.5",
            "middle": "backbone.efficientnet._blocks.21",
            "attention": "attention_generation",
        },
    ),
    "recce": (
        "recce_detector",
        "recce",
        (96, 256),
        {"encoded": "model.encoder.block4", "last": "model.encoder.block12"},
    ),
    "sia": (
        "sia_detector",
        "sia",
        (256,),
        {name: f"backbone.efficientnet._blocks.{name}" for name in ("5", "9", "21")},
    ),
}
# Settings in place of the yaml's: without these the first calls are answered by the plain network.
CHANGES = {"multi_attention": {"backbone_nEpochs": 0}}
# These let the images of a batch change each other: each is given by itself.
ALONE = ("sia",)
# {detector: {name: factor on what is drawn}}: a softmax or sigmoid of large sums would show their rounding alone.
SCALED = {
    # And answers of capsules would all be near one half.
    "capsule": {"routing_stats.route_weights": 25.0},
    "ffd": {"map.c.pointwise.weight": 2e-3},
    "recce": {
        "model.decoder6.0.weight": 1e-3,
        "model.reasoning.va_embedding.2.weight": 3e-3,
        "model.reasoning.vb_embedding.2.weight": 8e-3,
        "model.reasoning.vc_embedding.2.weight": 3e-3,
        "model.reasoning.va_gated_b.0.weight": 3e-3,
        "model.reasoning.va_gated_c.0.weight": 3e-3,
        "model.reasoning.reproject.2.weight": 200.0,
    },
    "srm": {
        "dual_cma0.key_conv_share.weight": 1e-2,
        "dual_cma1.key_conv_share.weight": 3e-4,
        "fusion.ca.sharedMLP.0.weight": 1e-5,
    },
}
# {detector: (class of its file, argument with a default, {side: value})}: what is built for one side of the input.
SIZED = {"srm": ("DualCrossModalAttention", "size", {96: 6, 256: 16})}


class _Stub(types.ModuleType):
    """A module whose every name is there and does nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def load(root, file):
    """The module of a detector of that repository, without the package that would import all of them."""
    training = pathlib.Path(root) / "training"
    sys.path[:0] = [str(training)]
    for name in ("torch.utils.tensorboard", "metrics.base_metrics_class"):
        sys.modules.setdefault(name, _Stub(name))
    package = types.ModuleType("detectors")
    package.__path__ = [str(training / "detectors")]
    package.DETECTOR = importlib.import_module("metrics.registry").DETECTOR
    sys.modules["detectors"] = package
    if file == "recce_detector":
        # Its encoder under timm's name of then, without the download.
        timm = importlib.import_module("timm")
        timm.models.xception = lambda pretrained: timm.create_model("legacy_xception")
    # One of the losses imports a detector, which imports the losses.
    importlib.import_module("loss")
    return importlib.import_module(f"detectors.{file}")


def build(root, file, yaml_name, changes, sized=None):
    """The detector with its own settings, `changes` over them; no file of weights is read. sized: of `SIZED`."""
    import torch
    import yaml

    module = load(root, file)
    settings = yaml.safe_load((pathlib.Path(root) / f"training/config/detector/{yaml_name}.yaml").read_text())
    settings |= changes
    fitted = contextlib.nullcontext()
    if sized:
        kind, argument, values = getattr(module, sized[0]), sized[1], sized[2]
        fixed = functools.partialmethod(kind.__init__, **{argument: values[settings["resolution"]]})
        fitted = mock.patch.object(kind, "__init__", fixed)
    # What is taken out of the file by name, to start a layer of another shape.
    empty = {"conv1.weight": torch.zeros(32, 3, 3, 3)}
    nothing = types.SimpleNamespace(missing_keys=[], unexpected_keys=[])
    with (
        # Its files of constants are named from there.
        contextlib.chdir(root),
        fitted,
        mock.patch.object(torch, "load", lambda *args, **keys: dict(empty)),
        mock.patch.object(torch.hub, "download_url_to_file", lambda *args, **keys: None),
        mock.patch.object(torch.nn.Module, "load_state_dict", lambda *args, **keys: nothing),
    ):
        name = settings["model_name"]
        return module, module.DETECTOR[name](settings).eval()


def fill(model, scaled):
    """Fills what is trained, and statistics; returns ([name, shape] of these, of what stays as it was built).

    scaled: {name: factor} of `SCALED`.
    """
    import torch

    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    filled, fixed = [], []
    for name, value in model.state_dict().items():
        if name in trained or name.endswith(("running_mean", "running_var")):
            value.copy_(torch.from_numpy(golden_figures.draw(name, tuple(value.shape), scaled)))
            filled.append([name, list(value.shape)])
        elif value.dtype.is_floating_point:
            fixed.append([name, list(value.shape)])
    return filled, fixed


def figures(model, depths, side, mean, std, alone=False):
    """{depth: {"shape", "values"}} for three drawn images, channels last; alone: given one after the other."""
    import torch

    modules, seen = dict(model.named_modules()), {name: [] for name in (*depths, "feature", "logits")}
    # Cloned: what follows may change it in place.
    put = lambda name: lambda _, given, out: seen[name].append(out.detach().clone())
    take = lambda name: lambda _, given: seen[name].append(given[0].detach().clone())
    hooks = [
        modules[path.removeprefix("< ")].register_forward_pre_hook(take(name))
        if path.startswith("< ")
        else modules[path].register_forward_hook(put(name))
        for name, path in depths.items()
    ]
    images = golden_figures.images(side)
    batch = torch.from_numpy(((images - mean) / std).astype(np.float32).transpose(0, 3, 1, 2))
    with torch.no_grad():
        for part in batch.split(1 if alone else len(batch)):
            out = model({"image": part, "label": torch.zeros(len(part), dtype=torch.long)}, inference=True)
            seen["feature"].append(out["feat"])
            sums = out["cls"].sum(1, keepdim=True)
            # Two probabilities hardly differ from one half; less it, a softmax sees the same.
            seen["logits"].append(out["cls"] - 0.5 if (sums - 1).abs().max() < 1e-6 else out["cls"])
    for hook in hooks:
        hook.remove()
    found = {}
    for name, values in seen.items():
        array = torch.cat(values).detach().numpy()
        array = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array
        found[name] = {"shape": list(array.shape[1:]), "values": golden_figures.keep(name, array)}
    return found


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.golden", description=__doc__.splitlines()[0])
    parser.add_argument("detector", choices=DETECTORS)
    parser.add_argument("--root", type=paths.expand, required=True, help="checkout of the repository")
    parser.add_argument("--commit", required=True, help="its commit, for the record")
    flags = parser.parse_args(argv)
    torch_reference.prepare()
    file, yaml_name, sides, depths = DETECTORS[flags.detector]
    alone = flags.detector in ALONE
    content = {
        "detector": flags.detector,
        "made": f"python -m benchmarks.golden {flags.detector}",
        "repository": REPOSITORY,
        "commit": flags.commit,
        "file": f"training/detectors/{file}.py",
        "scaled": SCALED.get(flags.detector, {}),
        "sides": {},
    }
    for side in sides:
        _, model = build(
            flags.root,
            file,
            yaml_name,
            {"resolution": side} | CHANGES.get(flags.detector, {}),
            SIZED.get(flags.detector),
        )
        shapes = fill(model, content["scaled"])
        outputs = {"outputs": figures(model, depths, side, 0.5, 0.5, alone)}
        for kind, names in zip(("filled", "fixed"), shapes, strict=True):
            # Of a further side only what has another shape there.
            known = content.setdefault(kind, names)
            outputs |= {kind: other} if (other := [pair for pair in names if pair not in known]) else {}
        content["sides"][str(side)] = outputs
        golden_figures.check_worth(content["sides"][str(side)])
    golden_figures.FOLDER.mkdir(exist_ok=True)
    text = json.dumps(content, separators=(",", ":")).replace('],["', '],\n["').replace('"sides"', '\n"sides"')
    (golden_figures.FOLDER / f"{flags.detector}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
