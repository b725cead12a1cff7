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
    "face_xray": (
        "facexray_detector",
        "facexray",
        (96, 256),
        {"first": "backbone.layer1", "joined": "< post_process", "xray": "post_process"},
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
    "iid": (
        "iid_detector",
        "iid",
        (96, 256),
        {"middle": "backbone.block7", "explicit": "explicit_extractor"},
    ),
    # Its classifier takes 4 x 4 patches of the last map.
    "local_relation": (
        "lrl_detector",
        "lrl",
        (256,),
        {"low": "rfam1.attention", "middle": "rfam2.attention", "high": "rfam3.attention", "mask": "final"},
    ),
    "lsda": ("lsda_detector", "lsda", (96, 256), {"middle": "model.student_encoder.model._blocks.21"}),
    "pcl_i2g": ("pcl_xception_detector", "pcl_xception", (96, 256), {"middle": "backbone.block7"}),
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
    "ucf": (
        "ucf_detector",
        "ucf",
        (96, 256),
        {"fingerprint": "encoder_f.adjust_channel", "method": "head_spe.mlp"},
    ),
    # Its position embeddings are of 14 x 14 patches, whatever the side.
    "uia_vit": ("uia_vit_detector", "uia_vit", (224,), {}),
}
# Settings in place of the yaml's: without these the first calls are answered by the plain network.
CHANGES = {"multi_attention": {"backbone_nEpochs": 0}, "iid": {"ddp": False}}
# Parameters that are not trained there and that a file gives all the same.
GIVEN = {"iid": ("explicit_extractor.features.weight",)}
# Of several networks that of which names are kept: no other scores.
SCORING = {"lsda": ("model.student_encoder.", "model.binary_classifier.")}
# These let the images of a batch change each other: each is given by itself.
ALONE = ("sia",)
# {detector: {name or pattern: factor on what is drawn}}: a softmax or sigmoid of large sums shows their rounding alone.
SCALED = {
    # And answers of capsules would all be near one half.
    "capsule": {"routing_stats.route_weights": 25.0},
    # Sums of hundreds of blocks and of four maps at a time.
    "face_xray": {"backbone.*.conv2.weight": 0.3, "backbone.*.fuse_layers.*": 0.3},
    "ffd": {"map.c.pointwise.weight": 2e-3},
    # And patches of all images would be alike.
    "local_relation": {
        "encoder_rgb.*._conv_stem.weight": 5.0,
        "encoder_idct.*._conv_stem.weight": 3.0,
        "rfam1.attention.0.weight": 0.5,
        "rfam2.attention.0.weight": 0.3,
    },
    # So that more than its norms' constants comes out of the means of its last map.
    "lsda": {"model.student_encoder.model._conv_stem.weight": 4.0},
    # The products of embeddings of 728 channels.
    "pcl_i2g": {"PCL.theta.weight": 3e-4},
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
    "ucf": {"encoder_f.adjust_channel.0.weight": 1e-5},
}
# {detector: (class of its file, argument with a default, {side: value})}: what is built for one side of the input.
SIZED = {"srm": ("DualCrossModalAttention", "size", {96: 6, 256: 16})}


def _rebuilt(model, images):
    """What UCF's decoder makes of images in their own style, [N, 3, S, S]."""
    import torch

    style = torch.cat(model.classifier(model.encoder_f.features(images)), dim=1)
    return model.con_gan(style, model.encoder_c.features(images))


def _tokens(part):
    """Of what UIA-ViT's transformer gives: tokens after the last norm, features, scores of five blocks' 12 heads."""
    return lambda model, images: part(*model.model.forward_features(images, [8, 9, 10, 11, 12], 6))


# {detector: {depth: what is made of the model and normalised images}}, which the hooks of modules do not see.
BESIDE = {
    # Features as its classifier sees them, and log odds that two cells are alike.
    "pcl_i2g": {
        "feature": lambda model, images: model.features({"image": images})[0].relu(),
        "consistency": lambda model, images: model.PCL(model.features({"image": images})[1]).logit(),
    },
    # As "feat" it returns the score.
    "lsda": {"feature": lambda model, images: model.model.student_encoder(images)},
    "ucf": {"made": _rebuilt},
    "uia_vit": {
        "last": _tokens(lambda tokens, *_: tokens[:, 0]),
        "map": _tokens(lambda _, features, scores: scores.mean(1)[:, 0, 1:].reshape(-1, 1, *features.shape[1:3])),
        "affinity": _tokens(lambda _, features, scores: scores.mean(1)[:, 1:, 1:].sigmoid()),
    },
}


def _without_low_frequencies(images):
    """What local relation learning's data set makes of images [N, S, S, 3] in [0, 1]: [N, 1, S, S]."""
    maker = importlib.import_module("dataset.lrl_dataset").LRLDataset
    levels = [maker.image2dct(maker.__new__(maker), np.uint8(np.round(255 * image))) for image in images]
    return (np.stack(levels)[:, None] / 255 - 0.5) / 0.5


