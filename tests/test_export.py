"""What leaves a workdir: the same names and numbers, one artifact for any batch that runs without this project."""

import ast
import hashlib
import json
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import torch_reference
from absl import flags
from safetensors import safe_open
from safetensors.numpy import load_file
from tiny import tiny_config

from msddf_jax import checkpoint, detector, export, inference, trees
from msddf_jax.faces import image_file
from msddf_jax.models import clip
from msddf_jax.opencv import cv2

SIZE = 48  # of the crops; the ViT's own is 64, so the artifact resizes


def make_workdir(folder, config, choice):
    """A workdir as training leaves it; parameters from NumPy, which cost no compilation and are all different."""
    rng = np.random.default_rng(0)
    draw = lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), jnp.float32)
    checkpoint.save_config(folder, config)
    checkpoint.save_best(folder, 7, jax.tree.map(draw, detector.weight_shapes(config)), choice)
    return folder


@pytest.fixture(scope="module")
def config():
    config = tiny_config("data").unlock()
    config.data.image_size = SIZE
    # Halves the time to compile; the frequency adapter, with its FFT, stays.
    config.model.use_boundary, config.model.num_identities = False, 0
    return config.lock()


@pytest.fixture(scope="module")
def exported(config, tmp_path_factory):
    """(workdir, folder of its export)."""
    workdir = make_workdir(tmp_path_factory.mktemp("export") / "run", config, {"val/frame_auc": 0.8125})
    about = {"step": 7, "weights": "best", "select": config.select.to_dict(), "versions": {}}
    figures = {"val/video_auc": 0.75, "toy_swap/video_auc": 0.625, "toy_swap/frame_auc": float("nan")}
    checkpoint.write_json(workdir / "results.json", {**figures, "_about": about})
    export.export_workdir(workdir, workdir.parent / "out")
    return workdir, workdir.parent / "out"


@pytest.fixture(scope="module")
def model(exported):
    return inference.load_for_inference(exported[0])


def crops(count):
    return np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def test_names_and_values_are_the_checkpoints(exported, model):
    saved = load_file(exported[1] / "model.safetensors")
    there = trees.flatten({"params": model.params["params"], **model.params["model_state"]})
    assert set(saved) == set(there) and "params/backbone/block_0/ln_1/scale" in saved
    for name, value in there.items():
        assert saved[name].dtype == np.float32
        np.testing.assert_array_equal(saved[name], value, err_msg=name)
    config = json.loads((exported[1] / "config.json").read_text())
    assert config == json.loads((exported[0] / "config.json").read_text())
    with safe_open(exported[1] / "model.safetensors", framework="numpy") as file:
        about = json.loads(file.metadata()["about"])
    choice = {"step": 7, "val/frame_auc": 0.8125}
    hashed = export.config_hash(config)
    assert about == {"format": export.FORMAT, "format_version": 1, "config_sha256": hashed, "choice": choice}
    assert export.config_hash(dict(reversed(config.items()))) == export.config_hash(config)
    assert export.config_hash(config | {"seed": 1}) != export.config_hash(config)


def test_the_manifest_has_the_sum_of_every_file(exported):
    manifest = json.loads((exported[1] / "manifest.json").read_text())
    there = {path.name for path in exported[1].iterdir()}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in exported[1].iterdir())
    assert there == {"manifest.json", *manifest["sha256"]} == {"manifest.json", *export.FILES}
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((exported[1] / name).read_bytes()).hexdigest() == digest
    assert manifest["format"] == export.FORMAT
    assert not [path for path in exported[1].parent.iterdir() if path.name not in ("run", "out")]


@pytest.mark.long
def test_one_artifact_gives_what_predict_gives_for_any_batch(exported, model):
    artifact = jax.export.deserialize(bytearray((exported[1] / "model.stablehlo").read_bytes()))
    assert set(artifact.platforms) == {"cpu", "cuda", "tpu"}
    images = crops(7)
    expected = model.predict_fn(model.params, {"image": images})
    assert np.ptp(expected["score"]) > 1e-4  # the images matter
    for count in (1, 3, 7):
        got = artifact.call(images[:count])
        assert set(got) == set(expected) == {"score", "map", "type", "regions", "strength", "feature"}
        for name in expected:
            assert got[name].shape == (count, *expected[name].shape[1:])
            np.testing.assert_allclose(got[name], expected[name][:count], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="shape"):
        artifact.call(np.zeros((1, 64, 64, 3), np.uint8))


# Refuses this project's packages and all that only it needs, as a machine without them would.
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"msddf_jax", "flax", "optax", "orbax", "safetensors", "ml_collections"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
try:
    import msddf_jax
