"""Published MesoNet files against a forward pass in plain NumPy, and files of their layouts written here."""

import functools
import http.server
import os
import pathlib
import threading

import h5py
import jax.numpy as jnp
import keras_meso
import meso_reference as reference
import numpy as np
import pytest
from safetensors.numpy import save_file

from msddf_jax import checkpoint, detector, inference
from msddf_jax.weights import __main__ as command
from msddf_jax.weights import hub, identify, load_initial, published, torch_file
from msddf_jax.weights.names import meso_names

PUBLISHED = pathlib.Path(os.environ.get("MSDDF_MODELS", "/nowhere"), "published")
# Of a pixel in [0, 255] the network's input, and the sign of P(fake)'s log-odds in its output.
INPUTS = {"meso/keras": lambda p: p / 255, "meso/keras_ffpp": lambda p: p / 127.5 - 1}
SIGNS = {"meso/keras": -1, "meso/keras_ffpp": 1}


@pytest.fixture(scope="module")
def images():
    """[2, 256, 256, 3] uint8: patches of one colour, of many sizes, with noise."""
    rng = np.random.default_rng(0)
    out = np.zeros((2, 256, 256, 3))
    for side in (4, 8, 32, 64):
        small = rng.uniform(-40, 40, (2, 256 // side, 256 // side, 3))
        out += small.repeat(side, 1).repeat(side, 2)
    return np.clip(128 + out + rng.normal(0, 5, out.shape), 0, 255).astype(np.uint8)


def _read(path):
    """{kind: [arrays of each layer]} of a Keras file, float64, by the numbers in its names."""
    layers = {}
    with h5py.File(path) as file:
        names = [name.decode() for name in file.attrs["layer_names"]]
        for name in sorted(names, key=lambda name: int(name.rsplit("_", 1)[1])):
            values = [np.asarray(file[name][weight], np.float64) for weight in file[name].attrs["weight_names"]]
            if values:
                layers.setdefault(name.rsplit("_", 1)[0], []).append(values)
    return layers


def _logit(workdir, images):
    """(log-odds of P(fake), score) of a workdir on stored crops, as predict scores them."""
    model = inference.load_for_inference(workdir)
    variables = {"params": model.params["params"], **model.params["model_state"]}
    rows = {"image": jnp.asarray(images, jnp.float32) / 255}
    logit = detector.make_model(model.config).apply(variables, rows, train=False)["logit"]
    return np.asarray(logit), np.asarray(model.predict_fn(model.params, {"image": jnp.asarray(images)})["score"])


def _compare(workdir, images, expected):
    logit, score = _logit(workdir, images)
    np.testing.assert_allclose(logit, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(score, 1 / (1 + np.exp(-np.asarray(expected))), atol=1e-5)


@pytest.mark.parametrize(("variant", "kind"), [("meso4", "meso/keras"), ("meso_inception4", "meso/keras_ffpp")])
def test_a_keras_file_equals_a_numpy_forward_pass(tmp_path, images, variant, kind):
    layers = keras_meso.drawn(variant)
    keras_meso.write(tmp_path / "m.h5", layers, first=5 if variant == "meso4" else 0)
    said = command.convert(f"{tmp_path}/m.h5#format={kind}", tmp_path / "run")
    assert f"{kind}, detector (baseline), meso {variant}" in said[0]
    assert any("scores here are always of a fake" in line for line in said)
    output = reference.keras_logit(layers, variant, INPUTS[kind](images.astype(np.float64)))
    _compare(tmp_path / "run", images, SIGNS[kind] * output)
    # The two formats differ on this file, and by more than the side of the score.
    other = next(k for k in INPUTS if k != kind)
    difference = reference.keras_logit(layers, variant, INPUTS[other](images.astype(np.float64))) - output
    assert np.abs(difference).min() > 0.01


@pytest.mark.parametrize("name", [name for name in meso_names.FILES if name.endswith(".h5")])
def test_published_keras_files(tmp_path, images, name):
    _need(name)
    said = command.convert(str(PUBLISHED / name), tmp_path / "run")
    kind = meso_names.FILES[name][1]
    assert f"its sha-256 says that it is {kind}" in said[3]
    layers = _read(PUBLISHED / name)
    variant = "meso4" if name.startswith("Meso4") else "meso_inception4"
    output = reference.keras_logit(layers, variant, INPUTS[kind](images.astype(np.float64)))
    _compare(tmp_path / "run", images, SIGNS[kind] * output)


def _need(name):
    if not (PUBLISHED / name).is_file():
        pytest.skip(f"{name} is a published file: put it into $MSDDF_MODELS/published")


def test_the_published_file_of_the_pytorch_port(tmp_path, images):
    name = "mesoinception_torch_port.pth"
    _need(name)
    command.convert(str(PUBLISHED / name), tmp_path / "run")
    tensors = {n: t.read() for n, t in torch_file.open_torch(PUBLISHED / name).items()}
    _compare(tmp_path / "run", images, _first_minus_second(tensors, images))


def _first_minus_second(tensors, images):
    """Log-odds of the first output, which is the fake's in the published file: its AUC on real fakes says so."""
    tensors = {name: np.asarray(value, np.float64) for name, value in tensors.items()}
    outputs = reference.torch_logits(tensors, "meso_inception4", images / 127.5 - 1)
    return outputs[:, 0] - outputs[:, 1]


def _port():
    """{name: array} of MesoInception-4 by the PyTorch port's names."""
    rng = np.random.default_rng(1)
    shapes = meso_names.port_table("meso_inception4", head="params/binary_head/out")
    kernels = [name for name in shapes if "bn" not in name and name.endswith("weight")]
    sizes = iter(keras_meso.CONVS["meso_inception4"])
    out = {}
    for name in kernels:
        shape = {"fc1.weight": (16, 1024), "fc2.weight": (2, 16)}.get(name) or next(sizes)[::-1]
        out[name] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)
    for norm, width in (("Incption1_bn", 11), ("Incption2_bn", 12), ("bn1", 16)):
        for part, centre in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            out[f"{norm}.{part}"] = rng.normal(centre, 0.1, width).astype(np.float32)
    return out | {"fc1.bias": np.ones(16, np.float32), "fc2.bias": np.array([0.5, -0.25], np.float32)}


def test_the_pytorch_port_in_both_orders_of_its_classes(tmp_path, images):
    tensors = _port()
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"meso/pytorch \(.*outputs \(real, fake\)\) or meso/pytorch_fake_first"):
        command.convert(str(tmp_path / "m.safetensors"))
    expected = _first_minus_second(tensors, images)
    for kind, sign in (("meso/pytorch", -1), ("meso/pytorch_fake_first", 1)):
        workdir = tmp_path / kind.split("/")[1]
        command.convert(f"{tmp_path}/m.safetensors#format={kind}", workdir)
        _compare(workdir, images, sign * expected)


def test_a_file_that_no_digest_knows_has_to_be_named(tmp_path):
    keras_meso.write(tmp_path / "m.h5", keras_meso.drawn("meso4"))
    with pytest.raises(ValueError, match=r"meso/keras \(.*\[0, 1\].*means real\) or meso/keras_ffpp \(.*means fake\)"):
        command.convert(str(tmp_path / "m.h5"))
    with pytest.raises(ValueError, match="is not recognised as meso/pytorch"):
        command.convert(f"{tmp_path}/m.h5#format=meso/pytorch")


def test_a_published_file_is_not_read_as_another_format(tmp_path, monkeypatch):
    path = keras_meso.write(tmp_path / "m.h5", keras_meso.drawn("meso4"))
    monkeypatch.setitem(meso_names.FILES, "m.h5", (hub.sha256(path), "meso/keras"))
    said = command.convert(str(path), tmp_path / "run")
    assert "its sha-256 says that it is meso/keras; its names and shapes leave others" in said
    assert not [line for line in said if line.startswith("assumed")]
    with pytest.raises(ValueError, match=r"published as meso/keras .*something else than meso/keras_ffpp"):
        command.convert(f"{path}#format=meso/keras_ffpp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"without": ("batch_normalization_3",)}, r"missing batch_normalization_3/beta; missing .*gamma"),
        ({"more": ("conv2d_5",)}, r"unexpected conv2d_5/kernel"),
    ],
)
def test_a_layer_too_few_or_too_many_is_named_in_one_line(tmp_path, change, message):
    keras_meso.write(tmp_path / "m.h5", keras_meso.drawn("meso4"), **change)
    with pytest.raises(ValueError, match=message) as error:
        command.convert(f"{tmp_path}/m.h5#format=meso/keras")
    assert "\n" not in str(error.value)


