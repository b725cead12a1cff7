"""A trained workdir in formats that others load: `python -m msddf_jax.export --workdir DIR --to DIR`.

Writes into `--to`, each file's SHA-256 in `manifest.json`:
  model.safetensors      every variable of the detector, float32, under this project's flat names
  backbone.safetensors   the backbone under the names of Hugging Face's CLIPVisionModel, where it is a CLIP ViT
  config.json            the experiment
  model.stablehlo        `jax.export`: uint8 RGB crops [b, S, S, 3] -> {"score": [b], ...}, any b
  run.py                 scores image files with model.stablehlo, without this project
  README.md              model card

With `--delta`, of weights that were trained on a frozen base, what was trained alone:
  delta.safetensors      it, and the base's name, revision and SHA-256
  config.json, README.md
Either folder is a workdir for `msddf_jax.predict`; the second where the base is.
"""

import hashlib
import json
import os
import pathlib
import sys
import tempfile

import jax
import jax.export
import numpy as np
from absl import app, flags, logging
from safetensors.numpy import save_file

from msddf_jax import checkpoint, command, delta, detector, inference, model_card, trees
from msddf_jax.models import clip, layers
from msddf_jax.weights import table
from msddf_jax.weights.names import clip_names

FORMAT, VERSION = "msddf_jax export", 1
MANIFEST = "manifest.json"
FILES = (checkpoint.WHOLE, "backbone.safetensors", "config.json", "model.stablehlo", "run.py", "README.md")
DELTA_FILES = (checkpoint.DELTA, "config.json", "README.md")
# One artifact for all of them; the tensors in it are stored once.
PLATFORMS = ("cpu", "cuda", "tpu")
# FlatBuffers, the format of `jax.export`, counts bytes in 31 bits; some are left for the program itself.
MAX_ARTIFACT_BYTES = 2**31 - 2**24

RUN = '''"""Score aligned face crops: python run.py CROP.png ...; needs jax and flatbuffers, for image files pillow."""

import pathlib
import sys

import jax.export
import numpy as np

model = jax.export.deserialize(bytearray(pathlib.Path(__file__).with_name("model.stablehlo").read_bytes()))
side = model.in_avals[0].shape[1]


def read(path):
    """uint8 RGB [side, side, 3] of an image file, turned upright, or of a .npy file that holds one."""
    if path.endswith(".npy"):
        image = np.load(path)
    else:
        from PIL import Image, ImageOps

        file = Image.open(path)
        deep = file.format in ("PNG", "TIFF") and ";16" in str(file.tile)  # known before the pixels are read
        upright = ImageOps.exif_transpose(file)
        if file.mode[0] in "IF":  # grey of more than 8 bits
            image = grey_8_bits(np.asarray(upright), file.format)
        else:
            image = np.asarray(upright.convert("RGB"))
            image = None if deep and image.max() < 16 else image  # of 16 bits the upper 8: 12 or fewer would be black
    if image is None:
        sys.exit(f"{path}: numbers of more than 8 bits that do not say which is white; save it with 8")
    if image.shape != (side, side, 3) or image.dtype != np.uint8:
        sys.exit(f"{path}: expected a uint8 RGB crop {side} x {side}, got {image.dtype} {image.shape}")
    return image


def grey_8_bits(grey, kind):
    """uint8 RGB of grey pixels, floats 0 to 1 or 16 bits, which Pillow would clip; None of numbers of another range."""
    if grey.dtype.kind == "f":
        grey = np.rint(255 * grey) if 0 <= grey.min() and grey.max() <= 1 else None
    else:
        known = (grey.itemsize == 2 or kind == "PNG") and (grey.max() >= 4096 or not grey.any())
        grey = np.clip(grey >> 8, 0, 255) if known else None
    return None if grey is None else np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


paths = sys.argv[1:] or sys.exit(__doc__)
for path, score in zip(paths, np.asarray(model.call(np.stack([read(p) for p in paths]))["score"])):
    print(f"{score:.7f} {path}")
'''