except ModuleNotFoundError:
    import runpy
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_alone(folder, *arguments, cwd):
    command = [sys.executable, "-I", "-c", BLOCK, str(folder / "run.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_the_example_runs_where_this_project_is_not(exported, model, tmp_path):
    images, paths = crops(7), [tmp_path / name for name in ("a.npy", "b.png", "c.png")]
    np.save(paths[0], images[0])
    for path, image in zip(paths[1:], images[1:3], strict=True):
        PIL.Image.fromarray(image).save(path)
    done = run_alone(exported[1], *paths, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [name for _, name in scores] == [str(path) for path in paths]
    expected = model.predict_fn(model.params, {"image": images})["score"][:3]
    # Printed with seven decimals.
    np.testing.assert_allclose([float(score) for score, _ in scores], expected, rtol=0, atol=1.1e-6)
    source = (exported[1] / "run.py").read_text()
    compile(source, "run.py", "exec")
    assert len([line for line in source.splitlines() if line.strip()]) <= 45


def _read_of_the_example():
    """The function of run.py that reads files, without the model that its other lines load."""
    functions = [node for node in ast.parse(export.RUN).body if isinstance(node, ast.FunctionDef)]
    space = {"np": np, "sys": sys, "side": SIZE}
    exec(compile(ast.Module(functions, []), "run.py", "exec"), space)
    return space["read"]


def _odd_crops(folder):
    """Crops in the forms that image files come in: {name: path}."""
    rgb = crops(1)[0]
    grey = rgb[..., 1].astype(np.uint16) * 256 + rgb[..., 0]
    paths = {}

    def save(name, image, **keys):
        paths[name] = folder / name
        if isinstance(image, np.ndarray) and image.dtype == np.uint16 and image.ndim == 3:
            assert cv2.imwrite(str(paths[name]), image)  # Pillow writes no colour of 16 bits
        else:
            image = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
            image.save(paths[name], **keys)

    for turn in range(1, 9):
        exif = PIL.Image.Exif()
        exif[0x0112] = turn
        save(f"turned{turn}.jpg", rgb, exif=exif, quality=95)
        save(f"turned{turn}.png", grey, exif=exif)
    whole = PIL.Image.fromarray(rgb)
    for mode in ("RGB", "L", "LA", "RGBA", "P", "1"):
        save(f"{mode}.png", whole.convert(mode))
    save("cmyk.jpg", whole.convert("CMYK"))
    save("grey16.tif", grey)
    save("12in16.png", grey >> 4)
    save("5in16.png", grey >> 11)
    save("black16.png", 0 * grey)
    save("int32.tif", grey.astype(np.int32))
    for name, scale in (("float1", 1 / 255), ("float255", 1), ("nan", np.nan), ("negative", -1 / 255)):
        save(f"{name}.tif", (rgb[..., 0] * scale).astype(np.float32))
    deep = rgb.astype(np.uint16) * 257
    for suffix in ("png", "tif"):
        save(f"colour16.{suffix}", deep)
        save(f"colour12in16.{suffix}", deep >> 4)
        save(f"colour7in16.{suffix}", deep >> 9)
    return paths


def test_the_example_reads_images_as_predict_does(tmp_path):
    read, refused = _read_of_the_example(), set()
    for name, path in _odd_crops(tmp_path).items():
        try:
            expected = image_file.read_image(path)
        except image_file.ImageError as error:
            refused.add(name)
            assert error.code == "image_depth"
            with pytest.raises(SystemExit, match=f"{name}: numbers of more than 8 bits"):
                read(str(path))
        else:
            np.testing.assert_array_equal(read(str(path)), expected, err_msg=name)
    assert refused == {
        "12in16.png", "5in16.png", "int32.tif", "float255.tif", "nan.tif", "negative.tif", "colour12in16.png",
        "colour7in16.png", "colour12in16.tif", "colour7in16.tif",
    }  # fmt: skip
    # They are not all alike: a turned one differs, and 16 bits are the 8 above.
    assert np.ptp(read(str(tmp_path / "turned1.png"))) > 200
    assert (read(str(tmp_path / "turned6.jpg")) != read(str(tmp_path / "turned1.jpg"))).any()


def test_the_example_refuses_a_crop_of_another_size(exported, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((8, 8, 3), np.uint8))
    done = run_alone(exported[1], tmp_path / "a.npy", cwd=tmp_path)
    assert done.returncode == 1 and f"expected a uint8 RGB crop {SIZE} x {SIZE}, got uint8 (8, 8, 3)" in done.stderr


def test_the_backbone_is_transformers_clip(exported, model):
    torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")
    torch_reference.prepare()
    from transformers import CLIPVisionConfig, CLIPVisionModel

    fields = export.clip_vision_config(model.config)
    saved = load_file(exported[1] / "backbone.safetensors")
    theirs, report = CLIPVisionModel.from_pretrained(
        None,
        config=CLIPVisionConfig(**fields),
        state_dict={name: torch.from_numpy(value) for name, value in saved.items()},
        output_loading_info=True,
    )
    assert not any(report.values()), report
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    pixels = (images - np.float32(clip.PIXEL_MEAN)) / np.float32(clip.PIXEL_STD)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())).pooler_output.numpy()
    ours = clip.VisionTransformer("Mu/8", 64)
    got = ours.apply({"params": model.params["params"]["backbone"]}, images)["cls"]
    assert np.abs(got - expected).max() / np.abs(expected).max() <= 1e-4
    # The card says how to do the same.
    card = (exported[1] / "README.md").read_text()
    assert f"CLIPVisionConfig({', '.join(f'{k}={v!r}' for k, v in fields.items())})" in card


def test_a_backbone_that_is_no_clip_is_not_written_under_its_names(config, model):
    flat = export.flat_variables(model.params)
    assert export.clip_backbone(model.config, flat) is not None
    factors = {**flat, "params/backbone/block_0/attn/query/factor": np.zeros(1, np.float32)}
    assert export.clip_backbone(model.config, factors) is None
    other = config.copy_and_resolve_references().unlock()
    other.model.family = "xception"
    assert export.clip_backbone(other, flat) is None


def test_an_earlier_export_is_replaced_and_nothing_else(exported, config, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "make_artifact", lambda model: FakeArtifact())
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    for target, message in ((tmp_path / "own", "is not empty"), (tmp_path / "own" / "notes.txt", "is a file")):
        with pytest.raises(FileExistsError, match=message):
            export.export_workdir(exported[0], target)
    with pytest.raises(FileExistsError, match="is not empty"):
        export.export_workdir(exported[0], exported[0])
    assert (tmp_path / "own" / "notes.txt").read_text() == "mine"
    first = export.export_workdir(exported[0], tmp_path / "new" / "out")
    (tmp_path / "new" / "out" / "notes.txt").write_text("mine")
    assert export.export_workdir(exported[0], tmp_path / "new" / "out") == first
    assert {p.name for p in (tmp_path / "new" / "out").iterdir()} == {"manifest.json", "notes.txt", *export.FILES}

    def full(*_):
        raise OSError(28, "No space left on device")

    before = {p.name: p.read_bytes() for p in (tmp_path / "new" / "out").iterdir()}
    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        export.export_workdir(exported[0], tmp_path / "new" / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "new" / "out").iterdir()} == before
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out"]