def test_a_keras_backbone_starts_only_the_form_it_was_trained_in(tmp_path):
    from ml_collections import ConfigDict

    from msddf_jax.models import meso

    keras_meso.write(tmp_path / "m.h5", keras_meso.drawn("meso4"))
    options = {**meso.KERAS, "pixel_mean": (0.0,) * 3, "pixel_std": (1.0,) * 3}
    model = {"family": "meso", "variant": "meso4", "image_size": 256, "options": options}
    config = ConfigDict({"init": {"backbone": f"{tmp_path}/m.h5#format=meso/keras"}, "model": model})
    shapes = load_initial.backbone_shapes("meso", "meso4", 256, options)
    assert set(load_initial.load(config, shapes)[0]) == set(shapes)
    config.model.options = {}
    with pytest.raises(ValueError, match=r"trained with shared_norm=False.*the config's backbone has True"):
        load_initial.load(config, load_initial.backbone_shapes("meso", "meso4", 256, {}))


def test_the_papers_parameter_counts():
    # The paper's table counts what is trained.
    for variant, count in (("meso4", 27_977), ("meso_inception4", 28_615)):
        layers = keras_meso.drawn(variant)
        trained = [
            a for kind, sets in layers.items() for values in sets for a in values[: 2 if "norm" in kind else None]
        ]
        assert sum(a.size for a in trained) == count
        table = meso_names.keras_table(variant, "params/binary_head/out", "real")
        assert len(table) == sum(len(values) for sets in layers.values() for values in sets)