def export_workdir(workdir, to, only_trained=False) -> dict[str, str]:
    """Write the chosen weights of a workdir to a folder in formats that others load.

    Args:
      workdir: of a training run, or of converted weights. to: a folder that is not there, is empty, or holds an
        earlier export, which is replaced. only_trained: what `--delta` asks for.

    Returns:
      {file name: SHA-256} of what was written, as in `manifest.json`.

    Raises:
      FileNotFoundError: no workdir, or no checkpoint in it. FileExistsError: a folder with other files in it.
      ValueError: a checkpoint of another config; weights that `jax.export` cannot hold, or that have no base. OSError:
        the files cannot be written.
    """
    workdir, to = pathlib.Path(workdir), pathlib.Path(to)
    check_target(to)
    model = inference.load_for_inference(workdir)
    if only_trained and model.base is None:
        raise ValueError(
            f"the weights in {workdir} are whole: nothing of them was left in a file that config.init names, so there "
            "is no smaller form of them; export without --delta"
        )
    config = json.loads((workdir / "config.json").read_text())
    choice = (checkpoint.read_choice(workdir) if model.origin == "best" else None) or {"step": model.step}
    to.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target: nothing of an earlier export is touched before all files are there.
    with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as scratch:
        folder = pathlib.Path(scratch)
        about = {"format": FORMAT, "format_version": VERSION, "config_sha256": config_hash(config)}
        checkpoint.write_json(folder / "config.json", config)
        if only_trained:
            outputs, tower = write_delta(model, choice, folder), None
        else:
            outputs, tower = write_whole(model, {**about, "choice": choice}, folder)
        (folder / "README.md").write_text(describe(workdir, model, config, outputs, tower, only_trained))
        sums = {name: _sha256(folder / name) for name in (*FILES, *DELTA_FILES) if (folder / name).exists()}
        checkpoint.write_json(folder / MANIFEST, {**about, "sha256": sums})
        _move(folder, to)
    return sums


def write_whole(model, about, folder) -> tuple[list[str], dict | None]:
    """Write the files that need nothing else. Returns (names of what the detector gives, `clip_vision_config`).

    about: what `model.safetensors` says of itself, a JSON object.
    """
    flat = flat_variables(model.params)
    # One entry: safetensors writes several in an order of chance, and the same weights shall give the same bytes.
    _save(flat, folder / checkpoint.WHOLE, {"about": json.dumps(about)})
    backbone = clip_backbone(model.config, flat)
    if backbone is not None:
        # transformers reads files of this "format" alone.
        _save(backbone, folder / "backbone.safetensors", {"format": "pt"})
    artifact = make_artifact(model)
    (folder / "model.stablehlo").write_bytes(artifact.serialize())
    (folder / "run.py").write_text(RUN)
    outputs = jax.tree.unflatten(artifact.out_tree, artifact.out_avals)
    return list(outputs), None if backbone is None else clip_vision_config(model.config)


def write_delta(model, choice, folder) -> list[str]:
    """Write what was trained, as `checkpoint.save_best` does. Returns the names of what the detector gives.

    choice: {"step": int, ...}, of `checkpoint.read_choice`.
    """
    held = set(model.base.names)
    flat = trees.flatten(model.params)
    arrays = {name: np.asarray(jax.device_get(value)) for name, value in flat.items() if name not in held}
    data = checkpoint.best_bytes(model.step, arrays, choice, delta.published(model.base))
    checkpoint.write_bytes(folder / checkpoint.DELTA, data)
    image = jax.ShapeDtypeStruct((1, *detector.example(model.config)["image"]), np.uint8)
    return list(jax.eval_shape(detector.make_score(model.config), model.params, {"image": image}))


def check_target(to) -> None:
    """Raise FileExistsError unless `to` can be written: not there, empty, or an export of this program."""
    to = pathlib.Path(to)
    if to.exists() and not to.is_dir():
        raise FileExistsError(f"--to={to} is a file; name a folder")
    if not to.is_dir() or not any(to.iterdir()):
        return
    try:
        found = json.loads((to / MANIFEST).read_text()).get("format")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != FORMAT:
        raise FileExistsError(
            f"--to={to} is not empty and holds no export of this program ({MANIFEST} with format {FORMAT!r}), so "
            "nothing in it is replaced: name a new folder, or empty this one"
        )


def flat_variables(weights) -> dict[str, np.ndarray]:
    """{"params/...", "batch_stats/...": float32 array} of {"params", "model_state"}."""
    flat = trees.flatten({"params": weights["params"], **weights["model_state"]})
    return {name: np.asarray(jax.device_get(value), np.float32) for name, value in flat.items()}


def clip_backbone(config, flat) -> dict[str, np.ndarray] | None:
    """{name in Hugging Face's CLIPVisionModel: array} of the backbone; None where it is no CLIP ViT.

    config: the experiment. flat: {our flat name: array}. A ViT that has other parameters than CLIP's (no LayerNorm
    before the blocks, factors in place of kernels) is none either.
    """
    if config.model.get("variant") not in clip.VARIANTS or config.model.get("family", "clip") != "clip":
        return None
    entries = clip_names.hf_clip(config.model.variant, text=False)
    ours = {name for name in flat if name.split("/")[1] == "backbone"}
    if ours != {entry.ours for entry in entries.values()}:
        return None
    return table.to_theirs(flat, entries)