# {detector: {field: what is made of the images}}, inputs beside the image.
INPUTS = {"local_relation": {"idct": _without_low_frequencies}}
# These give their features with the channels last.
CHANNELS_LAST = ("uia_vit",)


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
    for name in ("torch.utils.tensorboard", "metrics.base_metrics_class", "dataset.I2G_dataset", "dataset.iid_dataset"):
        sys.modules.setdefault(name, _Stub(name))
    package = types.ModuleType("detectors")
    package.__path__ = [str(training / "detectors")]
    package.DETECTOR = importlib.import_module("metrics.registry").DETECTOR
    sys.modules["detectors"] = package
    if file == "lrl_detector":
        # Its data set is wanted for one function, without what all of them import.
        data = sys.modules["dataset"] = types.ModuleType("dataset")
        data.__path__ = [str(training / "dataset")]
        for name in ("dataset.abstract_dataset", "albumentations"):
            sys.modules.setdefault(name, _Stub(name))
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
    empty = {"conv1.weight": torch.zeros(32, 3, 3, 3), "head.weight": None, "head.bias": None}
    nothing = types.SimpleNamespace(missing_keys=[], unexpected_keys=[])
    with (
        # Its files of constants are named from there.
        contextlib.chdir(root),
        fitted,
        mock.patch.object(torch, "load", lambda *args, **keys: dict(empty)),
        mock.patch.object(torch.hub, "download_url_to_file", lambda *args, **keys: None),
        mock.patch.object(torch.hub, "load_state_dict_from_url", lambda *args, **keys: dict(empty)),
        mock.patch.object(torch.nn.Module, "load_state_dict", lambda *args, **keys: nothing),
        mock.patch.object(torch.nn.Module, "cuda", lambda module: module),
    ):
        name = settings["model_name"]
        return module, module.DETECTOR[name](settings).eval()


def fill(model, scaled, given=(), scoring=("",)):
    """Fills what is trained, and statistics; returns ([name, shape] of these, of what stays as it was built).

    scaled: {name: factor} of `SCALED`. given: of `GIVEN`. scoring: of `SCORING`.
    """
    import torch

    trained = {name for name, value in model.named_parameters() if value.requires_grad} | set(given)
    filled, fixed = [], []
    for name, value in model.state_dict().items():
        if not name.startswith(scoring):
            continue
        if name in trained or name.endswith(("running_mean", "running_var")):
            value.copy_(torch.from_numpy(np.asarray(golden_figures.draw(name, tuple(value.shape), scaled))))
            filled.append([name, list(value.shape)])
        elif value.dtype.is_floating_point:
            fixed.append([name, list(value.shape)])
    return filled, fixed


def figures(model, depths, side, mean, std, alone=False, beside=None, last=False, inputs=None):
    """{depth: {"shape", "values"}} for three drawn images, channels last.

    alone: given one after the other. beside: further depths, of `BESIDE`. last: whether "feat" has its channels last.
    inputs: of `INPUTS`.
    """
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
    more = {name: torch.from_numpy(np.float32(make(images))) for name, make in (inputs or {}).items()}
    with torch.no_grad(), mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor):
        for part in batch.split(1 if alone else len(batch)):
            given = {"image": part, "label": torch.zeros(len(part), dtype=torch.long), **more}
            out = model(given, inference=True)
            seen["feature"].append(out["feat"].permute(0, 3, 1, 2) if last else out["feat"])
            sums = out["cls"].sum(1, keepdim=True)
            # Two probabilities hardly differ from one half; less it, a softmax sees the same.
            seen["logits"].append(out["cls"] - 0.5 if (sums - 1).abs().max() < 1e-6 else out["cls"])
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        seen |= {name: [make(model, batch)] for name, make in (beside or {}).items()}
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
        settings = GIVEN.get(flags.detector, ()), SCORING.get(flags.detector, ("",))
        shapes = fill(model, content["scaled"], *settings)
        last = flags.detector in CHANNELS_LAST
        ways = BESIDE.get(flags.detector), last, INPUTS.get(flags.detector)
        outputs = {"outputs": figures(model, depths, side, 0.5, 0.5, alone, *ways)}
        for kind, names in zip(("filled", "fixed"), shapes, strict=True):
            # Of a further side only what has another shape there.
            known = content.setdefault(kind, names)
            outputs |= {kind: other} if (other := [pair for pair in names if pair not in known]) else {}
        content["sides"][str(side)] = outputs
        golden_figures.check_worth(content["sides"][str(side)])
    content |= {kind: golden_figures.pack(content[kind]) for kind in ("filled", "fixed")}
    golden_figures.FOLDER.mkdir(exist_ok=True)
    text = json.dumps(content, separators=(",", ":")).replace('],["', '],\n["').replace('"sides"', '\n"sides"')
    (golden_figures.FOLDER / f"{flags.detector}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