def test_a_short_name_is_fetched_into_a_workdir(tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    path = keras_meso.write(tmp_path / "site/Meso4_DF.h5", keras_meso.drawn("meso4"))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=path.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(hub, "CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MSDDF_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    address = f"http://127.0.0.1:{server.server_port}/Meso4_DF.h5"
    known = published.DETECTORS["mesonet/meso4_df"].partition("#")[2]
    monkeypatch.setitem(published.DETECTORS, "mesonet/meso4_df", f"{address}#{known}")
    try:
        # The site's file is not the published one.
        with pytest.raises(ValueError, match=r"has sha-256 \w{64}; .* is to have 036ed30d04ff"):
            command.convert("mesonet/meso4_df")
        reference_ = f"{address}#sha256={hub.sha256(path)}&format=meso/keras"
        monkeypatch.setitem(published.DETECTORS, "mesonet/meso4_df", reference_)
        said = command.convert("mesonet/meso4_df", tmp_path / "run")
    finally:
        server.shutdown()
        server.server_close()
    assert said[0].startswith(f"{tmp_path}/cache/Meso4_DF.h5: meso/keras, detector (baseline), meso meso4")
    config = checkpoint.load_config(tmp_path / "run")
    assert (config.model.family, config.model.image_size, config.dtype) == ("meso", 256, "float32")
    assert tuple(config.model.options.pixel_std) == (1.0,) * 3 and not config.model.options.shared_norm


def test_short_names(tmp_path, monkeypatch):
    for name, text in published.DETECTORS.items():
        reference_ = hub.parse(text)
        file = pathlib.PurePosixPath(reference_.source).name
        assert meso_names.FILES[file] == (reference_.sha256, reference_.format)
        assert reference_.format in identify.known_formats()
        assert name.removeprefix("mesonet/").replace("_", "") == file.removesuffix(".h5").replace("_", "").lower()
    monkeypatch.chdir(tmp_path)
    assert published.resolve("mesonet/meso4_df").startswith("https://raw.githubusercontent.com/DariusAf/MesoNet/")
    assert published.resolve("mesonet/other") == "mesonet/other"
    (tmp_path / "mesonet/meso4_df").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"is a path here and the short name of .*write \./mesonet/meso4_df"):
        published.resolve("mesonet/meso4_df")