def test_weights_that_the_format_cannot_hold_are_refused_at_once(config):
    # Shapes alone: nothing is traced or allocated before the check.
    leaf = np.broadcast_to(np.float32(0), (2**29,))
    with pytest.raises(ValueError, match="take 2,147,483,648 bytes"):
        export.make_artifact(inference.Inference(config, None, {"params": leaf}, 0, "best"))


class FakeArtifact:
    """Stands for `jax.export.Exported` where what it computes does not matter."""

    out_tree = jax.tree.structure({"score": 0})
    out_avals = (jax.ShapeDtypeStruct((1,), np.float32),)

    def serialize(self):
        return b"artifact"


def call_main(monkeypatch, *arguments):
    values = flags.FlagValues()
    export.define_flags(values)
    rest = values(["export", *map(str, arguments)])
    monkeypatch.setattr(export.flags, "FLAGS", values)
    return export.main(rest)


def test_the_command_says_what_it_wrote_or_why_not(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "make_artifact", lambda model: FakeArtifact())
    lines = []
    monkeypatch.setattr(export.logging, "error", lambda text, *args: lines.append(text % args))
    assert call_main(monkeypatch, f"--workdir={exported[0]}", f"--to={tmp_path / 'out'}") == 0
    digest = hashlib.sha256(b"artifact").hexdigest()
    assert f"{digest}  model.stablehlo" in capsys.readouterr().out.splitlines()
    assert call_main(monkeypatch, f"--workdir={tmp_path}", f"--to={tmp_path / 'other'}") == 1
    assert "no config.json" in lines[-1] and not (tmp_path / "other").exists()
    assert call_main(monkeypatch, f"--workdir={exported[0]}", f"--to={exported[0]}") == 1
    assert lines[-1].startswith("FileExistsError") and "name a new folder" in lines[-1]
    assert call_main(monkeypatch, f"--workdir={exported[0]}", f"--to={tmp_path / 'small'}", "--delta") == 1
    assert "export without --delta" in lines[-1] and "\n" not in lines[-1] and not (tmp_path / "small").exists()


def test_the_card_says_where_each_figure_is_from(exported):
    card = (exported[1] / "README.md").read_text()
    assert card.startswith("---\n") and "# msddf Mu/8: deepfake detector" in card
    assert "best by val/frame_auc = 0.8125, split `validation` of `faceforensics/toy`" in card
    rows = {line.split(" | ")[0]: line for line in card.splitlines() if line.startswith("| ")}
    assert rows["| toy_swap"] == "| toy_swap | faceforensics/toy | test | methods `toy_swap` | 62.5 | - | - | - | - |"
    assert "| validation |" in rows["| val"] and "75.0" in rows["| val"]
    assert "Trained on `faceforensics/toy`, split `train`, methods `toy_neural`, `toy_texture`" in card
    assert "recipe `msddf`" in card and "training started from random weights" in card
    assert f"[b, {SIZE}, {SIZE}, 3]" in card and f"| jax | {jax.__version__} | {jax.__version__} |" in card
    assert "is no proof" in card
