"""What a weight file is, a published detector as a workdir that predicts, and published backbones fetched.

python -m msddf_jax.weights hf://openai/clip-vit-base-patch16                     # says what it is
python -m msddf_jax.weights hf://yermandy/GenD_CLIP_L_14 --to runs/gend           # ready for msddf_jax.predict
python -m msddf_jax.weights mesonet/meso4_df --to runs/meso4                      # MesoNet's own files have short names
python -m msddf_jax.weights clip.safetensors --to weights/clip.safetensors        # a backbone under our own names
python -m msddf_jax.weights --fetch xception resnet34                             # what configs start from; or all
"""

import pathlib
import sys

import jax
import numpy as np
from absl import app, flags
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from msddf_jax import checkpoint, command, detector, experiments, trees
from msddf_jax.models import backbones
from msddf_jax.weights import hub, identify, load_initial, published, table
from msddf_jax.weights.names import meso_names

# The experiment that a published detector becomes, by its format where that does not start with its name; its model is
# what the file says.
CONFIGS = {
    **dict.fromkeys(("meso/deepfakebench", *meso_names.ABOUT), "meso4"),
    "xception/deepfakebench": "xception",
    "spsl/deepfakebench": "spsl.py:port",
    "ffd/deepfakebench": "ffd.py:port",
    "capsule/deepfakebench": "capsule.py:port",
    "f3net/deepfakebench": "f3net.py:port",
    "face_xray/deepfakebench": "face_xray.py:port",
    "iid/deepfakebench": "iid.py:port",
    "lsda/deepfakebench": "lsda.py:port",
    "srm/deepfakebench": "srm.py:port",
    "efficientnet/deepfakebench": "efficientnetb4",
    "efficientnet/sbi": "sbi",
    "resnet/deepfakebench": "resnet34",
    "clip/deepfakebench": "clip",
    "sjedd/ffsc": "sjedd.py:ffsc",
    "sia/deepfakebench": "sia.py:port",
    "recce/deepfakebench": "recce.py:port",
    "pcl_i2g/deepfakebench": "pcl_i2g.py:port",
    "uia_vit/deepfakebench": "uia_vit.py:port",
    "ucf/deepfakebench": "ucf.py:port",
    "local_relation/deepfakebench": "local_relation.py:port",
    "multi_attention/deepfakebench": "multi_attention.py:port",
}


def convert(source, to=None) -> list[str]:
    """Say what a weight file is and, with `to`, write it: a detector as a workdir, a backbone as .safetensors.

    Args:
      source: reference of `hub.parse`, or a short name of `published.DETECTORS`. to: a folder that is not there yet, or
        for a backbone a path ending in .safetensors.

    Returns:
      the lines of the description.

    Raises:
      FileNotFoundError, ValueError: see `hub.locate`, `identify.identify`, `table.check`; a target of the wrong kind.
      FileExistsError: a target that is there already.
    """
    reference = hub.parse(published.resolve(source))
    path, digest, tensors = load_initial.open_reference(reference)
    if identify.is_own(tensors):
        raise ValueError(f"{path} has this project's own names already: name it in config.init as it is")
    stated = identify.read_configs(path)
    found = identify.identify(tensors, path, stated=stated, wanted=reference.format, digest=digest)
    lines = describe(path, tensors, found, digest)
    if found.family not in backbones.FAMILIES:
        raise ValueError(
            f"{path} is {found.format}, no detector and no backbone: the detector that plays with it takes the file as "
            "it is, in config.init"
        )
    make = _detector if found.detector else _backbone
    if to is None:
        # Without a target it is checked all the same: what fits is said, what does not is an error.
        make(path, tensors, found, read=False)
        return lines
    to = pathlib.Path(to)
    if to.exists() and (to.is_file() or any(to.iterdir())):
        raise FileExistsError(f"{to} is there already; name another --to")
    if found.detector is None:
        if to.suffix != ".safetensors":
            raise ValueError(f"{path} is a backbone without a classifier: name a .safetensors file in --to, got {to}")
        flat = _backbone(path, tensors, found, read=True)
        to.parent.mkdir(parents=True, exist_ok=True)
        save_file(flat, to)
        return [*lines, f"written: {to}, for --config.init.backbone={to}"]
    write_workdir(to, found, path, tensors, digest)
    return [*lines, f"written: {to}, for python -m msddf_jax.predict --workdir {to}"]