def clip_vision_config(config) -> dict[str, int | float | str]:
    """Fields of transformers' CLIPVisionConfig for the backbone that `clip_backbone` gives."""
    size = clip.get_variant(config.model.variant)
    options = config.model.get("options") or {}
    quick, tanh = options.get("quick_gelu", True), options.get("tanh_gelu", False)
    return {
        "hidden_size": size.width,
        "intermediate_size": layers.MLP_RATIO * size.width,
        "num_hidden_layers": size.depth,
        "num_attention_heads": size.heads,
        "image_size": config.model.image_size,
        "patch_size": size.patch,
        "hidden_act": "quick_gelu" if quick else "gelu_pytorch_tanh" if tanh else "gelu",
        "layer_norm_eps": options.get("norm_eps", layers.LAYER_NORM_EPS),
    }


def describe(workdir, model, config, outputs, tower, only_trained=False) -> str:
    """The model card, from what the workdir says of itself."""
    read = lambda name: json.loads((workdir / name).read_text()) if (workdir / name).exists() else None
    return model_card.write_card(
        config,
        step=model.step,
        origin=model.origin,
        choice=checkpoint.read_choice(workdir) if model.origin == "best" else None,
        results=read("results.json"),
        versions={"training": read("versions.json"), "export": checkpoint.versions()},
        num_parameters=trees.count_parameters(model.params["params"]),
        outputs=tuple(outputs),
        tower=tower,
        base=None if model.base is None else delta.published(model.base).trees,
        only_trained=only_trained,
    )


def make_artifact(model) -> jax.export.Exported:
    """The detector as a `jax.export.Exported`: uint8 RGB [b, S, S, 3] -> {"score": [b], ...} as `detector.make_score`.

    S is config.data.image_size, b any size >= 1. Conversion to float, resizing to the model's own size, normalisation
    and the weights are inside. Read back from a file: `jax.export.deserialize(bytearray(...)).call(images)`.
    """
    num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    if num_bytes > MAX_ARTIFACT_BYTES:
        raise ValueError(
            f"the weights take {num_bytes:,} bytes; jax.export holds {MAX_ARTIFACT_BYTES:,} at most, so "
            "this detector cannot be exported: use its workdir"
        )
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *detector.example(model.config)["image"]), np.uint8)
    score = detector.make_score(model.config)
    whole = jax.jit(lambda images: score(model.params, {"image": images}))
    return jax.export.export(whole, platforms=PLATFORMS)(images)


def config_hash(config) -> str:
    """SHA-256 of a config (dict of JSON values), whatever the order of its fields."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _save(tensors, path, metadata):
    save_file(tensors, path, metadata)
    # safetensors writes for the owner alone; what is exported is for others.
    path.chmod(0o644)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _move(folder, to):
    """The files of `folder` into `to`, in place of an earlier export; the manifest goes first and comes last."""
    to.mkdir(exist_ok=True)
    for name in (MANIFEST, *FILES, *DELTA_FILES):
        (to / name).unlink(missing_ok=True)
    for name in (*FILES, *DELTA_FILES, MANIFEST):
        if (folder / name).exists():
            os.replace(folder / name, to / name)


def define_flags(values=flags.FLAGS) -> None:
    """Defines the flags of the command; not at import, where they clash with those of other commands."""
    command.define_path("workdir", None, "Folder of a training run.", workdir=True, required=True, flag_values=values)
    command.define_path("to", None, "Folder for the exported files.", required=True, flag_values=values)
    flags.DEFINE_bool(
        "delta", False, "What was trained alone, for those who have the base that it says.", flag_values=values
    )


def main(argv) -> int:
    """Export one workdir. Returns the exit code: 0, or 1 with one line that says why."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {argv[1:]}")
    # The checkpoint library reports every step of a restore; --verbosity=0 shows them.
    if "verbosity" in values and not values["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        sums = export_workdir(values.workdir, values.to, values.delta)
    except (ValueError, OSError) as error:
        if logging.get_verbosity() >= logging.DEBUG:
            raise
        logging.error("%s: %s", type(error).__name__, error)
        return 1
    for name in sorted(sums):
        print(f"{sums[name]}  {name}")
    print(f"exported to {values.to}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    define_flags()
    app.run(main)