def describe(path, tensors, found, digest) -> list[str]:
    """Lines that say what a file is. digest: its SHA-256."""
    count = sum(int(np.prod(tensors[name].shape)) for name in found.table if name in tensors)
    kind = f"detector ({found.detector})" if found.detector else "backbone"
    options = ", ".join(f"{k}={v}" for k, v in sorted(found.options.items())) or "none"
    lines = [
        f"{path}: {found.format}, {kind}, {found.family} {found.variant}, {count:,} numbers read",
        f"sha-256 {digest}",
        f"options: {options}",
    ]
    if found.by_digest:
        lines.append(f"its sha-256 says that it is {found.format}; its names and shapes leave others")
    if found.format in meso_names.ABOUT:
        lines.append(f"{found.format} is {meso_names.ABOUT[found.format]}; scores here are always of a fake")
    if found.assumed:
        lines.append(f"assumed, since neither the tensors nor a config beside them tell: {', '.join(found.assumed)}")
    return lines


def _backbone(path, tensors, found, read):
    """{our flat name: array} of the backbone, at the resolution that the file is for; {} where not `read`."""
    entries, skipped = identify.backbone_only(found)
    shapes = load_initial.backbone_shapes(found.family, found.variant, found.image_size or 224, found.options)
    return _fitted(path, tensors, entries, shapes, skipped, read)


def _detector(path, tensors, found, read):
    """{our flat name: array} of a whole detector at its config's resolution; {} where not `read`."""
    config = detector_config(found)
    shapes = detector.weight_shapes(config)
    expected = trees.flatten({"params": shapes["params"], **shapes["model_state"]})
    constant = {name for name in expected if name.split("/")[0] not in ("params", "batch_stats")}
    learned = {name: leaf for name, leaf in expected.items() if name not in constant}
    out = _fitted(path, tensors, found.table, learned, found.skip, read)
    return out | _drawn(config, constant) if read else out


def _drawn(config, names):
    """{our flat name: array} of what a detector has and no file gives: it does not depend on the key that draws it."""
    if not names:
        return {}
    module = detector.load(config.detector)
    if hasattr(module, "players"):
        module.players(config)  # which says what is missing to draw it
    model, rows = detector.make_model(config), detector.example_batch(config)

    def draw():
        flat = trees.flatten(dict(model.init(jax.random.key(0), rows, train=False)))
        return {name: flat[name] for name in names}

    return jax.device_get(jax.jit(draw)())


def _fitted(path, tensors, entries, expected, skip, read):
    tensors = load_initial.fit_positions(tensors, entries, expected)
    table.check(tensors, entries, expected, path, skip)
    return table.to_ours(tensors, entries, path) if read else {}


def detector_config(found) -> ConfigDict:
    """The locked config of a published detector: its experiment in configs/detectors, its model as the file says."""
    name = CONFIGS.get(found.format, found.format.split("/")[0])
    config = experiments.load(f"configs/detectors/{name if '.py' in name else f'{name}.py'}").unlock()
    config.model.variant = found.variant
    if found.detector == "baseline":
        config.model.family, config.model.normalize = found.family, found.normalize
        config.model.options = dict(found.options)
    if found.image_size:
        config.model.image_size = config.augment.image_size = found.image_size
    # Nothing is loaded before a first step: the weights are those in the workdir.
    config.init = ConfigDict()
    return config.lock()


def write_workdir(workdir, found, path, tensors, digest) -> None:
    """A workdir with the detector's config and weights, as training leaves one, at step 0. digest: the file's."""
    config = detector_config(found)
    variables = trees.unflatten(_detector(path, tensors, found, read=True))
    weights = {"params": variables.pop("params"), "model_state": variables}
    checkpoint.save_config(workdir, config)
    checkpoint.save_best(workdir, 0, weights, {"converted_from": found.format, "sha256": digest})


def main(argv) -> None:
    """Command line."""
    values = flags.FLAGS
    try:
        if values.fetch:
            lines = published.fetch([*values.fetch, *argv[1:]])
        elif len(argv) != 2:
            sys.exit(f"one weight file is expected, got {len(argv) - 1}; see --help")
        else:
            lines = convert(argv[1], values.to)
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        sys.exit(f"error: {error}")
    print("\n".join(lines))


if __name__ == "__main__":
    command.define_path("to", None, "A new workdir for a detector, a .safetensors file for a backbone.")
    flags.DEFINE_list("fetch", [], f"Published files to fetch: {', '.join(published.PUBLISHED)}, or all.")
    app.run(main)
